package auth_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
)

// otpCode returns the code in a mail.
func otpCode(t testing.TB, m auth.Message) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^  ([A-Z0-9]{6})$`).FindStringSubmatch(m.Text)
	if found == nil {
		t.Fatalf("no code in %q", m.Text)
	}
	return found[1]
}

// newOTP asks for a code and returns that of the n-th mail.
func (s *site) newOTP(t testing.TB, email string, n int) string {
	t.Helper()
	s.browser(t).post(api+"/otp/request", object{"email_or_username": email, "redirect_uri": nil}).want(t, "request", 200, "OTP sent")
	return otpCode(t, s.inbox.wait(t, email, n))
}

var noMailLimits = auth.Limits{Mails: auth.Limit{Events: -1}, AddressMails: auth.Limit{Events: -1}}

func TestOTP(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{OTP: true, Identifier: auth.RequireEmail, Limits: noMailLimits})
	s.member(t, "ada@example.com")
	s.exec(t, `UPDATE _user SET username = 'ada'`)
	b := s.browser(t)
	const login = api + "/otp/login"
	b.post(login, object{"email": "ada@example.com"}).want(t, "no code", 400, "missing code")
	b.post(login, object{"code": "ABCDEF"}).want(t, "no name", 400, "missing email or username")
	b.post(login, object{"email": "ada@example.com", "code": "ABCDEF"}).want(t, "none asked for", 401, "")
	b.post(login, object{"email": "nobody@example.com", "code": "ABCDEF"}).want(t, "unknown", 401, "")

	code := s.newOTP(t, "ada@example.com", 2)
	for name, r := range map[string]func(code string) reply{
		"email":             func(c string) reply { return b.post(login, object{"email": "ADA@example.com", "code": c}) },
		"username":          func(c string) reply { return b.post(login, object{"username": "ada", "code": c}) },
		"email_or_username": func(c string) reply { return b.post(login, object{"email_or_username": "ada@example.com", "code": c}) },
		"untidy code": func(c string) reply {
			return b.post(login, object{"email": "ada@example.com", "code": " " + strings.ToLower(c) + "\n"})
		},
		"query":       func(c string) reply { return b.do("POST", login+"?email=ada@example.com&code="+c, "", "") },
		"query, JSON": func(c string) reply { return b.post(login+"?email=ada@example.com&code="+c, object{}) },
	} {
		r := r(code)
		r.want(t, name, 200, "*")
		var tokens auth.Tokens
		r.json(t, &tokens)
		s.as(t, tokens).get("/whoami").want(t, name, 200, "ada@example.com")
		code = s.newOTP(t, "ada@example.com", len(s.inbox.to("ada@example.com"))+1)
	}

	b.form(api+"/otp/request", "email", "ada@example.com", "redirect_uri", "/_/auth/otp/login").
		wantRedirect(t, "request", "/_/auth/otp/login?email=ada%40example.com&alert=OTP+sent")
	m := s.inbox.wait(t, "ada@example.com", len(s.inbox.to("ada@example.com")))
	s.flush(t)
	code = otpCode(t, s.inbox.wait(t, m.To, len(s.inbox.to(m.To))))
	b.form(login, "email", "ada@example.com", "code", "WRONG", "redirect_uri", "/in").
		wantRedirect(t, "form, wrong", alert("/in", "Login Failed: 401 Unauthorized"))
	b.form(login, "email", "ada@example.com", "code", code, "redirect_uri", "//evil").want(t, "bad redirect", 400, "invalid redirect")
	b.form(login, "email", "ada@example.com", "code", code, "redirect_uri", "/in").wantRedirect(t, "form", "/in")
	b.get("/whoami").want(t, "cookies", 200, "ada@example.com")

	code = s.newOTP(t, "ada@example.com", len(s.inbox.to(m.To))+1)
	s.clock.Add(10*time.Minute + time.Second)
	b.post(login, object{"email": "ada@example.com", "code": code}).want(t, "expired", 401, "")
}

func TestOTPOff(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.browser(t).post(api+"/otp/request", object{"email": "ada@example.com"}).want(t, "request", 404, "")
	s.browser(t).post(api+"/otp/login", object{"email": "ada@example.com", "code": "ABCDEF"}).want(t, "login", 404, "")
}

func TestA11_CodeOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{OTP: true, Limits: noMailLimits})
	s.member(t, "ada@example.com")
	s.member(t, "eve@example.com")
	b := s.browser(t)
	use := func(email, code string) reply { return b.post(api+"/otp/login", object{"email": email, "code": code}) }

	code := s.newOTP(t, "ada@example.com", 2)
	if got := parallel(8, func(int) reply { return use("ada@example.com", code) }); got[200] != 1 || got[401] != 7 {
		t.Errorf("at the same time: %v", got)
	}
	use("ada@example.com", code).want(t, "again", 401, "")

	code = s.newOTP(t, "ada@example.com", 3)
	s.newOTP(t, "eve@example.com", 2)
	use("eve@example.com", code).want(t, "another account's", 401, "")
	older := code
	code = s.newOTP(t, "ada@example.com", 4)
	use("ada@example.com", older).want(t, "older", 401, "")
	use("ada@example.com", code).want(t, "newer", 200, "*")

	for i, state := range []string{`disabled = 1`, `unverified_email = 'x@example.com'`} {
		s.exec(t, `UPDATE _user SET disabled = 0, unverified_email = NULL`)
		code = s.newOTP(t, "eve@example.com", 3+i)
		s.exec(t, `UPDATE _user SET `+state)
		use("eve@example.com", code).want(t, state, 401, "")
		pkce := "?response_type=code&redirect_uri=/x&pkce_code_challenge=" + strings.Repeat("A", 43)
		b.post(api+"/otp/login"+pkce, object{"email": "eve@example.com", "code": code}).want(t, state+", code flow", 401, "")
	}
}

func TestA11_Guesses(t *testing.T) {
	t.Parallel()
	limits := noMailLimits
	limits.Failures = auth.Limit{Events: -1}
	s := newSite(t, auth.Config{OTP: true, Limits: limits})
	s.member(t, "ada@example.com")
	b := s.browser(t)
	use := func(code string) reply {
		return b.post(api+"/otp/login", object{"email": "ada@example.com", "code": code})
	}
	for misses, want := range map[int]int{4: 200, 5: 401} {
		code := s.newOTP(t, "ada@example.com", len(s.inbox.to("ada@example.com"))+1)
		for range misses {
			use("000000").want(t, "wrong", 401, "")
		}
		use(code).want(t, "right one after misses", want, "*")
	}
}

func TestA11_Flood(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{OTP: true})
	s.member(t, "ada@example.com")
	s.clock.Add(2 * time.Hour) // its mail counts, too
	b := s.browser(t)
	got := parallel(20, func(int) reply { return b.post(api+"/otp/request", object{"email": "ada@example.com"}) })
	if got[200] != 5 || got[429] != 15 {
		t.Errorf("statuses %v", got)
	}
	b.post(api+"/reset_password/request", object{"email": "ada@example.com"}).want(t, "other kinds of mail count, too", 429, "")
	b.get(api+"/verify_email/trigger?email=ADA@example.com").want(t, "and other spellings", 429, "")
	s.flush(t)
	s.settle(t)
	if n := len(s.inbox.to("ada@example.com")) - 1; n != 5 {
		t.Errorf("%d mails", n)
	}
}

// A mailed code is the first factor only.
func TestA13_OTPAndSecondFactor(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{OTP: true})
	s.member(t, "ada@example.com")
	s.exec(t, `UPDATE _user SET totp_secret = 'YCUTAYEZ346ZUEI7FLCG57BOMZQHHRA5'`)
	code := s.newOTP(t, "ada@example.com", 2)
	b := s.browser(t)
	r := b.post(api+"/otp/login", object{"email": "ada@example.com", "code": code})
	r.want(t, "login", 403, "*")
	var answer map[string]string
	if r.json(t, &answer); len(answer) != 1 || len(answer["mfa_token"]) != 48 {
		t.Errorf("answer %v", answer)
	}
	b.post(api+"/login_mfa", object{"mfa_token": answer["mfa_token"], "totp": code}).want(t, "the same mailbox again", 401, "")
	b.post(api+"/otp/login", object{"email": "ada@example.com", "code": code}).want(t, "again", 401, "")
	if n := s.rows(t, "_session"); n != 0 {
		t.Errorf("%d sessions", n)
	}
}
