package tlsauto_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

func keyPEM(t *testing.T, key crypto.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func TestAutocertIssue(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		keyType tlsauto.KeyType
		set     func(ca *fakeACME)
		given   []string
	}{
		"TLS":          {given: []string{"tls-alpn-01"}},
		"RSA":          {keyType: tlsauto.RSA2048, given: []string{"tls-alpn-01"}},
		"HTTP":         {set: func(ca *fakeACME) { ca.answers.lose["tls-alpn-01"] = true }, given: []string{"tls-alpn-01", "http-01"}},
		"stale nonces": {set: func(ca *fakeACME) { ca.badNonces = 3 }, given: []string{"tls-alpn-01"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := newFakeACME(t, test.set)
			issuer := &tlsauto.Autocert{Directory: directoryOf(ca)}
			order := orderFor(ca, "www.example.com")
			order.KeyType = test.keyType
			cert, err := issuer.Issue(t.Context(), order)
			if err != nil {
				t.Fatal(err)
			}
			ca.verify(t, cert, "www.example.com")
			if n := ca.answers.left(); n != 0 {
				t.Errorf("%d answers are left", n)
			}
			if !slices.Equal(ca.answers.given, test.given) {
				t.Errorf("answered %v, want %v", ca.answers.given, test.given)
			}
			if _, isRSA := cert.PrivateKey.(*rsa.PrivateKey); isRSA != (test.keyType == tlsauto.RSA2048) {
				t.Errorf("a key of type %T", cert.PrivateKey)
			}

			again, err := issuer.Issue(t.Context(), order)
			if err != nil {
				t.Fatal(err)
			}
			if again.PrivateKey.(interface{ Equal(crypto.PrivateKey) bool }).Equal(cert.PrivateKey) || again.Leaf.Equal(cert.Leaf) {
				t.Error("the second certificate is the first, or has its key")
			}
			if len(ca.accounts) != 1 {
				t.Errorf("%d accounts", len(ca.accounts))
			}
		})
	}
}

func TestAutocertFailures(t *testing.T) {
	t.Parallel()
	ecKey := newTestKey(t)
	for name, test := range map[string]struct {
		order func(o *tlsauto.Order)
		set   func(ca *fakeACME)
		says  string
		after time.Duration
		asks  bool // the authority
	}{
		"wildcard":   {order: func(o *tlsauto.Order) { o.Names = []string{"*.example.com"} }, says: "no wildcards"},
		"address":    {order: func(o *tlsauto.Order) { o.Names = []string{"192.0.2.7"} }, says: "no addresses"},
		"no dot":     {order: func(o *tlsauto.Order) { o.Names = []string{"localhost"} }, says: "without a dot"},
		"two names":  {order: func(o *tlsauto.Order) { o.Names = append(o.Names, "example.org") }, says: "one name"},
		"key":        {order: func(o *tlsauto.Order) { o.Key = ecKey }, says: "its own keys"},
		"P-384":      {order: func(o *tlsauto.Order) { o.KeyType = tlsauto.P384 }, says: "P-384"},
		"limit":      {set: limited("/order"), says: "429 rateLimited: wait", after: time.Hour, asks: true},
		"limit late": {set: limited("/challenge"), says: "obtain a certificate for example.com", after: time.Hour, asks: true},
		"invalid": {set: func(ca *fakeACME) { ca.answers.lose["tls-alpn-01"], ca.answers.lose["http-01"] = true, true },
			says: "validate example.com by tls-alpn-01: 403 unauthorized: connection refused by example.com; " +
				"validate example.com by http-01: 403 unauthorized: connection refused by example.com", asks: true},
		"no room": {set: func(ca *fakeACME) { ca.answers.fail["tls-alpn-01"], ca.answers.http = true, false },
			says: "answer the challenge: there is no room for it", asks: true},
		"nothing offered": {set: func(ca *fakeACME) { ca.offers = []string{"dns-01"} }, says: "no viable challenge", asks: true},
		"garbage":         {set: func(ca *fakeACME) { ca.chain = func([]byte) []byte { return certificatePEM([]byte("garbage")) } }, says: "no public key found", asks: true},
		"expired":         {set: func(ca *fakeACME) { ca.life = -time.Second }, says: "expired", asks: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := newFakeACME(t, test.set)
			order := orderFor(ca, "example.com")
			if test.order != nil {
				test.order(order)
			}
			_, err := (&tlsauto.Autocert{Directory: directoryOf(ca)}).Issue(t.Context(), order)
			if err == nil || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want %q", err, test.says)
			}
			var after *tlsauto.RetryAfterError
			if errors.As(err, &after); (after == nil) != (test.after == 0) || after != nil && after.After != test.after {
				t.Errorf("error %#v, want a RetryAfterError: %s", err, test.after)
			}
			if asked := ca.count("/") > 0; asked != test.asks {
				t.Errorf("the authority was asked: %t", asked)
			}
			if n := ca.answers.left(); n != 0 {
				t.Errorf("%d answers are left", n)
			}
			ca.mu.Lock()
			defer ca.mu.Unlock()
			for _, z := range ca.authzs {
				if z.state == "pending" && test.after == 0 {
					t.Errorf("the authorization of %s is still pending", z.name)
				}
			}
		})
	}
}

func limited(path string) func(ca *fakeACME) {
	return func(ca *fakeACME) {
		ca.intercept = func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasPrefix(r.URL.Path, path) {
				return false
			}
			w.Header().Set("Retry-After", "3600")
			problem(w, 429, "rateLimited", "wait")
			return true
		}
	}
}

// autocert renews what it has obtained, shortly before it expires. Here that must neither reach the
// authority nor go on.
func TestAutocertDoesNotRenew(t *testing.T) {
	t.Parallel()
	for life := 2 * time.Second; ; life *= 2 {
		ca := newFakeACME(t, func(ca *fakeACME) { ca.life = life })
		cert, err := (&tlsauto.Autocert{Directory: directoryOf(ca)}).Issue(t.Context(), orderFor(ca, "example.com"))
		if err != nil && strings.Contains(err.Error(), "expired") && life < patience {
			continue // on its way here
		}
		if err != nil {
			t.Fatal(err)
		}
		orders := ca.count("/order")
		waitUntil(t, func() bool { return time.Now().After(cert.Leaf.NotAfter) })
		if n := ca.count("/order"); n != orders {
			t.Errorf("%d requests for orders after the certificate had come", n-orders)
		}
		return
	}
}

func TestIssueAtTheSameTime(t *testing.T) {
	t.Parallel()
	for name, issuer := range map[string]func(d tlsauto.Directory) tlsauto.Issuer{
		"ACME":     func(d tlsauto.Directory) tlsauto.Issuer { return &tlsauto.ACME{Directory: d} },
		"Autocert": func(d tlsauto.Directory) tlsauto.Issuer { return &tlsauto.Autocert{Directory: d} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := newFakeACME(t, nil)
			i := issuer(directoryOf(ca))
			shared := orderFor(ca).Store
			var running sync.WaitGroup
			for _, host := range []string{"a", "b", "c", "d", "e"} {
				running.Go(func() {
					order := orderFor(ca, host+".example.com")
					order.Store = shared
					cert, err := i.Issue(t.Context(), order)
					if err != nil {
						t.Error(err)
						return
					}
					ca.verify(t, cert, host+".example.com")
				})
			}
			running.Wait()
			if len(ca.accounts) != 1 {
				t.Errorf("%d accounts were registered", len(ca.accounts))
			}
		})
	}
}
