package tlsauto

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"time"
)

// advice is that of an authority on one certificate.
type advice struct {
	askAt time.Time // again
	told  string    // the last error
}

const (
	askTime    = 30 * time.Second
	minAskTime = time.Second
	askAgain   = 6 * time.Hour
	minAsk     = time.Minute
	maxAsk     = 24 * time.Hour
	earlyShare = 6 // of the life, if that is less than earliestAdvice
)

// askAt is when to ask the authority for its advice, and whether it gives any. Manager.mu must be held.
func (m *Manager) askAt(mc *managed) (time.Time, bool) {
	c := mc.newest()
	if c == nil || mc.plan.early || m.adviser(c) == nil {
		return time.Time{}, false
	}
	return mc.plan.advice.askAt, true
}

// adviser is the issuer of a certificate, if it gives advice.
func (m *Manager) adviser(c *certificate) RenewalAdviser {
	for i, id := range m.issuerIDs {
		if id == c.issuer {
			adviser, _ := m.cfg.Issuers[i].(RenewalAdviser)
			return adviser
		}
	}
	return nil
}

// askForAdvice asks the authority when it wants a certificate to be renewed.
func (m *Manager) askForAdvice(ctx context.Context, mc *managed) {
	m.mu.Lock()
	c := mc.newest()
	limit := min(askTime, max(mc.plan.due.Sub(m.now()), minAskTime)) // the renewal does not wait for it
	m.mu.Unlock()
	var parent *x509.Certificate
	if len(c.tls.Certificate) > 1 {
		parent, _ = x509.ParseCertificate(c.tls.Certificate[1])
	}
	asking, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var info *RenewalInfo
	err := guard(func() (err error) {
		info, err = m.adviser(c).RenewalInfo(asking, c.tls.Leaf, parent)
		return err
	})
	if err == nil && (info == nil || !info.Start.Before(info.End)) {
		err = errors.New("the advice has no window")
	}
	if ctx.Err() != nil {
		return
	}
	m.logPanic("RenewalInfo", err)
	if err != nil {
		m.tellAdvice(mc, err)
		return
	}
	if e, ok := m.follow(mc, c, info); ok {
		m.tell(e)
	}
}

// tellAdvice logs why there is no advice, which is not needed. A new reason is worth a look.
func (m *Manager) tellAdvice(mc *managed, err error) {
	again, level, text := askAgain, slog.LevelDebug, boundedText(err.Error())
	m.mu.Lock()
	if errors.Is(err, errors.ErrUnsupported) {
		again = maxAsk
	} else if mc.plan.advice.told != text {
		mc.plan.advice.told, level = text, slog.LevelWarn
	}
	mc.plan.advice.askAt = m.now().Add(again)
	m.mu.Unlock()
	m.cfg.Logger.Log(context.Background(), level, "tlsauto: no advice on renewal", "names", mc.names, "error", text)
}

// follow makes a certificate due as the authority wants it, if that is before its time. The instant is
// drawn from the window in the same way each time, so that asking again does not change it.
//
// No advice is followed for a certificate that is nearly new: an authority that wants all of them to be
// renewed at once, by mistake, must not have them ordered for ever.
func (m *Manager) follow(mc *managed, c *certificate, info *RenewalInfo) (Event, bool) {
	again := askAgain
	if info.AskAgain > 0 {
		again = min(max(info.AskAgain, minAsk), maxAsk)
	}
	now, leaf := m.now(), c.tls.Leaf
	came := leaf.NotBefore
	if obtained := c.obtainedBy(now); obtained.After(came) { // by a clock that is ahead, even long after
		came = obtained
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p := &mc.plan
	if mc.newest() != c {
		return Event{}, false
	}
	p.advice = advice{askAt: now.Add(again)}
	p.due = dueTime(c, m.salt(), now)
	at := info.Start.Add(within(info.End.Sub(info.Start), leaf.SerialNumber.String(), info.Start.UTC().String(), info.End.UTC().String(), m.salt()))
	if earliest := came.Add(min(earliestAdvice, life(leaf)/earlyShare)); at.Before(earliest) {
		at = earliest
	}
	if !at.Before(p.due) {
		return Event{}, false
	}
	p.due = at.Round(0)
	if now.Before(info.End) {
		return Event{}, false
	}
	p.early = true
	e := eventOf(RenewingEarly, mc, c)
	e.Next = p.due
	if info.ExplanationURL != "" {
		e.Err = errors.New("the authority explains it at " + boundedText(info.ExplanationURL))
	}
	return e, true
}
