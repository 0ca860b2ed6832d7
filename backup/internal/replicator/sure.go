package replicator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"
)

// A sureClient is between Litestream and the replica. It keeps what is not settled from there. And
// Litestream takes any object that is listed for whole, while a store may have kept the half of one
// when the upload has failed: such objects are not listed, and deleted when that is possible.
type sureClient struct {
	litestream.ReplicaClient
	settled  *settled
	uploaded func() uint64 // the newest of level 0 in the replica

	snapshots chan struct{} // one slot: a snapshot is being written
	doubts    *doubts
}

// doubts are the objects of which the replica may have a part only. They outlive Litestream when it
// is closed and opened again.
type doubts struct {
	clearing chan struct{} // one slot: some are being deleted

	mu      sync.Mutex
	objects map[object]bool
}

func newDoubts() *doubts {
	return &doubts{clearing: make(chan struct{}, 1), objects: map[object]bool{}}
}

func (d *doubts) has(o object) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.objects[o]
}

func (d *doubts) add(o object) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.objects[o] = true
}

func (d *doubts) remove(o object) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.objects, o)
}

// above returns those above level 0.
func (d *doubts) above() (objects []object) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for o := range d.objects {
		if o.level > 0 {
			objects = append(objects, o)
		}
	}
	return objects
}

// An object is the name of one in the replica.
type object struct {
	level       int
	first, last ltx.TXID
}

func (c *sureClient) WriteLTXFile(ctx context.Context, level int, first, last ltx.TXID, body io.Reader) (*ltx.FileInfo, error) {
	if level == 0 || level == litestream.SnapshotLevel {
		if err := c.settled.await(ctx, last); err != nil {
			return nil, err
		}
	}
	if level == litestream.SnapshotLevel {
		if err := c.awaitUploaded(ctx, last); err != nil {
			return nil, err
		}
		// Two of the same transaction would have the same name, and share a temporary file.
		select {
		case c.snapshots <- struct{}{}:
			defer func() { <-c.snapshots }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if level > 0 { // one of level 0 is written over
		if err := c.clear(ctx); err != nil {
			return nil, err
		}
	}
	info, err := c.ReplicaClient.WriteLTXFile(ctx, level, first, last, body)
	if name := (object{level, first, last}); err != nil {
		c.doubts.add(name)
	} else {
		c.doubts.remove(name)
	}
	return info, err
}

// snapshotPatience is how long a snapshot waits for what it contains to be in the replica already.
const snapshotPatience = 10 * time.Second

// awaitUploaded returns when txid is in the replica at level 0: a process that went on from a replica
// that lacks it there would need a copy of everything.
func (c *sureClient) awaitUploaded(ctx context.Context, txid ltx.TXID) error {
	ctx, cancel := context.WithTimeout(ctx, snapshotPatience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for c.uploaded() < uint64(txid) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("a snapshot waits for transaction %d to be in the replica: %w", txid, ctx.Err())
		}
	}
	return nil
}

// clear deletes what is doubtful above level 0. One does that at a time: what another level has
// deleted and written again since must not be deleted once more.
func (c *sureClient) clear(ctx context.Context) error {
	select {
	case c.doubts.clearing <- struct{}{}:
		defer func() { <-c.doubts.clearing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	names := c.doubts.above()
	infos := make([]*ltx.FileInfo, 0, len(names))
	for _, name := range names {
		infos = append(infos, &ltx.FileInfo{Level: name.level, MinTXID: name.first, MaxTXID: name.last})
	}
	if len(infos) == 0 {
		return nil
	}
	if err := c.DeleteLTXFiles(ctx, infos); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete what was written in part: %w", err)
	}
	for _, name := range names {
		c.doubts.remove(name)
	}
	return nil
}

func (c *sureClient) LTXFiles(ctx context.Context, level int, seek ltx.TXID, useMetadata bool) (ltx.FileIterator, error) {
	files, err := c.ReplicaClient.LTXFiles(ctx, level, seek, useMetadata)
	if err != nil {
		return nil, err
	}
	return &sureFiles{files, c}, nil
}

type sureFiles struct {
	ltx.FileIterator
	client *sureClient
}

func (f *sureFiles) Next() bool {
	for f.FileIterator.Next() {
		info := f.Item()
		if !f.client.doubts.has(object{info.Level, info.MinTXID, info.MaxTXID}) {
			return true
		}
	}
	return false
}
