package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

const (
	pollEvery = 25 * time.Millisecond // for what other processes commit
	syncAgain = time.Second           // triggers are put in order at most so often

	maxSyncPause = time.Minute // the same, doubled each time that it fails
)

// commits tells those who wait in [ChangeLog.Wait] of commits. The connection
// is their own, so that readers cannot be in their way.
type commits struct {
	db      *DB
	waiting atomic.Int64
	done    chan struct{} // closed by close

	mu   sync.Mutex // guards next
	next chan struct{}

	use    sync.Mutex // guards what follows
	c      *conn
	closed bool
}

func (w *commits) init(db *DB) {
	w.db = db
	w.done = make(chan struct{})
	w.next = make(chan struct{})
}

// committed is called after each commit of the writer.
func (w *commits) committed() {
	if w.waiting.Load() == 0 {
		return // who begins to wait now sees the commit
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.next)
	w.next = make(chan struct{})
}

// commit returns what is closed after the next commit.
func (w *commits) commit() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.next
}

// peek runs fn with the connection of those who wait.
func (w *commits) peek(fn func(c *conn) error) (err error) {
	w.use.Lock()
	defer w.use.Unlock()
	if w.closed {
		return ErrClosed
	}
	if w.c == nil {
		if w.c, err = w.db.openConn(true); err != nil {
			return w.db.classify(err)
		}
	}
	return w.db.classify(fn(w.c))
}

func (w *commits) close() error {
	close(w.done)
	w.use.Lock()
	defer w.use.Unlock()
	w.closed = true
	if w.c == nil {
		return nil
	}
	return w.c.close()
}

// Wait returns nil as soon as the head of the log is not after, which the
// caller can then see. Otherwise it returns when ctx or the database ends. It
// notices what other processes write within about 25 ms, and puts the log in
// order when they have changed the schema.
func (l *ChangeLog) Wait(ctx context.Context, after Position) error {
	if err := l.Install(ctx); err != nil {
		return err
	}
	w := &l.db.commits
	w.waiting.Add(1)
	defer w.waiting.Add(-1)
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for others := true; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		next := w.commit()
		var head Position
		todo := false
		err := w.peek(func(c *conn) (err error) {
			if head, err = l.head(c); err == nil && others {
				todo, err = l.outOfStep(c)
			}
			return err
		})
		if err == nil && todo {
			l.catchUp(ctx)
			continue
		}
		if err != nil || head != after {
			return err
		}
		select {
		case <-next:
			others = false // this handle's own changes of the schema are in order
		case <-poll.C:
			others = true
		case <-w.done:
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// outOfStep reports whether somebody has changed the schema so that triggers
// must be put in order.
func (l *ChangeLog) outOfStep(c *conn) (bool, error) {
	version, err := l.schemaVersion(c)
	if err != nil || version == l.checked.Load() {
		return false, err
	}
	if time.Since(time.Unix(0, l.tried.Load())) < max(syncAgain, time.Duration(l.pause.Load())) {
		return false, nil
	}
	found, err := l.inspect(c)
	if err == nil && found.done() {
		l.checked.Store(version)
		return false, nil
	}
	return err == nil, err
}

// catchUp puts triggers in order.
func (l *ChangeLog) catchUp(ctx context.Context) {
	l.tried.Store(time.Now().UnixNano())
	err := l.db.writer.do(ctx, &request{own: func(c *conn) error { return l.sync(c, nil) }})
	if err == nil {
		l.pause.Store(0)
		return
	}
	if ctx.Err() == nil && !errors.Is(err, ErrClosed) {
		l.pause.Store(int64(min(2*max(syncAgain, time.Duration(l.pause.Load())), maxSyncPause)))
		l.db.log.Warn("keep the change log in step with the schema", "database", l.name, "error", err)
	}
}

func (l *ChangeLog) schemaVersion(c *conn) (version int64, err error) {
	err = c.query(context.Background(), "PRAGMA "+quoteName(l.name)+".schema_version", nil, func(row []driver.Value) error {
		version = row[0].(int64)
		return nil
	})
	return version, err
}
