package crash_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/sqlite"
)

var rounds = flag.Int("rounds", 3, "how often to kill the server")

const (
	writers    = 32
	killAfter  = 50 * time.Millisecond
	killBefore = 800 * time.Millisecond

	// readyLimit is how long a restart after a kill may take. On a slow machine it may take
	// slowdown times as long as the first start, which creates the database and recovers nothing.
	readyLimit = 2 * time.Second
	slowdown   = 5
)

const config = `migrations: migrations
record_apis:
  - name: entry
    table_name: entry
    acl_world: [CREATE, READ]
`

const migration = `CREATE TABLE entry (
  id     BLOB PRIMARY KEY NOT NULL CHECK (is_uuid_v7(id)) DEFAULT (uuid_v7()),
  writer INTEGER NOT NULL,
  seq    INTEGER NOT NULL,
  body   TEXT NOT NULL
) STRICT;
`

func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and starts the server several times, which takes seconds")
	}
	dir := t.TempDir()
	binary := build(t, dir)
	conf := write(t, filepath.Join(dir, "config.yaml"), config)
	write(t, filepath.Join(dir, "migrations", "0001_entry.sql"), migration)
	data := filepath.Join(dir, "data")

	srv := start(t, binary, conf, data)
	first := srv.readyAfter
	var book ledger
	var found report
	var restarts []time.Duration
	for round := range *rounds {
		interrupted := writeUntilKilled(t, srv, &book)
		srv = start(t, binary, conf, data)
		restarts = append(restarts, srv.readyAfter)

		rows := readBack(t, filepath.Join(data, "main.db"))
		var err error
		if found, err = book.compare(rows); err != nil {
			t.Fatalf("round %d: %v", round+1, err)
		}
		if err := book.readLast(t.Context(), srv); err != nil {
			t.Fatalf("round %d: %v", round+1, err)
		}
		t.Logf("round %2d: %6d acknowledged so far, %d more kept, %d of %d writers cut off, ready after %v",
			round+1, found.acknowledged, found.unacknowledged, interrupted, writers, srv.readyAfter.Round(time.Millisecond))
	}
	srv.kill()
	slices.Sort(restarts)
	t.Logf("%d kills: %d sent, %d acknowledged, 0 lost, %d kept without an acknowledgement, slowest restart %v",
		*rounds, found.sent, found.acknowledged, found.unacknowledged, restarts[len(restarts)-1].Round(time.Millisecond))
	if median := restarts[len(restarts)/2]; median > readyLimit && median > slowdown*first {
		t.Errorf("half of the restarts took %v or longer, the first start %v", median, first)
	}
}

// writeUntilKilled lets all writers create records, kills the server at a random moment after
// the first acknowledgement, and returns how many writers had a request under way.
func writeUntilKilled(t *testing.T, srv *server, book *ledger) (interrupted int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	var killed atomic.Bool
	var cut atomic.Int64
	first := make(chan struct{}) // closed by the first acknowledgement
	var once sync.Once
	failures := make(chan error, writers)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for ctx.Err() == nil {
				entry := book.next(w)
				id, err := create(ctx, srv, entry)
				if err != nil {
					cut.Add(1)
					if !killed.Load() {
						failures <- fmt.Errorf("writer %d: %w", w, err)
					}
					return
				}
				book.acknowledge(entry, id)
				once.Do(func() { close(first) })
			}
		})
	}

	var failure error
	select {
	case <-first:
		moment := time.NewTimer(killAfter + rand.N(killBefore-killAfter))
		defer moment.Stop()
		select {
		case <-moment.C:
		case failure = <-failures:
		}
	case failure = <-failures:
	case <-ctx.Done():
		failure = errors.New("no write was acknowledged")
	}
	killed.Store(true)
	srv.kill()
	wg.Wait()
	if failure == nil && len(failures) > 0 {
		failure = <-failures
	}
	if failure != nil {
		t.Fatalf("before the kill: %v\n%s", failure, srv.output())
	}
	return int(cut.Load())
}

// create posts one record and returns the id that the server acknowledged.
func create(ctx context.Context, srv *server, e entry) (id string, err error) {
	body, err := json.Marshal(map[string]any{"writer": e.writer, "seq": e.seq, "body": e.body()})
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, srv.url("/api/records/v1/entry"), bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := srv.client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<16))
	if err != nil {
		return "", err
	}
	var created struct{ IDs []string }
	if err := json.Unmarshal(answer, &created); res.StatusCode != http.StatusOK || err != nil || len(created.IDs) != 1 {
		return "", fmt.Errorf("create answered %s: %q", res.Status, answer)
	}
	return created.IDs[0], nil
}

// readBack returns all entries, read past the server, after an integrity check.
func readBack(t *testing.T, path string) []row {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open(sqlite.DriverName, path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()

	var verdict string
	if err := db.QueryRowContext(t.Context(), "PRAGMA integrity_check").Scan(&verdict); err != nil {
		t.Fatal(err)
	}
	if verdict != "ok" {
		t.Fatalf("integrity_check: %s", verdict)
	}
	found, err := db.QueryContext(t.Context(), "SELECT id, writer, seq, body FROM entry")
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close()
	var rows []row
	for found.Next() {
		var r row
		if err := found.Scan(&r.id, &r.writer, &r.seq, &r.body); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, r)
	}
	if err := found.Err(); err != nil {
		t.Fatal(err)
	}
	return rows
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
