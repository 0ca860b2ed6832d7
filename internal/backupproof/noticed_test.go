package backupproof_test

import (
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
)

// TestDamageNoticed damages a replica that is in use: trial restores and standbys notice.
func TestDamageNoticed(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes, which takes seconds")
	}
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "replica")
	cfg := backup.Config{URL: fileURL(dir), SyncInterval: copyEvery, CanaryInterval: time.Second, AlarmAfter: 5 * time.Second}
	s := serve(t, newDatabase(t), 5*time.Millisecond, cfg)
	s.await("there is a snapshot", 40*time.Second, func() bool {
		r := openReplica(t, dir)
		return len(r.level(1)) > 0 && len(r.level(9)) > 0
	})
	f := follow(t, cfg)
	txid, _ := s.mark()
	f.await("the standby has followed", func(st backup.StandbyStatus) bool { return st.TXID >= txid })
	if err := f.standby.Close(); err != nil {
		t.Fatal(err)
	}
	good := f.check()

	s.mark() // what the standby does not have yet
	damaged := openReplica(t, dir)
	whole := damaged.copy(t)
	for _, o := range damaged.objects {
		damaged.write(o, flip(0, 1)(damaged.read(o)))
	}
	began := time.Now()
	res, err := s.replica.Drill(t.Context())
	if !errors.Is(err, backup.ErrCorrupt) || res.Error == "" {
		t.Errorf("a trial restore of a damaged replica: got %+v, %v", res, err)
	}
	s.awaitAlarm(began, false, 5*time.Second)
	f.follow()
	f.await("the standby has noticed", func(st backup.StandbyStatus) bool { return st.Error != "" && st.ReplicaTXID > txid })
	if n := f.check(); n != good {
		t.Errorf("the copy of the standby is at commit %d, was at %d when the replica was sound", n, good)
	}

	for _, o := range whole.objects {
		damaged.write(o, whole.read(o))
	}
	if _, err := s.replica.Drill(t.Context()); err != nil {
		t.Errorf("a trial restore of the mended replica: %v", err)
	}
	s.awaitAlarm(began, true, 5*time.Second)
	txid, n := s.mark()
	f.await("the standby has followed again", func(st backup.StandbyStatus) bool { return st.TXID >= txid })
	if err := f.standby.Close(); err != nil {
		t.Fatal(err)
	}
	if got := f.check(); got < n {
		t.Errorf("the copy of the standby is at commit %d, want %d", got, n)
	}
}

// A follower is a standby under test.
type follower struct {
	t       *testing.T
	replica *backup.Replica
	path    string
	standby *backup.Standby
}

func follow(t *testing.T, cfg backup.Config) *follower {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	replica, err := backup.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{t: t, replica: replica, path: newDatabase(t)}
	f.follow()
	t.Cleanup(func() { _ = f.standby.Close() })
	return f
}

func (f *follower) follow() {
	f.t.Helper()
	var err error
	if f.standby, err = f.replica.Follow(f.path); err != nil {
		f.t.Fatal(err)
	}
}

func (f *follower) await(what string, done func(backup.StandbyStatus) bool) {
	f.t.Helper()
	timeout := time.NewTimer(30 * time.Second)
	defer timeout.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done(f.standby.Status()) {
		select {
		case <-tick.C:
		case <-timeout.C:
			f.t.Fatalf("waiting until %s: %+v", what, f.standby.Status())
		}
	}
}

// check checks the copy, which nobody changes meanwhile, and returns the number of its last commit.
func (f *follower) check() int64 {
	f.t.Helper()
	scratch := newDatabase(f.t)
	if err := copyFile(scratch, f.standby.Status().Copy); err != nil {
		f.t.Fatal(err)
	}
	return restored(f.t, scratch)
}

// TestDamagedLease damages the lease of a replica, in use and not.
func TestDamagedLease(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes, which takes seconds")
	}
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "replica")
	cfg := backup.Config{
		URL: fileURL(dir), SyncInterval: copyEvery, LeaseTTL: 2 * time.Second, Logger: slog.New(slog.DiscardHandler),
	}
	s := serve(t, newDatabase(t), 5*time.Millisecond, cfg)
	lease := filepath.Join(dir, "lock.json")
	sound := func() bool {
		text, err := os.ReadFile(lease)
		return err == nil && json.Valid(text)
	}
	damage := func() {
		if err := os.WriteFile(lease, []byte(`{"generation":`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.await("there is a lease", patience, sound)
	damage()
	s.await("the lease is sound again", 10*time.Second, sound)
	if state := s.replica.Status().State; state != backup.Replicating {
		t.Errorf("got state %s", state)
	}
	if err := s.end(); err != nil {
		t.Fatal(err)
	}

	damage()
	other, err := backup.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	path := newDatabase(t)
	if err := copyFile(path, s.path); err != nil {
		t.Fatal(err)
	}
	before := contents(t, path)
	began := time.Now()
	if _, err := other.Restore(t.Context(), path, backup.RestoreOptions{Replace: true}); !errors.Is(err, backup.ErrLeased) {
		t.Errorf("restore with a damaged lease: got error %v, want %v", err, backup.ErrLeased)
	}
	t.Logf("refused after %v", time.Since(began).Round(time.Millisecond))
	if after := contents(t, path); !maps.Equal(before, after) {
		t.Error("the refused restore has changed the database")
	}
}
