package tlsauto

import "context"

// replacedKey has the serial number of the last certificate that took the place of another at once. It is one
// value for all, so that each process can read it each minute: certificates themselves are read seldom. Of two that
// are written at the same time either will do.
const replacedKey = "replaced"

// announce makes other processes look for a certificate that is in the store now.
func (m *Manager) announce(mc *managed, c *certificate) {
	ctx, cancel := m.lasting(leaseTime)
	defer cancel()
	value := []byte(serialOf(c))
	if err := guard(func() error { return m.cfg.Store.Put(ctx, replacedKey, value) }); err != nil {
		m.cfg.Logger.Debug("tlsauto: other processes find a certificate later", "names", mc.names, "error", boundedText(err.Error()))
	}
}

// readAnnounced has the store looked into if another process has announced a certificate. Those on demand, of which
// there may be thousands, have their time.
func (m *Manager) readAnnounced(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leaseTime)
	defer cancel()
	data, err := get(ctx, m.cfg.Store, replacedKey)
	if err != nil || data == nil {
		return // all that is lost is time
	}
	announced := shortHash(string(data))
	m.mu.Lock()
	defer m.mu.Unlock()
	if announced == m.work.announced {
		return
	}
	m.work.announced = announced
	for _, mc := range m.configuredLocked() {
		mc.lookNow()
	}
	m.wakeUp()
}
