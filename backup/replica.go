package backup

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

// Exec runs one statement on the database in a transaction of its own.
type Exec = func(ctx context.Context, query string, args ...any) error

// A Replica is the copy of a database in another place. It is safe for concurrent use. Create it
// with [New].
type Replica struct {
	cfg Config
	id  string // identity of cfg.URL

	starting sync.Mutex // held while Start sets up, which Close waits for

	mu         sync.Mutex
	started    bool
	closing    bool
	path       string   // of the database; absolute
	dir        string   // of the replicator's state
	process    *process // the running replicator
	ready      bool     // process replicates
	changed    chan struct{}
	status     Status    // but for what the canary knows
	denied     bool      // the store does not accept the credentials
	moved      [3]uint64 // what shows that something moves to the replica
	progressed time.Time // when that changed, or could begin to
	asked      time.Time // when Close was called
	unfinished error     // why not everything may be in the replica after Close
	refused    error     // why State is Refusing or Fenced

	callbacks callbacks

	canary canary
	sync   syncer
	drills driller

	stop chan struct{} // closed by Close
	work sync.WaitGroup
}

// New checks cfg, and reports all mistakes at once. It starts nothing.
func New(cfg Config) (*Replica, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	r := &Replica{
		cfg: cfg, id: identity(cfg.URL), changed: make(chan struct{}), stop: make(chan struct{}),
		status: Status{State: Idle},
	}
	r.drills.r = r
	r.canary.r, r.canary.quit = r, make(chan struct{})
	return r, nil
}

// Start begins to replicate the database file at path, which has to be in WAL mode, and returns
// when that runs, or at the latest after a few seconds: a replica that cannot be reached does not
// keep a program from starting, it raises an alarm later on. What can be told to be wrong for good
// is returned: [ErrNotEmpty], [ErrLeased], [ErrInUse].
//
// Once a second at most, exec writes to a table _backup, which it makes, so schema is the name
// under which exec knows the database: "" for main. With a nil exec that is done on a connection
// of its own, for which writers may have to wait.
//
// From then on, nothing must checkpoint the database with FULL, RESTART or TRUNCATE, or turn off
// WAL mode; wal_autocheckpoint should be at least 10000.
func (r *Replica) Start(ctx context.Context, path, schema string, exec Exec) error {
	if err := r.start(ctx, path, schema, exec); err != nil {
		return fmt.Errorf("backup: start: %w", err)
	}
	return nil
}

func (r *Replica) start(ctx context.Context, path, schema string, exec Exec) error {
	path, err := databasePath(path)
	if err != nil {
		return err
	}
	if err := r.setUp(ctx, path, schema, exec); err != nil {
		return err
	}
	if err := r.awaitStart(ctx); err != nil {
		return errors.Join(err, r.Close())
	}
	r.do(r.drills.run)
	return nil
}

// setUp starts everything that runs until Close.
func (r *Replica) setUp(ctx context.Context, path, schema string, exec Exec) error {
	r.starting.Lock()
	defer r.starting.Unlock()
	r.mu.Lock()
	started, closing := r.started, r.closing
	if !closing {
		r.started, r.path, r.dir, r.progressed = true, path, r.cfg.dirFor(path), time.Now()
	}
	r.mu.Unlock()
	switch {
	case closing:
		return ErrClosed
	case started:
		return errors.New("it was started already")
	}
	owner, err := makeOwner(r.dir)
	if err != nil {
		return err
	}
	known, err := r.canary.open(ctx, r, schema, exec)
	if err != nil {
		return err
	}
	order := r.order(owner, known)
	r.update(func(s *Status) { s.State = Starting })
	r.work.Go(func() { r.supervise(order) })
	r.canary.start()
	return nil
}

// startPatience is how long Start waits for the first sign of life of the replica, beyond the time
// for which an orphaned lease may have to be waited for.
const startPatience = 5 * time.Second

// awaitStart waits until replication runs or is refused.
func (r *Replica) awaitStart(ctx context.Context) error {
	patience := time.NewTimer(startPatience)
	defer patience.Stop()
	lease := time.NewTimer(startPatience + max(r.cfg.LeaseTTL, 0))
	defer lease.Stop()
	lock := time.NewTimer(startPatience + r.cfg.FinalSync) // of a replicator that is at its last sync
	defer lock.Stop()
	tired := false
	for {
		r.mu.Lock()
		state, why, changed, ready := r.status.State, r.status.Why, r.changed, r.ready
		r.mu.Unlock()
		leased, locked := strings.HasPrefix(why, waitingForLease), strings.HasPrefix(why, waitingForLock)
		switch {
		case ready:
			return nil
		case state == Refusing || state == Fenced:
			return r.refusal()
		case tired && !leased && !locked:
			if why == "" {
				why = "no sign of life yet"
			}
			r.cfg.Logger.Warn("backup: replication does not run yet", "why", why)
			return nil
		}
		select {
		case <-changed:
		case <-patience.C:
			tired = true
		case <-lease.C:
			if !locked {
				return nil
			}
		case <-lock.C:
			if locked {
				return fmt.Errorf("%w: %s", ErrInUse, why)
			}
		case <-r.stop:
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// order is what the replicator of the database is told.
func (r *Replica) order(owner string, known bool) wire.Order {
	o := wire.Order{
		Mode: wire.Replicate, Dir: r.dir, Database: r.path, Known: known, Adopt: r.cfg.Adopt,
		SyncInterval: r.cfg.SyncInterval, SnapshotInterval: r.cfg.SnapshotInterval, Retention: r.cfg.Retention,
		FinalSync: r.cfg.FinalSync,
	}
	if r.cfg.LeaseTTL > 0 {
		o.Owner, o.LeaseTTL = owner, r.cfg.LeaseTTL
	}
	return o
}

// Status returns how it goes.
func (r *Replica) Status() Status {
	r.mu.Lock()
	s := r.status
	r.mu.Unlock()
	r.canary.report(&s)
	s.Drill = r.drills.last()
	return s
}

// Close copies what is left, for up to Config.FinalSync, and ends the replicator. It is called when
// nobody writes any more; the database may be open or closed. The error is [ErrNotReplicated] when
// something may be missing. Close may be called more than once, also before Start.
func (r *Replica) Close() error {
	r.mu.Lock()
	first := !r.closing
	r.closing = true
	r.mu.Unlock()
	if !first {
		<-r.stop
		r.work.Wait()
		return nil
	}
	r.starting.Lock()   // no other start sets up anything from now on
	r.starting.Unlock() //nolint:staticcheck // it was only waited for
	r.canary.close()
	r.mu.Lock()
	r.asked = time.Now()
	close(r.stop)
	r.mu.Unlock()
	r.work.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.State, r.status.PID = Closed, 0
	if r.unfinished != nil && r.refused == nil {
		return fmt.Errorf("backup: close: %w: %w", ErrNotReplicated, r.unfinished)
	}
	return nil
}

// do runs fn in a goroutine that Close waits for, or not at all when Close was called.
func (r *Replica) do(fn func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing {
		return false
	}
	r.work.Go(fn)
	return true
}

// callbacks calls what the program has given, one after the other, in a goroutine that nobody waits
// for: they may call Close.
type callbacks struct {
	mu      sync.Mutex
	waiting []func()
	running bool
}

func (c *callbacks) call(fn func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = append(c.waiting, fn)
	if c.running {
		return
	}
	c.running = true
	go func() {
		for {
			c.mu.Lock()
			if len(c.waiting) == 0 {
				c.running = false
				c.mu.Unlock()
				return
			}
			next := c.waiting[0]
			c.waiting = c.waiting[1:]
			c.mu.Unlock()
			next()
		}
	}()
}

// update changes the status.
func (r *Replica) update(change func(s *Status)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.status)
	close(r.changed)
	r.changed = make(chan struct{})
}

// databasePath checks the path of a database and makes it absolute. A symbolic link is followed:
// what SQLite has beside a database is beside the file that it leads to.
func databasePath(path string) (string, error) {
	if path == "" {
		return "", errors.New("the path of the database is empty")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if _, err := os.Lstat(path); err == nil {
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return "", fmt.Errorf("the path of the database leads nowhere: %w", err)
		}
	}
	if strings.ContainsAny(path, "?#%") {
		return "", fmt.Errorf("the path %q holds one of ? # %%, which Litestream takes for a part of a URL", path)
	}
	return path, nil
}

// dirFor returns the directory of the replicator's state; path is absolute.
func (c Config) dirFor(path string) string {
	if c.Dir == "" {
		return path + "-replica"
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil { // there is no working directory
		return c.Dir
	}
	return dir
}

// databaseFile is in Config.Dir, where the replicator has written the path of the database whose
// state is there.
const databaseFile = "database"

// dirOfOther returns the path of the database whose state is in Config.Dir, if that is another one
// than that at path. A copy that is put at path is not to change anything there. One that is not at
// its place any more was moved to path, or is restored there.
func (c Config) dirOfOther(path string) string {
	if c.Dir == "" {
		return ""
	}
	other, err := os.ReadFile(filepath.Join(c.dirFor(path), databaseFile))
	if err != nil || string(other) == path {
		return ""
	}
	if there, err := hasContent(string(other)); !there && err == nil {
		return ""
	}
	return string(other)
}

// open opens a database file as configured, for one connection.
func (c Config) open(path string) (*sql.DB, error) {
	open := c.Open
	if open == nil {
		open = func(path string) (*sql.DB, error) { return sql.Open(c.Driver, path) }
	}
	db, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("open a database (see Config.Driver): %w", err)
	}
	db.SetMaxOpenConns(1)
	return db, nil
}
