package auth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/sqlite"
)

// A clock is a time that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Now().Truncate(time.Second)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// An inbox is a mailer that keeps what it is given.
type inbox struct {
	mu   sync.Mutex
	mail []auth.Message
	wake chan struct{}
}

func newInbox() *inbox { return &inbox{wake: make(chan struct{}, 1000)} }

func (i *inbox) Send(_ context.Context, m auth.Message) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.mail = append(i.mail, m)
	select {
	case i.wake <- struct{}{}:
	default:
	}
	return nil
}

// to returns the mails that an address has got.
func (i *inbox) to(address string) (mails []auth.Message) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, m := range i.mail {
		if m.To == address {
			mails = append(mails, m)
		}
	}
	return mails
}

// until waits for a condition that mails bring about.
func (i *inbox) until(t testing.TB, condition func() bool) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	for !condition() {
		select {
		case <-i.wake:
		case <-time.After(20 * time.Millisecond): // another waiter may have taken the wake-up
		case <-deadline:
			t.Fatal("the mail does not come")
		}
	}
}

// wait returns the n-th mail to an address, counted from 1.
func (i *inbox) wait(t testing.TB, address string, n int) auth.Message {
	t.Helper()
	i.until(t, func() bool { return len(i.to(address)) >= n })
	return i.to(address)[n-1]
}

var mailToken = regexp.MustCompile(`/(?:confirm|update)/([A-Za-z0-9]{20,})`)

// token returns the token of the link in a mail.
func token(t testing.TB, m auth.Message) string {
	t.Helper()
	found := mailToken.FindStringSubmatch(m.Text)
	if found == nil {
		t.Fatalf("no link in %q", m.Text)
	}
	return found[1]
}

// A site is a service behind a server.
type site struct {
	*auth.Service
	db    *sqlite.DB
	path  string
	cfg   auth.Config
	url   string // of the server
	clock *clock
	inbox *inbox
}

const siteURL = "http://site.example"

// newSite starts a service. The zero configuration is completed with cheap
// hashes, a clock and an inbox.
func newSite(t testing.TB, cfg auth.Config) *site {
	t.Helper()
	s := &site{path: filepath.Join(t.TempDir(), "app.db"), clock: newClock(), inbox: newInbox()}
	if cfg.Now == nil {
		cfg.Now = s.clock.Now
	}
	if cfg.Mailer == nil {
		cfg.Mailer = s.inbox
	}
	if cfg.SiteURL == "" {
		cfg.SiteURL = siteURL
	}
	if cfg.Argon2 == (auth.Argon2{}) {
		cfg.Argon2 = auth.Argon2{Memory: 64, Time: 1, Queue: 1000}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s.cfg = cfg
	var err error
	if s.db, err = sqlite.Open(t.Context(), s.path, sqlite.Options{Logger: cfg.Logger}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.db.Close(); err != nil {
			t.Error(err)
		}
	})
	if s.Service, err = auth.New(t.Context(), s.db, cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	mux := http.NewServeMux()
	mux.Handle("/api/auth/v1/", s.At("/api/auth/v1"))
	mux.Handle("/_/auth/", s.PagesAt("/_/auth"))
	mux.HandleFunc("/.well-known/jwks.json", s.ServeJWKS)
	mux.Handle("/whoami", s.Middleware(http.HandlerFunc(whoami)))
	mux.Handle("/private", s.Middleware(s.RequireUser(http.HandlerFunc(whoami))))
	mux.Handle("/machine", s.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if auth.FromContext(r.Context()) == nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		whoami(w, r)
	})))
	mux.Handle("/admin", s.Middleware(s.RequireAdmin(http.HandlerFunc(whoami))))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// whoami answers with the name of the caller, or "anonymous".
func whoami(w http.ResponseWriter, r *http.Request) {
	u := auth.FromContext(r.Context())
	switch {
	case u == nil:
		_, _ = io.WriteString(w, "anonymous")
	case u.Email != "":
		_, _ = io.WriteString(w, u.Email)
	default:
		_, _ = io.WriteString(w, u.Username)
	}
}

// A reply is a response that was read whole.
type reply struct {
	status int
	header http.Header
	body   string
}

func (r reply) location() string { return r.header.Get("Location") }

// json decodes the body.
func (r reply) json(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.body), v); err != nil {
		t.Fatalf("status %d, body %q: %v", r.status, r.body, err)
	}
}

// A browser keeps cookies and does not follow redirects. Its zero header set
// is that of a program; see withHeader.
type browser struct {
	t      testing.TB
	base   string
	client *http.Client
	header http.Header
}

func (s *site) browser(t testing.TB) *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t: t, base: s.url, header: http.Header{}, client: &http.Client{
		Jar:           jar,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// with returns the same browser with a further header in each request.
func (b *browser) with(name, value string) *browser {
	c := *b
	c.header = b.header.Clone()
	c.header.Set(name, value)
	return &c
}

func (b *browser) do(method, path, contentType, body string) reply {
	b.t.Helper()
	if !strings.Contains(path, "://") {
		path = b.base + path
	}
	req, err := http.NewRequestWithContext(b.t.Context(), method, path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header = b.header.Clone()
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	res, err := b.client.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	var buf bytes.Buffer
	if _, err := buf.ReadFrom(res.Body); err != nil {
		b.t.Fatal(err)
	}
	return reply{res.StatusCode, res.Header, buf.String()}
}

func (b *browser) get(path string) reply { b.t.Helper(); return b.do("GET", path, "", "") }

// post sends JSON.
func (b *browser) post(path string, v any) reply {
	b.t.Helper()
	body, err := json.Marshal(v)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.do("POST", path, "application/json", string(body))
}

// form sends an HTML form: name, value, ...
func (b *browser) form(path string, pairs ...string) reply {
	b.t.Helper()
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		v.Set(pairs[i], pairs[i+1])
	}
	return b.do("POST", path, "application/x-www-form-urlencoded", v.Encode())
}

type object = map[string]any

const api = "/api/auth/v1"

// good is a password that every policy takes.
const good = "Correct.horse.7"

// addUser makes a verified user with the password good.
func (s *site) addUser(t testing.TB, email string) auth.UserID {
	t.Helper()
	b := s.browser(t)
	if r := b.post(api+"/register", object{"email": email, "password": good, "password_repeat": good}); r.status != 200 {
		t.Fatalf("register: %d %s", r.status, r.body)
	}
	s.exec(t, `UPDATE _user SET email = unverified_email, unverified_email = NULL WHERE unverified_email = ?`, email)
	return s.userID(t, email)
}

func (s *site) userID(t testing.TB, email string) (id auth.UserID) {
	t.Helper()
	err := s.db.View(t.Context(), func(tx *sqlite.Tx) error {
		var b []byte
		err := tx.QueryRowContext(t.Context(), `SELECT id FROM _user WHERE email = ?`, email).Scan(&b)
		copy(id[:], b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// exec runs SQL as an operator would.
func (s *site) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	err := s.db.Update(t.Context(), func(tx *sqlite.Tx) error {
		_, err := tx.ExecContext(t.Context(), sql, args...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// login signs in with the password good.
func (s *site) login(t testing.TB, email string) auth.Tokens {
	t.Helper()
	var tokens auth.Tokens
	r := s.browser(t).post(api+"/login", object{"email": email, "password": good})
	if r.status != 200 {
		t.Fatalf("login: %d %s", r.status, r.body)
	}
	r.json(t, &tokens)
	return tokens
}

// as returns a client with a bearer token.
func (s *site) as(t testing.TB, tokens auth.Tokens) *browser {
	return s.browser(t).with("Authorization", "Bearer "+tokens.AuthToken)
}
