package auth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/sqlite"
)

// Two services with two databases, each below a prefix of the application's.
func TestK1_TwoServices(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	var sites [2]*site
	for i, prefix := range []string{"/a/b", "/c"} {
		s := newSite(t, auth.Config{SiteURL: "http://site.example", Prefix: prefix + "/api/auth/v1", PagesPrefix: prefix + "/_/auth", OTP: true})
		s.addUser(t, "ada@example.com") // at its own server
		mux.Handle(prefix+"/api/auth/v1/", http.StripPrefix(prefix, s.At("/api/auth/v1")))
		mux.Handle(prefix+"/private", s.Middleware(http.StripPrefix(prefix, s.RequireUser(http.HandlerFunc(whoami)))))
		mux.Handle(prefix+"/whoami", http.StripPrefix(prefix, s.Middleware(http.HandlerFunc(whoami))))
		s.url = server.URL + prefix
		sites[i] = s
	}
	one, two := sites[0], sites[1]
	one.browser(t).post(api+"/reset_password/request", object{"email": "ada@example.com", "redirect_uri": "/a/b/home"})
	one.mailed(t, "ada@example.com", "http://site.example/a/b/_/auth/reset_password/update/")
	if r := one.browser(t).post(api+"/register", object{"email": "bob@example.com", "password": good, "password_repeat": good}); r.status != 200 {
		t.Errorf("register: %d %s", r.status, r.body)
	}
	verify := one.mailed(t, "bob@example.com", "http://site.example/a/b/api/auth/v1/verify_email/confirm/")
	if r := two.browser(t).form(api + "/verify_email/confirm/" + verify); r.status != 400 {
		t.Errorf("a token of the other service: %d %s", r.status, r.body)
	}
	if r := one.browser(t).form(api + "/verify_email/confirm/" + verify); r.status != 200 {
		t.Errorf("verify: %d %s", r.status, r.body)
	}
	r := one.browser(t).with("Accept", "text/html").get("/private?x=y")
	if r.status != 303 || r.location() != "/a/b/_/auth/login?redirect_uri=%2Fa%2Fb%2Fprivate%3Fx%3Dy" {
		t.Errorf("RequireUser: %d %s", r.status, r.location())
	}
	access, refresh := one.loginForm(t, one.browser(t), "ada@example.com")
	if got := one.withCookies(t, "auth_token", access, "refresh_token", refresh).whoami(); got != "ada@example.com" {
		t.Errorf("at home: %s", got)
	}
	for name, b := range map[string]*browser{
		"cookies": two.withCookies(t, "auth_token", access, "refresh_token", refresh),
		"bearer":  two.browser(t).with("Authorization", "Bearer "+access),
	} {
		if got := b.whoami(); got != "anonymous" {
			t.Errorf("%s at the other service: %s", name, got)
		}
	}
	if got := two.refreshes(t, refresh); got != 401 {
		t.Errorf("refresh at the other service: %d", got)
	}
	if r := one.withCookies(t, "auth_token", access, "refresh_token", refresh).with("Sec-Fetch-Site", "cross-site").get(api + "/logout"); r.location() != "/a/b/_/auth/logout" {
		t.Errorf("logout leads to %s", r.location())
	}
	if r := one.browser(t).get("/api/auth/v1x/status"); r.status != 404 {
		t.Errorf("beside the prefix: %d", r.status)
	}
}

func TestK5_Hooks(t *testing.T) {
	t.Parallel()
	var fails atomic.Pointer[func() error]
	set := func(f func() error) { fails.Store(&f) }
	set(func() error { return nil })
	hook := func() error { return (*fails.Load())() }
	s := newSite(t, auth.Config{Anonymous: true, Limits: wideLimits(), Hooks: auth.Hooks{
		BeforeCreate: func(ctx context.Context, tx *sqlite.Tx, u *auth.NewUser) error {
			if _, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS made (name TEXT)`); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO made VALUES (?)`, u.Email+u.Username); err != nil {
				return err
			}
			return hook()
		},
		Claims: func(context.Context, *auth.User) (map[string]any, error) { return map[string]any{"x": 1}, hook() },
	}})
	s.addUser(t, "ada@example.com")
	tokens := s.login(t, "ada@example.com")
	made, sessions := s.number(t, `SELECT count(*) FROM made`), s.number(t, `SELECT count(*) FROM _session`)
	b := s.browser(t)
	for name, test := range map[string]struct {
		fail   func() error
		status int
		body   string
	}{
		"panic":           {func() error { panic("at the hook") }, 500, ""},
		"runtime panic":   {func() error { return errors.New(strings.Repeat("x", -1)) }, 500, ""},
		"error":           {func() error { return errors.New("secret of the application") }, 500, ""},
		"Error":           {func() error { return &auth.Error{Status: 402, Text: "pay first"} }, 402, "pay first"},
		"wrapped Error":   {func() error { return fmt.Errorf("x: %w", &auth.Error{Status: 403}) }, 403, ""},
		"retry":           {func() error { return &auth.Error{Status: 503, RetryAfter: 1500 * time.Millisecond} }, 503, ""},
		"Error without":   {func() error { return &auth.Error{} }, 500, ""},
		"Error 200":       {func() error { return &auth.Error{Status: 200, Text: "x"} }, 500, ""},
		"Error 1000":      {func() error { return &auth.Error{Status: 1000} }, 500, ""},
		"nil Error":       {func() error { var e *auth.Error; return e }, 500, ""},
		"full disk":       {func() error { return fmt.Errorf("x: %w", sqlite.ErrDiskFull) }, 507, ""},
		"sqlite mistake":  {func() error { return fmt.Errorf("x: %w", sqlite.ErrBusy) }, 503, ""},
		"cancelled":       {func() error { return context.Canceled }, 503, ""},
		"deadline is out": {func() error { return context.DeadlineExceeded }, 503, ""},
	} {
		set(test.fail)
		for path, body := range map[string]object{
			"/register":        {"email": "new@example.com", "password": good, "password_repeat": good},
			"/login_anonymous": {},
			"/login":           {"email": "ada@example.com", "password": good},
			"/refresh":         {"refresh_token": tokens.RefreshToken},
		} {
			r := b.post(api+path, body)
			if r.status != test.status || r.body != test.body {
				t.Errorf("%s: %s: %d %s", name, path, r.status, r.body)
			}
			if test.status == 503 && r.header.Get("Retry-After") == "" {
				t.Errorf("%s: %s: no Retry-After", name, path)
			}
		}
		// A token that is rotated while the hook fails is not used up in vain.
		s.browser(t).post(api+"/refresh", object{"refresh_token": tokens.RefreshToken, "rotate": true})
		s.clock.Add(11 * time.Second)
		set(func() error { return nil })
		if got := s.refreshes(t, tokens.RefreshToken); got != 200 {
			t.Fatalf("%s: the session is dead: %d", name, got)
		}
	}
	if got := s.number(t, `SELECT count(*) FROM made`); got != made {
		t.Errorf("%d rows of the hook are left, want %d", got, made)
	}
	if got := s.number(t, `SELECT count(*) FROM _session`); got != sessions {
		t.Errorf("%d sessions, want %d", got, sessions)
	}
	if got := s.number(t, `SELECT count(*) FROM _user`); got != 1 {
		t.Errorf("%d users, want 1", got)
	}
}

func TestK5_ClaimsHook(t *testing.T) {
	t.Parallel()
	for name, given := range map[string]map[string]any{
		"reserved":   {"sub": "x"},
		"other case": {"Sid": "x"},
		"folded":     {"\u017fub": "x"},
		"too large":  {"x": strings.Repeat("x", 3000)},
		"not JSON":   {"x": func() {}},
		"NaN":        {"x": nan()},
	} {
		s := newSite(t, auth.Config{Hooks: auth.Hooks{Claims: claimsHook(given)}})
		s.addUser(t, "ada@example.com")
		if r := s.browser(t).post(api+"/login", object{"email": "ada@example.com", "password": good}); r.status != 500 || r.body != "" {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	s := newSite(t, auth.Config{Hooks: auth.Hooks{
		Claims:     claimsHook(map[string]any{"role": "editor", "list": []int{1, 2}, `quote"`: "\u2028</script>"}),
		AfterLogin: func(context.Context, *auth.User) { panic("after login") },
	}})
	s.addUser(t, "ada@example.com")
	if r := s.browser(t).post(api+"/login", object{"email": "ada@example.com", "password": good}); r.status != 500 {
		t.Errorf("a panic after the login: %d", r.status)
	}
}

func nan() float64 {
	zero := 0.0
	return zero / zero
}

// Two processes share a file: what one revokes the other refuses soon.
func TestB6_OtherProcess(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	tokens := s.login(t, "ada@example.com")
	me := s.as(t, tokens)
	if me.whoami() != "ada@example.com" {
		t.Fatal("not signed in")
	}
	db, err := sqlite.Open(t.Context(), filepath.Clean(s.path), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	cfg := s.cfg
	cfg.KeyFile = s.path + "-key"
	other, err := auth.New(t.Context(), db, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.EndSessions(t.Context(), s.userID(t, "ada@example.com")); err != nil {
		t.Fatal(err)
	}
	s.clock.Add(30 * time.Second)
	if got := me.whoami(); got != "anonymous" {
		t.Errorf("after half a minute: %s", got)
	}
}
