package auth_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/internal/jwt"
	"github.com/bedplate/bedplate/internal/seal"
	"github.com/bedplate/bedplate/sqlite"
)

// jwks returns the published keys by their ids.
func (s *site) jwks(t testing.TB) map[string]ed25519.PublicKey {
	t.Helper()
	var set struct {
		Keys []struct{ Kid, X, Kty, Crv, Alg string }
	}
	s.browser(t).get("/.well-known/jwks.json").json(t, &set)
	keys := map[string]ed25519.PublicKey{}
	for _, k := range set.Keys {
		if k.Kty != "OKP" || k.Crv != "Ed25519" || k.Alg != "EdDSA" {
			t.Errorf("key %+v", k)
		}
		x, err := base64.RawURLEncoding.DecodeString(k.X)
		if err != nil {
			t.Fatal(err)
		}
		keys[k.Kid] = x
	}
	return keys
}

// verified checks a token as another service would, by JWKS.
func (s *site) verified(t testing.TB, token string) bool {
	t.Helper()
	keys := s.jwks(t)
	_, err := jwt.Verify(token, func(kid string) ed25519.PublicKey { return keys[kid] })
	return err == nil
}

func TestJ1_RotateKeyUnderLoad(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Now: time.Now})
	s.addUser(t, "ada@example.com")
	tokens := s.login(t, "ada@example.com")
	old := tokens.AuthToken

	var requests atomic.Int64
	var wg sync.WaitGroup
	stop, answered, failed := make(chan struct{}), make(chan struct{}), make(chan struct{}, 8)
	for range 8 {
		wg.Go(func() {
			b := s.browser(t)
			mine := tokens.AuthToken
			defer func() {
				if t.Failed() {
					failed <- struct{}{}
				}
			}()
			for {
				select {
				case <-stop:
					return
				case answered <- struct{}{}: // somebody waits for it
				default:
				}
				if got := b.with("Authorization", "Bearer "+mine).get("/whoami").body; got != "ada@example.com" {
					t.Errorf("whoami: %s", got)
					return
				}
				if requests.Add(1)%5 == 0 {
					r := b.post(api+"/refresh", object{"refresh_token": tokens.RefreshToken})
					if r.status != 200 {
						t.Errorf("refresh: %d", r.status)
						return
					}
					var next auth.Tokens
					r.json(t, &next)
					mine = next.AuthToken
				}
			}
		})
	}
	for range 5 {
		if err := s.RotateKey(t.Context()); err != nil {
			t.Error(err)
		}
		for range 50 {
			select {
			case <-answered:
			case <-failed:
				close(stop)
				wg.Wait()
				return
			}
		}
	}
	close(stop)
	wg.Wait()
	if !s.verified(t, old) {
		t.Error("the first token is no longer good after five rotations within its life")
	}
	if n := len(s.jwks(t)); n != 6 {
		t.Errorf("%d keys, want 6", n)
	}
}

func TestJ1_OldKeyRetires(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{KeyTTL: 48 * time.Hour})
	s.addUser(t, "ada@example.com")
	first := s.login(t, "ada@example.com").AuthToken
	kid := func(token string) string {
		var header struct{ Kid string }
		raw, _ := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[0])
		_ = json.Unmarshal(raw, &header)
		return header.Kid
	}
	s.clock.Add(25 * time.Hour) // the next key is published a day ahead
	if err := s.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(s.jwks(t)); n != 2 {
		t.Fatalf("%d keys, want 2", n)
	}
	early := s.login(t, "ada@example.com").AuthToken
	if kid(early) != kid(first) {
		t.Error("the next key signs before its time")
	}
	s.clock.Add(24 * time.Hour)
	late := s.login(t, "ada@example.com").AuthToken
	if kid(late) == kid(first) {
		t.Error("the old key signs beyond its time")
	}
	if !s.verified(t, early) {
		t.Error("tokens of the old key fail")
	}
	s.clock.Add(2 * time.Hour)
	if s.verified(t, early) {
		t.Error("the old key does not retire")
	}
	if err := s.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(s.jwks(t)); n != 1 {
		t.Errorf("%d keys, want 1", n)
	}
}

// Two processes share a file: what one signs with its new key the other takes.
func TestJ1_KeyOfAnotherProcess(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	db, err := sqlite.Open(t.Context(), s.path, sqlite.Options{})
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
	if err := other.RotateKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	tokens := s.login(t, "ada@example.com")
	if got := s.as(t, tokens).get("/whoami").body; got != "ada@example.com" {
		t.Errorf("whoami: %s", got)
	}
}

func TestB2_CopyOfTheDatabase(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{OTP: true})
	s.addUser(t, "ada@example.com")
	tokens := s.login(t, "ada@example.com")
	_, next := s.rotate(t, tokens.RefreshToken)
	b := s.browser(t)
	b.form(api+"/login", "email", "ada@example.com", "password", good)
	b.post(api+"/reset_password/request", object{"email": "ada@example.com"})
	b.post(api+"/otp/request", object{"email": "ada@example.com"})

	secrets := map[string]string{
		"refresh token": tokens.RefreshToken, "successor": next.RefreshToken, "auth token": tokens.AuthToken, "password": good,
	}
	for _, m := range s.inbox.to("ada@example.com") {
		if found := mailToken.FindStringSubmatch(m.Text); found != nil {
			secrets["token of "+m.Subject] = found[1]
		}
	}
	key, err := os.ReadFile(s.path + "-key")
	if err != nil {
		t.Fatal(err)
	}
	secrets["master key"] = strings.TrimSpace(string(key))
	for _, suffix := range []string{"", "-wal"} {
		content, err := os.ReadFile(s.path + suffix)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		for name, secret := range secrets {
			if bytes.Contains(content, []byte(secret)) {
				t.Errorf("the %s is in app.db%s", name, suffix)
			}
		}
	}
	// Nor is there what would make tokens: a private key in the clear.
	err = s.db.View(t.Context(), func(tx *sqlite.Tx) error {
		rows, err := tx.QueryContext(t.Context(), `SELECT public, secret FROM _signing_key`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var public, secret []byte
			if err := rows.Scan(&public, &secret); err != nil {
				return err
			}
			for i := 0; i+ed25519.SeedSize <= len(secret); i++ {
				if bytes.Equal(ed25519.NewKeyFromSeed(secret[i : i+ed25519.SeedSize])[32:], public) {
					t.Error("a signing key is stored in the clear")
				}
			}
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
}

// reopen starts another service on the database of s.
func reopen(t testing.TB, s *site, cfg auth.Config) error {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	service, err := auth.New(t.Context(), s.db, cfg)
	if err == nil {
		_ = service.Close()
	}
	return err
}

func TestJ7_MasterKey(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	file := s.path + "-key"
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v (%v)", info.Mode(), err)
	}
	if err := reopen(t, s, auth.Config{}); err != nil {
		t.Errorf("with its own key: %v", err)
	}
	refused := func(what, reason string, cfg auth.Config) {
		t.Helper()
		if err := reopen(t, s, cfg); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	refused("readable by the group", file, auth.Config{})
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	refused("missing", "put it back", auth.Config{})
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Error("a new key was made for a database that is sealed under another")
	}
	refused("another key", "another master key", auth.Config{Key: bytes.Repeat([]byte{7}, 32)})
	refused("truncated", file, func() auth.Config {
		if err := os.WriteFile(file, content[:len(content)/2], 0o600); err != nil {
			t.Fatal(err)
		}
		return auth.Config{}
	}())
	refused("zero", "master key", auth.Config{Key: make([]byte, 32)})
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := reopen(t, s, auth.Config{}); err != nil {
		t.Errorf("after it was put back: %v", err)
	}
}

func TestConfigMistakesAtOnce(t *testing.T) {
	t.Parallel()
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "app.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_, err = auth.New(context.Background(), db, auth.Config{
		SiteURL: "https://Example.com/", Prefix: "api/", Key: []byte("short"), Identifier: 9, AccessTTL: time.Second,
		RedirectSchemes: []string{"javascript"}, RedirectURIs: []string{"/x"}, TrustedOrigins: []string{"nonsense"}, Proxies: -1,
		Argon2: auth.Argon2{Slots: -1},
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, part := range []string{"SiteURL", "prefix", "Key has", "Identifier", "AccessTTL", "javascript", `redirect URI "/x"`, "trusted origin", "Proxies"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("no word of %s in %v", part, err)
		}
	}
}

// A new line above the old one in the key file seals everything that lasts
// anew, so that the old line can go.
func TestMasterKeyRotation(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	_, d := s.addMFAUser(t, "ada@example.com")
	tokens := s.complete(t, "ada@example.com", d)
	file := s.path + "-key"
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	fresh := filepath.Join(t.TempDir(), "key")
	if _, err := seal.CreateFile(fresh); err != nil {
		t.Fatal(err)
	}
	line, err := os.ReadFile(fresh)
	if err != nil {
		t.Fatal(err)
	}
	for _, content := range [][]byte{slices.Concat(line, old), line} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := reopen(t, s, auth.Config{}); err != nil {
			t.Fatal(err)
		}
	}
	cfg := s.cfg
	cfg.KeyFile = file
	service, err := auth.New(t.Context(), s.db, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	server := httptest.NewServer(service.At(api))
	defer server.Close()
	again := &site{Service: service, db: s.db, url: server.URL, clock: s.clock, inbox: s.inbox, cfg: cfg, path: s.path}
	if r := again.browser(t).post(api+"/refresh", object{"refresh_token": tokens.RefreshToken}); r.status != 200 {
		t.Errorf("refresh: %d", r.status)
	}
	again.clock.Add(time.Minute)
	if r := again.secondFactor(t, again.firstFactor(t, "ada@example.com"), d.code()); r.status != 200 {
		t.Errorf("second factor: %d %s", r.status, r.body)
	}
	if r := again.secondFactor(t, again.firstFactor(t, "ada@example.com"), d.codes[0]); r.status != 200 {
		t.Errorf("recovery code: %d %s", r.status, r.body)
	}
}

func TestRequireUserRefusesNarrowKeys(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	me := s.as(t, s.login(t, "ada@example.com"))
	key := func(api, operation string) *browser {
		t.Helper()
		var made struct{ Key string }
		me.post("/api/auth/v1/api_keys", object{"name": "x", "scopes": []object{{"api": api, "operations": []string{operation}}}}).json(t, &made)
		return s.browser(t).with("Authorization", "Bearer "+made.Key)
	}
	for _, c := range []struct {
		api, operation string
		want           int
	}{{"posts", "*", 403}, {"*", "read", 403}, {"*", "*", 200}} {
		if r := key(c.api, c.operation).get("/private"); r.status != c.want {
			t.Errorf("%s %s: %d, want %d", c.api, c.operation, r.status, c.want)
		}
	}
}
