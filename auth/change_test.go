package auth_test

import (
	"fmt"
	"mime/multipart"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
)

// form signs a browser in with cookies and returns its CSRF token.
func (s *site) cookies(t testing.TB, email string) (b *browser, csrf string) {
	t.Helper()
	b = s.browser(t)
	b.form(api+"/login", "email", email, "password", good).want(t, "login", 200, "logged in")
	var status auth.Tokens
	b.get(api+"/status").json(t, &status)
	return b, status.CSRFToken
}

func TestChangeEmail(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.member(t, "ada@example.com")
	other := s.as(t, s.login(t, "ada@example.com"))
	tokens := s.login(t, "ada@example.com")
	me := s.as(t, tokens)
	const request = api + "/change_email/request"
	s.browser(t).post(request, object{"new_email": "new@example.com"}).want(t, "nobody", 401, "")
	me.post(request, object{"new_email": "new@example.com", "csrf_token": "wrong"}).want(t, "wrong CSRF token", 400, "Invalid CSRF token")
	me.post(request, object{"new_email": "nonsense"}).want(t, "no address", 400, "Invalid email")
	me.post(request, object{"new_email": "new@example.com", "old_email": "eve@example.com"}).want(t, "other old address", 400, "Invalid old email")
	me.post(request, object{}).want(t, "removal", 400, "Cannot unset email")
	me.post(request, object{"new_email": "new@example.com", "redirect_uri": "https://evil.example"}).want(t, "bad redirect", 400, "invalid redirect")
	me.post(request, object{"new_email": "new@example.com", "old_email": "ADA@example.com", "csrf_token": tokens.CSRFToken, "redirect_uri": "/done"}).
		want(t, "request", 200, "Verification mail sent to new@example.com.")
	link := s.link(t, s.inbox.wait(t, "new@example.com", 1))
	me.get("/whoami").want(t, "before", 200, "ada@example.com")

	b := s.browser(t)
	b.post(api+"/reset_password/request", object{"email": "ada@example.com"}).want(t, "reset", 200, "*")
	reset := token(t, s.inbox.wait(t, "ada@example.com", 2))
	b.form(link+"&x=%zz").want(t, "bad query", 400, "invalid query")
	b.form(link).wantRedirect(t, "confirm", "/done?alert=email+changed")
	b.form(link).want(t, "confirm again", 400, "Invalid token")

	me.get("/whoami").want(t, "the session that asked", 200, "new@example.com")
	other.get("/whoami").want(t, "another session", 200, "anonymous")
	b.post(api+"/reset_password/update", object{"password": good, "password_repeat": good, "password_reset_token": reset}).
		want(t, "reset by the old address", 400, "Invalid token")
	if m := s.inbox.wait(t, "ada@example.com", 3); !strings.Contains(m.Subject, "changed") {
		t.Errorf("notice %q", m.Subject)
	}
	if got := s.tryLogin(t, "ada@example.com", good); got != 401 {
		t.Errorf("login with the old address: %d", got)
	}
	s.login(t, "new@example.com")

	s.clock.Add(11 * time.Minute)
	me.post(request, object{"new_email": "x@example.com"}).want(t, "not fresh", 403, "sign in again first")
}

func TestChangeEmailWithCookies(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.member(t, "ada@example.com")
	b, csrf := s.cookies(t, "ada@example.com")
	const request = api + "/change_email/request"
	for _, path := range []string{request, api + "/change_email"} {
		b.form(path, "new_email", "new@example.com").want(t, "form without a token", 400, "Invalid CSRF token")
		b.post(path, object{"new_email": "new@example.com"}).want(t, "JSON without a token", 400, "Invalid CSRF token")
	}
	b.with("Origin", "https://evil.example").form(request, "new_email", "new@example.com", "csrf_token", csrf).want(t, "other site", 403, "*")
	b.form(request, "new_email", "bad", "csrf_token", csrf, "err_redirect_uri", "/again?a=b").wantRedirect(t, "failure", "/again?a=b&alert=Invalid+email")
	b.form(request, "new_email", "bad", "csrf_token", csrf, "err_redirect_uri", "//evil").want(t, "bad redirect", 400, "invalid redirect")
	b.form(request, "new_email", "new@example.com", "csrf_token", csrf, "redirect_uri", "/sent").
		wantRedirect(t, "form", alert("/sent", "Verification mail sent to new@example.com."))
	b.with("CSRF-Token", csrf).post(request, object{"new_email": "new@example.com"}).want(t, "token in the header", 200, "*")
	b.form(s.link(t, s.inbox.wait(t, "new@example.com", 2))).want(t, "confirm", 200, "email changed")
	b.get("/whoami").want(t, "session", 200, "new@example.com")
}

// An account that never had an address gets one, and may give it up again.
func TestChangeEmailFromNone(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Identifier: auth.RequireUsername})
	b := s.browser(t)
	b.post(api+"/register", object{"username": "ada", "password": good, "password_repeat": good}).want(t, "register", 200, "registered")
	var tokens auth.Tokens
	b.post(api+"/login", object{"username": "ada", "password": good}).json(t, &tokens)
	me := s.as(t, tokens)
	me.post(api+"/change_email", object{"new_email": "ada@example.com"}).want(t, "request", 200, "*")
	b.form(s.link(t, s.inbox.wait(t, "ada@example.com", 1))).want(t, "confirm", 200, "email changed")
	s.login(t, "ada@example.com")
	me.post(api+"/change_username", object{}).want(t, "clear the name", 400, "Cannot unset username")
	me.post(api+"/change_email/request", object{"old_email": "ada@example.com"}).want(t, "remove", 200, "email removed")
	s.inbox.wait(t, "ada@example.com", 2)
	if got := s.tryLogin(t, "ada@example.com", good); got != 401 {
		t.Errorf("login with the removed address: %d", got)
	}
	me.get("/whoami").want(t, "session", 200, "ada")

	// Without a password there would be no way in.
	me.post(api+"/change_email", object{"new_email": "ada@example.com"}).want(t, "request", 200, "*")
	b.form(s.link(t, s.inbox.wait(t, "ada@example.com", 3))).want(t, "confirm", 200, "email changed")
	s.exec(t, `UPDATE _user SET password_hash = NULL`)
	me.post(api+"/change_email/request", object{}).want(t, "remove", 400, "Cannot unset email")
}

// A link is for the address that the account had when it was asked for.
func TestChangeEmailStale(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.member(t, "ada@example.com")
	me := s.as(t, s.login(t, "ada@example.com"))
	me.post(api+"/change_email", object{"new_email": "one@example.com"}).want(t, "request", 200, "*")
	one := s.link(t, s.inbox.wait(t, "one@example.com", 1))
	s.exec(t, `UPDATE _user SET email = 'other@example.com' WHERE email = 'ada@example.com'`)
	b := s.browser(t)
	b.form(one).want(t, "address changed meanwhile", 409, "")
	s.exec(t, `UPDATE _user SET email = 'ada@example.com'`)
	me.post(api+"/change_email", object{"new_email": "two@example.com"}).want(t, "request", 200, "*")
	two := s.link(t, s.inbox.wait(t, "two@example.com", 1))
	b.form(one).want(t, "older link", 400, "Invalid token")
	if got := parallel(6, func(int) reply { return b.form(two) }); got[200] != 1 || got[400]+got[409] != 5 {
		t.Errorf("statuses %v", got)
	}

	// A request ends with the session that it was made in.
	me.post(api+"/change_email", object{"new_email": "three@example.com"}).want(t, "request", 200, "*")
	three := s.link(t, s.inbox.wait(t, "three@example.com", 1))
	me.post(api+"/change_password", object{"old_password": good, "new_password": good}).want(t, "change password", 200, "password changed")
	b.form(three).want(t, "link from before the password was changed", 400, "Invalid token")
}

// The address of another user is not to be had, and nobody but its owner
// learns that it has one.
func TestA19_AddressOfAnother(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.member(t, "owner@example.com")
	s.member(t, "mallory@example.com")
	tokens := s.login(t, "mallory@example.com")
	me := s.as(t, tokens)
	taken := me.post(api+"/change_email/request", object{"new_email": "owner@example.com"})
	free := me.post(api+"/change_email/request", object{"new_email": "nobody@example.com"})
	if taken.status != 200 || free.status != 200 || strings.ReplaceAll(taken.body, "owner", "") != strings.ReplaceAll(free.body, "nobody", "") {
		t.Errorf("%d %q and %d %q", taken.status, taken.body, free.status, free.body)
	}
	m := s.inbox.wait(t, "owner@example.com", 2)
	if !strings.Contains(m.Subject, "already have an account") || regexp.MustCompile(`confirm/`).MatchString(m.Text+m.HTML) {
		t.Errorf("mail to the owner: %s\n%s", m.Subject, m.Text)
	}

	// The address gets an owner between request and confirmation.
	link := s.link(t, s.inbox.wait(t, "nobody@example.com", 1))
	s.exec(t, `UPDATE _user SET email = 'nobody@example.com' WHERE email = 'owner@example.com'`)
	s.browser(t).form(link).want(t, "confirm", 409, "")
	me.get("/whoami").want(t, "mallory", 200, "mallory@example.com")
}

func TestA19_Race(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	var links []string
	for i := range 4 {
		email := fmt.Sprintf("u%d@example.com", i)
		s.member(t, email)
		s.as(t, s.login(t, email)).post(api+"/change_email", object{"new_email": "new@example.com"}).want(t, "request", 200, "*")
		links = append(links, s.link(t, s.inbox.wait(t, "new@example.com", i+1)))
	}
	b := s.browser(t)
	if got := parallel(4, func(i int) reply { return b.form(links[i]) }); got[200] != 1 || got[409] != 3 {
		t.Errorf("statuses %v", got)
	}
	if n := s.rows(t, `_user WHERE email = 'new@example.com'`); n != 1 {
		t.Errorf("%d owners", n)
	}
}

func TestChangeUsername(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Identifier: auth.RequireEmail})
	s.member(t, "ada@example.com")
	s.member(t, "bob@example.com")
	me := s.as(t, s.login(t, "ada@example.com"))
	const path = api + "/change_username"
	s.browser(t).post(path, object{"new_username": "ada"}).want(t, "nobody", 401, "")
	me.post(path, object{"new_username": " ada "}).want(t, "JSON", 200, "")
	var tokens auth.Tokens
	s.browser(t).post(api+"/login", object{"username": "ADA", "password": good}).json(t, &tokens)
	if claims(t, tokens.AuthToken)["username"] != "ada" {
		t.Error("no name in the token")
	}
	me.form(path, "new_username", "a1!").want(t, "invalid", 400, "username contains invalid characters")
	s.as(t, s.login(t, "bob@example.com")).form(path, "new_username", "Ada").want(t, "taken", 409, "")
	me.post(path, object{"new_username": nil}).want(t, "clear", 200, "")
	s.browser(t).post(api+"/login", object{"username": "ada", "password": good}).want(t, "cleared name", 401, "")

	for policy, texts := range map[auth.Identifier][2]string{
		auth.OnlyEmail:               {"Cannot change username", ""},
		auth.RequireEmailAndUsername: {"", "Cannot unset username"},
	} {
		s := newSite(t, auth.Config{Identifier: policy})
		s.register(t, "ada@example.com", "username", map[bool]string{true: "ada"}[policy != auth.OnlyEmail])
		s.browser(t).form(s.link(t, s.inbox.wait(t, "ada@example.com", 1)))
		me := s.as(t, s.login(t, "ada@example.com"))
		for i, name := range []string{"other", ""} {
			status := map[bool]int{true: 200, false: 400}[texts[i] == ""]
			me.post(path, object{"new_username": name}).want(t, fmt.Sprintf("policy %d, name %q", policy, name), status, texts[i])
		}
	}
}

func TestChangePassword(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.member(t, "ada@example.com")
	me := s.as(t, s.login(t, "ada@example.com"))
	const path, next = api + "/change_password", "Another.good.1"
	s.browser(t).post(path, object{"old_password": good, "new_password": next}).want(t, "nobody", 401, "")
	me.post(path, object{"old_password": good, "new_password": next, "new_password_repeat": "x"}).want(t, "repeat", 400, "Passwords don't match")
	me.post(path, object{"old_password": good, "new_password": "short"}).want(t, "policy", 400, "Password too short")
	me.post(path, object{"old_password": "wrong", "new_password": next}).want(t, "wrong", 400, "invalid `old_password`")
	me.post(path, object{"new_password": next}).want(t, "missing", 400, "invalid `old_password`")
	me.form(path, "old_password", "wrong", "new_password", next, "err_redirect_uri", "/again").wantRedirect(t, "form", alert("/again", "invalid `old_password`"))
	me.form(path, "old_password", good, "new_password", next, "new_password_repeat", next, "redirect_uri", "/done").
		wantRedirect(t, "form", alert("/done", "password changed"))
	if m := s.inbox.wait(t, "ada@example.com", 2); !strings.Contains(m.Subject, "password") {
		t.Errorf("notice %q", m.Subject)
	}
	if got := s.tryLogin(t, "ada@example.com", good); got != 401 {
		t.Errorf("old password: %d", got)
	}
	if got := s.tryLogin(t, "ada@example.com", next); got != 200 {
		t.Errorf("new password: %d", got)
	}

	// Two at the same time, each with the right password: one is done.
	got := parallel(4, func(i int) reply {
		return me.post(path, object{"old_password": next, "new_password": fmt.Sprint(good, i)})
	})
	if got[200] != 1 || got[400] != 3 {
		t.Errorf("statuses %v", got)
	}
}

// The old password cannot be guessed with a stolen session.
func TestA3_ChangePasswordGuesses(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.member(t, "ada@example.com")
	me := s.as(t, s.login(t, "ada@example.com"))
	for range 10 {
		me.post(api+"/change_password", object{"old_password": "wrong", "new_password": good}).want(t, "wrong", 400, "*")
	}
	me.post(api+"/change_password", object{"old_password": "wrong", "new_password": good}).want(t, "wrong beyond the limit", 429, "")
	me.post(api+"/change_password", object{"old_password": good, "new_password": good}).want(t, "right beyond the limit", 429, "")
	me.form(api+"/change_password", "old_password", good, "new_password", good, "err_redirect_uri", "/again").want(t, "form beyond the limit", 429, "")
}

func TestMultipart(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.member(t, "ada@example.com")
	var body strings.Builder
	w := multipart.NewWriter(&body)
	for name, value := range map[string]string{"old_password": good, "new_password": "Another.good.1", "new_password_repeat": "Another.good.1"} {
		if err := w.WriteField(name, value); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s.as(t, s.login(t, "ada@example.com")).do("POST", api+"/change_password", w.FormDataContentType(), body.String()).
		want(t, "multipart", 200, "password changed")
}
