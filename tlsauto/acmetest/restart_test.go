package acmetest

import (
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

// TestRestartWithGoodCertificate starts with a store that has one while the authority never answers. It is served
// without waiting for that, and not ordered again; all that may be asked of the authority is when it should be
// renewed.
func TestRestartWithGoodCertificate(t *testing.T) {
	long(t)
	for _, issuer := range issuers {
		t.Run(issuer, func(t *testing.T) {
			t.Parallel()
			const attempt = time.Minute
			ca := newCA(t, caConfig{})
			c := setup{ca: ca, names: []string{nameA}, store: tlsauto.NewMemoryStore(), attempt: attempt, first: 2 * attempt}
			old := obtained(t, issuer, c)

			ca.set(hang)
			i := managed(issuer).mustStart(t, c)
			begin := time.Now()
			if _, err := i.client(ca, nameA).connect(t.Context()); err != nil {
				t.Fatal(err)
			}
			took := time.Since(begin)
			t.Logf("served in %v", took)
			if took >= attempt {
				t.Errorf("the first handshake took %v, as long as an attempt", took)
			}
			s := i.manager.Status().Certificates[0]
			if s.Serial != old.Serial || time.Until(s.NextTry) < 30*24*time.Hour || i.wasTold(tlsauto.Obtaining) {
				t.Errorf("it orders another one: %+v", s)
			}
		})
	}
}

// TestRestartWithExpiredCertificate does the same with one that has expired: better than none, it is served until
// there is another.
func TestRestartWithExpiredCertificate(t *testing.T) {
	long(t)
	for _, issuer := range issuers {
		t.Run(issuer, func(t *testing.T) {
			t.Parallel()
			ca := newCA(t, caConfig{Life: 8 * time.Second})
			c := setup{ca: ca, names: []string{nameA}, store: tlsauto.NewMemoryStore(), first: time.Minute}
			old := obtained(t, issuer, c)

			ca.set(reset)
			at(t, old.NotAfter.Add(time.Second))
			i := managed(issuer).mustStart(t, c)
			leaf, err := client{addr: i.TLS, name: nameA, patient: true}.connect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if leaf.SerialNumber.Text(16) != old.Serial {
				t.Errorf("served is %x, want what was there: %s", leaf.SerialNumber, old.Serial)
			}
			ca.set(up)
			if _, err := i.client(ca, nameA).trusted(t.Context(), patience); err != nil {
				t.Error(err)
			}
		})
	}
}

// obtained has a certificate obtained, and returns what the store has when the instance has ended.
func obtained(t *testing.T, issuer string, c setup) tlsauto.CertificateStatus {
	t.Helper()
	i := managed(issuer).mustStart(t, c)
	if _, err := i.client(c.ca, nameA).trusted(t.Context(), patience); err != nil {
		t.Fatal(err)
	}
	i.stop()
	s := i.manager.Status().Certificates[0]
	if s.NotStored != "" {
		t.Fatalf("not stored: %+v", s)
	}
	return s
}
