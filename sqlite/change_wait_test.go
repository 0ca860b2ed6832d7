package sqlite_test

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

// Whoever waits sees what has ended the wait, and each change ends it.
func TestWait(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Synchronous: sqlite.Normal, Readers: 2})
	l := mainLog(t, db, "item")
	start := head(t, l)
	const waiters, rows = 8, 300
	var wg sync.WaitGroup
	for range waiters {
		wg.Go(func() {
			at, seen := start, 0
			for seen < rows {
				if err := l.Wait(bg, at); err != nil {
					t.Error(err)
					return
				}
				p := page(t, db, l, at, math.MaxInt64, 50)
				if len(p.Changes) == 0 || p.Gap {
					t.Errorf("page behind %v is %+v", at, p)
					return
				}
				seen += len(p.Changes)
				at = p.End
			}
		})
	}
	within(t, "waiters", func() {
		for id := range int64(rows) {
			check(t, write(db, id)())
		}
		wg.Wait()
	})
}

func TestWaitEnds(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	l := mainLog(t, db, "item")
	at := head(t, l)
	within(t, "Wait", func() {
		check(t, l.Wait(bg, sqlite.Position{}))
		check(t, l.Wait(bg, sqlite.Position{Epoch: at.Epoch, Seq: at.Seq + 1}))
		check(t, l.Wait(bg, sqlite.Position{Epoch: "other", Seq: at.Seq}))
	})
	cancelled, cancel := context.WithCancel(bg)
	cancel()
	wantErr(t, l.Wait(cancelled, sqlite.Position{}), context.Canceled)

	ctx, cancel := context.WithCancel(bg)
	ended, closed := make(chan error, 1), make(chan error, 1)
	go func() { ended <- l.Wait(ctx, at) }()
	go func() { closed <- l.Wait(bg, at) }()
	until(t, "they wait", func() bool { return sqlite.Watching(db) == 2 })
	cancel()
	within(t, "Wait", func() { wantErr(t, <-ended, context.Canceled) })
	release := hold(t, db) // also while Close waits for a write
	done := make(chan error, 1)
	go func() { done <- db.Close() }()
	within(t, "Wait", func() { wantErr(t, <-closed, sqlite.ErrClosed) })
	release()
	check(t, <-done)
}

// Commits of others are noticed, too, and renewal, and the log of an attached
// database that another one does not write to.
func TestWaitForOthers(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	l := mainLog(t, db, "item")
	pool := outside(t, db)
	for _, change := range []func(){
		func() { outsideExec(t, pool, "INSERT INTO item VALUES (1, 'a')") },
		func() { check(t, l.Renew(bg)) },
		func() { check(t, l.Publish(bg, "a", []byte("1"))) },
		func() { check(t, db.Migrate(bg, migrations("0001_a.sql", "UPDATE item SET note = 'b'"))) },
	} {
		at := head(t, l)
		done := make(chan error, 1)
		go func() { done <- l.Wait(bg, at) }()
		until(t, "somebody waits", func() bool { return sqlite.Watching(db) == 1 })
		change()
		within(t, "Wait", func() { check(t, <-done) })
		if now := head(t, l); now == at {
			t.Error("the head is still the same")
		}
	}
}

// A commit that changes nothing in the log ends no wait.
func TestWaitIgnores(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema+"; CREATE TABLE other (x)")
	l := mainLog(t, db, "item")
	at := head(t, l)
	ctx, cancel := context.WithCancel(bg)
	done := make(chan error, 1)
	go func() { done <- l.Wait(ctx, at) }()
	until(t, "somebody waits", func() bool { return sqlite.Watching(db) == 1 })
	for range 20 {
		execute(t, db, "INSERT INTO other VALUES (1)")
	}
	outsideExec(t, outside(t, db), "INSERT INTO other VALUES (2)", "CREATE TABLE more (x)")
	pause := time.NewTimer(3 * sqlite.PollEvery)
	defer pause.Stop()
	select {
	case err := <-done:
		t.Errorf("Wait has ended with %v", err)
	case <-pause.C:
	}
	cancel()
	if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Who never waits, because the log always goes on, notices, too.
func TestWaitWhileTheLogMoves(t *testing.T) {
	t.Parallel()
	f, db := followItem(t)
	outsideExec(t, outside(t, db), "ALTER TABLE item ADD COLUMN x TEXT")
	within(t, "Wait", func() { check(t, f.l.Wait(bg, sqlite.Position{})) })
	f.want("item: break")
}

// The log mends itself when somebody has dropped it.
func TestWaitForALogThatIsDropped(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	l := mainLog(t, db, "item")
	at := head(t, l)
	done := make(chan error, 1)
	go func() { done <- l.Wait(bg, at) }()
	until(t, "somebody waits", func() bool { return sqlite.Watching(db) == 1 })
	outsideExec(t, outside(t, db), "BEGIN", "DROP TABLE _change", "DROP TABLE _change_shape", "DROP TABLE _change_mark", "DROP TABLE _change_state",
		"DROP TABLE _change_table", "COMMIT")
	within(t, "Wait", func() {
		if err := <-done; err == nil {
			t.Error("no error")
		}
		check(t, l.Wait(bg, at))
	})
	now := head(t, l)
	if now.Epoch == at.Epoch {
		t.Error("the epoch is still the same")
	}
	check(t, write(db, 1)()) // no trigger is in its way
	check(t, l.Track(bg, "item"))
	f := follow(t, db, l)
	check(t, write(db, 2)())
	f.want("item: insert [2 <nil>]")
}

// Renew helps whatever has become of the log.
func TestRenewALogThatIsDropped(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	l := mainLog(t, db)
	at := head(t, l)
	outsideExec(t, outside(t, db), "DROP TABLE _change_state", "DROP TABLE _change")
	check(t, l.Renew(bg))
	if now := head(t, l); now.Epoch == at.Epoch {
		t.Error("the epoch is still the same")
	}
}

// What cannot be put in order is tried less and less often.
func TestWaitPausesAfterFailures(t *testing.T) {
	t.Parallel()
	var lines atomic.Int64
	logger := slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) { lines.Add(1); return len(p), nil }), nil))
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Logger: logger})
	l := mainLog(t, db, "item")
	outsideExec(t, outside(t, db), "DROP TABLE _change_mark", "CREATE VIEW _change_mark AS SELECT 1")
	for i, want := range []time.Duration{2, 4, 8, 16, 32, 60, 60} {
		if got := sqlite.CatchUp(l); got != want*time.Second {
			t.Errorf("pause %d is %v", i, got)
		}
	}
	if n := lines.Load(); n != 7 {
		t.Errorf("%d warnings", n)
	}
	outsideExec(t, outside(t, db), "DROP VIEW _change_mark")
	if got := sqlite.CatchUp(l); got != time.Second {
		t.Errorf("pause is %v after success", got)
	}
	check(t, db.Close())
	if sqlite.CatchUp(l); lines.Load() != 7 {
		t.Error("there is a warning that the database is closed")
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
