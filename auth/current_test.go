package auth_test

import (
	"bytes"
	"context"
	"database/sql/driver"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/internal/jwt"
	"github.com/bedplate/bedplate/sqlite"
)

// callerWith returns the user that the middleware finds by a bearer token.
func callerWith(t testing.TB, s *site, token string) *auth.User {
	t.Helper()
	u := callerWithKey(t, s, token)
	if u == nil {
		t.Fatal("nobody is found by the token")
	}
	return u
}

func current(t testing.TB, s *site, users ...*auth.User) []bool {
	t.Helper()
	ok, err := s.Current(t.Context(), users)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

// What ends a credential is seen by Current, and what does not is not.
func TestCurrentUser(t *testing.T) {
	t.Parallel()
	type scene struct {
		*site
		id     auth.UserID
		tokens auth.Tokens
		owner  *browser // in another session
	}
	do := func(f func(s *scene, ctx context.Context) error) func(*testing.T, *scene) {
		return func(t *testing.T, s *scene) {
			t.Helper()
			if err := f(s, t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, tt := range map[string]struct {
		then         func(t *testing.T, s *scene)
		session, key bool // stays
	}{
		"nothing": {func(*testing.T, *scene) {}, true, true},
		"sign-out": {func(t *testing.T, s *scene) {
			s.browser(t).post(api+"/logout", object{"refresh_token": s.tokens.RefreshToken}).want(t, "logout", 200, "")
		}, false, true},
		"ended by its owner": {func(t *testing.T, s *scene) {
			s.owner.do("DELETE", api+"/sessions?others=true", "", "").want(t, "end", 200, "")
		}, false, true},
		"ended by an administrator": {do(func(s *scene, ctx context.Context) error { return s.EndSessions(ctx, s.id) }), false, true},
		"ended by another process": {func(t *testing.T, s *scene) {
			s.exec(t, `DELETE FROM _session WHERE user = ?`, s.id[:])
		}, false, true},
		"token used twice": {func(t *testing.T, s *scene) {
			s.browser(t).post(api+"/refresh", object{"refresh_token": s.tokens.RefreshToken, "rotate": true}).want(t, "rotate", 200, "*")
			s.clock.Add(time.Minute)
			s.browser(t).post(api+"/refresh", object{"refresh_token": s.tokens.RefreshToken, "rotate": true}).want(t, "again", 401, "")
		}, false, true},
		"token refreshed": {func(t *testing.T, s *scene) {
			s.browser(t).post(api+"/refresh", object{"refresh_token": s.tokens.RefreshToken}).want(t, "refresh", 200, "*")
		}, true, true},
		"session's time": {func(_ *testing.T, s *scene) { s.clock.Add(3 * time.Hour) }, false, true},
		"key's time":     {func(_ *testing.T, s *scene) { s.clock.Add(11 * time.Hour) }, false, false},
		"password changed": {func(t *testing.T, s *scene) {
			s.owner.post(api+"/change_password", object{"old_password": good, "new_password": good + "x"}).want(t, "change", 200, "*")
		}, false, true},
		"password set": {do(func(s *scene, ctx context.Context) error { return s.SetPassword(ctx, s.id, good+"x") }), false, false},
		"password reset": {func(t *testing.T, s *scene) {
			s.browser(t).post(api+"/reset_password/request", object{"email": "ada@example.com"}).want(t, "request", 200, "*")
			s.browser(t).post(api+"/reset_password/update", object{
				"password_reset_token": token(t, s.inbox.wait(t, "ada@example.com", 1)), "password": good + "x", "password_repeat": good + "x",
			}).want(t, "reset", 200, "*")
		}, false, false},
		"second factor": {func(t *testing.T, s *scene) { s.enrol(t, s.owner) }, false, true},
		"disabled":      {do(func(s *scene, ctx context.Context) error { return s.SetDisabled(ctx, s.id, true) }), false, false},
		"disabled by another process": {func(t *testing.T, s *scene) {
			s.exec(t, `UPDATE _user SET disabled = 1`)
		}, false, false},
		"deleted":  {do(func(s *scene, ctx context.Context) error { return s.DeleteUser(ctx, s.id) }), false, false},
		"promoted": {do(func(s *scene, ctx context.Context) error { return s.SetAdmin(ctx, s.id, true) }), false, false},
		"key revoked": {func(t *testing.T, s *scene) {
			s.owner.do("DELETE", api+"/api_keys/"+apiKeys(t, s.owner)[0].ID, "", "").want(t, "revoke", 200, "")
		}, true, false},
		"narrower scopes": {func(t *testing.T, s *scene) {
			s.exec(t, `UPDATE _api_key SET scopes = '[{"api":"posts","operations":["read"]}]'`)
		}, true, false},
		"the account of somebody else": {func(t *testing.T, s *scene) {
			bob := newAccount(t, s.site, "bob@example.com")
			s.exec(t, `UPDATE _session SET user = ?`, bob[:])
			s.exec(t, `UPDATE _api_key SET user = ?`, bob[:])
		}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &scene{site: newSite(t, auth.Config{RefreshTTL: 2 * time.Hour})}
			s.id = newAccount(t, s.site, "ada@example.com")
			s.tokens = s.login(t, "ada@example.com")
			s.owner = s.as(t, s.login(t, "ada@example.com"))
			key := newAPIKey(t, s.owner, object{"name": "x", "scopes": []object{{"api": "posts", "operations": []string{"read", "create"}}}, "expires_in": 10 * 3600})
			bearer, byKey := callerWith(t, s.site, s.tokens.AuthToken), callerWith(t, s.site, key.Key)
			r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
			r.Header.Set("Cookie", "auth_token="+s.tokens.AuthToken)
			cookie := caller(t, s.site, r)
			want := []bool{tt.session, tt.session, tt.key}
			tt.then(t, s)
			if got := current(t, s.site, bearer, cookie, byKey); !slices.Equal(got, want) {
				t.Errorf("bearer token, cookie, API key: %v, want %v", got, want)
			}
		})
	}
}

func TestCurrentUserWhoWasAdmin(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	id := newAccount(t, s, "ada@example.com")
	if err := s.SetAdmin(t.Context(), id, true); err != nil {
		t.Fatal(err)
	}
	before := callerWith(t, s, s.login(t, "ada@example.com").AuthToken)
	if err := s.SetAdmin(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	after := callerWith(t, s, s.login(t, "ada@example.com").AuthToken)
	if got := current(t, s, before, after); got[0] || !got[1] {
		t.Errorf("demoted, and come again: %v", got)
	}
}

func TestCurrentExternalUser(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		sql  string
		stay bool
	}{
		"nothing":            {`UPDATE _user_identity SET seen = 1`, true},
		"unlinked":           {`DELETE FROM _user_identity`, false},
		"linked to another":  {`UPDATE _user_identity SET user = (SELECT id FROM _user WHERE email = 'bob@example.com')`, false},
		"of another issuer":  {`UPDATE _user_identity SET issuer = 'https://other.example'`, false},
		"of another subject": {`UPDATE _user_identity SET subject = '2'`, false},
		"disabled":           {`UPDATE _user SET disabled = 1`, false},
		"not verified":       {`UPDATE _user SET unverified_email = email WHERE email = 'ada@example.com'`, false},
		"promoted":           {`UPDATE _user SET admin = 1`, false},
		"deleted":            {`DELETE FROM _user WHERE email = 'ada@example.com'`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, issuer := newExternal(t, auth.Config{})
			newAccount(t, s, "bob@example.com")
			s.know(t, newAccount(t, s, "ada@example.com"), issuerName, `1"]`)
			expires := s.clock.Now().Add(time.Hour)
			u := callerWith(t, s, issuer.issue(expires, auth.Identity{Subject: `1"]`}, 0))
			if !u.Expires.Equal(expires) {
				t.Errorf("expires at %v, want %v", u.Expires, expires)
			}
			if !current(t, s, u)[0] {
				t.Fatal("not current at first")
			}
			s.exec(t, tt.sql)
			if got := current(t, s, u)[0]; got != tt.stay {
				t.Errorf("current: %v, want %v", got, tt.stay)
			}
		})
	}
}

func TestCurrentUsersInOrder(t *testing.T) {
	t.Parallel()
	s, issuer := newExternal(t, auth.Config{})
	ada := newAccount(t, s, "ada@example.com")
	s.know(t, ada, issuerName, "1")
	tokens := s.login(t, "ada@example.com")
	session := callerWith(t, s, tokens.AuthToken)
	key := callerWith(t, s, newAPIKey(t, s.as(t, tokens), object{"name": "x", "scopes": []object{{"api": "*", "operations": []string{"*"}}}}).Key)
	external := callerWith(t, s, issuer.issue(s.clock.Now().Add(time.Hour), auth.Identity{Subject: "1"}, 0))
	account := &auth.User{ID: ada}
	nobody := &auth.User{ID: auth.UserID{1}}
	forged := &auth.User{ID: ada, Credential: auth.Bearer}
	ended := callerWith(t, s, s.login(t, "ada@example.com").AuthToken)
	s.exec(t, `DELETE FROM _session WHERE id <> ?`, sessionID(t, session))
	users := []*auth.User{nil, session, nobody, key, ended, external, forged, account, session, nil, key, {ID: ada, Admin: true}, {ID: ada, Credential: 77}}
	want := []bool{false, true, false, true, false, true, false, true, true, false, true, false, true}
	if got := current(t, s, users...); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := current(t, s); len(got) != 0 {
		t.Errorf("nobody: %v", got)
	}
	if err := s.db.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Current(t.Context(), users); !errors.Is(err, sqlite.ErrClosed) || got != nil {
		t.Errorf("closed database: %v, %v", got, err)
	}
}

func sessionID(t testing.TB, u *auth.User) []byte {
	t.Helper()
	id, err := base64.RawURLEncoding.DecodeString(u.Session)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// A credential ends when no request with it is let in any more.
func TestExpires(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{AccessTTL: time.Hour, RefreshTTL: 90 * time.Minute})
	newAccount(t, s, "ada@example.com")
	start := s.clock.Now()
	tokens := s.login(t, "ada@example.com")
	expect := func(what, token string, want time.Time) {
		t.Helper()
		if got := callerWith(t, s, token).Expires; !got.Equal(want) {
			t.Errorf("%s: expires %v after the start, want %v", what, got.Sub(start), want.Sub(start))
		}
	}
	expect("token", tokens.AuthToken, start.Add(time.Hour+time.Minute))
	key := newAPIKey(t, s.as(t, tokens), object{"name": "x", "scopes": []object{{"api": "*", "operations": []string{"*"}}}, "expires_in": 77})
	expect("API key", key.Key, start.Add(77*time.Second))
	s.clock.Add(45 * time.Minute)
	r := s.browser(t).post(api+"/refresh", object{"refresh_token": tokens.RefreshToken})
	var later auth.Tokens
	r.json(t, &later)
	expect("token that would outlive its session", later.AuthToken, start.Add(90*time.Minute))
	expect("again, from the cache", later.AuthToken, start.Add(90*time.Minute))
}

// BenchmarkCurrent is what open streams of 5,000 users cost every two seconds.
func BenchmarkCurrent(b *testing.B) {
	const n = 5000
	s := newSite(b, auth.Config{Key: bytes.Repeat([]byte{7}, 32)})
	s.exec(b, fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)
		INSERT INTO _user (email) SELECT 'u' || i || '@example.com' FROM n`, n))
	s.exec(b, `INSERT INTO _session (id, user, created, expires, seen, authenticated, method, cookie, device, address)
		SELECT id, id, 0, 1 << 40, 0, 0, 'password', 0, '', '' FROM _user`)
	kid, private := signingKey(b, s)
	var users []*auth.User
	err := s.db.Query(b.Context(), `SELECT id FROM _user`, nil, func(v []driver.Value) error {
		id, _ := v[0].([]byte)
		payload := fmt.Sprintf(`{"sub":%q,"iat":%d,"exp":%d,"type":1,"sid":%q}`,
			base64.URLEncoding.EncodeToString(id), s.clock.Now().Unix(), s.clock.Now().Unix()+3600, base64.RawURLEncoding.EncodeToString(id))
		users = append(users, callerWith(b, s, jwt.Sign(kid, private, []byte(payload))))
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	if ok := current(b, s, users...); len(ok) != n || slices.Contains(ok, false) {
		b.Fatal("not all are current")
	}
	for b.Loop() {
		if _, err := s.Current(b.Context(), users); err != nil {
			b.Fatal(err)
		}
	}
}
