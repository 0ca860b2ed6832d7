package bedplate_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/bedplate/bedplate"
	"github.com/bedplate/bedplate/sqlite"
)

// A recorder is a Replica that writes down what happens to it.
type recorder struct {
	name    string
	mu      *sync.Mutex
	log     *[]string
	restore func(ctx context.Context, path string, check func(ctx context.Context, path string) error) (bool, error)
	start   error
	meet    chan struct{} // nil, or where Close meets that of another one
	db      func() *sqlite.DB
}

func (r *recorder) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*r.log = append(*r.log, r.name+" "+fmt.Sprintf(format, args...))
}

func (r *recorder) RestoreIfMissing(ctx context.Context, path string, check func(ctx context.Context, path string) error) (bool, error) {
	_, err := os.Stat(path)
	r.note("restore %s, there: %t", filepath.Base(path), err == nil)
	if r.restore == nil {
		return false, nil
	}
	return r.restore(ctx, path, check)
}

func (r *recorder) Start(ctx context.Context, path, schema string, exec func(ctx context.Context, query string, args ...any) error) error {
	r.note("start %s as %s", filepath.Base(path), schema)
	if r.start != nil {
		return r.start
	}
	if err := exec(ctx, fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s._mark (id INTEGER PRIMARY KEY, name TEXT, b BLOB)", schema)); err != nil {
		return err
	}
	return exec(ctx, fmt.Sprintf("INSERT OR REPLACE INTO %s._mark VALUES (?, ?, ?)", schema), 1, r.name, []byte{1})
}

func (r *recorder) Close() error {
	err := errors.New("open")
	if r.db() != nil {
		err = r.db().Err()
	}
	r.note("close, database: %v", err)
	if r.meet == nil {
		return nil
	}
	select {
	case r.meet <- struct{}{}:
	case <-r.meet:
	case <-time.After(time.Minute):
		return errors.New("the other one is not closed at the same time")
	}
	return nil
}

func TestReplica(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var mu sync.Mutex
	var log []string
	var db *sqlite.DB
	get := func() *sqlite.DB { return db }
	meet := make(chan struct{})
	cfg := bedplate.Config{
		Path: filepath.Join(dir, "main.db"), Replica: &recorder{name: "A", mu: &mu, log: &log, meet: meet, db: get},
		Migrations: fstest.MapFS{"0001_t.sql": {Data: []byte("CREATE TABLE t (id INTEGER PRIMARY KEY);")}},
		Databases: []bedplate.Database{
			{Name: "extra", Path: filepath.Join(dir, "extra.db"), Replica: &recorder{name: "B", mu: &mu, log: &log, meet: meet, db: get}},
			{Name: "alone", Path: filepath.Join(dir, "alone.db")},
		},
	}
	b, err := bedplate.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	db = b.DB
	for schema, want := range map[string]string{"main": "A", "extra": "B"} {
		var got string
		err := b.DB.View(t.Context(), func(tx *sqlite.Tx) error {
			return tx.QueryRowContext(t.Context(), "SELECT name FROM "+schema+"._mark WHERE b = x'01'").Scan(&got)
		})
		if err != nil || got != want {
			t.Errorf("in %s: %q, %v", schema, got, err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"A restore main.db, there: false", "B restore extra.db, there: false",
		"A start main.db as main", "B start extra.db as extra",
		"A close, database: " + sqlite.ErrClosed.Error(), "B close, database: " + sqlite.ErrClosed.Error(),
	}
	slices.Sort(log[min(4, len(log)):]) // they are closed at the same time
	if !slices.Equal(log, want) {
		t.Errorf("got  %q\nwant %q", log, want)
	}
}

// What goes wrong with a replica keeps the backend from opening, with everything closed.
func TestReplicaRefuses(t *testing.T) {
	t.Parallel()
	one := fstest.MapFS{"0001_t.sql": {Data: []byte("CREATE TABLE t (id INTEGER PRIMARY KEY);")}}
	two := fstest.MapFS{"0001_t.sql": one["0001_t.sql"], "0002_u.sql": {Data: []byte("CREATE TABLE u (id INTEGER PRIMARY KEY);")}}
	newer := filepath.Join(t.TempDir(), "newer.db")
	b, err := bedplate.Open(t.Context(), bedplate.Config{Path: newer, Migrations: two})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	for name, tt := range map[string]struct {
		replica recorder
		want    error
		log     string
	}{
		"start": {recorder{start: errors.New("leased")}, nil, "restore|start|close"},
		"restore": {recorder{restore: func(context.Context, string, func(context.Context, string) error) (bool, error) {
			return false, errors.New("no store")
		}}, nil, "restore"},
		"newer schema": {recorder{restore: func(ctx context.Context, _ string, check func(context.Context, string) error) (bool, error) {
			return false, check(ctx, newer)
		}}, sqlite.ErrNewerSchema, "restore"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "main.db")
			var log []string
			tt.replica.mu, tt.replica.log, tt.replica.db = &mu, &log, func() *sqlite.DB { return nil }
			_, err := bedplate.Open(t.Context(), bedplate.Config{Path: path, Migrations: one, Replica: &tt.replica})
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), `database "main"`) {
				t.Errorf("error %v", err)
			}
			var did []string
			for _, line := range log {
				did = append(did, strings.TrimRight(strings.Fields(line)[0], ","))
			}
			if got := strings.Join(did, "|"); got != tt.log {
				t.Errorf("happened: %s, want %s", got, tt.log)
			}
			if _, err := os.Stat(path); tt.log == "restore" && err == nil {
				t.Error("a database was made")
			}
		})
	}
}
