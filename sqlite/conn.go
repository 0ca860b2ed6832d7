package sqlite

import (
	"container/list"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"sync/atomic"
	"unsafe"

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

	watch  *watch // nil: not watched
	handle unsafe.Pointer
	since  atomic.Int64 // when a caller's statement began, Unix nanoseconds; 0: none runs

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
	if c.watch != nil {
		c.watch.remove(c)
	}
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
	resync := c.tx.resync
	c.tx.resync = false
	ds, err := c.raw.Prepare(text)
	alters := c.tx.resync
	c.tx.resync = resync || alters
	if err != nil {
		return nil, err
	}
	if err := checkStatement(ds); err != nil {
		return nil, err
	}
	s := &stmt{sql: text, s: ds.(*sqlite3.SQLiteStmt), n: ds.NumInput()}
	if _, nested := c.stmts[text]; nested || alters {
		// Closed after use, see release. What alters the schema is not kept,
		// because authorize must see it each time.
		return s, nil
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

// checkStatement refuses a text without a statement, which the driver would
// crash on, and one with several, of which it would run the first. It closes
// what it refuses. The driver keeps both facts to itself.
func checkStatement(s driver.Stmt) error {
	v := reflect.ValueOf(s).Elem()
	handle, tail := v.FieldByName("s"), v.FieldByName("t")
	var err error
	switch {
	case !handle.IsValid() || !tail.IsValid():
		err = errors.New("sqlite: this version of mattn/go-sqlite3 is not supported")
	case handle.IsNil():
		err = errors.New("sqlite: no statement in the text")
	case tail.String() != "":
		err = errors.New("sqlite: only one statement is allowed here")
	default:
		return nil
	}
	return errors.Join(err, s.Close())
}

func (c *conn) release(s *stmt) {
	s.busy = false
	clear(s.row)
	if e, ok := c.stmts[s.sql]; !ok || e.Value.(*stmt) != s {
		_ = s.s.Close()
	}
}

// call is query for a statement of a caller's.
func (c *conn) call(ctx context.Context, text string, args []driver.Value, row func([]driver.Value) error) error {
	defer c.leave(c.enter())
	return refused(c.query(ctx, text, args, row))
}

// enter and leave stand around the statements of a caller. A statement in the
// row callback of another one counts as part of that.
func (c *conn) enter() (outer whose) {
	outer = c.tx.running
	if outer == ours {
		c.watch.started(c)
	}
	c.tx.running = ofStatement
	return outer
}

func (c *conn) leave(outer whose) {
	c.tx.running = outer
	if outer == ours {
		c.since.Store(0)
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
	beginSQL               string
	commitSQL, rollbackSQL []string

	// running tells whose statements run, for authorize.
	running whose

	// altered tells that a statement may have changed the schema; resync that
	// it was a caller's, and that sync must be called before its commit.
	altered, resync bool

	// sync, if not nil, puts the change logs in order.
	sync func() error

	// touched, if not nil, gets the tables that statements write to or whose
	// schema they change: "database.table", in lower case.
	touched map[string]bool

	// migrating tells that the connection is closed after the migrations,
	// so that it does not matter what settings they leave.
	migrating bool

	// scratch tells that nothing but temporary tables may be written. Some
	// pragmas write to the file, so there are none.
	scratch bool

	// hold, if not nil, stands for the caller's context while a statement
	// runs: interrupting a write would roll back the whole shared
	// transaction (https://www.sqlite.org/c3ref/interrupt.html), so a
	// caller's context is looked at between statements only.
	hold context.Context

	// met is the first error of SQLite in the transaction.
	met error
}

// whose tells who has written a statement.
type whose uint8

const (
	ours        whose = iota
	ofFunction        // a function of Update or View, or a migration
	ofStatement       // a caller of Write, Query or Read
)

// note remembers err.
func (t *txConn) note(err error) error {
	if Code(err) == int(sqlite3.ErrAuth) {
		return refused(err)
	}
	if t.met == nil && Code(err) != 0 {
		t.met = err
	}
	return err
}

func (t *txConn) Connect(context.Context) (driver.Conn, error) { return t, nil }
func (t *txConn) Driver() driver.Driver                        { return Driver{} }
func (t *txConn) Close() error                                 { return nil }

func (t *txConn) Begin() (driver.Tx, error) {
	t.resync = false // of one before, which has failed
	err := t.control(t.beginSQL)
	t.running = ofFunction
	return t, err
}

func (t *txConn) Commit() error {
	t.running = ours
	if err := t.settle(); err != nil {
		return errors.Join(t.note(err), t.Rollback())
	}
	return t.control(t.commitSQL...)
}

// settle puts the change logs in order when the schema may have changed.
func (t *txConn) settle() error {
	if !t.resync || t.sync == nil || t.c.raw.AutoCommit() {
		return nil
	}
	if err := t.sync(); err != nil {
		return err
	}
	t.resync = false
	return nil
}

func (t *txConn) Rollback() error { return t.control(t.rollbackSQL...) }

// refused explains the error of a statement that authorize denied.
func refused(err error) error {
	if Code(err) != int(sqlite3.ErrAuth) {
		return err
	}
	return fmt.Errorf("sqlite: a statement inside a transaction must not end it, attach files or change settings: %w", err)
}

// control runs statements that begin or end the transaction.
func (t *txConn) control(stmts ...string) error {
	t.running = ours
	for _, s := range stmts {
		if err := t.c.query(context.Background(), s, nil, nil); err != nil {
			return t.note(err)
		}
	}
	return nil
}

// authorize keeps the application's statements from ending the transaction,
// which is not their own, and from changing the connection for those who come
// later (https://www.sqlite.org/c3ref/c_alter_table.html has the actions).
func (t *txConn) authorize(action int, arg1, arg2, database string) int {
	if t.running == ours {
		return sqlite3.SQLITE_OK
	}
	if t.scratch && (action == actionPragma || database != "temp" && writes(action)) {
		return sqlite3.SQLITE_DENY
	}
	switch {
	case 3 <= action && action <= 6, 12 <= action && action <= 15:
		t.altered = true // CREATE TEMP, DROP TEMP
	case 1 <= action && action <= 8, 10 <= action && action <= 17, action == 26, action == 29, action == 30:
		t.altered, t.resync = true, true // CREATE, DROP, ALTER
	}
	if t.touched != nil {
		t.touch(action, arg1, arg2, database)
	}
	switch action {
	case actionTransaction, actionAttach, actionDetach:
		return sqlite3.SQLITE_DENY
	case actionSavepoint:
		if t.running == ofStatement || strings.HasPrefix(strings.ToLower(arg2), savepointPrefix) {
			return sqlite3.SQLITE_DENY
		}
	case actionPragma:
		if !t.migrating && arg2 != "" && settings[strings.ToLower(arg1)] {
			return sqlite3.SQLITE_DENY
		}
	}
	return sqlite3.SQLITE_OK
}

// touch notes which table action is about.
func (t *txConn) touch(action int, arg1, arg2, database string) {
	switch action {
	case actionAlterTable:
		t.touched[foldName(arg1+"."+arg2)] = true
	case actionCreateTable, actionDelete, actionDropTable, actionInsert, actionUpdate:
		t.touched[foldName(database+"."+arg1)] = true
	}
}

// writes reports whether action writes to a database or to its schema.
func writes(action int) bool {
	switch action {
	case actionRead, actionSelect, actionFunction, actionRecursive, actionPragma, actionTransaction, actionSavepoint:
		return false
	}
	return true
}

// settings are the pragmas that change a connection or how it treats the file.
var settings = map[string]bool{
	"automatic_index": true, "busy_timeout": true, "cache_size": true, "cache_spill": true, "case_sensitive_like": true,
	"cell_size_check": true, "checkpoint_fullfsync": true, "foreign_keys": true, "fullfsync": true, "hard_heap_limit": true,
	"ignore_check_constraints": true, "journal_mode": true, "journal_size_limit": true, "legacy_alter_table": true,
	"locking_mode": true, "max_page_count": true, "mmap_size": true, "query_only": true, "read_uncommitted": true,
	"recursive_triggers": true, "reverse_unordered_selects": true, "secure_delete": true, "soft_heap_limit": true,
	"synchronous": true, "temp_store": true, "threads": true, "trusted_schema": true, "wal_autocheckpoint": true,
	"wal_checkpoint": true, "writable_schema": true,
}

// context returns the context a statement runs under.
func (t *txConn) context(ctx context.Context) (context.Context, error) {
	if t.hold == nil {
		return ctx, ctx.Err()
	}
	if t.c.raw.AutoCommit() {
		// Something like RAISE(ROLLBACK) has ended the transaction. What
		// came now would be committed by itself.
		return nil, ErrRolledBack
	}
	return t.hold, ctx.Err()
}

func (t *txConn) Prepare(query string) (driver.Stmt, error) {
	return t.PrepareContext(context.Background(), query)
}

func (t *txConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	s, err := t.c.raw.PrepareContext(ctx, query)
	if err != nil {
		return nil, t.note(err)
	}
	if err := checkStatement(s); err != nil {
		return nil, err
	}
	return &txStmt{SQLiteStmt: s.(*sqlite3.SQLiteStmt), t: t}, nil
}

func (t *txConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	ctx, err := t.context(ctx)
	if err != nil {
		return nil, err
	}
	if len(args) == 1 {
		if call, ok := args[0].Value.(directCall); ok {
			return driver.ResultNoRows, t.note(call())
		}
	}
	res, err := t.c.raw.ExecContext(ctx, query, args)
	return res, t.note(err)
}

func (t *txConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	ctx, err := t.context(ctx)
	if err != nil {
		return nil, err
	}
	return t.rows(t.c.raw.QueryContext(ctx, query, args))
}

// rows makes the errors of stepping known as well: with INSERT … RETURNING
// that is where they appear.
func (t *txConn) rows(rows driver.Rows, err error) (driver.Rows, error) {
	if err != nil {
		return nil, t.note(err)
	}
	return &txRows{SQLiteRows: rows.(*sqlite3.SQLiteRows), t: t}, nil
}

type txRows struct {
	*sqlite3.SQLiteRows
	t *txConn
}

func (r *txRows) Next(dest []driver.Value) error {
	err := r.SQLiteRows.Next(dest)
	if err != nil && !errors.Is(err, io.EOF) {
		err = r.t.note(err)
	}
	return err
}

// directCall is how Tx uses the connection without database/sql between: it
// comes as the argument of a statement.
type directCall func() error

// CheckNamedValue lets a directCall pass.
func (t *txConn) CheckNamedValue(v *driver.NamedValue) error {
	if _, ok := v.Value.(directCall); ok {
		return nil
	}
	return driver.ErrSkip
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
	return s.t.rows(s.SQLiteStmt.QueryContext(ctx, args))
}
