package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"runtime/debug"
)

// savepoint runs fn so that its failure leaves what was done before in place.
func (c *conn) savepoint(name string, fn func() error) error {
	bg := context.Background()
	if err := c.query(bg, "SAVEPOINT "+name, nil, nil); err != nil {
		return err
	}
	err := fn()
	if c.raw.AutoCommit() {
		return err
	}
	if err != nil {
		if rerr := c.query(bg, "ROLLBACK TO "+name, nil, nil); rerr != nil {
			return errors.Join(err, rerr)
		}
	}
	if rerr := c.query(bg, "RELEASE "+name, nil, nil); rerr != nil {
		return errors.Join(err, rerr)
	}
	return err
}

// statements executes a caller's statements one after the other, up to the
// first error.
func (c *conn) statements(stmts []Stmt) (err error) {
	outer := c.enter()
	defer func() {
		c.leave(outer)
		if p := recover(); p != nil {
			err = &PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	for i := range stmts {
		s := &stmts[i]
		n := 0
		err := c.query(context.Background(), s.SQL, s.Args, func(row []driver.Value) error {
			n++
			if s.Row != nil {
				s.Row(row)
			}
			return nil
		})
		if s.Rows != nil {
			*s.Rows = n
		}
		if err != nil {
			return &StmtError{i, refused(err)}
		}
		if s.Done != nil {
			if err := s.Done(n); err != nil {
				return err
			}
		}
	}
	return nil
}
