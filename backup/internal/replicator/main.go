package replicator

import (
	"bufio"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/benbjohnson/litestream"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

// A Scheme is what a kind of replica needs beyond its client, which Litestream knows by the scheme
// of the URL.
type Scheme struct {
	// Client returns the client for the replica at a URL. nil: Litestream's own way.
	Client func(url string) (litestream.ReplicaClient, error)

	// Leaser returns a leaser for the replica of c. nil: there are no leases.
	Leaser func(c litestream.ReplicaClient, owner string, ttl time.Duration) (litestream.Leaser, error)
}

// Exit codes of a replicator.
const (
	exitOK         = 0
	exitFailed     = 1
	exitPanic      = 2 // as any Go program
	exitIncomplete = 4 // the last sync was not completed
)

// maxOrder bounds the order in bytes.
const maxOrder = 1 << 20

// Run makes this process a replicator if it was started as one for replicas with this URL scheme,
// and then never returns.
func Run(scheme string, s Scheme) {
	nonce, ok := claim(scheme)
	if !ok {
		return
	}
	events := newEventPipe(os.NewFile(wire.EventFD, "events"))
	os.Exit(run(events, nonce, s))
}

// claim reports whether this process is a replicator for the scheme, and returns the text that its
// order has to repeat.
func claim(scheme string) (nonce string, ok bool) {
	value := os.Getenv(wire.Env)
	parts := strings.Split(value, ":")
	if len(parts) != 3 || parts[0] != scheme || parts[2] == "" {
		return "", false
	}
	parent, err := strconv.Atoi(parts[1])
	if err != nil {
		return "", false
	}
	_ = os.Unsetenv(wire.Env)
	// A variable that some other process has inherited means nothing. A replicator whose program is
	// gone already is one still: it must not run as the program.
	orphan := len(os.Args) > 0 && strings.HasSuffix(os.Args[0], fmt.Sprintf("(replicator of %d)", parent))
	if os.Getppid() != parent && !orphan {
		return "", false
	}
	return parts[2], true
}

// A child is a running replicator.
type child struct {
	order    wire.Order
	scheme   Scheme
	client   litestream.ReplicaClient // of the replica; no request of it waits for ever
	gate     *gate                    // of client
	log      *slog.Logger
	quiet    *slog.Logger        // for Litestream
	commands <-chan wire.Command // closed at the end of the pipe
	events   *eventPipe
	redact   *redactor
}

// run returns the exit code.
func run(events *eventPipe, nonce string, s Scheme) (code int) {
	c := &child{events: events, redact: newRedactor(wire.Order{})}
	defer func() {
		if p := recover(); p != nil {
			c.died(p)
			code = exitPanic
		}
		c.events.close(5 * time.Second)
	}()
	c.log, c.quiet = newLoggers(c.events, c.redact)
	slog.SetDefault(c.quiet)
	ignoreSignals()
	syscall.CloseOnExec(wire.CommandFD) // helpers that hand out credentials
	syscall.CloseOnExec(wire.EventFD)
	c.send(wire.Event{Kind: wire.Hello, Protocol: wire.Protocol, Version: litestreamVersion()})

	commands := bufio.NewReader(os.NewFile(wire.CommandFD, "commands"))
	done, err := c.accept(commands, nonce, s)
	if err == nil {
		c.commands = readCommands(commands, c.guard)
		done = c.work(context.Background())
	} else {
		done = c.failed(err)
	}
	done.Kind = wire.Done
	c.send(done)
	switch {
	case done.Error == "" && done.Code == wire.CodeOther:
		return exitOK
	case c.order.Mode == wire.Replicate && done.TXID != 0 && done.Code != wire.CodeLeased:
		return exitIncomplete
	default:
		return exitFailed
	}
}

// accept reads the order and prepares for it.
func (c *child) accept(commands *bufio.Reader, nonce string, s Scheme) (wire.Event, error) {
	line, err := readLine(commands, maxOrder)
	if err != nil {
		return wire.Event{}, fmt.Errorf("read the order: %w", err)
	}
	if err := json.Unmarshal(line, &c.order); err != nil {
		c.order = wire.Order{}
		return wire.Event{}, errors.New("the order cannot be understood")
	}
	if c.order.Protocol != wire.Protocol {
		return wire.Event{}, fmt.Errorf("the order is of version %d of the protocol, %d is needed", c.order.Protocol, wire.Protocol)
	}
	if subtle.ConstantTimeCompare([]byte(c.order.Nonce), []byte(nonce)) != 1 {
		return wire.Event{}, errors.New("the order is not for this process")
	}
	c.redact.learn(c.order)
	limitProcess()
	if err := setEnvironment(c.order.Env); err != nil {
		return wire.Event{}, &codeError{wire.CodeConfig, err}
	}
	open := s.Client
	if open == nil {
		open = litestream.NewReplicaClientFromURL
	}
	client, err := open(c.order.URL)
	if err != nil {
		return wire.Event{}, &codeError{wire.CodeConfig, err}
	}
	client.SetLogger(c.quiet)
	c.client, c.gate = bound(client)
	if c.scheme = s; s.Leaser != nil {
		c.scheme.Leaser = func(bounded litestream.ReplicaClient, owner string, ttl time.Duration) (litestream.Leaser, error) {
			if bounded == c.client {
				bounded = client // it looks at the type
			}
			return s.Leaser(bounded, owner, ttl)
		}
	}
	return wire.Event{}, nil
}

// work does what the order says and returns the Done event.
func (c *child) work(ctx context.Context) wire.Event {
	switch c.order.Mode {
	case wire.Replicate:
		return c.replicate(ctx)
	case wire.Restore:
		return c.restore(ctx)
	case wire.List:
		return c.list(ctx)
	case wire.Follow:
		return c.follow(ctx)
	case wire.Lease:
		return c.lease(ctx)
	default:
		return c.failed(fmt.Errorf("unknown mode %q", c.order.Mode))
	}
}

// send tells the program something. It does not wait for the program to read.
func (c *child) send(e wire.Event) { c.events.send(e) }

// failed is the Done event for an error.
func (c *child) failed(err error) wire.Event {
	return wire.Event{Kind: wire.Done, Code: codeOf(err), Error: c.redact.text(err.Error())}
}

// guard is deferred by every goroutine: a panic ends the process with a Done event.
func (c *child) guard() {
	if p := recover(); p != nil {
		c.died(p)
		c.events.close(5 * time.Second)
		os.Exit(exitPanic)
	}
}

func (c *child) died(p any) {
	text := c.redact.text(fmt.Sprint(p))
	c.log.Error("panic", "value", text, "stack", string(debug.Stack()))
	c.send(wire.Event{Kind: wire.Done, Error: "panic: " + text})
}

// readLine reads a line of at most limit bytes.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > limit:
			return nil, fmt.Errorf("a line is longer than %d bytes", limit)
		case err == nil:
			return line, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			if errors.Is(err, io.EOF) && len(line) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// litestreamVersion is the version of the module that is linked in.
func litestreamVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, module := range info.Deps {
		if module.Path == "github.com/benbjohnson/litestream" {
			return module.Version
		}
	}
	return ""
}
