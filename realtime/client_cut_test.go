package realtime_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bedplate/bedplate/realtime"
)

// Every event arrives once and in order although connections are cut at any
// byte, however the stream is framed.
func TestSubscribe_cuts(t *testing.T) {
	t.Parallel()
	const events = 3000
	for seed := range uint64(5) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newMemoryListener()
				random := rand.New(rand.NewPCG(seed, 5))
				conns := 0
				var serving sync.WaitGroup
				serving.Go(func() {
					for {
						conn, err := l.Accept()
						if err != nil {
							return
						}
						conns++
						serveCut(t, conn, random, events)
					}
				})
				tr := &http.Transport{DialContext: l.dial}
				o := realtime.SubscribeOptions{
					URL: "http://server", API: "notes", Since: "e.0",
					Client: &http.Client{Transport: tr}, Logger: slog.New(slog.DiscardHandler),
				}
				position := 0
				o.Position = func(id string) {
					if id != fmt.Sprint("e.", position) {
						t.Errorf("position %s behind event %d", id, position)
					}
				}
				next := 1
				var want []string
				ended := errors.New("ended")
				err := realtime.Subscribe(t.Context(), o, func(e realtime.Event) error {
					if len(want) == 0 {
						want = cutEvents(next)
						next++
					}
					id := fmt.Sprint("e.", next-1)
					if len(want) == 2 {
						id = fmt.Sprint("e.", next-2)
					}
					if got := eventText(e); got != want[0]+" "+id {
						t.Fatalf("got %s, want %s %s", got, want[0], id)
					}
					want = want[1:]
					if len(want) == 0 {
						if position = next - 1; position == events {
							return ended
						}
					}
					return nil
				})
				_ = l.Close()
				tr.CloseIdleConnections()
				serving.Wait()
				if !errors.Is(err, ended) || conns < 130 {
					t.Errorf("%v after %d connections", err, conns)
				}
			})
		})
	}
}

// cutEvents returns what change n tells: one event, or two.
func cutEvents(n int) []string {
	if n%7 == 0 {
		return []string{fmt.Sprintf(`Delete {"id":%d}`, n), fmt.Sprintf(`Insert {"id":"%d ü"}`, n)}
	}
	return []string{fmt.Sprintf(`Update {"id":%d,"text":%q}`, n, strings.Repeat("x", n%50))}
}

// serveCut answers a request for a stream, of which it sends some bytes.
func serveCut(t *testing.T, conn net.Conn, random *rand.Rand, events int) {
	defer func() { _ = conn.Close() }()
	r, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	at, err := strconv.Atoi(strings.TrimPrefix(r.Header.Get("Last-Event-ID"), "e."))
	if err != nil || at > events {
		t.Errorf("position %q", r.Header.Get("Last-Event-ID"))
		return
	}
	body := cutStream(at, events, random)
	head := "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
	if random.IntN(2) == 0 { // the end of the connection is that of the stream
		head += "Connection: close\r\n\r\n"
	} else {
		head += "Transfer-Encoding: chunked\r\n\r\n"
		var chunks strings.Builder
		for len(body) > 0 {
			n := min(len(body), 1+random.IntN(200))
			fmt.Fprintf(&chunks, "%x\r\n%s\r\n", n, body[:n])
			body = body[n:]
		}
		body = chunks.String()
	}
	answer := head + body
	answer = answer[:min(len(answer), random.IntN(3000))]
	for len(answer) > 0 { // fails when the client has left
		n := min(len(answer), 1+random.IntN(1000))
		if _, err := io.WriteString(conn, answer[:n]); err != nil {
			return
		}
		answer = answer[n:]
	}
}

// cutStream returns up to a hundred events behind at.
func cutStream(at, events int, random *rand.Rand) string {
	var b strings.Builder
	fmt.Fprintf(&b, "retry: 10\nid: e.%d\n: ping\n\n", at)
	framing, seq := random.IntN(3), 0
	for n := at + 1; n <= min(events, at+100); n++ {
		texts := cutEvents(n)
		for i, text := range texts {
			seq++
			kind, record, _ := strings.Cut(text, " ")
			data := fmt.Sprintf("data: {%q:%s,\"seq\":%d}\n", kind, record, seq)
			id := fmt.Sprintf("id: e.%d\n", n)
			switch {
			case i < len(texts)-1:
				b.WriteString(data)
			case framing == 0:
				b.WriteString(id + data)
			case framing == 1:
				b.WriteString(data + id)
			default:
				b.WriteString(data + "\n" + id)
			}
			b.WriteString("\n")
		}
		if random.IntN(20) == 0 {
			fmt.Fprintf(&b, "id: e.%d\n\n:\n\n", n)
		}
	}
	ends := []string{"\n", "\r", "\r\n"}
	return strings.ReplaceAll(b.String(), "\n", ends[random.IntN(len(ends))])
}

// The same over HTTP/2, whose streams are cut without their connection.
func TestSubscribe_http2(t *testing.T) {
	t.Parallel()
	const events = 50
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at, _ := strconv.Atoi(strings.TrimPrefix(r.Header.Get("Last-Event-ID"), "e."))
		if at == events {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		if r.ProtoMajor != 2 {
			t.Errorf("protocol %s", r.Proto)
		}
		streamHead(w)
		for n := at + 1; n <= min(events, at+5); n++ {
			fmt.Fprintf(w, "id: e.%d\ndata: {\"Insert\":%d,\"seq\":%d}\n\n", n, n, n-at)
		}
		fmt.Fprintf(w, "id: e.%d\ndata: {\"Insert\":%d,", at+6, at+6)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	n := 0
	err := realtime.Subscribe(t.Context(), realtime.SubscribeOptions{
		URL: srv.URL, API: "notes", Since: "e.0", Client: srv.Client(),
		MinBackoff: time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	}, func(e realtime.Event) error {
		if n++; string(e.Data) != strconv.Itoa(n) {
			t.Errorf("event %d: %s", n, eventText(e))
		}
		return nil
	})
	if err != nil || n != events {
		t.Errorf("%d events, %v", n, err)
	}
}

// Nothing is left of clients, of their own connections neither.
func TestSubscribe_leavesNothing(t *testing.T) { // not parallel: it counts goroutines
	const clients = 300
	var streams sync.WaitGroup
	streams.Add(clients)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		streamHead(w)
		_, _ = io.WriteString(w, "id: e.1\n\n")
		_ = http.NewResponseController(w).Flush()
		streams.Done()
		<-r.Context().Done()
	}))
	defer srv.Close()
	// Connects, and then says nothing.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()

	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	handle := func(realtime.Event) error { return nil }
	for range clients {
		running.Go(func() {
			err := realtime.Subscribe(ctx, realtime.SubscribeOptions{URL: srv.URL, Channel: "news"}, handle)
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	for range 10 {
		running.Go(func() {
			err := realtime.Subscribe(ctx, realtime.SubscribeOptions{URL: "https://" + silent.Addr().String(), API: "notes"}, handle)
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	streams.Wait()
	for range 10 {
		conn, err := silent.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
	}
	cancel()
	running.Wait()
	for end := time.Now().Add(patience); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}
