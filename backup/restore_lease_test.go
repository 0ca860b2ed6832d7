//go:build unix

package backup_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
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
	if restored, err := l.new().RestoreIfMissing(t.Context(), elsewhere(t), nil); err == nil || !strings.Contains(err.Error(), l.path) {
		t.Errorf("restored for another database: %t, %v", restored, err)
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

// Who waits for a lease is left alone, although nothing gets to the replica: it looks how long the
// lease does not change.
func TestLeaseIsWaitedFor(t *testing.T) {
	t.Parallel()
	l := newLive(t)
	l.cfg.LeaseTTL = time.Minute
	l.start()

	other := newLive(t)
	other.cfg = l.cfg
	lines, alarm := make(lineWriter, 1000), make(chan struct{})
	other.cfg.Logger = slog.New(slog.NewTextHandler(lines, nil))
	other.cfg.AlarmAfter, other.cfg.FinalSync = 2*time.Second, time.Second
	raised := sync.OnceFunc(func() { close(alarm) })
	other.cfg.OnAlarm = func(backup.Alarm) { raised() }
	r := other.new()
	defer r.Close()
	started := make(chan error, 1)
	go func() { started <- r.Start(t.Context(), other.path, "", nil) }()
	<-alarm
	for len(lines) > 0 {
		if line := <-lines; strings.Contains(line, "starting the replicator again") {
			t.Error(line)
		}
	}
	if err := r.Close(); err != nil && !errors.Is(err, backup.ErrNotReplicated) {
		t.Error(err)
	}
	if err := <-started; err == nil {
		t.Error("started beside another machine")
	}
}

// A lineWriter has what is written to it, as far as there is room.
type lineWriter chan string

func (w lineWriter) Write(line []byte) (int, error) {
	select {
	case w <- string(line):
	default:
	}
	return len(line), nil
}
