package sqlite

import (
	"context"
	"time"
)

const (
	checkpointEvery = 50 * time.Millisecond
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
	optimized := time.Now()
	for {
		select {
		case <-m.quit:
			return
		case <-m.kick:
		}
		pause.Reset(checkpointEvery)
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
		// PASSIVE never waits for anybody, nor makes anybody wait.
		if err := c.query(context.Background(), "PRAGMA wal_checkpoint(PASSIVE)", nil, nil); err != nil {
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
