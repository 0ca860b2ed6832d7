package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

func TestQueueIsBounded(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{MaxQueue: 3})
	release := hold(t, db)
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			if err := write(db, int64(i))(); err != nil {
				t.Error(err)
			}
		})
		until(t, "it waits", func() bool { return sqlite.Waiting(db) == i+1 })
	}
	wantErr(t, write(db, 100)(), sqlite.ErrBusy)
	wantErr(t, update(db, 101)(), sqlite.ErrBusy)
	check(t, db.Err()) // busy is not broken
	release()
	within(t, "those that waited", wg.Wait)
	check(t, write(db, 3)())
	wantItems(t, db, 0, 1, 2, 3)
}

// lock takes the write lock of the file as another process would.
func lock(t *testing.T, path string) (unlock func()) {
	t.Helper()
	pool, err := sql.Open(sqlite.DriverName, path)
	check(t, err)
	conn, err := pool.Conn(bg)
	check(t, err)
	_, err = conn.ExecContext(bg, "BEGIN IMMEDIATE")
	check(t, err)
	return sync.OnceFunc(func() {
		_, err := conn.ExecContext(bg, "ROLLBACK")
		if err := errors.Join(err, conn.Close(), pool.Close()); err != nil {
			t.Error(err)
		}
	})
}

func TestOtherWriter(t *testing.T) {
	t.Parallel()
	const timeout = 150 * time.Millisecond
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{BusyTimeout: timeout})
	unlock := lock(t, db.Path())
	defer unlock()
	for name, call := range map[string]func() error{"single": write(db, 1), "several": write(db, 2, 3), "Update": update(db, 4)} {
		start := time.Now()
		wantErr(t, call(), sqlite.ErrBusy)
		if d := time.Since(start); d < timeout/2 {
			t.Errorf("%s: gave up after %v", name, d)
		}
	}
	wantItems(t, db)
	check(t, db.Err())

	// One that still waits when the lock is given up succeeds.
	db = sqlitetest.OpenFile(t, db.Path(), "", sqlite.Options{BusyTimeout: patience})
	done := make(chan error, 1)
	go func() { done <- write(db, 5)() }()
	until(t, "the write begins", func() bool { return sqlite.Waiting(db) == 0 })
	unlock()
	check(t, <-done)
	wantItems(t, db, 5)
}

// Each of many must not wait for its own turn to be told that the file is
// locked: that would take the busy timeout times their number.
func TestOtherWriterManyWait(t *testing.T) {
	t.Parallel()
	const timeout, n = 200 * time.Millisecond, 100
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{BusyTimeout: timeout})
	defer lock(t, db.Path())()
	start := time.Now()
	var wg sync.WaitGroup
	for i := range int64(n) {
		wg.Go(func() { wantErr(t, write(db, i, 100+i)(), sqlite.ErrBusy) })
	}
	wg.Wait()
	if d := time.Since(start); d > n*timeout/2 {
		t.Errorf("%d writes were told after %v, with a busy timeout of %v", n, d, timeout)
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	check(t, write(db, 1)())
	check(t, db.View(bg, func(*sqlite.Tx) error { return nil }))
	check(t, db.Close())
	check(t, db.Close())
	_, sandboxErr := db.Sandbox(bg, func(string) bool { return true })
	_, versionErr := db.SchemaVersion(bg)
	for name, err := range map[string]error{
		"Write":         write(db, 2)(),
		"Update":        update(db, 3)(),
		"View":          db.View(bg, func(*sqlite.Tx) error { return nil }),
		"Read":          db.Read(bg, func(*sqlite.Reader) error { return nil }),
		"Query":         db.Query(bg, "SELECT 1", nil, nil),
		"Migrate":       db.Migrate(bg, migrations("0001_a.sql", "CREATE TABLE a (id)")),
		"Err":           db.Err(),
		"Sandbox":       sandboxErr,
		"SchemaVersion": versionErr,
	} {
		if !errors.Is(err, sqlite.ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
	db = sqlitetest.OpenFile(t, db.Path(), "")
	wantItems(t, db, 1)
}

// Close waits for what runs and for what has been queued.
func TestCloseWaits(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	release := hold(t, db)
	queued := make(chan error, 1)
	go func() { queued <- write(db, 1)() }()
	until(t, "a write waits", func() bool { return sqlite.Waiting(db) == 1 })
	viewing, seen := make(chan struct{}), make(chan struct{})
	viewed := make(chan error, 1)
	go func() {
		viewed <- db.View(bg, func(tx *sqlite.Tx) error {
			close(viewing)
			<-seen
			return tx.QueryRowContext(bg, "SELECT 1").Scan(new(int))
		})
	}()
	<-viewing
	closed := make(chan error, 2)
	go func() { closed <- db.Close() }()
	go func() { closed <- db.Close() }()
	until(t, "it is closing", func() bool { return errors.Is(db.Err(), sqlite.ErrClosed) })
	wantErr(t, update(db, 2)(), sqlite.ErrClosed)
	select {
	case err := <-closed:
		t.Fatalf("closed under a running function: %v", err)
	default:
	}
	release()
	check(t, <-queued)
	close(seen)
	check(t, <-viewed)
	check(t, <-closed)
	check(t, <-closed)
	db = sqlitetest.OpenFile(t, db.Path(), "")
	wantItems(t, db, 1)
}

// Close while others call everything: each call ends in success or ErrClosed.
func TestCloseRaces(t *testing.T) {
	t.Parallel()
	for range 10 {
		db := sqlitetest.Open(t, itemSchema, sqlite.Options{Synchronous: sqlite.Normal, Readers: 3, Checkpoint: 1})
		var acknowledged sync.Map
		var wg sync.WaitGroup
		started := make(chan struct{}, 16)
		for g := range int64(8) {
			wg.Go(func() {
				for i := int64(0); ; i++ {
					id := g*1000000 + i
					var err error
					if id%2 == 0 {
						err = write(db, id)()
					} else {
						err = update(db, id)()
					}
					if err != nil {
						wantErr(t, err, sqlite.ErrClosed)
						return
					}
					acknowledged.Store(id, true)
					if i == 3 {
						started <- struct{}{}
					}
					if err := db.View(bg, func(*sqlite.Tx) error { return nil }); err != nil {
						wantErr(t, err, sqlite.ErrClosed)
					}
				}
			})
		}
		for range 8 {
			<-started
		}
		within(t, "Close", func() { check(t, db.Close()) })
		within(t, "callers", wg.Wait)
		db = sqlitetest.OpenFile(t, db.Path(), "")
		for _, id := range items(t, db) {
			if _, ok := acknowledged.LoadAndDelete(id); !ok {
				t.Errorf("item %d was not acknowledged", id)
			}
		}
		acknowledged.Range(func(id, _ any) bool {
			t.Errorf("item %d is missing", id)
			return true
		})
	}
}

func TestOpenCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(bg)
	cancel()
	_, err := sqlite.Open(ctx, t.TempDir()+"/test.db", sqlite.Options{})
	wantErr(t, err, context.Canceled)
}
