package throttle_test

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth/internal/throttle"
	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

var (
	bg  = context.Background()
	key = [32]byte{1, 2, 3}
)

// clock is a clock that goes when it is told to.
type clock struct{ micros atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.micros.Store(time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC).UnixMicro())
	return c
}

func (c *clock) now() time.Time       { return time.UnixMicro(c.micros.Load()) }
func (c *clock) add(by time.Duration) { c.micros.Add(by.Microseconds()) }

func newStore(tb testing.TB) (*throttle.Store, *sqlite.DB, *clock) {
	tb.Helper()
	c := newClock()
	db := sqlitetest.Open(tb, throttle.Schema)
	return throttle.New(db, c.now, key), db, c
}

func check(subject string, limit throttle.Limit) throttle.Check {
	return throttle.Check{Scope: "account", Subject: subject, Limit: limit}
}

func peek(tb testing.TB, s *throttle.Store, checks ...throttle.Check) time.Duration {
	tb.Helper()
	wait, err := s.Peek(bg, checks...)
	if err != nil {
		tb.Fatal(err)
	}
	return wait
}

func take(tb testing.TB, s *throttle.Store, checks ...throttle.Check) time.Duration {
	tb.Helper()
	wait, err := s.Take(bg, checks...)
	if err != nil {
		tb.Fatal(err)
	}
	return wait
}

// fail takes without condition, n times.
func fail(tb testing.TB, db *sqlite.DB, s *throttle.Store, n int, checks ...throttle.Check) {
	tb.Helper()
	for range n {
		if err := db.Write(bg, s.Stmts(checks...)...); err != nil {
			tb.Fatal(err)
		}
	}
}

func number(tb testing.TB, db *sqlite.DB, query string) int64 {
	tb.Helper()
	var n int64
	err := db.Query(bg, query, nil, func(row []driver.Value) error {
		n, _ = row[0].(int64)
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

func TestTakeArithmetic(t *testing.T) {
	t.Parallel()
	type step struct {
		after time.Duration
		want  time.Duration // to wait; 0 if the event is taken
	}
	for _, test := range []struct {
		name  string
		limit throttle.Limit
		steps []step
	}{
		{"burst of all events", throttle.Limit{Events: 3, Per: 3 * time.Second}, []step{
			{0, 0}, {0, 0}, {0, 0}, {0, time.Second},
			{999_999 * time.Microsecond, time.Microsecond},
			{time.Microsecond, 0},
			{0, time.Second},
			{time.Hour, 0}, {0, 0}, {0, 0}, {0, time.Second},
		}},
		{"no burst", throttle.Limit{Events: 60, Per: time.Minute, Burst: 1}, []step{
			{0, 0}, {0, time.Second}, {time.Second, 0}, {500 * time.Millisecond, 500 * time.Millisecond},
			{600 * time.Millisecond, 0}, {0, time.Second},
		}},
		{"burst beyond the events", throttle.Limit{Events: 1, Per: time.Hour, Burst: 3}, []step{
			{0, 0}, {0, 0}, {0, 0}, {0, time.Hour}, {time.Hour, 0}, {0, time.Hour},
			{2 * time.Hour, 0}, {0, 0}, {0, time.Hour},
		}},
		{"rounded up", throttle.Limit{Events: 7, Per: time.Second, Burst: 1}, []step{
			{0, 0}, {0, 142_858 * time.Microsecond}, {142_857 * time.Microsecond, time.Microsecond}, {time.Microsecond, 0},
		}},
		{"part of the debt paid", throttle.Limit{Events: 4, Per: 4 * time.Second, Burst: 2}, []step{
			{0, 0}, {1500 * time.Millisecond, 0}, {0, 0}, {0, time.Second}, {250 * time.Millisecond, 750 * time.Millisecond},
		}},
		{"nanoseconds", throttle.Limit{Events: 1, Per: time.Nanosecond}, []step{
			{0, 0}, {0, time.Microsecond}, {time.Microsecond, 0},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, _, c := newStore(t)
			for i, step := range test.steps {
				c.add(step.after)
				if got := peek(t, s, check("a", test.limit)); got != step.want {
					t.Fatalf("step %d: peek says wait %v, want %v", i, got, step.want)
				}
				if got := take(t, s, check("a", test.limit)); got != step.want {
					t.Fatalf("step %d: take says wait %v, want %v", i, got, step.want)
				}
			}
		})
	}
}

func TestTakeAllOrNone(t *testing.T) {
	t.Parallel()
	s, _, c := newStore(t)
	minute := check("a", throttle.Limit{Events: 1, Per: time.Minute})
	hour := throttle.Check{Scope: "address", Subject: "a", Limit: throttle.Limit{Events: 2, Per: 2 * time.Hour}}
	none := throttle.Check{Scope: "global"}

	if wait := take(t, s, minute, hour, none); wait != 0 {
		t.Fatalf("first: wait %v", wait)
	}
	if wait := take(t, s, hour, minute, none); wait != time.Minute {
		t.Fatalf("second: wait %v, want a minute", wait)
	}
	if wait := take(t, s, hour); wait != 0 {
		t.Fatalf("the refused take has taken from the other limit: wait %v", wait)
	}
	if wait := take(t, s, minute, hour); wait != time.Hour {
		t.Fatalf("wait %v, want that of the longest", wait)
	}
	c.add(time.Hour)
	if wait := peek(t, s, minute, hour); wait != 0 {
		t.Fatalf("after an hour: wait %v", wait)
	}
}

func TestZeroLimitAllowsEverything(t *testing.T) {
	t.Parallel()
	s, db, _ := newStore(t)
	c := check("a", throttle.Limit{})
	for range 5 {
		if wait := peek(t, s, c) + take(t, s, c); wait != 0 {
			t.Fatalf("wait %v", wait)
		}
	}
	if take(t, s) != 0 || len(s.Stmts(c)) != 0 || number(t, db, "SELECT count(*) FROM _throttle") != 0 {
		t.Fatal("a limit that is none was stored")
	}
}

func TestInvalidLimits(t *testing.T) {
	t.Parallel()
	s, db, _ := newStore(t)
	for _, l := range []throttle.Limit{
		{Events: 1},
		{Per: time.Hour},
		{Burst: 1},
		{Events: -1, Per: time.Hour},
		{Events: 1, Per: -time.Hour},
		{Events: 1, Per: time.Hour, Burst: -1},
		{Events: 1, Per: 1 << 62, Burst: 1 << 40},
	} {
		_, peekErr := s.Peek(bg, check("a", l))
		_, takeErr := s.Take(bg, check("a", l))
		writeErr := db.Write(bg, s.Stmts(check("a", l))...)
		if l.Validate() == nil || peekErr == nil || takeErr == nil || writeErr == nil {
			t.Errorf("%+v: validate %v, peek %v, take %v, write %v", l, l.Validate(), peekErr, takeErr, writeErr)
		}
	}
	if err := (throttle.Limit{Events: 1 << 62, Per: 1, Burst: 1 << 50}).Validate(); err != nil {
		t.Errorf("a very high limit: %v", err)
	}
}

func TestStmtsSaturateAndForget(t *testing.T) {
	t.Parallel()
	s, db, c := newStore(t)
	limit := throttle.Limit{Events: 5, Per: 5 * time.Minute}
	a, b := check("a", limit), check("b", limit)
	fail(t, db, s, 1000, a, b)
	if wait := peek(t, s, a); wait != time.Minute {
		t.Fatalf("after a thousand failures: wait %v, want the time of one", wait)
	}
	if ahead := number(t, db, "SELECT max(tat) FROM _throttle") - c.now().UnixMicro(); ahead != limit.Per.Microseconds() {
		t.Fatalf("the debt is %d µs, want Per", ahead)
	}
	if err := db.Write(bg, s.Forget("account", "a")); err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		if wait := take(t, s, a); (wait > 0) != (i == 5) {
			t.Fatalf("take %d after Forget: wait %v", i, wait)
		}
	}
	if peek(t, s, b) == 0 {
		t.Fatal("Forget has forgotten somebody else too")
	}
}

func TestScopesAndSubjectsAreTold(t *testing.T) {
	t.Parallel()
	s, _, _ := newStore(t)
	limit := throttle.Limit{Events: 1, Per: time.Hour}
	for _, c := range []throttle.Check{
		{Scope: "a", Subject: "b"}, {Scope: "ab"}, {Subject: "ab"}, {Scope: "a", Subject: "b\x00"}, {Scope: "a", Subject: "B"},
	} {
		c.Limit = limit
		if wait := take(t, s, c); wait != 0 {
			t.Errorf("scope %q, subject %q is limited by the others", c.Scope, c.Subject)
		}
	}
}

func TestTakeUnderRaces(t *testing.T) {
	t.Parallel()
	const burst, goroutines = 37, 200
	path := filepath.Join(t.TempDir(), "test.db")
	c := newClock()
	stores := make([]*throttle.Store, 2)
	for i := range stores {
		stores[i] = throttle.New(sqlitetest.OpenFile(t, path, throttle.Schema), c.now, key)
	}
	limit := throttle.Limit{Events: 100, Per: time.Hour, Burst: burst}
	var taken atomic.Int64
	var wg sync.WaitGroup
	for i := range goroutines {
		wg.Go(func() {
			wait, err := stores[i%len(stores)].Take(bg, check("a", limit), check(fmt.Sprint(i), limit))
			if err != nil {
				t.Error(err)
			} else if wait == 0 {
				taken.Add(1)
			}
		})
	}
	wg.Wait()
	if taken.Load() != burst {
		t.Fatalf("%d were allowed, want exactly %d", taken.Load(), burst)
	}
}

func TestRestart(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "test.db")
	c := newClock()
	limit := throttle.Limit{Events: 2, Per: 24 * time.Hour}
	db := sqlitetest.OpenFile(t, path, throttle.Schema)
	s := throttle.New(db, c.now, key)
	take(t, s, check("a", limit))
	take(t, s, check("a", limit))
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	c.add(time.Hour)
	db = sqlitetest.OpenFile(t, path, throttle.Schema)
	if wait := take(t, throttle.New(db, c.now, key), check("a", limit)); wait != 11*time.Hour {
		t.Fatalf("after a restart: wait %v, want 11 h", wait)
	}
	if wait := take(t, throttle.New(db, c.now, [32]byte{4}), check("a", limit)); wait != 0 {
		t.Fatalf("under another key: wait %v", wait)
	}
}

func TestFileNamesNobody(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "test.db")
	s := throttle.New(sqlitetest.OpenFile(t, path, throttle.Schema), nil, key)
	take(t, s, throttle.Check{Scope: "scopeofmails", Subject: "ada@example.org", Limit: throttle.Limit{Events: 1, Per: time.Hour}})
	for _, suffix := range []string{"", "-wal"} {
		file, err := os.ReadFile(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"ada@example", "scopeofmails"} {
			if bytes.Contains(file, []byte(text)) {
				t.Errorf("%q stands in the file%s", text, suffix)
			}
		}
	}
}

func TestSchema(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "test.db")
	db := sqlitetest.OpenFile(t, path, "")
	s := throttle.New(db, nil, key)
	for range 2 {
		err := db.Update(bg, func(tx *sqlite.Tx) error {
			_, err := tx.ExecContext(bg, throttle.Schema)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		take(t, s, check("a", throttle.Limit{Events: 1, Per: time.Hour}))
	}
	if n := number(t, db, "SELECT count(*) FROM sqlite_schema WHERE name LIKE '_throttle%'"); n != 2 {
		t.Errorf("the schema has made %d objects, want 2", n)
	}

	own := sql.OpenDB(db.Connector())
	defer own.Close()
	own.SetMaxOpenConns(1)
	for _, stmt := range []string{
		"PRAGMA trusted_schema=OFF", throttle.Schema, "INSERT INTO _throttle (key, tat) VALUES (x'00', 1)", "DELETE FROM _throttle",
	} {
		if _, err := own.ExecContext(bg, stmt); err != nil {
			t.Errorf("%s: %v", stmt, err)
		}
	}
}

func TestErrorsOfTheDatabase(t *testing.T) {
	t.Parallel()
	s, db, _ := newStore(t)
	c := check("a", throttle.Limit{Events: 1, Per: time.Hour})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Peek(bg, c); err == nil {
		t.Error("Peek on a closed database is no error")
	}
	if _, err := s.Take(bg, c); err == nil {
		t.Error("Take on a closed database is no error")
	}
	if _, err := s.Prune(bg); err == nil {
		t.Error("Prune on a closed database is no error")
	}
}
