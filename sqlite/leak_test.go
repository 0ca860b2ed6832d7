package sqlite_test

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

// Two databases in one process, opened, used and closed a hundred times,
// leave neither goroutines nor file descriptors. Not parallel: it counts.
func TestOpenAndCloseLeaveNothing(t *testing.T) {
	dir := t.TempDir()
	descriptors := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return 0
		}
		return len(entries)
	}
	once := func(name string, i int64) {
		db, err := sqlite.Open(bg, filepath.Join(dir, name), sqlite.Options{Synchronous: sqlite.Normal, Ballast: 4096})
		check(t, err)
		if i == 0 {
			check(t, db.Update(bg, func(tx *sqlite.Tx) error { return run(tx, itemSchema) }))
		}
		check(t, write(db, 2*i)())
		check(t, update(db, 2*i+1)())
		check(t, db.View(bg, func(tx *sqlite.Tx) error { return tx.QueryRowContext(bg, "SELECT count(*) FROM item").Scan(new(int)) }))
		check(t, db.Query(bg, "SELECT 1", nil, func([]driver.Value) error { return nil }))
		check(t, db.Close())
	}
	once("a.db", 0)
	once("b.db", 0)
	goroutines, files := runtime.NumGoroutine(), descriptors()
	var wg sync.WaitGroup
	for _, name := range []string{"a.db", "b.db"} {
		wg.Go(func() {
			for i := range int64(99) {
				once(name, i+1)
			}
		})
	}
	wg.Wait()
	until(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= goroutines })
	until(t, "files are closed", func() bool { return descriptors() <= files })
	for _, name := range []string{"a.db", "b.db"} {
		db := sqlitetest.OpenFile(t, filepath.Join(dir, name), "")
		if v := value(t, db, "SELECT count(*) FROM item"); v != int64(200) {
			t.Errorf("%v items", v)
		}
		sqlitetest.Check(t, db.Path())
	}
}

// The log is checkpointed under load, also while readers come and go.
func TestLogStaysBounded(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Synchronous: sqlite.Normal, Checkpoint: 400})
	const size, most = 8000, 1 << 30 // bytes of a write, and of all of them
	var wg sync.WaitGroup
	var writes, reads, largest atomic.Int64
	// Until far more is written than the log has ever had.
	more := func() bool {
		total := size * writes.Load()
		return total < max(16<<20, 2*largest.Load()) && total < most
	}
	for range 8 {
		wg.Go(func() {
			for more() {
				stmt := insert(writes.Add(1) % 1000)
				stmt.SQL = "REPLACE INTO item (id, note) VALUES (?, hex(zeroblob(4000)))"
				if err := db.Write(bg, stmt); err != nil {
					t.Error(err)
					return
				}
				if info, err := os.Stat(db.Path() + "-wal"); err == nil && info.Size() > largest.Load() {
					largest.Store(info.Size())
				}
			}
		})
	}
	for range 3 { // their snapshots overlap
		wg.Go(func() {
			for more() {
				err := db.View(bg, func(tx *sqlite.Tx) error {
					for range 3 {
						if err := tx.QueryRowContext(bg, "SELECT sum(id) FROM (SELECT id FROM item ORDER BY id DESC LIMIT 500)").Scan(new(any)); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					t.Error(err)
					return
				}
				reads.Add(1)
			}
		})
	}
	wg.Wait()
	t.Logf("%d writes of 8 kB and %d reads: log of %d kB at most", writes.Load(), reads.Load(), largest.Load()>>10)
	if size*writes.Load() >= most {
		t.Errorf("the log grew to %d MB", largest.Load()>>20)
	}
}

// A reader that cannot be opened must leave nobody waiting for it: neither
// another reader nor Close.
func TestReaderCannotBeOpened(t *testing.T) {
	t.Parallel()
	db, err := sqlite.Open(bg, t.TempDir()+"/test.db", sqlite.Options{Readers: 1, BusyTimeout: 200 * time.Millisecond, Ballast: -1, Logger: quiet})
	check(t, err)
	// Another file takes its place, one that is locked, so that opening
	// takes the busy timeout and then fails.
	check(t, os.Rename(db.Path(), db.Path()+".old"))
	check(t, os.WriteFile(db.Path(), nil, 0o600))
	unlock := lockRollback(t, db.Path())
	defer unlock()
	const n = 3
	errs := make(chan error, n)
	for range n {
		go func() { errs <- db.View(bg, func(*sqlite.Tx) error { return nil }) }()
	}
	within(t, "readers", func() {
		for range n {
			if err := <-errs; err == nil {
				t.Error("the wrong file was opened")
			}
		}
	})
	go func() { errs <- db.View(bg, func(*sqlite.Tx) error { return nil }) }()
	time.Sleep(20 * time.Millisecond) // into the busy timeout; a later start is harmless
	within(t, "Close", func() { _ = db.Close() })
	within(t, "the last reader", func() {
		if err := <-errs; err == nil {
			t.Error("the wrong file was opened")
		}
	})
}

// lockRollback locks a database that is not in WAL mode against all others.
func lockRollback(t *testing.T, path string) (unlock func()) {
	t.Helper()
	conn, err := sqlite.Driver{}.Open(path)
	check(t, err)
	exec := func(query string) {
		t.Helper()
		_, err := conn.(driver.Execer).Exec(query, nil) //nolint:staticcheck // the driver has no pool here
		check(t, err)
	}
	exec("CREATE TABLE other (id)")
	exec("BEGIN EXCLUSIVE")
	return func() { check(t, errors.Join(conn.Close())) }
}

// A long snapshot keeps the log from beginning anew, however often one tries.
// Other readers are not held up in vain for more than a tenth of the time.
func TestLongViewDoesNotStallReaders(t *testing.T) {
	t.Parallel()
	const limit = 50
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Synchronous: sqlite.Normal, Checkpoint: limit})
	pool := sql.OpenDB(db.Connector())
	defer func() { check(t, pool.Close()) }()
	m, err := sqlite.NewMaintainer(db)
	check(t, err)
	defer func() { check(t, m.Close()) }()
	// A snapshot of the beginning keeps all that follows in the log.
	during(t, db, func() {
		lengthen(t, db, pool, 4*limit)
		for range 100 {
			if paused, err := m.Checkpoint(); paused || err != nil {
				t.Fatalf("readers were held up: %v, %v", paused, err)
			}
		}
	})
	// One of the end looks as if holding up readers could help.
	lengthen(t, db, pool, 4*limit)
	during(t, db, func() {
		var due time.Time
		for _, drain := range []time.Duration{10 * time.Millisecond, 20 * time.Millisecond, 40 * time.Millisecond} {
			var began time.Time
			until(t, "readers are held up", func() bool {
				began = time.Now()
				paused, err := m.Checkpoint()
				check(t, err)
				return paused
			})
			if time.Now().Before(due) {
				t.Errorf("readers are held up again before %v have passed", 5*drain)
			}
			due = began.Add(10 * drain)
		}
	})
}

// during runs f while a View has a snapshot.
func during(t *testing.T, db *sqlite.DB, f func()) {
	t.Helper()
	check(t, db.View(bg, func(tx *sqlite.Tx) error {
		if err := tx.QueryRowContext(bg, "SELECT count(*) FROM item").Scan(new(int)); err != nil {
			return err
		}
		f()
		return nil
	}))
}
