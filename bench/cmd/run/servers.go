package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// server is one contender.
type server struct {
	name   string
	about  string
	binary string
	api    string   // as the load generator names it
	health string   // path that answers 200 when the server is up
	args   []string // beside the data directory and the address
	slow   bool     // on a disk whose fsync takes a millisecond longer
}

// The servers by name.
const (
	bare           = "bare"
	oursFull       = "bedplate full"
	oursNormal     = "bedplate normal"
	oursRealtime   = "bedplate normal realtime"
	oursExtras     = "bedplate normal extras"
	oursHooked     = "bedplate normal hooked"
	oursSingle     = "bedplate normal ungrouped"
	oursSlow       = "bedplate full slow"
	oursSlowSingle = "bedplate full slow ungrouped"
	pbShipped      = "pocketbase"
	pbMattn        = "pocketbase mattn"
	pbTuned        = "pocketbase tuned"
)

// slowDisk is what the shim adds to each fsync.
const slowDisk = time.Millisecond

// serversFor returns the contenders of a run, in the order of visits.
func serversFor(o options) []server {
	ours := func(name, about string, args ...string) server {
		return server{name: name, about: about, binary: "ours", api: "bedplate", health: "/api/healthcheck", args: args}
	}
	slowed := func(s server) server {
		s.slow = true
		return s
	}
	list := []server{
		{name: bare, about: "net/http, fixed JSON", binary: "bare", api: "bare", health: "/"},
		ours(oursFull, "durable at every answer (default)", "-sync", "full"),
		ours(oursNormal, "durable at checkpoints", "-sync", "normal"),
		ours(oursRealtime, "messages can be subscribed to", "-sync", "normal", "-realtime"),
		ours(oursExtras, "validation and hooks on another API", "-sync", "normal", "-extras"),
		ours(oursHooked, "validation and hooks on messages", "-sync", "normal", "-hooked"),
		ours(oursSingle, "each write its own commit", "-sync", "normal", "-maxbatch", "1"),
		slowed(ours(oursSlow, "fsync + 1 ms", "-sync", "full")),
		slowed(ours(oursSlowSingle, "fsync + 1 ms, each write its own commit", "-sync", "full", "-maxbatch", "1")),
	}
	if o.peers {
		pb := server{api: "pocketbase", health: "/api/health", binary: "pocketbase"}
		shipped, mattn, tuned := pb, pb, pb
		shipped.name, shipped.about = pbShipped, "as shipped: modernc.org/sqlite, activity log"
		mattn.name, mattn.about, mattn.binary = pbMattn, "mattn/go-sqlite3, activity log", "pocketbase-mattn"
		tuned.name, tuned.about, tuned.binary = pbTuned, "mattn/go-sqlite3, no activity log", "pocketbase-mattn"
		tuned.args = []string{"--nologs"}
		list = append(list, shipped, mattn, tuned)
	}
	return slices.DeleteFunc(list, func(s server) bool {
		return len(o.servers) > 0 && !slices.Contains(o.servers, s.name)
	})
}

// lab holds the data directories and the running processes.
type lab struct {
	dir     string // of everything
	bin     binaries
	servers []server
	running map[string]*process
}

// process is a running server.
type process struct {
	server  server
	addr    string
	cmd     *exec.Cmd
	exited  chan struct{} // closed when the process is gone
	log     string
	profile string // address of pprof, or none
}

// targets is the file of ids and tokens for a kind of server.
func (l *lab) targets(api string) string { return filepath.Join(l.dir, api+".json") }

// seedDir is the data directory that copies are made of.
func (l *lab) seedDir(api string) string { return filepath.Join(l.dir, api+".seed") }

// seed fills one data directory per engine.
func (l *lab) seed(ctx context.Context, servers []server) error {
	commands := make(map[string][]string)
	for _, s := range servers {
		switch s.api {
		case "bedplate":
			commands[s.api] = []string{l.bin["ours"], "-seed", "-data", l.seedDir(s.api), "-targets", l.targets(s.api)}
		case "pocketbase":
			commands[s.api] = []string{l.bin["pocketbase-mattn"], "seed", "--dir", l.seedDir(s.api), "--targets", l.targets(s.api)}
		}
	}
	for _, api := range slices.Sorted(maps.Keys(commands)) {
		args := commands[api]
		progress("seeding %s", api)
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("seeding %s: %w\n%s", api, err, out)
		}
		if _, err := os.Stat(l.targets(api)); err != nil {
			return fmt.Errorf("seeding %s: %w", api, err)
		}
	}
	return nil
}

// startAll starts every server on its own copy of the data.
func (l *lab) startAll(ctx context.Context, servers []server) error {
	l.running = make(map[string]*process)
	for _, s := range servers {
		dir, err := os.MkdirTemp(l.dir, "data-")
		if err != nil {
			return err
		}
		if err := l.copySeed(s, dir); err != nil {
			return err
		}
		p, _, err := l.start(ctx, s, dir, true)
		if err != nil {
			return err
		}
		l.running[s.name] = p
	}
	return nil
}

// copySeed gives a server its own data.
func (l *lab) copySeed(s server, dir string) error {
	if s.api == "bare" {
		return nil
	}
	if err := os.CopyFS(dir, os.DirFS(l.seedDir(s.api))); err != nil {
		return fmt.Errorf("copying the data for %s: %w", s.name, err)
	}
	return nil
}

// stopAll ends every running server.
func (l *lab) stopAll() {
	for _, p := range l.running {
		p.stop()
	}
	l.running = nil
}

// startTimeout bounds how long a server may take to answer.
const startTimeout = 20 * time.Second

// start runs a server on the data in dir and waits for its first 200. It
// returns how long that took from the start of the process.
func (l *lab) start(ctx context.Context, s server, dir string, profile bool) (*process, time.Duration, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, 0, err
	}
	p := &process{server: s, addr: addr, exited: make(chan struct{}), log: filepath.Join(dir, "output.log")}
	var args []string
	switch s.api {
	case "bedplate":
		args = []string{"-data", dir, "-listen", addr}
		if profile {
			if p.profile, err = freeAddr(); err != nil {
				return nil, 0, err
			}
			args = append(args, "-pprof", p.profile)
		}
	case "pocketbase":
		args = []string{"serve", "--dir", dir, "--http", addr}
	default:
		args = []string{"-listen", addr}
	}
	p.cmd = exec.Command(l.bin[s.binary], append(args, s.args...)...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if s.slow {
		p.cmd.Env = append(os.Environ(), "LD_PRELOAD="+l.bin["slowfs.so"],
			fmt.Sprintf("SLOWFS_US=%d", slowDisk.Microseconds()))
	}
	out, err := os.Create(p.log)
	if err != nil {
		return nil, 0, err
	}
	defer out.Close()
	p.cmd.Stdout, p.cmd.Stderr = out, out

	begin := time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, 0, fmt.Errorf("starting %s: %w", s.name, err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	took, err := p.awaitReady(ctx, begin)
	if err != nil {
		p.stop()
		text, _ := os.ReadFile(p.log)
		return nil, 0, fmt.Errorf("starting %s: %w\n%s", s.name, err, tail(text, 2000))
	}
	return p, took, nil
}

// awaitReady asks until the server answers 200.
func (p *process) awaitReady(ctx context.Context, begin time.Time) (time.Duration, error) {
	request := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", p.server.health, p.addr)
	for {
		if ok := answers(p.addr, request); ok {
			return time.Since(begin), nil
		}
		select {
		case <-p.exited:
			return 0, errors.New("the process ended")
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(500 * time.Microsecond):
		}
		if time.Since(begin) > startTimeout {
			return 0, fmt.Errorf("no answer within %v", startTimeout)
		}
	}
}

// answers sends one request and reports whether the answer is a 200.
func answers(addr, request string) bool {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		return false
	}
	head := make([]byte, len("HTTP/1.1 200"))
	_, err = io.ReadFull(c, head)
	return err == nil && string(head) == "HTTP/1.1 200"
}

// stopTimeout is how long a server may take to end on its own.
const stopTimeout = 10 * time.Second

// stop ends the process and waits until it is gone.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(stopTimeout):
		progress("%s does not end, killing it", p.server.name)
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
}

// freeAddr returns a loopback address nobody listens on.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// tail returns the last n bytes of text.
func tail(text []byte, n int) []byte {
	return bytes.TrimSpace(text[max(0, len(text)-n):])
}
