package realtime_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/realtime"
	"github.com/bedplate/bedplate/sqlite"
)

// wantBye reads a stream that says goodbye.
func (st *stream) wantBye(t testing.TB) {
	t.Helper()
	last := st.ended(t)
	retry, err := strconv.Atoi(last.retry)
	if last.comment != "bye" || err != nil || retry < 2000 || retry >= 4000 {
		t.Errorf("the stream ends with %+v", last)
	}
}

func TestExpiredIdentity(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64 // of the clock
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	s := newSite(t, realtime.Config{Now: now, Identify: func(ctx context.Context) realtime.Identity {
		id := identify(ctx)
		switch id.User {
		case "soon":
			id.Expires = now().Add(20 * time.Millisecond)
		case "past":
			id.Expires = now().Add(-time.Hour)
		case "later":
			id.Expires = now().Add(time.Hour)
		}
		return id
	}})
	later, anonymous := s.open(t, allNotes, "X-User", "later"), s.open(t, allNotes)
	s.open(t, allNotes, "X-User", "soon").wantBye(t)
	s.open(t, allNotes, "X-User", "past").wantBye(t)
	s.exec(t, "INSERT INTO note VALUES (1, 1)")
	later.next(t)
	ahead.Store(int64(time.Hour)) // the clock is set
	later.wantBye(t)
	anonymous.next(t)
	s.exec(t, "INSERT INTO note VALUES (2, 2)")
	anonymous.want(t, `{"Insert":{"id":2,"n":2},"seq":2}`)
}

func TestCheckEndsStreams(t *testing.T) {
	t.Parallel()
	var out atomic.Pointer[string] // who has signed out
	var asked atomic.Int64
	s := newSite(t, realtime.Config{Identify: identify, Check: func(_ context.Context, ids []realtime.Identity) ([]bool, error) {
		asked.Add(1)
		stands := make([]bool, len(ids))
		for i, id := range ids {
			if id.User == "" {
				t.Error("asked about somebody anonymous")
			}
			stands[i] = out.Load() == nil || *out.Load() != id.User
		}
		return stands, nil
	}})
	ann, bob, nobody := s.open(t, allNotes, "X-User", "ann"), s.open(t, oneNote, "X-User", "bob"), s.open(t, allNotes)
	waitUntil(t, func() bool { return asked.Load() > 0 })
	name := "bob"
	out.Store(&name)
	bob.wantBye(t)
	s.exec(t, "INSERT INTO note VALUES (1, 1)")
	ann.next(t)
	nobody.next(t)
	if n := s.svc.Streams(); n != 2 {
		t.Errorf("%d streams", n)
	}
}

// TestCheckFails: when it cannot be told for long who is signed in, nobody is.
func TestCheckFails(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	s := newSite(t, realtime.Config{Identify: identify, Check: func(_ context.Context, ids []realtime.Identity) ([]bool, error) {
		switch asked.Add(1) {
		case 1, 6:
			return slices.Repeat([]bool{true}, len(ids)), errors.New("no database")
		case 2, 5:
			panic("oops")
		case 4:
			return nil, nil
		}
		return slices.Repeat([]bool{true}, len(ids)), nil
	}})
	ann, nobody := s.open(t, allNotes, "X-User", "ann"), s.open(t, allNotes)
	ann.wantBye(t)
	if n := asked.Load(); n < 6 { // the third time in a row; from then on there is no error
		t.Errorf("the stream has ended after %d questions", n)
	}
	s.exec(t, "INSERT INTO note VALUES (1, 1)")
	nobody.next(t)
}

// TestViewEnds: streams of an API that is gone end, whether it says so itself
// or by an error.
func TestViewEnds(t *testing.T) {
	t.Parallel()
	var gone atomic.Bool
	var broken atomic.Pointer[error]
	s := newSite(t, realtime.Config{Subscribe: views{
		"notes": {table: "note", err: func() error {
			if gone.Load() {
				return realtime.ErrGone
			}
			return nil
		}},
		"rules": {table: "note", sees: func(*sqlite.Scratch, any, []any) (bool, error) {
			if err := broken.Load(); err != nil {
				return false, *err
			}
			return true, nil
		}},
		"others": {table: "other"},
	}.subscribe})
	const allRules, oneRule = "/api/records/v1/rules/subscribe/*", "/api/records/v1/rules/subscribe/1"
	other, notes := s.open(t, allOther), s.open(t, allNotes)
	gone.Store(true)
	notes.wantBye(t)

	gone.Store(false)
	for i, err := range []error{realtime.ErrGone, errors.New("no such column")} {
		notes, rules, rule := s.open(t, allNotes), s.open(t, allRules), s.open(t, oneRule)
		broken.Store(&err)
		s.exec(t, fmt.Sprintf("INSERT INTO note VALUES (%d, 0)", i+1))
		notes.next(t) // of another view of the table
		for _, st := range []*stream{rules, rule} {
			if last := st.ended(t); last.data != "" {
				t.Errorf("ends with %+v", last)
			}
		}
		// Who comes back has missed nothing.
		broken.Store(nil)
		again := s.open(t, allRules, "Last-Event-ID", rules.id)
		again.want(t, fmt.Sprintf(`{"Insert":{"id":%d,"n":0},"seq":1}`, i+1))
		again.close()
		notes.close()
	}
	s.exec(t, "INSERT INTO other VALUES (1, 1)")
	other.want(t, `{"Insert":{"id":1,"n":1},"seq":1}`)
}

// TestNothingIsPassedOver: a change that a view cannot tell about is never
// behind the position of a client, not even for the moment until its stream
// ends. Here the moment lasts.
func TestNothingIsPassedOver(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var broken atomic.Bool
	s := newSite(t, realtime.Config{
		Heartbeat: time.Millisecond,
		Logger:    slog.New(holdingHandler{quiet().Handler(), "judge changes, streams are cut", release}),
		Subscribe: views{"notes": {table: "note", sees: func(*sqlite.Scratch, any, []any) (bool, error) {
			if broken.Load() {
				return false, errors.New("no such column")
			}
			return true, nil
		}}}.subscribe,
	})
	st := s.open(t, allNotes)
	broken.Store(true)
	s.exec(t, "INSERT INTO note VALUES (1, 1)")
	st.ended(t)
	close(release)
	broken.Store(false)
	s.open(t, allNotes, "Last-Event-ID", st.id).want(t, `{"Insert":{"id":1,"n":1},"seq":1}`)
}

// A holdingHandler holds whoever logs a message.
type holdingHandler struct {
	slog.Handler
	message string
	release <-chan struct{}
}

func (h holdingHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == h.message {
		<-h.release
	}
	return h.Handler.Handle(ctx, r)
}

func TestEnd(t *testing.T) {
	t.Parallel()
	s := newSite(t, realtime.Config{Identify: identify})
	ann, bob := s.open(t, allNotes, "X-User", "ann"), s.open(t, allNotes, "X-User", "bob")
	if n := s.svc.End(func(id realtime.Identity) bool { return id.User == "bob" }); n != 1 {
		t.Errorf("%d streams match", n)
	}
	bob.wantBye(t)
	s.exec(t, "INSERT INTO note VALUES (1, 1)")
	ann.next(t)
}

func TestMaxLifetime(t *testing.T) {
	t.Parallel()
	const most = 500 * time.Millisecond
	s := newSite(t, realtime.Config{MaxLifetime: most})
	ends := make(chan time.Duration)
	for range 10 {
		began := time.Now()
		st := s.open(t, allNotes)
		go func() {
			st.wantBye(t)
			ends <- time.Since(began)
		}()
	}
	var shortest, longest time.Duration = time.Hour, 0
	for range 10 {
		d := <-ends
		shortest, longest = min(shortest, d), max(longest, d)
	}
	if shortest < most*4/5 {
		t.Errorf("a stream has ended after %v", shortest)
	}
	if longest-shortest < most/100 {
		t.Errorf("all have ended after %v to %v", shortest, longest)
	}
	for _, d := range []time.Duration{-1, math.MaxInt64 / 4 * 3, math.MaxInt64} { // none, in effect
		s := newSite(t, realtime.Config{MaxLifetime: d})
		streams := make([]*stream, 20)
		for i := range streams {
			streams[i] = s.open(t, allNotes)
		}
		s.exec(t, "INSERT INTO note VALUES (1, 1)")
		for _, st := range streams {
			st.next(t)
		}
	}
}

// TestMaxLifetimeOfTheBusy: a stream ends also when it has much to send yet.
func TestMaxLifetimeOfTheBusy(t *testing.T) {
	t.Parallel()
	s := newSite(t, realtime.Config{MaxLifetime: time.Millisecond})
	const n = 20_000
	start := s.head(t)
	s.exec(t, fmt.Sprintf("INSERT INTO note WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < %d) SELECT n, n FROM i", n))
	st := s.open(t, allNotes+"?since="+start)
	got := 0
	for {
		b := st.block(t)
		if b.comment == "bye" {
			break
		}
		if got++; got == n {
			t.Fatal("the stream has not ended before its last event")
		}
	}
	st.ended(t)
}

func TestDrain(t *testing.T) {
	t.Parallel()
	n := 500
	if raceEnabled || testing.Short() {
		n = 150
	}
	const stuck = 5
	s := newSite(t, realtime.Config{Accept: acceptAll, WriteTimeout: time.Hour})
	streams := make([]*stream, n)
	for i := range streams {
		streams[i] = s.open(t, allNotes)
	}
	for range stuck {
		s.neverRead(t, news)
	}
	waitUntil(t, func() bool { return s.svc.Streams() == n+stuck })
	s.fillBuffers(t)
	s.svc.Drain() // without waiting for the write timeout
	if left := s.svc.Streams(); left != 0 {
		t.Errorf("%d streams are left", left)
	}
	retries := map[string]bool{}
	for _, st := range streams {
		last := st.ended(t)
		retry, err := strconv.Atoi(last.retry)
		if last.comment != "bye" || err != nil || retry < 2000 || retry >= 4000 {
			t.Fatalf("a stream ends with %+v", last)
		}
		retries[last.retry] = true
	}
	if len(retries) < n/10 {
		t.Errorf("%d clients are to come back at only %d moments", n, len(retries))
	}
	resp, _ := s.refused(t, allNotes)
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("then %s, Retry-After %q", resp.Status, resp.Header.Get("Retry-After"))
	}
}

func acceptAll(*http.Request, string) error { return nil }

// neverRead opens a stream and reads nothing of it.
func (s *site) neverRead(t testing.TB, path string) net.Conn {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: test\r\nAccept: text/event-stream\r\n\r\n", s.sealQuery(path)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// fillBuffers publishes more than a client can be sent that does not read, and
// waits until one that reads has it.
func (s *site) fillBuffers(t testing.TB) {
	t.Helper()
	const n = 150
	reader := s.open(t, news)
	defer reader.close()
	large := string(slices.Repeat([]byte("x"), 60_000))
	err := s.db.Update(context.Background(), func(tx *sqlite.Tx) error {
		for range n {
			if err := s.svc.PublishTx(context.Background(), tx, "news", large); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		reader.next(t)
	}
}

// TestSignOutOfTheSlow: a client that takes nothing does not keep its stream
// until the write timeout.
func TestSignOutOfTheSlow(t *testing.T) {
	t.Parallel()
	s := newSite(t, realtime.Config{Accept: acceptAll, WriteTimeout: time.Hour})
	s.neverRead(t, news)
	waitUntil(t, func() bool { return s.svc.Streams() == 1 })
	s.fillBuffers(t)
	s.svc.End(func(realtime.Identity) bool { return true })
	waitUntil(t, func() bool { return s.svc.Streams() == 0 })
}

func TestClose(t *testing.T) {
	t.Parallel()
	s := newSite(t, realtime.Config{Accept: acceptAll})
	st := s.open(t, allNotes)
	writing, stop := context.WithCancel(t.Context())
	written := make(chan struct{})
	go func() { // so that the dispatcher is at work
		defer close(written)
		for writing.Err() == nil {
			s.tryExec(t, "INSERT INTO note (n) VALUES (0)")
		}
	}()
	st.next(t)
	for range 2 {
		if err := s.svc.Close(); err != nil {
			t.Error(err)
		}
	}
	st.wantBye(t)
	stop()
	<-written
	s.svc.Drain()
	if err := s.svc.Publish(t.Context(), "news", 1); !errors.Is(err, realtime.ErrClosed) {
		t.Errorf("Publish: %v", err)
	}
	err := s.db.Update(t.Context(), func(tx *sqlite.Tx) error { return s.svc.PublishTx(t.Context(), tx, "news", 1) })
	if !errors.Is(err, realtime.ErrClosed) {
		t.Errorf("PublishTx: %v", err)
	}
	for _, path := range []string{allNotes, news} {
		if resp, _ := s.refused(t, path); resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	if n := s.svc.End(func(realtime.Identity) bool { return true }); n != 0 {
		t.Errorf("%d streams", n)
	}
}

// TestCloseUnused: a service that nobody has used closes, too.
func TestCloseUnused(t *testing.T) {
	t.Parallel()
	svc := newService(t, sqlitetest.Open(t, siteSchema), realtime.Config{})
	if err := svc.Close(); err != nil {
		t.Error(err)
	}
}

func TestShutdown(t *testing.T) {
	t.Parallel()
	s := newSite(t, realtime.Config{})
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: routes(s.svc), ReadHeaderTimeout: time.Minute}
	srv.RegisterOnShutdown(s.svc.Drain)
	served := make(chan error)
	go func() { served <- srv.Serve(ln) }()
	s.url = "http://" + ln.Addr().String()
	st := s.open(t, allNotes)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	st.wantBye(t)
}

// TestViewPanicsElsewhere: it is the same wherever a view panics.
func TestViewPanicsElsewhere(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	mistake := func() {
		if broken.Load() {
			panic("a mistake")
		}
	}
	s := newSite(t, realtime.Config{Subscribe: views{
		"notes": {table: "note"},
		"key":   {table: "note", key: mistake},
		"err":   {table: "other", err: func() error { mistake(); return nil }},
	}.subscribe})
	st := s.open(t, oneNote)
	all, one, other := s.open(t, "/api/records/v1/key/subscribe/*"), s.open(t, "/api/records/v1/key/subscribe/1"), s.open(t, "/api/records/v1/err/subscribe/*")
	broken.Store(true)
	s.exec(t, "INSERT INTO note VALUES (1, 1)")
	st.want(t, `{"Insert":{"id":1,"n":1},"seq":1}`)
	for _, lost := range []*stream{all, one, other} {
		lost.ended(t)
	}
	// Nor does it go on in the log.
	s.get(t, "/api/records/v1/key/subscribe/1", "Last-Event-ID", one.id)
	s.exec(t, "UPDATE note SET n = 2")
	st.want(t, `{"Update":{"id":1,"n":2},"seq":2}`)
	broken.Store(false)
	s.open(t, "/api/records/v1/key/subscribe/1", "Last-Event-ID", one.id).want(t, `{"Insert":{"id":1,"n":1},"seq":1}`)
}

// TestViewPanics: the process goes on, and so do others.
func TestViewPanics(t *testing.T) {
	t.Parallel()
	panics := &testView{table: "note", sees: func(*sqlite.Scratch, any, []any) (bool, error) { panic("a mistake") }}
	s := newSite(t, realtime.Config{Subscribe: views{"notes": {table: "note"}, "panics": panics}.subscribe})
	st, other := s.open(t, allNotes), s.open(t, "/api/records/v1/panics/subscribe/*")
	s.exec(t, "INSERT INTO note VALUES (1, 1)")
	st.want(t, `{"Insert":{"id":1,"n":1},"seq":1}`)
	other.ended(t)
	s.exec(t, "UPDATE note SET n = 2")
	st.want(t, `{"Update":{"id":1,"n":2},"seq":2}`)
}

// TestDrainInterrupts: nobody waits for a rule that takes long, neither those
// who drain nor those who close.
func TestDrainInterrupts(t *testing.T) {
	t.Parallel()
	judging := make(chan struct{}, 10)
	slow := &testView{table: "note", sees: func(q *sqlite.Scratch, _ any, _ []any) (bool, error) {
		judging <- struct{}{}
		err := q.Query(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT count(*) FROM n`, nil, nil)
		return false, err
	}}
	db := sqlitetest.Open(t, siteSchema, sqlite.Options{MaxStatement: time.Hour, Logger: quiet()})
	s := newSiteOn(t, db, realtime.Config{Subscribe: views{"notes": slow}.subscribe})
	start := s.head(t)
	s.exec(t, "INSERT INTO note VALUES (1, 1)")
	s.open(t, allNotes+"?since="+start) // catches up
	<-judging
	s.open(t, allNotes)
	s.exec(t, "UPDATE note SET n = 2")
	<-judging // the dispatcher
	ended := make(chan error, 1)
	go func() { ended <- s.svc.Close() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("Close waits for a rule")
	}
}
