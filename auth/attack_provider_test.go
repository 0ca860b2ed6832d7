package auth_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/auth"
)

// A provider may approve whomever it likes, without asking. A link on another
// site that leads to it must not sign anybody in, and least of all out of an
// account and in to that of who has placed the link.
func TestC9_SignInByLinkOfAnotherSite(t *testing.T) {
	t.Parallel()
	f := newFederation(t, auth.Config{RedirectSchemes: []string{"app"}})
	f.b.SetUser(person("666", "attacker@example.com"))
	f.addUser(t, "victim@example.com")
	stranger, victim := f.visitor(t), f.visitor(t)
	want(t, "login", victim.form(api+"/login", "email", "victim@example.com", "password", good), 200, "logged in")

	for name, b := range map[string]*browser{"stranger": stranger, "victim": victim} {
		lured := b.with("Sec-Fetch-Site", "cross-site")
		r := lured.get(loginPath("b", "redirect_uri", "/welcome", "mfa_redirect_uri", "/mfa"))
		r.wantRedirect(t, name, pages+"/login?redirect_uri=%2Fwelcome&mfa_redirect_uri=%2Fmfa")
		if c := cookies(r); len(c) > 0 {
			t.Errorf("%s: cookies %v", name, c)
		}
		want(t, name+", elsewhere", lured.get(loginPath("b", "redirect_uri", "//evil.example")), 400, "This link leads to a place that is not allowed.")
	}
	f.wantCount(t, 0, `_one_time WHERE purpose = 'provider'`)
	want(t, "victim", victim.get("/whoami"), 200, "victim@example.com")

	// Nor is a redirect of ours such a link.
	for _, target := range []string{loginPath("b"), siteURL + loginPath("b"), api + "/logout", "/%61pi/auth/v1/oauth/b/login"} {
		r := victim.get(pages + "/login?redirect_uri=" + url.QueryEscape(target))
		want(t, target, r, 400, "This link leads to a place that is not allowed.")
	}

	// What people ask for works: the button of the page, an address that was
	// typed, and a native client.
	for _, site := range []string{"same-origin", "same-site", "none"} {
		want(t, site, f.signIn(f.visitor(t).with("Sec-Fetch-Site", site), "b"), 200, "logged in")
	}
	sum := sha256.Sum256([]byte(strings.Repeat("v", 43)))
	r := f.signIn(f.visitor(t).with("Sec-Fetch-Site", "cross-site"), "b", "response_type", "code", "redirect_uri", "app://x",
		"pkce_code_challenge", base64.RawURLEncoding.EncodeToString(sum[:]))
	if !strings.HasPrefix(r.location(), "app://x?code=") || cookies(r)["auth_token"] != nil {
		t.Errorf("native client: %d to %q", r.status, r.location())
	}
}

// A link that one user has begun does not end in the browser of another, even
// where a neighbouring host has planted the cookie.
func TestC9_LinkInAnotherBrowser(t *testing.T) {
	t.Parallel()
	f := newFederation(t, auth.Config{})
	f.addUser(t, "attacker@example.com")
	f.addUser(t, "victim@example.com")
	attacker, victim := f.visitor(t), f.visitor(t)
	for b, email := range map[*browser]string{attacker: "attacker@example.com", victim: "victim@example.com"} {
		want(t, email, b.form(api+"/login", "email", email, "password", good), 200, "logged in")
	}
	r := attacker.form(api + "/oauth/a/link")
	planted := cookies(r)["oauth_state"]
	if r.status != http.StatusSeeOther || planted == nil {
		t.Fatalf("link: %d %s", r.status, r.body)
	}
	callback := approve(t, f.site, r.location()) // the victim's account at the provider
	victim.client.Jar.SetCookies(mustURL(t, f.url), []*http.Cookie{{Name: "oauth_state", Value: planted.Value, Path: "/"}})
	victim.get(callback).want(t, "in the victim's browser", http.StatusForbidden, "*")
	f.wantCount(t, 0, `_user_identity`)
	want(t, "victim", victim.get("/whoami"), 200, "victim@example.com")
}

// Whoever runs a provider says what it likes about its users. It gets no
// account that is there, nothing fails inside, and pages show it as text.
func TestC8_HostileIdentities(t *testing.T) {
	t.Parallel()
	var next auth.Identity
	evil := stub{name: "evil", exchange: func(context.Context, string, auth.AuthRequest) (auth.Identity, error) { return next, nil }}
	var log lockedBuffer
	s := newSite(t, auth.Config{
		Identifier: auth.RequireEmail, Limits: wideLimits(), Providers: []auth.IdentityProvider{evil, pageProvider{}},
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	s.addUser(t, "victim@example.com")
	s.exec(t, `UPDATE _user SET username = 'victim' WHERE email = 'victim@example.com'`)
	before := s.count(t, "_user_identity")
	for i, test := range []struct {
		identity auth.Identity
		status   int
	}{
		{auth.Identity{Email: "victim@example.com"}, 409},
		{auth.Identity{Email: "VICTIM@EXAMPLE.COM"}, 409},
		{auth.Identity{Email: " victim@example.com "}, 409},
		{auth.Identity{Email: "victim@example.com\r\nBcc: x@example.com"}, 424},
		{auth.Identity{Email: "victim@example.com,x@example.com"}, 424},
		{auth.Identity{Email: "victim@exam\u200dple.com"}, 424},
		{auth.Identity{Email: "\"victim\"@example.com"}, 424},
		{auth.Identity{Email: strings.Repeat("x", 10_000) + "@example.com"}, 424},
		{auth.Identity{Email: "\x00"}, 424},
		{auth.Identity{}, 424},
		{auth.Identity{Email: "a@example.com", Username: "victim"}, 200},
		{auth.Identity{Email: "b@example.com", Username: "VICTIM"}, 200},
		{auth.Identity{Email: "c@example.com", Username: "<script>alert(1)</script>"}, 200},
		{auth.Identity{Email: "d@example.com", Username: "v\u0456ctim"}, 200},
		{auth.Identity{Email: "e@example.com", Username: strings.Repeat("\u202e", 1000)}, 200},
		{auth.Identity{Email: "f@example.com", Username: strings.Repeat("e\u0301", 128)}, 200},
		{auth.Identity{Email: "g@example.com", Username: "\xff\xfe\x00"}, 200},
		{auth.Identity{Email: "h@example.com", AvatarURL: "javascript:alert(1)"}, 200},
		{auth.Identity{Email: "i@example.com", AvatarURL: "https://a@b.example/" + strings.Repeat("x", 5000)}, 200},
		{auth.Identity{Email: "j@example.com", Subject: "' OR 1=1 --"}, 200},
		{auth.Identity{Email: "k@example.com", Subject: "https://acme.example 1"}, 200},
		{auth.Identity{Email: "l@example.com", Subject: strings.Repeat("\u00e9", 127)}, 200},
	} {
		next = test.identity
		next.EmailVerified = true
		if next.Subject == "" {
			next.Subject = fmt.Sprint("s", i)
		}
		b := s.visitor(t)
		r := b.get(loginPath("evil"))
		r = b.get(api + "/oauth/evil/callback?code=x&state=" + param(t, r.location(), "state"))
		if r.status != test.status {
			t.Errorf("%#v: %d %s", test.identity, r.status, r.body)
		}
		if r.status != 200 {
			continue
		}
		before++
		profile := b.get(pages + "/profile")
		checkPage(t, fmt.Sprintf("profile of %#v", test.identity), profile)
		if strings.Contains(profile.body, "victim@example.com") || strings.ContainsAny(profile.body, "\u202e\x00") {
			t.Errorf("%#v: %s", test.identity, profile.body)
		}
	}
	s.wantCount(t, before, `_user_identity`)
	s.wantCount(t, 0, `_user_identity i JOIN _user u ON u.id = i.user WHERE u.email = 'victim@example.com'`)
	s.wantCount(t, 1, `_user WHERE username = 'victim'`)
	s.wantCount(t, 0, `_user WHERE provider_avatar_url IS NOT NULL`)
	if strings.Contains(log.String(), "auth request failed") {
		t.Errorf("internal errors: %s", log.String())
	}
	s.login(t, "victim@example.com")
}

// Failures that anybody can bring about fill neither the log nor the database.
func TestC12_FloodOfFailures(t *testing.T) {
	t.Parallel()
	bad := stub{name: "bad", exchange: func(context.Context, string, auth.AuthRequest) (auth.Identity, error) {
		return auth.Identity{}, errors.New("refused\nlevel=ERROR msg=planted")
	}}
	var log lockedBuffer
	s := newSite(t, auth.Config{Providers: []auth.IdentityProvider{bad}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	refused := 0
	for range 300 {
		b := s.browser(t)
		r := b.get(loginPath("bad"))
		if r.status == http.StatusTooManyRequests {
			refused++
			continue
		}
		want(t, "callback", b.get(api+"/oauth/bad/callback?code=x&state="+param(t, r.location(), "state")), http.StatusFailedDependency, "")
		want(t, "unknown state", b.with("Cookie", "oauth_state=x").get(api+"/oauth/bad/callback?code=x&state=x"), 400, "invalid state")
	}
	if refused == 0 {
		t.Error("one address may begin as many visits as it likes")
	}
	s.wantCount(t, 0, `_one_time`)
	if n := strings.Count(log.String(), "\n"); n > 2 || strings.Contains(log.String(), "\nlevel=ERROR") {
		t.Errorf("%d lines in the log: %s", n, log.String())
	}
}

// Who could act in a session for a moment could stay by linking an account:
// the owner is told, of a link and of its end.
func TestC8_LinksAreTold(t *testing.T) {
	t.Parallel()
	f := newFederation(t, auth.Config{})
	f.member(t, "ada@example.com")
	f.a.SetUser(person("1", "thief@example.com"))
	tokens := f.login(t, "ada@example.com")
	if r := f.link(f.as(t, tokens), "a"); r.status != http.StatusSeeOther {
		t.Fatalf("link: %d %s", r.status, r.body)
	}
	f.inbox.about(t, "ada@example.com", "Ways to sign in", 1)
	want(t, "unlink", f.as(t, tokens).do("DELETE", api+"/oauth/identities/a", "", ""), 200, "unlinked")
	f.inbox.about(t, "ada@example.com", "Ways to sign in", 2)
	if n := len(f.inbox.to("thief@example.com")); n > 0 {
		t.Errorf("%d mails to the linked account", n)
	}
}
