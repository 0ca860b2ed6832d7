package backupproof_test

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
	"github.com/bedplate/bedplate/sqlite"
)

const halfCommits = 300

// TestHalfCommit has a process die in the middle of a commit, when its pages are in the log but not
// noted in the index of the log. While others have the database open there is no recovery: for
// SQLite these pages do not exist, and the next commit overwrites them. A replicator reads the log,
// where they look like any other commit.
func TestHalfCommit(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes, which takes seconds")
	}
	t.Parallel()
	onReplicas(t, false, func(t *testing.T, _ int, o orders) {
		o.Writers, o.SyncInterval = 1, 50*time.Millisecond
		p := newProof(t, o)
		p.start()
		p.replicator()
		for range 2 {
			p.app.awaitCommits(t, 20)
			p.halfCommit()
			p.app.awaitCommits(t, 5) // over some of the pages
			t.Log(p.restoreRunning())
			if t.Failed() {
				return
			}
		}
		p.terminate()
	})
}

// halfCommit puts pages of commits into the log that nobody has made, and gives the replicator the
// time to find them.
func (p *proof) halfCommit() {
	p.Helper()
	pid := p.app.cmd.Process.Pid
	defer kill(p.T, pid, syscall.SIGCONT)
	before := p.points()
	for {
		kill(p.T, pid, syscall.SIGSTOP)
		if release, ok := p.lock(); ok {
			p.forgeLog()
			release()
			break
		}
		kill(p.T, pid, syscall.SIGCONT) // it was at work
		p.app.awaitCommits(p.T, 1)
	}
	patience := time.NewTimer(time.Second)
	defer patience.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for p.points() == before {
		select {
		case <-tick.C:
		case <-patience.C: // it was not taken in
			return
		}
	}
}

// lock keeps everybody from writing until release is called, if nobody is about to.
func (p *proof) lock() (release func(), ok bool) {
	p.Helper()
	db, err := sql.Open(sqlite.DriverName, "file:"+p.orders.Database+"?_busy_timeout=100&_txlock=immediate")
	if err != nil {
		p.Fatal(err)
	}
	tx, err := db.BeginTx(p.Context(), nil)
	if err != nil {
		_ = db.Close()
		return nil, false
	}
	return func() {
		if err := errors.Join(tx.Rollback(), db.Close()); err != nil {
			p.Fatal(err)
		}
	}, true
}

// points returns how many objects the replica has.
func (p *proof) points() int {
	p.Helper()
	replica, err := backup.New(p.orders.config(slog.New(slog.DiscardHandler)))
	if err != nil {
		p.Fatal(err)
	}
	points, err := replica.Points(p.Context())
	if err != nil {
		p.Fatal(err)
	}
	return len(points)
}

// forgeLog makes commits in a copy of the database and transfers the pages that they have added to
// the copy of the log.
func (p *proof) forgeLog() {
	p.Helper()
	dir := p.TempDir()
	defer os.RemoveAll(dir)
	scratch := filepath.Join(dir, "app.db")
	for _, suffix := range []string{"", "-wal"} {
		if err := copyFile(scratch+suffix, p.orders.Database+suffix); err != nil {
			p.Fatal(err)
		}
	}
	// However long the log is, it is left alone.
	db, err := sqlite.Open(p.Context(), scratch, sqlite.Options{Replicated: true, Checkpoint: math.MaxInt32})
	if err != nil {
		p.Fatal(err)
	}
	for range halfCommits {
		err = errors.Join(err, db.Update(p.Context(), func(tx *sqlite.Tx) error {
			_, err := commit(context.WithoutCancel(p.Context()), tx, 1000)
			return err
		}))
	}
	forged, readErr := os.ReadFile(scratch + "-wal")
	if err := errors.Join(err, readErr, db.Close()); err != nil {
		p.Fatal(err)
	}
	log, err := os.ReadFile(p.orders.Database + "-wal")
	if err != nil {
		p.Fatal(err)
	}
	same := 0
	for same < min(len(log), len(forged)) && log[same] == forged[same] {
		same++
	}
	if same < min(len(log), 32) { // the header
		p.Fatal("the copy of the log began anew")
	}
	file, err := os.OpenFile(p.orders.Database+"-wal", os.O_WRONLY, 0)
	if err != nil {
		p.Fatal(err)
	}
	_, err = file.WriteAt(forged[same:], int64(same))
	if err := errors.Join(err, file.Close()); err != nil {
		p.Fatal(err)
	}
}
