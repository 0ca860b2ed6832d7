// Package jwt makes and verifies the one kind of JSON Web Token that this
// module issues: compact, signed with Ed25519, with a key id (RFC 7519,
// RFC 7515, RFC 8037). There is nothing to configure, so nothing in a token
// can choose how it is verified.
//
//	token := jwt.Sign(jwt.KeyID(public), private, claims)
//	claims, err := jwt.Verify(token, func(kid string) ed25519.PublicKey {
//		return keys[kid] // nil when unknown
//	})
//
// Claims go in and out as JSON. What they say, the times above all, is for
// the caller to check, after Verify.
package jwt

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"

	"github.com/bedplate/bedplate/internal/jsonx"
)

// The limits of a token, in bytes.
const (
	MaxSize  = 8 << 10 // of the whole token
	MaxKeyID = 128     // of its key id
)

// ErrInvalid is the error for every token that is refused. It does not say
// why.
var ErrInvalid = errors.New("verifying token: invalid")

// Sign returns a token with the claims, an encoded JSON object, and the header
//
//	{"typ":"JWT","alg":"EdDSA","kid":"..."}
//
// It looks at neither: a token with a kid that is empty or longer than
// [MaxKeyID], or that gets larger than [MaxSize], is made but not verified.
// Sign panics when the key does not have [ed25519.PrivateKeySize] bytes.
func Sign(kid string, key ed25519.PrivateKey, claims []byte) string {
	header := append([]byte(nil), `{"typ":"JWT","alg":"EdDSA","kid":`...)
	header = jsonx.AppendString(header, kid)
	header = append(header, '}')
	return encode(header, claims, key)
}

// encode returns the JWS compact serialization (RFC 7515, section 3.1).
func encode(header, payload []byte, key ed25519.PrivateKey) string {
	size := 2 + base64url.EncodedLen(len(header)) + base64url.EncodedLen(len(payload)) +
		base64url.EncodedLen(ed25519.SignatureSize)
	token := make([]byte, 0, size)
	token = base64url.AppendEncode(token, header)
	token = append(token, '.')
	token = base64url.AppendEncode(token, payload)
	signature := ed25519.Sign(key, token)
	token = append(token, '.')
	token = base64url.AppendEncode(token, signature)
	return string(token)
}

// Verify returns the claims of a token with a valid signature, and
// [ErrInvalid] for every other text. The claims are as they were signed; that
// they are a JSON object is up to who signed them.
//
// The function key returns the public key with an id, or nil when there is
// none. It is called at most once, for a token that may be forged, so the id
// is nothing to build a path, a query or a request from.
//
// Refused are tokens of more than [MaxSize] bytes; other than three parts in
// canonical unpadded base64url; a header that is no strict JSON object or has
// a name twice; any alg but EdDSA; a kid that is missing, empty or longer than
// [MaxKeyID]; keys that the token brings along (jwk, jku, x5u, x5c); and
// extensions that must be understood (crit). Other header members have no
// meaning.
func Verify(token string, key func(kid string) ed25519.PublicKey) (claims []byte, err error) {
	if len(token) > MaxSize {
		return nil, ErrInvalid
	}
	// The signature is over everything before the last dot, and there are
	// exactly two of them.
	last := strings.LastIndexByte(token, '.')
	if last < 0 {
		return nil, ErrInvalid
	}
	signed := token[:last]
	first, second, ok := strings.Cut(signed, ".")
	if !ok || strings.IndexByte(second, '.') >= 0 {
		return nil, ErrInvalid
	}

	header, ok := decode(first)
	if !ok {
		return nil, ErrInvalid
	}
	kid, ok := parseHeader(header)
	if !ok {
		return nil, ErrInvalid
	}
	signature, ok := decode(token[last+1:])
	if !ok || len(signature) != ed25519.SignatureSize {
		return nil, ErrInvalid
	}
	claims, ok = decode(second)
	if !ok {
		return nil, ErrInvalid
	}
	public := key(kid)
	if len(public) != ed25519.PublicKeySize || !ed25519.Verify(public, []byte(signed), signature) {
		return nil, ErrInvalid
	}
	return claims, nil
}

// parseHeader returns the key id of an acceptable header.
func parseHeader(header []byte) (kid string, ok bool) {
	var alg string
	err := jsonx.ParseObject(header, func(name []byte, v jsonx.Value) (err error) {
		switch string(name) {
		case "alg":
			alg, err = v.Text()
		case "kid":
			kid, err = v.Text()
		case "jwk", "jku", "x5u", "x5c", "crit":
			err = ErrInvalid
		}
		return err
	})
	return kid, err == nil && alg == "EdDSA" && kid != "" && len(kid) <= MaxKeyID
}

// base64url refuses bits that are set but have no meaning, so that no two
// texts stand for the same bytes.
var base64url = base64.RawURLEncoding.Strict()

func decode(part string) ([]byte, bool) {
	// The decoder would skip line breaks.
	if strings.ContainsAny(part, "\r\n") {
		return nil, false
	}
	data, err := base64url.DecodeString(part)
	return data, err == nil
}

// KeyID returns the JWK thumbprint of a public key (RFC 7638, RFC 8037
// section 2) in base64url: 43 characters.
func KeyID(pub ed25519.PublicKey) string {
	jwk := append([]byte(nil), `{"crv":"Ed25519","kty":"OKP","x":"`...)
	jwk = base64url.AppendEncode(jwk, pub)
	jwk = append(jwk, `"}`...)
	sum := sha256.Sum256(jwk)
	return base64url.EncodeToString(sum[:])
}

// JWKS returns the JSON Web Key Set of public keys (RFC 7517, section 5), in
// their order, each with its [KeyID].
func JWKS(keys []ed25519.PublicKey) []byte {
	set := append([]byte(nil), `{"keys":[`...)
	for i, pub := range keys {
		if i > 0 {
			set = append(set, ',')
		}
		set = append(set, `{"kty":"OKP","crv":"Ed25519","use":"sig","alg":"EdDSA","kid":"`...)
		set = append(set, KeyID(pub)...)
		set = append(set, `","x":"`...)
		set = base64url.AppendEncode(set, pub)
		set = append(set, `"}`...)
	}
	return append(set, "]}"...)
}
