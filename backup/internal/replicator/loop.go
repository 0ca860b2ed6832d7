package replicator

import (
	"context"
	"sync"
	"time"
)

const (
	// mostBackoff is the longest pause after errors.
	mostBackoff = 5 * time.Second

	// leastBackoff is the shortest.
	leastBackoff = 100 * time.Millisecond
)

// A loop does the same thing again and again: after interval, and at once when somebody joins.
type loop struct {
	do       func(ctx context.Context) (txid uint64, err error)
	interval time.Duration // 0: only when somebody joins

	mu   sync.Mutex
	next *round
	wake chan struct{}

	ended chan struct{} // closed when run is over
}

// A round is one time that a loop does its thing.
type round struct {
	done chan struct{} // closed when it is over
	txid uint64
	err  error
}

func newLoop(interval time.Duration, do func(ctx context.Context) (uint64, error)) *loop {
	return &loop{do: do, interval: interval, wake: make(chan struct{}, 1), ended: make(chan struct{})}
}

// join returns a round that has not begun yet, and will soon.
func (l *loop) join() *round {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next == nil {
		l.next = &round{done: make(chan struct{})}
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return l.next
}

// wait joins, and waits for the end of the round or of ctx.
func (l *loop) wait(ctx context.Context) (txid uint64, err error) {
	r := l.join()
	select {
	case <-r.done:
		return r.txid, r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// run runs until ctx ends.
func (l *loop) run(ctx context.Context) {
	defer close(l.ended)
	backoff := time.Duration(0)
	for {
		pause := max(l.interval, backoff)
		if l.interval == 0 {
			pause = time.Hour
		}
		timer := time.NewTimer(pause)
		select {
		case <-l.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		r := l.begin()
		if err := ctx.Err(); err != nil {
			r.err = err
		} else {
			r.txid, r.err = l.do(ctx)
		}
		close(r.done)
		switch {
		case ctx.Err() != nil:
			l.close(ctx.Err())
			return
		case r.err == nil:
			backoff = 0
		default:
			backoff = min(max(2*backoff, leastBackoff), mostBackoff)
		}
	}
}

func (l *loop) begin() *round {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.next
	if r == nil {
		r = &round{done: make(chan struct{})}
	}
	l.next = nil
	return r
}

// close lets those that have joined since know that there will be no other round.
func (l *loop) close(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next != nil {
		l.next.err = err
		close(l.next.done)
	}
	over := &round{done: make(chan struct{}), err: err}
	close(over.done)
	l.next = over
}
