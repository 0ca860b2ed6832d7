package backupproof_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
)

// patience bounds each thing that a test waits for.
const patience = 2 * time.Minute

// An app is a process of the application.
type app struct {
	orders orders
	began  time.Time
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	log    string        // file with what it has logged
	ended  chan struct{} // closed when it is gone and everything it told is known

	mu sync.Mutex
	told
	changed chan struct{} // closed at the next message
}

// told is what an application has told.
type told struct {
	commits  []acknowledged
	last     int64     // the greatest number among them
	first    time.Time // when the first was acknowledged
	status   backup.Status
	restored bool
	started  bool
	synced   *synced // the answer to the last sync
	closed   bool
}

// start starts an application. It ends with the test.
func start(t *testing.T, o orders) *app {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	a := &app{
		orders: o, began: time.Now(), cmd: exec.Command(os.Args[0]), log: log.Name(),
		ended: make(chan struct{}), changed: make(chan struct{}),
	}
	a.cmd.Env = append(os.Environ(), appEnv+"="+string(text))
	a.cmd.Stderr = log
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if a.stdin, err = a.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := a.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(a.ended)
		a.listen(stdout)
		_ = a.cmd.Wait() // killed, often
	}()
	t.Cleanup(func() { a.end(t) })
	return a
}

func (a *app) listen(stdout io.Reader) {
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		var m message
		if json.Unmarshal(lines.Bytes(), &m) != nil {
			continue // the half of a line at the end
		}
		a.mu.Lock()
		switch {
		case m.Commit != nil:
			a.commits = append(a.commits, *m.Commit)
			a.last = max(a.last, m.Commit.N)
			if a.first.IsZero() {
				a.first = m.Commit.At
			}
		case m.Status != nil:
			a.status = *m.Status
		case m.Synced != nil:
			a.synced = m.Synced
		}
		a.restored = a.restored || m.Restored
		a.started = a.started || m.Started
		a.closed = a.closed || m.Closed
		close(a.changed)
		a.changed = make(chan struct{})
		a.mu.Unlock()
	}
}

// await waits until done reports true, and returns what was told by then.
func (a *app) await(t *testing.T, what string, done func(told) bool) told {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		a.mu.Lock()
		now, changed := a.told, a.changed
		a.mu.Unlock()
		if done(now) {
			return now
		}
		select {
		case <-changed:
		case <-a.ended:
			a.mu.Lock()
			now = a.told
			a.mu.Unlock()
			if done(now) {
				return now
			}
			t.Fatalf("waiting until %s: the application has ended: %v\n%s", what, a.cmd.ProcessState, a.logged())
		case <-timeout.C:
			t.Fatalf("waiting until %s: nothing in %v; %+v\n%s", what, patience, now.status, a.logged())
		}
	}
}

// awaitCommits waits for n more acknowledged commits.
func (a *app) awaitCommits(t *testing.T, n int) {
	t.Helper()
	a.mu.Lock()
	wanted := len(a.commits) + n
	a.mu.Unlock()
	a.await(t, fmt.Sprintf("%d commits are acknowledged", n), func(now told) bool { return len(now.commits) >= wanted })
}

// awaitReplicator waits until a replicator runs that is another than the given one, and returns
// its process id.
func (a *app) awaitReplicator(t *testing.T, old int) int {
	t.Helper()
	return a.await(t, "another replicator runs", func(now told) bool {
		return now.status.State == backup.Replicating && now.status.PID != 0 && now.status.PID != old
	}).status.PID
}

// sync waits until what is acknowledged now is in the replica, and returns up to which commit that
// is.
func (a *app) sync(t *testing.T) int64 {
	t.Helper()
	a.mu.Lock()
	a.synced = nil
	a.mu.Unlock()
	if _, err := io.WriteString(a.stdin, "sync\n"); err != nil {
		t.Fatalf("%v\n%s", err, a.logged())
	}
	answer := a.await(t, "the replica is up to date", func(now told) bool { return now.synced != nil }).synced
	if answer.Error != "" {
		t.Fatalf("sync: %s\n%s", answer.Error, a.logged())
	}
	return answer.Up
}

// kill ends it at once, and returns what it has told in its life.
func (a *app) kill() told {
	_ = a.cmd.Process.Kill()
	<-a.ended
	return a.told
}

// end lets it end in good order if it still runs.
func (a *app) end(t *testing.T) {
	_ = a.stdin.Close()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-a.ended:
	case <-timeout.C:
		t.Errorf("the application does not end\n%s", a.logged())
		a.kill()
	}
}

// logged returns the end of what it has logged.
func (a *app) logged() string {
	text, err := os.ReadFile(a.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-16<<10):])
}

// awaitGone waits until the process pid has ended, whoever its parent is.
func awaitGone(t *testing.T, pid int) {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for runs(pid) {
		select {
		case <-tick.C:
		case <-timeout.C:
			t.Fatalf("process %d does not end", pid)
		}
	}
}

// runs reports whether a process has not ended. One that nobody has waited for still has its
// number.
func runs(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return !os.IsNotExist(err) || !exists("/proc/self/stat") // elsewhere it can only be guessed
	}
	_, state, _ := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " ")
	return !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
