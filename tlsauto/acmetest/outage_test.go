package acmetest

import (
	"bytes"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

// outages are the ways in which an authority can be out of order.
var outages = map[string]behaviour{
	"503":   unavailable,
	"429":   tooMany(2 * time.Second),
	"reset": reset,
	"hang":  hang,
}

// TestDownAtStart wants handshakes to succeed while the authority is down, with a certificate that
// nobody has issued, and a trusted one when it is back, although no client asks.
func TestDownAtStart(t *testing.T) {
	long(t)
	for _, issuer := range issuers {
		for name, outage := range outages {
			t.Run(issuer+" "+name, func(t *testing.T) {
				t.Parallel()
				ca := newCA(t, caConfig{})
				ca.set(outage)
				const attempt = 20 * time.Second
				i := managed(issuer).mustStart(t, setup{ca: ca, names: []string{nameA}, attempt: attempt})
				begin := time.Now()
				leaf, err := client{addr: i.TLS, name: nameA, patient: true}.connect(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(begin); took >= attempt {
					t.Errorf("the first handshake took %v, as long as the attempt", took)
				}
				if !bytes.Equal(leaf.RawSubject, leaf.RawIssuer) {
					t.Errorf("the certificate is of %s", leaf.Issuer)
				}
				if !becomes(patience, func() bool { return i.wasTold(tlsauto.Failed) }) {
					t.Error("nobody was told that it fails")
				}

				ca.set(up)
				begin = time.Now()
				if !becomes(patience, func() bool { return i.wasTold(tlsauto.Adopted) }) {
					t.Fatal("no certificate, now that the authority is back")
				}
				t.Logf("a certificate %v after the authority was back", time.Since(begin).Round(time.Millisecond))
				if _, err := i.client(ca, nameA).connect(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestDownAtRenewal has the authority down when a renewal is due, and wants no client to notice.
func TestDownAtRenewal(t *testing.T) {
	long(t)
	for _, issuer := range issuers {
		for name, outage := range outages {
			t.Run(issuer+" "+name, func(t *testing.T) {
				t.Parallel()
				ca := newCA(t, caConfig{})
				i := managed(issuer).mustStart(t, setup{ca: ca, names: []string{nameA}, attempt: 5 * time.Second})
				c := i.client(ca, nameA)
				if _, err := c.trusted(t.Context(), patience); err != nil {
					t.Fatal(err)
				}
				l := startLoad(t, 4, c)
				ca.set(outage)
				i.makeDue(t)
				if !becomes(patience, func() bool { return i.wasTold(tlsauto.Failed) }) {
					t.Error("no renewal was tried")
				}
				ca.set(up)
				becomes(patience, func() bool { return l.certificates() > 1 })
				if sum := l.stop(); sum.Failed > 0 || len(sum.Serials) < 2 {
					t.Error(sum)
				} else {
					t.Log(sum)
				}
			})
		}
	}
}
