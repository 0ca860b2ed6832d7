package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
)

// A Scratch is a reading connection with temporary tables of its own, for
// joining rows that are not in the database with those that are. It can write
// nothing else. It belongs to one goroutine.
type Scratch struct {
	db     *DB
	c      *conn
	values map[any]any
}

// Scratch opens a scratch. The caller closes it, before the database.
func (db *DB) Scratch(ctx context.Context) (*Scratch, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := db.openErr(); err != nil {
		return nil, err
	}
	c, err := db.openConn(true)
	if err != nil {
		return nil, db.classify(err)
	}
	c.tx.scratch = true // from here on the authorizer keeps it from writing
	if err := c.exec("PRAGMA query_only=OFF"); err != nil {
		return nil, errors.Join(db.classify(err), c.close())
	}
	return &Scratch{db, c, map[any]any{}}, nil
}

// Read runs fn in a snapshot: all queries in it see the database at one
// moment. What fn does to temporary tables stays, whatever it returns, unless
// SQLite has rolled back by itself: then Value has forgotten everything.
func (s *Scratch) Read(fn func() error) (err error) {
	if err := s.c.query(context.Background(), "BEGIN /* scratch */", nil, nil); err != nil {
		return s.db.classify(err)
	}
	defer func() {
		cerr := s.c.query(context.Background(), "COMMIT /* scratch */", nil, nil)
		if cerr != nil {
			clear(s.values)
		}
		err = s.db.classify(errors.Join(err, cerr))
	}()
	return fn()
}

// Query runs one statement; see [Reader.Query].
func (s *Scratch) Query(query string, args []driver.Value, row func([]driver.Value) error) error {
	return s.db.classify(s.c.call(context.Background(), query, args, row))
}

// Interrupt makes the statement that runs at the moment, if one does, fail with
// [ErrTimeout]. Other goroutines may call it, until Close.
func (s *Scratch) Interrupt() { interrupt(s.c.handle) }

// Value returns what is kept under key beside the temporary tables, making it
// at first.
func (s *Scratch) Value(key any, first func() any) any {
	v, ok := s.values[key]
	if !ok {
		v = first()
		s.values[key] = v
	}
	return v
}

// Forget drops what Value keeps under key.
func (s *Scratch) Forget(key any) { delete(s.values, key) }

// Close releases the connection.
func (s *Scratch) Close() error { return s.c.close() }
