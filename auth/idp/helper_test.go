package idp_test

import (
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/auth/idp"
	"github.com/bedplate/bedplate/internal/oidctest"
)

const callback = "https://app.example.com/api/auth/v1/oauth/oidc0/callback"

// config is that of a generic provider at a server.
func config(s *oidctest.Server) idp.Config {
	return idp.Config{
		Kind: "oidc0", Issuer: s.Issuer, ClientID: "client", ClientSecret: "secret", AllowPrivateAddresses: true,
	}
}

func newProvider(t *testing.T, cfg idp.Config) *idp.Provider {
	t.Helper()
	p, err := idp.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newRequest() auth.AuthRequest {
	return auth.AuthRequest{
		State: rand.Text(), Nonce: rand.Text(), Verifier: rand.Text() + rand.Text(), RedirectURL: callback,
	}
}

// authorize visits the provider and returns the code that it answers with.
func authorize(t *testing.T, p *idp.Provider, req auth.AuthRequest) string {
	t.Helper()
	address, err := p.AuthURL(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return visit(t, address, req)
}

func visit(t *testing.T, address string, req auth.AuthRequest) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	location, err := url.Parse(resp.Header.Get("Location"))
	if err != nil || !strings.HasPrefix(location.String(), callback+"?") {
		t.Fatalf("status %d, location %q", resp.StatusCode, location)
	}
	q := location.Query()
	if q.Get("state") != req.State || q.Get("code") == "" {
		t.Fatalf("answer of the provider: %v", q)
	}
	return q.Get("code")
}

func login(t *testing.T, p *idp.Provider) (auth.Identity, error) {
	t.Helper()
	req := newRequest()
	return p.Exchange(t.Context(), authorize(t, p, req), req)
}

func wantRefused(t *testing.T, got any, err error) {
	t.Helper()
	if !errors.Is(err, idp.ErrRefused) {
		t.Errorf("got %+v, error %v; want it refused", got, err)
	}
}

// A clock stands still until it is set forward.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func sign(t *testing.T, s *oidctest.Server, claims map[string]any) string {
	t.Helper()
	token, err := s.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	return token
}
