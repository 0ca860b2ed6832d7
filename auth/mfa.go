package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode"

	"github.com/bedplate/bedplate/internal/totp"
	"github.com/bedplate/bedplate/sqlite"
)

func (s *Service) mfaRoutes(add addRoute) {
	add("GET /totp/register", s.serveTOTPRegister)
	add("POST /totp/confirm", s.serveTOTPConfirm)
	add("POST /totp/unregister", s.serveTOTPUnregister)
	add("GET /totp/recovery_codes", s.serveRecoveryCodesLeft)
	add("POST /totp/recovery_codes", s.serveRecoveryCodes)
}

// serveLoginMFA is POST /login_mfa: the second factor of a sign-in whose first
// one was right, a code of the authenticator app or a recovery code.
func (s *Service) serveLoginMFA(w http.ResponseWriter, r *http.Request) error {
	f, err := s.readForm(w, r)
	if err != nil {
		return err
	}
	params, err := s.loginParams(f)
	if err != nil {
		return err
	}
	code := factorCode(f)
	if code == "" {
		return badRequest("TOTP missing")
	}
	if err := s.loginMFA(w, r, params, f.value("mfa_token"), code); err != nil {
		return s.loginMFAFailed(w, r, f, params, err)
	}
	return nil
}

func (s *Service) loginMFA(w http.ResponseWriter, r *http.Request, p loginParams, token, code string) error {
	hash := hashToken(token)
	t, err := s.peek(r.Context(), purposeMFA, hash)
	if err != nil {
		return err
	}
	if !t.ok {
		return ErrUnauthorized
	}
	var state mfaState
	if err := s.unsealData(purposeMFA, t.data, &state); err != nil {
		return err
	}
	u, err := s.userByID(r.Context(), t.user)
	switch {
	case err != nil:
		return err
	case u == nil || !u.active():
		return ErrUnauthorized
	case u.totp == "":
		return &Error{Status: http.StatusFailedDependency}
	}
	a, err := s.trySecondFactor(r.Context(), r, u)
	if err != nil {
		return err
	}
	defer a.release()
	shown, err := s.checkFactor(r.Context(), u, code)
	if err == nil {
		// What was counted on the way here is forgotten only now: the first
		// factor alone must not give anybody further guesses.
		stmts := append(shown.stmts, s.mustTake(purposeMFA, hash, errUsed), a.succeeded(),
			a.forget(name{email: u.email}.account()), a.forget(name{username: u.username}.account()))
		if shown.method == methodRecovery {
			stmts = append(stmts, s.notice(r, mailRecoveryCodeUsed, u, "")...)
		}
		err = s.complete(w, r, p, u, state.Method+" "+shown.method, stmts)
	}
	if errors.Is(err, errWrongFactor) || errors.Is(err, errUsed) {
		if err := a.failed(r.Context(), s.miss(purposeMFA, hash)...); err != nil {
			return err
		}
		return ErrUnauthorized
	}
	s.outbox.Wake()
	return err
}

// loginMFAFailed sends a browser's form back to where the code is asked for as
// long as there are tries left, and otherwise as a failed login.
func (s *Service) loginMFAFailed(w http.ResponseWriter, r *http.Request, f *form, p loginParams, err error) error {
	e := asError(err)
	if f.json || p.redirect == "" || f.value("redirect_uri") == "" || e == nil {
		return err
	}
	alert := ""
	switch e.Status {
	case http.StatusUnauthorized:
		alert = "Wrong code. Please try again."
	case http.StatusTooManyRequests:
		alert = "Too many attempts. Please try again later."
	default:
		return err
	}
	token := f.value("mfa_token")
	t, peekErr := s.peek(r.Context(), purposeMFA, hashToken(token))
	if peekErr != nil {
		return peekErr
	}
	if !t.ok {
		return s.loginFailed(w, f, p, err)
	}
	redirect(w, withQuery(s.mfaURL(p, token), "alert", alert))
	return nil
}

// The second factors, as they are added to a session's method.
const (
	methodTOTP     = "totp"
	methodRecovery = "recovery"
)

// errWrongFactor is that a code was wrong or too old.
var errWrongFactor = errors.New("auth: wrong code of a second factor")

// factorAccount is what limits count the codes of a user for. It is not the
// account that passwords are counted for, which who knows the password could
// clear.
func factorAccount(id UserID) string { return "mfa/" + id.String() }

// factorCode reads a code as people type it: with spaces or hyphens, in either
// case.
func factorCode(f *form) string {
	for _, field := range []string{"totp", "recovery_code"} {
		code := strings.Map(func(c rune) rune {
			if unicode.IsSpace(c) || c == '-' {
				return -1
			}
			return c
		}, f.value(field))
		if code != "" {
			return strings.ToUpper(code)
		}
	}
	return ""
}

// A shownFactor is a second factor that was right. Its statements use the code
// up; of several who show the same code, the write of one succeeds and the
// others fail with errUsed.
type shownFactor struct {
	method string
	stmts  []sqlite.Stmt
}

// checkFactor checks a code of the user's app, or else a recovery code; they
// differ in length.
func (s *Service) checkFactor(ctx context.Context, u *row, code string) (shownFactor, error) {
	if len(code) == recoveryLength {
		return s.checkRecoveryCode(ctx, u, code)
	}
	return s.checkTOTP(u, code)
}

func (s *Service) checkTOTP(u *row, code string) (shownFactor, error) {
	secret, err := s.seed(u)
	if err != nil {
		return shownFactor{}, fmt.Errorf("auth: read the TOTP secret of user %s: %w", u.id, err)
	}
	step, ok := totp.Verify(secret, code, s.now(), u.totpStep)
	if !ok {
		return shownFactor{}, errWrongFactor
	}
	stored := u.totp
	if !isSealed(stored) {
		stored = s.sealSeed(u.id, secret) // somebody has written it as it is, since the start
	}
	return shownFactor{methodTOTP, []sqlite.Stmt{must(errUsed,
		`UPDATE _user SET totp_step = ?1, totp_secret = ?2 WHERE id = ?3 AND totp_step < ?1 AND totp_secret = ?4 RETURNING 1`,
		step, stored, u.id[:], u.totp)}}, nil
}

// tryFactor is checkFactor for a user who is signed in: what follows is done
// in the same write, and a wrong code is counted and answered with 401.
func (s *Service) tryFactor(r *http.Request, u *row, check func() (shownFactor, error), then ...sqlite.Stmt) error {
	a, err := s.trySecondFactor(r.Context(), r, u)
	if err != nil {
		return err
	}
	defer a.release()
	shown, err := check()
	if err == nil {
		err = s.db.Write(r.Context(), append(append(shown.stmts, a.succeeded()), then...)...)
	}
	if errors.Is(err, errWrongFactor) || errors.Is(err, errUsed) {
		if err := a.failed(r.Context()); err != nil {
			return err
		}
		return ErrUnauthorized
	}
	return err
}
