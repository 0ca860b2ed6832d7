package sqlite_test

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"testing"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

// TestChangeCoverage has each kind of statement that changes rows, and what
// the log says about it.
func TestChangeCoverage(t *testing.T) {
	t.Parallel()
	const schema = itemSchema + `;
		CREATE TABLE plain (k TEXT PRIMARY KEY, n) WITHOUT ROWID;
		CREATE TABLE pair (a INTEGER PRIMARY KEY, b UNIQUE);
		CREATE TABLE owner (id INTEGER PRIMARY KEY) STRICT;
		CREATE TABLE thing (id INTEGER PRIMARY KEY, owner INTEGER REFERENCES owner ON DELETE CASCADE ON UPDATE CASCADE,
			other INTEGER REFERENCES owner ON DELETE SET NULL) STRICT;
		CREATE TABLE stamped (id INTEGER PRIMARY KEY, n INTEGER, updated INTEGER) STRICT;
		CREATE TRIGGER stamp AFTER UPDATE OF n ON stamped BEGIN UPDATE stamped SET updated = NEW.n * 10 WHERE id = NEW.id; END;
		CREATE TABLE computed (a INTEGER, v AS (a + 1), s AS (a + 2) STORED);
		CREATE TABLE checked (id INTEGER PRIMARY KEY CHECK (id < 10)) STRICT`
	tables := []string{"item", "plain", "pair", "owner", "thing", "stamped", "computed", "checked"}
	for _, test := range []struct {
		name       string
		statements []string // each in a Write of its own; one that begins with "!" fails
		want       []string
	}{
		{"insert", []string{"INSERT INTO item VALUES (1, 'a'), (2, NULL)"}, []string{"item: insert [1 a]", "item: insert [2 <nil>]"}},
		{"update", []string{"INSERT INTO item VALUES (1, 'a')", "UPDATE item SET note = note || 'b', id = 2"},
			[]string{"item: insert [1 a]", "item: update [1 a] [2 ab]"}},
		{"delete without WHERE", []string{"INSERT INTO item VALUES (1, 'a'), (2, 'b')", "DELETE FROM item"},
			[]string{"item: insert [1 a]", "item: insert [2 b]", "item: delete [1 a]", "item: delete [2 b]"}},
		{"WITHOUT ROWID", []string{"INSERT INTO plain VALUES ('a', 1)", "UPDATE plain SET k = 'b'", "DELETE FROM plain"},
			[]string{"plain: insert [a 1]", "plain: update [a 1] [b 1]", "plain: delete [b 1]"}},
		{"UPSERT", []string{"INSERT INTO pair VALUES (1, 'x')", "INSERT INTO pair VALUES (1, 'y') ON CONFLICT (a) DO UPDATE SET b = excluded.b",
			"INSERT INTO pair VALUES (2, 'y') ON CONFLICT DO NOTHING"}, []string{"pair: insert [1 x]", "pair: update [1 x] [1 y]"}},
		{"OR IGNORE", []string{"INSERT INTO pair VALUES (1, 'x')", "INSERT OR IGNORE INTO pair VALUES (1, 'y'), (3, 'z')", "UPDATE OR IGNORE pair SET b = 'z'"},
			[]string{"pair: insert [1 x]", "pair: insert [3 z]", "pair: update [3 z] [3 z]"}},
		// As documented: the rows that make room are not told.
		{"REPLACE", []string{"INSERT INTO pair VALUES (1, 'x'), (2, 'y')", "REPLACE INTO pair VALUES (1, 'y')"},
			[]string{"pair: insert [1 x]", "pair: insert [2 y]", "pair: insert [1 y]"}},
		{"UPDATE OR REPLACE", []string{"INSERT INTO pair VALUES (1, 'x'), (2, 'y')", "UPDATE OR REPLACE pair SET b = 'y' WHERE a = 1"},
			[]string{"pair: insert [1 x]", "pair: insert [2 y]", "pair: update [1 x] [1 y]"}},
		{"fails half way", []string{"!INSERT INTO checked VALUES (1), (2), (30)", "INSERT INTO checked VALUES (3)"}, []string{"checked: insert [3]"}},
		{"OR FAIL half way", []string{"!INSERT OR FAIL INTO checked VALUES (1), (2), (30)"}, nil}, // the Write is undone
		{"OR ROLLBACK", []string{"!INSERT OR ROLLBACK INTO checked VALUES (1), (30)"}, nil},
		{"foreign keys", []string{"INSERT INTO owner VALUES (1), (2)", "INSERT INTO thing VALUES (1, 1, 2), (2, 2, NULL)", "UPDATE owner SET id = 3 WHERE id = 1",
			"DELETE FROM owner WHERE id = 2"},
			[]string{"owner: insert [1]", "owner: insert [2]", "thing: insert [1 1 2]", "thing: insert [2 2 <nil>]",
				"thing: update [1 1 2] [1 3 2]", "owner: update [1] [3]", "thing: update [1 3 2] [1 3 <nil>]", "thing: delete [2 2 <nil>]", "owner: delete [2]"}},
		{"younger by far", []string{"INSERT INTO stamped VALUES (1, 2, 3)", "UPDATE stamped SET n = 4"},
			[]string{"stamped: insert [1 2 3]", "stamped: update [1 2 3] [1 4 3]", "stamped: update [1 4 3] [1 4 40]"}},
		{"generated columns", []string{"INSERT INTO computed (a) VALUES (1)", "UPDATE computed SET a = 5"},
			[]string{"computed: insert [1 2 3]", "computed: update [1 2 3] [5 6 7]"}},
		{"UPDATE FROM", []string{"INSERT INTO item VALUES (1, 'a')", "INSERT INTO plain VALUES ('k', 'z')", "UPDATE item SET note = n FROM plain"},
			[]string{"item: insert [1 a]", "plain: insert [k z]", "item: update [1 a] [1 z]"}},
		{"INSERT SELECT", []string{"INSERT INTO item SELECT value, 'n' FROM json_each('[1,2]')"}, []string{"item: insert [1 n]", "item: insert [2 n]"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			db := sqlitetest.Open(t, schema, sqlite.Options{Synchronous: sqlite.Normal, Logger: quiet})
			f := follow(t, db, mainLog(t, db, tables...))
			for _, s := range test.statements {
				fails := s[0] == '!'
				if fails {
					s = s[1:]
				}
				if err := db.Write(bg, sqlite.Stmt{SQL: s}); (err != nil) != fails {
					t.Fatalf("%s: %v", s, err)
				}
			}
			f.want(test.want...)
		})
	}
}

func TestChangesRolledBack(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, modelSchema, sqlite.Options{Logger: quiet})
	f := follow(t, db, mainLog(t, db, "item"))
	errs := together(t, db,
		write(db, 1),
		func() error { return errors.Join(update(db, 2)(), errOwn) },
		func() error {
			return db.Update(bg, func(tx *sqlite.Tx) error {
				check(t, exec(tx, 3))
				check(t, run(tx, "SAVEPOINT a"))
				check(t, exec(tx, 4))
				check(t, run(tx, "ROLLBACK TO a"))
				check(t, exec(tx, 5))
				return run(tx, "RELEASE a")
			})
		},
		func() error {
			return db.Update(bg, func(tx *sqlite.Tx) error { return errors.Join(exec(tx, 6), errOwn) })
		},
		func() error { return db.Write(bg, insert(7), insert(7)) },
		write(db, 8))
	for i, failed := range []bool{false, true, false, true, true, false} {
		if (errs[i] != nil) != failed {
			t.Errorf("call %d: %v", i, errs[i])
		}
	}
	f.want("item: insert [1 <nil>]", "item: insert [2 <nil>]", "item: insert [3 <nil>]", "item: insert [5 <nil>]", "item: insert [8 <nil>]")

	// The shared transaction is lost, and statements are run again.
	errs = together(t, db, write(db, 11), func() error { return db.Write(bg, sqlite.Stmt{SQL: "INSERT INTO item (note) VALUES ('rollback')"}) }, write(db, 12))
	if errs[0] != nil || errs[1] == nil || errs[2] != nil {
		t.Errorf("errors are %v", errs)
	}
	f.want("item: insert [11 <nil>]", "item: insert [12 <nil>]")
}

// The changes of a large transaction come in its order, over many pages.
func TestChangesOfALargeTransaction(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Synchronous: sqlite.Normal})
	f := follow(t, db, mainLog(t, db, "item"))
	const rows = 10_000
	check(t, db.Update(bg, func(tx *sqlite.Tx) error {
		for id := range int64(rows) {
			if err := exec(tx, id); err != nil {
				return err
			}
		}
		return nil
	}))
	all := f.changes()
	if len(all) != rows {
		t.Fatalf("%d changes", len(all))
	}
	for i, c := range all {
		if c.New[0] != driver.Value(int64(i)) {
			t.Fatalf("change %d is %s", i, describe(c))
		}
	}
}

// Writes that do not go through the handle: of the application's own
// connection, of another handle, of another process.
func TestChangesOfOthers(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	f := follow(t, db, mainLog(t, db, "item"))

	own := sql.OpenDB(db.Connector())
	outsideExec(t, own, "INSERT INTO item VALUES (1, 'own')")
	check(t, own.Close())

	second, err := sqlite.Open(bg, db.Path(), sqlite.Options{})
	check(t, err)
	check(t, write(second, 2)())
	check(t, second.Close())

	cmd := osexec.Command(os.Args[0], "-test.run=^TestChangesChild$", "-test.count=1")
	cmd.Env = append(os.Environ(), "SQLITE_TEST_CHANGES="+db.Path())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("child: %v\n%s", err, out)
	}
	f.want("item: insert [1 own]", "item: insert [2 <nil>]", "item: insert [100 child]", "item: update [100 child] [100 changed]", "item: delete [100 changed]")
}

// TestChangesChild is the other process.
func TestChangesChild(t *testing.T) {
	path := os.Getenv("SQLITE_TEST_CHANGES")
	if path == "" {
		t.Skip("runs as a child only")
	}
	pool, err := sql.Open(sqlite.DriverName, "file:"+path)
	check(t, err)
	outsideExec(t, pool, "INSERT INTO item VALUES (100, 'child')", "UPDATE item SET note = 'changed' WHERE id = 100", "DELETE FROM item WHERE id = 100",
		"BEGIN; INSERT INTO item VALUES (200, 'lost'); ROLLBACK")
	check(t, pool.Close())
}

// Rows in tables with more columns than json_array takes.
func TestChangesOfWideTables(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 100, 101, 2000} {
		columns, values := "", ""
		for i := range n {
			columns += fmt.Sprintf(", c%d", i)
			values += fmt.Sprintf(", %d", i)
		}
		db := sqlitetest.Open(t, "CREATE TABLE wide ("+columns[2:]+")", sqlite.Options{Synchronous: sqlite.Normal})
		f := follow(t, db, mainLog(t, db, "wide"))
		execute(t, db, "INSERT INTO wide VALUES ("+values[2:]+")", "UPDATE wide SET c0 = 'x'")
		changes := f.changes()
		if len(changes) != 2 || len(changes[0].New) != n || len(changes[0].Columns) != n {
			t.Fatalf("%d columns: %d changes", n, len(changes))
		}
		for i, v := range changes[0].New {
			if v != driver.Value(int64(i)) || changes[0].Columns[i] != fmt.Sprintf("c%d", i) {
				t.Fatalf("%d columns: value %d is %v", n, i, v)
			}
		}
	}
}

// What is documented not to be recorded as it is. If one of these fails, SQLite
// has become better and the documentation can be shorter.
func TestChangeLimits(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema+`; CREATE TABLE self (id INTEGER PRIMARY KEY, up INTEGER REFERENCES self ON UPDATE CASCADE) STRICT`)
	f := follow(t, db, mainLog(t, db, "item", "self"))
	execute(t, db, "INSERT INTO self VALUES (1, 1)", "UPDATE self SET id = 2")
	f.want("self: insert [1 1]", "self: update [2 1] [2 2]", "self: update [1 1] [2 1]")

	own := sql.OpenDB(db.Connector())
	own.SetMaxOpenConns(1)
	outsideExec(t, own, "CREATE TEMP TRIGGER mine AFTER UPDATE OF note ON main.item BEGIN UPDATE item SET id = 9 WHERE id = NEW.id; END",
		"INSERT INTO item VALUES (1, 'a')", "UPDATE item SET note = 'b'")
	check(t, own.Close())
	f.want("item: insert [1 a]", "item: update [1 b] [9 b]", "item: update [1 a] [1 b]")
}
