package sqlite_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"testing"
	"time"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

func openScratch(t *testing.T, db *sqlite.DB) *sqlite.Scratch {
	t.Helper()
	s, err := db.Scratch(bg)
	check(t, err)
	return s
}

func TestScratch(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	check(t, write(db, 1, 2)())
	s := openScratch(t, db)
	defer func() { check(t, s.Close()) }()
	count := func() (n driver.Value) {
		t.Helper()
		check(t, s.Query("SELECT count(*) FROM item JOIN temp.mine ON item.id = mine.id", nil, func(row []driver.Value) error {
			n = row[0]
			return nil
		}))
		return n
	}
	check(t, s.Query("CREATE TEMP TABLE mine (id INTEGER PRIMARY KEY, v)", nil, nil))
	wantErr(t, s.Read(func() error {
		check(t, s.Query("INSERT INTO temp.mine VALUES (1, x'00'), (2, 'a'), (3, ?)", []driver.Value{"b"}, nil))
		if n := count(); n != int64(2) {
			t.Errorf("%v rows", n)
		}
		check(t, write(db, 3)())
		if n := count(); n != int64(2) {
			t.Errorf("%v rows in the same snapshot", n)
		}
		return errOwn
	}), errOwn)
	if n := count(); n != int64(3) { // temporary tables stay as they are
		t.Errorf("%v rows", n)
	}
	check(t, s.Query("UPDATE temp.mine SET id = id + 10", nil, nil))
	check(t, s.Query("DELETE FROM temp.mine", nil, nil))
	check(t, s.Query("DROP TABLE temp.mine", nil, nil))
	wantItems(t, db, 1, 2, 3)

	other := openScratch(t, db)
	defer func() { check(t, other.Close()) }()
	check(t, s.Query("CREATE TEMP TABLE mine (id)", nil, nil))
	if err := other.Query("SELECT id FROM temp.mine", nil, nil); err == nil {
		t.Error("one scratch sees the tables of another")
	}
}

func TestScratchWritesNothing(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema+"; CREATE INDEX item_note ON item (note)")
	check(t, write(db, 1)())
	s := openScratch(t, db)
	defer func() { check(t, s.Close()) }()
	for _, query := range []string{
		"INSERT INTO item VALUES (2, 'a')", "UPDATE item SET note = 'a'", "DELETE FROM item", "REPLACE INTO item VALUES (1, 'a')",
		"DROP TABLE item", "CREATE TABLE main.t (x)", "CREATE INDEX i ON item (note)", "ALTER TABLE item ADD COLUMN x",
		"CREATE TRIGGER main.t AFTER INSERT ON item BEGIN SELECT 1; END", "CREATE VIEW main.v AS SELECT 1", "REINDEX", "ANALYZE", "VACUUM",
		"PRAGMA user_version = 5", "PRAGMA application_id = 5", "PRAGMA schema_version = 5", "PRAGMA query_only = ON", "PRAGMA journal_mode = DELETE",
		"PRAGMA writable_schema = ON", "PRAGMA incremental_vacuum", "PRAGMA optimize", "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA main.auto_vacuum = 2",
		"ATTACH ':memory:' AS more", "DETACH main", "BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT a", "SELECT 1; DELETE FROM item", "",
	} {
		if err := s.Query(query, nil, nil); err == nil {
			t.Errorf("%s: no error", query)
		}
		wantErr(t, s.Read(func() error {
			if err := s.Query(query, nil, nil); err == nil {
				t.Errorf("%s: no error in Read", query)
			}
			return errOwn
		}), errOwn)
	}
	// Not by way of a temporary trigger either.
	check(t, s.Query("CREATE TEMP TABLE mine (x)", nil, nil))
	err := errors.Join(s.Query("CREATE TEMP TRIGGER t AFTER INSERT ON mine BEGIN DELETE FROM main.item; END", nil, nil),
		s.Query("INSERT INTO mine VALUES (1)", nil, nil))
	if err == nil {
		t.Error("a trigger was not refused")
	}
	wantItems(t, db, 1)
	if v := value(t, db, "PRAGMA user_version"); v != int64(0) {
		t.Errorf("user_version is %v", v)
	}
}

func TestScratchValue(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, "")
	s := openScratch(t, db)
	defer func() { check(t, s.Close()) }()
	made := 0
	first := func() any {
		made++
		return made
	}
	for _, want := range []int{1, 1} {
		if v := s.Value("a", first); v != want {
			t.Errorf("value is %v, want %d", v, want)
		}
	}
	if v := s.Value("b", first); v != 2 {
		t.Errorf("value is %v", v)
	}
	s.Forget("a")
	if v := s.Value("a", first); v != 3 {
		t.Errorf("value is %v", v)
	}
}

func TestScratchRefused(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{MaxStatement: 50 * time.Millisecond})
	s := openScratch(t, db)
	wantErr(t, s.Query("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n", nil, nil), sqlite.ErrTimeout)
	check(t, s.Query("SELECT 1", nil, nil))
	check(t, s.Close())
	cancelled, cancel := context.WithCancel(bg)
	cancel()
	_, err := db.Scratch(cancelled)
	wantErr(t, err, context.Canceled)
	check(t, db.Close())
	_, err = db.Scratch(bg)
	wantErr(t, err, sqlite.ErrClosed)
}

// What is kept beside temporary tables is dropped when SQLite has undone what
// was done to these.
func TestScratchRolledBack(t *testing.T) {
	t.Parallel()
	s := openScratch(t, sqlitetest.Open(t, itemSchema))
	defer func() { check(t, s.Close()) }()
	made := 0
	table := func() {
		s.Value("table", func() any {
			made++
			check(t, s.Query("CREATE TEMP TABLE mine (id INTEGER PRIMARY KEY)", nil, nil))
			return nil
		})
	}
	err := s.Read(func() error {
		table()
		check(t, s.Query("INSERT INTO temp.mine VALUES (1)", nil, nil))
		return s.Query("INSERT OR ROLLBACK INTO temp.mine VALUES (1)", nil, nil)
	})
	if err == nil {
		t.Error("no error")
	}
	check(t, s.Read(func() error {
		table()
		return s.Query("INSERT INTO temp.mine VALUES (1)", nil, nil)
	}))
	if made != 2 {
		t.Errorf("the table was made %d times", made)
	}
}
