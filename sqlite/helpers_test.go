package sqlite_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/sqlite"
)

// patience is how long a test waits for what should happen at once: a machine
// that is busy may need a while, so it only tells that something hangs.
const patience = 2 * time.Minute

var (
	bg    = context.Background()
	quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

	errOwn = errors.New("the function's own error")
)

const itemSchema = `CREATE TABLE item (id INTEGER PRIMARY KEY, note TEXT) STRICT`

// insert returns a statement that adds an item.
func insert(id int64) sqlite.Stmt {
	return sqlite.Stmt{SQL: "INSERT INTO item (id) VALUES (?)", Args: []driver.Value{id}}
}

// write returns a Write of items, and update an Update that adds items.
func write(db *sqlite.DB, ids ...int64) func() error {
	return func() error {
		var stmts []sqlite.Stmt
		for _, id := range ids {
			stmts = append(stmts, insert(id))
		}
		return db.Write(bg, stmts...)
	}
}

func update(db *sqlite.DB, ids ...int64) func() error {
	return func() error {
		return db.Update(bg, func(tx *sqlite.Tx) error { return exec(tx, ids...) })
	}
}

// exec adds items inside a transaction.
func exec(tx *sqlite.Tx, ids ...int64) error {
	for _, id := range ids {
		if _, err := tx.ExecContext(bg, "INSERT INTO item (id) VALUES (?)", id); err != nil {
			return err
		}
	}
	return nil
}

func run(tx *sqlite.Tx, query string, args ...any) error {
	_, err := tx.ExecContext(bg, query, args...)
	return err
}

// items returns the ids of all items in order.
func items(tb testing.TB, db *sqlite.DB) []int64 {
	tb.Helper()
	ids := []int64{}
	err := db.Query(bg, "SELECT id FROM item ORDER BY id", nil, func(row []driver.Value) error {
		ids = append(ids, row[0].(int64))
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return ids
}

func wantItems(tb testing.TB, db *sqlite.DB, want ...int64) {
	tb.Helper()
	if got := items(tb, db); !reflect.DeepEqual(got, append([]int64{}, want...)) {
		tb.Errorf("items are %v, want %v", got, want)
	}
}

// value returns the single value of a query on a reader.
func value(tb testing.TB, db *sqlite.DB, query string) (v driver.Value) {
	tb.Helper()
	err := db.Query(bg, query, nil, func(row []driver.Value) error {
		v = row[0]
		return nil
	})
	if err != nil {
		tb.Fatalf("%s: %v", query, err)
	}
	return v
}

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func wantErr(tb testing.TB, err, want error) {
	tb.Helper()
	if !errors.Is(err, want) {
		tb.Errorf("error is %v, want %v", err, want)
	}
}

// within fails the test when f does not return in time. It cannot stop f.
func within(tb testing.TB, what string, f func()) {
	tb.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(patience):
		tb.Fatalf("%s: still running after %v", what, patience)
	}
}

// until waits for a condition that nothing announces.
func until(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(patience); !cond(); {
		if time.Now().After(deadline) {
			tb.Fatalf("%s: not after %v", what, patience)
		}
		time.Sleep(50 * time.Microsecond)
	}
}

// hold occupies the writer until release is called. The Update that does so
// writes nothing.
func hold(tb testing.TB, db *sqlite.DB) (release func()) {
	tb.Helper()
	held, free, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- db.Update(bg, func(*sqlite.Tx) error {
			close(held)
			<-free
			return nil
		})
	}()
	select {
	case <-held:
	case err := <-done:
		tb.Errorf("cannot hold the writer: %v", err)
		return func() {}
	}
	return sync.OnceFunc(func() {
		close(free)
		if err := <-done; err != nil && !errors.Is(err, sqlite.ErrRolledBack) {
			tb.Errorf("the Update that held the writer: %v", err)
		}
	})
}

// together starts calls while the writer is occupied, so that they wait in
// this order and share a commit, and returns their errors.
func together(tb testing.TB, db *sqlite.DB, calls ...func() error) []error {
	tb.Helper()
	release := hold(tb, db)
	errs := make([]error, len(calls))
	var wg sync.WaitGroup
	for i, call := range calls {
		before := sqlite.Waiting(db)
		ended := make(chan struct{})
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer close(ended)
			errs[i] = call()
		}()
		until(tb, fmt.Sprintf("call %d waits", i), func() bool {
			select {
			case <-ended: // it was refused at once
				return true
			default:
				return sqlite.Waiting(db) > before
			}
		})
	}
	release()
	within(tb, "calls", wg.Wait)
	return errs
}
