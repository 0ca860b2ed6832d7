package sqlite_test

import (
	"database/sql/driver"
	"errors"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

const rebuild = `CREATE TABLE new (id INTEGER PRIMARY KEY, note TEXT, more TEXT) STRICT;
	INSERT INTO new SELECT id, note, 'm' FROM item;
	DROP TABLE item;
	ALTER TABLE new RENAME TO item`

// schemaChanges are changes of the schema of item (id, note), which has the
// row (1, a), and what the log says about them and about what follows.
var schemaChanges = []struct {
	name   string
	script string // statements
	hard   bool   // not while there are triggers of the log
	then   string // afterwards
	want   []string
}{
	{"ADD COLUMN", "ALTER TABLE item ADD COLUMN x TEXT DEFAULT 'd'", false, "INSERT INTO item (id) VALUES (2)",
		[]string{"item: break", "item: insert [2 <nil> d]"}},
	{"RENAME COLUMN", "ALTER TABLE item RENAME COLUMN note TO text", false, "UPDATE item SET text = 'b' WHERE id = 1",
		[]string{"item: break", "item: update [1 a] [1 b]"}},
	{"DROP COLUMN", "ALTER TABLE item DROP COLUMN note", true, "INSERT INTO item (id) VALUES (2)",
		[]string{"item: break", "item: insert [2]"}},
	{"RENAME TO", "ALTER TABLE item RENAME TO thing", false, "INSERT INTO thing VALUES (2, 'b')", []string{"item: break"}},
	{"RENAME TO, other case", "ALTER TABLE item RENAME TO x; ALTER TABLE x RENAME TO ITEM", false, "INSERT INTO item VALUES (2, 'b')",
		[]string{"ITEM: break", "ITEM: insert [2 b]"}},
	{"rebuild", rebuild, false, "DELETE FROM item WHERE id = 1", []string{"item: break", "item: delete [1 a m]"}},
	{"DROP and CREATE", "DROP TABLE item; CREATE TABLE item (id INTEGER PRIMARY KEY, note TEXT) STRICT", false, "INSERT INTO item VALUES (7, 'g')",
		[]string{"item: break", "item: insert [7 g]"}},
	{"DROP", "DROP TABLE item", false, "SELECT 1", []string{"item: break"}},
	{"another table", "CREATE TABLE other (x); CREATE INDEX i ON other (x); DROP TABLE other; CREATE INDEX j ON item (note); DROP INDEX j", false,
		"DELETE FROM item WHERE id = 1", []string{"item: delete [1 a]"}},
	{"younger trigger", "CREATE TRIGGER late AFTER UPDATE OF note ON item BEGIN UPDATE item SET id = 9 WHERE id = NEW.id; END", false,
		"UPDATE item SET note = 'b' WHERE id = 1", []string{"item: break", "item: update [1 a] [1 b]", "item: update [1 b] [9 b]"}},
	{"trigger dropped", `DROP TRIGGER "_change_item_d"`, false, "DELETE FROM item WHERE id = 1", []string{"item: break", "item: delete [1 a]"}},
	{"views", "CREATE VIEW v AS SELECT * FROM item; DROP VIEW v", false, "DELETE FROM item WHERE id = 1", []string{"item: delete [1 a]"}},
}

func statements(script string) []string {
	if strings.HasPrefix(script, "CREATE TRIGGER") {
		return []string{script}
	}
	return strings.Split(script, ";")
}

func TestSchemaChangesByWrite(t *testing.T) {
	t.Parallel()
	for _, test := range schemaChanges {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if test.hard {
				t.Skip("see TestSchemaChangesInWithoutChangeFeed")
			}
			f, db := followItem(t)
			var list []sqlite.Stmt
			for _, s := range statements(test.script) {
				list = append(list, sqlite.Stmt{SQL: s})
			}
			check(t, db.Write(bg, list...))
			execute(t, db, test.then)
			f.wantAfterBreak(test.want)
		})
	}
}

// followItem returns a follower of a new table item.
func followItem(t *testing.T) (*follower, *sqlite.DB) {
	t.Helper()
	db := sqlitetest.Open(t, itemSchema+"; INSERT INTO item VALUES (1, 'a')", sqlite.Options{Synchronous: sqlite.Normal})
	return follow(t, db, mainLog(t, db, "item")), db
}

// wantAfterBreak is want without what comes before a break of the table, which
// nobody looks at.
func (f *follower) wantAfterBreak(lines []string) {
	f.tb.Helper()
	var got []string
	for _, c := range f.changes() {
		if c.Op == sqlite.LogBreak {
			got = nil
		}
		got = append(got, describe(c))
	}
	if g, w := strings.Join(got, "\n"), strings.Join(lines, "\n"); g != w {
		f.tb.Errorf("changes are\n%s\nwant\n%s", g, w)
	}
}

func TestSchemaChangesByUpdate(t *testing.T) {
	t.Parallel()
	for _, test := range schemaChanges {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f, db := followItem(t)
			var err error
			errs := together(t, db, write(db, 50), func() error {
				return db.Update(bg, func(tx *sqlite.Tx) error {
					for _, s := range statements(test.script) {
						if err = run(tx, s); err != nil {
							return err
						}
					}
					return nil
				})
			}, func() error { return db.Write(bg, sqlite.Stmt{SQL: "SELECT 1"}) })
			if test.hard {
				if errs[1] == nil || !strings.Contains(errs[1].Error(), "_change_item_") {
					t.Errorf("error is %v", errs[1])
				}
				return
			}
			check(t, errors.Join(errs...))
			broken := false
			for _, c := range f.changes() {
				broken = broken || c.Op == sqlite.LogBreak
			}
			execute(t, db, test.then)
			want := test.want
			if wanted := len(want) > 0 && strings.HasSuffix(want[0], ": break"); broken != wanted {
				t.Errorf("break: %t, want %t", broken, wanted)
			} else if wanted {
				want = want[1:]
			}
			f.want(want...)
		})
	}
}

// Triggers that have been rewritten and are now as before have missed nothing.
func TestTableRenamedAndBack(t *testing.T) {
	t.Parallel()
	f, db := followItem(t)
	for range 2 {
		check(t, db.Write(bg, sqlite.Stmt{SQL: "ALTER TABLE item RENAME TO thing"}, sqlite.Stmt{SQL: "UPDATE thing SET note = note || 'b'"},
			sqlite.Stmt{SQL: "ALTER TABLE thing RENAME TO item"}))
	}
	f.want("item: update [1 a] [1 ab]", "item: update [1 ab] [1 abb]")
}

func TestSchemaChangesByMigration(t *testing.T) {
	t.Parallel()
	for _, test := range schemaChanges {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if test.name == "trigger dropped" {
				t.Skip("it is not there then")
			}
			f, db := followItem(t)
			check(t, db.Migrate(bg, migrations("0001_a.sql", test.script)))
			execute(t, db, test.then)
			want := test.want
			if test.name == "younger trigger" {
				want = want[1:] // no row has changed
			}
			f.wantAfterBreak(want)
		})
	}
}

// A migration file leaves no hole in the tables that it does not touch, and
// one break in those that it does.
func TestMigrationTouches(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, script string
		item, part   bool
	}{
		{"nothing", "CREATE TABLE other (x)", false, false},
		{"insert", "INSERT INTO item VALUES (2, 'b')", true, false},
		{"delete all", "DELETE FROM item", true, false},
		{"update", "UPDATE part SET item = 3", false, true},
		{"insert by trigger", "INSERT INTO cause VALUES (1)", false, true},
		{"new column", "ALTER TABLE part ADD COLUMN x", false, true},
		{"younger trigger", "CREATE TRIGGER late AFTER UPDATE OF note ON item BEGIN UPDATE item SET id = 9 WHERE id = NEW.id; END", false, false},
		{"both", "INSERT INTO item VALUES (2, 'b'); INSERT INTO part SELECT id FROM item", true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			db := sqlitetest.Open(t, itemSchema+`; INSERT INTO item VALUES (1, 'a'); CREATE TABLE part (item INTEGER);
				CREATE TABLE cause (x); CREATE TRIGGER effect AFTER INSERT ON cause BEGIN INSERT INTO part VALUES (NEW.x); END`)
			f := follow(t, db, mainLog(t, db, "item", "part"))
			execute(t, db, "INSERT INTO item VALUES (10, 'x')")
			check(t, db.Migrate(bg, migrations("0001_a.sql", test.script, "0002_b.sql", "SELECT 1")))
			want := []string{"item: insert [10 x]"}
			if test.item {
				want = append(want, "item: break")
			}
			if test.part {
				want = append(want, "part: break")
			}
			execute(t, db, "UPDATE item SET note = 'z' WHERE id = 10")
			if test.name != "delete all" {
				want = append(want, "item: update [10 x] [10 z]")
			}
			if test.name == "younger trigger" {
				want = append(want, "item: update [10 z] [9 z]")
			}
			f.want(want...)
		})
	}
}

func TestMigrationThatFails(t *testing.T) {
	t.Parallel()
	f, db := followItem(t)
	version := schemaVersion(t, db)
	if err := db.Migrate(bg, migrations("0001_a.sql", "INSERT INTO item VALUES (2, 'b'); INSERT INTO none VALUES (1)")); err == nil {
		t.Fatal("no error")
	}
	if now := schemaVersion(t, db); now != version+1 { // the table _migration
		t.Errorf("schema version became %d from %d", now, version)
	}
	execute(t, db, "DELETE FROM item")
	f.want("item: delete [1 a]")
}

func TestWithoutChangeFeed(t *testing.T) {
	t.Parallel()
	for _, test := range schemaChanges {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f, db := followItem(t)
			check(t, f.l.WithoutChangeFeed(bg, func(tx *sqlite.Tx) error {
				for _, s := range statements(test.script) {
					if s == `DROP TRIGGER "_change_item_d"` {
						continue
					}
					if err := run(tx, s); err != nil {
						return err
					}
				}
				return nil
			}))
			execute(t, db, test.then)
			want := test.want
			if len(want) == 1 && want[0] != "item: break" {
				want = append([]string{"item: break"}, want...)
			}
			f.want(want...)
		})
	}
}

func TestWithoutChangeFeedImports(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, modelSchema)
	l := mainLog(t, db, "item", "part")
	f := follow(t, db, l)
	version := schemaVersion(t, db)
	wantErr(t, l.WithoutChangeFeed(bg, func(tx *sqlite.Tx) error { return errors.Join(exec(tx, 1, 2), errOwn) }), errOwn)
	var panicked *sqlite.PanicError
	if err := l.WithoutChangeFeed(bg, func(*sqlite.Tx) error { panic("x") }); !errors.As(err, &panicked) {
		t.Errorf("error is %v", err)
	}
	if now := schemaVersion(t, db); now != version {
		t.Errorf("schema version became %d from %d", now, version)
	}
	f.want()
	errs := together(t, db, write(db, 10), func() error {
		return l.WithoutChangeFeed(bg, func(tx *sqlite.Tx) error {
			return errors.Join(exec(tx, 1, 2, 3), l.PublishTx(bg, tx, "imported", []byte("3")))
		})
	}, write(db, 11))
	check(t, errors.Join(errs...))
	wantItems(t, db, 1, 2, 3, 10, 11)
	f.want("item: insert [10 <nil>]", "event imported 3", "item: break", "part: break", "item: insert [11 <nil>]")
}

// A table without triggers is not recorded; that is noticed by whoever waits,
// by Track and by Open, also when another process has done it.
func TestSchemaChangesByOthers(t *testing.T) {
	t.Parallel()
	notice := map[string]func(*follower) *follower{
		"Wait": func(f *follower) *follower {
			within(f.tb, "Wait", func() { check(f.tb, f.l.Wait(bg, f.at)) })
			return f
		},
		"Track": func(f *follower) *follower {
			check(f.tb, f.l.Track(bg))
			return f
		},
		"Open": func(f *follower) *follower {
			check(f.tb, f.db.Close())
			db := sqlitetest.OpenFile(f.tb, f.db.Path(), "")
			l, err := db.ChangeLog("main")
			check(f.tb, err)
			return &follower{f.tb, db, l, f.at}
		},
		"own change": func(f *follower) *follower {
			execute(f.tb, f.db, "CREATE TABLE mine (x)")
			return f
		},
	}
	for how, noticed := range notice {
		for _, test := range schemaChanges {
			if test.want[0] == "item: delete [1 a]" || test.hard {
				continue // nothing to notice
			}
			gone := test.name == "RENAME TO" || test.name == "DROP"
			t.Run(how+"/"+test.name, func(t *testing.T) {
				t.Parallel()
				f, db := followItem(t)
				pool := outside(t, db)
				outsideExec(t, pool, test.script)
				if !gone {
					outsideExec(t, pool, "INSERT INTO item (id) VALUES (33)")
				}
				// Nothing that is told of before the break matters, but Wait
				// returns for it.
				f.changes()
				f = noticed(f)
				if !gone {
					execute(t, f.db, "DELETE FROM item WHERE id = 33")
				}
				execute(t, f.db, test.then)
				var got []string
				for _, c := range f.changes() {
					if s := describe(c); !strings.Contains(s, "delete [33") {
						got = append(got, s)
					}
				}
				if g, w := strings.Join(got, "\n"), strings.Join(test.want, "\n"); g != w {
					t.Errorf("changes are\n%s\nwant\n%s", g, w)
				}
			})
		}
	}
}

func TestVacuum(t *testing.T) {
	t.Parallel()
	f, db := followItem(t)
	execute(t, db, "CREATE TRIGGER late AFTER UPDATE OF note ON item BEGIN UPDATE item SET id = 9 WHERE id = NEW.id; END")
	f.want("item: break")
	outsideExec(t, outside(t, db), "VACUUM")
	check(t, f.l.Track(bg, "item"))
	execute(t, db, "UPDATE item SET note = 'b'")
	f.want("item: update [1 a] [1 b]", "item: update [1 b] [9 b]")
}

// What puts the log in order is lost with the transaction that it was part of,
// and done again with what made it necessary.
func TestSchemaChangeRepeated(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, modelSchema, sqlite.Options{Logger: quiet})
	f := follow(t, db, mainLog(t, db, "item"))
	errs := together(t, db,
		func() error { return db.Write(bg, sqlite.Stmt{SQL: "ALTER TABLE item ADD COLUMN x TEXT"}) },
		func() error {
			return db.Write(bg, sqlite.Stmt{SQL: "INSERT INTO item (note) VALUES ('rollback')"})
		},
		write(db, 1))
	if errs[0] != nil || errs[1] == nil || errs[2] != nil {
		t.Errorf("errors are %v", errs)
	}
	f.want("item: break", "item: insert [1 <nil> <nil>]")
}

// When the log cannot follow a change of the schema, that change fails.
func TestSchemaChangeThatCannotBeFollowed(t *testing.T) {
	t.Parallel()
	f, db := followItem(t)
	const obstacle = "CREATE VIEW _change_mark AS SELECT 1"
	errs := []error{
		db.Write(bg, sqlite.Stmt{SQL: "DROP TABLE _change_mark"}, sqlite.Stmt{SQL: obstacle}),
		db.Update(bg, func(tx *sqlite.Tx) error {
			check(t, run(tx, "DROP TABLE _change_mark"))
			return run(tx, obstacle)
		}),
	}
	for _, err := range errs {
		if err == nil || !strings.Contains(err.Error(), "keep the change log of main in step") {
			t.Errorf("error is %v", err)
		}
	}
	execute(t, db, "DELETE FROM item")
	f.want("item: delete [1 a]")
}

// Tables of the log that somebody drops are made anew, with a new epoch.
func TestChangeTablesDropped(t *testing.T) {
	t.Parallel()
	for _, table := range []string{"_change", "_change_shape", "_change_mark", "_change_state", "_change_table"} {
		t.Run(table, func(t *testing.T) {
			t.Parallel()
			f, db := followItem(t)
			execute(t, db, "INSERT INTO item VALUES (2, 'b')", "DROP TABLE "+table)
			check(t, f.l.Track(bg, "item"))
			now := head(t, f.l)
			if now.Epoch == f.at.Epoch {
				t.Error("the epoch is still the same")
			}
			if p := page(t, db, f.l, f.at, 1<<40, 10); !p.Gap {
				t.Errorf("page is %+v", p)
			}
			f.at = now
			execute(t, db, "DELETE FROM item")
			f.want("item: delete [1 a]", "item: delete [2 b]")
		})
	}
}

// What others have gone around before a migration gets its break, although the
// migration does not touch the table.
func TestMigrationAfterOthers(t *testing.T) {
	t.Parallel()
	f, db := followItem(t)
	outsideExec(t, outside(t, db), `DROP TRIGGER "_change_item_i"`, "INSERT INTO item VALUES (2, 'b')")
	check(t, db.Migrate(bg, migrations("0001_a.sql", "CREATE TABLE other (x)")))
	execute(t, db, "DELETE FROM item WHERE id = 2")
	f.want("item: break", "item: delete [2 b]")
}

// A table that is gone has a break, also when it is not tracked any more, and
// one that comes back has another.
func TestTableGoneAndBack(t *testing.T) {
	t.Parallel()
	f, db := followItem(t)
	execute(t, db, "DELETE FROM item", "DROP TABLE item")
	f.want("item: break") // the deletion is hidden from here on
	execute(t, db, "CREATE TABLE item (id INTEGER PRIMARY KEY)", "INSERT INTO item VALUES (5)")
	f.want("item: break", "item: insert [5]")
	outsideExec(t, outside(t, db), "DROP TABLE item")
	check(t, f.l.Untrack(bg, "item"))
	f.want("item: break")
	check(t, f.l.Untrack(bg, "item"))
	f.want()
	check(t, f.l.Publish(bg, "a", []byte("1")))
	check(t, f.l.Prune(bg))
	if n := value(t, db, "SELECT count(*) FROM _change_shape WHERE ended IS NULL"); n != driver.Value(int64(0)) {
		t.Errorf("%v shapes go on", n)
	}
}

// A request that has failed after it has changed the schema leaves nothing to
// be done to those that come after it, and does so itself when it comes again.
func TestSchemaChangeThatFails(t *testing.T) {
	t.Parallel()
	f, db := followItem(t)
	execute(t, db, "CREATE TABLE other (x)")
	outsideExec(t, outside(t, db), "DROP TABLE _change_mark", "CREATE VIEW _change_mark AS SELECT 1")
	for _, fails := range []func() error{
		func() error {
			return db.Write(bg, sqlite.Stmt{SQL: "CREATE VIEW v AS SELECT 1"}, sqlite.Stmt{SQL: "INSERT INTO none VALUES (1)"})
		},
		func() error {
			return db.Update(bg, func(tx *sqlite.Tx) error { return errors.Join(run(tx, "CREATE VIEW v AS SELECT 1"), errOwn) })
		},
	} {
		if err := fails(); err == nil {
			t.Error("no error")
		}
		execute(t, db, "INSERT INTO other VALUES (1)")
		check(t, db.Update(bg, func(tx *sqlite.Tx) error { return run(tx, "INSERT INTO other VALUES (2)") }))
	}
	outsideExec(t, outside(t, db), "DROP VIEW _change_mark")
	check(t, f.l.Renew(bg))
	check(t, f.l.Track(bg, "item"))
	f.at = head(t, f.l)
	execute(t, db, "CREATE TABLE child (item REFERENCES item)", "INSERT INTO child VALUES (1)")
	const drop = "DROP TABLE item"
	if err := db.Write(bg, sqlite.Stmt{SQL: drop}); err == nil {
		t.Error("no error")
	}
	execute(t, db, "DELETE FROM child", drop)
	f.want("item: break")
}

// SQLite folds ASCII letters only.
func TestTrackNamesOfOtherScripts(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, "CREATE TABLE \"é\" (x); CREATE TABLE \"É\" (x)")
	l := mainLog(t, db, "é")
	check(t, l.Track(bg, "É"))
	f := follow(t, db, l)
	execute(t, db, `INSERT INTO "é" VALUES (1)`, `INSERT INTO "É" VALUES (2)`)
	f.want("é: insert [1]", "É: insert [2]")
	check(t, l.Untrack(bg, "é"))
	execute(t, db, `INSERT INTO "É" VALUES (3)`)
	f.want("é: break", "É: insert [3]")
}

// That a column may be NULL is a matter of its shape only where it is written
// in another way then.
func TestShapeWithoutNotNull(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, "CREATE TABLE item (a TEXT NOT NULL, b BLOB NOT NULL, c BLOB) STRICT")
	mainLog(t, db, "item")
	want := driver.Value(`[{"n":"a","e":"v","t":true},{"n":"b","e":"x","r":true},{"n":"c","e":"x"}]`)
	if got := value(t, db, "SELECT columns FROM _change_shape"); got != want {
		t.Errorf("columns are %v", got)
	}
}
