package auth

import (
	"context"
	"crypto/rand"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/bedplate/bedplate/internal/jsonx"
	"github.com/bedplate/bedplate/sqlite"
)

// apiKeyPrefix begins every API key, so that scanners for leaked secrets know
// it.
const apiKeyPrefix = "bpk_"

const (
	apiKeySecret  = 43 // characters behind the prefix: 256 bits
	apiKeyShown   = 8  // characters of a key by which its owner knows it again
	apiKeyTTL     = 90 * 24 * time.Hour
	maxAPIKeyTTL  = 365 * 24 * time.Hour
	maxAPIKeys    = 50 // of one user
	maxScopes     = 50 // of one key
	maxAPIKeyName = 100

	// noteWait is how long a request waits for the note that its key was used.
	noteWait = 100 * time.Millisecond
)

// A Scope is what an API key may do.
type Scope struct {
	API        string   `json:"api"`        // name of a record API, "*" for all
	Operations []string `json:"operations"` // "create", "read", "update", "delete", "schema"; "*" for all
}

var operations = []string{"create", "read", "update", "delete", "schema", "*"}

// Allows reports whether the credential that u has shown may be used for an
// operation ("create", "read", "update", "delete" or "schema") on a record
// API. An API key needs a scope for it; all other credentials are not limited
// in this way. Nobody, a nil u, may do nothing. Whether u may do it is another
// question.
func (u *User) Allows(api, operation string) bool {
	if u == nil {
		return false
	}
	if u.Credential != APIKey {
		return true
	}
	for _, scope := range u.scopes {
		if (scope.API == "*" || scope.API == api) &&
			(slices.Contains(scope.Operations, "*") || slices.Contains(scope.Operations, operation)) {
			return true
		}
	}
	return false
}

// byAPIKey returns the user of an API key, nil if the key is not good. Like a
// token it is believed for a moment without asking the database.
func (s *Service) byAPIKey(r *http.Request, key string) (*User, error) {
	if len(key) != len(apiKeyPrefix)+apiKeySecret {
		return nil, nil
	}
	cached := cacheKey(key + "\x00") // no token has that byte, so none is taken for a key
	now, epoch := s.now(), s.epoch.Load()
	if t, ok := s.cache.get(cached); ok && now.Unix() < t.claims.Exp && t.epoch == epoch {
		if age := now.Sub(t.checked); age >= 0 && age < checkEvery {
			return t.user, nil
		}
	}
	hash := hashToken(key)
	k, err := s.apiKey(r.Context(), hash)
	if err != nil {
		return nil, err
	}
	var u *row
	if k != nil {
		if u, err = s.userByID(context.WithoutCancel(r.Context()), k.user); err != nil {
			return nil, fmt.Errorf("auth: look up the user of an API key: %w", err)
		}
	}
	if u == nil || !u.active() {
		s.cache.remove(cached)
		return nil, nil
	}
	user := s.user(u, nil, 0)
	user.Authenticated = time.Time{}
	user.Credential, user.Expires = APIKey, moment(k.expires)
	user.keyHash, user.scopes, user.storedScopes = hash, k.scopes, k.storedScopes
	s.cache.put(cached, &cachedToken{&claims{Exp: k.expires}, user, now, epoch})
	if now.Unix()-k.seen >= int64(seenEvery/time.Second) {
		s.noteAPIKey(r.Context(), hash)
	}
	return user, nil
}

// An apiKey is a key that has not expired.
type apiKey struct {
	user          UserID
	scopes        []Scope
	storedScopes  string
	expires, seen int64
}

func (s *Service) apiKey(ctx context.Context, hash []byte) (k *apiKey, err error) {
	err = s.db.Query(context.WithoutCancel(ctx), `SELECT user, scopes, expires, seen FROM _api_key WHERE hash = ? AND expires > ?`,
		[]driver.Value{hash, s.now().Unix()}, func(v []driver.Value) error {
			k = &apiKey{storedScopes: text(v[1]), expires: integer(v[2]), seen: integer(v[3])}
			copy(k.user[:], blob(v[0]))
			return json.Unmarshal([]byte(k.storedScopes), &k.scopes)
		})
	if err != nil {
		return nil, fmt.Errorf("auth: look up an API key: %w", err)
	}
	return k, nil
}

// noteAPIKey stores that a key was used. The request that has shown it does
// not fail, nor wait for long, because of that.
func (s *Service) noteAPIKey(ctx context.Context, hash []byte) {
	ctx, cancel := context.WithTimeout(ctx, noteWait)
	defer cancel()
	err := s.db.Write(ctx, sqlite.Stmt{
		SQL:  `UPDATE _api_key SET seen = ? WHERE hash = ?`,
		Args: []driver.Value{s.now().Unix(), hash},
	})
	if err != nil && ctx.Err() == nil {
		s.log.WarnContext(ctx, "could not note the use of an API key", "error", err)
	}
}

// dropAPIKeys returns the statement that ends all API keys of a user, as when
// a password is reset: whoever had the account may have made some. A user who
// changes the password, or ends sessions, keeps them; machines would stop
// otherwise, and each can be ended by itself.
func dropAPIKeys(user UserID) sqlite.Stmt {
	return sqlite.Stmt{SQL: `DELETE FROM _api_key WHERE user = ?`, Args: []driver.Value{user[:]}}
}

// API keys belong to sessions of people: a key makes, lists and removes none.
func (s *Service) apiKeyRoutes(add addRoute) {
	add("POST /api_keys", s.serveAddAPIKey)
	add("GET /api_keys", s.serveAPIKeys)
	add("DELETE /api_keys/{id}", s.serveDeleteAPIKey)
}

// An apiKeyInfo is what the owner of an API key sees of it. Times are unix
// seconds.
type apiKeyInfo struct {
	ID      string  `json:"id"`
	Key     string  `json:"key,omitempty"` // once
	Name    string  `json:"name"`
	Prefix  string  `json:"prefix"`
	Scopes  []Scope `json:"scopes"`
	Created int64   `json:"created"`
	Expires int64   `json:"expires"`
	Seen    *int64  `json:"seen"` // last use, give or take five minutes
}

// serveAddAPIKey is POST /api_keys. The key is in this answer and nowhere else.
func (s *Service) serveAddAPIKey(w http.ResponseWriter, r *http.Request) error {
	u, err := s.requireFresh(w, r)
	if err != nil {
		return err
	}
	req, err := readAPIKeyRequest(w, r)
	if err != nil {
		return err
	}
	scopes, err := json.Marshal(req.scopes)
	if err != nil {
		return err
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	key := apiKeyPrefix + randomText(apiKeySecret, alphanumeric)
	now := s.now().Unix()
	info := apiKeyInfo{
		ID: sessionName(id), Key: key, Name: req.name, Prefix: key[:apiKeyShown], Scopes: req.scopes,
		Created: now, Expires: addSeconds(now, req.ttl),
	}
	err = s.db.Write(r.Context(),
		// The token was checked a while ago perhaps; a key outlives it by far.
		must(ErrUnauthorized,
			`SELECT 1 FROM _session s JOIN _user u ON u.id = s.user WHERE s.id = ? AND s.expires > ? AND u.disabled = 0`, u.session, now),
		sqlite.Stmt{
			SQL:  `DELETE FROM _api_key WHERE user = ? AND expires <= ?`,
			Args: []driver.Value{u.ID[:], now},
		},
		sqlite.Stmt{
			SQL:  `INSERT INTO _api_key (id, hash, user, name, prefix, scopes, created, expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			Args: []driver.Value{id, hashToken(key), u.ID[:], info.Name, info.Prefix, string(scopes), info.Created, info.Expires},
		},
		sqlite.Stmt{
			SQL:  `SELECT 1 FROM _api_key WHERE user = ?`,
			Args: []driver.Value{u.ID[:]},
			Done: func(rows int) error {
				if rows > maxAPIKeys {
					return &Error{Status: http.StatusConflict, Text: "too many API keys"}
				}
				return nil
			},
		},
	)
	if err != nil {
		return err
	}
	return writeJSON(w, info)
}

// serveAPIKeys is GET /api_keys.
func (s *Service) serveAPIKeys(w http.ResponseWriter, r *http.Request) error {
	u, err := s.requireSession(w, r)
	if err != nil {
		return err
	}
	keys := []apiKeyInfo{}
	err = s.db.Query(r.Context(), `SELECT id, name, prefix, scopes, created, expires, seen FROM _api_key WHERE user = ? ORDER BY created DESC, id`,
		[]driver.Value{u.ID[:]}, func(v []driver.Value) error {
			k := apiKeyInfo{
				ID: sessionName(blob(v[0])), Name: text(v[1]), Prefix: text(v[2]), Created: integer(v[4]), Expires: integer(v[5]),
			}
			if seen, ok := v[6].(int64); ok {
				k.Seen = &seen
			}
			if err := json.Unmarshal([]byte(text(v[3])), &k.Scopes); err != nil {
				return err
			}
			keys = append(keys, k)
			return nil
		})
	if err != nil {
		return fmt.Errorf("auth: list API keys: %w", err)
	}
	return writeJSON(w, map[string][]apiKeyInfo{"api_keys": keys})
}

// serveDeleteAPIKey is DELETE /api_keys/{id}. A key of somebody else is none.
func (s *Service) serveDeleteAPIKey(w http.ResponseWriter, r *http.Request) error {
	u, err := s.requireSession(w, r)
	if err != nil {
		return err
	}
	id, err := parseSessionName(r.PathValue("id")) // of the same form
	if err != nil {
		return ErrNotFound
	}
	err = s.db.Write(r.Context(), must(ErrNotFound, `DELETE FROM _api_key WHERE id = ? AND user = ? RETURNING 1`, id, u.ID[:]))
	s.changed()
	return err
}

// An apiKeyRequest is the body of POST /api_keys.
type apiKeyRequest struct {
	name   string
	scopes []Scope
	ttl    time.Duration
}

// readAPIKeyRequest reads and checks it. A member that is not known is
// refused: it may be a misspelt limit.
func readAPIKeyRequest(w http.ResponseWriter, r *http.Request) (apiKeyRequest, error) {
	req := apiKeyRequest{ttl: apiKeyTTL}
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		return req, &Error{Status: http.StatusUnsupportedMediaType, Text: "expected application/json"}
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return req, &Error{Status: http.StatusRequestEntityTooLarge, Text: "length limit exceeded"}
		}
		return req, badRequest("invalid body")
	}
	err = jsonx.ParseObject(data, func(member []byte, v jsonx.Value) (err error) {
		switch string(member) {
		case "name":
			req.name, err = v.Text()
		case "scopes":
			req.scopes, err = readScopes(v)
		case "expires_in":
			if v.Kind != jsonx.Int || v.Int < 1 || v.Int > int64(maxAPIKeyTTL/time.Second) {
				return badRequest("'expires_in' must be a number of seconds, at most a year")
			}
			req.ttl = time.Duration(v.Int) * time.Second
		default:
			return badRequest("unknown member")
		}
		return err
	})
	if err != nil && asError(err) == nil {
		err = badRequest("invalid JSON")
	}
	if err != nil {
		return req, err
	}
	req.name = strings.TrimSpace(req.name)
	switch {
	case req.name == "" || utf8.RuneCountInString(req.name) > maxAPIKeyName || strings.ContainsFunc(req.name, func(c rune) bool { return !unicode.IsPrint(c) }):
		return req, badRequest("'name' must have 1 to 100 printable characters")
	case len(req.scopes) == 0:
		return req, badRequest("'scopes' must not be empty")
	}
	return req, nil
}

func readScopes(v jsonx.Value) (scopes []Scope, err error) {
	err = parseArray(v, func(v jsonx.Value) error {
		if v.Kind != jsonx.Object || len(scopes) == maxScopes {
			return badRequest("'scopes' must be at most 50 objects")
		}
		var scope Scope
		err := jsonx.ParseObject(v.Raw, func(member []byte, v jsonx.Value) (err error) {
			switch string(member) {
			case "api":
				scope.API, err = v.Text()
			case "operations":
				scope.Operations, err = readOperations(v)
			default:
				return badRequest("unknown member")
			}
			return err
		})
		switch {
		case err != nil:
			return err
		case scope.API != "*" && !validAPI(scope.API):
			return badRequest("'api' must be the name of an API or *")
		case len(scope.Operations) == 0:
			return badRequest("'operations' must not be empty")
		}
		scopes = append(scopes, scope)
		return nil
	})
	return scopes, err
}

func readOperations(v jsonx.Value) (out []string, err error) {
	err = parseArray(v, func(v jsonx.Value) error {
		operation, err := v.Text()
		if err != nil || !slices.Contains(operations, operation) {
			return badRequest("unknown operation")
		}
		if slices.Contains(out, operation) {
			return badRequest("duplicate operation")
		}
		out = append(out, operation)
		return nil
	})
	return out, err
}

func parseArray(v jsonx.Value, element func(jsonx.Value) error) error {
	if v.Kind != jsonx.Array {
		return badRequest("expected an array")
	}
	return jsonx.ParseArray(v.Raw, element)
}

// validAPI reports whether a record API can have the name.
func validAPI(name string) bool {
	return name != "" && len(name) <= 128 && !strings.ContainsFunc(name, func(c rune) bool {
		return c != '_' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z')
	})
}
