package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bedplate/bedplate/internal/jwt"
	"github.com/bedplate/bedplate/sqlite"
)

// A signingKey signs auth tokens from a moment on, until the next one does.
// It goes on verifying for as long as tokens of it live.
type signingKey struct {
	kid     string
	public  ed25519.PublicKey
	private ed25519.PrivateKey
	signs   int64
	retires int64 // 0: not yet known
}

// A keyring holds the signing keys, the newest first.
type keyring struct {
	keys atomic.Pointer[[]signingKey]

	mu     sync.Mutex
	loaded time.Time

	reading sync.Mutex // so that what was read last is stored last
}

const (
	// keyLead is how long before its first signature a key can be had from
	// JWKS, so that others have it in time.
	keyLead = 24 * time.Hour

	// leeway is how much the clocks of two servers may differ.
	leeway = time.Minute

	// keyReload is how often a token with an unknown key makes us look for
	// keys that another process has made.
	keyReload = time.Second
)

// loadKeys reads the signing keys and makes the first one.
func (s *Service) loadKeys(ctx context.Context) error {
	if err := s.readKeys(ctx); err != nil {
		return err
	}
	if len(*s.keys.keys.Load()) > 0 {
		return nil
	}
	return s.addKey(ctx, s.now().Unix(), true)
}

func (s *Service) readKeys(ctx context.Context) error {
	s.keys.reading.Lock()
	defer s.keys.reading.Unlock()
	var keys []signingKey
	err := s.db.Query(ctx, `SELECT kid, public, secret, signs, coalesce(retires, 0) FROM _signing_key
		WHERE retires IS NULL OR retires > ? ORDER BY signs DESC, kid`, []driver.Value{s.now().Unix()},
		func(v []driver.Value) error {
			k := signingKey{kid: text(v[0]), public: blob(v[1]), signs: integer(v[3]), retires: integer(v[4])}
			seed, err := s.key.Open("signing key/"+k.kid, blob(v[2]))
			if err != nil {
				return err
			}
			if len(seed) != ed25519.SeedSize {
				return errors.New("wrong length")
			}
			k.private = ed25519.NewKeyFromSeed(seed)
			if !k.public.Equal(k.private.Public()) {
				return errors.New("public and private part do not match")
			}
			keys = append(keys, k)
			return nil
		})
	if err != nil {
		return fmt.Errorf("auth: read the signing keys: %w", err)
	}
	s.keys.keys.Store(&keys)
	return nil
}

// addKey makes a key that signs from a moment on. The ones before it retire
// when the last token of theirs has expired. With first set it does nothing
// when there is one already.
func (s *Service) addKey(ctx context.Context, signs int64, first bool) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("auth: make a signing key: %w", err)
	}
	kid := jwt.KeyID(public)
	retires := signs + int64((s.cfg.AccessTTL+5*leeway)/time.Second)
	err = s.db.Update(ctx, func(tx *sqlite.Tx) error {
		if first {
			var n int
			if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM _signing_key`).Scan(&n); err != nil || n > 0 {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, `UPDATE _signing_key SET retires = ?1 WHERE retires IS NULL OR retires > ?1`, retires); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO _signing_key (kid, public, secret, created, signs) VALUES (?, ?, ?, ?, ?)`,
			kid, []byte(public), s.key.Seal("signing key/"+kid, private.Seed()), s.now().Unix(), signs)
		return err
	})
	if err != nil {
		return fmt.Errorf("auth: store a signing key: %w", err)
	}
	return s.readKeys(ctx)
}

// RotateKey makes a new signing key that signs from now on. Tokens of the old
// one stay good until they expire.
func (s *Service) RotateKey(ctx context.Context) error {
	return s.addKey(ctx, s.now().Unix(), false)
}

// prepareKeys makes the next signing key a day before the current one is old,
// and forgets the retired ones.
func (s *Service) prepareKeys(ctx context.Context) error {
	if err := s.db.Write(ctx, sqlite.Stmt{
		SQL: `DELETE FROM _signing_key WHERE retires <= ?`, Args: []driver.Value{s.now().Unix()},
	}); err != nil {
		return fmt.Errorf("auth: remove retired signing keys: %w", err)
	}
	if err := s.readKeys(ctx); err != nil {
		return err
	}
	now := s.now().Unix()
	next := now
	if keys := *s.keys.keys.Load(); len(keys) > 0 {
		next = keys[0].signs + int64(s.cfg.KeyTTL/time.Second)
		if next-int64(min(keyLead, s.cfg.KeyTTL/2)/time.Second) > now {
			return nil
		}
	}
	return s.addKey(ctx, max(next, now), false)
}

// signer returns the key that signs now.
func (s *Service) signer() (signingKey, error) {
	now := s.now().Unix()
	keys := *s.keys.keys.Load()
	for _, k := range keys {
		if k.signs <= now && (k.retires == 0 || k.retires > now) {
			return k, nil
		}
	}
	if len(keys) > 0 {
		return keys[len(keys)-1], nil // the clock was set back
	}
	return signingKey{}, errors.New("auth: there is no signing key")
}

// verifier returns the public key with an id, or nil.
func (s *Service) verifier(ctx context.Context, kid string) ed25519.PublicKey {
	find := func() ed25519.PublicKey {
		for _, k := range *s.keys.keys.Load() {
			if k.kid == kid && (k.retires == 0 || k.retires > s.now().Unix()) {
				return k.public
			}
		}
		return nil
	}
	if key := find(); key != nil {
		return key
	}
	s.keys.mu.Lock()
	defer s.keys.mu.Unlock()
	if now := time.Now(); now.Sub(s.keys.loaded) > keyReload { // not the injected clock: this bounds work
		s.keys.loaded = now
		if err := s.readKeys(context.WithoutCancel(ctx)); err != nil { // for others, too
			s.log.ErrorContext(ctx, "look for new signing keys", "error", err)
		}
	}
	return find()
}

// ServeJWKS answers GET with the public keys as a JSON Web Key Set (RFC 7517).
// Its place is /.well-known/jwks.json.
func (s *Service) ServeJWKS(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	var keys []ed25519.PublicKey
	for _, k := range *s.keys.keys.Load() {
		if k.retires == 0 || k.retires > s.now().Unix() {
			keys = append(keys, k.public)
		}
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", "public, max-age=300")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(jwt.JWKS(keys)) // the client is gone if this fails
}
