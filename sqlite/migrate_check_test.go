package sqlite_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/bedplate/bedplate/sqlite"
)

// scripted makes a database file by a script and returns its path.
func scripted(t *testing.T, name, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	db, err := sqlite.Open(bg, path, sqlite.Options{})
	check(t, err)
	own := sql.OpenDB(db.Connector())
	_, err = own.ExecContext(bg, script)
	check(t, errors.Join(err, own.Close(), db.Close()))
	return path
}

func TestCheckMigrations(t *testing.T) {
	t.Parallel()
	two := migrations("1_a.sql", "CREATE TABLE a (id)", "2_b.sql", "CREATE TABLE b (id)")
	for name, tt := range map[string]struct {
		script string // besides the migrations
		run    fstest.MapFS
		fsys   fstest.MapFS
		is     error
		says   string
	}{
		"same":      {run: two, fsys: two},
		"older":     {run: migrations("1_a.sql", "CREATE TABLE a (id)"), fsys: two},
		"new":       {run: nil, fsys: two},
		"unmanaged": {script: "CREATE TABLE c (id)", fsys: two},
		"trigger":   {script: "CREATE TABLE c (id); CREATE TRIGGER _migration AFTER INSERT ON c BEGIN SELECT 1; END", fsys: two},
		"newer":     {run: two, fsys: migrations("1_a.sql", "CREATE TABLE a (id)"), is: sqlite.ErrNewerSchema, says: "2_b.sql"},
		"changed":   {run: two, fsys: migrations("1_a.sql", "CREATE TABLE a (id)", "2_b.sql", "CREATE TABLE b (id, x)"), says: "2_b.sql was changed"},
		"bad file":  {run: two, fsys: migrations("a.sql", ""), says: "a.sql"},
		"view": {fsys: two, says: "_migration is not",
			script: "CREATE VIEW _Migration (version, name, checksum) AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT i, 'a', 'b' FROM n"},
		"virtual": {script: "CREATE VIRTUAL TABLE _migration USING rtree(version, name, checksum)", fsys: two, says: "_migration is not"},
		"columns": {script: "CREATE TABLE _migration (version)", fsys: two, says: "no such column"},
		"types":   {script: "CREATE TABLE _migration (version, name, checksum); INSERT INTO _migration VALUES ('1', 2, x'03')", fsys: two, says: "_migration is not"},
		"nulls":   {script: "CREATE TABLE _migration (version, name, checksum); INSERT INTO _migration VALUES (1, 'a', NULL)", fsys: two, says: "_migration is not"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := scripted(t, "100% a#b?c.db", tt.script)
			if tt.run != nil {
				db, err := sqlite.Open(bg, path, sqlite.Options{})
				check(t, err)
				check(t, errors.Join(db.Migrate(bg, tt.run), db.Close()))
			}
			before, err := os.ReadFile(path)
			check(t, err)
			// In WAL mode without shared memory.
			check(t, os.Mkdir(path+"-shm", 0o700))
			err = sqlite.CheckMigrations(bg, path, tt.fsys)
			switch {
			case tt.is == nil && tt.says == "":
				check(t, err)
			case err == nil || !strings.Contains(err.Error(), tt.says):
				t.Errorf("error is %v, want one with %q", err, tt.says)
			case tt.is != nil:
				wantErr(t, err, tt.is)
			}
			after, err := os.ReadFile(path)
			check(t, err)
			if !bytes.Equal(before, after) {
				t.Error("the file was changed")
			}
			check(t, os.Remove(path+"-shm"))
			wantFiles(t, filepath.Dir(path), filepath.Base(path))
			if name == "view" || name == "virtual" {
				return
			}
			// Migrate comes to the same conclusion.
			db, err := sqlite.Open(bg, path, sqlite.Options{})
			check(t, err)
			defer func() { check(t, db.Close()) }()
			if err := db.Migrate(bg, tt.fsys); (err == nil) != (tt.says == "") {
				t.Errorf("error of Migrate is %v", err)
			}
		})
	}
}

// wantFiles checks what a directory holds.
func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	check(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the directory has %q, want %q", got, want)
	}
}

func TestCheckMigrationsOfUnreadable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "a.db")
	wantErr(t, sqlite.CheckMigrations(bg, path, migrations()), fs.ErrNotExist)
	wantFiles(t, dir)
	check(t, os.WriteFile(path, []byte(strings.Repeat("no database ", 1000)), 0o600))
	if err := sqlite.CheckMigrations(bg, path, migrations()); sqlite.Code(err) == 0 {
		t.Errorf("no database: %v", err)
	}
	check(t, os.WriteFile(path, nil, 0o600))
	check(t, sqlite.CheckMigrations(bg, path, migrations("1_a.sql", "")))
	for _, side := range []string{"-wal", "-journal"} {
		check(t, os.WriteFile(path+side, nil, 0o600))
		check(t, sqlite.CheckMigrations(bg, path, migrations()))
		check(t, os.WriteFile(path+side, []byte("x"), 0o600))
		if err := sqlite.CheckMigrations(bg, path, migrations()); err == nil || !strings.Contains(err.Error(), side) {
			t.Errorf("with a %s file: %v", side, err)
		}
		check(t, os.Remove(path+side))
	}
	if err := sqlite.CheckMigrations(bg, dir, migrations()); err == nil {
		t.Error("a directory is fine")
	}
}

func TestCheckMigrationsWithEndedContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(bg)
	cancel()
	wantErr(t, sqlite.CheckMigrations(ctx, scripted(t, "a.db", itemSchema), migrations()), context.Canceled)
}
