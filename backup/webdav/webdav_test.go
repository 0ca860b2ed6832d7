package webdav_test

import (
	"context"
	"database/sql"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/webdav"

	"github.com/bedplate/bedplate/backup"
	_ "github.com/bedplate/bedplate/backup/webdav"
	"github.com/bedplate/bedplate/sqlite"
)

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	files := &webdav.Handler{FileSystem: webdav.Dir(t.TempDir()), LockSystem: webdav.NewMemLS()}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, ok := r.BasicAuth(); !ok || user != "me" || password != "pass word" {
			w.Header().Set("WWW-Authenticate", `Basic realm="files"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		files.ServeHTTP(w, r)
	}))
	defer server.Close()
	roundTrip(t, "webdav://me@"+strings.TrimPrefix(server.URL, "http://")+"/some/where", map[string]string{"WEBDAV_PASSWORD": "pass word"})
}

// roundTrip replicates a database to url, restores it, and replicates on.
func roundTrip(t *testing.T, url string, credentials map[string]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	path := filepath.Join(t.TempDir(), "app.db")
	db, err := sql.Open(sqlite.DriverName, path+"?_journal_mode=WAL&_busy_timeout=10000&_synchronous=NORMAL")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, "PRAGMA wal_autocheckpoint = 16384; CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)"); err != nil {
		t.Fatal(err)
	}
	cfg := backup.Config{
		URL: url, FinalSync: time.Minute, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Credentials: func(context.Context) (map[string]string, error) { return credentials, nil },
	}
	rows := 0
	for range 2 {
		r, err := backup.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Start(ctx, path, "", nil); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if _, err := db.ExecContext(ctx, "INSERT INTO t (v) VALUES (hex(randomblob(3000)))"); err != nil {
				t.Fatal(err)
			}
			rows++
			if err := r.WaitReplicated(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if points, err := r.Points(ctx); err != nil || len(points) == 0 {
			t.Errorf("%d points, %v", len(points), err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if n := restoredRows(ctx, t, r); n != rows {
			t.Errorf("%d rows, want %d", n, rows)
		}
	}
}

func restoredRows(ctx context.Context, t *testing.T, r *backup.Replica) (n int) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "copy.db")
	if _, err := r.Restore(ctx, path, backup.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open(sqlite.DriverName, path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM t").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
