package main

import (
	"database/sql/driver"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bedplate/bedplate"
	"github.com/bedplate/bedplate/backup"
	"github.com/bedplate/bedplate/sqlite"
)

func TestNotes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, url := filepath.Join(dir, "live", "notes.db"), "file://"+filepath.Join(dir, "replica")
	for _, tt := range []struct{ text, want string }{{"a", "a\n"}, {"b", "a, b\n"}} {
		var out strings.Builder
		if err := run(t.Context(), &out, path, url, tt.text); err != nil || out.String() != tt.want {
			t.Fatalf("%q, %v, want %q", out.String(), err, tt.want)
		}
		if err := os.RemoveAll(filepath.Dir(path)); err != nil {
			t.Fatal(err)
		}
	}
}

// What Bedplate does with a replica by itself.
func TestBedplateWithReplica(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "live", "app.db")
	for _, want := range []int64{1, 2} {
		replica, err := backup.New(backup.Config{URL: "file://" + filepath.Join(dir, "replica")})
		if err != nil {
			t.Fatal(err)
		}
		b, err := bedplate.Open(t.Context(), bedplate.Config{Path: path, Replica: replica})
		if err != nil {
			t.Fatal(err)
		}
		for _, query := range []string{`CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY)`, `INSERT INTO t DEFAULT VALUES`} {
			if err := b.DB.Write(t.Context(), sqlite.Stmt{SQL: query}); err != nil {
				t.Error(err)
			}
		}
		if err := b.DB.Query(t.Context(), `SELECT count(*) FROM t`, nil, func(row []driver.Value) error {
			if row[0] != want {
				t.Errorf("%v rows, want %d", row[0], want)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Dir(path)); err != nil {
			t.Fatal(err)
		}
	}
}
