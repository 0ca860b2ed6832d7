package oidctest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/go-jose/go-jose/v4"
)

type key struct {
	id      string
	alg     string
	private crypto.Signer
}

func newKey(alg, id string) (key, error) {
	var private crypto.Signer
	var err error
	switch alg {
	case "RS256":
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ES256":
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "EdDSA":
		_, private, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = fmt.Errorf("oidctest: algorithm %q is not known", alg)
	}
	return key{id, alg, private}, err
}

// Rotate signs with a new key from now on. The old ones stay published if
// keep is set.
func (s *Server) Rotate(keep bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := newKey(s.opts.Alg, fmt.Sprintf("key-%d", s.made))
	if err != nil {
		return err
	}
	s.made++
	if !keep {
		s.keys = nil
	}
	s.keys = append([]key{k}, s.keys...)
	return nil
}

// KeyID returns the id of the key that signs.
func (s *Server) KeyID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys[0].id
}

// Keys returns the public keys as a JWKS document.
func (s *Server) Keys() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	var set jose.JSONWebKeySet
	for _, k := range s.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.private.Public(), KeyID: k.id, Algorithm: k.alg, Use: "sig"})
	}
	document, err := json.Marshal(set)
	if err != nil {
		panic(err) // the keys are ours
	}
	return document
}

func (s *Server) jwks(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/jwk-set+json")
	_, _ = w.Write(s.Keys())
}

// IDToken returns an ID token for a user, as the knobs will have it. An empty
// nonce is left out.
func (s *Server) IDToken(u User, nonce string) (string, error) {
	claims := u.claims()
	claims["aud"] = s.opts.ClientID
	if nonce != "" {
		claims["nonce"] = nonce
	}
	return s.Sign(claims)
}

// Sign returns a token with claims, as the knobs will have it. The claims iss,
// iat and exp are added unless they are there.
func (s *Server) Sign(claims map[string]any) (string, error) {
	now := s.opts.Now()
	all := map[string]any{"iss": s.Issuer, "iat": now.Unix(), "exp": now.Add(s.opts.Lifetime).Unix()}
	for name, value := range claims {
		all[name] = value
	}
	s.mu.Lock()
	k, knobs := s.keys[0], s.knobs
	s.mu.Unlock()

	header := map[string]any{"typ": "JWT", "alg": k.alg, "kid": k.id}
	if knobs.Alg != "" {
		header["alg"] = knobs.Alg
	}
	if knobs.Claims != nil {
		knobs.Claims(all)
	}
	if knobs.Header != nil {
		knobs.Header(header)
	}
	h, err := json.Marshal(header)
	if err != nil {
		return "", err
	}
	c, err := json.Marshal(all)
	if err != nil {
		return "", err
	}
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode(h) + "." + encode(c)
	signature, err := k.sign(knobs.Alg, []byte(signed))
	return signed + "." + encode(signature), err
}

// sign signs with the key's algorithm, unless instead names another.
func (k key) sign(instead string, data []byte) ([]byte, error) {
	sum := sha256.Sum256(data)
	switch instead {
	case "":
	case "none":
		return nil, nil
	case "HS256":
		public, err := x509.MarshalPKIXPublicKey(k.private.Public())
		if err != nil {
			return nil, err
		}
		mac := hmac.New(sha256.New, public)
		mac.Write(data)
		return mac.Sum(nil), nil
	default:
		return nil, fmt.Errorf("oidctest: algorithm %q is not known", instead)
	}
	switch private := k.private.(type) {
	case *ecdsa.PrivateKey: // RFC 7518, section 3.4: not ASN.1
		r, s, err := ecdsa.Sign(rand.Reader, private, sum[:])
		if err != nil {
			return nil, err
		}
		signature := make([]byte, 64)
		r.FillBytes(signature[:32])
		s.FillBytes(signature[32:])
		return signature, nil
	case ed25519.PrivateKey:
		return private.Sign(nil, data, crypto.Hash(0))
	default:
		return private.Sign(rand.Reader, sum[:], crypto.SHA256)
	}
}
