package backup

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// A heldLease is the lease of a replica that is renewed while something is done that takes long.
type heldLease struct {
	r    *Replica
	path string
	ttl  time.Duration

	mu      sync.Mutex
	renewed time.Time // nobody else has had the lease before that and LeaseTTL
}

// underLease calls do while this machine has the lease of the replica, for the database at path,
// an absolute one. It is left standing, for the replicator that Start runs. do calls sure before
// what cannot be taken back. When the lease is lost, which is certain only once it was not renewed
// for LeaseTTL, the context of do ends, sure fails, and the error is ErrLeased.
func (r *Replica) underLease(ctx context.Context, path string, takeOver bool, do func(ctx context.Context, sure func() error) error) error {
	leased, err := r.takeLease(ctx, path, takeOver)
	if err != nil {
		return err
	}
	if !leased {
		return do(ctx, ctx.Err)
	}
	l := &heldLease{r: r, path: path, ttl: r.cfg.LeaseTTL, renewed: time.Now()}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var keeping sync.WaitGroup
	keeping.Go(func() { l.keep(ctx, cancel) })
	err = do(ctx, func() error { return l.renew(ctx) })
	if lost := context.Cause(ctx); err != nil && errors.Is(lost, ErrLeased) {
		err = lost
	}
	cancel(nil)
	keeping.Wait()
	return err
}

// keep renews the lease until ctx ends, which it does when the lease is lost.
func (l *heldLease) keep(ctx context.Context, lost context.CancelCauseFunc) {
	for wait(ctx, l.ttl/3) == nil {
		if err := l.renew(ctx); err != nil {
			lost(err)
			return
		}
	}
}

// renew renews the lease. It tries again until it is lost, ErrLeased, or ctx ends.
func (l *heldLease) renew(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		began := time.Now()
		try, cancel := context.WithTimeout(ctx, l.ttl-since(l.renewed))
		_, err := l.r.takeLease(try, l.path, false)
		cancel()
		switch left := l.ttl - since(l.renewed); {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, ErrLeased):
			return err
		case left <= 0: // somebody may have had it, even if it is here again
			return fmt.Errorf("%w, or may have it: it could not be renewed for %v (%w)", ErrLeased, l.ttl, cmpErr(err, context.DeadlineExceeded))
		case err == nil:
			l.renewed = began
			return nil
		}
		if err := wait(ctx, l.ttl/20); err != nil {
			return err
		}
	}
}

// since is how long ago t was. The monotonic clock stands still while a machine sleeps.
func since(t time.Time) time.Duration {
	return max(time.Since(t), time.Now().Round(0).Sub(t.Round(0)))
}

// wait returns after d, or when ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
