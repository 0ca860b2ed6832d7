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

// The statements around those of the callers. They are told apart by their
// comments, because a connection caches statements by their text and those of
// a caller must not end the transaction.
const (
	beginSQL        = "BEGIN IMMEDIATE /* writer */"
	commitSQL       = "COMMIT /* writer */"
	rollbackSQL     = "ROLLBACK /* writer */"
	writeSavepoint  = `"` + savepointPrefix + `write"`
	txSavepoint     = `"` + savepointPrefix + `statements"`
	nestedSavepoint = `"` + savepointPrefix + `nested"`
)

// A Stmt is one statement of a [DB.Write] with its arguments, which are nil,
// int64, float64, string or []byte.
type Stmt struct {
	SQL  string
	Args []driver.Value

	// Row, if not nil, is called for each row that the statement returns.
	// The slice is reused for the next row; strings and blobs in it are not.
	Row func(row []driver.Value)

	// Rows, if not nil, is set to the number of rows.
	Rows *int

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

// request is one caller's write: a list of statements, or a function, or, own,
// one of this package's, which the leader runs and may have to run again.
type request struct {
	stmts []Stmt
	fn    func(*Tx) error
	hold  time.Duration // how long fn may keep the writer
	alone bool          // in a transaction that it shares with nobody
	own   func(*conn) error

	err     error        // written by the leader before it answers
	done    chan error   // the answer; one slot
	turn    chan bool    // for fn: the writer is yours
	fin     chan error   // for fn: the outcome; one slot
	begun   chan *sql.Tx // for fn: its transaction; one slot
	taken   bool         // guarded by writer.mu: no longer in the queue
	settled bool         // its outcome stands: not to be repeated
}

// writer is the writing end of a DB: leader/follower group commit. Whoever
// finds no leader leads: it executes its own request and those that arrive
// meanwhile in one transaction, commits, and answers everybody. There is no
// leader while nobody writes.
type writer struct {
	db *DB
	c  *conn // used by the leader only, or by the function it gave the turn to

	running *request // used by the leader only

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
	if err := w.db.Err(); err != nil {
		return err
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

// next takes the first waiting request, or nil. One that is to be alone is taken
// as the first of a transaction only.
func (w *writer) next(first bool) *request {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 || w.queue[0].alone && !first {
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
	finished := false
	defer func() {
		if p := recover(); p != nil {
			w.abandon(batch, &PanicError{Value: p, Stack: debug.Stack()})
		} else if !finished {
			go w.resume(batch)
		}
	}()
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
		w.batch(&batch)
		w.note()
		w.db.commits.committed()
		w.db.maintain.wrote() // also when the queue never runs empty
		w.db.pruner.wrote()
		answered := false
		for _, r := range batch {
			answered = answered || r == own
			r.done <- r.err
		}
		clear(batch)
		batch = batch[:0]
		w.mu.Lock()
		if len(w.queue) == 0 {
			w.leading = false
			w.idle.Broadcast()
			w.mu.Unlock()
			finished = true
			return
		}
		w.mu.Unlock()
		if answered {
			finished = true
			go w.lead(nil)
			return
		}
	}
}

// note tells that the schema may have changed, before anybody is answered.
func (w *writer) note() {
	if w.c.tx.altered {
		w.c.tx.altered = false
		w.db.altered.Add(1)
	}
}

// resume goes on after a callback has ended the leader's goroutine with
// runtime.Goexit: that request is undone, the others are repeated.
func (w *writer) resume(batch []*request) {
	finished := false
	defer func() {
		if !finished { // a callback did it when it was repeated
			go w.resume(batch)
		}
	}()
	culprit := w.running
	culprit.settled = true
	culprit.err = errors.New("sqlite: a callback ended its goroutine")
	if !w.c.raw.AutoCommit() {
		if err := w.c.exec("ROLLBACK"); err != nil {
			finished = true
			w.abandon(batch, err)
			return
		}
	}
	w.again(batch, culprit.err)
	finished = true
	w.note()
	w.db.commits.committed()
	for _, r := range batch {
		r.done <- r.err
	}
	w.lead(nil)
}

// abandon stops all writing after a panic in the leader: what state the
// connection is in is unknown. Those who wait are told.
func (w *writer) abandon(batch []*request, cause error) {
	err := w.fail(cause)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range append(batch, w.queue...) {
		r.taken = true
		select {
		case r.done <- err:
		default: // answered already
		}
	}
	w.queue, w.leading = nil, false
	w.idle.Broadcast()
}

// batch executes waiting requests in one transaction, appending them to done
// with their outcome in err.
func (w *writer) batch(done *[]*request) {
	take := func() *request {
		r := w.next(len(*done) == 0)
		if r != nil {
			*done = append(*done, r)
		}
		return r
	}
	r := take()
	if r == nil {
		return
	}
	if failed := w.failure(); failed != nil {
		r.err = failed
		return
	}
	joined, lost := 0, false // requests in the open transaction; whether it was lost
	for start := time.Now(); r != nil; r = take() {
		if joined == 0 {
			if r.err = w.begin(); r.err != nil {
				w.refuse(done, r.err)
				return
			}
		}
		w.run(r, joined > 0)
		if w.c.raw.AutoCommit() {
			if lost = joined > 0; lost {
				break
			}
		} else {
			joined++
		}
		if r.alone || len(*done) >= w.db.opts.MaxBatch || time.Since(start) > maxBatchTime {
			break
		}
	}
	switch {
	case lost:
		w.again(*done, r.err)
	case joined > 0:
		w.finish(*done)
	}
}

// refuse answers everybody in the queue with err: they have waited as long as
// the one that the transaction could not be begun for.
func (w *writer) refuse(done *[]*request, err error) {
	for r := w.next(true); r != nil; r = w.next(true) {
		r.err = err
		*done = append(*done, r)
	}
}

// finish commits the shared transaction.
func (w *writer) finish(batch []*request) {
	err := w.commit()
	if err == nil {
		return
	}
	if failed := w.failure(); failed != nil {
		for _, r := range batch {
			r.err = failed
		}
		return
	}
	if len(batch) == 1 {
		batch[0].err = err
		return
	}
	w.again(batch, err)
}

func (w *writer) begin() error {
	return w.settle(w.c.query(context.Background(), beginSQL, nil, nil))
}

// commit ends the transaction, if need be by a rollback.
func (w *writer) commit() error {
	err := w.settle(w.c.query(context.Background(), commitSQL, nil, nil))
	if err != nil {
		w.rollback()
	}
	return err
}

// rollback ends the transaction if there still is one.
func (w *writer) rollback() {
	if w.c.raw.AutoCommit() {
		return
	}
	if err := w.c.query(context.Background(), rollbackSQL, nil, nil); err != nil {
		_ = w.fail(err) // for those who come next
	}
}

// again repeats, each in a transaction of its own, the statements whose work
// was lost with the shared transaction. Also those that had failed: the
// reason may have been work that is gone now.
func (w *writer) again(batch []*request, cause error) {
	for _, r := range batch {
		switch {
		case r.settled:
		case r.fn == nil:
			if r.err = w.begin(); r.err != nil {
				break
			}
			if w.run(r, false); r.err == nil {
				r.err = w.commit()
			}
		case r.err != nil:
		case errors.Is(cause, ErrDiskFull):
			r.err = cause
		default:
			// The cause is somebody else's error, not to be taken for one's own.
			r.err = fmt.Errorf("%w: %v", ErrRolledBack, cause) //nolint:errorlint // see above
		}
		r.settled = true
	}
}

// run executes r inside the open transaction. When it is shared, the failure
// of r leaves the work of others in place; otherwise it ends the transaction.
func (w *writer) run(r *request, shared bool) {
	w.running = r
	switch {
	case r.fn != nil:
		r.err = w.giveTurn(r)
	case shared:
		r.err = w.settle(w.c.savepoint(writeSavepoint, func() error { return w.execute(r) }))
	default:
		r.err = w.settle(w.execute(r))
	}
	r.settled = r.settled || errors.Is(r.err, ErrTimeout) // not to take as long again
	switch gone := w.c.raw.AutoCommit(); {
	case r.err == nil && gone:
		r.err = fmt.Errorf("%w: it was ended inside", ErrRolledBack)
	case r.err != nil && !shared:
		w.rollback()
	}
}

// execute runs a request that is not a function.
func (w *writer) execute(r *request) error {
	if r.own != nil {
		return r.own(w.c)
	}
	w.c.tx.resync = false // of a request before, which has failed
	if err := w.c.statements(r.stmts); err != nil {
		return err
	}
	return w.c.tx.settle()
}

// giveTurn lends the writer to the goroutine that waits in do, and takes it
// back when the function has ended or has had it for too long.
func (w *writer) giveTurn(r *request) error {
	hold, interrupt := context.WithCancel(context.Background())
	defer interrupt()
	w.c.tx.hold, w.c.tx.met = hold, nil
	r.turn <- true
	timer := time.NewTimer(r.hold)
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
	if hold.Err() != nil && errors.Is(err, context.Canceled) {
		err = ErrHeldTooLong // the function returned the error of the interrupt
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
