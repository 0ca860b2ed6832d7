package tlsauto

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// brokenIssuer issues nothing.
type brokenIssuer struct{}

func (brokenIssuer) ID() string { return "broken" }

func (brokenIssuer) Issue(context.Context, *Order) (*tls.Certificate, error) {
	return nil, errors.New("broken")
}

// demandManager is one that runs until the test ends, without the certificates that it wants.
func demandManager(t *testing.T, cfg Config) *Manager {
	t.Helper()
	m := idleManager(t, cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
	return m
}

// idleManager is one that does not run.
func idleManager(t *testing.T, cfg Config) *Manager {
	t.Helper()
	def(&cfg.Store, NewMemoryStore())
	def(&cfg.Logger, slog.New(slog.DiscardHandler))
	if cfg.Issuers == nil {
		cfg.Issuers = []Issuer{brokenIssuer{}}
	}
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// served reports what a handshake gets.
func served(m *Manager, name string) string {
	c, err := m.GetCertificate(&tls.ClientHelloInfo{ServerName: name})
	switch {
	case err != nil:
		return err.Error()
	case c == nil:
		return "refused"
	}
	return c.Leaf.Subject.CommonName
}

func wantServed(t *testing.T, m *Manager, name, want string) {
	t.Helper()
	if got := served(m, name); !strings.Contains(got, want) {
		t.Errorf("%q gets %q, want %q", name, got, want)
	}
}

func handshakeErrorsOf(m *Manager, reason HandshakeError) uint64 {
	return m.counts.handshakeErrors.of(reason).Load()
}

func TestDemand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked []string
		var events []Event
		m := demandManager(t, Config{
			Names: []string{"example.com", "*.example.com"},
			OnDemand: func(_ context.Context, name string) error {
				asked = append(asked, name) // one call at a time here
				if strings.HasPrefix(name, "no") {
					return errors.New("not a customer")
				}
				return nil
			},
			Events: func(e Event) {
				if e.Kind == Refused {
					events = append(events, e)
				}
			},
		})
		for range 3 {
			wantServed(t, m, "a.example.org", "self-signed")
			wantServed(t, m, "A.example.org.", "self-signed")
			wantServed(t, m, "no.example.org", "refused")
			wantServed(t, m, "example.com", "self-signed")
			wantServed(t, m, "x.example.com", "self-signed") // by the wildcard
		}
		for _, name := range []string{"localhost", "1.2.3.4", "::1", "*.example.org", "a_b.example.org", "a..b", "../../key", "bücher.example.org", strings.Repeat("a.", 130)} {
			wantServed(t, m, name, "refused")
		}
		synctest.Wait()
		if want := []string{"a.example.org", "no.example.org"}; !slices.Equal(asked, want) {
			t.Errorf("asked for %q, want %q", asked, want)
		}
		if len(events) != 1 || events[0].Names[0] != "no.example.org" || events[0].Err == nil || events[0].Err.Error() != "not a customer" {
			t.Errorf("events %v", events)
		}

		time.Sleep(decisionMemory)
		wantServed(t, m, "no.example.org", "refused")
		wantServed(t, m, "a.example.org", "self-signed")
		synctest.Wait()
		if len(asked) != 3 || len(events) != 2 {
			t.Errorf("after a minute: asked for %q, events %v", asked, events)
		}
	})
}

func TestDemandNeedsRun(t *testing.T) {
	t.Parallel()
	m := idleManager(t, Config{OnDemand: func(context.Context, string) error {
		t.Error("it was asked")
		return nil
	}})
	wantServed(t, m, "a.example.org", "refused")
	if n := len(m.demanded.deciding) + len(m.demanded.decided); n != 0 {
		t.Errorf("%d decisions are remembered", n)
	}
}

// A handshake waits for a decision no longer than WaitFirst, but it is made, and the certificate is
// obtained, without it.
func TestDemandSlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		m := demandManager(t, Config{OnDemand: func(ctx context.Context, name string) error {
			calls++
			if strings.HasPrefix(name, "hang") {
				<-ctx.Done()
				return nil // as if it had been decided
			}
			time.Sleep(2 * time.Second)
			return nil
		}})
		start := time.Now()
		wantServed(t, m, "a.example.org", "refused")
		if d := time.Since(start); d != 500*time.Millisecond {
			t.Errorf("the handshake took %v", d)
		}
		time.Sleep(2 * time.Second)
		if m.slotOnDemand("a.example.org") == nil {
			t.Error("the name was not accepted after the client had left")
		}
		wantServed(t, m, "a.example.org", "self-signed")

		wantServed(t, m, "hang.example.org", "refused")
		time.Sleep(decisionTime)
		wantServed(t, m, "hang.example.org", "refused")
		if calls != 2 {
			t.Errorf("%d calls", calls)
		}
	})
}

// A hundred clients of a name are one question, and of many names at most 16 at the same time.
func TestDemandIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		release := make(chan struct{})
		m := demandManager(t, Config{WaitFirst: time.Hour, OnDemand: func(context.Context, string) error {
			calls.Add(1)
			<-release
			return nil
		}})
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() { wantServed(t, m, "a.example.org", "self-signed") })
		}
		synctest.Wait()
		if n := calls.Load(); n != 1 {
			t.Errorf("%d calls for a name", n)
		}
		for i := range maxDecisions - 1 {
			all.Go(func() { wantServed(t, m, fmt.Sprintf("b%d.example.org", i), "self-signed") })
		}
		synctest.Wait()
		for i := range 100 {
			wantServed(t, m, fmt.Sprintf("c%d.example.org", i), "refused")
		}
		if n := calls.Load(); n != maxDecisions {
			t.Errorf("%d calls at the same time", n)
		}
		if n := handshakeErrorsOf(m, TooMany); n != 100 {
			t.Errorf("%d handshakes were too many, want 100", n)
		}
		close(release)
		all.Wait()
	})
}

func TestDemandMax(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var events []Event
		m := demandManager(t, Config{
			MaxOnDemand: 2,
			OnDemand:    func(context.Context, string) error { return nil },
			Events: func(e Event) {
				if e.Kind == Refused {
					events = append(events, e)
				}
			},
		})
		for range 3 {
			wantServed(t, m, "a.example.org", "self-signed")
			wantServed(t, m, "b.example.org", "self-signed")
			wantServed(t, m, "c.example.org", "refused")
		}
		synctest.Wait()
		if n := handshakeErrorsOf(m, TooMany); n != 3 || len(events) != 1 || !errors.Is(events[0].Err, errTooMany) {
			t.Errorf("%d handshakes were too many, events %v", n, events)
		}
		// When one is dropped there is room for another.
		m.mu.Lock()
		m.managed = slices.DeleteFunc(m.managed, func(mc *managed) bool { return mc.names[0] == "a.example.org" })
		m.installLocked()
		m.mu.Unlock()
		if m.slotOnDemand("a.example.org") != nil || m.slotOnDemand("b.example.org") == nil {
			t.Error("the wrong certificate was dropped")
		}
		time.Sleep(decisionMemory)
		wantServed(t, m, "c.example.org", "self-signed")
		wantServed(t, m, "a.example.org", "refused")
	})
}

func TestDemandPanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var refused error
		m := demandManager(t, Config{
			OnDemand: func(context.Context, string) error { panic("oops") },
			Events:   func(e Event) { refused = e.Err },
		})
		wantServed(t, m, "a.example.org", "refused")
		synctest.Wait()
		if refused == nil || !strings.Contains(refused.Error(), "oops") {
			t.Errorf("event with error %v", refused)
		}
	})
}

// However many names are made up, what is remembered and told of them is bounded.
func TestDemandMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		told := 0
		m := demandManager(t, Config{
			OnDemand: func(context.Context, string) error { return errors.New("no") },
			Events:   func(Event) { told++ },
		})
		for i := range 3 * maxDecided {
			wantServed(t, m, fmt.Sprintf("n%d.example.org", i), "refused")
		}
		synctest.Wait()
		if n := len(m.demanded.decided) + len(m.demanded.before); n > 2*maxDecided || n < maxDecided {
			t.Errorf("%d decisions are remembered", n)
		}
		if told != refusalsTold {
			t.Errorf("%d events, want %d", told, refusalsTold)
		}
		if len(m.onDemandLocked()) != 0 {
			t.Errorf("%d certificates", len(m.onDemandLocked()))
		}
	})
}

// The challenge for an order of another process is answered for names that OnDemand accepts, without
// ordering anything.
func TestDemandChallenge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := NewMemoryStore()
		other := testBoard(store, nil)
		m := demandManager(t, Config{Store: store, OnDemand: func(_ context.Context, name string) error {
			if name != "a.example.org" {
				return errors.New("no")
			}
			return nil
		}})
		for _, name := range []string{"a.example.org", "b.example.org"} {
			if _, err := other.TLSALPN01(t.Context(), name, challengeCert(t, name, testToken)); err != nil {
				t.Fatal(err)
			}
		}
		validate := func(name string) *tls.Certificate {
			c, err := m.GetCertificate(&tls.ClientHelloInfo{ServerName: name, SupportedProtos: []string{"acme-tls/1"}})
			if err != nil {
				t.Error(err)
			}
			return c
		}
		if validate("a.example.org") == nil || validate("b.example.org") != nil {
			t.Error("not what OnDemand says")
		}
		if m.slotOnDemand("a.example.org") != nil {
			t.Error("a challenge has made it order")
		}
		wantServed(t, m, "a.example.org", "self-signed")
		if n := handshakeErrorsOf(m, UnknownChallenge); n != 1 {
			t.Errorf("%d unknown challenges", n)
		}
	})
}

func TestChallenged(t *testing.T) {
	t.Parallel()
	m := idleManager(t, Config{Names: []string{"example.com", "192.0.2.1", "2001:db8::ff", "*.wild.example"}})
	for name, want := range map[string]HandshakeError{
		"example.com":            "",
		"192.0.2.1":              "",
		"1.2.0.192.in-addr.arpa": "",
		"f.f.0.0." + strings.Repeat("0.", 20) + "8.b.d.0.1.0.0.2.ip6.arpa": "",
		"a.wild.example":           UnknownChallenge, // which nobody validates in this way
		"example.org":              UnknownChallenge,
		"2.2.0.192.in-addr.arpa":   UnknownChallenge,
		"1.2.0.192.x.in-addr.arpa": UnknownChallenge,
		"in-addr.arpa":             UnknownChallenge,
		"":                         UnknownChallenge,
	} {
		if got := m.challenged(t.Context(), name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestDemandTake(t *testing.T) {
	t.Parallel()
	d := demanded{perMinute: 3}
	start := time.Unix(1_800_000_000, 0)
	for i, step := range []struct{ after, wait time.Duration }{
		{0, 0},
		{10 * time.Second, 0},
		{20 * time.Second, 0},
		{20 * time.Second, 40 * time.Second},
		{59 * time.Second, time.Second},
		{60 * time.Second, 0},
		{60 * time.Second, 10 * time.Second},
		{time.Hour, 0},
		{time.Hour, 0},
		{time.Hour, 0},
		{time.Hour, time.Minute},
		{0, 0}, // the clock was set back
	} {
		if got := d.take(start.Add(step.after)); got != step.wait {
			t.Errorf("step %d: wait %v, want %v", i, got, step.wait)
		}
	}
}

// Handshakes go on while certificates on demand come, change and go.
func TestDemandConcurrently(t *testing.T) {
	t.Parallel()
	m := idleManager(t, Config{Names: []string{"example.com"}, WaitFirst: -1, OnDemand: func(context.Context, string) error { return nil }})
	cert := &certificate{tls: tableCert(t, "issued", nil, "n0.example.org")}
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			for i := range 300 {
				if err := m.admit(fmt.Sprintf("n%d.example.org", i)); err != nil {
					t.Error(err)
				}
			}
		})
		all.Go(func() {
			for i := range 1000 {
				served(m, fmt.Sprintf("n%d.example.org", i%300))
			}
		})
	}
	all.Wait()
	if n := len(m.onDemandLocked()); n != 300 {
		t.Errorf("%d certificates, want 300", n)
	}
	all.Go(func() {
		for i := range 1000 {
			served(m, fmt.Sprintf("n%d.example.org", i%300))
		}
	})
	m.mu.Lock()
	m.onDemandLocked()[0].cert = cert
	m.managed = m.managed[:len(m.managed)-100]
	m.installLocked()
	m.mu.Unlock()
	all.Wait()
	n := 0
	m.demanded.slots.Range(func(any, any) bool { n++; return true })
	if name := m.onDemandLocked()[0].names[0]; n != 200 || served(m, name) != "issued" {
		t.Errorf("%d certificates, want 200; %s gets %q", n, name, served(m, name))
	}
}

// What adding names to thousands of others costs.
func BenchmarkAdmit(b *testing.B) {
	m, err := New(Config{
		OnDemand: func(context.Context, string) error { return nil }, Store: NewMemoryStore(), Issuers: []Issuer{brokenIssuer{}},
	})
	if err != nil {
		b.Fatal(err)
	}
	i := 0
	for ; i < 5000; i++ {
		if err := m.admit(fmt.Sprintf("n%d.example.org", i)); err != nil {
			b.Fatal(err)
		}
	}
	m.cfg.MaxOnDemand = 1 << 30
	for b.Loop() {
		if err := m.admit(fmt.Sprintf("n%d.example.org", i)); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
