package backupproof_test

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
	"github.com/bedplate/bedplate/internal/backuptest"
)

var (
	rounds = flag.Int("rounds", 8, "how often to kill something, for each kind of replica")
	only   = flag.String("only", "", "what to do in each round: all whose names begin so")
	full   = flag.Bool("full", false, "let writers commit without a pause")
)

// A proof is a database with its replica, and what was acknowledged.
type proof struct {
	*testing.T
	orders orders
	app    *app
	lives  int64

	// What was acknowledged by applications that have ended.
	last  int64           // the greatest number
	acked map[int64]int64 // life by number
}

// blows are what happens to the application. Each restores and checks, and leaves it running.
var blows = []struct {
	name string
	deal func(p *proof) string // returns what is worth telling
}{
	{"kill the replicator", (*proof).killReplicator},
	{"kill the application", (*proof).killApplication},
	{"kill both", (*proof).killBoth},
	{"replace the killed application", (*proof).replaceKilled},
	{"replace the application", (*proof).replace},
	{"stop and continue the replicator", (*proof).suspend},
	{"terminate", (*proof).terminate},
	{"run without replication", (*proof).runOffline},
}

func TestKills(t *testing.T) {
	if testing.Short() {
		t.Skip("starts and kills processes, which takes seconds")
	}
	t.Parallel()
	// By default each blow is dealt at least once.
	order := slices.DeleteFunc(rand.Perm(len(blows)), func(i int) bool { return !strings.HasPrefix(blows[i].name, *only) })
	onReplicas(t, false, func(t *testing.T, i int, o orders) {
		// Retention and snapshots that come to pass within the test.
		o.SyncInterval, o.SnapshotInterval, o.Retention = 250*time.Millisecond, 3*time.Second, 6*time.Second
		p := newProof(t, o)
		p.start()
		p.app.awaitReplicator(t, 0)
		for round := range *rounds {
			p.app.awaitCommits(t, 20+rand.IntN(300))
			blow := blows[order[(i**rounds+round)%len(order)]]
			began := time.Now()
			t.Logf("round %3d: %-33s %s (%v)", round+1, blow.name, blow.deal(p), time.Since(began).Round(time.Millisecond))
			if t.Failed() {
				return
			}
		}
		p.terminate()
	})
}

// onReplicas runs fn for each kind of replica, at the same time unless alone.
func onReplicas(t *testing.T, alone bool, fn func(t *testing.T, i int, o orders)) {
	t.Helper()
	run := func(i int, name string, urlFor func(t *testing.T, o *orders)) {
		t.Run(name, func(t *testing.T) {
			if !alone {
				t.Parallel()
			}
			o := orders{Database: filepath.Join(t.TempDir(), "data", "app.db"), Writers: 4}
			urlFor(t, &o)
			fn(t, i, o)
		})
	}
	run(0, "file", func(t *testing.T, o *orders) {
		o.URL = (&url.URL{Scheme: "file", Path: filepath.Join(t.TempDir(), "replica")}).String()
	})
	run(1, "s3", func(t *testing.T, o *orders) {
		server := backuptest.NewS3(t)
		o.URL = server.URL("app")
		o.Credentials, _ = server.Credentials(t.Context()) // never fails
	})
}

func newProof(t *testing.T, o orders) *proof {
	return &proof{T: t, orders: o, acked: map[int64]int64{}}
}

// start starts the application, in its next life.
func (p *proof) start() {
	p.Helper()
	if err := os.MkdirAll(filepath.Dir(p.orders.Database), 0o700); err != nil {
		p.Fatal(err)
	}
	p.lives++
	o := p.orders
	o.Life = p.lives
	if !*full {
		o.Pace = []time.Duration{2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond}[rand.IntN(3)]
	}
	p.app = start(p.T, o)
}

func (p *proof) killReplicator() string {
	times := 1 + rand.IntN(3)
	for range times {
		pid := p.replicator()
		kill(p.T, pid, syscall.SIGKILL)
		p.app.awaitCommits(p.T, 50) // and so the log is checkpointed while nobody follows it
		p.app.awaitReplicator(p.T, pid)
	}
	return fmt.Sprintf("%d times, %s", times, p.restoreRunning())
}

func (p *proof) suspend() string {
	pid := p.replicator()
	kill(p.T, pid, syscall.SIGSTOP)
	p.app.awaitCommits(p.T, 200+rand.IntN(500))
	kill(p.T, pid, syscall.SIGCONT) // if it was not taken for stuck and ended
	return p.restoreRunning()
}

func (p *proof) killApplication() string {
	pid := p.replicator()
	p.ended(p.app, p.app.kill())
	began := time.Now()
	awaitGone(p.T, pid)
	took := time.Since(began)
	found := p.restoreEnded()
	p.start()
	p.app.awaitReplicator(p.T, 0)
	return fmt.Sprintf("%s, the replicator ended %v later, %s", found, took.Round(time.Millisecond), p.restoreRunning())
}

func (p *proof) killBoth() string {
	pid := p.replicator()
	now := time.Now()
	life := p.killTogether(pid)
	p.source()
	lost := "nothing is lost with the machine"
	if n := p.restore(); n < p.last {
		lost = fmt.Sprintf("the machine would take %v with it", life.age(n, now).Round(time.Millisecond))
	}
	p.start()
	p.app.awaitReplicator(p.T, 0)
	return lost + ", " + p.restoreRunning()
}

// killTogether kills the application and its replicator, and returns what the application has told.
func (p *proof) killTogether(replicator int) told {
	p.Helper()
	kill(p.T, p.app.cmd.Process.Pid, syscall.SIGSTOP) // or it might start another one in between
	kill(p.T, replicator, syscall.SIGKILL)
	life := p.app.kill()
	p.ended(p.app, life)
	awaitGone(p.T, replicator)
	return life
}

func (p *proof) replaceKilled() string {
	pid := p.replicator()
	p.ended(p.app, p.app.kill())
	p.start() // while the old replicator still runs
	p.app.awaitReplicator(p.T, pid)
	awaitGone(p.T, pid)
	return p.restoreRunning()
}

func (p *proof) replace() string {
	old, pid := p.app, p.replicator()
	kill(p.T, old.cmd.Process.Pid, syscall.SIGTERM)
	p.start() // both may write for a while
	p.ended(old, p.awaitEnd(old))
	awaitGone(p.T, pid)
	p.app.awaitReplicator(p.T, pid)
	return p.restoreRunning()
}

func (p *proof) terminate() string {
	pid := p.replicator()
	kill(p.T, pid, syscall.SIGTERM) // as a service manager does, to all
	kill(p.T, -p.app.cmd.Process.Pid, syscall.SIGTERM)
	began := time.Now()
	life := p.awaitEnd(p.app)
	took := time.Since(began)
	p.ended(p.app, life)
	if runs(pid) {
		p.Error("the replicator runs on")
	}
	found := p.restoreEnded()
	p.start()
	p.app.awaitReplicator(p.T, 0)
	return fmt.Sprintf("%s after %v, %s", found, took.Round(time.Millisecond), p.restoreRunning())
}

func (p *proof) runOffline() string {
	pid := p.replicator()
	p.ended(p.app, p.app.kill())
	awaitGone(p.T, pid)
	online := p.orders
	p.orders.Offline = true
	p.start()
	p.orders = online
	p.app.awaitCommits(p.T, 10+rand.IntN(300)) // and the log begins anew
	p.ended(p.app, p.app.kill())
	n := p.source()
	p.start()
	p.app.awaitReplicator(p.T, 0)
	return fmt.Sprintf("%d before, %s", n, p.restoreRunning())
}

// replicator returns the process id of the replicator that runs.
func (p *proof) replicator() int {
	p.Helper()
	return p.app.awaitReplicator(p.T, 0)
}

// awaitEnd waits for the end of an application in good order.
func (p *proof) awaitEnd(a *app) told {
	p.Helper()
	a.await(p.T, "the application is closed", func(now told) bool { return now.closed })
	<-a.ended
	if !a.cmd.ProcessState.Success() {
		p.Errorf("the application has ended: %v\n%s", a.cmd.ProcessState, a.logged())
	}
	return a.told
}

// ended takes note of what an application that has ended has told.
func (p *proof) ended(a *app, life told) {
	p.last = max(p.last, life.last)
	for _, c := range life.commits {
		p.acked[c.N] = a.orders.Life
	}
}

// forget forgets what was acknowledged after commit n and is known to be lost.
func (p *proof) forget(n int64) {
	p.last = min(p.last, n)
	maps.DeleteFunc(p.acked, func(acked, _ int64) bool { return acked > n })
}

// compare wants what was acknowledged by applications that have ended, as far as it is not newer
// than the state of m.
func (p *proof) compare(what string, m *model) {
	p.Helper()
	found := 0
	for c := range m.changes(1, 1) {
		if life, ok := p.acked[c.n]; ok {
			found++
			if life != c.life {
				p.Errorf("%s: life %d had commit %d acknowledged, but life %d has made one with that number", what, life, c.n, c.life)
				return
			}
		}
	}
	if newer := len(p.acked) - found; newer > 0 && m.n >= p.last {
		p.Errorf("%s: %d acknowledged commits are newer than %d", what, newer, m.n)
	}
}

// restoreRunning wants all that is acknowledged now in the replica after a sync.
func (p *proof) restoreRunning() string {
	p.Helper()
	up := max(p.app.sync(p.T), p.last)
	n := p.restore()
	if n < up {
		p.Errorf("commit %d was acknowledged and synced, %d is the last in the replica\n%s", up, n, p.app.logged())
	}
	return fmt.Sprintf("all %d are there", up)
}

// restoreEnded wants all that was ever acknowledged in the replica: nobody writes any more, and the
// replicator has ended by itself. When the application was killed while it committed, the replica
// may have what the database has not: SQLite takes nobody's word for a commit that it did not get to
// note in the index of the log, but its pages were in the log and complete.
func (p *proof) restoreEnded() string {
	p.Helper()
	last, n := p.source(), p.restore()
	if n < last {
		p.Errorf("commit %d is the last in the database and %d in the replica\n%s", last, n, p.app.logged())
	}
	if n > last {
		return fmt.Sprintf("all %d are there, and %d more that nobody was told about", last, n-last)
	}
	return fmt.Sprintf("all %d are there", n)
}

// source checks the database, which nobody has open, and returns the number of the last commit.
func (p *proof) source() int64 {
	p.Helper()
	dir := p.TempDir()
	defer os.RemoveAll(dir)
	// Not the original: who closes it last would checkpoint it.
	scratch := filepath.Join(dir, "app.db")
	for _, suffix := range []string{"", "-wal"} {
		if err := copyFile(scratch+suffix, p.orders.Database+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			p.Fatal(err)
		}
	}
	m, err := check(p.Context(), scratch, p.orders.Bulk)
	if err != nil {
		p.Fatalf("the database itself: %v", err)
	}
	if m.n < p.last {
		p.Errorf("commit %d was acknowledged, %d is the last in the database", p.last, m.n)
	}
	p.compare("the database itself", m)
	return m.n
}

func copyFile(to, from string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}

// restore restores the newest state from the replica, checks it, and returns the number of the
// last commit.
func (p *proof) restore() int64 {
	p.Helper()
	dir := p.TempDir()
	defer os.RemoveAll(dir)
	replica, err := backup.New(p.orders.config(slog.New(slog.DiscardHandler)))
	if err != nil {
		p.Fatal(err)
	}
	path := filepath.Join(dir, "app.db")
	restored, err := replica.Restore(p.Context(), path, backup.RestoreOptions{})
	if err != nil {
		p.Fatalf("%v\n%s", err, p.app.logged())
	}
	m, err := check(p.Context(), path, p.orders.Bulk)
	if err != nil {
		p.Fatalf("restored transaction %d: %v\n%s", restored.TXID, err, p.app.logged())
	}
	p.compare("restored", m)
	return m.n
}

// age returns how long before now the oldest commit was acknowledged that is newer than n.
func (l told) age(n int64, now time.Time) time.Duration {
	oldest := now
	for _, c := range l.commits {
		if c.N > n && c.At.Before(oldest) {
			oldest = c.At
		}
	}
	return now.Sub(oldest)
}

// kill sends a signal to a process, which may have ended by itself.
func kill(t *testing.T, pid int, signal syscall.Signal) {
	t.Helper()
	if pid == 0 { // that would be this one
		t.Fatalf("send %v: there is no process", signal)
	}
	if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
		t.Errorf("send %v to %d: %v", signal, pid, err)
	}
}
