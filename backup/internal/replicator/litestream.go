package replicator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

const (
	// busyTimeout is how long a writer is waited for.
	busyTimeout = 5 * time.Second

	// leastL0Retention is how long single transactions can be restored at least.
	leastL0Retention = 5 * time.Minute
)

// levels are how transactions are put together in larger and larger objects.
func levels() litestream.CompactionLevels {
	return litestream.CompactionLevels{
		{Level: 0},
		{Level: 1, Interval: 30 * time.Second},
		{Level: 2, Interval: 5 * time.Minute},
		{Level: 3, Interval: time.Hour},
	}
}

// A keeper is Litestream at work on the database, without loops of its own but for those that put
// objects of the replica together and delete old ones. See [keeper.capture] for what is done to it.
type keeper struct {
	ctx    context.Context // of uploads
	cancel context.CancelFunc
	db     *litestream.DB
	store  *litestream.Store
	guard  *guard
	rescue func() // deferred by goroutines
	path   string
	state  string // directory

	// For the goroutine that captures only.
	last         localFile
	started      bool      // see start
	whole        bool      // the next capture is a copy of the whole database
	checkpointed time.Time // the last attempt
	tried        uint32    // length of the log at the last attempt to begin it anew

	settled *settled
}

// stateDir is where Litestream keeps what it captured.
func stateDir(o wire.Order) string { return filepath.Join(o.Dir, "litestream") }

// newKeeper prepares Litestream. It does not touch the database yet.
func newKeeper(ctx context.Context, o wire.Order, g *guard, s *settled, log *slog.Logger) *keeper {
	db := litestream.NewDB(o.Database)
	db.SetMetaPath(stateDir(o))
	db.MonitorInterval = 0 // the loops of this package do that
	db.BusyTimeout = busyTimeout
	db.MinCheckpointPageN = math.MaxInt32 // so does keeper.checkpoint
	db.TruncatePageN = math.MaxInt32
	db.CheckpointInterval = 0
	db.Replica = litestream.NewReplicaWithClient(db, nil)
	db.Replica.MonitorEnabled = false
	db.Replica.AutoRecoverEnabled = false // it starts to count from 1 again, and copies nothing

	store := litestream.NewStore([]*litestream.DB{db}, levels())
	store.Logger = log
	db.SetLogger(log)
	store.SnapshotInterval = o.SnapshotInterval
	store.SnapshotRetention = o.Retention
	store.L0RetentionCheckInterval = time.Minute
	store.SetL0Retention(max(leastL0Retention, 10*o.SyncInterval))
	store.SetVerifyCompaction(true)
	k := &keeper{db: db, store: store, guard: g, path: o.Database, state: stateDir(o), settled: s, checkpointed: time.Now()}
	k.ctx, k.cancel = context.WithCancel(ctx)
	return k
}

// open lets Litestream open the database, so that the log does not begin anew unless it says so.
// client is where it uploads to.
func (k *keeper) open(ctx context.Context, client litestream.ReplicaClient) (err error) {
	if k.last, err = newestLocal(k.state); err != nil {
		return err
	}
	// Litestream can only be made to open it by a sync. This one ends when the database is open.
	initializing, cancel := context.WithCancel(ctx)
	defer cancel()
	k.db.Replica.Client = &initClient{txid: k.last.txid, asked: cancel}
	err = k.db.Sync(initializing)
	if k.db.PageSize() == 0 || k.db.SQLDB() == nil {
		return errors.Join(errors.New("the database cannot be opened"), err)
	}
	k.db.Replica.Client = client
	return nil
}

// start starts what runs in the background, for which something has to be captured.
func (k *keeper) start(ctx context.Context) error {
	if k.started {
		return nil
	}
	if err := k.store.Open(ctx); err != nil {
		return err
	}
	k.started = true
	return nil
}

// An initClient stands in for the replica while the database is opened. Litestream asks where the
// replica is, which prepareState has seen to.
type initClient struct {
	litestream.ReplicaClient
	txid  ltx.TXID
	asked func()
}

func (c *initClient) LTXFiles(context.Context, int, ltx.TXID, bool) (ltx.FileIterator, error) {
	c.asked()
	return ltx.NewFileInfoSliceIterator([]*ltx.FileInfo{{MinTXID: c.txid, MaxTXID: c.txid}}), nil
}

func (c *initClient) Type() string { return "none" }

// upload copies what is captured to the replica, and returns the number of the newest that is
// there.
func (k *keeper) upload() (txid uint64, err error) {
	if err := k.db.Replica.Sync(k.ctx); err != nil {
		return 0, err
	}
	pos, err := k.db.Pos()
	if err != nil {
		return 0, err
	}
	there := uint64(k.db.Replica.Pos().TXID)
	if there > uint64(pos.TXID) {
		return 0, &codeError{wire.CodeOtherOwner, fmt.Errorf(
			"the replica is at transaction %d, the database at %d: somebody else writes to it", there, pos.TXID)}
	}
	return there, nil
}

// uploaded is the number of the newest that is in the replica, as far as known. 0: not known.
func (k *keeper) uploaded() uint64 { return uint64(k.db.Replica.Pos().TXID) }

// snapshot writes a whole copy of the database to the replica.
func (k *keeper) snapshot() (txid uint64, err error) {
	info, err := k.db.Snapshot(k.ctx)
	if err != nil {
		return 0, err
	}
	return uint64(info.MaxTXID), nil
}

// close ends the work without another capture or upload.
func (k *keeper) close() error {
	k.cancel()
	k.store.SetShutdownSyncTimeout(0)
	if err := k.store.Close(k.ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// walBytes is the size of the write-ahead log.
func (k *keeper) walBytes() int64 {
	info, err := os.Stat(k.db.WALPath())
	if err != nil {
		return 0
	}
	return info.Size()
}
