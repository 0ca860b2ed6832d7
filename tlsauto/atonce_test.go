package tlsauto_test

import (
	"context"
	"crypto/x509"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

// What one process renews since the authority wants that now, another serves soon, and not when it would have looked,
// and after AdoptDelay. What is renewed for another reason waits for that as ever.
func TestReplacedAtOnceByAnother(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		early       bool
		fault       func(ctx context.Context, op, key string) error
		from, until time.Duration
	}{
		"early":                       {true, nil, 0, 2 * time.Minute},
		"early, and not announced":    {true, onKey("replaced", failing("Put")), time.Minute, 17 * time.Minute},
		"early, and the store is out": {true, onKey("replaced", failing()), time.Minute, 17 * time.Minute},
		"renewed":                     {false, nil, time.Hour, 77 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				ca, store := newMint(t, 90*day), newFaultyStore()
				store.set(test.fault)
				var revoked atomic.Bool
				of := func(share time.Duration, hears bool) tlsauto.Config {
					a := &adviser{mint: ca}
					a.advise = func(leaf, _ *x509.Certificate) (*tlsauto.RenewalInfo, error) {
						start := leaf.NotBefore.Add(50 * day)
						if revoked.Load() && hears && leaf.SerialNumber.Text(16) == ca.made()[0].serial {
							start = time.Now().Add(-2 * time.Hour)
						}
						return &tlsauto.RenewalInfo{Start: start, End: start.Add(time.Hour), AskAgain: share}, nil
					}
					return tlsauto.Config{Issuers: []tlsauto.Issuer{a}, Store: store}
				}
				a, b := start(t, of(time.Minute, true)), start(t, of(day, false))
				pass(37*time.Hour + 7*time.Minute) // advice on what is newer is not followed
				if a.served("example.com") == "" || a.served("example.com") != b.served("example.com") || len(ca.made()) != 1 {
					t.Fatalf("served are %q and %q of %d", a.served("example.com"), b.served("example.com"), len(ca.made()))
				}
				if test.early {
					revoked.Store(true)
				} else if err := a.Renew("example.com"); err != nil {
					t.Fatal(err)
				}
				pass(3 * time.Hour)
				orders := ca.made()
				adopted := b.of(tlsauto.Adopted)
				if len(orders) != 2 || len(adopted) != 2 || b.served("example.com") != orders[1].serial {
					t.Fatalf("%d orders, events %v", len(orders), b.kinds())
				}
				wantBetween(t, "adopted after the order", adopted[1].Time.Sub(orders[1].at), test.from, test.until)
				for _, n := range []*node{a, b} {
					if got := len(n.of(tlsauto.Obtaining)); got > 2 || n.status().Failed != 0 {
						t.Errorf("%d attempts, %+v", got, n.status())
					}
				}
			})
		})
	}
}

// onKey restricts a fault to one key.
func onKey(want string, fault func(context.Context, string, string) error) func(context.Context, string, string) error {
	return func(ctx context.Context, op, key string) error {
		if key == want {
			return fault(ctx, op, key)
		}
		return nil
	}
}

// An announcement, whatever it is, makes a process look once.
func TestAnnouncedOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 90*day), newFaultyStore()
		if err := store.Put(t.Context(), "replaced", []byte(strings.Repeat("x", 1<<20))); err != nil {
			t.Fatal(err)
		}
		start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store})
		pass(time.Hour + time.Minute/2)
		var reads atomic.Int64
		store.set(func(_ context.Context, op, key string) error {
			if op == "Get" && strings.Contains(key, "cert+") {
				reads.Add(1)
			}
			return nil
		})
		pass(time.Hour)
		if got := reads.Load(); got > 5 {
			t.Errorf("the certificate was read %d times in an hour, want 4 or so", got)
		}
	})
}

// A lagging store answers with what it had some time ago.
type lagging struct {
	tlsauto.Store
	lag time.Duration
}

func (s *lagging) Get(ctx context.Context, key string) ([]byte, error) {
	data, err := s.Store.Get(ctx, key)
	if strings.Contains(key, "cert+") {
		time.Sleep(s.lag)
	}
	return data, err
}

// Who wants the store looked into while that is under way gets another look.
func TestReloadWhileItIsRead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 90*day), tlsauto.NewMemoryStore()
		cfg := tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store, AdoptDelay: -1}
		a := start(t, cfg)
		pass(time.Second)
		cfg.Store = &lagging{store, 5 * time.Second}
		b := start(t, cfg)
		pass(10 * time.Second)
		b.Reload()
		pass(time.Second)
		if err := a.Renew("example.com"); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if b.served("example.com") != ca.made()[0].serial || a.served("example.com") != ca.made()[1].serial {
			t.Fatalf("served are %s and %s", a.served("example.com"), b.served("example.com"))
		}
		b.Reload()
		pass(10 * time.Second)
		if got, want := b.served("example.com"), ca.made()[1].serial; got != want {
			t.Errorf("served is %s, want %s", got, want)
		}
	})
}
