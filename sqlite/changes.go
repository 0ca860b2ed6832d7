package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"strconv"
	"strings"
)

// A ChangeOp says what a [Change] tells.
type ChangeOp uint8

const (
	// RowInsert, RowUpdate and RowDelete: a row of Table has changed.
	RowInsert ChangeOp = 1 + iota
	RowUpdate
	RowDelete
	// LogEvent: somebody has called [ChangeLog.Publish].
	LogEvent
	// LogBreak: from here back, the history of Table is incomplete, because
	// its schema has changed or because the log was off.
	LogBreak
)

// A Change is one entry of a [ChangeLog]. It is shared and must not be
// modified.
type Change struct {
	Seq   int64
	Op    ChangeOp
	Table string // as it is spelled in the schema; "" for an event
	Size  int    // of the entry, about, in bytes

	// Columns are the columns of the table, all of them, in its order; Old
	// and New the row's values before and after, nil where there was no row.
	// Values are nil, int64, float64, string or []byte.
	Columns  []string
	Old, New []driver.Value

	// Channel and Event are those of Publish.
	Channel string
	Event   []byte
}

// A Position is a place in a change log: behind the change Seq. Epoch names
// the history that Seq counts in; it is renewed when the file was restored.
type Position struct {
	Epoch string
	Seq   int64
}

// String returns the position as "epoch.seq".
func (p Position) String() string { return p.Epoch + "." + strconv.FormatInt(p.Seq, 10) }

// ErrPosition is returned by [ParsePosition].
var ErrPosition = errors.New("sqlite: not a position in a change log")

// maxEpoch bounds the text of an epoch, in bytes.
const maxEpoch = 32

// ParsePosition reads what [Position.String] has written.
func ParsePosition(s string) (Position, error) {
	epoch, number, ok := strings.Cut(s, ".")
	if !ok || !plainName(epoch) || len(epoch) > maxEpoch || number == "" || number[0] == '+' || number[0] == '-' {
		return Position{}, ErrPosition
	}
	seq, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return Position{}, ErrPosition
	}
	return Position{epoch, seq}, nil
}

// A Querier runs statements on one snapshot: a [Reader] or a [Scratch].
type Querier interface {
	Query(query string, args []driver.Value, row func([]driver.Value) error) error
}

// A ChangePage is a part of a change log.
type ChangePage struct {
	// Gap reports that what directly follows the position asked for is not
	// there any more, or that the position is not of this history. Changes
	// then begin behind the gap.
	Gap bool

	// Changes are the entries, in the order of their commits.
	Changes []*Change

	// End is where the next page begins: it may be behind the last change.
	End Position
}

// A ChangeLog records, in the database file itself, how rows of tracked tables
// change: by triggers, so whoever writes them and in the order of the commits.
// What is rolled back leaves no trace. It is safe for concurrent use.
type ChangeLog struct {
	db   *DB
	name string // of the database
}

// ChangeLog returns the log of the main database file, "main", or of an
// attached one.
func (db *DB) ChangeLog(database string) (*ChangeLog, error) {
	panic("TODO")
}

// Install makes the log's own tables if they are not there. Track does it,
// too.
func (l *ChangeLog) Install(ctx context.Context) error { panic("TODO") }

// Track begins to record the changes of tables.
func (l *ChangeLog) Track(ctx context.Context, tables ...string) error { panic("TODO") }

// Head returns the position behind the newest change that is committed.
func (l *ChangeLog) Head(ctx context.Context) (Position, error) { panic("TODO") }

// HeadExpr returns an SQL expression for the text of Head, to be part of a
// statement that reads.
func (l *ChangeLog) HeadExpr() string { panic("TODO") }

// Page returns at most limit changes behind after and up to the change upTo.
func (l *ChangeLog) Page(q Querier, after Position, upTo int64, limit int) (ChangePage, error) {
	panic("TODO")
}

// Wait returns when the head is not after any more, or ctx has ended.
func (l *ChangeLog) Wait(ctx context.Context, after Position) error { panic("TODO") }

// Publish appends an event of the application's.
func (l *ChangeLog) Publish(ctx context.Context, channel string, event []byte) error {
	panic("TODO")
}

// PublishTx is Publish as a part of tx.
func (l *ChangeLog) PublishTx(ctx context.Context, tx *Tx, channel string, event []byte) error {
	panic("TODO")
}
