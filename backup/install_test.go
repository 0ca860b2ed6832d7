//go:build unix

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
	"syscall"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
	"github.com/bedplate/bedplate/sqlite"
)

// hotJournal leaves at path a journal that undoes a transaction of another database.
func hotJournal(t *testing.T, path string) {
	t.Helper()
	other := filepath.Join(t.TempDir(), "other.db")
	db := openDatabase(t, other)
	db.SetMaxOpenConns(1)
	for _, s := range []string{
		"PRAGMA journal_mode = DELETE", "PRAGMA cache_size = 5", "CREATE TABLE o (id INTEGER PRIMARY KEY, v BLOB)",
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) INSERT INTO o SELECT i, randomblob(2000) FROM n",
		"BEGIN", "UPDATE o SET v = randomblob(2000)",
	} {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	journal, err := os.ReadFile(other + "-journal")
	if err != nil {
		t.Fatal(err)
	}
	if len(journal) < 10000 || journal[0] == 0 {
		t.Fatal("the journal is not hot")
	}
	makeFile(t, path+"-journal", string(journal))
}

// runProgram makes a database at path that has all its rows in the log, and keeps it open.
func runProgram(t *testing.T, path string) (rows func() int) {
	t.Helper()
	db := openDatabase(t, path)
	for _, s := range []string{"PRAGMA wal_autocheckpoint = 0", "CREATE TABLE t (id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)"} {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	return func() int {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
		return countRows(t, path)
	}
}

func TestRestoreOneAtATime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	from, path := filepath.Join(dir, "copy.db"), filepath.Join(dir, "live", "app.db")
	makeDatabase(t, from, 3)
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := backup.RestoreFile(t.Context(), backup.Config{}, from, path, backup.RestoreOptions{Check: func(ctx context.Context, _ string) error {
		ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
		_, err := backup.RestoreFile(ctx, backup.Config{}, from, path, backup.RestoreOptions{})
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, backup.ErrInUse) {
			t.Errorf("a second restore to the same path: %v", err)
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if got := names(t, filepath.Dir(path)); got != "app.db" {
		t.Errorf("there is %s", got)
	}

	// Who has to wait gets its turn.
	results := make(chan error)
	path += "2"
	for range 8 {
		go func() {
			_, err := backup.RestoreFile(t.Context(), backup.Config{}, from, path, backup.RestoreOptions{})
			results <- err
		}()
	}
	done := 0
	for range 8 {
		if err := <-results; err == nil {
			done++
		} else if !errors.Is(err, fs.ErrExist) {
			t.Error(err)
		}
	}
	if done != 1 {
		t.Errorf("%d of 8 restored", done)
	}
	if got := names(t, filepath.Dir(path)); got != "app.db app.db2" {
		t.Errorf("there is %s", got)
	}
}

// A program that has made the database during a restore keeps it, with its log.
func TestRestoreSparesWhoWasFaster(t *testing.T) {
	t.Parallel()
	l := newLive(t)
	r := l.start()
	if _, err := r.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "app.db")
	l.cfg.LeaseTTL = -1
	var rows func() int
	_, err := l.new().Restore(t.Context(), path, backup.RestoreOptions{Check: func(context.Context, string) error {
		rows = runProgram(t, path)
		return nil
	}})
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("Restore over a new database: %v", err)
	}
	if got := names(t, filepath.Dir(path)); got != "app.db app.db-shm app.db-wal" {
		t.Errorf("there is %s", got)
	}
	if n := rows(); n != 2 {
		t.Errorf("the program that was faster has %d rows", n)
	}

	path = filepath.Join(t.TempDir(), "app.db")
	restored, err := l.new().RestoreIfMissing(t.Context(), path, func(context.Context, string) error {
		rows = runProgram(t, path)
		return nil
	})
	if restored || err != nil {
		t.Errorf("RestoreIfMissing over a new database: %v, %v", restored, err)
	}
	if n := rows(); n != 2 {
		t.Errorf("the program that was faster has %d rows", n)
	}

	// Not everything that exists is a database.
	path = filepath.Join(t.TempDir(), "app.db")
	_, err = l.new().RestoreIfMissing(t.Context(), path, func(context.Context, string) error { return fs.ErrExist })
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("an error of the check: %v", err)
	}
}

func TestRestoreSetsJournalAside(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		content string // of what is at path
		o       backup.RestoreOptions
	}{
		"missing":  {},
		"replaced": {strings.Repeat("garbage ", 1000), backup.RestoreOptions{Replace: true, Force: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			from, path := filepath.Join(t.TempDir(), "copy.db"), filepath.Join(dir, "app.db")
			makeDatabase(t, from, 5000)
			cfg := backup.Config{Open: func(file string) (*sql.DB, error) {
				if file == path { // or SQLite would see to the journal
					return nil, errors.New("this is no database")
				}
				return sql.Open(sqlite.DriverName, file)
			}}
			if tt.content != "" {
				makeFile(t, path, tt.content)
			}
			hotJournal(t, path)
			if _, err := backup.RestoreFile(t.Context(), cfg, from, path, tt.o); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(path + "-journal"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the journal is still there: %v", err)
			}
			if n := countRows(t, path); n != 5000 {
				t.Errorf("%d rows", n)
			}
			if !strings.Contains(names(t, dir), "Z-journal") {
				t.Errorf("the journal is not kept: %s", names(t, dir))
			}
		})
	}
}

func TestRestoreRemovesLeftovers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	from, path := filepath.Join(t.TempDir(), "copy.db"), filepath.Join(dir, "app.db")
	makeDatabase(t, from, 3)
	random := strings.Repeat("A2", 13)
	for _, name := range []string{random, random + ".partial", random + "-wal", random + "-shm", random + "-journal"} {
		makeFile(t, path+".restoring-"+name, "x")
	}
	kept := []string{"app.db.restoring-" + random[1:], "app.db.restoring-" + random + ".txt", "app.db.restoring-notes", "other.db.restoring-" + random}
	for _, name := range kept {
		makeFile(t, filepath.Join(dir, name), "x")
	}
	if err := os.Mkdir(path+".restoring-"+strings.Repeat("B2", 13), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := backup.RestoreFile(t.Context(), backup.Config{}, from, path, backup.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("app.db %s %s app.db.restoring-%s %s %s", kept[0], kept[1], strings.Repeat("B2", 13), kept[2], kept[3])
	if got := names(t, dir); got != want {
		t.Errorf("there is %s\nwant     %s", got, want)
	}
}

func TestRestoreFileOnlyWhole(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		spoil func(from string) error
		text  string
	}{
		"a log":     {func(from string) error { return os.WriteFile(from+"-wal", []byte("x"), 0o600) }, "wal"},
		"a journal": {func(from string) error { return os.WriteFile(from+"-journal", []byte("x"), 0o600) }, "journal"},
		"a pipe":    {func(from string) error { return errors.Join(os.Remove(from), syscall.Mkfifo(from, 0o600)) }, "not a regular file"},
		"a link":    {func(from string) error { return errors.Join(os.Rename(from, from+"x"), os.Symlink(from+"x", from)) }, "not a regular file"},
		"a checksum": {func(from string) error {
			return os.WriteFile(from+".sha256", []byte(strings.Repeat("0", 64)+"  "+filepath.Base(from)+"\n"), 0o600)
		}, "another checksum"},
		"a pipe of sums": {func(from string) error { return syscall.Mkfifo(from+".sha256", 0o600) }, "not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from, path := filepath.Join(t.TempDir(), "copy.db"), filepath.Join(t.TempDir(), "app.db")
			makeDatabase(t, from, 3)
			if err := tt.spoil(from); err != nil {
				t.Fatal(err)
			}
			result := make(chan error, 1)
			go func() {
				_, err := backup.RestoreFile(t.Context(), backup.Config{}, from, path, backup.RestoreOptions{})
				result <- err
			}()
			select {
			case err := <-result:
				if err == nil || !strings.Contains(err.Error(), tt.text) {
					t.Errorf("error %v", err)
				}
			case <-time.After(patience):
				t.Fatal("it hangs")
			}
			if got := names(t, filepath.Dir(path)); got != "" {
				t.Errorf("left behind: %s", got)
			}
		})
	}

	// An empty log holds nothing.
	from, path := filepath.Join(t.TempDir(), "copy.db"), filepath.Join(t.TempDir(), "app.db")
	makeDatabase(t, from, 3)
	makeFile(t, from+"-wal", "")
	if _, err := backup.RestoreFile(t.Context(), backup.Config{}, from, path, backup.RestoreOptions{}); err != nil {
		t.Error(err)
	}
}

// SQLite has the log of a database beside the file to which a link leads.
func TestSymbolicLink(t *testing.T) {
	t.Parallel()
	l := newLive(t)
	real := l.path
	l.path = filepath.Join(t.TempDir(), "link.db")
	if err := os.Symlink(real, l.path); err != nil {
		t.Fatal(err)
	}
	r := l.start()
	l.exec("INSERT INTO t (v) VALUES ('x')")
	if err := r.WaitReplicated(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := l.rows(); n != 1 {
		t.Errorf("%d rows in the replica", n)
	}
	if err := errors.Join(l.db.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}

	from := filepath.Join(t.TempDir(), "copy.db")
	makeDatabase(t, from, 3)
	res, err := backup.RestoreFile(t.Context(), backup.Config{}, from, l.path, backup.RestoreOptions{Replace: true})
	if err != nil {
		t.Fatal(err)
	}
	if n := countRows(t, real); n != 3 || filepath.Dir(res.Kept) != filepath.Dir(real) {
		t.Errorf("%d rows where the link leads to, the old one is kept at %s", n, res.Kept)
	}
	if to, err := os.Readlink(l.path); err != nil || to != real {
		t.Errorf("the link leads to %s: %v", to, err)
	}

	if err := os.Remove(real); err != nil {
		t.Fatal(err)
	}
	if restored, err := l.new().RestoreIfMissing(t.Context(), l.path, nil); restored || err == nil {
		t.Errorf("where a link leads nowhere: %v, %v", restored, err)
	}
}
