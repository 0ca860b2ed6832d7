package tlsauto_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

// An authority that is asked for its advice shortly before a renewal is due does not hold that up.
func TestAdviceDoesNotHoldUpRenewal(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(ctx context.Context) error{
		"hangs": func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"fails": func(context.Context) error { return errors.New("down") },
	} {
		for _, before := range []time.Duration{time.Second / 2, 10 * time.Second, time.Minute} {
			t.Run(fmt.Sprint(name, " ", before), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					ca := newMint(t, 6*day)
					var due, asks atomic.Int64
					advise := func(ctx context.Context, leaf, _ *x509.Certificate) (*tlsauto.RenewalInfo, error) {
						late := &tlsauto.RenewalInfo{Start: leaf.NotAfter.Add(-time.Hour), End: leaf.NotAfter, AskAgain: day / 2}
						switch left := time.Until(time.Unix(0, due.Load())) - before; {
						case len(ca.made()) > 1:
							return nil, errors.ErrUnsupported
						case due.Load() == 0:
							late.AskAgain = time.Hour
						case left <= 0:
							asks.Add(1)
							return nil, answer(ctx)
						case left < day:
							late.AskAgain = left
						}
						return late, nil
					}
					n := start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{&asked{ca, advise}}})
					pass(time.Second)
					renewal := n.status().Renewal
					due.Store(renewal.UnixNano())
					pass(time.Until(renewal) + 2*time.Second)
					if asks.Load() != 1 {
						t.Errorf("the authority was asked %d times in the end, want 1", asks.Load())
					}
					orders := ca.made()
					if len(orders) != 2 {
						t.Fatalf("%d orders, want 2; %+v", len(orders), n.status())
					}
					wantBetween(t, "order after it was due", orders[1].at.Sub(renewal), 0, time.Second)
				})
			})
		}
	}
}

// A store that hangs when the account is read is given up: then the account in memory is used, or without that
// the attempt fails, and no other account is registered.
func TestAccountReadHangs(t *testing.T) {
	t.Parallel()
	for name, issuer := range map[string]func(d tlsauto.Directory) tlsauto.Issuer{
		"ACME":     func(d tlsauto.Directory) tlsauto.Issuer { return &tlsauto.ACME{Directory: d} },
		"Autocert": func(d tlsauto.Directory) tlsauto.Issuer { return &tlsauto.Autocert{Directory: d} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := newFakeACME(t, nil)
			synctest.Test(t, func(t *testing.T) {
				d := directoryOf(ca)
				d.Roots, d.Client = nil, &http.Client{Transport: direct{ca}}
				i := issuer(d)
				store := newFaultyStore()
				hangs := func(ctx context.Context, op, key string) error {
					if op == "Get" && key == accountKey {
						return blocked(ctx, op, key)
					}
					return nil
				}
				order := orderFor(ca, "www.example.com")
				order.Store = store
				var log bytes.Buffer
				order.Logger = slog.New(slog.NewTextHandler(&log, nil))
				issue := func() error {
					t.Helper()
					began := time.Now()
					_, err := i.Issue(t.Context(), order)
					wantBetween(t, "Issue takes", time.Since(began), 10*time.Second, 11*time.Second)
					return err
				}

				store.set(hangs)
				if err := issue(); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "read the account") {
					t.Errorf("error %v", err)
				}
				if n := ca.count("/"); n != 0 {
					t.Errorf("%d requests", n)
				}
				store.set(nil)
				if _, err := i.Issue(t.Context(), order); err != nil {
					t.Fatal(err)
				}
				store.set(hangs)
				if err := issue(); err != nil {
					t.Error(err)
				}
				if len(ca.accounts) != 1 || !strings.Contains(log.String(), "the account in memory is used") {
					t.Errorf("%d accounts, and the log has %s", len(ca.accounts), log.String())
				}
			})
		})
	}
}

// direct makes requests to a fake authority without a network, which has a time of its own.
type direct struct{ ca *fakeACME }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	d.ca.ServeHTTP(w, r)
	return w.Result(), nil
}
