package acmetest

import (
	"sync/atomic"
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
				ca := newCA(t, caConfig{})
				store := newFaultyStore()
				i := managed(issuer).mustStart(t, setup{ca: ca, names: []string{nameA}, store: store})
				c := i.client(ca, nameA)
				if _, err := c.trusted(t.Context(), patience); err != nil {
					t.Fatal(err)
				}
				fail(store)
				l := startLoad(t, 2, c)
				i.makeUrgent(t)
				becomes(patience, func() bool { return l.certificates() > 1 })
				if sum := l.stop(); sum.Failed > 0 || len(sum.Serials) < 2 {
					t.Error(sum)
				}
				if name != "Delete" && !i.wasTold(tlsauto.StoreFailed) {
					t.Error("nobody was told that the store fails")
				}
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
			if _, err := i.client(ca, nameA).trusted(t.Context(), patience); err != nil {
				t.Error(err)
			}
			if !i.wasTold(tlsauto.StoreFailed) {
				t.Error("nobody was told that the store fails")
			}
		})
	}
}

// TestStoreSlow has accesses to the store take long: handshakes do not wait for them, and a renewal succeeds.
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
			leaf, err := c.trusted(t.Context(), patience)
			if err != nil {
				t.Fatal(err)
			}
			all := func(does fault) {
				for _, f := range []*atomic.Pointer[fault]{&store.get, &store.put, &store.remove, &store.lease} {
					set(f, does)
				}
			}
			slow := newHold(t)
			all(slow.wait)
			if err := i.manager.Renew(nameA); err != nil {
				t.Fatal(err)
			}
			<-slow.arrived
			for range 10 {
				if _, err := c.connect(t.Context()); err != nil {
					t.Fatal("a handshake waits for the store: ", err)
				}
			}
			all(takes(500 * time.Millisecond))
			l := startLoad(t, 2, c)
			slow.release()
			_, err = c.changes(t.Context(), leaf, patience)
			sum := l.stop()
			t.Log(sum)
			if err != nil || sum.Failed > 0 {
				t.Error("want a renewal, and no failure", err)
			}
			all(nil)
		})
	}
}
