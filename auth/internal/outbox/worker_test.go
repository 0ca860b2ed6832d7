package outbox_test

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth/internal/outbox"
	"github.com/bedplate/bedplate/internal/sqlitetest"
)

// advance moves the clock and lets the worker see it.
func advance(tb testing.TB, c *clock, by time.Duration, q *outbox.Queue) {
	tb.Helper()
	c.add(by)
	idle(tb, q)
}

func TestRetrySchedule(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		jitter float64
		factor float64
	}{{0.5, 1}, {0, 0.9}, {0.999999, 1.1}} {
		t.Run(fmt.Sprint("jitter ", test.jitter), func(t *testing.T) {
			t.Parallel()
			c := newClock()
			db := sqlitetest.Open(t, outbox.Schema)
			var tries atomic.Int32
			cfg := config(t, db, c)
			cfg.Jitter = func() float64 { return test.jitter }
			cfg.Deliver = func(context.Context, outbox.Job) error { tries.Add(1); return errNo }
			q := outbox.New(cfg)
			run(t, q)
			add(t, db, q, "x")
			idle(t, q)
			delays := []time.Duration{10 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute}
			for range 6 {
				delays = append(delays, time.Hour)
			}
			for i, delay := range delays {
				if got := tries.Load(); got != int32(i+1) {
					t.Fatalf("%d tries, want %d", got, i+1)
				}
				delay = time.Duration(float64(delay) * test.factor)
				advance(t, c, delay-10*time.Millisecond, q)
				if got := tries.Load(); got != int32(i+1) {
					t.Fatalf("try %d came too early", i+2)
				}
				advance(t, c, 20*time.Millisecond, q)
			}
			if got, n := tries.Load(), rows(t, db); got != 12 || n != 0 {
				t.Fatalf("%d tries and %d rows at the end, want 12 and none", got, n)
			}
		})
	}
}

func TestPermanentError(t *testing.T) {
	t.Parallel()
	c := newClock()
	db := sqlitetest.Open(t, outbox.Schema)
	var in inbox
	cfg := config(t, db, c)
	cfg.Deliver = func(_ context.Context, j outbox.Job) error {
		in.put(j)
		return fmt.Errorf("sending: %w", outbox.ErrPermanent(errNo))
	}
	q := outbox.New(cfg)
	run(t, q)
	add(t, db, q, "x")
	idle(t, q)
	if in.len() != 1 || rows(t, db) != 0 {
		t.Errorf("%d tries, %d rows are left", in.len(), rows(t, db))
	}
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	c := newClock()
	db := sqlitetest.Open(t, outbox.Schema)
	var in inbox
	cfg := config(t, db, c)
	cfg.Deliver = func(_ context.Context, j outbox.Job) error { in.put(j); return errNo }
	q := outbox.New(cfg)
	for name, life := range map[string]time.Duration{"late": -time.Second, "short": time.Second, "long": 30 * time.Second} {
		if err := db.Write(bg, q.Stmts(outbox.Job{Payload: []byte(name), Expires: c.Now().Add(life)})...); err != nil {
			t.Fatal(err)
		}
	}
	run(t, q)
	idle(t, q)
	if text := in.text(); strings.Contains(text, "late") || in.len() != 2 {
		t.Errorf("tried are %q, want short and long", text)
	}
	if n := rows(t, db); n != 1 {
		t.Errorf("%d rows, want one: only one job can be tried again", n)
	}
	advance(t, c, time.Hour, q)
	if n := rows(t, db); in.len() != 2 || n != 0 {
		t.Errorf("after an hour: %d tries and %d rows, want 2 and none", in.len(), n)
	}
}

func TestK6_PanicInDelivery(t *testing.T) {
	t.Parallel()
	c := newClock()
	db := sqlitetest.Open(t, outbox.Schema)
	var in inbox
	cfg := config(t, db, c)
	cfg.Deliver = func(_ context.Context, j outbox.Job) error {
		in.put(j)
		switch string(j.Payload) {
		case "panic":
			panic("at the disco")
		case "index":
			_ = j.Payload[len(j.Payload)]
		case "goexit":
			runtime.Goexit()
		}
		return nil
	}
	q := outbox.New(cfg)
	run(t, q)
	add(t, db, q, "panic", "index", "goexit", "good")
	idle(t, q)
	if got := in.text(); got != "panic index goexit good" {
		t.Fatalf("delivered are %q", got)
	}
	if n := rows(t, db); n != 3 {
		t.Fatalf("%d rows, want those of the three that failed", n)
	}
	advance(t, c, 11*time.Second, q)
	if in.len() != 7 {
		t.Errorf("%d tries, want 7", in.len())
	}
}

// Jobs that fail and fresh ones have their turns.
func TestNoStarvation(t *testing.T) {
	t.Parallel()
	c := newClock()
	db := sqlitetest.Open(t, outbox.Schema)
	var in inbox
	cfg := config(t, db, c)
	cfg.Deliver = func(_ context.Context, j outbox.Job) error {
		in.put(j)
		if string(j.Payload) == "bad" {
			return errNo
		}
		return nil
	}
	q := outbox.New(cfg)
	add(t, db, q, "bad", "bad", "bad")
	stop := run(t, q)
	idle(t, q)
	stop()
	c.add(time.Minute)
	add(t, db, q, "a", "b", "c")
	run(t, q)
	idle(t, q)
	got := strings.TrimPrefix(in.text(), "bad bad bad ")
	if got != "bad a bad b bad c" && got != "a bad b bad c bad" {
		t.Errorf("the order is %q, want by turns", got)
	}
}

// A worker that is gone without a trace keeps its job for the time of a lease.
func TestCrashBetweenLeaseAndDelete(t *testing.T) {
	t.Parallel()
	c := newClock()
	path := filepath.Join(t.TempDir(), "test.db")
	db := sqlitetest.OpenFile(t, path, outbox.Schema)
	other := sqlitetest.OpenFile(t, path, "")

	// The first worker hangs in its delivery: to others it is dead.
	hangs, finish := make(chan bool), make(chan bool)
	cfg := config(t, db, c)
	cfg.Deliver = func(context.Context, outbox.Job) error {
		hangs <- true
		<-finish
		return nil
	}
	dead := outbox.New(cfg)
	stop := run(t, dead)
	add(t, db, dead, "x")
	<-hangs

	var in inbox
	cfg = config(t, other, c)
	cfg.Deliver = func(_ context.Context, j outbox.Job) error { in.put(j); return errNo }
	heir := outbox.New(cfg)
	run(t, heir)
	advance(t, c, 2*time.Minute-time.Millisecond, heir)
	if in.len() != 0 {
		t.Fatal("a leased job was taken")
	}
	advance(t, c, time.Millisecond, heir)
	if in.len() != 1 {
		t.Fatal("the job was not taken after its lease")
	}
	// The dead one comes back and must leave the row alone, whose lease is over.
	close(finish)
	stop()
	if n := rows(t, db); n != 1 {
		t.Fatalf("%d rows: a worker has deleted the row of another", n)
	}
	if n := number(t, db, "SELECT tries FROM _outbox"); n != 2 {
		t.Errorf("%d tries are counted, want 2", n)
	}
}

// A job that kills the process every time does not do so for ever.
func TestCrashingJobIsDropped(t *testing.T) {
	t.Parallel()
	c := newClock()
	db := sqlitetest.Open(t, outbox.Schema+"; CREATE TABLE note (n)")
	var in inbox
	cfg := config(t, db, c)
	cfg.Deliver = func(_ context.Context, j outbox.Job) error { in.put(j); return nil }
	q := outbox.New(cfg)
	add(t, db, q, "x")
	if err := db.Write(bg, stmt("UPDATE _outbox SET tries = 12, due = 5, lease = x'00'")); err != nil {
		t.Fatal(err)
	}
	run(t, q)
	idle(t, q)
	if in.len() != 0 || rows(t, db) != 0 {
		t.Errorf("%d tries, %d rows", in.len(), rows(t, db))
	}
}

func TestTwoQueuesDeliverOnce(t *testing.T) {
	t.Parallel()
	const jobs = 100
	c := newClock()
	path := filepath.Join(t.TempDir(), "test.db")
	var in inbox
	queues := make([]*outbox.Queue, 2)
	for i := range queues {
		db := sqlitetest.OpenFile(t, path, outbox.Schema)
		cfg := config(t, db, c)
		var running atomic.Int32
		cfg.Deliver = func(_ context.Context, j outbox.Job) error {
			if running.Add(1) != 1 {
				t.Error("a worker delivers two jobs at a time")
			}
			in.put(j)
			running.Add(-1)
			return nil
		}
		queues[i] = outbox.New(cfg)
		if i == 0 {
			for n := range jobs {
				add(t, db, queues[0], fmt.Sprint(n))
			}
		}
	}
	for _, q := range queues {
		run(t, q)
	}
	for _, q := range queues {
		idle(t, q)
	}
	times := map[string]int{}
	for _, name := range strings.Fields(in.text()) {
		times[name]++
	}
	for name, n := range times {
		if n != 1 {
			t.Errorf("job %s was delivered %d times", name, n)
		}
	}
	if len(times) != jobs {
		t.Errorf("%d jobs were delivered, want %d", len(times), jobs)
	}
}

func TestShutdownDuringDelivery(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, outbox.Schema)
	started := make(chan bool)
	cfg := config(t, db, newClock())
	cfg.Deliver = func(ctx context.Context, _ outbox.Job) error {
		started <- true
		<-ctx.Done()
		return ctx.Err()
	}
	q := outbox.New(cfg)
	stop := run(t, q)
	add(t, db, q, "x")
	<-started
	stop()
	if n := number(t, db, "SELECT count(*) FROM _outbox WHERE due = 0 AND tries = 0 AND lease IS NULL"); n != 1 {
		t.Error("the job is not as if it had not been tried")
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, outbox.Schema)
	cfg := config(t, db, newClock())
	cfg.Timeout = time.Millisecond
	cfg.Deliver = func(ctx context.Context, _ outbox.Job) error {
		<-ctx.Done()
		return ctx.Err()
	}
	q := outbox.New(cfg)
	run(t, q)
	add(t, db, q, "x")
	idle(t, q)
	if n := number(t, db, "SELECT count(*) FROM _outbox WHERE due > 0 AND tries = 1 AND lease IS NULL"); n != 1 {
		t.Error("a delivery that took too long is not tried again")
	}
}

// Jobs of other processes, of which nobody tells, are found by looking.
func TestPoll(t *testing.T) {
	t.Parallel()
	c := newClock()
	db := sqlitetest.Open(t, outbox.Schema)
	waits, tick, delivered := make(chan time.Duration), make(chan time.Time), make(chan bool, 1)
	cfg := config(t, db, c)
	cfg.After = func(d time.Duration) <-chan time.Time { waits <- d; return tick }
	failing := true
	cfg.Deliver = func(context.Context, outbox.Job) error {
		if failing {
			failing = false
			return errNo
		}
		delivered <- true
		return nil
	}
	q := outbox.New(cfg)
	run(t, q)
	if d := <-waits; d != 30*time.Second {
		t.Fatalf("the worker waits %v, want 30 s", d)
	}
	if err := db.Write(bg, q.Stmts(outbox.Job{})...); err != nil { // and no Wake
		t.Fatal(err)
	}
	tick <- c.Now()
	if d := <-waits; d != 10*time.Second {
		t.Fatalf("the worker waits %v for the next try, want 10 s", d)
	}
	c.add(10 * time.Second)
	tick <- c.Now()
	<-delivered
	<-waits
}

func TestClockSetBack(t *testing.T) {
	t.Parallel()
	c := newClock()
	db := sqlitetest.Open(t, outbox.Schema)
	var in inbox
	cfg := config(t, db, c)
	cfg.Deliver = func(_ context.Context, j outbox.Job) error {
		in.put(j)
		if in.len() == 1 {
			return errNo
		}
		return nil
	}
	q := outbox.New(cfg)
	run(t, q)
	add(t, db, q, "old")
	idle(t, q)
	c.add(-24 * time.Hour)
	add(t, db, q, "fresh")
	idle(t, q)
	for range 3 {
		advance(t, c, 30*time.Minute, q)
	}
	if in.len() != 3 || rows(t, db) != 0 {
		t.Errorf("delivered are %q, and %d rows are left", in.text(), rows(t, db))
	}
}

func TestKeyIsMissing(t *testing.T) {
	t.Parallel()
	c := newClock()
	db := sqlitetest.Open(t, outbox.Schema)
	cfg := config(t, db, c)
	var in inbox
	cfg.Deliver = func(_ context.Context, j outbox.Job) error { in.put(j); return nil }
	good := outbox.New(cfg)
	add(t, db, good, "x")
	cfg.Key = newKey(t, 9)
	wrong := outbox.New(cfg)
	stop := run(t, wrong)
	idle(t, wrong)
	stop()
	if rows(t, db) != 1 {
		t.Fatal("a job under another key was dropped")
	}
	c.add(time.Minute)
	// A row that nobody has sealed is dropped at once.
	if err := db.Write(bg, stmt("INSERT INTO _outbox (sealed) VALUES (x'0102')")); err != nil {
		t.Fatal(err)
	}
	run(t, good)
	idle(t, good)
	if in.text() != "x" || rows(t, db) != 0 {
		t.Errorf("delivered is %q, and %d rows are left", in.text(), rows(t, db))
	}
}

func TestOneWorker(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, outbox.Schema)
	cfg := config(t, db, newClock())
	started, finish := make(chan bool), make(chan bool)
	cfg.Deliver = func(context.Context, outbox.Job) error { started <- true; <-finish; return nil }
	q := outbox.New(cfg)
	run(t, q)
	add(t, db, q, "x")
	<-started
	if err := q.Run(bg); err == nil {
		t.Error("a second worker has run")
	}
	close(finish)
}

// An outcome that cannot be written is written later, and the job is not
// delivered again for it.
func TestOutcomeIsWrittenLater(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, outbox.Schema)
	var in inbox
	cfg := config(t, db, newClock())
	tick := make(chan time.Time)
	after := make(chan time.Duration)
	cfg.After = func(d time.Duration) <-chan time.Time { after <- d; return tick }
	cfg.Deliver = func(_ context.Context, j outbox.Job) error {
		in.put(j)
		return db.Write(bg, stmt("CREATE TRIGGER stop BEFORE DELETE ON _outbox BEGIN SELECT raise(ABORT, 'no'); END"))
	}
	q := outbox.New(cfg)
	run(t, q)
	<-after
	add(t, db, q, "x")
	if d := <-after; d != time.Second {
		t.Fatalf("after an error the worker waits %v, want 1 s", d)
	}
	if !waits(q) {
		t.Error("idle with an outcome that is not written")
	}
	if err := db.Write(bg, stmt("DROP TRIGGER stop")); err != nil {
		t.Fatal(err)
	}
	tick <- time.Time{}
	<-after
	if in.len() != 1 || rows(t, db) != 0 {
		t.Errorf("%d deliveries, %d rows", in.len(), rows(t, db))
	}
}

func TestRunEndsWithTheDatabase(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, outbox.Schema)
	q := outbox.New(config(t, db, newClock()))
	done := make(chan error, 1)
	go func() { done <- q.Run(bg) }()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for {
		q.Wake()
		select {
		case err := <-done:
			if err == nil {
				t.Error("Run ended without an error")
			}
			return
		default:
			runtime.Gosched()
		}
	}
}
