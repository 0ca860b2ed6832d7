package tlsauto

import (
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
)

// A Manager has the certificates of a server. It is safe for concurrent use. Create it with [New].
type Manager struct {
	cfg       Config
	owner     string // of leases: this Manager
	table     atomic.Pointer[table]
	board     *board     // nil without certificates to obtain
	files     *files     // nil without Files
	clientCAs *clientCAs // nil without ClientCAFile
	counts    counts
	wake      chan struct{} // has room for one: something is to be done now
	telling   sync.Mutex    // events are told one at a time

	issuerIDs   []string // of Config.Issuers
	issuersHash string   // of all of them

	mu       sync.Mutex // never held while anything is waited for
	managed  []*managed // those of the configuration first
	demanded demanded
	work     work
}

// New checks a configuration, reports all mistakes at once, and reads Files and ClientCAFile, which
// must be there and fit together; a certificate in Files that has expired, or is not valid yet, is served until there is another.
// Nothing else is done until [Manager.Run].
func New(cfg Config) (*Manager, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("tlsauto: configuration: %w", err)
	}
	m := &Manager{cfg: cfg, owner: rand.Text(), wake: make(chan struct{}, 1)}
	m.demanded.init(cfg.OnDemandPerMinute)
	for _, issuer := range cfg.Issuers {
		m.issuerIDs = append(m.issuerIDs, issuer.ID())
	}
	m.issuersHash = shortHash(strings.Join(m.issuerIDs, "\n"))
	if err := m.openFiles(); err != nil {
		return nil, fmt.Errorf("tlsauto: %w", err)
	}
	if cfg.Store != nil {
		m.board = newBoard(cfg.Store, m.challenged, cfg.Now, cfg.Logger)
	}
	for _, names := range cfg.certificates() {
		mc, err := newManaged(names, cfg.Now)
		if err != nil {
			return nil, fmt.Errorf("tlsauto: %w", err)
		}
		m.managed = append(m.managed, mc)
	}
	m.install()
	return m, nil
}

// GetCertificate returns the certificate for a handshake: it is for [tls.Config.GetCertificate], where
// [Manager.TLSConfig] cannot be used. NextProtos should then have "acme-tls/1", too.
//
// An error, or nil, refuses the handshake; for the name of another server that is the alert unrecognized_name.
func (m *Manager) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if isChallenge(hello) {
		return m.challengeCertificate(hello)
	}
	s, reason := m.find(hello), UnknownName
	if s == nil {
		s, reason = m.demand(hello)
	}
	if s == nil {
		s = m.table.Load().unknown
	}
	if s == nil {
		m.counts.handshakeErrors.add(reason)
		return nil, nil // which crypto/tls answers with unrecognized_name
	}
	if c := s.certificate(hello); c != nil {
		return c, nil
	}
	return m.firstCertificate(hello, s)
}

// wakeUp makes Run look what is to be done.
func (m *Manager) wakeUp() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// install makes handshakes see the certificates that there are now.
func (m *Manager) install() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.installLocked()
}

func (m *Manager) installLocked() {
	m.table.Store(newTable(m.cfg, m.files.pairs(), m.configuredLocked()))
	m.installOnDemandLocked()
}
