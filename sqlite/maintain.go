package sqlite

import (
	"context"
	"database/sql/driver"
	"time"
)

const (
	checkpointEvery = 50 * time.Millisecond
	lookEvery       = time.Second           // at the length of a log that is replicated
	drainFor        = 10 * time.Millisecond // readers, at first
	drainMost       = 320 * time.Millisecond
	optimizeEvery   = time.Hour
)

// maintainer checkpoints the write-ahead log in the background, so that
// commits seldom have to, and keeps the planner's statistics fresh. It sleeps
// while nobody writes.
type maintainer struct {
	db     *DB
	kick   chan struct{} // one slot: there were writes
	quit   chan struct{}
	exited chan struct{}

	drain     time.Duration // how long to hold up readers next time
	notBefore time.Time     // the next time
}

func (m *maintainer) start(db *DB) {
	m.db = db
	m.kick = make(chan struct{}, 1)
	m.quit = make(chan struct{})
	m.exited = make(chan struct{})
	go m.run()
}

// wrote tells the maintainer that there is something to checkpoint.
func (m *maintainer) wrote() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

func (m *maintainer) stop() {
	close(m.quit)
	<-m.exited
}

func (m *maintainer) run() {
	defer close(m.exited)
	var c *conn
	defer func() {
		if c != nil {
			_ = c.close() // it wrote nothing of its own
		}
	}()
	pause := time.NewTimer(0)
	defer pause.Stop()
	every := checkpointEvery
	if m.db.opts.Replicated {
		every = lookEvery
	}
	optimized := time.Now()
	for {
		select {
		case <-m.quit:
			return
		case <-m.kick:
		}
		pause.Reset(every)
		select {
		case <-m.quit:
			return
		case <-pause.C:
		}
		if c == nil {
			var err error
			if c, err = m.db.openConn(true); err != nil {
				m.db.log.Warn("open connection for checkpoints", "error", err)
				continue
			}
		}
		if err := m.checkpoint(c); err != nil {
			m.db.log.Warn("checkpoint", "error", err)
		}
		if time.Since(optimized) > optimizeEvery {
			optimized = time.Now()
			if err := m.db.Write(context.Background(), Stmt{SQL: "PRAGMA optimize"}); err != nil {
				m.db.log.Warn("optimize database", "error", err)
			}
		}
	}
}

// checkpoint copies the log into the database as far as readers allow,
// waiting for nobody and making nobody wait. But the log begins anew only when
// for once nobody reads from it, which under load may never happen: when it
// has become much longer than it should be, readers are held up for a moment
// (https://www.sqlite.org/wal.html#avoiding_excessively_large_wal_files).
// That is of no use while somebody else reads for long: a snapshot, or a
// replicator, whose transaction keeps most of the log from being copied.
//
// A replicator checkpoints the log itself, and what it has not read when the
// log begins anew it must make up for with a copy of the whole database. So a
// log that is replicated is left alone while it is short, which gives a
// replicator that has died the time to come back.
func (m *maintainer) checkpoint(c *conn) error {
	limit := int64(m.db.opts.Checkpoint)
	if m.db.opts.Replicated {
		if pages, _, err := checkpoint(c, "NOOP"); err != nil || pages < limit/2 {
			return err
		}
	}
	pages, copied, err := checkpoint(c, "PASSIVE")
	if err != nil || pages < 3*limit || copied < pages/2 || m.db.snapshots.active() || time.Now().Before(m.notBefore) {
		return err
	}
	// Readers that do not leave in time are given longer the next time, but
	// nobody is held up for more than a tenth of the time.
	m.drain = min(max(drainFor, 2*m.drain), drainMost)
	drain, cancel := context.WithTimeout(context.Background(), m.drain)
	defer cancel()
	resume, ok := m.db.readers.pause(drain)
	defer resume()
	m.notBefore = time.Now().Add(10 * m.drain)
	if !ok {
		return nil
	}
	if _, _, err := checkpoint(c, "PASSIVE"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkpointEvery)
	defer cancel()
	// What was written meanwhile is checkpointed by the next commit, and the
	// one behind that begins the log anew.
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for before := pages; pages >= before && err == nil; {
		select {
		case <-tick.C:
			pages, _, err = checkpoint(c, "NOOP")
		case <-ctx.Done():
			return nil
		}
	}
	m.drain = 0
	return err
}

// checkpoint runs a checkpoint and returns the length of the log in pages and
// how many of them are in the database, too.
func checkpoint(c *conn, mode string) (pages, copied int64, err error) {
	err = c.query(context.Background(), "PRAGMA wal_checkpoint("+mode+")", nil, func(row []driver.Value) error {
		pages, _ = row[1].(int64)
		copied, _ = row[2].(int64)
		return nil
	})
	return pages, copied, err
}
