package sqlite_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

// Each of these functions fails in its way between fifty that succeed and
// share the commit with it.
func TestFailureIsNobodyElses(t *testing.T) {
	t.Parallel()
	const schema = itemSchema + `;
		CREATE TABLE part (id INTEGER PRIMARY KEY, item INTEGER REFERENCES item DEFERRABLE INITIALLY DEFERRED) STRICT;
		CREATE TRIGGER bomb BEFORE INSERT ON item WHEN NEW.note = 'rollback' BEGIN SELECT RAISE(ROLLBACK, 'boom'); END`
	rollback := "INSERT INTO item (id, note) VALUES (1001, 'rollback')"
	tests := []struct {
		name string
		call func(db *sqlite.DB) error
		want func(err error) bool
	}{
		{"error after writing", func(db *sqlite.DB) error {
			return db.Update(bg, func(tx *sqlite.Tx) error { return errors.Join(exec(tx, 1000), errOwn) })
		}, func(err error) bool { return errors.Is(err, errOwn) }},
		{"constraint in Update", func(db *sqlite.DB) error { return update(db, 1000, 1000)() }, func(err error) bool { return sqlite.Code(err) == 1555 }},
		{"constraint in Write", func(db *sqlite.DB) error { return write(db, 1000, 1000)() }, func(err error) bool { return sqlite.Code(err) == 1555 }},
		{"panic", func(db *sqlite.DB) error {
			return db.Update(bg, func(tx *sqlite.Tx) error {
				if err := exec(tx, 1000); err != nil {
					return err
				}
				panic(errOwn)
			})
		}, func(err error) bool {
			var p *sqlite.PanicError
			return errors.As(err, &p) && errors.Is(err, errOwn) && strings.Contains(string(p.Stack), "TestFailureIsNobodyElses")
		}},
		{"panic in Done", func(db *sqlite.DB) error {
			return db.Write(bg, insert(1000), sqlite.Stmt{SQL: "SELECT 1", Done: func(int) error { panic("done") }})
		}, isPanic},
		{"error in Done", func(db *sqlite.DB) error {
			return db.Write(bg, insert(1000), sqlite.Stmt{SQL: "SELECT 1", Done: func(int) error { return errOwn }})
		}, func(err error) bool { return errors.Is(err, errOwn) }},
		{"panic in Row", func(db *sqlite.DB) error {
			return db.Write(bg, insert(1000), sqlite.Stmt{SQL: "SELECT 1", Row: func([]driver.Value) { panic("row") }})
		}, isPanic},
		{"panic in Row of a single statement", func(db *sqlite.DB) error {
			return db.Write(bg, sqlite.Stmt{SQL: "INSERT INTO item (id) VALUES (1000) RETURNING id", Row: func([]driver.Value) { panic("row") }})
		}, isPanic},
		{"OR FAIL in a single statement", func(db *sqlite.DB) error {
			return db.Write(bg, sqlite.Stmt{SQL: "INSERT OR FAIL INTO item (id) VALUES (1000), (1001), (1000)"})
		}, func(err error) bool { return sqlite.Code(err) == 1555 }},
		{"deferred reference in Write", func(db *sqlite.DB) error {
			return db.Write(bg, insert(1000), sqlite.Stmt{SQL: "INSERT INTO part VALUES (1, 404)"})
		}, func(err error) bool { return sqlite.Code(err) == 787 }},
		{"deferred reference in a single statement", func(db *sqlite.DB) error {
			return db.Write(bg, sqlite.Stmt{SQL: "INSERT INTO part VALUES (1, 404)"})
		}, func(err error) bool { return sqlite.Code(err) == 787 }},
		{"deferred reference in Update", func(db *sqlite.DB) error {
			return db.Update(bg, func(tx *sqlite.Tx) error { return run(tx, "INSERT INTO part VALUES (1, 404)") })
		}, func(err error) bool { return sqlite.Code(err) == 787 || errors.Is(err, sqlite.ErrRolledBack) }},
		{"trigger rolls back in Write", func(db *sqlite.DB) error {
			return db.Write(bg, insert(1000), sqlite.Stmt{SQL: rollback})
		}, func(err error) bool { return sqlite.Code(err) == 1811 }},
		{"trigger rolls back a single statement", func(db *sqlite.DB) error {
			return db.Write(bg, sqlite.Stmt{SQL: rollback})
		}, func(err error) bool { return sqlite.Code(err) == 1811 }},
		{"trigger rolls back in Update", func(db *sqlite.DB) error {
			return db.Update(bg, func(tx *sqlite.Tx) error { return errors.Join(exec(tx, 1000), run(tx, rollback)) })
		}, func(err error) bool { return sqlite.Code(err) == 1811 }},
		{"trigger rolls back, the error is dropped", func(db *sqlite.DB) error {
			return db.Update(bg, func(tx *sqlite.Tx) error {
				_ = run(tx, rollback)
				return nil
			})
		}, func(err error) bool { return err != nil }},
		{"trigger rolls back, the error is dropped, more is written", func(db *sqlite.DB) error {
			return db.Update(bg, func(tx *sqlite.Tx) error {
				_ = run(tx, rollback)
				_ = exec(tx, 1002)
				return nil
			})
		}, func(err error) bool { return err != nil }},
		{"OR ROLLBACK, the error is dropped, a savepoint takes its place", func(db *sqlite.DB) error {
			return db.Update(bg, func(tx *sqlite.Tx) error {
				_ = exec(tx, 1000)
				_ = run(tx, "INSERT OR ROLLBACK INTO item (id) VALUES (1000)")
				_ = run(tx, "SAVEPOINT "+sqlite.SavepointName)
				_ = exec(tx, 1002)
				return nil
			})
		}, func(err error) bool { return err != nil }},
		{"a savepoint of the same name, then an error", func(db *sqlite.DB) error {
			return db.Update(bg, func(tx *sqlite.Tx) error {
				return errors.Join(exec(tx, 1000), run(tx, "SAVEPOINT "+sqlite.SavepointName), exec(tx, 1001), errOwn)
			})
		}, func(err error) bool { return errors.Is(err, errOwn) }},
		{"a savepoint of the same name in capitals, then an error", func(db *sqlite.DB) error {
			return db.Update(bg, func(tx *sqlite.Tx) error {
				return errors.Join(exec(tx, 1000), run(tx, "SAVEPOINT "+strings.ToUpper(sqlite.SavepointName)), exec(tx, 1001), errOwn)
			})
		}, func(err error) bool { return errors.Is(err, errOwn) }},
		{"release of the savepoint, then an error", func(db *sqlite.DB) error {
			return db.Update(bg, func(tx *sqlite.Tx) error {
				return errors.Join(exec(tx, 1000), run(tx, "RELEASE "+sqlite.SavepointName), errOwn)
			})
		}, func(err error) bool { return errors.Is(err, errOwn) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			db := sqlitetest.Open(t, schema, sqlite.Options{Logger: quiet, Synchronous: sqlite.Normal})
			var want []int64
			var calls []func() error
			for id := int64(1); id <= 51; id++ {
				switch {
				case id == 26:
					calls = append(calls, func() error { return test.call(db) })
					continue
				case id%3 == 0:
					calls = append(calls, update(db, id, 2000+id))
				case id%3 == 1:
					calls = append(calls, write(db, id))
				default:
					calls = append(calls, write(db, id, 2000+id))
				}
			}
			for i, err := range together(t, db, calls...) {
				id := int64(i + 1)
				switch {
				case id == 26:
					if !test.want(err) {
						t.Errorf("the failing call ended with %v", err)
					}
				case err == nil:
					want = append(want, id)
				case id%3 != 0 || !errors.Is(err, sqlite.ErrRolledBack):
					t.Errorf("call %d: %v", id, err)
				}
			}
			for _, id := range append([]int64{}, want...) {
				if id%3 != 1 {
					want = append(want, 2000+id)
				}
			}
			wantItems(t, db, want...)
			if n := value(t, db, "SELECT count(*) FROM part"); n != int64(0) {
				t.Errorf("%d parts without an item", n)
			}
			check(t, write(db, 9000)())
			check(t, update(db, 9001)())
			wantItems(t, db, append(want, 9000, 9001)...)
		})
	}
}

func isPanic(err error) bool {
	var p *sqlite.PanicError
	return errors.As(err, &p)
}

// What an innocent caller is told must not look like an error of its own.
func TestRolledBackHidesTheCause(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Logger: quiet})
	errs := together(t, db,
		update(db, 1),
		func() error {
			return db.Update(bg, func(tx *sqlite.Tx) error {
				_ = exec(tx, 2)
				_ = run(tx, "INSERT OR ROLLBACK INTO item (id) VALUES (2)")
				return errOwn
			})
		})
	wantErr(t, errs[1], errOwn)
	if errs[0] == nil {
		wantItems(t, db, 1) // it had a commit of its own
		return
	}
	wantErr(t, errs[0], sqlite.ErrRolledBack)
	if errors.Is(errs[0], errOwn) {
		t.Errorf("the error of another function is in the chain of %v", errs[0])
	}
}

// Nobody else is in the commit: a retry on ErrRolledBack would never end.
func TestDeferredViolationAlone(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema+`; CREATE TABLE part (item INTEGER REFERENCES item DEFERRABLE INITIALLY DEFERRED) STRICT`)
	err := db.Update(bg, func(tx *sqlite.Tx) error { return run(tx, "INSERT INTO part VALUES (404)") })
	if sqlite.Code(err) != 787 {
		t.Errorf("error is %v, want a foreign key violation", err)
	}
	if errors.Is(err, sqlite.ErrRolledBack) {
		t.Errorf("%v blames somebody else", err)
	}
}

func TestCancelWhileWaiting(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	release := hold(t, db)
	ctx, cancel := context.WithCancel(bg)
	errs := make(chan error)
	go func() { errs <- db.Write(ctx, insert(1)) }()
	go func() { errs <- db.Update(ctx, func(tx *sqlite.Tx) error { return exec(tx, 2) }) }()
	until(t, "two wait", func() bool { return sqlite.Waiting(db) == 2 })
	other := make(chan error, 1)
	go func() { other <- write(db, 3)() }()
	until(t, "three wait", func() bool { return sqlite.Waiting(db) == 3 })
	cancel()
	wantErr(t, <-errs, context.Canceled) // although the writer is still held
	wantErr(t, <-errs, context.Canceled)
	release()
	check(t, <-other)
	wantItems(t, db, 3)
	wantErr(t, db.Write(ctx, insert(4)), context.Canceled)
	wantErr(t, db.Update(ctx, func(*sqlite.Tx) error { return nil }), context.Canceled)
	wantItems(t, db, 3)
}

func TestCancelWhileRunning(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	ctx, cancel := context.WithCancel(bg)
	check(t, db.Update(ctx, func(tx *sqlite.Tx) error {
		cancel()
		if _, err := tx.ExecContext(ctx, "INSERT INTO item (id) VALUES (1)"); !errors.Is(err, context.Canceled) {
			t.Errorf("statement with a cancelled context: %v", err)
		}
		return exec(tx, 2)
	}))
	ctx, cancel = context.WithCancel(bg)
	check(t, db.Write(ctx, insert(3), sqlite.Stmt{SQL: "SELECT 1", Done: func(int) error {
		cancel()
		return nil
	}}))
	wantItems(t, db, 2, 3)
}

// A context that ends while its statement runs must not interrupt it: that
// would undo the work of everybody in the commit.
func TestCancelDuringStatement(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	for range 20 {
		check(t, db.Write(bg, sqlite.Stmt{SQL: "DELETE FROM item"}))
		errs := together(t, db,
			update(db, 1_000_001),
			func() error {
				ctx, cancel := context.WithCancel(bg)
				return db.Update(bg, func(tx *sqlite.Tx) error {
					go cancel()
					_, err := tx.ExecContext(ctx, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 3000)
						INSERT INTO item (id) SELECT i FROM n`)
					if errors.Is(err, context.Canceled) {
						return nil // before it began
					}
					return err
				})
			})
		check(t, errors.Join(errs...))
		if n := value(t, db, "SELECT count(*) FROM item"); n != int64(1) && n != int64(3001) {
			t.Fatalf("%d items", n)
		}
	}
}

func TestTxMethods(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	var leaked *sqlite.Tx
	var stmt *sql.Stmt
	check(t, db.Update(bg, func(tx *sqlite.Tx) (err error) {
		leaked = tx
		res, err := tx.ExecContext(bg, "INSERT INTO item (note) VALUES (?), (?)", "a", "b")
		if err != nil {
			return err
		}
		if n, _ := res.RowsAffected(); n != 2 {
			t.Errorf("rows affected: %d", n)
		}
		if id, _ := res.LastInsertId(); id != 2 {
			t.Errorf("last id: %d", id)
		}
		var id int64
		if err := tx.QueryRowContext(bg, "INSERT INTO item (note) VALUES (?) RETURNING id", "c").Scan(&id); err != nil || id != 3 {
			return fmt.Errorf("returning: %d, %w", id, err)
		}
		if err := tx.QueryRowContext(bg, "SELECT id FROM item WHERE id = 404").Scan(&id); !errors.Is(err, sql.ErrNoRows) {
			t.Errorf("no rows: %v", err)
		}
		if stmt, err = tx.PrepareContext(bg, "INSERT INTO item (note) VALUES (@note)"); err != nil {
			return err
		}
		for _, note := range []string{"d", "e"} {
			if _, err := stmt.ExecContext(bg, sql.Named("note", note)); err != nil {
				return err
			}
		}
		// Left open: a statement, and rows in the middle.
		rows, err := tx.QueryContext(bg, "SELECT id FROM item ORDER BY id")
		if err != nil || !rows.Next() {
			return fmt.Errorf("rows: %w", errors.Join(err, rows.Err()))
		}
		if rows, err = tx.QueryContext(bg, "INSERT INTO item (note) VALUES ('f'), ('g') RETURNING id"); err != nil || !rows.Next() {
			return fmt.Errorf("rows: %w", errors.Join(err, rows.Err()))
		}
		return nil
	}))
	wantItems(t, db, 1, 2, 3, 4, 5, 6, 7)
	_, err := leaked.ExecContext(bg, "INSERT INTO item (id) VALUES (100)")
	wantErr(t, err, sql.ErrTxDone)
	_, err = leaked.QueryContext(bg, "SELECT 1")
	wantErr(t, err, sql.ErrTxDone)
	_, err = leaked.PrepareContext(bg, "SELECT 1")
	wantErr(t, err, sql.ErrTxDone)
	wantErr(t, leaked.QueryRowContext(bg, "SELECT 1").Scan(new(int)), sql.ErrTxDone)
	if _, err = stmt.ExecContext(bg, "x"); err == nil {
		t.Error("a statement outlived its transaction")
	}
	check(t, write(db, 8)())
	wantItems(t, db, 1, 2, 3, 4, 5, 6, 7, 8)
}
