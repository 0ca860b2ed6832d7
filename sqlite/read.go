package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"sync"
)

// Reader is a read snapshot inside [DB.Read]. It belongs to one goroutine.
type Reader struct {
	ctx context.Context
	c   *conn
}

// Query runs one statement and calls row for each of its rows. The slice is
// reused for the next row; the strings and blobs in it are not. Columns must
// be listed in the statement, not written as "*".
//
// Arguments and values are nil, int64, float64, string or []byte. But the
// driver turns the values of columns declared DATE, DATETIME, TIMESTAMP or
// BOOLEAN into time.Time and bool; an expression, such as +column, keeps them.
func (r *Reader) Query(query string, args []driver.Value, row func([]driver.Value) error) error {
	return r.c.call(r.ctx, query, args, row)
}

// Read runs fn with a reading connection in a snapshot: all its queries see
// the database at one moment. ctx limits waiting and, if it can be cancelled,
// interrupts a running query.
func (db *DB) Read(ctx context.Context, fn func(r *Reader) error) error {
	return db.peek(ctx, func(c *conn) error { return fn(&Reader{ctx, c}) })
}

// peek runs fn, which reads for this package itself, in a snapshot.
func (db *DB) peek(ctx context.Context, fn func(c *conn) error) (err error) {
	c, err := db.readers.get(ctx)
	if err != nil {
		return err
	}
	defer db.readers.put(c)
	if err := c.query(context.Background(), "BEGIN /* reader */", nil, nil); err != nil {
		return db.classify(err)
	}
	defer func() {
		err = db.classify(errors.Join(err, c.query(context.Background(), "COMMIT /* reader */", nil, nil)))
	}()
	return fn(c)
}

// Query runs one statement on a reading connection, prepared once per
// connection; see [Reader.Query]. A ctx without cancellation saves some
// microseconds, which is right for statements that cannot take long.
func (db *DB) Query(ctx context.Context, query string, args []driver.Value, row func([]driver.Value) error) error {
	c, err := db.readers.get(ctx)
	if err != nil {
		return err
	}
	defer db.readers.put(c)
	return db.classify(c.call(ctx, query, args, row))
}

// MaxReaders returns how many reads can run at once.
func (db *DB) MaxReaders() int { return db.opts.Readers }

// readers is the pool of reading connections, opened as they are needed.
type readers struct {
	db *DB

	// free holds what nobody uses: connections, and nil for the right to open
	// one in place of one that could not be opened.
	free chan *conn
	done chan struct{} // closed by close

	mu     sync.Mutex // guards what follows
	slots  int        // connections and nils, in free or in use
	closed bool
}

func (p *readers) init(db *DB) {
	p.db = db
	p.free = make(chan *conn, db.opts.Readers)
	p.done = make(chan struct{})
}

func (p *readers) get(ctx context.Context) (*conn, error) {
	select {
	case <-p.done:
		return nil, ErrClosed
	case c := <-p.free:
		return p.open(c)
	default:
	}
	grow, err := p.grow()
	if err != nil {
		return nil, err
	}
	if grow {
		return p.open(nil)
	}
	select {
	case c := <-p.free:
		return p.open(c)
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-p.done:
		return nil, ErrClosed
	}
}

// grow reports whether the caller may open another connection.
func (p *readers) grow() (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false, ErrClosed
	}
	if p.slots == cap(p.free) {
		return false, nil
	}
	p.slots++
	return true, nil
}

// open returns c, or a new connection if c is nil.
func (p *readers) open(c *conn) (*conn, error) {
	if c != nil {
		return c, nil
	}
	c, err := p.db.openConn(true)
	if err != nil {
		p.free <- nil
		return nil, p.db.classify(err)
	}
	return c, nil
}

func (p *readers) put(c *conn) { p.free <- c }

// pause takes all connections out of use, waiting for them until ctx ends,
// and returns a func that gives them back.
func (p *readers) pause(ctx context.Context) (resume func(), ok bool) {
	p.mu.Lock()
	slots := p.slots
	p.mu.Unlock()
	var taken []*conn
	for len(taken) < slots && ctx.Err() == nil {
		select {
		case c := <-p.free:
			taken = append(taken, c)
		case <-ctx.Done():
		}
	}
	return func() {
		for _, c := range taken {
			p.free <- c
		}
	}, len(taken) == slots
}

// close waits for the connections in use and closes all of them.
func (p *readers) close() error {
	p.mu.Lock()
	p.closed = true
	slots := p.slots
	p.mu.Unlock()
	close(p.done)
	var errs []error
	for range slots {
		if c := <-p.free; c != nil {
			errs = append(errs, c.close())
		}
	}
	return errors.Join(errs...)
}
