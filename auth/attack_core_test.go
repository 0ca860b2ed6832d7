package auth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/sqlite"
)

// from returns a program that seems to come from an address, for a site with
// one proxy.
func (s *site) from(t testing.TB, address string) *browser {
	return s.browser(t).with("X-Forwarded-For", address)
}

func (b *browser) login(name, password string) int {
	b.t.Helper()
	return b.post(api+"/login", object{"email": name, "password": password}).status
}

func TestA3_RightPasswordWhileLocked(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Proxies: 1})
	s.addUser(t, "ada@example.com")
	attacker := s.from(t, "192.0.2.1")
	for range 10 {
		if got := attacker.login("ada@example.com", "Wrong.horse.7"); got != 401 {
			t.Fatalf("guess: %d", got)
		}
		attacker.login("nobody@example.com", "Wrong.horse.7")
	}
	right := attacker.post(api+"/login", object{"email": "ada@example.com", "password": good})
	for what, body := range map[string]object{
		"wrong":   {"email": "ada@example.com", "password": "Wrong.horse.7"},
		"unknown": {"email": "nobody@example.com", "password": good},
		"case":    {"email": "ADA@EXAMPLE.com", "password": good},
		"either":  {"email_or_username": " ada@example.com ", "password": good},
	} {
		r := attacker.post(api+"/login", body)
		if right.status != 429 || r.status != right.status || r.body != right.body || r.header.Get("Retry-After") != right.header.Get("Retry-After") {
			t.Errorf("%s: %d %q %v, right: %d %q %v", what, r.status, r.body, r.header, right.status, right.body, right.header)
		}
	}
	if right.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	r := attacker.form(api+"/login", "email", "ada@example.com", "password", good, "redirect_uri", "/in")
	if r.status != 303 || r.location() != "/in?alert=Login+Failed%3A+429+Too+Many+Requests" || r.header["Set-Cookie"] != nil {
		t.Errorf("form: %d %s", r.status, r.location())
	}
}

// Thousands of guesses in an hour from 500 addresses, one after the other and
// many at a time: a hundred of them are looked at, and the owner comes in.
func TestA4_ManyAddresses(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Proxies: 1})
	s.addUser(t, "ada@example.com")
	home := s.from(t, "198.51.100.7")
	if got := home.login("ada@example.com", good); got != 200 {
		t.Fatalf("login: %d", got)
	}
	laptop := s.from(t, "203.0.113.5") // its address is not known later, but its cookie is
	s.loginForm(t, laptop, "ada@example.com")

	var looked atomic.Int64
	guess := func(i int) {
		b := s.from(t, fmt.Sprintf("192.0.%d.%d", 2+i%500/250, i%250))
		b.client = home.client // connections
		r := b.post(api+"/login", object{"email": "ada@example.com", "password": fmt.Sprintf("Wrong.horse.%d", i)})
		switch r.status {
		case 401:
			looked.Add(1)
		case 429:
		default:
			t.Errorf("guess %d: %d %s", i, r.status, r.body)
		}
	}
	for minute := range 60 {
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() { guess(minute*50 + i) })
		}
		wg.Wait()
		for i := range 20 {
			guess(minute*50 + 30 + i)
		}
		s.clock.Add(time.Minute)
	}
	if n := looked.Load(); n > 100 || n < 30 {
		t.Errorf("%d guesses were looked at in an hour", n)
	}
	for range 10 {
		s.from(t, "192.0.2.77").login("ada@example.com", "Wrong.horse.7")
	}
	if got := s.from(t, "192.0.2.77").login("ada@example.com", good); got != 429 {
		t.Errorf("the attacker with the right password: %d", got)
	}
	if got := home.login("ada@example.com", good); got != 200 {
		t.Errorf("the owner from a known address: %d", got)
	}
	if got := laptop.with("X-Forwarded-For", "192.0.2.78").login("ada@example.com", good); got != 200 {
		t.Errorf("the owner with a known browser: %d", got)
	}
}

// Who guesses from the owner's own address, as behind one NAT, does not lock
// out the browser that the owner has signed in with.
func TestA4_SharedAddress(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Proxies: 1})
	s.addUser(t, "ada@example.com")
	owner, attacker := s.from(t, "192.0.2.1"), s.from(t, "192.0.2.1")
	s.loginForm(t, owner, "ada@example.com")
	for i := range 200 {
		attacker.login("ada@example.com", "Wrong.horse.7")
		attacker.login(fmt.Sprintf("u%d@example.com", i), "Wrong.horse.7")
	}
	if got := attacker.login("ada@example.com", good); got != 429 {
		t.Errorf("the attacker with the right password: %d", got)
	}
	if got := owner.login("ada@example.com", good); got != 200 {
		t.Errorf("the owner: %d", got)
	}
	// A device that is known to one account says nothing for another.
	s.addUser(t, "eve@example.com")
	if got := owner.login("eve@example.com", good); got != 429 {
		t.Errorf("another account from a known device: %d", got)
	}
}

// One address tries many accounts at the same time.
func TestA4_ParallelSpray(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{
		Proxies: 1, Argon2: auth.Argon2{Memory: 64, Time: 1, Queue: 1000},
		Limits: auth.Limits{AddressFailures: auth.Limit{Events: 120, Per: time.Hour, Burst: 30}},
	})
	b := s.from(t, "192.0.2.1")
	var looked atomic.Int64
	for round := range 5 {
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				if b.login(fmt.Sprintf("u%d-%d@example.com", round, i), "Wrong.horse.7") == 401 {
					looked.Add(1)
				}
			})
		}
		wg.Wait()
		s.clock.Add(30 * time.Second) // one more is allowed
	}
	if n := looked.Load(); n > 35 {
		t.Errorf("%d guesses were looked at, want at most 30 at once and one each half minute", n)
	}
}

func TestA5_MadeUpNames(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Proxies: 1})
	s.addUser(t, "ada@example.com")
	for range 10 {
		s.from(t, "192.0.2.1").login("ada@example.com", "Wrong.horse.7")
	}
	b := s.browser(t)
	for i := range 1500 {
		b.with("X-Forwarded-For", fmt.Sprintf("198.51.%d.%d", i/250, i%250)).login(fmt.Sprintf("u%d@example.com", i), "Wrong.horse.7")
	}
	if err := s.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.from(t, "192.0.2.2").login("ada@example.com", good); got != 429 {
		t.Errorf("made up names push out a limit: %d", got)
	}
	s.clock.Add(2 * time.Hour)
	if err := s.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := s.number(t, `SELECT count(*) FROM _throttle`); n > 1 {
		t.Errorf("%d rows are left when all is forgotten", n)
	}
}

// number returns the one number that a query is about.
func (s *site) number(t testing.TB, query string) (n int) {
	t.Helper()
	err := s.db.View(t.Context(), func(tx *sqlite.Tx) error { return tx.QueryRowContext(t.Context(), query).Scan(&n) })
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestA6_Passwords(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Limits: wideLimits()})
	b := s.browser(t)
	long := func(n int) string { return strings.Repeat("aB3.xyz-", n/8+1)[:n] }
	n := 0
	for _, test := range []struct {
		name, password string
		want           int
		text           string
	}{
		{"empty", "", 400, "Password too short"},
		{"1", "x", 400, "Password too short"},
		{"7", long(7), 400, "Password too short"},
		{"8", long(8), 200, ""},
		{"64", long(64), 200, ""},
		{"72", long(72), 200, ""},
		{"73", long(73), 200, ""},
		{"128", long(128), 200, ""},
		{"129", long(129), 400, "Password too long"},
		{"30 kB", long(30_000), 400, "Password too long"},
		{"NUL", "Correct\x00horse.7", 400, ""},
		{"NFD", "Cafe\u0301.au.lait.7", 200, ""},
		{"emoji", "\U0001f434\U0001f50b\U0001f4ce\U0001f9f7", 200, ""},
	} {
		n++
		email := fmt.Sprintf("u%d@example.com", n)
		r := b.post(api+"/register", object{"email": email, "password": test.password, "password_repeat": test.password})
		if r.status != test.want || test.text != "" && r.body != test.text {
			t.Errorf("%s: %d %s", test.name, r.status, r.body)
		}
		if test.want != 200 {
			continue
		}
		s.exec(t, `UPDATE _user SET email = unverified_email, unverified_email = NULL WHERE unverified_email = ?`, email)
		if got := b.login(email, test.password); got != 200 {
			t.Errorf("%s: login %d", test.name, got)
		}
		for what, other := range map[string]string{"cut": test.password[:len(test.password)-1], "longer": test.password + "x", "upper": strings.ToUpper(test.password) + "X"} {
			if got := b.login(email, other); got != 401 {
				t.Errorf("%s, %s: login %d", test.name, what, got)
			}
		}
	}
	if got := b.login("u12@example.com", "Caf\u00e9.au.lait.7"); got != 200 {
		t.Errorf("NFC of an NFD password: %d", got)
	}
	for name, body := range map[string]string{
		"1 MB":               `{"email":"x@example.com","password":"` + long(1<<20) + `","password_repeat":""}`,
		"unpaired surrogate": `{"email":"x@example.com","password":"\ud800correct.7","password_repeat":"\ud800correct.7"}`,
		"invalid UTF-8":      "{\"email\":\"x@example.com\",\"password\":\"correct\xff.horse\",\"password_repeat\":\"correct\xff.horse\"}",
	} {
		r := b.do("POST", api+"/register", "application/json", body)
		if r.status != 400 && (r.status != 413 || name != "1 MB") {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	if r := b.form(api+"/register", "email", "x@example.com", "password", "correct\xff.horse", "password_repeat", "correct\xff.horse"); r.status != 400 {
		t.Errorf("invalid UTF-8 in a form: %d %s", r.status, r.body)
	}
}

func TestC3_PKCE(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	login := func(params object) reply {
		body := object{"email": "ada@example.com", "password": good}
		for k, v := range params {
			body[k] = v
		}
		return s.browser(t).post(api+"/login", body)
	}
	ok := challenge(verifier)
	for _, test := range []struct {
		name   string
		params object
		text   string
	}{
		{"no redirect", object{"response_type": "code", "pkce_code_challenge": ok}, "missing 'redirect_uri'"},
		{"no challenge", object{"response_type": "code", "redirect_uri": "/in"}, "missing 'pkce_code_challenge'"},
		{"empty", object{"response_type": "code", "redirect_uri": "/in", "pkce_code_challenge": ""}, "missing 'pkce_code_challenge'"},
		{"plain", object{"response_type": "code", "redirect_uri": "/in", "pkce_code_challenge": verifier}, "invalid 'pkce_code_challenge'"},
		{"padded", object{"response_type": "code", "redirect_uri": "/in", "pkce_code_challenge": ok + "="}, "invalid 'pkce_code_challenge'"},
		{"short", object{"response_type": "code", "redirect_uri": "/in", "pkce_code_challenge": ok[:42]}, "invalid 'pkce_code_challenge'"},
		{"line break", object{"response_type": "code", "redirect_uri": "/in", "pkce_code_challenge": ok + "\n"}, "invalid 'pkce_code_challenge'"},
		{"no code", object{"redirect_uri": "/in", "pkce_code_challenge": ok}, "set 'response_type=code' or remove pkce_code_challenge"},
		{"token", object{"response_type": "token", "pkce_code_challenge": ok}, "set 'response_type=code' or remove pkce_code_challenge"},
		{"other type", object{"response_type": "id_token"}, "invalid 'response_type'"},
		{"elsewhere", object{"response_type": "code", "redirect_uri": "//evil.example", "pkce_code_challenge": ok}, "invalid redirect"},
	} {
		if r := login(test.params); r.status != 400 || r.body != test.text {
			t.Errorf("%s: %d %s", test.name, r.status, r.body)
		}
	}
	for name, v := range map[string]string{
		"the challenge": ok, "empty": "", "short": verifier[:42], "long": strings.Repeat("a", 129), "other": verifier + "x", "case": strings.ToUpper(verifier),
	} {
		if r := s.exchange(t, s.code(t, "ada@example.com"), v); r.status != 404 || r.body != "" {
			t.Errorf("verifier %s: %d %s", name, r.status, r.body)
		}
	}
	for _, length := range []int{42, 129} { // RFC 7636 wants 43 to 128
		v := strings.Repeat("v", length)
		r := login(object{"response_type": "code", "redirect_uri": "/in", "pkce_code_challenge": challenge(v)})
		u, _ := url.Parse(r.location())
		if r := s.exchange(t, u.Query().Get("code"), v); r.status != 404 {
			t.Errorf("verifier of %d characters: %d", length, r.status)
		}
	}
	for body, want := range map[string]int{
		`{"authorization_code":"short","pkce_code_verifier":"x"}`: 400,
		`{"authorization_code":"","pkce_code_verifier":"x"}`:      400,
		`{"authorization_code":1,"pkce_code_verifier":"x"}`:       422,
		`{"pkce_code_verifier":"x"}`:                              422,
		`{"authorization_code":"x"}`:                              422,
		`{`:                                                       400,
	} {
		r := s.browser(t).do("POST", api+"/token", "application/json", body)
		if r.status != want || want == 400 && body != "{" && r.body != "invalid auth code" {
			t.Errorf("%s: %d %s", body, r.status, r.body)
		}
	}
	if r := s.browser(t).form(api+"/token", "authorization_code", "x"); r.status != 415 {
		t.Errorf("token by a form: %d", r.status)
	}
	// A code never comes with tokens or cookies, and no token without its verifier.
	r := s.browser(t).form(api+"/login", "email", "ada@example.com", "password", good, "response_type", "code", "redirect_uri", "/in", "pkce_code_challenge", ok)
	if r.status != 303 || r.header["Set-Cookie"] != nil || r.body != "" {
		t.Errorf("a form for a code: %d %v %s", r.status, r.header["Set-Cookie"], r.body)
	}
}

// elsewhere are redirects that lead to another site, or that somebody may read
// so.
var elsewhere = []string{
	"//evil.example", "///evil.example", "/\\evil.example", "\\\\evil.example", "\\/evil.example", "/\t/evil.example", "\t//evil.example", " //evil.example",
	"/%2f%2fevil.example", "/%2F/evil.example", "/%5cevil.example", "/%09/evil.example", "/%0d%0aSet-Cookie:x", "/\r\nSet-Cookie: x=y", "/\x00",
	"https:evil.example", "http:evil.example", "http:/evil.example", "http:///evil.example", "http:\\\\evil.example",
	"https://evil.example", "http://evil.example", "https://site.example", "http://site.example:81/", "http://site.example.evil.example/",
	"http://site.example@evil.example/", "http://evil.example#@site.example", "http://evil.example/http://site.example", "http://evil.example\\@site.example",
	"http://user:pass@site.example/", "http://site.example%2eevil.example", "http://xsite.example/", "http://site.exampl\u0435/", "http://xn--site-9cd.example/", "http://[::1]/",
	"javascript:alert(1)", "JavaScript:alert(1)", "java\nscript:alert(1)", "data:text/html,x", "vbscript:x", "file:///etc/passwd", "blob:x", "about:blank",
	"evil.example", "site.example/x", "x", "?x", "#x", "./x", "../x", "/../x", "/a/../../x", "/%2e%2e/x", "/./x", "/..//evil.example", "http://site.example/..//evil.example",
	"app://ok/exact/more", "app://ok/exac", "APP://ok/exact", "other:x", "myapp:x", "https://ok.example/callback/", "https://ok.example/callback?x", "https://ok.example:443/callback", "https://OK.example/callback", "https://ok.example/callbac",
	"/" + strings.Repeat("a", 3000), "/\u00e9",
}

func TestC6_Redirects(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{
		OTP: true, Anonymous: true, Identifier: auth.RequireEmail, Limits: wideLimits(),
		RedirectURIs: []string{"https://ok.example/callback", "app://ok/exact"}, RedirectSchemes: []string{"myapp"},
	})
	s.addUser(t, "ada@example.com")
	s.addUser(t, "eve@example.com")
	tokens := s.login(t, "ada@example.com")
	var anonymous auth.Tokens
	s.browser(t).post(api+"/login_anonymous", object{}).json(t, &anonymous)

	type route struct {
		method, path string
		header       string // Authorization
		fields       []string
	}
	routes := []route{
		{"POST", "/register", "", []string{"email", "new@example.com", "password", good, "password_repeat", good}},
		{"POST", "/login", "", []string{"email", "ada@example.com", "password", good}},
		{"POST", "/login", "", []string{"email", "ada@example.com", "password", "Wrong.horse.7"}},
		{"POST", "/login_mfa", "", []string{"mfa_token", "x", "totp", "000000"}},
		{"POST", "/promote_anonymous", anonymous.AuthToken, []string{"new_email", "anon@example.com", "new_password", good}},
		{"GET", "/logout", "", nil},
		{"GET", "/logout", s.login(t, "eve@example.com").AuthToken, nil},
		{"GET", "/verify_email/trigger", "", []string{"email", "ada@example.com"}},
		{"GET", "/verify_email/confirm/x", "", nil},
		{"POST", "/verify_email/confirm/x", "", []string{"x", "y"}},
		{"GET", "/change_email/confirm/x", "", nil},
		{"POST", "/change_email/confirm/x", "", []string{"x", "y"}},
		{"POST", "/change_email/request", tokens.AuthToken, []string{"csrf_token", tokens.CSRFToken, "old_email", "ada@example.com", "new_email", "new@example.com"}},
		{"POST", "/change_password", tokens.AuthToken, []string{"old_password", good, "new_password", good, "new_password_repeat", good}},
		{"POST", "/change_username", tokens.AuthToken, []string{"new_username", "ada"}},
		{"POST", "/reset_password/request", "", []string{"email", "ada@example.com"}},
		{"POST", "/reset_password/update", "", []string{"password", good, "password_repeat", good, "password_reset_token", "x"}},
		{"POST", "/otp/request", "", []string{"email", "ada@example.com"}},
		{"POST", "/otp/login", "", []string{"email", "ada@example.com", "code", "AAAAAA"}},
	}
	send := func(rt route, param, uri string, inQuery bool) reply {
		b := s.browser(t)
		if rt.header != "" {
			b = b.with("Authorization", "Bearer "+rt.header)
		}
		if rt.method == "GET" || inQuery {
			q := url.Values{param: {uri}}
			if rt.method == "GET" {
				for i := 0; i+1 < len(rt.fields); i += 2 {
					q.Set(rt.fields[i], rt.fields[i+1])
				}
				return b.get(api + rt.path + "?" + q.Encode())
			}
			return b.form(api+rt.path+"?"+q.Encode(), rt.fields...)
		}
		return b.form(api+rt.path, append(rt.fields[:len(rt.fields):len(rt.fields)], param, uri)...)
	}
	for _, rt := range routes {
		for _, param := range []string{"redirect_uri", "err_redirect_uri", "mfa_redirect_uri"} {
			for i, uri := range elsewhere {
				if param != "redirect_uri" && i%7 != 0 {
					continue
				}
				for _, inQuery := range []bool{true, false} {
					r := send(rt, param, uri, inQuery)
					if r.status >= 500 {
						t.Errorf("%s %s %s=%q: %d", rt.method, rt.path, param, uri, r.status)
					}
					if strings.Contains(r.location(), "evil") || r.location() != "" && strings.Contains(r.location(), url.QueryEscape(uri)) && !strings.HasPrefix(uri, "x") {
						t.Errorf("%s %s %s=%q leads to %s", rt.method, rt.path, param, uri, r.location())
					}
					if param == "redirect_uri" && r.status != 400 && r.status != 404 && rt.path != "/change_username" && rt.path != "/verify_email/confirm/x" && rt.path != "/change_email/confirm/x" {
						t.Errorf("%s %s %s=%q: %d %s %s", rt.method, rt.path, param, uri, r.status, r.location(), r.body)
					}
				}
			}
		}
	}
	for _, uri := range []string{
		"/", "/x", "/x/y?z=1&redirect_uri=//evil", "/x#y", "http://site.example", "http://site.example/x", "https://ok.example/callback", "app://ok/exact", "myapp://anything/x", "/x..y/z.html",
	} {
		r := s.browser(t).form(api+"/login", "email", "ada@example.com", "password", good, "redirect_uri", uri)
		if r.status != 303 || r.location() != uri {
			t.Errorf("%s: %d %s", uri, r.status, r.location())
		}
	}
	// The query wins, and is checked.
	r := s.browser(t).form(api+"/login?redirect_uri=%2Fquery", "email", "ada@example.com", "password", good, "redirect_uri", "//evil.example")
	if r.status != 303 || r.location() != "/query" {
		t.Errorf("query and body: %d %s", r.status, r.location())
	}
	if r := s.browser(t).get("//evil.example/%2e%2e"); strings.Contains(r.location(), "redirect_uri=%2F%2F") {
		t.Errorf("the way back to %s", r.location())
	}
}

// The sign-in page is told the way back as it was asked for, and only on this
// site.
func TestC6_RequireUser(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	h := s.Middleware(s.RequireUser(http.HandlerFunc(whoami)))
	for target, want := range map[string]string{
		"/private?x=1&y=/z":             "/_/auth/login?redirect_uri=%2Fprivate%3Fx%3D1%26y%3D%2Fz",
		"//evil.example/x":              "",
		"/%2fevil.example":              "",
		"/\\evil.example":               "",
		"http://evil.example/x":         "",
		"http://site.example/x":         "/_/auth/login?redirect_uri=http%3A%2F%2Fsite.example%2Fx",
		"/..//evil.example":             "",
		"/" + strings.Repeat("x", 3000): "",
	} {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
		r.RequestURI = target
		r.Header.Set("Accept", "text/html")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if got := w.Header().Get("Location"); got != want || want == "" && w.Code != 401 {
			t.Errorf("%s: %d %s", target, w.Code, got)
		}
	}
}

// crossSite are headers by which a browser tells that a page of another site
// is behind a request.
var crossSite = []http.Header{
	{"Sec-Fetch-Site": {"cross-site"}},
	{"Sec-Fetch-Site": {"same-site"}},
	{"Sec-Fetch-Site": {"cross-site"}, "Origin": {"null"}},
	{"Origin": {"https://evil.example"}},
	{"Origin": {"null"}},
	{"Origin": {"http://site.example.evil.example"}},
	{"Origin": {"http://evil-site.example"}},
}

func (b *browser) withAll(h http.Header) *browser {
	for name := range h {
		b = b.with(name, h.Get(name))
	}
	return b
}

func TestC9_LoginFromAnotherSite(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{OTP: true, Anonymous: true, Limits: wideLimits()})
	s.addUser(t, "eve@example.com")
	for _, h := range crossSite {
		b := s.browser(t).withAll(h)
		if r := b.form(api+"/login", "email", "eve@example.com", "password", good); r.status != 403 || r.header["Set-Cookie"] != nil {
			t.Errorf("%v: %d %v", h, r.status, r.header["Set-Cookie"])
		}
		multipart := "--b\r\nContent-Disposition: form-data; name=\"email\"\r\n\r\neve@example.com\r\n--b\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\n" + good + "\r\n--b--\r\n"
		if r := b.do("POST", api+"/login", "multipart/form-data; boundary=b", multipart); r.status != 403 || r.header["Set-Cookie"] != nil {
			t.Errorf("%v, multipart: %d %v", h, r.status, r.header["Set-Cookie"])
		}
		// What needs no preflight and is no form is no body at all.
		for _, contentType := range []string{"text/plain", "text/plain; application/json", "", "APPLICATION/X-WWW-FORM-URLENCODED"} {
			r := b.do("POST", api+"/login?email=eve@example.com&password="+good, contentType, `{"email":"eve@example.com","password":"`+good+`"}`)
			if r.status != 400 && r.status != 415 || r.header["Set-Cookie"] != nil {
				t.Errorf("%v, %q: %d %s", h, contentType, r.status, r.body)
			}
		}
		// JSON gets tokens and never cookies, and a page of another site cannot read it.
		r := b.post(api+"/login", object{"email": "eve@example.com", "password": good})
		if r.header["Set-Cookie"] != nil || r.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%v, JSON: %v", h, r.header)
		}
	}
}

func TestC10_CrossSiteRequests(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{OTP: true, Anonymous: true, Identifier: auth.RequireEmail, Limits: wideLimits()})
	s.addUser(t, "ada@example.com")
	access, refresh := s.loginForm(t, s.browser(t), "ada@example.com")
	cookies := s.withCookies(t, "auth_token", access, "refresh_token", refresh)
	for _, h := range crossSite {
		b := cookies.withAll(h)
		for path, fields := range map[string][]string{
			"/change_email/request": {"csrf_token", claims(t, access)["csrf_token"].(string), "old_email", "ada@example.com", "new_email", "eve@example.com"},
			"/change_username":      {"new_username", "eve"},
			"/change_password":      {"old_password", good, "new_password", good + "x", "new_password_repeat", good + "x"},
			"/totp/unregister":      {"totp", "000000"},
			"/promote_anonymous":    {"new_password", good},
			"/register":             {"email", "new@example.com", "password", good, "password_repeat", good},
			"/login":                {"email", "ada@example.com", "password", good},
			"/otp/request":          {"email", "ada@example.com"},
			"/logout":               {"refresh_token", refresh},
			"/refresh":              {"refresh_token", refresh},
		} {
			r := b.form(api+path, fields...)
			if r.status != 403 && r.status != 405 && r.status != 415 {
				t.Errorf("%v: form to %s: %d %s", h, path, r.status, r.body)
			}
			if r := b.do("POST", api+path, "text/plain", "x=y"); r.status < 400 || r.status >= 500 {
				t.Errorf("%v: text to %s: %d %s", h, path, r.status, r.body)
			}
			if path == "/login" || path == "/logout" || path == "/register" {
				continue // GET is a page of its own, or nothing
			}
			if r := b.get(api + path); r.status != 405 && r.status != 404 {
				t.Errorf("%v: GET %s: %d", h, path, r.status)
			}
		}
		// The application behind the middleware.
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
			if r := b.do(method, "/whoami", "text/plain", "x"); r.status != 403 || r.body != "cross-origin request" {
				t.Errorf("%v: %s /whoami: %d %s", h, method, r.status, r.body)
			}
			if r := b.do(method, "/private", "", ""); r.status != 403 {
				t.Errorf("%v: %s /private: %d", h, method, r.status)
			}
			// Nobody's cookies, nobody's risk; a bearer token is nothing that a browser adds.
			if r := s.browser(t).withAll(h).do(method, "/whoami", "text/plain", "x"); r.status != 200 || r.body != "anonymous" {
				t.Errorf("%v: %s without cookies: %d", h, method, r.status)
			}
			if r := b.with("Authorization", "Bearer "+access).do(method, "/whoami", "", ""); r.status != 200 || r.body != "ada@example.com" {
				t.Errorf("%v: %s with a bearer token: %d %s", h, method, r.status, r.body)
			}
		}
		if h.Get("Sec-Fetch-Site") != "" {
			if r := b.get(api + "/logout"); r.status != 303 || r.location() != "/_/auth/logout" || r.header["Set-Cookie"] != nil {
				t.Errorf("%v: GET /logout: %d %s", h, r.status, r.location())
			}
		}
		if r := b.do("HEAD", api+"/logout", "", ""); r.header["Set-Cookie"] != nil {
			t.Errorf("%v: HEAD /logout: %d", h, r.status)
		}
	}
	if s.refreshes(t, refresh) != 200 {
		t.Error("the session has ended")
	}
	for _, h := range []http.Header{{"Sec-Fetch-Site": {"same-origin"}}, {"Sec-Fetch-Site": {"none"}}, {"Origin": {siteURL}}, {"Origin": {s.url}}, {}} {
		if r := cookies.withAll(h).do("POST", "/whoami", "", ""); r.status != 200 || r.body != "ada@example.com" {
			t.Errorf("%v: %d %s", h, r.status, r.body)
		}
	}
}

func TestC11_NoCORS(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	access, refresh := s.loginForm(t, s.browser(t), "ada@example.com")
	for _, origin := range []string{"null", "https://evil.example", siteURL + ".evil.example", siteURL} {
		b := s.withCookies(t, "auth_token", access, "refresh_token", refresh).with("Origin", origin)
		for _, path := range []string{api + "/status", api + "/login", "/whoami"} {
			for _, method := range []string{"GET", "OPTIONS"} {
				r := b.with("Access-Control-Request-Method", "POST").do(method, path, "", "")
				for name := range r.header {
					if strings.HasPrefix(name, "Access-Control-") {
						t.Errorf("%s %s from %s: %s", method, path, origin, name)
					}
				}
			}
		}
	}
}

func TestF5_HashFlood(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Proxies: 1, Limits: wideLimits(), Argon2: auth.Argon2{Memory: 16 << 10, Time: 2, Slots: 2, Queue: 8}})
	s.addUser(t, "ada@example.com")
	var wg sync.WaitGroup
	counts := map[int]int{}
	var mu sync.Mutex
	b := s.browser(t)
	for i := range 300 {
		wg.Go(func() {
			c := b.with("X-Forwarded-For", fmt.Sprintf("192.0.2.%d", i%250))
			body := object{"email": fmt.Sprintf("u%d@example.com", i), "password": good, "password_repeat": good}
			r := c.post(api+map[bool]string{true: "/login", false: "/register"}[i%2 == 0], body)
			if r.status == 429 && r.header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			mu.Lock()
			defer mu.Unlock()
			counts[r.status]++
		})
	}
	wg.Wait()
	if counts[429] < 100 || counts[200]+counts[401] == 0 || counts[200]+counts[401]+counts[429] != 300 {
		t.Errorf("statuses %v", counts)
	}
	if got := b.login("ada@example.com", good); got != 200 {
		t.Errorf("after the flood: %d", got)
	}
}

func TestF6_HugeHeaders(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	access, refresh := s.loginForm(t, s.browser(t), "ada@example.com")
	many := strings.Repeat("a=b; ", 10_000) + "auth_token=" + access
	for name, b := range map[string]*browser{
		"dots":          s.browser(t).with("Authorization", "Bearer "+strings.Repeat(".", 900_000)),
		"letters":       s.browser(t).with("Authorization", "Bearer "+strings.Repeat("A", 900_000)),
		"JWT":           s.browser(t).with("Authorization", "Bearer "+access+strings.Repeat("A", 900_000)),
		"key":           s.browser(t).with("Authorization", "Bearer bpk_"+strings.Repeat("A", 900_000)),
		"auth cookie":   s.withCookies(t, "auth_token", strings.Repeat(".", 900_000)),
		"refresh":       s.withCookies(t, "refresh_token", strings.Repeat("x", 900_000)),
		"same cookies":  s.browser(t).with("Cookie", strings.Repeat("auth_token=x; ", 10_000)),
		"device cookie": s.withCookies(t, "device", strings.Repeat("x", 900_000)),
	} {
		for _, path := range []string{"/whoami", api + "/status", api + "/logout"} {
			start := time.Now()
			if r := b.get(path); r.status != 200 && r.status != 431 || strings.Contains(r.body, "ada") {
				t.Errorf("%s: %s: %d %s", name, path, r.status, r.body)
			}
			if d := time.Since(start); d > 2*time.Second {
				t.Errorf("%s: %s takes %v", name, path, d)
			}
		}
	}
	if r := s.browser(t).with("Cookie", many).get("/whoami"); r.status >= 500 {
		t.Errorf("10,000 cookies: %d", r.status)
	}
	if got := s.refreshes(t, refresh+"x"); got != 401 {
		t.Errorf("long refresh token: %d", got)
	}
}

func TestF9_ForwardedFor(t *testing.T) {
	t.Parallel()
	limits := auth.Limits{AddressFailures: auth.Limit{Events: 3, Per: time.Hour}}
	n := 0
	fail := func(b *browser) int { // each for another account
		n++
		return b.login(fmt.Sprintf("u%d@example.com", n), "Wrong.horse.7")
	}
	// Without a proxy no header is believed.
	s := newSite(t, auth.Config{Limits: limits})
	for i, name := range []string{"X-Forwarded-For", "X-Real-IP", "Forwarded", "True-Client-IP", "CF-Connecting-IP", "Fly-Client-IP", "CloudFront-Viewer-Address"} {
		want := 401
		if i >= 3 {
			want = 429
		}
		if got := fail(s.browser(t).with(name, fmt.Sprintf("192.0.2.%d", i))); got != want {
			t.Errorf("%s without a proxy: %d, want %d", name, got, want)
		}
	}
	// With one it is the last entry, whatever stands before it.
	s = newSite(t, auth.Config{Limits: limits, Proxies: 1})
	for i := range 5 {
		want := 401
		if i >= 3 {
			want = 429
		}
		if got := fail(s.from(t, fmt.Sprintf("10.9.8.%d, 192.0.2.1", i))); got != want {
			t.Errorf("entry %d: %d, want %d", i, got, want)
		}
	}
	if got := fail(s.from(t, strings.Repeat("192.0.2.9, ", 10_000)+"192.0.2.2")); got != 401 {
		t.Errorf("another address: %d", got)
	}
}

func TestF10_IPv6Networks(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Limits: auth.Limits{AddressFailures: auth.Limit{Events: 3, Per: time.Hour}}, Proxies: 1})
	for i := range 10 {
		want := 401
		if i >= 3 {
			want = 429
		}
		b := s.from(t, fmt.Sprintf("2001:db8:1:2:%x::%x", i*4099, i+1))
		if got := b.login(fmt.Sprintf("u%d@example.com", i), "Wrong.horse.7"); got != want {
			t.Errorf("address %d of one network: %d, want %d", i, got, want)
		}
	}
	if got := s.from(t, "2001:db8:1:3::1").login("x@example.com", "Wrong.horse.7"); got != 401 {
		t.Errorf("another network: %d", got)
	}
}

func TestJ8_ImportedHash(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	imported, err := bcrypt.GenerateFromPassword([]byte(good), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	stored := func() (hash string) {
		t.Helper()
		err := s.db.View(t.Context(), func(tx *sqlite.Tx) error {
			return tx.QueryRowContext(t.Context(), `SELECT password_hash FROM _user`).Scan(&hash)
		})
		if err != nil {
			t.Fatal(err)
		}
		return hash
	}
	s.exec(t, `UPDATE _user SET password_hash = ?`, string(imported))
	b := s.browser(t)
	if got := b.login("ada@example.com", "Wrong.horse.7"); got != 401 || stored() != string(imported) {
		t.Errorf("wrong password: %d, hash %s", got, stored())
	}
	if got := b.login("ada@example.com", good); got != 200 {
		t.Errorf("imported: %d", got)
	}
	better := stored()
	if !strings.HasPrefix(better, "$argon2id$") {
		t.Errorf("hash %s", better)
	}
	if got := b.login("ada@example.com", good); got != 200 || stored() != better {
		t.Errorf("after the rehash: %d, hash %s", got, stored())
	}
	// Several at the same time: all are right, one of them writes.
	s.exec(t, `UPDATE _user SET password_hash = ?`, string(imported))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if got := s.browser(t).login("ada@example.com", good); got != 200 {
				t.Errorf("at the same time: %d", got)
			}
		})
	}
	wg.Wait()
	// A stronger one is left alone.
	strong := newSite(t, auth.Config{Argon2: auth.Argon2{Memory: 1024, Time: 2, Queue: 100}})
	strong.addUser(t, "ada@example.com")
	err = strong.db.View(t.Context(), func(tx *sqlite.Tx) error {
		return tx.QueryRowContext(t.Context(), `SELECT password_hash FROM _user`).Scan(&better)
	})
	if err != nil {
		t.Fatal(err)
	}
	s.exec(t, `UPDATE _user SET password_hash = ?`, better)
	if got := b.login("ada@example.com", good); got != 200 || stored() != better {
		t.Errorf("stronger: %d, hash %s", got, stored())
	}
}

// Two services with two databases, each below a prefix of the application's.
func TestK1_TwoServices(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	var sites [2]*site
	for i, prefix := range []string{"/a/b", "/c"} {
		s := newSite(t, auth.Config{SiteURL: "http://site.example", Prefix: prefix + "/api/auth/v1", PagesPrefix: prefix + "/_/auth", OTP: true})
		s.addUser(t, "ada@example.com") // at its own server
		mux.Handle(prefix+"/api/auth/v1/", http.StripPrefix(prefix, s.At("/api/auth/v1")))
		mux.Handle(prefix+"/private", s.Middleware(http.StripPrefix(prefix, s.RequireUser(http.HandlerFunc(whoami)))))
		mux.Handle(prefix+"/whoami", http.StripPrefix(prefix, s.Middleware(http.HandlerFunc(whoami))))
		s.url = server.URL + prefix
		sites[i] = s
	}
	one, two := sites[0], sites[1]
	one.browser(t).post(api+"/reset_password/request", object{"email": "ada@example.com", "redirect_uri": "/a/b/home"})
	one.mailed(t, "ada@example.com", "http://site.example/a/b/_/auth/reset_password/update/")
	if r := one.browser(t).post(api+"/register", object{"email": "bob@example.com", "password": good, "password_repeat": good}); r.status != 200 {
		t.Errorf("register: %d %s", r.status, r.body)
	}
	verify := one.mailed(t, "bob@example.com", "http://site.example/a/b/api/auth/v1/verify_email/confirm/")
	if r := two.browser(t).form(api + "/verify_email/confirm/" + verify); r.status != 400 {
		t.Errorf("a token of the other service: %d %s", r.status, r.body)
	}
	if r := one.browser(t).form(api + "/verify_email/confirm/" + verify); r.status != 200 {
		t.Errorf("verify: %d %s", r.status, r.body)
	}
	r := one.browser(t).with("Accept", "text/html").get("/private?x=y")
	if r.status != 303 || r.location() != "/a/b/_/auth/login?redirect_uri=%2Fa%2Fb%2Fprivate%3Fx%3Dy" {
		t.Errorf("RequireUser: %d %s", r.status, r.location())
	}
	access, refresh := one.loginForm(t, one.browser(t), "ada@example.com")
	if got := one.withCookies(t, "auth_token", access, "refresh_token", refresh).whoami(); got != "ada@example.com" {
		t.Errorf("at home: %s", got)
	}
	for name, b := range map[string]*browser{
		"cookies": two.withCookies(t, "auth_token", access, "refresh_token", refresh),
		"bearer":  two.browser(t).with("Authorization", "Bearer "+access),
	} {
		if got := b.whoami(); got != "anonymous" {
			t.Errorf("%s at the other service: %s", name, got)
		}
	}
	if got := two.refreshes(t, refresh); got != 401 {
		t.Errorf("refresh at the other service: %d", got)
	}
	if r := one.withCookies(t, "auth_token", access, "refresh_token", refresh).with("Sec-Fetch-Site", "cross-site").get(api + "/logout"); r.location() != "/a/b/_/auth/logout" {
		t.Errorf("logout leads to %s", r.location())
	}
	if r := one.browser(t).get("/api/auth/v1x/status"); r.status != 404 {
		t.Errorf("beside the prefix: %d", r.status)
	}
}

func TestK5_Hooks(t *testing.T) {
	t.Parallel()
	var fails atomic.Pointer[func() error]
	set := func(f func() error) { fails.Store(&f) }
	set(func() error { return nil })
	hook := func() error { return (*fails.Load())() }
	s := newSite(t, auth.Config{Anonymous: true, Limits: wideLimits(), Hooks: auth.Hooks{
		BeforeCreate: func(ctx context.Context, tx *sqlite.Tx, u *auth.NewUser) error {
			if _, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS made (name TEXT)`); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO made VALUES (?)`, u.Email+u.Username); err != nil {
				return err
			}
			return hook()
		},
		Claims: func(context.Context, *auth.User) (map[string]any, error) { return map[string]any{"x": 1}, hook() },
	}})
	s.addUser(t, "ada@example.com")
	tokens := s.login(t, "ada@example.com")
	made, sessions := s.number(t, `SELECT count(*) FROM made`), s.number(t, `SELECT count(*) FROM _session`)
	b := s.browser(t)
	for name, test := range map[string]struct {
		fail   func() error
		status int
		body   string
	}{
		"panic":           {func() error { panic("at the hook") }, 500, ""},
		"runtime panic":   {func() error { return errors.New(strings.Repeat("x", -1)) }, 500, ""},
		"error":           {func() error { return errors.New("secret of the application") }, 500, ""},
		"Error":           {func() error { return &auth.Error{Status: 402, Text: "pay first"} }, 402, "pay first"},
		"wrapped Error":   {func() error { return fmt.Errorf("x: %w", &auth.Error{Status: 403}) }, 403, ""},
		"retry":           {func() error { return &auth.Error{Status: 503, RetryAfter: 1500 * time.Millisecond} }, 503, ""},
		"Error without":   {func() error { return &auth.Error{} }, 500, ""},
		"Error 200":       {func() error { return &auth.Error{Status: 200, Text: "x"} }, 500, ""},
		"Error 1000":      {func() error { return &auth.Error{Status: 1000} }, 500, ""},
		"nil Error":       {func() error { var e *auth.Error; return e }, 500, ""},
		"full disk":       {func() error { return fmt.Errorf("x: %w", sqlite.ErrDiskFull) }, 507, ""},
		"sqlite mistake":  {func() error { return fmt.Errorf("x: %w", sqlite.ErrBusy) }, 503, ""},
		"cancelled":       {func() error { return context.Canceled }, 503, ""},
		"deadline is out": {func() error { return context.DeadlineExceeded }, 503, ""},
	} {
		set(test.fail)
		for path, body := range map[string]object{
			"/register":        {"email": "new@example.com", "password": good, "password_repeat": good},
			"/login_anonymous": {},
			"/login":           {"email": "ada@example.com", "password": good},
			"/refresh":         {"refresh_token": tokens.RefreshToken},
		} {
			r := b.post(api+path, body)
			if r.status != test.status || r.body != test.body {
				t.Errorf("%s: %s: %d %s", name, path, r.status, r.body)
			}
			if test.status == 503 && r.header.Get("Retry-After") == "" {
				t.Errorf("%s: %s: no Retry-After", name, path)
			}
		}
		// A token that is rotated while the hook fails is not used up in vain.
		s.browser(t).post(api+"/refresh", object{"refresh_token": tokens.RefreshToken, "rotate": true})
		s.clock.Add(11 * time.Second)
		set(func() error { return nil })
		if got := s.refreshes(t, tokens.RefreshToken); got != 200 {
			t.Fatalf("%s: the session is dead: %d", name, got)
		}
	}
	if got := s.number(t, `SELECT count(*) FROM made`); got != made {
		t.Errorf("%d rows of the hook are left, want %d", got, made)
	}
	if got := s.number(t, `SELECT count(*) FROM _session`); got != sessions {
		t.Errorf("%d sessions, want %d", got, sessions)
	}
	if got := s.number(t, `SELECT count(*) FROM _user`); got != 1 {
		t.Errorf("%d users, want 1", got)
	}
}

func TestK5_ClaimsHook(t *testing.T) {
	t.Parallel()
	for name, given := range map[string]map[string]any{
		"reserved":   {"sub": "x"},
		"other case": {"Sid": "x"},
		"folded":     {"\u017fub": "x"},
		"too large":  {"x": strings.Repeat("x", 3000)},
		"not JSON":   {"x": func() {}},
		"NaN":        {"x": nan()},
	} {
		s := newSite(t, auth.Config{Hooks: auth.Hooks{Claims: claimsHook(given)}})
		s.addUser(t, "ada@example.com")
		if r := s.browser(t).post(api+"/login", object{"email": "ada@example.com", "password": good}); r.status != 500 || r.body != "" {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	s := newSite(t, auth.Config{Hooks: auth.Hooks{
		Claims:     claimsHook(map[string]any{"role": "editor", "list": []int{1, 2}, `quote"`: "\u2028</script>"}),
		AfterLogin: func(context.Context, *auth.User) { panic("after login") },
	}})
	s.addUser(t, "ada@example.com")
	if r := s.browser(t).post(api+"/login", object{"email": "ada@example.com", "password": good}); r.status != 500 {
		t.Errorf("a panic after the login: %d", r.status)
	}
}

func nan() float64 {
	zero := 0.0
	return zero / zero
}

func TestBodies(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Limits: wideLimits()})
	s.addUser(t, "ada@example.com")
	b := s.browser(t)
	part := func(name, value string) string {
		return "--b\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + value + "\r\n"
	}
	login := `{"email":"ada@example.com","password":"` + good + `"}`
	form := "email=ada%40example.com&password=" + url.QueryEscape(good)
	multi := part("email", "ada@example.com") + part("password", good)
	for _, test := range []struct {
		name, contentType, body string
		want                    int
	}{
		{"JSON", "application/json", login, 200},
		{"JSON with charset", "application/json; charset=utf-8", login, 200},
		{"JSON with BOM", "application/json", "\ufeff" + login, 400},
		{"JSON and more", "application/json", login + login, 400},
		{"JSON cut", "application/json", login[:len(login)-1], 400},
		{"JSON array", "application/json", "[" + login + "]", 400},
		{"JSON null", "application/json", "null", 400},
		{"JSON empty", "application/json", "", 400},
		{"JSON duplicate", "application/json", `{"email":"eve@example.com",` + login[1:], 400},
		{"JSON escaped duplicate", "application/json", `{"\u0065mail":"eve@example.com",` + login[1:], 400},
		{"JSON other case", "application/json", `{"EMAIL":"eve@example.com",` + login[1:], 200},
		{"JSON deep", "application/json", `{"x":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + `,` + login[1:], 400},
		{"JSON many members", "application/json", `{"x":1` + strings.Repeat(`,"x":1`, 5000) + "}", 400},
		{"JSON other members", "application/json", `{"a":1,"b":[1],"c":{"d":null},"e":true,"rotate":"x",` + login[1:], 200},
		{"JSON number for text", "application/json", `{"email":1,"password":"x"}`, 400},
		{"JSON object for text", "application/json", `{"email":{"$gt":""},"password":{"$gt":""}}`, 400},
		{"JSON array for a password", "application/json", `{"email":"ada@example.com","password":["` + good + `"]}`, 401},
		{"JSON null password", "application/json", `{"email":"ada@example.com","password":null}`, 401},
		{"JSON without a name", "application/json", `{"password":"x"}`, 400},
		{"JSON bad address", "application/json", `{"email":"ada","password":"x"}`, 400},
		{"JSON bad name", "application/json", `{"username":"a'--","password":"x"}`, 400},
		{"form", "application/x-www-form-urlencoded", form, 200},
		{"form duplicate", "application/x-www-form-urlencoded", form + "&email=eve%40example.com", 400},
		{"form bad escape", "application/x-www-form-urlencoded", form + "&x=%zz", 400},
		{"form semicolon", "application/x-www-form-urlencoded", form + ";x=y", 400},
		{"form empty", "application/x-www-form-urlencoded", "", 400},
		{"multipart", "multipart/form-data; boundary=b", multi + "--b--\r\n", 200},
		{"multipart duplicate", "multipart/form-data; boundary=b", multi + part("email", "eve@example.com") + "--b--\r\n", 400},
		{"multipart cut", "multipart/form-data; boundary=b", multi[:len(multi)-5], 400},
		{"multipart without an end", "multipart/form-data; boundary=b", multi, 400},
		{"multipart without a boundary", "multipart/form-data", multi, 400},
		{"multipart of another boundary", "multipart/form-data; boundary=c", multi, 400},
		{"multipart nameless", "multipart/form-data; boundary=b", multi + "--b\r\n\r\nx\r\n--b--\r\n", 400},
		{"multipart file", "multipart/form-data; boundary=b", multi + "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\nx\r\n--b--\r\n", 400},
		{"no type", "", login, 400},
		{"text", "text/plain", login, 400},
		{"XML", "application/xml", "<x/>", 400},
		{"two types", "text/plain, application/json", login, 400},
	} {
		r := b.do("POST", api+"/login", test.contentType, test.body)
		if r.status != test.want || test.want == 400 && r.body == "" || test.want == 401 && r.body != "" {
			t.Errorf("%s: %d %q, want %d", test.name, r.status, r.body, test.want)
		}
	}
	// Too large: by what the request says, and by what comes.
	pad := func(n int) string { return `{"pad":"` + strings.Repeat("x", n) + `",` + login[1:] }
	for path, chunked := range map[string]int{"/login": 400, "/refresh": 413} {
		if r := b.do("POST", api+path, "application/json", pad(63<<10)); r.status == 413 || r.status == 400 {
			t.Errorf("%s of 63 KiB: %d %s", path, r.status, r.body)
		}
		if r := b.do("POST", api+path, "application/json", pad(64<<10)); r.status != 413 && r.status != chunked {
			t.Errorf("%s of more than 64 KiB: %d %s", path, r.status, r.body)
		}
		req, err := http.NewRequestWithContext(t.Context(), "POST", s.url+api+path, struct{ *strings.Reader }{strings.NewReader(pad(64 << 10))})
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = -1
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != chunked {
			t.Errorf("%s of more than 64 KiB in chunks: %d, want %d", path, res.StatusCode, chunked)
		}
	}
	for path, want := range map[string]int{"?%zz": 400, "?a=b;c": 400, "?redirect_uri=%2F": 200} {
		if r := b.post(api+"/login"+path, object{"email": "ada@example.com", "password": good}); r.status != want {
			t.Errorf("query %s: %d %s", path, r.status, r.body)
		}
	}
}

// The rows of the contract's sections 3.4 to 3.9 that no other test has.
func TestContractRegister(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		policy          auth.Identifier
		email, username string
		want            string // "registered", or what is wrong
	}{
		{auth.OnlyEmail, "x@localhost", "", "registered"},
		{auth.OnlyEmail, " x@example.com ", "", "registered"},
		{auth.OnlyEmail, "x@example.com", "xenia", "username not allowed"},
		{auth.OnlyEmail, "", "", "Missing email"},
		{auth.OnlyEmail, "x", "", "Invalid email"},
		{auth.OnlyEmail, "x@example.com\r\nBcc: y@example.com", "", "Invalid email"},
		{auth.RequireEmail, "x@example.com", "xenia", "registered"},
		{auth.RequireEmail, "x@example.com", "", "registered"},
		{auth.RequireEmail, "", "xenia", "Missing email"},
		{auth.OnlyUsername, "", "xenia", "registered"},
		{auth.OnlyUsername, "", "", "Missing username"},
		{auth.OnlyUsername, "x@example.com", "xenia", "Email not allowed"},
		{auth.RequireUsername, "", "xenia", "registered"},
		{auth.RequireUsername, "x@example.com", "xenia", "registered"},
		{auth.RequireUsername, "x@example.com", "", "Missing username"},
		{auth.RequireEmailAndUsername, "x@example.com", "xenia", "registered"},
		{auth.RequireEmailAndUsername, "", "xenia", "Missing Email"},
		{auth.RequireEmailAndUsername, "x@example.com", "", "Missing username"},
		{auth.OnlyUsername, "", "xy", "username too short"},
		{auth.OnlyUsername, "", strings.Repeat("x", 33), "username too long"},
		{auth.OnlyUsername, "", strings.Repeat("x", 32), "registered"},
		{auth.OnlyUsername, "", "1xenia", "username contains invalid characters"},
		{auth.OnlyUsername, "", "xen ia", "username contains invalid characters"},
		{auth.OnlyUsername, "", "x\u0435nia", "username contains invalid characters"}, // Cyrillic in Latin
		{auth.OnlyUsername, "", "Z\u00fcrich8", "registered"},
	} {
		s := newSite(t, auth.Config{Identifier: test.policy})
		r := s.browser(t).post(api+"/register", object{"email": test.email, "username": test.username, "password": good, "password_repeat": good})
		if want := map[bool]int{true: 200, false: 400}[test.want == "registered"]; r.status != want || r.body != test.want {
			t.Errorf("%d %q %q: %d %s, want %s", test.policy, test.email, test.username, r.status, r.body, test.want)
		}
		if test.email == "" && test.want == "registered" { // there is nothing to verify
			if r := s.browser(t).post(api+"/login", object{"email_or_username": strings.ToUpper(test.username), "password": good}); r.status != 200 {
				t.Errorf("login of %s: %d", test.username, r.status)
			}
		}
	}
	s := newSite(t, auth.Config{})
	b := s.browser(t)
	if r := b.post(api+"/register", object{"email": "x@example.com", "password": good, "password_repeat": good + "x"}); r.status != 400 || r.body != "Passwords don't match" {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := b.form(api+"/register", "email", "x@example.com", "password", "x", "password_repeat", "x", "redirect_uri", "/r?a=b#c"); r.status != 303 || r.location() != "/r?a=b&alert=Password+too+short#c" {
		t.Errorf("%d %s", r.status, r.location())
	}
	r := b.post(api+"/register", object{"email": "x@example.com", "password": good, "password_repeat": good, "redirect_uri": "/r"})
	if u, err := url.Parse(r.location()); err != nil || r.status != 303 || u.Path != "/r" || !strings.HasPrefix(u.Query().Get("alert"), "Registered x@example.com. ") {
		t.Errorf("%d %s", r.status, r.location())
	}
	if got := b.login("x@example.com", good); got != 401 {
		t.Errorf("login before the address is verified: %d", got)
	}
	closed := newSite(t, auth.Config{NoPasswords: true})
	if r := closed.browser(t).post(api+"/register", object{"email": "", "redirect_uri": "//x"}); r.status != 403 || r.body != "" {
		t.Errorf("without passwords: %d %s", r.status, r.body)
	}
}

// Who registers with the address of an account learns nothing, owns nothing
// and leaves nothing; the owner is told.
func TestA1_RegisterTakenAddress(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Identifier: auth.RequireEmail})
	s.addUser(t, "ada@example.com")
	b := s.browser(t)
	fresh := b.post(api+"/register", object{"email": "new@example.com", "password": good, "password_repeat": good})
	taken := b.post(api+"/register", object{"email": "ADA@example.com", "username": "intruder", "password": "Evil.horse.7", "password_repeat": "Evil.horse.7"})
	for _, h := range []http.Header{fresh.header, taken.header} {
		h.Del("Date")
	}
	if fresh.status != taken.status || fresh.body != taken.body || fmt.Sprint(fresh.header) != fmt.Sprint(taken.header) {
		t.Errorf("new: %d %s %v, taken: %d %s %v", fresh.status, fresh.body, fresh.header, taken.status, taken.body, taken.header)
	}
	for n := 1; ; n++ {
		m := s.inbox.wait(t, "ada@example.com", n)
		if !strings.Contains(m.Text, "/verify_email/") {
			break // the notice
		}
	}
	for s.number(t, `SELECT count(*) FROM _user WHERE username = 'intruder'`) > 0 {
		time.Sleep(time.Millisecond)
	}
	for _, m := range s.inbox.to("ADA@example.com") {
		t.Errorf("mail to the address as it was written: %s", m.Subject)
	}
	if got := b.login("ada@example.com", "Evil.horse.7"); got != 401 {
		t.Errorf("login: %d", got)
	}
	if got := b.login("ada@example.com", good); got != 200 {
		t.Errorf("login of the owner: %d", got)
	}
}

func TestContractAnonymous(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Anonymous: true, Identifier: auth.RequireEmail})
	b := s.browser(t)
	if r := b.do("POST", api+"/login_anonymous", "", ""); r.status != 400 {
		t.Errorf("without a type: %d", r.status)
	}
	var tokens auth.Tokens
	b.post(api+"/login_anonymous", object{}).json(t, &tokens)
	c := claims(t, tokens.AuthToken)
	if name, _ := c["username"].(string); len(name) != 10 || !strings.HasPrefix(name, "anon") || c["email"] != nil {
		t.Errorf("claims %v", c)
	}
	me := s.as(t, tokens)
	for name, test := range map[string]struct {
		b    *browser
		body object
		want int
		text string
	}{
		"nobody":         {b, object{"new_password": good, "new_email": "x@example.com"}, 401, ""},
		"bad token":      {b.with("Authorization", "Bearer x"), object{"new_password": good, "new_email": "x@example.com"}, 401, ""},
		"no address":     {me, object{"new_password": good}, 400, "Missing email"},
		"short password": {me, object{"new_password": "x", "new_email": "x@example.com"}, 400, "Password too short"},
		"no match":       {me, object{"new_password": good, "new_password_repeat": "x", "new_email": "x@example.com"}, 400, "Passwords don't match"},
	} {
		if r := test.b.post(api+"/promote_anonymous", test.body); r.status != test.want || r.body != test.text {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	if r := me.post(api+"/promote_anonymous", object{"new_password": good, "new_email": "ada@example.com", "new_username": "ada"}); r.status != 200 || r.body != "promoted" {
		t.Errorf("promote: %d %s", r.status, r.body)
	}
	if r := me.post(api+"/promote_anonymous", object{"new_password": good, "new_email": "eve@example.com"}); r.status != 424 || r.body != "" {
		t.Errorf("promote twice: %d %s", r.status, r.body)
	}
	if got := s.refreshes(t, tokens.RefreshToken); got != 401 {
		t.Errorf("refresh before the address is verified: %d", got)
	}
	if got := me.whoami(); got != "ada" {
		t.Errorf("the token that is still good: %s", got)
	}
	verify := s.mailed(t, "ada@example.com", "/verify_email/confirm/")
	if r := b.form(api + "/verify_email/confirm/" + verify); r.status != 200 {
		t.Errorf("verify: %d %s", r.status, r.body)
	}
	if got := b.login("ada@example.com", good); got != 200 {
		t.Errorf("login: %d", got)
	}
	off := newSite(t, auth.Config{})
	if r := off.browser(t).post(api+"/login_anonymous", object{}); r.status != 404 {
		t.Errorf("where it is off: %d", r.status)
	}
}

func TestUnknownRoutes(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	b := s.browser(t)
	for path, want := range map[string]int{
		"": 404, "/": 404, "/x": 404, "/login/": 404, "/login/x/y/z/a/b": 404, "/LOGIN": 404, "/%6cogin": 405, "/verify_email/confirm/": 404, "/register": 405,
	} {
		r := b.get(api + path)
		if r.status != want && path != "" || r.status >= 500 || want == 405 && r.header.Get("Allow") != "POST" {
			t.Errorf("GET %s: %d %s", path, r.status, r.header.Get("Allow"))
		}
	}
	for _, method := range []string{"PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "X"} {
		if r := b.with("X-HTTP-Method-Override", "POST").do(method, api+"/login", "", ""); r.status != 405 || r.body != "" {
			t.Errorf("%s: %d %s", method, r.status, r.body)
		}
	}
	r := b.get(api + "/status")
	for name, want := range map[string]string{"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"} {
		if got := r.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// Two processes share a file: what one revokes the other refuses soon.
func TestB6_OtherProcess(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	tokens := s.login(t, "ada@example.com")
	me := s.as(t, tokens)
	if me.whoami() != "ada@example.com" {
		t.Fatal("not signed in")
	}
	db, err := sqlite.Open(t.Context(), filepath.Clean(s.path), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	cfg := s.cfg
	cfg.KeyFile = s.path + "-key"
	other, err := auth.New(t.Context(), db, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.EndSessions(t.Context(), s.userID(t, "ada@example.com")); err != nil {
		t.Fatal(err)
	}
	s.clock.Add(30 * time.Second)
	if got := me.whoami(); got != "anonymous" {
		t.Errorf("after half a minute: %s", got)
	}
}
