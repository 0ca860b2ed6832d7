package auth_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
)

// sameAnswer fails if two answers differ in anything but their date, and but
// for what each request has said itself.
func sameAnswer(t testing.TB, what string, a, b reply, saidA, saidB string) {
	t.Helper()
	plain := func(r reply, said string) string {
		h := r.header.Clone()
		h.Del("Date")
		for _, said := range []string{said, url.QueryEscape(said)} {
			r.body = strings.ReplaceAll(r.body, said, "NAME")
			if h.Get("Location") != "" {
				h.Set("Location", strings.ReplaceAll(h.Get("Location"), said, "NAME"))
			}
		}
		var header strings.Builder
		for _, name := range slices.Sorted(maps.Keys(h)) {
			fmt.Fprintln(&header, name, h[name])
		}
		return fmt.Sprint(r.status, "\n", header.String(), "\n", r.body)
	}
	if x, y := plain(a, saidA), plain(b, saidB); x != y {
		t.Errorf("%s: the answers differ:\n%s\n-- and --\n%s", what, x, y)
	}
}

// Whoever registers with an address that has an account learns nothing; its
// owner does.
func TestA1_OwnerIsTold(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.member(t, "owner@example.com")
	b := s.browser(t)
	ways := []func(email string) reply{
		func(email string) reply {
			return b.post(api+"/register", object{"email": email, "password": good, "password_repeat": good})
		},
		func(email string) reply {
			return b.form(api+"/register", "email", email, "password", good, "password_repeat", good)
		},
		func(email string) reply {
			return b.form(api+"/register?redirect_uri=/sent%3Fa=b", "email", email, "password", good, "password_repeat", good)
		},
		func(email string) reply {
			return b.form(api+"/register", "email", email, "password", "short", "password_repeat", "short", "redirect_uri", "/again")
		},
		func(email string) reply {
			return b.form(api+"/register", "email", email, "password", good, "password_repeat", good, "redirect_uri", "//evil.example")
		},
	}
	const asked = 3
	for i, way := range ways {
		fresh := fmt.Sprintf("fresh%d@example.com", i)
		sameAnswer(t, fmt.Sprint("way ", i), way("OWNER@example.com"), way(fresh), "OWNER@example.com", fresh)
	}
	s.flush(t)
	s.flush(t) // the notices come in a second turn
	mails := s.inbox.to("owner@example.com")[1:]
	if len(mails) != asked {
		t.Errorf("%d notices, want %d", len(mails), asked)
	}
	for _, m := range mails {
		if !strings.Contains(m.Subject, "already have an account") || mailToken.MatchString(m.Text+m.HTML) {
			t.Errorf("notice %q %q", m.Subject, m.Text)
		}
	}
	if n := s.rows(t, `_user WHERE unverified_email = 'owner@example.com'`); n != 0 {
		t.Errorf("%d accounts that nobody can use", n)
	}
	s.login(t, "owner@example.com")
}

// All that takes a name of somebody answers alike, whoever that is, also when
// something else is wrong with the request.
func TestA2_AnswersAreEqual(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{OTP: true, Limits: wideLimits()})
	names := []string{"nobody@example.com", "known@example.com", "disabled@example.com", "unverified@example.com", "empty@example.com", "second@example.com"}
	for _, name := range names[1:] {
		s.addUser(t, name)
	}
	s.exec(t, `UPDATE _user SET disabled = 1 WHERE email = 'disabled@example.com'`)
	s.exec(t, `UPDATE _user SET unverified_email = email, email = NULL WHERE email = 'unverified@example.com'`)
	s.exec(t, `UPDATE _user SET password_hash = NULL WHERE email = 'empty@example.com'`)
	s.exec(t, `UPDATE _user SET totp_secret = 'YCUTAYEZ346ZUEI7FLCG57BOMZQHHRA5' WHERE email = 'second@example.com'`)
	b := s.browser(t)
	page := b.with("Accept", "text/html")
	suffixes := []string{
		"", "?redirect_uri=/home", "?redirect_uri=//evil.example", "?redirect_uri=https%3A%2F%2Fevil.example", "?redirect_uri=%00",
		"?response_type=code", "?response_type=code&redirect_uri=/x&pkce_code_challenge=short", "?mfa_redirect_uri=//evil.example", "?x=%zz",
	}
	for _, path := range []string{"/login", "/reset_password/request", "/otp/request", "/otp/login"} {
		for _, suffix := range suffixes {
			ask := map[string]func(name string) reply{
				"JSON": func(name string) reply {
					return b.post(api+path+suffix, object{"email": name, "password": "Wrong.horse.7", "code": "WRONG1"})
				},
				"form": func(name string) reply {
					return b.form(api+path+suffix, "email", name, "password", "Wrong.horse.7", "code", "WRONG1")
				},
				"page": func(name string) reply {
					return page.form(api+path+suffix, "email_or_username", name, "password", "Wrong.horse.7", "code", "WRONG1", "redirect_uri", "/back")
				},
			}
			for kind, ask := range ask {
				first := ask(names[0])
				if first.status >= 500 {
					t.Errorf("%s%s, %s: %d", path, suffix, kind, first.status)
				}
				for _, name := range names[1:] {
					sameAnswer(t, path+suffix+", "+kind+" "+name, first, ask(name), names[0], name)
				}
			}
		}
	}
	for _, suffix := range []string{"", "&redirect_uri=/home", "&redirect_uri=//evil.example"} {
		trigger := func(name string) reply { return b.get(api + "/verify_email/trigger?email=" + name + suffix) }
		first := trigger(names[0])
		for _, name := range names[1:] {
			sameAnswer(t, "trigger"+suffix+" "+name, first, trigger(name), names[0], name)
		}
	}
	// The right password of an account that may not sign in is like a wrong one.
	login := func(name string) reply { return b.post(api+"/login", object{"email": name, "password": good}) }
	for _, name := range []string{"disabled@example.com", "unverified@example.com", "empty@example.com"} {
		sameAnswer(t, name, login(names[0]), login(name), names[0], name)
	}
}

func TestA2_MailTiming(t *testing.T) {
	s := newSite(t, auth.Config{OTP: true, Limits: wideLimits()})
	for _, name := range []string{"known", "disabled", "unverified"} {
		s.addUser(t, name+"@example.com")
	}
	s.exec(t, `UPDATE _user SET disabled = 1 WHERE email = 'disabled@example.com'`)
	s.exec(t, `UPDATE _user SET unverified_email = email, email = NULL WHERE email = 'unverified@example.com'`)
	b := s.browser(t)
	ask := func(path string, status int, name string) func() {
		return b.timed(api+path, status, func() object { return object{"email": name + "@example.com", "code": "WRONG1"} })
	}
	for _, path := range []string{"/reset_password/request", "/otp/request"} {
		for _, name := range []string{"known", "disabled", "unverified"} {
			timingEqual(t, path+" "+name, ask(path, 200, "unknown"), ask(path, 200, name))
		}
		bad := path + "?redirect_uri=//evil.example"
		timingEqual(t, bad, ask(bad, 400, "unknown"), ask(bad, 400, "known"))
	}
	timingEqual(t, "/otp/login", ask("/otp/login", 401, "unknown"), ask("/otp/login", 401, "known"))
	trigger := func(name string) func() {
		return func() { b.get(api+"/verify_email/trigger?email="+name+"@example.com").want(t, name, 200, "*") }
	}
	timingEqual(t, "trigger", trigger("unknown"), trigger("unverified"))
}

// Five hundred addresses guess a password for an hour. They get few guesses,
// and its owner still signs in from where that was done before.
func TestA4_GuessesFromManyAddresses(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Proxies: 1, OTP: true, Identifier: auth.RequireEmail})
	s.addUser(t, "ada@example.com")
	s.exec(t, `UPDATE _user SET username = 'ada' WHERE email = 'ada@example.com'`)
	at := func(b *browser, address string) *browser { return b.with("X-Forwarded-For", address) }
	owner := s.browser(t)
	at(owner, "192.0.2.1").form(api+"/login", "email", "ada@example.com", "password", good).want(t, "owner", 200, "logged in")

	attacker := s.browser(t)
	const rounds, each = 60, 40
	guesses := 0
	for i := range rounds * each {
		b := at(attacker, fmt.Sprintf("198.51.%d.%d", i%2, i/2%250))
		var r reply
		switch i % 3 {
		case 0:
			r = b.post(api+"/login", object{"email": "ADA@example.com", "password": "Wrong.horse.7"})
		case 1:
			r = b.post(api+"/login", object{"username": "Ada", "password": "Wrong.horse.7"})
		case 2:
			r = b.post(api+"/otp/login", object{"email": "ada@example.com", "code": "WRONG1"})
		}
		switch r.status {
		case 401:
			guesses++
		case 429:
		default:
			t.Fatalf("guess %d: %d %s", i, r.status, r.body)
		}
		if i%each == each-1 {
			s.clock.Add(time.Hour / rounds)
		}
	}
	if guesses < 20 || guesses > 100 {
		t.Errorf("%d guesses in an hour", guesses)
	}
	for range 30 {
		at(attacker, "198.51.100.1").post(api+"/login", object{"email": "ada@example.com", "password": "Wrong.horse.7"})
	}
	at(attacker, "198.51.100.2").post(api+"/login", object{"email": "ada@example.com", "password": good}).want(t, "from elsewhere", 429, "")
	at(owner, "203.0.113.7").form(api+"/login", "email", "ada@example.com", "password", good).want(t, "owner's browser, elsewhere", 200, "logged in")
	at(s.browser(t), "192.0.2.1").post(api+"/login", object{"email": "ada@example.com", "password": good}).want(t, "owner's address", 200, "*")
}

// A passwordRoute sets the password of a fresh account.
type passwordRoute struct {
	set   func(password string) reply
	login func(password string) int
}

func (s *site) passwordRoutes(t *testing.T) map[string]func() passwordRoute {
	b := s.browser(t)
	var n int
	var mu sync.Mutex
	address := func() string {
		mu.Lock()
		defer mu.Unlock()
		n++
		return fmt.Sprintf("p%03d@example.com", n)
	}
	login := func(email string) func(string) int {
		return func(password string) int {
			s.exec(t, `UPDATE _user SET email = unverified_email, unverified_email = NULL WHERE unverified_email = ?`, email)
			return s.tryLogin(t, email, password)
		}
	}
	return map[string]func() passwordRoute{
		"register": func() passwordRoute {
			email := address()
			return passwordRoute{func(p string) reply {
				return b.post(api+"/register", object{"email": email, "password": p, "password_repeat": p})
			}, login(email)}
		},
		"change": func() passwordRoute {
			email := address()
			s.addUser(t, email)
			me := s.as(t, s.login(t, email))
			return passwordRoute{func(p string) reply {
				return me.post(api+"/change_password", object{"old_password": good, "new_password": p})
			}, login(email)}
		},
		"reset": func() passwordRoute {
			email := address()
			s.addUser(t, email)
			s.browser(t).post(api+"/reset_password/request", object{"email": email}).want(t, "request", 200, "*")
			secret := token(t, s.inbox.about(t, email, "password", 1))
			return passwordRoute{func(p string) reply {
				return b.post(resetUpdate, object{"password": p, "password_repeat": p, "password_reset_token": secret})
			}, login(email)}
		},
		"promote": func() passwordRoute {
			email := address()
			var tokens auth.Tokens
			b.post(api+"/login_anonymous", object{}).json(t, &tokens)
			me := s.as(t, tokens)
			return passwordRoute{func(p string) reply {
				return me.post(api+"/promote_anonymous", object{"new_email": email, "new_password": p})
			}, login(email)}
		},
		"setup": func() passwordRoute {
			email := address()
			s.exec(t, `UPDATE _user SET admin = 0`)
			secret := setupToken(t, s)
			return passwordRoute{func(p string) reply {
				return b.post(api+"/setup", object{"token": secret, "email": email, "password": p, "password_repeat": p})
			}, login(email)}
		},
	}
}

func TestA6_PasswordsOfEveryRoute(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Anonymous: true, Limits: wideLimits()})
	text := func(n int) string { return strings.Repeat("Kq7.", n/4+1)[:n] }
	for name, route := range s.passwordRoutes(t) {
		r := route()
		for _, bad := range []string{"", "x", text(7), text(129), text(1000), text(1 << 16), text(1 << 20), "nul\x00" + text(20)} {
			if got := r.set(bad); got.status != 400 && (len(bad) < 1<<16 || got.status != 413) || got.body == "" {
				t.Errorf("%s: %d bytes %.10q: %d %q", name, len(bad), bad, got.status, got.body)
			}
		}
		// What passes is kept whole; composed and decomposed letters are the same.
		for _, p := range []string{text(8), text(64), text(127) + "x", "pass word \t with spaces ", "Zo\u00eb.w\u00f6rter", "密码密码密码"} {
			r := route()
			r.set(p).want(t, name, 200, "*")
			if got := r.login(p); got != 200 {
				t.Errorf("%s: login with %q: %d", name, p, got)
			}
			if got := r.login(p[:len(p)-1] + "y"); got != 401 {
				t.Errorf("%s: login with another end of %q: %d", name, p, got)
			}
			if got := r.login(strings.ToUpper(p)); p != strings.ToUpper(p) && got != 401 {
				t.Errorf("%s: login with %q in upper case: %d", name, p, got)
			}
		}
		r = route()
		r.set("Zo\u00eb.w\u00f6rter").want(t, name, 200, "*")
		if got := r.login("Zoe\u0308.wo\u0308rter"); got != 200 {
			t.Errorf("%s: login with the decomposed form: %d", name, got)
		}
	}
	s.browser(t).form(api+"/register", "email", "x@example.com", "password", "\xff"+text(20), "password_repeat", "\xff"+text(20)).
		want(t, "not UTF-8", 400, "*")
	// Half of a character in JSON is no password, and no failure of ours.
	for _, path := range []string{"/register", "/login", "/reset_password/update"} {
		r := s.browser(t).do("POST", api+path, "application/json", `{"email":"x@example.com","password":"abcdefg\ud800","password_repeat":"abcdefg\ud800"}`)
		if r.status != 400 {
			t.Errorf("%s with an unpaired surrogate: %d", path, r.status)
		}
	}
}

func TestA18_CommonPasswordsOfEveryRoute(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Anonymous: true, Limits: wideLimits()})
	for name, route := range s.passwordRoutes(t) {
		r := route()
		for _, common := range []string{"password", "Password", "12345678", "iloveyou", "!qaz2wsx", "qwertyuiop"} {
			if got := r.set(common); got.status != 400 {
				t.Errorf("%s takes %q: %d", name, common, got.status)
			}
		}
		r.set(good).want(t, name, 200, "*")
	}
}

// No link depends on what a request says about hosts.
func TestA9_EveryMail(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{OTP: true, Limits: wideLimits(), Proxies: 1})
	s.addUser(t, "ada@example.com")
	s.addUser(t, "bob@example.com")
	me := s.as(t, s.login(t, "ada@example.com"))
	evil := func(b *browser) *browser {
		for _, name := range []string{
			"X-Forwarded-Host", "X-Forwarded-Server", "X-Host", "X-Original-Host", "X-HTTP-Host-Override", "X-Rewrite-URL", "X-Original-URL",
			"X-Forwarded-Prefix", "X-Forwarded-Scheme", "X-Url-Scheme", "Base-Url", "Referer",
		} {
			b = b.with(name, "https://evil.example/evil")
		}
		b = b.with("X-Forwarded-Proto", "evil").with("X-Forwarded-Port", "666").with("Front-End-Https", "on")
		return b.with("Forwarded", `for="evil";host=evil.example;proto=evil`).with("X-Forwarded-For", "evil.example, 192.0.2.1")
	}
	b, me := evil(s.browser(t)), evil(me)
	b.client.Transport = hostTransport{}
	me.client.Transport = hostTransport{}
	b.post(api+"/register", object{"email": "new@example.com", "password": good, "password_repeat": good}).want(t, "register", 200, "*")
	b.get(api+"/verify_email/trigger?email=new@example.com").want(t, "trigger", 200, "*")
	b.post(api+"/register", object{"email": "bob@example.com", "password": good, "password_repeat": good}).want(t, "register", 200, "*")
	b.post(api+"/reset_password/request", object{"email": "bob@example.com"}).want(t, "reset", 200, "*")
	b.post(api+"/otp/request", object{"email": "bob@example.com"}).want(t, "otp", 200, "*")
	me.post(api+"/change_email", object{"new_email": "other@example.com"}).want(t, "change", 200, "*")
	me.post(api+"/change_password", object{"old_password": good, "new_password": good}).want(t, "password", 200, "*")
	s.flush(t)
	s.inbox.mu.Lock()
	defer s.inbox.mu.Unlock()
	links := 0
	for _, m := range s.inbox.mail {
		for _, text := range []string{m.Subject, m.Text, m.HTML, m.To} {
			if strings.Contains(text, "evil") || strings.Contains(text, ":666") {
				t.Errorf("mail %q to %s: %s", m.Subject, m.To, text)
			}
		}
		links += strings.Count(m.Text, siteURL+"/")
	}
	if links < 6 {
		t.Errorf("%d links", links)
	}
}

// A hostTransport names another host than that of the URL.
type hostTransport struct{}

func (hostTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Host = "evil.example:666"
	return http.DefaultTransport.RoundTrip(r)
}

// A user with a second factor and a mailbox that somebody else reads as well:
// whatever comes by mail is one factor, however many mails there are.
func TestA13_OneMailbox(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{OTP: true, Limits: wideLimits()})
	_, d := s.addMFAUser(t, "ada@example.com")
	b := s.browser(t)
	const next = "Another.good.1"
	b.post(api+"/reset_password/request", object{"email": "ada@example.com"}).want(t, "request", 200, "*")
	secret := token(t, s.inbox.about(t, "ada@example.com", "new password", 1))
	b.post(resetUpdate, object{"password": next, "password_repeat": next, "password_reset_token": secret}).want(t, "reset", 200, "Password reset")
	b.post(api+"/otp/request", object{"email": "ada@example.com"}).want(t, "otp", 200, "*")
	code := otpCode(t, s.inbox.about(t, "ada@example.com", "code", 1))
	mfa := pending(t, b.post(api+"/login", object{"email": "ada@example.com", "password": next}))
	for _, body := range []object{{"totp": code}, {"recovery_code": code}, {"totp": secret}, {"recovery_code": secret[:10]}} {
		b.post(api+"/login_mfa", plus(body, "mfa_token", mfa)).want(t, "mailed secret as second factor", 401, "")
	}
	mfa = pending(t, b.post(api+"/otp/login", object{"email": "ada@example.com", "code": code}))
	b.post(api+"/login_mfa", object{"mfa_token": mfa, "totp": next}).want(t, "the password as second factor", 401, "")
	if n := s.rows(t, "_session"); n != 0 {
		t.Errorf("%d sessions by one mailbox", n)
	}
	// No mail carries what counts as the second factor.
	for _, m := range s.inbox.to("ada@example.com") {
		for _, c := range d.codes {
			if strings.Contains(m.Text+m.HTML+m.Subject, c) {
				t.Errorf("a recovery code is in %q", m.Subject)
			}
		}
	}
	// Both factors, of which the mailbox is one.
	s.secondFactor(t, mfa, d.code()).want(t, "app", 200, "*")
}

// lines are addresses, names and redirects that want to be something else in
// a mail's header.
var lines = []string{
	"a@example.com\r\nBcc: evil@example.com", "a@example.com\nBcc: evil@example.com", "a@example.com\rBcc: evil@example.com",
	"a@example.com\r\n\r\nbody", "a@example.com%0d%0aBcc: evil@example.com", "a@example.com\tevil@example.com", "a@example.com evil@example.com",
	"a@example.com,evil@example.com", "a@example.com;evil@example.com", "a@example.com, <evil@example.com>", "<a@example.com>", "A <a@example.com>",
	"\"a b\"@example.com", "\"a\r\n\"@example.com", "a(comment)@example.com", "a@[127.0.0.1]", "a@example.com\x00", "a@\u2028example.com", "ä@example.com",
	"a@exämple.com", "a@example.com.", "a@.example.com", "a@example..com", "@example.com", "a@", "a@b@example.com", "a@example.com\u202e", "=?utf-8?q?a?=@example.com>",
	strings.Repeat("a", 300) + "@example.com", "group:a@example.com;",
}

// mailers send a mail in more than one way.
type mailers []auth.Mailer

func (all mailers) Send(ctx context.Context, m auth.Message) error {
	for _, mailer := range slices.Backward(all) {
		if err := mailer.Send(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// Whoever claims an owned address in another way than by registering gets the
// owner no link that would hand it over.
func TestA1_PromotionWithOwnedAddress(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Anonymous: true, Limits: wideLimits()})
	newAccount(t, s, "owner@example.com")
	b := s.browser(t)
	promote := func(email string) (reply, *browser) {
		var tokens auth.Tokens
		b.post(api+"/login_anonymous", object{}).json(t, &tokens)
		me := s.as(t, tokens)
		return me.post(api+"/promote_anonymous", object{"new_email": email, "new_password": good}), me
	}
	taken, me := promote("owner@example.com")
	free, _ := promote("nobody@example.com")
	sameAnswer(t, "promotion", taken, free, "owner@example.com", "nobody@example.com")
	s.inbox.about(t, "owner@example.com", "already have an account", 1)
	b.get(api+"/verify_email/trigger?email=owner@example.com").want(t, "trigger", 200, "*")
	s.inbox.about(t, "owner@example.com", "already have an account", 2)
	for _, m := range s.inbox.to("owner@example.com") {
		if mailToken.MatchString(m.Text + m.HTML) {
			t.Errorf("a link in %q", m.Subject)
		}
	}
	// The account that was there before is still there, with what it has.
	me.get("/whoami").want(t, "session", 200, "*")
	if n := s.rows(t, `_user WHERE unverified_email = 'owner@example.com'`); n != 1 {
		t.Errorf("%d promoted accounts", n)
	}
}

// An application's row may keep an account that nobody can use. The owner of
// the address is told all the same.
func TestA1_ReferredAccount(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	newAccount(t, s, "owner@example.com")
	s.exec(t, `CREATE TABLE profile (owner BLOB NOT NULL REFERENCES _user(id)) STRICT`)
	s.exec(t, `CREATE TRIGGER new_profile AFTER INSERT ON _user BEGIN INSERT INTO profile (owner) VALUES (NEW.id); END`)
	s.register(t, "owner@example.com")
	s.inbox.about(t, "owner@example.com", "already have an account", 1)
	if got := s.tryLogin(t, "owner@example.com", good); got != 200 {
		t.Errorf("the owner's sign-in: %d", got)
	}
}

// A wildMailer misbehaves for some addresses, once each.
type wildMailer struct {
	*inbox
	mu   sync.Mutex
	done map[string]bool
}

func (m *wildMailer) Send(ctx context.Context, message auth.Message) error {
	m.mu.Lock()
	first := !m.done[message.To]
	m.done[message.To] = true
	m.mu.Unlock()
	if first {
		switch {
		case strings.HasPrefix(message.To, "panic"):
			panic(message.Text)
		case strings.HasPrefix(message.To, "nil"):
			clear(map[any]int{[]int{}: 1}) // a key that cannot be hashed
		case strings.HasPrefix(message.To, "exit"):
			runtime.Goexit()
		case strings.HasPrefix(message.To, "error"):
			return errors.New("not now")
		}
	}
	return m.inbox.Send(ctx, message)
}
