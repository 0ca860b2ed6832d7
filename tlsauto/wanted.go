package tlsauto

import (
	"context"
	"errors"
	"slices"
	"time"
)

const (
	maxUnused     = 30 * 24 * time.Hour // for half the life, if that is shorter, and a certificate on demand is not renewed
	failingUnused = 24 * time.Hour      // the same for one that could not be obtained
	askLater      = 10 * time.Minute    // OnDemand, when it has not answered in time
)

var (
	errUnused     = errors.New("nobody has used it for long")
	errNotDecided = errors.New("OnDemand has not answered in time")
)

// isWanted reports whether a certificate on demand should be obtained or renewed. If not, it is dropped.
func (m *Manager) isWanted(ctx context.Context, mc *managed) bool {
	now := m.now()
	unused := now.Sub(time.Unix(mc.used.Load(), 0))
	m.mu.Lock()
	c, failures := mc.newest(), mc.plan.record.Failures
	m.mu.Unlock()
	switch {
	case c == nil && failures == 0: // OnDemand was asked a moment ago
		return true
	case c == nil && unused > failingUnused, c != nil && unused > min(life(c.tls.Leaf)/2, maxUnused):
		m.drop(mc, errUnused)
		return false
	case c == nil:
		return true
	}
	asking, cancel := context.WithTimeout(ctx, decisionTime)
	defer cancel()
	err := m.askOnDemand(asking, mc.names[0])
	switch {
	case err == nil:
		return true
	case ctx.Err() != nil:
		return false
	case asking.Err() != nil || errors.Is(err, context.DeadlineExceeded): // which is no refusal: what it asks may be down
		m.mu.Lock()
		mc.plan.wait = now.Add(askLater)
		m.mu.Unlock()
		e := eventOf(Failed, mc, c)
		e.Next, e.Err = now.Add(askLater), errNotDecided
		m.tell(e)
		return false
	}
	m.drop(mc, err)
	return false
}

// drop forgets a certificate on demand. What the store has of it stays until it is asked for again.
func (m *Manager) drop(mc *managed, why error) {
	m.mu.Lock()
	e := eventOf(Dropped, mc, mc.newest())
	m.managed = slices.DeleteFunc(m.managed, func(other *managed) bool { return other == mc })
	m.installLocked()
	m.firstIsOver(mc)
	m.mu.Unlock()
	m.deleteRecord(mc)
	e.Err = why
	m.tell(e)
}
