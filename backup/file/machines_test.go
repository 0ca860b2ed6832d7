package file_test

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
	_ "github.com/bedplate/bedplate/backup/file"
	"github.com/bedplate/bedplate/sqlite"
)

// A machine is one that has a database, or gets it from the replica.
type machine struct {
	t    *testing.T
	path string
	url  string
}

func (m *machine) replica(ctx context.Context) *backup.Replica {
	m.t.Helper()
	r, err := backup.New(backup.Config{
		URL: m.url, FinalSync: time.Minute, Logger: slog.New(slog.NewTextHandler(m.t.Output(), nil)),
	})
	if err != nil {
		m.t.Fatal(err)
	}
	if _, err := r.RestoreIfMissing(ctx, m.path, nil); err != nil {
		m.t.Fatal(err)
	}
	return r
}

// write runs the machine for a row, and returns how many there are.
func (m *machine) write(ctx context.Context) (rows int, err error) {
	m.t.Helper()
	r := m.replica(ctx)
	db, err := sql.Open(sqlite.DriverName, m.path+"?_journal_mode=WAL&_busy_timeout=10000")
	if err != nil {
		return 0, err
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY)"); err != nil {
		return 0, err
	}
	err = r.Start(ctx, m.path, "", nil)
	if err == nil { // on a slow machine, Start has not waited until it was refused
		err = r.WaitReplicated(ctx)
	}
	if err != nil {
		return 0, errors.Join(err, r.Close())
	}
	if _, err := db.ExecContext(ctx, "INSERT INTO t DEFAULT VALUES"); err != nil {
		return 0, err
	}
	err = db.QueryRowContext(ctx, "SELECT count(*) FROM t").Scan(&rows)
	return rows, errors.Join(err, db.Close(), r.Close())
}

// A machine whose database is not the newest any more does not replicate over that of another one.
func TestMachinesTakeTurns(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	url := "file://" + t.TempDir()
	one := &machine{t, filepath.Join(t.TempDir(), "app.db"), url}
	two := &machine{t, filepath.Join(t.TempDir(), "app.db"), url}
	for _, turn := range []struct {
		machine *machine
		rows    int
	}{{one, 1}, {one, 2}, {two, 3}, {two, 4}} {
		if rows, err := turn.machine.write(ctx); err != nil || rows != turn.rows {
			t.Fatalf("%d rows, want %d, %v", rows, turn.rows, err)
		}
	}
	if _, err := one.write(ctx); !errors.Is(err, backup.ErrFenced) {
		t.Fatal(err)
	}
	if rows, err := two.write(ctx); err != nil || rows != 5 {
		t.Fatal(rows, err)
	}
	if _, err := one.replica(ctx).Restore(ctx, one.path, backup.RestoreOptions{Replace: true}); err != nil {
		t.Fatal(err)
	}
	if rows, err := one.write(ctx); err != nil || rows != 6 {
		t.Fatal(rows, err)
	}
	if _, err := two.write(ctx); !errors.Is(err, backup.ErrFenced) {
		t.Fatal(err)
	}
}
