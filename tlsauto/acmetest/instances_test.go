package acmetest

import (
	"slices"
	"testing"

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
				ca := newCA(t, caConfig{})
				ca.Router.avoid(ca.lastOrderer)
				c := setup{ca: ca, names: []string{nameA}, store: tlsauto.NewMemoryStore(), http01: http01, clock: &clock{}}
				var instances []*instance
				for _, c.who = range []string{"a", "b"} {
					instances = append(instances, managed(issuer).mustStart(t, c))
				}
				var loads []*load
				for _, i := range instances {
					if _, err := i.client(ca, nameA).trusted(t.Context(), patience); err != nil {
						t.Fatal(err)
					}
					loads = append(loads, startLoad(t, 3, i.client(ca, nameA)))
				}
				for n := 2; n <= 3; n++ {
					instances[0].makeDue(t) // for both, whose clock is the same
					instances[1].manager.Reload()
					if !becomes(patience, func() bool { return loads[0].certificates() >= n && loads[1].certificates() >= n }) {
						break
					}
				}
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
