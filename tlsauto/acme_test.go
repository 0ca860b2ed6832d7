package tlsauto_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

// directoryOf is that of a fake authority.
func directoryOf(ca *fakeACME) tlsauto.Directory {
	return tlsauto.Directory{URL: ca.url, Roots: ca.roots, AgreeTOS: true, Email: "admin@example.com"}
}

func orderFor(ca *fakeACME, names ...string) *tlsauto.Order {
	return &tlsauto.Order{
		Names: names, Store: tlsauto.NewMemoryStore(), Challenges: ca.answers,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: time.Now,
	}
}

// verify fails the test unless a certificate is complete, for the names, and of the authority.
func (ca *fakeACME) verify(t *testing.T, cert *tls.Certificate, names ...string) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(ca.root)
	if cert.Leaf == nil || len(cert.Certificate) != 2 {
		t.Fatalf("%d certificates, leaf %v", len(cert.Certificate), cert.Leaf)
	}
	for _, name := range names {
		if strings.HasPrefix(name, "*.") {
			name = "any" + name[1:]
		}
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Error(err)
		}
	}
	if _, err := tls.X509KeyPair(certificatePEM(cert.Certificate[0]), keyPEM(t, cert.PrivateKey)); err != nil {
		t.Error(err)
	}
}

func TestACMEIssue(t *testing.T) {
	t.Parallel()
	many := make([]string, 30)
	for i := range many {
		many[i] = strings.Repeat("a", i+1) + ".example.com"
	}
	for name, test := range map[string]struct {
		names  []string
		issuer *tlsauto.ACME
		set    func(ca *fakeACME)
		dns    bool
		given  []string // challenges that are answered
	}{
		"one name":                {names: []string{"example.com"}, given: []string{"tls-alpn-01"}},
		"long name":               {names: []string{strings.Repeat("long.", 20) + "example.com"}, given: []string{"tls-alpn-01"}},
		"many names":              {names: many, given: slices.Repeat([]string{"tls-alpn-01"}, 30)},
		"addresses":               {names: []string{"192.0.2.7", "2001:db8::1"}, given: []string{"tls-alpn-01", "tls-alpn-01"}},
		"address by HTTP":         {names: []string{"192.0.2.7"}, issuer: &tlsauto.ACME{Challenges: []string{"http-01"}}, given: []string{"http-01"}},
		"address with DNS":        {names: []string{"192.0.2.7"}, dns: true, issuer: &tlsauto.ACME{Challenges: []string{"dns-01", "http-01"}}, given: []string{"http-01"}},
		"HTTP first":              {names: []string{"example.com"}, issuer: &tlsauto.ACME{Challenges: []string{"http-01", "tls-alpn-01"}}, given: []string{"http-01"}},
		"first that is offered":   {names: []string{"example.com"}, set: func(ca *fakeACME) { ca.offers = []string{"dns-01", "http-01"} }, given: []string{"http-01"}},
		"wildcard and its domain": {names: []string{"*.example.com", "example.com"}, dns: true, issuer: &tlsauto.ACME{Challenges: []string{"dns-01"}}, given: []string{"dns-01", "dns-01"}},
		"wildcard and other":      {names: []string{"*.example.com", "example.org"}, dns: true, given: []string{"dns-01", "tls-alpn-01"}},
		"profile":                 {names: []string{"example.com"}, issuer: &tlsauto.ACME{Profile: "shortlived"}, set: func(ca *fakeACME) { ca.profiles = []string{"classic", "shortlived"} }, given: []string{"tls-alpn-01"}},
		"stale nonces":            {names: []string{"example.com"}, set: func(ca *fakeACME) { ca.badNonces = 3 }, given: []string{"tls-alpn-01"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := newFakeACME(t, test.set)
			issuer := test.issuer
			if issuer == nil {
				issuer = &tlsauto.ACME{}
			}
			issuer.Directory = directoryOf(ca)
			if test.dns {
				issuer.DNS = ca.answers
			}
			cert, err := issuer.Issue(t.Context(), orderFor(ca, test.names...))
			if err != nil {
				t.Fatal(err)
			}
			ca.verify(t, cert, test.names...)
			if n := ca.answers.left(); n != 0 {
				t.Errorf("%d answers are left", n)
			}
			given := slices.Sorted(slices.Values(ca.answers.given))
			if want := slices.Sorted(slices.Values(test.given)); !slices.Equal(given, want) {
				t.Errorf("answered %v, want %v", given, want)
			}
			last := ca.orders[len(ca.orders)-1]
			if last.csr.Subject.CommonName != "" || last.profile != issuer.Profile {
				t.Errorf("common name %q, profile %q", last.csr.Subject.CommonName, last.profile)
			}
			for agent := range maps.Keys(ca.agents) {
				if !strings.HasPrefix(agent, "bedplate-tlsauto (") {
					t.Errorf("user agent %q", agent)
				}
			}
		})
	}
}

func TestACMEKeys(t *testing.T) {
	t.Parallel()
	ca := newFakeACME(t, nil)
	issuer := &tlsauto.ACME{Directory: directoryOf(ca)}
	order := orderFor(ca, "example.com")
	issue := func(typ tlsauto.KeyType) *tls.Certificate {
		t.Helper()
		order.KeyType = typ
		cert, err := issuer.Issue(t.Context(), order)
		if err != nil {
			t.Fatal(err)
		}
		ca.verify(t, cert, "example.com")
		return cert
	}
	p256 := issue(tlsauto.P256).PrivateKey.(*ecdsa.PrivateKey)
	p384 := issue(tlsauto.P384).PrivateKey.(*ecdsa.PrivateKey)
	rsa := issue(tlsauto.RSA2048).PrivateKey.(*rsa.PrivateKey)
	if p256.Curve.Params().Name != "P-256" || p384.Curve.Params().Name != "P-384" || rsa.N.BitLen() != 2048 {
		t.Error(p256.Curve, p384.Curve, rsa.N.BitLen())
	}
	if issue(tlsauto.P256).PrivateKey.(*ecdsa.PrivateKey).Equal(p256) {
		t.Error("a key was used twice")
	}
	order.Key = p384
	if !issue(tlsauto.P256).PrivateKey.(*ecdsa.PrivateKey).Equal(p384) {
		t.Error("the key of the order was not used")
	}
}

func TestACMEFailures(t *testing.T) {
	t.Parallel()
	at := func(path string, answer http.HandlerFunc) func(ca *fakeACME) {
		return func(ca *fakeACME) {
			ca.intercept = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasPrefix(r.URL.Path, path) {
					return false
				}
				answer(w, r)
				return true
			}
		}
	}
	later := func(status int, after string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", after)
			problem(w, status, "rateLimited", "too many certificates")
		}
	}
	redirect := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }
	}
	for name, test := range map[string]struct {
		names  []string
		issuer *tlsauto.ACME
		set    func(ca *fakeACME)
		says   string // a part of the error
		after  time.Duration
		orders int // that came to the authority
	}{
		"limit":            {set: at("/order", later(429, "3600")), says: "order a certificate: 429 rateLimited: too many certificates", after: time.Hour},
		"long limit":       {set: at("/order", later(429, "99999999999999999")), says: "429"},
		"longer limit":     {set: at("/order", later(429, "9999999")), says: "429", after: 24 * time.Hour},
		"negative":         {set: at("/order", later(429, "-5")), says: "429"},
		"limit, date":      {set: at("/order", later(429, time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))), says: "429", after: time.Hour},
		"limit, past":      {set: at("/order", later(429, time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))), says: "429"},
		"old limit":        {set: at("/order", later(403, "60")), says: "403 rateLimited", after: time.Minute},
		"down":             {set: at("/", later(503, "120")), says: "read the directory", after: 2 * time.Minute},
		"down, silent":     {set: at("/", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) }), says: "503"},
		"no registration":  {set: at("/account", later(429, "7200")), says: "register an account: 429", after: 2 * time.Hour},
		"no nonce":         {set: at("/nonce", func(w http.ResponseWriter, r *http.Request) {}), says: "nonce not found"},
		"stale nonces":     {set: func(ca *fakeACME) { ca.badNonces = 100 }, says: "badNonce"},
		"no directory":     {set: at("/", func(w http.ResponseWriter, r *http.Request) { respond(w, "<html>") }), says: "read the directory"},
		"other JSON":       {set: at("/", func(w http.ResponseWriter, r *http.Request) { respond(w, "{}") }), says: "does not support"},
		"huge directory":   {set: at("/", endless(200)), says: "the answer has more than"},
		"huge problem":     {set: at("/order", endless(403)), says: "the answer has more than"},
		"redirect to http": {set: at("/directory", redirect("http://127.0.0.1:1/")), says: "not https"},
		"redirect to file": {set: at("/directory", redirect("file:///etc/passwd")), says: "not https"},

		"unprintable": {set: at("/order", func(w http.ResponseWriter, r *http.Request) {
			problem(w, 403, "rejectedIdentifier", "no\x1b[2J\nline\u202e\x00"+strings.Repeat("x", 10_000))
		}), says: "403 rejectedIdentifier: no [2J line xxxx"},

		"no answer reaches": {set: func(ca *fakeACME) {
			ca.answers.lose["tls-alpn-01"], ca.answers.lose["http-01"] = true, true
		}, says: "validate example.com by tls-alpn-01: 403 unauthorized: connection refused by example.com", orders: 1},
		"no answer can be given": {set: func(ca *fakeACME) {
			ca.answers.fail["tls-alpn-01"], ca.answers.http = true, false
		}, says: "answer tls-alpn-01 for example.com: there is no room for it", orders: 1},
		"several names fail": {names: []string{"a.example.com", "b.example.com"}, set: func(ca *fakeACME) {
			ca.answers.lose["tls-alpn-01"], ca.answers.http = true, false
		}, says: "validate a.example.com by tls-alpn-01: 403 unauthorized: connection refused by a.example.com; validate b.example.com", orders: 1},
		"nothing offered": {set: func(ca *fakeACME) { ca.offers = []string{"dns-account-01"} }, says: "offers dns-account-01 for example.com", orders: 1},
		"HTTP not served": {issuer: &tlsauto.ACME{Challenges: []string{"http-01"}}, set: func(ca *fakeACME) { ca.answers.http = false },
			says: "no challenge of http-01 can validate example.com here"},
		"wildcard without DNS": {names: []string{"*.example.com"}, says: "can validate *.example.com"},
		"other name":           {set: func(ca *fakeACME) { ca.identifier = func(string) string { return "victim.example" } }, says: "victim.example, which was not ordered", orders: 1},
		"no profiles":          {issuer: &tlsauto.ACME{Profile: "tlsserver"}, says: "has no profiles"},
		"other profiles":       {issuer: &tlsauto.ACME{Profile: "tlsserver"}, set: func(ca *fakeACME) { ca.profiles = []string{"short", "classic"} }, says: "no profile tlsserver, but: classic, short"},
		"binding needed":       {set: func(ca *fakeACME) { ca.eab = "kid-1" }, says: "demands EABKeyID and EABKey"},

		"empty chain": {set: func(ca *fakeACME) { ca.chain = func([]byte) []byte { return nil } }, says: "chain is empty", orders: 1},
		"key in chain": {set: func(ca *fakeACME) {
			ca.chain = func([]byte) []byte { return []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n") }
		}, says: "PRIVATE KEY", orders: 1},
		"garbage": {set: func(ca *fakeACME) { ca.chain = func([]byte) []byte { return certificatePEM([]byte("garbage")) } }, says: "read certificate 0", orders: 1},
		"garbage behind": {set: func(ca *fakeACME) {
			ca.chain = func(leaf []byte) []byte { return append(certificatePEM(leaf), certificatePEM([]byte("x"))...) }
		}, says: "read certificate 1", orders: 1},
		"long chain": {set: func(ca *fakeACME) {
			ca.chain = func(leaf []byte) []byte { return slices.Repeat(certificatePEM(leaf), 9) }
		}, says: "too long", orders: 1},
		"other key": {set: func(ca *fakeACME) { ca.chain = func([]byte) []byte { return certificatePEM(ca.root.Raw) } }, says: "does not belong", orders: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := newFakeACME(t, test.set)
			issuer := test.issuer
			if issuer == nil {
				issuer = &tlsauto.ACME{}
			}
			issuer.Directory = directoryOf(ca)
			issuer.SetPauses(0, 0)
			names := test.names
			if names == nil {
				names = []string{"example.com"}
			}
			cert, err := issuer.Issue(t.Context(), orderFor(ca, names...))
			if err == nil {
				t.Fatal("a certificate", cert.Leaf.DNSNames)
			}
			if text := err.Error(); !strings.Contains(text, test.says) || len(text) > 3000 || strings.ContainsAny(text, "\x00\n\x1b\u202e") {
				t.Errorf("error %q, want %q", text, test.says)
			}
			var after *tlsauto.RetryAfterError
			if errors.As(err, &after); after == nil && test.after > 0 {
				t.Errorf("no RetryAfterError: %v", err)
			} else if after != nil && test.after > 0 && (after.After > test.after || after.After < test.after-test.after/10) {
				t.Errorf("again after %s, want %s", after.After, test.after)
			}
			if len(ca.orders) != test.orders {
				t.Errorf("%d orders, want %d", len(ca.orders), test.orders)
			}
			for _, z := range ca.authzs {
				if z.state == "pending" {
					t.Errorf("the authorization of %s is still pending", z.name)
				}
			}
			if n := ca.answers.left(); n != 0 {
				t.Errorf("%d answers are left", n)
			}
		})
	}
}

// endless answers with a body without an end.
func endless(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status)
		for {
			if _, err := io.WriteString(w, strings.Repeat(" ", 1<<16)); err != nil {
				return
			}
		}
	}
}

// hangAt makes an authority never answer requests to a path, and returns how many there are now.
func hangAt(ca *fakeACME, path string) (arrived chan struct{}, open *atomic.Int64) {
	arrived, open = make(chan struct{}, 100), &atomic.Int64{}
	ca.intercept = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, path) {
			return false
		}
		open.Add(1)
		defer open.Add(-1)
		_, _ = io.Copy(io.Discard, r.Body) // else nobody notices that the client leaves
		arrived <- struct{}{}
		<-r.Context().Done()
		return true
	}
	return arrived, open
}

func TestIssueEndsWithContext(t *testing.T) {
	t.Parallel()
	issuers := map[string]func(ca *fakeACME) tlsauto.Issuer{
		"ACME":     func(ca *fakeACME) tlsauto.Issuer { return &tlsauto.ACME{Directory: directoryOf(ca)} },
		"Autocert": func(ca *fakeACME) tlsauto.Issuer { return &tlsauto.Autocert{Directory: directoryOf(ca)} },
	}
	for name, issuer := range issuers {
		for _, path := range []string{"/directory", "/nonce", "/account", "/order", "/authz", "/challenge", "/finalize", "/certificate"} {
			t.Run(name+path, func(t *testing.T) {
				t.Parallel()
				var (
					arrived chan struct{}
					open    *atomic.Int64
				)
				ca := newFakeACME(t, func(ca *fakeACME) { arrived, open = hangAt(ca, path) })
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() {
					_, err := issuer(ca).Issue(ctx, orderFor(ca, "www.example.com"))
					done <- err
				}()
				<-arrived
				cancel()
				start := time.Now()
				if err := <-done; !errors.Is(err, context.Canceled) {
					t.Errorf("error %v", err)
				}
				if d := time.Since(start); d > patience { // autocert goes on for 5 minutes
					t.Errorf("it took %s to end", d)
				}
				waitUntil(t, func() bool { return open.Load() == 0 })
				if n := ca.answers.left(); n != 0 {
					t.Errorf("%d answers are left", n)
				}
			})
		}
	}
}

// waitUntil fails the test if something does not come true within a generous time.
func waitUntil(t *testing.T, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); {
		if time.Now().After(deadline) {
			t.Fatal("it has not come true")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Not parallel: no other test must have goroutines then.
func TestIssueLeavesNoGoroutines(t *testing.T) {
	for name, issuer := range map[string]func(d tlsauto.Directory) tlsauto.Issuer{
		"ACME":     func(d tlsauto.Directory) tlsauto.Issuer { return &tlsauto.ACME{Directory: d} },
		"Autocert": func(d tlsauto.Directory) tlsauto.Issuer { return &tlsauto.Autocert{Directory: d} },
	} {
		t.Run(name, func(t *testing.T) {
			var arrived chan struct{}
			ca := newFakeACME(t, func(ca *fakeACME) { arrived, _ = hangAt(ca, "/finalize") })
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				_, err := issuer(directoryOf(ca)).Issue(ctx, orderFor(ca, "www.example.com"))
				done <- err
			}()
			<-arrived
			cancel()
			<-done
			waitUntil(t, func() bool {
				stacks := make([]byte, 1<<20)
				stacks = stacks[:runtime.Stack(stacks, true)]
				return !bytes.Contains(stacks, []byte("x/crypto/acme")) && !bytes.Contains(stacks, []byte("http.(*persistConn)")) &&
					!bytes.Contains(stacks, []byte("http2clientConnReadLoop"))
			})
		})
	}
}
