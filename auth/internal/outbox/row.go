package outbox

import (
	"context"
	"crypto/rand"
	"database/sql/driver"
	"fmt"
	"time"

	"github.com/bedplate/bedplate/sqlite"
)

// lease is a row that belongs to this worker for a time.
type lease struct {
	id     int64
	tries  int // with this one
	sealed []byte
	holder []byte // random: what the row says while it is this worker's
}

// times returns when the first and the last job are due. Fresh jobs are due
// at 0.
func (q *Queue) times(ctx context.Context) (first, last int64, found bool, err error) {
	err = q.cfg.DB.Query(ctx, "SELECT (SELECT min(due) FROM _outbox), (SELECT max(due) FROM _outbox)", nil,
		func(row []driver.Value) error {
			first, found = row[0].(int64)
			last, _ = row[1].(int64)
			return nil
		})
	if err != nil {
		return 0, 0, false, fmt.Errorf("outbox: looking for jobs: %w", err)
	}
	return first, last, found, nil
}

// take leases a job that is due: a fresh one and one that has been tried
// before by turns, so that neither kind holds up the other. The try counts
// from here, so that a job that kills the process is not tried for ever.
func (q *Queue) take(ctx context.Context, now int64) (l lease, ok bool, err error) {
	const (
		fresh = "(SELECT id FROM _outbox WHERE due = 0 ORDER BY id LIMIT 1)"
		tried = "(SELECT id FROM _outbox WHERE due > 0 AND due <= ?1 ORDER BY due LIMIT 1)"
	)
	order := fresh + ", " + tried
	if q.retryFirst {
		order = tried + ", " + fresh
	}
	q.retryFirst = !q.retryFirst

	holder := make([]byte, 16)
	_, _ = rand.Read(holder) // never fails
	err = q.cfg.DB.Write(ctx, sqlite.Stmt{
		SQL: "UPDATE _outbox SET due = ?2, lease = ?3, tries = tries + 1 WHERE id = coalesce(" + order + ") " +
			"RETURNING id, tries, sealed",
		Args: []driver.Value{now, now + q.leaseTime(), holder},
		Row: func(row []driver.Value) {
			id, _ := row[0].(int64)
			tries, _ := row[1].(int64)
			sealed, _ := row[2].([]byte)
			l = lease{id: id, tries: int(tries), sealed: sealed, holder: holder}
		},
		Done: func(rows int) error {
			ok = rows > 0 // when it is run again there may be none
			return nil
		},
	})
	if err != nil {
		return lease{}, false, fmt.Errorf("outbox: leasing a job: %w", err)
	}
	return l, ok, nil
}

// repair brings jobs nearer that are due later than any job can be: the clock
// was set back since.
func (q *Queue) repair(ctx context.Context, now int64) error {
	err := q.cfg.DB.Write(ctx, sqlite.Stmt{
		SQL:  "UPDATE _outbox SET due = CASE WHEN lease IS NULL THEN ?1 ELSE ?2 END WHERE due > ?3",
		Args: []driver.Value{now, now + q.leaseTime(), now + q.horizon()},
	})
	if err != nil {
		return fmt.Errorf("outbox: correcting times: %w", err)
	}
	return nil
}

// write stores the outcome of a delivery, even when ctx has ended.
func (q *Queue) write(ctx context.Context) error {
	var rows int
	stmt := *q.unwritten
	stmt.Rows = &rows
	if err := q.cfg.DB.Write(context.WithoutCancel(ctx), stmt); err != nil {
		return fmt.Errorf("outbox: storing the outcome of a delivery: %w", err)
	}
	q.unwritten = nil
	if rows == 0 {
		q.cfg.Logger.WarnContext(ctx, "outbox: a lease ran out, a job may have been delivered twice")
	}
	return nil
}

// remove returns the statement for a job that is over.
func (q *Queue) remove(l lease) sqlite.Stmt {
	return sqlite.Stmt{
		SQL:  "DELETE FROM _outbox WHERE id = ? AND lease = ? RETURNING 1",
		Args: []driver.Value{l.id, l.holder},
	}
}

// postpone returns the statement for a job that is tried again.
func (q *Queue) postpone(l lease, delay time.Duration) sqlite.Stmt {
	return sqlite.Stmt{
		SQL:  "UPDATE _outbox SET due = ?3, lease = NULL WHERE id = ?1 AND lease = ?2 RETURNING 1",
		Args: []driver.Value{l.id, l.holder, q.now() + delay.Milliseconds()},
	}
}

// release returns the statement for a job that was not really tried.
func (q *Queue) release(l lease) sqlite.Stmt {
	return sqlite.Stmt{
		SQL:  "UPDATE _outbox SET due = 0, tries = tries - 1, lease = NULL WHERE id = ? AND lease = ? RETURNING 1",
		Args: []driver.Value{l.id, l.holder},
	}
}

// now returns unix milliseconds. They are positive whatever the clock shows,
// as 0 is the time of fresh jobs.
func (q *Queue) now() int64 { return max(1, q.cfg.Now().UnixMilli()) }

// leaseTime is how long a job is leased, in milliseconds.
func (q *Queue) leaseTime() int64 { return (q.cfg.Timeout + time.Minute).Milliseconds() }

// horizon is how far ahead a job can be due, in milliseconds.
func (q *Queue) horizon() int64 {
	return max((longestDelay + longestDelay/10).Milliseconds(), q.leaseTime())
}
