// Package outbox is a durable queue of jobs, such as "send the reset mail for
// this address". A job is stored in the transaction that makes it necessary and
// delivered behind the commit, again and again until it succeeds, its time is
// over or its tries are used up.
//
//	queue := outbox.New(outbox.Config{DB: db, Key: key, Deliver: send})
//	go queue.Run(ctx) // with an owner that waits for it
//	...
//	err := db.Write(ctx, append(stmts, queue.Stmts(job)...)...)
//	queue.Wake()
//
// # Once
//
// Several processes may run a worker for the same file. A job is leased before
// it is delivered, so it is delivered once unless a process dies after Deliver
// and before its row is deleted, or Deliver takes longer than it may. The job of
// a process that died becomes due again when the lease has run out, which is
// Timeout and a minute after it was taken.
//
// # Secrecy
//
// Kind, payload and expiry are sealed and padded: the rows tell how many jobs
// there are, how often they were tried, and about how long they are. The log
// gets the kind, the id and the error that Deliver returned, so that error
// should not quote the payload.
package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/bedplate/bedplate/internal/seal"
	"github.com/bedplate/bedplate/sqlite"
)

// Schema creates the table, if it is not there. The caller runs it.
const Schema = `CREATE TABLE IF NOT EXISTS _outbox (
	id     INTEGER PRIMARY KEY,
	due    INTEGER NOT NULL DEFAULT 0, -- unix milliseconds; 0: at once, in the order of the ids
	tries  INTEGER NOT NULL DEFAULT 0, -- that have begun
	lease  BLOB,                       -- while it is delivered: whose row this is, until due
	sealed BLOB NOT NULL               -- the job
) STRICT;

CREATE INDEX IF NOT EXISTS _outbox_due ON _outbox(due)`

// MaxPayload is the size of the largest payload, in bytes.
const MaxPayload = 64 << 10

var (
	// ErrFull is the error of a Write with a job for which there is no row.
	ErrFull = errors.New("outbox: queue is full")

	// ErrTooLarge is the error of a Write with a job whose payload is larger
	// than [MaxPayload], or whose kind has more than 255 bytes.
	ErrTooLarge = errors.New("outbox: job is too large")
)

// A Job is something to be delivered.
type Job struct {
	Kind    string    // for the log and for Deliver; at most 255 bytes
	Payload []byte    // at most MaxPayload bytes
	Expires time.Time // after which it is dropped, to the millisecond; zero: never
}

// Config is what [New] takes. DB, Key and Deliver are required.
type Config struct {
	DB  *sqlite.DB // with the Schema
	Key *seal.Key

	// Deliver does a job, one at a time. A job whose error is not an
	// [ErrPermanent] comes again: after 10 s, 30 s, 2 min, 10 min, 30 min,
	// then every hour, each some tenth more or less. A panic is an error.
	// The context ends with Timeout or with that of Run, and Deliver must
	// return soon after it.
	Deliver func(ctx context.Context, j Job) error

	Now      func() time.Time // nil: time.Now
	Logger   *slog.Logger     // nil: slog.Default()
	MaxRows  int              // 0: 100,000; further jobs fail with ErrFull
	MaxTries int              // 0: 12; then a job is dropped
	Timeout  time.Duration    // of one Deliver; 0: 60 s

	// After is how the worker waits; nil: time.After.
	After func(time.Duration) <-chan time.Time
	// Jitter returns numbers in [0,1), by which times to wait vary; nil:
	// at random.
	Jitter func() float64
}

// Queue is a queue of jobs in a database. It is safe for concurrent use.
type Queue struct {
	cfg  Config
	wake chan struct{} // one slot: the worker is to look again

	// Used by the worker only.
	unwritten  *sqlite.Stmt // an outcome that could not be stored
	retryFirst bool         // whether the next job to take is one tried before

	mu      sync.Mutex
	running bool          // there is a worker
	working bool          // it may have a job in hand
	rested  chan struct{} // closed and replaced when it has nothing more to do
}

// New returns a queue. It panics when a required field is missing.
func New(cfg Config) *Queue {
	if cfg.DB == nil || cfg.Key == nil || cfg.Deliver == nil {
		panic("outbox: Config needs DB, Key and Deliver")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.MaxRows <= 0 {
		cfg.MaxRows = 100_000
	}
	if cfg.MaxTries <= 0 {
		cfg.MaxTries = 12
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 60 * time.Second
	}
	if cfg.After == nil {
		cfg.After = time.After
	}
	if cfg.Jitter == nil {
		cfg.Jitter = rand.Float64 //nolint:gosec // spreads load, keeps no secret
	}
	return &Queue{cfg: cfg, wake: make(chan struct{}, 1), rested: make(chan struct{})}
}

// Wake makes the worker look for jobs. It is called after the commit of a
// Write with Stmts; without it a job waits for up to 30 s.
func (q *Queue) Wake() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Idle waits until no job is due and this queue's worker delivers none. Jobs
// that wait for their next try are not waited for, nor are those that other
// processes deliver. While a job is due and there is no worker, it waits until
// ctx ends.
func (q *Queue) Idle(ctx context.Context) error {
	for {
		// In this order: a job that is no longer due has made the worker busy.
		rested := q.rest()
		first, _, found, err := q.times(ctx)
		if err != nil {
			return err
		}
		due := found && first <= q.now()
		if !due && !q.busy() {
			return nil
		}
		if due {
			q.Wake()
		}
		select {
		case <-rested:
		case <-ctx.Done():
			return fmt.Errorf("outbox: waiting for jobs: %w", ctx.Err())
		}
	}
}

// ErrPermanent marks an error of Deliver after which there is no use in
// another try. It wraps err, and is nil if err is.
func ErrPermanent(err error) error {
	if err == nil {
		return nil
	}
	return permanentError{err}
}

type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }
