package replicator

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

// pipeOf returns a pipe, and what reads the events that are written to it.
func pipeOf(t *testing.T) (*eventPipe, func() []wire.Event) {
	t.Helper()
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := newEventPipe(in)
	return p, func() (events []wire.Event) {
		go func() {
			p.close(time.Minute)
			_ = in.Close()
		}()
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var e wire.Event
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				t.Error(err)
			}
			events = append(events, e)
		}
		_ = out.Close()
		return events
	}
}

func TestLog(t *testing.T) {
	t.Parallel()
	p, read := pipeOf(t)
	redact := newRedactor(wire.Order{
		URL: "s3://user:pass%20word@bucket/x?endpoint=http://localhost&sse-customer-key=c3Nl&region=eu",
		Env: map[string]string{"AWS_SECRET_ACCESS_KEY": "k3y/+=", "DEBUG": "true", "N": "1"},
	})
	own, quiet := newLoggers(p, redact)
	own.Debug("with k3y/+= and pass word", "error", errors.New("PUT ?k=k3y%2F%2B%3D&p=pass%20word: c3Nl"))
	own.With("a", 1).WithGroup("g").Warn("x", "b", 1.5, slog.Group("h", "url", "k3y/+="), "t", time.Unix(0, 0), "true", true)
	quiet.Info("chatter")
	quiet.Debug("not even that")
	quiet.Error("trouble")

	want := []struct {
		level slog.Level
		text  string
		attrs string
	}{
		{slog.LevelDebug, "with *** and ***", `{"error":"PUT ?k=***\u0026p=***: ***"}`},
		{slog.LevelWarn, "x", `{"a":"1","g.b":"1.5","g.h.url":"***","g.t":"1970-01-01T00:00:00Z","g.true":"true"}`},
		{slog.LevelDebug, "chatter", `{}`},
		{slog.LevelError, "trouble", `{}`},
	}
	events := read()
	if len(events) != len(want) {
		t.Fatalf("%d events", len(events))
	}
	for i, e := range events {
		if e.Kind != wire.Log || e.Level != int(want[i].level) || e.Text != want[i].text || string(e.Attrs) != want[i].attrs {
			t.Errorf("%d %q %s, want %+v", e.Level, e.Text, e.Attrs, want[i])
		}
	}
}

// The client for Azure writes the parameters of its token in another order into each URL, and
// credentials may be in the environment of the program only.
func TestRedactToken(t *testing.T) {
	const (
		token = "?sv=2024-11-04&sp=rcwdl&sig=a%2Bb%2FcdEF%3D"
		said  = `Get "http://127.0.0.1:1/box/lock.json?sig=a%2Bb%2FcdEF%3D&sp=rcwdl&sv=2024-11-04": connection refused`
		want  = `Get "http://127.0.0.1:1/box/lock.json?sig=***&sp=rcwdl&sv=2024-11-04": connection refused`
	)
	order := wire.Order{Env: map[string]string{"LITESTREAM_AZURE_SAS_TOKEN": token}}
	if got := newRedactor(order).text(said); got != want {
		t.Error(got)
	}
	t.Setenv("LITESTREAM_AZURE_SAS_TOKEN", token)
	t.Setenv("NATS_PASSWORD", "not a secret")
	if got := newRedactor(wire.Order{}).text(said + " not a secret"); got != want+" ***" {
		t.Error(got)
	}
}

// A program that does not read gets what is of importance in the end.
func TestEventPipeFull(t *testing.T) {
	t.Parallel()
	p, read := pipeOf(t)
	long := strings.Repeat("x", 1000)
	for i := range 3 * maxLogs {
		p.send(wire.Event{Kind: wire.Log, Text: long})
		p.send(wire.Event{Kind: wire.State, TXID: uint64(i)})
	}
	p.send(wire.Event{Kind: wire.Reply, ID: 7})
	p.send(wire.Event{Kind: wire.Done})
	p.mu.Lock()
	if len(p.waiting) > maxEvents {
		t.Errorf("%d events wait", len(p.waiting))
	}
	p.mu.Unlock()
	logs, dropped, last, replies, done := 0, 0, uint64(0), 0, 0
	for _, e := range read() {
		switch e.Kind {
		case wire.Log:
			logs++
			if e.Text != long {
				dropped++
			}
		case wire.State:
			last = e.TXID
		case wire.Reply:
			replies++
		case wire.Done:
			done++
		default:
		}
	}
	if logs > maxLogs+200 || dropped != 1 || last != 3*maxLogs-1 || replies != 1 || done != 1 {
		t.Errorf("%d logs, %d notes that some are missing, last state %d, %d replies, %d done", logs, dropped, last, replies, done)
	}
}

// Nobody reads any more.
func TestEventPipeBroken(t *testing.T) {
	t.Parallel()
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	p := newEventPipe(in)
	for range 10 {
		p.send(wire.Event{Kind: wire.Done})
	}
	p.close(time.Minute) // returns at once
	p.send(wire.Event{Kind: wire.Done})
}

type httpError int

func (e httpError) Error() string       { return fmt.Sprint("status ", int(e)) }
func (e httpError) HTTPStatusCode() int { return int(e) }

func TestCodes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err  error
		want wire.Code
	}{
		{nil, wire.CodeOther},
		{errors.New("connection refused"), wire.CodeOther},
		{fmt.Errorf("put: %w", httpError(403)), wire.CodeDenied},
		{fmt.Errorf("put: %w", httpError(500)), wire.CodeOther},
		{errors.New("api error ExpiredToken: The provided token has expired."), wire.CodeDenied},
		{&os.PathError{Op: "open", Path: "x", Err: os.ErrPermission}, wire.CodeDenied},
		{&codeError{wire.CodeOtherOwner, os.ErrPermission}, wire.CodeOtherOwner},
	} {
		if got := codeOf(test.err); got != test.want {
			t.Errorf("%v: %q, want %q", test.err, got, test.want)
		}
	}
}
