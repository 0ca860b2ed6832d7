package tlsauto

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/acme"
)

// isChallenge reports whether a handshake is an authority's validation (RFC 8737, section 3).
func isChallenge(hello *tls.ClientHelloInfo) bool {
	return len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == acme.ALPNProto
}

func (m *Manager) challengeCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if m.board == nil {
		m.counts.handshakeErrors.add(UnknownChallenge)
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(contextOf(hello), storeTimeout)
	defer cancel()
	cert, reason := m.board.certificate(ctx, hello.ServerName)
	if cert == nil {
		m.counts.handshakeErrors.add(reason)
		return nil, nil
	}
	return cert, nil
}

// firstCertificate is for a certificate that there is none of yet.
func (m *Manager) firstCertificate(hello *tls.ClientHelloInfo, s *slot) (*tls.Certificate, error) {
	mc := s.managed
	if m.cfg.WaitFirst > 0 && !isClosed(mc.first) {
		timer := time.NewTimer(m.cfg.WaitFirst)
		defer timer.Stop()
		select {
		case <-mc.first:
		case <-timer.C:
		case <-contextOf(hello).Done():
			return nil, contextOf(hello).Err()
		}
	}
	if s := m.find(hello); s != nil { // it may have changed
		if c := s.certificate(hello); c != nil {
			return c, nil
		}
	}
	if m.cfg.NoFallback {
		m.counts.handshakeErrors.add(NoCertificate)
		return nil, errNoCertificate
	}
	m.counts.fallbackServed.Add(1)
	return mc.fallback.certificate()
}

var errNoCertificate = errors.New("tlsauto: there is no certificate for this name yet")

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// contextOf is the context of a handshake; one that was made by hand has none.
func contextOf(hello *tls.ClientHelloInfo) context.Context {
	if ctx := hello.Context(); ctx != nil {
		return ctx
	}
	return context.Background()
}

// A table is what handshakes look into. It does not change.
type table struct {
	names     map[string]*slot
	wildcards map[string]*slot // by what follows "*."
	unnamed   *slot            // for clients that name no server; nil: they are refused
	unknown   *slot            // for those that name one that is not here; nil: they are refused
	addresses bool             // there are some among names
}

// A slot has what is served for a name.
type slot struct {
	certs   []*tls.Certificate // the first that the client supports is served
	managed *managed           // nil: from a file
}

func newSlot(mc *managed) *slot {
	s := &slot{managed: mc}
	if mc.cert != nil {
		s.certs = []*tls.Certificate{mc.cert.tls}
	}
	return s
}

func (s *slot) certificate(hello *tls.ClientHelloInfo) *tls.Certificate {
	if s.managed != nil && s.managed.onDemand {
		s.managed.touch()
	}
	switch len(s.certs) {
	case 0:
		return nil
	case 1:
		return s.certs[0]
	}
	nameless := *hello
	nameless.ServerName = "" // that it fits has been seen, or does not matter
	for _, c := range s.certs {
		if nameless.SupportsCertificate(c) == nil {
			return c
		}
	}
	return s.certs[0]
}

func newTable(cfg Config, pairs []*tls.Certificate, all []*managed) *table {
	t := &table{names: map[string]*slot{}, wildcards: map[string]*slot{}}
	fromFile := map[*slot]bool{}
	for _, c := range pairs {
		for _, name := range certificateNames(c.Leaf) {
			s := t.at(name)
			if s == nil {
				s = &slot{}
				t.put(name, s)
				fromFile[s] = true
			}
			s.certs = append(s.certs, c)
		}
	}
	if len(pairs) > 0 {
		t.unknown = &slot{certs: pairs[:1]}
		if names := certificateNames(pairs[0].Leaf); len(names) > 0 {
			t.unknown = t.at(names[0]) // which has those for clients that do not support the first
		}
		t.unnamed = t.unknown
	}
	for _, mc := range all {
		s := newSlot(mc)
		for _, name := range mc.names {
			its := s
			if c := mc.standIns[name]; c != nil {
				its = &slot{managed: mc, certs: []*tls.Certificate{c.tls}}
			}
			if !fromFile[t.at(name)] {
				t.put(name, its)
			}
			if t.unnamed == nil && !mc.onDemand {
				t.unnamed = its
			}
		}
	}
	if s := t.named(cfg.DefaultName); s != nil {
		t.unnamed = s
	}
	return t
}

func (t *table) put(name string, s *slot) {
	switch {
	case isWildcard(name):
		t.wildcards[name[2:]] = s
	case isIP(name):
		t.addresses = true
		fallthrough
	default:
		t.names[name] = s
	}
}

func (t *table) at(name string) *slot {
	if isWildcard(name) {
		return t.wildcards[name[2:]]
	}
	return t.names[name]
}

// find returns nil if nothing is known of the name in a handshake: then there is unknown.
func (t *table) find(hello *tls.ClientHelloInfo) *slot {
	if hello.ServerName == "" {
		if t.addresses && hello.Conn != nil {
			if addr, ok := hello.Conn.LocalAddr().(*net.TCPAddr); ok {
				if s := t.names[addr.AddrPort().Addr().Unmap().WithZone("").String()]; s != nil {
					return s
				}
			}
		}
		return t.unnamed
	}
	return t.named(lookupName(hello.ServerName))
}

// named is find for a name in its one form. A wildcard stands in for a name whose own certificate has
// not come yet.
func (t *table) named(name string) *slot {
	s := t.names[name]
	if s != nil && len(s.certs) > 0 {
		return s
	}
	if _, parent, ok := strings.Cut(name, "."); ok {
		if w := t.wildcards[parent]; w != nil && (s == nil || len(w.certs) > 0) {
			return w
		}
	}
	return s
}

// counts are those of the handshakes.
type counts struct {
	fallbackServed  atomic.Uint64
	handshakeErrors handshakeErrors
}

// handshakeErrors counts handshakes by reason.
type handshakeErrors struct {
	unknownName, noCertificate, unknownChallenge, tooMany atomic.Uint64
}

func (e *handshakeErrors) of(reason HandshakeError) *atomic.Uint64 {
	switch reason {
	case NoCertificate:
		return &e.noCertificate
	case UnknownChallenge:
		return &e.unknownChallenge
	case TooMany:
		return &e.tooMany
	default:
		return &e.unknownName
	}
}

func (e *handshakeErrors) add(reason HandshakeError) { e.of(reason).Add(1) }
