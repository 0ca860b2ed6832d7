package replicator

import (
	"context"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"
)

// A slowStore has objects. It takes its time to delete them for the first who wants that.
type slowStore struct {
	litestream.ReplicaClient
	first   atomic.Bool // somebody has wanted to delete
	release chan struct{}

	mu      sync.Mutex
	objects map[object]bool
}

func (s *slowStore) WriteLTXFile(_ context.Context, level int, first, last ltx.TXID, _ io.Reader) (*ltx.FileInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[object{level, first, last}] = true
	return &ltx.FileInfo{Level: level, MinTXID: first, MaxTXID: last}, nil
}

func (s *slowStore) DeleteLTXFiles(_ context.Context, infos []*ltx.FileInfo) error {
	if !s.first.Swap(true) {
		<-s.release
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range infos {
		delete(s.objects, object{i.Level, i.MinTXID, i.MaxTXID})
	}
	return nil
}

// What is there in part is deleted by whichever level comes first, and not after it was written
// again: nothing else may have those transactions then.
func TestDoubtsAreClearedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &slowStore{release: make(chan struct{}), objects: map[object]bool{}}
		c := &sureClient{ReplicaClient: store, doubts: newDoubts()}
		part := object{1, 11, 20}
		c.doubts.add(part)
		var writing sync.WaitGroup
		write := func(o object) {
			writing.Go(func() {
				if _, err := c.WriteLTXFile(t.Context(), o.level, o.first, o.last, strings.NewReader("")); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		other := object{2, 1, 10}
		write(other) // is deleting now
		write(part)
		close(store.release)
		writing.Wait()
		if !store.objects[part] || !store.objects[other] || len(store.objects) != 2 || c.doubts.has(part) {
			t.Errorf("there is %v", store.objects)
		}
	})
}
