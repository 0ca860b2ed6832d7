package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/bedplate/bedplate/bench/internal/result"
)

// The workloads of subscriptions, as the program that subscribes names them.
const (
	trickle = "trickle" // one event after the other, at a fixed rate
	burst   = "burst"   // as fast as eight clients can write
)

// Numbers of subscribers.
const (
	streamConns    = 1000 // that most gates are about
	maxSubscribers = 5000
)

// fanout returns how an event reaches so many subscribers: the most events of
// a burst, so that about as many deliveries are measured whatever their
// number, and the time between those of a trickle, so that it is one that a
// server can follow.
func fanout(subscribers int) (events int, gap time.Duration) {
	return 300_000 / subscribers, max(20*time.Millisecond, time.Duration(subscribers)*20*time.Microsecond)
}

// stream measures one slot of subscriptions, all its workloads. The server is
// started for it alone: the memory it takes is that of these subscribers.
func (l *lab) stream(ctx context.Context, s slot, o options) ([]result.Result, error) {
	p, err := l.startForStream(ctx, s.server)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	events, gap := fanout(s.conns)
	args := []string{
		"-addr", p.addr, "-api", p.server.api, "-targets", l.targets(p.server.api), "-label", s.server,
		"-w", s.workload, "-n", strconv.Itoa(s.conns), "-rule=" + strconv.FormatBool(s.part == partStreamRule),
		"-events", strconv.Itoa(events), "-gap", gap.String(), "-d", o.slot.String(),
		"-pid", strconv.Itoa(p.cmd.Process.Pid),
	}
	out, err := exec.CommandContext(ctx, l.bin["sse"], args...).Output()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return failed(s, string(bytes.TrimSpace(exit.Stderr))), nil
	}
	if err != nil {
		return nil, err
	}
	results, err := decodeResults(out)
	if err != nil {
		return nil, fmt.Errorf("%s on %s: %w", s.workload, s.server, err)
	}
	if p.server.api == "bedplate" {
		for i := range results {
			demandExact(&results[i])
		}
	}
	return results, nil
}

// startForStream starts a server whose data directory is kept from one slot to
// the next.
func (l *lab) startForStream(ctx context.Context, name string) (*process, error) {
	s := l.servers[slices.IndexFunc(l.servers, func(s server) bool { return s.name == name })]
	dir := filepath.Join(l.dir, "stream "+name)
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		err = l.copySeed(s, dir)
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	p, _, err := l.start(ctx, s, dir, false)
	return p, err
}

// failed is the result of workloads that could not be measured.
func failed(s slot, reason string) []result.Result {
	var results []result.Result
	for w := range strings.SplitSeq(s.workload, ",") {
		results = append(results, result.Result{Label: s.server, Workload: w, Conns: s.conns, Errs: 1, FirstErr: reason})
	}
	return results
}

// decodeResults reads one result per line.
func decodeResults(out []byte) ([]result.Result, error) {
	var results []result.Result
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var res result.Result
		err := dec.Decode(&res)
		if errors.Is(err, io.EOF) {
			return results, nil
		}
		if err != nil {
			return nil, err
		}
		results = append(results, res)
	}
}

// demandExact makes a result invalid unless each subscriber has got exactly
// what it is to get, in the order of the commits.
func demandExact(res *result.Result) {
	s := res.Stream
	if s == nil || res.Errs > 0 {
		return
	}
	if res.Errs = s.Lost + s.Repeated + s.Disordered + s.Leaked; res.Errs > 0 {
		res.FirstErr = fmt.Sprintf("%d lost, %d repeated, %d out of order, %d not to be seen",
			s.Lost, s.Repeated, s.Disordered, s.Leaked)
	}
}

// subscribersFit returns how many subscribers a process may have open files
// for.
func subscribersFit() (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("reading the limit of open files: %w", err)
	}
	const others = 256 // files that a server has open beside the connections
	return int(min(limit.Max, 1<<20)) - others, nil
}
