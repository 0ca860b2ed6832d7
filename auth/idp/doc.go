// Package idp signs people in with accounts that they have elsewhere, by
// OpenID Connect and OAuth 2.0, and verifies bearer tokens that others have
// issued. It implements what package auth calls [auth.IdentityProvider] and
// [auth.Issuer].
//
//	google, err := idp.New(idp.Config{Kind: "google", ClientID: id, ClientSecret: secret})
//	company, err := idp.New(idp.Config{
//		Kind: "oidc0", DisplayName: "Example Inc.", Issuer: "https://id.example.com",
//		ClientID: id, ClientSecret: secret,
//	})
//	tokens, err := idp.NewIssuer(idp.IssuerConfig{Issuer: "https://id.example.com", Audience: []string{"api"}})
//
// The kinds of providers, with their numbers in _user.provider_id:
//
//	oidc0      2   any provider of OpenID Connect, or three URLs without discovery
//	apple      9   without mail address: see [AppleKey]
//	discord   10
//	gitlab    11   gitlab.com, or Config.Issuer for another
//	google    12
//	facebook  13   does not say whether addresses are verified: see Config.TrustEmail
//	microsoft 14   does not say so either, unless the optional claim xms_edov is configured
//	twitch    15
//	yandex    16   does not say so either
//	github    17
//
// # What is checked
//
// Codes are exchanged with PKCE (S256, RFC 7636) only. ID tokens are verified
// with the algorithms that the kind is known for, the pinned issuer, the
// client as audience (and as azp, where there are several), the nonce and the
// times. A verified mail address is one for which the provider says the JSON
// value true.
//
// # Requests
//
// Nothing is requested at construction. Discovery documents and keys are
// fetched when they are first needed, by one request for all who wait, and
// kept: an outage of the provider is not one of tokens that are already signed
// with a known key.
//
// Every request is over https, has 10 s, follows no redirect, ignores proxies
// of the environment, and reads at most 1 MiB. The address is checked when it
// is dialled, so names that resolve to loopback, private, link-local or other
// special networks are refused whatever they resolved to before. Nothing in a
// token names what is requested.
package idp

import "errors"

// ErrRefused is in the chain of every error about what a provider said or
// sent, or about a token. Errors without it are about not reaching the
// provider. The texts are for logs: they contain no code, token or secret.
var ErrRefused = errors.New("idp: refused")
