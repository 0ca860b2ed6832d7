package auth_test

import (
	"encoding/base64"
	"encoding/json"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
)

// claims decodes a token without verifying it, as clients do.
func claims(t testing.TB, token string) object {
	t.Helper()
	parts := strings.Split(token, ".")
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var c object
	if err := json.Unmarshal(raw, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestLogin(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	id := s.addUser(t, "ada@example.com")
	b := s.browser(t)
	for _, body := range []object{
		{"email_or_username": "ada@example.com", "password": good},
		{"email": "ADA@example.com", "password": good},
		{"email": "ada@example.com", "password": good, "redirect_uri": nil},
	} {
		r := b.post(api+"/login", body)
		if r.status != 200 {
			t.Fatalf("%v: %d %s", body, r.status, r.body)
		}
		var tokens auth.Tokens
		r.json(t, &tokens)
		if !regexp.MustCompile(`^[A-Za-z0-9]{86}$`).MatchString(tokens.RefreshToken) || len(tokens.CSRFToken) != 20 {
			t.Errorf("tokens %+v", tokens)
		}
		c := claims(t, tokens.AuthToken)
		if c["sub"] != id.String() || c["email"] != "ada@example.com" || c["type"] != 1.0 || c["csrf_token"] != tokens.CSRFToken {
			t.Errorf("claims %v", c)
		}
		if _, ok := c["username"]; !ok || c["username"] != nil || c["admin"] != nil || c["provider"] != 0.0 {
			t.Errorf("claims %v", c)
		}
		if r.header["Set-Cookie"] != nil {
			t.Errorf("a JSON login sets cookies: %v", r.header["Set-Cookie"])
		}
		if got := s.as(t, tokens).get("/whoami").body; got != "ada@example.com" {
			t.Errorf("whoami: %s", got)
		}
	}
	for name, body := range map[string]object{
		"wrong password": {"email": "ada@example.com", "password": "Wrong.horse.7"},
		"unknown":        {"email": "bob@example.com", "password": good},
		"no password":    {"email": "ada@example.com"},
	} {
		if r := b.post(api+"/login", body); r.status != 401 || r.body != "" {
			t.Errorf("%s: %d %q", name, r.status, r.body)
		}
	}
}

func TestLoginForm(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	b := s.browser(t)
	r := b.form(api+"/login", "email", "ada@example.com", "password", good, "redirect_uri", "/in")
	if r.status != 303 || r.location() != "/in" {
		t.Fatalf("%d %s", r.status, r.location())
	}
	for _, c := range r.header["Set-Cookie"] {
		if !strings.Contains(c, "Path=/") || !strings.Contains(c, "HttpOnly") || !strings.Contains(c, "SameSite") {
			t.Errorf("cookie %s", c)
		}
	}
	if got := b.get("/whoami").body; got != "ada@example.com" {
		t.Errorf("whoami: %s", got)
	}
	if r := b.form(api+"/login", "email", "ada@example.com", "password", "x", "redirect_uri", "/in"); r.status != 303 || r.location() != "/in?alert=Login+Failed%3A+401+Unauthorized" {
		t.Errorf("%d %s", r.status, r.location())
	}
}

func TestRefreshWithoutRotation(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	tokens := s.login(t, "ada@example.com")
	b := s.browser(t)
	for range 3 {
		s.clock.Add(59 * time.Minute)
		r := b.post(api+"/refresh", object{"refresh_token": tokens.RefreshToken})
		if r.status != 200 || strings.Contains(r.body, "refresh_token") {
			t.Fatalf("%d %s", r.status, r.body)
		}
		r.json(t, &tokens)
		if got := s.as(t, tokens).get("/whoami").body; got != "ada@example.com" {
			t.Fatalf("whoami: %s", got)
		}
	}
	if r := b.post(api+"/logout", object{"refresh_token": tokens.RefreshToken}); r.status != 200 || r.body != "" {
		t.Errorf("logout: %d %s", r.status, r.body)
	}
	if r := b.post(api+"/refresh", object{"refresh_token": tokens.RefreshToken}); r.status != 401 {
		t.Errorf("refresh after logout: %d", r.status)
	}
	for body, want := range map[string]int{`{}`: 422, `{`: 400, `[]`: 400} {
		if r := b.do("POST", api+"/refresh", "application/json", body); r.status != want {
			t.Errorf("refresh with %s: %d, want %d", body, r.status, want)
		}
	}
	if r := b.form(api+"/refresh", "refresh_token", "x"); r.status != 415 {
		t.Errorf("refresh with a form: %d", r.status)
	}
}

func (s *site) rotate(t testing.TB, token string) (reply, auth.Tokens) {
	t.Helper()
	r := s.browser(t).post(api+"/refresh", object{"refresh_token": token, "rotate": true})
	var tokens auth.Tokens
	if r.status == 200 {
		r.json(t, &tokens)
	}
	return r, tokens
}

func TestB1_StolenRefreshToken(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	first := s.login(t, "ada@example.com")
	_, second := s.rotate(t, first.RefreshToken)
	_, third := s.rotate(t, second.RefreshToken)
	if second.RefreshToken == first.RefreshToken || third.RefreshToken == second.RefreshToken {
		t.Fatal("not rotated")
	}
	s.clock.Add(11 * time.Second)
	if r, _ := s.rotate(t, first.RefreshToken); r.status != 401 {
		t.Errorf("old token: %d", r.status)
	}
	if r, _ := s.rotate(t, third.RefreshToken); r.status != 401 {
		t.Errorf("the family lives on: %d", r.status)
	}
	if got := s.as(t, third).get("/whoami").body; got != "anonymous" {
		t.Errorf("the auth token of a revoked family: %s", got)
	}
}

func TestB3_ParallelRefreshes(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	tokens := s.login(t, "ada@example.com")
	const clients = 200
	var wg sync.WaitGroup
	next := make([]string, clients)
	for i := range clients {
		wg.Go(func() {
			if r, got := s.rotate(t, tokens.RefreshToken); r.status == 200 {
				next[i] = got.RefreshToken
			}
		})
	}
	wg.Wait()
	for _, n := range next {
		if n == "" || n != next[0] {
			t.Fatalf("successors %q and %q", next[0], n)
		}
	}
	if r, _ := s.rotate(t, next[0]); r.status != 200 {
		t.Errorf("the successor: %d", r.status)
	}
}

func TestB4_AbsoluteLifetime(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{RefreshTTL: 48 * time.Hour})
	s.addUser(t, "ada@example.com")
	tokens := s.login(t, "ada@example.com")
	for range 47 {
		s.clock.Add(time.Hour)
		var r reply
		if r, tokens = s.rotate(t, tokens.RefreshToken); r.status != 200 {
			t.Fatalf("refresh: %d", r.status)
		}
	}
	s.clock.Add(time.Hour)
	if r, _ := s.rotate(t, tokens.RefreshToken); r.status != 401 {
		t.Errorf("after its lifetime: %d", r.status)
	}
	if got := s.as(t, tokens).get("/whoami").body; got != "anonymous" {
		t.Errorf("whoami: %s", got)
	}
}

func TestSignInMails(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{SignInMails: true, Proxies: 1})
	s.addUser(t, "ada@example.com")
	from := func(address string) {
		t.Helper()
		r := s.browser(t).with("X-Forwarded-For", address).post(api+"/login", object{"email": "ada@example.com", "password": good})
		if r.status != 200 {
			t.Fatalf("login: %d %s", r.status, r.body)
		}
	}
	notices := func() (n int) {
		for _, m := range s.inbox.to("ada@example.com") {
			if strings.Contains(m.Text, "192.0.2.") {
				n++
			}
		}
		return n
	}
	from("192.0.2.1") // the first device is nothing to write about
	from("192.0.2.1")
	from("192.0.2.2")
	s.inbox.until(t, func() bool { return notices() == 1 })
	from("192.0.2.2")
	from("192.0.2.3")
	s.inbox.until(t, func() bool { return notices() == 2 })
	for _, m := range s.inbox.to("ada@example.com") {
		if strings.Contains(m.Text, "192.0.2.1") {
			t.Errorf("a mail about the first device: %s", m.Text)
		}
	}
}

func TestAnswersToUsersArePrivate(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	b := s.browser(t)
	b.form(api+"/login", "email", "ada@example.com", "password", good)
	r := b.get("/whoami")
	if got := r.header.Get("Cache-Control"); got != "private" || r.header.Get("Vary") != "Cookie" {
		t.Errorf("a user's answer: Cache-Control %q, Vary %q", got, r.header["Vary"])
	}
	if r := s.browser(t).get("/whoami"); r.header.Get("Cache-Control") != "" {
		t.Errorf("everybody's answer: Cache-Control %q", r.header.Get("Cache-Control"))
	}
}

// Scripts of a page hold a refresh token of their own, which the rotation of
// the cookies by another tab does not end.
func TestStatusOfCookies(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	b := s.browser(t)
	b.form(api+"/login", "email", "ada@example.com", "password", good)
	status := func() (tokens auth.Tokens) {
		t.Helper()
		b.get(api+"/status").json(t, &tokens)
		return tokens
	}
	page := status()
	for range 3 {
		s.clock.Add(2 * time.Hour) // the auth cookie has expired, the refresh cookie is rotated
		if got := b.get("/whoami").body; got != "ada@example.com" {
			t.Fatalf("whoami: %s", got)
		}
		if r := s.browser(t).post(api+"/refresh", object{"refresh_token": page.RefreshToken}); r.status != 200 {
			t.Fatalf("the page's refresh token: %d", r.status)
		}
		if again := status(); again.RefreshToken != page.RefreshToken {
			t.Error("another tab gets another refresh token")
		}
	}
	if r, _ := s.rotate(t, page.RefreshToken); r.status != 200 {
		t.Errorf("rotate: %d", r.status)
	}
	if again := status(); again.RefreshToken == page.RefreshToken || s.browser(t).post(api+"/refresh", object{"refresh_token": again.RefreshToken}).status != 200 {
		t.Error("after a rotation there is no refresh token for a new page")
	}
	b.get(api + "/logout")
	if r := s.browser(t).post(api+"/refresh", object{"refresh_token": page.RefreshToken}); r.status != 401 {
		t.Errorf("after the logout: %d", r.status)
	}
}

// More sign-ins at once than a limit has room for wait for each other, since
// none of them has failed.
func TestSimultaneousLogins(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if r := s.browser(t).post(api+"/login", object{"email": "ada@example.com", "password": good}); r.status != 200 {
				t.Errorf("login: %d", r.status)
			}
		})
	}
	wg.Wait()
}
