package backup_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
	"github.com/bedplate/bedplate/sqlite"
)

// patience bounds what is waited for, and finalSync a last sync, on the slowest machine.
const (
	patience  = 2 * time.Minute
	finalSync = time.Minute
)

// makeDatabase makes a database in WAL mode with one table of n rows, closed.
func makeDatabase(t *testing.T, path string, n int, statements ...string) {
	t.Helper()
	db := openDatabase(t, path)
	for _, s := range append([]string{
		"CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT CHECK (uuid_v7() IS NOT NULL))",
		fmt.Sprintf("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) INSERT INTO t SELECT i, 'row ' || i FROM n", n),
	}, statements...) {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// openDatabase opens a database in WAL mode until the test ends.
func openDatabase(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open(sqlite.DriverName, path+"?_journal_mode=WAL&_busy_timeout=10000")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if err := db.PingContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return db
}

// countRows returns how many rows the table of makeDatabase has.
func countRows(t *testing.T, path string) int {
	t.Helper()
	db := openDatabase(t, path)
	defer db.Close()
	var n int
	if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM t").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// names lists a directory.
func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

func TestRestoreFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	from, path := filepath.Join(dir, "copy.db"), filepath.Join(dir, "live", "app.db")
	makeDatabase(t, from, 3)
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	res, err := backup.RestoreFile(t.Context(), backup.Config{}, from, path, backup.RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(from); res.Bytes != info.Size() || res.Kept != "" {
		t.Errorf("told %+v", res)
	}
	if n := countRows(t, path); n != 3 {
		t.Errorf("%d rows", n)
	}
	if got := names(t, filepath.Dir(path)); got != "app.db" {
		t.Errorf("there is %s", got)
	}

	// What is there is not replaced by mistake, and kept when it is.
	_, err = backup.RestoreFile(t.Context(), backup.Config{}, from, path, backup.RestoreOptions{})
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("over an existing database: %v", err)
	}
	makeDatabase(t, filepath.Join(dir, "other.db"), 5)
	res, err = backup.RestoreFile(t.Context(), backup.Config{}, filepath.Join(dir, "other.db"), path, backup.RestoreOptions{Replace: true})
	if err != nil {
		t.Fatal(err)
	}
	if n := countRows(t, path); n != 5 {
		t.Errorf("%d rows after replacing", n)
	}
	if n := countRows(t, res.Kept); n != 3 {
		t.Errorf("%d rows in what was kept", n)
	}
}

// A database that was left by a crash has a log, which belongs to it and to no other.
func TestRestoreFileAbsorbsLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	from, path, crashed := filepath.Join(dir, "copy.db"), filepath.Join(dir, "app.db"), filepath.Join(dir, "crashed.db")
	makeDatabase(t, from, 3)
	db := openDatabase(t, crashed)
	for _, s := range []string{"PRAGMA wal_autocheckpoint = 0", "CREATE TABLE t (id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)"} {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(crashed + suffix)
		if err == nil {
			err = os.WriteFile(path+suffix, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	res, err := backup.RestoreFile(t.Context(), backup.Config{}, from, path, backup.RestoreOptions{Replace: true})
	if err != nil {
		t.Fatal(err)
	}
	if n := countRows(t, path); n != 3 {
		t.Errorf("%d rows", n)
	}
	if n := countRows(t, res.Kept); n != 2 {
		t.Errorf("%d rows in what was kept", n)
	}

	// A log without its database is not taken for that of the new one.
	for _, suffix := range []string{"", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	wal, err := os.ReadFile(crashed + "-wal")
	if err == nil {
		err = os.WriteFile(path+"-wal", wal, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := backup.RestoreFile(t.Context(), backup.Config{}, from, path, backup.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := countRows(t, path); n != 3 {
		t.Errorf("%d rows beside an orphaned log", n)
	}
	if kept, _ := filepath.Glob(path + ".before-*-wal"); len(kept) != 1 {
		t.Errorf("the orphaned log is not kept: %s", names(t, dir))
	}
}

func TestRestoreFileRefusals(t *testing.T) {
	t.Parallel()
	damaged := func(t *testing.T, path string) {
		makeDatabase(t, path, 5000)
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err == nil {
			_, err = f.WriteAt([]byte(strings.Repeat("x", 4096)), 4096*5)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		from  func(t *testing.T, path string)
		cfg   backup.Config
		o     backup.RestoreOptions
		inUse bool
		want  error
		text  string
	}{
		"missing":        {from: func(*testing.T, string) {}, want: fs.ErrNotExist},
		"damaged":        {from: damaged, want: backup.ErrCorrupt},
		"no database":    {from: func(t *testing.T, path string) { makeFile(t, path, strings.Repeat("no database ", 1000)) }, want: backup.ErrCorrupt},
		"another app":    {from: func(t *testing.T, path string) { makeDatabase(t, path, 1, "PRAGMA application_id = 7") }, text: "application_id 7"},
		"not this app":   {cfg: backup.Config{ApplicationID: 9}, text: "application_id 0, 9 is wanted"},
		"too large":      {cfg: backup.Config{MaxSize: 100}, text: "MaxSize"},
		"in use":         {inUse: true, want: backup.ErrInUse},
		"in use, forced": {inUse: true, o: backup.RestoreOptions{Force: true}, want: backup.ErrInUse},
		"checked": {o: backup.RestoreOptions{Check: func(_ context.Context, path string) error {
			if n := countRows(t, path); n != 1 {
				t.Errorf("the check sees %d rows", n)
			}
			return errors.New("too new")
		}}, text: "too new"},
		"a transaction": {o: backup.RestoreOptions{TXID: 5}, text: "one state only"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			from, path := filepath.Join(dir, "from", "copy.db"), filepath.Join(dir, "app.db")
			if err := os.Mkdir(filepath.Dir(from), 0o700); err != nil {
				t.Fatal(err)
			}
			if tt.from == nil {
				tt.from = func(t *testing.T, path string) { makeDatabase(t, path, 1) }
			}
			tt.from(t, from)
			makeDatabase(t, path, 2)
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if tt.inUse {
				db := openDatabase(t, path)
				countOpen := 0
				if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM t").Scan(&countOpen); err != nil {
					t.Fatal(err)
				}
			}
			tt.o.Replace = true
			_, err = backup.RestoreFile(t.Context(), tt.cfg, from, path, tt.o)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(fmt.Sprint(err), tt.text) {
				t.Errorf("error %v", err)
			}
			after, err := os.ReadFile(path)
			if err != nil || string(after) != string(before) {
				t.Errorf("the database is another one now (%v)", err)
			}
			if !tt.inUse {
				if got := names(t, dir); got != "app.db from" {
					t.Errorf("left behind: %s", got)
				}
			}
		})
	}
}

// A file that is no database any more can be replaced, if that is said.
func TestRestoreFileOverGarbage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	from, path := filepath.Join(dir, "copy.db"), filepath.Join(dir, "app.db")
	makeDatabase(t, from, 3)
	makeFile(t, path, strings.Repeat("garbage ", 1000))
	if _, err := backup.RestoreFile(t.Context(), backup.Config{}, from, path, backup.RestoreOptions{Replace: true}); err == nil {
		t.Error("replaced without Force")
	}
	res, err := backup.RestoreFile(t.Context(), backup.Config{}, from, path, backup.RestoreOptions{Replace: true, Force: true})
	if err != nil {
		t.Fatal(err)
	}
	if n := countRows(t, path); n != 3 {
		t.Errorf("%d rows", n)
	}
	if kept, err := os.ReadFile(res.Kept); err != nil || !strings.HasPrefix(string(kept), "garbage ") {
		t.Errorf("what was there is not kept: %v", err)
	}
}

func makeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
