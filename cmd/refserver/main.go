// Command refserver serves record APIs over SQLite files: a demo when it is
// started without arguments, and whatever a configuration file says otherwise.
//
// It holds no logic that a program of one's own would miss: it turns flags,
// environment and YAML into a [bedplate.Config] and serves the result.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"
)

// commands is the command line.
type commands struct {
	Serve   serveCommand     `cmd:"" default:"withargs" help:"Serve record APIs over HTTP (the default command)."`
	Version kong.VersionFlag `help:"Print the version and exit."`
}

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400) // the heap is small: trade memory for processor time
	}
	// After the first signal the default is restored, so that a second one ends the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "refserver: %v\n", err)
		os.Exit(1)
	}
}

// run is main without the process around it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var c commands
	parser, err := kong.New(&c, kong.Name("refserver"), kong.Description("Record APIs over SQLite."),
		kong.Writers(stdout, stderr), kong.Vars{"version": version()})
	if err != nil {
		return err
	}
	if _, err := parser.Parse(args); err != nil {
		return err
	}
	return c.Serve.run(ctx, stdout, logger(stderr))
}

// version is what the build recorded: a tag, or the commit.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version + " " + info.GoVersion
	}
	return "unknown"
}
