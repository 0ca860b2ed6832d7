package backupproof_test

import (
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
)

// TestDamageInUse damages a replica that is in use.
func TestDamageInUse(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes, which takes seconds")
	}
	t.Parallel()
	atOnce(t, []test{{"objects", damageObjects}, {"the lease", damageLease}}, test.String, func(t *testing.T, c test) { c.run(t) })
}

// A test is a part of another one.
type test struct {
	name string
	run  func(t *testing.T)
}

func (c test) String() string { return c.name }

// damageObjects: trial restores and standbys notice.
func damageObjects(t *testing.T) {
	replica, _ := writeReplica(t)
	dir := replica.dir
	cfg := backup.Config{URL: fileURL(dir), SyncInterval: copyEvery, CanaryInterval: time.Second, AlarmAfter: patience}
	s := serve(t, replica.database, 5*time.Millisecond, cfg)
	s.awaitCommits(5)
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
	res, err := s.replica.Drill(t.Context())
	if !errors.Is(err, backup.ErrCorrupt) || res.Error == "" {
		t.Errorf("a trial restore of a damaged replica: got %+v, %v", res, err)
	}
	s.awaitAlarm(true)
	f.follow()
	merged := func() bool { // twice a minute what is damaged is there a second time, as a part of something larger
		return slices.ContainsFunc(openReplica(t, dir).objects, func(o object) bool {
			return o.level > 0 && !slices.Contains(damaged.objects, o)
		})
	}
	f.await("the standby has noticed", func(st backup.StandbyStatus) bool {
		return st.Error != "" && st.ReplicaTXID > txid || merged()
	})
	if err := f.standby.Close(); err != nil {
		t.Fatal(err)
	}
	if n := f.check(); n != good && !merged() {
		t.Errorf("the copy of the standby is at commit %d, was at %d when the replica was sound", n, good)
	}

	for _, o := range whole.objects {
		damaged.write(o, whole.read(o))
	}
	if _, err := s.replica.Drill(t.Context()); err != nil {
		t.Errorf("a trial restore of the mended replica: %v", err)
	}
	s.awaitAlarm(false)
	f.follow()
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

// await waits until done reports true, and returns the status.
func (f *follower) await(what string, done func(backup.StandbyStatus) bool) backup.StandbyStatus {
	f.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if status := f.standby.Status(); done(status) {
			return status
		}
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

// damageLease: who holds the lease repairs it, and what is left behind can be had after a while.
func damageLease(t *testing.T) {
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
	s.await("there is a lease", sound)
	damage()
	s.await("the lease is sound again", sound)
	if state := s.replica.Status().State; state != backup.Replicating {
		t.Errorf("got state %s", state)
	}
	if err := s.end(); err != nil {
		t.Fatal(err)
	}

	began := time.Now()
	damage()
	other, err := backup.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	path := newDatabase(t)
	if err := copyFile(path, s.path); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Restore(t.Context(), path, backup.RestoreOptions{Replace: true}); err != nil {
		t.Fatal(err)
	}
	if waited := time.Since(began); waited < cfg.LeaseTTL*9/10 { // the times of files are not exact
		t.Errorf("after %v nobody can know that the lease is left behind", waited)
	}
	if n := restored(t, path); n != s.last() {
		t.Errorf("commit %d is the last that was restored, want %d", n, s.last())
	}
}
