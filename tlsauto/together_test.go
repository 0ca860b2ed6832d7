package tlsauto_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

// Whichever of two processes orders, the other serves it soon: it does not take an attempt that is under way for one
// that has failed, and plan by that.
func TestFirstCertificateOfAnother(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newMint(t, 90*day)
		var up atomic.Bool
		ca.fail = func(context.Context, int, *tlsauto.Order) error {
			time.Sleep(10 * time.Second)
			if up.Load() {
				return nil
			}
			return errors.New("down")
		}
		cfg := tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: tlsauto.NewMemoryStore()}
		a, b := start(t, cfg), start(t, cfg)
		pass(9 * time.Second)
		if a.status().LastError != "" || b.status().LastError != "" {
			t.Errorf("an attempt that is under way has failed: %+v, %+v", a.status(), b.status())
		}
		pass(10 * time.Hour) // until pauses are long
		failed := len(ca.made())
		up.Store(true)
		pass(7 * time.Hour)
		orders := ca.made()
		if len(orders) != failed+1 {
			t.Fatalf("%d orders, want %d", len(orders), failed+1)
		}
		for _, n := range []*node{a, b} {
			adopted := n.of(tlsauto.Adopted)
			if len(adopted) != 1 {
				t.Fatalf("events %v", n.kinds())
			}
			wantBetween(t, "adopted after the order", adopted[0].Time.Sub(orders[failed].at), 10*time.Second, 40*time.Second)
		}
	})
}

// A certificate that is missing is looked for each minute, as somebody may have had another process order it.
func TestRenewedByAnother(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newMint(t, 90*day)
		var up atomic.Bool
		ca.fail = func(context.Context, int, *tlsauto.Order) error {
			if up.Load() {
				return nil
			}
			return errors.New("down")
		}
		cfg := tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: tlsauto.NewMemoryStore()}
		a, b := start(t, cfg), start(t, cfg)
		pass(10 * time.Hour)
		up.Store(true)
		if err := a.Renew("example.com"); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute + time.Second)
		if a.served("example.com") == "" || a.served("example.com") != b.served("example.com") {
			t.Errorf("served are %q and %q", a.served("example.com"), b.served("example.com"))
		}
	})
}

// The pause after an attempt that a process did not survive is kept, even by who has waited for its lease.
func TestPauseAfterTheDead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 90*day), newFaultyStore()
		hour := func(int) time.Duration { return time.Hour }
		ca.fail = func(context.Context, int, *tlsauto.Order) error {
			store.set(failing()) // nothing that happens afterwards is kept
			return errors.New("no")
		}
		cfg := tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store, Backoff: hour}
		n := start(t, cfg)
		pass(time.Second)
		n.stop()
		store.set(nil)
		n = start(t, cfg)
		pass(40 * time.Minute)
		if got := len(ca.made()); got != 1 {
			t.Errorf("%d attempts within the pause, want 1", got)
		}
		if s := n.status(); s.LastError == "" {
			t.Errorf("an attempt that nobody makes any more is under way: %+v", s)
		}
		pass(40 * time.Minute)
		if got := len(ca.made()); got < 2 {
			t.Errorf("%d attempts after the pause, want more", got)
		}
	})
}
