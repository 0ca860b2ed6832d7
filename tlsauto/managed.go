package tlsauto

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"sync/atomic"
	"time"
)

// A managed certificate is one that the Manager obtains and renews.
type managed struct {
	id       string   // in the store and of its lease
	names    []string // normalized
	onDemand bool
	used     atomic.Int64 // Unix time of the last handshake, for those on demand, or an hour later
	fallback *selfSigned
	first    chan struct{} // closed when there is a certificate, or the first attempt has failed
	now      func() time.Time

	// The rest is guarded by Manager.mu.
	cert      *certificate            // nil: there is none yet
	standIns  map[string]*certificate // by name: what is served while cert is missing, or has expired
	installed *certificate            // what handshakes see of one on demand
	plan      plan
}

// A certificate is one that was issued.
type certificate struct {
	tls    *tls.Certificate // with Leaf
	issuer string           // its ID

	// obtained is when it came from the issuer, in whole seconds; zero: that is not known.
	obtained time.Time

	// atOnce: it replaces one that may be revoked any moment, and does not wait for Config.AdoptDelay.
	atOnce bool
}

// obtainedBy is when a certificate was obtained, or zero if that is not known, or cannot be true by the clock.
func (c *certificate) obtainedBy(now time.Time) time.Time {
	if c.obtained.After(now.Add(clockTolerance)) || c.obtained.After(c.tls.Leaf.NotAfter) {
		return time.Time{}
	}
	return c.obtained
}

func newManaged(names []string, now func() time.Time) (*managed, error) {
	fallback, err := newSelfSigned(names, now)
	if err != nil {
		return nil, err
	}
	return &managed{id: certificateID(names), names: names, fallback: fallback, first: make(chan struct{}), now: now}, nil
}

// touch remembers that a client has asked for the certificate. It writes seldom, as all handshakes of a
// name would write to the same place.
func (mc *managed) touch() {
	now := mc.now().Unix()
	if last := mc.used.Load(); now-last > 3600 {
		mc.used.CompareAndSwap(last, now)
	}
}

// certificateNames are those that a certificate is for.
func certificateNames(leaf *x509.Certificate) []string {
	var names []string
	for _, name := range leaf.DNSNames {
		rest, star := strings.CutPrefix(name, "*.")
		switch n := lookupName(rest); {
		case n == "" || isIP(n):
		case star:
			names = append(names, "*."+n)
		default:
			names = append(names, n)
		}
	}
	for _, ip := range leaf.IPAddresses {
		if n := lookupName(ip.String()); n != "" {
			names = append(names, n)
		}
	}
	return names
}
