package auth_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/internal/totp"
)

// remaining asks how many codes are left.
func remaining(t testing.TB, b *browser) int {
	t.Helper()
	var left struct {
		Remaining int `json:"remaining"`
	}
	r := b.get(api + "/totp/recovery_codes")
	if r.status != 200 {
		t.Fatalf("remaining: %d %s", r.status, r.body)
	}
	r.json(t, &left)
	return left.Remaining
}

func TestA14_RecoveryCodes(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	_, d := s.addMFAUser(t, "ada@example.com")
	b := s.as(t, s.complete(t, "ada@example.com", d))
	if len(d.codes) != 10 || remaining(t, b) != 10 {
		t.Fatalf("codes %v, %d left", d.codes, remaining(t, b))
	}
	seen := map[string]bool{}
	for _, c := range d.codes {
		if !regexp.MustCompile(`^[A-HJ-NP-Z2-9]{5}-[A-HJ-NP-Z2-9]{5}$`).MatchString(c) || seen[c] {
			t.Errorf("code %s", c)
		}
		seen[c] = true
	}
	s.browser(t).get(api+"/totp/recovery_codes").want(t, "anonymous", 401, "")

	ways := []func(c string) object{
		func(c string) object { return object{"recovery_code": c} },
		func(c string) object { return object{"totp": c} },
		func(c string) object { return object{"totp": "", "recovery_code": strings.ToLower(c)} },
		func(c string) object { return object{"totp": " " + strings.ReplaceAll(c, "-", " ")} },
	}
	for i, way := range ways {
		token := s.firstFactor(t, "ada@example.com")
		if r := s.browser(t).post(api+"/login_mfa", plus(way(d.codes[i]), "mfa_token", token)); r.status != 200 {
			t.Errorf("way %d: %d %s", i, r.status, r.body)
		}
		token = s.firstFactor(t, "ada@example.com")
		s.browser(t).post(api+"/login_mfa", plus(way(d.codes[i]), "mfa_token", token)).want(t, "again", 401, "")
	}
	if got := remaining(t, b); got != 6 {
		t.Errorf("%d are left", got)
	}
	if n := s.rows(t, `_session WHERE method = 'password recovery'`); n != 4 {
		t.Errorf("%d sessions by recovery code", n)
	}
	m := s.inbox.about(t, "ada@example.com", "recovery code", 1)
	if !strings.Contains(m.Subject, "recovery code") || !regexp.MustCompile(`[6-9] codes are left`).MatchString(m.Text) {
		t.Errorf("the notice is %q %q", m.Subject, m.Text)
	}
	// They hang on their user.
	_, other := s.addMFAUser(t, "bob@example.com")
	s.secondFactor(t, s.firstFactor(t, "bob@example.com"), d.codes[9]).want(t, "somebody else's code", 401, "")
	if r := s.secondFactor(t, s.firstFactor(t, "bob@example.com"), other.codes[0]); r.status != 200 {
		t.Errorf("the own one: %d", r.status)
	}
}

func TestA14_ParallelUses(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Limits: noFailureLimits()})
	_, d := s.addMFAUser(t, "ada@example.com")
	const n = 8
	for i := range 3 {
		tokens := make([]string, n)
		for i := range tokens {
			tokens[i] = s.firstFactor(t, "ada@example.com")
		}
		if got := parallel(n, func(j int) reply { return s.secondFactor(t, tokens[j], d.codes[i]) }); got[200] != 1 || got[401] != n-1 {
			t.Errorf("one code, many tokens: %v", got)
		}
	}
	token := s.firstFactor(t, "ada@example.com")
	if got := parallel(n-1, func(j int) reply { return s.secondFactor(t, token, d.codes[3+j]) }); got[200] != 1 || got[401] != n-2 {
		t.Errorf("many codes, one token: %v", got)
	}
	if got := s.rows(t, `_recovery_code WHERE used IS NULL`); got != 6 {
		t.Errorf("%d codes are left: a sign-in that failed has used one", got)
	}
}

func TestA14_GuessesAreLimited(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Limits: auth.Limits{Failures: auth.Limit{Events: 60, Per: time.Hour, Burst: 10}}})
	_, d := s.addMFAUser(t, "ada@example.com")
	for i := range 12 {
		want := 401
		if i >= 10 {
			want = 429
		}
		if r := s.secondFactor(t, s.firstFactor(t, "ada@example.com"), "AAAAA-AAAAA"); r.status != want {
			t.Errorf("guess %d: %d", i, r.status)
		}
	}
	if r := s.secondFactor(t, s.firstFactor(t, "ada@example.com"), d.codes[0]); r.status != 429 {
		t.Errorf("a right one: %d", r.status)
	}
}

func TestRecoveryCodesAreReplaced(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	b := s.as(t, s.login(t, "ada@example.com"))
	b.post(api+"/totp/recovery_codes", object{"totp": "123456"}).want(t, "not enrolled", 400, "TOTP not enabled for this user")

	// As official clients enrol: they read the text and get codes later.
	otpauth, secret := offer(t, b)
	b.post(api+"/totp/confirm", object{"totp_url": otpauth, "totp": totp.Code(secret, s.clock.Now())}).want(t, "confirm", 200, "TOTP enabled")
	d := &device{site: s, secret: secret}
	if got := remaining(t, b); got != 0 {
		t.Errorf("%d codes that nobody has seen", got)
	}
	codes := func(body object) []string {
		t.Helper()
		var made struct {
			Codes []string `json:"recovery_codes"`
		}
		r := b.post(api+"/totp/recovery_codes", body)
		if r.status != 200 {
			t.Fatalf("%d %s", r.status, r.body)
		}
		r.json(t, &made)
		return made.Codes
	}
	old := codes(object{"totp": d.code()})
	b.post(api+"/totp/recovery_codes", object{}).want(t, "no code", 400, "TOTP missing")
	b.post(api+"/totp/recovery_codes", object{"totp": "12345"}).want(t, "wrong code", 401, "")
	b.post(api+"/totp/recovery_codes", object{"totp": old[0]}).want(t, "a recovery code", 401, "")
	b.post(api+"/totp/recovery_codes", object{"totp": totp.Code(secret, s.clock.Now())}).want(t, "a used code", 401, "")
	if got := remaining(t, b); got != 10 {
		t.Errorf("%d are left", got)
	}
	fresh := codes(object{"totp": d.code()})
	if len(fresh) != 10 || remaining(t, b) != 10 {
		t.Errorf("%d codes, %d left", len(fresh), remaining(t, b))
	}
	s.secondFactor(t, s.firstFactor(t, "ada@example.com"), old[0]).want(t, "an old code", 401, "")
	if r := s.secondFactor(t, s.firstFactor(t, "ada@example.com"), fresh[0]); r.status != 200 {
		t.Errorf("a new code: %d", r.status)
	}
}
