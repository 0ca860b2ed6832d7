package replicator

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/benbjohnson/litestream"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

const (
	// stateInterval is how often the program is told how it goes. It takes silence for a sign that
	// the replicator is stuck.
	stateInterval = time.Second

	// leasePatience is how long a lease is waited for when the program has ended.
	leasePatience = 5 * time.Second

	// snapshotPause is the least time between attempts to make a snapshot that is due.
	snapshotPause = 10 * time.Second

	// notePause is the least time between log lines about the same kind of error.
	notePause = 30 * time.Second

	// retryPause is the pause between attempts where no loop runs.
	retryPause = time.Second
)

var errStopped = errors.New("it was stopped before anything was replicated")

// A replication is what a child does in Replicate mode.
type replication struct {
	*child
	stopping  chan struct{} // closed when the program wants the end, or has ended
	stopOnce  sync.Once
	goAhead   chan struct{} // closed by the command Go
	goOnce    sync.Once
	life      context.Context // ends Order.FinalSync after stopping
	ending    context.CancelFunc
	slots     chan struct{} // of commands that are worked on
	finder    finder
	captures  *loop
	uploads   *loop
	snapshots *loop

	mu            sync.Mutex
	keeper        *keeper // nil before it is opened
	usable        bool    // the keeper has captured something
	ready         bool
	txid, there   uint64 // newest that was captured, and that is in the replica
	leaseError    error
	captureError  error
	uploadError   error
	noted         time.Time // when an error was logged
	damaged       bool      // local files are missing or damaged
	snapshotDue   bool
	snapshotTried time.Time

	using sync.RWMutex // held for writing while the keeper is given up

	// For the capturing loop only.
	source   *guard // nil before it is opened
	prepared bool
	astray   *astrayError // why the last keeper was given up

	settled *settled
	doubts  *doubts
	broken  chan error // gets why this process cannot go on
}

// replicate runs until the program wants the end, and makes a last sync.
func (c *child) replicate(ctx context.Context) wire.Event {
	r := &replication{
		child: c, stopping: make(chan struct{}), goAhead: make(chan struct{}), slots: make(chan struct{}, maxCommands),
		doubts: newDoubts(), broken: make(chan error, 1),
	}
	r.settled = newSettled(stateDir(c.order))
	r.life, r.ending = context.WithCancel(ctx)
	defer r.ending()
	r.captures = newLoop(c.order.SyncInterval, r.capture)
	r.uploads = newLoop(c.order.SyncInterval, r.upload)
	r.snapshots = newLoop(0, r.snapshot)
	r.start(r.serve)
	r.start(r.tell)

	got, err := r.prepare()
	if err != nil {
		return r.failed(err)
	}
	defer runtime.KeepAlive(got.lock) // until the end of the process
	select {
	case by := <-got.lost:
		return r.fenced(by)
	default:
	}
	r.start(func() { r.captures.run(r.life) })
	r.start(func() { r.uploads.run(r.life) })
	r.start(func() { r.snapshots.run(r.life) })
	r.captures.join()
	select {
	case by := <-got.lost:
		return r.fenced(by)
	case err := <-r.broken:
		return r.failed(err) // the next process will do it
	case <-r.stopping:
	}
	done, by := r.finish(got.lost)
	if by != "" {
		return r.fenced(by)
	}
	got.release()
	return done
}

// start runs fn in a goroutine that lives as long as the process.
func (r *replication) start(fn func()) {
	go func() {
		defer r.guard()
		fn()
	}()
}

// A grant is the right to write to the replica.
type grant struct {
	lock    *os.File
	lost    <-chan string // gets the name of who has taken the lease; nil: there are none
	release func()        // gives the lease back
}

// prepare gets hold of everything that is needed. After that, the database may be replicated.
func (r *replication) prepare() (got grant, err error) {
	if err := os.MkdirAll(r.order.Dir, 0o700); err != nil {
		return got, err
	}
	if got.lock, err = r.lock(r.life); err != nil {
		return got, err
	}
	if err := noteDatabase(r.order); err != nil {
		return got, err
	}
	got.release = func() {}
	if r.order.Owner != "" && r.scheme.Leaser != nil {
		if got.lost, got.release, err = r.awaitLease(); err != nil {
			return got, err // the lock ends with the process
		}
	}
	if !r.order.Known {
		if err := r.occupy(); err != nil {
			got.release()
			return got, err
		}
	}
	return got, nil
}

// awaitLease waits for the lease, but not for long when the program has ended: its own is free at
// once, another one is not worth it.
func (r *replication) awaitLease() (lost <-chan string, release func(), err error) {
	ctx, cancel := context.WithCancel(r.life)
	acquired := make(chan struct{})
	defer close(acquired)
	r.start(func() {
		select {
		case <-acquired:
			return
		case <-r.stopping:
		}
		select {
		case <-acquired:
		case <-time.After(leasePatience):
			cancel()
		}
	})
	lost, release, err = r.holdLeaseNoting(ctx, func(err error) { r.note(&r.leaseError, err) })
	if err != nil {
		cancel()
		if codeOf(err) == wire.CodeLeased {
			r.send(wire.Event{Kind: wire.Refused, Code: wire.CodeLeased, Error: r.redact.text(err.Error())})
		}
		return nil, nil, err
	}
	return lost, release, nil
}

// occupy makes sure that the replica may be written to for a database that is new to it.
func (r *replication) occupy() error {
	for {
		what, err := r.holds(r.life)
		switch {
		case err != nil && r.life.Err() != nil:
			return errors.Join(errStopped, err)
		case err != nil:
			r.note(&r.uploadError, err)
			select {
			case <-time.After(retryPause):
			case <-r.stopping:
				return errors.Join(errStopped, err)
			}
			continue
		case what != "" && !r.order.Adopt:
			err := &codeError{wire.CodeNotEmpty, fmt.Errorf("the replica is not empty: it holds %s", what)}
			r.send(wire.Event{Kind: wire.Refused, Code: err.code, Error: err.Error()})
			return err
		}
		break
	}
	r.note(&r.uploadError, nil)
	r.send(wire.Event{Kind: wire.Vacant})
	select {
	case <-r.goAhead:
		return nil
	case <-r.stopping:
		return errStopped
	}
}

// holds tells what is in the replica; "": nothing.
func (c *child) holds(ctx context.Context) (string, error) {
	for level := range litestream.SnapshotLevel + 1 {
		newest, err := newestOf(ctx, c.client, level)
		if err != nil {
			return "", err
		}
		if newest.MaxTXID != 0 {
			return fmt.Sprintf("transactions up to %d", newest.MaxTXID), nil
		}
	}
	if old, ok := c.client.(litestream.ReplicaClientV3); ok {
		generations, err := old.GenerationsV3(ctx)
		if err != nil {
			return "", err
		}
		if len(generations) > 0 {
			return "a replica of an older version of Litestream", nil
		}
	}
	return "", nil
}

// capture is a round of the loop that captures.
func (r *replication) capture(ctx context.Context) (txid uint64, err error) {
	for range 3 {
		var k *keeper
		if k, err = r.openKeeper(ctx); err != nil {
			break
		}
		if txid, err = k.capture(ctx); err == nil {
			err = r.source.keep() // otherwise it was something else that was captured
		}
		if err == nil {
			again := false
			if r.isStopping() {
				again, err = r.source.clean(ctx)
			}
			if again {
				err = errors.New("there is a part of a commit behind the end of the log")
				continue
			}
			if err == nil {
				r.captured(txid)
				return txid, nil
			}
		}
		var astray *astrayError
		if !errors.As(err, &astray) {
			break
		}
		r.log.Warn("what was captured last is captured again", "why", astray.why, "all", astray.covered == walMark{})
		if err := r.closeKeeper(k, r.settled.newest()); err != nil {
			return 0, err
		}
		r.astray = astray
	}
	r.checkDamage(err)
	r.note(&r.captureError, err)
	if errors.Is(err, errOtherFiles) {
		select {
		case r.broken <- err:
		default:
		}
	}
	return 0, err
}

// captured takes note that everything up to txid is in local files.
func (r *replication) captured(txid uint64) {
	r.mu.Lock()
	first, news, failing := !r.ready, txid != r.txid, r.uploadError != nil
	r.ready, r.usable, r.txid = true, true, txid
	r.captureError = nil
	r.mu.Unlock()
	if first {
		r.send(wire.Event{Kind: wire.Ready, TXID: txid})
	}
	if news && !failing { // otherwise the loop sees to it
		r.uploads.join()
	}
}

// upload is a round of the loop that uploads.
func (r *replication) upload(context.Context) (uint64, error) {
	k, done, err := r.use()
	if err != nil {
		return 0, err
	}
	defer done()
	there, err := k.upload()
	if err != nil {
		r.checkDamage(err)
		r.note(&r.uploadError, err)
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.uploadError, r.there = nil, max(r.there, there)
	if r.snapshotDue && time.Since(r.snapshotTried) > snapshotPause {
		r.snapshotTried = time.Now()
		r.snapshots.join()
	}
	return there, nil
}

var errNotReady = errors.New("nothing is captured yet")

// snapshot is a round of the loop that makes snapshots.
func (r *replication) snapshot(context.Context) (uint64, error) {
	k, done, err := r.use()
	if err != nil {
		return 0, err
	}
	defer done()
	txid, err := k.snapshot()
	if err != nil {
		r.log.Warn("make a snapshot", "error", err)
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.snapshotDue = false
	return txid, nil
}

// note keeps the error of the last attempt.
func (r *replication) note(place *error, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	news := *place == nil || codeOf(*place) != codeOf(err) || time.Since(r.noted) > notePause
	if err != nil && news && r.life.Err() == nil {
		r.log.Warn("replication does not get on", "error", err)
		r.noted = time.Now()
	}
	*place = err
}

// tell tells the program each second how it goes.
func (r *replication) tell() {
	tick := time.NewTicker(stateInterval)
	defer tick.Stop()
	for range tick.C {
		r.sendState()
	}
}

func (r *replication) sendState() {
	e := wire.Event{Kind: wire.State, RSS: residentBytes(), Moved: r.gate.moved.Load()}
	r.mu.Lock()
	k := r.keeper
	e.TXID, e.ReplicaTXID = r.txid, r.there
	err := errors.Join(r.leaseError, r.captureError, r.uploadError)
	r.mu.Unlock()
	if k != nil {
		e.ReplicaTXID = max(e.ReplicaTXID, min(k.uploaded(), e.TXID))
		e.WALBytes = k.walBytes()
	}
	if err != nil {
		e.Code, e.Error = codeOf(err), r.redact.text(err.Error())
	} else if silence := r.gate.silence(); silence > silenceToTell {
		e.Error = fmt.Sprintf("%v for %v", errNoAnswer, silence.Round(time.Second))
	}
	r.send(e)
}

// silenceToTell is how long the store may be silent before that is told.
const silenceToTell = 5 * time.Second

// fenced stops everything: somebody else has the lease.
func (r *replication) fenced(by string) wire.Event {
	r.gate.shut(&codeError{wire.CodeLeased, fmt.Errorf("%s has taken over the replica", by)})
	r.send(wire.Event{Kind: wire.Fenced, Text: r.redact.text(by)})
	return wire.Event{Code: wire.CodeLeased, Error: r.redact.text(by + " has taken over the replica")}
}

func (r *replication) isStopping() bool {
	select {
	case <-r.stopping:
		return true
	default:
		return false
	}
}

// stop begins the end.
func (r *replication) stop() {
	r.stopOnce.Do(func() {
		close(r.stopping)
		time.AfterFunc(r.order.FinalSync, r.ending)
	})
}
