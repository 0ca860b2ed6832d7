package storetest

import (
	"bytes"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
	"github.com/bedplate/bedplate/sqlite"
)

// patience bounds what a test waits for. It only ends what hangs.
const patience = 3 * time.Minute

// await waits until done reports true.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-timeout.C:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func newReplica(t *testing.T, cfg backup.Config) *backup.Replica {
	t.Helper()
	r, err := backup.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// restore restores to a new file and returns its path.
func restore(t *testing.T, cfg backup.Config, o backup.RestoreOptions) (path string, res backup.Restored, err error) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "restored.db")
	res, err = newReplica(t, cfg).Restore(t.Context(), path, o)
	return path, res, err
}

// rows returns all tables of a database as one text a row, those of the backup excepted. What a
// program has left in the log is there, too.
func rows(t *testing.T, path string) (rows []string) {
	t.Helper()
	db, err := sql.Open(sqlite.DriverName, "file:"+(&url.URL{Path: path}).EscapedPath()+"?_busy_timeout=60000")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	query := func(query string) (found []string) {
		t.Helper()
		list, err := db.QueryContext(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		defer list.Close()
		columns, err := list.Columns()
		if err != nil {
			t.Fatal(err)
		}
		values := make([]any, len(columns))
		targets := make([]any, len(columns))
		for i := range values {
			targets[i] = &values[i]
		}
		for list.Next() {
			if err := list.Scan(targets...); err != nil {
				t.Fatal(err)
			}
			found = append(found, strings.Trim(fmt.Sprintf("%x", values), "[]"))
		}
		if err := list.Err(); err != nil {
			t.Fatal(err)
		}
		return found
	}
	rows = query("SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE '\\_%' ESCAPE '\\' ORDER BY 1, 2")
	return append(rows, query("SELECT * FROM entry ORDER BY n")...)
}

// compare wants the restored rows to be the first of the source, and all of them if whole is true.
func compare(t *testing.T, what string, restored, source []string, whole bool) {
	t.Helper()
	if len(restored) > len(source) || whole && len(restored) != len(source) {
		t.Fatalf("%s: %d rows, the source has %d", what, len(restored), len(source))
	}
	for i, row := range restored {
		if row != source[i] {
			t.Fatalf("%s: row %d is\n%.200s, in the source it is\n%.200s", what, i, row, source[i])
		}
	}
}

// A logFile keeps what a process logs, for when the test fails.
func logFile(t *testing.T) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		text, err := os.ReadFile(f.Name())
		_ = f.Close()
		if t.Failed() {
			t.Logf("logged (%v):\n%s", err, bytes.TrimSpace(text[max(0, len(text)-16<<10):]))
		}
	})
	return f
}
