package oidctest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A grant is what a code stands for.
type grant struct {
	user      User
	redirect  string
	challenge string
	nonce     string
	expires   time.Time
}

// maxGrants bounds the codes and the access tokens that are remembered.
const maxGrants = 10_000

func (s *Server) discovery(w http.ResponseWriter, _ *http.Request) {
	document := map[string]any{
		"issuer":                                s.Issuer,
		"authorization_endpoint":                s.Issuer + AuthorizePath,
		"token_endpoint":                        s.Issuer + TokenPath,
		"jwks_uri":                              s.Issuer + KeysPath,
		"userinfo_endpoint":                     s.Issuer + UserInfoPath,
		"response_types_supported":              []string{"code"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{"RS256", "ES256", "EdDSA"},
		"token_endpoint_auth_methods_supported": []string{"client_secret_basic", "client_secret_post"},
		"code_challenge_methods_supported":      []string{"S256"},
		"scopes_supported":                      []string{"openid", "email", "profile"},
	}
	if change := s.current().Discovery; change != nil {
		change(document)
	}
	writeJSON(w, http.StatusOK, document)
}

func (s *Server) current() Knobs {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.knobs
}

// authorize is the authorization endpoint (RFC 6749, section 4.1.1). It
// approves at once.
func (s *Server) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	redirect, err := url.Parse(q.Get("redirect_uri"))
	if err != nil || !redirect.IsAbs() || q.Get("client_id") != s.opts.ClientID ||
		s.opts.RedirectURIs != nil && !slices.Contains(s.opts.RedirectURIs, q.Get("redirect_uri")) {
		http.Error(w, "unknown client or redirect_uri", http.StatusBadRequest)
		return
	}
	answer := redirect.Query()
	answer.Set("state", q.Get("state"))
	answer.Set("iss", s.Issuer) // RFC 9207
	switch {
	case q.Get("response_type") != "code":
		answer.Set("error", "unsupported_response_type")
	case q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43:
		answer.Set("error", "invalid_request")
	case !slices.Contains(strings.Fields(q.Get("scope")), "openid"):
		answer.Set("error", "invalid_scope")
	default:
		code, ok := s.grant(q)
		if !ok {
			answer.Set("error", "temporarily_unavailable")
			break
		}
		answer.Set("code", code)
	}
	redirect.RawQuery = answer.Encode()
	http.Redirect(w, r, redirect.String(), http.StatusFound)
}

func (s *Server) grant(q url.Values) (code string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.grants) >= maxGrants {
		return "", false
	}
	code = rand.Text()
	s.grants[code] = grant{
		user: s.user, redirect: q.Get("redirect_uri"), challenge: q.Get("code_challenge"),
		nonce: q.Get("nonce"), expires: s.opts.Now().Add(time.Minute),
	}
	return code, true
}

// token is the token endpoint. A code works once.
func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	if err := r.ParseForm(); err != nil {
		refuse(w, http.StatusBadRequest, "invalid_request")
		return
	}
	if !s.authenticated(r) {
		refuse(w, http.StatusUnauthorized, "invalid_client")
		return
	}
	if r.PostForm.Get("grant_type") != "authorization_code" {
		refuse(w, http.StatusBadRequest, "unsupported_grant_type")
		return
	}
	code := r.PostForm.Get("code")
	s.mu.Lock()
	g, ok := s.grants[code]
	delete(s.grants, code)
	s.mu.Unlock()
	challenge := sha256.Sum256([]byte(r.PostForm.Get("code_verifier")))
	if !ok || s.opts.Now().After(g.expires) || g.redirect != r.PostForm.Get("redirect_uri") ||
		base64.RawURLEncoding.EncodeToString(challenge[:]) != g.challenge {
		refuse(w, http.StatusBadRequest, "invalid_grant")
		return
	}
	access := rand.Text()
	s.mu.Lock()
	if len(s.tokens) >= maxGrants {
		clear(s.tokens)
	}
	s.tokens[access] = g.user
	s.mu.Unlock()
	id, err := s.IDToken(g.user, g.nonce)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, map[string]any{
		"access_token": access, "token_type": "Bearer", "expires_in": 300, "id_token": id, "scope": "openid email profile",
	})
}

// authenticated reports whether the client has shown its secret: with
// client_secret_basic or with client_secret_post, not with both.
func (s *Server) authenticated(r *http.Request) bool {
	id, secret := r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	if user, password, ok := r.BasicAuth(); ok {
		var err1, err2 error
		if secret != "" {
			return false
		}
		id, err1 = url.QueryUnescape(user)
		secret, err2 = url.QueryUnescape(password)
		if err1 != nil || err2 != nil {
			return false
		}
	}
	return s.opts.Authenticate(id, secret)
}

func (s *Server) userInfo(w http.ResponseWriter, r *http.Request) {
	access, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	s.mu.Lock()
	user, known := s.tokens[access]
	change := s.knobs.UserInfo
	s.mu.Unlock()
	if !ok || !known {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		http.Error(w, "unknown token", http.StatusUnauthorized)
		return
	}
	claims := user.claims()
	if change != nil {
		change(claims)
	}
	writeJSON(w, http.StatusOK, claims)
}

func (u User) claims() map[string]any {
	claims := map[string]any{"sub": u.Subject}
	for name, value := range map[string]string{"email": u.Email, "preferred_username": u.Username, "picture": u.Picture} {
		if value != "" {
			claims[name] = value
		}
	}
	if u.EmailVerified != nil {
		claims["email_verified"] = u.EmailVerified
	}
	for name, value := range u.Claims {
		claims[name] = value
	}
	return claims
}

func refuse(w http.ResponseWriter, status int, code string) {
	writeJSON(w, status, map[string]any{"error": code})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client has gone
}
