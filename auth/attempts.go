package auth

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/bedplate/bedplate/auth/internal/throttle"
	"github.com/bedplate/bedplate/sqlite"
)

// An attempt is one try to show a password or a code. It is limited three
// ways: for the account, for the address it comes from, and in all. A device
// from which the user has signed in before is counted by itself, so that
// failures of others do not lock its owner out.
type attempt struct {
	service *Service
	checks  []throttle.Check
	subject string
	device  string // what sets a known device apart from others
}

// try begins an attempt for an account, known by any name that stands for it
// even if there is none. It fails with status 429 when a limit is reached,
// whether or not what comes next would be right. The caller ends it with
// release.
func (s *Service) try(ctx context.Context, r *http.Request, account string, user *row) (*attempt, error) {
	return s.tryWithin(ctx, r, account, user, s.cfg.Limits.Failures)
}

// trySecondFactor is try for the codes of a user who has shown a first factor.
func (s *Service) trySecondFactor(ctx context.Context, r *http.Request, user *row) (*attempt, error) {
	return s.tryWithin(ctx, r, factorAccount(user.id), user, s.cfg.Limits.SecondFactors)
}

func (s *Service) tryWithin(ctx context.Context, r *http.Request, account string, user *row, failures Limit) (*attempt, error) {
	a := &attempt{service: s, subject: account}
	known, err := s.knownDevice(ctx, r, user)
	if err != nil {
		return nil, err
	}
	l := s.cfg.Limits
	if !known.browser {
		// Its owner may share an address with who is guessing.
		a.checks = append(a.checks, throttle.Check{Scope: "address", Subject: s.bucket(r), Limit: l.AddressFailures.limit()})
	}
	if known.device != "" {
		a.device = "\x00" + known.device
		a.subject += a.device
	} else {
		a.checks = append(a.checks, throttle.Check{Scope: "global", Limit: l.GlobalFailures.limit()})
	}
	a.checks = append(a.checks, throttle.Check{Scope: "account", Subject: a.subject, Limit: failures.limit()})

	if err := s.admit(ctx, a.checks); err != nil {
		return nil, err
	}
	return a, nil
}

// maxPatience is how long an attempt waits for others that may use up what is
// left of a limit.
const maxPatience = 10 * time.Second

// admit lets an attempt begin if the limits have room for it. Of those who try
// at the same time none has failed yet, but all may: they count as if they had,
// and who finds no room because of them waits for them to end.
func (s *Service) admit(ctx context.Context, checks []throttle.Check) error {
	ctx, cancel := context.WithTimeout(ctx, maxPatience)
	defer cancel()
	for {
		changed, wait, err := s.lineUp(ctx, checks)
		if err != nil || wait == 0 {
			return err
		}
		alone := slices.Clone(checks)
		for i := range alone {
			alone[i].Ahead = 0
		}
		if without, err := s.limits.Peek(ctx, alone...); err != nil || without > 0 {
			return errors.Join(err, limited(without))
		}
		if !s.attempts.await(ctx, changed) {
			return tooMany(time.Second)
		}
	}
}

// lineUp lets an attempt begin if the limits have room for it beside those that run. Otherwise it
// returns for how long there would be none. One looks at a time: those who are not let in must not
// be in each other's way, as then they would wait for each other.
func (s *Service) lineUp(ctx context.Context, checks []throttle.Check) (changed <-chan struct{}, wait time.Duration, err error) {
	select {
	case s.attempts.turn <- struct{}{}:
		defer func() { <-s.attempts.turn }()
	case <-ctx.Done():
		return nil, 0, tooMany(time.Second)
	}
	changed = s.attempts.lineUp(checks)
	wait, err = s.limits.Peek(ctx, checks...)
	if err != nil || wait > 0 {
		s.attempts.stepBack(checks)
	}
	return changed, wait, err
}

func limited(wait time.Duration) error {
	if wait > 0 {
		return tooMany(wait)
	}
	return nil
}

// limit is l as the store takes it.
func (l Limit) limit() throttle.Limit {
	if l.Events < 0 {
		return throttle.Limit{}
	}
	burst := l.Burst
	if burst == 0 {
		burst = l.Events
	}
	return throttle.Limit{Events: l.Events, Per: l.Per, Burst: burst}
}

func (a *attempt) release() { a.service.attempts.end(a.checks) }

// failed counts the attempt, together with further statements.
func (a *attempt) failed(ctx context.Context, with ...sqlite.Stmt) error {
	return a.service.db.Write(context.WithoutCancel(ctx), append(with, a.service.limits.Stmts(a.checks...)...)...)
}

// succeeded is what a success writes: the account's failures are forgotten.
func (a *attempt) succeeded() sqlite.Stmt { return a.service.limits.Forget("account", a.subject) }

// forget is succeeded for a further name of the account.
func (a *attempt) forget(account string) sqlite.Stmt {
	return a.service.limits.Forget("account", account+a.device)
}

// firstSucceeded is succeeded for a first factor. Nothing is forgotten yet
// where a second one is still to come.
func (a *attempt) firstSucceeded(u *row) []sqlite.Stmt {
	if u.totp != "" {
		return nil
	}
	return []sqlite.Stmt{a.succeeded()}
}

// maxWaiting bounds the attempts that wait for others.
const maxWaiting = 256

// attempts counts the attempts that are running, by scope and subject.
type attempts struct {
	turn chan struct{} // has room for who lines up

	mu      sync.Mutex
	running map[string]int
	waiting int
	changed chan struct{} // closed when one ends
}

func newAttempts() attempts {
	return attempts{turn: make(chan struct{}, 1), running: map[string]int{}, changed: make(chan struct{})}
}

// lineUp counts an attempt and tells its checks how many are ahead of it. The
// channel is closed when one of those that are running ends.
func (a *attempts) lineUp(checks []throttle.Check) (changed <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, c := range checks {
		subject := c.Scope + "\x00" + c.Subject
		checks[i].Ahead = a.running[subject]
		a.running[subject]++
	}
	return a.changed
}

// stepBack ends what lineUp began for an attempt that was not admitted. It
// wakes nobody: those who wait do so for one that runs.
func (a *attempts) stepBack(checks []throttle.Check) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range checks {
		a.drop(c.Scope + "\x00" + c.Subject)
	}
}

// end ends what lineUp began for an attempt that was admitted. It wakes also those who have lined up
// and do not wait yet: if this is the last that runs, nobody else would.
func (a *attempts) end(checks []throttle.Check) {
	a.stepBack(checks)
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.changed)
	a.changed = make(chan struct{})
}

// enter counts one more for a subject, unless limit are running.
func (a *attempts) enter(subject string, limit int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.running[subject] >= limit {
		return false
	}
	a.running[subject]++
	return true
}

// leave ends what enter began.
func (a *attempts) leave(subject string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.drop(subject)
}

func (a *attempts) drop(subject string) {
	if a.running[subject]--; a.running[subject] <= 0 {
		delete(a.running, subject)
	}
}

// await waits until changed is closed. It reports false if too many wait
// already or ctx ends.
func (a *attempts) await(ctx context.Context, changed <-chan struct{}) bool {
	a.mu.Lock()
	if a.waiting >= maxWaiting {
		a.mu.Unlock()
		return false
	}
	a.waiting++
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		a.waiting--
		a.mu.Unlock()
	}()
	select {
	case <-changed:
		return true
	case <-ctx.Done():
		return false
	}
}

// A knownDevice is one from which a user has signed in before.
type knownDevice struct {
	device  string // tells it apart from others; "" if it is not known
	browser bool   // by its cookie, not only by its address
}

// knownDevice looks whether the user has signed in before from where the
// request comes from: with this browser's cookie, or from this address.
func (s *Service) knownDevice(ctx context.Context, r *http.Request, user *row) (known knownDevice, err error) {
	var id UserID // of nobody: the same question is asked for an account that does not exist
	if user != nil {
		id = user.id
	}
	address, cookie := s.deviceHashes(r)
	err = s.db.Query(ctx, `SELECT hash FROM _known_device WHERE user = ? AND hash IN (?, ?)`,
		[]driver.Value{id[:], address, cookie}, func(v []driver.Value) error {
			// The cookie says more than the address.
			if hash := blob(v[0]); !bytes.Equal(hash, address) {
				known = knownDevice{string(hash), true}
			} else if known.device == "" {
				known.device = string(hash)
			}
			return nil
		})
	return known, err
}

// deviceHashes returns what a request is known by. Without a cookie both are
// the same.
func (s *Service) deviceHashes(r *http.Request) (address, cookie []byte) {
	address = s.mac("device", "address", s.bucket(r))
	if c := s.cookie(r, cookieDevice); c != "" {
		return address, s.browserHash(c)
	}
	return address, address
}

func (s *Service) browserHash(cookie string) []byte { return s.mac("device", "cookie", cookie) }

// deviceTTL is how long a device stays known without being used.
const deviceTTL = 180 * 24 * time.Hour

// remember makes the device of a sign-in a known one.
func (s *Service) remember(in signIn) []sqlite.Stmt {
	user, now := in.user.id[:], s.now().Unix()
	insert := func(hash []byte) sqlite.Stmt {
		return sqlite.Stmt{
			SQL: `INSERT INTO _known_device (user, hash, seen) VALUES (?, ?, ?)
				ON CONFLICT DO UPDATE SET seen = excluded.seen WHERE abs(excluded.seen - seen) > 3600`, // nearly the same will do
			Args: []driver.Value{user, hash, now},
		}
	}
	address, _ := s.deviceHashes(in.request)
	stmts := []sqlite.Stmt{insert(address)}
	if in.browser != "" {
		stmts = append(stmts, insert(s.browserHash(in.browser)))
	}
	return append(stmts, sqlite.Stmt{
		SQL: `DELETE FROM _known_device WHERE user = ?1 AND hash IN (
			SELECT hash FROM _known_device WHERE user = ?1 ORDER BY seen DESC, hash LIMIT -1 OFFSET ?2)`,
		Args: []driver.Value{user, int64(maxDevices)},
	})
}
