package auth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// maxToken is the longest credential that is looked at, in bytes.
const maxToken = 16 << 10

type userKey struct{}

// FromContext returns the user that [Service.Middleware] has found in a
// request, or nil for an anonymous one.
func FromContext(ctx context.Context) *User {
	u, _ := ctx.Value(userKey{}).(*User)
	return u
}

// NewContext returns a context in which [FromContext] finds u, for tests of
// handlers and for requests that the application has authenticated itself.
func NewContext(ctx context.Context, u *User) context.Context {
	return context.WithValue(ctx, userKey{}, u)
}

// Middleware finds out who makes a request and tells next by its context; see
// [FromContext]. A credential that is missing or no longer good makes the
// request an anonymous one: refusing it is up to next, or to
// [Service.RequireUser].
//
// It takes bearer tokens of this service, API keys, tokens of Config.Issuers
// and cookies. A request with an Authorization header is judged by that alone.
// One with cookies that changes something must not come from another origin's
// page (status 403); an expired auth cookie is renewed on the way while its
// session lasts.
//
// Answers to a user who is known by a cookie are marked as private to caches,
// unless next says otherwise.
func (s *Service) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, err := s.authenticate(w, r)
		if err != nil {
			s.answer(w, r, err)
			return
		}
		if u != nil {
			if u.Credential == Cookie {
				keepPrivate(w.Header())
			}
			r = r.WithContext(NewContext(r.Context(), u))
		}
		next.ServeHTTP(w, r)
	})
}

// keepPrivate keeps caches between us and a user from giving what was meant for
// one to another. Answers to requests with an Authorization header they keep
// to themselves anyway (RFC 9111, sections 3.5 and 5.2.2.7).
func keepPrivate(h http.Header) {
	if h["Cache-Control"] == nil {
		h.Set("Cache-Control", "private")
	}
	h.Add("Vary", "Cookie")
}

// RequireUser passes requests with a user to next. Others get status 401, or
// the sign-in page if a person is browsing, from where they come back. An API
// key must have the scope of all operations on all APIs, or its request gets
// status 403: next may do anything. A handler for other keys stands behind
// [Service.Middleware] alone and asks [User.Allows]. RequireUser stands behind
// [Service.Middleware] too.
func (s *Service) RequireUser(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u := FromContext(r.Context()); u != nil {
			if !u.Allows("*", "*") {
				s.answer(w, r, ErrForbidden)
				return
			}
			next.ServeHTTP(w, r)
			return
		}
		if target, err := s.redirectTarget(r.RequestURI); err == nil && navigates(r) {
			w.Header().Set("Cache-Control", "no-store")
			w.Header().Add("Vary", "Cookie, Authorization")
			redirect(w, s.cfg.PagesPrefix+"/login?redirect_uri="+url.QueryEscape(target))
			return
		}
		s.answer(w, r, ErrUnauthorized)
	})
}

// navigates reports whether a person is opening a page.
func navigates(r *http.Request) bool {
	return r.Method == http.MethodGet && r.Header.Get("Authorization") == "" && strings.Contains(r.Header.Get("Accept"), "text/html")
}

// RequireAdmin is like RequireUser for administrators: 403 to other users.
// API keys of an administrator do not count.
func (s *Service) RequireAdmin(next http.Handler) http.Handler {
	return s.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u := FromContext(r.Context()); !u.Admin || u.Credential == APIKey {
			s.answer(w, r, ErrForbidden)
			return
		}
		next.ServeHTTP(w, r)
	}))
}

// authenticate returns who makes the request, nil if nobody is known. The
// error is nil unless the request must be refused.
func (s *Service) authenticate(w http.ResponseWriter, r *http.Request) (*User, error) {
	if header, ok := r.Header["Authorization"]; ok {
		token := bearerToken(header)
		if token == "" {
			return nil, nil
		}
		return s.byToken(r, token)
	}
	auth, refresh := s.cookie(r, cookieAuth), s.cookie(r, cookieRefresh)
	if auth == "" && refresh == "" {
		return nil, nil
	}
	if err := s.csrf.Check(r); err != nil {
		return nil, &Error{Status: http.StatusForbidden, Text: "cross-origin request"}
	}
	if auth != "" {
		if u, err := s.lookup(r.Context(), auth, Cookie); u != nil || err != nil {
			return u, err
		}
	}
	if refresh == "" {
		return nil, nil
	}
	t, err := s.refresh(r.Context(), refresh, true)
	if e := asError(err); e != nil && e.Status == http.StatusUnauthorized {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s.setTokens(w, t.Tokens, time.Unix(t.state.expires, 0).Sub(s.now()), http.SameSiteStrictMode)
	w.Header().Add("Cache-Control", "no-store")
	return s.lookup(r.Context(), t.AuthToken, Cookie)
}

// bearerToken returns the token of an Authorization header, "" if it has none
// that is looked at.
func bearerToken(header []string) string {
	if len(header) != 1 {
		return ""
	}
	token, ok := strings.CutPrefix(header[0], "Bearer ")
	if !ok || len(token) > maxToken {
		return ""
	}
	return token
}

// byToken returns the user of a bearer token, whoever has issued it.
func (s *Service) byToken(r *http.Request, token string) (*User, error) {
	switch {
	case strings.HasPrefix(token, apiKeyPrefix):
		return s.byAPIKey(r, token)
	case len(s.issuers) > 0:
		if issuer := s.issuers[claimedIssuer(token)]; issuer != nil {
			return s.byIssuer(r.Context(), issuer, token)
		}
	}
	return s.lookup(r.Context(), token, Bearer)
}

// claimedIssuer reads the claim "iss" of a token that nobody has verified. It
// chooses between the configured issuers and does nothing else.
func claimedIssuer(token string) string {
	_, rest, _ := strings.Cut(token, ".")
	payload, _, _ := strings.Cut(rest, ".")
	raw, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return ""
	}
	var c struct {
		Iss any `json:"iss"`
	}
	if json.Unmarshal(raw, &c) != nil {
		return ""
	}
	name, _ := c.Iss.(string)
	return name
}

// cacheKey is by what a credential is known in memory.
func cacheKey(token string) [32]byte {
	var buf [1024]byte // longer than our tokens; the conversion of a string would allocate
	return sha256.Sum256(append(buf[:0], token...))
}
