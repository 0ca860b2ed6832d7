package sqlite

import (
	"container/list"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"

	sqlite3 "github.com/mattn/go-sqlite3"
)

// maxStatements bounds the prepared statements that one connection keeps.
const maxStatements = 256

// conn is one SQLite connection, driven directly. It is used by one goroutine
// at a time; whoever holds it hands it on through a channel or a mutex.
type conn struct {
	raw   *sqlite3.SQLiteConn
	stmts map[string]*list.Element // of *stmt
	order *list.List               // most recently used first
	args  []driver.NamedValue      // scratch

	tx    txConn
	sqlDB *sql.DB // over tx; opened by the first Update or View
}

// stmt is a prepared statement with room for one of its rows.
type stmt struct {
	sql  string
	s    *sqlite3.SQLiteStmt
	n    int // parameters
	row  []driver.Value
	busy bool // being stepped; a nested use of the same text prepares anew
}

func newConn(raw *sqlite3.SQLiteConn) *conn {
	c := &conn{raw: raw, stmts: make(map[string]*list.Element), order: list.New()}
	c.tx.c = c
	return c
}

func (c *conn) close() error {
	var errs []error
	if c.sqlDB != nil {
		errs = append(errs, c.sqlDB.Close())
	}
	for e := c.order.Front(); e != nil; e = e.Next() {
		errs = append(errs, e.Value.(*stmt).s.Close())
	}
	c.stmts, c.order = nil, list.New()
	return errors.Join(append(errs, c.raw.Close())...)
}

// exec runs statements that take no arguments and whose rows nobody wants.
func (c *conn) exec(script string) error {
	_, err := c.raw.Exec(script, nil)
	return err
}

// pragma returns the single value of a PRAGMA.
func (c *conn) pragma(text string) (v driver.Value, err error) {
	err = c.query(context.Background(), "PRAGMA "+text, nil, func(row []driver.Value) error {
		v = row[0]
		return nil
	})
	return v, err
}

// prepare returns the cached statement for text, preparing it at first use.
func (c *conn) prepare(text string) (*stmt, error) {
	if e, ok := c.stmts[text]; ok {
		if s := e.Value.(*stmt); !s.busy {
			c.order.MoveToFront(e)
			return s, nil
		}
	}
	ds, err := c.raw.Prepare(text)
	if err != nil {
		return nil, err
	}
	s := &stmt{sql: text, s: ds.(*sqlite3.SQLiteStmt), n: ds.NumInput()}
	if _, nested := c.stmts[text]; nested {
		return s, nil // closed after use, see release
	}
	c.stmts[text] = c.order.PushFront(s)
	for e := c.order.Back(); c.order.Len() > maxStatements && e != nil; {
		prev := e.Prev()
		if old := e.Value.(*stmt); !old.busy {
			c.order.Remove(e)
			delete(c.stmts, old.sql)
			_ = old.s.Close() // reports the error of its last run, which was handled then
		}
		e = prev
	}
	return s, nil
}

func (c *conn) release(s *stmt) {
	s.busy = false
	clear(s.row)
	if e, ok := c.stmts[s.sql]; !ok || e.Value.(*stmt) != s {
		_ = s.s.Close()
	}
}

// query runs one statement to its end and calls row, if it is not nil, for
// every row. The slice is reused; strings and blobs in it are the caller's.
// A context that can be cancelled costs some microseconds.
func (c *conn) query(ctx context.Context, text string, args []driver.Value, row func([]driver.Value) error) (err error) {
	s, err := c.prepare(text)
	if err != nil {
		return err
	}
	if s.n != len(args) {
		c.release(s)
		return fmt.Errorf("sqlite: statement takes %d arguments, got %d", s.n, len(args))
	}
	c.args = c.args[:0]
	for i, v := range args {
		c.args = append(c.args, driver.NamedValue{Ordinal: i + 1, Value: v})
	}
	s.busy = true
	defer c.release(s)
	rows, err := s.s.QueryContext(ctx, c.args)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := rows.Close(); err == nil {
			err = cerr
		}
	}()
	if s.row == nil {
		s.row = make([]driver.Value, len(rows.Columns()))
	}
	for {
		switch err := rows.Next(s.row); {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
		if row != nil {
			if err := row(s.row); err != nil {
				return err
			}
		}
	}
}

// begin starts a database/sql transaction on this very connection.
func (c *conn) begin() (*sql.Tx, error) {
	if c.sqlDB == nil {
		c.sqlDB = sql.OpenDB(&c.tx)
		c.sqlDB.SetMaxOpenConns(1)
	}
	return c.sqlDB.BeginTx(context.Background(), nil)
}

// txConn shows a conn to database/sql, so that [Tx] can offer its types. It
// is its own connector and its own transaction, and it does not own the
// connection.
type txConn struct {
	c *conn

	// What a transaction is here: savepoints inside of the shared
	// transaction of the writer, or a plain snapshot of a reader.
	beginSQL, commitSQL, rollbackSQL string

	// hold, if not nil, stands for the caller's context while a statement
	// runs: interrupting a write would roll back the whole shared
	// transaction (https://www.sqlite.org/c3ref/interrupt.html), so a
	// caller's context is looked at between statements only.
	hold context.Context

	// met is the first error of SQLite in the transaction.
	met error
}

// note remembers err.
func (t *txConn) note(err error) error {
	if t.met == nil && Code(err) != 0 {
		t.met = err
	}
	return err
}

func (t *txConn) Connect(context.Context) (driver.Conn, error) { return t, nil }
func (t *txConn) Driver() driver.Driver                        { return Driver{} }
func (t *txConn) Close() error                                 { return nil }
func (t *txConn) Begin() (driver.Tx, error)                    { return t, t.note(t.c.exec(t.beginSQL)) }
func (t *txConn) Commit() error                                { return t.note(t.c.exec(t.commitSQL)) }
func (t *txConn) Rollback() error                              { return t.c.exec(t.rollbackSQL) }

// context returns the context a statement runs under.
func (t *txConn) context(ctx context.Context) (context.Context, error) {
	if t.hold == nil {
		return ctx, ctx.Err()
	}
	return t.hold, ctx.Err()
}

func (t *txConn) Prepare(query string) (driver.Stmt, error) {
	return t.PrepareContext(context.Background(), query)
}

func (t *txConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if err := refuseControl(query); err != nil {
		return nil, err
	}
	s, err := t.c.raw.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	return &txStmt{SQLiteStmt: s.(*sqlite3.SQLiteStmt), t: t}, nil
}

func (t *txConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if err := refuseControl(query); err != nil {
		return nil, err
	}
	ctx, err := t.context(ctx)
	if err != nil {
		return nil, err
	}
	res, err := t.c.raw.ExecContext(ctx, query, args)
	return res, t.note(err)
}

func (t *txConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if err := refuseControl(query); err != nil {
		return nil, err
	}
	ctx, err := t.context(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := t.c.raw.QueryContext(ctx, query, args)
	return rows, t.note(err)
}

// txStmt is a statement that an application prepared inside a transaction.
type txStmt struct {
	*sqlite3.SQLiteStmt
	t *txConn
}

func (s *txStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	ctx, err := s.t.context(ctx)
	if err != nil {
		return nil, err
	}
	res, err := s.SQLiteStmt.ExecContext(ctx, args)
	return res, s.t.note(err)
}

func (s *txStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	ctx, err := s.t.context(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := s.SQLiteStmt.QueryContext(ctx, args)
	return rows, s.t.note(err)
}

// refuseControl refuses statements that would end the shared transaction.
func refuseControl(query string) error {
	q := strings.TrimLeft(query, " \t\r\n;")
	word, _, _ := strings.Cut(q, " ")
	switch strings.ToUpper(strings.TrimRight(word, ";\r\n\t")) {
	case "BEGIN", "COMMIT", "END":
		return fmt.Errorf("sqlite: %s inside a transaction: return from the function instead", word)
	case "ROLLBACK":
		if !strings.Contains(strings.ToUpper(q), " TO") {
			return errors.New("sqlite: ROLLBACK inside a transaction: return an error from the function instead")
		}
	}
	return nil
}
