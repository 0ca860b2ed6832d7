package tlsauto

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// A certificate that is missing, or has expired, often follows others: a group has got one more name, or was split.
// Those may be in the store, and stand in for it until it has come: in handshakes, and nowhere else. Whatever is
// planned does not know of them.

// pointerKey is that of a name, in the part of an issuer. The value is the id of the group whose certificate was
// the last to have it; the certificate for a name alone is found without.
const pointerKey = "name+"

const maxID = 140 // bytes of what certificateID returns, and some more

// findStandIns looks for certificates in the store that have names of one that is not there.
func (m *Manager) findStandIns(ctx context.Context, mc *managed) {
	now := m.now()
	m.mu.Lock()
	needed := mc.needsStandIns(now)
	var names, again []string // those without any come first: a store that is slow leaves no time for all
	for _, name := range mc.names {
		if mc.standIns[name] == nil {
			names = append(names, name)
		} else {
			again = append(again, name)
		}
	}
	m.mu.Unlock()
	if !needed {
		return
	}
	var errs []error
	found := map[string]bool{}
	for _, name := range append(names, again...) {
		if found[name] || ctx.Err() != nil {
			continue
		}
		c, err := m.readOther(ctx, mc, name, now)
		errs = append(errs, err)
		if c == nil {
			continue
		}
		has := certificateNames(c.tls.Leaf)
		var its []string
		for _, n := range mc.names {
			if !found[n] && isCovered(n, has) {
				found[n] = true
				its = append(its, n)
			}
		}
		m.standIn(mc, c, its, now)
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return // Run ends
	}
	if err := errors.Join(errs...); m.isNews(mc, "stand in", err) {
		m.cfg.Logger.Warn("tlsauto: what might stand in for a certificate cannot be used", "names", mc.names, "error", boundedText(err.Error()))
	}
}

// needsStandIns reports whether a certificate of the configuration is missing, or has expired. Manager.mu must be held.
func (mc *managed) needsStandIns(now time.Time) bool {
	return !mc.onDemand && (mc.cert == nil || hasExpired(mc.cert, now))
}

// readOther returns the best certificate in the store, other than mc itself, that has a name and has not expired;
// nil: there is none.
func (m *Manager) readOther(ctx context.Context, mc *managed, name string, now time.Time) (best *certificate, err error) {
	var errs []error
	alone := certificateID([]string{name})
	for _, issuer := range m.issuerIDs {
		part := partOf(m.cfg.Store, issuer)
		group, err := get(ctx, part, pointerKey+alone)
		errs = append(errs, err)
		for _, id := range []string{alone, string(group)} {
			if id == mc.id || !isID(id) {
				continue
			}
			c, err := storedOf(ctx, part, id, []string{name})
			switch {
			case errors.Is(err, ErrNotFound):
			case err != nil:
				errs = append(errs, fmt.Errorf("use the certificate %s of %s in the store: %w", id, issuer, err))
			case !hasExpired(c, now) && isBetter(c, best, now):
				c.issuer = issuer
				best = c
			}
		}
	}
	return best, errors.Join(errs...)
}

// isID reports whether s, which somebody may have written into the store, can be the id of a certificate.
func isID(s string) bool {
	return s != "" && len(s) <= maxID && !strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || strings.ContainsRune(".-_", r))
	})
}

// standIn has c served for names of mc, unless there is a better one.
func (m *Manager) standIn(mc *managed, c *certificate, names []string, now time.Time) {
	e := eventOf(StandingIn, mc, c)
	e.Names = nil
	m.mu.Lock()
	for _, name := range names {
		if isBetter(c, mc.standIns[name], now) {
			if mc.standIns == nil {
				mc.standIns = map[string]*certificate{}
			}
			mc.standIns[name] = c
			e.Names = append(e.Names, name)
		}
	}
	if len(e.Names) > 0 {
		m.installLocked()
	}
	m.mu.Unlock()
	if len(e.Names) > 0 {
		m.tell(e)
	}
}

// endStandIns ends those that have expired, or are needed no more, and calls at with when others will. Manager.mu must be held.
func (m *Manager) endStandIns(mc *managed, now time.Time, at func(time.Time)) {
	ended, needed := false, mc.needsStandIns(now)
	for name, c := range mc.standIns {
		if hasExpired(c, now) || !needed {
			delete(mc.standIns, name)
			ended = true
		} else {
			at(c.tls.Leaf.NotAfter)
		}
	}
	if !ended {
		return
	}
	m.installLocked()
	if needed {
		mc.lookNow() // another one may be valid for longer
	}
}

// point writes to the store that the names of a group are in its certificate c. What is said of them there
// already stays, unless c is new: then it is no earlier one than theirs, even if those cannot be read.
func (m *Manager) point(ctx context.Context, mc *managed, c *certificate, isNew bool) error {
	if len(mc.names) == 1 {
		return nil
	}
	part := partOf(m.cfg.Store, c.issuer)
	return forEach(ctx, mc.names, func(ctx context.Context, name string) error { // a store may be slow
		key := pointerKey + certificateID([]string{name})
		id, err := get(ctx, part, key)
		if err != nil && !isNew {
			return err
		}
		if id != nil && (!isNew || string(id) == mc.id) {
			return nil
		}
		if err := guard(func() error { return part.Put(ctx, key, []byte(mc.id)) }); err != nil {
			return fmt.Errorf("write %s: %w", key, err)
		}
		return nil
	})
}
