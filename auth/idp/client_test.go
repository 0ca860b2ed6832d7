package idp_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth/idp"
	"github.com/bedplate/bedplate/internal/oidctest"
)

// endpoints are those of which each can fail a login.
var endpoints = []string{oidctest.DiscoveryPath, oidctest.TokenPath, oidctest.KeysPath, oidctest.UserInfoPath}

// failing starts a login at a server where one endpoint is another one.
func failing(t *testing.T, path string, instead http.Handler, client *http.Client) (*oidctest.Server, error) {
	t.Helper()
	s := oidctest.New(t, oidctest.Options{})
	cfg := config(s)
	cfg.HTTPClient = client
	req := newRequest()
	code := authorize(t, newProvider(t, cfg), req) // its own metadata
	s.Set(oidctest.Knobs{
		Claims:    func(c map[string]any) { delete(c, "email") }, // so that user info is asked for
		Endpoints: map[string]http.Handler{path: instead},
	})
	before := s.Requests(path)
	_, err := newProvider(t, cfg).Exchange(t.Context(), code, req)
	if n := s.Requests(path) - before; n != 1 {
		t.Errorf("%s: %d requests, want 1", path, n)
	}
	return s, err
}

func TestC12_Slow(t *testing.T) {
	t.Parallel()
	for _, path := range endpoints {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			_, err := failing(t, path, oidctest.Hang(), &http.Client{Timeout: 2 * time.Second})
			var timeout net.Error
			if !errors.As(err, &timeout) || !timeout.Timeout() || errors.Is(err, idp.ErrRefused) {
				t.Errorf("error %v, want a timeout", err)
			}
		})
	}
}

func TestC12_Cancelled(t *testing.T) {
	t.Parallel()
	s := oidctest.New(t, oidctest.Options{})
	p := newProvider(t, config(s))
	req := newRequest()
	code := authorize(t, p, req)
	ctx, cancel := context.WithCancel(t.Context())
	s.Set(oidctest.Knobs{Endpoints: map[string]http.Handler{
		oidctest.TokenPath: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			cancel()
			oidctest.Hang().ServeHTTP(w, r)
		}),
	}})
	if _, err := p.Exchange(ctx, code, req); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestC12_HugeBody(t *testing.T) {
	t.Parallel()
	for _, path := range endpoints {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			_, err := failing(t, path, oidctest.Huge(2<<20), nil)
			wantRefused(t, path, err)
			// The token endpoint's answer is cut off by the library, to the same size.
			if path != oidctest.TokenPath && !strings.Contains(fmt.Sprint(err), "more than 1048576 bytes") {
				t.Errorf("error %v, want the size as its reason", err)
			}
		})
	}
}

func TestC12_RedirectLoop(t *testing.T) {
	t.Parallel()
	for _, path := range endpoints {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			_, err := failing(t, path, oidctest.Loop(), nil)
			wantRefused(t, path, err)
		})
	}
}

func TestC12_Failures(t *testing.T) {
	t.Parallel()
	for _, path := range endpoints {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			_, err := failing(t, path, oidctest.Status(http.StatusInternalServerError, "down"), nil)
			wantRefused(t, path, err)
			_, err = failing(t, path, answer(`[{"nonsense`), nil)
			wantRefused(t, path, err)
		})
	}
}

func TestC12_ManyGroups(t *testing.T) {
	t.Parallel()
	groups := make([]string, 10_000)
	for i := range groups {
		groups[i] = "a group with a name of some length"
	}
	s := oidctest.New(t, oidctest.Options{})
	p := newProvider(t, config(s))
	s.Set(oidctest.Knobs{Claims: func(c map[string]any) { c["groups"] = groups }})
	id, err := login(t, p)
	wantRefused(t, id, err)

	s.Set(oidctest.Knobs{
		Claims:   func(c map[string]any) { delete(c, "email") },
		UserInfo: func(c map[string]any) { c["groups"] = groups },
	})
	if _, err := login(t, p); err != nil {
		t.Errorf("in the user information: %v", err)
	}
}

// TestC13_Addresses has a server on the loopback interface, under names that a
// check of the URL's text would not know.
func TestC13_Addresses(t *testing.T) {
	t.Parallel()
	var connections atomic.Int64
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{
		"127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "0.0.0.0", "[::]",
		"2130706433", "0x7f000001", "127.1", "169.254.169.254", "10.0.0.1", "100.64.0.1", "[fe80::1%25lo]", "[fd00::1]", "224.0.0.1",
	} {
		base := "https://" + host + ":" + u.Port()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		issuer, err := idp.New(idp.Config{Kind: "oidc0", ClientID: "client", Issuer: base})
		if err != nil {
			t.Errorf("%s: %v", host, err)
		} else if _, err := issuer.AuthURL(ctx, newRequest()); !refusedOrUnknown(err) {
			t.Errorf("issuer at %s: error %v", host, err)
		}
		user, err := idp.New(idp.Config{
			Kind: "oidc0", ClientID: "client", AuthURL: base + "/a", TokenURL: base + "/t", UserURL: base + "/u",
		})
		if err != nil {
			t.Errorf("%s: %v", host, err)
		} else if _, err := user.Exchange(ctx, "code", newRequest()); !refusedOrUnknown(err) {
			t.Errorf("endpoints at %s: error %v", host, err)
		}
		cancel()
	}
	if n := connections.Load(); n != 0 {
		t.Errorf("%d connections were made", n)
	}
}

// refusedOrUnknown reports whether an address was refused. Some resolvers read
// numbers as addresses, others know no such name.
func refusedOrUnknown(err error) bool {
	var lookup *net.DNSError
	return errors.Is(err, idp.ErrRefused) && strings.Contains(err.Error(), "not a public address") || errors.As(err, &lookup)
}

// TestC13_Discovered wants endpoints of a discovery document to be held to the
// same as configured ones.
func TestC13_Discovered(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]string{
		"authorization_endpoint": "javascript:alert(1)",
		"token_endpoint":         "file:///etc/passwd",
		"jwks_uri":               "gopher://127.0.0.1/",
		"userinfo_endpoint":      "https://user:password@example.com/",
	} {
		s := oidctest.New(t, oidctest.Options{})
		s.Set(oidctest.Knobs{Discovery: func(d map[string]any) { d[name] = value }})
		address, err := newProvider(t, config(s)).AuthURL(t.Context(), newRequest())
		wantRefused(t, address, err)
	}
}
