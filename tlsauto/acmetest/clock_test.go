package acmetest

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

// A clock is that of tlsauto, which tests move on: the certificates of the authority live for months, so that a
// busy machine has the time it needs, and those who are due need not be waited for. The clocks of the authority
// and of clients are always right.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func (c *clock) set(now time.Time) { c.ahead.Store(int64(time.Until(now))) }

// makeDue moves the clock on to when the certificate is to be renewed.
func (i *instance) makeDue(t *testing.T) {
	t.Helper()
	i.moveOn(t, func(s tlsauto.CertificateStatus) time.Time { return s.Renewal })
}

// makeUrgent moves it on to when a tenth of the certificate's life is left.
func (i *instance) makeUrgent(t *testing.T) {
	t.Helper()
	i.moveOn(t, func(s tlsauto.CertificateStatus) time.Time { return s.NotAfter.Add(-s.NotAfter.Sub(s.NotBefore) / 10) })
}

func (i *instance) moveOn(t *testing.T, to func(tlsauto.CertificateStatus) time.Time) {
	t.Helper()
	var s tlsauto.CertificateStatus
	if !becomes(patience, func() bool { s = i.manager.Status().Certificates[0]; return s.State == tlsauto.Trusted }) {
		t.Fatalf("there is no certificate to be renewed: %+v", s)
	}
	i.clock.set(to(s).Add(time.Second))
	i.manager.Reload() // else it looks at the clock once a minute
}
