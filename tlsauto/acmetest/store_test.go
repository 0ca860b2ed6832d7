package acmetest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

// A faultyStore is a store, in memory, that can be made to fail.
type faultyStore struct {
	store  tlsauto.Store
	leaser tlsauto.Leaser

	get, put, remove, lease atomic.Pointer[fault]
}

// A fault is what happens instead, or before if it returns nil.
type fault func(ctx context.Context) error

func newFaultyStore() *faultyStore {
	memory := tlsauto.NewMemoryStore()
	return &faultyStore{store: memory, leaser: memory.(tlsauto.Leaser)}
}

var errStore = errors.New("no space left on device")

func broken(context.Context) error { return errStore }

// takes has something take a time, whatever the caller thinks of that.
func takes(d time.Duration) fault {
	return func(context.Context) error {
		time.Sleep(d)
		return nil
	}
}

// A hold has something wait, whatever the caller thinks of that, until it is released.
type hold struct {
	arrived  chan struct{} // has room for one
	released chan struct{}
	release  func() // may be called again
}

func newHold(t *testing.T) *hold {
	h := &hold{arrived: make(chan struct{}, 1), released: make(chan struct{})}
	h.release = sync.OnceFunc(func() { close(h.released) })
	t.Cleanup(h.release)
	return h
}

func (h *hold) wait(context.Context) error {
	select {
	case h.arrived <- struct{}{}:
	default:
	}
	<-h.released
	return nil
}

func happen(ctx context.Context, f *atomic.Pointer[fault]) error {
	if does := f.Load(); does != nil {
		return (*does)(ctx)
	}
	return nil
}

func (s *faultyStore) Get(ctx context.Context, key string) ([]byte, error) {
	if err := happen(ctx, &s.get); err != nil {
		return nil, err
	}
	return s.store.Get(ctx, key)
}

func (s *faultyStore) Put(ctx context.Context, key string, value []byte) error {
	if err := happen(ctx, &s.put); err != nil {
		return err
	}
	return s.store.Put(ctx, key, value)
}

func (s *faultyStore) Delete(ctx context.Context, key string) error {
	if err := happen(ctx, &s.remove); err != nil {
		return err
	}
	return s.store.Delete(ctx, key)
}

func (s *faultyStore) Acquire(ctx context.Context, lease, owner string, now time.Time, ttl time.Duration) (bool, error) {
	if err := happen(ctx, &s.lease); err != nil {
		return false, err
	}
	return s.leaser.Acquire(ctx, lease, owner, now, ttl)
}

func (s *faultyStore) Release(ctx context.Context, lease, owner string) error {
	if err := happen(ctx, &s.lease); err != nil {
		return err
	}
	return s.leaser.Release(ctx, lease, owner)
}

// set makes something fail from now on; nil: no more.
func set(f *atomic.Pointer[fault], does fault) {
	if does == nil {
		f.Store(nil)
	} else {
		f.Store(&does)
	}
}
