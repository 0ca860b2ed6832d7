package auth_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/internal/oidctest"
)

func TestC1_StateBindsBrowserAndVisit(t *testing.T) {
	t.Parallel()
	f := newFederation(t, auth.Config{})
	b := f.browser(t)
	older := f.visitProvider(b, "a") // its cookie is replaced by the next visit
	callback := f.visitProvider(b, "a")
	other := f.browser(t)
	otherCallback := f.visitProvider(other, "a")
	stranger := f.browser(t)

	for _, test := range []struct {
		name string
		by   *browser
		path string
		text string
	}{
		{"no cookie", stranger, callback, "missing state"},
		{"no state", b, with(t, callback, "state", ""), "missing state"},
		{"unknown state", b, with(t, callback, "state", "x"), "invalid state"},
		{"long state", b, with(t, callback, "state", strings.Repeat("x", 8000)), "invalid state"},
		{"other browser", other, callback, "invalid state"},
		{"state of another browser", b, otherCallback, "invalid state"},
		{"state of a visit before", b, older, "invalid state"},
		{"other provider", b, strings.Replace(callback, "/a/", "/b/", 1), "invalid state"},
		{"two states", b, callback + "&state=x", "invalid state"},
		{"two codes", b, callback + "&code=x", "invalid state"},
		{"cookie as state", b, with(t, callback, "state", "oauth_state"), "invalid state"},
		{"broken query", b, callback + "&x=%zz", "invalid query"},
	} {
		r := test.by.get(test.path)
		want(t, test.name, r, 400, test.text)
		if c := cookies(r); len(c) > 0 {
			t.Errorf("%s: sets %v", test.name, c)
		}
	}
	want(t, "HEAD", b.do("HEAD", callback, "", ""), http.StatusMethodNotAllowed, "")
	f.wantCount(t, 0, `_user`)

	want(t, "the right one", b.get(callback), 200, "logged in")
	want(t, "again", b.get(callback), 400, "missing state")
	want(t, "of the other browser", other.get(otherCallback), 200, "logged in")

	late := f.visitProvider(b, "a")
	f.clock.Add(10*time.Minute + time.Second)
	want(t, "late", b.get(late), 400, "invalid state")
}

// A used state is refused even when the cookie is kept.
func TestC1_StateIsSingleUse(t *testing.T) {
	t.Parallel()
	f := newFederation(t, auth.Config{})
	b := f.browser(t)
	r := b.get(loginPath("a"))
	callback := approve(t, f.site, r.location())
	cookie := "oauth_state=" + cookies(r)["oauth_state"].Value
	var won, refused atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		thief := f.browser(t).with("Cookie", cookie)
		all.Go(func() {
			switch r := thief.get(callback); {
			case r.status == 200:
				won.Add(1)
			case r.status == 400 && r.body == "invalid state":
				refused.Add(1)
			default:
				t.Errorf("%d %s", r.status, r.body)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 || refused.Load() != 7 {
		t.Errorf("%d callbacks won, %d were refused", won.Load(), refused.Load())
	}
	want(t, "again", f.browser(t).with("Cookie", cookie).get(callback), 400, "invalid state")
	f.wantCount(t, 1, `_session`)
}

func TestC2_Nonce(t *testing.T) {
	t.Parallel()
	f := newFederation(t, auth.Config{})
	b := f.browser(t)
	first, second := leave(b, loginPath("a")), leave(b, loginPath("a"))
	for _, name := range []string{"nonce", "state", "code_challenge"} {
		if v := param(t, first, name); len(v) < 43 || v == param(t, second, name) {
			t.Errorf("%s is %q twice, or short", name, v)
		}
	}
	reused := param(t, first, "nonce")
	for name, change := range map[string]func(map[string]any){
		"missing": func(c map[string]any) { delete(c, "nonce") },
		"empty":   func(c map[string]any) { c["nonce"] = "" },
		"other":   func(c map[string]any) { c["nonce"] = "something else" },
		"reused":  func(c map[string]any) { c["nonce"] = reused },
		"list":    func(c map[string]any) { c["nonce"] = []any{c["nonce"]} },
	} {
		f.a.Set(oidctest.Knobs{Claims: change})
		want(t, name, f.signIn(b, "a"), http.StatusFailedDependency, "")
	}
	f.wantCount(t, 0, `_user`)
	f.a.Set(oidctest.Knobs{})
	want(t, "right", f.signIn(b, "a"), 200, "logged in")
}

func TestC3_ProviderPKCE(t *testing.T) {
	t.Parallel()
	f := newFederation(t, auth.Config{})
	victim, attacker := f.browser(t), f.browser(t)
	at := leave(victim, loginPath("a"))
	if param(t, at, "code_challenge_method") != "S256" {
		t.Errorf("no S256 in %q", at)
	}
	for _, secret := range []string{"verifier", "code_verifier", "secret"} {
		if strings.Contains(at, secret+"=") {
			t.Errorf("%q is in the URL", secret)
		}
	}
	// The attacker has the victim's code and brings it to a visit of their own.
	stolen := approve(t, f.site, at)
	own := f.visitProvider(attacker, "a")
	want(t, "injected code", attacker.get(with(t, own, "code", param(t, stolen, "code"))), http.StatusFailedDependency, "")
	f.wantCount(t, 0, `_session`)
}

func TestC3_ClientPKCE(t *testing.T) {
	t.Parallel()
	f := newFederation(t, auth.Config{RedirectSchemes: []string{"app"}})
	verifier := strings.Repeat("v", 43)
	sum := sha256.Sum256([]byte(verifier))
	challenge := base64.RawURLEncoding.EncodeToString(sum[:])
	b := f.browser(t)
	for _, test := range []struct {
		query []string
		text  string
	}{
		{[]string{"response_type", "code", "pkce_code_challenge", challenge}, "missing 'redirect_uri'"},
		{[]string{"response_type", "code", "redirect_uri", "app://x"}, "missing 'pkce_code_challenge'"},
		{[]string{"response_type", "code", "redirect_uri", "app://x", "pkce_code_challenge", "plain"}, "invalid 'pkce_code_challenge'"},
		{[]string{"redirect_uri", "app://x", "pkce_code_challenge", challenge}, "set 'response_type=code'"},
		{[]string{"response_type", "token", "redirect_uri", "app://x", "pkce_code_challenge", challenge}, "set 'response_type=code'"},
		{[]string{"response_type", "id_token"}, "invalid 'response_type'"},
		{[]string{"response_type", "code", "redirect_uri", "other://x", "pkce_code_challenge", challenge}, "invalid redirect"},
	} {
		want(t, fmt.Sprint(test.query), b.get(loginPath("a", test.query...)), 400, test.text)
	}

	r := f.signIn(b, "a", "response_type", "code", "redirect_uri", "app://x?y=1", "pkce_code_challenge", challenge)
	code := param(t, r.location(), "code")
	if r.status != http.StatusSeeOther || !strings.HasPrefix(r.location(), "app://x?y=1&code=") || len(code) != 48 {
		t.Fatalf("%d to %q", r.status, r.location())
	}
	if cookies(r)["auth_token"] != nil {
		t.Error("a code and cookies")
	}
	f.wantCount(t, 0, `_session`)
	client := f.browser(t)
	for _, wrong := range []string{"", challenge, "x" + verifier[1:]} {
		want(t, "verifier "+wrong, client.post(api+"/token", object{"authorization_code": code, "pkce_code_verifier": wrong}), 404, "")
	}
	var tokens auth.Tokens
	client.post(api+"/token", object{"authorization_code": code, "pkce_code_verifier": verifier}).json(t, &tokens)
	want(t, "whoami", f.as(t, tokens).get("/whoami"), 200, "user@example.com")
	want(t, "again", client.post(api+"/token", object{"authorization_code": code, "pkce_code_verifier": verifier}), 404, "")
	want(t, "whoami after reuse", f.as(t, tokens).get("/whoami"), 200, "anonymous")
}

func TestC5_MixUp(t *testing.T) {
	t.Parallel()
	f := newFederation(t, auth.Config{})
	f.a.SetUser(person("1", "victim@example.com"))
	f.b.SetUser(person("1", "attacker@example.com"))
	want(t, "victim", f.signIn(f.browser(t), "a"), 200, "logged in")

	b := f.browser(t)
	callback := f.visitProvider(b, "b")
	swapped := strings.Replace(callback, "/oauth/b/", "/oauth/a/", 1)
	want(t, "at the other's callback", b.get(swapped), 400, "invalid state")
	want(t, "at the other's callback, without iss", b.get(with(t, swapped, "iss", "")), 400, "invalid state")
	want(t, "iss of the other", b.get(with(t, callback, "iss", f.a.Issuer)), 400, "invalid state")
	want(t, "iss of both", b.get(callback+"&iss="+url.QueryEscape(f.a.Issuer)), 400, "invalid state")
	want(t, "right", b.get(callback), 200, "logged in")
	want(t, "whoami", b.get("/whoami"), 200, "attacker@example.com")

	// B says that it is A.
	f.b.Set(oidctest.Knobs{Claims: func(c map[string]any) { c["iss"] = f.a.Issuer }})
	want(t, "foreign issuer", f.signIn(f.browser(t), "b"), http.StatusFailedDependency, "")
	f.wantCount(t, 2, `_user`)
	f.wantCount(t, 2, `_user_identity WHERE subject = '1'`)
}

func TestC7_PreRegisteredAddress(t *testing.T) {
	t.Parallel()
	f := newFederation(t, auth.Config{Identifier: auth.RequireEmail})
	attacker, victim := f.browser(t), f.browser(t)
	for _, name := range []string{"mallory", "trudy"} {
		want(t, "register", attacker.post(api+"/register", object{
			"email": "victim@example.com", "username": name, "password": good, "password_repeat": good,
		}), 200, "registered")
	}
	mail := f.inbox.wait(t, "victim@example.com", 1)
	f.a.SetUser(person("7", "Victim@example.com"))
	want(t, "victim", f.signIn(victim, "a"), 200, "logged in")
	want(t, "whoami", victim.get("/whoami"), 200, "Victim@example.com")

	f.wantCount(t, 3, `_user`)
	f.wantCount(t, 0, `_user WHERE unverified_email IS NOT NULL OR password_hash IS NOT NULL`)
	f.wantCount(t, 0, `_one_time`)
	for _, login := range []object{{"email": "victim@example.com", "password": good}, {"username": "mallory", "password": good}} {
		want(t, "attacker", attacker.post(api+"/login", login), 401, "")
	}
	want(t, "link", attacker.form(api+"/verify_email/confirm/"+token(t, mail)), 400, "invalid token")
	want(t, "whoami", victim.get("/whoami"), 200, "Victim@example.com")
}

func TestC8_NoSilentLink(t *testing.T) {
	t.Parallel()
	f := newFederation(t, auth.Config{})
	f.addUser(t, "owner@example.com")
	f.a.SetUser(person("1", "OWNER@example.com"))
	const conflict = "Sign in to it first"
	want(t, "address of a local account", f.signIn(f.browser(t), "a"), http.StatusConflict, conflict)
	f.login(t, "owner@example.com")
	f.wantCount(t, 0, `_user_identity`)

	f.a.SetUser(person("2", "ada@example.com"))
	want(t, "ada at a", f.signIn(f.browser(t), "a"), 200, "logged in")
	f.b.SetUser(person("2", "ada@example.com"))
	want(t, "ada's address at b", f.signIn(f.browser(t), "b"), http.StatusConflict, conflict)

	// Another address, even one of somebody else, changes nothing.
	for _, email := range []string{"new@example.com", "owner@example.com", ""} {
		f.a.SetUser(person("2", email))
		b := f.browser(t)
		want(t, "ada, now "+email, f.signIn(b, "a"), 200, "logged in")
		want(t, "whoami", b.get("/whoami"), 200, "ada@example.com")
	}
	// And the address of before does not lead to the account.
	f.a.SetUser(person("3", "ada@example.com"))
	want(t, "address of another subject", f.signIn(f.browser(t), "a"), http.StatusConflict, conflict)

	for _, verified := range []any{false, nil, "true", "false", 1, []string{"true"}} {
		f.a.SetUser(oidctest.User{Subject: "4", Email: "free@example.com", EmailVerified: verified})
		want(t, fmt.Sprintf("unverified: %#v", verified), f.signIn(f.browser(t), "a"), 400, "External OAuth user unverified")
	}
	f.a.SetUser(person("", "free@example.com"))
	want(t, "no subject", f.signIn(f.browser(t), "a"), http.StatusFailedDependency, "")
	f.wantCount(t, 2, `_user`)
}

func TestC9_LoginCSRF(t *testing.T) {
	t.Parallel()
	f := newFederation(t, auth.Config{})
	attacker, victim := f.browser(t), f.browser(t)
	f.a.SetUser(person("666", "attacker@example.com"))
	forged := f.visitProvider(attacker, "a")

	want(t, "without a visit", victim.get(forged), 400, "missing state")
	leave(victim, loginPath("a"))
	want(t, "during a visit", victim.with("Sec-Fetch-Site", "cross-site").get(forged), 400, "invalid state")
	want(t, "whoami", victim.get("/whoami"), 200, "anonymous")

	// A link cannot be begun by another site, nor ended in another browser.
	f.addUser(t, "victim@example.com")
	victim.form(api+"/login", "email", "victim@example.com", "password", good)
	want(t, "whoami", victim.get("/whoami"), 200, "victim@example.com")
	for _, header := range []string{"cross-site", "same-site"} {
		r := victim.with("Sec-Fetch-Site", header).form(api + "/oauth/a/link")
		want(t, "link from "+header, r, http.StatusForbidden, "cross-origin")
	}
	r := victim.form(api + "/oauth/a/link")
	if r.status != http.StatusSeeOther {
		t.Fatalf("link: %d %s", r.status, r.body)
	}
	link := approve(t, f.site, r.location()) // the attacker's account at the provider
	want(t, "ended by a stranger", f.browser(t).get(link), 400, "missing state")
	want(t, "ended by the attacker", attacker.get(link), 400, "invalid state")
	f.wantCount(t, 0, `_user_identity`)
}

func TestC14_NothingLeaks(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	f := newFederation(t, auth.Config{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	b := f.browser(t)
	callback := f.visitProvider(b, "a", "redirect_uri", "/welcome")
	r := b.get(callback)
	secrets := []string{param(t, callback, "code"), param(t, callback, "state"), cookies(r)["auth_token"].Value}
	for name, value := range map[string]string{"Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "Location": "/welcome"} {
		if r.header.Get(name) != value {
			t.Errorf("%s is %q", name, r.header.Get(name))
		}
	}
	callback = with(t, f.visitProvider(b, "a"), "code", "planted-code-of-nobody")
	want(t, "bad code", b.get(callback), http.StatusFailedDependency, "")
	secrets = append(secrets, param(t, callback, "state"), "planted-code-of-nobody")
	if !strings.Contains(log.String(), "sign-in at a provider failed") {
		t.Error("the failure is not logged")
	}
	for _, secret := range secrets {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%q is in the log", secret)
		}
	}

	for code, text := range map[string]string{
		"access_denied":             "the sign-in was cancelled at the provider",
		"<script>alert(1)</script>": "the provider refused the sign-in",
	} {
		callback = with(t, f.visitProvider(b, "a"), "error", code, "error_description", "<b>planted</b>", "code", "")
		r := b.get(callback)
		want(t, code, r, 400, text)
		if r.body != text {
			t.Errorf("%q echoes", r.body)
		}
		want(t, "again", b.get(callback), 400, "missing state")
	}
	for _, code := range []string{"", strings.Repeat("x", 5000)} {
		want(t, "code", b.get(with(t, f.visitProvider(b, "a"), "code", code)), 400, "invalid code")
	}
}

// A lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestB7_FixationByProvider(t *testing.T) {
	t.Parallel()
	f := newFederation(t, auth.Config{})
	f.addUser(t, "attacker@example.com")
	attacker := f.browser(t)
	r := attacker.form(api+"/login", "email", "attacker@example.com", "password", good)
	planted := cookies(r)

	// The attacker's cookies are in the victim's browser.
	victim := f.browser(t)
	for _, name := range []string{"auth_token", "refresh_token", "oauth_state"} {
		value := strings.Repeat("x", 43)
		if planted[name] != nil {
			value = planted[name].Value
		}
		victim.client.Jar.SetCookies(mustURL(t, f.url), []*http.Cookie{{Name: name, Value: value, Path: "/"}})
	}
	f.a.SetUser(person("1", "victim@example.com"))
	r = victim.get(loginPath("a"))
	if c := cookies(r)["oauth_state"]; c == nil || c.Value == strings.Repeat("x", 43) {
		t.Error("the planted state is kept")
	}
	r = victim.get(approve(t, f.site, r.location()))
	want(t, "callback", r, 200, "logged in")
	for _, name := range []string{"auth_token", "refresh_token"} {
		if c := cookies(r)[name]; c == nil || c.Value == planted[name].Value {
			t.Errorf("%s is the planted one", name)
		}
	}
	want(t, "victim", victim.get("/whoami"), 200, "victim@example.com")
	want(t, "attacker", attacker.get("/whoami"), 200, "attacker@example.com")
	f.wantCount(t, 2, `_session`)
}

func mustURL(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// Where two providers share a number, it does not tell whose account an
// imported one is, and subjects of the two do not clash.
func TestC8_SharedNumber(t *testing.T) {
	t.Parallel()
	one, two := oidctest.New(t, oidctest.Options{}), oidctest.New(t, oidctest.Options{})
	s := newSite(t, auth.Config{Providers: []auth.IdentityProvider{openID(t, "one", one), openID(t, "two", two)}})
	f := &federation{site: s}
	s.exec(t, `INSERT INTO _user (email, provider_id, provider_user_id) VALUES ('old@example.com', 2, 'x')`)
	for i, p := range []*oidctest.Server{one, two} {
		p.SetUser(person("x", fmt.Sprintf("new%d@example.com", i)))
		b := s.browser(t)
		want(t, "sign in", f.signIn(b, []string{"one", "two"}[i]), 200, "logged in")
		want(t, "whoami", b.get("/whoami"), 200, fmt.Sprintf("new%d@example.com", i))
	}
	s.wantCount(t, 3, `_user`)
}

func TestB13_ProviderCookiesOverHTTPS(t *testing.T) {
	t.Parallel()
	f := newFederation(t, auth.Config{SiteURL: "https://site.example"})
	b := f.browser(t)
	r := b.get(loginPath("a"))
	first := r.header.Values("Set-Cookie")[0]
	if !strings.HasPrefix(first, "__Host-oauth_state=") || !strings.Contains(first, "Secure") {
		t.Errorf("cookie %q", first)
	}
	back := f.browser(t).get(r.location()).location()
	callback := strings.TrimPrefix(back, "https://site.example")
	value := cookies(r)["__Host-oauth_state"].Value
	want(t, "cookie without prefix", f.browser(t).with("Cookie", "oauth_state="+value).get(callback), 400, "missing state")
	want(t, "right", f.browser(t).with("Cookie", "__Host-oauth_state="+value).get(callback), 200, "logged in")
}
