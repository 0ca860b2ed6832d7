package idp

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

// A verifier verifies the tokens of one issuer (OpenID Connect Core 1.0,
// section 3.1.3.7; RFC 8725).
type verifier struct {
	issuer     string   // may have a tenant
	tenants    string   // "organizations" is all of them but consumers
	audience   []string // one of them
	algorithms []string
	types      []string // of the header's typ, in small letters
	maxSize    int      // bytes
	leeway     time.Duration
	keys       keySource
	now        func() time.Time
}

// verify returns the claims of a good token.
func (v *verifier) verify(ctx context.Context, token string) (map[string]any, error) {
	if len(token) > v.maxSize {
		return nil, fmt.Errorf("%w: a token of more than %d bytes", ErrRefused, v.maxSize)
	}
	if err := v.checkHeader(token); err != nil {
		return nil, err
	}
	// The issuer may be a template, there may be several audiences, and the
	// times have a leeway: we check these.
	signed := &signatures{verifier: v}
	checked, err := oidc.NewVerifier(v.issuer, signed, &oidc.Config{
		SupportedSigningAlgs: v.algorithms,
		SkipIssuerCheck:      true,
		SkipClientIDCheck:    true,
		SkipExpiryCheck:      true,
	}).Verify(ctx, token)
	if signed.unreached != nil {
		return nil, signed.unreached
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	// The library's fields match names in any case; a map does not.
	var claims map[string]any
	if err := checked.Claims(&claims); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if err := v.checkIssuer(claims); err != nil {
		return nil, err
	}
	if audience, ok := stringList(claims["aud"]); !ok || !slices.ContainsFunc(audience, func(a string) bool {
		return slices.Contains(v.audience, a)
	}) {
		return nil, fmt.Errorf("%w: a token for the audience %.200q", ErrRefused, audience)
	}
	if err := v.checkTimes(claims); err != nil {
		return nil, err
	}
	if sub, ok := claims["sub"].(string); !ok || !validSubject(sub) {
		return nil, fmt.Errorf("%w: a token without a subject", ErrRefused)
	}
	return claims, nil
}

// checkHeader refuses all that could choose how a token is verified, and all
// kinds of tokens that are no identity.
func (v *verifier) checkHeader(token string) error {
	first, rest, _ := strings.Cut(token, ".")
	if strings.Count(rest, ".") != 1 {
		return fmt.Errorf("%w: not a signed token", ErrRefused)
	}
	text, err := base64.RawURLEncoding.DecodeString(first)
	var header map[string]any
	if err != nil || json.Unmarshal(text, &header) != nil {
		return fmt.Errorf("%w: a token without a header", ErrRefused)
	}
	for name := range header {
		switch strings.ToLower(name) {
		case "jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc":
			return fmt.Errorf("%w: a token with %q in its header", ErrRefused, name)
		}
	}
	if typ, ok := header["typ"]; ok {
		s, _ := typ.(string)
		if !slices.Contains(v.types, strings.TrimPrefix(strings.ToLower(s), "application/")) {
			return fmt.Errorf("%w: a token of type %.100q", ErrRefused, s)
		}
	}
	return nil
}

var tenantID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// consumers is the tenant of Microsoft's personal accounts.
const consumers = "9188040d-6c67-4c5b-b112-36a304b66dad"

// checkIssuer wants the pinned issuer. Where that has a tenant, it is the one
// that the token names elsewhere, too.
func (v *verifier) checkIssuer(claims map[string]any) error {
	iss, _ := claims["iss"].(string)
	want := v.issuer
	if strings.Contains(want, tenant) {
		tid, _ := claims["tid"].(string)
		if !tenantID.MatchString(tid) || tid == consumers && v.tenants == "organizations" {
			return fmt.Errorf("%w: a token of the tenant %.100q", ErrRefused, tid)
		}
		want = strings.ReplaceAll(want, tenant, tid)
	}
	if iss != want {
		return fmt.Errorf("%w: a token of the issuer %.200q", ErrRefused, iss)
	}
	return nil
}

// checkTimes wants exp and looks at nbf and iat where they are.
func (v *verifier) checkTimes(claims map[string]any) error {
	now, slack := float64(v.now().Unix()), v.leeway.Seconds()
	exp, ok := claims["exp"].(float64)
	if !ok || exp > maxTime || exp+slack <= now {
		return fmt.Errorf("%w: a token that has expired, or never does", ErrRefused)
	}
	for _, name := range []string{"nbf", "iat"} {
		value, there := claims[name]
		at, ok := value.(float64)
		if there && (!ok || at > now+slack) {
			return fmt.Errorf("%w: a token from the future (%s)", ErrRefused, name)
		}
	}
	return nil
}

const maxTime = 253402300800 // the year 10000

// validSubject reports whether s can be the id of an account (OpenID Connect
// Core 1.0, section 2: at most 255 ASCII characters).
func validSubject(s string) bool {
	return s != "" && len(s) <= 255 && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// stringList returns a claim that is one string or several.
func stringList(claim any) ([]string, bool) {
	switch c := claim.(type) {
	case string:
		return []string{c}, true
	case []any:
		all := make([]string, 0, len(c))
		for _, e := range c {
			s, ok := e.(string)
			if !ok {
				return nil, false
			}
			all = append(all, s)
		}
		return all, len(all) > 0
	}
	return nil, false
}

// signatures verifies one token with the keys of a verifier. It implements
// [oidc.KeySet].
type signatures struct {
	*verifier
	unreached error // there were no keys; the library hides the reason
}

func (s *signatures) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	algorithms := make([]jose.SignatureAlgorithm, len(s.algorithms))
	for i, a := range s.algorithms {
		algorithms[i] = jose.SignatureAlgorithm(a)
	}
	jws, err := jose.ParseSignedCompact(token, algorithms)
	if err != nil {
		return nil, err
	}
	header := jws.Signatures[0].Protected
	known, err := s.keys.current(ctx)
	if err != nil {
		s.unreached = err
		return nil, err
	}
	found := known.value.find(header.KeyID, header.Algorithm)
	payload, err := verifyWith(jws, found)
	if err == nil || len(found) > 0 && header.KeyID != "" {
		return payload, err
	}
	// The issuer may have a new key.
	latest, renewal := s.keys.renewed(ctx, known)
	if renewal != nil || latest == known {
		return nil, err
	}
	return verifyWith(jws, latest.value.find(header.KeyID, header.Algorithm))
}

func verifyWith(jws *jose.JSONWebSignature, keys []jose.JSONWebKey) ([]byte, error) {
	for _, key := range keys {
		if payload, err := jws.Verify(key.Key); err == nil {
			return payload, nil
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("no such key")
	}
	return nil, errors.New("bad signature")
}
