package auth_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/sqlite"
)

func idBytes(t testing.TB, id string) []byte {
	t.Helper()
	raw, err := base64.RawURLEncoding.Strict().DecodeString(id)
	if err != nil || len(raw) != 16 {
		t.Fatalf("id %q: %d bytes, %v", id, len(raw), err)
	}
	return raw
}

// setupToken returns the token of a new setup link, "" if there is none.
func setupToken(t testing.TB, s *site) string {
	t.Helper()
	link, err := s.SetupLink(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if link == "" {
		return ""
	}
	token, ok := strings.CutPrefix(link, siteURL+"/_/auth/setup/")
	if !ok || len(token) != 48 {
		t.Fatalf("link %q", link)
	}
	return token
}

func admins(t testing.TB, s *site) int {
	return countRows(t, s, `SELECT count(*) FROM _user WHERE admin <> 0`)
}

func TestI2_FirstAdmin(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	b := s.browser(t)
	if n := countRows(t, s, `SELECT count(*) FROM _user`); n != 0 {
		t.Errorf("%d users that nobody has made", n)
	}
	setup := func(token string) reply {
		return b.post(api+"/setup", object{"token": token, "email": "root@example.com", "password": good, "password_repeat": good})
	}
	refused := func(what, token string) {
		t.Helper()
		if r := setup(token); r.status != 400 || r.body != "invalid token" || admins(t, s) != 0 {
			t.Errorf("%s: %d %q, %d admins", what, r.status, r.body, admins(t, s))
		}
	}
	refused("no token", "")
	refused("guess", strings.Repeat("A", 48))
	first := setupToken(t, s)
	if fileHolds(t, s, first) {
		t.Error("the token is in the database")
	}
	second := setupToken(t, s)
	refused("replaced token", first)
	s.clock.Add(15 * time.Minute)
	refused("expired token", second)

	token := setupToken(t, s)
	s.clock.Add(15*time.Minute - time.Second)
	for _, c := range []struct {
		body object
		text string
	}{
		{object{"token": token, "email": "root@example.com", "password": "short", "password_repeat": "short"}, "Password too short"},
		{object{"token": token, "email": "root@example.com", "password": good}, "Passwords don't match"},
		{object{"token": token, "password": good, "password_repeat": good}, "Missing email"},
		{object{"token": token, "email": "root", "password": good, "password_repeat": good}, "Invalid email"},
		{object{"token": token, "email": "root@example.com", "username": "root", "password": good, "password_repeat": good}, "username not allowed"},
	} {
		if r := b.post(api+"/setup", c.body); r.status != 400 || r.body != c.text {
			t.Errorf("%v: %d %q, want %q", c.body, r.status, r.body, c.text)
		}
	}
	if r := setup(token); r.status != 200 || r.body != "admin created" || r.header.Get("Set-Cookie") != "" {
		t.Fatalf("setup: %d %q %v", r.status, r.body, r.header)
	}
	wantStatus(t, "the admin's page", s.as(t, s.login(t, "root@example.com")).get("/admin"), 200)
	if r := setup(token); r.status != 400 || admins(t, s) != 1 {
		t.Errorf("second use: %d %q, %d admins", r.status, r.body, admins(t, s))
	}
	if token := setupToken(t, s); token != "" {
		t.Errorf("a link although there is an admin: %q", token)
	}
}

// A link that is still good makes no second administrator.
func TestI2_AdminMeanwhile(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	token := setupToken(t, s)
	id := newAccount(t, s, "a@example.com")
	if err := s.SetAdmin(t.Context(), id, true); err != nil {
		t.Fatal(err)
	}
	r := s.browser(t).post(api+"/setup", object{"token": token, "email": "root@example.com", "password": good, "password_repeat": good})
	if r.status != 400 || admins(t, s) != 1 {
		t.Errorf("%d %q, %d admins", r.status, r.body, admins(t, s))
	}
}

func TestI2_FirstAdminRace(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	token := setupToken(t, s)
	b := s.browser(t)
	statuses := inParallel(16, func(i int) int {
		return b.post(api+"/setup", object{
			"token": token, "email": fmt.Sprintf("root%d@example.com", i), "password": good, "password_repeat": good,
		}).status
	})
	if statuses[200] != 1 || statuses[400] != 15 || admins(t, s) != 1 || countRows(t, s, `SELECT count(*) FROM _user`) != 1 {
		t.Errorf("statuses %v, %d admins", statuses, admins(t, s))
	}
}

func TestI2_FirstAdminForm(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Identifier: auth.RequireUsername})
	token := setupToken(t, s)
	b := s.browser(t)
	post := func(b *browser, password string) reply {
		return b.form(api+"/setup", "token", token, "username", "root", "password", password, "password_repeat", password)
	}
	wantStatus(t, "form of another site", post(b.with("Sec-Fetch-Site", "cross-site"), good), 403)
	if r := post(b, "short"); r.status != 303 || r.location() != "/_/auth/setup/"+token+"?alert=Password+too+short" {
		t.Errorf("bad password: %d %q", r.status, r.location())
	}
	if r := post(b, good); r.status != 303 || r.location() != "/_/auth/login?alert=admin+created" {
		t.Errorf("setup: %d %q %q", r.status, r.body, r.location())
	}
	if r := post(b, "short"); r.status != 400 {
		t.Errorf("again: %d %q", r.status, r.location())
	}
	if u, err := s.Find(t.Context(), "ROOT"); err != nil || !u.Admin || u.Username != "root" {
		t.Errorf("Find: %+v, %v", u, err)
	}
}

// A stopped user is refused at the next request, whatever it shows.
func TestB6_StoppedUsers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stop  func(ctx context.Context, s *site, id auth.UserID) error
		page  string
		after int // status of page
		login int
	}{
		"disabled": {func(ctx context.Context, s *site, id auth.UserID) error { return s.SetDisabled(ctx, id, true) }, "/private", 401, 401},
		"deleted":  {func(ctx context.Context, s *site, id auth.UserID) error { return s.DeleteUser(ctx, id) }, "/private", 401, 401},
		"demoted":  {func(ctx context.Context, s *site, id auth.UserID) error { return s.SetAdmin(ctx, id, false) }, "/admin", 403, 200},
		"ended":    {func(ctx context.Context, s *site, id auth.UserID) error { return s.EndSessions(ctx, id) }, "/private", 401, 200},
		"new secrets": {func(ctx context.Context, s *site, id auth.UserID) error {
			return s.SetPassword(ctx, id, "Other.horse.8")
		}, "/private", 401, 401},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, auth.Config{RedirectSchemes: []string{"app"}})
			id := newAccount(t, s, "a@example.com")
			if err := s.SetAdmin(t.Context(), id, true); err != nil {
				t.Fatal(err)
			}
			tokens := s.login(t, "a@example.com")
			bearer, cookies := s.as(t, tokens), cookieLogin(t, s, "a@example.com")
			k := newAPIKey(t, bearer, everything)
			machine := withKey(t, s, k.Key)
			code := s.browser(t).post(api+"/login", object{
				"email": "a@example.com", "password": good, "response_type": "code", "redirect_uri": "app://host/back",
				"pkce_code_challenge": "7w_YNF9DSfIdPf_pRjSq646_kPr-2-o9NAl16JGghdM",
			}).location()
			for _, b := range []*browser{bearer, cookies} {
				wantStatus(t, "before", b.get("/admin"), 200)
			}
			wantStatus(t, "key before", machine.get("/private"), 200)

			if err := c.stop(t.Context(), s, id); err != nil {
				t.Fatal(err)
			}
			wantStatus(t, "token", bearer.get(c.page), c.after)
			wantStatus(t, "cookie", cookies.get(c.page), c.after)
			wantStatus(t, "login", s.browser(t).post(api+"/login", object{"email": "a@example.com", "password": good}), c.login)
			if name == "demoted" {
				wantStatus(t, "demoted, but no stranger", bearer.get("/private"), 200)
				return
			}
			wantStatus(t, "refresh", s.browser(t).post(api+"/refresh", object{"refresh_token": tokens.RefreshToken}), 401)
			wantStatus(t, "code", s.browser(t).post(api+"/token", object{
				"authorization_code": code[strings.Index(code, "code=")+5:], "pkce_code_verifier": strings.Repeat("v", 43),
			}), 404)
			wantKey := 401
			if name == "ended" {
				wantKey = 200 // machines go on when a person signs out
			}
			wantStatus(t, "API key", machine.get("/private"), wantKey)
			if r := bearer.get(api + "/status"); !strings.Contains(r.body, `"auth_token":null`) {
				t.Errorf("status: %s", r.body)
			}
		})
	}
}

// What another process does, or SQL, counts within a minute, for cookies at
// once.
func TestB6_StoppedElsewhere(t *testing.T) {
	t.Parallel()
	for name, sql := range map[string]string{
		"disabled": `UPDATE _user SET disabled = 1`,
		"deleted":  `DELETE FROM _user`,
		"revoked":  `DELETE FROM _session; DELETE FROM _api_key`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, auth.Config{})
			newAccount(t, s, "a@example.com")
			bearer, cookies := s.as(t, s.login(t, "a@example.com")), cookieLogin(t, s, "a@example.com")
			machine := withKey(t, s, newAPIKey(t, bearer, everything).Key)
			for _, b := range []*browser{bearer, cookies, machine} {
				wantStatus(t, "before", b.get("/private"), 200)
			}
			for statement := range strings.SplitSeq(sql, ";") {
				s.exec(t, statement)
			}
			wantStatus(t, "cookie", cookies.get("/private"), 401)
			s.clock.Add(30 * time.Second)
			wantStatus(t, "token", bearer.get("/private"), 401)
			wantStatus(t, "API key", machine.get("/private"), 401)
		})
	}
}

func TestSetDisabledAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	id := newAccount(t, s, "a@example.com")
	bearer := s.as(t, s.login(t, "a@example.com"))
	machine := withKey(t, s, newAPIKey(t, bearer, everything).Key)
	for _, disabled := range []bool{true, false} {
		if err := s.SetDisabled(t.Context(), id, disabled); err != nil {
			t.Fatal(err)
		}
	}
	wantStatus(t, "old session", bearer.get("/private"), 401)
	wantStatus(t, "API key", machine.get("/private"), 200)
	s.login(t, "a@example.com")
}

func TestCreateUser(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Identifier: auth.RequireEmail, Hooks: auth.Hooks{
		BeforeCreate: func(_ context.Context, _ *sqlite.Tx, u *auth.NewUser) error {
			if strings.HasSuffix(u.Email, "@refused.example") {
				return &auth.Error{Status: 403, Text: "not from there"}
			}
			if u.Email == "chief@example.com" {
				u.Admin = true
			}
			return nil
		},
	}})
	id, err := s.CreateUser(t.Context(), auth.CreateUser{Email: "a@example.com", Username: "alice", Password: good, Admin: true, Verified: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a@example.com", " A@Example.com", "alice", "ALICE"} {
		u, err := s.Find(t.Context(), name)
		if err != nil || u.ID != id || !u.Admin || u.Email != "a@example.com" || u.Username != "alice" || u.Session != "" || !u.Authenticated.IsZero() {
			t.Errorf("Find(%q): %+v, %v", name, u, err)
		}
	}
	wantStatus(t, "login", s.as(t, s.login(t, "a@example.com")).get("/admin"), 200)
	for _, name := range []string{"", "b@example.com", "bob", "a@", "x y", strings.Repeat("x", 1000)} {
		if u, err := s.Find(t.Context(), name); !errors.Is(err, auth.ErrNotFound) {
			t.Errorf("Find(%.20q): %+v, %v", name, u, err)
		}
	}

	if _, err := s.CreateUser(t.Context(), auth.CreateUser{Email: "waits@example.com", Password: good}); err != nil {
		t.Fatal(err)
	}
	if m := s.inbox.wait(t, "waits@example.com", 1); !strings.Contains(m.Text, "/verify_email/confirm/") {
		t.Errorf("mail: %q", m.Text)
	}
	wantStatus(t, "unverified", s.browser(t).post(api+"/login", object{"email": "waits@example.com", "password": good}), 401)
	if _, err := s.CreateUser(t.Context(), auth.CreateUser{Email: "coded@example.com", Verified: true}); err != nil {
		t.Errorf("without a password: %v", err)
	}
	chief, err := s.CreateUser(t.Context(), auth.CreateUser{Email: "chief@example.com", Password: good, Verified: true})
	if err != nil || countRows(t, s, `SELECT admin FROM _user WHERE id = ?`, chief[:]) != 1 {
		t.Errorf("the hook has made no admin: %v", err)
	}

	for name, c := range map[string]struct {
		user auth.CreateUser
		want auth.Error
	}{
		"same email":       {auth.CreateUser{Email: "A@example.com", Password: good, Verified: true}, *auth.ErrConflict},
		"same, unverified": {auth.CreateUser{Email: "A@example.com", Password: good}, *auth.ErrConflict},
		"same username":    {auth.CreateUser{Email: "c@example.com", Username: "Alice", Password: good, Verified: true}, *auth.ErrConflict},
		"no email":         {auth.CreateUser{Username: "carol", Password: good}, auth.Error{Status: 400, Text: "Missing email"}},
		"bad email":        {auth.CreateUser{Email: "c@", Password: good}, auth.Error{Status: 400, Text: "Invalid email"}},
		"bad password":     {auth.CreateUser{Email: "c@example.com", Password: "short"}, auth.Error{Status: 400, Text: "Password too short"}},
		"hook":             {auth.CreateUser{Email: "c@refused.example", Password: good}, auth.Error{Status: 403, Text: "not from there"}},
	} {
		var e *auth.Error
		if _, err := s.CreateUser(t.Context(), c.user); !errors.As(err, &e) || *e != c.want {
			t.Errorf("%s: %v, want %v", name, err, &c.want)
		}
	}
	if n := countRows(t, s, `SELECT count(*) FROM _user`); n != 4 {
		t.Errorf("%d users, want 4", n)
	}
}

func TestCreateUserWithoutMeans(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Identifier: auth.RequireUsername})
	var e *auth.Error
	if _, err := s.CreateUser(t.Context(), auth.CreateUser{Username: "carol", Verified: true}); !errors.As(err, &e) || e.Status != 400 {
		t.Errorf("a user who can never sign in: %v", err)
	}
}

// Who has registered with an address before gets nothing out of it.
func TestC7_CreateUser(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	b := s.browser(t)
	const attackers = "Attackers.horse.9"
	wantStatus(t, "register", b.post(api+"/register", object{"email": "a@example.com", "password": attackers, "password_repeat": attackers}), 200)
	link := token(t, s.inbox.wait(t, "a@example.com", 1))
	id := newAccount(t, s, "a@example.com")
	wantStatus(t, "the attacker's link", b.form(api+"/verify_email/confirm/"+link), 400)
	wantStatus(t, "the attacker's password", b.post(api+"/login", object{"email": "a@example.com", "password": attackers}), 401)
	s.login(t, "a@example.com")
	if u, err := s.Find(t.Context(), "a@example.com"); err != nil || u.ID != id {
		t.Errorf("Find: %+v, %v", u, err)
	}
}

func TestCreateUserRace(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	results := inParallel(12, func(int) error {
		_, err := s.CreateUser(t.Context(), auth.CreateUser{Email: "a@example.com", Password: good, Verified: true})
		return err
	})
	if results[nil] != 1 || results[auth.ErrConflict] != 11 {
		t.Errorf("results %v, want one account", results)
	}
}

func TestSetPassword(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	id := newAccount(t, s, "a@example.com")
	s.login(t, "a@example.com")
	const other = "Other.horse.8"
	var e *auth.Error
	if err := s.SetPassword(t.Context(), id, "short"); !errors.As(err, &e) || e.Status != 400 || e.Text != "Password too short" {
		t.Errorf("bad password: %v", err)
	}
	s.login(t, "a@example.com")
	if err := s.SetPassword(t.Context(), id, other); err != nil {
		t.Fatal(err)
	}
	b := s.browser(t)
	wantStatus(t, "old password", b.post(api+"/login", object{"email": "a@example.com", "password": good}), 401)
	for _, table := range []string{"_session", "_one_time", "_api_key", "_known_device"} {
		if n := countRows(t, s, `SELECT count(*) FROM `+table); n != 0 {
			t.Errorf("%d rows are left in %s", n, table)
		}
	}
	wantStatus(t, "new password", b.post(api+"/login", object{"email": "a@example.com", "password": other}), 200)
	if m := s.inbox.wait(t, "a@example.com", 1); !strings.Contains(m.Subject, "password") {
		t.Errorf("mail: %q", m.Subject)
	}
}

func TestGoMethodsWithoutUser(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	ctx, nobody := t.Context(), auth.UserID{1}
	for name, err := range map[string]error{
		"DeleteUser":  s.DeleteUser(ctx, nobody),
		"SetDisabled": s.SetDisabled(ctx, nobody, true),
		"SetAdmin":    s.SetAdmin(ctx, nobody, true),
		"SetPassword": s.SetPassword(ctx, nobody, good),
		"EndSession":  s.EndSession(ctx, nobody, "AAAAAAAAAAAAAAAAAAAAAA"),
	} {
		if !errors.Is(err, auth.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", name, err)
		}
	}
	if err := s.EndSessions(ctx, nobody); err != nil {
		t.Errorf("EndSessions: %v", err)
	}
	if list, err := s.Sessions(ctx, nobody); err != nil || len(list) != 0 {
		t.Errorf("Sessions: %v, %v", list, err)
	}
}

// The token of a setup link serves nothing else, and no other token makes an
// administrator.
func TestB11_SetupToken(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{RedirectSchemes: []string{"app"}})
	newAccount(t, s, "a@example.com")
	setup, tokens := setupToken(t, s), s.login(t, "a@example.com")
	b := s.browser(t)
	location, err := url.Parse(b.post(api+"/login", object{
		"email": "a@example.com", "password": good, "response_type": "code", "redirect_uri": "app://host/back",
		"pkce_code_challenge": "7w_YNF9DSfIdPf_pRjSq646_kPr-2-o9NAl16JGghdM",
	}).location())
	if err != nil {
		t.Fatal(err)
	}
	k := newAPIKey(t, s.as(t, tokens), everything)
	for name, token := range map[string]string{
		"code": location.Query().Get("code"), "auth token": tokens.AuthToken, "refresh token": tokens.RefreshToken,
		"csrf token": tokens.CSRFToken, "API key": k.Key,
	} {
		r := b.post(api+"/setup", object{"token": token, "email": "root@example.com", "password": good, "password_repeat": good})
		if token == "" || r.status != 400 || admins(t, s) != 0 {
			t.Errorf("%s %q as a setup token: %d %q", name, token, r.status, r.body)
		}
	}
	wantStatus(t, "as a code", b.post(api+"/token", object{"authorization_code": setup, "pkce_code_verifier": strings.Repeat("v", 43)}), 404)
	wantStatus(t, "as a refresh token", b.post(api+"/refresh", object{"refresh_token": setup}), 401)
	wantStatus(t, "as an MFA token", b.post(api+"/login_mfa", object{"mfa_token": setup, "totp": "123456"}), 401)
	wantStatus(t, "as an auth token", b.with("Authorization", "Bearer "+setup).get("/private"), 401)
	wantStatus(t, "for itself", b.post(api+"/setup", object{"token": setup, "email": "root@example.com", "password": good, "password_repeat": good}), 200)
}
