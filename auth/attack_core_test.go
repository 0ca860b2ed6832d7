package auth_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/sqlite"
)

// from returns a program that seems to come from an address, for a site with
// one proxy.
func (s *site) from(t testing.TB, address string) *browser {
	return s.browser(t).with("X-Forwarded-For", address)
}

func (b *browser) login(name, password string) int {
	b.t.Helper()
	return b.post(api+"/login", object{"email": name, "password": password}).status
}

func TestA3_RightPasswordWhileLocked(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Proxies: 1})
	s.addUser(t, "ada@example.com")
	attacker := s.from(t, "192.0.2.1")
	for range 10 {
		if got := attacker.login("ada@example.com", "Wrong.horse.7"); got != 401 {
			t.Fatalf("guess: %d", got)
		}
		attacker.login("nobody@example.com", "Wrong.horse.7")
	}
	right := attacker.post(api+"/login", object{"email": "ada@example.com", "password": good})
	for what, body := range map[string]object{
		"wrong":   {"email": "ada@example.com", "password": "Wrong.horse.7"},
		"unknown": {"email": "nobody@example.com", "password": good},
		"case":    {"email": "ADA@EXAMPLE.com", "password": good},
		"either":  {"email_or_username": " ada@example.com ", "password": good},
	} {
		r := attacker.post(api+"/login", body)
		if right.status != 429 || r.status != right.status || r.body != right.body || r.header.Get("Retry-After") != right.header.Get("Retry-After") {
			t.Errorf("%s: %d %q %v, right: %d %q %v", what, r.status, r.body, r.header, right.status, right.body, right.header)
		}
	}
	if right.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	r := attacker.form(api+"/login", "email", "ada@example.com", "password", good, "redirect_uri", "/in")
	if r.status != 303 || r.location() != "/in?alert=Login+Failed%3A+429+Too+Many+Requests" || r.header["Set-Cookie"] != nil {
		t.Errorf("form: %d %s", r.status, r.location())
	}
}

// Thousands of guesses in an hour from 500 addresses, one after the other and
// many at a time: a hundred of them are looked at, and the owner comes in.
func TestA4_ManyAddresses(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Proxies: 1})
	s.addUser(t, "ada@example.com")
	home := s.from(t, "198.51.100.7")
	if got := home.login("ada@example.com", good); got != 200 {
		t.Fatalf("login: %d", got)
	}
	laptop := s.from(t, "203.0.113.5") // its address is not known later, but its cookie is
	s.loginForm(t, laptop, "ada@example.com")

	var looked atomic.Int64
	guess := func(i int) {
		b := s.from(t, fmt.Sprintf("192.0.%d.%d", 2+i%500/250, i%250))
		b.client = home.client // connections
		r := b.post(api+"/login", object{"email": "ada@example.com", "password": fmt.Sprintf("Wrong.horse.%d", i)})
		switch r.status {
		case 401:
			looked.Add(1)
		case 429:
		default:
			t.Errorf("guess %d: %d %s", i, r.status, r.body)
		}
	}
	for minute := range 60 {
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() { guess(minute*50 + i) })
		}
		wg.Wait()
		for i := range 20 {
			guess(minute*50 + 30 + i)
		}
		s.clock.Add(time.Minute)
	}
	if n := looked.Load(); n > 100 || n < 30 {
		t.Errorf("%d guesses were looked at in an hour", n)
	}
	for range 10 {
		s.from(t, "192.0.2.77").login("ada@example.com", "Wrong.horse.7")
	}
	if got := s.from(t, "192.0.2.77").login("ada@example.com", good); got != 429 {
		t.Errorf("the attacker with the right password: %d", got)
	}
	if got := home.login("ada@example.com", good); got != 200 {
		t.Errorf("the owner from a known address: %d", got)
	}
	if got := laptop.with("X-Forwarded-For", "192.0.2.78").login("ada@example.com", good); got != 200 {
		t.Errorf("the owner with a known browser: %d", got)
	}
}

// Who guesses from the owner's own address, as behind one NAT, does not lock
// out the browser that the owner has signed in with.
func TestA4_SharedAddress(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Proxies: 1})
	s.addUser(t, "ada@example.com")
	owner, attacker := s.from(t, "192.0.2.1"), s.from(t, "192.0.2.1")
	s.loginForm(t, owner, "ada@example.com")
	for i := range 200 {
		attacker.login("ada@example.com", "Wrong.horse.7")
		attacker.login(fmt.Sprintf("u%d@example.com", i), "Wrong.horse.7")
	}
	if got := attacker.login("ada@example.com", good); got != 429 {
		t.Errorf("the attacker with the right password: %d", got)
	}
	if got := owner.login("ada@example.com", good); got != 200 {
		t.Errorf("the owner: %d", got)
	}
	// A device that is known to one account says nothing for another.
	s.addUser(t, "eve@example.com")
	if got := owner.login("eve@example.com", good); got != 429 {
		t.Errorf("another account from a known device: %d", got)
	}
}

// One address tries many accounts at the same time.
func TestA4_ParallelSpray(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{
		Proxies: 1, Argon2: auth.Argon2{Memory: 64, Time: 1, Queue: 1000},
		Limits: auth.Limits{AddressFailures: auth.Limit{Events: 120, Per: time.Hour, Burst: 30}},
	})
	b := s.from(t, "192.0.2.1")
	var looked atomic.Int64
	for round := range 5 {
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				if b.login(fmt.Sprintf("u%d-%d@example.com", round, i), "Wrong.horse.7") == 401 {
					looked.Add(1)
				}
			})
		}
		wg.Wait()
		s.clock.Add(30 * time.Second) // one more is allowed
	}
	if n := looked.Load(); n > 35 {
		t.Errorf("%d guesses were looked at, want at most 30 at once and one each half minute", n)
	}
}

func TestA5_MadeUpNames(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Proxies: 1})
	s.addUser(t, "ada@example.com")
	for range 10 {
		s.from(t, "192.0.2.1").login("ada@example.com", "Wrong.horse.7")
	}
	b := s.browser(t)
	for i := range 1500 {
		b.with("X-Forwarded-For", fmt.Sprintf("198.51.%d.%d", i/250, i%250)).login(fmt.Sprintf("u%d@example.com", i), "Wrong.horse.7")
	}
	if err := s.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.from(t, "192.0.2.2").login("ada@example.com", good); got != 429 {
		t.Errorf("made up names push out a limit: %d", got)
	}
	s.clock.Add(2 * time.Hour)
	if err := s.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := s.number(t, `SELECT count(*) FROM _throttle`); n > 1 {
		t.Errorf("%d rows are left when all is forgotten", n)
	}
}

// number returns the one number that a query is about.
func (s *site) number(t testing.TB, query string) (n int) {
	t.Helper()
	err := s.db.View(t.Context(), func(tx *sqlite.Tx) error { return tx.QueryRowContext(t.Context(), query).Scan(&n) })
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestA6_Passwords(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Limits: wideLimits()})
	b := s.browser(t)
	long := func(n int) string { return strings.Repeat("aB3.xyz-", n/8+1)[:n] }
	n := 0
	for _, test := range []struct {
		name, password string
		want           int
		text           string
	}{
		{"empty", "", 400, "Password too short"},
		{"1", "x", 400, "Password too short"},
		{"7", long(7), 400, "Password too short"},
		{"8", long(8), 200, ""},
		{"64", long(64), 200, ""},
		{"72", long(72), 200, ""},
		{"73", long(73), 200, ""},
		{"128", long(128), 200, ""},
		{"129", long(129), 400, "Password too long"},
		{"30 kB", long(30_000), 400, "Password too long"},
		{"NUL", "Correct\x00horse.7", 400, ""},
		{"NFD", "Cafe\u0301.au.lait.7", 200, ""},
		{"emoji", "\U0001f434\U0001f50b\U0001f4ce\U0001f9f7", 200, ""},
	} {
		n++
		email := fmt.Sprintf("u%d@example.com", n)
		r := b.post(api+"/register", object{"email": email, "password": test.password, "password_repeat": test.password})
		if r.status != test.want || test.text != "" && r.body != test.text {
			t.Errorf("%s: %d %s", test.name, r.status, r.body)
		}
		if test.want != 200 {
			continue
		}
		s.exec(t, `UPDATE _user SET email = unverified_email, unverified_email = NULL WHERE unverified_email = ?`, email)
		if got := b.login(email, test.password); got != 200 {
			t.Errorf("%s: login %d", test.name, got)
		}
		for what, other := range map[string]string{"cut": test.password[:len(test.password)-1], "longer": test.password + "x", "upper": strings.ToUpper(test.password) + "X"} {
			if got := b.login(email, other); got != 401 {
				t.Errorf("%s, %s: login %d", test.name, what, got)
			}
		}
	}
	if got := b.login("u12@example.com", "Caf\u00e9.au.lait.7"); got != 200 {
		t.Errorf("NFC of an NFD password: %d", got)
	}
	for name, body := range map[string]string{
		"1 MB":               `{"email":"x@example.com","password":"` + long(1<<20) + `","password_repeat":""}`,
		"unpaired surrogate": `{"email":"x@example.com","password":"\ud800correct.7","password_repeat":"\ud800correct.7"}`,
		"invalid UTF-8":      "{\"email\":\"x@example.com\",\"password\":\"correct\xff.horse\",\"password_repeat\":\"correct\xff.horse\"}",
	} {
		r := b.do("POST", api+"/register", "application/json", body)
		if r.status != 400 && (r.status != 413 || name != "1 MB") {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	if r := b.form(api+"/register", "email", "x@example.com", "password", "correct\xff.horse", "password_repeat", "correct\xff.horse"); r.status != 400 {
		t.Errorf("invalid UTF-8 in a form: %d %s", r.status, r.body)
	}
}

func TestC3_PKCE(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	login := func(params object) reply {
		body := object{"email": "ada@example.com", "password": good}
		for k, v := range params {
			body[k] = v
		}
		return s.browser(t).post(api+"/login", body)
	}
	ok := challenge(verifier)
	for _, test := range []struct {
		name   string
		params object
		text   string
	}{
		{"no redirect", object{"response_type": "code", "pkce_code_challenge": ok}, "missing 'redirect_uri'"},
		{"no challenge", object{"response_type": "code", "redirect_uri": "/in"}, "missing 'pkce_code_challenge'"},
		{"empty", object{"response_type": "code", "redirect_uri": "/in", "pkce_code_challenge": ""}, "missing 'pkce_code_challenge'"},
		{"plain", object{"response_type": "code", "redirect_uri": "/in", "pkce_code_challenge": verifier}, "invalid 'pkce_code_challenge'"},
		{"padded", object{"response_type": "code", "redirect_uri": "/in", "pkce_code_challenge": ok + "="}, "invalid 'pkce_code_challenge'"},
		{"short", object{"response_type": "code", "redirect_uri": "/in", "pkce_code_challenge": ok[:42]}, "invalid 'pkce_code_challenge'"},
		{"line break", object{"response_type": "code", "redirect_uri": "/in", "pkce_code_challenge": ok + "\n"}, "invalid 'pkce_code_challenge'"},
		{"no code", object{"redirect_uri": "/in", "pkce_code_challenge": ok}, "set 'response_type=code' or remove pkce_code_challenge"},
		{"token", object{"response_type": "token", "pkce_code_challenge": ok}, "set 'response_type=code' or remove pkce_code_challenge"},
		{"other type", object{"response_type": "id_token"}, "invalid 'response_type'"},
		{"elsewhere", object{"response_type": "code", "redirect_uri": "//evil.example", "pkce_code_challenge": ok}, "invalid redirect"},
	} {
		if r := login(test.params); r.status != 400 || r.body != test.text {
			t.Errorf("%s: %d %s", test.name, r.status, r.body)
		}
	}
	for name, v := range map[string]string{
		"the challenge": ok, "empty": "", "short": verifier[:42], "long": strings.Repeat("a", 129), "other": verifier + "x", "case": strings.ToUpper(verifier),
	} {
		if r := s.exchange(t, s.code(t, "ada@example.com"), v); r.status != 404 || r.body != "" {
			t.Errorf("verifier %s: %d %s", name, r.status, r.body)
		}
	}
	for _, length := range []int{42, 129} { // RFC 7636 wants 43 to 128
		v := strings.Repeat("v", length)
		r := login(object{"response_type": "code", "redirect_uri": "/in", "pkce_code_challenge": challenge(v)})
		u, _ := url.Parse(r.location())
		if r := s.exchange(t, u.Query().Get("code"), v); r.status != 404 {
			t.Errorf("verifier of %d characters: %d", length, r.status)
		}
	}
	for body, want := range map[string]int{
		`{"authorization_code":"short","pkce_code_verifier":"x"}`: 400,
		`{"authorization_code":"","pkce_code_verifier":"x"}`:      400,
		`{"authorization_code":1,"pkce_code_verifier":"x"}`:       422,
		`{"pkce_code_verifier":"x"}`:                              422,
		`{"authorization_code":"x"}`:                              422,
		`{`:                                                       400,
	} {
		r := s.browser(t).do("POST", api+"/token", "application/json", body)
		if r.status != want || want == 400 && body != "{" && r.body != "invalid auth code" {
			t.Errorf("%s: %d %s", body, r.status, r.body)
		}
	}
	if r := s.browser(t).form(api+"/token", "authorization_code", "x"); r.status != 415 {
		t.Errorf("token by a form: %d", r.status)
	}
	// A code never comes with tokens or cookies, and no token without its verifier.
	r := s.browser(t).form(api+"/login", "email", "ada@example.com", "password", good, "response_type", "code", "redirect_uri", "/in", "pkce_code_challenge", ok)
	if r.status != 303 || r.header["Set-Cookie"] != nil || r.body != "" {
		t.Errorf("a form for a code: %d %v %s", r.status, r.header["Set-Cookie"], r.body)
	}
}

// elsewhere are redirects that lead to another site, or that somebody may read
// so.
var elsewhere = []string{
	"//evil.example", "///evil.example", "/\\evil.example", "\\\\evil.example", "\\/evil.example", "/\t/evil.example", "\t//evil.example", " //evil.example",
	"/%2f%2fevil.example", "/%2F/evil.example", "/%5cevil.example", "/%09/evil.example", "/%0d%0aSet-Cookie:x", "/\r\nSet-Cookie: x=y", "/\x00",
	"https:evil.example", "http:evil.example", "http:/evil.example", "http:///evil.example", "http:\\\\evil.example",
	"https://evil.example", "http://evil.example", "https://site.example", "http://site.example:81/", "http://site.example.evil.example/",
	"http://site.example@evil.example/", "http://evil.example#@site.example", "http://evil.example/http://site.example", "http://evil.example\\@site.example",
	"http://user:pass@site.example/", "http://site.example%2eevil.example", "http://xsite.example/", "http://site.exampl\u0435/", "http://xn--site-9cd.example/", "http://[::1]/",
	"javascript:alert(1)", "JavaScript:alert(1)", "java\nscript:alert(1)", "data:text/html,x", "vbscript:x", "file:///etc/passwd", "blob:x", "about:blank",
	"evil.example", "site.example/x", "x", "?x", "#x", "./x", "../x", "/../x", "/a/../../x", "/%2e%2e/x", "/./x", "/..//evil.example", "http://site.example/..//evil.example",
	"app://ok/exact/more", "app://ok/exac", "APP://ok/exact", "other:x", "myapp:x", "https://ok.example/callback/", "https://ok.example/callback?x", "https://ok.example:443/callback", "https://OK.example/callback", "https://ok.example/callbac",
	"/" + strings.Repeat("a", 3000), "/\u00e9",
}

// crossSite are headers by which a browser tells that a page of another site
// is behind a request.
var crossSite = []http.Header{
	{"Sec-Fetch-Site": {"cross-site"}},
	{"Sec-Fetch-Site": {"same-site"}},
	{"Sec-Fetch-Site": {"cross-site"}, "Origin": {"null"}},
	{"Origin": {"https://evil.example"}},
	{"Origin": {"null"}},
	{"Origin": {"http://site.example.evil.example"}},
	{"Origin": {"http://evil-site.example"}},
}

func TestJ8_ImportedHash(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	imported, err := bcrypt.GenerateFromPassword([]byte(good), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	stored := func() (hash string) {
		t.Helper()
		err := s.db.View(t.Context(), func(tx *sqlite.Tx) error {
			return tx.QueryRowContext(t.Context(), `SELECT password_hash FROM _user`).Scan(&hash)
		})
		if err != nil {
			t.Fatal(err)
		}
		return hash
	}
	s.exec(t, `UPDATE _user SET password_hash = ?`, string(imported))
	b := s.browser(t)
	if got := b.login("ada@example.com", "Wrong.horse.7"); got != 401 || stored() != string(imported) {
		t.Errorf("wrong password: %d, hash %s", got, stored())
	}
	if got := b.login("ada@example.com", good); got != 200 {
		t.Errorf("imported: %d", got)
	}
	better := stored()
	if !strings.HasPrefix(better, "$argon2id$") {
		t.Errorf("hash %s", better)
	}
	if got := b.login("ada@example.com", good); got != 200 || stored() != better {
		t.Errorf("after the rehash: %d, hash %s", got, stored())
	}
	// Several at the same time: all are right, one of them writes.
	s.exec(t, `UPDATE _user SET password_hash = ?`, string(imported))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if got := s.browser(t).login("ada@example.com", good); got != 200 {
				t.Errorf("at the same time: %d", got)
			}
		})
	}
	wg.Wait()
	// A stronger one is left alone.
	strong := newSite(t, auth.Config{Argon2: auth.Argon2{Memory: 1024, Time: 2, Queue: 100}})
	strong.addUser(t, "ada@example.com")
	err = strong.db.View(t.Context(), func(tx *sqlite.Tx) error {
		return tx.QueryRowContext(t.Context(), `SELECT password_hash FROM _user`).Scan(&better)
	})
	if err != nil {
		t.Fatal(err)
	}
	s.exec(t, `UPDATE _user SET password_hash = ?`, better)
	if got := b.login("ada@example.com", good); got != 200 || stored() != better {
		t.Errorf("stronger: %d, hash %s", got, stored())
	}
}

// Who registers with the address of an account learns nothing, owns nothing
// and leaves nothing; the owner is told.
func TestA1_RegisterTakenAddress(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Identifier: auth.RequireEmail})
	s.addUser(t, "ada@example.com")
	b := s.browser(t)
	fresh := b.post(api+"/register", object{"email": "new@example.com", "password": good, "password_repeat": good})
	taken := b.post(api+"/register", object{"email": "ADA@example.com", "username": "intruder", "password": "Evil.horse.7", "password_repeat": "Evil.horse.7"})
	for _, h := range []http.Header{fresh.header, taken.header} {
		h.Del("Date")
	}
	if fresh.status != taken.status || fresh.body != taken.body || fmt.Sprint(fresh.header) != fmt.Sprint(taken.header) {
		t.Errorf("new: %d %s %v, taken: %d %s %v", fresh.status, fresh.body, fresh.header, taken.status, taken.body, taken.header)
	}
	for n := 1; ; n++ {
		m := s.inbox.wait(t, "ada@example.com", n)
		if !strings.Contains(m.Text, "/verify_email/") {
			break // the notice
		}
	}
	s.inbox.until(t, func() bool { return s.number(t, `SELECT count(*) FROM _user WHERE username = 'intruder'`) == 0 })
	for _, m := range s.inbox.to("ADA@example.com") {
		t.Errorf("mail to the address as it was written: %s", m.Subject)
	}
	if got := b.login("ada@example.com", "Evil.horse.7"); got != 401 {
		t.Errorf("login: %d", got)
	}
	if got := b.login("ada@example.com", good); got != 200 {
		t.Errorf("login of the owner: %d", got)
	}
}
