package bedplate_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/bedplate/bedplate"
	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

// inbox is a mailer that hands mails to the test.
type inbox chan auth.Message

func (i inbox) Send(ctx context.Context, m auth.Message) error {
	select {
	case i <- m:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (i inbox) wait(t testing.TB) auth.Message {
	t.Helper()
	select {
	case m := <-i:
		return m
	case <-time.After(patience):
		t.Fatal("no mail")
		return auth.Message{}
	}
}

// authConfig is config with a sign-in: posts belong to their authors, who
// have profiles.
func authConfig(dir string) bedplate.Config {
	cfg := config(filepath.Join(dir, "app.db"))
	cfg.Auth = &auth.Config{
		Argon2: auth.Argon2{Memory: 64, Time: 1},
		Limits: auth.Limits{Registrations: auth.Limit{Events: -1}},
	}
	cfg.Migrations = fstest.MapFS{
		"0001_profile.sql": {Data: []byte(`CREATE TABLE profile (user BLOB PRIMARY KEY REFERENCES _user(id) ON DELETE CASCADE, name TEXT NOT NULL) STRICT;`)},
		"0002_post.sql": {Data: []byte(`CREATE TABLE post (
			id     INTEGER PRIMARY KEY,
			author BLOB NOT NULL REFERENCES profile(user) ON DELETE CASCADE,
			text   TEXT NOT NULL
		) STRICT;`)},
	}
	const everything = records.Create | records.Read | records.Update | records.Delete | records.Schema
	cfg.Records = []records.API{
		{
			Name: "posts", Table: "post", Authenticated: everything, Expand: []string{"author"},
			CreateRule: `_REQ_.author = _USER_.id`, ReadRule: `_ROW_.author = _USER_.id`,
			UpdateRule: `_ROW_.author = _USER_.id`, DeleteRule: `_ROW_.author = _USER_.id`,
		},
		{Name: "profiles", Table: "profile", Authenticated: everything, AutofillUser: true, ReadRule: `_USER_.id IS NOT NULL`},
	}
	return cfg
}

const testPassword = "Correct.horse.7"

// newUser makes an account and a profile.
func newUser(t testing.TB, b *bedplate.Backend, name string) auth.UserID {
	t.Helper()
	id, err := b.Auth.CreateUser(t.Context(), auth.CreateUser{Email: name + "@example.com", Password: testPassword, Verified: true})
	if err != nil {
		t.Fatal(err)
	}
	err = b.DB.Update(t.Context(), func(tx *sqlite.Tx) error {
		_, err := tx.ExecContext(t.Context(), `INSERT INTO profile (user, name) VALUES (?, ?)`, id[:], name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// A caller sends requests with some credential.
type caller struct {
	handler http.Handler
	header  http.Header
}

func (c caller) send(method, target, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	for k, v := range c.header {
		r.Header[k] = v
	}
	w := httptest.NewRecorder()
	c.handler.ServeHTTP(w, r)
	return w
}

func (c caller) want(t testing.TB, method, target, body string, status int, part string) string {
	t.Helper()
	w := c.send(method, target, body)
	if text := w.Body.String(); w.Code != status || !strings.Contains(text, part) {
		t.Errorf("%s %s %s: %d %s, want %d %s", method, target, body, w.Code, text, status, part)
	}
	return w.Body.String()
}

func bearer(h http.Handler, token string) caller {
	return caller{h, http.Header{"Authorization": {"Bearer " + token}}}
}

// signIn returns one user with a token and with a cookie.
func signIn(t testing.TB, h http.Handler, email string) (token, cookie caller) {
	t.Helper()
	anybody := caller{handler: h}
	var tokens auth.Tokens
	w := anybody.send("POST", "/api/auth/v1/login", `{"email":"`+email+`","password":"`+testPassword+`"}`)
	if err := json.Unmarshal(w.Body.Bytes(), &tokens); err != nil || tokens.AuthToken == "" {
		t.Fatalf("sign-in: %d %s", w.Code, w.Body)
	}
	form := caller{h, http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}}
	w = form.send("POST", "/api/auth/v1/login", url.Values{"email": {email}, "password": {testPassword}, "redirect_uri": {"/"}}.Encode())
	cookies := http.Header{}
	for _, c := range w.Result().Cookies() {
		cookies.Add("Cookie", c.Name+"="+c.Value)
	}
	if len(cookies) == 0 {
		t.Fatalf("sign-in with a form: %d %s", w.Code, w.Body)
	}
	return bearer(h, tokens.AuthToken), caller{h, http.Header{"Cookie": {strings.Join(cookies["Cookie"], "; ")}}}
}

// Rules know the user whatever the credential is.
func TestAuthRules(t *testing.T) {
	t.Parallel()
	b := open(t, authConfig(t.TempDir()))
	ada, bob := newUser(t, b, "ada"), newUser(t, b, "bob")
	token, cookie := signIn(t, b.Handler(), "ada@example.com")
	other, _ := signIn(t, b.Handler(), "bob@example.com")
	anybody := caller{handler: b.Handler()}

	const posts = "/api/records/v1/posts"
	mine, his := fmt.Sprintf(`{"author":%q,"text":"a"}`, ada), fmt.Sprintf(`{"author":%q,"text":"b"}`, bob)
	for i, c := range []caller{token, cookie} {
		c.want(t, "POST", posts, mine, 200, fmt.Sprintf(`{"ids":["%d"]}`, i+1))
		c.want(t, "POST", posts, his, 403, "")
		c.want(t, "GET", posts+"/1", "", 200, ada.String())
		c.want(t, "GET", posts+"?count=true&expand=author", "", 200, `"name":"ada"`)
		c.want(t, "PATCH", posts+"/1", `{"text":"new"}`, 200, "")
		c.want(t, "POST", "/api/records/v1/profiles", `{"name":"again"}`, 400, "db constraint: pk") // filled in with ada
	}
	other.want(t, "GET", posts+"/1", "", 403, "")
	other.want(t, "PATCH", posts+"/1", `{"text":"mine"}`, 403, "")
	other.want(t, "DELETE", posts+"/1", "", 403, "")
	other.want(t, "GET", posts+"?count=true", "", 200, `"total_count":0`)
	for name, c := range map[string]caller{
		"nobody":            anybody,
		"an empty token":    bearer(b.Handler(), ""),
		"a made-up token":   bearer(b.Handler(), "eyJhbGciOiJub25lIn0.e30."),
		"a made-up key":     bearer(b.Handler(), "bpk_"+strings.Repeat("a", 43)),
		"a token as cookie": {b.Handler(), http.Header{"Cookie": {"auth_token=" + strings.Repeat("a", 100)}}},
		// A header that is no good does not leave the decision to cookies.
		"a token and cookies": {b.Handler(), http.Header{"Authorization": {"Bearer x"}, "Cookie": cookie.header["Cookie"]}},
	} {
		if w := c.send("GET", posts+"/1", ""); w.Code != 403 {
			t.Errorf("%s: %d %s, want 403", name, w.Code, w.Body)
		}
	}
	// A page of somebody else cannot use the cookies.
	foreign := caller{b.Handler(), http.Header{"Cookie": cookie.header["Cookie"], "Origin": {"https://evil.example"}, "Sec-Fetch-Site": {"cross-site"}}}
	foreign.want(t, "POST", posts, mine, 403, "")

	// A user goes with all that is theirs, and so does the token.
	if err := b.Auth.DeleteUser(t.Context(), ada); err != nil {
		t.Fatal(err)
	}
	token.want(t, "GET", posts+"/1", "", 403, "")
	cookie.want(t, "GET", posts+"/1", "", 403, "")
	if err := b.DB.View(t.Context(), func(tx *sqlite.Tx) error {
		var n int
		err := tx.QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM post) + (SELECT count(*) FROM profile)`).Scan(&n)
		if n != 1 {
			t.Errorf("%d rows after the user is gone, want bob's profile", n)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// An API key does what its scopes name, and nothing by a detour.
func TestAPIKeyScopes(t *testing.T) {
	t.Parallel()
	b := open(t, authConfig(t.TempDir()))
	ada := newUser(t, b, "ada")
	session, _ := signIn(t, b.Handler(), "ada@example.com")
	mine := fmt.Sprintf(`{"author":%q,"text":"a"}`, ada)
	const posts, profiles = "/api/records/v1/posts", "/api/records/v1/profiles"
	session.want(t, "POST", posts, mine, 200, "")
	session.want(t, "GET", posts+"/1?expand=author", "", 200, `"name":"ada"`)

	key := func(scopes string) caller {
		t.Helper()
		var made struct{ Key string }
		body := session.want(t, "POST", "/api/auth/v1/api_keys", `{"name":"robot","scopes":`+scopes+`}`, 200, "bpk_")
		if err := json.Unmarshal([]byte(body), &made); err != nil {
			t.Fatal(err)
		}
		return bearer(b.Handler(), made.Key)
	}
	const (
		create, read, list, update = "create", "read", "list", "update"
		readOther, createOther     = "read another API", "create by another API"
	)
	acts := map[string]func(caller) *httptest.ResponseRecorder{
		create:      func(c caller) *httptest.ResponseRecorder { return c.send("POST", posts, mine) },
		read:        func(c caller) *httptest.ResponseRecorder { return c.send("GET", posts+"/1", "") },
		list:        func(c caller) *httptest.ResponseRecorder { return c.send("GET", posts+"?limit=1", "") },
		update:      func(c caller) *httptest.ResponseRecorder { return c.send("PATCH", posts+"/1", `{"text":"b"}`) },
		readOther:   func(c caller) *httptest.ResponseRecorder { return c.send("GET", profiles+"/"+ada.String(), "") },
		createOther: func(c caller) *httptest.ResponseRecorder { return c.send("POST", profiles, `{"name":"x"}`) },
	}
	for scopes, want := range map[string]map[string]int{
		`[{"api":"posts","operations":["read"]}]`:                                            {read: 200, list: 200},
		`[{"api":"posts","operations":["create"]}]`:                                          {create: 200},
		`[{"api":"posts","operations":["*"]}]`:                                               {create: 200, read: 200, list: 200, update: 200},
		`[{"api":"*","operations":["read"]}]`:                                                {read: 200, list: 200, readOther: 200},
		`[{"api":"profiles","operations":["read"]},{"api":"posts","operations":["schema"]}]`: {readOther: 200},
		`[{"api":"*","operations":["*"]}]`:                                                   {create: 200, read: 200, list: 200, update: 200, readOther: 200, createOther: 400},
	} {
		c := key(scopes)
		for act, do := range acts {
			status := want[act]
			if status == 0 {
				status = 403
			}
			if w := do(c); w.Code != status {
				t.Errorf("%s: %s: %d %s, want %d", scopes, act, w.Code, w.Body, status)
			}
		}
		for _, path := range []string{posts + "/1?expand=author", posts + "?expand=author&limit=1"} {
			w := c.send("GET", path, "")
			if got, may := strings.Contains(w.Body.String(), `"name":"ada"`), want[readOther] == 200 && want[read] == 200; got != may {
				t.Errorf("%s: GET %s: %d %s", scopes, path, w.Code, w.Body)
			}
		}
		// Keys are for records: they neither make keys nor touch the account.
		c.want(t, "POST", "/api/auth/v1/api_keys", `{"name":"child","scopes":[{"api":"*","operations":["*"]}]}`, 401, "")
		c.want(t, "GET", "/api/auth/v1/api_keys", "", 401, "")
		c.want(t, "DELETE", "/api/auth/v1/delete", "", 401, "")
	}
	c := key(`[{"api":"posts","operations":["delete"]}]`)
	c.want(t, "DELETE", posts+"/1", "", 200, "")
	if err := b.Auth.SetDisabled(t.Context(), ada, true); err != nil {
		t.Fatal(err)
	}
	c.want(t, "DELETE", posts+"/2", "", 403, "")
}

// Migrations run behind those of the sign-in, so that they can refer to _user,
// insert into it and hang triggers on it.
func TestMigrationsReferToUsers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := authConfig(dir)
	cfg.Migrations = fstest.MapFS{"0001_all.sql": {Data: []byte(`
		CREATE TABLE profile (user BLOB PRIMARY KEY NOT NULL REFERENCES _user(id) ON DELETE CASCADE, name TEXT NOT NULL) STRICT;
		CREATE TABLE post (id INTEGER PRIMARY KEY, author BLOB REFERENCES _user(id), text TEXT) STRICT;
		CREATE TRIGGER with_profile AFTER INSERT ON _user BEGIN
			INSERT INTO profile (user, name) VALUES (NEW.id, coalesce(NEW.username, NEW.email, 'somebody'));
		END;
		INSERT INTO _user (email, admin) VALUES ('first@example.com', 1);
	`)}}
	cfg.Records[0].Expand = nil
	for range 2 { // and a second start
		b := open(t, cfg)
		u, err := b.Auth.Find(t.Context(), "first@example.com")
		if err != nil || !u.Admin {
			t.Fatalf("the user of the migration: %+v, %v", u, err)
		}
		if link, err := b.Auth.SetupLink(t.Context()); link != "" || err != nil {
			t.Errorf("a link for the first administrator beside one: %q, %v", link, err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	b := open(t, cfg)
	id, err := b.Auth.CreateUser(t.Context(), auth.CreateUser{Email: "second@example.com", Password: testPassword, Verified: true})
	if err != nil {
		t.Fatal(err)
	}
	token, _ := signIn(t, b.Handler(), "second@example.com")
	token.want(t, "GET", "/api/records/v1/profiles/"+id.String(), "", 200, `"name":"second@example.com"`)
	token.want(t, "POST", "/api/records/v1/posts", fmt.Sprintf(`{"author":%q,"text":""}`, id), 200, "")
	token.want(t, "DELETE", "/api/auth/v1/delete", "", 400, "sqlite constraint: fk")
}

func TestAuthMistakes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	both := authConfig(dir)
	both.Caller = func(context.Context) records.Caller { return records.Caller{} }
	bad := authConfig(dir)
	bad.Auth.SiteURL, bad.Auth.Prefix, bad.Auth.Key = "example.com", "x", []byte("short")
	for name, tt := range map[string]struct {
		cfg  bedplate.Config
		want []string
	}{
		"Auth and Caller":    {both, []string{"bedplate: at most one of Auth and Caller"}},
		"mistakes in a part": {bad, []string{`auth: SiteURL "example.com"`, `auth: prefix "x"`, "auth: Key has 5 bytes"}},
	} {
		b, err := bedplate.Open(t.Context(), tt.cfg)
		if err == nil {
			b.Close()
			t.Errorf("%s: no error", name)
			continue
		}
		for _, want := range tt.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: no %q in %v", name, want, err)
			}
		}
	}
}

// Close waits for the mail that is being sent, while the database still takes
// the outcome, and a database of the application's stays open.
func TestCloseOrder(t *testing.T) {
	t.Parallel()
	for _, own := range []bool{false, true} {
		cfg := authConfig(t.TempDir())
		if own {
			db, err := sqlite.Open(t.Context(), cfg.Path, cfg.SQLite)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			cfg.Path, cfg.DB = "", db
		}
		var log syncBuffer
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		sending, ended := make(chan struct{}), make(chan struct{})
		cfg.Auth.SiteURL = "http://localhost"
		cfg.Auth.Mailer = mailerFunc(func(ctx context.Context, _ auth.Message) error {
			close(sending)
			<-ctx.Done()
			close(ended)
			return ctx.Err()
		})
		b := open(t, cfg)
		if _, err := b.Auth.CreateUser(t.Context(), auth.CreateUser{Email: "ada@example.com", Password: testPassword}); err != nil {
			t.Fatal(err)
		}
		<-sending
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ended:
		default:
			t.Error("Close has not waited for the mail")
		}
		if strings.Contains(log.String(), "level=ERROR") || strings.Contains(log.String(), "level=WARN") {
			t.Errorf("the log says\n%s", log.String())
		}
		if own && cfg.DB.Err() != nil {
			t.Errorf("the application's database: %v", cfg.DB.Err())
		}
		// The next start sends the mail.
		if own {
			continue
		}
		mails := make(inbox, 1)
		cfg.Auth.Mailer = mails
		open(t, cfg)
		if m := mails.wait(t); m.To != "ada@example.com" {
			t.Errorf("mail to %s", m.To)
		}
	}
}

type mailerFunc func(context.Context, auth.Message) error

func (f mailerFunc) Send(ctx context.Context, m auth.Message) error { return f(ctx, m) }

type syncBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// Two backends in one process know nothing of each other's users, tokens and
// cookies, though the names are the same.
func TestTwoBackendsWithAuth(t *testing.T) {
	t.Parallel()
	first, second := open(t, authConfig(t.TempDir())), open(t, authConfig(t.TempDir()))
	mux := http.NewServeMux()
	mux.Handle("/one/", http.StripPrefix("/one", first.Handler()))
	mux.Handle("/two/", http.StripPrefix("/two", second.Handler()))
	newUser(t, first, "ada")
	newUser(t, second, "ada")
	token1, cookie1 := signIn(t, first.Handler(), "ada@example.com")
	token2, cookie2 := signIn(t, second.Handler(), "ada@example.com")
	for _, c := range []struct {
		caller
		good, bad string
	}{{token1, "/one", "/two"}, {cookie1, "/one", "/two"}, {token2, "/two", "/one"}, {cookie2, "/two", "/one"}} {
		c.handler = mux
		c.want(t, "GET", c.good+"/api/records/v1/posts", "", 200, "")
		c.want(t, "GET", c.bad+"/api/records/v1/posts", "", 403, "")
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	token2.want(t, "GET", "/api/records/v1/posts", "", 200, "")
	if keys1, keys2 := (caller{handler: first.Handler()}).send("GET", "/.well-known/jwks.json", "").Body.String(),
		(caller{handler: second.Handler()}).send("GET", "/.well-known/jwks.json", "").Body.String(); keys1 == keys2 {
		t.Error("both sign with the same key")
	}
}
