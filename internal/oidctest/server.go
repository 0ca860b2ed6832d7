// Package oidctest is an OpenID Provider for tests: discovery, the
// authorization code flow with PKCE, tokens, user info and rotating keys. It
// signs everybody in as the user it is told, without asking, and it can be
// told to misbehave.
//
//	provider := oidctest.New(t, oidctest.Options{})
//	provider.SetUser(oidctest.User{Subject: "42", Email: "ada@example.com", EmailVerified: true})
//	provider.Set(oidctest.Knobs{Claims: func(c map[string]any) { c["aud"] = "somebody else" }})
//
// It is no provider for anything but tests.
package oidctest

import (
	"crypto/subtle"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// Options configure a [Server].
type Options struct {
	// ClientID and ClientSecret are those of the only client; default "client"
	// and "secret".
	ClientID     string
	ClientSecret string

	// Authenticate replaces the check of the client's secret.
	Authenticate func(id, secret string) bool

	// Path is that of the issuer's URL, for New; default "".
	Path string

	// RedirectURIs are where codes may be sent; default anywhere.
	RedirectURIs []string

	// Alg signs ID tokens: RS256, ES256 (the default) or EdDSA.
	Alg string

	// User signs in; default a user "user" with a verified address.
	User *User

	// Lifetime is that of ID tokens; default 5 min.
	Lifetime time.Duration

	// Now is the clock; default time.Now.
	Now func() time.Time
}

// A User is who signs in. Empty fields are not told.
type User struct {
	Subject       string
	Email         string
	EmailVerified any // nil: not told
	Username      string
	Picture       string
	Claims        map[string]any // further claims
}

// Knobs make a [Server] misbehave. The zero value behaves.
type Knobs struct {
	// Claims and Header change an ID token before it is signed.
	Claims func(claims map[string]any)
	Header func(header map[string]any)

	// Alg signs with something else: "none", or "HS256" with the public key
	// as its secret.
	Alg string

	// UserInfo and Discovery change those documents.
	UserInfo  func(claims map[string]any)
	Discovery func(document map[string]any)

	// Endpoints replace endpoints, by path.
	Endpoints map[string]http.Handler
}

// The paths of a [Server] below its issuer.
const (
	DiscoveryPath = "/.well-known/openid-configuration"
	AuthorizePath = "/authorize"
	TokenPath     = "/token"
	KeysPath      = "/jwks"
	UserInfoPath  = "/userinfo"
)

// A Server is an OpenID Provider. Its methods are safe for concurrent use.
type Server struct {
	// Issuer is its URL.
	Issuer string

	opts Options
	mux  *http.ServeMux

	mu     sync.Mutex
	user   User
	knobs  Knobs
	keys   []key // the first one signs
	made   int
	grants map[string]grant // by code
	tokens map[string]User  // by access token
	counts map[string]int   // requests by path
}

// New starts a server on the loopback interface and closes it with the test.
func New(t testing.TB, opts Options) *Server {
	t.Helper()
	ts := httptest.NewUnstartedServer(nil)
	s, err := NewServer("http://"+ts.Listener.Addr().String()+opts.Path, opts)
	if err != nil {
		t.Fatal(err)
	}
	ts.Config.Handler = s
	ts.Start()
	t.Cleanup(ts.Close)
	return s
}

// NewServer returns a server that is to be served at the URL issuer, which
// has no slash at its end.
func NewServer(issuer string, opts Options) (*Server, error) {
	u, err := url.Parse(issuer)
	if err != nil || u.Host == "" || strings.HasSuffix(issuer, "/") {
		return nil, errors.New("oidctest: the issuer is no URL, or ends with a slash")
	}
	if opts.ClientID == "" {
		opts.ClientID, opts.ClientSecret = "client", "secret"
	}
	if opts.Alg == "" {
		opts.Alg = "ES256"
	}
	if opts.Lifetime == 0 {
		opts.Lifetime = 5 * time.Minute
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.User == nil {
		opts.User = &User{Subject: "user", Email: "user@example.com", EmailVerified: true, Username: "user"}
	}
	if opts.Authenticate == nil {
		opts.Authenticate = func(id, secret string) bool {
			return id == opts.ClientID && subtle.ConstantTimeCompare([]byte(secret), []byte(opts.ClientSecret)) == 1
		}
	}
	s := &Server{
		Issuer: issuer, opts: opts, user: *opts.User, mux: http.NewServeMux(),
		grants: map[string]grant{}, tokens: map[string]User{}, counts: map[string]int{},
	}
	if err := s.Rotate(false); err != nil {
		return nil, err
	}
	base := u.Path
	s.mux.HandleFunc("GET "+base+DiscoveryPath, s.discovery)
	s.mux.HandleFunc("GET "+base+AuthorizePath, s.authorize)
	s.mux.HandleFunc("POST "+base+TokenPath, s.token)
	s.mux.HandleFunc("GET "+base+KeysPath, s.jwks)
	s.mux.HandleFunc("GET "+base+UserInfoPath, s.userInfo)
	return s, nil
}

// Handler returns the server as a handler.
func (s *Server) Handler() http.Handler { return s }

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.counts[r.URL.Path]++
	instead := s.knobs.Endpoints[r.URL.Path]
	s.mu.Unlock()
	if instead != nil {
		instead.ServeHTTP(w, r)
		return
	}
	s.mux.ServeHTTP(w, r)
}

// SetUser changes who signs in.
func (s *Server) SetUser(u User) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.user = u
}

// Set replaces the knobs.
func (s *Server) Set(k Knobs) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.knobs = k
}

// Requests returns how many requests a path has had, and with "" all paths.
func (s *Server) Requests(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if path != "" {
		return s.counts[path]
	}
	n := 0
	for c := range maps.Values(s.counts) {
		n += c
	}
	return n
}

// Hang returns an endpoint that answers when the client has gone.
func Hang() http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // before that, nobody notices
		<-r.Context().Done()
	})
}

// Huge returns an endpoint with a body of JSON that does not end before it has
// as many bytes.
func Huge(size int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		chunk := []byte(strings.Repeat(" ", 32<<10))
		for n := 0; n < size; n += len(chunk) {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
		_, _ = w.Write([]byte("{}"))
	})
}

// Loop returns an endpoint that redirects to itself.
func Loop() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
	})
}

// Status returns an endpoint that answers with a status and a text.
func Status(code int, text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, text, code) })
}
