package tlsauto_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

// Who wants a renewal while the stored certificate is still being read wants another one than that.
func TestRenewBeforeTheStoreIsRead(t *testing.T) {
	for _, requested := range []bool{false, true} {
		t.Run(fmt.Sprint("requested ", requested), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				ca, store := newMint(t, 90*day), newFaultyStore()
				cfg := tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store}
				n := start(t, cfg)
				pass(time.Second)
				n.stop()
				store.set(func(_ context.Context, _, key string) error {
					if strings.Contains(key, "cert+") {
						time.Sleep(5 * time.Second)
					}
					return nil
				})
				pass(time.Second)
				if requested {
					if err := tlsauto.RequestRenewal(t.Context(), store, "example.com"); err != nil {
						t.Fatal(err)
					}
				}
				n = start(t, cfg)
				if !requested {
					if err := n.Renew("example.com"); err != nil {
						t.Fatal(err)
					}
				}
				pass(time.Minute)
				if got := len(ca.made()); got != 2 {
					t.Errorf("%d orders, want 2", got)
				}
				pass(day)
				if got := len(ca.made()); got != 2 {
					t.Errorf("%d orders in the end, want 2", got)
				}
			})
		})
	}
}

// What somebody wants renewed is renewed, once, by the next process if this one ends meanwhile, be it the first
// attempt or not.
func TestRenewOutlivesTheProcess(t *testing.T) {
	for failures := range 2 {
		t.Run(fmt.Sprint(failures, " failures"), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				ca, store := newMint(t, 90*day), tlsauto.NewMemoryStore()
				last := 2 + failures
				ca.fail = func(ctx context.Context, n int, _ *tlsauto.Order) error {
					switch {
					case n == 1 || n > last:
						return nil
					case n < last:
						return errors.New("no")
					}
					<-ctx.Done()
					return ctx.Err()
				}
				cfg := tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store}
				n := start(t, cfg)
				pass(time.Second)
				if err := n.Renew("example.com"); err != nil {
					t.Fatal(err)
				}
				pass(2 * time.Minute)
				if got := len(ca.made()); got != last {
					t.Fatalf("%d attempts, want %d", got, last)
				}
				n.stop()
				n = start(t, cfg)
				pass(2 * time.Minute)
				if got := len(ca.made()); got != last+1 || n.status().Failures != 0 {
					t.Errorf("%d attempts, want %d; %+v", got, last+1, n.status())
				}
				n.stop()
				start(t, cfg)
				pass(day)
				if got := len(ca.made()); got != last+1 {
					t.Errorf("%d attempts in the end, want %d", got, last+1)
				}
			})
		})
	}
}
