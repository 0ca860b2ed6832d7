package realtime_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/realtime"
	"github.com/bedplate/bedplate/sqlite"
)

// These tests are not parallel to others: what they measure is of the process.

// size is what a test is about, or less where that would take too long.
func size(full, short int) int {
	if raceEnabled || testing.Short() {
		return short
	}
	return full
}

// transport returns one like of whose connections end without a trace, so that
// ports are not used up.
func transport(of http.RoundTripper) *http.Transport {
	tr := of.(*http.Transport).Clone()
	tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err == nil {
			err = conn.(*net.TCPConn).SetLinger(0)
		}
		return conn, err
	}
	return tr
}

// subscribers are clients that read.
type subscribers struct {
	s      *site
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// subscribe opens n streams and calls got for each event.
func (s *site) subscribe(t testing.TB, n int, got func(i int, data []byte)) *subscribers {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	of := &subscribers{s: s, cancel: cancel}
	t.Cleanup(of.leave)
	client := &http.Client{Transport: transport(s.srv.Client().Transport)}
	began := make(chan error, n)
	for i := range n {
		of.wg.Go(func() {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+allNotes, nil)
			if err != nil {
				began <- err
				return
			}
			req.Header.Set("Accept", "text/event-stream")
			req.Header.Set("X-User", "ann")
			resp, err := client.Do(req)
			if err == nil && resp.StatusCode != http.StatusOK {
				err = fmt.Errorf("status %s", resp.Status)
				_ = resp.Body.Close()
			}
			began <- err
			if err != nil {
				return
			}
			defer func() { _ = resp.Body.Close() }()
			for r := bufio.NewReader(resp.Body); ; {
				line, err := r.ReadSlice('\n')
				if err != nil {
					return
				}
				if data, ok := bytes.CutPrefix(line, []byte("data: ")); ok {
					got(i, data[:len(data)-1])
				}
			}
		})
	}
	for range n {
		if err := <-began; err != nil {
			t.Fatal(err)
		}
	}
	return of
}

// leave disconnects them all.
func (of *subscribers) leave() {
	of.cancel()
	of.wg.Wait()
}

// TestManySubscriptions: many of one table, of one user at one address.
func TestManySubscriptions(t *testing.T) {
	const n, inserts = 800, 101
	s := newSite(t, realtime.Config{Identify: identify})
	var complete, wrong atomic.Int64
	next := make([]int, n)
	s.subscribe(t, n, func(i int, data []byte) {
		next[i]++
		if string(data) != fmt.Sprintf(`{"Insert":{"id":%d,"n":0},"seq":%d}`, next[i], next[i]) {
			wrong.Add(1)
		}
		if next[i] == inserts {
			complete.Add(1)
		}
	})
	for range inserts {
		s.exec(t, "INSERT INTO note (n) VALUES (0)")
	}
	waitUntil(t, func() bool { return complete.Load() == n || wrong.Load() > 0 })
	if wrong.Load() > 0 {
		t.Errorf("%d of %d events are wrong", wrong.Load(), n*inserts)
	}
}

// behind opens n streams of clients that read nothing and are sent more than
// there are buffers for, from the position since.
func (s *site) behind(t *testing.T, n int, since string) (leave func()) {
	t.Helper()
	before := s.svc.Streams()
	conns := make([]net.Conn, n)
	for i := range conns {
		conns[i] = s.neverRead(t, allNotes+"?since="+since)
	}
	waitUntil(t, func() bool { return s.svc.Streams() == before+n })
	return func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}
}

// backlogSite has many large changes behind the position since.
func backlogSite(t *testing.T, cfg realtime.Config) (s *site, since string) {
	t.Helper()
	schema := sqlite.Options{Synchronous: sqlite.Normal, Logger: quiet(), ChangeLog: sqlite.ChangeLogOptions{MaxBytes: -1}}
	s = newSiteWith(t, schema, cfg)
	s.exec(t, "ALTER TABLE note ADD COLUMN text TEXT NOT NULL DEFAULT ''")
	since = s.head(t)
	s.exec(t, "INSERT INTO note (n, text) WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < 300) SELECT 0, printf('%.*c', 60000, 'x') FROM i")
	return s, since
}

// TestH7_IsCut: a client that reads nothing is cut.
func TestH7_IsCut(t *testing.T) {
	s, since := backlogSite(t, realtime.Config{WriteTimeout: 100 * time.Millisecond})
	reader := s.open(t, allNotes)
	s.behind(t, 10, since)
	waitUntil(t, func() bool { return s.svc.Streams() == 1 })
	s.exec(t, "INSERT INTO note (n) VALUES (1)")
	reader.next(t)
}

// TestH7_NeverReads: a client that reads nothing is not noticed by others.
func TestH7_NeverReads(t *testing.T) {
	readers, rounds, events := size(1000, 100), size(9, 3), size(10, 5)
	s, since := backlogSite(t, realtime.Config{WriteTimeout: time.Hour})
	var (
		sent  atomic.Int64 // when, Unix nanoseconds
		left  atomic.Int64 // who have not got it
		taken = make([]time.Duration, readers)
		all   = make(chan struct{}, 1)
	)
	s.subscribe(t, readers, func(i int, _ []byte) {
		taken[i] = time.Duration(time.Now().UnixNano() - sent.Load())
		if left.Add(-1) == 0 {
			all <- struct{}{}
		}
	})
	measure := func() time.Duration {
		var times []time.Duration
		for range events {
			left.Store(int64(readers))
			sent.Store(time.Now().UnixNano())
			s.exec(t, "INSERT INTO note (n) VALUES (1)")
			select {
			case <-all:
			case <-time.After(patience):
				t.Fatalf("%d of %d have not got an event", left.Load(), readers)
			}
			times = append(times, taken...)
		}
		slices.Sort(times)
		return times[len(times)*99/100]
	}
	measure() // to warm up
	var with, without []time.Duration
	for range rounds {
		without = append(without, measure())
		leave := s.behind(t, 1, since)
		measure() // while buffers fill
		with = append(with, measure())
		if n := s.svc.Streams(); n != readers+1 {
			t.Fatalf("%d streams", n)
		}
		leave()
		waitUntil(t, func() bool { return s.svc.Streams() == readers })
	}
	compare(t, "p99 of the delivery", with, without)
}

// compare checks that with is no more than without but for noise: by the ratios of
// what was measured one right after the other, since the load of the machine may
// change meanwhile. What is the product's doing is in nearly all of them.
func compare(t *testing.T, what string, with, without []time.Duration) {
	t.Helper()
	ratios := make([]float64, len(with))
	for i := range ratios {
		ratios[i] = float64(with[i]) / float64(without[i])
	}
	slices.Sort(ratios)
	t.Logf("%s: %.2f times what it is without (%v and %v)", what, ratios, with, without)
	if least := ratios[len(ratios)/4]; least > 2 && !raceEnabled {
		t.Errorf("%s: %.2f times what it is without, or more", what, least)
	}
}

// TestH9_WriterIsNotBlocked: commits take no longer when there are clients that
// are behind.
func TestH9_WriterIsNotBlocked(t *testing.T) {
	stuck, rounds, commits := size(300, 50), size(6, 3), size(200, 50)
	s, since := backlogSite(t, realtime.Config{WriteTimeout: time.Hour})
	s.open(t, allNotes) // the dispatcher is at work in any case, and nobody reads
	measure := func() time.Duration {
		var times []time.Duration
		for range commits {
			began := time.Now()
			s.exec(t, "INSERT INTO note (n) VALUES (1)")
			times = append(times, time.Since(began))
		}
		slices.Sort(times)
		return times[len(times)/2]
	}
	measure()
	var with, without []time.Duration
	for range rounds {
		without = append(without, measure())
		leave := s.behind(t, stuck, since)
		with = append(with, measure())
		leave()
		waitUntil(t, func() bool { return s.svc.Streams() == 1 })
	}
	compare(t, "commit", with, without)
}

// usage is what streams take.
type usage struct {
	goroutines, files int
	heap              int64
}

func measureUsage() usage {
	runtime.GC()
	runtime.GC() // what is in pools goes with the second one
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u := usage{goroutines: runtime.NumGoroutine(), heap: int64(m.HeapAlloc)}
	if files, err := os.ReadDir("/proc/self/fd"); err == nil {
		u.files = len(files)
	}
	return u
}

// few is how many come and go by themselves, such as connections to the
// database.
const few = 20

// wait waits until no more is used than base.
func (base usage) wait(t *testing.T) {
	t.Helper()
	var now usage
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		now = measureUsage()
		if now.goroutines <= base.goroutines+few && now.files <= base.files+few && now.heap <= base.heap+base.heap/20+1<<20 {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("before %+v, after %+v", base, now)
			return
		}
	}
	t.Logf("before %+v, after %+v", base, now)
}

func eachProtocol(t *testing.T, test func(t *testing.T, s *site, client *http.Client)) {
	for _, http2 := range []bool{false, true} {
		t.Run(map[bool]string{false: "HTTP1", true: "HTTP2"}[http2], func(t *testing.T) {
			s := newSiteWith(t, sqlite.Options{Synchronous: sqlite.Normal, Logger: quiet()}, realtime.Config{MaxPerAddress: 10_000},
				func(srv *httptest.Server) {
					srv.EnableHTTP2 = http2
					srv.Config.ErrorLog = slog.NewLogLogger(quiet().Handler(), slog.LevelInfo)
				})
			test(t, s, &http.Client{Transport: transport(s.srv.Client().Transport)})
		})
	}
}

// comeAndGo makes n streams, at most 50 at a time, each of which ends when it
// has been told something.
func (s *site) comeAndGo(t *testing.T, client *http.Client, n int) {
	var wg sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(n))
	for range 50 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				resp, err := s.begin(t.Context(), client)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := io.ReadFull(resp.Body, make([]byte, 20)); err != nil {
					t.Error(err)
				}
				_ = resp.Body.Close()
			}
		})
	}
	wg.Wait()
}

func (s *site) begin(ctx context.Context, client *http.Client) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+allNotes, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err == nil && resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		err = fmt.Errorf("status %s", resp.Status)
	}
	return resp, err
}

func TestH8_ComeAndGo(t *testing.T) {
	eachProtocol(t, func(t *testing.T, s *site, client *http.Client) {
		goroutines := runtime.NumGoroutine()
		s.comeAndGo(t, client, 500) // to warm up
		client.CloseIdleConnections()
		waitUntil(t, func() bool { return s.svc.Streams() == 0 && runtime.NumGoroutine() <= goroutines+few })
		base := measureUsage()
		s.comeAndGo(t, client, size(20_000, 2000))
		client.CloseIdleConnections()
		base.wait(t)
	})
}

// TestH8_AllGo: many clients disconnect at once, in the middle of events.
func TestH8_AllGo(t *testing.T) {
	eachProtocol(t, func(t *testing.T, s *site, client *http.Client) {
		round := func(n int) {
			t.Helper()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var wg sync.WaitGroup
			var told atomic.Int64
			opening := make(chan struct{}, 50)
			for range n {
				wg.Go(func() {
					opening <- struct{}{}
					resp, err := s.begin(ctx, client)
					<-opening
					if err != nil {
						t.Error(err)
						return
					}
					defer func() { _ = resp.Body.Close() }()
					r := bufio.NewReader(resp.Body)
					for lines := 0; ; lines++ {
						if _, err := r.ReadSlice('\n'); err != nil {
							return
						}
						if lines == 4 { // behind the first event
							told.Add(1)
						}
					}
				})
			}
			waitUntil(t, func() bool { return s.svc.Streams() == n })
			waitUntil(t, func() bool {
				s.exec(t, "INSERT INTO note (n) VALUES (0)")
				return told.Load() == int64(n)
			})
			cancel()
			for range 20 {
				s.exec(t, "INSERT INTO note (n) VALUES (0)")
			}
			wg.Wait()
			client.CloseIdleConnections()
			waitUntil(t, func() bool { return s.svc.Streams() == 0 })
		}
		goroutines := runtime.NumGoroutine()
		n := size(2000, 300)
		round(n) // the runtime keeps what it once had goroutines in
		waitUntil(t, func() bool { return runtime.NumGoroutine() <= goroutines+few })
		base := measureUsage()
		round(n)
		base.wait(t)
	})
}
