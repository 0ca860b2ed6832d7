package acmetest

import (
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

// TestStoreFails has a part of the store fail from the first certificate on, and wants it to be renewed
// in time all the same.
func TestStoreFails(t *testing.T) {
	long(t)
	for name, fail := range map[string]func(*faultyStore){
		"Get":    func(s *faultyStore) { set(&s.get, broken) },
		"Put":    func(s *faultyStore) { set(&s.put, broken) },
		"Delete": func(s *faultyStore) { set(&s.remove, broken) },
	} {
		for _, issuer := range issuers {
			t.Run(issuer+" "+name, func(t *testing.T) {
				t.Parallel()
				ca := newCA(t, caConfig{Life: 36 * time.Second})
				store := newFaultyStore()
				i := managed(issuer).mustStart(t, setup{ca: ca, names: []string{nameA}, store: store})
				c := i.client(ca, nameA)
				leaf, err := c.trusted(t.Context(), 10*time.Second)
				if err != nil {
					t.Fatal(err)
				}
				fail(store)
				l := startLoad(t, 2, c)
				becomes(time.Until(leaf.NotAfter), func() bool { return l.certificates() > 1 })
				left := time.Until(leaf.NotAfter)
				if sum := l.stop(); sum.Failed > 0 || len(sum.Serials) < 2 {
					t.Error(sum)
				}
				if name != "Delete" && !i.wasTold(tlsauto.StoreFailed) {
					t.Error("nobody was told that the store fails")
				}
				t.Logf("renewed %v before it would have expired", left.Round(time.Second))
			})
		}
	}
}

// TestLeaseFails wants a first certificate to be ordered although nobody knows who else does: after some
// time, in which another one might come.
func TestLeaseFails(t *testing.T) {
	long(t)
	for _, issuer := range issuers {
		t.Run(issuer, func(t *testing.T) {
			t.Parallel()
			ca := newCA(t, caConfig{})
			store := newFaultyStore()
			set(&store.lease, broken)
			i := managed(issuer).mustStart(t, setup{ca: ca, names: []string{nameA}, store: store})
			if _, err := i.client(ca, nameA).trusted(t.Context(), 40*time.Second); err != nil {
				t.Error(err)
			}
			if !i.wasTold(tlsauto.StoreFailed) {
				t.Error("nobody was told that the store fails")
			}
		})
	}
}

// TestStoreSlow has each access to the store take seconds: handshakes do not.
func TestStoreSlow(t *testing.T) {
	long(t)
	for _, issuer := range issuers {
		t.Run(issuer, func(t *testing.T) {
			t.Parallel()
			ca := newCA(t, caConfig{})
			store := newFaultyStore()
			i := mustRun(t, setup{ca: ca, store: store}, tlsauto.Config{
				Names:          []string{nameA},
				Issuers:        []tlsauto.Issuer{newIssuer(t, issuer, setup{ca: ca, who: "a"})},
				AttemptTimeout: time.Minute,
			})
			c := i.client(ca, nameA)
			leaf, err := c.trusted(t.Context(), 10*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			set(&store.get, takes(3*time.Second))
			set(&store.put, takes(3*time.Second))
			set(&store.remove, takes(3*time.Second))
			set(&store.lease, takes(3*time.Second))
			l := startLoad(t, 2, c)
			if err := i.manager.Renew(nameA); err != nil {
				t.Fatal(err)
			}
			_, err = c.changes(t.Context(), leaf, 50*time.Second)
			sum := l.stop()
			t.Log(sum)
			if err != nil || sum.Failed > 0 || sum.Slowest > 2*time.Second {
				t.Error("want a renewal, no failure, and no handshake that waits for the store", err)
			}
			set(&store.get, nil)
			set(&store.put, nil)
			set(&store.remove, nil)
			set(&store.lease, nil)
		})
	}
}
