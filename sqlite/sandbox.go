package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"

	sqlite3 "github.com/mattn/go-sqlite3"

	"github.com/bedplate/bedplate/internal/sqltoken"
)

// Sandbox compiles SQL that comes from a configuration, under an authorizer
// (https://www.sqlite.org/c3ref/set_authorizer.html) that permits reading and
// nothing else: no writing, no PRAGMA, no ATTACH, no recursion, no functions
// but the allowed ones. It belongs to one goroutine.
type Sandbox struct {
	c        *conn
	denied   string
	planning bool
}

// Action codes of the authorizer that the driver does not name.
const (
	actionCreateTable = 2
	actionDelete      = 9
	actionDropTable   = 11
	actionInsert      = 18
	actionPragma      = 19
	actionRead        = 20
	actionSelect      = 21
	actionTransaction = 22
	actionUpdate      = 23
	actionAttach      = 24
	actionDetach      = 25
	actionAlterTable  = 26
	actionFunction    = 31
	actionSavepoint   = 32
	actionRecursive   = 33
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
		case s.planning:
			return sqlite3.SQLITE_OK
		case action == actionRead && strings.HasPrefix(strings.ToLower(arg1), "pragma_"):
			s.denied = "PRAGMA is not allowed"
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
	tokens, err := sqltoken.Scan(query)
	if err != nil {
		return 0, err
	}
	if len(tokens) == 0 || !tokens[0].Is("SELECT") && !tokens[0].Is("WITH") {
		return 0, errors.New("only reading is allowed (SELECT)")
	}
	for _, t := range tokens[:len(tokens)-1] {
		if t.IsPunct(";") {
			return 0, errors.New("only one statement is allowed")
		}
	}
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

// Plan returns what EXPLAIN QUERY PLAN says about query, which may be one that
// writes, a line per step (https://www.sqlite.org/eqp.html).
func (s *Sandbox) Plan(query string, args []driver.Value) (steps []string, err error) {
	s.planning = true
	defer func() { s.planning = false }()
	err = s.c.query(context.Background(), "EXPLAIN QUERY PLAN "+query, args, func(row []driver.Value) error {
		steps = append(steps, row[3].(string))
		return nil
	})
	return steps, err
}

// Close releases the sandbox.
func (s *Sandbox) Close() error { return s.c.close() }
