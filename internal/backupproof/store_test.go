package backupproof_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
	"github.com/bedplate/bedplate/internal/backuptest"
)

var alarm = flag.Duration("alarm", 2*time.Second, "Config.AlarmAfter where stores fail")

const (
	// alarmLimit is how much later than Config.AlarmAfter an alarm may come.
	alarmLimit = time.Minute

	// lagLimit is by how much Status.Lag may be too small, which is asserted in long runs.
	lagLimit = 2 * time.Second
)

// An outage is something that goes wrong with a store. Writers must not notice, and the operator
// must.
type outage struct {
	name  string
	begin func(o *observed)
	end   func(o *observed)

	// calm outages need no alarm; nor do those that are over by themselves before it is due.
	calm bool
	over time.Duration

	// config changes the configuration.
	config func(*backup.Config)
}

func mend(o *observed) { o.server.Mend() }

var outages = []outage{
	{name: "error 500", begin: func(o *observed) { o.server.Fail(http.StatusInternalServerError) }, end: mend},
	{name: "throttled writes", begin: func(o *observed) { o.server.Fail(http.StatusServiceUnavailable, backuptest.Puts) }, end: mend},
	{name: "slow", begin: func(o *observed) { o.server.Slow(2 * time.Second) }, end: mend, calm: true},
	{name: "hanging", begin: func(o *observed) { o.server.Hang() }, end: mend},
	{name: "hanging writes", begin: func(o *observed) { o.server.Hang(backuptest.Puts) }, end: mend},
	{
		name: "truncated writes", begin: func(o *observed) { o.server.Truncate(backuptest.Puts) }, end: mend,
		// What relies on conditional writes cannot be had with half of them.
		config: func(c *backup.Config) { c.LeaseTTL = -1 },
	},
	{name: "unreadable", begin: func(o *observed) { o.server.Truncate(backuptest.Gets) }, end: mend},
	{
		name:  "expired credentials", // and it takes a while until there are others
		begin: func(o *observed) { o.stale.Store(true); o.server.Rotate() },
		end:   func(o *observed) { o.stale.Store(false) },
	},
	{name: "down", begin: func(o *observed) { o.server.Down() }, end: func(o *observed) { o.server.Up() }},
	{name: "stopped replicator", begin: (*observed).stopReplicator, end: func(*observed) {}, over: 15 * time.Second},
}

// TestStore lets a store fail in all ways while an application commits all the time.
func TestStore(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes, which takes seconds")
	}
	t.Parallel()
	cases := []test{{"down at the start", downAtStart}, {"down at the end", downAtClose}}
	for _, what := range outages {
		cases = append(cases, test{what.name, what.run})
	}
	atOnce(t, cases, test.String, func(t *testing.T, c test) { c.run(t) })
}

func (what outage) run(t *testing.T) {
	o := observe(t, backuptest.NewS3(t), newDatabase(t), what.config)
	o.awaitCommits(50)
	o.awaitCaughtUp(time.Now())
	calm := o.between(time.Time{}, time.Now())

	began := time.Now()
	what.begin(o)
	told := time.Duration(0)
	alarmed := !what.calm && (what.over == 0 || *alarm < what.over)
	if alarmed {
		told = o.awaitAlarm(true).Sub(began)
		if told > *alarm+alarmLimit {
			t.Errorf("the alarm came after %v", told)
		}
	}
	for range 3 {
		o.awaitCommits(35)
		o.compareStatus()
	}
	rough := o.between(began, time.Now())

	mended := time.Now()
	what.end(o)
	if alarmed {
		o.awaitAlarm(false)
	}
	o.awaitCaughtUp(time.Now())
	healed := time.Since(mended)
	o.rest()
	if err := o.end(); err != nil {
		t.Error(err)
	}
	if n := o.restoreAll(); n != o.last() {
		t.Errorf("commit %d is the last in the replica, want %d", n, o.last())
	}
	if long() && o.low < -lagLimit {
		t.Errorf("Status.Lag was too small by %v", -o.low)
	}
	t.Logf("alarm after %v, all well %v after the end, lag wrong by %v to %v; median of a commit %v before and %v in the outage (%d)",
		told.Round(time.Millisecond), healed.Round(time.Millisecond), o.low.Round(time.Millisecond), o.high.Round(time.Millisecond),
		median(calm), median(rough), len(rough))
}

// downAtStart starts an application whose store cannot be reached.
func downAtStart(t *testing.T) {
	server := backuptest.NewS3(t)
	server.Down()
	began := time.Now()
	o := observe(t, server, newDatabase(t), nil)
	started := time.Now()
	o.awaitAlarm(true)
	// Nothing was ever copied.
	before := time.Now()
	if lag := o.replica.Status().Lag; lag < before.Sub(started) || lag > time.Since(began) {
		t.Errorf("the lag is %v, want %v to %v", lag, before.Sub(started), time.Since(began))
	}
	o.awaitCommits(25)
	server.Up()
	o.awaitAlarm(false)
	o.awaitCaughtUp(time.Now())
	if err := o.end(); err != nil {
		t.Error(err)
	}
	if n := o.restoreAll(); n != o.last() {
		t.Errorf("commit %d is the last in the replica, want %d", n, o.last())
	}
	t.Logf("Start took %v", started.Sub(began))
}

// downAtClose ends an application whose store cannot be reached, and starts it again.
func downAtClose(t *testing.T) {
	server := backuptest.NewS3(t)
	path := newDatabase(t)
	o := observe(t, server, path, func(c *backup.Config) { c.FinalSync = time.Second })
	o.awaitCommits(25)
	o.mark()
	server.Down()
	o.awaitCommits(25)
	if err := o.end(); !errors.Is(err, backup.ErrNotReplicated) {
		t.Errorf("got error %v, want %v", err, backup.ErrNotReplicated)
	}
	last := o.last()

	server.Up()
	o = observe(t, server, path, nil)
	o.awaitCaughtUp(time.Now())
	if err := o.end(); err != nil {
		t.Error(err)
	}
	if n := o.restoreAll(); n != max(o.last(), last) {
		t.Errorf("commit %d is the last in the replica, want %d", n, max(o.last(), last))
	}
}

// observed is a service whose store is in the hands of the test.
type observed struct {
	*service
	server    *backuptest.S3
	stale     atomic.Bool    // the program has no new credentials
	low, high time.Duration  // by how much Status.Lag was wrong
	mirror    *backuptest.S3 // to look at what the store holds
	copies    int            // in mirror
}

// observe serves the database at path with a replica on server. change may be nil.
func observe(t *testing.T, server *backuptest.S3, path string, change func(*backup.Config)) *observed {
	t.Helper()
	o := &observed{server: server, mirror: backuptest.NewS3(t)}
	old, _ := server.Credentials(t.Context())
	cfg := backup.Config{
		URL: server.URL("app"), SyncInterval: 500 * time.Millisecond, CanaryInterval: time.Second,
		AlarmAfter: *alarm,
		Credentials: func(ctx context.Context) (map[string]string, error) {
			if o.stale.Load() {
				return old, nil
			}
			return server.Credentials(ctx)
		},
	}
	if change != nil {
		change(&cfg)
	}
	o.service = serve(t, path, 20*time.Millisecond, cfg)
	return o
}

// stopReplicator stops it without a word. Somebody has to notice, and start another.
func (o *observed) stopReplicator() { kill(o.t, o.replica.Status().PID, syscall.SIGSTOP) }

// awaitCaughtUp waits until Status says that everything that was committed before the given time
// is in the replica.
func (o *observed) awaitCaughtUp(since time.Time) {
	o.t.Helper()
	o.await("everything is in the replica", func() bool {
		s := o.replica.Status()
		return s.State == backup.Replicating && s.Alarm == nil && !s.Proven.Before(since)
	})
}

// compareStatus compares what Status says with what the store holds.
func (o *observed) compareStatus() {
	o.t.Helper()
	var keys []string
	var prefix string
	var at time.Time
	var told backup.Status
	for same := false; !same; same = slices.Equal(keys, o.objects()) {
		keys, told, at = o.objects(), o.replica.Status(), time.Now()
		prefix = o.copyStore(keys)
	}
	n := o.inCopy(keys, prefix)
	missing, ok := o.times(n + 1)
	if ok && missing.ended.Before(told.Proven) {
		o.t.Errorf("commit %d is the last in the store, the next was acknowledged %v before Status.Proven", n, told.Proven.Sub(missing.ended))
	}
	if !told.Proven.IsZero() && told.Lag > at.Sub(told.Proven) {
		o.t.Errorf("Status.Lag is %v, but Status.Proven %v ago", told.Lag, at.Sub(told.Proven))
	}
	lag := time.Duration(0)
	if ok && missing.ended.Before(at) {
		lag = at.Sub(missing.ended)
	}
	o.low, o.high = min(o.low, told.Lag-lag), max(o.high, told.Lag-lag)
	if !ok {
		return
	}
	// It takes a moment until somebody looks whether something was committed.
	o.await(fmt.Sprintf("Status.Lag is that of commit %d, or it is in the replica", n+1), func() bool {
		now := o.replica.Status()
		return now.Lag >= time.Since(missing.ended)/2 || now.Proven.After(missing.ended)
	})
}

// inCopy restores a copy of what the store holds, and returns the number of the last commit.
func (o *observed) inCopy(keys []string, prefix string) int64 {
	o.t.Helper()
	n, err := o.restoreFrom(o.mirror, prefix)
	for errors.Is(err, backup.ErrCorrupt) && len(keys) > 0 {
		// The store has kept half of an object, which will be written again: as good as nothing.
		last := slices.MaxFunc(keys, newer)
		keys = slices.DeleteFunc(keys, func(key string) bool { return key == last })
		n, err = o.restoreFrom(o.mirror, o.copyStore(keys))
	}
	if err != nil {
		o.t.Fatal(err)
	}
	return n
}

// objects returns the names of the objects that make the replica.
func (o *observed) objects() []string {
	return slices.DeleteFunc(o.server.Keys("app/"), func(key string) bool { return !strings.HasSuffix(key, ".ltx") })
}

// newer orders objects by the number of the last transaction in their names.
func newer(a, b string) int {
	return strings.Compare(filepath.Base(a)[17:], filepath.Base(b)[17:])
}

// copyStore copies objects to mirror and returns the prefix of their names.
func (o *observed) copyStore(keys []string) string {
	o.t.Helper()
	o.copies++
	prefix := fmt.Sprintf("copy%d", o.copies)
	for _, key := range keys {
		if data, ok := o.server.Read(key); ok {
			o.mirror.Write(prefix+key[len("app"):], data)
		}
	}
	return prefix
}

// restoreAll restores what the store holds and returns the number of the last commit.
func (o *observed) restoreAll() int64 {
	o.t.Helper()
	n, err := o.restoreFrom(o.server, "app")
	if err != nil {
		o.t.Fatal(err)
	}
	return n
}

func (o *observed) restoreFrom(server *backuptest.S3, prefix string) (int64, error) {
	o.t.Helper()
	replica, err := backup.New(backup.Config{URL: server.URL(prefix), Credentials: server.Credentials, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return 0, err
	}
	path := newDatabase(o.t)
	if _, err := replica.Restore(o.t.Context(), path, backup.RestoreOptions{}); err != nil {
		return 0, err
	}
	return restored(o.t, path), nil
}
