package replicator

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"
)

// use returns Litestream at work, which will not be given up before done is called.
func (r *replication) use() (k *keeper, done func(), err error) {
	r.using.RLock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keeper == nil || !r.usable || r.damaged {
		r.using.RUnlock()
		return nil, nil, errNotReady
	}
	return r.keeper, r.using.RUnlock, nil
}

// openKeeper returns Litestream at work, and starts it if it was not or its local files have to be
// given up. It is called by the capturing loop only.
func (r *replication) openKeeper(ctx context.Context) (k *keeper, err error) {
	if r.source != nil {
		if err := r.source.keep(); err != nil {
			return nil, err
		}
	}
	r.mu.Lock()
	k, damaged := r.keeper, r.damaged
	r.mu.Unlock()
	if k != nil && !damaged {
		return k, nil
	}
	if k != nil {
		r.log.Warn("local files are missing or damaged; the replica gets a new copy of the whole database")
		if err := r.closeKeeper(k, 0); err != nil {
			return nil, err
		}
	}
	if r.source == nil {
		if r.source, err = openGuard(ctx, r.order.Database); err != nil {
			return nil, err
		}
	}
	if damaged || !r.prepared {
		fresh, err := r.prepareState(ctx)
		if err != nil {
			return nil, err
		}
		r.prepared = true
		r.mu.Lock()
		r.snapshotDue = r.snapshotDue || fresh
		r.mu.Unlock()
	}
	release, err := r.source.hold(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	whole, err := r.connect(ctx)
	if err != nil {
		return nil, err
	}
	k = newKeeper(ctx, r.order, r.source, r.settled, r.quiet)
	k.whole, k.rescue = whole, r.guard
	err = k.open(ctx, &sureClient{ReplicaClient: r.client, settled: r.settled, uploaded: k.uploaded, doubts: r.doubts, snapshots: make(chan struct{}, 1)})
	if err == nil && k.last.txid != 0 {
		err = k.settle(k.last)
	}
	if err != nil {
		r.closeLitestream(k)
		return nil, err
	}
	r.astray = nil
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keeper, r.usable, r.damaged = k, false, false
	return k, nil
}

// connect makes sure that Litestream can go on in the log of the database as it is now, where the
// newest local file ends. Otherwise it writes one after which it will do the right thing. whole
// reports that this is a copy of the whole database.
//
// Until Litestream has opened the database, the guard has to keep the log from beginning anew.
func (r *replication) connect(ctx context.Context) (whole bool, err error) {
	last, err := newestLocal(stateDir(r.order))
	if err != nil {
		return false, err
	}
	at := r.settled.position()
	sum, sumErr := r.source.index.checksum(at.end)
	from, known := last.end, r.astray == nil && sumErr == nil && at == position{last.txid, last.end, sum}
	// What makes the log begin anew does it here, while it is known where the old one ends. Then
	// it cannot until a checkpoint has come behind this commit, which a reader prevents.
	before, after, err := r.source.write(ctx)
	if err != nil || last.txid == 0 {
		return true, err
	}
	if r.astray != nil && r.astray.covered != (walMark{}) {
		from, known = r.astray.covered, true
	}
	anew := !after.sameLog(before)
	known = known && from.sameLog(before) && from.frames <= before.frames && (!anew || from.frames == before.frames)
	if known && !anew && from.sameLog(last.end) {
		return false, nil
	}
	log := nowhere
	if known {
		log = after
	} else {
		r.log.Info("a copy of the whole database is made, as it is not known what was written meanwhile")
	}
	object, err := blank(last.txid+1, last.pageSize, last.commit, time.Now().UnixMilli(), log)
	if err != nil {
		return false, err
	}
	return !known, addLocal(stateDir(r.order), last.txid+1, func(f *os.File) error {
		_, err := f.Write(object)
		return err
	})
}

// closeKeeper stops Litestream without another upload, and removes the local files after txid.
func (r *replication) closeKeeper(k *keeper, txid ltx.TXID) error {
	k.cancel()
	r.using.Lock()
	defer r.using.Unlock()
	r.closeLitestream(k)
	r.mu.Lock()
	r.keeper, r.usable = nil, false
	r.mu.Unlock()
	return removeAfter(stateDir(r.order), txid)
}

// closeLitestream closes k while the guard stays open.
func (r *replication) closeLitestream(k *keeper) {
	if err := k.close(); err != nil {
		r.log.Debug("stop Litestream", "error", err)
	}
	if err := r.source.keep(); err != nil { // it is asked again before anything else is done
		r.log.Debug("keep the log", "error", err)
	}
}

// checkDamage takes note of errors that say that local files are missing or damaged.
func (r *replication) checkDamage(err error) {
	var bad *litestream.LTXError
	if !errors.As(err, &bad) || !bad.IsAutoRecoverable() || !strings.HasPrefix(bad.Path, stateDir(r.order)) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.damaged = r.damaged || r.keeper != nil
}
