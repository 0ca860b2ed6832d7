package auth_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
)

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
	other := s.browser(t).with("X-Other", strings.Repeat("x", 900_000))
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
			get := func() {
				if r := b.get(path); r.status != 200 && r.status != 431 || strings.Contains(r.body, "ada") {
					t.Errorf("%s: %s: %d %s", name, path, r.status, r.body)
				}
			}
			if tooSlow(20, func() { other.get(path) }, get) {
				t.Errorf("%s: %s takes twenty times as long as with a header that nobody reads", name, path)
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

// tooSlow reports whether f takes more than factor times as long as something
// else, which is measured at the same time, and does so again and again.
func tooSlow(factor int, than, f func()) bool {
	for range 5 {
		start := time.Now()
		than()
		middle := time.Now()
		f()
		if time.Since(middle) <= time.Duration(factor)*middle.Sub(start) {
			return false
		}
	}
	return true
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
