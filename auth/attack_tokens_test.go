package auth_test

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/bits"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
)

// cookies returns the cookies that an answer sets, by name.
func (r reply) cookies() map[string]*http.Cookie {
	set := map[string]*http.Cookie{}
	for _, c := range (&http.Response{Header: r.header}).Cookies() {
		set[c.Name] = c
	}
	return set
}

// whoami returns who the site says the browser is.
func (b *browser) whoami() string {
	b.t.Helper()
	r := b.get("/whoami")
	if r.status != 200 {
		return fmt.Sprintf("status %d", r.status)
	}
	return r.body
}

// withCookies returns a program that sends cookies: name, value, ...
func (s *site) withCookies(t testing.TB, pairs ...string) *browser {
	var list []string
	for i := 0; i+1 < len(pairs); i += 2 {
		list = append(list, pairs[i]+"="+pairs[i+1])
	}
	return s.browser(t).with("Cookie", strings.Join(list, "; "))
}

func (s *site) refreshes(t testing.TB, token string) int {
	t.Helper()
	return s.browser(t).post(api+"/refresh", object{"refresh_token": token}).status
}

// loginForm signs in with cookies and returns them.
func (s *site) loginForm(t testing.TB, b *browser, email string) (access, refresh string) {
	t.Helper()
	r := b.form(api+"/login", "email", email, "password", good)
	if r.status != 200 {
		t.Fatalf("login: %d %s", r.status, r.body)
	}
	c := r.cookies()
	return c["auth_token"].Value, c["refresh_token"].Value
}

func TestB5_Logout(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	for name, logout := range map[string]func(access, refresh string) reply{
		"POST": func(_, refresh string) reply {
			return s.browser(t).post(api+"/logout", object{"refresh_token": refresh})
		},
		"GET with bearer": func(access, _ string) reply {
			return s.browser(t).with("Authorization", "Bearer "+access).get(api + "/logout")
		},
		"GET with cookies": func(access, refresh string) reply {
			return s.withCookies(t, "auth_token", access, "refresh_token", refresh).get(api + "/logout")
		},
		"GET with the refresh cookie alone": func(_, refresh string) reply {
			return s.withCookies(t, "refresh_token", refresh).get(api + "/logout")
		},
		"POST with a rotated token": func(_, refresh string) reply {
			s.rotate(t, refresh)
			return s.browser(t).post(api+"/logout", object{"refresh_token": refresh})
		},
	} {
		access, refresh := s.loginForm(t, s.browser(t), "ada@example.com")
		bearer := s.browser(t).with("Authorization", "Bearer "+access)
		cookies := s.withCookies(t, "auth_token", access, "refresh_token", refresh)
		if bearer.whoami() != "ada@example.com" || cookies.whoami() != "ada@example.com" {
			t.Fatalf("%s: not signed in", name)
		}
		if r := logout(access, refresh); r.status != 200 {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
		if got := bearer.whoami(); got != "anonymous" {
			t.Errorf("%s: bearer token is %s", name, got)
		}
		if got := cookies.whoami(); got != "anonymous" {
			t.Errorf("%s: cookies are %s", name, got)
		}
		if got := s.refreshes(t, refresh); got != 401 {
			t.Errorf("%s: refresh %d", name, got)
		}
		if r := cookies.get(api + "/status"); r.status != 200 || r.body != `{"auth_token":null,"refresh_token":null,"csrf_token":null}` {
			t.Errorf("%s: status %d %s", name, r.status, r.body)
		}
		if r := bearer.with("Refresh-Token", refresh).get(api + "/status"); r.status != 200 || strings.Contains(r.body, "ey") {
			t.Errorf("%s: status by headers %d %s", name, r.status, r.body)
		}
	}
}

// GET ends all sessions of a user, POST the one that is named.
func TestB5_LogoutReach(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	s.addUser(t, "eve@example.com")
	one, two, other := s.login(t, "ada@example.com"), s.login(t, "ada@example.com"), s.login(t, "eve@example.com")
	s.browser(t).post(api+"/logout", object{"refresh_token": one.RefreshToken})
	if s.refreshes(t, one.RefreshToken) != 401 || s.refreshes(t, two.RefreshToken) != 200 {
		t.Error("POST /logout ended too few sessions or too many")
	}
	three := s.login(t, "ada@example.com")
	s.as(t, three).get(api + "/logout")
	if s.refreshes(t, two.RefreshToken) != 401 || s.refreshes(t, three.RefreshToken) != 401 {
		t.Error("GET /logout left a session")
	}
	if s.refreshes(t, other.RefreshToken) != 200 {
		t.Error("somebody else was signed out")
	}
	for _, body := range []object{{"refresh_token": strings.Repeat("x", 86)}, {"refresh_token": ""}, {}} {
		if r := s.browser(t).post(api+"/logout", body); r.status != 200 || r.body != "" {
			t.Errorf("logout with %v: %d %s", body, r.status, r.body)
		}
	}
	if r := s.browser(t).get(api + "/logout"); r.status != 200 || r.body != "logged out" || r.header["Set-Cookie"] != nil {
		t.Errorf("logout of nobody: %d %s %v", r.status, r.body, r.header["Set-Cookie"])
	}
}

func TestB7_Fixation(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	s.addUser(t, "eve@example.com")
	access, refresh := s.loginForm(t, s.browser(t), "eve@example.com")
	victim := s.withCookies(t, "auth_token", access, "refresh_token", refresh) // planted
	newAccess, newRefresh := s.loginForm(t, victim, "ada@example.com")
	if newAccess == access || newRefresh == refresh {
		t.Fatal("the planted tokens stay")
	}
	if claims(t, newAccess)["sid"] == claims(t, access)["sid"] {
		t.Error("the planted session stays")
	}
	if got := s.withCookies(t, "auth_token", access, "refresh_token", refresh).whoami(); got != "eve@example.com" {
		t.Errorf("the planted session is now of %s", got)
	}
	for _, planted := range []string{"auth_token", "refresh_token"} {
		_, refresh := s.loginForm(t, s.withCookies(t, planted, "chosen-by-somebody-else"), "ada@example.com")
		if s.refreshes(t, refresh) != 200 || refresh == "chosen-by-somebody-else" {
			t.Errorf("planted %s: %s", planted, refresh)
		}
	}
}

// challenge is that of a verifier.
func challenge(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

const verifier = "a-verifier-of-at-least-forty-three-characters-0123"

// code signs in with a password and returns an authorization code.
func (s *site) code(t testing.TB, email string) string {
	t.Helper()
	r := s.browser(t).post(api+"/login", object{
		"email": email, "password": good, "response_type": "code", "redirect_uri": "/in", "pkce_code_challenge": challenge(verifier),
	})
	u, err := url.Parse(r.location())
	if err != nil || r.status != 303 || u.Path != "/in" || len(u.Query().Get("code")) != 48 {
		t.Fatalf("login for a code: %d %s %s", r.status, r.location(), r.body)
	}
	return u.Query().Get("code")
}

func (s *site) exchange(t testing.TB, code, verifier string) reply {
	t.Helper()
	return s.browser(t).post(api+"/token", object{"authorization_code": code, "pkce_code_verifier": verifier})
}

// The contract has neither client ids nor a redirect URI in the exchange: the
// verifier is what binds a code to its client. In their places are a user who
// may no longer sign in and a token of another kind.
func TestB9_AuthorizationCode(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	const used, expired, wrongVerifier, disabled, wrongKind = 1, 2, 4, 8, 16
	for bad := range 32 {
		code, verify := s.code(t, "ada@example.com"), verifier
		if bad&used != 0 {
			if r := s.exchange(t, code, verifier); r.status != 200 {
				t.Fatalf("first use: %d %s", r.status, r.body)
			}
		}
		if bad&expired != 0 {
			s.clock.Add(time.Minute)
		}
		if bad&wrongVerifier != 0 {
			verify = strings.ToUpper(verifier)
		}
		if bad&disabled != 0 {
			s.exec(t, `UPDATE _user SET disabled = 1`)
		}
		if bad&wrongKind != 0 {
			s.exec(t, `UPDATE _one_time SET purpose = 'mfa' WHERE purpose = 'code'`)
		}
		r := s.exchange(t, code, verify)
		if want := map[bool]int{true: 200, false: 404}[bad == 0]; r.status != want || bad != 0 && r.body != "" {
			t.Errorf("%05b: %d %s, want %d", bad, r.status, r.body, want)
		}
		s.exec(t, `UPDATE _user SET disabled = 0`)
		s.exec(t, `DELETE FROM _one_time`)
	}
}

func TestB9_SecondUseRevokes(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	other := s.login(t, "ada@example.com")
	for _, second := range []string{verifier, strings.ToUpper(verifier)} {
		code := s.code(t, "ada@example.com")
		var tokens auth.Tokens
		s.exchange(t, code, verifier).json(t, &tokens)
		if got := s.as(t, tokens).whoami(); got != "ada@example.com" {
			t.Fatalf("whoami: %s", got)
		}
		if r := s.exchange(t, code, second); r.status != 404 {
			t.Errorf("second use: %d %s", r.status, r.body)
		}
		if got := s.as(t, tokens).whoami(); got != "anonymous" {
			t.Errorf("the access token after a second use: %s", got)
		}
		if got := s.refreshes(t, tokens.RefreshToken); got != 401 {
			t.Errorf("the refresh token after a second use: %d", got)
		}
	}
	if s.refreshes(t, other.RefreshToken) != 200 {
		t.Error("another session ended, too")
	}
}

func TestB9_ParallelExchange(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	for range 5 {
		code := s.code(t, "ada@example.com")
		var wg sync.WaitGroup
		var successes, failures atomic.Int64
		for range 20 {
			wg.Go(func() {
				switch r := s.exchange(t, code, verifier); r.status {
				case 200:
					successes.Add(1)
				case 404:
					failures.Add(1)
				}
			})
		}
		wg.Wait()
		if successes.Load() != 1 || failures.Load() != 19 {
			t.Errorf("%d successes and %d failures", successes.Load(), failures.Load())
		}
	}
}

// A million would take minutes; what can be told from thousands is whether
// something repeats and whether each character and each bit is as likely as
// the others.
func TestB10_Randomness(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Limits: wideLimits()})
	s.addUser(t, "ada@example.com")
	seen := map[string]bool{}
	fresh := func(kind, v string) {
		t.Helper()
		if seen[v] {
			t.Errorf("%s %s occurs twice", kind, v)
		}
		seen[v] = true
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	counts := make([]int, len(alphabet))
	characters := func(v string, n int) {
		t.Helper()
		if len(v) != n {
			t.Fatalf("%q has %d characters, want %d", v, len(v), n)
		}
		for _, c := range v {
			i := strings.IndexRune(alphabet, c)
			if i < 0 {
				t.Fatalf("%q has the character %q", v, c)
			}
			counts[i]++
		}
	}
	ones, sessionBits := 0, 0
	for range 150 {
		tokens := s.login(t, "ada@example.com")
		for range 5 {
			fresh("refresh token", tokens.RefreshToken)
			characters(tokens.RefreshToken, 86)
			fresh("CSRF token", tokens.CSRFToken)
			characters(tokens.CSRFToken, 20)
			_, tokens = s.rotate(t, tokens.RefreshToken)
		}
		sid := claims(t, tokens.AuthToken)["sid"].(string)
		fresh("session", sid)
		id, err := base64.RawURLEncoding.DecodeString(sid)
		if err != nil || len(id) != 16 {
			t.Fatalf("session %q", sid)
		}
		for _, b := range id {
			ones += bits.OnesCount8(b)
			sessionBits += 8
		}
		code := s.code(t, "ada@example.com")
		fresh("code", code)
		characters(code, 48)
	}
	total := 0
	for _, n := range counts {
		total += n
	}
	chi, mean := 0.0, float64(total)/float64(len(counts))
	for _, n := range counts {
		chi += (float64(n) - mean) * (float64(n) - mean) / mean
	}
	if chi > 140 { // 61 degrees of freedom: once in 10 million
		t.Errorf("the characters are not equally likely: chi square %.0f", chi)
	}
	if d := float64(ones) - float64(sessionBits)/2; d*d > 30*float64(sessionBits)/4 { // 5.5 sigma
		t.Errorf("%d of %d bits of session ids are set", ones, sessionBits)
	}
}

// mailed waits for a mail with a link that has part in its path, and returns
// the token.
func (s *site) mailed(t testing.TB, to, part string) string {
	t.Helper()
	for n := 1; ; n++ {
		if m := s.inbox.wait(t, to, n); strings.Contains(m.Text, part) {
			return token(t, m)
		}
	}
}

// tokenKinds returns one token of each kind, of the user ada.
func tokenKinds(t *testing.T, s *site) map[string]string {
	t.Helper()
	b := s.browser(t)
	tokens := s.login(t, "ada@example.com")
	kinds := map[string]string{
		"access":  tokens.AuthToken,
		"refresh": tokens.RefreshToken,
		"csrf":    tokens.CSRFToken,
		"sid":     claims(t, tokens.AuthToken)["sid"].(string),
		"sub":     claims(t, tokens.AuthToken)["sub"].(string),
		"code":    s.code(t, "ada@example.com"),
		"empty":   "",
		"garbage": "%00'\"--\x7f",
		"dots":    "..",
		"long":    strings.Repeat("A", 7000),
	}
	b.post(api+"/reset_password/request", object{"email": "ada@example.com"})
	s.as(t, tokens).post(api+"/change_email/request", object{"csrf_token": tokens.CSRFToken, "new_email": "new@example.com", "old_email": "ada@example.com"})
	kinds["change"] = token(t, s.inbox.wait(t, "new@example.com", 1))
	b.post(api+"/register", object{"email": "bob@example.com", "password": good, "password_repeat": good})
	kinds["verify"] = token(t, s.inbox.wait(t, "bob@example.com", 1))
	kinds["reset"] = s.mailed(t, "ada@example.com", "/update/")
	// Somebody with a second factor.
	s.addUser(t, "eve@example.com")
	s.exec(t, `UPDATE _user SET totp_secret = 'JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP' WHERE email = 'eve@example.com'`)
	r := b.post(api+"/login", object{"email": "eve@example.com", "password": good})
	var mfa struct {
		MFA string `json:"mfa_token"`
	}
	r.json(t, &mfa)
	if r.status != 403 || len(mfa.MFA) != 48 {
		t.Fatalf("login with a second factor: %d %s", r.status, r.body)
	}
	kinds["mfa"] = mfa.MFA
	return kinds
}

func TestB11_TokensInWrongPlaces(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Limits: wideLimits(), OTP: true})
	s.addUser(t, "ada@example.com")
	kinds := tokenKinds(t, s)
	places := map[string]func(token string) reply{
		"access": func(token string) reply {
			return s.browser(t).with("Authorization", "Bearer "+token).get("/private")
		},
		"access cookie":  func(token string) reply { return s.withCookies(t, "auth_token", token).get("/private") },
		"refresh cookie": func(token string) reply { return s.withCookies(t, "refresh_token", token).get("/private") },
		"access of an auth route": func(token string) reply {
			return s.browser(t).with("Authorization", "Bearer "+token).post(api+"/change_password", object{"old_password": "x", "new_password": good + "x"})
		},
		"refresh": func(token string) reply { return s.browser(t).post(api+"/refresh", object{"refresh_token": token}) },
		"rotate": func(token string) reply {
			return s.browser(t).post(api+"/refresh", object{"refresh_token": token, "rotate": true})
		},
		"code": func(token string) reply { return s.exchange(t, token, verifier) },
		"mfa": func(token string) reply {
			return s.browser(t).post(api+"/login_mfa", object{"mfa_token": token, "totp": "000000"})
		},
		"verify": func(token string) reply {
			return s.browser(t).form(api + "/verify_email/confirm/" + url.PathEscape(token))
		},
		"change": func(token string) reply {
			return s.browser(t).form(api + "/change_email/confirm/" + url.PathEscape(token))
		},
		"reset": func(token string) reply {
			return s.browser(t).post(api+"/reset_password/update", object{"password": good, "password_repeat": good, "password_reset_token": token})
		},
		"otp": func(token string) reply {
			return s.browser(t).post(api+"/otp/login", object{"email": "ada@example.com", "code": token})
		},
		"delete": func(token string) reply {
			return s.browser(t).with("Authorization", "Bearer "+token).do("DELETE", api+"/delete", "", "")
		},
	}
	// Where a token is at home under another name.
	home := map[string][]string{
		"access":  {"access", "access cookie", "access of an auth route", "delete"},
		"refresh": {"refresh", "rotate", "refresh cookie"},
	}
	for place, use := range places {
		for kind, value := range kinds {
			if kind == place || slices.Contains(home[kind], place) {
				continue
			}
			if kind == "garbage" && strings.HasPrefix(place, "access") || kind == "garbage" && place == "delete" || strings.HasSuffix(place, "cookie") && kind == "garbage" {
				value = "%00'--" // what an HTTP client sends at all
			}
			if kind == "dots" && (place == "verify" || place == "change") {
				continue // a path that the mux cleans
			}
			r := use(value)
			switch r.status {
			case 400, 401, 404:
			default:
				t.Errorf("%s as %s: %d %s", kind, place, r.status, r.body)
			}
		}
	}
	// None was used up by that, and each works where it belongs.
	for _, test := range []struct {
		place string
		want  int
	}{{"access", 200}, {"refresh", 200}, {"code", 200}, {"mfa", 401}, {"verify", 200}, {"reset", 200}} {
		if r := places[test.place](kinds[test.place]); r.status != test.want {
			t.Errorf("%s in its own place: %d %s", test.place, r.status, r.body)
		}
	}
}

func TestB13_Cookies(t *testing.T) {
	t.Parallel()
	for site, prefix := range map[string]string{"http://site.example": "", "https://site.example": "__Host-"} {
		s := newSite(t, auth.Config{SiteURL: site, Hooks: auth.Hooks{
			Claims: claimsHook(map[string]any{"x": strings.Repeat("x", 2000)}),
		}})
		long := strings.Repeat("a", 64) + "@" + strings.Repeat(strings.Repeat("b", 61)+".", 3) + "cc"
		s.addUser(t, long)
		r := s.browser(t).form(api+"/login", "email", long, "password", good)
		if r.status != 200 {
			t.Fatalf("login: %d %s", r.status, r.body)
		}
		set := r.cookies()
		if len(set) != 3 {
			t.Errorf("%s: cookies %v", site, r.header["Set-Cookie"])
		}
		for name, age := range map[string]int{"auth_token": 3600, "refresh_token": 30 * 86400, "device": 180 * 86400} {
			c := set[prefix+name]
			if c == nil {
				t.Errorf("%s: no cookie %s%s", site, prefix, name)
				continue
			}
			same := http.SameSiteStrictMode
			if name == "device" {
				same = http.SameSiteLaxMode
			}
			if !c.HttpOnly || c.Secure != (prefix != "") || c.Path != "/" || c.Domain != "" || c.SameSite != same || c.MaxAge != age {
				t.Errorf("%s: %s", site, c.Raw)
			}
			if len(c.Raw) > 4096 {
				t.Errorf("%s: cookie %s has %d bytes, browsers take 4,096", site, name, len(c.Raw))
			}
		}
		// Without the prefix a cookie may come from anywhere.
		plain := s.withCookies(t, "auth_token", set[prefix+"auth_token"].Value, "refresh_token", set[prefix+"refresh_token"].Value)
		if got, want := plain.whoami(), map[string]string{"": long, "__Host-": "anonymous"}[prefix]; got != want {
			t.Errorf("%s: cookies without a prefix are %s", site, got)
		}
		own := s.withCookies(t, prefix+"auth_token", set[prefix+"auth_token"].Value, prefix+"refresh_token", set[prefix+"refresh_token"].Value)
		if got := own.whoami(); got != long {
			t.Errorf("%s: own cookies are %s", site, got)
		}
		r = own.get(api + "/logout")
		for name, c := range r.cookies() {
			if c.MaxAge >= 0 || c.Value != "" || c.Path != "/" || c.Secure != (prefix != "") || !strings.HasPrefix(name, prefix) {
				t.Errorf("%s: removal %s", site, c.Raw)
			}
		}
		if len(r.cookies()) != 2 {
			t.Errorf("%s: logout removes %v", site, r.header["Set-Cookie"])
		}
	}
}

// What an operator does by SQL is noticed within half a minute for bearer
// tokens, and at once for cookies.
func TestB6_ChangesBySQL(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]string{
		"disabled": `UPDATE _user SET disabled = 1`,
		"deleted":  `DELETE FROM _user`,
		"revoked":  `DELETE FROM _session`,
		"demoted":  `UPDATE _user SET admin = 0`,
	} {
		s := newSite(t, auth.Config{})
		s.addUser(t, "ada@example.com")
		s.exec(t, `UPDATE _user SET admin = 1`)
		access, refresh := s.loginForm(t, s.browser(t), "ada@example.com")
		bearer := s.browser(t).with("Authorization", "Bearer "+access)
		cookies := s.withCookies(t, "auth_token", access, "refresh_token", refresh)
		if a, b := bearer.get("/admin").status, cookies.get("/admin").status; a != 200 || b != 200 {
			t.Fatalf("admin: %d and %d", a, b)
		}
		if name == "demoted" && claims(t, access)["admin"] != true {
			t.Error("no admin claim")
		}
		s.exec(t, change)
		want := 401
		if name == "demoted" {
			want = 403
		}
		if got := cookies.get("/admin").status; got != want {
			t.Errorf("%s: cookies %d", name, got)
		}
		s.clock.Add(30 * time.Second)
		if got := bearer.get("/admin").status; got != want {
			t.Errorf("%s: bearer %d", name, got)
		}
		if got, want := s.refreshes(t, refresh), map[bool]int{true: 200, false: 401}[name == "demoted"]; got != want {
			t.Errorf("%s: refresh %d", name, got)
		}
		if got, want := s.browser(t).post(api+"/login", object{"email": "ada@example.com", "password": good}).status, map[bool]int{true: 200, false: 401}[name == "demoted" || name == "revoked"]; got != want {
			t.Errorf("%s: login %d", name, got)
		}
	}
}
