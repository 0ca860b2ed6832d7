package tlsauto_test

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

// bubble runs a test in virtual time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, f)
}

// pass lets virtual time pass, and everything come to rest.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func wantBetween(t *testing.T, what string, got, from, until time.Duration) {
	t.Helper()
	if got < from || got > until {
		t.Errorf("%s: %v, want %v to %v", what, got, from, until)
	}
}

func TestRenewalInTime(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name        string
		life        time.Duration
		from, until time.Duration // after the one before
	}{
		{"90 days", 90 * day, 60 * day, 63*day + time.Minute},
		{"6 days", 6 * day, 3 * day, 3*day + 8*time.Hour},
		{"a minute", time.Minute, 30 * time.Second, 34 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				ca := newMint(t, test.life)
				n := start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}})
				pass(time.Second)
				if orders := ca.made(); len(orders) != 1 || n.served("example.com") != orders[0].serial {
					t.Fatalf("at the start: %v, served is %q", orders, n.served("example.com"))
				}
				pass(test.until)
				orders := ca.made()
				if len(orders) != 2 {
					t.Fatalf("%d orders, want 2; %+v", len(orders), n.status())
				}
				wantBetween(t, "renewal", ca.times()[1], test.from, test.until)
				pass(time.Hour)
				if n.served("example.com") != ca.made()[len(ca.made())-1].serial {
					t.Error("the new certificate is not served")
				}
				if orders[0].key.(*ecdsa.PublicKey).Equal(orders[1].key) {
					t.Error("the key is the old one")
				}
			})
		})
	}
}

func TestFirstCertificateEvents(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newMint(t, 90*day)
		n := start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := n.WaitReady(ctx); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		want := []tlsauto.EventKind{tlsauto.Obtaining, tlsauto.Obtained, tlsauto.Adopted}
		if got := n.kinds(); !slices.Equal(got, want) {
			t.Errorf("events %v, want %v", got, want)
		}
		if s := n.status(); s.State != tlsauto.Trusted || s.Obtained != 1 || s.Issuer != "mint" || s.NextTry != s.Renewal {
			t.Errorf("status %+v", s)
		}
		if err := n.Run(t.Context()); err == nil {
			t.Error("Run runs twice")
		}
	})
}

func TestRestartServesWithoutOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newMint(t, 90*day)
		store := tlsauto.NewMemoryStore()
		cfg := tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store}
		n := start(t, cfg)
		pass(time.Second)
		serial := n.served("example.com")
		n.stop()
		if _, err := store.Get(t.Context(), "plan+example.com"); !errors.Is(err, tlsauto.ErrNotFound) {
			t.Errorf("the plan of a success is kept: %v", err)
		}
		n = start(t, cfg)
		pass(time.Second)
		if n.served("example.com") != serial || len(ca.made()) != 1 {
			t.Errorf("served is %q, want %q; %d orders", n.served("example.com"), serial, len(ca.made()))
		}
		if got := n.kinds(); !slices.Equal(got, []tlsauto.EventKind{tlsauto.Loaded, tlsauto.Adopted}) {
			t.Errorf("events %v", got)
		}
	})
}

func TestExpiredIsServedAndRenewed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newMint(t, 10*day)
		var down atomic.Bool
		ca.fail = func(context.Context, int, *tlsauto.Order) error {
			if down.Load() {
				return errors.New("down")
			}
			return nil
		}
		store := tlsauto.NewMemoryStore()
		cfg := tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store}
		n := start(t, cfg)
		pass(time.Second)
		serial := n.served("example.com")
		n.stop()
		time.Sleep(11 * day)
		down.Store(true)
		n = start(t, cfg)
		pass(time.Second)
		if got := n.served("example.com"); got != serial {
			t.Errorf("served is %q, want the expired %q", got, serial)
		}
		if s := n.status(); s.State != tlsauto.Expired || s.LastError != "down" {
			t.Errorf("status %+v", s)
		}
		if len(n.of(tlsauto.Expiring)) != 1 {
			t.Errorf("events %v", n.kinds())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := n.WaitReady(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "example.com: down") {
			t.Errorf("WaitReady: %v", err)
		}
		down.Store(false)
		pass(2 * time.Minute)
		if s := n.status(); s.State != tlsauto.Trusted || s.Failures != 0 || s.LastError != "" {
			t.Errorf("status %+v", s)
		}
		down.Store(true)
		pass(10*day - 3*time.Minute) // which is one day and 16 hours of urgency
		if got := len(n.of(tlsauto.Expiring)); got < 1+38 || got > 1+41 {
			t.Errorf("%d events expiring, want one an hour", got)
		}
	})
}

func TestBackoff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newMint(t, 90*day)
		ca.fail = func(context.Context, int, *tlsauto.Order) error { return errors.New("no") }
		n := start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}})
		pass(40 * time.Hour)
		want := []time.Duration{1, 2, 5, 10, 20, 30, 60, 120, 240, 360, 360}
		at := ca.times()
		for i, w := range want {
			wantBetween(t, "pause", at[i+1]-at[i], w*time.Minute*8/10, w*time.Minute*12/10+time.Second)
		}
		if s := n.status(); s.Failures != len(at) || s.Failed != uint64(len(at)) || s.State != tlsauto.Fallback {
			t.Errorf("status %+v", s)
		}
	})
}

// As a certificate comes to its end, attempts are made more often.
func TestBackoffIsCapped(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newMint(t, 6*day)
		ca.fail = func(_ context.Context, n int, _ *tlsauto.Order) error {
			if n > 1 {
				return errors.New("no")
			}
			return nil
		}
		n := start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}})
		pass(6*day - time.Minute)
		expires := n.status().NotAfter
		orders := ca.made()[1:]
		for i, o := range orders[:len(orders)-1] {
			left := expires.Sub(o.at)
			if pause := orders[i+1].at.Sub(o.at); pause > max(left/8, 10*time.Second)+time.Second {
				t.Errorf("pause of %v with %v left", pause, left)
			}
		}
		if s := n.status(); s.State != tlsauto.Trusted {
			t.Errorf("status %+v", s)
		}
		if failed := n.of(tlsauto.Failed); failed[0].Next.IsZero() || failed[0].NotAfter != expires {
			t.Errorf("event %+v", failed[0])
		}
	})
}

func TestFailuresSurviveRestarts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newMint(t, 90*day)
		ca.fail = func(context.Context, int, *tlsauto.Order) error { return errors.New("no") }
		store := tlsauto.NewMemoryStore()
		cfg := tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store}
		for range 20 {
			n := start(t, cfg)
			pass(10 * time.Second)
			n.stop()
		}
		if got := len(ca.made()); got < 2 || got > 4 {
			t.Errorf("%d attempts in 200 seconds", got)
		}
		n := start(t, cfg)
		pass(time.Second)
		if s := n.status(); s.Failures != len(ca.made()) || s.LastError != "no" {
			t.Errorf("status %+v", s)
		}
		n.stop()

		// With another issuer there is no reason to wait.
		other := newMint(t, 90*day)
		other.id = "other"
		cfg.Issuers = []tlsauto.Issuer{other}
		n = start(t, cfg)
		pass(time.Second)
		if n.served("example.com") == "" {
			t.Error("another issuer is not tried at once")
		}
	})
}

func TestRetryAfter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, second := newMint(t, 90*day), newMint(t, 90*day)
		second.id = "second"
		busy := func(context.Context, int, *tlsauto.Order) error {
			return &tlsauto.RetryAfterError{After: 5 * time.Hour, Err: errors.New("busy")}
		}
		ca.fail, second.fail = busy, busy
		n := start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}})
		pass(4*time.Hour + 59*time.Minute)
		if got := len(ca.made()); got != 1 {
			t.Errorf("%d attempts before the time of Retry-After", got)
		}
		pass(2 * time.Minute)
		if got := len(ca.made()); got != 2 {
			t.Errorf("%d attempts, want 2", got)
		}
		n.stop()

		both := start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca, second}})
		pass(2 * time.Minute)
		if got := len(second.made()); got != 1 {
			t.Errorf("%d attempts of the second issuer while the first is busy, want 1", got)
		}
		pass(4 * time.Hour)
		if got := len(ca.made()) + len(second.made()); got != 4 {
			t.Errorf("%d attempts, want 4: both are busy", got)
		}
		both.stop()

		ca.fail = func(context.Context, int, *tlsauto.Order) error {
			return &tlsauto.RetryAfterError{After: 1000 * time.Hour, Err: errors.New("busy")}
		}
		start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}})
		before := len(ca.made())
		pass(25 * time.Hour)
		if got := len(ca.made()) - before; got != 2 {
			t.Errorf("%d attempts in 25 hours, want 2: Retry-After counts for a day", got)
		}
	})
}

func TestIssuersInOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		first, second := newMint(t, 90*day), newMint(t, 90*day)
		second.id = "second"
		first.fail = func(context.Context, int, *tlsauto.Order) error { return errors.New("down") }
		n := start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{first, second}})
		pass(time.Hour)
		if len(first.made()) != 3 || len(second.made()) != 1 {
			t.Errorf("%d and %d attempts, want 3 and 1", len(first.made()), len(second.made()))
		}
		if s := n.status(); s.Issuer != "second" || s.State != tlsauto.Trusted {
			t.Errorf("status %+v", s)
		}
	})
}

func TestTwoManagers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newMint(t, 6*time.Hour)
		ca.fail = func(context.Context, int, *tlsauto.Order) error { time.Sleep(3 * time.Second); return nil }
		cfg := tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: tlsauto.NewMemoryStore()}
		a, b := start(t, cfg), start(t, cfg)
		rotations := 0
		for range 30 {
			pass(time.Hour)
			if len(ca.made()) > rotations {
				pass(time.Minute) // the last order may be under way
			}
			orders := ca.made()
			rotations = len(orders)
			if last := orders[len(orders)-1].serial; a.served("example.com") != last || b.served("example.com") != last {
				t.Fatalf("served are %q and %q, want %q", a.served("example.com"), b.served("example.com"), last)
			}
		}
		if rotations < 9 || rotations > 11 {
			t.Errorf("%d orders in 30 hours, want one for each three hours", rotations)
		}
	})
}

func TestTwoManagersWithoutLeases(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newMint(t, 6*time.Hour)
		cfg := tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: plainStore{tlsauto.NewMemoryStore()}}
		start(t, cfg)
		pass(time.Minute)
		start(t, cfg)
		pass(30 * time.Hour)
		if got := len(ca.made()); got < 9 || got > 14 {
			t.Errorf("%d orders in 30 hours, want about one for each three hours", got)
		}
	})
}

// A plainStore is no Leaser.
type plainStore struct{ tlsauto.Store }
