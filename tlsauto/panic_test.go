package tlsauto_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

// A panickyDNS is a DNS provider with a mistake in it.
type panickyDNS struct {
	present bool
	cleaned atomic.Bool
}

func (d *panickyDNS) Present(context.Context, string, string) error {
	if d.present {
		panic("present")
	}
	return errors.New("no such zone")
}

func (d *panickyDNS) CleanUp(context.Context, string, string) error {
	d.cleaned.Store(true)
	panic("clean up")
}

// A mistake in a DNS provider fails an attempt, and not the process, although it is called by other goroutines.
func TestDNSProviderPanics(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		present bool
		says    string
	}{
		{true, "answer dns-01 for example.com: panic: present"},
		{false, "answer dns-01 for example.com: no such zone"},
	} {
		ca, dns := newFakeACME(t, nil), &panickyDNS{present: test.present}
		issuer := &tlsauto.ACME{Directory: directoryOf(ca), Challenges: []string{"dns-01"}, DNS: dns}
		_, err := issuer.Issue(t.Context(), orderFor(ca, "example.com"))
		if err == nil || !strings.Contains(err.Error(), test.says) || !dns.cleaned.Load() {
			t.Errorf("error %v, want %q; cleaned up: %v", err, test.says, dns.cleaned.Load())
		}
	}
}

// So does a mistake in a store that shows when challenges are answered, which issuers do on goroutines of their own.
func TestStorePanicsForChallenges(t *testing.T) {
	t.Parallel()
	for _, of := range []func(d tlsauto.Directory) tlsauto.Issuer{
		func(d tlsauto.Directory) tlsauto.Issuer { return &tlsauto.ACME{Directory: d} },
		func(d tlsauto.Directory) tlsauto.Issuer { return &tlsauto.Autocert{Directory: d} },
	} {
		ca, store, ended := newFakeACME(t, nil), newFaultyStore(), make(chan struct{})
		var (
			once   sync.Once
			panics atomic.Bool
		)
		store.set(func(_ context.Context, op, key string) error {
			if strings.HasPrefix(key, "tlsalpn01+") {
				panics.Store(true)
				panic(op)
			}
			return nil
		})
		start(t, tlsauto.Config{
			Issuers: []tlsauto.Issuer{of(directoryOf(ca))}, Store: store,
			Events: func(e tlsauto.Event) {
				if e.Kind == tlsauto.Failed { // as this authority looks elsewhere for the answer
					once.Do(func() { close(ended) })
				}
			},
		})
		select {
		case <-ended:
		case <-time.After(time.Minute):
			t.Error("the attempt does not end")
		}
		if !panics.Load() {
			t.Error("the store is not called")
		}
	}
}
