package idp_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/auth/idp"
	"github.com/bedplate/bedplate/internal/oidctest"
)

// TestOAuthKinds has the answers of providers in the shapes that they document.
func TestOAuthKinds(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		kind, name    string
		number        int
		token         string // answer of the token endpoint; default JSON
		authorization string
		documents     map[string]string // by path
		want          auth.Identity
		refused       bool
	}{
		"discord": {
			kind: "discord", number: 10,
			documents: map[string]string{"/user": `{"id":"80351110224678912","username":"nelly","discriminator":"0","global_name":"Nelly",
				"avatar":"8342729096ea3675442027381ff50dfe","verified":true,"email":"nelly@example.com","flags":64}`},
			want: auth.Identity{Subject: "80351110224678912", Email: "nelly@example.com", EmailVerified: true, Username: "nelly",
				AvatarURL: "https://cdn.discordapp.com/avatars/80351110224678912/8342729096ea3675442027381ff50dfe.png"},
		},
		"discord, unverified, without avatar": {
			kind: "discord", number: 10,
			documents: map[string]string{"/user": `{"id":"8","username":"nelly","avatar":null,"verified":false,"email":"nelly@example.com"}`},
			want:      auth.Identity{Subject: "8", Email: "nelly@example.com", Username: "nelly"},
		},
		"discord, avatar that leads elsewhere": {
			kind: "discord", number: 10,
			documents: map[string]string{"/user": `{"id":"8","avatar":"../../a?b"}`},
			want:      auth.Identity{Subject: "8"},
		},
		"facebook": {
			kind: "facebook", number: 13,
			documents: map[string]string{"/user": `{"id":"10158","email":"ada\u0040example.com",
				"picture":{"data":{"height":200,"is_silhouette":false,"url":"https://scontent.example.com/p?a=b","width":200}}}`},
			want: auth.Identity{Subject: "10158", Email: "ada@example.com", AvatarURL: "https://scontent.example.com/p?a=b"},
		},
		"yandex": {
			kind: "yandex", number: 16, authorization: "OAuth token",
			documents: map[string]string{"/user": `{"id":"1000034426","login":"ivan","client_id":"4760","default_email":"test@example.com",
				"emails":["test@example.com"],"default_avatar_id":"131652443/a-1","is_avatar_empty":false,"psuid":"1.AA"}`},
			want: auth.Identity{Subject: "1000034426", Email: "test@example.com", Username: "ivan",
				AvatarURL: "https://avatars.yandex.net/get-yapic/131652443/a-1/islands-200"},
		},
		"github": {
			kind: "github", number: 17, token: "access_token=token&scope=user%3Aemail&token_type=bearer",
			documents: map[string]string{
				"/user": `{"login":"octocat","id":9007199254740993,"avatar_url":"https://github.com/images/o.gif","email":"public@example.com"}`,
				"/user/emails": `[{"email":"other@example.com","primary":false,"verified":true,"visibility":null},
					{"email":"octocat@example.com","primary":true,"verified":true,"visibility":"private"}]`,
			},
			want: auth.Identity{Subject: "9007199254740993", Email: "octocat@example.com", EmailVerified: true, Username: "octocat",
				AvatarURL: "https://github.com/images/o.gif"},
		},
		"github, unverified": {
			kind: "github", number: 17,
			documents: map[string]string{
				"/user":        `{"login":"octocat","id":1,"verified":true}`,
				"/user/emails": `[{"email":"a@example.com","primary":true,"verified":false},{"email":"b@example.com","primary":false,"verified":true}]`,
			},
			want: auth.Identity{Subject: "1", Email: "a@example.com", Username: "octocat"},
		},
		"github, addresses hidden": {
			kind: "github", number: 17, documents: map[string]string{"/user": `{"login":"octocat","id":1}`}, refused: true,
		},
		"plain oidc0, verified unless it says otherwise": {
			kind: "oidc0", name: "My OIDC", number: 2,
			documents: map[string]string{"/user": `{"sub":"johndoe","email":"john@example.com"}`},
			want:      auth.Identity{Subject: "johndoe", Email: "john@example.com", EmailVerified: true},
		},
		"plain oidc0, unverified": {
			kind: "oidc0", number: 2,
			documents: map[string]string{"/user": `{"sub":"johndoe","email":"john@example.com","email_verified":"false","preferred_username":"john","picture":"javascript:alert(1)"}`},
			want:      auth.Identity{Subject: "johndoe", Email: "john@example.com", Username: "john"},
		},
		"no id":         {kind: "oidc0", number: 2, documents: map[string]string{"/user": `{"email":"john@example.com"}`}, refused: true},
		"not an object": {kind: "oidc0", number: 2, documents: map[string]string{"/user": `["johndoe"]`}, refused: true},
		"id is a float": {kind: "github", number: 17, documents: map[string]string{"/user": `{"id":1.5}`, "/user/emails": `[]`}, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if test.authorization == "" {
				test.authorization = "Bearer token"
			}
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/token" {
					if err := r.ParseForm(); err != nil || r.Form.Get("code") != "code" || len(r.Form.Get("code_verifier")) < 43 {
						t.Errorf("form %v, error %v", r.Form, err)
					}
					if test.token != "" {
						w.Header().Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
						_, _ = w.Write([]byte(test.token))
						return
					}
					answer(`{"access_token":"token","token_type":"bearer","expires_in":3600}`).ServeHTTP(w, r)
					return
				}
				document, ok := test.documents[r.URL.Path]
				if !ok {
					http.NotFound(w, r)
					return
				}
				if got := r.Header.Get("Authorization"); got != test.authorization {
					t.Errorf("authorization %q, want %q", got, test.authorization)
				}
				answer(document).ServeHTTP(w, r)
			}))
			t.Cleanup(s.Close)
			p := newProvider(t, idp.Config{
				Kind: test.kind, DisplayName: test.name, ClientID: "client", ClientSecret: "secret",
				AuthURL: s.URL + "/authorize", TokenURL: s.URL + "/token", UserURL: s.URL + "/user", AllowPrivateAddresses: true,
			})
			if d := p.Provider(); d.Number != test.number || d.Name != test.kind || d.Display == "" || d.Issuer == "" {
				t.Errorf("provider %+v", d)
			}
			req := newRequest()
			address, err := p.AuthURL(t.Context(), req)
			if err != nil || !strings.Contains(address, "code_challenge_method=S256") {
				t.Errorf("%s, error %v", address, err)
			}
			got, err := p.Exchange(t.Context(), "code", req)
			if test.refused {
				wantRefused(t, got, err)
			} else if err != nil || got != test.want {
				t.Errorf("got %+v, error %v; want %+v", got, err, test.want)
			}
		})
	}
}

func TestOpenIDKinds(t *testing.T) {
	t.Parallel()
	for kind, number := range map[string]int{"gitlab": 11, "google": 12, "twitch": 15} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := oidctest.New(t, oidctest.Options{Alg: "RS256"})
			cfg := config(s)
			cfg.Kind = kind
			p := newProvider(t, cfg)
			if d := p.Provider(); d.Number != number || d.Issuer != s.Issuer {
				t.Errorf("provider %+v", d)
			}
			got, err := login(t, p)
			if want := (auth.Identity{Subject: "user", Email: "user@example.com", EmailVerified: true, Username: "user"}); err != nil || got != want {
				t.Errorf("got %+v, error %v; want %+v", got, err, want)
			}
		})
	}
	t.Run("algorithms are pinned", func(t *testing.T) {
		t.Parallel()
		cfg := config(oidctest.New(t, oidctest.Options{Alg: "ES256"}))
		cfg.Kind = "google"
		got, err := login(t, newProvider(t, cfg))
		wantRefused(t, got, err)
	})
}

func TestUsualIssuers(t *testing.T) {
	t.Parallel()
	const guid = "72f988bf-86f1-41af-91ab-2d7cd011db47"
	for _, test := range []struct{ kind, tenant, want string }{
		{"gitlab", "", "https://gitlab.com"},
		{"google", "", "https://accounts.google.com"},
		{"twitch", "", "https://id.twitch.tv/oauth2"},
		{"github", "", "https://github.com"},
		{"discord", "", "https://discord.com"},
		{"facebook", "", "https://www.facebook.com"},
		{"yandex", "", "https://yandex.com"},
		{"microsoft", "", "https://login.microsoftonline.com/{tenantid}/v2.0"},
		{"microsoft", "consumers", "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0"},
		{"microsoft", guid, "https://login.microsoftonline.com/" + guid + "/v2.0"},
	} {
		p := newProvider(t, idp.Config{Kind: test.kind, ClientID: "client", ClientSecret: "secret", Tenant: test.tenant})
		if got := p.Provider(); got.Issuer != test.want || got.Name != test.kind {
			t.Errorf("got %+v, want the issuer %s", got, test.want)
		}
	}
}

func TestApple(t *testing.T) {
	t.Parallel()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	c := newClock()
	var s *oidctest.Server
	s = oidctest.New(t, oidctest.Options{
		Alg: "RS256", Now: c.Now, ClientID: "com.example.app", ClientSecret: "-",
		User: &oidctest.User{Subject: "001.ab", Email: "ada@privaterelay.example.com", EmailVerified: "true"},
		Authenticate: func(id, secret string) bool {
			jws, err := jose.ParseSignedCompact(secret, []jose.SignatureAlgorithm{jose.ES256})
			if err != nil || jws.Signatures[0].Protected.KeyID != "KEY1234567" {
				t.Errorf("client secret %q: %v", secret, err)
				return false
			}
			payload, err := jws.Verify(private.Public())
			if err != nil {
				t.Error(err)
			}
			var claims struct {
				Iss, Sub, Aud string
				Iat, Exp      int64
			}
			if err := json.Unmarshal(payload, &claims); err != nil {
				t.Error(err)
			}
			now := c.Now().Unix()
			return id == "com.example.app" && claims.Iss == "TEAM123456" && claims.Sub == id && claims.Aud == s.Issuer &&
				claims.Iat == now && claims.Exp == now+300
		},
	})
	cfg := config(s)
	cfg.Kind, cfg.ClientID, cfg.ClientSecret, cfg.Now = "apple", "com.example.app", "", c.Now
	cfg.Apple = idp.AppleKey{
		TeamID: "TEAM123456", KeyID: "KEY1234567",
		PrivateKey: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
	}
	p := newProvider(t, cfg)
	address, err := p.AuthURL(t.Context(), newRequest())
	if err != nil {
		t.Fatal(err)
	}
	u, _ := url.Parse(address)
	if q := u.Query(); q.Get("response_mode") != "query" || q.Get("scope") != "openid" {
		t.Errorf("query %v", q)
	}
	for _, test := range []struct {
		claim any
		want  bool
	}{{"true", true}, {true, true}, {"false", false}, {false, false}, {"1", false}, {nil, false}} {
		s.SetUser(oidctest.User{Subject: "001.ab", Email: "ada@privaterelay.example.com", EmailVerified: test.claim})
		got, err := login(t, p)
		if err != nil || got.Subject != "001.ab" || got.EmailVerified != test.want {
			t.Errorf("%#v: got %+v, error %v; want %t", test.claim, got, err, test.want)
		}
	}
	cfg.Apple.PrivateKey = []byte("not a key")
	if _, err := idp.New(cfg); err == nil || strings.Contains(err.Error(), "not a key") {
		t.Errorf("error %v", err)
	}
}

func TestMicrosoft(t *testing.T) {
	t.Parallel()
	const (
		ours      = "72f988bf-86f1-41af-91ab-2d7cd011db47"
		theirs    = "11111111-2222-3333-4444-555555555555"
		consumers = "9188040d-6c67-4c5b-b112-36a304b66dad"
	)
	for name, test := range map[string]struct {
		tenant     string // of the configuration
		iss, tid   string
		edov       any
		subject    string // "": refused
		isVerified bool
	}{
		"any tenant":            {"", ours, ours, nil, ours + "/user", false},
		"another tenant":        {"common", theirs, theirs, true, theirs + "/user", true},
		"verified domain":       {"", ours, ours, "1", ours + "/user", true},
		"not verified":          {"", ours, ours, "0", ours + "/user", false},
		"tid is not the issuer": {"", theirs, ours, nil, "", false},
		"no tid":                {"", ours, "", nil, "", false},
		"tid is no tenant":      {"", "{tenantid}", "{tenantid}", nil, "", false},
		"tid with a path":       {"", "a/../" + ours, "a/../" + ours, nil, "", false},
		"not a personal one":    {"organizations", consumers, consumers, nil, "", false},
		"a personal one":        {"common", consumers, consumers, nil, consumers + "/user", false},
		"the only tenant":       {ours, ours, ours, nil, "user", false},
		"not the only tenant":   {ours, theirs, theirs, nil, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tenants, document := test.tenant, "{tenantid}"
			if tenants == "" {
				tenants = "common"
			}
			if tenants == ours {
				document = ours
			}
			s := oidctest.New(t, oidctest.Options{Alg: "RS256", Path: "/" + tenants + "/v2.0", User: &oidctest.User{Subject: "user", Email: "ada@example.com", EmailVerified: true}})
			base := strings.TrimSuffix(s.Issuer, "/"+tenants+"/v2.0")
			s.Set(oidctest.Knobs{
				Discovery: func(d map[string]any) { d["issuer"] = base + "/" + document + "/v2.0" },
				Claims: func(c map[string]any) {
					c["iss"], c["tid"] = base+"/"+test.iss+"/v2.0", test.tid
					if test.edov != nil {
						c["xms_edov"] = test.edov
					}
				},
			})
			cfg := config(s)
			cfg.Kind, cfg.Tenant, cfg.Issuer = "microsoft", test.tenant, base+"/{tenantid}/v2.0"
			got, err := login(t, newProvider(t, cfg))
			if test.subject == "" {
				wantRefused(t, got, err)
			} else if err != nil || got.Subject != test.subject || got.EmailVerified != test.isVerified {
				t.Errorf("got %+v, error %v", got, err)
			}
		})
	}
}

// TestCodes wants codes to be refused before they are sent anywhere.
func TestCodes(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := oidctest.New(t, oidctest.Options{Now: c.Now})
	cfg := config(s)
	cfg.Now = c.Now
	p := newProvider(t, cfg)
	for _, code := range []string{"", strings.Repeat("a", 10_000)} {
		id, err := p.Exchange(t.Context(), code, newRequest())
		wantRefused(t, id, err)
	}
	if n := s.Requests(""); n != 0 {
		t.Errorf("%d requests", n)
	}
	req := newRequest()
	code := authorize(t, p, req)
	if _, err := p.Exchange(t.Context(), code, req); err != nil {
		t.Fatal(err)
	}
	id, err := p.Exchange(t.Context(), code, req) // twice
	wantRefused(t, id, err)
	code = authorize(t, p, req)
	c.Add(2 * time.Minute)
	id, err = p.Exchange(t.Context(), code, req) // late
	wantRefused(t, id, err)
}
