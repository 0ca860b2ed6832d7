package idp_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/auth/idp"
	"github.com/bedplate/bedplate/internal/oidctest"
)

type claims = map[string]any

func issuerConfig(s *oidctest.Server, c *clock) idp.IssuerConfig {
	return idp.IssuerConfig{Issuer: s.Issuer, Audience: []string{"api", "api2"}, AllowPrivateAddresses: true, Now: c.Now}
}

func newIssuer(t *testing.T, cfg idp.IssuerConfig) *idp.Issuer {
	t.Helper()
	i, err := idp.NewIssuer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// newServer returns a provider whose tokens outlive the steps of a test.
func newServer(t *testing.T, alg string) (*oidctest.Server, *clock) {
	c := newClock()
	return oidctest.New(t, oidctest.Options{Alg: alg, Now: c.Now, Lifetime: 30 * 24 * time.Hour}), c
}

func TestIssuer(t *testing.T) {
	t.Parallel()
	for _, alg := range []string{"RS256", "ES256", "EdDSA"} {
		s, c := newServer(t, alg)
		i := newIssuer(t, issuerConfig(s, c))
		if i.Name() != s.Issuer || s.Requests("") != 0 {
			t.Errorf("name %q, %d requests at construction", i.Name(), s.Requests(""))
		}
		got, err := i.Verify(t.Context(), sign(t, s, claims{
			"sub": "42", "aud": []string{"other", "api"}, "email": "ada@example.com", "email_verified": true,
			"preferred_username": "ada", "picture": "https://example.com/a.png", "roles": []string{"a"},
		}))
		want := auth.Identity{
			Subject: "42", Email: "ada@example.com", EmailVerified: true, Username: "ada", AvatarURL: "https://example.com/a.png",
		}
		if err != nil || got.Identity != want || got.Expires != c.Now().Add(30*24*time.Hour).Unix() || fmt.Sprint(got.Claims["roles"]) != "[a]" {
			t.Errorf("%s: got %+v, error %v", alg, got, err)
		}
	}
}

func TestJ2_Algorithms(t *testing.T) {
	t.Parallel()
	s, c := newServer(t, "RS256")
	i := newIssuer(t, issuerConfig(s, c))
	header := func(name string, value any) oidctest.Knobs {
		return oidctest.Knobs{Header: func(h map[string]any) { h[name] = value }}
	}
	good := sign(t, s, claims{"sub": "42", "aud": "api"})
	tokens := map[string]string{
		"empty": "", "no dots": "a", "one dot": "a.b", "five parts": good + ".a.b", "no signature": good[:strings.LastIndex(good, ".")+1],
		"huge":      good + strings.Repeat("A", 16<<10),
		"spaces":    good + " ",
		"JSON form": `{"payload":"e30","signatures":[{"protected":"eyJhbGciOiJSUzI1NiJ9","signature":"AA"}]}`,
	}
	for name, knobs := range map[string]oidctest.Knobs{
		"none": {Alg: "none"}, "HS256": {Alg: "HS256"}, "RS as ES": header("alg", "ES256"), "RS as PS": header("alg", "PS256"),
		"None": header("alg", "None"), "no alg": header("alg", ""), "alg is a number": header("alg", 1),
		"jwk": header("jwk", claims{"kty": "oct", "k": "AA"}), "jku": header("jku", s.Issuer+"/evil"),
		"x5u": header("x5u", s.Issuer+"/evil"), "x5c": header("x5c", []string{"AA"}),
		"crit": header("crit", []string{"exp"}), "b64": header("b64", false), "kid is a path": header("kid", "../../etc/passwd"),
		"kid is SQL": header("kid", "' OR 1=1 --"), "kid is an object": header("kid", claims{}), "another type": header("typ", "dpop+jwt"),
	} {
		s.Set(knobs)
		tokens[name] = sign(t, s, claims{"sub": "42", "aud": "api"})
	}
	s.Set(oidctest.Knobs{})
	for name, token := range tokens {
		if got, err := i.Verify(t.Context(), token); err == nil || err.Error() != idp.ErrRefused.Error() {
			t.Errorf("%s: got %+v, error %v", name, got, err)
		}
	}
	if _, err := i.Verify(t.Context(), good); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

func TestJ3_Claims(t *testing.T) {
	t.Parallel()
	s, c := newServer(t, "ES256")
	i := newIssuer(t, issuerConfig(s, c))
	now := c.Now()
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	for name, test := range map[string]struct {
		claims claims
		want   bool
	}{
		"good":              {claims{"aud": "api2"}, true},
		"expired":           {claims{"exp": at(-2 * time.Minute)}, false},
		"expired in leeway": {claims{"exp": at(-59 * time.Second)}, true},
		"expires as leeway": {claims{"exp": at(-time.Minute)}, false},
		"exp null":          {claims{"exp": nil}, false},
		"exp a string":      {claims{"exp": "9999999999"}, false},
		"nbf":               {claims{"nbf": at(2 * time.Minute)}, false},
		"nbf in leeway":     {claims{"nbf": at(time.Minute)}, true},
		"nbf a string":      {claims{"nbf": "0"}, false},
		"iat":               {claims{"iat": at(2 * time.Minute)}, false},
		"audience of else":  {claims{"aud": []string{"other"}}, false},
		"empty audience":    {claims{"aud": []string{}}, false},
		"null audience":     {claims{"aud": nil}, false},
		"prefix":            {claims{"aud": "ap"}, false},
		"issuer":            {claims{"iss": "https://other.example.com"}, false},
		"no subject":        {claims{"sub": nil}, false},
		"control character": {claims{"sub": "a\x00b"}, false},
	} {
		all := claims{"sub": "42", "aud": "api"}
		for k, v := range test.claims {
			all[k] = v
		}
		got, err := i.Verify(t.Context(), sign(t, s, all))
		if (err == nil) != test.want || err != nil && err.Error() != idp.ErrRefused.Error() {
			t.Errorf("%s: got %+v, error %v", name, got, err)
		}
	}
	// Expired and badly signed is no other error than one of these.
	token := sign(t, s, claims{"sub": "42", "aud": "api", "exp": at(-time.Hour)})
	_, err := i.Verify(t.Context(), token[:len(token)-8]+"AAAAAAAA")
	wantRefused(t, nil, err)

	var out strings.Builder
	slog.New(slog.NewTextHandler(&out, nil)).Info("refused", "error", err)
	if !strings.Contains(out.String(), "bad signature") || strings.Contains(out.String(), token) {
		t.Errorf("log: %s", out.String())
	}
}

func TestJ5_UnknownKeyFlood(t *testing.T) {
	t.Parallel()
	s, c := newServer(t, "ES256")
	i := newIssuer(t, issuerConfig(s, c))
	good := sign(t, s, claims{"sub": "42", "aud": "api"})
	if _, err := i.Verify(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	flood := func() {
		var group sync.WaitGroup
		for worker := range 8 {
			group.Go(func() {
				for n := range 25 {
					_, rest, _ := strings.Cut(good, ".")
					header := fmt.Sprintf(`{"alg":"ES256","kid":"%d-%d"}`, worker, n)
					token := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + rest
					if _, err := i.Verify(t.Context(), token); err == nil {
						t.Error("accepted")
					}
				}
			})
		}
		group.Wait()
	}
	flood()
	if n := s.Requests(oidctest.KeysPath); n != 1 {
		t.Errorf("%d fetches in the first minute, want 1", n)
	}
	c.Add(61 * time.Second)
	flood()
	if n := s.Requests(oidctest.KeysPath); n != 2 {
		t.Errorf("%d fetches after a minute, want 2", n)
	}
	s.Set(oidctest.Knobs{Endpoints: map[string]http.Handler{oidctest.KeysPath: oidctest.Status(500, "down")}})
	for range 3 {
		c.Add(61 * time.Second)
		flood()
	}
	if n := s.Requests(oidctest.KeysPath); n != 5 {
		t.Errorf("%d fetches in an outage, want 5", n)
	}
	if n := s.Requests(oidctest.DiscoveryPath); n != 1 {
		t.Errorf("%d requests for metadata, want 1", n)
	}
	if _, err := i.Verify(t.Context(), good); err != nil {
		t.Errorf("in an outage: %v", err)
	}
}

func TestJ5_RotationAndOutage(t *testing.T) {
	t.Parallel()
	s, c := newServer(t, "ES256")
	i := newIssuer(t, issuerConfig(s, c))
	old := sign(t, s, claims{"sub": "42", "aud": "api"})
	if _, err := i.Verify(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if err := s.Rotate(true); err != nil {
		t.Fatal(err)
	}
	c.Add(2 * time.Minute)
	fresh := sign(t, s, claims{"sub": "42", "aud": "api"})
	for _, token := range []string{fresh, old} {
		if _, err := i.Verify(t.Context(), token); err != nil {
			t.Errorf("after rotation: %v", err)
		}
	}
	s.Set(oidctest.Knobs{Endpoints: map[string]http.Handler{
		oidctest.KeysPath: answer(`{"keys":[]}`), oidctest.DiscoveryPath: oidctest.Status(500, "down"),
	}})
	c.Add(48 * time.Hour)
	if _, err := i.Verify(t.Context(), fresh); err != nil {
		t.Errorf("in an outage: %v", err)
	}
	s.Set(oidctest.Knobs{})
	if err := s.Rotate(false); err != nil { // the old keys are withdrawn
		t.Fatal(err)
	}
	c.Add(2 * time.Hour)
	_, err := i.Verify(t.Context(), old)
	wantRefused(t, nil, err)
}

func TestJ5_SameKeyIDs(t *testing.T) {
	t.Parallel()
	a, c := newServer(t, "ES256")
	b := oidctest.New(t, oidctest.Options{Now: c.Now})
	if a.KeyID() != b.KeyID() {
		t.Fatal("the test wants keys of one name")
	}
	ia, ib := newIssuer(t, issuerConfig(a, c)), newIssuer(t, issuerConfig(b, c))
	forged := sign(t, b, claims{"iss": a.Issuer, "sub": "42", "aud": "api"})
	for _, i := range []*idp.Issuer{ib, ia, ib} {
		_, err := i.Verify(t.Context(), forged)
		wantRefused(t, i.Name(), err)
	}
}

func TestJ6_NothingIsSteered(t *testing.T) {
	t.Parallel()
	s, c := newServer(t, "ES256")
	evil := oidctest.New(t, oidctest.Options{Now: c.Now})
	i := newIssuer(t, issuerConfig(s, c))
	for _, name := range []string{"jku", "x5u", "kid"} {
		evil.Set(oidctest.Knobs{Header: func(h map[string]any) { h[name] = evil.Issuer + oidctest.KeysPath }})
		_, err := i.Verify(t.Context(), sign(t, evil, claims{"sub": "42", "aud": "api"}))
		wantRefused(t, name, err)
		_, err = i.Verify(t.Context(), sign(t, evil, claims{"iss": s.Issuer, "sub": "42", "aud": "api"}))
		wantRefused(t, name, err)
	}
	evil.Set(oidctest.Knobs{})
	_, err := i.Verify(t.Context(), sign(t, s, claims{ // distributed claims name an endpoint
		"sub": "42", "aud": "api", "_claim_names": claims{"groups": "x"}, "_claim_sources": claims{"x": claims{"endpoint": evil.Issuer}},
	}))
	if err != nil {
		t.Error(err)
	}
	if n := evil.Requests(""); n != 0 {
		t.Errorf("%d requests", n)
	}
}

func TestKeysFile(t *testing.T) {
	t.Parallel()
	s, c := newServer(t, "ES256")
	path := filepath.Join(t.TempDir(), "jwks.json")
	modified := time.Now()
	write := func(document []byte) {
		t.Helper()
		if err := os.WriteFile(path, document, 0o600); err != nil {
			t.Fatal(err)
		}
		modified = modified.Add(time.Second)
		if err := os.Chtimes(path, modified, modified); err != nil {
			t.Fatal(err)
		}
	}
	cfg := issuerConfig(s, c)
	cfg.JWKSFile = path
	if _, err := idp.NewIssuer(cfg); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	write(s.Keys())
	i := newIssuer(t, cfg)
	old := sign(t, s, claims{"sub": "42", "aud": "api"})
	if _, err := i.Verify(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	write([]byte("half a docum"))
	c.Add(5 * time.Second)
	if _, err := i.Verify(t.Context(), old); err != nil {
		t.Errorf("after a broken file: %v", err)
	}
	if err := s.Rotate(false); err != nil {
		t.Fatal(err)
	}
	write(s.Keys())
	c.Add(5 * time.Second)
	if _, err := i.Verify(t.Context(), sign(t, s, claims{"sub": "42", "aud": "api"})); err != nil {
		t.Errorf("after rotation: %v", err)
	}
	_, err := i.Verify(t.Context(), old)
	wantRefused(t, nil, err)
	if n := s.Requests(""); n != 0 {
		t.Errorf("%d requests", n)
	}
}

func TestMap(t *testing.T) {
	t.Parallel()
	s, c := newServer(t, "ES256")
	cfg := issuerConfig(s, c)
	cfg.JWKSURL = s.Issuer + oidctest.KeysPath
	cfg.Map = func(c map[string]any) (auth.Identity, error) {
		id, _ := c["uid"].(string)
		if id == "nobody" {
			return auth.Identity{}, errors.New("nobody")
		}
		delete(c, "exp")
		return auth.Identity{Subject: id}, nil
	}
	i := newIssuer(t, cfg)
	got, err := i.Verify(t.Context(), sign(t, s, claims{"sub": "42", "aud": "api", "uid": "u1"}))
	if err != nil || got.Subject != "u1" || got.Expires == 0 {
		t.Errorf("got %+v, error %v", got, err)
	}
	for _, uid := range []string{"", "nobody"} {
		got, err := i.Verify(t.Context(), sign(t, s, claims{"sub": "42", "aud": "api", "uid": uid}))
		wantRefused(t, got, err)
	}
	if n := s.Requests(oidctest.DiscoveryPath); n != 0 {
		t.Errorf("%d requests for metadata", n)
	}
}

func TestNewIssuerRefuses(t *testing.T) {
	t.Parallel()
	ok := idp.IssuerConfig{Issuer: "https://id.example.com", Audience: []string{"api"}}
	for name, test := range map[string]struct {
		change func(*idp.IssuerConfig)
		want   []string
	}{
		"fine":        {func(*idp.IssuerConfig) {}, nil},
		"a name":      {func(c *idp.IssuerConfig) { c.Issuer, c.JWKSURL = "accounts", "https://id.example.com/keys" }, nil},
		"all at once": {func(c *idp.IssuerConfig) { c.Issuer, c.Audience = "", nil }, []string{"Issuer", "Audience", "JWKSURL"}},
		"none":        {func(c *idp.IssuerConfig) { c.Algorithms = []string{"RS256", "none"} }, []string{`"none"`}},
		"HS256":       {func(c *idp.IssuerConfig) { c.Algorithms = []string{"HS256"} }, []string{`"HS256"`}},
		"leeway":      {func(c *idp.IssuerConfig) { c.ClockLeeway = time.Hour }, []string{"ClockLeeway"}},
		"http":        {func(c *idp.IssuerConfig) { c.JWKSURL = "http://id.example.com/keys" }, []string{"JWKSURL"}},
		"two sources": {func(c *idp.IssuerConfig) { c.JWKSURL, c.JWKSFile = "https://id.example.com/keys", "a" }, []string{"as well as"}},
	} {
		cfg := ok
		test.change(&cfg)
		_, err := idp.NewIssuer(cfg)
		if (err != nil) != (test.want != nil) {
			t.Errorf("%s: error %v", name, err)
		}
		for _, part := range test.want {
			if err != nil && !strings.Contains(err.Error(), part) {
				t.Errorf("%s: error %v, want %q in it", name, err, part)
			}
		}
	}
}
