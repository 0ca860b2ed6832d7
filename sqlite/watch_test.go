package sqlite_test

import (
	"database/sql/driver"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

// Statements that would never end are interrupted, wherever they run, and
// nobody else loses by it.
func TestMaxStatement(t *testing.T) {
	t.Parallel()
	// Long enough for small writes on a busy machine.
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{MaxStatement: time.Second})
	const endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
	calls := map[string]func() error{
		"Query": func() error { return db.Query(bg, endless, nil, nil) },
		"Read": func() error {
			return db.Read(bg, func(r *sqlite.Reader) error { return r.Query(endless, nil, nil) })
		},
		"Write": func() error {
			return db.Write(bg, insert(-1), sqlite.Stmt{SQL: "INSERT INTO item (id) " + endless})
		},
	}
	var wg sync.WaitGroup
	for name, call := range calls {
		wg.Go(func() {
			if err := call(); !errors.Is(err, sqlite.ErrTimeout) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	for id := range int64(20) {
		wg.Go(func() {
			if err := write(db, id)(); err != nil {
				t.Errorf("write %d: %v", id, err)
			}
		})
	}
	within(t, "endless statements", wg.Wait)
	if n := value(t, db, "SELECT count(*) FROM item WHERE id >= 0"); n != int64(20) {
		t.Errorf("%v of 20 items", n)
	}
	if n := value(t, db, "SELECT count(*) FROM item WHERE id < 0"); n != int64(0) {
		t.Error("an interrupted write left something")
	}
	check(t, db.Query(bg, "SELECT 1", nil, func([]driver.Value) error { return nil }))
}
