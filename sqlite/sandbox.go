package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	sqlite3 "github.com/mattn/go-sqlite3"
)

// Sandbox compiles SQL that comes from a configuration, under an authorizer
// (https://www.sqlite.org/c3ref/set_authorizer.html) that permits reading and
// nothing else: no writing, no PRAGMA, no ATTACH, no recursion, no functions
// but the allowed ones. It belongs to one goroutine.
type Sandbox struct {
	c      *conn
	denied string
}

// Action codes of the authorizer that the driver does not name.
const (
	actionSelect    = 21
	actionRead      = 20
	actionFunction  = 31
	actionRecursive = 33
)

// Sandbox returns a sandbox in which the SQL functions for which allow
// returns true may be used. The caller closes it.
func (db *DB) Sandbox(ctx context.Context, allow func(function string) bool) (*Sandbox, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if errors.Is(db.writer.err(), ErrClosed) {
		return nil, ErrClosed
	}
	c, err := db.openConn(true)
	if err != nil {
		return nil, db.classify(err)
	}
	s := &Sandbox{c: c}
	c.raw.RegisterAuthorizer(func(action int, arg1, arg2, _ string) int {
		switch {
		case action == actionSelect, action == actionRead:
			return sqlite3.SQLITE_OK
		case action == actionFunction && allow(arg2):
			return sqlite3.SQLITE_OK
		case action == actionFunction:
			s.denied = fmt.Sprintf("function %s is not allowed", arg2)
		case action == actionRecursive:
			s.denied = "recursion is not allowed"
		default:
			s.denied = fmt.Sprintf("only reading is allowed (%s)", arg1)
		}
		return sqlite3.SQLITE_DENY
	})
	return s, nil
}

// Prepare compiles query without running it and returns its number of
// parameters. The error says what SQLite, or the sandbox, has against it.
func (s *Sandbox) Prepare(query string) (parameters int, err error) {
	s.denied = ""
	st, err := s.c.raw.Prepare(query)
	if err != nil {
		if s.denied != "" {
			return 0, errors.New(s.denied)
		}
		return 0, err
	}
	n := st.NumInput()
	return n, st.Close()
}

// Plan returns what EXPLAIN QUERY PLAN says about query, a line per step
// (https://www.sqlite.org/eqp.html).
func (s *Sandbox) Plan(query string, args []driver.Value) (steps []string, err error) {
	s.c.raw.RegisterAuthorizer(nil)
	err = s.c.query(context.Background(), "EXPLAIN QUERY PLAN "+query, args, func(row []driver.Value) error {
		steps = append(steps, row[3].(string))
		return nil
	})
	return steps, err
}

// Close releases the sandbox.
func (s *Sandbox) Close() error { return s.c.close() }
