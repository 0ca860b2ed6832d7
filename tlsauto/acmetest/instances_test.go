package acmetest

import (
	"slices"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

// TestTwoInstances has two instances share a store, and the authority always come to the one that has
// not ordered. One of them is to order, and both are to serve.
func TestTwoInstances(t *testing.T) {
	long(t)
	for _, issuer := range issuers {
		for challenge, http01 := range map[string]bool{"TLS-ALPN-01": false, "HTTP-01": true} {
			t.Run(issuer+" by "+challenge, func(t *testing.T) {
				t.Parallel()
				ca := newCA(t, caConfig{Life: 30 * time.Second})
				ca.Router.avoid(ca.lastOrderer)
				c := setup{ca: ca, names: []string{nameA}, store: tlsauto.NewMemoryStore(), http01: http01}
				var visitors []client
				for _, c.who = range []string{"a", "b"} {
					visitors = append(visitors, managed(issuer).mustStart(t, c).client(ca, nameA))
				}
				var loads []*load
				for _, v := range visitors {
					if _, err := v.trusted(t.Context(), 15*time.Second); err != nil {
						t.Fatal(err)
					}
					loads = append(loads, startLoad(t, 3, v))
				}
				becomes(50*time.Second, func() bool { return loads[0].certificates() >= 3 && loads[1].certificates() >= 3 })
				a, b := loads[0].stop(), loads[1].stop()
				t.Log(a)
				t.Log(b)
				if a.Failed+b.Failed > 0 || len(a.Serials) < 3 || len(b.Serials) < 3 {
					t.Error("want two renewals or more, and no failure")
				}
				if n := min(len(a.Serials), len(b.Serials)); !slices.Equal(a.Serials[:n], b.Serials[:n]) {
					t.Error("the instances do not serve the same certificates")
				}
				each := 1
				if issuer == "Autocert" && http01 {
					each = 2 // it tries TLS-ALPN-01 first
				}
				if n, most := ca.orders(), each*max(len(a.Serials), len(b.Serials)); n > most {
					t.Errorf("%d orders for %d certificates", n, most)
				}
			})
		}
	}
}
