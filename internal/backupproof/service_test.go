package backupproof_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
	"github.com/bedplate/bedplate/internal/backuptest"
	"github.com/bedplate/bedplate/sqlite"
)

// copyEvery is the interval between copies.
const copyEvery = 200 * time.Millisecond

// A service is an application within the test: a database, one goroutine that commits to it all
// the time, and a replica.
type service struct {
	t       *testing.T
	path    string
	db      *sqlite.DB
	replica *backup.Replica
	log     *logBuffer

	committing sync.Mutex // held by each commit
	stop       context.CancelFunc
	writer     sync.WaitGroup
	closing    sync.Once
	closeErr   error

	mu      sync.Mutex
	first   int64   // number of the first commit
	commits []timed // from first on, one after the other
	failed  error
	alarms  []raised
}

// timed is when a commit was begun, and when it was acknowledged.
type timed struct{ began, ended time.Time }

// raised is when an alarm was told.
type raised struct {
	backup.Alarm
	at time.Time
}

// serve opens the database at path, begins to commit to it, and starts its replication. The URL of
// cfg is that of the replica.
func serve(t *testing.T, path string, pace time.Duration, cfg backup.Config) *service {
	t.Helper()
	s := &service{t: t, path: path, log: &logBuffer{}}
	cfg.Logger = slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg.OnAlarm = func(a backup.Alarm) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.alarms = append(s.alarms, raised{a, time.Now()})
	}
	cfg.DrillInterval = -1
	if cfg.FinalSync == 0 {
		cfg.FinalSync = finalSync
	}
	var err error
	if s.replica, err = backup.New(cfg); err != nil {
		t.Fatal(err)
	}
	if s.db, err = open(t.Context(), path, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.end() // was looked at by those whom it concerns
		if t.Failed() {
			t.Logf("the log of the service:\n%s", s.log)
		}
	})
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.writer.Go(func() { s.write(ctx, pace) })
	err = s.replica.Start(t.Context(), path, "", func(ctx context.Context, query string, args ...any) error {
		return s.db.Update(ctx, func(tx *sqlite.Tx) error {
			_, err := tx.ExecContext(ctx, query, args...)
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *service) write(ctx context.Context, pace time.Duration) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		s.commit()
	}
}

func (s *service) commit() {
	s.committing.Lock()
	defer s.committing.Unlock()
	began := time.Now()
	var n int64
	err := s.db.Update(context.Background(), func(tx *sqlite.Tx) (err error) {
		n, err = commit(context.Background(), tx, 1)
		return err
	})
	ended := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		s.failed = err
		return
	case s.first == 0:
		s.first = n
	case n != s.first+int64(len(s.commits)):
		s.failed = fmt.Errorf("commit %d follows %d", n, s.first+int64(len(s.commits))-1)
	}
	s.commits = append(s.commits, timed{began, ended})
}

// mark lets the writer rest until the replica is up to date, and returns the transaction, and the
// number of the commit at which that is.
func (s *service) mark() (txid uint64, n int64) {
	s.t.Helper()
	s.committing.Lock()
	defer s.committing.Unlock()
	txid, err := s.replica.Sync(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return txid, s.last()
}

// last is the number of the newest commit that was acknowledged.
func (s *service) last() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first + int64(len(s.commits)) - 1
}

// times returns when commit n was made, and whether there is one with that number.
func (s *service) times(n int64) (timed, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n < s.first || n >= s.first+int64(len(s.commits)) {
		return timed{}, false
	}
	return s.commits[n-s.first], true
}

// between returns how long those commits took that were begun from one time to the other, sorted.
func (s *service) between(from, to time.Time) []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var took []time.Duration
	for _, c := range s.commits {
		if !c.began.Before(from) && c.began.Before(to) {
			took = append(took, c.ended.Sub(c.began))
		}
	}
	slices.Sort(took)
	return took
}

// await waits until done reports true.
func (s *service) await(what string, done func() bool) {
	s.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-timeout.C:
			s.t.Fatalf("waiting until %s: not within %v; %+v", what, patience, s.replica.Status())
		}
	}
}

// awaitCommits waits for n more commits.
func (s *service) awaitCommits(n int64) {
	s.t.Helper()
	made := func() int64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		return int64(len(s.commits))
	}
	until := made() + n
	s.await(fmt.Sprintf("%d commits are made", n), func() bool { return made() >= until })
}

// awaitAlarm waits until there is an alarm, or none any more, and returns when that was told.
func (s *service) awaitAlarm(there bool) (at time.Time) {
	s.t.Helper()
	what := "there is an alarm"
	if !there {
		what = "the alarm is over"
	}
	s.await(what, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.alarms) == 0 {
			return false
		}
		last := s.alarms[len(s.alarms)-1]
		at = last.at
		return last.Over != there
	})
	return at
}

// rest ends the writer, and wants to hear that no commit has failed.
func (s *service) rest() {
	s.t.Helper()
	s.stop()
	s.writer.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		s.t.Errorf("a commit failed: %v", s.failed)
	}
}

// end closes the database and the replica, and returns the error of the latter.
func (s *service) end() error {
	s.t.Helper()
	s.closing.Do(func() {
		s.rest()
		if err := s.db.Close(); err != nil {
			s.t.Error(err)
		}
		s.closeErr = s.replica.Close()
	})
	return s.closeErr
}

// restored checks what was restored to path, and returns the number of the last commit there.
func restored(t *testing.T, path string) int64 {
	t.Helper()
	m, err := check(t.Context(), path, 0)
	if err != nil {
		t.Fatalf("restored: %v", err)
	}
	return m.n
}

// atOnce runs subtests all at the same time, however many processors there are: they mostly wait.
func atOnce[T any](t *testing.T, cases []T, name func(T) string, fn func(*testing.T, T)) {
	var running sync.WaitGroup
	for _, c := range cases {
		running.Go(func() { t.Run(name(c), func(t *testing.T) { fn(t, c) }) })
	}
	running.Wait()
}

// A place is where a replica is.
type place struct {
	name   string
	config backup.Config // URL and Credentials
}

// places returns one place of each kind.
func places(t *testing.T) []place {
	server := backuptest.NewS3(t)
	return []place{
		{"file", backup.Config{URL: fileURL(filepath.Join(t.TempDir(), "replica"))}},
		{"s3", backup.Config{URL: server.URL("app"), Credentials: server.Credentials}},
	}
}

func (p place) String() string { return p.name }

func fileURL(dir string) string { return (&url.URL{Scheme: "file", Path: dir}).String() }

// A logBuffer keeps the end of a log.
type logBuffer struct {
	mu   sync.Mutex
	text []byte
}

func (b *logBuffer) Write(line []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.text) > 64<<10 {
		b.text = slices.Clone(b.text[32<<10:])
	}
	b.text = append(b.text, line...)
	return len(line), nil
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(bytes.TrimSpace(b.text))
}

// newDatabase returns the path of a database that does not exist, in a directory of its own.
func newDatabase(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "app.db")
}
