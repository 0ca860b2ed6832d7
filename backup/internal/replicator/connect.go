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
	if r.keeper == nil || !r.ready || r.damaged {
		r.using.RUnlock()
		return nil, nil, errNotReady
	}
	return r.keeper, r.using.RUnlock, nil
}

// openKeeper returns Litestream at work, and starts it if it was not or its local files have to be
// given up. It is called by the capturing loop only.
func (r *replication) openKeeper(ctx context.Context) (k *keeper, err error) {
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
	k.whole = whole
	if err := k.open(ctx, r.client); err != nil {
		if closeErr := k.close(); closeErr != nil {
			r.log.Debug("stop Litestream", "error", closeErr)
		}
		return nil, err
	}
	if k.last.txid != 0 {
		if err := k.settle(k.last); err != nil {
			return nil, errors.Join(err, k.close())
		}
	}
	r.astray = nil
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keeper, r.damaged = k, false
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
	if err := k.close(); err != nil {
		r.log.Debug("stop Litestream", "error", err)
	}
	r.mu.Lock()
	r.keeper = nil
	r.mu.Unlock()
	return removeAfter(stateDir(r.order), txid)
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
