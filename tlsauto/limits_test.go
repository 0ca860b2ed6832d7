package tlsauto_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

// A certificate that is due when it comes is not the reason to order the next at once, not even after a restart.
func TestDueWhenItComes(t *testing.T) {
	t.Parallel()
	past := func(_ context.Context, leaf, _ *x509.Certificate) (*tlsauto.RenewalInfo, error) {
		return &tlsauto.RenewalInfo{Start: leaf.NotBefore.Add(-2 * time.Hour), End: leaf.NotBefore.Add(-time.Hour)}, nil
	}
	for _, test := range []struct {
		name        string
		life, left  time.Duration
		advise      func(ctx context.Context, leaf, parent *x509.Certificate) (*tlsauto.RenewalInfo, error)
		from, until time.Duration // of the second order
	}{
		{"a clock that is ahead", 6 * day, 60 * time.Hour, nil, 30 * time.Hour, 31 * time.Hour},
		{"nearly due", 6 * day, 3*day + time.Second, nil, 36 * time.Hour, 37 * time.Hour},
		{"nothing left", 6 * day, time.Minute, nil, 10 * time.Minute, 11 * time.Minute},
		{"advice", 6 * day, 60 * time.Hour, past, 24 * time.Hour, 25 * time.Hour},
		{"a short life", time.Minute, 20 * time.Second, nil, 10 * time.Second, 11 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				ca := newMint(t, test.life)
				ca.skew = test.left - test.life
				ca.fail = func(ctx context.Context, n int, _ *tlsauto.Order) error {
					if n > 10 { // which would go on for as long as the test
						<-ctx.Done()
					}
					return ctx.Err()
				}
				cfg := tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: tlsauto.NewMemoryStore(), AdoptDelay: -1}
				if test.advise != nil {
					cfg.Issuers[0] = &asked{ca, test.advise}
				}
				for i := range 5 {
					n := start(t, cfg)
					pass(test.from / 6)
					n.stop()
					if doubts := n.of(tlsauto.Doubtful); len(doubts) != 1 || !strings.Contains(doubts[0].Err.Error(), "is the clock right?") {
						t.Errorf("run %d: events %v", i, doubts)
					}
				}
				n := start(t, cfg)
				pass(test.until - test.from/6*5)
				if got := len(ca.made()); got != 2 {
					t.Fatalf("%d orders, want 2, after %v", got, ca.times())
				}
				wantBetween(t, "second order", ca.times()[1], test.from, test.until)
				n.stop()
			})
		})
	}
}

// asked is a mint with advice.
type asked struct {
	*mint
	advise func(ctx context.Context, leaf, parent *x509.Certificate) (*tlsauto.RenewalInfo, error)
}

func (a *asked) RenewalInfo(ctx context.Context, leaf, parent *x509.Certificate) (*tlsauto.RenewalInfo, error) {
	return a.advise(ctx, leaf, parent)
}

// An authority that hangs does not keep certificates that are stored from being served.
func TestAuthorityHangsAtStart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newMint(t, 90*day)
		cfg := tlsauto.Config{Names: manyNames(100), Issuers: []tlsauto.Issuer{ca}, Store: tlsauto.NewMemoryStore()}
		n := start(t, cfg)
		pass(time.Minute)
		n.stop()

		var now, most atomic.Int64
		cfg.Issuers = []tlsauto.Issuer{&asked{ca, func(ctx context.Context, _, _ *x509.Certificate) (*tlsauto.RenewalInfo, error) {
			raise(&most, now.Add(1))
			defer now.Add(-1)
			<-ctx.Done()
			return nil, ctx.Err()
		}}}
		n = start(t, cfg)
		pass(time.Second)
		if got := trusted(n); got != 100 {
			t.Errorf("%d certificates are served after a second, want all 100", got)
		}
		pass(20 * time.Minute)
		if got := most.Load(); got != 4 {
			t.Errorf("%d questions at a time, want 4", got)
		}
	})
}

// raise makes a number the greatest seen.
func raise(most *atomic.Int64, n int64) {
	for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
	}
}

func manyNames(n int) []string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("n%d.example.com", i))
	}
	return names
}

func trusted(n *node) (count int) {
	for _, c := range n.Status().Certificates {
		if c.State == tlsauto.Trusted {
			count++
		}
	}
	return count
}

// A store that hangs when it is read does not keep any of many names from a certificate.
func TestStoreHangsAtStartWithManyNames(t *testing.T) {
	if testing.Short() {
		t.Skip("hundreds of names, and concurrency is not the point")
	}
	bubble(t, func(t *testing.T) {
		store := newFaultyStore()
		store.set(func(ctx context.Context, op, key string) error {
			if op == "Get" {
				return blocked(ctx, op, key)
			}
			return nil
		})
		ca := newMint(t, 90*day)
		n := start(t, tlsauto.Config{Names: manyNames(200), Issuers: []tlsauto.Issuer{ca}, Store: store})
		pass(2 * time.Hour)
		if got := trusted(n); got != 200 || len(ca.made()) != 200 {
			t.Errorf("%d of 200 have a certificate, %d orders", got, len(ca.made()))
		}
	})
}

// A request for renewal that cannot be taken out of the store is not carried out, neither each minute nor later.
func TestRequestThatStays(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 90*day), newFaultyStore()
		n := start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store})
		pass(time.Minute)
		request := func() {
			t.Helper()
			if err := tlsauto.RequestRenewal(t.Context(), store, "example.com"); err != nil {
				t.Fatal(err)
			}
		}
		stuck := func(_ context.Context, op, key string) error {
			if key == "renew" && (op == "Delete" || op == "Put") {
				return errors.New("cannot")
			}
			return nil
		}
		request()
		store.set(stuck)
		pass(time.Hour)
		store.set(nil)
		pass(time.Hour)
		if got := len(ca.made()); got != 1 {
			t.Errorf("%d orders, want 1: the request is too old by now", got)
		}
		request()
		store.set(stuck)
		pass(5 * time.Minute)
		store.set(nil)
		pass(time.Hour)
		if got := len(ca.made()); got != 2 {
			t.Errorf("%d orders, want 2: the request could be taken in its time", got)
		}
		n.stop()
	})
}

// What comes back with a backup, or is nonsense, is no request.
func TestRequestOfAnotherTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 90*day), tlsauto.NewMemoryStore()
		start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store})
		pass(time.Minute)
		for _, value := range []string{
			`{"example.com":"1999-01-01T00:00:00Z"}`,
			`{"example.com":"2999-01-01T00:00:00Z"}`,
			`null`,
			`[]`,
		} {
			if err := store.Put(t.Context(), "renew", []byte(value)); err != nil {
				t.Fatal(err)
			}
			pass(2 * time.Minute)
			if _, err := store.Get(t.Context(), "renew"); !errors.Is(err, tlsauto.ErrNotFound) {
				t.Errorf("%s is kept: %v", value, err)
			}
		}
		if got := len(ca.made()); got != 1 {
			t.Errorf("%d orders, want 1", got)
		}
		if err := store.Put(t.Context(), "renew", []byte("null")); err != nil {
			t.Fatal(err)
		}
		if err := tlsauto.RequestRenewal(t.Context(), store, "example.com"); err != nil {
			t.Error(err)
		}
	})
}

// By a clock that is behind, certificates come that are not valid yet. They are, for clients.
func TestClockBehind(t *testing.T) {
	t.Parallel()
	for _, behind := range []time.Duration{30 * time.Second, 3 * time.Hour, day} {
		t.Run(behind.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				ca := newMint(t, 90*day)
				ca.skew = behind
				cfg := tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: tlsauto.NewMemoryStore()}
				for range 2 {
					n := start(t, cfg)
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					if err := n.WaitReady(ctx); err != nil {
						t.Error(err)
					}
					cancel()
					pass(time.Hour)
					if n.served("example.com") == "" || len(ca.made()) != 1 {
						t.Errorf("%d orders, want 1; %+v", len(ca.made()), n.status())
					}
					if got := len(n.of(tlsauto.Doubtful)); (got == 1) != (behind > time.Hour) {
						t.Errorf("%d doubts", got)
					}
					n.stop()
				}
			})
		})
	}
}

// The old certificate is not served beyond its end while the time of the new one is still to come.
func TestNotYetValidWhenTheOldOneEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newMint(t, 4*time.Hour)
		ca.fail = func(_ context.Context, n int, _ *tlsauto.Order) error {
			if n > 1 {
				ca.skew = 20 * time.Hour
			}
			return nil
		}
		n := start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}})
		pass(time.Second)
		first := n.served("example.com")
		pass(4*time.Hour - 2*time.Second)
		if n.served("example.com") != first {
			t.Error("the old one is not served to its end")
		}
		pass(2 * time.Second)
		if got := n.served("example.com"); got == first || got == "" {
			t.Error("the new one is not served although the old one has expired")
		}
	})
}

// What was issued counts for the authority, even if it cannot be used.
func TestRefusedAfterIssue(t *testing.T) {
	t.Parallel()
	useless := func(c *tls.Certificate) { c.PrivateKey = nil }
	t.Run("the first", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			ca := newMint(t, 90*day)
			ca.change = useless
			start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}})
			pass(6*time.Hour - time.Second)
			if got := len(ca.made()); got != 1 {
				t.Errorf("%d orders in 6 hours, want 1", got)
			}
			pass(2 * time.Second)
			if got := len(ca.made()); got != 2 {
				t.Errorf("%d orders after 6 hours, want 2", got)
			}
		})
	})
	t.Run("another issuer", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			ca, second := newMint(t, 90*day), newMint(t, 90*day)
			second.id = "second"
			ca.change = useless
			n := start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca, second}})
			pass(2 * time.Minute)
			if n.status().Issuer != "second" || len(ca.made()) != 1 {
				t.Errorf("status %+v", n.status())
			}
		})
	})
	t.Run("urgent", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			ca := newMint(t, 6*day)
			ca.fail = func(_ context.Context, n int, _ *tlsauto.Order) error {
				if n > 1 {
					ca.change = useless
				}
				return nil
			}
			start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}})
			pass(5*day + time.Second)
			calm := len(ca.made()) - 1
			pass(day - time.Minute)
			urgent := len(ca.made()) - 1 - calm
			if calm < 6 || calm > 8 || urgent < 12 {
				t.Errorf("%d orders before it is urgent, want one each 6 hours, and %d after", calm, urgent)
			}
		})
	})
}

// Names that never work do not keep others from being renewed, however many there are.
func TestFailingNamesComeLast(t *testing.T) {
	if testing.Short() {
		t.Skip("hundreds of names, and concurrency is not the point")
	}
	bubble(t, func(t *testing.T) {
		ca := newMint(t, 2*day)
		ca.fail = func(_ context.Context, _ int, o *tlsauto.Order) error {
			if strings.HasPrefix(o.Names[0], "bad") {
				return errors.New("does not point here")
			}
			return nil
		}
		n := start(t, tlsauto.Config{
			OnDemand:          func(context.Context, string) error { return nil },
			OnDemandPerMinute: 1,
			Backoff:           func(int) time.Duration { return time.Hour },
			Issuers:           []tlsauto.Issuer{ca},
		})
		pass(time.Second)
		n.served("good.example.com")
		pass(time.Minute)
		if n.served("good.example.com") == "" {
			t.Fatal("not obtained at first")
		}
		for range 36 {
			for i := range 100 {
				n.served(fmt.Sprintf("bad%d.example.com", i))
			}
			n.served("good.example.com")
			pass(time.Hour)
		}
		for _, c := range n.Status().Certificates {
			if c.Names[0] == "good.example.com" && (c.State != tlsauto.Trusted || c.Obtained != 2) {
				t.Errorf("status %+v", c)
			}
		}
	})
}

// Restarts while nothing can be written, so that nothing is remembered, order only what is urgent.
func TestRestartsWithFullDisk(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 90*day), newFaultyStore()
		cfg := tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: plainStore{store}}
		restart := func() {
			for range 8 {
				n := start(t, cfg)
				pass(time.Minute)
				n.stop()
			}
		}
		restart()
		store.set(failing("Put"))
		time.Sleep(65 * day)
		restart()
		if got := len(ca.made()); got != 1 {
			t.Errorf("%d orders, want 1: it is not urgent", got)
		}
		n := start(t, cfg)
		if err := n.Renew("example.com"); err != nil {
			t.Fatal(err)
		}
		pass(time.Hour)
		if s := n.status(); len(ca.made()) != 1 || s.Failures != 0 {
			t.Errorf("%d orders, want 1; %+v", len(ca.made()), s)
		}
		store.set(nil)
		pass(time.Minute)
		if got := len(ca.made()); got != 2 {
			t.Errorf("%d orders when there is room again, want 2", got)
		}
		n.stop()

		store.set(failing("Put"))
		time.Sleep(76 * day)
		n = start(t, cfg)
		pass(time.Minute)
		if got := len(ca.made()); got != 3 || n.status().NotStored == "" {
			t.Errorf("%d orders, want 3: it is urgent", got)
		}
		n.stop()
	})
}

// A certificate that the clock has called expired, by mistake, is one to be ready with.
func TestWaitReadyAfterClock(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newMint(t, 6*day)
		ca.fail = func(_ context.Context, n int, _ *tlsauto.Order) error {
			if n > 1 {
				return &tlsauto.RetryAfterError{After: day, Err: errors.New("down")}
			}
			return nil
		}
		var ahead atomic.Int64
		n := start(t, tlsauto.Config{
			Issuers: []tlsauto.Issuer{ca},
			Now:     func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
		})
		pass(6*day - time.Minute)
		ahead.Store(int64(2 * time.Minute)) // less than what is taken for a clock that was set
		ready := make(chan error, 1)
		go func() { ready <- n.WaitReady(t.Context()) }()
		pass(time.Second)
		if len(ready) != 0 {
			t.Fatal("ready with a certificate that has expired")
		}
		ahead.Store(int64(-time.Hour))
		pass(time.Minute)
		if len(ready) != 1 {
			t.Error("not ready with a certificate that is good")
		}
	})
}

// A certificate of another issuer is not undone since that does not date back as the first one does.
func TestRenewFromAnotherIssuer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		public, private := newMint(t, 90*day), newMint(t, 90*day)
		public.id, private.id = "public", "private"
		public.skew = -time.Hour
		var down atomic.Bool
		down.Store(true)
		public.fail = func(context.Context, int, *tlsauto.Order) error {
			if down.Load() {
				return errors.New("down")
			}
			return nil
		}
		cfg := tlsauto.Config{Issuers: []tlsauto.Issuer{public, private}, Store: tlsauto.NewMemoryStore()}
		n := start(t, cfg)
		other := start(t, cfg)
		pass(20 * time.Minute)
		if s := n.status(); s.Issuer != "private" {
			t.Fatalf("status %+v", s)
		}
		down.Store(false)
		if err := n.Renew("example.com"); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Hour)
		n.stop()
		n = start(t, cfg)
		pass(time.Second)
		for _, n := range []*node{n, other} {
			if s := n.status(); s.Issuer != "public" {
				t.Errorf("status %+v", s)
			}
		}
		if got := len(public.made()) + len(private.made()); got != 3+1+1 {
			t.Errorf("%d attempts, want 5", got)
		}
	})
}

// Waiting for a store that began to fail in a time to come does not last until then.
func TestClockSetBackWhileStoreIsDown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 90*day), newFaultyStore()
		store.set(failing("Get"))
		var ahead atomic.Int64
		ahead.Store(int64(3650 * day))
		n := start(t, tlsauto.Config{
			Issuers: []tlsauto.Issuer{ca},
			Store:   store,
			Now:     func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
		})
		pass(5 * time.Second)
		ahead.Store(0)
		pass(5 * time.Minute)
		if n.served("example.com") == "" {
			t.Errorf("status %+v", n.status())
		}
	})
}

func TestRunAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newMint(t, 90*day)
		ca.fail = func(ctx context.Context, n int, _ *tlsauto.Order) error {
			if n == 1 {
				<-ctx.Done()
			}
			return ctx.Err()
		}
		n := start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{ca}})
		pass(time.Second)
		n.stop()
		for want := 2; want < 4; want++ {
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- n.Run(ctx) }()
			pass(time.Second)
			if got := len(ca.made()); got != want || n.served("example.com") == "" {
				t.Errorf("%d orders, want %d", got, want)
			}
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if err := n.Renew("example.com"); err != nil {
				t.Fatal(err)
			}
		}
	})
}
