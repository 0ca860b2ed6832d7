package sqlite_test

import (
	"database/sql/driver"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

// seen returns the ids in the table, as the transaction sees them.
func seen(t *testing.T, tx *sqlite.Tx) (ids []int64) {
	t.Helper()
	err := tx.Query("SELECT id FROM item ORDER BY id", nil, func(row []driver.Value) error {
		ids = append(ids, row[0].(int64))
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return ids
}

func TestTxWrite(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	err := db.Update(bg, func(tx *sqlite.Tx) error {
		if err := tx.Write(insert(1), insert(2)); err != nil {
			return err
		}
		err := tx.Write(insert(3), insert(1)) // 3 goes with it
		var at *sqlite.StmtError
		if sqlite.Code(err) != 1555 || !errors.As(err, &at) || at.Index != 1 {
			t.Errorf("a second 1: %v", err)
		}
		refusal := errors.New("refused")
		refused := insert(4)
		refused.Done = func(int) error { return refusal }
		if err := tx.Write(refused); !errors.Is(err, refusal) {
			t.Errorf("refused in Done: %v", err)
		}
		if err := exec(tx, 5); err != nil { // both ways of using it in turn
			return err
		}
		for _, sql := range []string{"COMMIT", "ROLLBACK", "SAVEPOINT x", "PRAGMA synchronous=OFF"} {
			if err := tx.Write(sqlite.Stmt{SQL: sql}); err == nil {
				t.Errorf("%s was executed", sql)
			}
		}
		if got := seen(t, tx); len(got) != 3 || got[2] != 5 {
			t.Errorf("inside there are %v", got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.View(bg, func(tx *sqlite.Tx) error {
		if got := seen(t, tx); len(got) != 3 {
			t.Errorf("afterwards there are %v", got)
		}
		if err := tx.Write(insert(9)); err == nil {
			t.Error("View has written")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestTxQueryInCallback(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	if err := write(db, 1, 2, 3)(); err != nil {
		t.Fatal(err)
	}
	pairs := 0
	err := db.Update(bg, func(tx *sqlite.Tx) error {
		return tx.Query("SELECT id FROM item", nil, func(row []driver.Value) error {
			return tx.Query("SELECT id FROM item WHERE id > ?", []driver.Value{row[0]}, func([]driver.Value) error {
				pairs++
				return nil
			})
		})
	})
	if err != nil || pairs != 3 {
		t.Errorf("%d pairs, %v", pairs, err)
	}
}

func TestTxPanicInCallback(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	err := db.Update(bg, func(tx *sqlite.Tx) error {
		s := insert(1)
		s.Done = func(int) error { panic("in Done") }
		var panicked *sqlite.PanicError
		if err := tx.Write(s); !errors.As(err, &panicked) {
			t.Errorf("a panic in Done: %v", err)
		}
		return exec(tx, 2)
	})
	if err != nil {
		t.Error(err)
	}
	if err := db.Update(bg, func(tx *sqlite.Tx) error {
		if got := seen(t, tx); len(got) != 1 || got[0] != 2 {
			t.Errorf("there are %v", got)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func TestOnEnd(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	failure := errors.New("failure")
	for _, c := range []struct {
		name string
		fn   func(*sqlite.Tx) error
		want bool
	}{
		{"commit", func(tx *sqlite.Tx) error { return exec(tx, 1) }, true},
		{"error", func(*sqlite.Tx) error { return failure }, false},
		{"panic", func(*sqlite.Tx) error { panic(1) }, false},
		{"lost", func(tx *sqlite.Tx) error {
			_, err := tx.ExecContext(bg, "INSERT OR ROLLBACK INTO item (id) VALUES (1)")
			if err == nil {
				t.Error("inserted twice")
			}
			return nil
		}, false},
	} {
		var got []bool
		err := db.Update(bg, func(tx *sqlite.Tx) error {
			tx.OnEnd(func(committed bool) { got = append(got, committed) })
			tx.OnEnd(func(committed bool) {
				got = append(got, committed)
				if err := write(db, 100)(); err != nil { // the writer is free again
					t.Errorf("%s: %v", c.name, err)
				}
				if err := db.Write(bg, sqlite.Stmt{SQL: "DELETE FROM item WHERE id = 100"}); err != nil {
					t.Error(err)
				}
			})
			return c.fn(tx)
		})
		if (err == nil) != c.want || len(got) != 2 || got[0] != c.want || got[1] != c.want {
			t.Errorf("%s: %v, told %v", c.name, err, got)
		}
	}
}

func TestUpdateWithin(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	err := db.UpdateWithin(bg, time.Millisecond, func(tx *sqlite.Tx) error {
		for {
			if err := tx.Write(sqlite.Stmt{SQL: "INSERT INTO item DEFAULT VALUES"}); err != nil {
				return err // its transaction is gone
			}
		}
	})
	if !errors.Is(err, sqlite.ErrHeldTooLong) {
		t.Errorf("held for ever: %v", err)
	}
	if err := write(db, 1)(); err != nil {
		t.Error(err)
	}
}

func TestNested(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	failure := errors.New("failure")
	err := db.Update(bg, func(tx *sqlite.Tx) error {
		if err := exec(tx, 1); err != nil {
			return err
		}
		err := tx.Nested(func() error {
			if err := tx.Nested(func() error { return exec(tx, 2) }); err != nil {
				return err
			}
			return errors.Join(exec(tx, 3), failure)
		})
		if !errors.Is(err, failure) {
			t.Errorf("failed inside: %v", err)
		}
		func() {
			defer func() { _ = recover() }()
			_ = tx.Nested(func() error {
				_ = exec(tx, 4)
				panic(1)
			})
		}()
		return tx.Nested(func() error { return exec(tx, 5) })
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.View(bg, func(tx *sqlite.Tx) error {
		if got := seen(t, tx); len(got) != 2 || got[0] != 1 || got[1] != 5 {
			t.Errorf("there are %v", got)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// What waits for the query that it is inside of is an error, not a deadlock.
func TestTxInsideQuery(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	if err := write(db, 1)(); err != nil {
		t.Fatal(err)
	}
	err := db.Update(bg, func(tx *sqlite.Tx) error {
		return tx.Query("SELECT id FROM item", nil, func([]driver.Value) error {
			if err := exec(tx, 2); err == nil {
				t.Error("ExecContext has returned no error")
			}
			if rows, err := tx.QueryContext(bg, "SELECT 1"); err == nil {
				t.Error("QueryContext has returned no error", rows.Close(), rows.Err())
			}
			if s, err := tx.PrepareContext(bg, "SELECT 1"); err == nil {
				t.Error("PrepareContext has returned no error", s.Close())
			}
			var n int
			if err := tx.QueryRowContext(bg, "SELECT 1").Scan(&n); err == nil {
				t.Error("QueryRowContext has returned no error")
			}
			return nil
		})
	})
	if err != nil {
		t.Error(err)
	}
}

func TestOnEndInAnyCase(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	told := make(chan bool, 3)
	tell := func(committed bool) { told <- committed }
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = db.Update(bg, func(tx *sqlite.Tx) error {
			tx.OnEnd(tell)
			runtime.Goexit()
			return nil
		})
	}()
	<-done
	func() {
		defer func() { _ = recover() }()
		_ = db.Update(bg, func(tx *sqlite.Tx) error {
			tx.OnEnd(func(bool) { panic("in OnEnd") })
			tx.OnEnd(tell)
			return exec(tx, 1)
		})
	}()
	if len(told) != 2 || <-told || !<-told {
		t.Error("not all were told")
	}
}

// A function that is alone loses nothing to the deferred constraints of others.
func TestUpdateAlone(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema+`; CREATE TABLE part (item INTEGER REFERENCES item(id) DEFERRABLE INITIALLY DEFERRED) STRICT`)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := db.Write(bg, sqlite.Stmt{SQL: "INSERT INTO part VALUES (-1)"}); sqlite.Code(err) != 787 {
					t.Errorf("a part of nothing: %v", err)
					return
				}
			}
		})
	}
	for id := range int64(200) {
		if err := db.UpdateAlone(bg, time.Minute, func(tx *sqlite.Tx) error { return exec(tx, id+1) }); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	if err := db.UpdateAlone(bg, time.Minute, func(tx *sqlite.Tx) error { return tx.Write(sqlite.Stmt{SQL: "INSERT INTO part VALUES (-1)"}) }); sqlite.Code(err) != 787 {
		t.Errorf("a part of nothing: %v", err)
	}
}
