package idp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bedplate/bedplate/auth"
)

// IssuerConfig configures an [Issuer].
type IssuerConfig struct {
	// Issuer is the claim "iss" of the tokens, exactly.
	Issuer string

	// Audience is whom tokens must be for: one of these in the claim "aud".
	// It is needed, for tokens to other services must not work here.
	Audience []string

	// Algorithms are those of signatures; default RS256, ES256 and EdDSA.
	Algorithms []string

	// JWKSURL and JWKSFile are where the keys are; default the URL in the
	// issuer's discovery document. A file is read at construction, and again
	// within seconds when it has changed.
	JWKSURL  string
	JWKSFile string

	// Map turns the claims of a verified token into an identity; default the
	// claims sub, email, email_verified, preferred_username and picture. An
	// error, or an empty Subject, refuses the token. Numbers are float64.
	Map func(claims map[string]any) (auth.Identity, error)

	// ClockLeeway is by how much the clock of the issuer may be wrong; default
	// 1 min, at most 5 min.
	ClockLeeway time.Duration

	// HTTPClient, AllowPrivateAddresses and Now are as in [Config].
	HTTPClient            *http.Client
	AllowPrivateAddresses bool
	Now                   func() time.Time
}

// An Issuer verifies bearer tokens of one issuer. It implements
// [auth.Issuer]; its methods are safe for concurrent use.
//
// Its keys are fetched at most once a minute, whatever tokens say. They are
// fetched again after an hour, and when a token names one that is not known.
type Issuer struct {
	cfg      IssuerConfig
	verifier *verifier
}

// maxBearer is the size of the largest token, in bytes: headers of requests
// are not much larger.
const maxBearer = 16 << 10

// asymmetric are all algorithms that there may be. It is never changed.
var asymmetric = []string{
	"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
}

// NewIssuer returns an issuer. It requests nothing. The error tells all that
// is wrong with the configuration.
func NewIssuer(cfg IssuerConfig) (*Issuer, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.ClockLeeway == 0 {
		cfg.ClockLeeway = clockLeeway
	}
	if len(cfg.Algorithms) == 0 {
		cfg.Algorithms = []string{"RS256", "ES256", "EdDSA"}
	}
	if cfg.Map == nil {
		cfg.Map = standardClaims
	}
	cfg.Audience, cfg.Algorithms = slices.Clone(cfg.Audience), slices.Clone(cfg.Algorithms)

	errs := cfg.check()
	keys, err := cfg.keys()
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, fmt.Errorf("idp: issuer %q: %w", cfg.Issuer, err)
	}
	return &Issuer{cfg, &verifier{
		issuer: cfg.Issuer, audience: cfg.Audience, algorithms: cfg.Algorithms, types: []string{"jwt", "at+jwt"},
		maxSize: maxBearer, leeway: cfg.ClockLeeway, keys: keys, now: cfg.Now,
	}}, nil
}

func (cfg *IssuerConfig) check() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if cfg.Issuer == "" || strings.Contains(cfg.Issuer, tenant) {
		bad("Issuer is missing, or a template")
	}
	if len(cfg.Audience) == 0 || slices.Contains(cfg.Audience, "") {
		bad("Audience is missing, or has an empty member")
	}
	for _, a := range cfg.Algorithms {
		if !slices.Contains(asymmetric, a) {
			bad("algorithm %q is none of %s", a, strings.Join(asymmetric, ", "))
		}
	}
	if cfg.ClockLeeway < 0 || cfg.ClockLeeway > 5*time.Minute {
		bad("ClockLeeway is not between 0 and 5 min")
	}
	return errs
}

// keys returns where the configured keys come from.
func (cfg *IssuerConfig) keys() (keySource, error) {
	client := newClient(cfg.HTTPClient, cfg.AllowPrivateAddresses)
	switch {
	case cfg.JWKSURL != "" && cfg.JWKSFile != "":
		return nil, errors.New("there is JWKSURL as well as JWKSFile")
	case cfg.JWKSFile != "":
		return newFileKeys(cfg.JWKSFile, cfg.Now)
	case cfg.JWKSURL != "":
		if err := checkURL(cfg.JWKSURL, cfg.AllowPrivateAddresses); err != nil {
			return nil, fmt.Errorf("JWKSURL is %w", err)
		}
		return newRemoteKeys(client, cfg.Now, keysPause, func(context.Context) (string, error) { return cfg.JWKSURL, nil }), nil
	}
	if err := checkURL(cfg.Issuer, cfg.AllowPrivateAddresses); err != nil {
		return nil, fmt.Errorf("without JWKSURL and JWKSFile, Issuer must be a URL and is %w", err)
	}
	d := &discovery{client: client, issuer: cfg.Issuer, allowHTTP: cfg.AllowPrivateAddresses}
	meta := newCached(cfg.Now, metadataAge, keysPause, keysPause, d.fetch)
	return newRemoteKeys(client, cfg.Now, keysPause, func(ctx context.Context) (string, error) {
		m, err := meta.get(ctx)
		if err != nil {
			return "", err
		}
		if m.value.KeysURL == "" {
			return "", fmt.Errorf("%w: no jwks_uri in the discovery document", ErrRefused)
		}
		return m.value.KeysURL, nil
	}), nil
}

// Name implements [auth.Issuer].
func (i *Issuer) Name() string { return i.cfg.Issuer }

// Verify implements [auth.Issuer]. Its errors all have the same text; a
// [log/slog] logger writes the reason.
func (i *Issuer) Verify(ctx context.Context, token string) (auth.ExternalToken, error) {
	claims, err := i.verifier.verify(ctx, token)
	if err != nil {
		return auth.ExternalToken{}, &tokenError{err}
	}
	id, err := i.cfg.Map(maps.Clone(claims))
	if err == nil && id.Subject == "" {
		err = errors.New("mapped to nobody")
	}
	if err != nil {
		return auth.ExternalToken{}, &tokenError{fmt.Errorf("mapping claims: %w", err)}
	}
	return auth.ExternalToken{Identity: id, Expires: int64(claims["exp"].(float64)), Claims: claims}, nil
}

// A tokenError does not say why a token is refused, except to logs.
type tokenError struct{ reason error }

func (e *tokenError) Error() string { return ErrRefused.Error() }

func (e *tokenError) Unwrap() []error { return []error{ErrRefused, e.reason} }

func (e *tokenError) LogValue() slog.Value { return slog.StringValue(e.reason.Error()) }

// standardClaims maps the claims of OpenID Connect.
func standardClaims(claims map[string]any) (auth.Identity, error) {
	verified, _ := claims["email_verified"].(bool)
	id := auth.Identity{
		Subject:   text(claims, "sub"),
		Email:     address(text(claims, "email")),
		Username:  short(text(claims, "preferred_username"), 255),
		AvatarURL: picture(text(claims, "picture")),
	}
	id.EmailVerified = verified && id.Email != ""
	return id, nil
}
