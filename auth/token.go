package auth

import (
	"context"
	"crypto/ed25519"
	"database/sql/driver"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bedplate/bedplate/internal/jsonx"
	"github.com/bedplate/bedplate/internal/jwt"
)

// tokenAuth is the claim "type" of an auth token.
const tokenAuth = 1

// reservedClaims are ours and the contract's.
var reservedClaims = []string{
	"sub", "iat", "exp", "type", "admin", "mfa", "provider", "email", "username", "csrf_token", "sid", "iss", "aud", "nbf", "jti",
}

// mint returns a new auth token for a session of u, and its CSRF token. The
// names and the order of the claims are the contract's; sid is ours.
func (s *Service) mint(ctx context.Context, u *row, session []byte, authenticated int64) (token, csrf string, err error) {
	key, err := s.signer()
	if err != nil {
		return "", "", err
	}
	csrf = randomText(20, alphanumeric)
	now := s.now().Unix()
	b := append(make([]byte, 0, 512), `{"sub":`...)
	b = jsonx.AppendString(b, u.id.String())
	b = jsonx.AppendInt(append(b, `,"iat":`...), now)
	b = jsonx.AppendInt(append(b, `,"exp":`...), now+int64(s.cfg.AccessTTL/time.Second))
	b = append(b, `,"type":1`...)
	if u.admin {
		b = append(b, `,"admin":true`...)
	}
	if u.totp != "" {
		b = append(b, `,"mfa":true`...)
	}
	b = jsonx.AppendInt(append(b, `,"provider":`...), int64(u.provider))
	b = appendNullable(append(b, `,"email":`...), u.email)
	b = appendNullable(append(b, `,"username":`...), u.username)
	b = jsonx.AppendString(append(b, `,"csrf_token":`...), csrf)
	b = jsonx.AppendString(append(b, `,"sid":`...), sessionName(session))
	if s.cfg.Hooks.Claims != nil {
		if b, err = s.appendClaims(ctx, b, s.user(u, session, authenticated)); err != nil {
			return "", "", err
		}
	}
	return jwt.Sign(key.kid, key.private, append(b, '}')), csrf, nil
}

func appendNullable(b []byte, s string) []byte {
	if s == "" {
		return append(b, "null"...)
	}
	return jsonx.AppendString(b, s)
}

// maxClaims bounds what a hook adds to each request of a client.
const maxClaims = 2048 // bytes

func (s *Service) appendClaims(ctx context.Context, b []byte, u *User) ([]byte, error) {
	claims, err := s.callClaims(ctx, u)
	if err != nil {
		return nil, fmt.Errorf("auth: claims hook: %w", err)
	}
	before := len(b)
	for _, name := range slices.Sorted(maps.Keys(claims)) {
		if slices.ContainsFunc(reservedClaims, func(reserved string) bool { return strings.EqualFold(reserved, name) }) {
			return nil, fmt.Errorf("auth: claims hook: %q is reserved", name)
		}
		value, err := json.Marshal(claims[name])
		if err != nil {
			return nil, fmt.Errorf("auth: claims hook: %q: %w", name, err)
		}
		b = jsonx.AppendString(append(b, ','), name)
		b = append(append(b, ':'), value...)
	}
	if len(b)-before > maxClaims {
		return nil, fmt.Errorf("auth: claims hook: %d bytes are more than %d", len(b)-before, maxClaims)
	}
	return b, nil
}

func (s *Service) callClaims(ctx context.Context, u *User) (claims map[string]any, err error) {
	defer recoverHook(&err)
	return s.cfg.Hooks.Claims(ctx, u)
}

// recoverHook turns a panic of a hook into an error.
func recoverHook(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("panic: %v", p)
	}
}

// user is u as the application sees it.
func (s *Service) user(u *row, session []byte, authenticated int64) *User {
	return &User{
		ID: u.id, Email: u.email, Username: u.username, Admin: u.admin, MFA: u.totp != "", Provider: u.provider,
		Session: sessionName(session), Authenticated: time.Unix(authenticated, 0), session: session,
	}
}

// sessionName is the name of a session in tokens and paths.
func sessionName(id []byte) string { return base64.RawURLEncoding.EncodeToString(id) }

func parseSessionName(s string) ([]byte, error) {
	id, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(id) != 16 {
		return nil, errors.New("not a session")
	}
	return id, nil
}

// claims are what we read from our own tokens.
type claims struct {
	Sub   string `json:"sub"`
	Iat   int64  `json:"iat"`
	Exp   int64  `json:"exp"`
	Type  int    `json:"type"`
	CSRF  string `json:"csrf_token"`
	Sid   string `json:"sid"`
	other map[string]any
}

// parse checks signature, kind and times of an auth token. It knows nothing
// of whether its session still exists.
func (s *Service) parse(ctx context.Context, token string) (*claims, bool) {
	raw, err := jwt.Verify(token, func(kid string) ed25519.PublicKey { return s.verifier(ctx, kid) })
	if err != nil {
		return nil, false
	}
	c := new(claims)
	if json.Unmarshal(raw, c) != nil || c.Type != tokenAuth {
		return nil, false
	}
	if s.cfg.Hooks.Claims != nil {
		if json.Unmarshal(raw, &c.other) != nil {
			return nil, false
		}
		for _, name := range reservedClaims {
			delete(c.other, name)
		}
	}
	return c, s.inTime(c)
}

// inTime reports whether now lies between issue and expiry, give or take the
// leeway. A token from the future was signed before the clock was set back; it
// must not live longer for that.
func (s *Service) inTime(c *claims) bool {
	now, slack := s.now().Unix(), int64(leeway/time.Second)
	return now <= c.Exp+slack && c.Iat <= now+slack
}

// checkEvery is how long a cached bearer token is believed without asking the
// database whether its session still exists. What this process itself revokes
// is noticed at once.
const checkEvery = 30 * time.Second

// A cachedToken is an auth token that was good when it was checked. It is
// replaced, never changed.
type cachedToken struct {
	claims  *claims
	user    *User
	checked time.Time
	epoch   int64
}

// lookup returns the user of an auth token, nil if it is not good. With strict
// set the database is asked in any case.
func (s *Service) lookup(ctx context.Context, token string, credential Credential) (*User, error) {
	hash := cacheKey(token)
	t, known := s.cache.get(hash)
	now, epoch := s.now(), s.epoch.Load()
	if known {
		if !s.inTime(t.claims) {
			s.cache.remove(hash)
			return nil, nil
		}
		if age := now.Sub(t.checked); credential == Bearer && t.user.Credential == Bearer && t.epoch == epoch && age >= 0 && age < checkEvery {
			return t.user, nil
		}
	} else {
		c, ok := s.parse(ctx, token)
		if !ok {
			return nil, nil
		}
		t = &cachedToken{claims: c}
	}
	session, err := parseSessionName(t.claims.Sid)
	if err != nil {
		return nil, nil
	}
	state, err := s.sessionState(ctx, session)
	if err != nil {
		return nil, err
	}
	if state == nil || state.user.disabled || state.user.id.String() != t.claims.Sub {
		s.cache.remove(hash)
		return nil, nil
	}
	u := s.user(state.user, session, state.authenticated)
	u.Credential, u.Claims, u.csrf = credential, t.claims.other, t.claims.CSRF
	u.Expires = moment(min(addSeconds(t.claims.Exp, leeway), state.expires))
	s.cache.put(hash, &cachedToken{t.claims, u, now, epoch})
	return u, nil
}

// A sessionState is what the database knows of a session that has not ended.
type sessionState struct {
	user          *row
	authenticated int64
	expires       int64
	seen          int64
	method        string
	cookie        bool
}

const sessionStateSQL = `SELECT u.id, u.email, u.unverified_email, u.username, u.password_hash, u.totp_secret, u.admin, u.disabled,
	u.provider_id, u.provider_user_id, u.totp_step, s.authenticated, s.expires, s.seen, s.method, s.cookie
	FROM _session s JOIN _user u ON u.id = s.user WHERE s.id = ? AND s.expires > ?`

func (s *Service) sessionState(ctx context.Context, session []byte) (state *sessionState, err error) {
	err = s.db.Query(context.WithoutCancel(ctx), sessionStateSQL, []driver.Value{session, s.now().Unix()}, func(v []driver.Value) error {
		state = &sessionState{
			user: scanUser(v), authenticated: integer(v[11]), expires: integer(v[12]), seen: integer(v[13]),
			method: text(v[14]), cookie: integer(v[15]) != 0,
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("auth: look up a session: %w", err)
	}
	return state, nil
}

// maxCachedTokens bounds the memory of the cache: about 1 KiB for each.
const maxCachedTokens = 20_000

// A tokenCache keeps tokens by their SHA-256, so that a lookup tells nothing
// about one by its time. When a generation is full it becomes the old one, and
// what nobody asks for any more is forgotten with the next.
type tokenCache struct {
	mu         *sync.RWMutex
	max        int
	young, old map[[32]byte]*cachedToken
}

func newTokenCache(maxTokens int) tokenCache {
	return tokenCache{mu: new(sync.RWMutex), max: maxTokens / 2, young: map[[32]byte]*cachedToken{}}
}

func (c *tokenCache) get(hash [32]byte) (*cachedToken, bool) {
	c.mu.RLock()
	t, ok := c.young[hash]
	old := false
	if !ok {
		t, old = c.old[hash]
	}
	c.mu.RUnlock()
	if old {
		c.put(hash, t)
	}
	return t, ok || old
}

func (c *tokenCache) put(hash [32]byte, t *cachedToken) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.young) >= c.max {
		c.young, c.old = map[[32]byte]*cachedToken{}, c.young
	}
	c.young[hash] = t
}

func (c *tokenCache) remove(hash [32]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.young, hash)
	delete(c.old, hash)
}
