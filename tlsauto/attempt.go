package tlsauto

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"
)

// A renewal is an attempt to obtain a certificate.
type renewal struct {
	mc     *managed
	old    *certificate // to be renewed; nil: none
	before record       // of the attempts that have failed
	issuer Issuer
	id     string // of issuer
	key    crypto.Signer
	wanted bool // by Renew
	forced bool // and this is the first attempt since
}

// leaseMargin is how much longer than an attempt its lease lasts, for what is read and written.
const leaseMargin = 30 * time.Second

// attempt obtains a certificate that is due, or finds out that another process has, or is about to.
func (m *Manager) attempt(ctx context.Context, mc *managed) {
	if mc.onDemand && !m.isWanted(ctx, mc) {
		return
	}
	m.mu.Lock()
	limit := attemptTime(m.cfg.AttemptTimeout, mc.newest(), m.now())
	m.mu.Unlock()

	got, err := m.acquire(ctx, mc, limit+leaseMargin)
	if got || err != nil { // which does not say that it was not acquired
		defer func() {
			if !m.keepsLease(mc) {
				m.release(mc)
			}
		}()
	}
	if ctx.Err() != nil {
		return
	}
	m.tellStore(mc, "lease", err)
	blind := err != nil
	f, err := m.readStored(ctx, mc)
	better := m.learn(ctx, mc, f, err)
	blind = blind || got && err != nil
	switch {
	case ctx.Err() != nil || better:
		return
	case !m.mayOrder(mc, got, blind):
		return
	}
	a := m.prepare(mc)
	if a == nil {
		return
	}
	begun := m.failure(a, errUnfinished)
	begun.Begun = true
	if m.putRecord(mc, begun) != nil {
		if !m.mayOrder(mc, got, true) {
			m.putOff(a)
			return
		}
	} else if !blind {
		m.seesAgain(mc)
	}
	m.tell(Event{Kind: Obtaining, Names: mc.names, Issuer: a.id})
	c, err := m.issue(ctx, a, limit)
	switch {
	case err == nil:
		m.succeeded(a, c)
	case ctx.Err() != nil:
		m.undo(a)
	default:
		m.failed(a, err)
	}
}

// errUnfinished is what other processes read of an attempt that is under way, or that this one did not survive.
var errUnfinished = errors.New("an attempt was begun and has not ended")

// mayOrder reports whether a certificate is ordered, or waits a little more: for another process that is at it, or
// since the store has failed, which is to be blind. A store that fails for days must not end in a certificate
// that expires, and one that fails for a moment must not cost an order that another process makes, too.
func (m *Manager) mayOrder(mc *managed, got, blind bool) bool {
	now := m.now()
	m.mu.Lock()
	c, p := mc.newest(), &mc.plan
	if got || blind { // who has begun the last attempt is not at it any more, as far as can be known
		p.underWay = false
		if now.Before(p.record.Next) {
			m.firstIsOver(mc)
		}
	}
	may := got
	switch {
	case !blind && !got:
		p.blindSince = time.Time{}
	case blind:
		if p.blindSince.IsZero() {
			p.blindSince = now
			if !p.unreadSince.IsZero() {
				p.blindSince = p.unreadSince
			}
		}
		may = isUrgent(c, now) && (isValid(c, now) || now.Sub(p.blindSince) >= orderPatience)
	}
	begins := !may && p.waits == 0
	if !may {
		p.wait = now.Add(retryTime(p.waits))
		if blind && !isUrgent(c, now) && p.wait.After(urgentTime(c.tls.Leaf)) {
			p.wait = urgentTime(c.tls.Leaf) // from when on it may
		}
		p.waits++
	}
	m.mu.Unlock()
	if begins && !blind {
		m.cfg.Logger.Info("tlsauto: another process has the lease of the certificate", "names", mc.names)
	}
	return may
}

// seesAgain says that all of the store works, which a plan that could be written shows.
func (m *Manager) seesAgain(mc *managed) {
	m.mu.Lock()
	defer m.mu.Unlock()
	mc.plan.blindSince = time.Time{}
}

// putOff takes back that an attempt was about to begin, whose record may have been written in spite of the error.
func (m *Manager) putOff(a *renewal) {
	m.mu.Lock()
	a.mc.plan.forced = a.mc.plan.forced || a.forced
	m.mu.Unlock()
	m.undo(a)
}

// keepsLease reports whether the lease is left to run out, since what was obtained is not in the store
// yet: that gives this process the time to try again before others order, too.
func (m *Manager) keepsLease(mc *managed) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	mc.plan.leased = mc.plan.unstored != nil
	return mc.plan.leased
}

// prepare returns the attempt to make, or nil if it has turned out that there is none to make now.
func (m *Manager) prepare(mc *managed) *renewal {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	p := &mc.plan
	if at, ok := m.attemptAt(mc); !ok || now.Before(at) {
		return nil // as the record of another process has it
	}
	i, free := m.nextIssuer(p.record, now)
	if now.Before(free) && !p.forced {
		p.record.Next = free
		return nil
	}
	if mc.onDemand {
		if wait := m.demanded.take(now); wait > 0 {
			m.work.demandAt = now.Add(wait)
			return nil
		}
	}
	a := &renewal{mc: mc, old: mc.newest(), before: p.record, issuer: m.cfg.Issuers[i], id: m.issuerIDs[i], wanted: p.wanted, forced: p.forced}
	if m.cfg.ReuseKey && a.old != nil && isOfType(a.old.tls.PrivateKey, m.cfg.KeyType) {
		a.key, _ = a.old.tls.PrivateKey.(crypto.Signer)
	}
	p.forced = false
	return a
}

// nextIssuer returns whose turn it is among the issuers that do not want to be left alone, or else the
// one that will be free first, and when that is.
func (m *Manager) nextIssuer(r record, now time.Time) (int, time.Time) {
	n := len(m.issuerIDs)
	turn := max(r.Failures, 0) / issuerFailures % n
	best := turn
	for k := range n {
		i := (turn + k) % n
		held := r.Held[m.issuerIDs[i]]
		if !now.Before(held) {
			return i, held
		}
		if held.Before(r.Held[m.issuerIDs[best]]) {
			best = i
		}
	}
	return best, r.Held[m.issuerIDs[best]]
}

// issue obtains what an attempt is for.
func (m *Manager) issue(ctx context.Context, a *renewal, limit time.Duration) (*certificate, error) {
	c, err := m.obtain(ctx, a.issuer, &Order{
		Names:      slices.Clone(a.mc.names),
		KeyType:    m.cfg.KeyType,
		Key:        a.key,
		Store:      partOf(m.cfg.Store, a.id),
		Challenges: m.board,
		Logger:     m.cfg.Logger,
		Now:        m.cfg.Now,
	}, limit)
	if err != nil {
		return nil, err
	}
	return &certificate{tls: c, issuer: a.id, obtained: m.now().Truncate(time.Second)}, nil
}

// obtain has an issuer obtain a certificate, and checks what it returns.
func (m *Manager) obtain(ctx context.Context, issuer Issuer, order *Order, limit time.Duration) (*tls.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	names, key := slices.Clone(order.Names), order.Key
	var c *tls.Certificate
	err := guard(func() (err error) { c, err = issuer.Issue(ctx, order); return err })
	m.logPanic("Issuer", err)
	if err != nil {
		if ctx.Err() != nil && errors.Is(err, context.DeadlineExceeded) {
			return nil, fmt.Errorf("no certificate within %s: %w", limit.Round(time.Second), err)
		}
		return nil, err
	}
	if c, err = checkedCertificate(c, names); err == nil {
		err = checkNew(c, m.cfg.KeyType, key, m.now())
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnusable, err)
	}
	return c, nil
}

var errUnusable = errors.New("use what was issued")

// succeeded serves a certificate first, and stores it then.
func (m *Manager) succeeded(a *renewal, c *certificate) {
	m.mu.Lock()
	p := &a.mc.plan
	p.obtained++
	events := append([]Event{eventOf(Obtained, a.mc, c)}, m.take(a.mc, c, m.now())...)
	p.unstored = c
	m.mu.Unlock()
	m.tellTaken(events, a.mc, c)
	m.save(a.mc)
}

// undo takes back what was recorded of an attempt that the end of Run has cut short. What somebody wants renewed
// still is to be.
func (m *Manager) undo(a *renewal) {
	r := a.before
	if a.wanted {
		r.Wanted, r.Serial, r.Issuers = true, serialOf(a.old), m.issuersHash
		if r.Failures == 0 {
			r.At = m.now()
		}
	}
	if r.Failures == 0 && !r.Wanted {
		m.deleteRecord(a.mc)
		return
	}
	_ = m.putRecord(a.mc, r) // the failure stays that was put before
}

// failure is the record of an attempt that has failed.
func (m *Manager) failure(a *renewal, err error) record {
	failures := a.before.Failures + 1
	base := m.backoff(failures)
	now := m.now()
	r := record{
		Serial:   serialOf(a.old),
		Issuers:  m.issuersHash,
		Failures: failures,
		At:       now,
		Next:     now.Add(pauseAfter(base, a.old, now)),
		Issuer:   a.id,
		Error:    boundedText(err.Error()),
		Wanted:   a.wanted,
		Held:     maps.Clone(a.before.Held),
	}
	maps.DeleteFunc(r.Held, func(_ string, until time.Time) bool { return !now.Before(until) })
	if pause := held(err, a.old, now); pause > 0 {
		if r.Held == nil {
			r.Held = map[string]time.Time{}
		}
		r.Held[a.id] = now.Add(pause)
	}
	if _, free := m.nextIssuer(r, r.Next); free.After(r.Next) {
		r.Next = free
	}
	return r
}

// held is how long an issuer is left alone after an error, while c is served: as long as it wants, and for hours
// if it has issued what cannot be used, which it will do again and counts. A last try is worth more than that.
func held(err error, c *certificate, now time.Time) time.Duration {
	if wait, ok := errors.AsType[*RetryAfterError](err); ok {
		return min(max(wait.After, 0), maxRetryAfter)
	}
	if errors.Is(err, errUnusable) && !(isValid(c, now) && isUrgent(c, now)) {
		return refusedPause
	}
	return 0
}

// backoff is what Config.Backoff says, which must not end the process.
func (m *Manager) backoff(failures int) (pause time.Duration) {
	err := guard(func() error { pause = m.cfg.Backoff(failures); return nil })
	if err != nil {
		m.logPanic("Backoff", err)
		return defaultBackoff(failures)
	}
	return pause
}

func (m *Manager) failed(a *renewal, err error) {
	r := m.failure(a, err)
	now := m.now()
	m.mu.Lock()
	p := &a.mc.plan
	p.failed++
	p.record = r
	p.wait, p.waits = time.Time{}, 0
	m.firstIsOver(a.mc)
	m.mu.Unlock()

	e := eventOf(Failed, a.mc, a.old)
	e.Issuer, e.Next, e.Err = a.id, r.Next, err
	level := slog.LevelWarn
	if isUrgent(a.old, now) && (a.old != nil || r.Failures >= issuerFailures) {
		level = slog.LevelError
	}
	m.tellAt(level, e)
	_ = m.putRecord(a.mc, r) // this process knows
}
