package tlsauto_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

// A gatekeeper decides on names on demand.
type gatekeeper struct {
	answer atomic.Pointer[error]
	asked  atomic.Int64
	hangs  atomic.Bool
}

func (g *gatekeeper) decide(ctx context.Context, _ string) error {
	g.asked.Add(1)
	if g.hangs.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	if err := g.answer.Load(); err != nil {
		return *err
	}
	return nil
}

func (g *gatekeeper) refuse() {
	err := errors.New("no longer a customer")
	g.answer.Store(&err)
}

func startOnDemand(t *testing.T, ca *mint, g *gatekeeper, store tlsauto.Store) *node {
	return start(t, tlsauto.Config{OnDemand: g.decide, Issuers: []tlsauto.Issuer{ca}, Store: store})
}

func TestOnDemandRenewal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, g, store := newMint(t, 6*day), &gatekeeper{}, tlsauto.NewMemoryStore()
		n := startOnDemand(t, ca, g, store)
		pass(time.Second)
		n.served("a.example")
		for range 7 * 24 {
			pass(time.Hour)
			if n.served("a.example") == "" {
				t.Fatal("not served")
			}
		}
		if len(ca.made()) != 3 || g.asked.Load() != 3 {
			t.Errorf("%d orders, asked %d times; want 3", len(ca.made()), g.asked.Load())
		}
		n.stop()

		// It is in the store.
		n = startOnDemand(t, ca, g, store)
		pass(time.Second)
		n.served("a.example")
		pass(time.Second)
		if n.served("a.example") == "" || len(ca.made()) != 3 {
			t.Errorf("%d orders, want 3", len(ca.made()))
		}

		g.refuse()
		for range 4 * 24 {
			n.served("a.example")
			pass(time.Hour)
		}
		if dropped := n.of(tlsauto.Dropped); len(dropped) != 1 || dropped[0].Err == nil {
			t.Errorf("events %v", n.kinds())
		}
		if n.served("a.example") != "" || n.Status().OnDemand != 0 || len(ca.made()) != 3 {
			t.Errorf("served although it is refused; %d orders", len(ca.made()))
		}
	})
}

func TestOnDemandUnused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, g := newMint(t, 6*day), &gatekeeper{}
		n := startOnDemand(t, ca, g, nil)
		pass(time.Second)
		n.served("a.example")
		pass(4 * day)
		if n.Status().OnDemand != 0 || len(ca.made()) != 1 || g.asked.Load() != 1 || len(n.of(tlsauto.Dropped)) != 1 {
			t.Errorf("%d orders, asked %d times, %v", len(ca.made()), g.asked.Load(), n.kinds())
		}
	})
}

func TestOnDemandNeverObtained(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, g := newMint(t, 6*day), &gatekeeper{}
		ca.fail = func(context.Context, int, *tlsauto.Order) error { return errors.New("no") }
		store := tlsauto.NewMemoryStore()
		n := startOnDemand(t, ca, g, store)
		pass(time.Second)
		n.served("a.example")
		pass(20 * time.Hour)
		if n.Status().OnDemand != 1 {
			t.Error("dropped after 20 hours")
		}
		pass(20 * time.Hour)
		if n.Status().OnDemand != 0 || len(n.of(tlsauto.Dropped)) != 1 {
			t.Errorf("not dropped after 40 hours: %v", n.kinds())
		}
		if _, err := store.Get(t.Context(), "plan+a.example"); !errors.Is(err, tlsauto.ErrNotFound) {
			t.Errorf("its plan is kept: %v", err)
		}
	})
}

// A func that does not answer has not refused.
func TestOnDemandHangs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, g := newMint(t, day), &gatekeeper{}
		n := startOnDemand(t, ca, g, nil)
		pass(time.Second)
		n.served("a.example")
		pass(11 * time.Hour)
		g.hangs.Store(true)
		for range 6 {
			n.served("a.example")
			pass(time.Hour)
		}
		if n.served("a.example") == "" || len(ca.made()) != 1 {
			t.Errorf("%d orders, %v", len(ca.made()), n.kinds())
		}
		g.hangs.Store(false)
		pass(11 * time.Minute)
		if len(ca.made()) != 2 {
			t.Errorf("%d orders, want 2", len(ca.made()))
		}
	})
}

func TestOnDemandBudget(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, g := newMint(t, 90*day), &gatekeeper{}
		n := startOnDemand(t, ca, g, nil)
		pass(time.Second)
		for i := range 50 {
			n.served(fmt.Sprintf("n%d.example", i))
			pass(time.Millisecond)
		}
		pass(5 * time.Minute)
		at := ca.times()
		if len(at) != 50 {
			t.Fatalf("%d orders, want 50", len(at))
		}
		for i := range 40 {
			if at[i+10]-at[i] < time.Minute {
				t.Errorf("more than 10 orders in the minute from %v on", at[i])
			}
		}
	})
}
