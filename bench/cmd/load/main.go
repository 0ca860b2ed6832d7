// Command load sends requests over keep-alive connections and measures how the
// server at the other end copes.
//
// It speaks HTTP/1.1 over raw sockets from one thread with epoll, which costs
// a few microseconds per request: the machine's remaining time is left to the
// server. Each connection sends its next request when the answer to the last
// one is complete. The result is one JSON line per connection count:
//
//	load -addr 127.0.0.1:8090 -api bedplate -targets targets.json -w create -c 16,64 -pid 4242
//
// An answer other than 2xx is an error, and a line with errors is no
// measurement.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bedplate/bedplate/bench/internal/dataset"
	"github.com/bedplate/bedplate/bench/internal/proc"
	"github.com/bedplate/bedplate/bench/internal/result"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run() error {
	var (
		addr     = flag.String("addr", "127.0.0.1:8090", "address of the server, an IP and a port")
		api      = flag.String("api", "bedplate", "whose paths to use: bedplate, pocketbase or bare")
		workload = flag.String("w", "fixed", "workload: "+strings.Join(workloads, " "))
		conns    = flag.String("c", "64", "connection counts, comma separated")
		duration = flag.Duration("d", 1500*time.Millisecond, "time to measure")
		warm     = flag.Duration("warm", 400*time.Millisecond, "time to run before measuring")
		pid      = flag.Int("pid", 0, "process id of the server, for its CPU time and memory; 0: neither")
		targets  = flag.String("targets", "", "file of targets that the seeding program wrote")
		label    = flag.String("label", "", "name to repeat in the output")
		out      = flag.String("out", "", "file to append to instead of standard output")
	)
	flag.Parse()

	ap, err := netip.ParseAddrPort(*addr)
	if err != nil {
		return fmt.Errorf("-addr: %w", err)
	}
	counts, err := parseCounts(*conns)
	if err != nil {
		return err
	}
	if !slices.Contains(workloads, *workload) {
		return fmt.Errorf("-w: unknown workload %q", *workload)
	}
	var set *dataset.Targets
	if *targets != "" {
		if set, err = dataset.ReadFile(*targets); err != nil {
			return err
		}
	}
	w := os.Stdout
	if *out != "" {
		f, err := os.OpenFile(*out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		w = f
	}
	enc := json.NewEncoder(w)
	for _, n := range counts {
		res, err := measure(plan{
			addr: ap, api: *api, workload: *workload, conns: n,
			warm: *warm, duration: *duration, pid: *pid, targets: set,
		})
		if err != nil {
			return err
		}
		res.Label = *label
		if err := enc.Encode(res); err != nil {
			return err
		}
	}
	return nil
}

// parseCounts reads "1,16,64".
func parseCounts(s string) ([]int, error) {
	var counts []int
	for part := range strings.SplitSeq(s, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || n < 1 || n > maxConns {
			return nil, fmt.Errorf("-c: %q is no number from 1 to %d", part, maxConns)
		}
		counts = append(counts, n)
	}
	return counts, nil
}

// maxConns bounds the number of sockets.
const maxConns = 10_000

// measure runs one plan: connect, warm up, measure.
func measure(p plan) (result.Result, error) {
	l, err := newLoop(p)
	if err != nil {
		return result.Result{}, err
	}
	defer l.close()

	if err := l.start(); err != nil {
		return result.Result{}, err
	}
	if err := l.runUntil(time.Now().Add(p.warm)); err != nil {
		return result.Result{}, err
	}
	l.resetCounters()
	before, err := proc.Usage(p.pid)
	if err != nil {
		return result.Result{}, err
	}
	start := time.Now()
	if err := l.runUntil(start.Add(p.duration)); err != nil {
		return result.Result{}, err
	}
	elapsed := time.Since(start)
	after, err := proc.Usage(p.pid)
	if err != nil {
		return result.Result{}, err
	}

	res := result.Result{
		Workload: p.workload, Conns: p.conns, Secs: elapsed.Seconds(),
		Errs: l.errs, FirstErr: l.firstErr, ServerRSS: after.RSS,
	}
	if p.workload == mixed {
		reads, writes := result.Of(l.latencies[reading], elapsed), result.Of(l.latencies[writing], elapsed)
		res.Reads, res.Writes = &reads, &writes
	}
	res.Numbers = result.Of(slices.Concat(l.latencies[reading], l.latencies[writing]), elapsed)
	if res.Reqs == 0 {
		if res.FirstErr == "" {
			res.FirstErr = "no request was answered"
		}
		res.Errs = max(res.Errs, 1)
		return res, nil
	}
	n := float64(res.Reqs)
	res.ServerCPU = (after.Server - before.Server).Seconds() * 1e6 / n
	res.ClientCPU = (after.Client - before.Client).Seconds() * 1e6 / n
	return res, nil
}

// errTargets reports a workload that cannot be built.
var errTargets = errors.New("this workload needs -targets")
