package idp

import (
	"context"
	"sync/atomic"
	"time"
)

// A cached value is fetched when it is needed, by one caller at a time, and
// survives failures to fetch it again.
type cached[T any] struct {
	fetch  func(context.Context) (T, error)
	now    func() time.Time
	maxAge time.Duration // until get fetches again
	again  time.Duration // at least between a success and the next fetch
	retry  time.Duration // at least between a failure and the next fetch

	latest atomic.Pointer[fetched[T]]

	slot  chan struct{} // who fills it may fetch, and owns what follows
	tried time.Time
	err   error // of the last fetch
}

type fetched[T any] struct {
	value T
	at    time.Time
}

func newCached[T any](now func() time.Time, maxAge, again, retry time.Duration, fetch func(context.Context) (T, error)) *cached[T] {
	return &cached[T]{fetch: fetch, now: now, maxAge: maxAge, again: again, retry: retry, slot: make(chan struct{}, 1)}
}

// get returns the value, an old one rather than none. Nobody waits for a fetch
// of somebody else while there is a value.
func (c *cached[T]) get(ctx context.Context) (*fetched[T], error) {
	known := c.latest.Load()
	if known == nil {
		return c.renew(ctx, nil)
	}
	if within(c.now().Sub(known.at), c.maxAge) {
		return known, nil
	}
	select {
	case c.slot <- struct{}{}:
		defer func() { <-c.slot }()
		if latest, err := c.attempt(ctx, known); err == nil {
			return latest, nil
		}
	default:
	}
	return known, nil
}

// renew returns a value that is not the known one, or the error of the last
// fetch. It fetches unless that was a short while ago: then the known value is
// the latest, and it is returned.
func (c *cached[T]) renew(ctx context.Context, known *fetched[T]) (*fetched[T], error) {
	select {
	case c.slot <- struct{}{}:
		defer func() { <-c.slot }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return c.attempt(ctx, known)
}

// attempt is called by who has filled the slot. A fetch that has begun goes on
// when its caller has gone, within the time of a request: others wait for it.
func (c *cached[T]) attempt(ctx context.Context, known *fetched[T]) (*fetched[T], error) {
	if latest := c.latest.Load(); latest != known {
		return latest, nil
	}
	pause := c.again
	if c.err != nil {
		pause = c.retry
	}
	if now := c.now(); c.tried.IsZero() || !within(now.Sub(c.tried), pause) {
		c.tried = now
		var value T
		fetching, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTime)
		defer cancel()
		if value, c.err = c.fetch(fetching); c.err == nil {
			c.latest.Store(&fetched[T]{value, now})
		}
	}
	if c.err != nil {
		return nil, c.err
	}
	return c.latest.Load(), nil
}

// within reports whether a time has passed that is shorter than limit. A clock
// that was set back does not make it longer.
func within(passed, limit time.Duration) bool { return passed >= 0 && passed < limit }
