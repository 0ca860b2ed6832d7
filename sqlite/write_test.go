package sqlite_test

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

func TestWrite(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema+"; CREATE TABLE kind (i, f, s, b, n)")
	check(t, db.Write(bg))
	values := []driver.Value{int64(-1 << 63), 1.5, "a\x00b", []byte{0, 1}, nil}
	var got []driver.Value
	rows := -1
	check(t, db.Write(bg,
		sqlite.Stmt{SQL: "INSERT INTO kind VALUES (?, ?, ?, ?, ?)", Args: values},
		sqlite.Stmt{SQL: "INSERT INTO item (id) VALUES (1), (2), (3) RETURNING id", Row: func(row []driver.Value) { got = append(got, row[0]) }},
		sqlite.Stmt{SQL: "SELECT i, f, s, b, n FROM kind", Row: func(row []driver.Value) { got = append(got, row...) }},
		sqlite.Stmt{SQL: "SELECT 1 WHERE false", Done: func(n int) error {
			rows = n
			return nil
		}},
	))
	if want := append([]driver.Value{int64(1), int64(2), int64(3)}, values...); !reflect.DeepEqual(got, want) || rows != 0 {
		t.Errorf("got %#v and %d rows", got, rows)
	}
	check(t, db.Write(bg, sqlite.Stmt{SQL: "UPDATE item SET note = 'x' RETURNING id", Done: func(n int) error {
		if n != 3 {
			t.Errorf("%d rows", n)
		}
		return nil
	}}))
	wantItems(t, db, 1, 2, 3)
}

// Statements that are no statements, or more than one, or lack arguments.
func TestWriteRefuses(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	for _, s := range []sqlite.Stmt{
		{SQL: "INSERT INTO item (id) VALUES (?)"},
		{SQL: "INSERT INTO item (id) VALUES (1)", Args: []driver.Value{int64(1)}},
		{SQL: "INSERT INTO item (id) VALUES (?)", Args: []driver.Value{struct{}{}}},
		{SQL: "INSERT INTO item (id) VALUES (?)", Args: []driver.Value{make(chan int)}},
		{SQL: "INSERT INTO"}, {SQL: "INSERT INTO nowhere VALUES (1)"},
		{SQL: "INSERT INTO item (id) VALUES (1); INSERT INTO item (id) VALUES (2)"},
		{SQL: "SELECT 1; COMMIT"},
	} {
		for _, stmts := range [][]sqlite.Stmt{{s}, {insert(500), s}} {
			if err := db.Write(bg, stmts...); err == nil {
				t.Errorf("%d statements, the last %q with %v: no error", len(stmts), s.SQL, s.Args)
			}
		}
	}
	wantItems(t, db)
	// Whether nothing at all is a statement matters less than that it does no harm.
	for _, query := range []string{"", " ", ";", "-- comment", "/* comment */"} {
		_ = db.Write(bg, sqlite.Stmt{SQL: query})
		_ = db.Query(bg, query, nil, func([]driver.Value) error { return nil })
		_ = db.Update(bg, func(tx *sqlite.Tx) error {
			_ = tx.QueryRowContext(bg, query).Scan(new(int))
			if stmt, err := tx.PrepareContext(bg, query); err == nil {
				_, _ = stmt.ExecContext(bg)
			}
			return run(tx, query)
		})
	}
	if err := db.Query(bg, "SELECT 1; SELECT 2", nil, nil); err == nil {
		t.Error("Query ran the first of two statements only")
	}
	check(t, write(db, 1)())
	wantItems(t, db, 1)
}

func TestNilFunctions(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	if err := db.Update(bg, nil); !isPanic(err) {
		t.Errorf("Update: %v", err)
	}
	if err := db.View(bg, nil); !isPanic(err) {
		t.Errorf("View: %v", err)
	}
	check(t, write(db, 1)())
}

// Reads must not be able to leave their connection in a transaction: the next
// to get it would see the past, and the log would grow.
func TestQueryLeavesReaderAlone(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Readers: 1})
	for i, query := range []string{"BEGIN", "SAVEPOINT x", "PRAGMA query_only=OFF", "ATTACH ':memory:' AS other", "PRAGMA foreign_keys=OFF"} {
		_ = db.Query(bg, query, nil, nil)
		_ = db.Read(bg, func(r *sqlite.Reader) error { return r.Query(query, nil, nil) })
		_ = db.Read(bg, func(r *sqlite.Reader) error { return r.Query("COMMIT", nil, nil) })
		_ = db.View(bg, func(tx *sqlite.Tx) error { return errors.Join(run(tx, "SELECT 1; COMMIT"), run(tx, query)) })
		check(t, write(db, int64(i))())
		if n := value(t, db, "SELECT count(*) FROM item"); n != int64(i+1) {
			t.Errorf("after %s: %v items, want %d", query, n, i+1)
		}
		if err := db.Query(bg, "DELETE FROM item", nil, nil); err == nil {
			t.Errorf("after %s: a reader may write", query)
		}
		if n := value(t, db, "SELECT count(*) FROM pragma_database_list"); n != int64(1) {
			t.Errorf("after %s: %v files", query, n)
		}
	}
}

// Two handles on one file in one process, as two processes would have them.
func TestTwoHandles(t *testing.T) {
	t.Parallel()
	one := sqlitetest.Open(t, itemSchema, sqlite.Options{Synchronous: sqlite.Normal})
	two := sqlitetest.OpenFile(t, one.Path(), "", sqlite.Options{Synchronous: sqlite.Normal})
	var wg sync.WaitGroup
	const each = 50
	for g, db := range []*sqlite.DB{one, two, one, two} {
		wg.Go(func() {
			for i := range each {
				id := int64(1 + g*each + i)
				call := write(db, id)
				if i%2 == 0 {
					call = update(db, id)
				}
				if err := call(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, db := range []*sqlite.DB{one, two} {
		if n := value(t, db, "SELECT count(*) FROM item"); n != int64(4*each) {
			t.Errorf("%v items", n)
		}
	}
}

func TestStatementCacheIsBounded(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Readers: 1, Synchronous: sqlite.Normal})
	check(t, write(db, 1)())
	for i := range 600 {
		check(t, db.Query(bg, fmt.Sprintf("SELECT id + %d FROM item", i), nil, func(row []driver.Value) error {
			if row[0] != int64(1+i) {
				t.Errorf("%v for %d", row[0], i)
			}
			return nil
		}))
		check(t, db.Write(bg, sqlite.Stmt{SQL: fmt.Sprintf("UPDATE item SET note = '%d'", i)}))
	}
	wantItems(t, db, 1)
}

// A lone caller waits for nothing but its own commit: there is no timer.
func TestLoneWriteIsPrompt(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Synchronous: sqlite.Normal})
	pool := outside(t, db)
	outsideExec(t, pool, "PRAGMA synchronous = NORMAL")
	best, plain := time.Hour, time.Hour // of a write, and of one by the driver alone
	for id := range int64(200) {
		start := time.Now()
		check(t, write(db, id)())
		middle := time.Now()
		outsideExec(t, pool, fmt.Sprintf("INSERT INTO item (id) VALUES (%d)", 1000+id))
		best, plain = min(best, middle.Sub(start)), min(plain, time.Since(middle))
	}
	t.Logf("%v, by the driver alone %v", best, plain)
	if best > 5*plain {
		t.Errorf("the fastest of 200 took %v, by the driver alone %v", best, plain)
	}
}
