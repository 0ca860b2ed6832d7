package tlsauto_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

const day = 24 * time.Hour

// A mint is an Issuer of certificates that live for as long as the test wants.
type mint struct {
	t    *testing.T
	ca   *testCA
	id   string
	life time.Duration

	// fail returns the error of attempt n, from 1 on; nil: none. It may block, and change the order.
	fail func(ctx context.Context, n int, o *tlsauto.Order) error

	// change changes what is issued.
	change func(c *tls.Certificate)

	// skew moves the time of validity.
	skew time.Duration

	mu     sync.Mutex
	orders []mintOrder
}

type mintOrder struct {
	at     time.Time
	names  []string
	serial string // "" for one that failed
	key    crypto.PublicKey
}

func newMint(t *testing.T, life time.Duration) *mint {
	ca := &testCA{key: newTestKey(t)}
	ca.cert = ca.sign(t, ca.key, &x509.Certificate{
		Subject:               pkix.Name{CommonName: "mint"},
		NotBefore:             time.Now().Add(-day),
		NotAfter:              time.Now().Add(10 * 365 * day),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	})
	return &mint{t: t, ca: ca, id: "mint", life: life}
}

func (m *mint) ID() string { return m.id }

func (m *mint) Issue(ctx context.Context, o *tlsauto.Order) (*tls.Certificate, error) {
	m.mu.Lock()
	m.orders = append(m.orders, mintOrder{at: o.Now().Round(0), names: o.Names})
	n := len(m.orders)
	m.mu.Unlock()
	if m.fail != nil {
		if err := m.fail(ctx, n, o); err != nil {
			return nil, err
		}
	}
	key := o.Key
	if key == nil {
		key = newTestKey(m.t)
	}
	now := o.Now().Add(m.skew).Truncate(time.Second)
	template := &x509.Certificate{NotBefore: now, NotAfter: now.Add(m.life)}
	for _, name := range o.Names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	leaf := m.ca.sign(m.t, key, template)
	c := &tls.Certificate{Certificate: [][]byte{leaf.Raw, m.ca.cert.Raw}, PrivateKey: key, Leaf: leaf}
	if m.change != nil {
		m.change(c)
	}
	m.mu.Lock()
	m.orders[n-1].serial, m.orders[n-1].key = leaf.SerialNumber.Text(16), key.Public()
	m.mu.Unlock()
	return c, nil
}

// made returns the orders, those that failed too.
func (m *mint) made() []mintOrder {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]mintOrder(nil), m.orders...)
}

// times returns when attempts were made, since the first.
func (m *mint) times() []time.Duration {
	var at []time.Duration
	for _, o := range m.made() {
		at = append(at, o.at.Sub(m.made()[0].at))
	}
	return at
}

// A faultyStore is a Store, and Leaser, on top of another that fails as the test wants.
type faultyStore struct {
	tlsauto.Store

	after error // of Acquire, that of a lease which it has taken all the same; to be set before use

	mu    sync.Mutex
	fault func(ctx context.Context, op, key string) error
}

func newFaultyStore() *faultyStore { return &faultyStore{Store: tlsauto.NewMemoryStore()} }

// set makes operations fail: Get, Put, Delete, Acquire and Release. nil: none.
func (s *faultyStore) set(fault func(ctx context.Context, op, key string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

func (s *faultyStore) try(ctx context.Context, op, key string) error {
	s.mu.Lock()
	fault := s.fault
	s.mu.Unlock()
	if fault == nil {
		return ctx.Err()
	}
	return fault(ctx, op, key)
}

func (s *faultyStore) Get(ctx context.Context, key string) ([]byte, error) {
	if err := s.try(ctx, "Get", key); err != nil {
		return nil, err
	}
	return s.Store.Get(ctx, key)
}

func (s *faultyStore) Put(ctx context.Context, key string, value []byte) error {
	if err := s.try(ctx, "Put", key); err != nil {
		return err
	}
	return s.Store.Put(ctx, key, value)
}

func (s *faultyStore) Delete(ctx context.Context, key string) error {
	if err := s.try(ctx, "Delete", key); err != nil {
		return err
	}
	return s.Store.Delete(ctx, key)
}

func (s *faultyStore) Acquire(ctx context.Context, lease, owner string, now time.Time, ttl time.Duration) (bool, error) {
	if err := s.try(ctx, "Acquire", lease); err != nil {
		return false, err
	}
	got, err := s.Store.(tlsauto.Leaser).Acquire(ctx, lease, owner, now, ttl)
	return got, errors.Join(err, s.after)
}

func (s *faultyStore) Release(ctx context.Context, lease, owner string) error {
	if err := s.try(ctx, "Release", lease); err != nil {
		return err
	}
	return s.Store.(tlsauto.Leaser).Release(ctx, lease, owner)
}

// A node is a Manager that runs.
type node struct {
	*tlsauto.Manager
	*recorder
	t    *testing.T
	stop func() // and wait for the end
}

// start runs a Manager, until stop or the end of the test.
func start(t *testing.T, cfg tlsauto.Config) *node {
	t.Helper()
	n := &node{recorder: newRecorder(), t: t}
	events := cfg.Events
	cfg.Events = func(e tlsauto.Event) {
		n.record(e)
		if events != nil {
			events(e)
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if len(cfg.Names) == 0 && len(cfg.Groups) == 0 && cfg.OnDemand == nil {
		cfg.Names = []string{"example.com"}
	}
	if cfg.Store == nil {
		cfg.Store = tlsauto.NewMemoryStore()
	}
	var err error
	if n.Manager, err = tlsauto.New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returns %v", err)
		}
	})
	t.Cleanup(n.stop)
	return n
}

// served is the serial number of what a client gets, "" for a self-signed certificate or none.
func (n *node) served(name string) string {
	c, err := n.GetCertificate(&tls.ClientHelloInfo{ServerName: name})
	if err != nil || c == nil || c.Leaf.Issuer.CommonName != "mint" {
		return ""
	}
	return c.Leaf.SerialNumber.Text(16)
}

// status is that of the first certificate.
func (n *node) status() tlsauto.CertificateStatus { return n.Status().Certificates[0] }

func (n *node) kinds() []tlsauto.EventKind {
	n.mu.Lock()
	defer n.mu.Unlock()
	var kinds []tlsauto.EventKind
	for _, e := range n.events {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}
