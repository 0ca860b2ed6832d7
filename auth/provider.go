package auth

import (
	"context"
	"crypto/subtle"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/bedplate/bedplate/auth/internal/throttle"
)

func (s *Service) providerRoutes(add addRoute) {
	add("GET /oauth/providers", s.serveProviders)
	add("GET /oauth/identities", s.serveIdentities)
	add("DELETE /oauth/identities/{identity}", s.serveUnlink)
	add("GET /oauth/{provider}/login", s.serveProviderLogin)
	add("GET /oauth/{provider}/callback", s.serveProviderCallback)
	add("POST /oauth/{provider}/link", s.serveLink)
}

// Bounds of what a visit to a provider may cost.
const (
	authURLTimeout  = 10 * time.Second
	exchangeTimeout = 20 * time.Second
	maxVisits       = 100     // requests that wait for one provider at the same time
	maxProviderCode = 4 << 10 // bytes of what the provider gives back
	maxSubjectID    = 255     // bytes of an account's id at the provider
)

// visitLimit bounds the visits that one address may begin: each is a row until
// it ends.
var visitLimit = throttle.Limit{Events: 1200, Per: time.Hour, Burst: 200}

// serveProviders is GET /oauth/providers: name and text for people.
func (s *Service) serveProviders(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, map[string]any{"providers": s.providerList()})
}

// providerList returns name and text of the providers, sorted.
func (s *Service) providerList() [][2]string {
	list := make([][2]string, 0, len(s.providers))
	for name, p := range s.providers {
		display := p.Provider().Display
		def(&display, name)
		list = append(list, [2]string{name, display})
	}
	slices.SortFunc(list, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	return list
}

// serveProviderLogin is GET /oauth/{provider}/login: it sends the browser to
// the provider, or to the sign-in page if it follows a link of another site. A
// client that gets a code does not need that: it has begun the sign-in itself
// if its verifier fits.
func (s *Service) serveProviderLogin(w http.ResponseWriter, r *http.Request) error {
	p, err := s.provider(w, r)
	if err != nil {
		return err
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return badRequest("invalid query")
	}
	params, err := s.loginParams(&form{query: query, body: map[string]string{}})
	if err != nil {
		return err
	}
	if params.challenge == "" && r.Header.Get("Sec-Fetch-Site") == "cross-site" {
		// Some providers ask nothing, or nobody but who runs them: a link on
		// another site must not sign people in, or in to another account.
		redirect(w, s.signInPage(params))
		return nil
	}
	target, err := s.beginVisit(w, r, p, nil, visit{
		Redirect: params.redirect, MFARedirect: params.mfaRedirect, Challenge: params.challenge,
	})
	if err != nil {
		return err
	}
	redirect(w, target)
	return nil
}

// signInPage is where people choose how to sign in.
func (s *Service) signInPage(p loginParams) string {
	var query []string
	if p.redirect != "" {
		query = append(query, "redirect_uri", p.redirect)
	}
	if p.mfaRedirect != "" {
		query = append(query, "mfa_redirect_uri", p.mfaRedirect)
	}
	return withQuery(s.cfg.PagesPrefix+"/login", query...)
}

// provider returns the provider that a path names. HEAD is refused: what these
// paths do is more than to show something.
func (s *Service) provider(w http.ResponseWriter, r *http.Request) (IdentityProvider, error) {
	p := s.providers[r.PathValue("provider")]
	if p == nil {
		return nil, &Error{Status: http.StatusMethodNotAllowed}
	}
	if r.Method == http.MethodHead {
		w.Header().Set("Allow", http.MethodGet)
		return nil, &Error{Status: http.StatusMethodNotAllowed}
	}
	return p, nil
}

// A visit is what is kept of a browser that was sent to a provider, under the
// hash of its state. It ends with the callback, whatever that says.
type visit struct {
	Provider string `json:"provider"` // to which the answer belongs
	Browser  []byte `json:"browser"`  // hash of the cookie
	Nonce    string `json:"nonce"`
	Verifier string `json:"verifier"`

	Redirect    string `json:"redirect,omitempty"` // checked
	MFARedirect string `json:"mfa_redirect,omitempty"`
	Challenge   string `json:"challenge,omitempty"` // of the client's PKCE

	Session []byte `json:"session,omitempty"` // that asks for a link; nil: a sign-in

	user UserID // whose session that is
}

// beginVisit stores a visit, gives the browser the cookie that binds it and
// returns where to go.
func (s *Service) beginVisit(w http.ResponseWriter, r *http.Request, p IdentityProvider, user *UserID, v visit) (string, error) {
	d := p.Provider()
	wait, err := s.limits.Take(r.Context(), throttle.Check{Scope: "provider", Subject: s.bucket(r), Limit: visitLimit})
	if err != nil {
		return "", err
	}
	if wait > 0 {
		return "", tooMany(wait)
	}
	state, browser := randomText(43, alphanumeric), randomText(43, alphanumeric)
	v.Provider, v.Browser = d.Name, hashToken(browser)
	v.Nonce, v.Verifier = randomText(43, alphanumeric), randomText(64, alphanumeric)
	target, err := s.authURL(r, p, s.authRequest(d, state, &v))
	if err != nil {
		return "", err
	}
	err = s.db.Write(r.Context(), s.put(oneTime{
		hash: hashToken(state), purpose: purposeProvider, user: user, data: v, ttl: providerTTL,
	}))
	if err != nil {
		return "", err
	}
	s.setCookie(w, cookieState, browser, providerTTL, http.SameSiteLaxMode)
	return target, nil
}

func (s *Service) authRequest(d Provider, state string, v *visit) AuthRequest {
	return AuthRequest{
		State: state, Nonce: v.Nonce, Verifier: v.Verifier,
		RedirectURL: s.cfg.SiteURL + s.cfg.Prefix + "/oauth/" + d.Name + "/callback",
	}
}

// errProvider is that a provider did not do its part.
var errProvider = &Error{Status: http.StatusFailedDependency}

func (s *Service) authURL(r *http.Request, p IdentityProvider, req AuthRequest) (string, error) {
	name := p.Provider().Name
	if !s.enter("provider", name) {
		return "", errWaiting
	}
	defer s.leave("provider", name)
	ctx, cancel := context.WithTimeout(r.Context(), authURLTimeout)
	defer cancel()
	target, err := p.AuthURL(ctx, req)
	if err != nil {
		s.quietly(r.Context(), slog.LevelWarn, "identity provider cannot be asked", name, err)
		return "", errProvider
	}
	return target, nil
}

// errWaiting is that too many wait for the same provider or issuer.
var errWaiting = &Error{Status: http.StatusServiceUnavailable, RetryAfter: time.Second}

// enter takes one of the places of those who wait for a provider or issuer.
func (s *Service) enter(kind, name string) bool {
	return s.attempts.enter("\x00"+kind+"\x00"+name, maxVisits)
}

func (s *Service) leave(kind, name string) { s.attempts.leave("\x00" + kind + "\x00" + name) }

// serveProviderCallback is GET /oauth/{provider}/callback, to which the
// provider sends the browser back. It ends a sign-in, or a link that
// POST /oauth/{provider}/link has begun.
func (s *Service) serveProviderCallback(w http.ResponseWriter, r *http.Request) error {
	p, err := s.provider(w, r)
	if err != nil {
		return err
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return badRequest("invalid query")
	}
	d := p.Provider()
	v, err := s.endVisit(w, r, d, query)
	if err != nil {
		return err
	}
	switch code := query.Get("code"); {
	case query.Get("error") == "access_denied":
		return badRequest("the sign-in was cancelled at the provider")
	case query.Get("error") != "":
		return badRequest("the provider refused the sign-in")
	case code == "" || len(code) > maxProviderCode:
		return badRequest("invalid code")
	}
	identity, err := s.exchange(r, p, query.Get("code"), s.authRequest(d, query.Get("state"), v))
	if err != nil {
		return err
	}
	if v.Session != nil {
		return s.endLink(w, r, d, v, identity)
	}
	u, with, err := s.providerUser(r, d, identity)
	if err != nil {
		return err
	}
	params := loginParams{redirect: v.Redirect, mfaRedirect: v.MFARedirect, challenge: v.Challenge, cookie: true, crossSite: true}
	return s.complete(w, r, params, u, "oauth:"+d.Name, with)
}

// endVisit uses a visit up. It must have begun in the same browser and at the
// same provider; a callback for which that is not so leaves it as it is, so
// that nobody can end the visits of others.
func (s *Service) endVisit(w http.ResponseWriter, r *http.Request, d Provider, query url.Values) (*visit, error) {
	browser, state := s.cookie(r, cookieState), query.Get("state")
	if browser == "" || state == "" {
		return nil, badRequest("missing state")
	}
	invalid := badRequest("invalid state")
	if len(query["state"]) > 1 || len(query["code"]) > 1 || len(query["error"]) > 1 || s.foreignIssuer(d, query["iss"]) {
		return nil, invalid
	}
	hash := hashToken(state)
	f, err := s.peek(r.Context(), purposeProvider, hash)
	if err != nil {
		return nil, err
	}
	if !f.ok {
		return nil, invalid
	}
	v := &visit{user: f.user}
	if err := s.unsealData(purposeProvider, f.data, v); err != nil {
		return nil, err
	}
	if v.Provider != d.Name || subtle.ConstantTimeCompare(v.Browser, hashToken(browser)) != 1 {
		return nil, invalid
	}
	if f, err = s.take(r.Context(), purposeProvider, hash); err != nil {
		return nil, err
	}
	if !f.ok {
		return nil, invalid // another callback was faster
	}
	s.dropCookies(w, r, cookieState)
	return v, nil
}

// foreignIssuer reports whether a callback says that it comes from another one
// of the configured providers (RFC 9207).
func (s *Service) foreignIssuer(d Provider, iss []string) bool {
	if len(iss) == 0 {
		return false
	}
	for _, p := range s.providers {
		if other := p.Provider(); other.Name != d.Name && slices.Contains(iss, other.Issuer) {
			return true
		}
	}
	return len(iss) > 1
}

// exchange asks the provider who has come back. What fails is logged and not
// told.
func (s *Service) exchange(r *http.Request, p IdentityProvider, code string, req AuthRequest) (Identity, error) {
	name := p.Provider().Name
	if !s.enter("provider", name) {
		return Identity{}, errWaiting
	}
	defer s.leave("provider", name)
	ctx, cancel := context.WithTimeout(r.Context(), exchangeTimeout)
	defer cancel()
	identity, err := p.Exchange(ctx, code, req)
	if err == nil {
		err = checkSubject(identity.Subject)
	}
	if err != nil {
		s.quietly(r.Context(), slog.LevelWarn, "sign-in at a provider failed", name, err)
		return Identity{}, errProvider
	}
	return identity, nil
}

// checkSubject refuses what can be nobody's id.
func checkSubject(subject string) error {
	if subject == "" || len(subject) > maxSubjectID || !utf8.ValidString(subject) || strings.ContainsRune(subject, 0) {
		return errors.New("auth: unusable subject")
	}
	return nil
}
