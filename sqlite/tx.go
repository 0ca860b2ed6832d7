package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"runtime/debug"
)

// Tx is a transaction inside Update or View. Its four methods are those that
// database/sql users and generated code (sqlc) expect. It must not be used
// after the function has returned, nor by several goroutines at once.
//
// In Update a context is looked at before each statement, not during it: an
// interrupted write would undo the work of everybody who shares the commit.
type Tx struct{ tx *sql.Tx }

// ExecContext executes a statement that returns no rows.
func (t *Tx) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return t.tx.ExecContext(ctx, query, args...)
}

// QueryContext executes a statement that returns rows.
func (t *Tx) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return t.tx.QueryContext(ctx, query, args...)
}

// QueryRowContext executes a statement that returns at most one row.
func (t *Tx) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return t.tx.QueryRowContext(ctx, query, args...)
}

// PrepareContext prepares a statement for use within this transaction.
func (t *Tx) PrepareContext(ctx context.Context, query string) (*sql.Stmt, error) {
	return t.tx.PrepareContext(ctx, query)
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
	if fn == nil {
		fn = func(*Tx) error { panic("sqlite: Update without a function") }
	}
	return db.writer.do(ctx, &request{fn: fn})
}

// View runs fn in a read transaction: all its statements see the database at
// one moment. Writing fails. ctx is for waiting for a free connection.
func (db *DB) View(ctx context.Context, fn func(tx *Tx) error) error {
	c, err := db.readers.get(ctx)
	if err != nil {
		return err
	}
	defer db.readers.put(c)
	return runTx(c, fn, nil)
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
	err = fn(&Tx{tx})
	returned = true
	return err
}
