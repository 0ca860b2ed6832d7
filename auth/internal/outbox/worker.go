package outbox

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/bedplate/bedplate/internal/seal"
	"github.com/bedplate/bedplate/sqlite"
)

const (
	// poll is how often the worker looks for jobs that nobody has told it of.
	poll = 30 * time.Second

	// pause is how long it does nothing after an error of the database, and
	// the shortest time that it waits for a job.
	pause = time.Second
)

// Run delivers jobs until ctx ends, and then returns nil. It returns an error
// when this queue has a worker already and when the database takes no more
// writes until it is opened again. A job that is in hand when ctx ends gets
// ctx's end; if it fails for that, the try does not count.
func (q *Queue) Run(ctx context.Context) error {
	if !q.start() {
		return errors.New("outbox: the queue has a worker already")
	}
	defer q.stop()
	for {
		wait, err := q.work(ctx)
		q.settle()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, sqlite.ErrClosed), errors.Is(err, sqlite.ErrFailed):
			return err
		case err != nil:
			q.cfg.Logger.ErrorContext(ctx, "outbox: jobs wait for the database", "error", err)
			select {
			case <-q.cfg.After(pause):
			case <-ctx.Done():
			}
			continue
		}
		select {
		case <-q.cfg.After(wait):
		case <-q.wake:
		case <-ctx.Done():
		}
	}
}

// work delivers what is due and returns how long to wait for more.
func (q *Queue) work(ctx context.Context) (time.Duration, error) {
	if q.unwritten != nil {
		if err := q.write(ctx); err != nil {
			return 0, err
		}
	}
	for ctx.Err() == nil {
		q.begin()
		first, last, found, err := q.times(ctx)
		if err != nil || !found {
			return poll, err
		}
		now := q.now()
		if last > now+q.horizon() {
			if err := q.repair(ctx, now); err != nil {
				return 0, err
			}
			continue
		}
		if first > now {
			return min(poll, max(pause, time.Duration(first-now)*time.Millisecond)), nil
		}
		l, ok, err := q.take(ctx, now)
		if err != nil {
			return 0, err
		}
		if !ok {
			continue // another process was faster
		}
		outcome := q.handle(ctx, l)
		q.unwritten = &outcome
		if err := q.write(ctx); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// handle delivers a leased job, and returns what becomes of its row.
func (q *Queue) handle(ctx context.Context, l lease) sqlite.Stmt {
	log := q.cfg.Logger.With("job", l.id, "try", l.tries)
	plaintext, err := q.cfg.Key.Open(sealContext, l.sealed)
	var job Job
	if err == nil {
		job, err = decode(plaintext)
	}
	if err != nil {
		if errors.Is(err, seal.ErrOtherKey) && l.tries < q.cfg.MaxTries {
			log.ErrorContext(ctx, "outbox: a job waits for its key", "error", err)
			return q.postpone(l, q.delay(l.tries))
		}
		log.ErrorContext(ctx, "outbox: a job that cannot be read is dropped", "error", err)
		return q.remove(l)
	}

	log = log.With("kind", job.Kind)
	if q.expired(job, 0) {
		log.ErrorContext(ctx, "outbox: a job is dropped: it has expired")
		return q.remove(l)
	}
	if l.tries > q.cfg.MaxTries { // the last try did not come to its end
		log.ErrorContext(ctx, "outbox: a job is dropped: too many tries")
		return q.remove(l)
	}

	err = q.deliver(ctx, job)
	var permanent permanentError
	switch {
	case err == nil:
		return q.remove(l)
	case errors.As(err, &permanent):
		log.ErrorContext(ctx, "outbox: a job is dropped: it cannot be done", "error", short(err))
		return q.remove(l)
	case ctx.Err() != nil:
		return q.release(l)
	case l.tries >= q.cfg.MaxTries:
		log.ErrorContext(ctx, "outbox: a job is dropped: too many tries", "error", short(err))
		return q.remove(l)
	}
	delay := q.delay(l.tries)
	if q.expired(job, delay) {
		log.ErrorContext(ctx, "outbox: a job is dropped: it expires before the next try", "error", short(err))
		return q.remove(l)
	}
	log.WarnContext(ctx, "outbox: a job failed", "next", delay, "error", short(err))
	return q.postpone(l, delay)
}

// deliver calls Deliver in a goroutine, which a panic or an end of that
// goroutine cannot take the worker with.
func (q *Queue) deliver(ctx context.Context, j Job) error {
	ctx, cancel := context.WithTimeout(ctx, q.cfg.Timeout)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		err := errors.New("the function ended its goroutine")
		defer func() {
			if v := recover(); v != nil {
				err = q.panicked(ctx, v)
			}
			done <- err
		}()
		err = q.cfg.Deliver(ctx, j)
	}()
	return <-done
}

// panicked returns the error for a panic. The value is named only if it comes
// from the runtime; others may quote the payload.
func (q *Queue) panicked(ctx context.Context, v any) error {
	err := fmt.Errorf("panic with a value of type %T", v)
	if e, ok := v.(runtime.Error); ok {
		err = fmt.Errorf("panic: %w", e)
	}
	q.cfg.Logger.ErrorContext(ctx, "outbox: the delivery of a job panicked", "stack", string(debug.Stack()))
	return err
}

// expired reports whether the job will have expired after a delay.
func (q *Queue) expired(j Job, delay time.Duration) bool {
	return !j.Expires.IsZero() && q.cfg.Now().Add(delay).After(j.Expires)
}

// delay returns how long to wait after a number of tries.
func (q *Queue) delay(tries int) time.Duration {
	delays := [...]time.Duration{10 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute}
	delay := longestDelay
	if tries >= 1 && tries <= len(delays) {
		delay = delays[tries-1]
	}
	return delay - delay/10 + time.Duration(float64(delay)/5*q.cfg.Jitter())
}

const longestDelay = time.Hour

// short returns the beginning of an error's text.
func short(err error) string {
	const limit = 500
	text := err.Error()
	if len(text) > limit {
		text = text[:limit]
	}
	return text
}

func (q *Queue) start() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	started := !q.running
	q.running = true
	return started
}

func (q *Queue) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running, q.working = false, false
}

// begin makes the worker busy.
func (q *Queue) begin() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.working = true
}

// settle tells who waits in Idle that the worker rests.
func (q *Queue) settle() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.working = q.unwritten != nil
	close(q.rested)
	q.rested = make(chan struct{})
}

func (q *Queue) busy() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.working
}

func (q *Queue) rest() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.rested
}
