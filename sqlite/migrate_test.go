package sqlite_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

// migrations returns a file system of names and texts.
func migrations(namesAndTexts ...string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for i := 0; i < len(namesAndTexts); i += 2 {
		fsys[namesAndTexts[i]] = &fstest.MapFile{Data: []byte(namesAndTexts[i+1])}
	}
	return fsys
}

func applied(t *testing.T, db *sqlite.DB) (names []string) {
	t.Helper()
	check(t, db.Query(bg, "SELECT name FROM _migration ORDER BY version", nil, func(row []driver.Value) error {
		names = append(names, row[0].(string))
		return nil
	}))
	return names
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	now := time.Unix(1700000000, 0)
	db := sqlitetest.Open(t, "", sqlite.Options{Now: func() time.Time { return now }})
	fsys := migrations(
		"0010_insert.sql", "INSERT INTO a VALUES (3); INSERT INTO b VALUES (4)",
		"2_b.sql", "CREATE TABLE b (id)",
		"0001_a.sql", "-- a table\nCREATE TABLE a (id); -- and a comment\n/* another */",
		"U1728810800__late.sql", "INSERT INTO a VALUES ('late; it''s');;",
		"0011_empty.sql", "", "0012_comment.sql", "-- nothing\n", "0013_space.sql", " \n\t",
		"0014_trigger.sql", "CREATE TRIGGER tr AFTER INSERT ON a BEGIN INSERT INTO b VALUES (1); INSERT INTO b VALUES (2); END;",
		"0015_savepoint.sql", "SAVEPOINT x; INSERT INTO b VALUES (5); ROLLBACK TO x; RELEASE x;",
		"0016_pragma.sql", "PRAGMA foreign_keys=OFF; CREATE TABLE c (id); PRAGMA foreign_keys=ON;",
		"README.md", "not a migration", "sub/0001_other.sql", "syntax error",
	)
	check(t, db.Migrate(bg, fsys))
	want := "[0001_a.sql 2_b.sql 0010_insert.sql 0011_empty.sql 0012_comment.sql 0013_space.sql 0014_trigger.sql 0015_savepoint.sql 0016_pragma.sql U1728810800__late.sql]"
	if got := fmt.Sprint(applied(t, db)); got != want {
		t.Errorf("applied %s", got)
	}
	check(t, db.Migrate(bg, fsys))
	if n := value(t, db, "SELECT count(*) FROM a"); n != int64(2) {
		t.Errorf("%v rows after a second run", n)
	}
	if v := value(t, db, "SELECT max(applied) FROM _migration"); v != now.Unix() {
		t.Errorf("applied at %v", v)
	}
	// One that was added below the newest is applied, as after a merge.
	fsys["0005_between.sql"] = &fstest.MapFile{Data: []byte("INSERT INTO b VALUES (6)")}
	check(t, db.Migrate(bg, fsys))
	if got := len(applied(t, db)); got != 11 {
		t.Errorf("%d migrations", got)
	}
	// Foreign keys are enforced again.
	check(t, db.Update(bg, func(tx *sqlite.Tx) error {
		var on bool
		if err := tx.QueryRowContext(bg, "PRAGMA foreign_keys").Scan(&on); err != nil || !on {
			t.Errorf("foreign keys: %v, %v", on, err)
		}
		return nil
	}))
}

func TestMigrateRefuses(t *testing.T) {
	t.Parallel()
	base := []string{"0001_a.sql", "CREATE TABLE parent (id INTEGER PRIMARY KEY); CREATE TABLE child (parent REFERENCES parent ON DELETE CASCADE); INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1)"}
	tests := []struct {
		name  string
		files []string
		want  []string // parts of the error
	}{
		{"changed", []string{"0001_a.sql", "CREATE TABLE parent (id INTEGER PRIMARY KEY)"}, []string{"0001_a.sql", "changed"}},
		{"missing", []string{"0002_b.sql", ""}, []string{"newer", "0001_a.sql"}},
		{"names", append(base, "b.sql", "", "x1_c.sql", "", "1.sql", "", "0002-d.sql", ""), []string{"b.sql", "x1_c.sql", "1.sql", "0002-d.sql"}},
		{"duplicates", append(base, "01_b.sql", "", "U1__c.sql", ""), []string{"0001_a.sql", "01_b.sql", "U1__c.sql", "same number"}},
		{"syntax", append(base, "0002_b.sql", "CREATE TABLE b (id); INSERT INTO nowhere VALUES (1)"), []string{"0002_b.sql", "nowhere"}},
		{"constraint", append(base, "0002_b.sql", "CREATE TABLE b (id); INSERT INTO parent VALUES (1)"), []string{"0002_b.sql", "UNIQUE"}},
		{"violation", append(base, "0002_b.sql", "CREATE TABLE b (id); DELETE FROM parent"), []string{"0002_b.sql", "child"}},
		{"COMMIT", append(base, "0002_b.sql", "CREATE TABLE b (id); COMMIT"), []string{"0002_b.sql"}},
		{"COMMIT and BEGIN", append(base, "0002_b.sql", "CREATE TABLE b (id); COMMIT; BEGIN; INSERT INTO nowhere VALUES (1)"), []string{"0002_b.sql"}},
		{"COMMIT and BEGIN that succeed", append(base, "0002_b.sql", "CREATE TABLE b (id); COMMIT; BEGIN"), []string{"0002_b.sql"}},
		{"ROLLBACK and BEGIN", append(base, "0002_b.sql", "CREATE TABLE b (id); /**/ ROLLBACK; BEGIN"), []string{"0002_b.sql"}},
		{"ROLLBACK", append(base, "0002_b.sql", "CREATE TABLE b (id); ROLLBACK"), []string{"0002_b.sql"}},
		{"BEGIN and COMMIT", append(base, "0002_b.sql", "BEGIN; CREATE TABLE b (id); COMMIT;"), []string{"0002_b.sql"}},
		{"OR ROLLBACK", append(base, "0002_b.sql", "CREATE TABLE b (id); INSERT OR ROLLBACK INTO parent VALUES (1)"), []string{"0002_b.sql"}},
		{"NUL", append(base, "0002_b.sql", "CREATE TABLE b (id);\x00CREATE TABLE c (id);"), []string{"0002_b.sql"}},
		{"incomplete", append(base, "0002_b.sql", "CREATE TABLE b (id); CREATE TABLE c (id"), []string{"0002_b.sql"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			db := sqlitetest.Open(t, "")
			check(t, db.Migrate(bg, migrations(base...)))
			err := db.Migrate(bg, migrations(test.files...))
			if err == nil {
				t.Error("no error")
			} else {
				for _, part := range test.want {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("%q does not mention %q", err, part)
					}
				}
			}
			if test.name == "missing" {
				wantErr(t, err, sqlite.ErrNewerSchema)
			}
			if got := fmt.Sprint(applied(t, db)); got != "[0001_a.sql]" {
				t.Errorf("applied: %s", got)
			}
			if n := value(t, db, "SELECT count(*) FROM sqlite_master WHERE name IN ('b', 'c')"); n != int64(0) {
				t.Error("part of a failing file remained")
			}
			// The mistake corrected, it goes on.
			check(t, db.Migrate(bg, migrations(append(base, "0002_b.sql", "CREATE TABLE b (id)")...)))
		})
	}
}

// The twelve steps of lang_altertable.html: dropping the old table must not
// delete what refers to it.
func TestMigrateRebuild(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, "")
	check(t, db.Migrate(bg, migrations(
		"1_create.sql", `CREATE TABLE parent (id INTEGER PRIMARY KEY, name TEXT);
			CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER NOT NULL REFERENCES parent ON DELETE CASCADE);
			INSERT INTO parent VALUES (1, 'a'), (2, 'b'); INSERT INTO child VALUES (1, 1), (2, 2), (3, 2);`,
		"2_rebuild.sql", `CREATE TABLE new_parent (id INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT;
			INSERT INTO new_parent SELECT id, name FROM parent; DROP TABLE parent; ALTER TABLE new_parent RENAME TO parent;`,
	)))
	if n := value(t, db, "SELECT count(*) FROM child JOIN parent ON parent.id = child.parent"); n != int64(3) {
		t.Errorf("%v children have a parent", n)
	}
	check(t, db.Write(bg, sqlite.Stmt{SQL: "DELETE FROM parent WHERE id = 2"}))
	if n := value(t, db, "SELECT count(*) FROM child"); n != int64(1) {
		t.Errorf("%v children", n)
	}
}

func TestMigrateCancelled(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, "")
	ctx, cancel := context.WithCancel(bg)
	cancel()
	wantErr(t, db.Migrate(ctx, migrations("1_a.sql", "CREATE TABLE a (id)")), context.Canceled)
	check(t, db.Migrate(bg, migrations("1_a.sql", "CREATE TABLE a (id)")))
}

// Readers that have prepared statements see the new schema.
func TestMigrateUnderReaders(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	check(t, write(db, 1)())
	version, err := db.SchemaVersion(bg)
	check(t, err)
	updates := db.SchemaChanges()
	wantItems(t, db, 1)
	check(t, db.Migrate(bg, migrations("1_a.sql", "ALTER TABLE item ADD COLUMN more INTEGER DEFAULT 7; DROP TABLE IF EXISTS x")))
	wantItems(t, db, 1)
	if v := value(t, db, "SELECT more FROM item"); v != int64(7) {
		t.Errorf("more is %v", v)
	}
	after, err := db.SchemaVersion(bg)
	check(t, err)
	if after == version || db.SchemaChanges() == updates {
		t.Errorf("schema version %d, then %d; updates %d, then %d", version, after, updates, db.SchemaChanges())
	}
}

// racing are files of which each may run only once.
func racing() fstest.MapFS {
	fsys := migrations("000_log.sql", "CREATE TABLE log (version INTEGER)")
	for i := range 12 {
		fsys[fmt.Sprintf("%03d_step.sql", i+1)] = &fstest.MapFile{Data: fmt.Appendf(nil, "CREATE TABLE t%d (id); INSERT INTO log VALUES (%d)", i, i)}
	}
	return fsys
}

func TestMigrateRaces(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/test.db"
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			db, err := sqlite.Open(bg, path, sqlite.Options{})
			if err == nil {
				err = errors.Join(db.Migrate(bg, racing()), db.Close())
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	wantLog(t, path)
}

func TestMigrateRacesOfProcesses(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/test.db"
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			cmd := osexec.Command(os.Args[0], "-test.run=^TestMigrateChild$", "-test.count=1")
			cmd.Env = append(os.Environ(), "SQLITE_TEST_MIGRATE="+path)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	wg.Wait()
	wantLog(t, path)
}

// TestMigrateChild is one of the processes of TestMigrateRacesOfProcesses.
func TestMigrateChild(t *testing.T) {
	path := os.Getenv("SQLITE_TEST_MIGRATE")
	if path == "" {
		t.Skip("runs in a child process only")
	}
	db, err := sqlite.Open(bg, path, sqlite.Options{})
	check(t, err)
	check(t, errors.Join(db.Migrate(bg, racing()), db.Close()))
}

func wantLog(t *testing.T, path string) {
	t.Helper()
	db := sqlitetest.OpenFile(t, path, "")
	if got := len(applied(t, db)); got != 13 {
		t.Errorf("%d migrations", got)
	}
	if v := value(t, db, "SELECT group_concat(version) FROM log"); v != "0,1,2,3,4,5,6,7,8,9,10,11" {
		t.Errorf("log is %v", v)
	}
}
