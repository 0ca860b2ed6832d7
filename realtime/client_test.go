package realtime_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/bedplate/bedplate/realtime"
)

// What a stream tells.
func TestSubscribe_events(t *testing.T) {
	t.Parallel()
	const head = "retry: 1000\nid: e.5\n: ping\n\n"
	denied := func(err error) bool {
		var refusal *realtime.Error
		return errors.As(err, &refusal) && refusal.Status == 403 && refusal.Text == "Access denied"
	}
	says := func(text string) func(error) bool {
		return func(err error) bool { return err != nil && strings.Contains(err.Error(), text) }
	}
	tests := map[string]struct {
		stream  string
		channel bool
		want    []string         // events, then "position" for those told to Position
		resumes string           // the position of the second request
		fails   func(error) bool // default: the second request is made, and ends it
	}{
		"nothing": {stream: head, want: []string{"position e.5"}, resumes: "e.5"},
		"all kinds": {
			stream: head + "id: e.6\ndata: {\"Insert\":{\"id\":1},\"seq\":1}\n\nid: e.8\ndata: {\"Update\":{\"id\": 1},\"seq\":2}\n\n" +
				"id: e.9\ndata: {\"Delete\":{\"id\":1},\"seq\":3}\n\nid: e.20\ndata: {\"Error\":{\"status\":2,\"message\":\"list\\nagain\"},\"seq\":4}\n\n",
			want: []string{
				"position e.5", `Insert {"id":1} e.6`, `Update {"id": 1} e.8`, `Delete {"id":1} e.9`, `Gap (list again) e.20`,
			},
			resumes: "e.20",
		},
		"no text of a gap": {
			stream: head + "id: e.6\ndata: {\"Error\":{\"status\":2,\"message\":null},\"seq\":1}\n\n",
			want:   []string{"position e.5", "Gap () e.6"}, resumes: "e.6",
		},
		"an event that could not be sent": {
			stream: head + "id: e.6\ndata: {\"Error\":{\"status\":3,\"message\":\"broken\"},\"seq\":1}\n\n",
			want:   []string{"position e.5", "Gap (broken) e.6"}, resumes: "e.6",
		},
		"lost access": {
			stream: head + "id: e.6\ndata: {\"Error\":{\"status\":1,\"message\":\"Access denied\"},\"seq\":1}\n\n",
			want:   []string{"position e.5"}, fails: denied,
		},
		"two events of one change": {
			stream: head + "data: {\"Delete\":{\"id\":1},\"seq\":1}\n\nid: e.6\ndata: {\"Insert\":{\"id\":2},\"seq\":2}\n\n",
			want:   []string{"position e.5", `Delete {"id":1} e.5`, `Insert {"id":2} e.6`}, resumes: "e.6",
		},
		"one of two events of one change": {
			stream: head + "data: {\"Delete\":{\"id\":1},\"seq\":1}\n\nid: e.6\ndata: {\"Insert\":{\"id\":2},\"seq\":2}\n",
			want:   []string{"position e.5"}, resumes: "e.5",
		},
		"position behind its event": {
			stream: head + "data: {\"Insert\":{},\"seq\":1}\nid: e.6\n\ndata: {\"Insert\":{},\"seq\":2}\n\nid: e.7\n\n",
			want:   []string{"position e.5", `Insert {} e.6`, `Insert {} e.7`}, resumes: "e.7",
		},
		"a half event": {
			stream: head + "id: e.6\ndata: {\"Insert\":{\"id\":1},\"seq\":1}\n", want: []string{"position e.5"}, resumes: "e.5",
		},
		"half an id": {stream: head + "id: e.6", want: []string{"position e.5"}, resumes: "e.5"},
		"positions alone": {
			stream: head + ":\n\nid: e.7\n\nid: e.7\n\nid: e.9\n: x\n\n",
			want:   []string{"position e.5", "position e.7", "position e.9"}, resumes: "e.9",
		},
		"carriage returns and a byte order mark": {
			stream: "\ufeff" + strings.ReplaceAll(head+"id: e.6\ndata: {\"Insert\":\ndata: {}}\n\n", "\n", "\r"),
			want:   []string{"position e.5", "Insert {} e.6"}, resumes: "e.6",
		},
		"empty data": {stream: head + "id: e.6\ndata:\n\n", want: []string{"position e.5", "position e.6"}, resumes: "e.6"},
		"other types of events": {
			stream: head + "event: weather\nid: e.6\ndata: rain\n\n", want: []string{"position e.5", "position e.6"}, resumes: "e.6",
		},
		"an event with a type": {
			stream: head + "event: message\nid: e.6\ndata: {\"Insert\":{},\"seq\":1}\n\n",
			want:   []string{"position e.5", "Insert {} e.6"}, resumes: "e.6",
		},
		"missing numbers": {
			stream: head + "id: e.6\ndata: {\"Insert\":{},\"seq\":1}\n\nid: e.9\ndata: {\"Insert\":{},\"seq\":4}\n\n",
			want:   []string{"position e.5", "Insert {} e.6", "Gap (the server has skipped 2 events) e.6", "Insert {} e.9"}, resumes: "e.9",
		},
		"no positions": {
			stream: ": ping\n\ndata: {\"Insert\":{},\"seq\":1}\n\ndata: {\"Update\":{},\"seq\":2}\n\n",
			want:   []string{"Insert {} ", "Update {} "}, resumes: "",
		},
		"a position taken back": {
			stream: head + "id:\ndata: {\"Insert\":{}}\n\n", want: []string{"position e.5", "Insert {} "}, resumes: "",
		},
		"not JSON": {
			stream: head + "id: e.6\ndata: {\"Insert\":\n\n", want: []string{"position e.5"}, fails: says("cannot be read"),
		},
		"of no known kind": {
			stream: head + "id: e.6\ndata: {\"Upsert\":{},\"seq\":1}\n\n", want: []string{"position e.5"}, fails: says("no known kind"),
		},
		"large":     {stream: head + "id: e.6\ndata: " + largeEvent(2000) + "\n\n", want: []string{"position e.5", "Insert"}, resumes: "e.6"},
		"too large": {stream: head + "id: e.6\ndata: " + largeEvent(2001) + "\n\n", want: []string{"position e.5"}, fails: says("larger than MaxEvent (2000 bytes)")},
		"too much without a position": {
			stream: head + "data: " + largeEvent(1200) + "\n\ndata: " + largeEvent(1200) + "\n\n",
			want:   []string{"position e.5"}, fails: says("larger than MaxEvent (2000 bytes)"),
		},
		"a position with a space": {stream: "id: e 5\n\n", fails: says("cannot be sent back")},
		"a position without end":  {stream: "id: " + strings.Repeat("x", 1025) + "\n\n", fails: says("cannot be sent back")},
		"channel": {
			channel: true,
			stream:  head + "id: e.6\ndata: {\"Insert\": 1}\n\nid: e.9\ndata: \"x\"\n\nevent: gap\nid: e.12\ndata: {\"message\":\"sorry\"}\n\n",
			want:    []string{"position e.5", `Message {"Insert": 1} e.6`, `Message "x" e.9`, "Gap (sorry) e.12"}, resumes: "e.12",
		},
		"channel, not JSON": {
			channel: true, stream: head + "id: e.6\ndata: x\n\n", want: []string{"position e.5"}, fails: says("not JSON"),
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var resumed []string
				o := clientServer(t, func(w http.ResponseWriter, r *http.Request) {
					if resumed = append(resumed, r.Header.Get("Last-Event-ID")); len(resumed) == 2 {
						w.WriteHeader(http.StatusNoContent)
						return
					}
					streamHead(w)
					_, _ = w.Write([]byte(test.stream))
				})
				if test.channel {
					o.API, o.Channel = "", "news"
				}
				var got []string
				o.MaxEvent = 2000
				o.Position = func(id string) { got = append(got, "position "+id) }
				err := realtime.Subscribe(t.Context(), o, func(e realtime.Event) error {
					text := eventText(e)
					if len(text) > 500 {
						text = string(e.Op)
					}
					got = append(got, text)
					return nil
				})
				if !slices.Equal(got, test.want) {
					t.Errorf("got %q\nwant %q", got, test.want)
				}
				if test.fails != nil {
					if !test.fails(err) {
						t.Errorf("error %v", err)
					}
					if len(resumed) > 1 {
						t.Errorf("%d requests", len(resumed))
					}
					return
				}
				if err != nil || !slices.Equal(resumed, []string{"", test.resumes}) {
					t.Errorf("error %v; positions asked for %q, want %q", err, resumed, test.resumes)
				}
			})
		})
	}
}

// largeEvent returns an event of that many bytes.
func largeEvent(size int) string {
	const frame = `{"Insert":"","seq":1}`
	return `{"Insert":"` + strings.Repeat("x", size-len(frame)) + `","seq":1}`
}

func eventText(e realtime.Event) string {
	if e.Op == realtime.OpGap {
		return fmt.Sprintf("Gap (%s) %s", e.Text, e.ID)
	}
	return fmt.Sprintf("%s %s %s", e.Op, e.Data, e.ID)
}

// Without positions there may be a gap between any two connections.
func TestSubscribe_noPositions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		requests := 0
		o := clientServer(t, func(w http.ResponseWriter, r *http.Request) {
			switch requests++; requests {
			case 1, 3: // not a stream: nothing to miss before it, and one gap after it
				w.WriteHeader(http.StatusServiceUnavailable)
			case 2:
				streamHead(w)
			case 4:
				streamHead(w)
				_, _ = w.Write([]byte("data: {\"Insert\":{},\"seq\":1}\n\n"))
			default:
				w.WriteHeader(http.StatusNoContent)
			}
		})
		var got []realtime.Op
		err := realtime.Subscribe(t.Context(), o, func(e realtime.Event) error {
			got = append(got, e.Op)
			return nil
		})
		if err != nil || !slices.Equal(got, []realtime.Op{realtime.OpGap, realtime.OpInsert}) {
			t.Errorf("%v, %v", got, err)
		}
	})
}

// A position is no use with a server that tells none: its events are handed
// over as they come.
func TestSubscribe_positionUnknown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		requests := 0
		o := clientServer(t, func(w http.ResponseWriter, r *http.Request) {
			switch requests++; requests {
			case 1:
				streamHead(w)
				for range 2 {
					_, _ = w.Write([]byte("data: {\"Insert\":{}}\n\n"))
				}
			case 2:
				streamHead(w)
			default:
				w.WriteHeader(http.StatusNoContent)
			}
		})
		o.Since = "e.1"
		var got []realtime.Op
		err := realtime.Subscribe(t.Context(), o, func(e realtime.Event) error {
			got = append(got, e.Op)
			return nil
		})
		if err != nil || !slices.Equal(got, []realtime.Op{realtime.OpInsert, realtime.OpInsert, realtime.OpGap}) {
			t.Errorf("%v, %v", got, err)
		}
	})
}

// What is asked for.
func TestSubscribe_request(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		o    realtime.SubscribeOptions
		want string
	}{
		"all":          {realtime.SubscribeOptions{API: "notes"}, "/api/records/v1/notes/subscribe/*"},
		"all, too":     {realtime.SubscribeOptions{API: "notes", Record: "*"}, "/api/records/v1/notes/subscribe/*"},
		"record":       {realtime.SubscribeOptions{API: "notes", Record: "AZ-_=="}, "/api/records/v1/notes/subscribe/AZ-_=="},
		"odd names":    {realtime.SubscribeOptions{API: "a/b", Record: "../c d?%2F#"}, "/api/records/v1/a%2Fb/subscribe/..%2Fc%20d%3F%252F%23"},
		"below a path": {realtime.SubscribeOptions{URL: "http://server/some%2Fwhere/", API: "notes"}, "/some%2Fwhere/api/records/v1/notes/subscribe/*"},
		"filter": {
			realtime.SubscribeOptions{API: "notes", Filter: url.Values{"filter[n][$gt]": {"1"}, "filter[a]": {"x&y"}}},
			"/api/records/v1/notes/subscribe/*?filter%5Ba%5D=x%26y&filter%5Bn%5D%5B%24gt%5D=1",
		},
		"channel": {realtime.SubscribeOptions{Channel: "room/5?"}, "/api/realtime/v1/room%2F5%3F"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var got *http.Request
				o := clientServer(t, func(w http.ResponseWriter, r *http.Request) {
					got = r
					w.WriteHeader(http.StatusNoContent)
				})
				test.o.Client, test.o.Logger = o.Client, o.Logger
				if test.o.URL == "" {
					test.o.URL = o.URL
				}
				test.o.Since = "e.41"
				if err := realtime.Subscribe(t.Context(), test.o, func(realtime.Event) error { return nil }); err != nil {
					t.Fatal(err)
				}
				if got.Method != "GET" || got.RequestURI != test.want {
					t.Errorf("%s %s, want %s", got.Method, got.RequestURI, test.want)
				}
				for name, want := range map[string]string{
					"Accept": "text/event-stream", "Accept-Encoding": "identity", "Last-Event-ID": "e.41", "Authorization": "",
				} {
					if value := got.Header.Get(name); value != want {
						t.Errorf("%s: %q, want %q", name, value, want)
					}
				}
			})
		})
	}
}

func TestSubscribe_mistakes(t *testing.T) {
	t.Parallel()
	handle := func(realtime.Event) error { return nil }
	all := realtime.SubscribeOptions{
		URL: "ftp://x", API: "a", Channel: "..", Record: ".", Filter: url.Values{"limit": {"5"}},
		Since: "a\nb", IdleTimeout: -1, MinBackoff: 2, MaxBackoff: 1,
	}
	err := realtime.Subscribe(t.Context(), all, nil)
	for _, part := range []string{
		"realtime: subscribe: ", "http or https", "either API or Channel", "not with one", `".." is no name`, `"." is no name`, `"limit"`,
		"Since", "no handler", "negative", "MinBackoff is above",
	} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("nothing about %q in %v", part, err)
		}
	}
	for _, base := range []string{"", "host", "http://", "//host", "http://user:secret@host", "http://host?x=1", "http://host#x", "http://user:secret@[::1"} {
		err := realtime.Subscribe(t.Context(), realtime.SubscribeOptions{URL: base, API: "a"}, handle)
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", base, err)
		}
	}
	for _, o := range []realtime.SubscribeOptions{{}, {Channel: "c", Record: "1"}, {Channel: "c", Filter: url.Values{"filter[a]": {"1"}}}} {
		o.URL = "http://127.0.0.1:1"
		if err := realtime.Subscribe(t.Context(), o, handle); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

// clientServer serves h from memory, which the clocks of a synctest bubble can
// go by, and returns options to reach it with.
func clientServer(t *testing.T, h http.HandlerFunc) realtime.SubscribeOptions {
	t.Helper()
	l := newMemoryListener()
	srv := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	var done sync.WaitGroup
	done.Go(func() { _ = srv.Serve(l) })
	tr := &http.Transport{DialContext: l.dial}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		_ = srv.Close()
		done.Wait()
	})
	return realtime.SubscribeOptions{
		URL: "http://server", API: "notes", Client: &http.Client{Transport: tr}, Logger: slog.New(slog.DiscardHandler),
	}
}

func streamHead(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/event-stream")
	_ = http.NewResponseController(w).Flush()
}

// memoryListener is a network of its own.
type memoryListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newMemoryListener() *memoryListener {
	return &memoryListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *memoryListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *memoryListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *memoryListener) Addr() net.Addr { return &net.IPAddr{} }
