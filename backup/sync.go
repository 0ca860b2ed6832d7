package backup

import (
	"context"
	"fmt"
	"sync"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

// WaitReplicated returns when everything that was committed before the call is in the replica:
// for what must survive the loss of the machine. It takes about as long as one upload; calls that
// come while one is under way share the next. While the replica cannot be reached it returns an
// error, not only when ctx ends.
func (r *Replica) WaitReplicated(ctx context.Context) error {
	if err := r.sync.wait(ctx, r); err != nil {
		return fmt.Errorf("backup: wait until replicated: %w", err)
	}
	return nil
}

// Sync copies what is committed at once and returns the number of the transaction in the replica,
// which [Replica.Restore] takes.
func (r *Replica) Sync(ctx context.Context) (txid uint64, err error) {
	e, err := r.call(ctx, wire.Command{Op: wire.Sync, Wait: true})
	if err != nil {
		return 0, fmt.Errorf("backup: sync: %w", err)
	}
	return e.ReplicaTXID, nil
}

// A syncer lets callers share syncs: one that began before a call may miss what that has
// committed, the next one does not.
type syncer struct {
	mu      sync.Mutex
	running bool
	next    *sharedSync // for those who come while one runs
}

type sharedSync struct {
	done chan struct{}
	err  error
}

func (s *syncer) wait(ctx context.Context, r *Replica) error {
	s.mu.Lock()
	mine := s.next
	if mine == nil {
		mine = &sharedSync{done: make(chan struct{})}
		s.next = mine
	}
	if !s.running {
		if !r.do(func() { s.run(r) }) {
			s.next = nil
			s.mu.Unlock()
			return ErrClosed
		}
		s.running = true
	}
	s.mu.Unlock()
	select {
	case <-mine.done:
		return mine.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *syncer) run(r *Replica) {
	for {
		s.mu.Lock()
		now := s.next
		s.next = nil
		if now == nil {
			s.running = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		_, now.err = r.call(context.Background(), wire.Command{Op: wire.Sync, Wait: true})
		close(now.done)
	}
}
