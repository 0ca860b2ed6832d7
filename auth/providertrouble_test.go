package auth_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
)

func TestA13_ProviderAsksForSecondFactor(t *testing.T) {
	t.Parallel()
	f := newFederation(t, auth.Config{RedirectSchemes: []string{"app"}})
	f.a.SetUser(person("1", "ada@example.com"))
	want(t, "first", f.signIn(f.browser(t), "a"), 200, "logged in")
	f.exec(t, `UPDATE _user SET totp_secret = 'YCUTAYEZ346ZUEI7FLCG57BOMZQHHRA5'`)
	f.exec(t, `DELETE FROM _session`)
	sum := sha256.Sum256([]byte(strings.Repeat("v", 43)))
	challenge := base64.RawURLEncoding.EncodeToString(sum[:])
	for _, query := range [][]string{
		{},
		{"redirect_uri", "/welcome", "mfa_redirect_uri", "/mfa"},
		{"response_type", "code", "redirect_uri", "app://x", "pkce_code_challenge", challenge},
	} {
		r := f.signIn(f.browser(t), "a", query...)
		if r.status != http.StatusSeeOther || len(param(t, r.location(), "mfa_token")) != 48 || param(t, r.location(), "code") != "" {
			t.Errorf("%v: %d %s to %q", query, r.status, r.body, r.location())
		}
		if c := cookies(r); c["auth_token"] != nil || c["refresh_token"] != nil {
			t.Errorf("%v: cookies %v", query, c)
		}
	}
	f.wantCount(t, 0, `_session`)
	f.wantCount(t, 0, `_one_time WHERE purpose = 'code'`)
}

func TestB6_DisabledAtProvider(t *testing.T) {
	t.Parallel()
	f := newFederation(t, auth.Config{})
	want(t, "first", f.signIn(f.browser(t), "a"), 200, "logged in")
	f.exec(t, `UPDATE _user SET disabled = 1`)
	r := f.signIn(f.browser(t), "a")
	want(t, "disabled", r, 401, "")
	if cookies(r)["auth_token"] != nil {
		t.Error("cookies for a disabled user")
	}
	f.exec(t, `UPDATE _user SET totp_secret = 'YCUTAYEZ346ZUEI7FLCG57BOMZQHHRA5'`)
	want(t, "disabled, with a second factor", f.signIn(f.browser(t), "a"), 401, "")
	f.wantCount(t, 1, `_user`)
}

// A stub is a provider that does what it is told.
type stub struct {
	name     string
	authURL  func(context.Context, auth.AuthRequest) (string, error)
	exchange func(context.Context, string, auth.AuthRequest) (auth.Identity, error)
}

func (p stub) Provider() auth.Provider {
	return auth.Provider{Name: p.name, Issuer: "https://" + p.name + ".example"}
}

func (p stub) AuthURL(ctx context.Context, req auth.AuthRequest) (string, error) {
	if p.authURL != nil {
		return p.authURL(ctx, req)
	}
	return "https://" + p.name + ".example/?state=" + req.State, nil
}

func (p stub) Exchange(ctx context.Context, code string, req auth.AuthRequest) (auth.Identity, error) {
	return p.exchange(ctx, code, req)
}

func TestC12_ProviderTrouble(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	within := func(ctx context.Context) error {
		if at, ok := ctx.Deadline(); !ok || time.Until(at) > 20*time.Second {
			return errors.New("no deadline")
		}
		return context.DeadlineExceeded
	}
	down := stub{
		name:    "down",
		authURL: func(ctx context.Context, _ auth.AuthRequest) (string, error) { return "", within(ctx) },
	}
	bad := stub{name: "bad", exchange: func(ctx context.Context, code string, _ auth.AuthRequest) (auth.Identity, error) {
		switch code {
		case "timeout":
			return auth.Identity{}, within(ctx)
		case "client error":
			return auth.Identity{}, &auth.Error{Status: 200, Text: "planted"}
		case "nobody":
			return auth.Identity{Email: "a@example.com", EmailVerified: true}, nil
		case "nul":
			return auth.Identity{Subject: "a\x00b", Email: "a@example.com", EmailVerified: true}, nil
		case "long":
			return auth.Identity{Subject: strings.Repeat("x", 256), Email: "a@example.com", EmailVerified: true}, nil
		}
		return auth.Identity{Subject: "\xff", Email: "a@example.com", EmailVerified: true}, nil
	}}
	s := newSite(t, auth.Config{
		Providers: []auth.IdentityProvider{down, bad},
		Logger:    slog.New(slog.NewTextHandler(&log, nil)),
	})
	for range 3 {
		want(t, "down", s.browser(t).get(loginPath("down")), http.StatusFailedDependency, "")
	}
	s.wantCount(t, 0, `_one_time`)
	for _, code := range []string{"timeout", "client error", "nobody", "nul", "long", "utf-8"} {
		b := s.browser(t)
		state := param(t, b.get(loginPath("bad")).location(), "state")
		want(t, code, b.get(api+"/oauth/bad/callback?code="+url.QueryEscape(code)+"&state="+state), http.StatusFailedDependency, "")
	}
	s.wantCount(t, 0, `_user`)
	if n := strings.Count(log.String(), "\n"); n != 2 || strings.Contains(log.String(), "no deadline") {
		t.Errorf("%d lines in the log:\n%s", n, log.String())
	}
	s.clock.Add(2 * time.Minute)
	want(t, "down", s.browser(t).get(loginPath("down")), http.StatusFailedDependency, "")
	if !strings.Contains(log.String(), "skipped=2") {
		t.Errorf("log:\n%s", log.String())
	}
}

// A slow provider holds up no more requests than its share.
func TestF1_SlowProvider(t *testing.T) {
	t.Parallel()
	waiting, release := make(chan struct{}, 200), make(chan struct{})
	slow := stub{name: "slow", authURL: func(context.Context, auth.AuthRequest) (string, error) {
		waiting <- struct{}{}
		<-release
		return "https://slow.example/", nil
	}}
	s := newSite(t, auth.Config{Providers: []auth.IdentityProvider{slow, stub{name: "fast"}}})
	var all sync.WaitGroup
	for range 100 {
		b := s.browser(t)
		all.Go(func() {
			if r := b.get(loginPath("slow")); r.status != http.StatusSeeOther {
				t.Errorf("%d %s", r.status, r.body)
			}
		})
	}
	for range 100 {
		<-waiting
	}
	r := s.browser(t).get(loginPath("slow"))
	if r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" {
		t.Errorf("one more: %d", r.status)
	}
	if r := s.browser(t).get(loginPath("fast")); r.status != http.StatusSeeOther {
		t.Errorf("another provider: %d", r.status)
	}
	close(release)
	all.Wait()
	// The rows that one address can make are bounded.
	var last int
	for range 201 {
		if last = s.browser(t).get(loginPath("fast")).status; last != http.StatusSeeOther {
			break
		}
	}
	if last != http.StatusTooManyRequests {
		t.Errorf("after the limit: %d", last)
	}
}
