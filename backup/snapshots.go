package backup

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"
)

const (
	// snapshotTick is how often it is looked whether a snapshot is due.
	snapshotTick = time.Second

	// After a snapshot that failed the next is tried after snapshotRetry, then after twice as long
	// and so on, up to snapshotRetryMost, or Interval if that is less.
	snapshotRetry     = time.Minute
	snapshotRetryMost = time.Hour
)

// A Snapshot is a whole copy of a database in a file, which can be opened by itself. Beside it is
// Path with ".sha256" added, which sha256sum -c takes in that directory.
type Snapshot struct {
	Path   string    `json:"path"` // absolute
	Time   time.Time `json:"time"` // what was committed by then is there; in seconds
	Bytes  int64     `json:"bytes"`
	SHA256 string    `json:"sha256"` // hex; "" if the checksum is missing or unreadable
}

// Snapshots takes whole copies of a database from time to time and keeps some of them. It is safe
// for concurrent use, also by several processes with the same Dir and Name. Create it with
// [NewSnapshots].
//
// A snapshot is made under another name, flushed to the disk, checked with PRAGMA integrity_check
// and only then given its own. Files have mode 0600. Nothing is deleted that has not the name and
// the checksum of a snapshot.
type Snapshots struct {
	cfg SnapshotsConfig
	ctx context.Context // ends with Close
	end context.CancelFunc

	mu        sync.Mutex
	work      sync.WaitGroup // added to under mu while ctx lasts
	started   bool
	scheduled time.Time // when the attempt began that is under way; zero: none is
	status    SnapshotsStatus
	failures  int // in a row

	telling sync.Mutex // of alarms, in order
}

// SnapshotsStatus is how [Snapshots] do. It marshals to JSON.
type SnapshotsStatus struct {
	// Newest is the newest snapshot that is not from the future, nil as long as none is known. Age
	// is how old it is.
	Newest *Snapshot     `json:"newest,omitempty"`
	Age    time.Duration `json:"age_ns"`

	// Succeeded is when the last one was taken by this process, in Took. Failed is when the last
	// attempt failed, and Error why, if that was later.
	Succeeded time.Time     `json:"succeeded,omitzero"`
	Took      time.Duration `json:"took_ns"`
	Failed    time.Time     `json:"failed,omitzero"`
	Error     string        `json:"error,omitempty"`

	Alarm *Alarm `json:"alarm,omitempty"`
}

// NewSnapshots checks cfg, and reports all mistakes at once. It starts nothing and does not look at
// the disk.
func NewSnapshots(cfg SnapshotsConfig) (*Snapshots, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Snapshots{cfg: cfg}
	s.ctx, s.end = context.WithCancel(context.Background())
	return s, nil
}

// Start begins to take snapshots: one at once if the newest is older than Interval, also if that is
// because nothing ran. What goes wrong raises an alarm and is tried again. Close ends it; calls
// after the first or after Close do nothing.
func (s *Snapshots) Start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started || s.ctx.Err() != nil {
		return
	}
	s.started = true
	s.work.Go(s.run)
}

// Now takes a snapshot, after one that is under way. If it was taken but old ones could not be
// deleted, both the Snapshot and the error are returned; otherwise the error leaves nothing behind
// and nothing is deleted. The error is [ErrCorrupt] if the copy, and so most likely the database,
// is damaged, and [ErrClosed] after Close.
func (s *Snapshots) Now(ctx context.Context) (Snapshot, error) {
	var snapshot Snapshot
	err := ErrClosed
	done := make(chan struct{})
	if s.do(func() { defer close(done); snapshot, err = s.attempt(ctx, false) }) {
		<-done
	}
	if err != nil {
		err = fmt.Errorf("backup: take a snapshot: %w", err)
	}
	return snapshot, err
}

// List returns the snapshots in Dir, newest first.
func (s *Snapshots) List(ctx context.Context) ([]Snapshot, error) {
	list, err := s.list(ctx)
	if err != nil {
		return nil, fmt.Errorf("backup: list snapshots: %w", err)
	}
	return list, nil
}

func (s *Snapshots) list(ctx context.Context) ([]Snapshot, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	dir, err := openSnapshotDir(s.cfg.Dir, s.cfg.Name, false)
	if err != nil {
		return nil, err
	}
	defer dir.close()
	return dir.list()
}

// Verify reads a snapshot in Dir again, and compares it with its checksum, and with
// snapshot.SHA256 if that is set; only Path is needed. Then it checks its integrity. The error of a
// damaged one is [ErrCorrupt].
func (s *Snapshots) Verify(ctx context.Context, snapshot Snapshot) error {
	if err := s.verify(ctx, snapshot); err != nil {
		return fmt.Errorf("backup: verify %s: %w", filepath.Base(snapshot.Path), err)
	}
	return nil
}

func (s *Snapshots) verify(ctx context.Context, snapshot Snapshot) error {
	dir, err := openSnapshotDir(s.cfg.Dir, s.cfg.Name, false)
	if err != nil {
		return err
	}
	defer dir.close()
	file := filepath.Base(snapshot.Path)
	if _, ok := dir.timeOf(file); !ok || filepath.Clean(snapshot.Path) != filepath.Join(s.cfg.Dir, file) {
		return errors.New("it is not the path of a snapshot")
	}
	f, _, err := dir.open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	want, err := dir.checksumOf(file)
	if err != nil {
		return err
	}
	sum, err := checksum(ctx, f)
	if err != nil {
		return err
	}
	if sum != want || snapshot.SHA256 != "" && sum != snapshot.SHA256 {
		return fmt.Errorf("%w: its checksum is another", ErrCorrupt)
	}
	return s.cfg.checkFile(ctx, filepath.Join(s.cfg.Dir, file))
}

// Status returns how it goes. It does not look at the disk.
func (s *Snapshots) Status() SnapshotsStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := s.status
	if status.Newest != nil {
		newest := *status.Newest
		status.Newest = &newest
		status.Age = max(s.cfg.Now().Sub(newest.Time), 0)
	}
	if status.Alarm != nil {
		alarm := *status.Alarm
		status.Alarm = &alarm
	}
	return status
}

// Close gives up a snapshot that is under way and waits for its end. It may be called more than
// once; the database is to be closed after it.
func (s *Snapshots) Close() {
	s.mu.Lock()
	s.end()
	s.mu.Unlock()
	s.work.Wait()
}

// do runs fn in a goroutine that Close waits for, or not at all when Close was called.
func (s *Snapshots) do(fn func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return false
	}
	s.work.Go(fn)
	return true
}

// run takes a snapshot whenever one is due, until Close.
func (s *Snapshots) run() {
	tick := time.NewTicker(snapshotTick)
	defer tick.Stop()
	for {
		if s.begin() {
			s.do(func() { _, _ = s.attempt(s.ctx, true) }) // which takes note of the error
		}
		s.judge()
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return
		}
	}
}

// begin reports whether an attempt is to be made now.
func (s *Snapshots) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	if !s.scheduled.IsZero() || !s.due(s.status.Newest, now) {
		return false
	}
	if s.failures > 0 {
		wait := min(snapshotRetry<<min(s.failures-1, 10), snapshotRetryMost, s.cfg.Interval)
		since := now.Sub(s.status.Failed)
		if since >= 0 && since < wait { // negative: the clock was set back
			return false
		}
	}
	s.scheduled = time.Now()
	return true
}

// due reports whether it is time for the next snapshot. If the newest is from the future, the clock
// was set back, and nobody knows how old it is.
func (s *Snapshots) due(newest *Snapshot, now time.Time) bool {
	if newest == nil {
		return true
	}
	age := now.Sub(newest.Time)
	return age >= s.cfg.Interval || age < -clockSlack
}

// attempt takes a snapshot, and takes note of how that went. One that is scheduled is not taken if
// another process just has.
func (s *Snapshots) attempt(caller context.Context, scheduled bool) (Snapshot, error) {
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(caller, s.cfg.Timeout, fmt.Errorf("not done after %v: %w", s.cfg.Timeout, context.DeadlineExceeded))
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	snapshot, fresh, err := s.take(ctx, scheduled)
	took := time.Since(began)
	switch {
	case err == nil:
	case s.ctx.Err() != nil:
		err = ErrClosed
	case ctx.Err() != nil && !errors.Is(err, context.Cause(ctx)):
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}

	now := s.cfg.Now()
	s.mu.Lock()
	if scheduled {
		s.scheduled = time.Time{}
	}
	if snapshot.Path != "" {
		s.status.Newest = &snapshot
	}
	if fresh {
		s.status.Succeeded, s.status.Took = now, took
	}
	switch {
	case err == nil:
		s.status.Error, s.failures = "", 0
	case s.ctx.Err() == nil && caller.Err() == nil: // it did not end because somebody wanted that
		s.status.Error, s.status.Failed = err.Error(), now
		s.failures++
	}
	s.mu.Unlock()
	s.judge()
	if err == nil && fresh {
		s.cfg.Logger.Info("backup: snapshot taken", "path", snapshot.Path, "bytes", snapshot.Bytes, "took", took.Round(time.Millisecond))
	}
	return snapshot, err
}

// take takes a snapshot and deletes old ones. When one is only taken on schedule and not due, it
// returns the newest instead, which is not fresh.
func (s *Snapshots) take(ctx context.Context, scheduled bool) (_ Snapshot, fresh bool, err error) {
	dir, err := openSnapshotDir(s.cfg.Dir, s.cfg.Name, true)
	if err != nil {
		return Snapshot{}, false, err
	}
	defer dir.close()
	unlock, err := dir.lock(ctx)
	if err != nil {
		return Snapshot{}, false, err
	}
	defer unlock()
	if err := dir.clean(); err != nil {
		return Snapshot{}, false, err
	}
	if scheduled {
		list, err := dir.list()
		if err != nil {
			return Snapshot{}, false, err
		}
		now := s.cfg.Now()
		if newest := newestBy(list, now); newest != nil && !s.due(newest, now) {
			return *newest, false, nil
		}
	}
	path, err := dir.begin()
	if err != nil {
		return Snapshot{}, false, err
	}
	defer func() { err = errors.Join(err, dir.clean()) }()
	snapshot := Snapshot{Time: s.cfg.Now().UTC().Truncate(time.Second)}
	if err := s.cfg.Take(ctx, path); err != nil {
		return Snapshot{}, false, err
	}
	snapshot.Bytes, snapshot.SHA256, err = dir.seal(ctx)
	if err != nil {
		return Snapshot{}, false, err
	}
	if err := s.cfg.checkFile(ctx, path); err != nil {
		return Snapshot{}, false, err
	}
	snapshot.Path, err = dir.publish(snapshot.Time, snapshot.SHA256)
	if err != nil {
		return Snapshot{}, false, err
	}
	if err := s.prune(dir, snapshot); err != nil {
		return snapshot, true, fmt.Errorf("delete old ones: %w", err)
	}
	return snapshot, true, nil
}

// newestBy returns the newest snapshot that is not from the future, or nil. The list is sorted.
func newestBy(list []Snapshot, now time.Time) *Snapshot {
	for _, s := range list {
		if s.SHA256 != "" && !s.Time.After(now.Add(clockSlack)) {
			return &s
		}
	}
	return nil
}

// prune deletes what is not to be kept besides the one just taken.
func (s *Snapshots) prune(dir *snapshotDir, taken Snapshot) error {
	list, err := dir.list()
	if err != nil {
		return err
	}
	var errs []error
	for _, old := range s.cfg.surplus(list, taken, s.cfg.Now()) {
		if err := dir.remove(old.Path); err != nil {
			errs = append(errs, err)
			continue
		}
		s.cfg.Logger.Debug("backup: old snapshot deleted", "path", old.Path)
	}
	return errors.Join(errs...)
}

// judge raises the alarm, or ends it.
func (s *Snapshots) judge() {
	s.telling.Lock()
	defer s.telling.Unlock()
	now := s.cfg.Now()
	s.mu.Lock()
	text := ""
	if s.status.Error != "" {
		text = "the last snapshot failed: " + s.status.Error
	} else if running := time.Since(s.scheduled); !s.scheduled.IsZero() && running > s.cfg.Timeout+s.cfg.Timeout/10 {
		text = "the snapshot does not come to an end"
	}
	var told *Alarm
	switch was := s.status.Alarm; {
	case text != "" && was == nil:
		s.status.Alarm = &Alarm{Text: text, Since: now}
		told = s.status.Alarm
	case text != "":
		s.status.Alarm = &Alarm{Text: text, Since: was.Since}
	case was != nil:
		told = &Alarm{Text: was.Text, Since: was.Since, Over: true}
		s.status.Alarm = nil
	}
	s.mu.Unlock()
	switch {
	case told == nil:
		return
	case told.Over:
		s.cfg.Logger.Info("backup: snapshots: all is well again", "was", told.Text, "since", told.Since)
	default:
		s.cfg.Logger.Error("backup: snapshots: ALARM", "why", told.Text)
	}
	if s.cfg.OnAlarm != nil {
		s.cfg.OnAlarm(*told)
	}
}
