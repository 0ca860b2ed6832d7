package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bedplate/bedplate/bench/internal/result"
)

// The parts of a run, as -only names them.
const (
	partStart    = "start"    // start-up time, idle memory
	partCreate   = "create"   // one record under a membership rule
	partRead     = "read"     // one record by id, with and without a rule
	partList     = "list"     // 50 of 100,000, filtered and sorted
	partUpdate   = "update"   // one indexed column
	partMixed    = "mixed"    // readers and writers at once
	partGrouping = "grouping" // what group commit costs one client
	partSlow     = "slow"     // what group commit gains on a slow disk

	partBatch      = "batch"      // 100 records in one request
	partUnused     = "unused"     // what validation and hooks cost where there are none
	partCapture    = "capture"    // what recording changes costs a create
	partStream     = "stream"     // changes to subscribers, without a rule
	partStreamRule = "streamrule" // the same under a membership rule
)

var parts = []string{
	partStart, partCreate, partRead, partList, partUpdate, partMixed, partGrouping, partSlow,
	partBatch, partUnused, partCapture, partStream, partStreamRule,
}

// slot is one workload at one number of connections with one server.
type slot struct {
	part     string
	server   string
	workload string // of a stream: several, separated by commas
	conns    int
}

// streams reports whether the connections of the slot are subscribers.
func (s slot) streams() bool { return s.part == partStream || s.part == partStreamRule }

// takes is about how long a slot takes.
func (s slot) takes(o options) time.Duration {
	if s.streams() {
		return 2*o.slot + 4*time.Second
	}
	return o.slot + o.warm + 150*time.Millisecond
}

// mixedConns is the load of the gates on mixed load: 16 readers, 16 writers.
const mixedConns = 32

// schedule lists the slots of one round. Neighbours are what is compared.
func schedule(o options, servers []server) []slot {
	conns, mixed := []int{1, 16, 64, 256}, []int{16, mixedConns, 64, 256}
	captured, subscribers := []int{1, 16, 64}, []int{100, streamConns, maxSubscribers}
	if o.quick {
		conns, mixed = []int{1, 64}, []int{mixedConns}
		captured, subscribers = []int{64}, []int{100, streamConns}
	}
	both := []string{oursFull, oursNormal}
	peers := []string{pbShipped, pbMattn, pbTuned}

	var slots []slot
	add := func(part, workload string, conns int, names ...string) {
		for _, name := range names {
			known := slices.ContainsFunc(servers, func(s server) bool { return s.name == name })
			if known && slices.Contains(o.only, part) {
				slots = append(slots, slot{part, name, workload, conns})
			}
		}
	}
	for _, c := range conns {
		add(partCreate, "postfixed", c, bare)
		add(partCreate, "create", c, both...)
		add(partCreate, "create", c, peers...)
	}
	for _, c := range conns {
		add(partRead, "fixed", c, bare)
		add(partRead, "read", c, oursNormal)
		add(partRead, "readopen", c, oursNormal)
		add(partRead, "read", c, peers...)
	}
	for _, c := range conns {
		add(partList, "fixed", c, bare)
		add(partList, "list", c, oursNormal)
		add(partList, "list", c, peers...)
	}
	for _, c := range conns {
		add(partUpdate, "postfixed", c, bare)
		add(partUpdate, "update", c, both...)
		add(partUpdate, "update", c, peers...)
	}
	for _, c := range mixed {
		add(partMixed, "mixed", c, both...)
		add(partMixed, "mixed", c, peers...)
	}
	for range 3 { // a small difference needs more visits
		add(partGrouping, "create", 1, oursNormal, oursSingle)
	}
	add(partSlow, "create", 64, oursSlow, oursSlowSingle)
	for _, c := range []int{1, 16, 64} {
		add(partBatch, "create", c, both...)
		add(partBatch, "batch", c, both...)
	}
	for _, c := range captured {
		for range 3 { // a small difference, too
			add(partUnused, "create", c, oursNormal, oursExtras, oursHooked)
		}
	}
	for _, c := range captured {
		for range 3 { // a small difference, too
			add(partCapture, "create", c, oursNormal, oursRealtime)
		}
	}
	for _, part := range []string{partStream, partStreamRule} {
		for _, c := range subscribers {
			if c > o.fit {
				continue
			}
			add(part, trickle+","+burst, c, oursRealtime, pbShipped, pbTuned)
		}
	}
	return slots
}

// line is one measurement and the part of the run it belongs to.
type line struct {
	Part string `json:"part"`
	result.Result
}

// measureSlots visits the slots of every round. Odd rounds go through them
// backwards, server by server within the workload.
func measureSlots(ctx context.Context, l *lab, slots []slot, o options) ([]line, error) {
	var lines []line
	for round := range o.rounds {
		for group := range groups(slots) {
			if round%2 == 1 {
				group = slices.Clone(group)
				slices.Reverse(group)
			}
			for _, s := range group {
				results, err := l.visit(ctx, s, o)
				if err != nil {
					return lines, err
				}
				for _, res := range results {
					res.Round = round + 1
					lines = append(lines, line{s.part, res})
				}
			}
			g := group[0]
			progress("round %d of %d: %s, %d connections", round+1, o.rounds, g.part, g.conns)
		}
	}
	return lines, nil
}

// groups cuts the slots where the part or the number of connections changes.
func groups(slots []slot) func(yield func([]slot) bool) {
	return func(yield func([]slot) bool) {
		for len(slots) > 0 {
			n := slices.IndexFunc(slots, func(s slot) bool {
				return s.part != slots[0].part || s.conns != slots[0].conns
			})
			if n < 0 {
				n = len(slots)
			}
			if !yield(slots[:n]) {
				return
			}
			slots = slots[n:]
		}
	}
}

// visit measures one slot.
func (l *lab) visit(ctx context.Context, s slot, o options) ([]result.Result, error) {
	var results []result.Result
	var err error
	if s.streams() {
		results, err = l.stream(ctx, s, o)
	} else {
		results = make([]result.Result, 1)
		results[0], err = l.load(ctx, s, o)
	}
	for _, res := range results {
		if res.Errs > 0 {
			progress("invalid: %s on %s, %d connections: %d errors, first: %s",
				res.Workload, s.server, s.conns, res.Errs, res.FirstErr)
		}
	}
	return results, err
}

// load runs the load generator once.
func (l *lab) load(ctx context.Context, s slot, o options) (result.Result, error) {
	p := l.running[s.server]
	args := []string{
		"-addr", p.addr, "-api", p.server.api, "-w", s.workload, "-c", strconv.Itoa(s.conns),
		"-d", o.slot.String(), "-warm", o.warm.String(),
		"-pid", strconv.Itoa(p.cmd.Process.Pid), "-label", s.server,
	}
	if p.server.api != "bare" {
		args = append(args, "-targets", l.targets(p.server.api))
	}
	cmd := exec.CommandContext(ctx, l.bin["load"], args...)
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return result.Result{}, ctx.Err()
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		text, _ := os.ReadFile(p.log)
		return result.Result{}, fmt.Errorf("%s on %s: %s\n%s", s.workload, s.server, exit.Stderr, tail(text, 2000))
	}
	if err != nil {
		return result.Result{}, err
	}
	var res result.Result
	if err := json.Unmarshal(out, &res); err != nil {
		return res, fmt.Errorf("%s on %s: %w", s.workload, s.server, err)
	}
	return res, nil
}

// starting is what a server costs before it does anything.
type starting struct {
	ready    time.Duration // from the start of the process to the first 200
	idleMB   float64       // resident one second later
	anonMB   float64       // of it not backed by files, as code is
	binaryMB float64       // size of the stripped binary
}

// measureStarts starts each kind of server several times, in turn, on a
// private copy of the data.
func measureStarts(ctx context.Context, l *lab, servers []server, o options) (map[string]starting, error) {
	names := []string{bare, oursFull, pbShipped, pbMattn}
	chosen := slices.DeleteFunc(slices.Clone(servers), func(s server) bool { return !slices.Contains(names, s.name) })
	ready, idle, anon := make(map[string][]float64), make(map[string][]float64), make(map[string][]float64)
	dirs := make(map[string]string)
	for _, s := range chosen {
		dir, err := os.MkdirTemp(l.dir, "start-")
		if err != nil {
			return nil, err
		}
		if err := l.copySeed(s, dir); err != nil {
			return nil, err
		}
		dirs[s.name] = dir
	}
	for range o.rounds + 2 {
		for _, s := range chosen {
			p, took, err := l.start(ctx, s, dirs[s.name], false)
			if err != nil {
				return nil, err
			}
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
			rss, own, err := memory(p.cmd.Process.Pid)
			p.stop()
			if err := errors.Join(err, ctx.Err()); err != nil {
				return nil, err
			}
			ready[s.name] = append(ready[s.name], took.Seconds())
			idle[s.name] = append(idle[s.name], rss)
			anon[s.name] = append(anon[s.name], own)
		}
	}
	progress("measured start-up")
	starts := make(map[string]starting)
	for _, s := range chosen {
		info, err := os.Stat(l.bin[s.binary])
		if err != nil {
			return nil, err
		}
		starts[s.name] = starting{
			ready:    time.Duration(median(ready[s.name]) * float64(time.Second)),
			idleMB:   median(idle[s.name]),
			anonMB:   median(anon[s.name]),
			binaryMB: float64(info.Size()) / (1 << 20),
		}
	}
	return starts, nil
}

// memory returns the process's resident memory, and what of it is not backed
// by files, in units of 2^20 bytes.
func memory(pid int) (resident, anonymous float64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, 0, err
	}
	var size, rss, shared float64
	if _, err := fmt.Sscan(string(data), &size, &rss, &shared); err != nil {
		return 0, 0, fmt.Errorf("parsing statm %q: %w", data, err)
	}
	page := float64(os.Getpagesize()) / (1 << 20)
	return rss * page, (rss - shared) * page, nil
}

// profileSlots takes a CPU profile of Bedplate under each workload at 64
// connections.
func profileSlots(ctx context.Context, l *lab, slots []slot, o options) error {
	if err := os.MkdirAll(o.profile, 0o700); err != nil {
		return err
	}
	done := make(map[string]bool)
	for _, s := range slots {
		p := l.running[s.server]
		name := strings.ReplaceAll(s.workload+"-"+s.server+".pprof", " ", "-")
		if p == nil || p.profile == "" || s.conns != 64 || done[name] {
			continue
		}
		done[name] = true
		progress("profiling %s", name)
		long := o
		long.slot = 5 * time.Second
		failed := make(chan error, 1)
		go func() {
			_, err := l.visit(ctx, s, long)
			failed <- err
		}()
		err := fetch(ctx, "http://"+p.profile+"/debug/pprof/profile?seconds=4", filepath.Join(o.profile, name))
		if err := errors.Join(err, <-failed); err != nil {
			return err
		}
	}
	return nil
}

// fetch stores what a GET of url answers.
func fetch(ctx context.Context, url, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("profile: %s", resp.Status)
	}
	return os.WriteFile(path, data, 0o600)
}
