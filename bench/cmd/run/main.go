// Command run measures Bedplate beside its peers and beside a net/http handler
// that does nothing, in one interleaved run on this machine.
//
//	go run ./cmd/run              # everything: about 25 minutes
//	go run ./cmd/run -quick       # Bedplate and the bare handler only
//	go run ./cmd/run -only create,read -rounds 5 -out results
//
// It builds all programs, seeds one data directory per engine, starts every
// server on a private copy of it, and then visits the servers in turn: for
// each workload and number of connections a short slot with each of them, in
// one order in odd rounds and in the reverse order in even ones. A number in
// the tables is the median of its slots. Load from elsewhere and a changing
// clock rate thus meet all servers alike, and the ratios hold even where the
// absolute numbers do not.
//
// The steadiest number is the server's CPU time per request. Requests per
// second contain the load generator's share of the same CPUs.
//
// Everything it starts and creates, it ends and removes, the results
// directory given with -out excepted.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	// Children are to die with this process, which the kernel ties to the
	// thread that started them.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	quick   bool
	peers   bool
	rounds  int
	slot    time.Duration
	warm    time.Duration
	only    []string
	servers []string
	fit     int // most subscribers, by the limit of open files
	out     string
	check   bool
	slack   float64
	profile string
}

func parseFlags() (options, error) {
	var o options
	var only, names string
	var err error
	flag.BoolVar(&o.quick, "quick", false, "the bare handler and Bedplate only, at 1 and 64 connections")
	flag.BoolVar(&o.peers, "peers", true, "measure the peers too")
	flag.IntVar(&o.rounds, "rounds", 0, "visits to each server per workload (default 3, quick 2)")
	flag.DurationVar(&o.slot, "slot", 1500*time.Millisecond, "time to measure per visit")
	flag.DurationVar(&o.warm, "warm", 400*time.Millisecond, "time to run before measuring")
	flag.StringVar(&only, "only", "", "parts to run, comma separated: "+strings.Join(parts, " ")+" (default all)")
	flag.StringVar(&names, "servers", "", "servers to measure, comma separated (default all)")
	flag.StringVar(&o.out, "out", "", "directory for report.md and results.jsonl (default none: print only)")
	flag.BoolVar(&o.check, "check", false, "exit with status 1 when a gate is missed")
	flag.Float64Var(&o.slack, "slack", 0, "loosen every gate by this fraction, for noisy machines")
	flag.StringVar(&o.profile, "profile", "", "directory for a CPU profile of Bedplate under each workload, taken after the rounds")
	flag.Parse()
	if flag.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if o.quick {
		o.peers = false
	}
	switch {
	case o.rounds < 0:
		return o, errors.New("-rounds is negative")
	case o.rounds == 0 && o.quick:
		o.rounds = 2
	case o.rounds == 0:
		o.rounds = 3
	}
	if o.fit, err = subscribersFit(); err != nil {
		return o, err
	}
	if names != "" {
		o.servers = strings.Split(names, ",")
	}
	o.only = parts
	if only != "" {
		o.only = strings.Split(only, ",")
		for _, part := range o.only {
			if !slices.Contains(parts, part) {
				return o, fmt.Errorf("-only: unknown part %q", part)
			}
		}
	}
	return o, nil
}

func run(ctx context.Context) (err error) {
	o, err := parseFlags()
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()

	started := time.Now()
	servers := serversFor(o)
	if len(servers) == 0 {
		return errors.New("-servers and -peers leave nobody to measure")
	}
	bin, err := build(ctx, filepath.Join(work, "bin"), servers)
	if err != nil {
		return err
	}
	lab := &lab{dir: work, bin: bin, servers: servers}
	defer lab.stopAll()
	if err := lab.seed(ctx, servers); err != nil {
		return err
	}

	rep := &report{options: o, servers: servers, machine: describeMachine(work, bin), measured: make(measured)}
	if slices.Contains(o.only, partStart) {
		if rep.starts, err = measureStarts(ctx, lab, servers, o); err != nil {
			return err
		}
	}
	slots := schedule(o, servers)
	if err := lab.startAll(ctx, loaded(slots, servers)); err != nil {
		return err
	}
	var about time.Duration
	for _, s := range slots {
		about += s.takes(o)
	}
	progress("%d slots, about %v", len(slots)*o.rounds, (about * time.Duration(o.rounds)).Round(time.Second))
	if rep.lines, err = measureSlots(ctx, lab, slots, o); err != nil {
		return err
	}
	if o.profile != "" {
		if err := profileSlots(ctx, lab, slots, o); err != nil {
			return err
		}
	}
	for _, line := range rep.lines {
		rep.measured.add(line)
	}
	rep.elapsed = time.Since(started)

	text, missed := rep.markdown()
	fmt.Print(text)
	if o.out != "" {
		if err := rep.write(o.out, text); err != nil {
			return err
		}
	}
	if o.check && missed > 0 {
		return fmt.Errorf("%d gates missed", missed)
	}
	return nil
}

// loaded returns the servers that one process each is needed of for the whole
// run.
func loaded(slots []slot, servers []server) []server {
	return slices.DeleteFunc(slices.Clone(servers), func(v server) bool {
		return !slices.ContainsFunc(slots, func(s slot) bool { return s.server == v.name && !s.streams() })
	})
}

// progress tells on standard error what is going on.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
