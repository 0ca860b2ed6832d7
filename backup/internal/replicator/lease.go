package replicator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/benbjohnson/litestream"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

// A Leaser holds leases in an object of the replica, which it writes only if nobody else has
// written it since it was read: its ETag stands for its content.
type Leaser interface {
	// AcquireLease makes the object, or replaces one that has expired or was released.
	// RenewLease replaces the one with the lease's ETag, whoever had it, and gives the lease's
	// Generation to the new one; litestream.ErrLeaseNotHeld when there is another. ReleaseLease
	// leaves one behind that has no Owner.
	litestream.Leaser

	// ReadLease returns the lease that stands, and for how long it has not changed, at least, by
	// the clock of the store. The error is fs.ErrNotExist when there is none, and ErrLeaseDamaged,
	// with only the ETag in the lease, when it cannot be understood.
	ReadLease(ctx context.Context) (*litestream.Lease, time.Duration, error)
}

// ErrLeaseDamaged is about a lease that cannot be understood.
var ErrLeaseDamaged = errors.New("the lease in the replica is damaged")

const (
	// leaseMargin is by how much the clocks of machines may differ, as far as leases go.
	leaseMargin = 2 * time.Second

	// deadAfter is after how many times the own TTL, at least, a lease counts as left behind
	// whatever the time is at which it expires: that is written by another clock.
	deadAfter = 5

	// leaseTries is how often an unreachable store is tried in Lease mode.
	leaseTries = 5

	// leaseEndPatience is how long the end of a lease may take.
	leaseEndPatience = 5 * time.Second
)

// lease acquires the lease and leaves it standing.
func (c *child) lease(ctx context.Context) wire.Event {
	ctx, cancel := c.untilStopped(ctx)
	defer cancel()
	h, err := c.newHolder(leaseTries)
	if err == nil && h != nil {
		err = h.acquire(ctx)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return c.failed(err)
	}
	done := wire.Event{Kind: wire.Done}
	if h != nil {
		done.Number = uint64(h.held.Generation)
	}
	return done
}

// holdLease acquires the lease and keeps it until release is called or ctx ends. lost gets the name
// of somebody who has taken it. While the lease cannot be renewed it is not lost, but once others
// may have it nothing is written to the replica until it is renewed.
func (c *child) holdLease(ctx context.Context) (lost <-chan string, release func(), err error) {
	return c.holdLeaseNoting(ctx, func(error) {})
}

// holdLeaseNoting does the same and tells note why the lease cannot be acquired or renewed at the
// moment, and nil when it can again.
func (c *child) holdLeaseNoting(ctx context.Context, note func(error)) (lost <-chan string, release func(), err error) {
	h, err := c.newHolder(0)
	if err != nil || h == nil {
		return nil, func() {}, err
	}
	h.note = note
	if err := h.acquire(ctx); err != nil {
		return nil, func() {}, err
	}
	taken := make(chan string, 1)
	ctx, cancel := context.WithCancel(ctx)
	var renewing sync.WaitGroup
	renewing.Add(1)
	go func() {
		defer c.guard()
		defer renewing.Done()
		if by, ok := h.renew(ctx); ok {
			taken <- by
		}
	}()
	return taken, func() {
		cancel()
		renewing.Wait()
		h.release()
	}, nil
}

// A holder holds a lease, or tries to. It is for one goroutine at a time.
type holder struct {
	c      *child
	leaser Leaser
	ttl    time.Duration
	tries  int // to reach the store, before there is a lease; 0: without end
	note   func(error)
	held   *litestream.Lease
}

// newHolder returns nil if there are no leases for this kind of replica.
func (c *child) newHolder(tries int) (*holder, error) {
	if c.scheme.Leaser == nil {
		return nil, nil
	}
	if c.order.Owner == "" || c.order.LeaseTTL <= 0 {
		return nil, &codeError{wire.CodeConfig, errors.New("a lease needs an owner and a time")}
	}
	l, err := c.scheme.Leaser(c.client, c.order.Owner, c.order.LeaseTTL)
	if err != nil {
		return nil, err
	}
	leaser, ok := l.(Leaser)
	if !ok {
		return nil, fmt.Errorf("the leaser %s cannot tell who has the lease", l.Type())
	}
	return &holder{c: c, leaser: leaser, ttl: c.order.LeaseTTL, tries: tries, note: func(error) {}}, nil
}

// A sight is a lease as it was seen.
type sight struct {
	lease *litestream.Lease
	since time.Time // when it was first seen
	age   time.Duration
	whole bool
}

// owner names who has the lease.
func (s *sight) owner() string {
	if !s.whole {
		return "somebody unknown: " + ErrLeaseDamaged.Error()
	}
	return s.lease.Owner
}

// unchanged is for how long the holder has not renewed it, at least.
func (s *sight) unchanged() time.Duration { return max(time.Since(s.since), s.age) }

// acquire gets the lease. One that is left behind can be had when it has expired and has not been
// renewed for the own TTL: the first goes by the clock of the machine that held it, the other does
// not. It is refused when its holder renews it meanwhile.
func (h *holder) acquire(ctx context.Context) error {
	var seen *sight
	told, failures := "", 0
	for {
		began := time.Now()
		now, err := h.read(ctx)
		var got *litestream.Lease
		if err == nil && now != nil {
			if err := h.displaced(now); err != nil {
				return err
			}
		}
		switch {
		case err != nil:
		case now == nil:
			got, err = h.create(ctx)
		case h.mine(now) || h.c.order.TakeOver || now.whole && now.lease.Owner == "":
			got, err = h.replace(ctx, now)
		case seen == nil || !now.whole && now.lease.ETag != seen.lease.ETag || now.whole && !seen.whole:
			seen = now // a holder who is there repairs what is damaged, and renews it again
		case now.lease.ETag != seen.lease.ETag:
			return &codeError{wire.CodeLeased, fmt.Errorf("the lease of the replica is held by %s", now.owner())}
		case h.left(seen):
			got, err = h.replace(ctx, now)
		}
		if got != nil && err == nil {
			h.keep(got, began)
			h.note(nil)
			return errors.Join(h.remember(now, got.Generation, false), h.checkConditions(ctx))
		}
		wait := max(h.ttl/20, 20*time.Millisecond)
		if err != nil && !lostRace(err) {
			if ctx.Err() != nil {
				return err
			}
			err = fmt.Errorf("acquire the lease of the replica: %w", err)
			if failures++; failures == h.tries {
				return err
			}
			h.note(err)
			if text := err.Error(); text != told {
				told = text
				h.c.log.Warn("the lease of the replica cannot be acquired", "error", err)
			}
			wait = min(time.Duration(failures)*500*time.Millisecond, 5*time.Second)
		} else if seen != nil && told != seen.owner() {
			told = seen.owner()
			h.c.send(wire.Event{Kind: wire.Waiting, Code: "lease", Text: h.c.redact.text(told), Until: h.until(seen)})
		}
		if !pause(ctx, min(wait, 5*time.Second)) {
			if seen != nil {
				return fmt.Errorf("the lease of the replica is held by %s: %w", seen.owner(), context.Cause(ctx))
			}
			return context.Cause(ctx)
		}
	}
}

// read returns nil if there is no lease.
func (h *holder) read(ctx context.Context) (*sight, error) {
	lease, age, err := h.leaser.ReadLease(ctx)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil && !errors.Is(err, ErrLeaseDamaged):
		return nil, err
	}
	return &sight{lease, time.Now(), age, err == nil}, nil
}

// mine reports whether the lease is held by this owner: by a process before this one, as two at the
// same time are kept apart by the lock of the directory.
func (h *holder) mine(s *sight) bool { return s.whole && s.lease.Owner == h.c.order.Owner }

// left reports whether nobody is there any more who renews the lease.
func (h *holder) left(s *sight) bool {
	unchanged := s.unchanged()
	expired := s.whole && time.Now().After(s.lease.ExpiresAt.Add(leaseMargin))
	return unchanged >= h.ttl && (expired || unchanged >= h.patience(s))
}

// patience is for how long a lease has to be unchanged to count as left behind, whatever the time
// is. Who held it may have asked for more than the own TTL.
func (h *holder) patience(s *sight) time.Duration {
	return max(deadAfter*h.ttl, s.lease.ExpiresAt.Sub(s.since))
}

// until is when left will be.
func (h *holder) until(s *sight) time.Time {
	now := time.Now()
	late := now.Add(h.patience(s) - s.unchanged())
	soon := now.Add(h.ttl - s.unchanged())
	if expiry := s.lease.ExpiresAt.Add(leaseMargin); s.whole && expiry.Before(late) {
		if expiry.After(soon) {
			return expiry
		}
		return soon
	}
	return late
}

// create makes a lease where there is none. Its generation is 1 at first, which others may remember
// too if there were leases before.
func (h *holder) create(ctx context.Context) (*litestream.Lease, error) {
	next, err := h.next(ctx, 0)
	if err != nil {
		return nil, err
	}
	if err := h.remember(nil, 1, true); err != nil {
		return nil, err
	}
	got, err := h.leaser.AcquireLease(ctx)
	if err != nil || got.Generation >= next {
		return got, err
	}
	if err := h.remember(nil, got.Generation, false); err != nil {
		return nil, err
	}
	if err := h.remember(nil, next, true); err != nil {
		return nil, err
	}
	return h.leaser.RenewLease(ctx, &litestream.Lease{Generation: next, ETag: got.ETag})
}

// replace takes the place of a lease as it was seen. A process that held it will notice.
func (h *holder) replace(ctx context.Context, s *sight) (*litestream.Lease, error) {
	next, err := h.next(ctx, s.lease.Generation)
	if err != nil {
		return nil, err
	}
	if err := h.remember(s, next, true); err != nil {
		return nil, err
	}
	return h.leaser.RenewLease(ctx, &litestream.Lease{Generation: next, ETag: s.lease.ETag})
}

// lostRace reports whether somebody else has written the lease first.
func lostRace(err error) bool {
	var exists *litestream.LeaseExistsError
	return errors.Is(err, litestream.ErrLeaseNotHeld) || errors.As(err, &exists)
}

// checkConditions refuses a store that writes whatever the condition: it would give the lease to
// everybody.
func (h *holder) checkConditions(ctx context.Context) error {
	other := &litestream.Lease{Generation: h.held.Generation, ETag: `"00000000000000000000000000000000"`}
	if _, err := h.leaser.RenewLease(ctx, other); err == nil {
		return &codeError{wire.CodeConfig, errors.New("the store does not know conditional requests, so there can be no lease; give Config.LeaseTTL a negative value and see to it that only one machine replicates to the URL")}
	}
	return nil
}

// keep takes note of the lease that is held, by a request that was begun at a time. Nobody else can
// have it before that and the TTL.
func (h *holder) keep(l *litestream.Lease, began time.Time) {
	h.held = l
	h.c.gate.permit(began, h.ttl)
}

// renew keeps the lease until ctx ends. It returns true, and who has the lease, if it was lost.
func (h *holder) renew(ctx context.Context) (by string, lost bool) {
	trouble := ""
	every := h.ttl / 3
	wait := every
	for pause(ctx, wait) {
		wait = every
		try, cancel := context.WithTimeout(ctx, max(every, time.Second))
		began := time.Now()
		renewed, err := h.leaser.RenewLease(try, h.held)
		if err == nil {
			h.keep(renewed, began)
		} else if lostRace(err) {
			by, lost, err = h.explain(try)
		}
		cancel()
		switch {
		case lost:
			return by, true
		case err == nil && trouble != "":
			h.note(nil)
			h.c.log.Info("the lease of the replica is renewed again")
			trouble = ""
		case err != nil && ctx.Err() == nil:
			wait = min(every, 2*time.Second)
			h.note(fmt.Errorf("renew the lease of the replica: %w", err))
			if text := err.Error(); text != trouble {
				h.c.log.Warn("the lease of the replica cannot be renewed", "error", err)
				trouble = text
			}
		}
	}
	return "", false
}

// explain finds out why the lease is not the one that was held.
func (h *holder) explain(ctx context.Context) (by string, lost bool, err error) {
	began := time.Now()
	now, err := h.read(ctx)
	var got *litestream.Lease
	switch {
	case err != nil:
		return "", false, err
	case now == nil: // somebody has deleted it
		h.c.log.Warn("the lease was deleted from the replica")
		got, err = h.create(ctx)
	case !now.whole:
		h.c.log.Warn("the lease in the replica was damaged")
		got, err = h.leaser.RenewLease(ctx, &litestream.Lease{Generation: h.held.Generation, ETag: now.lease.ETag})
	case now.lease.Owner == h.c.order.Owner && now.lease.Generation == h.held.Generation:
		// Written by an earlier request, to which the answer was lost.
		got, err = h.leaser.RenewLease(ctx, now.lease)
	case now.lease.Owner == h.c.order.Owner && now.lease.Generation < h.held.Generation:
		got, err = h.replace(ctx, now) // it was deleted and made again, and that is as far as it came
	case now.lease.Owner == "":
		return "another machine", true, nil // which has ended since
	default:
		return now.lease.Owner, true, nil
	}
	if err != nil {
		return "", false, err
	}
	h.keep(got, began)
	return "", false, h.remember(nil, got.Generation, false)
}

// release lets others have the lease at once.
func (h *holder) release() {
	h.c.gate.permit(time.Time{}, 0)
	// When nobody has its name any more, the lease must be one that is known to have been held.
	if l, ok, err := h.remembered(); err != nil || ok && l.Generation != h.held.Generation {
		if err := h.remember(nil, h.held.Generation, false); err != nil {
			h.c.log.Warn("the lease of the replica is left to expire", "error", err)
			return
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaseEndPatience)
	defer cancel()
	if err := h.leaser.ReleaseLease(ctx, h.held); err != nil {
		h.c.log.Warn("the lease of the replica cannot be released", "error", err)
	}
}
