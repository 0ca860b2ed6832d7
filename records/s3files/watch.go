package s3files

import (
	"context"
	"fmt"
	"time"
)

// errStalled is a kind of context.DeadlineExceeded, as it is one of the store.
var errStalled = fmt.Errorf("the store does not answer: %w", context.DeadlineExceeded)

// A watch is a context that ends when nothing has moved for some time.
type watch struct {
	context.Context
	cancel  context.CancelCauseFunc
	timer   *time.Timer
	timeout time.Duration
}

// watch begins to wait.
func (s *Store) watch(ctx context.Context) *watch {
	ctx, cancel := context.WithCancelCause(ctx)
	return &watch{
		Context: ctx, cancel: cancel, timeout: s.timeout,
		timer: time.AfterFunc(s.timeout, func() { cancel(errStalled) }),
	}
}

// moved begins to wait anew.
func (w *watch) moved() { w.timer.Reset(w.timeout) }

// pause waits no more until something has moved.
func (w *watch) pause() { w.timer.Stop() }

// end must be called once there is nothing to wait for.
func (w *watch) end() {
	w.timer.Stop()
	w.cancel(nil)
}
