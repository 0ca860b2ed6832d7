package auth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/auth/idp"
	"github.com/bedplate/bedplate/internal/oidctest"
	"github.com/bedplate/bedplate/sqlite"
)

// A federation is a site with two OpenID Providers, known as "a" and "b".
type federation struct {
	*site
	a, b *oidctest.Server
}

// renumbered is a provider with a number of its own.
type renumbered struct {
	auth.IdentityProvider
	number int
}

func (p renumbered) Provider() auth.Provider {
	d := p.IdentityProvider.Provider()
	d.Number = p.number
	return d
}

const (
	numberA = 2
	numberB = 3
)

func newFederation(t *testing.T, cfg auth.Config) *federation {
	t.Helper()
	f := &federation{a: oidctest.New(t, oidctest.Options{}), b: oidctest.New(t, oidctest.Options{})}
	cfg.Providers = append(cfg.Providers, renumbered{openID(t, "b", f.b), numberB}, renumbered{openID(t, "a", f.a), numberA})
	f.site = newSite(t, cfg)
	return f
}

func openID(t testing.TB, name string, server *oidctest.Server) auth.IdentityProvider {
	t.Helper()
	p, err := idp.New(idp.Config{
		Kind: "oidc0", Name: name, DisplayName: "Provider " + strings.ToUpper(name), Issuer: server.Issuer,
		ClientID: "client", ClientSecret: "secret", AllowPrivateAddresses: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func person(subject, email string) oidctest.User {
	return oidctest.User{Subject: subject, Email: email, EmailVerified: true}
}

// leave goes to a path that sends the browser to a provider and returns where.
func leave(b *browser, path string) string {
	b.t.Helper()
	r := b.get(path)
	if r.status != http.StatusSeeOther || !strings.HasPrefix(r.location(), "http://127.0.0.1:") {
		b.t.Fatalf("GET %s: %d %q to %q", path, r.status, r.body, r.location())
	}
	return r.location()
}

// approve is the visit at the provider. It returns the path of our callback.
func approve(t testing.TB, s *site, at string) string {
	t.Helper()
	r := s.browser(t).get(at)
	callback, ours := strings.CutPrefix(r.location(), siteURL)
	if r.status != http.StatusFound || !ours {
		t.Fatalf("provider: %d %q to %q", r.status, r.body, r.location())
	}
	return callback
}

// visitProvider goes to a provider and up to the callback, which it returns.
func (f *federation) visitProvider(b *browser, name string, query ...string) string {
	b.t.Helper()
	return approve(b.t, f.site, leave(b, loginPath(name, query...)))
}

func loginPath(name string, query ...string) string {
	v := url.Values{}
	for i := 0; i+1 < len(query); i += 2 {
		v.Set(query[i], query[i+1])
	}
	return api + "/oauth/" + name + "/login?" + v.Encode()
}

// signIn is a whole sign-in.
func (f *federation) signIn(b *browser, name string, query ...string) reply {
	b.t.Helper()
	return b.get(f.visitProvider(b, name, query...))
}

// with changes parameters of a URL: name, value, ...; "" removes one.
func with(t testing.TB, uri string, pairs ...string) string {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	for i := 0; i+1 < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
		if pairs[i+1] == "" {
			q.Del(pairs[i])
		}
	}
	u.RawQuery = q.Encode()
	return u.String()
}

func param(t testing.TB, uri, name string) string {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query().Get(name)
}

// want checks status and body.
func want(t testing.TB, what string, r reply, status int, body string) {
	t.Helper()
	if r.status != status || !strings.Contains(r.body, body) || body == "" && r.body != "" {
		t.Errorf("%s: %d %q (to %q), want %d %q", what, r.status, r.body, r.location(), status, body)
	}
}

// cookies returns what a response sets, by name.
func cookies(r reply) map[string]*http.Cookie {
	found := map[string]*http.Cookie{}
	for _, c := range (&http.Response{Header: r.header}).Cookies() {
		found[c.Name] = c
	}
	return found
}

// count runs SELECT count(*) FROM ...
func (s *site) count(t testing.TB, from string, args ...any) (n int) {
	t.Helper()
	err := s.db.View(t.Context(), func(tx *sqlite.Tx) error {
		return tx.QueryRowContext(t.Context(), "SELECT count(*) FROM "+from, args...).Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (s *site) wantCount(t testing.TB, n int, from string, args ...any) {
	t.Helper()
	if got := s.count(t, from, args...); got != n {
		t.Errorf("%d rows of %s %v, want %d", got, from, args, n)
	}
}

func TestProviderSignIn(t *testing.T) {
	t.Parallel()
	f := newFederation(t, auth.Config{})
	f.a.SetUser(oidctest.User{Subject: "42", Email: "ada@example.com", EmailVerified: true, Picture: "https://img.example/ada.png"})
	b := f.browser(t)
	want(t, "providers", b.get(api+"/oauth/providers"), 200, `{"providers":[["a","Provider A"],["b","Provider B"]]}`)

	r := b.get(loginPath("a", "redirect_uri", "/welcome"))
	if r.status != http.StatusSeeOther || r.header.Get("Referrer-Policy") != "no-referrer" {
		t.Fatalf("login: %d %v", r.status, r.header)
	}
	first := r.header.Values("Set-Cookie")[0]
	for _, part := range []string{"oauth_state=", "Path=/", "Max-Age=600", "HttpOnly", "SameSite=Lax"} {
		if !strings.Contains(first, part) {
			t.Errorf("first cookie %q has no %q", first, part)
		}
	}
	if got := param(t, r.location(), "redirect_uri"); got != siteURL+api+"/oauth/a/callback" {
		t.Errorf("callback %q", got)
	}
	r = b.get(approve(t, f.site, r.location()))
	if r.status != http.StatusSeeOther || r.location() != "/welcome" {
		t.Fatalf("callback: %d %s", r.status, r.body)
	}
	set := cookies(r)
	if set["auth_token"].SameSite != http.SameSiteLaxMode || set["refresh_token"].SameSite != http.SameSiteStrictMode {
		t.Errorf("cookies %v", r.header.Values("Set-Cookie"))
	}
	if set["oauth_state"].MaxAge != -1 {
		t.Error("the state's cookie stays")
	}
	want(t, "whoami", b.get("/whoami"), 200, "ada@example.com")
	f.wantCount(t, 1, `_user WHERE email = 'ada@example.com' AND provider_id = ? AND provider_user_id = '42' AND password_hash IS NULL
		AND provider_avatar_url = 'https://img.example/ada.png'`, numberA)
	f.wantCount(t, 1, `_session WHERE method = 'oauth:a' AND cookie = 1`)

	want(t, "second time", f.signIn(f.browser(t), "a"), 200, "logged in")
	f.wantCount(t, 1, `_user`)
	f.wantCount(t, 0, `_one_time`)

	for _, path := range []string{"/oauth/none/login", "/oauth/none/callback", "/oauth/A/login"} {
		want(t, path, b.get(api+path), http.StatusMethodNotAllowed, "")
	}
	want(t, "HEAD", b.do("HEAD", loginPath("a"), "", ""), http.StatusMethodNotAllowed, "")
	want(t, "redirect", b.get(loginPath("a", "redirect_uri", "//evil.example")), 400, "invalid redirect")
}

func TestProviderIdentifierPolicies(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		policy   auth.Identifier
		user     oidctest.User
		status   int
		email    string // GLOB; "" is NULL
		username string
	}{
		{auth.OnlyEmail, oidctest.User{Email: "new@example.com", EmailVerified: true, Username: "ada"}, 200, "new@example.com", ""},
		{auth.OnlyEmail, oidctest.User{Username: "ada"}, 424, "", ""},
		{auth.OnlyEmail, oidctest.User{Email: "not an address", EmailVerified: true}, 424, "", ""},
		{auth.RequireEmail, oidctest.User{Email: "new@example.com", EmailVerified: true, Username: "ada"}, 200, "new@example.com", "ada"},
		{auth.RequireEmail, oidctest.User{Email: "new@example.com", EmailVerified: true, Username: "Jane.Doe-1"}, 200, "new@example.com", "JaneDoe1"},
		{auth.RequireEmail, oidctest.User{Email: "new@example.com", EmailVerified: true, Username: "TAKEN"}, 200, "new@example.com", "TAKEN[0-9]*"},
		{auth.RequireEmail, oidctest.User{Email: "new@example.com", EmailVerified: true, Username: "x"}, 200, "new@example.com", ""},
		{auth.RequireEmail, oidctest.User{Email: "new@example.com", EmailVerified: true, Username: "рayраl"}, 200, "new@example.com", ""},
		{auth.RequireEmail, oidctest.User{Email: "new@example.com", EmailVerified: true, Username: strings.Repeat("x", 1000)}, 200, "new@example.com", ""},
		{auth.RequireEmail, oidctest.User{Username: "ada"}, 424, "", ""},
		{auth.OnlyUsername, oidctest.User{Email: "new@example.com", EmailVerified: true, Username: "ada"}, 200, "", "ada"},
		{auth.OnlyUsername, oidctest.User{}, 200, "", "user[0-9]*"},
		{auth.RequireUsername, oidctest.User{Email: "new@example.com", EmailVerified: true, Username: "taken"}, 200, "new@example.com", "taken[0-9]*"},
		{auth.RequireUsername, oidctest.User{Username: "--"}, 200, "", "user[0-9]*"},
		{auth.RequireEmailAndUsername, oidctest.User{Email: "new@example.com", EmailVerified: true}, 200, "new@example.com", "user[0-9]*"},
		{auth.RequireEmailAndUsername, oidctest.User{Username: "ada"}, 424, "", ""},
		{auth.RequireEmail, oidctest.User{Email: "new@example.com", EmailVerified: false}, 400, "", ""},
	} {
		f := newFederation(t, auth.Config{Identifier: test.policy})
		f.exec(t, `INSERT INTO _user (username) VALUES ('taken')`)
		test.user.Subject = "new"
		f.a.SetUser(test.user)
		r := f.signIn(f.browser(t), "a")
		if r.status != test.status {
			t.Errorf("%v %+v: %d %s", test.policy, test.user, r.status, r.body)
		}
		if test.status == 200 {
			f.wantCount(t, 1, `_user WHERE provider_id = ? AND coalesce(email, '') GLOB ? AND coalesce(username, '') GLOB ?`, numberA, test.email, test.username)
		} else {
			f.wantCount(t, 1, `_user`)
		}
	}
}

func TestProviderAvatar(t *testing.T) {
	t.Parallel()
	f := newFederation(t, auth.Config{})
	for i, picture := range []string{"http://x.example/a.png", "javascript:alert(1)", "https://u:p@x.example/", "https:///x", "data:image/png;base64,AA==", "/x"} {
		f.a.SetUser(oidctest.User{Subject: fmt.Sprint(i), Email: fmt.Sprintf("u%d@example.com", i), EmailVerified: true, Picture: picture})
		want(t, picture, f.signIn(f.browser(t), "a"), 200, "logged in")
	}
	f.wantCount(t, 0, `_user WHERE provider_avatar_url IS NOT NULL`)
}

func TestProviderBeforeCreate(t *testing.T) {
	t.Parallel()
	var mode atomic.Value
	mode.Store("refuse")
	f := newFederation(t, auth.Config{Hooks: auth.Hooks{BeforeCreate: func(_ context.Context, _ *sqlite.Tx, u *auth.NewUser) error {
		if u.Provider == nil || u.Provider.Name != "a" || u.Email != "user@example.com" {
			return fmt.Errorf("unexpected %+v", u)
		}
		switch mode.Load() {
		case "refuse":
			return &auth.Error{Status: http.StatusForbidden, Text: "not for you"}
		case "fail":
			return errors.New("planted")
		case "panic":
			panic("planted")
		}
		u.Admin = true
		return nil
	}}})
	for text, status := range map[string]int{"refuse": 403, "fail": 500, "panic": 500} {
		mode.Store(text)
		if r := f.signIn(f.browser(t), "a"); r.status != status || strings.Contains(r.body, "planted") {
			t.Errorf("%s: %d %s", text, r.status, r.body)
		}
		f.wantCount(t, 0, `_user`)
		f.wantCount(t, 0, `_user_identity`)
	}
	mode.Store("")
	want(t, "let in", f.signIn(f.browser(t), "a"), 200, "logged in")
	f.wantCount(t, 1, `_user WHERE admin = 1`)
}

// Two first sign-ins at the same time make one account.
func TestProviderFirstSignInRace(t *testing.T) {
	t.Parallel()
	f := newFederation(t, auth.Config{})
	var all sync.WaitGroup
	for range 6 {
		b := f.browser(t)
		callback := f.visitProvider(b, "a")
		all.Go(func() { want(t, "callback", b.get(callback), 200, "logged in") })
	}
	all.Wait()
	f.wantCount(t, 1, `_user`)
	f.wantCount(t, 1, `_user_identity`)
	f.wantCount(t, 6, `_session`)
}

func TestProviderImportedAccount(t *testing.T) {
	t.Parallel()
	f := newFederation(t, auth.Config{})
	f.exec(t, `INSERT INTO _user (email, provider_id, provider_user_id) VALUES ('old@example.com', ?, 'sub-1')`, numberA)

	f.b.SetUser(person("sub-1", "old@example.com"))
	want(t, "same subject elsewhere", f.signIn(f.browser(t), "b"), http.StatusConflict, "Sign in to it first")
	f.wantCount(t, 0, `_user_identity`)

	f.a.SetUser(person("sub-1", ""))
	b := f.browser(t)
	want(t, "imported", f.signIn(b, "a"), 200, "logged in")
	want(t, "whoami", b.get("/whoami"), 200, "old@example.com")
	f.wantCount(t, 1, `_user_identity WHERE issuer = ? AND subject = 'sub-1'`, f.a.Issuer)
	f.wantCount(t, 1, `_user`)

	// The operator has put another issuer behind the number: its subjects are
	// other people.
	f.exec(t, `UPDATE _user_identity SET issuer = 'https://former.example'`)
	f.a.SetUser(person("sub-1", "new@example.com"))
	b = f.browser(t)
	want(t, "same subject of a new issuer", f.signIn(b, "a"), 200, "logged in")
	want(t, "whoami", b.get("/whoami"), 200, "new@example.com")
}
