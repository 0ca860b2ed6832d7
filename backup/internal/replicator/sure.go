package replicator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"
)

// A sureClient is between Litestream and the replica. It keeps what is not settled from there. And
// Litestream takes any object that is listed for whole, while a store may have kept the half of one
// when the upload has failed: such objects are not listed, and deleted when that is possible.
type sureClient struct {
	litestream.ReplicaClient
	settled *settled

	mu       sync.Mutex
	doubtful map[object]bool
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
	if level > 0 { // one of level 0 is written over
		if err := c.clear(ctx); err != nil {
			return nil, err
		}
	}
	info, err := c.ReplicaClient.WriteLTXFile(ctx, level, first, last, body)
	c.mu.Lock()
	defer c.mu.Unlock()
	if name := (object{level, first, last}); err != nil {
		c.doubtful[name] = true
	} else {
		delete(c.doubtful, name)
	}
	return info, err
}

// clear deletes what is doubtful above level 0.
func (c *sureClient) clear(ctx context.Context) error {
	c.mu.Lock()
	var names []object
	var infos []*ltx.FileInfo
	for name := range c.doubtful {
		if name.level > 0 {
			names = append(names, name)
			infos = append(infos, &ltx.FileInfo{Level: name.level, MinTXID: name.first, MaxTXID: name.last})
		}
	}
	c.mu.Unlock()
	if len(infos) == 0 {
		return nil
	}
	if err := c.DeleteLTXFiles(ctx, infos); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete what was written in part: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range names {
		delete(c.doubtful, name)
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
		f.client.mu.Lock()
		doubtful := f.client.doubtful[object{info.Level, info.MinTXID, info.MaxTXID}]
		f.client.mu.Unlock()
		if !doubtful {
			return true
		}
	}
	return false
}
