package sqlite_test

import (
	"context"
	"database/sql/driver"
	"fmt"
	"testing"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

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
