package idp_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/auth/idp"
	"github.com/bedplate/bedplate/internal/oidctest"
)

var (
	_ auth.IdentityProvider = (*idp.Provider)(nil)
	_ auth.Issuer           = (*idp.Issuer)(nil)
)

func TestLogin(t *testing.T) {
	t.Parallel()
	for _, alg := range []string{"RS256", "ES256", "EdDSA"} {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			s := oidctest.New(t, oidctest.Options{Alg: alg, User: &oidctest.User{
				Subject: "42", Email: "ada@example.com", EmailVerified: true, Username: "ada", Picture: "https://example.com/a.png",
			}})
			p := newProvider(t, config(s))
			want := auth.Identity{
				Subject: "42", Email: "ada@example.com", EmailVerified: true, Username: "ada", AvatarURL: "https://example.com/a.png",
			}
			for range 2 {
				got, err := login(t, p)
				if err != nil || got != want {
					t.Fatalf("got %+v, error %v; want %+v", got, err, want)
				}
			}
			if n := s.Requests(oidctest.DiscoveryPath) + s.Requests(oidctest.KeysPath); n != 2 {
				t.Errorf("%d requests for metadata and keys, want 2", n)
			}
			if err := s.Rotate(false); err != nil {
				t.Fatal(err)
			}
			if _, err := login(t, p); err == nil {
				t.Error("the new key was fetched within a minute of the last fetch")
			}
		})
	}
}

func TestAuthURL(t *testing.T) {
	t.Parallel()
	s := oidctest.New(t, oidctest.Options{})
	p := newProvider(t, config(s))
	req := newRequest()
	address, err := p.AuthURL(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	for name, want := range map[string]string{
		"response_type": "code", "client_id": "client", "state": req.State, "nonce": req.Nonce,
		"code_challenge_method": "S256", "redirect_uri": callback, "scope": "openid email profile",
	} {
		if q.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, q.Get(name), want)
		}
	}
	if len(q.Get("code_challenge")) != 43 || strings.Contains(address, req.Verifier) {
		t.Errorf("no challenge, or the verifier itself: %s", address)
	}
}

func TestC2_Nonce(t *testing.T) {
	t.Parallel()
	s := oidctest.New(t, oidctest.Options{})
	p := newProvider(t, config(s))
	for name, change := range map[string]func(map[string]any){
		"missing":      func(c map[string]any) { delete(c, "nonce") },
		"other":        func(c map[string]any) { c["nonce"] = "other" },
		"not a string": func(c map[string]any) { c["nonce"] = []string{c["nonce"].(string)} },
		"empty":        func(c map[string]any) { c["nonce"] = "" },
	} {
		s.Set(oidctest.Knobs{Claims: change})
		id, err := login(t, p)
		t.Log(name, err)
		wantRefused(t, id, err)
	}
	s.Set(oidctest.Knobs{})

	first := newRequest()
	code := authorize(t, p, first)
	again := first
	again.Nonce = newRequest().Nonce // another visit
	id, err := p.Exchange(t.Context(), code, again)
	wantRefused(t, id, err)

	first.Nonce = ""
	if address, err := p.AuthURL(t.Context(), first); err == nil {
		t.Errorf("a request without a nonce: %s", address)
	}
}

func TestC3_PKCE(t *testing.T) {
	t.Parallel()
	s := oidctest.New(t, oidctest.Options{})
	p := newProvider(t, config(s))
	for _, verifier := range []string{"", "short", strings.Repeat("a", 42), strings.Repeat("a", 129), strings.Repeat("ä", 30)} {
		req := newRequest()
		req.Verifier = verifier
		if address, err := p.AuthURL(t.Context(), req); err == nil {
			t.Errorf("verifier %q: %s", verifier, address)
		}
	}
	req := newRequest()
	code := authorize(t, p, req)
	req.Verifier = newRequest().Verifier
	id, err := p.Exchange(t.Context(), code, req)
	wantRefused(t, id, err)
}

func TestC4_IDToken(t *testing.T) {
	t.Parallel()
	s := oidctest.New(t, oidctest.Options{Alg: "RS256"})
	p := newProvider(t, config(s))
	set := func(name string, value any) oidctest.Knobs {
		return oidctest.Knobs{Claims: func(c map[string]any) {
			if c[name] = value; value == nil {
				delete(c, name)
			}
		}}
	}
	now := time.Now()
	for name, knobs := range map[string]oidctest.Knobs{
		"other issuer":          set("iss", "https://other.example.com"),
		"issuer with slash":     set("iss", s.Issuer+"/"),
		"no issuer":             set("iss", nil),
		"other audience":        set("aud", "other"),
		"no audience":           set("aud", nil),
		"audience of numbers":   set("aud", []any{"client", 1}),
		"several without azp":   set("aud", []string{"client", "other"}),
		"wrong azp":             set("azp", "other"),
		"azp of another type":   set("azp", []string{"client"}),
		"expired":               set("exp", now.Add(-2*time.Minute).Unix()),
		"no expiry":             set("exp", nil),
		"expiry as a string":    set("exp", fmt.Sprint(now.Add(time.Hour).Unix())),
		"no end":                set("exp", 1e300),
		"issued in the future":  set("iat", now.Add(time.Hour).Unix()),
		"not issued":            set("iat", nil),
		"not yet valid":         set("nbf", now.Add(time.Hour).Unix()),
		"no subject":            set("sub", nil),
		"empty subject":         set("sub", ""),
		"subject of 256":        set("sub", strings.Repeat("a", 256)),
		"subject is a number":   set("sub", 42),
		"alg none":              {Alg: "none"},
		"HS256 with public key": {Alg: "HS256"},
		"alg of another key":    {Header: func(h map[string]any) { h["alg"] = "ES256" }},
		"alg not ours":          {Header: func(h map[string]any) { h["alg"] = "RS512" }},
		"unknown key":           {Header: func(h map[string]any) { h["kid"] = "other" }},
		"jku":                   {Header: func(h map[string]any) { h["jku"] = s.Issuer + "/evil" }},
		"logout token":          {Header: func(h map[string]any) { h["typ"] = "logout+jwt" }},
		"names in other case": {Claims: func(c map[string]any) {
			c["is\u017f"], c["iss"] = c["iss"], "https://other.example.com" // folds to iss
		}},
	} {
		s.Set(knobs)
		id, err := login(t, p)
		t.Log(name, err)
		if !errors.Is(err, idp.ErrRefused) {
			t.Errorf("%s: got %+v, error %v; want it refused", name, id, err)
		}
	}
	if n := s.Requests("/evil"); n != 0 {
		t.Errorf("%d requests steered by a header", n)
	}

	for name, knobs := range map[string]oidctest.Knobs{
		"just expired": set("exp", time.Now().Add(-time.Second).Unix()),
		"azp":          set("azp", "client"),
		"no kid":       {Header: func(h map[string]any) { delete(h, "kid") }}, // there is one key only
		"several with azp": {Claims: func(c map[string]any) {
			c["aud"], c["azp"] = []string{"other", "client"}, "client"
		}},
	} {
		s.Set(knobs)
		if _, err := login(t, p); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestC4_SwappedKey(t *testing.T) {
	t.Parallel()
	s := oidctest.New(t, oidctest.Options{})
	old := s.KeyID()
	if err := s.Rotate(true); err != nil {
		t.Fatal(err)
	}
	p := newProvider(t, config(s))
	s.Set(oidctest.Knobs{Header: func(h map[string]any) { h["kid"] = old }})
	id, err := login(t, p)
	wantRefused(t, id, err)
	s.Set(oidctest.Knobs{Header: func(h map[string]any) { delete(h, "kid") }}) // and there are two keys
	id, err = login(t, p)
	wantRefused(t, id, err)
}

func TestC4_EmailVerified(t *testing.T) {
	t.Parallel()
	s := oidctest.New(t, oidctest.Options{})
	cautious, trusting := config(s), config(s)
	trusting.TrustEmail = true
	for _, test := range []struct {
		claim         any
		want, trusted bool
	}{
		{true, true, true}, {false, false, false}, {"true", false, false}, {"false", false, false}, {1, false, false},
		{[]bool{true}, false, false}, {nil, false, true},
	} {
		s.SetUser(oidctest.User{Subject: "42", Email: "ada@example.com", EmailVerified: test.claim})
		for _, c := range []struct {
			cfg  idp.Config
			want bool
		}{{cautious, test.want}, {trusting, test.trusted}} {
			got, err := login(t, newProvider(t, c.cfg))
			if err != nil || got.EmailVerified != c.want || got.Email != "ada@example.com" {
				t.Errorf("%#v (TrustEmail %t): got %+v, error %v; want %t", test.claim, c.cfg.TrustEmail, got, err, c.want)
			}
		}
	}
	s.SetUser(oidctest.User{Subject: "42", EmailVerified: true})
	if got, err := login(t, newProvider(t, trusting)); err != nil || got.EmailVerified {
		t.Errorf("without an address: got %+v, error %v", got, err)
	}
}

func TestC5_MixUp(t *testing.T) {
	t.Parallel()
	honest, evil := oidctest.New(t, oidctest.Options{}), oidctest.New(t, oidctest.Options{})
	a, b := newProvider(t, config(honest)), newProvider(t, config(evil))

	req := newRequest()
	id, err := b.Exchange(t.Context(), authorize(t, a, req), req)
	wantRefused(t, id, err)

	// The other provider sends a token that the honest one has signed.
	req = newRequest()
	code := authorize(t, b, req)
	token, err := honest.IDToken(oidctest.User{Subject: "victim"}, req.Nonce)
	if err != nil {
		t.Fatal(err)
	}
	evil.Set(oidctest.Knobs{Endpoints: map[string]http.Handler{oidctest.TokenPath: answer(`{"access_token":"a","token_type":"Bearer","id_token":"` + token + `"}`)}})
	id, err = b.Exchange(t.Context(), code, req)
	wantRefused(t, id, err)

	// Its discovery document may not claim to be somebody else's, either.
	evil.Set(oidctest.Knobs{Discovery: func(d map[string]any) { d["issuer"] = honest.Issuer }})
	address, err := newProvider(t, config(evil)).AuthURL(t.Context(), newRequest())
	wantRefused(t, address, err)
}

func TestUserInfo(t *testing.T) {
	t.Parallel()
	s := oidctest.New(t, oidctest.Options{})
	p := newProvider(t, config(s))
	bare := func(c map[string]any) {
		for _, name := range []string{"email", "preferred_username", "picture"} {
			delete(c, name)
		}
		c["email_verified"] = true // of which address?
	}
	s.Set(oidctest.Knobs{Claims: bare, UserInfo: func(c map[string]any) { c["email_verified"] = false }})
	got, err := login(t, p)
	if want := (auth.Identity{Subject: "user", Email: "user@example.com", Username: "user"}); err != nil || got != want {
		t.Errorf("got %+v, error %v; want %+v", got, err, want)
	}
	for _, sub := range []any{"other", nil, map[string]any{}} {
		s.Set(oidctest.Knobs{Claims: bare, UserInfo: func(c map[string]any) { c["sub"] = sub }})
		got, err = login(t, p)
		wantRefused(t, got, err)
	}
}

func TestErrorsKeepSecrets(t *testing.T) {
	t.Parallel()
	s := oidctest.New(t, oidctest.Options{})
	p := newProvider(t, config(s))
	req := newRequest()
	code := authorize(t, p, req)
	s.Set(oidctest.Knobs{Endpoints: map[string]http.Handler{
		oidctest.TokenPath: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = r.ParseForm()
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			_, _ = fmt.Fprintf(w, `{"error":"invalid_grant","error_description":"code %s, %s, %v"}`,
				r.Form.Get("code"), r.Form.Get("code_verifier"), r.Header["Authorization"])
		}),
	}})
	_, err := p.Exchange(t.Context(), code, req)
	wantRefused(t, nil, err)
	if text := err.Error(); strings.Contains(text, code) || strings.Contains(text, req.Verifier) || !strings.Contains(text, "invalid_grant") {
		t.Errorf("error: %s", text)
	}
}

// TestOutage wants a provider that has been reached once to stay usable while
// its metadata and keys are not to be had.
func TestOutage(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := oidctest.New(t, oidctest.Options{Now: c.Now})
	cfg := config(s)
	cfg.Now = c.Now
	p := newProvider(t, cfg)
	if n := s.Requests(""); n != 0 {
		t.Fatalf("%d requests at construction", n)
	}
	down := map[string]http.Handler{
		oidctest.DiscoveryPath: oidctest.Status(http.StatusBadGateway, "down"),
		oidctest.KeysPath:      oidctest.Status(http.StatusBadGateway, "down"),
	}
	s.Set(oidctest.Knobs{Endpoints: down})
	for range 3 {
		address, err := p.AuthURL(t.Context(), newRequest())
		wantRefused(t, address, err)
	}
	if n := s.Requests(oidctest.DiscoveryPath); n != 1 {
		t.Errorf("%d requests within the pause, want 1", n)
	}
	s.Set(oidctest.Knobs{})
	c.Add(6 * time.Second)
	if _, err := login(t, p); err != nil {
		t.Fatal(err)
	}
	s.Set(oidctest.Knobs{Endpoints: down})
	c.Add(48 * time.Hour)
	if _, err := login(t, p); err != nil {
		t.Errorf("in an outage: %v", err)
	}
	if n := s.Requests(oidctest.DiscoveryPath); n != 3 {
		t.Errorf("%d requests for metadata, want 3", n)
	}
}

func TestSingleFlight(t *testing.T) {
	t.Parallel()
	s := oidctest.New(t, oidctest.Options{})
	p := newProvider(t, config(s))
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if _, err := p.AuthURL(t.Context(), newRequest()); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n := s.Requests(oidctest.DiscoveryPath); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

func TestClientAuthentication(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var styles []string
	for _, methods := range [][]string{nil, {"client_secret_post"}, {"client_secret_basic", "client_secret_post"}} {
		s := oidctest.New(t, oidctest.Options{ClientID: "a:b", ClientSecret: "p%&ß"})
		s.Set(oidctest.Knobs{
			Discovery: func(d map[string]any) { d["token_endpoint_auth_methods_supported"] = methods },
			Endpoints: map[string]http.Handler{},
		})
		cfg := config(s)
		cfg.ClientID, cfg.ClientSecret = "a:b", "p%&ß"
		cfg.HTTPClient = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.URL.Path == oidctest.TokenPath {
				mu.Lock()
				defer mu.Unlock()
				if _, _, ok := r.BasicAuth(); ok {
					styles = append(styles, "basic")
				} else {
					styles = append(styles, "post")
				}
			}
			return http.DefaultTransport.RoundTrip(r)
		})}
		if _, err := login(t, newProvider(t, cfg)); err != nil {
			t.Error(err)
		}
	}
	if want := []string{"basic", "post", "basic"}; !slices.Equal(styles, want) {
		t.Errorf("got %v, want %v", styles, want)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// answer is an endpoint with a JSON document.
func answer(document string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(document))
	})
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	ok := idp.Config{Kind: "oidc0", ClientID: "client", Issuer: "https://id.example.com"}
	for name, test := range map[string]struct {
		change func(*idp.Config)
		want   []string // nil: fine
	}{
		"fine":           {func(*idp.Config) {}, nil},
		"kind":           {func(c *idp.Config) { c.Kind = "myspace" }, []string{`no kind "myspace"`}},
		"all at once":    {func(c *idp.Config) { c.Name, c.ClientID, c.Issuer = "a/b", "", "http://id.example.com" }, []string{"a name is", "ClientID", "https"}},
		"no issuer":      {func(c *idp.Config) { c.Issuer = "" }, []string{"Issuer"}},
		"user in URL":    {func(c *idp.Config) { c.Issuer = "https://a:b@id.example.com" }, []string{"Issuer"}},
		"URLs missing":   {func(c *idp.Config) { c.Issuer, c.AuthURL = "", "https://id.example.com/a" }, []string{"TokenURL", "UserURL"}},
		"URLs, issuer":   {func(c *idp.Config) { c.AuthURL = "https://id.example.com/a" }, []string{"Issuer is for"}},
		"secret missing": {func(c *idp.Config) { c.Kind, c.Issuer = "github", "" }, []string{"ClientSecret"}},
		"apple":          {func(c *idp.Config) { c.Kind, c.Scopes = "apple", []string{"openid", "email"} }, []string{"TeamID", "form"}},
		"openid":         {func(c *idp.Config) { c.Scopes = []string{"email"} }, []string{"openid"}},
		"tenant":         {func(c *idp.Config) { c.Tenant = "common" }, []string{"Tenant"}},
		"tenant name":    {func(c *idp.Config) { c.Kind, c.ClientSecret, c.Issuer, c.Tenant = "microsoft", "s", "", "example.com" }, []string{"UUID"}},
		"template":       {func(c *idp.Config) { c.Issuer = "https://id.example.com/{tenantid}" }, []string{"tenants"}},
	} {
		cfg := ok
		test.change(&cfg)
		_, err := idp.New(cfg)
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
