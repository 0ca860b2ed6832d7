package idp_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/auth/idp"
	"github.com/bedplate/bedplate/internal/oidctest"
)

// hostileDocuments are what a provider may answer with instead of an object of
// the expected kind.
var hostileDocuments = map[string]string{
	"nothing": "", "null": "null", "list": "[]", "number": "1", "string": `"x"`, "empty object": "{}", "cut short": `{"a":`,
	"deep": strings.Repeat(`{"a":`, 20_000), "deep list": strings.Repeat("[", 100_000), "HTML": "<html></html>", "NUL": "\x00",
	"wrong types": `{"issuer":1,"authorization_endpoint":[],"token_endpoint":{},"jwks_uri":null,"userinfo_endpoint":true,"keys":{},
		"access_token":1,"id_token":{},"token_type":[],"expires_in":"x","id":{},"sub":[],"email":{},"verified":[]}`,
	"null members": `{"issuer":null,"keys":null,"access_token":null,"id_token":null,"id":null,"sub":null,"email":null}`,
	"null keys":    `{"keys":[null,1,"x",[],{},{"kty":null},{"kty":"RSA"},{"kty":"EC","crv":"P-256","x":"","y":""},{"kty":"OKP","crv":"Ed25519","x":""}]}`,
	"huge key":     `{"keys":[{"kty":"RSA","n":"` + strings.Repeat("_", 100_000) + `","e":"AQAB"}]}`,
	"even key":     `{"keys":[{"kty":"RSA","n":"` + strings.Repeat("A", 342) + `","e":"AA"}]}`,
}

// A provider that answers with anything else than what was asked for signs
// nobody in and breaks nothing.
func TestC12_HostileDocuments(t *testing.T) {
	t.Parallel()
	for name, document := range hostileDocuments {
		hostile := answer(document)
		for _, path := range []string{oidctest.DiscoveryPath, oidctest.TokenPath, oidctest.KeysPath} {
			s := oidctest.New(t, oidctest.Options{})
			s.Set(oidctest.Knobs{Endpoints: map[string]http.Handler{path: hostile}})
			p := newProvider(t, config(s))
			req := newRequest()
			address, err := p.AuthURL(t.Context(), req)
			if err == nil {
				_, err = p.Exchange(t.Context(), visit(t, address, req), req)
			}
			if err == nil {
				t.Errorf("%s at %s: signed in", name, path)
			}
		}
		// Without discovery the user is what the last answer says.
		for _, kind := range []string{"oidc0", "github", "discord", "facebook", "yandex"} {
			for _, path := range []string{"/token", "/user", "/user/emails"} {
				if path == "/user/emails" && kind != "github" {
					continue
				}
				s := oidctest.New(t, oidctest.Options{})
				endpoints := map[string]http.Handler{
					"/token": answer(`{"access_token":"a","token_type":"Bearer"}`), "/user": answer(`{"sub":"1","id":1}`),
					"/user/emails": answer(`[{"email":"a@example.com","primary":true,"verified":true}]`),
				}
				endpoints[path] = hostile
				s.Set(oidctest.Knobs{Endpoints: endpoints})
				p := newProvider(t, idp.Config{
					Kind: kind, ClientID: "client", ClientSecret: "secret", AllowPrivateAddresses: true,
					AuthURL: s.Issuer + "/authorize", TokenURL: s.Issuer + "/token", UserURL: s.Issuer + "/user",
				})
				id, err := p.Exchange(t.Context(), "code", newRequest())
				if err == nil && (path != "/user/emails" || id.Email != "" || id.EmailVerified) {
					t.Errorf("%s, %s at %s: %+v", kind, name, path, id)
				}
			}
		}
	}
}

// Only the primary address counts, and only if it is said to be verified.
func TestC8_PrimaryAddress(t *testing.T) {
	t.Parallel()
	for mails, want := range map[string]string{
		`[{"email":"a@example.com","primary":true,"verified":true}]`:  "a@example.com",
		`[{"email":"a@example.com","primary":false,"verified":true}]`: "",
		`[{"email":"a@example.com","primary":true,"verified":false}]`: "",
		`[{"email":"a@example.com","primary":true}]`:                  "",
		`[{"email":"a@example.com","verified":true}]`:                 "",
		`[]`:   "",
		`null`: "",
		`[{"email":"b@example.com","verified":true},{"email":"a@example.com","primary":true,"verified":false}]`: "",
	} {
		s := oidctest.New(t, oidctest.Options{})
		s.Set(oidctest.Knobs{Endpoints: map[string]http.Handler{
			"/token": answer(`{"access_token":"a","token_type":"Bearer"}`),
			"/user":  answer(`{"id":1,"email":"public@example.com","verified":true}`), "/user/emails": answer(mails),
		}})
		p := newProvider(t, idp.Config{
			Kind: "github", ClientID: "client", ClientSecret: "secret", AllowPrivateAddresses: true,
			AuthURL: s.Issuer + "/authorize", TokenURL: s.Issuer + "/token", UserURL: s.Issuer + "/user",
		})
		id, err := p.Exchange(t.Context(), "code", newRequest())
		got := ""
		if id.EmailVerified {
			got = id.Email
		}
		if err != nil || got != want || id.Email == "public@example.com" {
			t.Errorf("%s: %+v, error %v", mails, id, err)
		}
	}
}

// A provider does not send people to another one with parameters of its own in
// front of ours.
func TestC5_AuthorizationEndpointOfAnother(t *testing.T) {
	t.Parallel()
	for query, refused := range map[string]bool{
		"":                                   false,
		"?tenant=x":                          false,
		"?client_id=other":                   true,
		"?redirect_uri=https://evil.example": true,
		"?a=b&state=x":                       true,
		"?%73tate=x":                         true,
		"?code_challenge_method=plain":       true,
		"?request_uri=https://evil.example":  true,
	} {
		s := oidctest.New(t, oidctest.Options{})
		s.Set(oidctest.Knobs{Discovery: func(d map[string]any) { d["authorization_endpoint"] = "https://other.example/authorize" + query }})
		p, err := idp.New(config(s))
		if err != nil {
			t.Fatal(err)
		}
		address, err := p.AuthURL(t.Context(), newRequest())
		if refused != errors.Is(err, idp.ErrRefused) || !refused && err != nil {
			t.Errorf("%q: %s, error %v", query, address, err)
		}
	}
}
