package replicator

import (
	"bytes"
	"context"
	"io"
	"sync"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"
)

const (
	// aheadObjects is how many objects are read before they are needed: most are small, and take
	// the time of a request rather than that of their content.
	aheadObjects = 8

	// aheadBytes is the size of the largest object for which that is done.
	aheadBytes = 4 << 20
)

// An aheadClient reads objects before they are needed. It is for one goroutine.
type aheadClient struct {
	litestream.ReplicaClient

	slots chan struct{}
	read  map[string]chan []byte // by name, of those that were not handed out; nil: it could not be read
}

// readAhead returns a client for reading the objects one after the other. stop ends what it does.
func (c *child) readAhead(ctx context.Context, objects []*ltx.FileInfo) (client litestream.ReplicaClient, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	a := &aheadClient{ReplicaClient: c.client, slots: make(chan struct{}, aheadObjects), read: map[string]chan []byte{}}
	var small []*ltx.FileInfo
	var places []chan []byte
	for _, o := range objects {
		if o.Size <= aheadBytes {
			place := make(chan []byte, 1)
			small, places = append(small, o), append(places, place)
			a.read[objectName(o)] = place
		}
	}
	var work sync.WaitGroup
	work.Go(func() {
		defer c.guard()
		for i, o := range small {
			select {
			case a.slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			work.Go(func() {
				defer c.guard()
				places[i] <- readWhole(ctx, c.client, o)
			})
		}
	})
	return a, func() {
		cancel()
		work.Wait()
	}
}

// readWhole returns nil for an object that cannot be read.
func readWhole(ctx context.Context, client litestream.ReplicaClient, o *ltx.FileInfo) []byte {
	body, err := client.OpenLTXFile(ctx, o.Level, o.MinTXID, o.MaxTXID, 0, 0)
	if err != nil {
		return nil
	}
	defer body.Close()
	content, err := io.ReadAll(io.LimitReader(body, o.Size+1))
	if err != nil || int64(len(content)) < o.Size {
		return nil
	}
	return content
}

// OpenLTXFile hands out what was read. What could not be is left to the caller, who knows how to try
// again.
func (a *aheadClient) OpenLTXFile(ctx context.Context, level int, minTXID, maxTXID ltx.TXID, offset, size int64) (io.ReadCloser, error) {
	name := objectName(&ltx.FileInfo{Level: level, MinTXID: minTXID, MaxTXID: maxTXID})
	if place := a.read[name]; place != nil && offset == 0 && size == 0 {
		delete(a.read, name)
		select {
		case content := <-place:
			<-a.slots
			if content != nil {
				return io.NopCloser(bytes.NewReader(content)), nil
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return a.ReplicaClient.OpenLTXFile(ctx, level, minTXID, maxTXID, offset, size)
}
