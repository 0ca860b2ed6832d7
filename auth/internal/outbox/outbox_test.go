package outbox_test

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth/internal/outbox"
	"github.com/bedplate/bedplate/internal/seal"
	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

const patience = 2 * time.Minute

var (
	bg    = context.Background()
	quiet = slog.New(slog.NewTextHandler(io.Discard, nil))
	errNo = errors.New("not now")
)

// clock is a clock that goes when it is told to. Nothing waits by it: who has
// moved it wakes the worker.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(by)
}

// never is an outbox.Config.After that waits for ever.
func never(time.Duration) <-chan time.Time { return nil }

// inbox collects what is delivered.
type inbox struct {
	mu   sync.Mutex
	jobs []string
}

func (in *inbox) put(j outbox.Job) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.jobs = append(in.jobs, string(j.Payload))
}

func (in *inbox) text() string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return strings.Join(in.jobs, " ")
}

func (in *inbox) len() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.jobs)
}

func newKey(tb testing.TB, b byte) *seal.Key {
	tb.Helper()
	key, err := seal.NewKey(bytes.Repeat([]byte{b}, 32))
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// config is one with a clock that stands and no jitter.
func config(tb testing.TB, db *sqlite.DB, c *clock) outbox.Config {
	tb.Helper()
	return outbox.Config{
		DB: db, Key: newKey(tb, 7), Now: c.Now, Logger: quiet, After: never,
		Jitter:  func() float64 { return 0.5 },
		Deliver: func(context.Context, outbox.Job) error { return nil },
	}
}

// run runs a worker until the test ends, or until the returned func is called.
func run(tb testing.TB, q *outbox.Queue) (stop func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(bg)
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				tb.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			tb.Error("Run does not end")
		}
	})
	tb.Cleanup(stop)
	return stop
}

func add(tb testing.TB, db *sqlite.DB, q *outbox.Queue, payloads ...string) {
	tb.Helper()
	for _, p := range payloads {
		if err := db.Write(bg, q.Stmts(outbox.Job{Kind: "mail", Payload: []byte(p)})...); err != nil {
			tb.Fatal(err)
		}
	}
	q.Wake()
}

func idle(tb testing.TB, q *outbox.Queue) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(bg, patience)
	defer cancel()
	if err := q.Idle(ctx); err != nil {
		tb.Fatal(err)
	}
}

func number(tb testing.TB, db *sqlite.DB, query string) int64 {
	tb.Helper()
	var n int64
	err := db.Query(bg, query, nil, func(row []driver.Value) error {
		n, _ = row[0].(int64)
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

func rows(tb testing.TB, db *sqlite.DB) int64 {
	tb.Helper()
	return number(tb, db, "SELECT count(*) FROM _outbox")
}

func TestDelivery(t *testing.T) {
	t.Parallel()
	c := newClock()
	db := sqlitetest.Open(t, outbox.Schema)
	var got []outbox.Job
	cfg := config(t, db, c)
	cfg.Deliver = func(ctx context.Context, j outbox.Job) error {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("a delivery has no deadline")
		}
		got = append(got, j)
		return nil
	}
	q := outbox.New(cfg)
	want := []outbox.Job{
		{Kind: "reset", Payload: []byte("first"), Expires: c.Now().Add(time.Hour)},
		{Payload: []byte{}},
		{Kind: strings.Repeat("k", 255), Payload: bytes.Repeat([]byte{0xff}, outbox.MaxPayload)},
		{Kind: "last", Payload: []byte(strings.Repeat("p", 239))}, // with the lengths, 256 bytes
	}
	for _, j := range want {
		if err := db.Write(bg, q.Stmts(j)...); err != nil {
			t.Fatal(err)
		}
	}
	stop := run(t, q)
	idle(t, q)
	stop()
	if len(got) != len(want) {
		t.Fatalf("%d jobs were delivered, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i].Kind != want[i].Kind || !bytes.Equal(got[i].Payload, want[i].Payload) || !got[i].Expires.Equal(want[i].Expires) {
			t.Errorf("job %d is not what was added: kind %.20q, %d bytes, expires %v", i, got[i].Kind, len(got[i].Payload), got[i].Expires)
		}
	}
	if n := rows(t, db); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

func TestStmtsRefuse(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, outbox.Schema)
	cfg := config(t, db, newClock())
	cfg.MaxRows = 2
	q := outbox.New(cfg)
	for _, j := range []outbox.Job{
		{Kind: "k", Payload: make([]byte, outbox.MaxPayload+1)},
		{Kind: strings.Repeat("k", 256)},
	} {
		if err := db.Write(bg, q.Stmts(j)...); !errors.Is(err, outbox.ErrTooLarge) {
			t.Errorf("too large: error %v", err)
		}
		if err := update(db, q.Stmts(j)); err == nil {
			t.Error("too large: an Update succeeds")
		}
	}
	add(t, db, q, "1", "2")
	if err := db.Write(bg, q.Stmts(outbox.Job{})...); !errors.Is(err, outbox.ErrFull) {
		t.Errorf("full: error %v", err)
	}
	if err := update(db, q.Stmts(outbox.Job{})); err == nil {
		t.Error("full: an Update succeeds")
	}
	if n := rows(t, db); n != 2 {
		t.Errorf("there are %d rows, want 2", n)
	}
	run(t, q)
	idle(t, q)
	if err := update(db, q.Stmts(outbox.Job{})); err != nil {
		t.Errorf("room again: %v", err)
	}
}

// update runs statements the way a transaction does that knows nothing of
// their funcs.
func update(db *sqlite.DB, stmts []sqlite.Stmt) error {
	return db.Update(bg, func(tx *sqlite.Tx) error {
		for _, stmt := range stmts {
			args := make([]any, len(stmt.Args))
			for i, a := range stmt.Args {
				args[i] = a
			}
			if _, err := tx.ExecContext(bg, stmt.SQL, args...); err != nil {
				return err
			}
		}
		return nil
	})
}

func TestRowsAreSealed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "test.db")
	db := sqlitetest.OpenFile(t, path, outbox.Schema)
	var log bytes.Buffer
	cfg := config(t, db, newClock())
	cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg.Deliver = func(_ context.Context, j outbox.Job) error {
		if string(j.Payload) == "panic ada@example.org" {
			panic(string(j.Payload))
		}
		return errNo
	}
	q := outbox.New(cfg)
	for _, payload := range []string{"ada@example.org", "panic ada@example.org", strings.Repeat("ada@example.org", 10)} {
		if err := db.Write(bg, q.Stmts(outbox.Job{Kind: "secretkind", Payload: []byte(payload)})...); err != nil {
			t.Fatal(err)
		}
	}
	if n := number(t, db, "SELECT count(DISTINCT length(sealed)) FROM _outbox"); n != 1 {
		t.Errorf("short payloads have %d lengths, want 1", n)
	}
	stop := run(t, q)
	idle(t, q)
	stop()
	if rows(t, db) != 3 {
		t.Fatal("the jobs are gone")
	}
	for _, suffix := range []string{"", "-wal"} {
		file, err := os.ReadFile(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"ada@example", "secretkind"} {
			if bytes.Contains(file, []byte(text)) {
				t.Errorf("%q stands in the file%s", text, suffix)
			}
		}
	}
	if strings.Contains(log.String(), "ada@") || !strings.Contains(log.String(), "kind=secretkind") {
		t.Errorf("the log has a payload or no kind:\n%s", &log)
	}
}

func TestSchema(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, "")
	q := outbox.New(config(t, db, newClock()))
	for range 2 {
		err := db.Update(bg, func(tx *sqlite.Tx) error {
			_, err := tx.ExecContext(bg, outbox.Schema)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		add(t, db, q, "x")
	}
	if n := number(t, db, "SELECT count(*) FROM sqlite_schema WHERE name LIKE '_outbox%'"); n != 2 {
		t.Errorf("the schema has made %d objects, want 2", n)
	}
	own := sql.OpenDB(db.Connector())
	defer own.Close()
	own.SetMaxOpenConns(1)
	for _, stmt := range []string{
		"PRAGMA trusted_schema=OFF", outbox.Schema, "INSERT INTO _outbox (sealed) VALUES (x'00')", "DELETE FROM _outbox",
	} {
		if _, err := own.ExecContext(bg, stmt); err != nil {
			t.Errorf("%s: %v", stmt, err)
		}
	}
}

func TestIdle(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, outbox.Schema)
	started, finish := make(chan bool), make(chan bool)
	cfg := config(t, db, newClock())
	cfg.Deliver = func(context.Context, outbox.Job) error {
		started <- true
		<-finish
		return nil
	}
	q := outbox.New(cfg)
	idle(t, q) // nothing to do, no worker

	add(t, db, q, "x")
	if !waits(q) {
		t.Error("idle with a job and no worker")
	}

	run(t, q)
	<-started
	if !waits(q) {
		t.Error("idle during a delivery")
	}
	done := make(chan error, 1)
	go func() { done <- q.Idle(bg) }()
	close(finish)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := rows(t, db); n != 0 {
		t.Errorf("idle with %d rows", n)
	}
}

// waits reports whether Idle waits.
func waits(q *outbox.Queue) bool {
	ctx, cancel := context.WithTimeout(bg, 100*time.Millisecond)
	defer cancel()
	return errors.Is(q.Idle(ctx), context.DeadlineExceeded)
}

func TestNewRefusesIncompleteConfig(t *testing.T) {
	t.Parallel()
	whole := config(t, sqlitetest.Open(t, outbox.Schema), newClock())
	for i, spoil := range []func(*outbox.Config){
		func(c *outbox.Config) { c.DB = nil },
		func(c *outbox.Config) { c.Key = nil },
		func(c *outbox.Config) { c.Deliver = nil },
	} {
		cfg := whole
		spoil(&cfg)
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("config %d was taken", i)
				}
			}()
			outbox.New(cfg)
		}()
	}
}

func TestErrPermanent(t *testing.T) {
	t.Parallel()
	if outbox.ErrPermanent(nil) != nil {
		t.Error("of nil is not nil")
	}
	if err := fmt.Errorf("more: %w", outbox.ErrPermanent(errNo)); !errors.Is(err, errNo) {
		t.Error("does not wrap")
	}
}

func stmt(query string) sqlite.Stmt { return sqlite.Stmt{SQL: query} }

func BenchmarkAdd(b *testing.B) {
	for _, waiting := range []int{0, 99_000} {
		b.Run(fmt.Sprint("waiting ", waiting), func(b *testing.B) {
			db := sqlitetest.Open(b, outbox.Schema)
			cfg := config(b, db, newClock())
			cfg.MaxRows = 1 << 30
			q := outbox.New(cfg)
			fill := fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < %d)
				INSERT INTO _outbox (sealed) SELECT zeroblob(300) FROM n WHERE %d > 0`, waiting, waiting)
			if err := db.Write(bg, stmt(fill)); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				add(b, db, q, "x")
			}
		})
	}
}
