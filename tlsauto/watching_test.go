package tlsauto_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

// patience is how long a test waits for what should happen soon, on a busy machine, too.
const patience = 2 * time.Minute

// A recorder keeps the events of a Manager.
type recorder struct {
	mu     sync.Mutex
	events []tlsauto.Event
	more   chan struct{} // closed with the next event
}

func newRecorder() *recorder { return &recorder{more: make(chan struct{})} }

func (r *recorder) record(e tlsauto.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
	close(r.more)
	r.more = make(chan struct{})
}

// of returns the events of a kind.
func (r *recorder) of(kind tlsauto.EventKind) []tlsauto.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	var events []tlsauto.Event
	for _, e := range r.events {
		if e.Kind == kind {
			events = append(events, e)
		}
	}
	return events
}

// await waits until there are n events of a kind, and returns the last of them.
func (r *recorder) await(t *testing.T, kind tlsauto.EventKind, n int) tlsauto.Event {
	t.Helper()
	var found tlsauto.Event
	r.awaitThat(t, fmt.Sprintf("event %s number %d", kind, n), func() bool {
		events := r.of(kind)
		if len(events) >= n {
			found = events[n-1]
		}
		return len(events) >= n
	})
	return found
}

// awaitRefusal waits until files are refused with an error that has text in it. What a look sees while
// a test writes them may have been refused before, on a busy machine.
func (r *recorder) awaitRefusal(t *testing.T, text string) tlsauto.Event {
	t.Helper()
	var found tlsauto.Event
	r.awaitThat(t, "refusal with "+text, func() bool {
		for _, e := range r.of(tlsauto.ReloadFailed) {
			if e.Err != nil && strings.Contains(e.Err.Error(), text) {
				found = e
				return true
			}
		}
		return false
	})
	return found
}

func (r *recorder) awaitThat(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		r.mu.Lock()
		more := r.more
		r.mu.Unlock()
		if is() {
			return
		}
		select {
		case <-more:
		case <-deadline.C:
			r.mu.Lock()
			defer r.mu.Unlock()
			t.Fatalf("no %s: %+v", what, r.events)
		}
	}
}

// runManager runs a Manager to the end of the test.
func runManager(t *testing.T, cfg tlsauto.Config) (*tlsauto.Manager, *recorder) {
	t.Helper()
	r := newRecorder()
	cfg.Events = r.record
	cfg.Logger = slog.New(slog.DiscardHandler)
	if cfg.FilesInterval == 0 {
		cfg.FilesInterval = 10 * time.Millisecond
	}
	m, err := tlsauto.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Error("Run does not end")
		}
	})
	return m, r
}

// serveTLS serves greeting to each client whose handshake succeeds, and returns its address.
func serveTLS(t *testing.T, config *tls.Config) string {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				_ = conn.SetDeadline(time.Now().Add(patience))
				_, _ = io.WriteString(conn, greeting)
				_ = conn.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	return listener.Addr().String()
}

const greeting = "hello"

// greet makes a connection. The server has accepted the client if there is no error.
func greet(address string, config *tls.Config) (tls.ConnectionState, error) {
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: patience}, Config: config}
	conn, err := dialer.DialContext(context.Background(), "tcp", address)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	said, err := io.ReadAll(conn)
	if err == nil && string(said) != greeting {
		err = errors.New("the server says something else: " + string(said))
	}
	return conn.(*tls.Conn).ConnectionState(), err
}
