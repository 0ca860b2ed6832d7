package auth_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/internal/jwt"
	"github.com/bedplate/bedplate/internal/seal"
	"github.com/bedplate/bedplate/sqlite"
)

// signingKey returns a key that the service signs with, as who has the
// database and the master key would read it.
func signingKey(t testing.TB, s *site) (kid string, private ed25519.PrivateKey) {
	t.Helper()
	key, err := seal.NewKey(s.cfg.Key)
	if err != nil {
		t.Fatal(err)
	}
	err = s.db.View(t.Context(), func(tx *sqlite.Tx) error {
		var sealed []byte
		if err := tx.QueryRowContext(t.Context(), `SELECT kid, secret FROM _signing_key`).Scan(&kid, &sealed); err != nil {
			return err
		}
		seed, err := key.Open("signing key/"+kid, sealed)
		if err == nil {
			private = ed25519.NewKeyFromSeed(seed)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return kid, private
}

func hmacSHA256(key, message []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(message)
	return h.Sum(nil)
}

// claimsHook returns a hook that gives everybody the same claims.
func claimsHook(claims map[string]any) func(context.Context, *auth.User) (map[string]any, error) {
	return func(context.Context, *auth.User) (map[string]any, error) { return claims, nil }
}

// forge encodes a token with any header.
func forge(header, payload string, sign func(signed []byte) []byte) string {
	signed := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
	return signed + "." + base64.RawURLEncoding.EncodeToString(sign([]byte(signed)))
}

func TestJ2_Algorithms(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Key: bytes.Repeat([]byte{1, 2, 3, 4}, 8)})
	s.addUser(t, "ada@example.com")
	kid, private := signingKey(t, s)
	real := s.login(t, "ada@example.com").AuthToken
	raw, _ := base64.RawURLEncoding.DecodeString(strings.Split(real, ".")[1])
	payload := string(raw)
	ours := func(signed []byte) []byte { return ed25519.Sign(private, signed) }
	none := func([]byte) []byte { return nil }
	public := private.Public().(ed25519.PublicKey)
	hs256 := func(signed []byte) []byte { return hmacSHA256(public, signed) }
	_, theirs, _ := ed25519.GenerateKey(nil)
	x := base64.RawURLEncoding.EncodeToString(theirs.Public().(ed25519.PublicKey))
	foreign := func(signed []byte) []byte { return ed25519.Sign(theirs, signed) }
	ok := fmt.Sprintf(`{"typ":"JWT","alg":"EdDSA","kid":%q}`, kid)
	if got := s.browser(t).with("Authorization", "Bearer "+forge(ok, payload, ours)).whoami(); got != "ada@example.com" {
		t.Fatalf("the forgery itself does not work: %s", got)
	}
	for name, token := range map[string]string{
		"none":          forge(`{"alg":"none","kid":"`+kid+`"}`, payload, none),
		"None, no dot":  strings.TrimSuffix(forge(`{"alg":"None","kid":"`+kid+`"}`, payload, none), "."),
		"unsigned":      forge(ok, payload, none),
		"HS256":         forge(`{"alg":"HS256","kid":"`+kid+`"}`, payload, hs256),
		"EdDSA as HMAC": forge(ok, payload, hs256),
		"RS256":         forge(`{"alg":"RS256","kid":"`+kid+`"}`, payload, ours),
		"ES256":         forge(`{"alg":"ES256","kid":"`+kid+`"}`, payload, ours),
		"Ed448":         forge(`{"alg":"Ed448","kid":"`+kid+`"}`, payload, ours),
		"lower case":    forge(`{"alg":"eddsa","kid":"`+kid+`"}`, payload, ours),
		"no alg":        forge(`{"kid":"`+kid+`"}`, payload, ours),
		"two algs":      forge(`{"alg":"none","alg":"EdDSA","kid":"`+kid+`"}`, payload, ours),
		"jwk":           forge(`{"alg":"EdDSA","kid":"`+kid+`","jwk":{"kty":"OKP","crv":"Ed25519","x":"`+x+`"}}`, payload, foreign),
		"jwk, ours":     forge(`{"alg":"EdDSA","kid":"`+kid+`","jwk":{}}`, payload, ours),
		"jku":           forge(`{"alg":"EdDSA","kid":"`+kid+`","jku":"http://127.0.0.1:1/"}`, payload, ours),
		"x5u":           forge(`{"alg":"EdDSA","kid":"`+kid+`","x5u":"http://127.0.0.1:1/"}`, payload, ours),
		"crit":          forge(`{"alg":"EdDSA","kid":"`+kid+`","crit":["b64"],"b64":false}`, payload, ours),
		"no kid":        forge(`{"alg":"EdDSA"}`, payload, ours),
		"kid SQL":       forge(`{"alg":"EdDSA","kid":"' OR 1=1 --"}`, payload, ours),
		"kid path":      forge(`{"alg":"EdDSA","kid":"../../../dev/null"}`, payload, ours),
		"kid number":    forge(`{"alg":"EdDSA","kid":1}`, payload, ours),
		"their key":     forge(ok, payload, foreign),
		"four parts":    forge(ok, payload, ours) + ".e30",
		"padding":       forge(ok, payload, ours) + "=",
		"not JSON":      forge(ok, "payload", ours),
		"array":         forge(ok, "["+payload+"]", ours),
		"space":         " " + forge(ok, payload, ours),
	} {
		for _, b := range []*browser{s.browser(t).with("Authorization", "Bearer "+token), s.withCookies(t, "auth_token", token)} {
			if got := b.whoami(); got != "anonymous" {
				t.Errorf("%s: %s", name, got)
			}
		}
		if r := s.browser(t).with("Authorization", "Bearer "+token).get("/private"); r.status != 401 || r.body != "" {
			t.Errorf("%s: %d %q", name, r.status, r.body)
		}
	}
}

func TestJ3_Claims(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Key: bytes.Repeat([]byte{1, 2, 3, 4}, 8)})
	s.addUser(t, "ada@example.com")
	eve := s.addUser(t, "eve@example.com")
	kid, private := signingKey(t, s)
	real := claims(t, s.login(t, "ada@example.com").AuthToken)
	now := s.clock.Now().Unix()
	for _, test := range []struct {
		name   string
		change object
		good   bool
	}{
		{"as it is", object{}, true},
		{"expired within the leeway", object{"exp": now - 60}, true},
		{"expired", object{"exp": now - 61}, false},
		{"no exp", object{"exp": nil}, false},
		{"exp text", object{"exp": "9999999999"}, false},
		{"exp float", object{"exp": 1e300}, false},
		{"exp negative", object{"exp": -1}, false},
		{"exp overflow", object{"exp": json.Number("9223372036854775807")}, false},
		{"from the near future", object{"iat": now + 60}, true},
		{"from the future", object{"iat": now + 61}, false},
		{"other type", object{"type": 2}, false},
		{"type text", object{"type": "1"}, false},
		{"no type", object{"type": nil}, false},
		{"nobody", object{"sub": ""}, false},
		{"somebody else", object{"sub": eve.String()}, false},
		{"no session", object{"sid": nil}, false},
		{"another session", object{"sid": "AAAAAAAAAAAAAAAAAAAAAA"}, false},
		{"session path", object{"sid": "../../x"}, false},
		{"admin", object{"admin": true}, true}, // and none
	} {
		c := object{}
		for k, v := range real {
			c[k] = v
		}
		c["exp"], c["iat"] = now+3600, now
		for k, v := range test.change {
			if v == nil {
				delete(c, k)
			} else {
				c[k] = v
			}
		}
		payload, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		token := jwt.Sign(kid, private, payload)
		b := s.browser(t).with("Authorization", "Bearer "+token)
		if got, want := b.whoami(), map[bool]string{true: "ada@example.com", false: "anonymous"}[test.good]; got != want {
			t.Errorf("%s: %s", test.name, got)
		}
		if r := b.get("/admin"); test.good && r.status != 403 || !test.good && (r.status != 401 || r.body != "") {
			t.Errorf("%s: /admin %d %q", test.name, r.status, r.body)
		}
		// A bad signature is told by nothing from a bad claim.
		broken := s.browser(t).with("Authorization", "Bearer "+token[:len(token)-4]+"AAAA")
		if r := broken.get("/private"); r.status != 401 || r.body != "" {
			t.Errorf("%s and a bad signature: %d %q", test.name, r.status, r.body)
		}
	}
}

func TestJ5_UnknownKeyFlood(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	good := s.as(t, s.login(t, "ada@example.com"))
	_, theirs, _ := ed25519.GenerateKey(nil)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 100 {
				token := jwt.Sign(fmt.Sprintf("kid-%d-%d", i, j), theirs, []byte(`{"sub":"x","type":1}`))
				if got := s.browser(t).with("Authorization", "Bearer "+token).whoami(); got != "anonymous" {
					t.Errorf("unknown key: %s", got)
				}
			}
		})
	}
	for range 50 {
		if got := good.whoami(); got != "ada@example.com" {
			t.Errorf("during the flood: %s", got)
		}
	}
	wg.Wait()
}
