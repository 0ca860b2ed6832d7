package sqlite_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

// A goroutine of the function goes on using the transaction when the function
// has returned, which it must not. That hurts nobody else, and no answer of a
// statement is false.
func TestTxUsedByAnotherGoroutine(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Synchronous: sqlite.Normal})
	var want []int64
	for round := range int64(50) {
		var wg sync.WaitGroup
		var done []int64
		base := 1000 * round
		started := make(chan struct{})
		err := db.Update(bg, func(tx *sqlite.Tx) error {
			wg.Go(func() {
				for i := range int64(500) {
					id := base + i
					if err := exec(tx, id); err != nil {
						return
					}
					done = append(done, id)
					if i == 1 {
						close(started)
					}
				}
			})
			<-started
			for range round {
				runtime.Gosched()
			}
			if round%3 == 0 {
				return errOwn
			}
			return nil
		})
		check(t, write(db, base+999)())
		wg.Wait()
		want = append(want, base+999)
		if err == nil {
			want = append(want, done...)
		}
	}
	wantAll(t, db, want)
}

// A cancelled read interrupts itself and not the next one on its connection.
func TestInterruptHitsNobodyElse(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Readers: 1})
	const slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 2000) SELECT i FROM n"
	reads := []func(ctx context.Context) error{
		func(ctx context.Context) error { return db.Query(ctx, slow, nil, nil) },
		func(ctx context.Context) error {
			return db.Read(ctx, func(r *sqlite.Reader) error { return r.Query(slow, nil, nil) })
		},
		func(ctx context.Context) error {
			return db.View(ctx, func(tx *sqlite.Tx) error {
				_, err := tx.ExecContext(ctx, "SELECT max(i) FROM ("+slow+")")
				return err
			})
		},
		func(ctx context.Context) error {
			return db.View(ctx, func(tx *sqlite.Tx) error {
				return tx.QueryRowContext(ctx, "SELECT max(i) FROM ("+slow+")").Scan(new(int))
			})
		},
	}
	for round := range 200 {
		ctx, cancel := context.WithCancel(bg)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for range round {
				runtime.Gosched()
			}
			cancel()
		}()
		if err := reads[round%len(reads)](ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatalf("round %d: %v", round, err)
		}
		check(t, db.Query(bg, slow, nil, nil))
		<-ended
	}
}

// A panic of a callback of Query or Read is the caller's and costs no reader.
func TestPanicInRead(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Readers: 1})
	check(t, write(db, 1)())
	calls := []func(){
		func() { _ = db.Query(bg, "SELECT id FROM item", nil, func([]driver.Value) error { panic(errOwn) }) },
		func() { _ = db.Read(bg, func(*sqlite.Reader) error { panic(errOwn) }) },
		func() {
			_ = db.Read(bg, func(r *sqlite.Reader) error {
				return r.Query("SELECT id FROM item", nil, func([]driver.Value) error { panic(errOwn) })
			})
		},
	}
	for i, call := range calls {
		func() {
			defer func() {
				if p := recover(); p != errOwn { //nolint:errorlint // the value itself
					t.Errorf("call %d: recovered %v", i, p)
				}
			}()
			call()
		}()
		wantItems(t, db, 1)
	}
}

// Close does not wait for a function that has lost the writer, and that
// function finds nothing left to break.
func TestCloseUnderLostFunction(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Logger: quiet, MaxHold: 10 * time.Millisecond})
	free, entered := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- db.Update(bg, func(tx *sqlite.Tx) error {
			rows, err := tx.QueryContext(bg, "SELECT id FROM item")
			close(entered)
			<-free
			if err == nil {
				for rows.Next() {
				}
				err = rows.Err()
			}
			return errors.Join(err, exec(tx, 2))
		})
	}()
	<-entered
	within(t, "Close", func() { check(t, db.Close()) })
	close(free)
	wantErr(t, <-done, sqlite.ErrHeldTooLong)
}

// The application's own connection gets its turn beside a busy writer, and
// the writer beside it.
func TestOwnConnectionIsNotStarved(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	own := sql.OpenDB(db.Connector())
	own.SetMaxOpenConns(1)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for g := range int64(16) {
		wg.Go(func() {
			for i := int64(0); ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := write(db, 1_000_000*(g+1)+i)(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var slowest time.Duration
	for id := range 5 {
		start := time.Now()
		if _, err := own.ExecContext(bg, "INSERT INTO item (id) VALUES (?)", id); err != nil {
			t.Error(err)
		}
		slowest = max(slowest, time.Since(start))
	}
	start := time.Now()
	check(t, db.Migrate(bg, migrations("1_a.sql", "CREATE TABLE a (id)", "2_b.sql", "CREATE TABLE b (id)")))
	t.Logf("slowest of 5 statements: %v; Migrate: %v", slowest, time.Since(start))
	close(stop)
	wg.Wait()
	check(t, own.Close())
	if v := value(t, db, "SELECT count(*) FROM item WHERE id < 5"); fmt.Sprint(v) != "5" {
		t.Errorf("%v items of the own connection", v)
	}
}
