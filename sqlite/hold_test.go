package sqlite_test

import (
	"errors"
	"testing"
	"time"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

const endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) "

// Functions that would keep the writer for ever lose it, and only they do.
func TestHeldTooLong(t *testing.T) {
	t.Parallel()
	tests := map[string]func(db *sqlite.DB, tx *sqlite.Tx) error{
		"nested Update": func(db *sqlite.DB, tx *sqlite.Tx) error { return errors.Join(exec(tx, 500), update(db, 600)()) },
		"nested Write":  func(db *sqlite.DB, tx *sqlite.Tx) error { return errors.Join(exec(tx, 500), write(db, 600)()) },
		"endless SELECT": func(_ *sqlite.DB, tx *sqlite.Tx) error {
			return errors.Join(exec(tx, 500), run(tx, endless+"SELECT max(i) FROM n"))
		},
		"endless INSERT": func(_ *sqlite.DB, tx *sqlite.Tx) error {
			return run(tx, endless+"INSERT INTO item (note) SELECT 1 FROM n WHERE i < 0")
		},
		"endless upsert": func(_ *sqlite.DB, tx *sqlite.Tx) error {
			return run(tx, endless+"INSERT OR REPLACE INTO item (id) SELECT 500 + i % 10 FROM n")
		},
		"endless QueryRow": func(_ *sqlite.DB, tx *sqlite.Tx) error {
			return errors.Join(exec(tx, 500), tx.QueryRowContext(bg, endless+"SELECT max(i) FROM n").Scan(new(int)))
		},
		"endless prepared": func(_ *sqlite.DB, tx *sqlite.Tx) error {
			stmt, err := tx.PrepareContext(bg, endless+"SELECT max(i) FROM n")
			if err != nil {
				return err
			}
			return stmt.QueryRowContext(bg).Scan(new(int))
		},
		"endless rows": func(_ *sqlite.DB, tx *sqlite.Tx) error {
			rows, err := tx.QueryContext(bg, endless+"SELECT i FROM n")
			if err != nil {
				return err
			}
			for rows.Next() {
			}
			return rows.Err()
		},
		"dropped errors": func(_ *sqlite.DB, tx *sqlite.Tx) error {
			_ = run(tx, endless+"SELECT max(i) FROM n")
			_ = exec(tx, 501)
			return nil
		},
		"dropped errors of an INSERT": func(_ *sqlite.DB, tx *sqlite.Tx) error {
			_ = run(tx, endless+"INSERT OR REPLACE INTO item (id) SELECT 500 + i % 10 FROM n")
			_ = exec(tx, 501)
			return nil
		},
		"statements without end": func(_ *sqlite.DB, tx *sqlite.Tx) error {
			for id := int64(500); ; id++ {
				if err := run(tx, "INSERT OR REPLACE INTO item (id) VALUES (500)"); err != nil {
					return err
				}
			}
		},
	}
	for name, f := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := sqlitetest.Open(t, itemSchema, sqlite.Options{Logger: quiet})
			errs := around(t, db, f)
			wantErr(t, errs[1], sqlite.ErrHeldTooLong)
			for i, err := range errs {
				if i != 1 && err != nil && !errors.Is(err, sqlite.ErrRolledBack) {
					t.Errorf("call %d: %v", i, err)
				}
			}
			check(t, write(db, 9)())
			check(t, update(db, 10)())
			got := map[int64]bool{}
			for _, id := range items(t, db) {
				got[id] = true
			}
			for i, id := range []int64{1, 500, 2} {
				if got[id] != (errs[i] == nil) {
					t.Errorf("item %d there: %v, answer: %v", id, got[id], errs[i])
				}
			}
			if got[501] {
				t.Error("a statement after the loss took effect")
			}
		})
	}
}

// around runs a write, the function f, which is expected to hold the writer
// for too long, and an Update. These have all the time that a busy machine needs.
func around(t *testing.T, db *sqlite.DB, f func(*sqlite.DB, *sqlite.Tx) error) []error {
	t.Helper()
	errs := make([]chan error, 3)
	for i, call := range []func() error{
		write(db, 1),
		func() error {
			return db.UpdateWithin(bg, 50*time.Millisecond, func(tx *sqlite.Tx) error { return f(db, tx) })
		},
		update(db, 2),
	} {
		errs[i] = make(chan error, 1)
		go func() { errs[i] <- call() }()
	}
	var got []error
	for i := range errs {
		within(t, "call", func() { got = append(got, <-errs[i]) })
	}
	return got
}

// The writer is taken back from a function that does not even use it.
func TestHeldWithoutStatement(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Logger: quiet, MaxHold: 20 * time.Millisecond})
	free := make(chan struct{})
	done := make(chan error, 1)
	entered := make(chan struct{})
	var late error
	go func() {
		done <- db.Update(bg, func(tx *sqlite.Tx) error {
			err := exec(tx, 1)
			close(entered)
			<-free
			late = exec(tx, 2)
			return err
		})
	}()
	<-entered
	within(t, "others", func() {
		first, second := write(db, 3)(), update(db, 4)()
		for errors.Is(second, sqlite.ErrHeldTooLong) { // on a busy machine it may take as long itself
			second = update(db, 4)()
		}
		if err := errors.Join(first, second); err != nil {
			t.Error(err)
		}
	})
	close(free)
	wantErr(t, <-done, sqlite.ErrHeldTooLong)
	if late == nil {
		t.Error("a statement after the loss succeeded")
	}
	wantItems(t, db, 3, 4)
}

// An interrupt that comes at the very end of a function hits nobody else.
func TestHoldEndsJustInTime(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Logger: quiet, MaxHold: 2 * time.Millisecond, Synchronous: sqlite.Normal})
	for i := range 100 {
		id := int64(i)
		first, second := make(chan error, 1), make(chan error, 1)
		go func() {
			first <- db.Update(bg, func(tx *sqlite.Tx) error {
				if err := exec(tx, 1000+id); err != nil {
					return err
				}
				for deadline := time.Now().Add(2*time.Millisecond - 20*time.Microsecond); time.Now().Before(deadline); {
					if err := tx.QueryRowContext(bg, "SELECT count(*) FROM item").Scan(new(int)); err != nil {
						return err
					}
				}
				return nil
			})
		}()
		go func() { second <- write(db, id)() }()
		err := <-first
		check(t, <-second)
		if err != nil && !errors.Is(err, sqlite.ErrHeldTooLong) {
			t.Fatalf("round %d: %v", i, err)
		}
		var there bool
		check(t, db.View(bg, func(tx *sqlite.Tx) error {
			return tx.QueryRowContext(bg, "SELECT EXISTS (SELECT 1 FROM item WHERE id = ?)", 1000+id).Scan(&there)
		}))
		if there != (err == nil) {
			t.Fatalf("round %d: item there: %v, answer: %v", i, there, err)
		}
	}
}
