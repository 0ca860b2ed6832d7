package password

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
)

// ErrBusy says that as many callers as are allowed wait for a hash already. It is returned at once
// and tells nothing about the password: ask the client to come back later.
var ErrBusy = errors.New("too many passwords to hash")

const defaultQueue = 64

// slots lets a number of callers work at a time and a number wait, first come, first served.
type slots struct {
	taken   chan struct{}
	waiting atomic.Int64
	queue   int64
}

func newSlots(n, queue int) *slots {
	if n == 0 {
		n = runtime.GOMAXPROCS(0)
	}
	if queue == 0 {
		queue = defaultQueue
	}
	return &slots{taken: make(chan struct{}, n), queue: int64(queue)}
}

// acquire takes a slot, for [slots.release] to return.
func (s *slots) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return waitError(err)
	}
	select {
	case s.taken <- struct{}{}:
		return nil
	default:
	}
	defer s.waiting.Add(-1)
	if s.waiting.Add(1) > s.queue {
		return ErrBusy
	}
	select {
	case s.taken <- struct{}{}:
		return nil
	case <-ctx.Done():
		return waitError(ctx.Err())
	}
}

func (s *slots) release() { <-s.taken }

func waitError(err error) error {
	return fmt.Errorf("waiting to hash a password: %w", err)
}
