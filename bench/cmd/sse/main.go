// Command sse subscribes many clients to one table, writes to the table, and
// measures how the server at the other end passes the news on.
//
// Like the load generator it speaks HTTP/1.1 over raw sockets from one thread
// with epoll. It reads every event of every subscriber: each carries a number,
// by which the program knows what was lost, repeated, out of order or shown to
// somebody who may not see it. The result is one JSON line per workload:
//
//	sse -addr 127.0.0.1:8090 -api bedplate -targets targets.json -n 1000 -rule -pid 4242
//
// Workloads are "trickle", one event every -gap, and "burst", events as fast as
// eight clients get their writes acknowledged. The latency of a delivery begins
// with the request that writes the event, or when that was due if all eight
// were still waiting for an answer.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/bedplate/bedplate/bench/internal/dataset"
	"github.com/bedplate/bedplate/bench/internal/proc"
	"github.com/bedplate/bedplate/bench/internal/result"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "sse:", err)
		os.Exit(1)
	}
}

// plan says who subscribes to what, and what is written.
type plan struct {
	addr        netip.AddrPort
	peer        peer
	targets     *dataset.Targets
	rule        bool
	subscribers int
	gap         time.Duration
	events      int
	duration    time.Duration
	quiet       time.Duration
	pid         int
}

// The workloads.
const (
	trickle = "trickle"
	burst   = "burst"
)

func run() error {
	var p plan
	var (
		addr      = flag.String("addr", "127.0.0.1:8090", "address of the server, an IP and a port")
		api       = flag.String("api", "bedplate", "whose protocol to speak: bedplate or pocketbase")
		workloads = flag.String("w", trickle+","+burst, "workloads, comma separated")
		targets   = flag.String("targets", "", "file of targets that the seeding program wrote")
		label     = flag.String("label", "", "name to repeat in the output")
	)
	flag.IntVar(&p.subscribers, "n", 1000, "number of subscribers")
	flag.BoolVar(&p.rule, "rule", false, "subscribe to what only members may see")
	flag.DurationVar(&p.gap, "gap", 20*time.Millisecond, "time from one event of a trickle to the next")
	flag.IntVar(&p.events, "events", 300, "most events of a burst")
	flag.DurationVar(&p.duration, "d", 1500*time.Millisecond, "longest time to write events")
	flag.DurationVar(&p.quiet, "quiet", 5*time.Second, "silence after which missing events are lost")
	flag.IntVar(&p.pid, "pid", 0, "process id of the server, for its CPU time and memory; 0: neither")
	flag.Parse()

	var err error
	if p.addr, err = netip.ParseAddrPort(*addr); err != nil {
		return fmt.Errorf("-addr: %w", err)
	}
	var ok bool
	if p.peer, ok = peers[*api]; !ok {
		return fmt.Errorf("-api: unknown server %q", *api)
	}
	list := strings.Split(*workloads, ",")
	for _, w := range list {
		if w != trickle && w != burst {
			return fmt.Errorf("-w: unknown workload %q", w)
		}
	}
	if p.subscribers < 1 || p.events < 1 || p.gap <= 0 || p.duration <= 0 {
		return errors.New("-n, -events, -gap and -d must be positive")
	}
	if p.targets, err = dataset.ReadFile(*targets); err != nil {
		return fmt.Errorf("-targets: %w", err)
	}
	if err := raiseFiles(p.subscribers + 64); err != nil {
		return err
	}
	results, err := measure(p, list)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(os.Stdout)
	for _, res := range results {
		res.Label = *label
		if err := enc.Encode(res); err != nil {
			return err
		}
	}
	return nil
}

// raiseFiles allows this process as many open files as the system lets it.
func raiseFiles(need int) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("reading the limit of open files: %w", err)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("raising the limit of open files: %w", err)
	}
	if limit.Cur < uint64(need) {
		return fmt.Errorf("%d open files are needed, the limit is %d", need, limit.Cur)
	}
	return nil
}

const (
	// warmWrites are created before anybody subscribes, so that the memory
	// the server needs for itself is there already.
	warmWrites = 400
	// warmEvents are delivered before anything is measured, so that the
	// memory of a connection is that of one in use.
	warmEvents = 5
	// settle is how long the server may tidy up before its memory is read.
	settle = 500 * time.Millisecond
)

// measure subscribes, then runs the workloads one after the other.
func measure(p plan, workloads []string) ([]result.Result, error) {
	b, err := newBench(p)
	if err != nil {
		return nil, err
	}
	defer b.close()

	warm := stint{workload: burst, events: warmWrites, duration: 5 * time.Second}
	if _, err := b.run(warm); err != nil {
		return nil, fmt.Errorf("writing without subscribers: %w", err)
	}
	before, err := proc.Usage(p.pid)
	if err != nil {
		return nil, err
	}
	if err := b.subscribe(); err != nil {
		return nil, fmt.Errorf("subscribing: %w", err)
	}
	warm = stint{workload: trickle, events: warmEvents, gap: 20 * time.Millisecond, duration: 5 * time.Second}
	if _, err := b.run(warm); err != nil {
		return nil, fmt.Errorf("warming up: %w", err)
	}
	time.Sleep(settle)
	after, err := proc.Usage(p.pid)
	if err != nil {
		return nil, err
	}
	perConn := (after.RSS - before.RSS) * 1024 / float64(p.subscribers)

	var results []result.Result
	for _, w := range workloads {
		s := stint{workload: w, gap: p.gap, events: p.events, duration: p.duration}
		if w == trickle {
			s.events = int(p.duration / p.gap)
		}
		res, err := b.run(s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", w, err)
		}
		res.Stream.ConnKiB = perConn
		results = append(results, res)
	}
	return results, nil
}
