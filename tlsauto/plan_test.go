package tlsauto_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

func TestAdoptDelay(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name        string
		life, delay time.Duration
		from, until time.Duration // after the new one has come
	}{
		{"default", 90 * day, 0, time.Hour, time.Hour},
		{"default for short lives", 6 * day, 0, 0, 0},
		{"none", 90 * day, -1, 0, 0},
		{"own", 6 * day, 10 * time.Hour, 10 * time.Hour, 10 * time.Hour},
		{"more than is left", time.Hour, 10 * time.Hour, 13 * time.Minute, 15 * time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				ca := newMint(t, test.life)
				n := start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, AdoptDelay: test.delay})
				pass(time.Second)
				if len(n.of(tlsauto.Adopted)) != 1 {
					t.Fatalf("the first certificate is not served at once: %v", n.kinds())
				}
				time.Sleep(min(test.life/2, 3*day))
				if test.life < 10*day {
					pass(test.life * 6 / 100)
				} else if err := n.Renew("EXAMPLE.com."); err != nil {
					t.Fatal(err)
				}
				pass(test.until + time.Second)
				obtained, adopted := n.of(tlsauto.Obtained), n.of(tlsauto.Adopted)
				if len(obtained) != 2 || len(adopted) != 2 {
					t.Fatalf("events %v", n.kinds())
				}
				wantBetween(t, "adopted", adopted[1].Time.Sub(obtained[1].Time), test.from, test.until)
				if orders := ca.made(); n.served("example.com") != orders[1].serial {
					t.Error("the new certificate is not served")
				}
			})
		})
	}
}

// A certificate that is not valid yet waits for its time, while there is another.
func TestNotYetValid(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newMint(t, day)
		n := start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}})
		pass(time.Second)
		first := n.served("example.com")
		ca.skew = 30 * time.Minute
		if err := n.Renew("example.com"); err != nil {
			t.Fatal(err)
		}
		pass(29 * time.Minute)
		if n.served("example.com") != first || len(ca.made()) != 2 {
			t.Errorf("%d orders; the new one is served: %v", len(ca.made()), n.served("example.com") != first)
		}
		pass(2 * time.Minute)
		if n.served("example.com") == first {
			t.Error("the new one is not served in its time")
		}
	})
}

// A machine that was suspended has missed its timers, but not the time on the wall.
func TestSuspendedMachine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newMint(t, 90*day)
		var slept atomic.Int64
		n := start(t, tlsauto.Config{
			Issuers: []tlsauto.Issuer{ca},
			Now:     func() time.Time { return time.Now().Add(time.Duration(slept.Load())) },
		})
		pass(time.Hour)
		slept.Store(int64(100 * day))
		pass(time.Minute + time.Second)
		if s := n.status(); len(ca.made()) != 2 || s.State != tlsauto.Trusted {
			t.Errorf("%d orders, %+v", len(ca.made()), s)
		}
	})
}

// What was planned by a clock that was years ahead does not last for years.
func TestClockSetBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 90*day), tlsauto.NewMemoryStore()
		ca.fail = func(_ context.Context, n int, _ *tlsauto.Order) error {
			if n < 4 {
				return errors.New("no")
			}
			return nil
		}
		var ahead atomic.Int64
		ahead.Store(int64(3650 * day))
		cfg := tlsauto.Config{
			Issuers: []tlsauto.Issuer{ca},
			Store:   store,
			Now:     func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
		}
		n := start(t, cfg)
		pass(time.Second)
		ahead.Store(0)
		pass(time.Minute + time.Second)
		if got := len(ca.made()); got != 2 {
			t.Errorf("%d attempts, want 2", got)
		}
		n.stop()

		ahead.Store(int64(3650 * day))
		n = start(t, cfg)
		pass(time.Second)
		n.stop()
		ahead.Store(0)
		n = start(t, cfg)
		pass(time.Second)
		if got := len(ca.made()); got != 4 || n.served("example.com") == "" {
			t.Errorf("%d attempts, want 4", got)
		}
	})
}

// An adviser is a mint that gives advice.
type adviser struct {
	*mint
	advise func(leaf, parent *x509.Certificate) (*tlsauto.RenewalInfo, error)
	asked  atomic.Int64
}

func (a *adviser) RenewalInfo(_ context.Context, leaf, parent *x509.Certificate) (*tlsauto.RenewalInfo, error) {
	a.asked.Add(1)
	return a.advise(leaf, parent)
}

func TestRenewalAdvice(t *testing.T) {
	t.Parallel()
	after := func(leaf *x509.Certificate, from, until, again time.Duration) (*tlsauto.RenewalInfo, error) {
		return &tlsauto.RenewalInfo{Start: leaf.NotBefore.Add(from), End: leaf.NotBefore.Add(until), AskAgain: again}, nil
	}
	const usual = 3 * day // for 6 days
	for _, test := range []struct {
		name        string
		advise      func(leaf, parent *x509.Certificate) (*tlsauto.RenewalInfo, error)
		from, until time.Duration // of the renewal
		asked       [2]int64      // in the first day
	}{
		{"in a window", func(leaf, _ *x509.Certificate) (*tlsauto.RenewalInfo, error) {
			return after(leaf, 30*time.Hour, 40*time.Hour, 0)
		}, 30 * time.Hour, 40 * time.Hour, [2]int64{4, 5}},
		{"asked again soon", func(leaf, _ *x509.Certificate) (*tlsauto.RenewalInfo, error) {
			return after(leaf, 30*time.Hour, 40*time.Hour, time.Hour)
		}, 30 * time.Hour, 40 * time.Hour, [2]int64{24, 25}},
		{"asked again at once", func(leaf, _ *x509.Certificate) (*tlsauto.RenewalInfo, error) {
			return after(leaf, 30*time.Hour, 40*time.Hour, time.Nanosecond)
		}, 30 * time.Hour, 40 * time.Hour, [2]int64{1439, 1441}},
		{"asked again in a year", func(leaf, _ *x509.Certificate) (*tlsauto.RenewalInfo, error) {
			return after(leaf, 30*time.Hour, 40*time.Hour, 365*day)
		}, 30 * time.Hour, 40 * time.Hour, [2]int64{1, 1}},
		{"too late", func(leaf, _ *x509.Certificate) (*tlsauto.RenewalInfo, error) {
			return after(leaf, 5*day, 6*day, 0)
		}, usual, usual * 11 / 10, [2]int64{4, 5}},
		{"of a new one", func(leaf, _ *x509.Certificate) (*tlsauto.RenewalInfo, error) {
			return after(leaf, -2*time.Hour, -time.Hour, 0)
		}, day, day, [2]int64{1, 2}},
		{"unsupported", func(_, _ *x509.Certificate) (*tlsauto.RenewalInfo, error) {
			return nil, fmt.Errorf("ask: %w", errors.ErrUnsupported)
		}, usual, usual * 11 / 10, [2]int64{1, 1}},
		{"an error", func(_, _ *x509.Certificate) (*tlsauto.RenewalInfo, error) { return nil, errors.New("down") }, usual, usual * 11 / 10, [2]int64{4, 5}},
		{"nothing", func(_, _ *x509.Certificate) (*tlsauto.RenewalInfo, error) { return nil, nil }, usual, usual * 11 / 10, [2]int64{4, 5}},
		{"a panic", func(_, _ *x509.Certificate) (*tlsauto.RenewalInfo, error) { panic("oh") }, usual, usual * 11 / 10, [2]int64{4, 5}},
		{"no window", func(leaf, _ *x509.Certificate) (*tlsauto.RenewalInfo, error) {
			return after(leaf, 40*time.Hour, 30*time.Hour, 0)
		}, usual, usual * 11 / 10, [2]int64{4, 5}},
		{"without a parent", func(leaf, parent *x509.Certificate) (*tlsauto.RenewalInfo, error) {
			if leaf.CheckSignatureFrom(parent) != nil {
				return nil, errors.New("another parent")
			}
			return after(leaf, 30*time.Hour, 40*time.Hour, 0)
		}, 30 * time.Hour, 40 * time.Hour, [2]int64{4, 5}},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				ca := &adviser{mint: newMint(t, 6*day), advise: test.advise}
				n := start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}})
				pass(day - time.Second)
				if got := ca.asked.Load(); got < test.asked[0] || got > test.asked[1] {
					t.Errorf("asked %d times in a day, want %v", got, test.asked)
				}
				pass(test.from - day - time.Second)
				if got := len(ca.made()); got != 1 {
					t.Fatalf("%d orders before the time", got)
				}
				pass(test.until - test.from + 2*time.Minute)
				if got := len(ca.made()); got != 2 {
					t.Fatalf("%d orders, want 2; %+v", got, n.status())
				}
			})
		})
	}
}

// An authority that is about to revoke has the certificate replaced at once.
func TestRenewingEarly(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := &adviser{mint: newMint(t, 90*day)}
		var revoked atomic.Value
		revoked.Store("")
		ca.advise = func(leaf, _ *x509.Certificate) (*tlsauto.RenewalInfo, error) {
			start := leaf.NotBefore.Add(60 * day)
			if leaf.SerialNumber.Text(16) == revoked.Load() {
				start = time.Now().Add(-2 * time.Hour)
			}
			return &tlsauto.RenewalInfo{Start: start, End: start.Add(time.Hour), ExplanationURL: "https://ca.example/why"}, nil
		}
		n := start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}})
		pass(5 * day)
		revoked.Store(n.served("example.com"))
		pass(6*time.Hour + time.Minute)
		early := n.of(tlsauto.RenewingEarly)
		if len(early) != 1 || !strings.Contains(early[0].Err.Error(), "https://ca.example/why") {
			t.Fatalf("events %v", early)
		}
		if orders := ca.made(); len(orders) != 2 || n.served("example.com") != orders[1].serial {
			t.Errorf("%d orders; the new one must be served without delay", len(orders))
		}
	})
}

// An authority that wants everything renewed at once does not get orders without end.
func TestAdviceWithoutEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := &adviser{mint: newMint(t, 90*day)}
		ca.advise = func(_, _ *x509.Certificate) (*tlsauto.RenewalInfo, error) {
			return &tlsauto.RenewalInfo{Start: time.Now().Add(-2 * time.Hour), End: time.Now().Add(-time.Hour)}, nil
		}
		start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}})
		pass(7 * day)
		if got := len(ca.made()); got > 5 {
			t.Errorf("%d orders in a week, which is more than authorities allow", got)
		}
	})
}

func TestReuseKey(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newMint(t, day)
		n := start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, ReuseKey: true})
		pass(time.Second)
		ca.change = nil
		if err := n.Renew("example.com"); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if orders := ca.made(); len(orders) != 2 || !orders[0].key.(*ecdsa.PublicKey).Equal(orders[1].key) {
			t.Errorf("%d orders; the keys differ", len(orders))
		}
	})
}

func TestRenew(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newMint(t, 90*day)
		ca.fail = func(_ context.Context, n int, _ *tlsauto.Order) error {
			if n == 2 {
				return &tlsauto.RetryAfterError{After: time.Hour, Err: errors.New("no")}
			}
			return nil
		}
		n := start(t, tlsauto.Config{Groups: [][]string{{"example.com", "*.example.com"}}, Issuers: []tlsauto.Issuer{ca}})
		pass(time.Second)
		for _, name := range []string{"other.example", "www.example.com", "", "a b"} {
			if err := n.Renew(name); err == nil {
				t.Errorf("%q can be renewed", name)
			}
		}
		for want := range 3 {
			if got := len(ca.made()); got != want+1 {
				t.Fatalf("%d orders, want %d", got, want+1)
			}
			if err := n.Renew("*.Example.com"); err != nil {
				t.Fatal(err)
			}
			pass(time.Second)
		}
		pass(day)
		if got := len(ca.made()); got != 4 {
			t.Errorf("%d orders, want 4", got)
		}
	})
}

// What somebody wants renewed is tried again like what is due, also by the process after this one.
func TestRenewThatFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 90*day), tlsauto.NewMemoryStore()
		ca.fail = func(_ context.Context, n int, _ *tlsauto.Order) error {
			if n == 2 || n == 4 {
				return errors.New("no")
			}
			return nil
		}
		cfg := tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store}
		n := start(t, cfg)
		pass(time.Second)
		for attempts := 3; attempts <= 5; attempts += 2 {
			if err := n.Renew("example.com"); err != nil {
				t.Fatal(err)
			}
			pass(time.Second)
			if attempts == 5 {
				n.stop()
				n = start(t, cfg)
			}
			if next := n.Status().Certificates[0].NextTry; time.Until(next) > 2*time.Minute {
				t.Errorf("the next attempt is planned for %s later", time.Until(next))
			}
			pass(5 * time.Minute)
			if got := len(ca.made()); got != attempts {
				t.Errorf("%d attempts, want %d", got, attempts)
			}
		}
		pass(10 * day)
		if got := len(ca.made()); got != 5 {
			t.Errorf("%d attempts in the end, want 5", got)
		}
	})
}

func TestRequestRenewal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 90*day), tlsauto.NewMemoryStore()
		cfg := tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store, AdoptDelay: -1}
		a, b := start(t, cfg), start(t, cfg)
		pass(time.Minute)
		for _, name := range []string{"Example.com", "unknown.example"} {
			if err := tlsauto.RequestRenewal(t.Context(), store, name); err != nil {
				t.Fatal(err)
			}
		}
		if err := tlsauto.RequestRenewal(t.Context(), store, "not a name"); err == nil {
			t.Error("a request for what is no name")
		}
		pass(time.Minute + time.Second)
		orders := ca.made()
		if len(orders) != 2 {
			t.Fatalf("%d orders, want 2", len(orders))
		}
		if data, err := store.Get(t.Context(), "renew"); err != nil || strings.Contains(string(data), `"example.com"`) || !strings.Contains(string(data), "unknown.example") {
			t.Errorf("requests that are left: %s, %v", data, err)
		}
		pass(16 * time.Minute) // until the other process looks, too
		if a.served("example.com") != orders[1].serial || b.served("example.com") != orders[1].serial || len(ca.made()) != 2 {
			t.Errorf("the new certificate is not served by all; %d orders", len(ca.made()))
		}
		if _, err := store.Get(t.Context(), "renew"); !errors.Is(err, tlsauto.ErrNotFound) {
			t.Errorf("a request that nobody knows is kept: %v", err)
		}
		for i := range 200 {
			if err := tlsauto.RequestRenewal(t.Context(), store, fmt.Sprintf("n%d.example", i)); (err != nil) != (i >= 100) {
				t.Fatalf("request %d: %v", i, err)
			}
		}
		if err := store.Put(t.Context(), "renew", []byte("nonsense")); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if _, err := store.Get(t.Context(), "renew"); !errors.Is(err, tlsauto.ErrNotFound) {
			t.Errorf("nonsense is kept: %v", err)
		}
	})
}

// On SIGHUP a certificate that another process has stored is found at once.
func TestReload(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 90*day), tlsauto.NewMemoryStore()
		cfg := tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store, AdoptDelay: -1}
		a, b := start(t, cfg), start(t, cfg)
		pass(time.Minute)
		if err := a.Renew("example.com"); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		b.Reload()
		pass(time.Second)
		if got := b.served("example.com"); got != ca.made()[1].serial {
			t.Errorf("served is %q", got)
		}
	})
}

// Certificates that are configured have room when those on demand have none.
func TestRoom(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newMint(t, 90*day)
		ca.fail = func(ctx context.Context, _ int, o *tlsauto.Order) error {
			if strings.HasSuffix(o.Names[0], ".demand.example") {
				<-ctx.Done()
			}
			return ctx.Err()
		}
		n := start(t, tlsauto.Config{
			Names:             []string{"a.example", "b.example"},
			OnDemand:          func(context.Context, string) error { return nil },
			OnDemandPerMinute: 100,
			Issuers:           []tlsauto.Issuer{ca},
		})
		pass(time.Second)
		for i := range 10 {
			n.served(fmt.Sprintf("%d.demand.example", i))
		}
		pass(time.Second)
		if got := len(ca.made()); got != 2+3 {
			t.Errorf("%d orders, want 2 and 3 on demand", got)
		}
		if err := n.Renew("b.example"); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if got := len(ca.made()); got != 2+3+1 {
			t.Errorf("%d orders, want 6", got)
		}
	})
}

func TestOrdersAtATime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newMint(t, 90*day)
		var now, most atomic.Int64
		ca.fail = func(context.Context, int, *tlsauto.Order) error {
			raise(&most, now.Add(1))
			time.Sleep(time.Second)
			now.Add(-1)
			return nil
		}
		var telling atomic.Bool
		tell := func(tlsauto.Event) {
			if !telling.CompareAndSwap(false, true) {
				t.Error("two events at a time")
			}
			for range 100 {
				runtime.Gosched()
			}
			telling.Store(false)
		}
		var names []string
		for i := range 20 {
			names = append(names, fmt.Sprintf("n%d.example", i))
		}
		n := start(t, tlsauto.Config{Names: names, Issuers: []tlsauto.Issuer{ca}, Events: tell})
		pass(6 * time.Second)
		if most.Load() != 4 || len(ca.made()) != 20 {
			t.Errorf("%d orders, %d at a time", len(ca.made()), most.Load())
		}
		if s := n.Status(); len(s.Certificates) != 20 || slices.ContainsFunc(s.Certificates, func(c tlsauto.CertificateStatus) bool { return c.State != tlsauto.Trusted }) {
			t.Errorf("status %+v", s)
		}
	})
}
