package sqlite

import (
	"sync"
	"sync/atomic"
	"time"
)

// watch interrupts statements of callers that take longer than limit. Its
// goroutine lives while there are any: a statement costs it two atomic stores
// and a look at the clock, and an idle database nothing.
type watch struct {
	limit  time.Duration
	active atomic.Bool // the goroutine lives

	mu     sync.Mutex // guards what follows
	conns  map[*conn]struct{}
	quit   chan struct{}
	exited sync.WaitGroup
	closed bool
}

func (w *watch) init(limit time.Duration) {
	w.limit = limit
	w.conns = map[*conn]struct{}{}
	w.quit = make(chan struct{})
}

func (w *watch) add(c *conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns[c] = struct{}{}
}

// remove forgets c; after that it is not interrupted any more.
func (w *watch) remove(c *conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
}

// started tells that c begins with a statement of a caller.
func (w *watch) started(c *conn) {
	c.since.Store(time.Now().UnixNano())
	if !w.active.Load() {
		w.wake()
	}
}

func (w *watch) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || !w.active.CompareAndSwap(false, true) {
		return
	}
	w.exited.Add(1)
	go w.run()
}

// close waits for the goroutine.
func (w *watch) close() {
	w.mu.Lock()
	w.closed = true
	close(w.quit)
	w.mu.Unlock()
	w.exited.Wait()
}

func (w *watch) run() {
	defer w.exited.Done()
	tick := time.NewTicker(max(w.limit/4, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-w.quit:
			return
		case now := <-tick.C:
			if w.look(now.UnixNano()) {
				continue
			}
		}
		// Whoever starts from now on wakes another one; who started before
		// is seen by a last look.
		w.active.Store(false)
		if !w.look(time.Now().UnixNano()) || !w.active.CompareAndSwap(false, true) {
			return
		}
	}
}

// look interrupts what takes too long and reports whether anything runs.
func (w *watch) look(now int64) (busy bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		since := c.since.Load()
		busy = busy || since != 0
		if since != 0 && now-since > int64(w.limit) {
			interrupt(c.handle)
		}
	}
	return busy
}
