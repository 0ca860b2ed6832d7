package tlsauto

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

// A selfSigned makes the certificates that are served until there is a trusted one. They say that
// nobody has issued them, and are valid for a day.
type selfSigned struct {
	names   []string
	now     func() time.Time
	key     *ecdsa.PrivateKey
	current atomic.Pointer[tls.Certificate]
}

const fallbackLife = 24 * time.Hour

func newSelfSigned(names []string, now func() time.Time) (*selfSigned, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return &selfSigned{names: names, now: now, key: key}, nil
}

// certificate returns the one that is valid now. It may be made twice when two clients come at once,
// which costs less than having one wait.
func (s *selfSigned) certificate() (*tls.Certificate, error) {
	now := s.now()
	if c := s.current.Load(); c != nil && now.After(c.Leaf.NotBefore) && now.Before(c.Leaf.NotAfter.Add(-time.Hour)) {
		return c, nil
	}
	template := &x509.Certificate{
		SerialNumber:          nil, // a random one
		Subject:               pkix.Name{CommonName: "no certificate yet (self-signed)"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(fallbackLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	template.DNSNames, template.IPAddresses = splitNames(s.names)
	der, err := x509.CreateCertificate(rand.Reader, template, template, &s.key.PublicKey, s.key)
	if err != nil {
		return nil, fmt.Errorf("tlsauto: make a self-signed certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("tlsauto: make a self-signed certificate: %w", err)
	}
	c := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: s.key, Leaf: leaf}
	s.current.Store(c)
	return c, nil
}

// splitNames parts normalized names into those of the two kinds that certificates have.
func splitNames(names []string) (domains []string, addresses []net.IP) {
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			addresses = append(addresses, ip)
		} else {
			domains = append(domains, name)
		}
	}
	return domains, addresses
}
