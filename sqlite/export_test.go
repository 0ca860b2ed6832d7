package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"time"
)

// SavepointName is the savepoint that surrounds the function of an Update.
const SavepointName = savepointName

// Waiting returns how many writes wait for the writer of db.
func Waiting(db *DB) int { return db.writer.waiting() }

// DecodeImage reads the image of a row.
func DecodeImage(text string, blobs []bool) ([]driver.Value, bool) { return decodeImage(text, blobs) }

// Watching returns how many wait in [ChangeLog.Wait] for a log of db.
func Watching(db *DB) int { return int(db.commits.waiting.Load()) }

// PollEvery is how often they look for what other processes have written.
const PollEvery = pollEvery

// PruneTarget returns up to where a log without marks is pruned.
func PruneTarget(o ChangeLogOptions, floor, head int64, exact bool) int64 {
	return o.target(nil, floor, head, time.Time{}, exact)
}

// CatchUp puts a log in order and returns how long [ChangeLog.Wait] then does
// not try it again.
func CatchUp(l *ChangeLog) time.Duration {
	l.catchUp(context.Background())
	return max(syncAgain, time.Duration(l.pause.Load()))
}

// Checkpoint does what the background does to the log of db now and then, and
// reports whether it has held up readers.
func Checkpoint(db *DB) (paused bool, err error) {
	m, err := NewMaintainer(db)
	if err != nil {
		return false, err
	}
	paused, err = m.Checkpoint()
	return paused, errors.Join(err, m.Close())
}

// A Maintainer does so again and again.
type Maintainer struct {
	m maintainer
	c *conn
}

// NewMaintainer returns one beside that of db.
func NewMaintainer(db *DB) (*Maintainer, error) {
	c, err := db.openConn(true)
	return &Maintainer{maintainer{db: db}, c}, err
}

// Checkpoint is one round, and reports whether it has held up readers.
func (m *Maintainer) Checkpoint() (paused bool, err error) {
	before := m.m.notBefore
	err = m.m.checkpoint(m.c)
	return m.m.notBefore != before, err
}

// Close closes its connection.
func (m *Maintainer) Close() error { return m.c.close() }

// CheckpointEvery is how often the background does so at most.
const CheckpointEvery = checkpointEvery
