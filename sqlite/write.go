package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

// maxBatchTime is how long a shared transaction takes in further writes.
const maxBatchTime = 2 * time.Millisecond

// A Stmt is one statement of a [DB.Write] with its arguments, which are nil,
// int64, float64, string or []byte.
type Stmt struct {
	SQL  string
	Args []driver.Value

	// Row, if not nil, is called for each row that the statement returns.
	// The slice is reused; strings and blobs in it are not.
	Row func(row []driver.Value)

	// Done, if not nil, is called with the number of rows after the last
	// one. Its error undoes the whole write and is returned by Write.
	Done func(rows int) error
}

// Write executes a fixed list of statements as one unit and returns after its
// commit, which it shares with whoever writes at the same time. An error undoes
// the whole list and nothing else. ctx is for waiting; a write that has begun is
// finished.
//
// Row and Done are called by another goroutine while Write waits. When the
// shared transaction is lost for another write's reason, the list is run
// again, so they must set results rather than add to them.
func (db *DB) Write(ctx context.Context, stmts ...Stmt) error {
	return db.writer.do(ctx, &request{stmts: stmts})
}

// request is one caller's write: a list of statements, or a function.
type request struct {
	stmts []Stmt
	fn    func(*Tx) error

	err   error        // written by the leader before it answers
	done  chan error   // the answer; one slot
	turn  chan bool    // for fn: the writer is yours
	fin   chan error   // for fn: the outcome; one slot
	begun chan *sql.Tx // for fn: its transaction; one slot
	taken bool         // guarded by writer.mu: no longer in the queue
}

// simple reports whether r is a transaction of its own without BEGIN.
func (r *request) simple() bool { return len(r.stmts) == 1 && r.stmts[0].Done == nil }

// writer is the writing end of a DB: leader/follower group commit. Whoever
// finds no leader leads: it executes its own request and those that arrive
// meanwhile in one transaction, commits, and answers everybody. There is no
// leader while nobody writes.
type writer struct {
	db *DB
	c  *conn // used by the leader only, or by the function it gave the turn to

	mu      sync.Mutex // guards what follows
	idle    sync.Cond  // signalled when the leader leaves
	queue   []*request
	leading bool
	closed  bool
	failed  error
}

func (w *writer) init(db *DB, c *conn) {
	w.db, w.c = db, c
	w.idle.L = &w.mu
}

// err returns why writes are refused, or nil.
func (w *writer) err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.refusal()
}

func (w *writer) refusal() error {
	if w.closed {
		return ErrClosed
	}
	return w.failed
}

// failure returns the error of a failed commit, if there was one.
func (w *writer) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}

// close refuses further requests, waits for the queue to drain and returns
// the connection.
func (w *writer) close() *conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for w.leading {
		w.idle.Wait()
	}
	return w.c
}

func (w *writer) do(ctx context.Context, r *request) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if w.db.ballast.exhausted() {
		return ErrDiskFull
	}
	r.done = make(chan error, 1)
	if r.fn != nil {
		r.turn, r.fin, r.begun = make(chan bool), make(chan error, 1), make(chan *sql.Tx, 1)
	}
	w.mu.Lock()
	if err := w.refusal(); err != nil {
		w.mu.Unlock()
		return err
	}
	if len(w.queue) >= w.db.opts.MaxQueue {
		w.mu.Unlock()
		return ErrBusy
	}
	w.queue = append(w.queue, r)
	lead := !w.leading
	w.leading = true
	w.mu.Unlock()
	if lead {
		if r.fn != nil {
			go w.lead(nil) // fn must run here, in its caller's goroutine
		} else {
			w.lead(r)
		}
	}
	for {
		select {
		case err := <-r.done:
			return err
		case <-r.turn:
			w.runFunc(r)
		case <-ctx.Done():
			if w.forget(r) {
				return ctx.Err()
			}
			ctx = context.WithoutCancel(ctx) // begun: its outcome counts
		}
	}
}

// forget takes r out of the queue; it reports false when it has been taken.
func (w *writer) forget(r *request) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.taken {
		return false
	}
	for i, q := range w.queue {
		if q == r {
			w.queue = append(w.queue[:i], w.queue[i+1:]...)
			break
		}
	}
	return true
}

// next takes the first waiting request, or nil.
func (w *writer) next() *request {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 {
		return nil
	}
	r := w.queue[0]
	w.queue[0] = nil
	if w.queue = w.queue[1:]; len(w.queue) == 0 {
		w.queue = nil
	}
	r.taken = true
	return r
}

func (w *writer) waiting() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.queue)
}

// lead executes batches until the queue is empty. A caller that leads is
// answered as soon as its own request is, and somebody else goes on.
func (w *writer) lead(own *request) {
	var batch []*request
	for {
		// Let those who are about to write join: on a busy machine this
		// doubles the batch, on an idle one it costs nothing.
		for n := w.waiting(); ; {
			runtime.Gosched()
			m := w.waiting()
			if m == n {
				break
			}
			n = m
		}
		batch = w.batch(batch[:0])
		answered := false
		for i, r := range batch {
			answered = answered || r == own
			r.done <- r.err
			batch[i] = nil
		}
		w.mu.Lock()
		if len(w.queue) == 0 {
			w.leading = false
			w.idle.Broadcast()
			w.mu.Unlock()
			w.db.maintain.wrote()
			return
		}
		w.mu.Unlock()
		if answered {
			go w.lead(nil)
			return
		}
	}
}

// batch executes waiting requests in one transaction and returns them with
// their outcome in err.
func (w *writer) batch(batch []*request) []*request {
	r := w.next()
	if r == nil {
		return batch
	}
	batch = append(batch, r)
	if failed := w.failure(); failed != nil {
		r.err = failed
		return batch
	}
	if r.simple() && (w.db.opts.MaxBatch == 1 || w.waiting() == 0) {
		r.err = w.settle(w.statements(r))
		return batch
	}
	if err := w.settle(w.c.query(context.Background(), "BEGIN IMMEDIATE", nil, nil)); err != nil {
		r.err = err
		return batch
	}
	for start := time.Now(); ; {
		if w.run(r); w.c.raw.AutoCommit() {
			break // the whole transaction is gone
		}
		if len(batch) >= w.db.opts.MaxBatch || time.Since(start) > maxBatchTime {
			break
		}
		if r = w.next(); r == nil {
			break
		}
		batch = append(batch, r)
	}
	err := w.commit(batch)
	if err == nil {
		return batch
	}
	if failed := w.failure(); failed != nil {
		for _, r := range batch {
			r.err = failed
		}
		return batch
	}
	w.again(batch, err)
	return batch
}

// commit ends the shared transaction.
func (w *writer) commit(batch []*request) error {
	if w.c.raw.AutoCommit() {
		for _, r := range batch {
			if r.err != nil {
				return r.err
			}
		}
		return errors.New("sqlite: a function ended the shared transaction")
	}
	err := w.settle(w.c.query(context.Background(), "COMMIT", nil, nil))
	if err != nil && !w.c.raw.AutoCommit() {
		if rerr := w.c.exec("ROLLBACK"); rerr != nil {
			w.fail(rerr)
		}
	}
	return err
}

// again repeats, each in a transaction of its own, the requests whose work
// was lost with the shared transaction for another one's reason.
func (w *writer) again(batch []*request, cause error) {
	for i, r := range batch {
		switch {
		case r.err != nil && (i < len(batch)-1 || r.fn != nil):
			// It failed for a reason of its own.
		case r.fn != nil:
			r.err = fmt.Errorf("%w: %w", ErrRolledBack, cause)
		case r.simple():
			r.err = w.settle(w.statements(r))
		default:
			if r.err = w.settle(w.c.query(context.Background(), "BEGIN IMMEDIATE", nil, nil)); r.err != nil {
				continue
			}
			if w.run(r); r.err != nil {
				if !w.c.raw.AutoCommit() {
					r.err = errors.Join(r.err, w.settle(w.c.exec("ROLLBACK")))
				}
				continue
			}
			r.err = w.commit([]*request{r})
		}
	}
}

// run executes r inside the open transaction.
func (w *writer) run(r *request) {
	switch {
	case r.fn != nil:
		r.err = w.giveTurn(r)
	case r.simple():
		r.err = w.settle(w.statements(r)) // a failing statement undoes itself
	default:
		r.err = w.settle(w.savepoint(r))
	}
}

// savepoint executes r so that its failure leaves the work of others in place.
func (w *writer) savepoint(r *request) error {
	bg := context.Background()
	if err := w.c.query(bg, `SAVEPOINT "write"`, nil, nil); err != nil {
		return err
	}
	err := w.statements(r)
	if w.c.raw.AutoCommit() {
		return err
	}
	if err != nil {
		if rerr := w.c.query(bg, `ROLLBACK TO "write"`, nil, nil); rerr != nil {
			return errors.Join(err, rerr)
		}
	}
	if rerr := w.c.query(bg, `RELEASE "write"`, nil, nil); rerr != nil {
		return errors.Join(err, rerr)
	}
	return err
}

func (w *writer) statements(r *request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	for i := range r.stmts {
		s := &r.stmts[i]
		n := 0
		err := w.c.query(context.Background(), s.SQL, s.Args, func(row []driver.Value) error {
			n++
			if s.Row != nil {
				s.Row(row)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if s.Done != nil {
			if err := s.Done(n); err != nil {
				return err
			}
		}
	}
	return nil
}

// giveTurn lends the writer to the goroutine that waits in do, and takes it
// back when the function has ended or has had it for too long.
func (w *writer) giveTurn(r *request) error {
	hold, interrupt := context.WithCancel(context.Background())
	defer interrupt()
	w.c.tx.hold, w.c.tx.met = hold, nil
	r.turn <- true
	timer := time.NewTimer(w.db.opts.MaxHold)
	defer timer.Stop()
	var err error
	select {
	case err = <-r.fin:
	case <-timer.C:
		interrupt()
		select {
		case err = <-r.fin:
		case tx := <-r.begun:
			// Waits for the running statement. From here on every
			// statement of the function fails with sql.ErrTxDone.
			if rerr := tx.Rollback(); errors.Is(rerr, sql.ErrTxDone) {
				err = <-r.fin // it ended just now
			} else {
				err = ErrHeldTooLong
			}
		}
	}
	if met := w.c.tx.met; met != nil {
		if known := w.settle(met); errors.Is(err, met) {
			err = errors.Join(err, known)
		}
	}
	return err
}

// runFunc runs the function of r on the lent writer. The deferred send also
// gives the writer back when the function calls runtime.Goexit.
func (w *writer) runFunc(r *request) {
	err := errors.New("sqlite: the function ended its goroutine")
	defer func() { r.fin <- err }()
	err = runTx(w.c, r.fn, func(tx *sql.Tx) { r.begun <- tx })
}

// settle makes err one that a caller can act on, and acts on it here: a full
// disk gives up the ballast, a failed commit stops all further writes.
func (w *writer) settle(err error) error {
	switch {
	case err == nil:
		return nil
	case fatal(err):
		return w.fail(err)
	}
	err = w.db.classify(err)
	if errors.Is(err, ErrDiskFull) {
		w.db.ballast.release()
	}
	return err
}

func (w *writer) fail(cause error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed == nil {
		w.failed = fmt.Errorf("%w: %w", ErrFailed, cause)
		w.db.log.Error("write failed, no further writes", "error", cause)
	}
	return w.failed
}
