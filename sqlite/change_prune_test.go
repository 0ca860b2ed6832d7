package sqlite_test

import (
	"database/sql/driver"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

// kept returns how many entries there are and how many bytes they have.
func kept(tb testing.TB, db *sqlite.DB) (rows, bytes int64) {
	tb.Helper()
	check(tb, db.Query(bg, "SELECT count(*), coalesce(sum(64 + coalesce(length(old), 0) + coalesce(length(new), 0)), 0) FROM _change", nil,
		func(row []driver.Value) error {
			rows, bytes = row[0].(int64), row[1].(int64)
			return nil
		}))
	return rows, bytes
}

// clock is one that a test moves.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(1_800_000_000, c.offset.Load()) }
func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }

func TestPruneRows(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Synchronous: sqlite.Normal, ChangeLog: sqlite.ChangeLogOptions{MaxRows: 100}})
	f := follow(t, db, mainLog(t, db, "item"))
	start := f.at
	for batch := range int64(5) {
		var ids []int64
		for i := range int64(1000) {
			ids = append(ids, 1000*batch+i)
		}
		check(t, write(db, ids...)())
	}
	f.at = head(t, f.l) // without reading, which the background may be too early for
	check(t, f.l.Prune(bg))
	if rows, _ := kept(t, db); rows != 100 {
		t.Errorf("%d entries are kept", rows)
	}
	if now := head(t, f.l); now != f.at {
		t.Errorf("head became %v from %v", now, f.at)
	}
	p := page(t, db, f.l, start, math.MaxInt64, 1000)
	if !p.Gap || len(p.Changes) != 100 || p.Changes[0].New[0] != driver.Value(int64(4900)) || p.End != f.at {
		t.Errorf("page has a gap: %t, %d changes, end %v", p.Gap, len(p.Changes), p.End)
	}
	check(t, write(db, 100_000)())
	f.want("item: insert [100000 <nil>]")
}

func TestPruneBytes(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Synchronous: sqlite.Normal, ChangeLog: sqlite.ChangeLogOptions{MaxBytes: 1 << 20}})
	l := mainLog(t, db, "item")
	for range 300 {
		execute(t, db, "INSERT INTO item (note) VALUES (printf('%.10000c', 'x'))")
	}
	for range 3 {
		check(t, l.Prune(bg))
		if _, bytes := kept(t, db); bytes > 1<<20 || bytes < 1<<20-1<<17 {
			t.Errorf("%d bytes are kept", bytes)
		}
		for range 20 {
			execute(t, db, "INSERT INTO item (note) VALUES (printf('%.10000c', 'x'))")
		}
	}
	if rows, bytes := kept(t, db); bytes < 1<<19 {
		t.Errorf("no more than %d entries of %d bytes are kept", rows, bytes)
	}
	execute(t, db, "INSERT INTO item (note) VALUES (printf('%.2000000c', 'x'))")
	check(t, l.Prune(bg))
	if rows, _ := kept(t, db); rows != 1 {
		t.Errorf("%d entries are kept, the newest one is larger than what may be kept", rows)
	}
}

func TestPruneAge(t *testing.T) {
	t.Parallel()
	var c clock
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Now: c.now, Synchronous: sqlite.Normal, ChangeLog: sqlite.ChangeLogOptions{MaxAge: time.Hour}})
	f := follow(t, db, mainLog(t, db, "item"))
	start := f.at
	for hour := range int64(4) {
		check(t, write(db, 10*hour, 10*hour+1, 10*hour+2)())
		check(t, f.l.Prune(bg))
		p := page(t, db, f.l, start, math.MaxInt64, 1000)
		if want := min(3*int(hour)+3, 6); len(p.Changes) != want || p.Gap != (hour > 1) {
			t.Errorf("after %d h: %d changes, want %d; gap %t", hour, len(p.Changes), want, p.Gap)
		}
		c.advance(50 * time.Minute)
	}
	c.advance(24 * time.Hour)
	check(t, f.l.Prune(bg))
	if rows, _ := kept(t, db); rows != 1 {
		t.Errorf("%d entries are kept", rows)
	}
	c.advance(-48 * time.Hour) // a clock that is set back deletes nothing and breaks nothing
	check(t, write(db, 100, 101)())
	check(t, f.l.Prune(bg))
	if rows, _ := kept(t, db); rows != 3 {
		t.Errorf("%d entries are kept", rows)
	}
}

func TestPruneNothing(t *testing.T) {
	t.Parallel()
	var c clock
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Now: c.now, Synchronous: sqlite.Normal,
		ChangeLog: sqlite.ChangeLogOptions{MaxRows: -1, MaxBytes: -1, MaxAge: -1}})
	f := follow(t, db, mainLog(t, db, "item"))
	start := f.at
	check(t, f.l.Prune(bg))
	check(t, write(db, 1, 2, 3)())
	c.advance(1000 * time.Hour)
	check(t, f.l.Prune(bg))
	check(t, f.l.Prune(bg))
	if p := page(t, db, f.l, start, math.MaxInt64, 10); p.Gap || len(p.Changes) != 3 {
		t.Errorf("page is %+v", p)
	}
}

// What the log keeps beside the entries goes with them.
func TestPruneTidiesUp(t *testing.T) {
	t.Parallel()
	var c clock
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Now: c.now, Synchronous: sqlite.Normal})
	l := mainLog(t, db, "item")
	for range 20 {
		execute(t, db, "ALTER TABLE item ADD COLUMN x TEXT", "ALTER TABLE item RENAME COLUMN x TO y", "INSERT INTO item (note) VALUES ('a')")
		check(t, l.Prune(bg))
		check(t, l.WithoutChangeFeed(bg, func(tx *sqlite.Tx) error { return run(tx, "ALTER TABLE item DROP COLUMN y") }))
		c.advance(time.Minute)
	}
	if n := value(t, db, "SELECT count(*) FROM _change_shape"); n != driver.Value(int64(61)) {
		t.Errorf("%v shapes", n)
	}
	check(t, write(db, 1000)())
	check(t, l.Prune(bg))
	c.advance(48 * time.Hour)
	check(t, l.Prune(bg))
	for _, table := range []string{"_change_shape", "_change"} {
		if n := value(t, db, "SELECT count(*) FROM "+table); n != driver.Value(int64(1)) {
			t.Errorf("%v rows in %s", n, table)
		}
	}
	if n := value(t, db, "SELECT count(*) FROM _change_mark"); n.(int64) > 1 {
		t.Errorf("%v marks", n)
	}
}

// Without being asked.
func TestPruneInTheBackground(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Synchronous: sqlite.Normal, ChangeLog: sqlite.ChangeLogOptions{MaxRows: 50}})
	mainLog(t, db, "item")
	for id := range int64(200) {
		check(t, write(db, id)())
	}
	until(t, "entries are deleted", func() bool {
		rows, _ := kept(t, db)
		return rows <= 60
	})
}

// Two handles prune while both write and a reader follows: it gets every
// change, or is told that there is a gap.
func TestPruneWhileReading(t *testing.T) {
	t.Parallel()
	options := sqlite.Options{Synchronous: sqlite.Normal, ChangeLog: sqlite.ChangeLogOptions{MaxRows: 40}}
	db := sqlitetest.Open(t, itemSchema, options)
	l := mainLog(t, db, "item")
	at := head(t, l)
	const each, writers = 400, 2
	var wg sync.WaitGroup
	var done atomic.Bool
	for k := range int64(writers) {
		wg.Go(func() {
			own, err := sqlite.Open(bg, db.Path(), options)
			if err != nil {
				t.Error(err)
				return
			}
			log, err := own.ChangeLog("main")
			if err != nil {
				t.Error(err)
			}
			for i := range int64(each) {
				if err := write(own, k*each+i)(); err != nil {
					t.Error(err)
				}
				if i%25 == 0 {
					if err := log.Prune(bg); err != nil {
						t.Error(err)
					}
				}
			}
			if err := own.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	go func() {
		wg.Wait()
		done.Store(true)
	}()
	seen, gaps := 0, 0
	for finished := false; ; {
		p := page(t, db, l, at, math.MaxInt64, 7)
		next := at.Seq + 1
		if p.Gap {
			gaps++
			next = 0
		}
		for _, c := range p.Changes {
			if next != 0 && c.Seq != next {
				t.Errorf("change %d follows where %d should", c.Seq, next)
			}
			next = c.Seq + 1
			seen++
		}
		if len(p.Changes) == 0 && finished {
			break
		}
		finished = done.Load()
		at = p.End
	}
	t.Logf("%d changes, %d gaps", seen, gaps)
	if gaps == 0 && seen != each*writers {
		t.Errorf("%d changes without a gap", seen)
	}
}

// Somebody has emptied the log behind its back: numbers begin anew, so it must
// be another history.
func TestChangeLogEmptiedByHand(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, "CREATE TABLE t (id INTEGER PRIMARY KEY) STRICT")
	l := mainLog(t, db, "t")
	for range 3 {
		check(t, db.Write(bg, sqlite.Stmt{SQL: "INSERT INTO t DEFAULT VALUES"}))
	}
	before, err := l.Head(bg)
	check(t, err)
	check(t, db.Write(bg,
		sqlite.Stmt{SQL: "UPDATE _change_state SET floor = 2"},
		sqlite.Stmt{SQL: "DELETE FROM _change"}))
	if head, err := l.Head(bg); err == nil {
		t.Errorf("head %v of an empty log", head)
	}
	head, err := l.Head(bg)
	check(t, err)
	if head.Epoch == before.Epoch || head.Seq != 0 {
		t.Errorf("head %v, was %v", head, before)
	}
	check(t, db.Write(bg, sqlite.Stmt{SQL: "INSERT INTO t DEFAULT VALUES"}))
	check(t, db.Read(bg, func(r *sqlite.Reader) error {
		page, err := l.Page(r, head, 1<<40, 10)
		if err == nil && (page.Gap || len(page.Changes) != 1) {
			t.Errorf("%+v", page)
		}
		return err
	}))
}

// In the background some entries too many are left, so that not every commit is
// followed by another one.
func TestPruneInTheBackgroundWaits(t *testing.T) {
	t.Parallel()
	o := sqlite.ChangeLogOptions{MaxRows: 100}
	for _, test := range []struct {
		head  int64
		exact bool
		want  int64
	}{{100, false, 0}, {101, false, 0}, {104, false, 0}, {105, false, 5}, {1000, false, 900}, {101, true, 1}, {100, true, 0}} {
		if got := sqlite.PruneTarget(o, 0, test.head, test.exact); got != test.want {
			t.Errorf("head %d, exact %t: entries up to %d are deleted, want %d", test.head, test.exact, got, test.want)
		}
	}
}
