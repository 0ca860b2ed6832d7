package sqlite_test

import (
	"database/sql/driver"
	"errors"
	"runtime"
	"sync"
	"testing"

	"github.com/bedplate/bedplate/sqlite"
)

func TestGoexit(t *testing.T) {
	t.Parallel()
	tests := map[string]func(db *sqlite.DB){
		"Update": func(db *sqlite.DB) {
			_ = db.Update(bg, func(tx *sqlite.Tx) error {
				_ = exec(tx, 1)
				runtime.Goexit()
				return nil
			})
		},
		"View": func(db *sqlite.DB) {
			_ = db.View(bg, func(*sqlite.Tx) error {
				runtime.Goexit()
				return nil
			})
		},
		"Read": func(db *sqlite.DB) {
			_ = db.Read(bg, func(*sqlite.Reader) error {
				runtime.Goexit()
				return nil
			})
		},
		"Row": func(db *sqlite.DB) {
			_ = db.Write(bg, sqlite.Stmt{SQL: "SELECT 1", Row: func([]driver.Value) { runtime.Goexit() }})
		},
		"Done": func(db *sqlite.DB) {
			_ = db.Write(bg, insert(1), sqlite.Stmt{SQL: "SELECT 1", Done: func(int) error {
				runtime.Goexit()
				return nil
			}})
		},
	}
	for name, call := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// Not from sqlitetest: its Close would wait with the others.
			db, err := sqlite.Open(bg, t.TempDir()+"/test.db", sqlite.Options{Readers: 1})
			check(t, err)
			check(t, db.Update(bg, func(tx *sqlite.Tx) error { return run(tx, itemSchema) }))
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() { call(db) })
			}
			within(t, "others", func() {
				wg.Wait()
				if err := errors.Join(write(db, 10)(), update(db, 11)()); err != nil {
					t.Error(err)
				}
				wantItems(t, db, 10, 11)
				if err := db.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Several callbacks in one commit end their goroutine: the others go on.
func TestGoexitTwice(t *testing.T) {
	t.Parallel()
	db, err := sqlite.Open(bg, t.TempDir()+"/test.db", sqlite.Options{})
	check(t, err)
	check(t, db.Update(bg, func(tx *sqlite.Tx) error { return run(tx, itemSchema) }))
	leave := func(id int64) func() error {
		return func() error {
			return db.Write(bg, insert(id), sqlite.Stmt{SQL: "SELECT 1", Row: func([]driver.Value) { runtime.Goexit() }})
		}
	}
	errs := together(t, db, write(db, 1), leave(100), update(db, 2), write(db, 3, 4), leave(101), leave(102), write(db, 5))
	errs = append(errs, write(db, 6)())
	var want []int64
	for i, ids := range [][]int64{{1}, nil, {2}, {3, 4}, nil, nil, {5}, {6}} {
		switch {
		case ids == nil && errs[i] == nil:
			t.Errorf("call %d succeeded", i)
		case errs[i] == nil:
			want = append(want, ids...)
		case ids != nil && !errors.Is(errs[i], sqlite.ErrRolledBack):
			t.Errorf("call %d: %v", i, errs[i])
		}
	}
	wantItems(t, db, want...)
	within(t, "Close", func() { check(t, db.Close()) })
}

// A callback that ends its goroutine only when it is run for the second time,
// because another one did so before.
func TestGoexitWhenRepeated(t *testing.T) {
	t.Parallel()
	db, err := sqlite.Open(bg, t.TempDir()+"/test.db", sqlite.Options{})
	check(t, err)
	check(t, db.Update(bg, func(tx *sqlite.Tx) error { return run(tx, itemSchema) }))
	runs := 0
	errs := together(t, db,
		write(db, 1),
		func() error {
			return db.Write(bg, insert(2), sqlite.Stmt{SQL: "SELECT 1", Row: func([]driver.Value) {
				if runs++; runs == 2 {
					runtime.Goexit()
				}
			}})
		},
		func() error {
			return db.Write(bg, insert(3), sqlite.Stmt{SQL: "SELECT 1", Row: func([]driver.Value) { runtime.Goexit() }})
		},
		write(db, 4))
	errs = append(errs, write(db, 5)())
	var want []int64
	for i, err := range errs {
		if err == nil {
			want = append(want, int64(i+1))
		}
	}
	wantItems(t, db, want...)
	within(t, "Close", func() { check(t, db.Close()) })
}

// The shared transaction is lost, the others are repeated, and then a callback
// ends the goroutine: what has been repeated must not be repeated again.
func TestGoexitAfterLoss(t *testing.T) {
	t.Parallel()
	db, err := sqlite.Open(bg, t.TempDir()+"/test.db", sqlite.Options{})
	check(t, err)
	check(t, db.Update(bg, func(tx *sqlite.Tx) error { return run(tx, itemSchema) }))
	add := func(note string) func() error {
		return func() error {
			return db.Write(bg, sqlite.Stmt{SQL: "INSERT INTO item (note) VALUES (?)", Args: []driver.Value{note}})
		}
	}
	runs := 0
	errs := together(t, db,
		add("a"), add("b"),
		func() error {
			return db.Write(bg, sqlite.Stmt{SQL: "SELECT 1", Row: func([]driver.Value) {
				if runs++; runs == 2 {
					runtime.Goexit()
				}
			}})
		},
		add("c"),
		func() error {
			return db.Write(bg, sqlite.Stmt{SQL: "INSERT OR ROLLBACK INTO item (id) VALUES (500), (500)"})
		},
		add("d"))
	if errs[4] == nil {
		t.Error("the violation succeeded")
	}
	for i, err := range errs {
		if i != 2 && i != 4 && err != nil {
			t.Errorf("call %d: %v", i, err)
		}
	}
	if v := value(t, db, "SELECT group_concat(note ORDER BY note) FROM item"); v != "a,b,c,d" {
		t.Errorf("notes are %v", v)
	}
	within(t, "Close", func() { check(t, db.Close()) })
}
