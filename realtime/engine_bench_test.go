package realtime

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"testing"
	"time"
)

// BenchmarkEngine delivers to 100 clients per engine, in turns, and reports
// how many frames a second all of an engine's clients received together, and
// how many times the one's the other's are. An operation is a round of both.
func BenchmarkEngine(b *testing.B) {
	const clients = 100
	for _, test := range []struct {
		name          string
		sends, frames int // per round, per send
	}{
		{"trickle", 1, 1},
		{"single", 100, 1},
		{"burst", 1, 100},
	} {
		b.Run(test.name, func(b *testing.B) {
			frames := numbered(1000, 1000+test.frames)
			for i := range frames {
				frames[i].data = append(frames[i].data, bytes.Repeat([]byte(" "), 200)...)
			}
			all := map[engineKind]*benchClients{
				engineSSE:    newBenchClients(b, engineSSE, clients, test.sends, frames),
				engineDirect: newBenchClients(b, engineDirect, clients, test.sends, frames),
			}
			took := make(map[engineKind]time.Duration)
			b.ResetTimer()
			for range b.N {
				for kind, c := range all {
					start := time.Now()
					c.round()
					took[kind] += time.Since(start)
				}
			}
			b.StopTimer()
			delivered := float64(b.N * clients * test.sends * test.frames)
			b.ReportMetric(delivered/took[engineSSE].Seconds(), "sse/s")
			b.ReportMetric(delivered/took[engineDirect].Seconds(), "direct/s")
			b.ReportMetric(took[engineSSE].Seconds()/took[engineDirect].Seconds(), "direct/sse")
		})
	}
}

// BenchmarkEngineMemory reports what a connection of the server's costs that
// has nothing to do.
func BenchmarkEngineMemory(b *testing.B) {
	const clients = 1000
	for name, kind := range engineKinds {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				before := memoryInUse()
				c := newBenchClients(b, kind, clients, 1, numbered(0, 10))
				c.round()
				b.ReportMetric(float64(memoryInUse()-before)/clients, "B/conn")
				c.close()
			}
		})
	}
}

// memoryInUse returns that of heap and stacks.
func memoryInUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// benchClients is a server and clients that count.
type benchClients struct {
	perRound int // frames
	server   *httptest.Server
	conns    []net.Conn
	closing  context.CancelFunc

	mu    sync.Mutex
	start chan struct{} // closed when a round starts, and replaced
}

func newBenchClients(b *testing.B, kind engineKind, n, sends int, frames []frame) *benchClients {
	e := newEngineOf(kind)
	c := &benchClients{perRound: sends * len(frames), start: make(chan struct{})}
	closing, cancel := context.WithCancel(b.Context())
	c.closing = cancel
	var ready sync.WaitGroup
	ready.Add(n)
	c.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = e.serve(w, r, streamOptions{writeTimeout: time.Minute}, func(ctx context.Context, send sendFunc) error {
			start := c.next()
			ready.Done()
			for {
				select {
				case <-start:
				case <-closing.Done():
					return nil
				}
				start = c.next()
				for range sends {
					if err := send(frames); err != nil {
						return err
					}
				}
			}
		})
	}))
	for range n {
		conn, err := net.Dial("tcp", c.server.Listener.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		c.conns = append(c.conns, conn)
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			b.Fatal(err)
		}
	}
	ready.Wait()
	b.Cleanup(c.close)
	return c
}

func (c *benchClients) next() chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.start
}

// round lets the server send, and returns when all clients have all.
func (c *benchClients) round() {
	c.mu.Lock()
	close(c.start)
	c.start = make(chan struct{})
	c.mu.Unlock()
	var clients sync.WaitGroup
	for _, conn := range c.conns {
		clients.Go(func() {
			buf := make([]byte, 8<<10)
			for received := 0; received < c.perRound; {
				n, err := conn.Read(buf)
				if err != nil {
					panic(err)
				}
				received += bytes.Count(buf[:n], []byte("{")) // one per frame
			}
		})
	}
	clients.Wait()
}

func (c *benchClients) close() {
	c.closing()
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
	c.server.Close()
}
