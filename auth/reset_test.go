package auth_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/sqlite"
)

const resetUpdate = api + "/reset_password/update"

// resetToken asks for a reset and returns the token of the n-th mail.
func (s *site) resetToken(t testing.TB, email string, n int) string {
	t.Helper()
	s.browser(t).post(api+"/reset_password/request", object{"email": email}).want(t, "request", 200, "Password reset email sent")
	return token(t, s.inbox.wait(t, email, n))
}

func TestResetPassword(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Identifier: auth.RequireEmail})
	s.member(t, "ada@example.com")
	s.exec(t, `UPDATE _user SET username = 'ada'`)
	const next = "Another.good.1"
	b := s.browser(t)
	b.post(api+"/reset_password/request", object{}).want(t, "nobody named", 400, "missing email or username")
	b.form(api+"/reset_password/request", "username", "ada", "redirect_uri", "/login").
		wantRedirect(t, "request", "/login?alert=Password+reset+email+sent")
	m := s.inbox.wait(t, "ada@example.com", 2)
	if !strings.Contains(m.Text, "?redirect_uri=%2Flogin") {
		t.Errorf("mail %q", m.Text)
	}
	secret := token(t, m)
	b.post(resetUpdate, object{"password": next, "password_repeat": "x", "password_reset_token": secret}).want(t, "repeat", 400, "Passwords don't match")
	b.post(resetUpdate, object{"password": next, "password_repeat": next}).want(t, "no token", 400, "Invalid token")
	b.post(resetUpdate, object{"password": next, "password_repeat": next, "password_reset_token": secret + "x"}).want(t, "wrong token", 400, "Invalid token")
	b.form(resetUpdate, "password", "short", "password_repeat", "short", "password_reset_token", secret, "err_redirect_uri", "/again").
		wantRedirect(t, "failure", "/again?alert=Password+too+short")
	r := b.form(resetUpdate, "password", next, "password_repeat", next, "password_reset_token", secret, "redirect_uri", "/login")
	r.wantRedirect(t, "update", "/login?alert=Password+reset")
	if r.header["Set-Cookie"] != nil {
		t.Error("a reset signs in")
	}
	s.inbox.wait(t, "ada@example.com", 3)
	if got := s.tryLogin(t, "ada@example.com", good); got != 401 {
		t.Errorf("old password: %d", got)
	}
	if got := s.tryLogin(t, "ada@example.com", next); got != 200 {
		t.Errorf("new password: %d", got)
	}
	b.post(resetUpdate, object{"password": good, "password_repeat": good, "password_reset_code": s.resetToken(t, "ada@example.com", 4)}).
		want(t, "by the other name of the token", 200, "Password reset")

	// With a second factor the password alone is still not enough.
	s.exec(t, `UPDATE _user SET totp_secret = 'YCUTAYEZ346ZUEI7FLCG57BOMZQHHRA5'`)
	b.post(resetUpdate, object{"password": next, "password_repeat": next, "password_reset_token": s.resetToken(t, "ada@example.com", 6)}).
		want(t, "with a second factor", 200, "Password reset")
	if got := s.tryLogin(t, "ada@example.com", next); got != 403 {
		t.Errorf("login with a second factor: %d", got)
	}
}

// The answers to a request tell nothing about the account, nor does the limit.
func TestA2_ResetTellsNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{OTP: true})
	s.member(t, "known@example.com")
	s.member(t, "disabled@example.com")
	s.exec(t, `UPDATE _user SET disabled = 1 WHERE email = 'disabled@example.com'`)
	s.register(t, "unverified@example.com")
	b := s.browser(t)
	for _, path := range []string{"/reset_password/request", "/otp/request"} {
		s.settle(t) // what is not sent in time is not sent
		s.clock.Add(2 * time.Hour)
		var first []reply
		for _, email := range []string{"known@example.com", "unknown@example.com", "disabled@example.com", "unverified@example.com"} {
			for i := range 6 {
				r := b.post(api+path, object{"email": email})
				if first == nil || i >= len(first) {
					first = append(first, r)
				}
				r.header.Del("Date")
				if r.status != first[i].status || r.body != first[i].body || len(r.header) != len(first[i].header) {
					t.Errorf("%s %s, request %d: %d %q %v, want %d %q %v", path, email, i, r.status, r.body, r.header, first[i].status, first[i].body, first[i].header)
				}
			}
		}
		if first[4].status != 200 || first[5].status != 429 {
			t.Errorf("%s: the limit is not 5: %d, %d", path, first[4].status, first[5].status)
		}
	}
	s.flush(t)
	s.settle(t)
	for email, n := range map[string]int{"known@example.com": 11, "unknown@example.com": 0, "disabled@example.com": 1, "unverified@example.com": 1} {
		if got := len(s.inbox.to(email)); got != n {
			t.Errorf("%d mails to %s, want %d", got, email, n)
		}
	}
}

func TestA7_ResetTokenOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Limits: auth.Limits{Mails: auth.Limit{Events: -1}, AddressMails: auth.Limit{Events: -1}}})
	s.member(t, "ada@example.com")
	b := s.browser(t)
	use := func(token string) reply {
		return b.post(resetUpdate, object{"password": good, "password_repeat": good, "password_reset_token": token})
	}
	secret := s.resetToken(t, "ada@example.com", 2)
	if got := parallel(8, func(int) reply { return use(secret) }); got[200] != 1 || got[400] != 7 {
		t.Errorf("at the same time: %v", got)
	}
	use(secret).want(t, "again", 400, "Invalid token")

	older := s.resetToken(t, "ada@example.com", 4)
	newer := s.resetToken(t, "ada@example.com", 5)
	use(older).want(t, "the older of two", 400, "Invalid token")
	s.clock.Add(30*time.Minute + time.Second)
	use(newer).want(t, "after 30 minutes", 400, "Invalid token")

	secret = s.resetToken(t, "ada@example.com", 6)
	s.as(t, s.login(t, "ada@example.com")).post(api+"/change_password", object{"old_password": good, "new_password": good}).
		want(t, "change", 200, "password changed")
	use(secret).want(t, "after the password was changed", 400, "Invalid token")

	secret = s.resetToken(t, "ada@example.com", 8)
	s.exec(t, `UPDATE _user SET disabled = 1`)
	use(secret).want(t, "of a disabled account", 400, "Invalid token")
}

// A reset token is good for nothing else, and no other token for a reset.
func TestB11_MailTokens(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.member(t, "ada@example.com")
	tokens := s.login(t, "ada@example.com")
	s.as(t, tokens).post(api+"/change_email", object{"new_email": "new@example.com"}).want(t, "request", 200, "*")
	all := map[string]string{
		"change": token(t, s.inbox.wait(t, "new@example.com", 1)), "reset": s.resetToken(t, "ada@example.com", 2),
		"access": tokens.AuthToken, "refresh": tokens.RefreshToken, "csrf": tokens.CSRFToken,
	}
	s.register(t, "bob@example.com")
	all["verify"] = token(t, s.inbox.wait(t, "bob@example.com", 1))
	b := s.browser(t)
	for kind, secret := range all {
		if kind != "reset" {
			b.post(resetUpdate, object{"password": good, "password_repeat": good, "password_reset_token": secret}).want(t, kind+" as reset", 400, "Invalid token")
		}
		if kind != "verify" {
			b.form(api+"/verify_email/confirm/"+secret).want(t, kind+" as verify", 400, "invalid token")
		}
		if kind != "change" {
			b.form(api+"/change_email/confirm/"+secret).want(t, kind+" as change", 400, "Invalid token")
		}
		if kind != "access" {
			b.with("Authorization", "Bearer "+secret).get("/whoami").want(t, kind+" as access", 200, "anonymous")
		}
		if kind != "refresh" {
			b.post(api+"/refresh", object{"refresh_token": secret}).want(t, kind+" as refresh", 401, "")
		}
	}
}

// After a reset nothing that was got before is good any more; after a change
// of the password, nothing but the session that did it.
func TestA8_SessionsEnd(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{OTP: true})
	id := s.member(t, "ada@example.com")
	const next = "Another.good.1"
	first, second := s.login(t, "ada@example.com"), s.login(t, "ada@example.com")
	cookies, _ := s.cookies(t, "ada@example.com")
	gone := func(what string, tokens auth.Tokens) {
		t.Helper()
		s.as(t, tokens).get("/private").want(t, what+": access", 401, "")
		s.browser(t).post(api+"/refresh", object{"refresh_token": tokens.RefreshToken}).want(t, what+": refresh", 401, "")
	}
	for _, tokens := range []auth.Tokens{first, second} {
		s.as(t, tokens).get("/private").want(t, "before", 200, "*") // the token is in the cache
	}
	s.as(t, first).post(api+"/change_password", object{"old_password": good, "new_password": next}).want(t, "change", 200, "password changed")
	gone("change", second)
	cookies.get("/whoami").want(t, "cookies after the change", 200, "anonymous")
	s.as(t, first).get("/private").want(t, "the session that changed it", 200, "ada@example.com")
	s.browser(t).post(api+"/refresh", object{"refresh_token": first.RefreshToken}).want(t, "its refresh token", 200, "*")

	s.exec(t, `INSERT INTO _api_key (id, hash, user, name, prefix, scopes, created, expires) VALUES (x'01', x'02', ?, 'k', 'bpk_1234', '[]', 0, 9999999999)`, id[:])
	b := s.browser(t)
	b.post(api+"/otp/request", object{"email": "ada@example.com"}).want(t, "OTP", 200, "*")
	code := otpCode(t, s.inbox.wait(t, "ada@example.com", 3))
	secret := s.resetToken(t, "ada@example.com", 4)
	b.post(resetUpdate, object{"password": good, "password_repeat": good, "password_reset_token": secret}).want(t, "reset", 200, "*")
	gone("reset", first)
	b.post(api+"/otp/login", object{"email": "ada@example.com", "code": code}).want(t, "code after the reset", 401, "")
	for _, table := range []string{"_session", "_one_time", "_known_device", "_api_key"} {
		if n := s.rows(t, table+" WHERE user = ?", id[:]); n != 0 {
			t.Errorf("%d rows in %s", n, table)
		}
	}
	s.login(t, "ada@example.com")
}

// A sign-in with the old password that is under way when the password is reset
// does not survive it.
func TestA8_LoginDuringReset(t *testing.T) {
	t.Parallel()
	var during func()
	s := newSite(t, auth.Config{Hooks: auth.Hooks{Claims: func(context.Context, *auth.User) (map[string]any, error) {
		if f := during; f != nil { // between checking the password and beginning the session
			during = nil
			f()
		}
		return nil, nil
	}}})
	s.member(t, "ada@example.com")
	secret := s.resetToken(t, "ada@example.com", 2)
	during = func() {
		s.browser(t).post(resetUpdate, object{"password": "Another.good.1", "password_repeat": "Another.good.1", "password_reset_token": secret}).
			want(t, "reset", 200, "Password reset")
	}
	if got := s.tryLogin(t, "ada@example.com", good); got != 401 {
		t.Errorf("login with the old password: %d", got)
	}
	if n := s.rows(t, "_session"); n != 0 {
		t.Errorf("%d sessions", n)
	}

	// The same password with a better hash is no other password.
	during = func() {
		s.exec(t, `UPDATE _user SET password_hash = ? WHERE email IS NOT NULL`, s.hashOf(t, "Another.good.1"))
	}
	if got := s.tryLogin(t, "ada@example.com", "Another.good.1"); got != 200 {
		t.Errorf("login while the hash is replaced: %d", got)
	}
}

// hashOf returns a new hash of a password.
func (s *site) hashOf(t testing.TB, password string) (hash string) {
	t.Helper()
	s.browser(t).post(api+"/register", object{"email": "twin@example.com", "password": password, "password_repeat": password}).
		want(t, "register", 200, "registered")
	err := s.db.View(t.Context(), func(tx *sqlite.Tx) error {
		return tx.QueryRowContext(t.Context(), `SELECT password_hash FROM _user WHERE unverified_email = 'twin@example.com'`).Scan(&hash)
	})
	if err != nil {
		t.Fatal(err)
	}
	return hash
}

// A gate is a mailer that waits before each mail.
type gate struct {
	*inbox
	open chan struct{}
}

func (g gate) Send(ctx context.Context, m auth.Message) error {
	select {
	case <-g.open:
		return g.inbox.Send(ctx, m)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Somebody in a stolen session asks for another address, and the mail waits.
// When the owner has ended the session, it is not sent.
func TestA8_QueuedMail(t *testing.T) {
	t.Parallel()
	g := gate{newInbox(), make(chan struct{}, 100)}
	s := newSite(t, auth.Config{Mailer: g})
	s.inbox = g.inbox
	g.open <- struct{}{}
	s.member(t, "ada@example.com")
	thief, owner := s.as(t, s.login(t, "ada@example.com")), s.as(t, s.login(t, "ada@example.com"))
	s.register(t, "slow@example.com") // its mail holds up the others
	thief.post(api+"/change_email", object{"new_email": "thief@example.com"}).want(t, "thief", 200, "*")
	owner.post(api+"/change_email", object{"new_email": "owner@example.com"}).want(t, "owner", 200, "*")
	owner.post(api+"/change_password", object{"old_password": good, "new_password": good}).want(t, "change", 200, "password changed")
	close(g.open)
	s.inbox.wait(t, "owner@example.com", 1)
	if s.inbox.to("thief@example.com") != nil {
		t.Error("the mail was sent")
	}
}

// Who made an account with an identity that says it has the owner's address,
// or who linked one with a stolen session, is out when the owner resets the
// password.
func TestA8_ResetEndsIdentities(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	id := s.member(t, "ada@example.com")
	s.exec(t, `UPDATE _user SET provider_id = 2, provider_user_id = 'evil' WHERE id = ?`, id[:])
	s.exec(t, `INSERT INTO _user_identity (issuer, subject, user, provider, created, seen) VALUES ('https://evil.example', 'evil', ?, 2, 0, 0)`, id[:])
	b := s.browser(t)
	before := len(s.inbox.to("ada@example.com"))
	b.post(api+"/reset_password/request", object{"email": "ada@example.com"})
	link := token(t, s.inbox.wait(t, "ada@example.com", before+1))
	b.post(api+"/reset_password/update", object{"password": good + "x", "password_repeat": good + "x", "password_reset_token": link}).want(t, "reset", 200, "Password reset")
	if n := s.rows(t, `_user_identity`) + s.rows(t, `_user WHERE provider_user_id IS NOT NULL`); n != 0 {
		t.Errorf("%d identities are left", n)
	}
}
