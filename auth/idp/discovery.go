package idp

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// metadata is what we use of a discovery document (OpenID Connect Discovery
// 1.0, section 3).
type metadata struct {
	Issuer      string   `json:"issuer"`
	AuthURL     string   `json:"authorization_endpoint"`
	TokenURL    string   `json:"token_endpoint"`
	UserURL     string   `json:"userinfo_endpoint"`
	KeysURL     string   `json:"jwks_uri"`
	AuthMethods []string `json:"token_endpoint_auth_methods_supported"`
}

// metadataAge is how long a discovery document is believed.
const metadataAge = 24 * time.Hour

// tenant stands for the tenant in the issuer of a provider that has many, as
// Microsoft writes it.
const tenant = "{tenantid}"

// A discovery fetches the metadata of one issuer.
type discovery struct {
	client    *http.Client
	issuer    string // may have a tenant
	tenants   string // which stands in for it in the document's URL
	allowHTTP bool
}

func (d *discovery) fetch(ctx context.Context) (metadata, error) {
	var m metadata
	base := strings.ReplaceAll(d.issuer, tenant, d.tenants)
	address := strings.TrimSuffix(base, "/") + "/.well-known/openid-configuration"
	if err := getJSON(ctx, d.client, address, nil, &m); err != nil {
		return m, fmt.Errorf("idp: discovering %s: %w", d.issuer, err)
	}
	if m.Issuer != d.issuer {
		return m, fmt.Errorf("idp: discovering %s: %w: the document is that of %.200q", d.issuer, ErrRefused, m.Issuer)
	}
	for _, endpoint := range []struct{ name, url string }{
		{"authorization_endpoint", m.AuthURL}, {"token_endpoint", m.TokenURL},
		{"userinfo_endpoint", m.UserURL}, {"jwks_uri", m.KeysURL},
	} {
		if endpoint.url == "" {
			continue // whoever needs it says so
		}
		if err := checkURL(endpoint.url, d.allowHTTP); err != nil {
			return m, fmt.Errorf("idp: discovering %s: %w: %s is %w", d.issuer, ErrRefused, endpoint.name, err)
		}
	}
	if name := reserved(m.AuthURL); name != "" {
		return m, fmt.Errorf("idp: discovering %s: %w: authorization_endpoint has the parameter %s", d.issuer, ErrRefused, name)
	}
	return m, nil
}

// reserved returns a parameter of a URL that is ours to set, if it has one.
// With it a provider could send people to another one, in our name.
func reserved(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	query := u.Query()
	for _, name := range []string{
		"client_id", "redirect_uri", "response_type", "response_mode", "scope", "state", "nonce", "code_challenge", "code_challenge_method",
		"request", "request_uri",
	} {
		if query.Has(name) {
			return name
		}
	}
	return ""
}
