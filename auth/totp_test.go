package auth_test

import (
	"bytes"
	"encoding/base64"
	"image/png"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/internal/totp"
)

func TestTOTPRegister(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{AppName: "Plants & Co"})
	id := s.addUser(t, "ada@example.com")
	b := s.as(t, s.login(t, "ada@example.com"))
	var o struct {
		URL string  `json:"totp_url"`
		PNG *string `json:"png"`
	}
	for _, query := range []string{"", "?png=false"} {
		b.get(api+"/totp/register"+query).json(t, &o)
		if o.PNG != nil {
			t.Errorf("%q: an image that nobody has asked for", query)
		}
	}
	b.get(api+"/totp/register?png=true").json(t, &o)
	if !strings.HasPrefix(o.URL, "otpauth://totp/Plants%20%26%20Co:ada%40example.com?secret=") {
		t.Errorf("URL %s", o.URL)
	}
	raw, err := base64.StdEncoding.DecodeString(*o.PNG)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := png.Decode(bytes.NewReader(raw)); err != nil {
		t.Error(err)
	}
	b.get(api+"/totp/register?png=maybe").want(t, "bad png", 400, "invalid query")
	s.browser(t).get(api+"/totp/register").want(t, "anonymous", 401, "")
	if got := s.stored(t, id); got != "" {
		t.Errorf("an offer is stored as %s", got)
	}
	if n := s.rows(t, `_one_time WHERE purpose = 'totp'`); n != 3 {
		t.Errorf("%d offers", n)
	}
	for range 10 {
		offer(t, b)
	}
	if n := s.rows(t, `_one_time WHERE purpose = 'totp'`); n != 4 {
		t.Errorf("%d offers are kept", n)
	}
}

// Neither a colon in the name nor its absence stops anybody.
func TestTOTPRegisterNames(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	b := s.as(t, s.login(t, "ada@example.com"))
	for _, name := range []any{"a:b", "ada lovelace ♥", nil} {
		s.exec(t, `UPDATE _user SET email = NULL, username = ?`, name)
		otpauth, secret := offer(t, b)
		u, err := url.Parse(otpauth)
		if err != nil || len(secret) != 20 {
			t.Fatal(err, secret)
		}
		if label, _ := name.(string); !strings.HasPrefix(u.Path, "/Bedplate:"+label) || len(u.Path) < 13 {
			t.Errorf("%v: label %q", name, u.Path)
		}
	}
}

func TestTOTPConfirm(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{FreshTTL: time.Hour})
	id := s.addUser(t, "ada@example.com")
	s.addUser(t, "bob@example.com")
	tokens, other := s.login(t, "ada@example.com"), s.login(t, "ada@example.com")
	b, bob := s.as(t, tokens), s.as(t, s.login(t, "bob@example.com"))
	now := s.clock.Now

	otpauth, secret := offer(t, b)
	theirs, theirSecret := offer(t, bob)
	own := totp.NewSecret()
	for _, test := range []struct {
		what, url, code, want string
	}{
		{"no URL", "", "000000", "invalid totp url"},
		{"no otpauth URL", "https://example.com", "000000", "invalid totp url"},
		{"own secret", totp.URL("Bedplate", "ada@example.com", own), totp.Code(own, now()), "invalid totp url"},
		{"offered to somebody else", theirs, totp.Code(theirSecret, now()), "invalid totp url"},
		{"no code", otpauth, "", "invalid TOTP code"},
		{"wrong code", otpauth, totp.Code(own, now()), "invalid TOTP code"},
		{"old code", otpauth, totp.Code(secret, now().Add(-time.Minute)), "invalid TOTP code"},
	} {
		b.post(api+"/totp/confirm", object{"totp_url": test.url, "totp": test.code}).want(t, test.what, 400, test.want)
	}
	late, lateSecret := offer(t, bob)
	s.clock.Add(16 * time.Minute)
	bob.post(api+"/totp/confirm", object{"totp_url": late, "totp": totp.Code(lateSecret, now())}).want(t, "an offer that has expired", 400, "invalid totp url")

	otpauth, secret = offer(t, b)
	confirm := object{"totp_url": otpauth, "totp": totp.Code(secret, now())}
	s.browser(t).post(api+"/totp/confirm", confirm).want(t, "anonymous", 401, "")
	b.post(api+"/totp/confirm", confirm).want(t, "confirm", 200, "TOTP enabled")
	b.post(api+"/totp/confirm", confirm).want(t, "again", 409, "")
	b.get(api+"/totp/register").want(t, "register again", 409, "")

	stored := s.stored(t, id)
	if !strings.HasPrefix(stored, "sealed:") || strings.Contains(stored, totp.Encode(secret)) {
		t.Errorf("the secret is stored as %s", stored)
	}
	if m := s.inbox.about(t, "ada@example.com", "Two-step sign-in", 1); !strings.Contains(m.Text, "turned on") {
		t.Errorf("the notice is %q", m.Text)
	}
	// The session that has confirmed goes on, the others have ended.
	if got := b.get("/whoami").body; got != "ada@example.com" {
		t.Errorf("the confirming session is %s", got)
	}
	if got := s.as(t, other).get("/whoami").body; got != "anonymous" {
		t.Errorf("another session is %s", got)
	}
	if r := s.browser(t).post(api+"/refresh", object{"refresh_token": other.RefreshToken}); r.status != 401 {
		t.Errorf("another session refreshes: %d", r.status)
	}
	var fresh auth.Tokens
	s.browser(t).post(api+"/refresh", object{"refresh_token": tokens.RefreshToken}).json(t, &fresh)
	if c := claims(t, fresh.AuthToken); c["mfa"] != true {
		t.Errorf("claims %v", c)
	}
	// The code that has confirmed is used up.
	s.secondFactor(t, s.firstFactor(t, "ada@example.com"), totp.Code(secret, now())).want(t, "the code of the confirmation", 401, "")
}

func TestTOTPConfirmForm(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	b := s.browser(t)
	if r := b.form(api+"/login", "email", "ada@example.com", "password", good); r.status != 200 {
		t.Fatalf("login: %d %s", r.status, r.body)
	}
	otpauth, secret := offer(t, b)
	foreign := b.with("Sec-Fetch-Site", "cross-site")
	if r := foreign.form(api+"/totp/confirm", "totp_url", otpauth, "totp", totp.Code(secret, s.clock.Now())); r.status != 403 {
		t.Errorf("another site's form: %d %s", r.status, r.body)
	}
	b.form(api+"/totp/confirm", "totp_url", otpauth, "totp", totp.Code(secret, s.clock.Now())).want(t, "confirm", 200, "TOTP enabled")
}

// Of two that confirm at the same time one wins, also with different secrets.
func TestTOTPConfirmRace(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	b := s.as(t, s.login(t, "ada@example.com"))
	var bodies []object
	for range 4 {
		otpauth, secret := offer(t, b)
		body := object{"totp_url": otpauth, "totp": totp.Code(secret, s.clock.Now()), "recovery_codes": true}
		bodies = append(bodies, body, body)
	}
	got := parallel(len(bodies), func(i int) reply { return b.post(api+"/totp/confirm", bodies[i]) })
	if got[200] != 1 || got[200]+got[400]+got[409] != len(bodies) {
		t.Errorf("statuses %v", got)
	}
	if n := s.rows(t, `_recovery_code`); n != 10 {
		t.Errorf("%d recovery codes", n)
	}
}

// What changes factors needs a session in which credentials were just shown.
func TestTOTPNeedsFreshSession(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	b := s.as(t, s.login(t, "ada@example.com"))
	otpauth, secret := offer(t, b)
	s.clock.Add(11 * time.Minute)
	code := totp.Code(secret, s.clock.Now())
	for _, r := range []reply{
		b.get(api + "/totp/register"),
		b.post(api+"/totp/confirm", object{"totp_url": otpauth, "totp": code}),
		b.post(api+"/totp/unregister", object{"totp": code}),
		b.post(api+"/totp/recovery_codes", object{"totp": code}),
	} {
		r.want(t, "an old session", 403, "sign in again first")
	}
}

func TestTOTPUnregister(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	id := s.addUser(t, "ada@example.com")
	b := s.as(t, s.login(t, "ada@example.com"))
	b.post(api+"/totp/unregister", object{"totp": "123456"}).want(t, "not enrolled", 400, "TOTP not enabled for this user")
	d := s.enrol(t, b)
	waiting := s.firstFactor(t, "ada@example.com")

	s.browser(t).post(api+"/totp/unregister", object{"totp": d.code()}).want(t, "anonymous", 401, "")
	b.post(api+"/totp/unregister", object{}).want(t, "no code", 400, "TOTP missing")
	b.post(api+"/totp/unregister", object{"totp": "12345"}).want(t, "wrong code", 401, "")
	b.post(api+"/totp/unregister", object{"totp": d.code()}).want(t, "unregister", 200, "TOTP disabled")
	if s.stored(t, id) != "" || s.rows(t, `_recovery_code`) != 0 {
		t.Error("something of the second factor is left")
	}
	s.secondFactor(t, waiting, d.code()).want(t, "a sign-in that has waited", 401, "")
	s.login(t, "ada@example.com") // fails the test if it cannot
	s.inbox.about(t, "ada@example.com", "Two-step sign-in", 2)

	d = s.enrol(t, b) // of the session that was there all the time
	b.post(api+"/totp/unregister", object{"recovery_code": d.codes[0]}).want(t, "with a recovery code", 200, "TOTP disabled")
	d = s.enrol(t, b)
	b.post(api+"/totp/unregister", object{"totp": strings.ToLower(d.codes[9])}).want(t, "with a recovery code as totp", 200, "TOTP disabled")
	if n := s.rows(t, `_session WHERE method = 'password totp'`); n != 1 {
		t.Errorf("%d sessions with two factors", n)
	}
}

// The fixture of the contract writes secrets as base32.
const fixtureSeed = "YCUTAYEZ346ZUEI7FLCG57BOMZQHHRA5"

func TestSeedsOfOthersAreSealed(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	ada, bob := s.addUser(t, "ada@example.com"), s.addUser(t, "bob@example.com")
	secret, err := totp.Decode(fixtureSeed)
	if err != nil {
		t.Fatal(err)
	}
	// At run time: by the first use.
	s.exec(t, `UPDATE _user SET totp_secret = ? WHERE id = ?`, strings.ToLower(fixtureSeed), ada[:])
	d := &device{site: s, secret: secret}
	s.complete(t, "ada@example.com", d)
	if got := s.stored(t, ada); !strings.HasPrefix(got, "sealed:") {
		t.Errorf("stored as %s", got)
	}
	s.complete(t, "ada@example.com", d)

	// At the start: more than one chunk of them, and one that is unreadable.
	s.exec(t, `UPDATE _user SET totp_secret = ? WHERE id = ?`, fixtureSeed, bob[:])
	s.exec(t, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 250)
		INSERT INTO _user (username, totp_secret) SELECT 'user' || i, ? FROM n`, fixtureSeed)
	s.exec(t, `INSERT INTO _user (username, totp_secret) VALUES ('broken', 'no base32!'), ('empty', '')`)
	again, err := auth.New(t.Context(), s.db, s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	})
	if n := s.rows(t, `_user WHERE totp_secret LIKE 'sealed:%'`); n != 252 {
		t.Errorf("%d are sealed", n)
	}
	if n := s.rows(t, `_user WHERE totp_secret = 'no base32!'`); n != 1 {
		t.Error("the unreadable one is gone")
	}
	s.complete(t, "bob@example.com", d)

	// A secret of another user's row opens for nobody.
	s.exec(t, `UPDATE _user SET totp_step = 0, totp_secret = (SELECT totp_secret FROM _user WHERE id = ?) WHERE id = ?`, ada[:], bob[:])
	if r := s.secondFactor(t, s.firstFactor(t, "bob@example.com"), d.code()); r.status != 500 {
		t.Errorf("a secret that was moved: %d", r.status)
	}
}

// An unreadable secret is still a second factor.
func TestUnreadableSeedFailsClosed(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	for _, bad := range []string{"garbage!", "sealed:", "sealed:AAAA", "sealed:!!"} {
		s.exec(t, `UPDATE _user SET totp_secret = ?`, bad)
		if r := s.secondFactor(t, s.firstFactor(t, "ada@example.com"), "123456"); r.status == 200 {
			t.Errorf("%s: %d", bad, r.status)
		}
	}
}

// What is in the database is worth nothing without the key.
func TestSecondFactorIsNotInTheFile(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	_, d := s.addMFAUser(t, "ada@example.com")
	var file []byte
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(s.path + suffix)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		file = append(file, b...)
	}
	if !bytes.Contains(file, []byte("sealed:")) {
		t.Fatal("the file was not read")
	}
	secrets := [][]byte{d.secret, []byte(totp.Encode(d.secret)), []byte(base64.RawStdEncoding.EncodeToString(d.secret))}
	for _, c := range d.codes {
		secrets = append(secrets, []byte(c), []byte(strings.ReplaceAll(c, "-", "")))
	}
	for _, secret := range secrets {
		if bytes.Contains(file, secret) {
			t.Errorf("%q is in the file", secret)
		}
	}
}
