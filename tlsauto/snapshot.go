package tlsauto

import (
	"cmp"
	"slices"
	"time"
)

// Status returns how the Manager is getting on. It waits for nothing, and is the caller's own.
func (m *Manager) Status() Status {
	s := Status{
		Certificates:    m.files.status(),
		ClientCAs:       m.clientCAs.status(),
		FallbackServed:  m.counts.fallbackServed.Load(),
		HandshakeErrors: map[HandshakeError]uint64{},
	}
	for _, reason := range []HandshakeError{UnknownName, NoCertificate, UnknownChallenge, TooMany} {
		s.HandshakeErrors[reason] = m.counts.handshakeErrors.of(reason).Load()
	}
	now := m.now()
	m.mu.Lock()
	for _, mc := range m.configuredLocked() {
		s.Certificates = append(s.Certificates, m.statusOf(mc, now))
	}
	var onDemand []CertificateStatus
	for _, mc := range m.onDemandLocked() {
		onDemand = append(onDemand, m.statusOf(mc, now))
	}
	m.mu.Unlock()
	slices.SortFunc(onDemand, func(a, b CertificateStatus) int { return cmp.Compare(a.Names[0], b.Names[0]) })
	s.Certificates = append(s.Certificates, onDemand...)
	s.OnDemand = len(onDemand)
	return s
}

// statusOf is the status of a certificate. Manager.mu must be held.
func (m *Manager) statusOf(mc *managed, now time.Time) CertificateStatus {
	p := &mc.plan
	s := CertificateStatus{
		Names:     slices.Clone(mc.names),
		OnDemand:  mc.onDemand,
		State:     Fallback,
		Renewal:   p.due,
		Failures:  p.record.Failures,
		LastError: p.record.Error,
		Obtained:  p.obtained,
		Failed:    p.failed,
		NotStored: p.storeError,
	}
	s.NextTry, _ = m.attemptAt(mc)
	if p.underWay {
		s.LastError = "" // it may well succeed
	}
	for _, name := range mc.names {
		if c := mc.standIns[name]; c != nil {
			s.StandIns = append(s.StandIns, name)
			if end := c.tls.Leaf.NotAfter; s.StandInsNotAfter.IsZero() || end.Before(s.StandInsNotAfter) {
				s.StandInsNotAfter = end
			}
		}
	}
	switch {
	case mc.cert == nil:
		if m.cfg.NoFallback {
			s.State = None
		}
		return s
	case now.Before(mc.cert.tls.Leaf.NotAfter):
		s.State = Trusted
	default:
		s.State = Expired
	}
	leaf := mc.cert.tls.Leaf
	s.Issuer, s.Serial, s.NotBefore, s.NotAfter = mc.cert.issuer, serialOf(mc.cert), leaf.NotBefore, leaf.NotAfter
	return s
}
