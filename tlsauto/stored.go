package tlsauto

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	readTime  = 10 * time.Second // for all that is read of a certificate
	writeTime = 10 * time.Second
	leaseTime = 5 * time.Second
	endTime   = 3 * time.Second // for all that is still to be written when Run ends
)

// found is what the store has of a certificate.
type found struct {
	best   *certificate // nil: none
	record record
	bad    error // why a certificate there cannot be used
}

// look reads what the store has of a certificate, as at the start, or when another process may have
// renewed it.
func (m *Manager) look(ctx context.Context, mc *managed) {
	reading, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	f, err := m.readStored(reading, mc)
	if m.learn(ctx, mc, f, err) {
		if err := m.point(reading, mc, f.best, false); err != nil {
			m.cfg.Logger.Debug("tlsauto: nothing in the store leads to a certificate", "names", mc.names, "error", boundedText(err.Error()))
		}
	}
	m.findStandIns(reading, mc)
}

// readStored reads all at once: a store that is slow is so once. What could be read counts in spite of
// an error.
func (m *Manager) readStored(ctx context.Context, mc *managed) (found, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	m.mu.Lock()
	mc.plan.lookAgain = false
	m.mu.Unlock()
	certs := make([][]byte, len(m.issuerIDs))
	errs := make([]error, len(m.issuerIDs)+1)
	var plan []byte
	var reads sync.WaitGroup
	for i, issuer := range m.issuerIDs {
		reads.Go(func() { certs[i], errs[i] = get(ctx, partOf(m.cfg.Store, issuer), certificateKey+mc.id) })
	}
	reads.Go(func() { plan, errs[len(errs)-1] = get(ctx, m.cfg.Store, recordKey+mc.id) })
	reads.Wait()

	var f found
	now := m.now()
	for i, data := range certs {
		if data == nil {
			continue
		}
		c, err := decodeCertificate(data)
		if err == nil {
			c, err = checkedCertificate(c, mc.names)
		}
		if err != nil {
			f.bad = fmt.Errorf("use the certificate of %s in the store: %w", m.issuerIDs[i], err)
			continue
		}
		if next := (&certificate{tls: c, issuer: m.issuerIDs[i], obtained: decodeObtained(data), atOnce: decodeAtOnce(data)}); isBetter(next, f.best, now) {
			f.best = next
		}
	}
	if plan != nil {
		var err error
		if f.record, err = decodeRecord(plan); err != nil {
			m.cfg.Logger.Warn("tlsauto: a plan in the store is damaged", "names", mc.names, "error", boundedText(err.Error()))
		}
	}
	return f, errors.Join(errs...)
}

// get returns nil for what is not there.
func get(ctx context.Context, store Store, key string) (data []byte, err error) {
	err = guard(func() (err error) { data, err = store.Get(ctx, key); return err })
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	return data, nil
}

// learn makes use of what was read, and reports whether a better certificate was there.
func (m *Manager) learn(ctx context.Context, mc *managed, f found, err error) (better bool) {
	if ctx.Err() != nil && f.best == nil {
		return false // which tells nothing of the store
	}
	now := m.now()
	m.mu.Lock()
	p := &mc.plan
	if err != nil {
		if p.readFails == 0 {
			p.unreadSince = now
		}
		p.readAt = now.Add(retryTime(p.readFails))
		p.readFails++
	} else {
		if !p.read {
			p.record = record{} // of what was tried without knowing
		}
		p.read, p.readFails, p.unreadSince = true, 0, time.Time{}
	}
	var events []Event
	if better = isBetter(f.best, mc.newest(), now); better {
		older, forced := p.wanted && f.best.obtained.Before(p.wantedAt.Truncate(time.Second)), p.forced
		events = append([]Event{eventOf(Loaded, mc, f.best)}, m.take(mc, f.best, now)...)
		if older { // it is that which is to be renewed
			p.wanted, p.forced = true, forced
		}
	}
	if f.record.applies(mc.newest(), m.issuersHash, now) && f.record.At.After(p.record.At) {
		p.record, p.wanted = f.record, p.wanted || f.record.Wanted
		p.underWay = f.record.Begun
		if !p.underWay && now.Before(p.record.Next) {
			m.firstIsOver(mc) // the first attempt has failed, if before a restart
		}
	}
	if err == nil && !p.lookAgain {
		p.readAt = now.Add(readAgain)
		if isUrgent(mc.newest(), now) && !mc.onDemand { // of which there may be thousands
			p.readAt = now.Add(readUrgent)
		}
	}
	m.mu.Unlock()

	m.tellStore(mc, "read", err)
	m.tellBad(mc, f.bad)
	m.tellTaken(events, mc, f.best)
	return better
}

// retryTime is the pause after so many failures before, of something that burdens nobody.
func retryTime(failures int) time.Duration {
	return min(time.Second<<min(failures, 5), 30*time.Second)
}

// tellStore tells that the store has failed to do something, unless it did for the same reason before.
func (m *Manager) tellStore(mc *managed, doing string, err error) {
	if m.isNews(mc, doing, err) {
		e := eventOf(StoreFailed, mc, nil)
		e.Err = err
		m.tell(e)
		m.logPanic("Store", err)
	}
}

func (m *Manager) tellBad(mc *managed, err error) {
	if m.isNews(mc, "use", err) {
		e := eventOf(Failed, mc, nil)
		e.Err = err
		m.tell(e)
	}
}

// isNews reports whether an error is another one than the last time that this was done.
func (m *Manager) isNews(mc *managed, doing string, err error) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		delete(mc.plan.told, doing)
		return false
	}
	if mc.plan.told == nil {
		mc.plan.told = map[string]string{}
	}
	text := boundedText(err.Error())
	news := mc.plan.told[doing] != text
	mc.plan.told[doing] = text
	return news
}

// tellTaken tells of a certificate that has become the newest one.
func (m *Manager) tellTaken(events []Event, mc *managed, c *certificate) {
	for _, e := range events {
		m.tell(e)
	}
	if len(events) == 0 {
		return
	}
	for _, err := range []error{doubtTime(c, m.now()), doubt(c.tls, m.now())} {
		if err != nil {
			e := eventOf(Doubtful, mc, c)
			e.Err = err
			m.tell(e)
		}
	}
}
