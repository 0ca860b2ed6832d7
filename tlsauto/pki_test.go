package tlsauto_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"testing"
	"time"
)

// A testCA is an authority for the certificates of a test, of servers and of clients.
type testCA struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newTestCA(t testing.TB, name string) *testCA {
	t.Helper()
	ca := &testCA{key: newTestKey(t)}
	ca.cert = ca.sign(t, ca.key, &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	})
	return ca
}

// sign issues what template says, for an hour if it does not say that. An authority without a
// certificate yet signs its own.
func (ca *testCA) sign(t testing.TB, key crypto.Signer, template *x509.Certificate) *x509.Certificate {
	t.Helper()
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	parent := ca.cert
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// A testPair is what is in a pair of files.
type testPair struct {
	leaf      *x509.Certificate
	cert, key []byte
}

func (p testPair) serial() string { return p.leaf.SerialNumber.Text(16) }

// issue makes a pair with the authority behind the leaf. change may be nil.
func (ca *testCA) issue(t testing.TB, change func(*x509.Certificate), names ...string) testPair {
	t.Helper()
	key := newTestKey(t)
	template := &x509.Certificate{
		DNSNames:    names,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	return newTestPair(t, key, ca.sign(t, key, template), ca.cert)
}

func newTestPair(t testing.TB, key crypto.Signer, chain ...*x509.Certificate) testPair {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	pair := testPair{leaf: chain[0], key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})}
	for _, cert := range chain {
		pair.cert = append(pair.cert, certPEM(cert)...)
	}
	return pair
}

// client is a certificate for a client.
func (ca *testCA) client(t testing.TB) tls.Certificate {
	t.Helper()
	pair := ca.issue(t, nil, "client")
	cert, err := tls.X509KeyPair(pair.cert, pair.key)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func (ca *testCA) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

func newTestKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func certPEM(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

// between makes a certificate valid from and until times that are so far from now.
func between(from, until time.Duration) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(until) }
}
