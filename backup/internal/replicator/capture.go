package replicator

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/superfly/ltx"
)

// Litestream reads the write-ahead log to its last valid frame, and goes on later where it was if
// the last frame that it has read is still there. That is not good enough:
//
// For SQLite, the log ends where the wal-index says, which may be before that. A writer writes its
// frames, waits until they are on the disk, and only then makes them count. When it dies in between
// while others have the database open, its frames never count, and are written over by the next
// writer. And a log that was checkpointed and has begun anew meanwhile may have had more frames than
// were read, of which no trace is left.
//
// In both cases the replica would hold a database that never was, or a damaged one, and nobody would
// know. So here the log is read up to where it counts before it is read, it begins anew only when
// that is known to have been read, and in all other cases the whole database is copied again.

const (
	// maxCapture bounds a local file: so much of the log is read at a time, but for the rest of a
	// transaction.
	maxCapture = 64 << 20

	// checkpointFrames is the length of the log in frames at which it is to begin anew, and
	// checkpointEvery after what time it is if it is shorter.
	checkpointFrames = 1000
	checkpointEvery  = time.Minute

	// checkpointPause is the least time between attempts to begin a log anew that readers need.
	checkpointPause = 10 * time.Second

	// checkpointPatience is how long writers are waited for, as it can be done another time.
	checkpointPatience = 100 * time.Millisecond

	// maxSealed is how many frames are read while nobody can write, if that can be avoided.
	maxSealed = 1000

	// mostUnsealed is how often others are let write again for that.
	mostUnsealed = 5
)

// An astrayError says that the local files cannot be gone on from: what was captured last is not
// settled. covered is the log that has begun anew behind what is settled, if that is known.
type astrayError struct {
	why     string
	covered walMark
}

func (e *astrayError) Error() string { return "what was captured cannot be gone on from: " + e.why }

// capture writes what was committed to files in the state directory, and returns the number of the
// newest. The error may be an *astrayError.
func (k *keeper) capture(ctx context.Context) (txid uint64, err error) {
	if _, err := os.Stat(k.path); err != nil {
		return 0, err
	}
	if k.whole || k.last.txid == 0 {
		if err := k.captureWhole(ctx); err != nil {
			return 0, err
		}
		return uint64(k.last.txid), k.start(ctx)
	}
	end, err := k.guard.index.read(ctx)
	if err != nil {
		return 0, err
	}
	if err := k.captureUntil(ctx, end); err != nil {
		return 0, err
	}
	if k.checkpointDue() {
		if err := k.checkpoint(ctx); err != nil {
			return 0, err
		}
	}
	return uint64(k.last.txid), k.start(ctx)
}

// captureUntil captures what counts, which is what comes before end.
func (k *keeper) captureUntil(ctx context.Context, end walMark) error {
	if !k.last.end.sameLog(end) || k.last.end.frames > end.frames {
		return &astrayError{why: "the log is another one"}
	}
	for k.last.end.frames < end.frames {
		k.db.MaxSyncWALBytes = min(int64(end.frames-k.last.end.frames)*end.frameSize(), maxCapture)
		if err := k.syncOnce(ctx); err != nil {
			return err
		}
		now, err := localAfter(k.state, k.last.txid)
		if err != nil {
			return err
		}
		switch {
		case now.txid != k.last.txid+1:
			return &astrayError{why: fmt.Sprintf("after transaction %d came %d", k.last.txid, now.txid)}
		case !now.end.sameLog(end) || now.end.frames > end.frames || now.end.frames <= k.last.end.frames:
			return &astrayError{why: fmt.Sprintf("%v was read after %v, while %v counts", now.end, k.last.end, end)}
		}
		if err := k.settle(now); err != nil {
			return err
		}
	}
	return nil
}

// settle takes note that a captured file is right.
func (k *keeper) settle(f localFile) error {
	sum, err := k.guard.index.checksum(f.end)
	if err != nil {
		return err
	}
	k.last = f
	return k.settled.set(f, sum)
}

// captureWhole captures a copy of the whole database. Litestream reads all of the log for that, so
// nobody can write until it knows which of its frames it needs.
func (k *keeper) captureWhole(ctx context.Context) error {
	return k.guard.locked(ctx, func(end walMark, release func()) error {
		read := make(chan struct{})
		var poll sync.WaitGroup
		defer poll.Wait()
		defer close(read)
		poll.Go(func() {
			defer k.rescue()
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-read:
					return
				case <-tick.C:
				}
				if strings.HasPrefix(k.db.SyncDiagnostic().Phase, "write_ltx") {
					release()
					return
				}
			}
		})
		k.db.MaxSyncWALBytes = 0
		if err := k.syncOnce(ctx); err != nil {
			return err
		}
		now, err := localAfter(k.state, k.last.txid)
		if err != nil {
			return err
		}
		if now.txid != k.last.txid+1 || !now.end.sameLog(end) || now.end.frames != end.frames {
			return &astrayError{why: fmt.Sprintf("a copy of the whole database at %v after transaction %d is %d at %v", end, k.last.txid, now.txid, now.end)}
		}
		k.whole = false
		return k.settle(now)
	})
}

// syncOnce lets Litestream write one local file.
func (k *keeper) syncOnce(ctx context.Context) error {
	err := k.db.Sync(onceContext{ctx, k.db.Notify()})
	if errors.Is(err, errCaptured) {
		return nil
	}
	return err
}

// A onceContext ends when Litestream has written a local file, instead of which it would go on with
// the next one.
type onceContext struct {
	context.Context
	captured <-chan struct{}
}

var errCaptured = errors.New("captured")

func (c onceContext) Err() error {
	select {
	case <-c.captured:
		return errCaptured
	default:
		return c.Context.Err()
	}
}

func (k *keeper) checkpointDue() bool {
	frames, since := k.last.end.frames, time.Since(k.checkpointed)
	if frames < k.tried { // it has begun anew
		k.tried = 0
	}
	return frames > 1 && since > checkpointEvery || frames >= checkpointFrames && (since > checkpointPause || frames-k.tried >= checkpointFrames)
}

// checkpoint lets Litestream checkpoint the log, and the log begin anew if no reader needs it.
//
// Litestream reads the rest of the log itself before that, so others are kept from writing from the
// moment when it is known where it ends until Litestream's own transaction does that.
func (k *keeper) checkpoint(ctx context.Context) error {
	defer k.guard.index.unlock() //nolint:errcheck // it ends with the process at the latest
	sealed, ok, err := k.seal(ctx)
	if err != nil || !ok {
		return err
	}
	k.checkpointed = time.Now()
	more, err := k.guard.index.goesOn(sealed)
	if err != nil {
		return err
	}
	if more { // a part of a commit that never was
		_ = k.guard.index.unlock()
		_, _, err := k.guard.write(ctx)
		return err
	}
	if err := k.captureUntil(ctx, sealed); err != nil {
		return err
	}
	k.tried = sealed.frames
	if err := k.settled.suspend(); err != nil {
		return err
	}
	checkpointErr := k.db.Checkpoint(ctx, "PASSIVE")
	if err := k.afterCheckpoint(ctx, sealed); err != nil {
		return errors.Join(err, checkpointErr)
	}
	if checkpointErr != nil {
		// It may have been done but for the commit after it, without which Litestream's reader does
		// not keep the log from being written over.
		return errors.Join(&astrayError{fmt.Sprintf("the log could not be checkpointed: %v", checkpointErr), k.last.end}, k.settled.resume())
	}
	return k.settled.resume()
}

// seal keeps others from writing, at a time when most of the log is captured, and returns its end.
// ok is false when it can wait.
func (k *keeper) seal(ctx context.Context) (end walMark, ok bool, err error) {
	for round := 0; ; round++ {
		waiting, cancel := context.WithTimeout(ctx, checkpointPatience)
		err = k.guard.index.lock(waiting)
		cancel()
		if err != nil {
			return end, false, nil
		}
		if end, err = k.guard.index.read(ctx); err != nil {
			return end, false, err
		}
		little := end.sameLog(k.last.end) && int64(end.frames)-int64(k.last.end.frames) <= maxSealed
		if little || round == mostUnsealed {
			return end, true, nil
		}
		if err := k.guard.index.unlock(); err != nil {
			return end, false, err
		}
		if err := k.captureUntil(ctx, end); err != nil {
			return end, false, err
		}
	}
}

// afterCheckpoint makes sure that what Litestream has captured by itself is what counts. It may
// have read the beginning of a new log while others wrote there.
func (k *keeper) afterCheckpoint(ctx context.Context, sealed walMark) error {
	now, err := localAfter(k.state, k.last.txid)
	if err != nil {
		return err
	}
	end, err := k.guard.index.read(ctx)
	if err != nil {
		return err
	}
	if end.sameLog(sealed) {
		if now.txid != k.last.txid {
			return &astrayError{why: "more was read than was sealed"}
		}
		return nil
	}
	// The log that was sealed could not go on: Litestream has been reading the database ever since,
	// so that it could not be checkpointed any further.
	covered := walMark{end.salt1, end.salt2, 0, end.pageSize}
	switch {
	case end.salt1 != sealed.salt1+1:
		return &astrayError{why: "the log has begun anew twice"}
	case now.txid == k.last.txid:
		return &astrayError{"nothing was read of the new log", covered}
	case now.txid != k.last.txid+1 || !now.end.sameLog(end):
		return &astrayError{"more was read than was sealed", covered}
	}
	for began := time.Now(); end.frames < now.end.frames; { // until a writer that was at it is through
		if time.Since(began) > busyTimeout {
			return &astrayError{"a part of a commit was read that never was", covered}
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return &astrayError{"there is no more time", covered}
		}
		if end, err = k.guard.index.read(ctx); err != nil {
			return err
		}
		if !now.end.sameLog(end) {
			return &astrayError{why: "the log has begun anew again"}
		}
	}
	same, err := sameAsLog(k.db.WALPath(), now)
	if err != nil {
		return err
	}
	if !same {
		return &astrayError{"what was read was written over", covered}
	}
	return k.settle(now)
}

// A localFile is a captured file.
type localFile struct {
	txid     ltx.TXID
	end      walMark // up to which it goes
	pageSize uint32
	commit   uint32 // pages of the database
	name     string
}
