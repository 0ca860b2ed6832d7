package sqlite_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

func TestOptionsAllMistakes(t *testing.T) {
	t.Parallel()
	_, err := sqlite.Open(bg, ":memory:", sqlite.Options{
		Synchronous: 7, Readers: -1, MaxQueue: -1, MaxBatch: -1, CacheSize: -1, Checkpoint: -1, MaxHold: -1, BusyTimeout: -1,
		Schemas: map[string]string{"bad_schema": "{"},
		Attach: []sqlite.Attachment{
			{Name: "main", Path: "x"}, {Name: "TEMP", Path: "x"}, {Name: "a b", Path: "x"}, {Name: "", Path: "x"},
			{Name: "twice", Path: "x"}, {Name: "Twice", Path: "y"}, {Name: "nowhere"}, {Name: `a"b`, Path: "x"}, {Name: "ä", Path: "x"},
		},
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range []string{
		":memory:", "readers", "max queue", "max batch", "cache size", "checkpoint", "duration", "synchronous",
		`"main"`, `"TEMP"`, `"a b"`, `""`, `"Twice"`, `"nowhere"`, `"a\"b"`, `"ä"`, "bad_schema",
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not mention %s: %v", part, err)
		}
	}
	for _, path := range []string{"", ":memory:", "file::memory:", "file:x.db?mode=memory"} {
		if db, err := sqlite.Open(bg, path, sqlite.Options{}); err == nil {
			t.Errorf("%q was opened", path)
			check(t, db.Close())
		}
	}
}

func TestPragmas(t *testing.T) {
	t.Parallel()
	for _, synchronous := range []sqlite.Synchronous{sqlite.Full, sqlite.Normal} {
		attached := filepath.Join(t.TempDir(), "more.db")
		db := sqlitetest.Open(t, itemSchema, sqlite.Options{Synchronous: synchronous, CacheSize: 1234, Attach: []sqlite.Attachment{{Name: "more", Path: attached}}})
		want := map[string]string{
			"journal_mode": "wal", "synchronous": fmt.Sprint(2 - synchronous), "foreign_keys": "1", "trusted_schema": "0", "temp_store": "2",
			"cache_size": "-1234", "more.journal_mode": "wal", "more.synchronous": fmt.Sprint(2 - synchronous), "busy_timeout": "10000",
		}
		looks := map[string]func(func(*sqlite.Tx) error) error{
			"writer": func(f func(*sqlite.Tx) error) error { return db.Update(bg, f) },
			"reader": func(f func(*sqlite.Tx) error) error { return db.View(bg, f) },
		}
		for name, look := range looks {
			check(t, look(func(tx *sqlite.Tx) error {
				for pragma, value := range want {
					var got string
					if err := tx.QueryRowContext(bg, "PRAGMA "+pragma).Scan(&got); err != nil || got != value {
						t.Errorf("%s: %s is %q, %v, want %q", name, pragma, got, err, value)
					}
				}
				var like bool
				if err := tx.QueryRowContext(bg, "SELECT 'a' LIKE 'A'").Scan(&like); err != nil || like {
					t.Errorf("%s: LIKE ignores case: %v, %v", name, like, err)
				}
				return nil
			}))
		}
		for _, path := range []string{db.Path(), attached, db.Path() + "-wal", db.Path() + "-shm", db.Path() + "-ballast"} {
			info, err := os.Stat(path)
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", path, info.Mode(), err)
			}
		}
	}
}

func TestExistingModeIsKept(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/test.db"
	check(t, os.WriteFile(path, nil, 0o640)) //nolint:gosec // the point
	sqlitetest.OpenFile(t, path, itemSchema)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestOddPaths(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"a b.db", "a?mode=ro.db", "a#b.db", "a%41.db", "100%.db", "ünï😀.db", "it's.db", `quo"te.db`, "a&b=c;d.db", "new\nline.db", "-dash.db", "a+b.db", "file:x.db", " lead",
	} {
		dir := t.TempDir()
		path, attached := filepath.Join(dir, name), filepath.Join(dir, "more "+name)
		db := sqlitetest.OpenFile(t, path, itemSchema, sqlite.Options{Attach: []sqlite.Attachment{{Name: "more", Path: attached}}})
		check(t, write(db, 1)())
		check(t, db.Write(bg, sqlite.Stmt{SQL: "CREATE TABLE more.other (id)"}))
		wantItems(t, db, 1)
		for _, p := range []string{path, attached} {
			if info, err := os.Stat(p); err != nil || info.Size() == 0 && p == path {
				t.Errorf("%q: %v, %v", name, info, err)
			}
		}
		check(t, db.Close())
		entries, err := os.ReadDir(dir)
		check(t, err)
		if len(entries) != 2 {
			t.Errorf("%q: files left: %v", name, entries)
		}
	}
	path := t.TempDir() + "/test.db"
	db := sqlitetest.OpenFile(t, "/"+path, itemSchema) // two slashes: a file, not a host
	check(t, write(db, 1)())
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestRelativePath(t *testing.T) {
	t.Chdir(t.TempDir())
	db := sqlitetest.OpenFile(t, "a?b c.db", itemSchema)
	check(t, write(db, 1)())
	if _, err := os.Stat("a?b c.db"); err != nil {
		t.Error(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage.db")
	check(t, os.WriteFile(garbage, []byte(strings.Repeat("not a database, but long enough to be one ", 200)), 0o600))
	for _, path := range []string{garbage, dir, filepath.Join(dir, "missing", "test.db")} {
		if db, err := sqlite.Open(bg, path, sqlite.Options{}); err == nil {
			t.Errorf("%s was opened", path)
			check(t, db.Close())
		}
	}
	entries, err := os.ReadDir(dir)
	check(t, err)
	if len(entries) != 1 {
		t.Errorf("files left: %v", entries)
	}
}

func TestBallastFile(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/test.db"
	db := sqlitetest.OpenFile(t, path, itemSchema, sqlite.Options{Ballast: 100_001})
	if info, err := os.Stat(path + "-ballast"); err != nil || info.Size() != 100_001 {
		t.Errorf("ballast: %v, %v", info, err)
	}
	check(t, db.Close())
	if _, err := os.Stat(path + "-ballast"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("ballast after Close: %v", err)
	}
	// Without a ballast, a file of that name is somebody else's.
	check(t, os.WriteFile(path+"-ballast", []byte("mine"), 0o600))
	db = sqlitetest.OpenFile(t, path, "", sqlite.Options{Ballast: -1})
	check(t, db.Close())
	if b, err := os.ReadFile(path + "-ballast"); err != nil || string(b) != "mine" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestAttach(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/more.db"
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Attach: []sqlite.Attachment{{Name: "more", Path: path}, {Name: "_1", Path: path + "1"}}})
	check(t, db.Update(bg, func(tx *sqlite.Tx) error {
		return errors.Join(run(tx, "CREATE TABLE more.part (id INTEGER PRIMARY KEY, note TEXT)"), run(tx, "CREATE TABLE _1.x (id)"))
	}))
	check(t, db.Write(bg, insert(1), sqlite.Stmt{SQL: "INSERT INTO more.part VALUES (1, 'x')"}))
	wantErr(t, db.Write(bg, insert(2), sqlite.Stmt{SQL: "INSERT INTO more.part VALUES (2, 'y')", Done: func(int) error { return errOwn }}), errOwn)
	if v := value(t, db, "SELECT group_concat(part.note) FROM item JOIN more.part USING (id)"); v != "x" {
		t.Errorf("notes are %v", v)
	}
	if v := value(t, db, "SELECT count(*) FROM more.part"); v != int64(1) {
		t.Errorf("%v parts", v)
	}
	check(t, db.View(bg, func(tx *sqlite.Tx) error {
		if err := run(tx, "INSERT INTO more.part VALUES (3, 'z')"); err == nil {
			t.Error("a reader may write to an attached file")
		}
		return nil
	}))
	check(t, db.Close())
	other := sqlitetest.OpenFile(t, path, "")
	if v := value(t, other, "SELECT note FROM part"); v != "x" {
		t.Errorf("note is %v", v)
	}
}

// A change of the schema in any of the files is seen.
func TestSchemaVersionOfManyFiles(t *testing.T) {
	t.Parallel()
	var attach []sqlite.Attachment
	dir := t.TempDir()
	for i := range 10 { // SQLite's limit
		attach = append(attach, sqlite.Attachment{Name: fmt.Sprintf("f%d", i), Path: fmt.Sprintf("%s/%d.db", dir, i)})
	}
	db := sqlitetest.Open(t, "", sqlite.Options{Attach: attach})
	seen := map[int64]string{}
	look := func(after string) {
		v, err := db.SchemaVersion(bg)
		check(t, err)
		if before, ok := seen[v]; ok {
			t.Errorf("the version after %s is the one after %s", after, before)
		}
		seen[v] = after
	}
	look("Open")
	for _, name := range append([]string{"main", "main"}, func() (names []string) {
		for _, a := range attach {
			names = append(names, a.Name)
		}
		return names
	}()...) {
		check(t, db.Write(bg, sqlite.Stmt{SQL: fmt.Sprintf("CREATE TABLE %s.t%d (id)", name, len(seen))}))
		look("a change of " + name)
	}
}

func TestConnector(t *testing.T) {
	t.Parallel()
	const schema = itemSchema + `; CREATE TABLE part (item INTEGER NOT NULL REFERENCES item, id BLOB CHECK (is_uuid_v7(id)) DEFAULT (uuid_v7()))`
	db := sqlitetest.Open(t, schema, sqlite.Options{Schemas: map[string]string{"mine": `{"type": "object"}`}})
	check(t, write(db, 1)())
	byName, err := sql.Open(sqlite.DriverName, db.Path())
	check(t, err)
	for name, pool := range map[string]*sql.DB{"Connector": sql.OpenDB(db.Connector()), "driver": byName} {
		exec := func(query string) error {
			_, err := pool.ExecContext(bg, query)
			return err
		}
		check(t, exec("INSERT INTO part (item) VALUES (1)"))
		if err := exec("INSERT INTO part (item) VALUES (404)"); sqlite.Code(err) != 787 {
			t.Errorf("%s: foreign keys: %v", name, err)
		}
		var like bool
		if err := pool.QueryRowContext(bg, "SELECT 'a' LIKE 'A'").Scan(&like); err != nil || like {
			t.Errorf("%s: LIKE ignores case: %v, %v", name, like, err)
		}
		var level int
		if err := pool.QueryRowContext(bg, "PRAGMA synchronous").Scan(&level); err != nil || level != 2 {
			t.Errorf("%s: synchronous is %d, %v", name, level, err)
		}
		err := pool.QueryRowContext(bg, "SELECT jsonschema('mine', '{}')").Scan(&like)
		if (err == nil) != (name == "Connector") {
			t.Errorf("%s: named schema: %v", name, err)
		}
		// Transactions are the application's own here.
		tx, err := pool.BeginTx(bg, nil)
		check(t, err)
		_, err = tx.ExecContext(bg, "INSERT INTO item (id) VALUES (99)")
		check(t, errors.Join(err, tx.Rollback()))
		check(t, exec("BEGIN; SELECT 1; COMMIT"))
		check(t, pool.Close())
	}
	wantItems(t, db, 1)
}

func TestDefaultReaders(t *testing.T) {
	t.Parallel()
	if got, want := sqlitetest.Open(t, "").MaxReaders(), min(max(2, 2*runtime.GOMAXPROCS(0)), 8); got != want {
		t.Errorf("%d readers, want %d", got, want)
	}
}
