package backup

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

// helloTimeout is how long a replicator may take to start. It initializes packages of the program.
const helloTimeout = 20 * time.Second

// maxEvent bounds a line of a replicator in bytes. The longest tells what can be restored.
const maxEvent = 64 << 20

// A process is a running replicator.
type process struct {
	cmd      *exec.Cmd
	commands *os.File
	crash    tail // what it wrote to stderr

	exited chan struct{} // closed when it is gone and all its events are handled

	mu      sync.Mutex
	lastID  int64
	pending map[int64]chan wire.Event
	heard   time.Time // the last event
	hello   bool
	done    *wire.Event
	err     error // why it ended without a Done; set before exited is closed
}

// startProcess starts a replicator. handle gets its events but for logs, hellos and replies, one
// after the other.
func startProcess(ctx context.Context, cfg Config, order wire.Order, handle func(wire.Event)) (*process, error) {
	p, err := start(ctx, cfg, order, handle)
	if err != nil {
		return nil, fmt.Errorf("backup: start the replicator: %w", err)
	}
	return p, nil
}

func start(ctx context.Context, cfg Config, order wire.Order, handle func(wire.Event)) (*process, error) {
	order.Protocol, order.Nonce, order.URL = wire.Protocol, rand.Text(), cfg.URL
	if cfg.Credentials != nil {
		var err error
		if order.Env, err = cfg.Credentials(ctx); err != nil {
			return nil, fmt.Errorf("get credentials: %w", err)
		}
	}
	first, err := json.Marshal(order)
	if err != nil {
		return nil, err
	}
	exe, err := executable(cfg.Executable)
	if err != nil {
		return nil, err
	}
	commandsOut, commandsIn, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	eventsOut, eventsIn, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, commandsOut.Close(), commandsIn.Close())
	}
	scheme, _, _ := strings.Cut(cfg.URL, ":")
	p := &process{
		cmd:      &exec.Cmd{Path: exe, Args: []string{replicatorName()}},
		commands: commandsIn, exited: make(chan struct{}), pending: map[int64]chan wire.Event{}, heard: time.Now(),
	}
	p.cmd.Env = append(without(os.Environ(), wire.Env),
		fmt.Sprintf("%s=%s:%d:%s", wire.Env, scheme, os.Getpid(), order.Nonce))
	p.cmd.ExtraFiles = []*os.File{commandsOut, eventsIn} // wire.CommandFD and wire.EventFD
	p.cmd.Stderr = &p.crash
	// It outlives the program, and what keeps its output open must not hold up waiting for it.
	p.cmd.WaitDelay = time.Second
	ownGroup(p.cmd)
	err = p.cmd.Start()
	_, _ = commandsOut.Close(), eventsIn.Close() // the replicator's ends
	if err != nil {
		return nil, errors.Join(err, commandsIn.Close(), eventsOut.Close())
	}
	hello := time.AfterFunc(helloTimeout, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.hello {
			p.err = errors.New("it did not answer in time")
			p.kill()
		}
	})
	go p.run(cfg.Logger, eventsOut, hello, handle)
	p.write(first)
	return p, nil
}

// run reads events until the replicator is gone.
func (p *process) run(log *slog.Logger, events *os.File, hello *time.Timer, handle func(wire.Event)) {
	defer close(p.exited)
	readErr := p.read(log, events, handle)
	hello.Stop()
	if readErr != nil {
		p.kill() // nobody listens to it any more
	}
	_ = events.Close()
	_ = p.commands.Close()
	waitErr := p.cmd.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.err != nil || p.done != nil:
	case readErr != nil:
		p.err = readErr
	default:
		p.err = fmt.Errorf("it ended: %w", cmpErr(waitErr, errors.New("without a word")))
		if last := p.crash.String(); last != "" {
			p.err = fmt.Errorf("%w: %s", p.err, last)
		}
	}
	for _, reply := range p.pending {
		close(reply)
	}
	p.pending = nil
}

func cmpErr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

func (p *process) read(log *slog.Logger, events io.Reader, handle func(wire.Event)) error {
	lines := bufio.NewScanner(events)
	lines.Buffer(make([]byte, 0, 64<<10), maxEvent)
	for lines.Scan() {
		var e wire.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("it said what cannot be understood: %w", err)
		}
		p.mu.Lock()
		p.heard = time.Now()
		switch e.Kind {
		case wire.Hello:
			p.hello = true
			if e.Protocol != wire.Protocol {
				p.mu.Unlock()
				return fmt.Errorf("it speaks version %d of the protocol, %d is needed; was the executable replaced?", e.Protocol, wire.Protocol)
			}
		case wire.Reply:
			if reply := p.pending[e.ID]; reply != nil {
				delete(p.pending, e.ID)
				reply <- e // has room
			}
		case wire.Done:
			p.done = &e
		default:
		}
		p.mu.Unlock()
		switch e.Kind {
		case wire.Hello, wire.Reply:
		case wire.Log:
			logEvent(log, e)
		default:
			handle(e)
		}
	}
	return lines.Err()
}

// logEvent passes on what the replicator logs.
func logEvent(log *slog.Logger, e wire.Event) {
	var fields map[string]any
	_ = json.Unmarshal(e.Attrs, &fields) // without them, if need be
	attrs := make([]slog.Attr, 0, len(fields)+1)
	attrs = append(attrs, slog.String("component", "replicator"))
	for name, value := range fields {
		attrs = append(attrs, slog.Any(name, value))
	}
	log.LogAttrs(context.Background(), slog.Level(e.Level), e.Text, attrs...)
}

// call sends a command and waits for the reply. The error is that of ctx, a *replyError, or why
// the replicator is gone.
func (p *process) call(ctx context.Context, c wire.Command) (wire.Event, error) {
	reply := make(chan wire.Event, 1)
	p.mu.Lock()
	if p.pending == nil {
		err := p.err
		p.mu.Unlock()
		return wire.Event{}, cmpErr(err, errGone)
	}
	p.lastID++
	c.ID = p.lastID
	p.pending[c.ID] = reply
	p.mu.Unlock()
	if deadline, ok := ctx.Deadline(); ok && c.Deadline.IsZero() {
		c.Deadline = deadline
	}
	line, err := json.Marshal(c)
	if err != nil {
		return wire.Event{}, err
	}
	p.write(line)
	select {
	case e, ok := <-reply:
		if !ok {
			return wire.Event{}, cmpErr(p.failure(), errGone)
		}
		if e.Error != "" || e.Code != wire.CodeOther {
			return e, &replyError{e.Code, e.Error}
		}
		return e, nil
	case <-ctx.Done():
		p.mu.Lock()
		delete(p.pending, c.ID)
		p.mu.Unlock()
		return wire.Event{}, ctx.Err()
	}
}

var errGone = errors.New("backup: the replicator is gone")

// write sends a line. A replicator that does not read for so long that the pipe is full is stuck.
func (p *process) write(line []byte) {
	_ = p.commands.SetWriteDeadline(time.Now().Add(5 * time.Second)) // pipes have deadlines
	if _, err := p.commands.Write(append(line, '\n')); err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		p.kill()
	}
}

// stop asks it to end, which it does after a last sync.
func (p *process) stop() {
	line, _ := json.Marshal(wire.Command{Op: wire.Stop})
	p.write(line)
	_ = p.commands.Close()
}

// kill ends it at once.
func (p *process) kill() { _ = p.cmd.Process.Kill() }

// wait returns its last words, or why there are none.
func (p *process) wait(ctx context.Context) (wire.Event, error) {
	select {
	case <-p.exited:
	default:
		select {
		case <-p.exited:
		case <-ctx.Done():
			return wire.Event{}, ctx.Err()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done == nil {
		return wire.Event{}, fmt.Errorf("backup: replicator: %w", p.err)
	}
	if p.done.Error != "" || p.done.Code != wire.CodeOther {
		return *p.done, &replyError{p.done.Code, p.done.Error}
	}
	return *p.done, nil
}

// silence is how long nothing has been heard of it.
func (p *process) silence() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Since(p.heard)
}

func (p *process) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// A replyError is an error that the replicator told.
type replyError struct {
	code wire.Code
	text string
}

func (e *replyError) Error() string {
	if e.text == "" {
		return string(e.code)
	}
	return e.text
}

// Unwrap returns the error of this package that stands for the code.
func (e *replyError) Unwrap() error {
	switch e.code {
	case wire.CodeNotEmpty:
		return ErrNotEmpty
	case wire.CodeLeased:
		return ErrLeased
	case wire.CodeNoBackup:
		return ErrNoBackup
	case wire.CodeCorrupt:
		return ErrCorrupt
	case wire.CodeOtherOwner:
		return ErrFenced
	case wire.CodeNotInTime:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// executable is the program to start. On Linux the one that runs is found even when its file has
// been replaced by a newer one, which might not understand this one.
func executable(given string) (string, error) {
	switch {
	case given != "":
		return given, nil
	case runtime.GOOS == "linux":
		return "/proc/self/exe", nil
	default:
		return os.Executable()
	}
}

// replicatorName is what lists of processes show.
func replicatorName() string {
	return filepath.Base(os.Args[0]) + " (replicator of " + strconv.Itoa(os.Getpid()) + ")"
}

func without(env []string, name string) []string {
	kept := make([]string, 0, len(env)+1)
	for _, v := range env {
		if !strings.HasPrefix(v, name+"=") {
			kept = append(kept, v)
		}
	}
	return kept
}

// A tail keeps the last 8 KiB of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	if extra := len(t.text) - 8<<10; extra > 0 {
		t.text = t.text[extra:]
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.text))
}
