//go:build unix

package backup_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
)

// A restore to look at a copy has no effect on the database that is replicated, whose state is in a
// directory that both have.
func TestRestoreElsewhere(t *testing.T) {
	t.Parallel()
	l := newLive(t)
	l.cfg.Dir = filepath.Join(t.TempDir(), "state")
	r := l.start()
	l.exec("INSERT INTO t (v) VALUES ('x')")
	if _, err := r.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(l.cfg.Dir, "litestream")
	before, err := os.Stat(state)
	if err != nil {
		t.Fatal(err)
	}
	lease, err := os.ReadFile(filepath.Join(l.cfg.Dir, "lease.json"))
	if err != nil {
		t.Fatal(err)
	}
	look := elsewhere(t)
	for _, replace := range []bool{false, true} {
		if _, err := l.new().Restore(t.Context(), look, backup.RestoreOptions{Replace: replace}); err != nil {
			t.Fatal(err)
		}
		if n := countRows(t, look); n != 1 {
			t.Errorf("%d rows", n)
		}
	}
	if _, err := backup.RestoreFile(t.Context(), l.cfg, look, elsewhere(t), backup.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(state); err != nil || !os.SameFile(before, after) {
		t.Errorf("the state was set aside: %v", err)
	}
	if now, err := os.ReadFile(filepath.Join(l.cfg.Dir, "lease.json")); err != nil || string(now) != string(lease) {
		t.Errorf("the lease is %s, it was %s, %v", now, lease, err)
	}
	if restored, err := l.new().RestoreIfMissing(t.Context(), elsewhere(t), nil); err == nil {
		t.Errorf("restored for another database: %t", restored)
	}
	l.exec("INSERT INTO t (v) VALUES ('y')")
	if err := r.WaitReplicated(t.Context()); err != nil {
		t.Error(err)
	}
}

// What is going to be replicated is not restored while another machine writes to the replica.
func TestRestoreLease(t *testing.T) {
	t.Parallel()
	l := newLive(t)
	l.cfg.LeaseTTL = 12 * time.Second // which is refused after a third, at the next renewal
	r := l.start()
	l.exec("INSERT INTO t (v) VALUES ('x')")
	if _, err := r.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	path := elsewhere(t)
	if _, err := l.new().Restore(t.Context(), path, backup.RestoreOptions{Lease: true}); !errors.Is(err, backup.ErrLeased) {
		t.Fatalf("error %v", err)
	}
	if !missing(path) {
		t.Error("there are two databases")
	}
	l.exec("INSERT INTO t (v) VALUES ('y')")
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.new().Restore(t.Context(), path, backup.RestoreOptions{Lease: true}); err != nil {
		t.Fatal(err)
	}
	if n := countRows(t, path); n != 2 {
		t.Errorf("%d rows", n)
	}
}
