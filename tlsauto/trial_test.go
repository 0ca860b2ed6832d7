package tlsauto_test

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

const (
	trialToken  = "a_token_of_a_trial_that_is_long_enough"
	trialAnswer = trialToken + ".thumbprint"
)

// watchedKeys notes which keys a store has.
func watchedKeys(store *faultyStore) (keys func() string) {
	var mu sync.Mutex
	has := map[string]bool{}
	store.set(func(ctx context.Context, op, key string) error {
		mu.Lock()
		defer mu.Unlock()
		switch op {
		case "Put", "Acquire":
			has[key] = true
		case "Delete", "Release":
			delete(has, key)
		}
		return ctx.Err()
	})
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		var all []string
		for key := range has {
			all = append(all, key)
		}
		slices.Sort(all)
		return strings.Join(all, " ")
	}
}

// notRunning is a Manager that only tries.
func notRunning(t *testing.T, cfg tlsauto.Config) *tlsauto.Manager {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	m, err := tlsauto.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// answered asks a Manager for the answer to a challenge; "": there is none.
func answered(m *tlsauto.Manager, token string) string {
	w := httptest.NewRecorder()
	request := httptest.NewRequest(http.MethodGet, "http://example.com/.well-known/acme-challenge/"+token, nil)
	m.HTTPHandler(nil).ServeHTTP(w, request)
	if w.Code != http.StatusOK {
		return ""
	}
	return w.Body.String()
}

// What is tried is answered by a server that runs on the same store, and nothing of it is left there.
func TestTry(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := newFaultyStore()
		keys := watchedKeys(store)
		production := newMint(t, 90*day)
		server := start(t, tlsauto.Config{Issuers: []tlsauto.Issuer{production}, Store: store})
		pass(time.Minute)
		serial, before := server.served("example.com"), keys()
		if serial == "" {
			t.Fatal("nothing is served")
		}

		staging := newMint(t, 90*day)
		staging.id = "staging"
		account := tlsauto.NewMemoryStore()
		staging.fail = func(ctx context.Context, _ int, o *tlsauto.Order) error {
			if o.Store != account || o.Key != nil {
				t.Error("the order has another store for the account, or a key")
			}
			if _, err := o.Challenges.HTTP01(ctx, trialToken, []byte(trialAnswer)); err != nil { // and it is not removed
				return err
			}
			pass(time.Second) // the server may have been asked just before
			if got := answered(server.Manager, trialToken); got != trialAnswer {
				t.Errorf("the server answers %q", got)
			}
			return nil
		}
		m := notRunning(t, tlsauto.Config{Names: []string{"example.com"}, Issuers: []tlsauto.Issuer{production}, Store: store})
		trial, err := m.Try(t.Context(), staging, account, "Example.com.")
		if err != nil {
			t.Fatal(err)
		}
		if got := trial.Certificate.Leaf.SerialNumber.Text(16); got != staging.made()[0].serial {
			t.Errorf("the certificate is %s", got)
		}
		if !slices.Equal(trial.Challenges, []string{"http-01"}) {
			t.Errorf("challenges %q", trial.Challenges)
		}
		pass(time.Second)
		if got := answered(server.Manager, trialToken); got != "" {
			t.Errorf("it is still answered: %q", got)
		}
		if after := keys(); after != before {
			t.Errorf("the store has\n%s\nand had\n%s", after, before)
		}
		if server.served("example.com") != serial || len(production.made()) != 1 || m.Status().Certificates[0].State == tlsauto.Trusted {
			t.Error("something else is served, or was ordered")
		}
	})
}

// An attempt that is cut short leaves no answer, whatever its issuer still does.
func TestTryCutShort(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const lateToken = "b" + trialToken
		ca, store := newMint(t, 90*day), newFaultyStore()
		cfg := tlsauto.Config{Names: []string{"example.com"}, Issuers: []tlsauto.Issuer{ca}, Store: store}
		m, other := notRunning(t, cfg), notRunning(t, cfg)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var challenges tlsauto.Challenges
		putting, late := make(chan struct{}), make(chan struct{})
		ca.fail = func(ctx context.Context, _ int, o *tlsauto.Order) error {
			challenges = o.Challenges
			if _, err := challenges.HTTP01(ctx, trialToken, []byte(trialAnswer)); err != nil {
				return err
			}
			if got := answered(other, trialToken); got != trialAnswer {
				t.Errorf("another process answers %q", got)
			}
			// The store takes a second answer, and has not said so yet when the attempt ends.
			store.set(func(_ context.Context, op, _ string) error {
				if op == "Put" {
					close(putting)
					<-late
				}
				return nil
			})
			go func() { _, _ = challenges.HTTP01(ctx, lateToken, []byte(lateToken+".thumbprint")) }()
			<-putting
			cancel()
			return ctx.Err()
		}
		done := make(chan error, 1)
		go func() {
			trial, err := m.Try(ctx, ca, tlsauto.NewMemoryStore(), "example.com")
			if !slices.Equal(trial.Challenges, []string{"http-01"}) || trial.Certificate != nil {
				t.Errorf("trial %+v", trial)
			}
			done <- err
		}()
		synctest.Wait()
		select {
		case err := <-done:
			t.Errorf("it does not wait for the answer that is being given: %v", err)
		default:
		}
		close(late)
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		if _, err := challenges.HTTP01(t.Context(), trialToken, []byte(trialAnswer)); err == nil {
			t.Error("an answer is taken after the end")
		}
		pass(time.Second) // the other one has been asked a moment ago
		for _, token := range []string{trialToken, lateToken} {
			for _, one := range []*tlsauto.Manager{m, other} {
				if got := answered(one, token); got != "" {
					t.Errorf("it is still answered: %q", got)
				}
			}
		}
	})
}

// Those who order the same certificate wait for each other.
func TestTryTakesTurns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 90*day), tlsauto.NewMemoryStore()
		leaser := store.(tlsauto.Leaser)
		acquire := func(owner string) bool {
			got, err := leaser.Acquire(t.Context(), "order+example.com", owner, time.Now(), time.Minute)
			if err != nil {
				t.Error(err)
			}
			return got
		}
		m := notRunning(t, tlsauto.Config{Names: []string{"example.com"}, Issuers: []tlsauto.Issuer{ca}, Store: store})
		ca.fail = func(context.Context, int, *tlsauto.Order) error {
			if acquire("another") {
				t.Error("another process orders meanwhile")
			}
			return nil
		}
		if !acquire("another") {
			t.Fatal("no lease")
		}
		short, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if _, err := m.Try(short, ca, tlsauto.NewMemoryStore(), "example.com"); !errors.Is(err, context.DeadlineExceeded) || len(ca.made()) > 0 {
			t.Errorf("while another orders: %v, %d orders", err, len(ca.made()))
		}
		done := make(chan error, 1)
		go func() {
			_, err := m.Try(t.Context(), ca, tlsauto.NewMemoryStore(), "example.com")
			done <- err
		}()
		pass(10 * time.Second)
		if err := leaser.Release(t.Context(), "order+example.com", "another"); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if !acquire("a third") {
			t.Error("the lease is not given up")
		}
	})
}

func TestTryRefuses(t *testing.T) {
	t.Parallel()
	ca := newMint(t, 90*day)
	wrong := newMint(t, 90*day)
	wrong.change = func(c *tls.Certificate) { c.PrivateKey = newTestKey(t) }
	down := newFaultyStore()
	down.set(failing("Acquire"))
	patient := &tlsauto.RetryAfterError{After: time.Hour, Err: errors.New("too many")}
	busy := newMint(t, 90*day)
	busy.fail = func(context.Context, int, *tlsauto.Order) error { return patient }
	account := tlsauto.NewMemoryStore()
	for name, tt := range map[string]struct {
		issuer  tlsauto.Issuer
		account tlsauto.Store
		store   tlsauto.Store
		names   []string
		want    string
	}{
		"no issuer":      {nil, account, account, []string{"example.com"}, "an issuer"},
		"no account":     {ca, nil, account, []string{"example.com"}, "a store for its account"},
		"no names":       {ca, account, account, nil, "names are needed"},
		"another name":   {ca, account, account, []string{"other.example"}, "no certificate in the configuration"},
		"half of them":   {ca, account, account, []string{"a.example"}, "no certificate in the configuration"},
		"no name at all": {ca, account, account, []string{"a b"}, `"a b"`},
		"terms":          {&tlsauto.ACME{}, account, account, []string{"example.com"}, "AgreeTOS"},
		"two names":      {&tlsauto.Autocert{Directory: tlsauto.Directory{AgreeTOS: true}}, account, account, []string{"b.example", "a.example"}, "one name"},
		"a wrong key":    {wrong, account, account, []string{"example.com"}, "does not belong"},
		"no lease":       {ca, account, down, []string{"example.com"}, "disk full"},
		"a pause":        {busy, account, account, []string{"example.com"}, "too many"},
	} {
		m := notRunning(t, tlsauto.Config{
			Names: []string{"example.com"}, Groups: [][]string{{"a.example", "b.example"}}, Issuers: []tlsauto.Issuer{ca}, Store: tt.store,
		})
		_, err := m.Try(t.Context(), tt.issuer, tt.account, tt.names...)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "tlsauto: try: ") {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if _, ok := errors.AsType[*tlsauto.RetryAfterError](err); ok != (name == "a pause") {
			t.Errorf("%s: %v wraps a RetryAfterError: %t", name, err, ok)
		}
	}
	if n := len(ca.made()); n > 0 {
		t.Errorf("%d orders", n)
	}
	m := notRunning(t, tlsauto.Config{Groups: [][]string{{"a.example", "b.example"}}, Issuers: []tlsauto.Issuer{ca}, Store: account})
	if _, err := m.Try(t.Context(), ca, account, "b.example", "a.example"); err != nil {
		t.Errorf("in another order: %v", err)
	}
}
