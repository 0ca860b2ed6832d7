// Command refserver serves record APIs over SQLite files: a demo when it is
// started without arguments, and whatever a configuration file says otherwise,
// with a sign-in if that has a section auth. The commands user and keys manage
// the accounts and keys of a server, whether or not it is running; backup and
// restore deal with copies of its databases, standby and promote with a second
// machine, and tls with the certificates; tail prints the changes of a record API of any server as they
// happen.
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
	"strconv"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

// commands is the command line.
type commands struct {
	Serve   serveCommand     `cmd:"" default:"withargs" help:"Serve record APIs over HTTP (the default command)."`
	User    userCommand      `cmd:"" help:"Manage users, also while the server runs."`
	Keys    keysCommand      `cmd:"" help:"Manage the keys that sign tokens."`
	Rules   rulesCommand     `cmd:"" help:"Check record APIs, and explain who may do what."`
	Types   typesCommand     `cmd:"" help:"Print declarations of the records of all APIs in a programming language."`
	OpenAPI openapiCommand   `cmd:"" name:"openapi" help:"Print an OpenAPI document of everything that is served."`
	Backup  backupCommand    `cmd:"" help:"Take, list and watch backups of the databases."`
	Restore restoreCommand   `cmd:"" help:"Restore databases from the replica or a local snapshot, or try whether that would work."`
	Standby standbyCommand   `cmd:"" help:"Follow the replica of another machine, ready to take over."`
	Promote promoteCommand   `cmd:"" help:"Make the server of the standby that runs in the data directory."`
	TLS     tlsCommand       `cmd:"" name:"tls" help:"Watch, renew, export and try certificates."`
	Tail    tailCommand      `cmd:"" help:"Print the changes of a record API as they happen, one JSON object a line."`
	Version kong.VersionFlag `help:"Print the version and exit."`
}

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400) // the heap is small: trade memory for processor time
	}
	// The first signal restores the default before anything else, so that a second one ends the process
	// at once, however early it comes.
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-signals
		signal.Stop(signals)
		cancel()
	}()
	if err := run(&program{ctx, os.Stdin, os.Stdout, os.Stderr}, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "refserver: %s\n", shown(err.Error()))
		os.Exit(1)
	}
}

// A program is the process around a command.
type program struct {
	ctx            context.Context
	stdin          io.Reader
	stdout, stderr io.Writer
}

// run is main without the process around it.
func run(p *program, args []string) error {
	parser, err := kong.New(new(commands), kong.Name("refserver"), kong.Description("Record APIs over SQLite."),
		kong.Writers(p.stdout, p.stderr), kong.Vars{"version": version()})
	if err != nil {
		return err
	}
	command, err := parser.Parse(args)
	if err != nil {
		return err
	}
	return command.Run(p)
}

// shown is text of several lines as a terminal may show it: some of it strangers have written, as
// the name of another machine in a replica.
func shown(text string) string {
	var b strings.Builder
	for _, r := range text {
		if r == '\n' || r == '\t' || strconv.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

// version is what the build recorded: a tag, or the commit.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version + " " + info.GoVersion
	}
	return "unknown"
}
