package auth_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/auth/idp"
	"github.com/bedplate/bedplate/internal/oidctest"
	"github.com/bedplate/bedplate/sqlite"
)

// A registry is an issuer that knows its tokens by heart.
type registry struct {
	name  string
	calls atomic.Int64
	wait  chan struct{} // if not nil, until this is closed
	begun chan struct{} // gets one for each who waits

	mu     sync.Mutex
	tokens map[string]auth.ExternalToken
}

func newRegistry(name string) *registry {
	return &registry{name: name, tokens: map[string]auth.ExternalToken{}}
}

func (i *registry) Name() string { return i.name }

func (i *registry) Verify(ctx context.Context, token string) (auth.ExternalToken, error) {
	i.calls.Add(1)
	if at, ok := ctx.Deadline(); !ok || time.Until(at) > 5*time.Second {
		return auth.ExternalToken{}, errors.New("no deadline")
	}
	if i.wait != nil {
		i.begun <- struct{}{}
		<-i.wait
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	v, ok := i.tokens[token]
	if !ok {
		return v, errors.New("bad token")
	}
	return v, nil
}

// issue returns a new token.
func (i *registry) issue(expires time.Time, identity auth.Identity, padding int) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	token := bearer(i.name, fmt.Sprint(len(i.tokens))+strings.Repeat("x", padding))
	i.tokens[token] = auth.ExternalToken{Identity: identity, Expires: expires.Unix(), Claims: map[string]any{"sub": identity.Subject, "role": "editor"}}
	return token
}

func (i *registry) revoke(token string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.tokens, token)
}

// bearer is the outside of a token that claims an issuer.
func bearer(issuer any, signature string) string {
	payload, err := json.Marshal(object{"iss": issuer})
	if err != nil {
		panic(err)
	}
	return "e30." + base64.RawURLEncoding.EncodeToString(payload) + "." + signature
}

const issuerName = "https://issuer.example"

func newExternal(t *testing.T, cfg auth.Config) (*site, *registry) {
	t.Helper()
	issuer := newRegistry(issuerName)
	cfg.Issuers = []auth.Issuer{issuer, newRegistry("https://other.example")}
	return newSite(t, cfg), issuer
}

// bearing returns a client with a token.
func (s *site) bearing(t testing.TB, token string) *browser {
	return s.browser(t).with("Authorization", "Bearer "+token)
}

// know gives an account an identity.
func (s *site) know(t testing.TB, user auth.UserID, issuer, subject string) {
	t.Helper()
	s.exec(t, `INSERT INTO _user_identity (issuer, subject, user, provider, created, seen) VALUES (?, ?, ?, 0, 0, 0)`, issuer, subject, user[:])
}

func TestExternalToken(t *testing.T) {
	t.Parallel()
	s, issuer := newExternal(t, auth.Config{})
	ada := s.addUser(t, "ada@example.com")
	s.know(t, ada, issuerName, "1")
	good := issuer.issue(s.clock.Now().Add(time.Hour), auth.Identity{Subject: "1"}, 0)
	for range 5 {
		want(t, "good", s.bearing(t, good).get("/whoami"), 200, "ada@example.com")
	}
	want(t, "good", s.bearing(t, good).get("/private"), 200, "ada@example.com")
	if n := issuer.calls.Load(); n != 1 {
		t.Errorf("verified %d times", n)
	}
	s.wantCount(t, 1, `_user_identity WHERE seen > 0`)

	// The subject of one issuer is nobody at another.
	foreign := issuer.issue(s.clock.Now().Add(time.Hour), auth.Identity{Subject: "2", Email: "ada@example.com", EmailVerified: true}, 0)
	want(t, "unknown subject", s.bearing(t, foreign).get("/whoami"), 200, "anonymous")
	want(t, "unknown subject", s.bearing(t, foreign).get("/private"), 401, "")
	for _, bad := range []string{
		bearer(issuerName, "bad"), bearer("https://other.example", "0"), bearer("https://none.example", "0"),
		bearer([]string{issuerName}, "0"), bearer(nil, "0"), good + "x", "a.b", "..", "",
	} {
		want(t, bad, s.bearing(t, bad).get("/whoami"), 200, "anonymous")
	}
	for _, header := range []string{"bearer " + good, "Basic " + good, good, "Bearer  " + good} {
		want(t, header, s.browser(t).with("Authorization", header).get("/whoami"), 200, "anonymous")
	}
	// It is none of our tokens: not in a cookie and not in a header of a session.
	want(t, "cookie", s.browser(t).with("Cookie", "auth_token="+good).get("/whoami"), 200, "anonymous")
	want(t, "status", s.bearing(t, good).get(api+"/status"), 200, `"auth_token":null`)
	want(t, "status", s.bearing(t, good).with("Refresh-Token", "x").get(api+"/status"), 200, `"auth_token":null`)
	s.wantCount(t, 1, `_user`)
}

// With a token of somebody else nothing can be done that belongs to a session.
func TestB11_ExternalTokenIsNoSession(t *testing.T) {
	t.Parallel()
	s, issuer := newExternal(t, auth.Config{Providers: []auth.IdentityProvider{stub{name: "p"}}})
	s.know(t, s.addUser(t, "ada@example.com"), issuerName, "1")
	token := issuer.issue(s.clock.Now().Add(time.Hour), auth.Identity{Subject: "1"}, 0)
	for _, path := range []string{"GET /oauth/identities", "POST /oauth/p/link", "DELETE /oauth/identities/p"} {
		method, path, _ := strings.Cut(path, " ")
		want(t, path, s.bearing(t, token).do(method, api+path, "application/json", "{}"), 401, "")
	}
	// What the application sees.
	var seen *auth.User
	handler := s.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = auth.FromContext(r.Context()) }))
	r, err := http.NewRequestWithContext(t.Context(), "GET", "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	handler.ServeHTTP(httptest.NewRecorder(), r)
	if seen == nil || seen.Credential != auth.External || seen.Session != "" || !seen.Authenticated.IsZero() || seen.Claims["role"] != "editor" {
		t.Errorf("%+v", seen)
	}
}

func TestExternalTokenTimes(t *testing.T) {
	t.Parallel()
	s, issuer := newExternal(t, auth.Config{})
	s.know(t, s.addUser(t, "ada@example.com"), issuerName, "1")
	step := func(what string, d time.Duration, token, body string, calls int64) {
		t.Helper()
		s.clock.Add(d)
		before := issuer.calls.Load()
		want(t, what, s.bearing(t, token).get("/whoami"), 200, body)
		if n := issuer.calls.Load() - before; n != calls {
			t.Errorf("%s: verified %d times, want %d", what, n, calls)
		}
	}
	token := issuer.issue(s.clock.Now().Add(7*time.Minute), auth.Identity{Subject: "1"}, 0)
	step("first", 0, token, "ada@example.com", 1)
	step("a minute later", time.Minute, token, "ada@example.com", 0)
	step("after five", 4*time.Minute, token, "ada@example.com", 1)
	step("before the end", 2*time.Minute-time.Second, token, "ada@example.com", 0)
	issuer.revoke(token) // as the issuer's own check of the time would do
	step("at the end", time.Second, token, "anonymous", 1)
	step("and again", 0, token, "anonymous", 1)

	token = issuer.issue(s.clock.Now().Add(time.Hour), auth.Identity{Subject: "1"}, 0)
	step("first", 0, token, "ada@example.com", 1)
	step("clock set back", -time.Hour, token, "ada@example.com", 1)
	issuer.revoke(token)
	step("withdrawn", 5*time.Minute, token, "anonymous", 1)

	token = issuer.issue(s.clock.Now().Add(-time.Second), auth.Identity{Subject: "1"}, 0)
	step("within the issuer's leeway", 0, token, "ada@example.com", 1)
	step("is not kept", 0, token, "ada@example.com", 1)

	token = issuer.issue(s.clock.Now().Add(time.Hour), auth.Identity{Subject: "1"}, 5000)
	step("long", 0, token, "ada@example.com", 1)
	step("is not kept", 0, token, "ada@example.com", 1)
}

func TestB6_ExternalUserRevoked(t *testing.T) {
	t.Parallel()
	s, issuer := newExternal(t, auth.Config{})
	ada := s.addUser(t, "ada@example.com")
	s.know(t, ada, issuerName, "1")
	token := issuer.issue(s.clock.Now().Add(time.Hour), auth.Identity{Subject: "1"}, 0)
	b := s.bearing(t, token)
	want(t, "first", b.get("/whoami"), 200, "ada@example.com")

	// By somebody else's hand: within 30 seconds.
	s.exec(t, `UPDATE _user SET disabled = 1`)
	s.clock.Add(31 * time.Second)
	want(t, "disabled", b.get("/whoami"), 200, "anonymous")
	s.exec(t, `UPDATE _user SET disabled = 0`)
	s.clock.Add(31 * time.Second)
	want(t, "enabled", b.get("/whoami"), 200, "ada@example.com")

	// By our own: at once.
	s.exec(t, `UPDATE _user SET disabled = 1`)
	if err := s.EndSessions(t.Context(), ada); err != nil {
		t.Fatal(err)
	}
	want(t, "disabled", b.get("/whoami"), 200, "anonymous")
	s.exec(t, `UPDATE _user SET disabled = 0`)
	s.exec(t, `DELETE FROM _user_identity`)
	if err := s.EndSessions(t.Context(), ada); err != nil {
		t.Fatal(err)
	}
	want(t, "unlinked", b.get("/whoami"), 200, "anonymous")
	if n := issuer.calls.Load(); n != 1 {
		t.Errorf("verified %d times", n)
	}
}

func TestExternalProvisioning(t *testing.T) {
	t.Parallel()
	s, issuer := newExternal(t, auth.Config{ProvisionUsers: true, Identifier: auth.RequireEmail, Hooks: auth.Hooks{
		BeforeCreate: func(_ context.Context, _ *sqlite.Tx, u *auth.NewUser) error {
			switch {
			case u.Provider == nil:
				return nil
			case u.Username == "refused":
				return &auth.Error{Status: http.StatusForbidden, Text: "not for you"}
			case u.Provider.Issuer != issuerName:
				return fmt.Errorf("unexpected %+v", u)
			}
			return nil
		},
	}})
	s.addUser(t, "owner@example.com")
	s.exec(t, `INSERT INTO _user (unverified_email, password_hash) VALUES ('free@example.com', 'x')`)
	in := s.clock.Now().Add(time.Hour)
	for _, test := range []struct {
		identity auth.Identity
		email    string // of the account
	}{
		{auth.Identity{Subject: "1", Email: "new@example.com", EmailVerified: true}, "new@example.com"},
		{auth.Identity{Subject: "2", Email: "OWNER@example.com", EmailVerified: true}, ""},
		{auth.Identity{Subject: "3", Email: "unverified@example.com"}, ""},
		{auth.Identity{Subject: "4", Email: "free@example.com", EmailVerified: true}, "free@example.com"},
		{auth.Identity{Subject: "5", Email: "no address", EmailVerified: true}, ""},
		{auth.Identity{Subject: "6"}, ""},
		{auth.Identity{Subject: "7", Username: "ada", AvatarURL: "https://img.example/a.png"}, ""},
	} {
		before := s.count(t, `_user`)
		token := issuer.issue(in, test.identity, 0)
		for range 2 {
			if r := s.bearing(t, token).get("/private"); r.status != 200 {
				t.Errorf("%+v: %d %s", test.identity, r.status, r.body)
			}
		}
		s.wantCount(t, before+1, `_user`)
		s.wantCount(t, 1, `_user u JOIN _user_identity i ON i.user = u.id WHERE i.issuer = ?1 AND i.subject = ?2 AND coalesce(u.email, '') = ?3
			AND provider_id = 0 AND provider_user_id = ?1 || ' ' || ?2`, issuerName, test.identity.Subject, test.email)
	}
	s.wantCount(t, 1, `_user WHERE username = 'ada' AND provider_avatar_url IS NOT NULL`)
	s.wantCount(t, 0, `_user WHERE unverified_email IS NOT NULL OR password_hash = 'x'`)

	for _, subject := range []string{"", strings.Repeat("x", 256), "\xff", "a\x00"} {
		token := issuer.issue(in, auth.Identity{Subject: subject}, 0)
		want(t, "subject", s.bearing(t, token).get("/whoami"), 200, "anonymous")
	}
	want(t, "refused by the hook", s.bearing(t, issuer.issue(in, auth.Identity{Subject: "8", Username: "refused"}, 0)).get("/whoami"), 403, "not for you")

	// An account that was removed comes back as a new one.
	token := issuer.issue(in, auth.Identity{Subject: "1", Email: "new@example.com", EmailVerified: true}, 0)
	want(t, "before", s.bearing(t, token).get("/whoami"), 200, "new@example.com")
	s.exec(t, `DELETE FROM _user WHERE email = 'new@example.com'`)
	s.clock.Add(31 * time.Second)
	want(t, "after", s.bearing(t, token).get("/private"), 200, "new@example.com")
}

func TestExternalProvisioningRace(t *testing.T) {
	t.Parallel()
	s, issuer := newExternal(t, auth.Config{ProvisionUsers: true})
	var all sync.WaitGroup
	for range 20 {
		token := issuer.issue(s.clock.Now().Add(time.Hour), auth.Identity{Subject: "1", Email: "new@example.com", EmailVerified: true}, 0)
		b := s.bearing(t, token)
		all.Go(func() { want(t, "whoami", b.get("/whoami"), 200, "new@example.com") })
	}
	all.Wait()
	s.wantCount(t, 1, `_user`)
}

func TestJ5_BadTokensFloodNothing(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	s, issuer := newExternal(t, auth.Config{ProvisionUsers: true, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for i := range 300 {
		want(t, "bad", s.bearing(t, bearer(issuerName, fmt.Sprint(i))).get("/whoami"), 200, "anonymous")
	}
	if n := strings.Count(log.String(), "bearer token of an issuer refused"); n != 1 {
		t.Errorf("%d lines in the log", n)
	}
	s.wantCount(t, 0, `_user`)

	// An issuer that does not answer has its share of requests and no more;
	// tokens that were verified go on.
	token := issuer.issue(s.clock.Now().Add(time.Hour), auth.Identity{Subject: "1", Email: "ada@example.com", EmailVerified: true}, 0)
	want(t, "good", s.bearing(t, token).get("/whoami"), 200, "ada@example.com")
	issuer.wait, issuer.begun = make(chan struct{}), make(chan struct{}, 200)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			r, err := http.NewRequestWithContext(ctx, "GET", s.url+"/whoami", nil)
			if err != nil {
				t.Error(err)
				return
			}
			r.Header.Set("Authorization", "Bearer "+bearer(issuerName, fmt.Sprint("slow", i)))
			if res, err := http.DefaultClient.Do(r); err == nil {
				_ = res.Body.Close()
			}
		})
	}
	for range 100 {
		<-issuer.begun
	}
	r := s.bearing(t, bearer(issuerName, "one more")).get("/whoami")
	if r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" {
		t.Errorf("one more: %d", r.status)
	}
	want(t, "good", s.bearing(t, token).get("/whoami"), 200, "ada@example.com")
	close(issuer.wait)
	all.Wait()
}

// Tokens of a real issuer, by package idp.
func TestJ2_RealIssuer(t *testing.T) {
	t.Parallel()
	server, other := oidctest.New(t, oidctest.Options{}), oidctest.New(t, oidctest.Options{})
	issuer, err := idp.NewIssuer(idp.IssuerConfig{Issuer: server.Issuer, Audience: []string{"api"}, AllowPrivateAddresses: true})
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, auth.Config{Issuers: []auth.Issuer{issuer}, ProvisionUsers: true})
	sign := func(by *oidctest.Server, claims object) string {
		t.Helper()
		token, err := by.Sign(claims)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	right := func() object {
		return object{"sub": "1", "aud": "api", "email": "ada@example.com", "email_verified": true}
	}
	want(t, "right", s.bearing(t, sign(server, right())).get("/whoami"), 200, "ada@example.com")
	for name, change := range map[string]func(object) (*oidctest.Server, oidctest.Knobs){
		"other audience": func(c object) (*oidctest.Server, oidctest.Knobs) { c["aud"] = "else"; return server, oidctest.Knobs{} },
		"expired": func(c object) (*oidctest.Server, oidctest.Knobs) {
			c["exp"] = time.Now().Add(-time.Hour).Unix()
			return server, oidctest.Knobs{}
		},
		"other's key": func(c object) (*oidctest.Server, oidctest.Knobs) {
			c["iss"] = server.Issuer
			return other, oidctest.Knobs{}
		},
		"other's issuer": func(object) (*oidctest.Server, oidctest.Knobs) { return other, oidctest.Knobs{} },
		"none":           func(object) (*oidctest.Server, oidctest.Knobs) { return server, oidctest.Knobs{Alg: "none"} },
		"HS256":          func(object) (*oidctest.Server, oidctest.Knobs) { return server, oidctest.Knobs{Alg: "HS256"} },
	} {
		claims := right()
		by, knobs := change(claims)
		by.Set(knobs)
		want(t, name, s.bearing(t, sign(by, claims)).get("/whoami"), 200, "anonymous")
		by.Set(oidctest.Knobs{})
	}
	s.wantCount(t, 1, `_user`)
}
