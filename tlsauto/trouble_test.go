package tlsauto_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

// failing makes the operations of a store fail that are named, all of them if none is.
func failing(ops ...string) func(context.Context, string, string) error {
	return func(_ context.Context, op, _ string) error {
		if len(ops) == 0 || strings.Contains(strings.Join(ops, " "), op) {
			return errors.New("disk full")
		}
		return nil
	}
}

// blocked makes all operations of a store wait for their context to end.
func blocked(ctx context.Context, _, _ string) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestServedBeforeStored(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 90*day), newFaultyStore()
		store.set(func(ctx context.Context, op, key string) error {
			if op == "Put" && strings.Contains(key, "cert+") {
				return blocked(ctx, op, key)
			}
			return nil
		})
		n := start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store})
		pass(time.Second)
		if n.served("example.com") == "" {
			t.Fatal("nothing is served while the store is written")
		}
		pass(time.Minute)
		if s := n.status(); s.NotStored == "" || s.Obtained != 1 {
			t.Errorf("status %+v", s)
		}
		if got := len(n.of(tlsauto.StoreFailed)); got != 1 {
			t.Errorf("%d events of a store that fails for one reason", got)
		}

		// The lease stays for a time, so that others do not order at once.
		got, err := store.Store.(tlsauto.Leaser).Acquire(t.Context(), "order+example.com", "another", time.Now(), time.Minute)
		if got || err != nil {
			t.Errorf("another process gets the lease: %v, %v", got, err)
		}
		store.set(nil)
		pass(10 * time.Minute)
		if s := n.status(); s.NotStored != "" {
			t.Errorf("status %+v", s)
		}
		n.stop()
		n = start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store})
		pass(time.Second)
		if len(ca.made()) != 1 || n.served("example.com") == "" {
			t.Errorf("%d orders, want 1", len(ca.made()))
		}
	})
}

// A store that nothing can be written to costs no certificate, and no more orders than are needed: what is
// obtained cannot be kept.
func TestStoreReadOnlyForLong(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 6*time.Hour), newFaultyStore()
		store.set(failing("Put", "Delete"))
		n := start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store})
		for range 30 {
			pass(time.Hour)
			if s := n.status(); s.State != tlsauto.Trusted {
				t.Fatalf("status %+v", s)
			}
		}
		if got := len(ca.made()); got < 6 || got > 7 {
			t.Errorf("%d orders in 30 hours, want one for each five hours", got)
		}
	})
}

// While the store cannot be reached nobody knows what others do: each waits until it must not wait longer.
func TestStoreDownForLong(t *testing.T) {
	for name, fault := range map[string]func(context.Context, string, string) error{
		"fails":  failing(),
		"blocks": blocked,
		"leases": failing("Acquire"),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				ca, store := newMint(t, 6*time.Hour), newFaultyStore()
				cfg := tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store}
				a, b := start(t, cfg), start(t, cfg)
				pass(time.Hour)
				store.set(fault)
				pass(3 * time.Hour)
				if got := len(ca.made()); got != 1 {
					t.Errorf("%d orders before the certificate is urgent", got)
				}
				pass(time.Hour + 10*time.Minute)
				if got := len(ca.made()); got < 2 || got > 3 {
					t.Errorf("%d orders, want one, or one by each", got)
				}
				pass(time.Hour)
				for _, n := range []*node{a, b} {
					if s := n.status(); s.State != tlsauto.Trusted {
						t.Errorf("status %+v", s)
					}
				}
				store.set(nil)
				pass(20 * time.Hour)
				if a.served("example.com") != b.served("example.com") {
					pass(time.Minute) // one of them may have renewed it just now
				}
				if a.served("example.com") != b.served("example.com") {
					t.Error("they serve different certificates although the store is back")
				}
			})
		})
	}
}

// A store that cannot be read at the start may have the certificate: it gets a moment, and not more.
func TestStoreDownAtStart(t *testing.T) {
	for name, fault := range map[string]func(context.Context, string, string) error{
		"fails":  failing(),
		"blocks": blocked,
		"leases": failing("Acquire"),
		"reads":  failing("Get"),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				ca, store := newMint(t, 90*day), newFaultyStore()
				cfg := tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store}
				n := start(t, cfg)
				pass(time.Second)
				serial := n.served("example.com")
				n.stop()

				store.set(fault)
				n = start(t, cfg)
				pass(5 * time.Second)
				store.set(nil)
				pass(30 * time.Second)
				if n.served("example.com") != serial || len(ca.made()) != 1 {
					t.Errorf("a store that fails for 5 s: %d orders", len(ca.made()))
				}
				n.stop()

				if name == "leases" {
					return // the certificate is there
				}
				store.set(fault)
				n = start(t, cfg)
				pass(2 * time.Minute)
				if s := n.status(); s.State != tlsauto.Trusted || len(ca.made()) != 2 {
					t.Errorf("a store that fails for 2 min: %d orders, %+v", len(ca.made()), s)
				}
				pass(time.Hour)
				if len(ca.made()) != 2 {
					t.Errorf("%d orders, want 2", len(ca.made()))
				}
			})
		})
	}
}

// One name whose part of the store hangs does not hold up others.
func TestOneNameIsSlow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 90*day), newFaultyStore()
		store.set(func(ctx context.Context, op, key string) error {
			if strings.Contains(key, "slow") {
				return blocked(ctx, op, key)
			}
			return nil
		})
		n := start(t, tlsauto.Config{Names: []string{"slow.example", "a.example", "b.example"}, Issuers: []tlsauto.Issuer{ca}, Store: store})
		pass(time.Second)
		if n.served("a.example") == "" || n.served("b.example") == "" {
			t.Error("names wait for another")
		}
		pass(2 * time.Minute)
		if n.served("slow.example") == "" {
			t.Error("the name is never served")
		}
	})
}

func TestStoredNonsense(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newMint(t, 90*day)
		for i, value := range []string{"", "nonsense", strings.Repeat("x", 1<<20), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
			store := newFaultyStore()
			n := start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: anyValue{store, []byte(value)}})
			pass(time.Second)
			if failed := n.of(tlsauto.Failed); len(failed) != 1 || strings.Contains(failed[0].Err.Error(), "AAAA") {
				t.Errorf("%d: events %v", i, failed)
			}
			if len(ca.made()) != i+1 || n.served("example.com") == "" {
				t.Errorf("%d: %d orders, want one for each", i, len(ca.made()))
			}
			n.stop()
		}
	})
}

// An anyValue store has the same under every key.
type anyValue struct {
	tlsauto.Store
	value []byte
}

func (s anyValue) Get(context.Context, string) ([]byte, error) { return s.value, nil }

// A lease of a process that has died is waited for, not longer.
func TestLeaseOfTheDead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 90*day), tlsauto.NewMemoryStore()
		if _, err := store.(tlsauto.Leaser).Acquire(t.Context(), "order+example.com", "dead", time.Now(), 5*time.Minute); err != nil {
			t.Fatal(err)
		}
		n := start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store})
		pass(5*time.Minute - time.Second)
		if len(ca.made()) != 0 {
			t.Error("ordered without the lease")
		}
		pass(40 * time.Second)
		if n.served("example.com") == "" {
			t.Error("not ordered when the lease has run out")
		}
	})
}

// An attempt that ends with the process counts, so that a crash does not repeat it at once.
func TestCrashInAttempt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 90*day), newFaultyStore()
		ca.fail = func(context.Context, int, *tlsauto.Order) error {
			store.set(failing()) // nothing that happens afterwards is kept
			return errors.New("no")
		}
		n := start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store})
		pass(time.Second)
		n.stop()
		store.set(nil)
		time.Sleep(10 * time.Second)
		if _, err := store.Get(t.Context(), "plan+example.com"); err != nil {
			t.Fatal(err)
		}
		_ = store.Store.(tlsauto.Leaser) // whose lease lasts as long as the attempt would have
		n = start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store})
		pass(20 * time.Second)
		if s := n.status(); len(ca.made()) != 1 || s.Failures != 1 {
			t.Errorf("%d attempts, %+v", len(ca.made()), s)
		}
	})
}

func TestShutdownInAttempt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 90*day), newFaultyStore()
		ca.fail = func(ctx context.Context, n int, _ *tlsauto.Order) error {
			if n > 1 {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		cfg := tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store}
		n := start(t, cfg)
		pass(time.Second)
		began := time.Now()
		n.stop()
		if took := time.Since(began); took > 0 {
			t.Errorf("Run ends after %v", took)
		}
		if failed := n.of(tlsauto.Failed); len(failed) != 0 {
			t.Errorf("events %v", failed)
		}

		// Nothing is left of it: neither the lease nor a failure.
		n = start(t, cfg)
		pass(time.Second)
		if n.served("example.com") == "" {
			t.Errorf("status %+v", n.status())
		}
		n.stop()

		// Not even a store that hangs holds it up for long.
		if err := n.Renew("example.com"); err != nil {
			t.Fatal(err)
		}
		ca.fail = func(ctx context.Context, _ int, _ *tlsauto.Order) error {
			store.set(blocked)
			<-ctx.Done()
			return ctx.Err()
		}
		n = start(t, cfg)
		pass(time.Second)
		if err := n.Renew("example.com"); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		began = time.Now()
		n.stop()
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("Run ends after %v", took)
		}
	})
}

// A lease that was being acquired when Run ended is not kept, even if that looked like a failure.
func TestShutdownInAcquire(t *testing.T) {
	for _, after := range []error{nil, errors.New("cut short")} {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				ca, store := newMint(t, 90*day), newFaultyStore()
				store.after = after
				store.set(func(ctx context.Context, op, _ string) error {
					if op == "Acquire" {
						<-ctx.Done()
					}
					return nil
				})
				cfg := tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store}
				n := start(t, cfg)
				pass(time.Second)
				n.stop()
				store.set(nil)
				store.after = nil
				n = start(t, cfg)
				pass(time.Second)
				if n.served("example.com") == "" {
					t.Errorf("status %+v", n.status())
				}
			})
		})
	}
}

// What could not be stored is tried once more when Run ends.
func TestShutdownStores(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 90*day), newFaultyStore()
		cfg := tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store}
		store.set(failing("Put"))
		n := start(t, cfg)
		pass(time.Hour)
		store.set(nil)
		n.stop()
		n = start(t, cfg)
		pass(time.Second)
		if len(ca.made()) != 1 || n.served("example.com") == "" {
			t.Errorf("%d orders, want 1", len(ca.made()))
		}
		n.stop()
	})
}

// What is issued as Run ends is not lost.
func TestShutdownAfterIssue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 90*day), tlsauto.NewMemoryStore()
		ca.fail = func(ctx context.Context, _ int, _ *tlsauto.Order) error {
			<-ctx.Done()
			return nil
		}
		cfg := tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store}
		n := start(t, cfg)
		pass(time.Second)
		n.stop()
		n = start(t, cfg)
		pass(time.Second)
		if len(ca.made()) != 1 || n.served("example.com") == "" {
			t.Errorf("%d orders", len(ca.made()))
		}
	})
}

func TestAttemptTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newMint(t, 90*day)
		ca.fail = func(ctx context.Context, _ int, _ *tlsauto.Order) error {
			<-ctx.Done()
			return ctx.Err()
		}
		n := start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}})
		pass(5*time.Minute - time.Second)
		if s := n.status(); s.Failures != 0 {
			t.Errorf("status %+v", s)
		}
		pass(2 * time.Second)
		if s := n.status(); s.Failures != 1 || !strings.Contains(s.LastError, "no certificate within 5m0s") {
			t.Errorf("status %+v", s)
		}
	})
}

func TestPanics(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const secret = "-----BEGIN PRIVATE KEY-----"
		ca := newMint(t, 90*day)
		ca.fail = func(_ context.Context, n int, _ *tlsauto.Order) error {
			switch n {
			case 1:
				panic(struct{ key string }{secret})
			case 2:
				panic("out of order")
			}
			return nil
		}
		var log strings.Builder
		n := start(t, tlsauto.Config{
			Issuers: []tlsauto.Issuer{ca},
			Backoff: func(int) time.Duration { panic("backoff") },
			Events:  func(tlsauto.Event) { panic("events") },
			Logger:  slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
		pass(time.Second)
		pass(90 * time.Second)
		if s := n.status(); s.LastError != "panic: out of order" || s.Failures != 2 {
			t.Errorf("status %+v", s)
		}
		pass(10 * time.Minute)
		if n.served("example.com") == "" {
			t.Error("not served after panics")
		}
		n.stop()
		if strings.Contains(log.String(), secret) {
			t.Error("the value of a panic is logged")
		}
		for _, want := range []string{"panic in Issuer", "panic in Backoff", "panic in Events", "out of order", "mint).Issue"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log does not have %q:\n%s", want, log.String())
			}
		}
	})
}

// What an issuer returns is checked before it is served.
func TestIssuedNonsense(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(ca *mint, c *tls.Certificate)
		want   string
	}{
		{"empty", func(_ *mint, c *tls.Certificate) { *c = tls.Certificate{} }, "no certificate"},
		{"garbage", func(_ *mint, c *tls.Certificate) { c.Certificate[0] = []byte("garbage") }, "parse the certificate"},
		{"no key", func(_ *mint, c *tls.Certificate) { c.PrivateKey = nil }, "no private key"},
		{"foreign key", func(ca *mint, c *tls.Certificate) { c.PrivateKey = newTestKey(ca.t) }, "does not belong"},
		{"long chain", func(_ *mint, c *tls.Certificate) {
			for range 20 {
				c.Certificate = append(c.Certificate, c.Certificate[1])
			}
		}, "too long"},
		{"other name", func(ca *mint, c *tls.Certificate) {
			pair := ca.ca.issue(ca.t, nil, "other.example")
			*c, _ = tls.X509KeyPair(pair.cert, pair.key)
		}, "not for example.com"},
		{"expired", func(ca *mint, c *tls.Certificate) {
			pair := ca.ca.issue(ca.t, between(-2*time.Hour, -time.Hour), "example.com")
			*c, _ = tls.X509KeyPair(pair.cert, pair.key)
		}, "has expired"},
		{"far future", func(ca *mint, c *tls.Certificate) {
			pair := ca.ca.issue(ca.t, between(26*time.Hour, 27*time.Hour), "example.com")
			*c, _ = tls.X509KeyPair(pair.cert, pair.key)
		}, "is not valid before"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				ca := newMint(t, 90*day)
				ca.change = func(c *tls.Certificate) { test.change(ca, c) }
				n := start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}})
				pass(time.Second)
				s := n.status()
				if !strings.Contains(s.LastError, test.want) || s.State != tlsauto.Fallback {
					t.Errorf("status %+v, want %q", s, test.want)
				}
			})
		})
	}
}

func TestDoubtful(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newMint(t, 90*day)
		n := start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}})
		pass(time.Second)
		if doubts := n.of(tlsauto.Doubtful); len(doubts) != 0 {
			t.Errorf("events %v", doubts)
		}
		for i, change := range []func(c *tls.Certificate){
			func(c *tls.Certificate) { c.Certificate = c.Certificate[:1] },
			func(c *tls.Certificate) { c.Certificate[1] = newMint(t, day).ca.cert.Raw },
		} {
			ca.change = change
			if err := n.Renew("example.com"); err != nil {
				t.Fatal(err)
			}
			pass(time.Second)
			if doubts := n.of(tlsauto.Doubtful); len(doubts) != i+1 {
				t.Errorf("%d: events %v", i, doubts)
			}
		}
	})
}

// The log, events and status have everything but keys.
func TestNoKeyIsTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, day), newFaultyStore()
		store.set(func(_ context.Context, op, key string) error {
			if op == "Put" && time.Now().Second()%2 == 0 {
				return errors.New("disk full")
			}
			return nil
		})
		var log strings.Builder
		n := start(t, tlsauto.Config{
			Issuers: []tlsauto.Issuer{ca},
			Store:   store,
			Logger:  slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
		pass(3 * day)
		n.stop()
		synctest.Wait()
		if strings.Contains(log.String(), "PRIVATE") || !strings.Contains(log.String(), "disk full") {
			t.Error(log.String())
		}
	})
}

// Leases that fail for a moment do not make each process order for itself.
func TestLeasesFailAtFirst(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 90*day), newFaultyStore()
		store.set(failing("Acquire"))
		cfg := tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store}
		a, b := start(t, cfg), start(t, cfg)
		pass(5 * time.Second)
		store.set(nil)
		pass(time.Minute)
		if a.served("example.com") == "" || a.served("example.com") != b.served("example.com") || len(ca.made()) != 1 {
			t.Errorf("%d orders, want 1", len(ca.made()))
		}
	})
}

// Handshakes wait for a first attempt that is under way, not for one that has failed.
func TestFirstAttemptIsWaitedFor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 90*day), tlsauto.NewMemoryStore()
		ca.fail = func(context.Context, int, *tlsauto.Order) error {
			time.Sleep(200 * time.Millisecond)
			return errors.New("no")
		}
		cfg := tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store}
		n := start(t, cfg)
		for i, want := range []time.Duration{200 * time.Millisecond, 0} {
			began := time.Now()
			n.served("example.com")
			if took := time.Since(began); took != want {
				t.Errorf("handshake %d takes %v, want %v", i, took, want)
			}
		}
		n.stop()
		n = start(t, cfg) // which waits for its turn
		synctest.Wait()
		began := time.Now()
		n.served("example.com")
		if took := time.Since(began); took != 0 {
			t.Errorf("a handshake after the restart takes %v", took)
		}
	})
}

// What failed while nothing was known does not delay what is tried when something is.
func TestAllDownAtStart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 90*day), newFaultyStore()
		var up atomic.Bool
		ca.fail = func(context.Context, int, *tlsauto.Order) error {
			if up.Load() {
				return nil
			}
			return errors.New("down")
		}
		store.set(failing())
		n := start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store})
		pass(5 * time.Hour)
		if s := n.status(); s.Failures < 7 || s.Failures > 10 {
			t.Errorf("status %+v", s)
		}
		up.Store(true)
		store.set(nil)
		pass(31 * time.Second)
		if n.served("example.com") == "" {
			t.Errorf("status %+v", n.status())
		}
	})
}

// Waiting for the store ends when the certificate must be renewed without it, even if it lives for a minute.
func TestStoreDownShortLife(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, time.Minute), newFaultyStore()
		n := start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store})
		pass(time.Second)
		store.set(failing("Get"))
		for range 3 * 60 {
			pass(time.Second)
			if s := n.status(); s.State != tlsauto.Trusted {
				t.Fatalf("status %+v", s)
			}
		}
	})
}
