package backup

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

const (
	// drillLimit bounds a whole drill, and drillReadLimit the transaction that reads the database
	// for it. As long as that is open the write-ahead log only grows, which drillLogLimit bounds,
	// in bytes: Litestream empties a log of 500 MB by force, for which everybody has to wait.
	drillLimit     = 6 * time.Hour
	drillReadLimit = 10 * time.Minute
	drillLogLimit  = 256 << 20

	// drillSyncLimit is how long a drill waits for the replica to catch up.
	drillSyncLimit = 5 * time.Minute

	// drillAttempts is how often a drill begins anew when it was disturbed.
	drillAttempts = 3
)

// A DrillResult is what a trial restore has found.
type DrillResult struct {
	At   time.Time `json:"at"`             // when it began
	TXID uint64    `json:"txid,omitempty"` // the transaction that was restored

	// Error is empty when the restored database was sound and equal to the source.
	Error string `json:"error,omitempty"`

	// Restore is how long it took to restore and check the copy: what is to be expected when it
	// is needed. Duration is that of the whole drill.
	Restore  time.Duration `json:"restore_ns"`
	Duration time.Duration `json:"duration_ns"`

	// Stall is the longest time for which writers had to wait.
	Stall time.Duration `json:"stall_ns"`

	// Lag is what Status.Lag was: what would have been lost with the machine.
	Lag time.Duration `json:"lag_ns"`

	// What was restored. A table counts whether it is the program's or an internal one.
	Bytes  int64 `json:"bytes"`
	Tables int   `json:"tables"`
	Rows   int64 `json:"rows"`
}

// Drill restores the database from the replica for a trial, to Config.Dir, and compares what it
// finds there with what the database holds: that every table has the same rows, at the same
// transaction. The error, also in the result, tells what is wrong. That is an alarm, and Status
// tells it, until a drill succeeds; but for one that ended because ctx did.
//
// The program can write meanwhile, but for a moment: normally some milliseconds, at most a second
// at a time. A drill needs room for a copy of the database. The write-ahead log grows while the database is
// read, which is given up after ten minutes, enough for some 30 GB, or when the log has grown by
// 256 MB. Drills, also those of Config.DrillInterval, come one after the other.
func (r *Replica) Drill(ctx context.Context) (DrillResult, error) {
	var res DrillResult
	err := error(ErrClosed)
	done := make(chan struct{})
	if r.do(func() {
		defer close(done)
		res, err = r.drills.drill(ctx, r)
	}) {
		<-done
	}
	if err != nil {
		return res, fmt.Errorf("backup: trial restore: %w", err)
	}
	return res, nil
}

// drill is one drill, in a goroutine that Close waits for.
func (d *driller) drill(parent context.Context, r *Replica) (res DrillResult, err error) {
	ctx, cancel := context.WithTimeout(parent, drillLimit)
	defer cancel()
	r.work.Go(func() {
		select {
		case <-r.stop:
			cancel()
		case <-ctx.Done():
		}
	})
	if err := d.enter(ctx); err != nil {
		return res, err
	}
	defer d.leave()
	r.mu.Lock()
	started := r.started
	r.mu.Unlock()
	if !started {
		return res, ErrClosed
	}
	began := time.Now()
	res.At = r.cfg.Now()
	for range drillAttempts {
		restarts := r.Status().Restarts
		err = r.drillOnce(ctx, &res)
		// A replicator that starts again may begin with a state of its own, and what is to be
		// restored may be merged with later transactions before it is.
		if err == nil || ctx.Err() != nil || !errors.Is(err, ErrNoBackup) && r.Status().Restarts == restarts {
			break
		}
	}
	res.Duration = time.Since(began)
	switch {
	case r.isClosing():
		return res, ErrClosed
	case parent.Err() != nil:
		return res, parent.Err()
	}
	res.Error = errText(err)
	d.record(r, res)
	return res, err
}

// drillOnce makes one attempt.
func (r *Replica) drillOnce(ctx context.Context, res *DrillResult) error {
	p, err := r.pin(ctx, res)
	if err != nil {
		return fmt.Errorf("look at one transaction: %w", err)
	}
	res.TXID, res.Lag = p.txid, r.Status().Lag
	type read struct {
		digest digest
		err    error
	}
	source := make(chan read, 1)
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		d, err := p.digest(ctx)
		source <- read{d, err}
	}()
	defer func() {
		cancel()
		if source != nil {
			<-source
		}
	}()

	file, err := r.restorePinned(ctx, p.txid, res)
	unsound := errors.Is(err, ErrCorrupt) && file != ""
	defer os.RemoveAll(r.drillDir())
	if err != nil && !unsound {
		return err
	}
	copied, copyErr := r.cfg.digestFile(ctx, file)
	s := <-source
	source = nil
	res.Tables, res.Rows = copied.size(), copied.rows
	switch {
	case s.err != nil:
		return fmt.Errorf("read the database: %w", s.err)
	case copyErr != nil:
		return errors.Join(err, fmt.Errorf("read the copy: %w", copyErr))
	}
	if diff := copied.difference(s.digest); diff != "" {
		return errors.Join(fmt.Errorf("the copy is not equal to the database: %s", diff), err)
	}
	if unsound {
		return fmt.Errorf("the copy is equal to the database, which is unsound itself: %w", err)
	}
	return nil
}

// restorePinned restores a transaction as [Replica.Restore] does. With a file, the error is that
// of the checks.
func (r *Replica) restorePinned(ctx context.Context, txid uint64, res *DrillResult) (file string, err error) {
	waiting, cancel := context.WithTimeout(ctx, drillSyncLimit)
	defer cancel()
	if err := r.sync.wait(waiting, r); err != nil {
		return "", fmt.Errorf("wait until it is in the replica: %w", err)
	}
	dir := r.drillDir()
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
		return "", err
	}
	file = filepath.Join(dir, "restored.db")
	began := time.Now()
	restored, err := r.fetch(ctx, file, RestoreOptions{TXID: txid})
	if err == nil && restored.TXID != txid {
		err = fmt.Errorf("transaction %d was restored instead", restored.TXID)
	}
	if err != nil {
		return "", fmt.Errorf("restore transaction %d: %w", txid, err)
	}
	res.Bytes = restored.Bytes
	err = r.cfg.verify(ctx, file, installed{}, RestoreOptions{})
	res.Restore = time.Since(began)
	return file, err
}

// drillDir is where trial restores go.
func (r *Replica) drillDir() string { return filepath.Join(r.dir, "drill") }

// digestFile reads a restored copy.
func (c Config) digestFile(ctx context.Context, path string) (d digest, err error) {
	db, err := c.open(path)
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	conn, err := db.Conn(ctx)
	if err != nil {
		return d, err
	}
	defer conn.Close()
	// The schema may come from anybody who could write to the replica.
	for _, statement := range []string{"PRAGMA trusted_schema = OFF", "PRAGMA cell_size_check = ON", "PRAGMA query_only = ON"} {
		if _, err := conn.ExecContext(ctx, statement); err != nil {
			return d, err
		}
	}
	return digestOf(ctx, conn)
}

const (
	// pinStall bounds how long writers wait, pinAttempts how often in a drill.
	pinStall    = time.Second
	pinAttempts = 5

	// pinPause is between the attempts.
	pinPause = 2 * time.Second
)

// pinned is the database at one transaction.
type pinned struct {
	db       *sql.DB
	snapshot *sql.Conn // in a transaction that reads
	txid     uint64
	path     string // of the database
}

// digest reads what it sees, and closes it.
func (p pinned) digest(ctx context.Context) (digest, error) {
	limited, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		p.watch(limited, cancel)
	}()
	d, err := digestOf(limited, p.snapshot)
	if cause := context.Cause(limited); cause != nil {
		err = cause
	}
	cancel(nil)
	<-watched
	return d, errors.Join(err, p.close())
}

// watch cancels what takes too long, or makes the write-ahead log too long.
func (p pinned) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	limit := time.NewTimer(drillReadLimit)
	defer limit.Stop()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	before := stateOf(p.path).size
	for {
		select {
		case <-limit.C:
			cancel(fmt.Errorf("that takes longer than %v", drillReadLimit))
		case <-tick.C:
			if stateOf(p.path).size-before > drillLogLimit {
				cancel(fmt.Errorf("so much was written meanwhile that the log grew by more than %d bytes", int64(drillLogLimit)))
			}
		case <-ctx.Done():
			return
		}
	}
}

func (p pinned) close() error {
	var err error
	if p.snapshot != nil {
		err = p.snapshot.Close()
	}
	return errors.Join(err, p.db.Close())
}

// pin finds out which number the state of the database at some moment has. While writers are
// locked out, the replicator captures what they have committed, which is then what a transaction
// sees that began under the lock.
func (r *Replica) pin(ctx context.Context, res *DrillResult) (p pinned, err error) {
	for attempt := range pinAttempts {
		if attempt > 0 {
			pause := time.NewTimer(pinPause)
			select {
			case <-pause.C:
			case <-ctx.Done():
				pause.Stop()
				return p, ctx.Err()
			}
		}
		if p, err = r.tryPin(ctx, res); err == nil || ctx.Err() != nil || r.over() {
			return p, err
		}
	}
	return p, err
}

func (r *Replica) tryPin(ctx context.Context, res *DrillResult) (p pinned, err error) {
	if p.db, err = r.cfg.open(r.path); err != nil {
		return p, err
	}
	p.path = r.path
	p.db.SetMaxOpenConns(2)
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	writer, err := p.db.Conn(ctx)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, writer.Close()) }()
	if p.snapshot, err = p.db.Conn(ctx); err != nil {
		return p, err
	}
	for _, c := range []*sql.Conn{writer, p.snapshot} {
		if _, err := c.ExecContext(ctx, "PRAGMA busy_timeout = 10000"); err != nil {
			return p, err
		}
	}
	// What is captured now takes no time under the lock.
	if _, err := r.call(ctx, wire.Command{Op: wire.Sync}); err != nil {
		return p, err
	}
	if _, err := writer.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return p, err
	}
	locked := time.Now()
	defer func() {
		_, e := writer.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		res.Stall = max(res.Stall, time.Since(locked))
		err = errors.Join(err, e)
	}()
	short, cancel := context.WithTimeout(ctx, pinStall)
	defer cancel()
	if _, err := p.snapshot.ExecContext(short, "BEGIN"); err != nil {
		return p, err
	}
	var n int64 // the transaction sees what is there when it reads for the first time
	if err := p.snapshot.QueryRowContext(short, "SELECT count(*) FROM sqlite_schema").Scan(&n); err != nil {
		return p, err
	}
	captured, err := r.call(short, wire.Command{Op: wire.Sync})
	if err != nil {
		return p, fmt.Errorf("capture while writers wait: %w", err)
	}
	p.txid = captured.TXID
	return p, nil
}
