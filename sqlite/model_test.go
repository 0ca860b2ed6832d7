package sqlite_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

const modelSchema = itemSchema + `;
	CREATE TABLE part (item INTEGER REFERENCES item DEFERRABLE INITIALLY DEFERRED) STRICT;
	CREATE TRIGGER bomb BEFORE INSERT ON item WHEN NEW.note = 'rollback' BEGIN SELECT RAISE(ROLLBACK, 'boom'); END`

// TestModel has many goroutines write at random, in every way that succeeds,
// fails, panics, is cancelled or loses the writer. In the end the table holds
// exactly what was acknowledged.
func TestModel(t *testing.T) {
	t.Parallel()
	for _, options := range []sqlite.Options{
		{},
		{MaxBatch: 1, Synchronous: sqlite.Normal},
		{MaxQueue: 8, MaxBatch: 4, Synchronous: sqlite.Normal, Checkpoint: 1},
		{MaxHold: time.Millisecond, Synchronous: sqlite.Normal},
	} {
		options.Logger = quiet
		db := sqlitetest.Open(t, modelSchema, options)
		const workers, rounds = 24, 40
		acknowledged := make([][]int64, workers)
		var wg sync.WaitGroup
		for g := range workers {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(g), 7)) //nolint:gosec // to be repeatable
				for i := range rounds {
					m := modelCall{db: db, rnd: rnd, id: int64(1 + 4*(g*rounds+i))}
					err := m.call()
					var panicked *sqlite.PanicError
					switch {
					case err == nil:
						acknowledged[g] = append(acknowledged[g], m.wrote...)
					case m.mayFail && sqlite.Code(err) != 0, errors.As(err, &panicked) && m.mayFail, errors.Is(err, errOwn) && m.mayFail:
					case errors.Is(err, sqlite.ErrRolledBack) && m.isUpdate:
					case errors.Is(err, sqlite.ErrHeldTooLong) && m.isUpdate && options.MaxHold != 0:
					case errors.Is(err, sqlite.ErrBusy) && options.MaxQueue != 0:
					case errors.Is(err, context.Canceled) && m.mayCancel:
					default:
						t.Errorf("call ended with %v", err)
					}
				}
			})
		}
		within(t, "workers", wg.Wait)
		var all []int64
		for _, ids := range acknowledged {
			all = append(all, ids...)
		}
		wantAll(t, db, all)
		if n := value(t, db, "SELECT count(*) FROM part"); n != int64(0) {
			t.Errorf("%d parts without an item", n)
		}
		t.Logf("%d items of %d calls", len(all), workers*rounds)
		check(t, db.Err())
	}
}

func wantAll(t *testing.T, db *sqlite.DB, acknowledged []int64) {
	t.Helper()
	there := map[int64]bool{}
	for _, id := range items(t, db) {
		there[id] = true
	}
	for _, id := range acknowledged {
		if !there[id] {
			t.Errorf("item %d is missing", id)
		}
		delete(there, id)
	}
	for id := range there {
		t.Errorf("item %d was not acknowledged", id)
	}
}

// modelCall is one call of TestModel. It may use four ids, from id.
type modelCall struct {
	db  *sqlite.DB
	rnd *rand.Rand
	id  int64

	wrote                        []int64 // if the call succeeds
	isUpdate, mayFail, mayCancel bool
}

func (m *modelCall) call() error {
	ctx := context.Context(bg)
	if m.rnd.IntN(4) == 0 {
		m.mayCancel = true
		c, cancel := context.WithCancel(bg)
		defer cancel()
		pause := m.rnd.IntN(50)
		go func() {
			for range pause {
				runtime.Gosched()
			}
			cancel()
		}()
		ctx = c
	}
	if m.rnd.IntN(2) == 0 {
		return m.write(ctx)
	}
	m.isUpdate = true
	return m.update(ctx)
}

func (m *modelCall) write(ctx context.Context) error {
	m.wrote = []int64{m.id}
	stmts := []sqlite.Stmt{insert(m.id)}
	if m.rnd.IntN(2) == 0 {
		m.wrote = append(m.wrote, m.id+1)
		stmts = append(stmts, insert(m.id+1))
	}
	m.mayFail = true
	last := func(s sqlite.Stmt) error { return m.db.Write(ctx, append(stmts, s)...) }
	switch m.rnd.IntN(10) {
	case 0:
		return last(insert(m.id))
	case 1:
		return last(sqlite.Stmt{SQL: "SELECT 1", Done: func(int) error { return errOwn }})
	case 2:
		return last(sqlite.Stmt{SQL: "SELECT 1", Row: func([]driver.Value) { panic("row") }})
	case 3:
		return last(sqlite.Stmt{SQL: "INSERT INTO part VALUES (-1)"})
	case 4:
		return last(sqlite.Stmt{SQL: "INSERT INTO item (note) VALUES ('rollback')"})
	case 5:
		m.wrote = nil
		return m.db.Write(ctx, sqlite.Stmt{SQL: "INSERT OR ROLLBACK INTO item (id) VALUES (?), (?)", Args: []driver.Value{m.id, m.id}})
	}
	m.mayFail = false
	return m.db.Write(ctx, stmts...)
}

func (m *modelCall) update(ctx context.Context) error {
	kind := m.rnd.IntN(12)
	m.wrote = []int64{m.id, m.id + 1}
	m.mayFail = kind < 8
	return m.db.Update(ctx, func(tx *sqlite.Tx) error {
		if err := exec(tx, m.id, m.id+1); err != nil {
			return err
		}
		switch kind {
		case 0:
			return errOwn
		case 1:
			panic(errOwn)
		case 2:
			return exec(tx, m.id)
		case 3:
			return run(tx, "INSERT INTO part VALUES (-1)")
		case 4:
			return run(tx, "INSERT INTO item (note) VALUES ('rollback')")
		case 5:
			_ = run(tx, "INSERT INTO item (note) VALUES ('rollback')")
			_ = exec(tx, m.id+2)
		case 6:
			_ = run(tx, "COMMIT")
			return errors.Join(run(tx, "ROLLBACK"), errOwn)
		case 7:
			rows, err := tx.QueryContext(bg, "SELECT id FROM item")
			if err != nil || !rows.Next() {
				return errors.Join(err, errOwn)
			}
			return errOwn // rows are left open
		case 8:
			rows, err := tx.QueryContext(bg, "SELECT id FROM item")
			if err == nil && !rows.Next() {
				err = rows.Err() // the writer is lost
			}
			return err // rows are left open
		case 9:
			_ = exec(tx, m.id) // a violation that is dropped undoes its statement only
		}
		return nil
	})
}
