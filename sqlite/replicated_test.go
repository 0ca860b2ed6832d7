package sqlite_test

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

// replicate does to the log of db what a replicator does until stop: it has a
// read transaction open all the time, but for its own checkpoints, after each of
// which it writes.
func replicate(t *testing.T, db *sqlite.DB) (stop func()) {
	t.Helper()
	pool, err := sql.Open(sqlite.DriverName, "file:"+db.Path()+"?_busy_timeout=100000")
	check(t, err)
	_, err = pool.ExecContext(bg, "CREATE TABLE IF NOT EXISTS replica (n); INSERT INTO replica VALUES (0)")
	check(t, err)
	quit := make(chan struct{})
	var wg sync.WaitGroup
	tx := read(t, pool)
	wg.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				if err := tx.Rollback(); err != nil {
					t.Error(err)
				}
				return
			case <-tick.C:
			}
			if pages, _ := logPages(t, pool); pages < 100 {
				continue
			}
			if err := checkpointBehind(pool, tx); err != nil {
				t.Error(err)
			}
			tx = read(t, pool)
			if _, err := pool.ExecContext(bg, "UPDATE replica SET n = n + 1"); err != nil {
				t.Error(err)
			}
		}
	})
	return sync.OnceFunc(func() {
		close(quit)
		wg.Wait()
		check(t, pool.Close())
	})
}

// checkpointBehind ends tx and checkpoints, letting nobody write between.
func checkpointBehind(pool *sql.DB, tx *sql.Tx) error {
	conn, err := pool.Conn(bg)
	if err != nil {
		return err
	}
	_, err = conn.ExecContext(bg, "BEGIN IMMEDIATE")
	if err == nil {
		err = tx.Rollback()
	}
	if err == nil {
		_, err = pool.ExecContext(bg, "PRAGMA wal_checkpoint(PASSIVE)")
	}
	_, rerr := conn.ExecContext(bg, "ROLLBACK")
	return errors.Join(err, rerr, conn.Close())
}

// read begins a transaction that reads.
func read(t *testing.T, pool *sql.DB) *sql.Tx {
	t.Helper()
	tx, err := pool.BeginTx(bg, nil)
	if err == nil {
		err = tx.QueryRowContext(bg, "SELECT count(*) FROM sqlite_schema").Scan(new(int))
	}
	if err != nil {
		t.Error(err)
	}
	return tx
}

// logPages returns the length of the write-ahead log and how much of it has been
// checkpointed.
func logPages(t *testing.T, pool *sql.DB) (pages, copied int64) {
	t.Helper()
	if err := pool.QueryRowContext(bg, "PRAGMA wal_checkpoint(NOOP)").Scan(new(int), &pages, &copied); err != nil {
		t.Error(err)
	}
	return pages, copied
}

// lengthen writes until the log of db has a number of pages.
func lengthen(t *testing.T, db *sqlite.DB, pool *sql.DB, want int64) {
	t.Helper()
	for {
		have, _ := logPages(t, pool)
		if have >= want {
			return
		}
		check(t, db.Write(bg, sqlite.Stmt{
			SQL: "INSERT INTO item (note) VALUES (hex(zeroblob(?)))", Args: []driver.Value{max(1, (want-have-4)*2000)},
		}))
	}
}

// The log is left to the replicator while it is short.
func TestReplicatedLogIsLeftAlone(t *testing.T) {
	t.Parallel()
	for _, replicated := range []bool{false, true} {
		t.Run(fmt.Sprint(replicated), func(t *testing.T) {
			t.Parallel()
			db := sqlitetest.Open(t, itemSchema, sqlite.Options{Replicated: replicated, Checkpoint: 200})
			pool := sql.OpenDB(db.Connector())
			defer func() { check(t, pool.Close()) }()
			lengthen(t, db, pool, 50)
			if replicated {
				checkpointed(t, db)
				if _, copied := logPages(t, pool); copied > 0 {
					t.Errorf("%d of 50 pages were checkpointed", copied)
				}
				lengthen(t, db, pool, 150)
			}
			until(t, "a checkpoint", func() bool {
				checkpointed(t, db)
				pages, copied := logPages(t, pool)
				return copied == pages
			})
		})
	}
}

// checkpointed runs a checkpoint as the background does, unless that is about
// it, and reports whether readers were held up.
func checkpointed(t *testing.T, db *sqlite.DB) (paused bool) {
	t.Helper()
	paused, err := sqlite.Checkpoint(db)
	check(t, err)
	return paused
}

// It is also looked after without being asked.
func TestReplicatedLogInBackground(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Replicated: true, Checkpoint: 200})
	pool := sql.OpenDB(db.Connector())
	defer func() { check(t, pool.Close()) }()
	lengthen(t, db, pool, 150)
	until(t, "a checkpoint", func() bool {
		pages, copied := logPages(t, pool)
		return copied == pages
	})
}

// The log of a replicated database is longer by default before commits
// checkpoint it.
func TestReplicatedDefault(t *testing.T) {
	t.Parallel()
	for replicated, want := range map[bool]int64{false: 4000, true: 16384} {
		db := sqlitetest.Open(t, itemSchema, sqlite.Options{Replicated: replicated})
		check(t, db.Update(bg, func(tx *sqlite.Tx) error {
			var got int64
			if err := tx.QueryRowContext(bg, "PRAGMA wal_autocheckpoint").Scan(&got); err != nil || got != want {
				t.Errorf("replicated %v: at %d pages, %v; want %d", replicated, got, err, want)
			}
			return nil
		}))
	}
}

// Readers are held up for a log that is too long when that can help, which it
// cannot while somebody reads for long.
func TestNobodyWaitsInVain(t *testing.T) {
	t.Parallel()
	for _, replicated := range []bool{false, true} {
		t.Run(fmt.Sprint(replicated), func(t *testing.T) {
			t.Parallel()
			const limit = 100
			db := sqlitetest.Open(t, itemSchema, sqlite.Options{Synchronous: sqlite.Normal, Replicated: replicated, Checkpoint: limit})
			pool := sql.OpenDB(db.Connector())
			defer func() { check(t, pool.Close()) }()
			check(t, write(db, 1_000_000)())
			early := read(t, pool)
			lengthen(t, db, pool, 3*limit)
			for range 10 {
				if checkpointed(t, db) {
					t.Error("readers were held up in vain")
				}
			}
			late := read(t, pool)
			check(t, early.Rollback()) // from here on nearly all can be checkpointed
			until(t, "readers are held up", func() bool { return checkpointed(t, db) })
			check(t, late.Rollback())
		})
	}
}

func TestReplicatedLogStaysBounded(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Synchronous: sqlite.Normal, Replicated: true, Checkpoint: 400})
	stop := replicate(t, db)
	defer stop()
	const most = 1 << 30
	var largest, total int64
	for id := int64(0); total < 5*largest || total < 8<<20; id++ {
		stmt := insert(id % 1000)
		stmt.SQL = "REPLACE INTO item (id, note) VALUES (?, hex(zeroblob(4000)))"
		check(t, db.Write(bg, stmt))
		value(t, db, "SELECT max(id) FROM item")
		info, err := os.Stat(db.Path() + "-wal")
		check(t, err)
		if largest, total = max(largest, info.Size()), total+8000; total > most {
			t.Errorf("the log grew to %d MB", largest>>20)
			break
		}
	}
	t.Logf("%d MB written, log of %d MB at most", total>>20, largest>>20)
}

// A replicator has the file open when the database is closed, and after it.
func TestReplicatedClose(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Replicated: true})
	pool, err := sql.Open(sqlite.DriverName, "file:"+db.Path())
	check(t, err)
	check(t, write(db, 1, 2, 3)())
	tx := read(t, pool)
	check(t, write(db, 4)())
	within(t, "Close", func() { check(t, db.Close()) })
	check(t, tx.Rollback())
	if pages, _ := logPages(t, pool); pages == 0 {
		t.Error("the log is gone")
	}
	check(t, pool.Close())
	wantItems(t, sqlitetest.OpenFile(t, db.Path(), ""), 1, 2, 3, 4)
}
