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
	alarmLimit = 5 * time.Second

	// healLimit is how long it may take until all is well again when the store is.
	healLimit = 15 * time.Second

	// lagLimit is how wrong Status.Lag may be.
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

	// blind is by how much a lag may be told too great because it takes that long to see what is
	// in the replica.
	blind time.Duration

	// config changes the configuration.
	config func(*backup.Config)
}

func mend(o *observed) { o.server.Mend() }

var outages = []outage{
	{name: "error 500", begin: func(o *observed) { o.server.Fail(http.StatusInternalServerError) }, end: mend},
	{name: "throttled writes", begin: func(o *observed) { o.server.Fail(http.StatusServiceUnavailable, backuptest.Puts) }, end: mend},
	{name: "slow", begin: func(o *observed) { o.server.Slow(2 * time.Second) }, end: mend, calm: true, blind: 2 * time.Second},
	{name: "hanging", begin: func(o *observed) { o.server.Hang() }, end: mend},
	{name: "hanging writes", begin: func(o *observed) { o.server.Hang(backuptest.Puts) }, end: mend},
	{
		name: "truncated writes", begin: func(o *observed) { o.server.Truncate(backuptest.Puts) }, end: mend,
		// What relies on conditional writes cannot be had with half of them.
		config: func(c *backup.Config) { c.LeaseTTL = -1 },
	},
	{name: "unreadable", begin: func(o *observed) { o.server.Truncate(backuptest.Gets) }, end: mend, blind: time.Hour},
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
	o.awaitCommits(100)
	o.awaitCaughtUp(time.Now(), healLimit)
	calm := o.between(time.Time{}, time.Now())

	began := time.Now()
	what.begin(o)
	told := time.Duration(0)
	alarmed := !what.calm && (what.over == 0 || *alarm < what.over)
	if alarmed {
		told = o.awaitAlarm(began, false, *alarm+alarmLimit).Sub(began)
	}
	for range 3 {
		o.awaitCommits(70)
		o.compareLag(what.blind)
	}
	rough := o.between(began, time.Now())

	mended := time.Now()
	what.end(o)
	if alarmed {
		o.awaitAlarm(began, true, healLimit)
	}
	o.awaitCaughtUp(time.Now(), what.over+healLimit)
	healed := time.Since(mended)
	o.rest()
	if err := o.end(); err != nil {
		t.Error(err)
	}
	if n := o.restoreAll(); n != o.last() {
		t.Errorf("commit %d is the last in the replica, want %d", n, o.last())
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
	started := time.Since(began)
	o.awaitAlarm(began, false, *alarm+alarmLimit)
	if lag := o.replica.Status().Lag; lag < time.Since(began)-lagLimit {
		t.Errorf("nothing was ever copied in %v, the lag is %v", time.Since(began), lag)
	}
	o.awaitCommits(50)
	server.Up()
	o.awaitAlarm(began, true, healLimit)
	o.awaitCaughtUp(time.Now(), healLimit)
	if err := o.end(); err != nil {
		t.Error(err)
	}
	if n := o.restoreAll(); n != o.last() {
		t.Errorf("commit %d is the last in the replica, want %d", n, o.last())
	}
	t.Logf("Start took %v", started)
}

// downAtClose ends an application whose store cannot be reached, and starts it again.
func downAtClose(t *testing.T) {
	server := backuptest.NewS3(t)
	path := newDatabase(t)
	o := observe(t, server, path, nil)
	o.awaitCommits(50)
	o.mark()
	server.Down()
	o.awaitCommits(50)
	if err := o.end(); !errors.Is(err, backup.ErrNotReplicated) {
		t.Errorf("got error %v, want %v", err, backup.ErrNotReplicated)
	}
	last := o.last()

	server.Up()
	o = observe(t, server, path, nil)
	o.awaitCaughtUp(time.Now(), healLimit)
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
		URL: server.URL("app"), SyncInterval: copyEvery, CanaryInterval: time.Second,
		AlarmAfter: *alarm, FinalSync: 2 * time.Second,
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
	o.service = serve(t, path, 10*time.Millisecond, cfg)
	return o
}

// stopReplicator stops it without a word. Somebody has to notice, and start another.
func (o *observed) stopReplicator() { kill(o.t, o.replica.Status().PID, syscall.SIGSTOP) }

// awaitCaughtUp waits until Status says that everything that was committed before the given time
// is in the replica.
func (o *observed) awaitCaughtUp(since time.Time, limit time.Duration) {
	o.t.Helper()
	o.await("everything is in the replica", limit, func() bool {
		s := o.replica.Status()
		return s.State == backup.Replicating && s.Alarm == nil && !s.Proven.Before(since)
	})
}

// compareLag compares what Status says with what the store holds.
func (o *observed) compareLag(blind time.Duration) {
	o.t.Helper()
	var keys []string
	var prefix string
	var at time.Time
	var told time.Duration
	for same := false; !same; same = slices.Equal(keys, o.objects()) {
		keys, at, told = o.objects(), time.Now(), o.replica.Status().Lag
		prefix = o.copyStore(keys)
	}
	n := o.inCopy(keys, prefix)
	lag := time.Duration(0)
	if missing, ok := o.times(n + 1); ok && missing.ended.Before(at) {
		lag = at.Sub(missing.ended)
	}
	wrong := told - lag
	o.low, o.high = min(o.low, wrong), max(o.high, wrong)
	if wrong < -lagLimit || wrong > lagLimit+blind {
		o.t.Errorf("Status.Lag is %v; commit %d is the last in the store, the next was acknowledged %v ago", told, n, lag)
	}
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
