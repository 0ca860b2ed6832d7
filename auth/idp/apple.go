package idp

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// An AppleKey signs what Apple takes as a client secret: a token that is made
// anew for each sign-in and lives for five minutes.
//
// Apple tells name and address only in a form that it posts from its own site.
// A session cookie that protects against forged requests is not sent with
// that, so it is not supported: users of Apple come with an id and nothing
// else.
type AppleKey struct {
	TeamID     string // ten characters, of the developer account
	KeyID      string // ten characters, of the key
	PrivateKey []byte // PEM, the .p8 file as it is downloaded
}

func (k AppleKey) given() bool { return k.TeamID != "" || k.KeyID != "" || k.PrivateKey != nil }

type appleSigner struct {
	team   string
	signer jose.Signer
}

func newAppleSigner(k AppleKey) (*appleSigner, error) {
	if k.TeamID == "" || k.KeyID == "" {
		return nil, errors.New("TeamID or KeyID of Apple is missing")
	}
	block, _ := pem.Decode(k.PrivateKey)
	if block == nil {
		return nil, errors.New("PrivateKey of Apple is not PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	private, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok || private.Curve != elliptic.P256() {
		return nil, errors.New("PrivateKey of Apple is not a P-256 key in PKCS #8")
	}
	options := (&jose.SignerOptions{}).WithHeader(jose.HeaderKey("kid"), k.KeyID)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: private}, options)
	if err != nil {
		return nil, err
	}
	return &appleSigner{k.TeamID, signer}, nil
}

// secretTTL is the life of a secret. Apple allows up to six months.
const secretTTL = 5 * time.Minute

func (s *appleSigner) secret(clientID, audience string, now time.Time) (string, error) {
	claims, err := json.Marshal(map[string]any{
		"iss": s.team, "sub": clientID, "aud": audience, "iat": now.Unix(), "exp": now.Add(secretTTL).Unix(),
	})
	if err != nil {
		return "", err
	}
	jws, err := s.signer.Sign(claims)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}
