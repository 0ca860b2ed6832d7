package backup_test

import (
	"context"
	"database/sql"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	

	"github.com/bedplate/bedplate/backup"
	_ "github.com/bedplate/bedplate/backup/file"
	_ "github.com/bedplate/bedplate/sqlite"
)

// openDB makes a database in WAL mode with a table t.
func openDB(t *testing.T) (db *sql.DB, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "app.db")
	db, err := sql.Open("bedplate", path+"?_journal_mode=WAL&_busy_timeout=10000&_synchronous=NORMAL")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.Exec("PRAGMA wal_autocheckpoint = 16384; CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)"); err != nil {
		t.Fatal(err)
	}
	return db, path
}

func TestReplicate(t *testing.T) {
	db, path := openDB(t)
	r, err := backup.New(backup.Config{URL: "file://" + filepath.Join(t.TempDir(), "replica"), Driver: "bedplate",
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	began := time.Now()
	if err := r.Start(ctx, path, "", nil); err != nil {
		t.Fatal(err)
	}
	t.Log("started", time.Since(began))
	if _, err := db.Exec("INSERT INTO t (v) VALUES ('x')"); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		began = time.Now()
		if err := r.WaitReplicated(ctx); err != nil {
			t.Fatal(err)
		}
		t.Log("wait", time.Since(began))
	}
	for r.Status().Lag != 0 {
		time.Sleep(100 * time.Millisecond)
		if ctx.Err() != nil {
			t.Fatalf("%+v", r.Status())
		}
	}
	t.Logf("%+v", r.Status())
	began = time.Now()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	t.Log("close", time.Since(began))
}
