package idp

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// A keySource has the keys of one issuer.
type keySource interface {
	// current returns the keys, old ones rather than none.
	current(ctx context.Context) (*fetched[keySet], error)

	// renewed returns newer keys than the known ones, if there are any and
	// asking for them is not too soon.
	renewed(ctx context.Context, known *fetched[keySet]) (*fetched[keySet], error)
}

// A keySet is the public keys of an issuer that can verify signatures.
type keySet []jose.JSONWebKey

// The bounds of a key set.
const (
	maxKeys    = 100
	minRSABits = 2048
	maxRSABits = 8192
)

// parseKeys reads a JWKS (RFC 7517, section 5). Keys that are not for us are
// left out: those of other kinds, for encryption, private or weak.
func parseKeys(document []byte) (keySet, error) {
	var raw struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(document, &raw); err != nil {
		return nil, fmt.Errorf("%w: not a JWKS", ErrRefused)
	}
	if len(raw.Keys) > maxKeys {
		return nil, fmt.Errorf("%w: a JWKS of more than %d keys", ErrRefused, maxKeys)
	}
	var set keySet
	for _, text := range raw.Keys {
		var key jose.JSONWebKey
		if json.Unmarshal(text, &key) != nil || key.Use != "" && key.Use != "sig" || !key.IsPublic() || !key.Valid() {
			continue
		}
		if k, ok := key.Key.(*rsa.PublicKey); ok && (k.N.BitLen() < minRSABits || k.N.BitLen() > maxRSABits) {
			continue
		}
		set = append(set, key)
	}
	if len(set) == 0 {
		return nil, fmt.Errorf("%w: a JWKS without a usable key", ErrRefused)
	}
	return set, nil
}

// find returns the keys that a token can be signed with. A token that does not
// name its key needs an issuer with only one (OpenID Connect Core 1.0, section
// 10.1).
func (s keySet) find(kid, alg string) []jose.JSONWebKey {
	var found []jose.JSONWebKey
	for _, key := range s {
		if (kid == "" || key.KeyID == kid) && fits(key, alg) {
			found = append(found, key)
		}
	}
	if kid == "" && len(found) > 1 {
		return nil
	}
	return found
}

// fits reports whether a key is one for an algorithm (RFC 7518, section 3.1).
func fits(key jose.JSONWebKey, alg string) bool {
	if key.Algorithm != "" && key.Algorithm != alg {
		return false
	}
	switch k := key.Key.(type) {
	case *rsa.PublicKey:
		return alg[:2] == "RS" || alg[:2] == "PS"
	case *ecdsa.PublicKey:
		return alg == map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}[k.Curve.Params().BitSize]
	case ed25519.PublicKey:
		return alg == "EdDSA"
	}
	return false
}

// How often keys are fetched.
const (
	keysAge   = time.Hour   // in the hope of the same ones
	keysPause = time.Minute // at least between two fetches, whatever tokens say
)

// remoteKeys are the keys at a URL.
type remoteKeys struct{ cache *cached[keySet] }

func newRemoteKeys(client *http.Client, now func() time.Time, retry time.Duration, address func(context.Context) (string, error)) remoteKeys {
	return remoteKeys{newCached(now, keysAge, keysPause, retry, func(ctx context.Context) (keySet, error) {
		u, err := address(ctx)
		if err != nil {
			return nil, err
		}
		document, err := get(ctx, client, u, nil)
		if err != nil {
			return nil, fmt.Errorf("idp: fetching keys: %w", err)
		}
		return parseKeys(document)
	})}
}

func (k remoteKeys) current(ctx context.Context) (*fetched[keySet], error) { return k.cache.get(ctx) }

func (k remoteKeys) renewed(ctx context.Context, known *fetched[keySet]) (*fetched[keySet], error) {
	return k.cache.renew(ctx, known)
}

// fileCheck is how often a file is looked at.
const fileCheck = 3 * time.Second

// fileKeys are the keys in a file. A file that cannot be read any more, or
// does not hold keys, leaves the old ones in force.
type fileKeys struct {
	path string
	now  func() time.Time

	mu       sync.Mutex
	keys     *fetched[keySet]
	checked  time.Time
	modified time.Time
	size     int64
}

func newFileKeys(path string, now func() time.Time) (*fileKeys, error) {
	k := &fileKeys{path: path, now: now}
	if err := k.read(); err != nil {
		return nil, fmt.Errorf("reading keys: %w", err)
	}
	return k, nil
}

func (k *fileKeys) current(context.Context) (*fetched[keySet], error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !within(k.now().Sub(k.checked), fileCheck) {
		_ = k.read() // the old keys stay
	}
	return k.keys, nil
}

func (k *fileKeys) renewed(ctx context.Context, _ *fetched[keySet]) (*fetched[keySet], error) {
	return k.current(ctx)
}

// read reads the file unless it is the same as before.
func (k *fileKeys) read() error {
	k.checked = k.now()
	f, err := os.Open(k.path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() > maxBody {
		return errors.New("not a file, or one of more than 1 MiB")
	}
	if k.keys != nil && info.ModTime().Equal(k.modified) && info.Size() == k.size {
		return nil
	}
	document, err := io.ReadAll(io.LimitReader(f, maxBody))
	if err != nil {
		return err
	}
	set, err := parseKeys(document)
	if err != nil {
		return err
	}
	k.keys, k.modified, k.size = &fetched[keySet]{set, k.checked}, info.ModTime(), info.Size()
	return nil
}
