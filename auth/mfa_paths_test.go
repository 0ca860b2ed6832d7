package auth_test

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/internal/totp"
)

// No way in leads past the second factor.
func TestA13_EveryPathAsks(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{OTP: true, RedirectSchemes: []string{"app"}})
	s.addUser(t, "ada@example.com")
	verifier := strings.Repeat("v", 50)
	sum := sha256.Sum256([]byte(verifier))
	challenge := base64.RawURLEncoding.EncodeToString(sum[:])
	b := s.browser(t)

	// A code and a session from before.
	r := b.post(api+"/login", object{
		"email": "ada@example.com", "password": good, "redirect_uri": "app://done", "response_type": "code", "pkce_code_challenge": challenge,
	})
	u, err := url.Parse(r.location())
	if err != nil || len(u.Query().Get("code")) != 48 {
		t.Fatalf("%d %s, %v", r.status, r.location(), err)
	}
	before := s.browser(t)
	if r := before.form(api+"/login", "email", "ada@example.com", "password", good); r.status != 200 {
		t.Fatalf("login: %d %s", r.status, r.body)
	}
	d := s.enrol(t, s.as(t, s.login(t, "ada@example.com")))
	r = b.post(api+"/token", object{"authorization_code": u.Query().Get("code"), "pkce_code_verifier": verifier})
	r.want(t, "a code from before", 404, "")
	if got := before.get("/whoami").body; got != "anonymous" {
		t.Errorf("a browser's session from before is %s", got)
	}

	// The password.
	s.firstFactor(t, "ada@example.com")
	r = b.post(api+"/login", object{
		"email": "ada@example.com", "password": good, "redirect_uri": "app://done", "response_type": "code", "pkce_code_challenge": challenge,
	})
	pending(t, r)
	r = b.form(api+"/login", "email", "ada@example.com", "password", good, "redirect_uri", "/")
	if r.status != 303 || !strings.HasPrefix(r.location(), "/_/auth/login_mfa?mfa_token=") || r.header["Set-Cookie"] != nil {
		t.Errorf("a form: %d %s %v", r.status, r.location(), r.header["Set-Cookie"])
	}

	// A mailed code: the mailbox is one factor and never the other.
	b.post(api+"/otp/request", object{"email": "ada@example.com"}).want(t, "otp/request", 200, "OTP sent")
	otp := otpCode(t, s.inbox.about(t, "ada@example.com", "code", 1))
	mfa := pending(t, b.post(api+"/otp/login", object{"email": "ada@example.com", "code": otp}))
	s.secondFactor(t, mfa, otp).want(t, "the mailed code as second factor", 401, "")
	b.post(api+"/otp/request", object{"email": "ada@example.com"}).want(t, "otp/request", 200, "OTP sent")
	another := otpCode(t, s.inbox.about(t, "ada@example.com", "code", 2))
	s.secondFactor(t, mfa, another).want(t, "another mailed code as second factor", 401, "")
	if r := s.secondFactor(t, mfa, d.code()); r.status != 200 {
		t.Errorf("the app's code behind the mailed one: %d", r.status)
	}
	if n := s.rows(t, `_session WHERE method = 'otp totp'`); n != 1 {
		t.Errorf("%d sessions by mailed code", n)
	}

	// A password reset signs nobody in.
	if r := b.post(api+"/reset_password/request", object{"email": "ada@example.com"}); r.status != 200 {
		t.Fatalf("reset: %d %s", r.status, r.body)
	}
	reset := token(t, s.inbox.about(t, "ada@example.com", "password", 1))
	r = b.post(api+"/reset_password/update", object{"password": good + "x", "password_repeat": good + "x", "password_reset_token": reset})
	if r.status != 200 || r.header["Set-Cookie"] != nil || strings.Contains(r.body, "token") {
		t.Errorf("reset: %d %s %v", r.status, r.body, r.header["Set-Cookie"])
	}
	pending(t, b.post(api+"/login", object{"email": "ada@example.com", "password": good + "x"}))

	if n := s.rows(t, `_session WHERE method NOT LIKE '% %'`); n != 0 {
		t.Errorf("%d sessions with one factor", n)
	}
}

func TestA13_ProviderIsOneFactor(t *testing.T) {
	t.Parallel()
	f := newFederation(t, auth.Config{})
	f.a.SetUser(person("42", "ada@example.com"))
	b := f.browser(t)
	f.signIn(b, "a").want(t, "sign-in", 200, "logged in")
	d := f.enrol(t, b)

	b = f.browser(t)
	r := f.signIn(b, "a", "redirect_uri", "/home")
	mfa := param(t, r.location(), "mfa_token")
	if r.status != 303 || len(mfa) != 48 || param(t, r.location(), "redirect_uri") != "/home" || cookies(r)["auth_token"] != nil {
		t.Fatalf("%d to %s, cookies %v", r.status, r.location(), r.header["Set-Cookie"])
	}
	f.wantCount(t, 1, `_session`) // the one that has enrolled

	b.form(api+"/login_mfa", "mfa_token", mfa, "totp", d.code(), "redirect_uri", "/home").wantRedirect(t, "second factor", "/home")
	f.wantCount(t, 2, `_session WHERE method = 'oauth:a totp'`)
}

// Sign-ins that are on their way while the factor is enrolled do not slip
// through.
func TestA13_SignInDuringEnrolment(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Limits: noFailureLimits()})
	for i := range 10 {
		email := fmt.Sprintf("user%d@example.com", i)
		id := s.addUser(t, email)
		b := s.as(t, s.login(t, email))
		otpauth, secret := offer(t, b)
		code := totp.Code(secret, s.clock.Now())
		var refreshes sync.Map
		got := parallel(8, func(i int) reply {
			if i == 4 {
				return b.post(api+"/totp/confirm", object{"totp_url": otpauth, "totp": code})
			}
			r := s.browser(t).post(api+"/login", object{"email": email, "password": good})
			if r.status == 200 {
				var tokens auth.Tokens
				r.json(t, &tokens)
				refreshes.Store(tokens.RefreshToken, true)
			}
			return r
		})
		if got[200]+got[401]+got[403] != 8 {
			t.Errorf("statuses %v", got)
		}
		refreshes.Range(func(token, _ any) bool {
			if r := s.browser(t).post(api+"/refresh", object{"refresh_token": token}); r.status != 401 {
				t.Errorf("a session with one factor goes on: %d", r.status)
			}
			return true
		})
		if n := s.rows(t, `_session WHERE user = ? AND method NOT LIKE '% %'`, id[:]); n != 0 {
			t.Errorf("%d sessions with one factor", n)
		}
	}
}

// An API key, if there are any, neither removes nor adds a factor; nor does a
// token that is none.
func TestA13_OnlySessionsChangeFactors(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	_, d := s.addMFAUser(t, "ada@example.com")
	b := s.as(t, s.complete(t, "ada@example.com", d))
	credentials := []string{"bpk_" + strings.Repeat("a", 43), s.firstFactor(t, "ada@example.com")}
	r := b.post(api+"/api_keys", object{"name": "k", "scopes": []object{{"api": "*", "operations": []string{"*"}}}})
	if r.status == http.StatusOK {
		var made struct {
			Key string `json:"key"`
		}
		r.json(t, &made)
		credentials = append(credentials, made.Key)
	}
	for _, c := range credentials {
		key := s.browser(t).with("Authorization", "Bearer "+c)
		for _, r := range []reply{
			key.get(api + "/totp/register"), key.get(api + "/totp/recovery_codes"),
			key.post(api+"/totp/confirm", object{"totp_url": totp.URL("", "", d.secret), "totp": d.code()}),
			key.post(api+"/totp/unregister", object{"totp": d.code()}),
			key.post(api+"/totp/recovery_codes", object{"totp": d.code()}),
		} {
			if r.status != 401 {
				t.Errorf("%.5s: %d %s", c, r.status, r.body)
			}
		}
	}
}

func TestB11_MFATokenInOtherPlaces(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{OTP: true})
	_, d := s.addMFAUser(t, "ada@example.com")
	tokens := s.complete(t, "ada@example.com", d)
	mfa := s.firstFactor(t, "ada@example.com")
	b := s.browser(t)
	if got := b.with("Authorization", "Bearer "+mfa).get("/whoami").body; got != "anonymous" {
		t.Errorf("as an auth token: %s", got)
	}
	if got := b.with("Cookie", "auth_token="+mfa+"; refresh_token="+mfa).get("/whoami").body; got != "anonymous" {
		t.Errorf("as a cookie: %s", got)
	}
	reset := object{"password": good, "password_repeat": good}
	for _, test := range []struct {
		what   string
		r      reply
		status int
	}{
		{"refresh token", b.post(api+"/refresh", object{"refresh_token": mfa}), 401},
		{"authorization code", b.post(api+"/token", object{"authorization_code": mfa, "pkce_code_verifier": strings.Repeat("v", 43)}), 404},
		{"verification", b.form(api + "/verify_email/confirm/" + mfa), 400},
		{"change of address", b.form(api + "/change_email/confirm/" + mfa), 400},
		{"mailed code", b.post(api+"/otp/login", object{"email": "ada@example.com", "code": mfa}), 401},
		{"reset", b.post(api+"/reset_password/update", plus(reset, "password_reset_token", mfa)), 400},
		{"second factor", s.secondFactor(t, mfa, mfa), 401},
	} {
		if test.r.status != test.status {
			t.Errorf("as %s: %d %s, want %d", test.what, test.r.status, test.r.body, test.status)
		}
	}
	if r := b.post(api+"/reset_password/request", object{"email": "ada@example.com"}); r.status != 200 {
		t.Fatalf("reset: %d %s", r.status, r.body)
	}
	others := map[string]string{
		"auth token": tokens.AuthToken, "refresh token": tokens.RefreshToken, "CSRF token": tokens.CSRFToken,
		"reset token":   token(t, s.inbox.about(t, "ada@example.com", "password", 1)),
		"recovery code": d.codes[0], "nothing": "", "NUL": "\x00", "no UTF-8": "\xff",
	}
	for what, other := range others {
		s.secondFactor(t, other, d.code()).want(t, what+" as mfa token", 401, "")
	}
	if r := s.secondFactor(t, mfa, d.code()); r.status != 200 {
		t.Errorf("the token in its own place: %d", r.status)
	}
}

// plus returns a copy of o with a further member.
func plus(o object, name string, value any) object {
	c := object{name: value}
	for k, v := range o {
		c[k] = v
	}
	return c
}
