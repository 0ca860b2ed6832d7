package auth

import "context"

// An IdentityProvider signs people in with an account that they have
// elsewhere. The package auth/idp has them for OpenID Connect and for the
// usual OAuth 2.0 providers. Its methods are safe for concurrent use.
type IdentityProvider interface {
	// Provider describes the provider; always the same.
	Provider() Provider

	// AuthURL returns where to send the browser.
	AuthURL(ctx context.Context, req AuthRequest) (string, error)

	// Exchange turns the code of the callback into the identity that the
	// provider vouches for.
	Exchange(ctx context.Context, code string, req AuthRequest) (Identity, error)
}

// A Provider is the description of an [IdentityProvider].
type Provider struct {
	Name    string // in paths: letters, digits, '-' and '_'
	Display string // for people
	Number  int    // in _user.provider_id and in tokens; see the contract's list
	Issuer  string // what makes Identity.Subject unique: the issuer of OpenID Connect, or a URL of the provider's
}

// An AuthRequest is one visit to a provider, the same for AuthURL and Exchange.
type AuthRequest struct {
	State       string
	Nonce       string // for ID tokens
	Verifier    string // of PKCE (RFC 7636)
	RedirectURL string // our callback
}

// An Identity is an account at a provider.
type Identity struct {
	Subject       string // the provider's stable id of the account
	Email         string // may be empty
	EmailVerified bool   // the provider says that the address is the account's
	Username      string // a wish, may be empty
	AvatarURL     string // may be empty
}

// An Issuer verifies bearer tokens (JWTs) that somebody else has issued. The
// package auth/idp has one that takes the keys from a JWKS. Its methods are
// safe for concurrent use.
type Issuer interface {
	// Name returns the issuer's identifier, the claim "iss" of its tokens.
	Name() string

	// Verify checks everything about the token, including its issuer,
	// audience and times, and returns whom it names. Any failure is one
	// error; it must not tell the caller more.
	Verify(ctx context.Context, token string) (ExternalToken, error)
}

// An ExternalToken is a verified token of an [Issuer].
type ExternalToken struct {
	Identity
	Expires int64          // unix seconds
	Claims  map[string]any // as they were
}
