package auth_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/auth"
)

// A person registers, confirms the address, signs in, looks at the account,
// signs another device out and leaves.
func TestPagesWalk(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	b := s.visitor(t)

	// /private asks for a sign-in; from there to the registration.
	r, path := b.follow(b.get("/private"))
	if path != pages+"/login?redirect_uri=%2Fprivate" {
		t.Fatalf("private page leads to %s", path)
	}
	register := pages + "/register?redirect_uri=%2Fprivate"
	wantPage(t, "login", r, `href="`+register+`"`)

	r, path = b.follow(b.submit(register, "email", "ada@example.com", "password", good, "password_repeat", "other"))
	wantPage(t, "two passwords", r, "The two passwords are not the same.")
	r, path = b.follow(b.send(onlyForm(t, path, r), "email", "ada@example.com", "password", good, "password_repeat", good))
	wantPage(t, "registered", r, "Registered ada@example.com.")

	// Not before the address is confirmed.
	r, path = b.follow(b.send(onlyForm(t, path, r), "email_or_username", "ada@example.com", "password", good))
	wantPage(t, "unverified", r, "The name, the password or the code is wrong.")
	if path != pages+"/login?redirect_uri=%2Fprivate&alert=Login+Failed%3A+401+Unauthorized" {
		t.Errorf("failed sign-in leads to %s", path)
	}

	// The mail is opened in another browser, by programs and by a person.
	link := s.link(t, s.inbox.wait(t, "ada@example.com", 1))
	for _, method := range []string{"GET", "HEAD", "GET"} {
		if r := s.browser(t).with("Sec-Fetch-Site", "cross-site").do(method, link, "", ""); r.status != 200 {
			t.Fatalf("%s: %d", method, r.status)
		}
	}
	checkPage(t, "confirm", b.get(link))
	phone := s.visitor(t)
	r, path = phone.follow(phone.submit(link))
	wantPage(t, "confirmed", r, "Your email address is confirmed.")

	// The phone signs in where the link has led, and comes to the private page.
	r, path = phone.follow(phone.send(onlyForm(t, path, r), "email_or_username", "ada@example.com", "password", good))
	if path != "/private" || r.body != "ada@example.com" {
		t.Fatalf("at %s: %s", path, r.body)
	}

	// The browser too, without a place to go to.
	r, path = b.with("User-Agent", "<i>Netscape").follow(b.with("User-Agent", "<i>Netscape").
		submit(pages+"/login", "email_or_username", "ADA@example.com", "password", good))
	if path != pages+"/profile" {
		t.Fatalf("at %s", path)
	}
	checkPage(t, "profile", r)
	for _, want := range []string{"ada@example.com", "&lt;i&gt;Netscape</strong> (this one)", "with password", "127.0.0.1"} {
		wantPage(t, "profile", r, want)
	}
	b.get(pages+"/login").wantRedirect(t, "login again", pages+"/profile")
	b.get(pages+"/login?alert=x").wantRedirect(t, "login again", pages+"/profile?alert=x")

	// It signs the phone out. The forms are: sign out, this session, the other.
	forms := readForms(path, r.body)
	if len(forms) != 3 || strings.Count(r.body, "(this one)") != 1 {
		t.Fatalf("%d forms: %s", len(forms), r.body)
	}
	other := forms[1]
	if strings.Index(r.body, "(this one)") < strings.Index(r.body, other.values.Get("session")) {
		other = forms[2]
	}
	if got := b.with("Sec-Fetch-Site", "cross-site").send(other); got.status != 403 {
		t.Errorf("another site signs devices out: %d", got.status)
	}
	r, _ = phone.follow(phone.get("/private"))
	if r.body != "ada@example.com" {
		t.Fatalf("phone was signed out: %s", r.body)
	}
	r, _ = b.follow(b.send(other))
	wantPage(t, "revoked", r, "The device is signed out.")
	if r, path = phone.follow(phone.get("/private")); path != pages+"/login?redirect_uri=%2Fprivate" {
		t.Errorf("the phone is still signed in: %s %s", path, r.body)
	}
	r, _ = b.follow(b.send(other))
	wantPage(t, "revoked twice", r, "That device was signed out already.")

	// And leaves.
	logout := forms[0]
	if got := b.with("Sec-Fetch-Site", "cross-site").send(logout); got.status != 403 {
		t.Errorf("another site signs the user out: %d", got.status)
	}
	b.get(pages + "/logout") // shows a button
	if got := b.get("/whoami"); got.body != "ada@example.com" {
		t.Fatalf("signed out by looking: %s", got.body)
	}
	r, _ = b.follow(b.send(logout))
	wantPage(t, "signed out", r, "You are signed out.")
	if got := b.get("/whoami"); got.body != "anonymous" {
		t.Errorf("still %s", got.body)
	}
	s.wantCount(t, 0, "_session")
}

// The own session can be ended from the profile as well, and nobody else's.
func TestB8_PagesRevoke(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	s.addUser(t, "eve@example.com")
	b, eve := s.visitor(t), s.visitor(t)
	b.submit(pages+"/login", "email_or_username", "ada@example.com", "password", good)
	eve.submit(pages+"/login", "email_or_username", "eve@example.com", "password", good)
	own := readForms("", b.get(pages+"/profile").body)[1]
	for _, session := range []string{own.values.Get("session"), "x", "", strings.Repeat("A", 22)} {
		r, _ := eve.follow(eve.form(own.action, "session", session))
		wantPage(t, "foreign or unknown session", r, "That device was signed out already.")
	}
	s.visitor(t).form(own.action, "session", own.values.Get("session")).
		wantRedirect(t, "nobody", pages+"/login?redirect_uri=%2F_%2Fauth%2Fprofile")
	s.wantCount(t, 2, "_session")
	r := b.send(own)
	if got := cookies(r)["refresh_token"]; got == nil || got.MaxAge >= 0 {
		t.Errorf("the cookie stays: %v", got)
	}
	r, _ = b.follow(r)
	wantPage(t, "own session", r, "You are signed out.")
	if got := b.get("/whoami"); got.body != "anonymous" {
		t.Errorf("still %s", got.body)
	}
	s.wantCount(t, 1, "_session")
}

// Signing out ends the session when the auth token has expired, and only that
// session.
func TestB5_PagesLogout(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	s.login(t, "ada@example.com")
	for _, expired := range []bool{false, true} {
		b := s.visitor(t)
		b.submit(pages+"/login", "email_or_username", "ada@example.com", "password", good)
		s.wantCount(t, 2, "_session")
		if expired {
			s.clock.Add(2 * 3600e9)
		}
		r := b.submit(pages + "/logout?redirect_uri=/bye")
		r.wantRedirect(t, "logout", "/bye")
		for _, c := range []string{"auth_token", "refresh_token"} {
			if got := cookies(r)[c]; got == nil || got.MaxAge >= 0 {
				t.Errorf("cookie %s stays: %v", c, got)
			}
		}
		s.wantCount(t, 1, "_session")
	}
	s.visitor(t).submit(pages+"/logout").wantRedirect(t, "nobody", pages+"/login?alert=You+are+signed+out.")
	s.visitor(t).with("Sec-Fetch-Site", "cross-site").post(pages+"/logout", object{}).want(t, "JSON of another site", 403, "*")
	s.visitor(t).form(pages+"/logout", "redirect_uri", "//evil.example").want(t, "elsewhere", 400, "*")
}

// A native client gets its code through the pages, also with a second factor
// and after a wrong password and a wrong code.
func TestPagesCodeFlow(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{RedirectSchemes: []string{"my-app"}})
	s.addUser(t, "ada@example.com")
	_, app := s.addMFAUser(t, "eve@example.com")
	verifier := strings.Repeat("v", 50)
	sum := sha256.Sum256([]byte(verifier))
	start := pages + "/login?" + url.Values{
		"redirect_uri": {"my-app:/cb"}, "response_type": {"code"},
		"pkce_code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])},
	}.Encode()
	for _, email := range []string{"ada@example.com", "eve@example.com"} {
		b := s.visitor(t)
		b.submit(pages+"/login", "email_or_username", "ada@example.com", "password", good) // it may be signed in already
		r, path := b.follow(b.submit(start, "email_or_username", email, "password", "wrong"))
		wantPage(t, "wrong password", r, "The name, the password or the code is wrong.")
		r = b.send(onlyForm(t, path, r), "email_or_username", email, "password", good)
		if email == "eve@example.com" {
			r, path = b.follow(r)
			r, path = b.follow(b.send(onlyForm(t, path, r), "totp", "000000"))
			wantPage(t, "wrong code", r, "Wrong code.")
			if policy := r.header.Get("Content-Security-Policy"); !strings.Contains(policy, "form-action 'self' my-app:;") {
				t.Errorf("policy %q", policy)
			}
			r = b.send(onlyForm(t, path, r), "totp", app.code())
		}
		code, ok := strings.CutPrefix(r.location(), "my-app:/cb?code=")
		if r.status != 303 || !ok {
			t.Fatalf("%s: %d %q %s", email, r.status, r.location(), r.body)
		}
		var tokens auth.Tokens
		s.browser(t).post(api+"/token", object{"authorization_code": code, "pkce_code_verifier": verifier}).json(t, &tokens)
		if who := s.as(t, tokens).get("/whoami").body; who != email {
			t.Errorf("code of %s signs %s in", email, who)
		}
	}
}

func TestPagesSecondFactor(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	_, app := s.addMFAUser(t, "ada@example.com")
	login := func() (b *browser, r reply, path string) {
		b = s.visitor(t)
		r, path = b.follow(b.submit(pages+"/login?redirect_uri=/private", "email_or_username", "ada@example.com", "password", good))
		checkPage(t, "login_mfa", r)
		return b, r, path
	}
	b, r, path := login()
	r, path = b.follow(b.send(onlyForm(t, path, r), "totp", app.code()))
	if path != "/private" || r.body != "ada@example.com" {
		t.Errorf("at %s: %s", path, r.body)
	}
	b, r, path = login()
	b.follow(b.send(onlyForm(t, path, r), "totp", app.codes[0]))
	wantPage(t, "recovery code", b.get(pages+"/profile"), "with password and a recovery code")

	// After the last try the sign-in begins anew.
	b, r, path = login()
	for i := 0; i < 5; i++ {
		r, path = b.follow(b.send(onlyForm(t, path, r), "totp", "000000"))
	}
	if path != pages+"/login?redirect_uri=%2Fprivate&alert=Login+Failed%3A+401+Unauthorized" {
		t.Errorf("ends at %s", path)
	}
}

func TestPagesOTP(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{OTP: true})
	s.member(t, "ada@example.com")
	b := s.visitor(t)
	r, path := b.follow(b.submit(pages+"/otp/request?redirect_uri=/private", "email_or_username", "ada@example.com"))
	wantPage(t, "requested", r, "a mail with a code is on its way.")
	m := s.inbox.wait(t, "ada@example.com", 2)
	f := onlyForm(t, path, r)
	if got := f.values.Get("email_or_username"); got != "ada@example.com" {
		t.Errorf("the form has %q for the name", got)
	}
	r, path = b.follow(b.send(f, "code", "AAAAAA"))
	wantPage(t, "wrong code", r, "The name, the password or the code is wrong.")
	if f = onlyForm(t, path, r); f.values.Get("email_or_username") != "ada@example.com" {
		t.Errorf("the form has lost the name: %v", f.values)
	}

	// Programs open the link in the mail before the user does.
	link := s.link(t, m)
	for range 10 {
		s.browser(t).get(link)
		s.browser(t).do("HEAD", link, "", "")
	}
	f = onlyForm(t, link, s.visitor(t).get(link))
	if f.values.Get("code") != otpCode(t, m) || f.values.Get("email_or_username") != "ada@example.com" {
		t.Errorf("the link does not fill the form in: %v", f.values)
	}
	r, path = b.follow(b.send(onlyForm(t, path, r), "code", otpCode(t, m)))
	if path != "/private" || r.body != "ada@example.com" {
		t.Errorf("at %s: %s", path, r.body)
	}
}

func TestPagesPasswords(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.member(t, "ada@example.com")
	b := s.visitor(t)
	const second, third = "Second.horse.8", "Third.horse.9"

	r, _ := b.follow(b.submit(pages+"/reset_password/request?redirect_uri=/private", "email_or_username", "ada@example.com"))
	wantPage(t, "requested", r, "a mail with a link is on its way.")
	link := s.link(t, s.inbox.wait(t, "ada@example.com", 2))
	for _, method := range []string{"GET", "HEAD"} {
		if r := s.browser(t).do(method, link, "", ""); r.status != 200 {
			t.Fatalf("%s: %d", method, r.status)
		}
	}
	r, path := b.follow(b.submit(link, "password", "short", "password_repeat", "short"))
	wantPage(t, "short", r, "Password too short")
	used := onlyForm(t, path, r)
	r, path = b.follow(b.send(used, "password", second, "password_repeat", second))
	wantPage(t, "reset", r, "Your password is changed. Please sign in with the new one.")
	if again, _ := b.follow(b.send(used)); !strings.Contains(again.body, "This link is too old or was used before.") {
		t.Errorf("second use: %d %s", again.status, again.body)
	}
	if r, path = b.follow(b.send(onlyForm(t, path, r), "email_or_username", "ada@example.com", "password", second)); path != "/private" {
		t.Fatalf("at %s: %s", path, r.body)
	}

	r = b.get(pages + "/change_password")
	checkPage(t, "change_password", r)
	wantPage(t, "change_password", r, `value="ada@example.com"`)
	r, path = b.follow(b.submit(pages+"/change_password", "old_password", "wrong", "new_password", third, "new_password_repeat", third))
	wantPage(t, "wrong password", r, "The old password is wrong.")
	r, path = b.follow(b.send(onlyForm(t, path, r), "old_password", second, "new_password", third, "new_password_repeat", third))
	wantPage(t, "changed", r, "Your password is changed.")
	if path != pages+"/profile?alert=password+changed" {
		t.Errorf("at %s", path)
	}
	if got := s.tryLogin(t, "ada@example.com", third); got != 200 {
		t.Errorf("login with the new password: %d", got)
	}
}

func TestPagesSetup(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	link, err := s.SetupLink(t.Context())
	path, ok := strings.CutPrefix(link, siteURL)
	if err != nil || !ok {
		t.Fatalf("link %q: %v", link, err)
	}
	b := s.visitor(t)
	s.browser(t).get(path)
	s.browser(t).do("HEAD", path, "", "")
	r, at := b.follow(b.submit(path, "email", "root@example.com", "password", good, "password_repeat", "x"))
	wantPage(t, "two passwords", r, "The two passwords are not the same.")
	r, at = b.follow(b.send(onlyForm(t, at, r), "email", "root@example.com", "password", good, "password_repeat", good))
	wantPage(t, "setup", r, "administrator&#39;s account is ready.")
	r, at = b.follow(b.send(onlyForm(t, at, r), "email_or_username", "root@example.com", "password", good))
	wantPage(t, "profile at "+at, r, "Administrator")
	if r := b.get("/admin"); r.status != 200 {
		t.Errorf("admin page: %d", r.status)
	}
}

// A change of the address is confirmed as well by a button only.
func TestA10_PagesChangeEmail(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	tokens := s.login(t, "ada@example.com")
	s.as(t, tokens).post(api+"/change_email/request", object{"new_email": "new@example.com", "csrf_token": tokens.CSRFToken}).
		want(t, "request", 200, "*")
	link := s.link(t, s.inbox.wait(t, "new@example.com", 1))
	for _, method := range []string{"GET", "HEAD", "GET"} {
		s.browser(t).do(method, link, "", "").want(t, method, 200, "*")
	}
	b := s.visitor(t)
	checkPage(t, "confirm", b.get(link))
	b.submit(link).want(t, "confirm", 200, "email changed")
}
