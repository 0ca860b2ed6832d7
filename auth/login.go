package auth

import (
	"context"
	"database/sql/driver"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/bedplate/bedplate/auth/internal/throttle"
	"github.com/bedplate/bedplate/sqlite"
)

// loginParams are what the end of a sign-in depends on, wherever it began.
type loginParams struct {
	redirect    string // checked; "" is nowhere
	mfaRedirect string
	failure     string // where a browser's form goes back to
	challenge   string // of PKCE; with it the client gets a code instead of tokens
	cookie      bool   // the client is a browser's form
	crossSite   bool   // it comes from an identity provider
}

// sameSite is that of the auth cookie: after a visit to another site a strict
// one would not be sent with the first request.
func (p loginParams) sameSite() http.SameSite {
	if p.crossSite {
		return http.SameSiteLaxMode
	}
	return http.SameSiteStrictMode
}

// loginParams reads them from a request.
func (s *Service) loginParams(f *form) (p loginParams, err error) {
	p.cookie = !f.json
	p.challenge = f.param("pkce_code_challenge")
	code := f.param("response_type") == "code"
	switch kind := f.param("response_type"); {
	case kind != "" && kind != "token" && kind != "code":
		return p, badRequest("invalid 'response_type'")
	case code && f.param("redirect_uri") == "":
		return p, badRequest("missing 'redirect_uri'")
	case code && p.challenge == "":
		return p, badRequest("missing 'pkce_code_challenge'")
	case code && !validChallenge(p.challenge):
		return p, badRequest("invalid 'pkce_code_challenge'")
	case !code && p.challenge != "":
		return p, badRequest("set 'response_type=code' or remove pkce_code_challenge")
	}
	if p.redirect, err = s.target(f, "redirect_uri"); err != nil {
		return p, err
	}
	if p.mfaRedirect, err = s.target(f, "mfa_redirect_uri"); err != nil {
		return p, err
	}
	p.failure, err = s.target(f, "err_redirect_uri")
	return p, err
}

// validChallenge reports whether s can be the SHA-256 of a verifier (RFC 7636,
// section 4.2). The plain method is not supported.
func validChallenge(s string) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s) // skips line breaks
	return err == nil && len(b) == 32 && len(s) == 43
}

func (s *Service) serveLogin(w http.ResponseWriter, r *http.Request) error {
	f, err := s.readForm(w, r)
	if err != nil {
		return err
	}
	n, err := loginName(f)
	if err != nil {
		return err
	}
	params, err := s.loginParams(f)
	if err != nil {
		return err
	}
	login := func() error {
		u, stmts, err := s.checkPassword(r, n, f.value("password"))
		if err != nil {
			return err
		}
		return s.complete(w, r, params, u, "password", stmts)
	}
	err = login()
	if errors.Is(err, errStale) {
		err = login() // with the new hash; it may be one of the same password
	}
	if err != nil {
		return s.loginFailed(w, f, params, err)
	}
	return nil
}

// errStale is that the password was changed while it was checked.
var errStale = &Error{Status: http.StatusUnauthorized}

// loginFailed sends a browser's form back with a message.
func (s *Service) loginFailed(w http.ResponseWriter, f *form, p loginParams, err error) error {
	e, target := asError(err), p.failure
	if target == "" && f.value("redirect_uri") != "" {
		target = p.redirect
	}
	if f.json || target == "" || e == nil {
		return err
	}
	switch e.Status {
	case http.StatusUnauthorized:
		redirect(w, withQuery(target, "alert", "Login Failed: 401 Unauthorized"))
	case http.StatusTooManyRequests:
		redirect(w, withQuery(target, "alert", "Login Failed: 429 Too Many Requests"))
	default:
		return err
	}
	return nil
}

// checkPassword returns the user with a name and a password, and what a
// sign-in with them has to write. All failures are alike: nobody of that name,
// no password, a wrong one, an address that is not verified, a disabled
// account; and they take alike long.
func (s *Service) checkPassword(r *http.Request, n name, password string) (*row, []sqlite.Stmt, error) {
	ctx := r.Context()
	u, err := s.userByName(ctx, n)
	if err != nil {
		return nil, nil, err
	}
	a, err := s.try(ctx, r, n.account(), u)
	if err != nil {
		return nil, nil, err
	}
	defer a.release()
	hash := ""
	if u != nil {
		hash = u.hash
	}
	ok, outdated, err := s.hasher.Verify(ctx, hash, password)
	if err != nil {
		return nil, nil, err
	}
	if !ok || u == nil || !u.active() {
		if err := a.failed(ctx); err != nil {
			return nil, nil, err
		}
		return nil, nil, ErrUnauthorized
	}
	// What begins with a password must not outlive it.
	stmts := append(a.firstSucceeded(u), must(errStale, `SELECT 1 FROM _user WHERE id = ? AND password_hash = ?`, u.id[:], u.hash))
	if outdated {
		// In the background of this sign-in: it may fail without harm.
		if better, err := s.hasher.Hash(ctx, password); err == nil {
			stmts = append(stmts, sqlite.Stmt{
				SQL:  `UPDATE _user SET password_hash = ? WHERE id = ? AND password_hash = ?`,
				Args: []driver.Value{better, u.id[:], u.hash},
			})
		}
	}
	return u, stmts, nil
}

// maxPending is how many sign-ins of a user may wait for a second factor. They
// do not end each other, or who knows the password could keep its owner out.
const maxPending = 100

// mfaState is the data of the token between first and second factor.
type mfaState struct {
	Method string `json:"method"`
}

// complete ends a sign-in whose first factor was right: with a demand for the
// second one, with a code for a native client, with cookies or with tokens.
func (s *Service) complete(w http.ResponseWriter, r *http.Request, p loginParams, u *row, method string, with []sqlite.Stmt) error {
	if u.totp != "" && !hasSecondFactor(method) {
		return s.demandSecondFactor(w, r, p, u, method, with)
	}
	if p.challenge != "" {
		return s.giveCode(w, r, p, u, method, with)
	}
	in := signIn{user: u, method: method, request: r, with: with}
	if p.cookie {
		if in.browser = s.cookie(r, cookieDevice); in.browser == "" {
			in.browser = randomText(24, alphanumeric)
		}
	}
	t, err := s.begin(r.Context(), in)
	if err != nil {
		return err
	}
	if !p.cookie {
		return writeJSON(w, t)
	}
	s.setTokens(w, t, s.sessionTTL(u), p.sameSite())
	s.setCookie(w, cookieDevice, in.browser, deviceTTL, http.SameSiteLaxMode)
	if p.redirect != "" {
		redirect(w, p.redirect)
		return nil
	}
	return writeText(w, "logged in")
}

// hasSecondFactor reports whether a method names two factors.
func hasSecondFactor(method string) bool { return strings.Contains(method, " ") }

func (s *Service) sessionTTL(u *row) time.Duration {
	if u.anonymous() {
		return s.cfg.AnonymousTTL
	}
	return s.cfg.RefreshTTL
}

func (s *Service) demandSecondFactor(w http.ResponseWriter, r *http.Request, p loginParams, u *row, method string, with []sqlite.Stmt) error {
	token := randomText(48, alphanumeric)
	stmts := append(with, dropOldest(u.id, purposeMFA, maxPending-1),
		s.put(oneTime{hash: hashToken(token), purpose: purposeMFA, user: &u.id, data: mfaState{method}, ttl: mfaTTL}))
	if err := s.db.Write(r.Context(), stmts...); err != nil {
		return err
	}
	if !p.cookie {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`{"mfa_token":"` + token + `"}`)) // the client is gone if this fails
		return nil
	}
	redirect(w, s.mfaURL(p, token))
	return nil
}

// mfaURL is where a browser shows its second factor.
func (s *Service) mfaURL(p loginParams, token string) string {
	target := p.mfaRedirect
	if target == "" {
		target = s.cfg.PagesPrefix + "/login_mfa"
	}
	pairs := []string{"mfa_token", token}
	if p.redirect != "" {
		pairs = append(pairs, "redirect_uri", p.redirect)
	}
	if p.challenge != "" {
		pairs = append(pairs, "response_type", "code", "pkce_code_challenge", p.challenge)
	}
	return withQuery(target, pairs...)
}

// codeState is the data of an authorization code.
type codeState struct {
	Challenge string `json:"challenge"`
	Method    string `json:"method"`
}

// giveCode sends the client to its redirect URI with an authorization code,
// which it exchanges for tokens together with the verifier.
func (s *Service) giveCode(w http.ResponseWriter, r *http.Request, p loginParams, u *row, method string, with []sqlite.Stmt) error {
	code := randomText(48, alphanumeric)
	err := s.db.Write(r.Context(), append(with, s.put(oneTime{
		hash: hashToken(code), purpose: purposeCode, user: &u.id, data: codeState{p.challenge, method}, ttl: codeTTL,
	}))...)
	if err != nil {
		return err
	}
	redirect(w, withQuery(p.redirect, "code", code))
	return nil
}

func (s *Service) serveRegister(w http.ResponseWriter, r *http.Request) error {
	f, err := s.readForm(w, r)
	if err != nil {
		return err
	}
	if s.cfg.NoPasswords {
		return ErrForbidden
	}
	target, failure, err := s.targets(f)
	if err != nil {
		return err
	}
	n, err := s.newName(f.value("email"), f.value("username"))
	if err != nil {
		return formFailed(w, f, failure, err)
	}
	if err := s.policy.Check(f.value("password"), f.value("password_repeat")); err != nil {
		if failure == "" {
			failure = target
		}
		return formFailed(w, f, failure, err)
	}
	if err := s.registrationLimit(r, n.email); err != nil {
		return err
	}
	hash, err := s.hasher.Hash(r.Context(), f.value("password"))
	if err != nil {
		return err
	}
	if err := s.createUser(r.Context(), n, hash, f.param("redirect_uri")); err != nil {
		return err
	}
	text := "registered"
	if target != "" && n.email != "" {
		text = "Registered " + n.email + ". Please follow the link in the mail that we have sent."
	}
	return done(w, target, text)
}

// errTaken is that a user name belongs to another account.
var errTaken = errors.New("auth: name is taken")

// createUser makes an account. Nobody learns whether the address has one
// already, and neither by the time it takes: the worker that sends the mail
// looks for that, tells the owner and removes the new one.
func (s *Service) createUser(ctx context.Context, n name, hash, redirectURI string) error {
	id := newUserID()
	err := s.db.Update(ctx, func(tx *sqlite.Tx) error {
		fresh := NewUser{Email: n.email, Username: n.username}
		if err := s.beforeCreate(ctx, tx, &fresh); err != nil {
			return err
		}
		now := s.now().Unix()
		_, err := tx.ExecContext(ctx, `INSERT INTO _user (id, unverified_email, username, password_hash, admin, created, updated)
			VALUES (?, ?, ?, ?, ?, ?, ?)`,
			id[:], null(fresh.Email), null(fresh.Username), hash, boolean(fresh.Admin), now, now)
		if isConstraint(err) {
			return errTaken
		}
		if err != nil {
			return err
		}
		return s.enqueue(ctx, tx, mailJob{Kind: mailVerifyEmail, User: id[:], New: true, RedirectURI: redirectURI})
	})
	if errors.Is(err, errTaken) {
		err = s.db.Update(ctx, func(tx *sqlite.Tx) error {
			return s.enqueue(ctx, tx, mailJob{Kind: mailRegisteredAlready, Email: n.email})
		})
	}
	s.outbox.Wake()
	return err
}

func (s *Service) beforeCreate(ctx context.Context, tx *sqlite.Tx, u *NewUser) (err error) {
	if s.cfg.Hooks.BeforeCreate == nil {
		return nil
	}
	defer recoverHook(&err)
	return s.cfg.Hooks.BeforeCreate(ctx, tx, u)
}

// isConstraint reports whether a unique index, or another constraint, refused
// a write (https://www.sqlite.org/rescode.html#constraint).
func isConstraint(err error) bool { return sqlite.Code(err)&0xff == 19 }

// registrationLimit counts a new account against the request's address, and
// the mail that goes to the account's against that one, whoever has it.
func (s *Service) registrationLimit(r *http.Request, email string) error {
	checks := []throttle.Check{{Scope: "registration", Subject: s.bucket(r), Limit: s.cfg.Limits.Registrations.limit()}}
	if email != "" {
		checks = append(checks, s.recipientChecks(name{email: email})...)
	}
	return s.takeLimits(r, checks)
}
