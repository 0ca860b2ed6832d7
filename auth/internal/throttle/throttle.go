// Package throttle limits how often things happen to somebody: failed
// sign-ins of an account, mails to an address. The limits are kept in the
// database, so that they hold across restarts and for all processes that share
// the file, and nothing of them is kept in memory.
//
//	limits := throttle.New(db, time.Now, key) // throttle.Schema has been run
//	wait, err := limits.Take(ctx, throttle.Check{
//		Scope: "mail", Subject: address,
//		Limit: throttle.Limit{Events: 3, Per: time.Hour},
//	})
//	if wait > 0 { // too many: Retry-After
//
// The algorithm is GCRA, the generic cell rate algorithm (ITU-T I.371, annex
// A), which needs one number per subject: the theoretical arrival time, until
// when what has happened so far is a debt. Every event adds Per/Events to
// it, and is allowed while the debt stays within Burst events.
//
// # Clocks
//
// A debt is never more than Burst events. One that is more was written
// before the clock was set back, or under a wider limit; it is cut down and
// stored again when it is seen. So nobody waits for more than Per/Events,
// wherever the clock went, and a clock set forward frees Burst events at most.
package throttle

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/bedplate/bedplate/sqlite"
)

// Schema creates the table, if it is not there. The caller runs it.
//
// The keys are MACs: the table does not say whom it limits.
const Schema = `CREATE TABLE IF NOT EXISTS _throttle (
	key BLOB PRIMARY KEY NOT NULL,
	tat INTEGER NOT NULL -- theoretical arrival time, unix microseconds
) STRICT, WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS _throttle_tat ON _throttle(tat)`

// Limit allows Events in every Per, of which at most Burst at once; a Burst of
// 0 means Events. After a burst they are allowed one by one, Per/Events apart,
// which is rounded up to microseconds. The zero Limit allows everything.
type Limit struct {
	Events int
	Per    time.Duration
	Burst  int
}

// Validate returns what is wrong with the limit, or nil. The methods of
// [Store] refuse such a limit with this error.
func (l Limit) Validate() error {
	_, err := l.rate()
	return err
}

// A Check is a limit for a subject. Limits of different scopes do not count
// together. The scope is a fixed name without NUL bytes; the subject may be
// any text of any length. One call must not name a pair of them twice.
type Check struct {
	Scope, Subject string
	Limit          Limit

	// Ahead is for Peek: how many events others are about to take, who have
	// been allowed to but have not done so yet.
	Ahead int
}

// Store keeps the state of limits in a database. It is safe for concurrent
// use, by several processes too.
type Store struct {
	// MaxRows is how many subjects Prune leaves in the table; 0 means a
	// million. It must not be changed once the Store is in use.
	MaxRows int

	db  *sqlite.DB
	now func() time.Time
	key [32]byte
}

// New returns a Store for a database that has the [Schema]. Subjects are
// stored as a MAC under key, so all that share the file need the same key, and
// with another key all limits begin anew. A nil now means [time.Now].
func New(db *sqlite.DB, now func() time.Time, key [32]byte) *Store {
	if db == nil {
		panic("throttle: no database")
	}
	if now == nil {
		now = time.Now
	}
	return &Store{db: db, now: now, key: key}
}

// Peek returns how long it takes until all checks allow one more event, which
// is 0 if they do now. It takes nothing.
func (s *Store) Peek(ctx context.Context, checks ...Check) (wait time.Duration, err error) {
	debts, err := s.debts(checks)
	if err != nil || len(debts) == 0 {
		return 0, err
	}
	now := s.now().UnixMicro()
	query := selection(debts)
	err = s.db.Query(ctx, query.SQL, query.Args, func(row []driver.Value) error {
		query.Row(row)
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("throttle: reading limits: %w", err)
	}
	// The answer stands whether or not this can be written now.
	_ = s.repair(ctx, debts, now)
	return longestWait(debts, now), nil
}

// Take takes one event of each check and returns 0 if all of them allow it.
// Otherwise it takes none and returns how long it takes until they do. Events
// that are refused write nothing.
func (s *Store) Take(ctx context.Context, checks ...Check) (wait time.Duration, err error) {
	if wait, err = s.Peek(ctx, checks...); err != nil || wait > 0 {
		return wait, err
	}
	debts, err := s.debts(checks)
	if err != nil || len(debts) == 0 {
		return 0, err
	}
	// Others may have taken since, so look again, with the write lock held.
	now := s.now().UnixMicro()
	look := selection(debts)
	look.Done = func(int) error {
		if wait = longestWait(debts, now); wait > 0 {
			return errRefused
		}
		return nil
	}
	switch err := s.db.Write(ctx, append([]sqlite.Stmt{look}, takes(debts, now)...)...); {
	case errors.Is(err, errRefused):
		return wait, nil
	case err != nil:
		return 0, fmt.Errorf("throttle: taking from limits: %w", err)
	}
	return 0, nil
}

// Stmts returns statements that take one event of each check whether they
// allow it or not, to be part of somebody's Write now. A debt does not grow
// beyond what the limit allows at once: failures do not lock anybody out for
// longer the more there are. A limit that is not valid makes the Write fail.
func (s *Store) Stmts(checks ...Check) []sqlite.Stmt {
	debts, err := s.debts(checks)
	if err != nil {
		return []sqlite.Stmt{{SQL: "SELECT 1", Done: func(int) error { return err }}}
	}
	return takes(debts, s.now().UnixMicro())
}

// Forget returns a statement that removes the debt of a subject.
func (s *Store) Forget(scope, subject string) sqlite.Stmt {
	return sqlite.Stmt{
		SQL:  "DELETE FROM _throttle WHERE key = ?",
		Args: []driver.Value{s.mac(scope, subject)},
	}
}

// errRefused undoes a take that the limits do not allow.
var errRefused = errors.New("limit reached")

// debt is a check as it is stored: whom it is about, and how far the theoretical
// arrival time lies.
type debt struct {
	rate
	key   []byte
	tat   int64 // the smallest number when there is none
	ahead int64 // what others are about to add
}

// debts returns the checks that limit anything.
func (s *Store) debts(checks []Check) ([]debt, error) {
	debts := make([]debt, 0, len(checks))
	for _, c := range checks {
		if c.Limit == (Limit{}) {
			continue
		}
		r, err := c.Limit.rate()
		if err != nil {
			return nil, fmt.Errorf("throttle: limit %q: %w", c.Scope, err)
		}
		d := debt{rate: r, key: s.mac(c.Scope, c.Subject), tat: math.MinInt64}
		if d.ahead = r.most; int64(c.Ahead) < r.most/r.interval {
			d.ahead = r.interval * int64(max(0, c.Ahead))
		}
		debts = append(debts, d)
	}
	return debts, nil
}

func (s *Store) mac(scope, subject string) []byte {
	mac := hmac.New(sha256.New, s.key[:])
	mac.Write([]byte(scope))
	mac.Write([]byte{0})
	mac.Write([]byte(subject))
	return mac.Sum(nil)[:16]
}

// selection returns a statement that reads the debts. It has always one row,
// with a column for each.
func selection(debts []debt) sqlite.Stmt {
	const column = "(SELECT tat FROM _throttle WHERE key = ?)"
	args := make([]driver.Value, len(debts))
	for i, d := range debts {
		args[i] = d.key
	}
	return sqlite.Stmt{
		SQL:  "SELECT " + strings.Repeat(column+", ", len(debts)-1) + column,
		Args: args,
		Row: func(row []driver.Value) {
			for i := range debts {
				tat, ok := row[i].(int64)
				if !ok {
					tat = math.MinInt64
				}
				debts[i].tat = tat
			}
		},
	}
}

// takes returns the statements that add an event to each debt.
func takes(debts []debt, now int64) []sqlite.Stmt {
	stmts := make([]sqlite.Stmt, len(debts))
	for i, d := range debts {
		stmts[i] = sqlite.Stmt{
			SQL: `INSERT INTO _throttle (key, tat) VALUES (?1, ?2 + ?3)
				ON CONFLICT (key) DO UPDATE SET tat = min(max(tat, ?2) + ?3, ?4)`,
			Args: []driver.Value{d.key, now, d.interval, now + d.most},
		}
	}
	return stmts
}

func longestWait(debts []debt, now int64) time.Duration {
	var longest time.Duration
	for _, d := range debts {
		longest = max(longest, d.wait(d.tat, d.ahead, now))
	}
	return longest
}

// repair stores debts that are more than their limits know as what the limits
// know: cut down only where they are read, they would be as large again a
// moment later.
func (s *Store) repair(ctx context.Context, debts []debt, now int64) error {
	var stmts []sqlite.Stmt
	for _, d := range debts {
		if d.tat > now+d.most {
			stmts = append(stmts, sqlite.Stmt{
				SQL:  "UPDATE _throttle SET tat = ?2 WHERE key = ?1 AND tat > ?2",
				Args: []driver.Value{d.key, now + d.most},
			})
		}
	}
	if stmts == nil {
		return nil
	}
	return s.db.Write(ctx, stmts...)
}
