package storetest

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
	"github.com/bedplate/bedplate/sqlite"
)

// A database is one that is replicated within the test.
type database struct {
	t       *testing.T
	path    string
	db      *sqlite.DB
	replica *backup.Replica
	closed  bool
}

// open makes a database and starts its replication.
func open(t *testing.T, cfg backup.Config) *database {
	t.Helper()
	d := prepare(t, cfg)
	d.start()
	return d
}

// prepare makes a database that is to be replicated.
func prepare(t *testing.T, cfg backup.Config) *database {
	t.Helper()
	cfg.Logger = slog.New(slog.NewTextHandler(logFile(t), nil))
	d := &database{t: t, path: filepath.Join(t.TempDir(), "app.db"), replica: newReplica(t, cfg)}
	var err error
	if d.db, err = openDatabase(t.Context(), d.path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	return d
}

func (d *database) start() {
	d.t.Helper()
	if err := startReplica(d.t.Context(), d.replica, d.db, d.path); err != nil {
		d.t.Fatal(err)
	}
}

// commit makes n commits and returns when the first of them had been made.
func (d *database) commit(n int) (first time.Time) {
	d.t.Helper()
	for range n {
		if _, err := commit(context.Background(), d.db); err != nil {
			d.t.Fatal(err)
		}
		if first.IsZero() {
			first = time.Now()
		}
	}
	return first
}

// awaitCaughtUp waits until all that is committed has been seen in the replica.
func (d *database) awaitCaughtUp() {
	d.t.Helper()
	asked := time.Now()
	await(d.t, "the replica has caught up", func() bool {
		s := d.replica.Status()
		return s.State == backup.Replicating && s.Lag == 0 && s.Proven.After(asked)
	})
}

// close ends it in good order.
func (d *database) close() {
	d.t.Helper()
	if d.closed {
		return
	}
	d.closed = true
	if err := d.db.Close(); err != nil {
		d.t.Error(err)
	}
	if err := d.replica.Close(); err != nil {
		d.t.Error(err)
	}
}
