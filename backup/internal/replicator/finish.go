package replicator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

// finish syncs until everything is in the replica, or there is no more time. by is who has taken
// the lease meanwhile.
func (r *replication) finish(lost <-chan string) (done wire.Event, by string) {
	over := make(chan wire.Event, 1)
	r.start(func() { over <- r.lastSync() })
	stuck := time.NewTimer(r.order.FinalSync + 2*time.Second)
	defer stuck.Stop()
	select {
	case by := <-lost:
		return wire.Event{}, by
	case done := <-over:
		return done, ""
	case <-stuck.C:
		r.mu.Lock()
		defer r.mu.Unlock()
		return wire.Event{TXID: r.txid, ReplicaTXID: r.there, Code: wire.CodeNotInTime, Error: "the last sync is stuck"}, ""
	}
}

func (r *replication) lastSync() wire.Event {
	var txid, there uint64
	var err error
	for {
		txid, err = r.captures.wait(r.life)
		if err == nil || errors.Is(err, fs.ErrNotExist) { // the database may be gone; the files are not
			var uploadErr error
			there, uploadErr = r.uploads.wait(r.life)
			err = errors.Join(err, uploadErr)
		}
		if err == nil && there >= txid {
			break
		}
		if _, statErr := os.Stat(r.order.Database); errors.Is(statErr, fs.ErrNotExist) && there != 0 {
			err = errors.Join(statErr, err)
			break
		}
		pause := time.NewTimer(leastBackoff)
		select {
		case <-pause.C:
			continue
		case <-r.life.Done():
			pause.Stop()
		}
		break
	}
	r.mu.Lock()
	k := r.keeper
	done := wire.Event{TXID: max(txid, r.txid), ReplicaTXID: max(there, r.there)}
	why := errors.Join(r.leaseError, r.captureError, r.uploadError)
	r.mu.Unlock()
	if err != nil {
		if why == nil {
			why = err
		}
		done.Code, done.Error = codeOf(why), r.redact.text(fmt.Sprintf("not everything is in the replica: %v", why))
		return done
	}
	r.ending()
	<-r.captures.ended
	<-r.uploads.ended
	<-r.snapshots.ended
	if err := k.close(); err != nil {
		r.log.Debug("stop Litestream", "error", err)
	}
	// What was being written to the levels above is there in part, or may be.
	ctx, cancel := context.WithTimeout(context.Background(), clearPatience)
	defer cancel()
	if err := (&sureClient{ReplicaClient: r.client, doubts: r.doubts}).clear(ctx); err != nil {
		r.log.Warn("leave a tidy replica", "error", err)
	}
	r.source.close()
	return done
}

// clearPatience is how long deleting objects may take at the end.
const clearPatience = 2 * time.Second
