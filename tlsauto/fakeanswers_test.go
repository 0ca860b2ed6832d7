package tlsauto_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// fakeAnswers are Challenges, and a DNSProvider, that an authority can look into.
type fakeAnswers struct {
	http bool            // HTTP-01 is served
	lose map[string]bool // challenges whose answers do not reach the authority
	fail map[string]bool // challenges whose answers cannot be given

	mu      sync.Mutex
	tokens  map[string]string
	certs   map[string]*tls.Certificate
	records map[string][]string
	given   []string // types
}

func newFakeAnswers() *fakeAnswers {
	return &fakeAnswers{
		http: true, lose: map[string]bool{}, fail: map[string]bool{},
		tokens: map[string]string{}, certs: map[string]*tls.Certificate{}, records: map[string][]string{},
	}
}

func (a *fakeAnswers) ServesHTTP01() bool { return a.http }

// give calls set, and returns what undoes it.
func (a *fakeAnswers) give(typ string, set, unset func()) (func(), error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.given = append(a.given, typ)
	if a.fail[typ] {
		return nil, fmt.Errorf("there is no room for it")
	}
	set()
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		unset()
	}, nil
}

// left is how many answers have not been removed.
func (a *fakeAnswers) left() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.tokens) + len(a.certs) + len(a.records)
}

func (a *fakeAnswers) HTTP01(_ context.Context, token string, answer []byte) (func(), error) {
	return a.give("http-01", func() { a.tokens[token] = string(answer) }, func() { delete(a.tokens, token) })
}

func (a *fakeAnswers) TLSALPN01(_ context.Context, name string, cert *tls.Certificate) (func(), error) {
	return a.give("tls-alpn-01", func() { a.certs[name] = cert }, func() { delete(a.certs, name) })
}

func (a *fakeAnswers) Present(_ context.Context, fqdn, value string) error {
	_, err := a.give("dns-01", func() { a.records[fqdn] = append(a.records[fqdn], value) }, nil)
	return err
}

func (a *fakeAnswers) CleanUp(_ context.Context, fqdn, value string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.records[fqdn] = slices.DeleteFunc(a.records[fqdn], func(v string) bool { return v == value })
	if len(a.records[fqdn]) == 0 {
		delete(a.records, fqdn)
	}
	return nil
}

func (a *fakeAnswers) validate(idType, name, typ, token, thumbprint string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lose[typ] {
		return fmt.Errorf("connection refused by %s", name)
	}
	auth := token + "." + thumbprint
	sum := sha256.Sum256([]byte(auth))
	ok := false
	switch typ {
	case "http-01":
		ok = a.tokens[token] == auth
	case "dns-01":
		ok = slices.Contains(a.records["_acme-challenge."+strings.TrimPrefix(name, "*.")+"."], base64.RawURLEncoding.EncodeToString(sum[:]))
	case "tls-alpn-01":
		if idType == "ip" {
			name = map[string]string{
				"192.0.2.7":   "7.2.0.192.in-addr.arpa",
				"2001:db8::1": "1." + strings.Repeat("0.", 23) + "8.b.d.0.1.0.0.2.ip6.arpa",
			}[name]
		}
		if c := a.certs[name]; c != nil {
			leaf, err := x509.ParseCertificate(c.Certificate[0])
			if err != nil {
				return err
			}
			for _, e := range leaf.Extensions {
				ok = ok || e.Id.String() == "1.3.6.1.5.5.7.1.31" && strings.HasSuffix(string(e.Value), string(sum[:]))
			}
		}
	}
	if !ok {
		return fmt.Errorf("the answer to %s for %s is wrong; it has %v", typ, name, slices.Collect(maps.Keys(a.certs)))
	}
	return nil
}
