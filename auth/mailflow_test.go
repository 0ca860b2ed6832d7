package auth_test

import (
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/sqlite"
)

// register asks for an account with the password good and further members.
func (s *site) register(t testing.TB, email string, pairs ...string) {
	t.Helper()
	body := object{"email": email, "password": good, "password_repeat": good}
	for i := 0; i+1 < len(pairs); i += 2 {
		body[pairs[i]] = pairs[i+1]
	}
	if r := s.browser(t).post(api+"/register", body); r.status != 200 && r.status != 303 {
		t.Fatalf("register: %d %s", r.status, r.body)
	}
}

// member makes an account by registration and the link in its first mail.
func (s *site) member(t testing.TB, email string) auth.UserID {
	t.Helper()
	s.register(t, email)
	s.browser(t).form(api+"/verify_email/confirm/"+token(t, s.inbox.wait(t, email, 1))).want(t, "verify", 200, "email verified")
	return s.userID(t, email)
}

// flush waits until all mails that were asked for are sent: one that is asked
// for after them is.
func (s *site) flush(t testing.TB, pairs ...string) {
	t.Helper()
	address := strings.ToLower(rand.Text()) + "@flush.example"
	s.register(t, address, pairs...)
	s.inbox.wait(t, address, 1)
}

// parallel runs f n times at the same time and returns how often each status came.
func parallel(n int, f func(i int) reply) map[int]int {
	var mu sync.Mutex
	var wg sync.WaitGroup
	got := map[int]int{}
	for i := range n {
		wg.Go(func() {
			r := f(i)
			mu.Lock()
			defer mu.Unlock()
			got[r.status]++
		})
	}
	wg.Wait()
	return got
}

// want checks a status and, unless it is "*", a body.
func (r reply) want(t testing.TB, what string, status int, body string) {
	t.Helper()
	if r.status != status || body != "*" && r.body != body {
		t.Errorf("%s: %d %q, want %d %q", what, r.status, r.body, status, body)
	}
}

// wantRedirect checks for a 303 to a place.
func (r reply) wantRedirect(t testing.TB, what, location string) {
	t.Helper()
	if r.status != 303 || r.location() != location {
		t.Errorf("%s: %d to %q, want 303 to %q", what, r.status, r.location(), location)
	}
}

// link returns the URL in a mail, on the test's server.
func (s *site) link(t testing.TB, m auth.Message) string {
	t.Helper()
	found := regexp.MustCompile(regexp.QuoteMeta(siteURL) + `(/\S+)`).FindStringSubmatch(m.Text)
	if found == nil {
		t.Fatalf("no link in %q", m.Text)
	}
	return found[1]
}

func (s *site) tryLogin(t testing.TB, email, password string) int {
	t.Helper()
	return s.browser(t).post(api+"/login", object{"email": email, "password": password}).status
}

func TestVerifyEmail(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.register(t, "ada@example.com", "redirect_uri", "/welcome?x=1")
	if got := s.tryLogin(t, "ada@example.com", good); got != 401 {
		t.Errorf("login before verification: %d", got)
	}
	link := s.link(t, s.inbox.wait(t, "ada@example.com", 1))
	path, _, _ := strings.Cut(link, "?")
	b := s.browser(t)
	b.get(link).want(t, "page", 200, "*")
	b.get(path+"?redirect_uri=//evil.example").want(t, "page with a bad redirect", 400, "invalid redirect")
	b.form(path+"?redirect_uri=//evil.example").want(t, "confirm with a bad redirect", 400, "invalid redirect")
	b.form(api+"/verify_email/confirm/"+strings.Repeat("x", 48)).want(t, "unknown token", 400, "invalid token")
	b.form(api+"/verify_email/confirm/short").want(t, "short token", 400, "invalid token")
	if got := s.tryLogin(t, "ada@example.com", good); got != 401 {
		t.Errorf("login before verification: %d", got)
	}
	b.form(link).wantRedirect(t, "confirm", "/welcome?x=1&alert=email+verified")
	b.form(link).want(t, "confirm again", 400, "invalid token")
	s.login(t, "ada@example.com")
}

func TestVerifyEmailPlain(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	for i, send := range []func(path string) reply{
		func(path string) reply { return s.browser(t).form(path) },
		func(path string) reply { return s.browser(t).post(path, object{}) },
		func(path string) reply { return s.browser(t).do("POST", path, "", "") },
	} {
		email := fmt.Sprintf("u%d@example.com", i)
		s.register(t, email)
		path := api + "/verify_email/confirm/" + token(t, s.inbox.wait(t, email, 1))
		send(path).want(t, "confirm", 200, "email verified")
		s.login(t, email)
	}

	// Where a template of its own has left the redirect out, the token knows it.
	s.register(t, "ada@example.com", "redirect_uri", "/welcome")
	path := api + "/verify_email/confirm/" + token(t, s.inbox.wait(t, "ada@example.com", 1))
	s.browser(t).form(path).wantRedirect(t, "confirm without a redirect", "/welcome?alert=email+verified")

	s.register(t, "bob@example.com")
	path = api + "/verify_email/confirm/" + token(t, s.inbox.wait(t, "bob@example.com", 1))
	s.clock.Add(24*time.Hour + time.Second)
	s.browser(t).form(path).want(t, "expired", 400, "invalid token")
	s.browser(t).get(api+"/verify_email/trigger?email=bob@example.com").want(t, "trigger", 200, "Verification email sent")
	path = api + "/verify_email/confirm/" + token(t, s.inbox.wait(t, "bob@example.com", 2))
	s.exec(t, `UPDATE _user SET email = 'BOB@example.com' WHERE email = 'u0@example.com'`)
	s.browser(t).form(path).want(t, "address of another", 409, "")
}

func TestVerifyEmailOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.register(t, "ada@example.com")
	path := api + "/verify_email/confirm/" + token(t, s.inbox.wait(t, "ada@example.com", 1))
	b := s.browser(t)
	if got := parallel(8, func(int) reply { return b.form(path) }); got[200] != 1 || got[400] != 7 {
		t.Errorf("statuses %v", got)
	}
}

func TestVerifyEmailTrigger(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Limits: auth.Limits{Mails: auth.Limit{Events: 2, Per: time.Hour}}})
	s.member(t, "known@example.com")
	s.register(t, "ada@example.com")
	first := token(t, s.inbox.wait(t, "ada@example.com", 1))
	b := s.browser(t)
	trigger := api + "/verify_email/trigger?email="
	s.clock.Add(2 * time.Hour) // the mails of the registrations count, too
	b.get(trigger+"nonsense").want(t, "no address", 400, "Invalid email")
	b.get(trigger+"ada@example.com&redirect_uri=https:%2F%2Fevil.example").want(t, "bad redirect", 400, "invalid redirect")
	b.do("HEAD", trigger+"ada@example.com", "", "").want(t, "HEAD", 200, "")
	for _, email := range []string{"ADA@example.com", "known@example.com", "nobody@example.com"} {
		b.get(trigger+email).want(t, email, 200, "Verification email sent")
		b.get(trigger+email+"&redirect_uri=/sent").wantRedirect(t, email, "/sent?alert=Verification+email+sent")
		r := b.get(trigger + email)
		r.want(t, email+" beyond the limit", 429, "")
		if r.header.Get("Retry-After") == "" {
			t.Error("429 without Retry-After")
		}
	}
	m := s.inbox.wait(t, "ada@example.com", 3)
	s.flush(t)
	if len(s.inbox.to("ada@example.com")) != 3 || len(s.inbox.to("known@example.com")) != 1 || s.inbox.to("nobody@example.com") != nil {
		t.Error("wrong mails")
	}
	b.form(api+"/verify_email/confirm/"+first).want(t, "token of the first mail", 400, "invalid token")
	b.form(s.link(t, m)).wantRedirect(t, "token of the last mail", "/sent?alert=email+verified")
}

// An attacker registers with an address and a password before its owner does.
// When the owner proves the address, the attacker's account has neither.
func TestC7_PreRegistered(t *testing.T) {
	t.Parallel()
	const victim, evil = "victim@example.com", "Attackers.pass.1"
	for _, test := range []struct {
		policy auth.Identifier
		byName int // the attacker's sign-in by user name afterwards
	}{{auth.RequireEmail, 401}, {auth.RequireUsername, 200}} {
		s := newSite(t, auth.Config{Identifier: test.policy})
		b := s.browser(t)
		b.post(api+"/register", object{"email": victim, "username": "mallory", "password": evil, "password_repeat": evil}).
			want(t, "attacker registers", 200, "registered")
		attackers := token(t, s.inbox.wait(t, victim, 1))
		s.register(t, victim, "username", "victim")
		b.form(api+"/verify_email/confirm/"+token(t, s.inbox.wait(t, victim, 2))).want(t, "victim confirms", 200, "email verified")

		b.form(api+"/verify_email/confirm/"+attackers).want(t, "attacker's link", 400, "invalid token")
		if got := s.tryLogin(t, victim, evil); got != 401 {
			t.Errorf("attacker's password with the address: %d", got)
		}
		b.post(api+"/login", object{"username": "mallory", "password": evil}).want(t, "attacker's name", test.byName, "*")
		b.get(api+"/verify_email/trigger?email="+victim).want(t, "trigger", 200, "*")
		s.flush(t, "username", "f"+rand.Text())
		if got := len(s.inbox.to(victim)); got != 2 {
			t.Errorf("%d mails", got)
		}
		s.login(t, victim)
	}
}

// Changing one's address to one that somebody has registered with, but never
// proved, takes it from there, too.
func TestC7_ClaimLostToChange(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.member(t, "ada@example.com")
	s.register(t, "new@example.com")
	claim := token(t, s.inbox.wait(t, "new@example.com", 1))
	s.as(t, s.login(t, "ada@example.com")).post(api+"/change_email", object{"new_email": "new@example.com"}).want(t, "request", 200, "*")
	b := s.browser(t)
	b.form(s.link(t, s.inbox.wait(t, "new@example.com", 2))).want(t, "confirm", 200, "email changed")
	b.form(api+"/verify_email/confirm/"+claim).want(t, "older claim", 400, "invalid token")
}

func TestA9_LinksIgnoreTheRequest(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.member(t, "ada@example.com")
	req, err := http.NewRequestWithContext(t.Context(), "POST", s.url+api+"/reset_password/request", strings.NewReader(`{"email":"ada@example.com"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "evil.example"
	for name, value := range map[string]string{
		"Content-Type": "application/json", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "gopher",
		"Forwarded": "host=evil.example;proto=gopher", "X-Original-URL": "https://evil.example/", "Origin": "https://evil.example",
	} {
		req.Header.Set(name, value)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 200 {
		t.Fatalf("%d %s %v", res.StatusCode, body, err)
	}
	m := s.inbox.wait(t, "ada@example.com", 2)
	if strings.Contains(m.Text+m.HTML+m.Subject, "evil") || strings.Contains(m.Text+m.HTML, "gopher") || !strings.Contains(m.Text, siteURL+"/_/auth/reset_password/update/") {
		t.Errorf("mail %q", m.Text)
	}
}

// What opens links on its own way to the reader uses nothing up and gets
// nothing.
func TestA10_Scanner(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.register(t, "ada@example.com")
	scan := func(link string) {
		t.Helper()
		for _, method := range []string{"GET", "HEAD", "GET"} {
			r := s.browser(t).do(method, link, "", "")
			if r.status >= 500 || r.status == 303 || r.header["Set-Cookie"] != nil {
				t.Errorf("%s: %d, cookies %v", method, r.status, r.header["Set-Cookie"])
			}
		}
	}
	b := s.browser(t)
	link := s.link(t, s.inbox.wait(t, "ada@example.com", 1))
	scan(link)
	b.form(link).want(t, "verify", 200, "email verified")

	s.as(t, s.login(t, "ada@example.com")).post(api+"/change_email/request", object{"new_email": "new@example.com"}).
		want(t, "change", 200, "Verification mail sent to new@example.com.")
	link = s.link(t, s.inbox.wait(t, "new@example.com", 1))
	scan(link)
	b.form(link).want(t, "change", 200, "email changed")

	b.post(api+"/reset_password/request", object{"email": "new@example.com"}).want(t, "reset", 200, "*")
	m := s.inbox.wait(t, "new@example.com", 2)
	scan(s.link(t, m))
	b.post(api+"/reset_password/update", object{"password": "Another.good.1", "password_repeat": "Another.good.1", "password_reset_token": token(t, m)}).
		want(t, "reset", 200, "Password reset")
}

// rows counts what a query finds.
func (s *site) rows(t testing.TB, query string, args ...any) (n int) {
	t.Helper()
	err := s.db.View(t.Context(), func(tx *sqlite.Tx) error {
		return tx.QueryRowContext(t.Context(), `SELECT count(*) FROM `+query, args...).Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func alert(target, text string) string { return target + "?alert=" + url.QueryEscape(text) }
