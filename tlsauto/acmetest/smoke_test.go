package acmetest

import "testing"

// TestSmoke obtains a certificate and renews it while clients come all the time.
func TestSmoke(t *testing.T) {
	t.Parallel()
	for _, issuer := range issuers {
		t.Run(issuer, func(t *testing.T) {
			t.Parallel()
			rotates(t, managed(issuer), setup{names: []string{nameA}}, 2)
		})
	}
}

// rotates requires so many certificates, each with a key of its own, to be served without a handshake that
// fails.
func rotates(t *testing.T, s subject, c setup, certificates int) {
	t.Helper()
	c.ca = newCA(t, caConfig{})
	i := s.mustStart(t, c)
	visitor := i.client(c.ca, nameA)
	if _, err := visitor.trusted(t.Context(), patience); err != nil {
		t.Fatal(err)
	}
	l := startLoad(t, 8, visitor)
	for n := 2; n <= certificates; n++ {
		i.makeDue(t)
		if !becomes(patience, func() bool { return l.certificates() >= n }) {
			break
		}
	}
	sum := l.stop()
	t.Log(sum)
	if sum.Failed > 0 || len(sum.Serials) < certificates || sum.Keys != len(sum.Serials) {
		t.Errorf("want %d certificates or more, each with its own key, and no failure", certificates)
	}
}
