package realtime

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var engineKinds = map[string]engineKind{"sse": engineSSE, "direct": engineDirect}

// eachEngine runs test for both engines, over both protocols and real
// connections.
func eachEngine(t *testing.T, test func(t *testing.T, e engine, http2 bool)) {
	for name, kind := range engineKinds {
		for _, proto := range []string{"HTTP1", "HTTP2"} {
			t.Run(name+"/"+proto, func(t *testing.T) {
				test(t, newEngineOf(kind), proto == "HTTP2")
			})
		}
	}
}

func serveEngine(t *testing.T, http2 bool, h http.HandlerFunc, configure ...func(*httptest.Server)) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	for _, f := range configure {
		f(s)
	}
	if http2 {
		s.EnableHTTP2 = true
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

// A response is one whose body the test's end closes.
type response struct {
	status, proto int
	header        http.Header
	body          io.Reader
}

func (r response) read() string {
	b, err := io.ReadAll(r.body)
	if err != nil {
		return fmt.Sprintf("%q and %v", b, err)
	}
	return string(b)
}

func request(t *testing.T, ctx context.Context, c *http.Client, method, url string) response {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return response{resp.StatusCode, resp.ProtoMajor, resp.Header, resp.Body}
}

func subscribe(t *testing.T, s *httptest.Server) response {
	t.Helper()
	return request(t, t.Context(), s.Client(), http.MethodGet, s.URL)
}

func numbered(from, to int) []frame {
	frames := make([]frame, 0, to-from)
	for i := from; i < to; i++ {
		frames = append(frames, frame{id: fmt.Sprint(i), data: fmt.Appendf(nil, `{"n":%d}`, i)})
	}
	return frames
}

func framed(frames []frame, idLast bool) string {
	var b []byte
	for i := range frames {
		b = appendFrame(b, &frames[i], idLast)
	}
	return string(b)
}

// eventually waits until ok, for so long that only what hangs fails.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
	}
}

var options = streamOptions{writeTimeout: time.Minute}

// These come first: what they count must be theirs.

func TestEngine_MassDisconnect(t *testing.T) {
	n := 1000
	if testing.Short() {
		n = 500
	}
	eachEngine(t, func(t *testing.T, e engine, http2 bool) {
		var open atomic.Int64
		causes := make(chan error, n)
		news := make(chan struct{})
		s := serveEngine(t, http2, func(w http.ResponseWriter, r *http.Request) {
			open.Add(1)
			defer open.Add(-1)
			causes <- e.serve(w, r, options, func(ctx context.Context, send sendFunc) error {
				if err := send([]frame{{comment: "ping"}}); err != nil {
					return err
				}
				select { // half of them are hit during a burst
				case <-news:
				case <-ctx.Done():
					return ctx.Err()
				}
				for i := 0; ; i += 100 {
					if err := send(numbered(i, i+100)); err != nil {
						return err
					}
				}
			})
		})
		if http2 {
			s.Client().Transport.(*http.Transport).HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerConnection: 1 << 29, MaxReceiveBufferPerStream: 1 << 16}
		}
		// What the first request leaves behind for good belongs to the base.
		warm, cancel := context.WithCancel(t.Context())
		readPing(t, request(t, warm, s.Client(), http.MethodGet, s.URL).body)
		cancel()
		<-causes
		s.Client().CloseIdleConnections()
		s.CloseClientConnections()
		goroutines, files, heap := stableGoroutines(t), openFiles(t), liveHeap()

		for half := range 2 {
			ctx, cancel := context.WithCancel(t.Context())
			streams := make([]io.Closer, n/2)
			for i := range streams {
				req, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
				resp, err := s.Client().Do(req) //nolint:bodyclose // closed below, together with the others
				if err != nil {
					t.Fatal(err)
				}
				readPing(t, resp.Body)
				streams[i] = resp.Body
			}
			if open.Load() != int64(n/2) {
				t.Fatalf("%d streams are open", open.Load())
			}
			if half == 1 {
				close(news)
			}
			cancel()
			for _, stream := range streams {
				stream.Close()
				if err := <-causes; err == nil {
					t.Error("a stream ended without a cause")
				}
			}
		}
		s.Client().CloseIdleConnections()
		s.CloseClientConnections()

		eventually(t, fmt.Sprintf("%d goroutines", goroutines), func() bool { return runtime.NumGoroutine() <= goroutines+2 })
		if files >= 0 {
			eventually(t, fmt.Sprintf("%d files", files), func() bool { return openFiles(t) <= files+2 })
		}
		eventually(t, "heap in use as before", func() bool { return liveHeap() < heap+8<<20 })
	})
}

func readPing(t *testing.T, r io.Reader) {
	t.Helper()
	if _, err := io.ReadFull(r, make([]byte, len(": ping\n\n"))); err != nil {
		t.Fatal(err)
	}
}

// stableGoroutines returns their number when it does not change any more.
func stableGoroutines(t *testing.T) int {
	n, since := runtime.NumGoroutine(), 0
	eventually(t, "number of goroutines constant", func() bool {
		if now := runtime.NumGoroutine(); now != n {
			n, since = now, 0
		}
		since++
		return since > 50
	})
	return n
}

// openFiles returns how many are, or -1 where that cannot be known.
func openFiles(t *testing.T) int {
	dir, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(dir)
}

func liveHeap() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what the first one moved out of the pools
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

func TestEngine_Panic(t *testing.T) {
	eachEngine(t, func(t *testing.T, e engine, http2 bool) {
		s := serveEngine(t, http2, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/writer" {
				w = panickingWriter{w}
			}
			err := e.serve(w, r, options, func(ctx context.Context, send sendFunc) error {
				for r.URL.Path == "/writer" {
					if err := send(numbered(0, 200)); err != nil {
						return err
					}
				}
				if err := send(numbered(0, 200)); err != nil {
					return err
				}
				panic(http.ErrAbortHandler)
			})
			t.Errorf("the panic is gone, with error %v", err)
		})
		get := func(path string) {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
			resp, err := s.Client().Do(req)
			if err != nil {
				return // HTTP/2 may reset the stream before its head is out
			}
			defer resp.Body.Close()
			if _, err := io.ReadAll(resp.Body); err == nil {
				t.Errorf("%s: the response ended as if it were complete", path)
			}
		}
		get("/")
		s.Client().CloseIdleConnections()
		goroutines := stableGoroutines(t)
		for range 20 {
			get("/")
			get("/writer")
		}
		s.Client().CloseIdleConnections()
		eventually(t, fmt.Sprintf("%d goroutines", goroutines), func() bool { return runtime.NumGoroutine() <= goroutines+2 })
	})
}

// A panickingWriter aborts the response when it gets data.
type panickingWriter struct{ http.ResponseWriter }

func (w panickingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w panickingWriter) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("data: ")) {
		panic(http.ErrAbortHandler)
	}
	return w.ResponseWriter.Write(p)
}

// From here on they run side by side.

func TestEngine_Head(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, e engine, http2 bool) {
		received := make(chan struct{})
		s := serveEngine(t, http2, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Vary", "Accept")
			w.Header().Set("Connection", "keep-alive")
			w.Header().Set("Content-Length", "5")
			w.Header().Set("Content-Type", "text/html")
			err := e.serve(w, r, options, func(ctx context.Context, send sendFunc) error {
				<-received // the head, without any frame
				return send(numbered(0, 1))
			})
			if err != nil {
				t.Errorf("serve returned %v", err)
			}
		})

		resp := subscribe(t, s)
		close(received)
		want := http.Header{
			"Content-Type":      {"text/event-stream"},
			"Cache-Control":     {"no-cache, no-transform"},
			"X-Accel-Buffering": {"no"},
			"Vary":              {"Accept"},
		}
		resp.header.Del("Date")
		if resp.status != 200 || fmt.Sprint(resp.header) != fmt.Sprint(want) {
			t.Errorf("status %d, header %v, want %v", resp.status, resp.header, want)
		}
		if (resp.proto == 2) != http2 {
			t.Errorf("protocol %d", resp.proto)
		}
		if body := resp.read(); body != framed(numbered(0, 1), false) {
			t.Errorf("body %s", body)
		}
	})
}

// Pump's first frames, sent as early as can be, and its last ones all arrive.
func TestEngine_Short(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, e engine, http2 bool) {
		failure := errors.New("no more to tell")
		returned := make(chan error, 1000)
		s := serveEngine(t, http2, func(w http.ResponseWriter, r *http.Request) {
			returned <- e.serve(w, r, options, func(ctx context.Context, send sendFunc) error {
				if err := send([]frame{{comment: "ping"}}); err != nil {
					return err
				}
				for i := range 3 {
					if err := send(numbered(i, i+1)); err != nil {
						return err
					}
				}
				return failure
			})
		})
		want := ": ping\n\n" + framed(numbered(0, 3), false)
		var clients sync.WaitGroup
		for range 8 {
			clients.Go(func() {
				for range 25 {
					if body := subscribe(t, s).read(); body != want {
						t.Errorf("body %s", body)
					}
				}
			})
		}
		clients.Wait()
		for range 8 * 25 {
			if err := <-returned; err != failure {
				t.Errorf("serve returned %v", err)
			}
		}
	})
}

// Many frames in bursts of all sizes, more than all buffers hold, to readers
// that take them in small pieces.
func TestEngine_Order(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, e engine, http2 bool) {
		const n = 20_000
		s := serveEngine(t, http2, func(w http.ResponseWriter, r *http.Request) {
			o := options
			o.idLast = r.URL.RawQuery != ""
			err := e.serve(w, r, o, func(ctx context.Context, send sendFunc) error {
				for i := 0; i < n; {
					end := min(i+i%613+1, n)
					if err := send(numbered(i, end)); err != nil {
						return err
					}
					i = end
				}
				return send(nil)
			})
			if err != nil {
				t.Errorf("serve returned %v", err)
			}
		})
		var clients sync.WaitGroup
		for i := range 4 {
			clients.Go(func() {
				idLast, query := i%2 == 0, ""
				if idLast {
					query = "?x"
				}
				resp := request(t, t.Context(), s.Client(), http.MethodGet, s.URL+query)
				resp.body = bufio.NewReaderSize(resp.body, 100<<(2*i))
				if body := resp.read(); body != framed(numbered(0, n), idLast) {
					t.Errorf("%d bytes are not what was sent: ...%.200q", len(body), body[max(0, len(body)-200):])
				}
			})
		}
		clients.Wait()
	})
}

// One that never reads is cut, and holds up nobody until then.
func TestEngine_StuckReader(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, e engine, http2 bool) {
		const n, events = 5, 100
		big := frame{data: bytes.Repeat([]byte("x"), 60<<10)}
		var sent atomic.Int64
		type end struct{ serve, pump, cause error }
		stuck := make(chan end, 1)
		release := make(chan struct{}) // the stuck one only then
		s := serveEngine(t, http2, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/stuck" {
				err := e.serve(w, r, options, func(ctx context.Context, send sendFunc) error {
					for range events {
						if err := send([]frame{big}); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					t.Errorf("serve returned %v", err)
				}
				return
			}
			var end end
			o := streamOptions{writeTimeout: 500 * time.Millisecond}
			end.serve = e.serve(w, r, o, func(ctx context.Context, send sendFunc) error {
				for end.pump == nil {
					end.pump = send([]frame{big})
					sent.Add(int64(len(big.data)))
				}
				<-ctx.Done()
				end.cause = context.Cause(ctx)
				close(release)
				return end.pump
			})
			stuck <- end
		})

		request(t, t.Context(), s.Client(), http.MethodGet, s.URL+"/stuck")
		var healthy sync.WaitGroup
		for range n {
			healthy.Go(func() {
				got, err := io.Copy(io.Discard, subscribe(t, s).body)
				if want := int64(events * len(framed([]frame{big}, false))); got != want || err != nil {
					t.Errorf("a reader got %d bytes of %d, %v", got, want, err)
				}
			})
		}
		healthy.Wait()
		<-release
		got := <-stuck
		if got.serve != errStuck || got.pump != errStuck || got.cause != errStuck {
			t.Errorf("the stuck one ended with %+v", got)
		}
		if sent.Load() > 64<<20 {
			t.Errorf("%d bytes were taken for a client that reads nothing", sent.Load())
		}
	})
}

func TestEngine_LargeEvents(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, e engine, http2 bool) {
		var frames []frame
		for i, size := range []int{100, 70 << 10, 16 << 10, 3 << 20, 1, 1 << 20, 200 << 10} {
			frames = append(frames, frame{id: fmt.Sprint(i), data: bytes.Repeat([]byte{'a' + byte(i)}, size)})
		}
		s := serveEngine(t, http2, func(w http.ResponseWriter, r *http.Request) {
			err := e.serve(w, r, options, func(ctx context.Context, send sendFunc) error {
				if err := send(frames); err != nil {
					return err
				}
				for i := range frames {
					if err := send(frames[i : i+1]); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Errorf("serve returned %v", err)
			}
		})
		if body := subscribe(t, s).read(); body != strings.Repeat(framed(frames, false), 2) {
			t.Errorf("%d bytes are not what was sent: ...%.200q", len(body), body[max(0, len(body)-200):])
		}
	})
}
