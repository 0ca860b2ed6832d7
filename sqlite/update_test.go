package sqlite_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
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

func TestView(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Readers: 2})
	check(t, write(db, 1)())
	check(t, db.View(bg, func(tx *sqlite.Tx) error {
		count := func() (n int) {
			check(t, tx.QueryRowContext(bg, "SELECT count(*) FROM item").Scan(&n))
			return n
		}
		first := count()
		check(t, write(db, 2)())
		if first != 1 || count() != 1 {
			t.Errorf("%d, then %d items in one snapshot", first, count())
		}
		for _, query := range []string{
			"INSERT INTO item (id) VALUES (100)", "DELETE FROM item", "CREATE TABLE other (id)",
			"WITH x AS (SELECT 1) INSERT INTO item (id) SELECT 100 FROM x",
			"PRAGMA query_only=OFF; INSERT INTO item (id) VALUES (100)",
			"PRAGMA user_version=7",
		} {
			if err := run(tx, query); err == nil {
				t.Errorf("a reader may %s", query)
			}
		}
		return nil
	}))
	wantErr(t, db.View(bg, func(*sqlite.Tx) error { return errOwn }), errOwn)
	if err := db.View(bg, func(*sqlite.Tx) error { panic("view") }); !isPanic(err) {
		t.Errorf("panic: %v", err)
	}
	for _, query := range []string{"INSERT INTO item (id) VALUES (100)", "DROP TABLE item", "PRAGMA user_version=7"} {
		if err := db.Query(bg, query, nil, nil); err == nil {
			t.Errorf("Query may %s", query)
		}
	}
	// Neither of the readers was left in a state that lets it write.
	for range 8 {
		check(t, db.View(bg, func(tx *sqlite.Tx) error {
			if err := run(tx, "INSERT INTO item (id) VALUES (100)"); err == nil {
				t.Error("a reader may write")
			}
			return nil
		}))
	}
	wantItems(t, db, 1, 2)
	if v := value(t, db, "PRAGMA user_version"); v != int64(0) {
		t.Errorf("user_version is %v", v)
	}
}

func TestViewIsInterrupted(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Readers: 1})
	const endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT count(*) FROM n"
	ctx, cancel := context.WithCancel(bg)
	started := make(chan struct{})
	go func() {
		<-started
		cancel()
	}()
	within(t, "View", func() {
		wantErr(t, db.View(bg, func(tx *sqlite.Tx) error {
			close(started)
			return tx.QueryRowContext(ctx, endless).Scan(new(int))
		}), context.Canceled)
	})
	ctx, cancel = context.WithCancel(bg)
	time := make(chan struct{})
	go func() {
		<-time
		cancel()
	}()
	within(t, "Read", func() {
		wantErr(t, db.Read(ctx, func(r *sqlite.Reader) error {
			close(time)
			return r.Query(endless, nil, nil)
		}), context.Canceled)
	})
	ctx, cancel = context.WithCancel(bg)
	release := make(chan struct{})
	entered := make(chan struct{})
	go func() {
		_ = db.View(bg, func(*sqlite.Tx) error {
			close(entered)
			<-release
			return nil
		})
	}()
	<-entered
	cancel()
	wantErr(t, db.View(ctx, func(*sqlite.Tx) error { return nil }), context.Canceled) // no reader is free
	close(release)
	wantItems(t, db)
}

// Nested reads with the same text, and what the callback of a query returns.
func TestReadNested(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	check(t, write(db, 1, 2, 3)())
	const text = "SELECT id FROM item WHERE id >= ? ORDER BY id"
	var seen []int64
	check(t, db.Read(bg, func(r *sqlite.Reader) error {
		return r.Query(text, []driver.Value{int64(1)}, func(row []driver.Value) error {
			id := row[0].(int64)
			seen = append(seen, id)
			return r.Query(text, []driver.Value{id + 1}, func(row []driver.Value) error {
				seen = append(seen, 10*id+row[0].(int64))
				return nil
			})
		})
	}))
	if got := fmt.Sprint(seen); got != "[1 12 13 2 23 3]" {
		t.Error(got)
	}
	wantErr(t, db.Query(bg, text, []driver.Value{int64(1)}, func([]driver.Value) error { return errOwn }), errOwn)
	if err := db.Query(bg, text, nil, nil); err == nil {
		t.Error("an argument was missing")
	}
	if err := db.Query(bg, text, []driver.Value{struct{}{}}, nil); err == nil {
		t.Error("an argument was of a wrong type")
	}
	if got := fmt.Sprint(items(t, db)); got != "[1 2 3]" {
		t.Error(got)
	}
}

// The driver converts by the declared type of a column; an expression has none.
func TestValuesByDeclaredType(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, `CREATE TABLE old (a DATETIME, b BOOLEAN, c DATE, d TIMESTAMP);
		INSERT INTO old VALUES ('not a date', 7, 12345, '2024-02-29T12:30:00+02:00')`)
	check(t, db.Query(bg, "SELECT +a, +b, +c, +d FROM old", nil, func(row []driver.Value) error {
		if got, want := fmt.Sprintf("%#v", row), fmt.Sprintf("%#v", []driver.Value{"not a date", int64(7), int64(12345), "2024-02-29T12:30:00+02:00"}); got != want {
			t.Errorf("row is %s, want %s", got, want)
		}
		return nil
	}))
	check(t, db.Query(bg, "SELECT b FROM old", nil, func(row []driver.Value) error {
		if row[0] != true {
			t.Errorf("%#v: Reader.Query says that it is a bool", row[0])
		}
		return nil
	}))
}
