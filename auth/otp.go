package auth

import (
	"context"
	"crypto/subtle"
	"net/http"
	"strings"

	"github.com/bedplate/bedplate/sqlite"
)

// serveOTPRequest is POST /otp/request: it mails a code to sign in with, if
// there is somebody to mail it to.
func (s *Service) serveOTPRequest(w http.ResponseWriter, r *http.Request) error {
	n, target, err := s.requestMail(w, r, mailOTP)
	if err != nil {
		return err
	}
	switch {
	case target != "" && n.email != "":
		target = withQuery(target, "email", n.email)
	case target != "":
		target = withQuery(target, "username", n.username)
	}
	return done(w, target, "OTP sent")
}

// serveOTPLogin is POST /otp/login. The code stands for the password: it is
// the first factor, and who has a second one is asked for it.
func (s *Service) serveOTPLogin(w http.ResponseWriter, r *http.Request) error {
	f, err := s.readForm(w, r)
	if err != nil {
		return err
	}
	params, err := s.loginParams(f)
	if err != nil {
		return err
	}
	n, err := loginName(f)
	if err != nil {
		return err
	}
	code := strings.ToUpper(strings.TrimSpace(f.param("code")))
	if code == "" {
		return badRequest("missing code")
	}
	u, stmts, err := s.checkOTP(r, n, code)
	if err == nil {
		err = s.complete(w, r, params, u, "otp", stmts)
	}
	if err != nil {
		return s.loginFailed(w, f, params, err)
	}
	return nil
}

// checkOTP returns the user with a name and a mailed code, and what a sign-in
// with them has to write. As with passwords, all failures are alike.
func (s *Service) checkOTP(r *http.Request, n name, code string) (*row, []sqlite.Stmt, error) {
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
	var id UserID // of nobody: nothing is found for it
	if u != nil {
		id = u.id
	}
	hash := s.mac(purposeOTP, string(id[:]))
	ok, err := s.isOTP(ctx, id, hash, code)
	if err != nil {
		return nil, nil, err
	}
	if !ok || u == nil || !u.active() {
		if err := a.failed(ctx, s.miss(purposeOTP, hash)...); err != nil {
			return nil, nil, err
		}
		return nil, nil, ErrUnauthorized
	}
	return u, append(a.firstSucceeded(u), s.mustTake(purposeOTP, hash, ErrUnauthorized)), nil
}

// isOTP reports whether code is the one that was mailed to a user.
func (s *Service) isOTP(ctx context.Context, id UserID, hash []byte, code string) (bool, error) {
	t, err := s.peek(ctx, purposeOTP, hash)
	if err != nil {
		return false, err
	}
	var state otpState
	if t.ok {
		if err := s.unsealData(purposeOTP, t.data, &state); err != nil {
			return false, err
		}
	}
	return subtle.ConstantTimeCompare(s.mac("otp code", string(id[:]), code), state.Code) == 1, nil
}
