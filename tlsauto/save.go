package tlsauto

import (
	"context"
	"fmt"
	"time"
)

const maxStorePause = 5 * time.Minute // between attempts to store a certificate

// lasting returns a context for what has to be brought to its end even if Run ends meanwhile, which then
// gives endTime to all of that together.
func (m *Manager) lasting(limit time.Duration) (context.Context, context.CancelFunc) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return context.WithTimeout(m.work.lasting, limit)
}

// save stores the certificate that is not in the store yet, and reports whether that has succeeded.
func (m *Manager) save(mc *managed) bool {
	m.mu.Lock()
	c := mc.plan.unstored
	m.mu.Unlock()
	if c == nil {
		return true
	}
	err := m.put(mc, c)
	now := m.now()
	m.mu.Lock()
	p := &mc.plan
	if err == nil {
		p.unstored, p.storeFails, p.storeError = nil, 0, ""
	} else {
		p.storeAt = now.Add(min(time.Second<<min(p.storeFails, 10), maxStorePause))
		p.storeFails++
		p.storeError = boundedText(err.Error())
	}
	m.mu.Unlock()
	m.tellStore(mc, "write", err)
	if err != nil {
		return false
	}
	if c.atOnce {
		m.announce(mc, c)
	}
	m.deleteRecord(mc)
	return true
}

func (m *Manager) put(mc *managed, c *certificate) error {
	data, err := encodeCertificate(c)
	if err != nil {
		return err
	}
	ctx, cancel := m.lasting(writeTime)
	defer cancel()
	key := certificateKey + mc.id
	if err := guard(func() error { return partOf(m.cfg.Store, c.issuer).Put(ctx, key, data) }); err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	return m.point(ctx, mc, c, true)
}

// storeAgain tries again to store a certificate, unless another process has obtained a later one
// meanwhile.
func (m *Manager) storeAgain(ctx context.Context, mc *managed) {
	f, err := m.readStored(ctx, mc)
	m.learn(ctx, mc, f, err)
	if m.save(mc) {
		m.mu.Lock()
		leased := mc.plan.leased
		mc.plan.leased = false
		m.mu.Unlock()
		if leased {
			m.release(mc)
		}
	}
}

// putRecord stores what is planned, and tells if that fails.
func (m *Manager) putRecord(mc *managed, r record) error {
	data, err := r.encode()
	if err == nil {
		ctx, cancel := m.lasting(leaseTime)
		defer cancel()
		err = guard(func() error { return m.cfg.Store.Put(ctx, recordKey+mc.id, data) })
	}
	if err != nil {
		err = fmt.Errorf("write %s%s: %w", recordKey, mc.id, err)
	}
	m.tellStore(mc, "plan", err)
	return err
}

// deleteRecord forgets what was planned. A record that stays is about a certificate that is no more.
func (m *Manager) deleteRecord(mc *managed) {
	ctx, cancel := m.lasting(leaseTime)
	defer cancel()
	if err := guard(func() error { return m.cfg.Store.Delete(ctx, recordKey+mc.id) }); err != nil {
		m.cfg.Logger.Debug("tlsauto: a plan stays in the store", "names", mc.names, "error", boundedText(err.Error()))
	}
}

// acquire takes the lease under which a certificate is ordered, and reports whether this process has it.
func (m *Manager) acquire(ctx context.Context, mc *managed, ttl time.Duration) (got bool, err error) {
	leaser, ok := m.cfg.Store.(Leaser)
	if !ok {
		return true, nil
	}
	ctx, cancel := context.WithTimeout(ctx, leaseTime)
	defer cancel()
	err = guard(func() (err error) {
		got, err = leaser.Acquire(ctx, orderLease+mc.id, m.owner, m.now(), ttl)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("take the lease %s%s: %w", orderLease, mc.id, err)
	}
	return got, nil
}

// release gives the lease up. One that cannot be released runs out.
func (m *Manager) release(mc *managed) {
	leaser, ok := m.cfg.Store.(Leaser)
	if !ok {
		return
	}
	ctx, cancel := m.lasting(leaseTime)
	defer cancel()
	if err := guard(func() error { return leaser.Release(ctx, orderLease+mc.id, m.owner) }); err != nil {
		m.cfg.Logger.Debug("tlsauto: a lease runs out by itself", "names", mc.names, "error", boundedText(err.Error()))
	}
}

// saveLast tries for the last time to store what is not, and gives up what is left of leases: Run ends.
func (m *Manager) saveLast() {
	m.mu.Lock()
	var unstored, leased []*managed
	for _, mc := range m.managed {
		if mc.plan.unstored != nil {
			unstored = append(unstored, mc)
		}
		if mc.plan.leased {
			mc.plan.leased = false
			leased = append(leased, mc)
		}
	}
	m.mu.Unlock()
	ctx, cancel := m.lasting(endTime)
	defer cancel()
	for _, mc := range unstored {
		if ctx.Err() == nil {
			m.storeAgain(ctx, mc)
		}
	}
	for _, mc := range leased {
		if ctx.Err() == nil {
			m.release(mc)
		}
	}
}
