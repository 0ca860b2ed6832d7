package throttle_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth/internal/throttle"
	"github.com/bedplate/bedplate/sqlite"
)

func TestPruneRemovesPaidDebts(t *testing.T) {
	t.Parallel()
	s, db, c := newStore(t)
	brief, long := throttle.Limit{Events: 1, Per: time.Minute}, throttle.Limit{Events: 1, Per: time.Hour}
	const n = 1234 // several chunks
	spray(t, db, s, n, brief)
	take(t, s, check("long", long))

	if deleted := prune(t, s); deleted != 0 {
		t.Fatalf("%d debts were deleted before they were paid", deleted)
	}
	c.add(time.Minute)
	if deleted := prune(t, s); deleted != n {
		t.Fatalf("%d rows were deleted, want %d", deleted, n)
	}
	if peek(t, s, check("long", long)) == 0 {
		t.Fatal("a debt was deleted that is not paid")
	}
}

func TestPruneStopsWithItsContext(t *testing.T) {
	t.Parallel()
	s, db, c := newStore(t)
	spray(t, db, s, 10, throttle.Limit{Events: 1, Per: time.Minute})
	c.add(time.Hour)
	ctx, cancel := context.WithCancel(bg)
	cancel()
	if deleted, err := s.Prune(ctx); deleted != 0 || !errors.Is(err, context.Canceled) {
		t.Fatalf("deleted %d, error %v", deleted, err)
	}
}

// Names that somebody makes up push themselves out, not the account that is
// under attack.
func TestA5_SprayDoesNotEvict(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: writes 200 000 rows, one after the other")
	}
	t.Parallel()
	limit := throttle.Limit{Events: 10, Per: 15 * time.Minute}
	for _, maxRows := range []int{0, 1000} {
		t.Run(fmt.Sprint("MaxRows ", maxRows), func(t *testing.T) {
			t.Parallel()
			s, db, c := newStore(t)
			s.MaxRows = maxRows
			victim := check("victim", limit)
			fail(t, db, s, 10, victim)
			for range 5 {
				spray(t, db, s, 20_000, limit)
				c.add(time.Second)
				prune(t, s)
			}
			if peek(t, s, victim) == 0 {
				t.Fatal("the spray has freed the account")
			}
			if n := number(t, db, "SELECT count(*) FROM _throttle"); maxRows > 0 && n != int64(maxRows) {
				t.Fatalf("%d rows are left, want %d", n, maxRows)
			}
		})
	}
}

func prune(tb testing.TB, s *throttle.Store) int {
	tb.Helper()
	deleted, err := s.Prune(bg)
	if err != nil {
		tb.Fatal(err)
	}
	return deleted
}

// spray takes one event each of n names, new ones every time.
func spray(tb testing.TB, db *sqlite.DB, s *throttle.Store, n int, limit throttle.Limit) {
	tb.Helper()
	round := time.Now().UnixNano()
	err := db.Update(bg, func(tx *sqlite.Tx) error {
		for i := range n {
			name := fmt.Sprint(round, " ", i)
			for _, stmt := range s.Stmts(check(name, limit)) {
				if _, err := tx.ExecContext(bg, stmt.SQL, anys(stmt.Args)...); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
}

func anys(values []driver.Value) []any {
	args := make([]any, len(values))
	for i, v := range values {
		args[i] = v
	}
	return args
}
