package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"runtime/debug"
	"time"
)

// Tx is a transaction inside Update or View. Its four methods are those that
// database/sql users and generated code (sqlc) expect. It must not be used
// after the function has returned, nor by several goroutines at once.
//
// In Update a context is looked at before each statement, not during it: an
// interrupted write would undo the work of everybody who shares the commit.
type Tx struct {
	tx     *sql.Tx
	c      *conn
	inside bool // in a callback of Write or Query
	ended  []func(committed bool)
}

// errInside is for what would wait for the end of the query that it is inside
// of. QueryRowContext, which has no error to return, gets a context with it.
var errInside = errors.New("sqlite: inside a row of Query, only Query can be used")

// ExecContext executes a statement that returns no rows.
func (t *Tx) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if t.inside {
		return nil, errInside
	}
	return t.tx.ExecContext(ctx, query, args...)
}

// QueryContext executes a statement that returns rows.
func (t *Tx) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if t.inside {
		return nil, errInside
	}
	return t.tx.QueryContext(ctx, query, args...)
}

// QueryRowContext executes a statement that returns at most one row.
func (t *Tx) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	if t.inside {
		ended, cancel := context.WithCancelCause(ctx)
		cancel(errInside)
		ctx = ended
	}
	return t.tx.QueryRowContext(ctx, query, args...)
}

// PrepareContext prepares a statement for use within this transaction.
func (t *Tx) PrepareContext(ctx context.Context, query string) (*sql.Stmt, error) {
	if t.inside {
		return nil, errInside
	}
	return t.tx.PrepareContext(ctx, query)
}

// Write executes statements as [DB.Write] does, but as a part of this
// transaction: an error undoes them and nothing else. It is for statements that
// are executed often, since the connection keeps them prepared.
func (t *Tx) Write(stmts ...Stmt) error {
	return t.directly(func(c *conn) error {
		return c.savepoint(txSavepoint, func() error { return c.statements(stmts) })
	})
}

// Query runs one statement as [Reader.Query] does, and sees what the
// transaction has written. Within row, no method of t but Query can be used.
func (t *Tx) Query(query string, args []driver.Value, row func([]driver.Value) error) error {
	return t.directly(func(c *conn) error {
		return c.call(context.Background(), query, args, row)
	})
}

// Nested runs fn, which uses t, so that what it has done is undone when it
// returns an error or panics. It may be nested.
func (t *Tx) Nested(fn func() error) (err error) {
	control := func(sql string) error {
		return t.directly(func(c *conn) error { return c.query(context.Background(), sql, nil, nil) })
	}
	if err := control("SAVEPOINT " + nestedSavepoint); err != nil {
		return err
	}
	returned, before := false, len(t.ended)
	defer func() {
		if !returned || err != nil {
			for i := before; i < len(t.ended); i++ {
				fn := t.ended[i]
				t.ended[i] = func(bool) { fn(false) }
			}
			err = errors.Join(err, control("ROLLBACK TO "+nestedSavepoint))
		}
		err = errors.Join(err, control("RELEASE "+nestedSavepoint))
	}()
	err = fn()
	returned = true
	return err
}

// OnEnd has fn called, by the goroutine that called Update or View, when the
// transaction has ended. committed is whether what was done before OnEnd stands,
// also if only the call of Nested around it was undone, but not if that was the
// application's own ROLLBACK TO: fn may then do what must not be done for a
// transaction that is rolled back.
func (t *Tx) OnEnd(fn func(committed bool)) { t.ended = append(t.ended, fn) }

// directly runs fn with the connection of the transaction, while database/sql
// knows that it is in use: it must not be rolled back meanwhile.
func (t *Tx) directly(fn func(*conn) error) error {
	if t.inside {
		return fn(t.c)
	}
	t.inside = true
	defer func() { t.inside = false }()
	_, err := t.tx.ExecContext(context.Background(), "", directCall(func() error {
		outer := t.c.tx.running
		t.c.tx.running = ours
		defer func() { t.c.tx.running = outer }()
		return fn(t.c)
	}))
	return err
}

// end calls the funcs of OnEnd, the others also if one panics.
func (t *Tx) end(committed bool) {
	if len(t.ended) == 0 {
		return
	}
	fn := t.ended[0]
	t.ended = t.ended[1:]
	defer t.end(committed)
	fn(committed)
}

// Update runs fn in a write transaction and returns after its commit. When fn
// returns an error or panics, what it wrote is rolled back and the error, or
// a [PanicError], is returned. fn runs in the caller's goroutine; others wait
// for the writer meanwhile, so it should not wait for anything else, and must
// not call Update or Write. A function still running after Options.MaxHold
// loses its transaction ([ErrHeldTooLong]).
//
// ctx is for waiting: once fn runs, only the contexts that it passes on count.
func (db *DB) Update(ctx context.Context, fn func(tx *Tx) error) error {
	return db.UpdateWithin(ctx, db.opts.MaxHold, fn)
}

// UpdateWithin is Update for a function that may keep the writer for hold
// instead of Options.MaxHold, if that is longer.
func (db *DB) UpdateWithin(ctx context.Context, hold time.Duration, fn func(tx *Tx) error) error {
	return db.update(ctx, &request{hold: hold}, fn)
}

// UpdateAlone is UpdateWithin in a transaction that no others share, so that it
// is not rolled back for their reasons. Nobody else's commit is shared either:
// it is for what has been lost with a shared one ([ErrRolledBack]).
func (db *DB) UpdateAlone(ctx context.Context, hold time.Duration, fn func(tx *Tx) error) error {
	return db.update(ctx, &request{hold: hold, alone: true}, fn)
}

func (db *DB) update(ctx context.Context, r *request, fn func(tx *Tx) error) (err error) {
	if fn == nil {
		fn = func(*Tx) error { panic("sqlite: Update without a function") }
	}
	var begun *Tx
	committed := false
	defer func() {
		if begun != nil {
			begun.end(committed)
		}
	}()
	r.hold = min(r.hold, db.opts.MaxHold)
	r.fn = func(tx *Tx) error {
		begun = tx
		return fn(tx)
	}
	err = db.writer.do(ctx, r)
	committed = err == nil
	return err
}

// View runs fn in a read transaction: all its statements see the database at
// one moment. Writing fails. ctx is for waiting for a free connection.
func (db *DB) View(ctx context.Context, fn func(tx *Tx) error) error {
	c, err := db.readers.get(ctx)
	if err != nil {
		return err
	}
	var begun *Tx
	committed := false
	defer func() {
		db.readers.put(c)
		if begun != nil {
			begun.end(committed)
		}
	}()
	err = runTx(c, func(tx *Tx) error {
		begun = tx
		return fn(tx)
	}, nil)
	committed = err == nil
	return err
}

// runTx runs fn in a transaction of c and ends it in every case, also when fn
// panics or calls runtime.Goexit. started, if not nil, is told the
// transaction before fn runs.
func runTx(c *conn, fn func(*Tx) error, started func(*sql.Tx)) (err error) {
	tx, err := c.begin()
	if err != nil {
		return err
	}
	if started != nil {
		started(tx)
	}
	returned := false
	defer func() {
		if returned && err == nil {
			err = tx.Commit()
			if err == nil {
				return
			}
		}
		if p := recover(); p != nil {
			err = &PanicError{Value: p, Stack: debug.Stack()}
		}
		if rerr := tx.Rollback(); rerr != nil && !errors.Is(rerr, sql.ErrTxDone) {
			err = errors.Join(err, rerr)
		}
	}()
	err = fn(&Tx{tx: tx, c: c})
	returned = true
	return err
}
