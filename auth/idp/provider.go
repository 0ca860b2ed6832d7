package idp

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/bedplate/bedplate/auth"
)

// Config configures a [Provider].
type Config struct {
	// Kind is one of the package's kinds of providers.
	Kind string

	// Name is in paths; default Kind. DisplayName is for people; default that
	// of the kind.
	Name        string
	DisplayName string

	// ClientID and ClientSecret are what the provider has given to the
	// application. An oidc0 without ClientSecret is a public client; apple
	// has Apple instead.
	ClientID     string
	ClientSecret string

	// Issuer is that of oidc0, exactly as in its discovery document. For other
	// kinds of OpenID Connect it replaces the usual one, as for an own GitLab.
	Issuer string

	// AuthURL, TokenURL and UserURL make an oidc0 without discovery: the user
	// is what the last one says, and an address is a verified one unless it
	// says something else. For kinds that speak OAuth 2.0 only, they replace
	// the usual ones.
	AuthURL  string
	TokenURL string
	UserURL  string

	// Scopes replace those of the kind.
	Scopes []string

	// Tenant is for microsoft: the id (a UUID) of the only tenant whose users
	// may sign in, or "organizations", "consumers" or "common", the default,
	// which means both. Where there are many tenants, a subject is
	// "tenant/sub".
	Tenant string

	// Apple signs the secrets of apple.
	Apple AppleKey

	// TrustEmail takes addresses as verified when the provider does not say
	// whether they are. It is not believed against a provider that does.
	TrustEmail bool

	// HTTPClient has a transport to use instead of the package's, which then
	// checks no addresses, and may have a Timeout of less than 10 s.
	HTTPClient *http.Client

	// AllowPrivateAddresses is for providers in the own network and for tests:
	// any address, and http as well as https.
	AllowPrivateAddresses bool

	// Now is the clock; default time.Now.
	Now func() time.Time
}

// A Provider signs people in with one provider. It implements
// [auth.IdentityProvider]; its methods are safe for concurrent use.
type Provider struct {
	cfg      Config
	kind     kind
	issuer   string
	client   *http.Client
	apple    *appleSigner      // nil for others
	static   metadata          // of a provider without discovery
	meta     *cached[metadata] // nil without discovery
	verifier *verifier         // of ID tokens; nil without discovery
}

// discoveryRetry is how long after a failure discovery is tried again.
const discoveryRetry = 5 * time.Second

// clockLeeway is by how much the clocks of others may be wrong.
const clockLeeway = time.Minute

// maxIDToken is large enough for the groups of most, in bytes.
const maxIDToken = 64 << 10

// New returns a provider. It requests nothing. The error tells all that is
// wrong with the configuration.
func New(cfg Config) (*Provider, error) {
	k, ok := kinds[cfg.Kind]
	if !ok {
		return nil, fmt.Errorf("idp: there is no kind %q of providers", cfg.Kind)
	}
	if cfg.Name == "" {
		cfg.Name = cfg.Kind
	}
	if cfg.DisplayName == "" {
		cfg.DisplayName = k.display
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if len(cfg.Scopes) == 0 {
		cfg.Scopes = k.scopes
	}
	cfg.Scopes = slices.Clone(cfg.Scopes)

	p := &Provider{cfg: cfg, kind: k, client: newClient(cfg.HTTPClient, cfg.AllowPrivateAddresses)}
	errs := p.check()
	if k.minted {
		var err error
		if p.apple, err = newAppleSigner(cfg.Apple); err != nil {
			errs = append(errs, err)
		}
	}
	var err error
	if k.site != "" || p.plain() {
		err = p.withoutDiscovery()
	} else {
		err = p.withDiscovery()
	}
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, fmt.Errorf("idp: provider %q: %w", cfg.Name, err)
	}
	return p, nil
}

var providerName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func (p *Provider) check() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	cfg := &p.cfg
	if !providerName.MatchString(cfg.Name) {
		bad("a name is letters, digits, '-' and '_'")
	}
	if cfg.ClientID == "" || strings.TrimSpace(cfg.ClientID) != cfg.ClientID {
		bad("ClientID is missing, or has spaces around it")
	}
	if strings.TrimSpace(cfg.ClientSecret) != cfg.ClientSecret {
		bad("ClientSecret has spaces around it")
	}
	if needed := cfg.Kind != generic && !p.kind.minted; needed && cfg.ClientSecret == "" {
		bad("ClientSecret is missing")
	}
	if p.kind.minted && cfg.ClientSecret != "" {
		bad("ClientSecret is made from Apple")
	}
	if !p.kind.minted && cfg.Apple.given() {
		bad("Apple is for apple")
	}
	if p.kind.minted && (slices.Contains(cfg.Scopes, "email") || slices.Contains(cfg.Scopes, "name")) {
		bad("with the scopes email and name Apple answers with a form, which is not supported")
	}
	if p.kind.site == "" && !p.plain() && !slices.Contains(cfg.Scopes, "openid") {
		bad("the scope openid is needed for ID tokens")
	}
	if cfg.Tenant != "" && cfg.Kind != "microsoft" {
		bad("Tenant is for microsoft")
	}
	return errs
}

// plain reports whether p is an oidc0 without discovery.
func (p *Provider) plain() bool {
	return p.cfg.Kind == generic && (p.cfg.AuthURL != "" || p.cfg.TokenURL != "" || p.cfg.UserURL != "")
}

func (p *Provider) withoutDiscovery() error {
	cfg, k := &p.cfg, &p.kind
	var errs []error
	if cfg.Issuer != "" {
		errs = append(errs, errors.New("Issuer is for providers with discovery"))
	}
	p.static = metadata{AuthURL: k.authURL, TokenURL: k.tokenURL, UserURL: k.userURL}
	for _, u := range []struct {
		name, given string
		used        *string
	}{
		{"AuthURL", cfg.AuthURL, &p.static.AuthURL},
		{"TokenURL", cfg.TokenURL, &p.static.TokenURL},
		{"UserURL", cfg.UserURL, &p.static.UserURL},
	} {
		if u.given != "" {
			*u.used = u.given
		}
		if err := checkURL(*u.used, cfg.AllowPrivateAddresses); err != nil {
			errs = append(errs, fmt.Errorf("%s is %w", u.name, err))
		}
	}
	if p.issuer = k.site; p.issuer == "" {
		p.issuer = p.static.UserURL
	}
	return errors.Join(errs...)
}

func (p *Provider) withDiscovery() error {
	cfg, k := &p.cfg, &p.kind
	var errs []error
	if cfg.AuthURL != "" || cfg.TokenURL != "" || cfg.UserURL != "" {
		errs = append(errs, errors.New("AuthURL, TokenURL and UserURL come from discovery"))
	}
	if p.issuer = k.issuer; cfg.Issuer != "" {
		p.issuer = cfg.Issuer
	}
	tenants := cfg.Tenant
	switch {
	case tenants == "":
		tenants = "common"
	case tenants == "consumers":
		p.issuer = strings.ReplaceAll(p.issuer, tenant, consumers)
	case tenantID.MatchString(tenants):
		p.issuer = strings.ReplaceAll(p.issuer, tenant, tenants)
	case tenants != "common" && tenants != "organizations":
		errs = append(errs, errors.New("the tenant is no UUID in small letters, nor common, organizations or consumers"))
	}
	if cfg.Kind != "microsoft" && strings.Contains(p.issuer, tenant) {
		errs = append(errs, errors.New("only microsoft has an Issuer with tenants"))
	}
	if err := checkURL(p.issuer, cfg.AllowPrivateAddresses); err != nil {
		errs = append(errs, fmt.Errorf("Issuer is %w", err))
	}
	d := &discovery{client: p.client, issuer: p.issuer, tenants: tenants, allowHTTP: cfg.AllowPrivateAddresses}
	p.meta = newCached(cfg.Now, metadataAge, discoveryRetry, discoveryRetry, d.fetch)
	p.verifier = &verifier{
		issuer: p.issuer, tenants: tenants, audience: []string{cfg.ClientID}, algorithms: k.algorithms,
		types: []string{"jwt"}, maxSize: maxIDToken, leeway: clockLeeway, now: cfg.Now,
		keys: newRemoteKeys(p.client, cfg.Now, discoveryRetry, func(ctx context.Context) (string, error) {
			m, err := p.endpoints(ctx)
			if err == nil && m.KeysURL == "" {
				err = fmt.Errorf("%w: no jwks_uri in the discovery document", ErrRefused)
			}
			return m.KeysURL, err
		}),
	}
	return errors.Join(errs...)
}

// Provider implements [auth.IdentityProvider].
func (p *Provider) Provider() auth.Provider {
	return auth.Provider{Name: p.cfg.Name, Display: p.cfg.DisplayName, Number: p.kind.number, Issuer: p.issuer}
}

// endpoints returns the provider's URLs.
func (p *Provider) endpoints(ctx context.Context) (metadata, error) {
	if p.meta == nil {
		return p.static, nil
	}
	m, err := p.meta.get(ctx)
	if err != nil {
		return metadata{}, err
	}
	return m.value, nil
}

// AuthURL implements [auth.IdentityProvider].
func (p *Provider) AuthURL(ctx context.Context, req auth.AuthRequest) (string, error) {
	if err := p.checkRequest(req); err != nil {
		return "", err
	}
	m, err := p.endpoints(ctx)
	if err != nil {
		return "", err
	}
	if m.AuthURL == "" {
		return "", fmt.Errorf("idp: provider %q: %w: no authorization_endpoint", p.cfg.Name, ErrRefused)
	}
	options := []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(req.Verifier)}
	if p.verifier != nil {
		options = append(options, oauth2.SetAuthURLParam("nonce", req.Nonce))
	}
	for name, value := range p.kind.parameters {
		options = append(options, oauth2.SetAuthURLParam(name, value))
	}
	return p.oauth(m, req, "").AuthCodeURL(req.State, options...), nil
}

var pkceVerifier = regexp.MustCompile(`^[A-Za-z0-9._~-]{43,128}$`) // RFC 7636, section 4.1

// checkRequest refuses requests that would not be safe.
func (p *Provider) checkRequest(req auth.AuthRequest) error {
	u, err := url.Parse(req.RedirectURL)
	switch {
	case req.State == "":
		err = errors.New("no state")
	case !pkceVerifier.MatchString(req.Verifier):
		err = errors.New("no PKCE verifier of 43 to 128 characters")
	case p.verifier != nil && req.Nonce == "":
		err = errors.New("no nonce")
	case err != nil || u.Scheme == "" || u.Host == "":
		err = errors.New("no absolute redirect URL")
	}
	if err != nil {
		return fmt.Errorf("idp: provider %q: request: %w", p.cfg.Name, err)
	}
	return nil
}

func (p *Provider) oauth(m metadata, req auth.AuthRequest, secret string) *oauth2.Config {
	style := oauth2.AuthStyleInHeader
	if p.kind.inParams || secret == "" ||
		len(m.AuthMethods) > 0 && !slices.Contains(m.AuthMethods, "client_secret_basic") && slices.Contains(m.AuthMethods, "client_secret_post") {
		style = oauth2.AuthStyleInParams
	}
	return &oauth2.Config{
		ClientID: p.cfg.ClientID, ClientSecret: secret, RedirectURL: req.RedirectURL, Scopes: p.cfg.Scopes,
		Endpoint: oauth2.Endpoint{AuthURL: m.AuthURL, TokenURL: m.TokenURL, AuthStyle: style},
	}
}

// Exchange implements [auth.IdentityProvider].
func (p *Provider) Exchange(ctx context.Context, code string, req auth.AuthRequest) (auth.Identity, error) {
	if err := p.checkRequest(req); err != nil {
		return auth.Identity{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	id, err := p.exchange(ctx, code, req)
	if err != nil {
		return auth.Identity{}, fmt.Errorf("idp: provider %q: %w", p.cfg.Name, err)
	}
	return id, nil
}

// maxCode is far more than any provider's codes have, in bytes.
const maxCode = 8 << 10

func (p *Provider) exchange(ctx context.Context, code string, req auth.AuthRequest) (auth.Identity, error) {
	if code == "" || len(code) > maxCode {
		return auth.Identity{}, fmt.Errorf("%w: no code, or not one", ErrRefused)
	}
	m, err := p.endpoints(ctx)
	if err != nil {
		return auth.Identity{}, err
	}
	token, err := p.redeem(ctx, m, code, req)
	if err != nil {
		return auth.Identity{}, err
	}
	if p.verifier == nil {
		user, err := p.userInfo(ctx, m, token.AccessToken)
		if err != nil {
			return auth.Identity{}, err
		}
		return p.identity(user)
	}
	claims, err := p.idToken(ctx, token, req.Nonce)
	if err != nil {
		return auth.Identity{}, err
	}
	if err := p.complete(ctx, m, token.AccessToken, claims); err != nil {
		return auth.Identity{}, err
	}
	id, err := p.identity(claims)
	if err == nil && strings.Contains(p.issuer, tenant) {
		id.Subject = claims["tid"].(string) + "/" + id.Subject // checked with the issuer
	}
	return id, err
}

// redeem asks the token endpoint.
func (p *Provider) redeem(ctx context.Context, m metadata, code string, req auth.AuthRequest) (*oauth2.Token, error) {
	if m.TokenURL == "" {
		return nil, fmt.Errorf("%w: no token_endpoint", ErrRefused)
	}
	secret := p.cfg.ClientSecret
	if p.apple != nil {
		var err error
		if secret, err = p.apple.secret(p.cfg.ClientID, p.issuer, p.cfg.Now()); err != nil {
			return nil, err
		}
	}
	ctx = context.WithValue(ctx, oauth2.HTTPClient, p.client)
	token, err := p.oauth(m, req, secret).Exchange(ctx, code, oauth2.VerifierOption(req.Verifier))
	var retrieve *oauth2.RetrieveError
	var transport *url.Error
	switch {
	case err == nil:
		return token, nil
	case errors.As(err, &retrieve):
		// The body may repeat what we sent.
		return nil, fmt.Errorf("%w: status %d from the token endpoint, error %q", ErrRefused,
			retrieve.Response.StatusCode, errorCode.FindString(retrieve.ErrorCode))
	case errors.As(err, &transport):
		return nil, err
	case ctx.Err() != nil:
		return nil, fmt.Errorf("token endpoint: %w", ctx.Err())
	default:
		return nil, fmt.Errorf("%w: not an answer of a token endpoint", ErrRefused)
	}
}

var errorCode = regexp.MustCompile(`^[a-z0-9_.-]{1,64}$`)

// idToken returns the claims of the ID token of an answer.
func (p *Provider) idToken(ctx context.Context, token *oauth2.Token, nonce string) (map[string]any, error) {
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return nil, fmt.Errorf("%w: no ID token", ErrRefused)
	}
	claims, err := p.verifier.verify(ctx, raw)
	if err != nil {
		return nil, err
	}
	got, _ := claims["nonce"].(string)
	if subtle.ConstantTimeCompare([]byte(got), []byte(nonce)) != 1 {
		return nil, fmt.Errorf("%w: an ID token with another nonce, or none", ErrRefused)
	}
	if _, ok := claims["iat"]; !ok {
		return nil, fmt.Errorf("%w: an ID token without iat", ErrRefused)
	}
	audience, _ := stringList(claims["aud"])
	if azp, there := claims["azp"]; (there || len(audience) > 1) && azp != p.cfg.ClientID {
		return nil, fmt.Errorf("%w: an ID token for somebody else (azp)", ErrRefused)
	}
	return claims, nil
}

// complete asks for the user if the ID token does not tell the address. An
// address and whether it is verified come from the same place.
func (p *Provider) complete(ctx context.Context, m metadata, access string, claims map[string]any) error {
	f := p.kind.fields
	if _, ok := claims[f.email]; ok || m.UserURL == "" || !slices.Contains(p.cfg.Scopes, "email") {
		return nil
	}
	user, err := p.userInfo(ctx, m, access)
	if err != nil {
		return err
	}
	if user[f.id] != claims[f.id] {
		return fmt.Errorf("%w: the user information is that of somebody else", ErrRefused)
	}
	for _, name := range []string{f.email, f.verified} {
		delete(claims, name)
		if value, ok := user[name]; ok {
			claims[name] = value
		}
	}
	for _, name := range []string{f.username, f.avatar} {
		if _, ok := claims[name]; !ok {
			claims[name] = user[name]
		}
	}
	return nil
}
