package auth_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
)

// The cache knows tokens of both, and tells them apart.
func TestCredentialOfCachedToken(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	tokens := s.login(t, "ada@example.com")
	credential := func(header, value string) (got auth.Credential) {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
		r.Header.Set(header, value)
		s.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if u := auth.FromContext(r.Context()); u != nil {
				got = u.Credential
			}
		})).ServeHTTP(httptest.NewRecorder(), r)
		return got
	}
	for range 2 {
		if got := credential("Cookie", "auth_token="+tokens.AuthToken); got != auth.Cookie {
			t.Errorf("cookie: %d", got)
		}
		if got := credential("Authorization", "Bearer "+tokens.AuthToken); got != auth.Bearer {
			t.Errorf("bearer: %d", got)
		}
	}
}

func TestB3_SilentCookieRefreshes(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	access, refresh := s.loginForm(t, s.browser(t), "ada@example.com")
	s.clock.Add(62 * time.Minute)
	b := s.withCookies(t, "auth_token", access, "refresh_token", refresh)
	var wg sync.WaitGroup
	next := make([]string, 50)
	for i := range next {
		wg.Go(func() {
			r := b.get("/whoami")
			if r.body != "ada@example.com" || r.cookies()["auth_token"] == nil || r.cookies()["refresh_token"] == nil {
				t.Errorf("%d %s, cookies %v", r.status, r.body, r.header["Set-Cookie"])
				return
			}
			next[i] = r.cookies()["refresh_token"].Value
		})
	}
	wg.Wait()
	for _, n := range next {
		if n != next[0] || n == refresh {
			t.Fatalf("successors %q and %q", n, next[0])
		}
	}
	s.clock.Add(30 * time.Second)
	if got := s.withCookies(t, "refresh_token", next[0]).whoami(); got != "ada@example.com" {
		t.Errorf("the successor: %s", got)
	}
	if got := s.withCookies(t, "refresh_token", refresh).whoami(); got != "anonymous" {
		t.Errorf("the predecessor after the grace: %s", got)
	}
	if got := s.withCookies(t, "refresh_token", next[0]).whoami(); got != "anonymous" {
		t.Errorf("the family after reuse: %s", got)
	}
}

// A bearer token is never renewed on the way, nor are cookies beside one.
func TestAuthorizationHeaderAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	access, refresh := s.loginForm(t, s.browser(t), "ada@example.com")
	cookies := s.withCookies(t, "auth_token", access, "refresh_token", refresh)
	for _, header := range []string{"", "Bearer", "Bearer ", "bearer " + access, "Bearer  " + access, "Basic " + access, "Bearer x.y.z", access} {
		b := cookies.with("Authorization", header)
		if r := b.get("/whoami"); r.body != "anonymous" || r.header["Set-Cookie"] != nil {
			t.Errorf("Authorization %q: %s, cookies %v", header, r.body, r.header["Set-Cookie"])
		}
		if r := b.get(api + "/status"); r.status != 200 || r.body != `{"auth_token":null,"refresh_token":null,"csrf_token":null}` || r.header["Set-Cookie"] != nil {
			t.Errorf("Authorization %q: status %s", header, r.body)
		}
	}
	two := cookies.with("X", "")
	two.header["Authorization"] = []string{"Bearer " + access, "Bearer " + access}
	if got := two.whoami(); got != "anonymous" {
		t.Errorf("two headers: %s", got)
	}
	if r := two.get(api + "/status"); strings.Contains(r.body, "ey") {
		t.Errorf("two headers: status %s", r.body)
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	access, refresh := s.loginForm(t, s.browser(t), "ada@example.com")
	type status struct {
		Auth    *string `json:"auth_token"`
		Refresh *string `json:"refresh_token"`
		CSRF    *string `json:"csrf_token"`
	}
	get := func(b *browser) (reply, status) {
		t.Helper()
		var got status
		r := b.get(api + "/status")
		if r.status == 200 {
			r.json(t, &got)
		}
		return r, got
	}
	s.clock.Add(10 * time.Minute)
	bearer := s.browser(t).with("Authorization", "Bearer "+access)
	for name, b := range map[string]*browser{"bearer": bearer, "cookie": s.withCookies(t, "auth_token", access)} {
		_, got := get(b)
		if got.Auth == nil || got.Refresh != nil || got.CSRF == nil {
			t.Errorf("%s: %+v", name, got)
		} else if before, after := claims(t, access), claims(t, *got.Auth); before["exp"] != after["exp"] || after["csrf_token"] != *got.CSRF {
			t.Errorf("%s alone: the token lives until %v instead of %v", name, after["exp"], before["exp"])
		}
	}
	r, got := get(bearer.with("Refresh-Token", refresh))
	if got.Auth == nil || got.Refresh == nil || *got.Refresh != refresh || claims(t, *got.Auth)["exp"] == claims(t, access)["exp"] || r.header["Set-Cookie"] != nil {
		t.Errorf("headers: %s", r.body)
	}
	if r, _ := get(bearer.with("Refresh-Token", strings.Repeat("x", 86))); r.status != 401 || r.body != "" {
		t.Errorf("dead refresh token: %d %s", r.status, r.body)
	}
	if _, got := get(s.browser(t).with("Authorization", "Bearer x").with("Refresh-Token", refresh)); got.Auth != nil {
		t.Error("a bad auth token is refreshed")
	}
	r, got = get(s.withCookies(t, "auth_token", access, "refresh_token", refresh))
	if got.Auth == nil || got.Refresh == nil || r.cookies()["auth_token"].Value != *got.Auth || r.cookies()["refresh_token"].Value == *got.Refresh {
		t.Errorf("cookies: %s %v", r.body, r.header["Set-Cookie"])
	}
	if !strings.Contains(r.header.Get("Cache-Control"), "no-store") || r.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("headers %v", r.header)
	}
}
