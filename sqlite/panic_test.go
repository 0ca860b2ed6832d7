package sqlite_test

import (
	"database/sql/driver"
	"testing"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

// A callback panics before any transaction has been rolled back, and after the
// schema has changed, when every statement is compiled anew: what undoes the
// work must work then, too.
func TestPanicThenRollback(t *testing.T) {
	t.Parallel()
	fail := func(db *sqlite.DB, id int64) func() error {
		return func() error {
			return db.Write(bg, insert(id), sqlite.Stmt{SQL: "SELECT 1", Row: func([]driver.Value) { panic("row") }})
		}
	}
	for _, shared := range []bool{false, true} {
		db := sqlitetest.Open(t, itemSchema, sqlite.Options{Logger: quiet})
		for round := range int64(3) {
			id := 10 * round
			var errs []error
			if shared {
				errs = together(t, db, write(db, id+1), fail(db, id+2), write(db, id+3, id+4), fail(db, id+5))
			} else {
				errs = []error{write(db, id+1)(), fail(db, id+2)(), write(db, id+3, id+4)(), fail(db, id+5)()}
			}
			for i, err := range errs {
				if i%2 == 0 && err != nil || i%2 == 1 && !isPanic(err) {
					t.Errorf("shared %v, round %d, call %d: %v", shared, round, i, err)
				}
			}
			check(t, db.Err())
			check(t, db.Migrate(bg, migrations("1_a.sql", "CREATE TABLE a (id)")))
			check(t, db.Write(bg, sqlite.Stmt{SQL: "ALTER TABLE a ADD COLUMN c" + string(rune('a'+round))}))
		}
		wantItems(t, db, 1, 3, 4, 11, 13, 14, 21, 23, 24)
	}
}
