package sqlite

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"unicode/utf8"
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
// the history that Seq counts in; it is renewed when another file was put in
// the place of the database, but see [ChangeLog.Renew].
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
//
// Some things it does not see, or not as they are:
//   - Rows that REPLACE deletes to make room for another one. UPSERT deletes
//     none. (PRAGMA recursive_triggers would show them, and make a trigger that
//     updates its own table run for ever.)
//   - A row whose foreign key refers to the row itself, when an action ON
//     UPDATE changes it: it is recorded as it was before that.
//   - An update by a temporary trigger of the row that has fired it: SQLite
//     runs it before those of the log, so the two updates are in the wrong
//     order.
//   - The sign of a zero in a column without a type.
//
// The name _change and those that begin with "_change_" belong to the log.
// Programs that have the same file open should use the same version of this
// package: triggers that another one has made are not as they must be.
type ChangeLog struct {
	db   *DB
	name string // of the database
	file string // identity, when it was opened
	sql  logSQL

	there   atomic.Bool  // installed, and tables of this very file
	checked atomic.Int64 // schema version at which all was as it must be
	tried   atomic.Int64 // when Wait has last put it in order, Unix nanoseconds
	pause   atomic.Int64 // nanoseconds until it does so again, after failures
	shapes  shapes
	sealer  atomic.Pointer[Sealer]
}

// ChangeLog returns the log of the main database file, "main", or of an
// attached one. Every call returns the same.
func (db *DB) ChangeLog(database string) (*ChangeLog, error) {
	for _, l := range db.logs {
		if sameName(l.name, database) {
			return l, nil
		}
	}
	return nil, fmt.Errorf("sqlite: no database is attached as %q", database)
}

// newLogs returns the logs of all databases.
func (db *DB) newLogs() (logs []*ChangeLog) {
	for i, name := range db.schemaNames() {
		l := &ChangeLog{db: db, name: name, file: fileIdentity(db.files()[i])}
		l.sql = l.statements()
		l.checked.Store(-1)
		logs = append(logs, l)
	}
	return logs
}

// openLogs puts the logs in order that are in the files already. Nobody uses
// the writer w yet.
func (db *DB) openLogs(ctx context.Context, w *conn) {
	for _, l := range db.logs {
		_, some, err := l.complete(w)
		if err == nil && some {
			err = l.Track(ctx)
		}
		if err != nil {
			db.log.Warn("open the change log", "database", l.name, "error", err)
		}
	}
}

const (
	maxChannel = 1024    // bytes
	maxEvent   = 1 << 20 // bytes
)

// Publish appends an event of the application's: a JSON text of at most 1 MiB,
// for a channel of at most 1024 bytes. It returns after its commit.
func (l *ChangeLog) Publish(ctx context.Context, channel string, event []byte) error {
	if err := l.Install(ctx); err != nil {
		return err
	}
	query, err := l.publication(channel, event)
	if err != nil {
		return err
	}
	return l.db.Write(ctx, Stmt{SQL: query, Args: []driver.Value{channel, string(event)}})
}

// PublishTx is Publish as a part of tx, an Update: the event is there when and
// only when all else that tx writes is. The log must have been installed.
func (l *ChangeLog) PublishTx(ctx context.Context, tx *Tx, channel string, event []byte) error {
	query, err := l.publication(channel, event)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, query, channel, string(event))
	return err
}

// publication checks an event and returns the statement that appends it.
func (l *ChangeLog) publication(channel string, event []byte) (query string, err error) {
	switch {
	case channel == "" || len(channel) > maxChannel || !utf8.ValidString(channel) || strings.ContainsRune(channel, 0):
		return "", errors.New("sqlite: publish: the channel must have from 1 to 1024 bytes of UTF-8, without NUL")
	case len(event) > maxEvent:
		return "", errors.New("sqlite: publish: the event has more than 1 MiB")
	case !json.Valid(event) || !utf8.Valid(event):
		return "", errors.New("sqlite: publish: the event is not JSON")
	}
	return l.in("INSERT INTO $._change (shape, op, old, new) VALUES (0, " + op(LogEvent) + ", ?, ?)"), nil
}
