package tlsauto_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/tlsauto"
)

const accountKey = "acme_account"

func TestAccountIsKept(t *testing.T) {
	t.Parallel()
	for name, issuer := range map[string]func(d tlsauto.Directory) tlsauto.Issuer{
		"ACME":     func(d tlsauto.Directory) tlsauto.Issuer { return &tlsauto.ACME{Directory: d} },
		"Autocert": func(d tlsauto.Directory) tlsauto.Issuer { return &tlsauto.Autocert{Directory: d} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := newFakeACME(t, func(ca *fakeACME) { ca.eab = "kid-1" })
			d := directoryOf(ca)
			d.EABKeyID, d.EABKey = "kid-1", []byte("a key of the authority's")
			order := orderFor(ca, "www.example.com")
			var log bytes.Buffer
			order.Logger = slog.New(slog.NewTextHandler(&log, nil))
			contact := func(want ...string) {
				t.Helper()
				if _, err := issuer(d).Issue(t.Context(), order); err != nil {
					t.Fatal(err)
				}
				if len(ca.accounts) != 1 || ca.accounts[0].bound != "kid-1" {
					t.Fatalf("accounts %v", ca.accounts)
				}
				if got := ca.accounts[0].contact; !slices.Equal(got, want) {
					t.Errorf("contact %v, want %v", got, want)
				}
			}
			contact("mailto:admin@example.com")
			d.Email = "other@example.com"
			contact("mailto:other@example.com")
			d.Email = ""
			contact("mailto:other@example.com")

			var record struct{ Key, URL, Email string }
			value, err := order.Store.Get(t.Context(), accountKey)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(value, &record); err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(record.Key, "-----BEGIN PRIVATE KEY-----") || record.URL != ca.server.URL+"/account/0" || record.Email != "other@example.com" {
				t.Errorf("record %s", value)
			}
			if log.Len() > 0 {
				t.Error(log.String())
			}
		})
	}
}

// A stored account costs no request: new ones are few, and so are requests.
func TestAccountIsNotAskedFor(t *testing.T) {
	t.Parallel()
	ca := newFakeACME(t, nil)
	issuer := &tlsauto.ACME{Directory: directoryOf(ca)}
	order := orderFor(ca, "example.com")
	for range 3 {
		if _, err := issuer.Issue(t.Context(), order); err != nil {
			t.Fatal(err)
		}
	}
	if n := ca.count("/account"); n != 1 {
		t.Errorf("%d requests for the account", n)
	}
}

func TestAccountForgottenByAuthority(t *testing.T) {
	t.Parallel()
	ca := newFakeACME(t, nil)
	issuer := &tlsauto.ACME{Directory: directoryOf(ca)}
	order := orderFor(ca, "example.com")
	if _, err := issuer.Issue(t.Context(), order); err != nil {
		t.Fatal(err)
	}
	key := ca.accounts[0].thumbprint
	ca.mu.Lock()
	ca.accounts = nil
	ca.mu.Unlock()
	if _, err := issuer.Issue(t.Context(), order); err == nil || !strings.Contains(err.Error(), "accountDoesNotExist") {
		t.Errorf("error %v", err)
	}
	if _, err := issuer.Issue(t.Context(), order); err != nil {
		t.Errorf("error %v", err)
	}
	if len(ca.accounts) != 1 || ca.accounts[0].thumbprint != key {
		t.Error("no account, or one with another key")
	}
}

func TestAccountStore(t *testing.T) {
	t.Parallel()
	ecKey := string(keyPEM(t, newTestKey(t)))
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(key string) []byte {
		value, err := json.Marshal(map[string]string{"key": key})
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	full := errors.New("the disk is full")
	for name, test := range map[string]struct {
		store tlsauto.Store
		says  string // "": it works
		asks  bool   // the authority is asked
	}{
		"damaged":          {store: holding(t, []byte(`{"key":"-----BEGIN`)), says: "damaged"},
		"empty":            {store: holding(t, nil), says: "damaged"},
		"no key":           {store: holding(t, encode("")), says: "damaged"},
		"garbage in PEM":   {store: holding(t, encode("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")), says: "damaged"},
		"other kind":       {store: holding(t, encode(string(keyPEM(t, rsaKey)))), says: "damaged"},
		"not registered":   {store: holding(t, encode(ecKey)), asks: true},
		"unreadable":       {store: &brokenStore{Store: tlsauto.NewMemoryStore(), get: full}, says: "read the account: the disk is full"},
		"unwritable":       {store: &brokenStore{Store: tlsauto.NewMemoryStore(), put: full}, says: "store the account: the disk is full"},
		"unwritable later": {store: &brokenStore{Store: holding(t, encode(ecKey)), put: full}, asks: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := newFakeACME(t, nil)
			order := orderFor(ca, "example.com")
			order.Store = test.store
			before, _ := test.store.Get(t.Context(), accountKey)
			_, err := (&tlsauto.ACME{Directory: directoryOf(ca)}).Issue(t.Context(), order)
			if test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("error %v, want %q", err, test.says)
			}
			if err != nil && strings.Contains(err.Error(), "BEGIN") {
				t.Errorf("the error has a key: %v", err)
			}
			after, _ := test.store.Get(t.Context(), accountKey)
			if test.says != "" && !bytes.Equal(before, after) {
				t.Errorf("the record was changed: %s", after)
			}
			if asked := ca.count("/account") > 0; asked != test.asks {
				t.Errorf("the authority was asked: %t", asked)
			}
		})
	}
}

// An account that is known does not need the store, which may fail for longer than a certificate lasts.
func TestAccountIsRemembered(t *testing.T) {
	t.Parallel()
	for name, issuer := range map[string]func(d tlsauto.Directory) tlsauto.Issuer{
		"ACME":     func(d tlsauto.Directory) tlsauto.Issuer { return &tlsauto.ACME{Directory: d} },
		"Autocert": func(d tlsauto.Directory) tlsauto.Issuer { return &tlsauto.Autocert{Directory: d} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := newFakeACME(t, nil)
			i := issuer(directoryOf(ca))
			store := &brokenStore{Store: tlsauto.NewMemoryStore()}
			order := orderFor(ca, "www.example.com")
			order.Store = store
			var log bytes.Buffer
			order.Logger = slog.New(slog.NewTextHandler(&log, nil))
			issue := func(accounts int) {
				t.Helper()
				if _, err := i.Issue(t.Context(), order); err != nil {
					t.Fatal(err)
				}
				if len(ca.accounts) != accounts {
					t.Errorf("%d accounts, want %d", len(ca.accounts), accounts)
				}
			}
			issue(1)
			store.get = errors.New("the disk is gone")
			issue(1)
			if !strings.Contains(log.String(), "the disk is gone") {
				t.Errorf("the log has %q", log.String())
			}
			store.get = nil
			damaged := []byte("{")
			if err := store.Put(t.Context(), accountKey, damaged); err != nil {
				t.Fatal(err)
			}
			issue(1)
			if value, _ := store.Get(t.Context(), accountKey); !bytes.Equal(value, damaged) {
				t.Errorf("the store has %s", value)
			}
			if err := store.Delete(t.Context(), accountKey); err != nil {
				t.Fatal(err)
			}
			store.put = errors.New("the disk is full")
			issue(1) // as with a disk that is not mounted
			store.put = nil
			issue(2) // who deletes an account wants another
			if strings.Contains(log.String(), "BEGIN") {
				t.Errorf("the log has a key: %s", log.String())
			}
		})
	}
}

func TestAccountForgottenWhileTheStoreFails(t *testing.T) {
	t.Parallel()
	ca := newFakeACME(t, nil)
	issuer := &tlsauto.ACME{Directory: directoryOf(ca)}
	store := &brokenStore{Store: tlsauto.NewMemoryStore()}
	order := orderFor(ca, "example.com")
	order.Store = store
	if _, err := issuer.Issue(t.Context(), order); err != nil {
		t.Fatal(err)
	}
	key := ca.accounts[0].thumbprint
	ca.accounts = nil
	store.get = errors.New("the disk is gone")
	store.put = store.get
	if _, err := issuer.Issue(t.Context(), order); err == nil {
		t.Error("the authority knows the account")
	}
	if _, err := issuer.Issue(t.Context(), order); err != nil {
		t.Error(err)
	}
	if len(ca.accounts) != 1 || ca.accounts[0].thumbprint != key {
		t.Error("no account, or one with another key")
	}
}

// A registration that hangs holds other orders up, but no longer than they may take.
func TestAccountGate(t *testing.T) {
	t.Parallel()
	var arrived chan struct{}
	ca := newFakeACME(t, func(ca *fakeACME) { arrived, _ = hangAt(ca, "/account") })
	issuer := &tlsauto.ACME{Directory: directoryOf(ca)}
	issue := func(ctx context.Context) chan error {
		done := make(chan error, 1)
		go func() {
			_, err := issuer.Issue(ctx, orderFor(ca, "example.com"))
			done <- err
		}()
		return done
	}
	ctx, cancel := context.WithCancel(t.Context())
	first := issue(ctx)
	<-arrived
	ended, end := context.WithCancel(t.Context())
	second := issue(ended)
	end()
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func holding(t *testing.T, value []byte) tlsauto.Store {
	t.Helper()
	s := tlsauto.NewMemoryStore()
	if err := s.Put(t.Context(), accountKey, value); err != nil {
		t.Fatal(err)
	}
	return s
}

type brokenStore struct {
	tlsauto.Store
	get, put error
}

func (s *brokenStore) Get(ctx context.Context, key string) ([]byte, error) {
	if s.get != nil {
		return nil, s.get
	}
	return s.Store.Get(ctx, key)
}

func (s *brokenStore) Put(ctx context.Context, key string, value []byte) error {
	if s.put != nil {
		return s.put
	}
	return s.Store.Put(ctx, key, value)
}
