package auth_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/internal/totp"
	"github.com/bedplate/bedplate/sqlite"
)

// A device is the authenticator app of a user.
type device struct {
	site   *site
	secret []byte
	codes  []string // recovery codes
}

// code returns a code that was not used before: it waits for the next step.
func (d *device) code() string {
	d.site.clock.Add(30 * time.Second)
	return totp.Code(d.secret, d.site.clock.Now())
}

// offer asks for a secret.
func offer(t testing.TB, b *browser) (otpauth string, secret []byte) {
	t.Helper()
	var o struct {
		URL string `json:"totp_url"`
	}
	r := b.get(api + "/totp/register")
	if r.status != 200 {
		t.Fatalf("register: %d %s", r.status, r.body)
	}
	r.json(t, &o)
	secret, err := totp.ParseURL(o.URL)
	if err != nil {
		t.Fatal(err)
	}
	return o.URL, secret
}

// enrol gives a signed-in user a second factor.
func (s *site) enrol(t testing.TB, b *browser) *device {
	t.Helper()
	otpauth, secret := offer(t, b)
	d := &device{site: s, secret: secret}
	r := b.post(api+"/totp/confirm", object{"totp_url": otpauth, "totp": totp.Code(secret, s.clock.Now()), "recovery_codes": true})
	if r.status != 200 {
		t.Fatalf("confirm: %d %s", r.status, r.body)
	}
	var codes struct {
		Codes []string `json:"recovery_codes"`
	}
	r.json(t, &codes)
	d.codes = codes.Codes
	return d
}

// addMFAUser makes a user with a second factor.
func (s *site) addMFAUser(t testing.TB, email string) (auth.UserID, *device) {
	t.Helper()
	id := s.addUser(t, email)
	return id, s.enrol(t, s.as(t, s.login(t, email)))
}

// firstFactor signs in with the password good as far as it goes.
func (s *site) firstFactor(t testing.TB, email string) (mfaToken string) {
	t.Helper()
	r := s.browser(t).post(api+"/login", object{"email": email, "password": good})
	return pending(t, r)
}

// pending reads the token of an answer that asks for the second factor, and
// gives nothing else away.
func pending(t testing.TB, r reply) string {
	t.Helper()
	var body object
	if r.status != 403 {
		t.Fatalf("no second factor is asked for: %d %s", r.status, r.body)
	}
	r.json(t, &body)
	token, _ := body["mfa_token"].(string)
	if len(body) != 1 || len(token) != 48 || r.header["Set-Cookie"] != nil {
		t.Fatalf("%v, cookies %v", body, r.header["Set-Cookie"])
	}
	return token
}

func (s *site) secondFactor(t testing.TB, mfaToken, code string) reply {
	t.Helper()
	return s.browser(t).post(api+"/login_mfa", object{"mfa_token": mfaToken, "totp": code})
}

// about returns the n-th mail to an address whose subject holds a text.
func (i *inbox) about(t testing.TB, address, subject string, n int) auth.Message {
	t.Helper()
	for number := 1; ; number++ {
		m := i.wait(t, address, number)
		if !strings.Contains(m.Subject, subject) {
			continue
		}
		if n--; n == 0 {
			return m
		}
	}
}

// complete signs in with both factors.
func (s *site) complete(t testing.TB, email string, d *device) (tokens auth.Tokens) {
	t.Helper()
	r := s.secondFactor(t, s.firstFactor(t, email), d.code())
	if r.status != 200 {
		t.Fatalf("second factor: %d %s", r.status, r.body)
	}
	r.json(t, &tokens)
	return tokens
}

// stored returns what the database has for a secret.
func (s *site) stored(t testing.TB, id auth.UserID) (secret string) {
	t.Helper()
	err := s.db.View(t.Context(), func(tx *sqlite.Tx) error {
		return tx.QueryRowContext(t.Context(), `SELECT coalesce(totp_secret, '') FROM _user WHERE id = ?`, id[:]).Scan(&secret)
	})
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// noFailureLimits is for tests that fail often on purpose.
func noFailureLimits() auth.Limits {
	return auth.Limits{Failures: auth.Limit{Events: -1}, SecondFactors: auth.Limit{Events: -1}, AddressFailures: auth.Limit{Events: -1}}
}

func TestLoginMFA(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	_, d := s.addMFAUser(t, "ada@example.com")
	b := s.browser(t)
	token := s.firstFactor(t, "ada@example.com")
	for _, body := range []object{{}, {"mfa_token": token}, {"mfa_token": token, "totp": nil}, {"mfa_token": token, "totp": " "}} {
		b.post(api+"/login_mfa", body).want(t, "no code", 400, "TOTP missing")
	}
	code := d.code()
	for _, bad := range []string{"", "x", strings.Repeat("a", 48), token[:47], token + "a", strings.Repeat("x", 1<<15)} {
		b.post(api+"/login_mfa", object{"mfa_token": bad, "totp": code}).want(t, "bad token", 401, "")
	}
	for _, bad := range []string{"000000x", "1", strings.Repeat("1", 100), "ABCDE-FGHJK"} {
		s.secondFactor(t, token, bad).want(t, "bad code", 401, "")
	}
	r := s.secondFactor(t, token, code[:3]+" "+code[3:])
	if r.status != 200 || r.header["Set-Cookie"] != nil {
		t.Fatalf("%d %s", r.status, r.body)
	}
	var tokens auth.Tokens
	r.json(t, &tokens)
	if c := claims(t, tokens.AuthToken); c["mfa"] != true || c["email"] != "ada@example.com" || len(tokens.RefreshToken) != 86 || len(tokens.CSRFToken) != 20 {
		t.Errorf("claims %v, %+v", c, tokens)
	}
	if got := s.as(t, tokens).get("/whoami").body; got != "ada@example.com" {
		t.Errorf("whoami: %s", got)
	}
	if n := s.rows(t, `_session WHERE method = 'password totp'`); n != 2 { // with the one that has enrolled
		t.Errorf("%d sessions with two factors", n)
	}
	s.secondFactor(t, token, d.code()).want(t, "a token that was used", 401, "")

	token = s.firstFactor(t, "ada@example.com")
	s.clock.Add(5 * time.Minute)
	s.secondFactor(t, token, d.code()).want(t, "a token that has expired", 401, "")

	token = s.firstFactor(t, "ada@example.com")
	s.exec(t, `UPDATE _user SET disabled = 1`)
	s.secondFactor(t, token, d.code()).want(t, "a user who was disabled", 401, "")
	s.exec(t, `UPDATE _user SET disabled = 0, totp_secret = NULL`)
	s.secondFactor(t, token, d.code()).want(t, "a user without a second factor", 424, "")
}

// Several sign-ins may wait for their second factor.
func TestLoginMFASideBySide(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	_, d := s.addMFAUser(t, "ada@example.com")
	first := s.firstFactor(t, "ada@example.com")
	for range 5 {
		s.firstFactor(t, "ada@example.com")
	}
	if r := s.secondFactor(t, first, d.code()); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
	if n := s.rows(t, `_one_time WHERE purpose = 'mfa'`); n != 5 {
		t.Errorf("%d wait", n)
	}
}

func TestLoginMFAForm(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{RedirectSchemes: []string{"app"}})
	_, d := s.addMFAUser(t, "ada@example.com")
	b := s.browser(t)
	login := func(pairs ...string) url.Values {
		t.Helper()
		r := b.form(api+"/login", append([]string{"email", "ada@example.com", "password", good}, pairs...)...)
		if r.status != 303 || r.header["Set-Cookie"] != nil {
			t.Fatalf("login: %d %s", r.status, r.body)
		}
		u, err := url.Parse(r.location())
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		q.Set("path", u.Path)
		return q
	}

	q := login("redirect_uri", "/home?a=b")
	if q.Get("path") != "/_/auth/login_mfa" || q.Get("redirect_uri") != "/home?a=b" || len(q.Get("mfa_token")) != 48 {
		t.Fatalf("%v", q)
	}
	r := b.form(api+"/login_mfa", "mfa_token", q.Get("mfa_token"), "totp", "12345", "redirect_uri", "/home?a=b")
	back, err := url.Parse(r.location())
	if err != nil || r.status != 303 || back.Path != "/_/auth/login_mfa" || back.Query().Get("alert") != "Wrong code. Please try again." ||
		back.Query().Get("mfa_token") != q.Get("mfa_token") || back.Query().Get("redirect_uri") != "/home?a=b" {
		t.Errorf("a wrong code: %d %s, %v", r.status, r.location(), err)
	}
	r = b.form(api+"/login_mfa", "mfa_token", q.Get("mfa_token"), "totp", "12345")
	r.want(t, "a wrong code without redirect", 401, "")
	r = b.form(api+"/login_mfa", "mfa_token", q.Get("mfa_token"), "totp", d.code(), "redirect_uri", "https://evil.example")
	r.want(t, "a bad redirect", 400, "invalid redirect")
	r = b.with("Sec-Fetch-Site", "cross-site").form(api+"/login_mfa", "mfa_token", q.Get("mfa_token"), "totp", d.code(), "redirect_uri", "/")
	if r.status != 403 {
		t.Errorf("another site's form: %d", r.status)
	}
	r = b.form(api+"/login_mfa", "mfa_token", q.Get("mfa_token"), "totp", d.code(), "redirect_uri", "/home?a=b")
	if r.status != 303 || r.location() != "/home?a=b" || len(r.header["Set-Cookie"]) != 3 {
		t.Errorf("%d %s %v", r.status, r.location(), r.header["Set-Cookie"])
	}
	for _, c := range r.header["Set-Cookie"] {
		if !strings.Contains(c, "HttpOnly") || !strings.Contains(c, "SameSite=") {
			t.Errorf("cookie %s", c)
		}
	}
	if got := b.get("/whoami").body; got != "ada@example.com" {
		t.Errorf("whoami: %s", got)
	}
	// The token is gone: there is nothing to try again.
	r = b.form(api+"/login_mfa", "mfa_token", q.Get("mfa_token"), "totp", d.code(), "redirect_uri", "/home")
	if r.status != 303 || r.location() != "/home?alert=Login+Failed%3A+401+Unauthorized" {
		t.Errorf("a used token: %d %s", r.status, r.location())
	}

	q = login("mfa_redirect_uri", "/own/mfa?x=1")
	if q.Get("path") != "/own/mfa" || q.Get("x") != "1" {
		t.Errorf("%v", q)
	}
	r = b.form(api+"/login_mfa", "mfa_token", q.Get("mfa_token"), "totp", d.code())
	r.want(t, "without redirect", 200, "logged in")
}

// A native client gets its code behind the second factor and not before.
func TestLoginMFACodeFlow(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{RedirectSchemes: []string{"app"}})
	_, d := s.addMFAUser(t, "ada@example.com")
	verifier := strings.Repeat("v", 50)
	sum := sha256.Sum256([]byte(verifier))
	challenge := base64.RawURLEncoding.EncodeToString(sum[:])
	pkce := []string{"redirect_uri", "app://done", "response_type", "code", "pkce_code_challenge", challenge}
	b := s.browser(t)
	r := b.form(api+"/login", append([]string{"email", "ada@example.com", "password", good}, pkce...)...)
	u, err := url.Parse(r.location())
	if err != nil || r.status != 303 || u.Path != "/_/auth/login_mfa" || u.Query().Get("code") != "" ||
		u.Query().Get("pkce_code_challenge") != challenge || u.Query().Get("response_type") != "code" || u.Query().Get("redirect_uri") != "app://done" {
		t.Fatalf("%d %s, %v", r.status, r.location(), err)
	}
	if n := s.rows(t, `_one_time WHERE purpose = 'code'`); n != 0 {
		t.Fatal("there is a code already")
	}
	token := u.Query().Get("mfa_token")
	r = b.form(api+"/login_mfa", append([]string{"mfa_token", token, "totp", d.code()}, pkce...)...)
	u, err = url.Parse(r.location())
	if err != nil || r.status != 303 || u.Scheme != "app" || len(u.Query().Get("code")) != 48 || r.header["Set-Cookie"] != nil {
		t.Fatalf("%d %s %v, %v", r.status, r.location(), r.header["Set-Cookie"], err)
	}
	r = b.post(api+"/token", object{"authorization_code": u.Query().Get("code"), "pkce_code_verifier": verifier})
	if r.status != 200 {
		t.Errorf("exchange: %d %s", r.status, r.body)
	}
	if n := s.rows(t, `_session WHERE method = 'password totp'`); n != 2 {
		t.Errorf("%d sessions with two factors", n)
	}
}

func TestA12_CodeIsAcceptedOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Limits: noFailureLimits()})
	_, d := s.addMFAUser(t, "ada@example.com")
	now := s.clock.Now

	for _, step := range []time.Duration{0, -30 * time.Second, 30 * time.Second} {
		s.clock.Add(5 * time.Minute)
		code := totp.Code(d.secret, now().Add(step))
		if r := s.secondFactor(t, s.firstFactor(t, "ada@example.com"), code); r.status != 200 {
			t.Fatalf("the code of %v: %d", step, r.status)
		}
		for _, again := range []time.Duration{-30 * time.Second, 0, 30 * time.Second} {
			if again > step {
				continue
			}
			code := totp.Code(d.secret, now().Add(again))
			if r := s.secondFactor(t, s.firstFactor(t, "ada@example.com"), code); r.status != 401 {
				t.Errorf("the code of %v after that of %v: %d", again, step, r.status)
			}
		}
		s.clock.Add(30 * time.Second)
		if r := s.secondFactor(t, s.firstFactor(t, "ada@example.com"), code); r.status != 401 {
			t.Errorf("the code of %v half a minute later: %d", step, r.status)
		}
	}
	for _, outside := range []time.Duration{-time.Minute, time.Minute} {
		s.clock.Add(5 * time.Minute)
		if r := s.secondFactor(t, s.firstFactor(t, "ada@example.com"), totp.Code(d.secret, now().Add(outside))); r.status != 401 {
			t.Errorf("the code of %v: %d", outside, r.status)
		}
	}
}

func TestA12_ParallelUses(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Limits: noFailureLimits()})
	_, d := s.addMFAUser(t, "ada@example.com")
	const n = 8
	for range 5 {
		one := s.firstFactor(t, "ada@example.com")
		code := d.code()
		if got := parallel(n, func(int) reply { return s.secondFactor(t, one, code) }); got[200] != 1 || got[401] != n-1 {
			t.Errorf("one token: %v", got)
		}
		tokens := make([]string, n)
		for i := range tokens {
			tokens[i] = s.firstFactor(t, "ada@example.com")
		}
		code = d.code()
		if got := parallel(n, func(i int) reply { return s.secondFactor(t, tokens[i], code) }); got[200] != 1 || got[401] != n-1 {
			t.Errorf("many tokens: %v", got)
		}
	}
	if got := s.rows(t, `_session`); got != 11 {
		t.Errorf("%d sessions", got)
	}

	// The same code for a sign-in and for something else.
	b := s.as(t, s.complete(t, "ada@example.com", d))
	token, code := s.firstFactor(t, "ada@example.com"), d.code()
	got := parallel(n, func(i int) reply {
		if i%2 == 0 {
			return s.secondFactor(t, token, code)
		}
		return b.post(api+"/totp/recovery_codes", object{"totp": code})
	})
	if got[200] != 1 || got[401] != n-1 {
		t.Errorf("two purposes: %v", got)
	}
}

func TestMFATokenBearsFiveMisses(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Limits: noFailureLimits()})
	_, d := s.addMFAUser(t, "ada@example.com")
	token := s.firstFactor(t, "ada@example.com")
	for range 4 {
		s.secondFactor(t, token, "12345").want(t, "a wrong code", 401, "")
	}
	if r := s.secondFactor(t, token, d.code()); r.status != 200 {
		t.Errorf("the right code at the fifth try: %d", r.status)
	}
	token = s.firstFactor(t, "ada@example.com")
	for range 5 {
		s.secondFactor(t, token, "12345").want(t, "a wrong code", 401, "")
	}
	s.secondFactor(t, token, d.code()).want(t, "the right code behind five wrong ones", 401, "")
}

// Who knows the password gets no further guesses by showing it again.
func TestMFAGuessesAreCountedForTheAccount(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Limits: auth.Limits{SecondFactors: auth.Limit{Events: 60, Per: time.Hour, Burst: 10}}})
	_, d := s.addMFAUser(t, "ada@example.com")
	wrong, refused := 0, 0
	for range 30 {
		switch r := s.secondFactor(t, s.firstFactor(t, "ada@example.com"), "12345"); r.status {
		case 401:
			wrong++
		case 429:
			refused++
			if r.header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
		default:
			t.Errorf("%d %s", r.status, r.body)
		}
	}
	if wrong != 10 || refused != 20 {
		t.Errorf("%d guesses and %d refusals", wrong, refused)
	}
	// The right code is refused as well, until the limit allows one more.
	code := totp.Code(d.secret, s.clock.Now().Add(30*time.Second))
	if r := s.secondFactor(t, s.firstFactor(t, "ada@example.com"), code); r.status != 429 {
		t.Errorf("the right code: %d", r.status)
	}
	s.clock.Add(time.Minute)
	b := s.as(t, s.complete(t, "ada@example.com", d))
	// And now all is forgotten, for the other places where codes are shown too.
	for range 10 {
		b.post(api+"/totp/unregister", object{"totp": "12345"}).want(t, "a wrong code", 401, "")
	}
	if r := b.post(api+"/totp/recovery_codes", object{"totp": d.code()}); r.status != 429 {
		t.Errorf("the eleventh: %d", r.status)
	}
}

// Failures of the first factor stay counted until the second one was right.
func TestFirstFactorForgetsNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Limits: auth.Limits{Failures: auth.Limit{Events: 60, Per: time.Hour, Burst: 10}}})
	_, d := s.addMFAUser(t, "ada@example.com")
	b := s.browser(t)
	wrong := func() int {
		return b.post(api+"/login", object{"email": "ADA@example.com", "password": "wrong"}).status
	}
	for range 9 {
		if got := wrong(); got != 401 {
			t.Fatalf("%d", got)
		}
	}
	s.firstFactor(t, "ada@example.com")
	if first, second := wrong(), wrong(); first != 401 || second != 429 {
		t.Errorf("behind the first factor: %d and %d", first, second)
	}
	s.clock.Add(time.Minute)
	s.complete(t, "ada@example.com", d)
	for range 10 {
		if got := wrong(); got != 401 {
			t.Fatalf("behind both factors: %d", got)
		}
	}
}

func TestNoLimitMeansNone(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Limits: noFailureLimits()})
	s.addUser(t, "ada@example.com")
	got := parallel(20, func(int) reply {
		return s.browser(t).post(api+"/login", object{"email": "ada@example.com", "password": "wrong"})
	})
	if got[401] != 20 {
		t.Errorf("%v", got)
	}
}
