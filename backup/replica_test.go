//go:build unix

package backup_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
	_ "github.com/bedplate/bedplate/backup/file"
	"github.com/bedplate/bedplate/sqlite"
)

// A live database is one that is replicated while the test writes to it.
type live struct {
	*testing.T
	db   *sql.DB
	path string
	cfg  backup.Config
}

func newLive(t *testing.T) *live {
	t.Helper()
	dir := t.TempDir()
	l := &live{T: t, path: filepath.Join(dir, "app.db")}
	l.cfg = backup.Config{
		URL: "file://" + filepath.Join(dir, "replica"), SyncInterval: 50 * time.Millisecond, DrillInterval: -1, FinalSync: finalSync,
	}
	db, err := sql.Open(sqlite.DriverName, l.path+"?_journal_mode=WAL&_busy_timeout=10000")
	if err != nil {
		t.Fatal(err)
	}
	l.db = db
	t.Cleanup(func() { _ = db.Close() })
	l.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")
	return l
}

func (l *live) exec(query string) {
	l.Helper()
	if _, err := l.db.ExecContext(l.Context(), query); err != nil {
		l.Fatal(err)
	}
}

func (l *live) new() *backup.Replica {
	l.Helper()
	r, err := backup.New(l.cfg)
	if err != nil {
		l.Fatal(err)
	}
	return r
}

// start begins to replicate, until the test ends.
func (l *live) start() *backup.Replica {
	l.Helper()
	r := l.new()
	if err := r.Start(l.Context(), l.path, "", nil); err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { _ = r.Close() })
	l.until("it replicates", r, func(s backup.Status) bool { return s.State == backup.Replicating })
	return r
}

// until waits for a condition.
func (l *live) until(what string, r *backup.Replica, condition func(s backup.Status) bool) {
	l.Helper()
	timeout := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition(r.Status()) {
		select {
		case <-tick.C:
		case <-timeout:
			l.Fatalf("waited in vain until %s: %+v", what, r.Status())
		}
	}
}

// rows restores the replica and counts the rows of t.
func (l *live) rows() (n int) {
	l.Helper()
	path := filepath.Join(l.TempDir(), "restored.db")
	if _, err := l.new().Restore(l.Context(), path, backup.RestoreOptions{}); err != nil {
		l.Fatal(err)
	}
	db, err := sql.Open(sqlite.DriverName, path)
	if err != nil {
		l.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRowContext(l.Context(), "SELECT count(*) FROM t").Scan(&n); err != nil {
		l.Fatal(err)
	}
	return n
}

func (l *live) kill(pid int) {
	l.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		l.Fatal(err)
	}
}

func TestReplica(t *testing.T) {
	t.Parallel()
	l := newLive(t)
	r := l.start()
	l.exec("INSERT INTO t (v) VALUES ('x')")
	if err := r.WaitReplicated(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := l.rows(); n != 1 {
		t.Errorf("%d rows after WaitReplicated", n)
	}
	l.exec("INSERT INTO t (v) VALUES ('y')")
	first, err := r.Sync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l.exec("INSERT INTO t (v) VALUES ('z')")
	second, err := r.Sync(t.Context())
	if err != nil || second <= first {
		t.Errorf("transaction %d comes after %d: %v", second, first, err)
	}
	if n := l.rows(); n != 3 {
		t.Errorf("%d rows after Sync", n)
	}
	l.until("it is all there", r, func(s backup.Status) bool {
		return s.State == backup.Replicating && s.Lag == 0 && s.ReplicaTXID >= second && s.PID != 0 && s.RSS > 0
	})
	l.exec("INSERT INTO t (v) VALUES ('last')")
	for range 2 {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if n := l.rows(); n != 4 {
		t.Errorf("%d rows after Close", n)
	}
	if _, err := r.Sync(t.Context()); !errors.Is(err, backup.ErrClosed) {
		t.Errorf("Sync after Close: %v", err)
	}
}

func TestReplicatorKilled(t *testing.T) {
	t.Parallel()
	l := newLive(t)
	r := l.start()
	for i := range 3 {
		pid := r.Status().PID
		l.exec("INSERT INTO t (v) VALUES ('x')")
		l.kill(pid)
		l.exec("INSERT INTO t (v) VALUES ('y')")
		l.until("there is another one", r, func(s backup.Status) bool {
			return s.State == backup.Replicating && s.PID != pid && s.Restarts > i
		})
		if err := r.WaitReplicated(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := l.rows(); n != 2*(i+1) {
			t.Errorf("%d rows after %d kills", n, i+1)
		}
	}
}

// Close comes at a moment when there is no replicator.
func TestCloseWithoutReplicator(t *testing.T) {
	t.Parallel()
	l := newLive(t)
	r := l.start()
	l.kill(r.Status().PID)
	l.exec("INSERT INTO t (v) VALUES ('x')")
	l.until("it is gone", r, func(s backup.Status) bool { return s.Restarts > 0 })
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if n := l.rows(); n != 1 {
		t.Errorf("%d rows", n)
	}
}

func TestReplicaStartedTwice(t *testing.T) {
	t.Parallel()
	l := newLive(t)
	first := l.start()
	second := l.new()
	started := make(chan error, 1)
	go func() { started <- second.Start(t.Context(), l.path, "", nil) }()
	l.until("the second one waits", second, func(s backup.Status) bool { return strings.Contains(s.Why, "lock") })
	l.exec("INSERT INTO t (v) VALUES ('x')")
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	l.until("the second one replicates", second, func(s backup.Status) bool { return s.State == backup.Replicating })
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if n := l.rows(); n != 1 {
		t.Errorf("%d rows", n)
	}
}

func TestReplicaNotEmpty(t *testing.T) {
	t.Parallel()
	l := newLive(t)
	l.exec("INSERT INTO t (v) VALUES ('old')")
	if err := l.start().Close(); err != nil {
		t.Fatal(err)
	}
	fresh := newLive(t)
	fresh.cfg.URL = l.cfg.URL
	r := fresh.new()
	t.Cleanup(func() { _ = r.Close() })
	err := r.Start(t.Context(), fresh.path, "", nil)
	if err == nil { // on a slow machine, Start has not waited until that was known
		err = r.WaitReplicated(t.Context())
	}
	if !errors.Is(err, backup.ErrNotEmpty) {
		t.Errorf("a fresh database: %v", err)
	}
	if n := l.rows(); n != 1 {
		t.Errorf("%d rows are left", n)
	}
	fresh.cfg.Adopt = true
	if err := fresh.start().Close(); err != nil {
		t.Error(err)
	}
	if n := fresh.rows(); n != 0 {
		t.Errorf("%d rows after adoption", n)
	}
}

func TestCredentialsHidden(t *testing.T) {
	t.Parallel()
	l := newLive(t)
	l.cfg.Credentials = func(context.Context) (map[string]string, error) {
		return map[string]string{"AWS_SECRET_ACCESS_KEY": "not-to-be-seen"}, nil
	}
	r := l.start()
	for _, name := range []string{"environ", "cmdline"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", r.Status().PID, name))
		if err != nil {
			t.Skip(err)
		}
		if bytes.Contains(text, []byte("not-to-be-seen")) {
			t.Errorf("it is in %s", name)
		}
	}
}

// programVariable makes the test binary the program of TestProgramKilled. Its value is the path of
// the database.
const programVariable = "BEDPLATE_TEST_PROGRAM"

// The program is killed: its replicator copies what is left, and ends.
func TestProgramKilled(t *testing.T) {
	t.Parallel()
	if path := os.Getenv(programVariable); path != "" {
		program(t, path)
	}
	l := newLive(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestProgramKilled$")
	cmd.Env = append(os.Environ(), programVariable+"="+l.path)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var replicator, rows int
	var line [100]byte
	n, err := out.Read(line[:])
	if _, scanErr := fmt.Sscanf(string(line[:n]), "%d %d\n", &replicator, &rows); scanErr != nil {
		_ = cmd.Process.Kill()
		rest, _ := io.ReadAll(out)
		_ = cmd.Wait()
		t.Fatal(err, string(line[:n]), string(rest), stderr.String())
	}
	l.kill(cmd.Process.Pid)
	_, _ = io.Copy(io.Discard, out)
	_ = cmd.Wait()
	for deadline := time.Now().Add(patience); runs(replicator); {
		if time.Now().After(deadline) {
			t.Fatal("the replicator does not end")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if n := l.rows(); n != rows {
		t.Errorf("%d rows of %d", n, rows)
	}
}

// runs reports whether a process runs. One that has ended may wait for its new parent for ever.
func runs(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return syscall.Kill(pid, 0) == nil && (err != nil || !bytes.Contains(stat, []byte(") Z")))
}

// program writes rows, says so, and waits for its end.
func program(t *testing.T, path string) {
	db, err := sql.Open(sqlite.DriverName, path+"?_busy_timeout=10000")
	if err != nil {
		t.Fatal(err)
	}
	r, err := backup.New(backup.Config{
		URL: "file://" + filepath.Join(filepath.Dir(path), "replica"), SyncInterval: time.Hour, AlarmAfter: 3 * time.Hour, DrillInterval: -1,
		FinalSync: finalSync,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Start(t.Context(), path, "", nil); err != nil {
		t.Fatal(err)
	}
	if err := r.WaitReplicated(t.Context()); err != nil { // until it runs
		t.Fatal(err)
	}
	const rows = 10
	for range rows {
		if _, err := db.ExecContext(t.Context(), "INSERT INTO t (v) VALUES ('x')"); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Printf("%d %d\n", r.Status().PID, rows)
	select {}
}
