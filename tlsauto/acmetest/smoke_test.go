package acmetest

import (
	"testing"
	"time"
)

// TestSmoke obtains a certificate and renews it while clients come all the time.
func TestSmoke(t *testing.T) {
	t.Parallel()
	for _, issuer := range issuers {
		t.Run(issuer, func(t *testing.T) {
			t.Parallel()
			rotates(t, managed(issuer), setup{names: []string{nameA}}, 10*time.Second, 2, 8*time.Second)
		})
	}
}

// rotates requires so many certificates, each with a key of its own, to be served in a time without a
// handshake that fails.
func rotates(t *testing.T, s subject, c setup, life time.Duration, certificates int, within time.Duration) {
	t.Helper()
	c.ca = newCA(t, caConfig{Life: life})
	i := s.mustStart(t, c)
	visitor := i.client(c.ca, nameA)
	if _, err := visitor.trusted(t.Context(), 8*time.Second); err != nil {
		t.Fatal(err)
	}
	l := startLoad(t, 8, visitor)
	becomes(within, func() bool { return l.certificates() >= certificates })
	sum := l.stop()
	t.Log(sum)
	if sum.Failed > 0 || len(sum.Serials) < certificates || sum.Keys != len(sum.Serials) {
		t.Errorf("want %d certificates or more, each with its own key, and no failure", certificates)
	}
}
