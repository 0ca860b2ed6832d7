package auth_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/internal/totp"
)

// A thief with a token asks for another address. When the owner has ended the
// session, in whatever way, the link in the thief's mail is good for nothing.
func TestA8_ChangeOfAddressEndsWithItsSession(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(s *site, id auth.UserID, thief auth.Tokens, owner *browser){
		"GET /logout": func(_ *site, _ auth.UserID, _ auth.Tokens, owner *browser) {
			owner.get(api+"/logout").want(t, "logout", 200, "logged out")
		},
		"POST /logout": func(s *site, _ auth.UserID, thief auth.Tokens, _ *browser) {
			s.browser(t).post(api+"/logout", object{"refresh_token": thief.RefreshToken}).want(t, "logout", 200, "")
		},
		"DELETE /sessions": func(_ *site, _ auth.UserID, _ auth.Tokens, owner *browser) {
			owner.do("DELETE", api+"/sessions", "", "").want(t, "end", 200, "")
		},
		"DELETE /sessions?others": func(_ *site, _ auth.UserID, _ auth.Tokens, owner *browser) {
			owner.do("DELETE", api+"/sessions?others=true", "", "").want(t, "end", 200, "")
		},
		"DELETE /sessions/{id}": func(s *site, id auth.UserID, thief auth.Tokens, owner *browser) {
			sid, _ := claims(t, thief.AuthToken)["sid"].(string)
			owner.do("DELETE", api+"/sessions/"+sid, "", "").want(t, "end", 200, "")
		},
		"EndSessions": func(s *site, id auth.UserID, _ auth.Tokens, _ *browser) {
			if err := s.EndSessions(t.Context(), id); err != nil {
				t.Error(err)
			}
		},
		"SetDisabled": func(s *site, id auth.UserID, _ auth.Tokens, _ *browser) {
			for _, disabled := range []bool{true, false} {
				if err := s.SetDisabled(t.Context(), id, disabled); err != nil {
					t.Error(err)
				}
			}
		},
		"a second factor": func(s *site, id auth.UserID, _ auth.Tokens, owner *browser) { s.enrol(t, owner) },
		"the old token": func(s *site, _ auth.UserID, thief auth.Tokens, _ *browser) {
			s.browser(t).post(api+"/refresh", object{"refresh_token": thief.RefreshToken, "rotate": true}).want(t, "rotate", 200, "*")
			s.clock.Add(time.Minute)
			s.browser(t).post(api+"/refresh", object{"refresh_token": thief.RefreshToken, "rotate": true}).want(t, "again", 401, "")
		},
		"its time": func(s *site, _ auth.UserID, _ auth.Tokens, _ *browser) { s.clock.Add(time.Hour + time.Minute) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, auth.Config{RefreshTTL: time.Hour})
			id := newAccount(t, s, "ada@example.com")
			tokens := s.login(t, "ada@example.com")
			s.as(t, tokens).post(api+"/change_email", object{"new_email": "thief@example.com"}).want(t, "request", 200, "*")
			link := s.link(t, s.inbox.wait(t, "thief@example.com", 1))
			end(s, id, tokens, s.as(t, s.login(t, "ada@example.com")))
			s.browser(t).form(link).want(t, "thief's link", 400, "Invalid token")
			if n := s.rows(t, `_user WHERE email = 'ada@example.com'`); n != 1 {
				t.Error("the account has another address")
			}
		})
	}
}

// Nothing that is under way helps a user who was stopped, and neither when the
// account is opened again.
func TestB6_PendingLinksOfStoppedUsers(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(s *site, id auth.UserID) error{
		"disabled": func(s *site, id auth.UserID) error { return s.SetDisabled(t.Context(), id, true) },
		"deleted":  func(s *site, id auth.UserID) error { return s.DeleteUser(t.Context(), id) },
		"opened again": func(s *site, id auth.UserID) error {
			if err := s.SetDisabled(t.Context(), id, true); err != nil {
				return err
			}
			return s.SetDisabled(t.Context(), id, false)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, auth.Config{OTP: true, Limits: wideLimits(), RedirectSchemes: []string{"app"}})
			_, d := s.addMFAUser(t, "second@example.com")
			second := s.userID(t, "second@example.com")
			id := newAccount(t, s, "ada@example.com")
			s.register(t, "fresh@example.com")
			b, tokens := s.browser(t), s.login(t, "ada@example.com")
			s.as(t, tokens).post(api+"/change_email", object{"new_email": "new@example.com"}).want(t, "change", 200, "*")
			change := s.link(t, s.inbox.wait(t, "new@example.com", 1))
			b.post(api+"/reset_password/request", object{"email": "ada@example.com"}).want(t, "reset", 200, "*")
			reset := token(t, s.inbox.about(t, "ada@example.com", "new password", 1))
			b.post(api+"/otp/request", object{"email": "ada@example.com"}).want(t, "otp", 200, "*")
			code := otpCode(t, s.inbox.about(t, "ada@example.com", "code", 1))
			verify := s.link(t, s.inbox.wait(t, "fresh@example.com", 1))
			mfa := s.firstFactor(t, "second@example.com")
			machine := withKey(t, s, newAPIKey(t, s.as(t, tokens), everything).Key)
			machine.get("/private").want(t, "key", 200, "*") // and into the cache

			for _, id := range []auth.UserID{id, second} {
				if err := stop(s, id); err != nil {
					t.Fatal(err)
				}
			}
			b.form(change).want(t, "change", 400, "Invalid token")
			b.post(resetUpdate, object{"password": good, "password_repeat": good, "password_reset_token": reset}).want(t, "reset", 400, "Invalid token")
			b.post(api+"/otp/login", object{"email": "ada@example.com", "code": code}).want(t, "otp", 401, "")
			s.secondFactor(t, mfa, d.code()).want(t, "second factor", 401, "")
			s.secondFactor(t, mfa, d.codes[0]).want(t, "recovery code", 401, "")
			b.post(api+"/refresh", object{"refresh_token": tokens.RefreshToken}).want(t, "refresh", 401, "")
			s.as(t, tokens).get("/private").want(t, "access", 401, "*")
			want := map[bool]int{true: 200, false: 401}[name == "opened again"]
			wantStatus(t, "key", machine.get("/private"), want)
			if name == "opened again" {
				return
			}
			// Somebody who never got in is stopped, too.
			s.exec(t, `UPDATE _user SET disabled = 1 WHERE unverified_email = 'fresh@example.com'`)
			b.form(verify).want(t, "verify", 400, "invalid token")
			// And asking anew does not help.
			b.post(api+"/reset_password/request", object{"email": "ada@example.com"}).want(t, "reset", 200, "*")
			b.post(api+"/otp/request", object{"email": "ada@example.com"}).want(t, "otp", 200, "*")
			b.get(api+"/verify_email/trigger?email=fresh@example.com").want(t, "trigger", 200, "*")
			before := len(s.inbox.to("ada@example.com")) + len(s.inbox.to("fresh@example.com"))
			s.flush(t)
			if after := len(s.inbox.to("ada@example.com")) + len(s.inbox.to("fresh@example.com")); after != before {
				t.Errorf("%d mails to stopped users", after-before)
			}
		})
	}
}

// An API key is no session, no refresh token, no link and no code; and it
// reaches nothing of an account but what the application asks it for.
func TestB11_APIKeyInOtherPlaces(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{OTP: true, Identifier: auth.RequireEmail, Anonymous: true, Limits: wideLimits()})
	_, d := s.addMFAUser(t, "ada@example.com")
	tokens := s.complete(t, "ada@example.com", d)
	key := newAPIKey(t, s.as(t, tokens), everything)
	machine, b := withKey(t, s, key.Key), s.browser(t)
	wantStatus(t, "as itself", machine.get("/private"), 200)

	sid, _ := claims(t, tokens.AuthToken)["sid"].(string)
	for _, route := range []struct {
		method, path string
		body         object
	}{
		{"POST", "/change_email", object{"new_email": "evil@example.com"}},
		{"POST", "/change_email/request", object{"new_email": "evil@example.com"}},
		{"POST", "/change_username", object{"new_username": "evil"}},
		{"POST", "/change_password", object{"old_password": good, "new_password": "Another.good.1"}},
		{"POST", "/promote_anonymous", object{"new_email": "evil@example.com", "new_password": good}},
		{"GET", "/totp/register", nil},
		{"POST", "/totp/confirm", object{"totp_url": "otpauth://totp/x?secret=A", "totp": "123456"}},
		{"POST", "/totp/unregister", object{"totp": d.code()}},
		{"GET", "/totp/recovery_codes", nil},
		{"POST", "/totp/recovery_codes", object{"totp": d.code()}},
		{"GET", "/sessions", nil},
		{"DELETE", "/sessions", nil},
		{"DELETE", "/sessions/" + sid, nil},
		{"DELETE", "/delete", nil},
		{"GET", "/delete", nil},
		{"DELETE", "/avatar", nil},
		{"POST", "/avatar", nil},
		{"GET", "/api_keys", nil},
		{"POST", "/api_keys", everything},
		{"DELETE", "/api_keys/" + key.ID, nil},
		{"GET", "/oauth/identities", nil},
	} {
		var r reply
		if route.body != nil {
			r = machine.post(api+route.path, route.body)
		} else {
			r = machine.do(route.method, api+route.path, "", "")
		}
		if r.status != 401 {
			t.Errorf("%s %s with an API key: %d %s", route.method, route.path, r.status, r.body)
		}
	}
	machine.get(api+"/logout").want(t, "logout", 200, "logged out")
	wantStatus(t, "the session that made it", s.as(t, tokens).get("/private"), 200)

	b.post(api+"/refresh", object{"refresh_token": key.Key}).want(t, "as refresh token", 401, "")
	b.with("Authorization", "Bearer "+tokens.AuthToken).with("Refresh-Token", key.Key).get(api+"/status").want(t, "in Refresh-Token", 401, "")
	b.post(api+"/logout", object{"refresh_token": key.Key}).want(t, "as refresh token of a logout", 200, "")
	b.post(api+"/token", object{"authorization_code": key.Key + "x", "pkce_code_verifier": strings.Repeat("v", 43)}).want(t, "as code", 404, "")
	b.post(resetUpdate, object{"password": good, "password_repeat": good, "password_reset_token": key.Key}).want(t, "as reset", 400, "Invalid token")
	b.form(api+"/verify_email/confirm/"+key.Key).want(t, "as verify", 400, "invalid token")
	b.form(api+"/change_email/confirm/"+key.Key).want(t, "as change", 400, "Invalid token")
	b.post(api+"/login_mfa", object{"mfa_token": key.Key, "totp": d.code()}).want(t, "as MFA token", 401, "")
	b.post(api+"/login_mfa", object{"mfa_token": s.firstFactor(t, "ada@example.com"), "recovery_code": key.Key}).want(t, "as second factor", 401, "")
	b.post(api+"/otp/login", object{"email": "ada@example.com", "code": key.Key}).want(t, "as mailed code", 401, "")
	b.post(api+"/login", object{"email": "ada@example.com", "password": key.Key}).want(t, "as password", 401, "")
	for _, name := range []string{"auth_token", "refresh_token", "oauth_state", "device"} {
		b.with("Cookie", name+"="+key.Key).get("/whoami").want(t, "as cookie "+name, 200, "anonymous")
	}
	// And nothing else is an API key.
	for _, secret := range []string{tokens.RefreshToken[:43], tokens.RefreshToken, strings.Repeat("a", 43), key.Prefix, key.ID, ""} {
		b.with("Authorization", "Bearer bpk_"+secret).get("/whoami").want(t, "bpk_"+secret, 200, "anonymous")
	}
	for _, header := range []string{"bearer " + key.Key, "Bearer  " + key.Key, "Basic " + key.Key, key.Key, "Bearer " + strings.ToUpper(key.Key), "Bearer " + key.Key + "\t, x"} {
		b.with("Authorization", header).get("/whoami").want(t, header, 200, "anonymous")
	}
}

// A token that was stolen a while after the sign-in changes no credentials.
func TestStaleSessionChangesNoCredentials(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Identifier: auth.RequireEmail})
	_, d := s.addMFAUser(t, "ada@example.com")
	newAccount(t, s, "bob@example.com")
	enrolled, plain := s.complete(t, "ada@example.com", d), s.login(t, "bob@example.com")
	offered, secret := offer(t, s.as(t, plain))
	s.clock.Add(11 * time.Minute)
	for _, tokens := range []auth.Tokens{enrolled, plain} {
		// A new token does not make the session fresh.
		var renewed auth.Tokens
		s.browser(t).post(api+"/refresh", object{"refresh_token": tokens.RefreshToken, "rotate": true}).json(t, &renewed)
		for _, b := range []*browser{s.as(t, tokens), s.as(t, renewed)} {
			for path, body := range map[string]object{
				"/change_email/request": {"new_email": "evil@example.com"},
				"/change_email":         {"new_email": "evil@example.com"},
				"/api_keys":             everything,
				"/totp/confirm":         {"totp_url": offered, "totp": totp.Code(secret, s.clock.Now())},
				"/totp/unregister":      {"totp": d.codes[0]},
				"/totp/recovery_codes":  {"totp": d.code()},
			} {
				b.post(api+path, body).want(t, path, 403, "sign in again first")
			}
			b.get(api+"/totp/register").want(t, "register", 403, "sign in again first")
		}
	}
	s.flush(t)
	if s.inbox.to("evil@example.com") != nil {
		t.Error("a mail to the new address")
	}
}

// What belonged to a second factor that was given up is good for nothing, also
// when there is a new one.
func TestA14_OldSecondFactor(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Limits: wideLimits()})
	_, old := s.addMFAUser(t, "ada@example.com")
	mfa := s.firstFactor(t, "ada@example.com")
	me := s.as(t, s.complete(t, "ada@example.com", old))
	me.post(api+"/totp/unregister", object{"totp": old.codes[0]}).want(t, "unregister by a recovery code", 200, "TOTP disabled")
	s.secondFactor(t, mfa, old.codes[1]).want(t, "a sign-in from before", 401, "")
	me.get(api+"/totp/recovery_codes").want(t, "left", 200, `{"remaining":0}`)
	me.post(api+"/totp/unregister", object{"totp": old.codes[1]}).want(t, "twice", 400, "TOTP not enabled for this user")

	d := s.enrol(t, me)
	for i, code := range append([]string{old.code()}, old.codes...) {
		s.secondFactor(t, s.firstFactor(t, "ada@example.com"), code).want(t, fmt.Sprint("old code ", i), 401, "")
	}
	s.secondFactor(t, mfa, d.code()).want(t, "a sign-in from before", 401, "")
	s.secondFactor(t, s.firstFactor(t, "ada@example.com"), d.codes[0]).want(t, "new code", 200, "*")
	if n := s.rows(t, `_recovery_code WHERE used IS NULL`); n != 9 {
		t.Errorf("%d codes are left", n)
	}
}

// Guesses of the second factor are limited in every place that takes one, all
// together.
func TestA14_GuessesInSignedInPlaces(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Limits: auth.Limits{Failures: auth.Limit{Events: 10, Per: time.Hour}}})
	_, d := s.addMFAUser(t, "ada@example.com")
	me := s.as(t, s.complete(t, "ada@example.com", d))
	var statuses []int
	for i := range 14 {
		path := []string{"/totp/unregister", "/totp/recovery_codes"}[i%2]
		statuses = append(statuses, me.post(api+path, object{"totp": fmt.Sprintf("AAAAA-AAAA%c", 'A'+i)}).status)
	}
	if !slices.Equal(statuses, append(slices.Repeat([]int{401}, 10), 429, 429, 429, 429)) {
		t.Errorf("statuses %v", statuses)
	}
	me.post(api+"/totp/unregister", object{"totp": d.codes[0]}).want(t, "a right one", 429, "")
	if n := s.rows(t, `_recovery_code WHERE used IS NULL`); n != 10 {
		t.Errorf("%d codes are left", n)
	}
}

// Two at the same moment, of what is limited in number or happens once.
func TestAccountRaces(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Anonymous: true, Identifier: auth.RequireUsername, Limits: wideLimits()})
	newAccountNamed := func(name string) auth.UserID {
		id, err := s.CreateUser(t.Context(), auth.CreateUser{Username: name, Email: name + "@example.com", Password: good, Verified: true})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	newAccountNamed("ada")
	me := s.as(t, s.login(t, "ada@example.com"))
	if got := parallel(60, func(int) reply { return me.post(api+"/api_keys", everything) }); got[200] != 50 || got[409] != 10 {
		t.Errorf("API keys: %v", got)
	}
	// A key that is made while the sessions end does not outlive them unseen.
	for i := range 5 {
		name := fmt.Sprint("bob", string(rune('a'+i)))
		id := newAccountNamed(name)
		b := s.as(t, s.login(t, name+"@example.com"))
		parallel(4, func(j int) reply {
			if j == 0 {
				return b.do("DELETE", api+"/delete", "", "")
			}
			return b.post(api+"/api_keys", everything)
		})
		if n := s.rows(t, `_api_key WHERE user = ?`, id[:]); n != 0 {
			t.Errorf("%d keys of nobody", n)
		}
	}
	// One promotion, one name.
	var tokens auth.Tokens
	s.browser(t).post(api+"/login_anonymous", object{}).json(t, &tokens)
	anonymous := s.as(t, tokens)
	got := parallel(6, func(i int) reply {
		return anonymous.post(api+"/promote_anonymous", object{"new_username": fmt.Sprint("eve", i), "new_password": good})
	})
	if got[200] != 1 || got[424] != 5 {
		t.Errorf("promotions: %v", got)
	}
	newAccountNamed("cay")
	both := []*browser{me, s.as(t, s.login(t, "cay@example.com"))}
	if got := parallel(2, func(i int) reply {
		return both[i].post(api+"/change_username", object{"new_username": []string{"Same", "sAME"}[i]})
	}); got[200] != 1 || got[409] != 1 {
		t.Errorf("one name: %v", got)
	}
}

// The rows of the contract's sections 3.10 to 3.13: what each answers to JSON,
// to a form, and with somewhere to go.
func TestContractMailRoutes(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{OTP: true, Limits: wideLimits(), RedirectSchemes: []string{"app"}})
	b := s.browser(t)
	n := 0
	address := func() string { n++; return fmt.Sprintf("u%03d@example.com", n) }
	signedIn := func() (string, *browser) {
		email := address()
		newAccount(t, s, email)
		return email, s.as(t, s.login(t, email))
	}
	linkIn := func(email, subject string) string { return s.link(t, s.inbox.about(t, email, subject, 1)) }
	rows := []struct {
		name     string
		do       func(redirectTo string, form bool) reply
		text     string // of success; what is in braces differs
		redirect bool   // JSON too is sent to a redirect_uri
	}{
		{"verify_email/trigger", func(to string, _ bool) reply {
			return b.get(api + "/verify_email/trigger?email=x@example.com&redirect_uri=" + url.QueryEscape(to))
		}, "Verification email sent", true},
		{"verify_email/confirm", func(to string, form bool) reply {
			email := address()
			s.register(t, email)
			return b.do("POST", linkIn(email, "Confirm")+"?redirect_uri="+url.QueryEscape(to), map[bool]string{true: "application/x-www-form-urlencoded", false: "application/json"}[form], "")
		}, "email verified", true},
		{"change_email/request", func(to string, form bool) reply {
			_, me := signedIn()
			if form {
				return me.form(api+"/change_email/request", "new_email", "new@example.com", "redirect_uri", to)
			}
			return me.post(api+"/change_email/request", object{"new_email": "new@example.com", "redirect_uri": to})
		}, "Verification mail sent to new@example.com.", false},
		{"change_email/confirm", func(to string, _ bool) reply {
			_, me := signedIn()
			next := address()
			me.post(api+"/change_email", object{"new_email": next}).want(t, "change", 200, "*")
			return b.do("POST", linkIn(next, "new email")+"?redirect_uri="+url.QueryEscape(to), "", "")
		}, "email changed", true},
		{"change_password", func(to string, form bool) reply {
			_, me := signedIn()
			if form {
				return me.form(api+"/change_password", "old_password", good, "new_password", "Another.good.1", "redirect_uri", to)
			}
			return me.post(api+"/change_password?redirect_uri="+url.QueryEscape(to), object{"old_password": good, "new_password": "Another.good.1"})
		}, "password changed", true},
		{"reset_password/request", func(to string, form bool) reply {
			if form {
				return b.form(api+"/reset_password/request", "email", "x@example.com", "redirect_uri", to)
			}
			return b.post(api+"/reset_password/request", object{"email": "x@example.com", "redirect_uri": to})
		}, "Password reset email sent", true},
		{"reset_password/update", func(to string, form bool) reply {
			email, _ := signedIn()
			b.post(api+"/reset_password/request", object{"email": email}).want(t, "request", 200, "*")
			secret := token(t, s.inbox.about(t, email, "new password", 1))
			if form {
				return b.form(resetUpdate, "password", "Another.good.1", "password_repeat", "Another.good.1", "password_reset_token", secret, "redirect_uri", to)
			}
			return b.post(resetUpdate, object{"password": "Another.good.1", "password_repeat": "Another.good.1", "password_reset_token": secret, "redirect_uri": to})
		}, "Password reset", true},
	}
	for _, row := range rows {
		for _, form := range []bool{false, true} {
			what := fmt.Sprintf("%s, form %t", row.name, form)
			r := row.do("", form)
			r.want(t, what, 200, row.text)
			if kind := r.header.Get("Content-Type"); !strings.HasPrefix(kind, "text/plain") {
				t.Errorf("%s: %s", what, kind)
			}
			for _, to := range []string{"/home", "/home?a=b", "app://back", siteURL + "/home#x"} {
				r := row.do(to, form)
				if !form && !row.redirect {
					r.want(t, what+" to "+to, 200, row.text)
					continue
				}
				at, fragment, _ := strings.Cut(to, "#")
				want := at + map[bool]string{true: "&", false: "?"}[strings.Contains(at, "?")] + "alert=" + url.QueryEscape(row.text)
				if fragment != "" {
					want += "#" + fragment
				}
				r.wantRedirect(t, what, want)
			}
			row.do("//evil.example", form).want(t, what+", to another site", 400, "invalid redirect")
		}
	}
	for _, form := range []bool{false, true} {
		var r, to reply
		if form {
			r, to = b.form(api+"/otp/request", "email", "x@example.com"), b.form(api+"/otp/request", "username", "somebody", "redirect_uri", "/home")
		} else {
			r, to = b.post(api+"/otp/request", object{"email": "x@example.com"}), b.post(api+"/otp/request", object{"username": "somebody", "redirect_uri": "/home"})
		}
		r.want(t, "otp/request", 200, "OTP sent")
		to.wantRedirect(t, "otp/request", "/home?username=somebody&alert=OTP+sent")
	}
	// The other methods of these paths.
	for path, method := range map[string]string{
		"/verify_email/trigger": "POST", "/change_email/request": "GET", "/change_email": "GET", "/change_username": "GET", "/change_password": "GET",
		"/reset_password/request": "GET", "/reset_password/update": "PUT", "/totp/register": "POST", "/totp/confirm": "GET", "/totp/unregister": "DELETE",
		"/otp/request": "GET", "/otp/login": "GET", "/delete": "POST", "/avatar": "GET",
	} {
		if r := b.do(method, api+path, "", ""); r.status != http.StatusMethodNotAllowed || r.body != "" {
			t.Errorf("%s %s: %d %q", method, path, r.status, r.body)
		}
	}
	// Who must be signed in.
	for path, method := range map[string]string{
		"/change_email/request": "POST", "/change_username": "POST", "/change_password": "POST", "/totp/register": "GET", "/totp/confirm": "POST",
		"/totp/unregister": "POST", "/delete": "DELETE", "/avatar": "POST", "/sessions": "GET", "/api_keys": "GET",
	} {
		b.do(method, api+path, "application/json", map[bool]string{true: "{}"}[method == "POST"]).want(t, method+" "+path+" by nobody", 401, "")
	}
}
