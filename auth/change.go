package auth

import (
	"context"
	"crypto/subtle"
	"net/http"
	"strings"

	"github.com/bedplate/bedplate/sqlite"
)

// serveChangeEmail is POST /change_email/request: it mails a link to the new
// address, or removes the present one if there is no new one. The answer is
// the same for an address that belongs to somebody else, who is told by mail.
func (s *Service) serveChangeEmail(w http.ResponseWriter, r *http.Request) error {
	caller, err := s.requireFresh(w, r)
	if err != nil {
		return err
	}
	f, err := s.readForm(w, r)
	if err != nil {
		return err
	}
	target, failure, err := s.targets(f)
	if err != nil {
		return err
	}
	text, err := s.changeEmail(r, f, caller, target)
	if err != nil {
		return formFailed(w, f, failure, err)
	}
	if f.json {
		target = "" // this route is not one that redirects programs
	}
	return done(w, target, text)
}

func (s *Service) changeEmail(r *http.Request, f *form, caller *User, target string) (text string, err error) {
	csrf := f.value("csrf_token")
	if csrf == "" {
		csrf = r.Header.Get("CSRF-Token")
	}
	if (csrf != "" || caller.Credential == Cookie) && subtle.ConstantTimeCompare([]byte(csrf), []byte(caller.csrf)) != 1 {
		return "", badRequest("Invalid CSRF token")
	}
	u, err := s.userByID(r.Context(), caller.ID)
	if err != nil {
		return "", err
	}
	if u == nil {
		return "", ErrUnauthorized
	}
	if old := strings.TrimSpace(f.value("old_email")); old != "" && !strings.EqualFold(old, u.email) {
		return "", badRequest("Invalid old email")
	}
	email := strings.TrimSpace(f.value("new_email"))
	if email == "" {
		return "email removed", s.removeEmail(r, u, caller.session)
	}
	if s.cfg.Identifier == OnlyUsername {
		return "", badRequest("Email not allowed")
	}
	if email, err = cleanEmail(email); err != nil {
		return "", err
	}
	if err := s.mailLimit(r, name{email: email}); err != nil {
		return "", err
	}
	return "Verification mail sent to " + email + ".", s.send(r.Context(), mailJob{
		Kind: mailChangeEmail, User: u.id[:], Session: caller.session, Email: email, RedirectURI: target,
	})
}

// removeEmail leaves an account with its name only.
func (s *Service) removeEmail(r *http.Request, u *row, session []byte) error {
	refused := badRequest("Cannot unset email")
	if !s.emailOptional() {
		return refused
	}
	// Without a name nobody could sign in, and without a password only who
	// has linked another account.
	stmts := []sqlite.Stmt{must(refused,
		`UPDATE _user SET email = NULL, unverified_email = NULL WHERE id = ?1 AND email IS ?2 AND username IS NOT NULL
			AND (password_hash IS NOT NULL OR provider_id <> 0 OR EXISTS (SELECT 1 FROM _user_identity WHERE user = ?1)) RETURNING 1`,
		u.id[:], null(u.email))}
	return s.addressChanged(r, u.id, u.email, session, stmts)
}

// addressChanged does what changes an address, and what follows from it: mails
// that went to the old address are worth nothing any more, sessions but one
// end, and the owner of the old address is told.
func (s *Service) addressChanged(r *http.Request, user UserID, old string, session []byte, stmts []sqlite.Stmt) error {
	stmts = append(stmts, dropTokens(user), dropOthers(user, purposeVerify), endSessions(user, session))
	if old != "" {
		stmts = append(stmts, s.notice(r, mailEmailChanged, &row{id: user}, old)...)
	}
	if err := s.db.Write(r.Context(), stmts...); err != nil {
		return taken(err)
	}
	s.changed()
	s.outbox.Wake()
	return nil
}

// serveChangeEmailPage is GET /change_email/confirm/{token}, the link in the
// mail.
func (s *Service) serveChangeEmailPage(w http.ResponseWriter, r *http.Request) error {
	return s.linkPage(w, r, "Change your email address", "Press the button to use this email address for your account from now on.", "Change")
}

// serveChangeEmailConfirm is POST on the same path. It fails if the session
// that asked for it has ended, or the account has got another address since,
// or somebody else this one.
func (s *Service) serveChangeEmailConfirm(w http.ResponseWriter, r *http.Request) error {
	l, err := s.readLink(r, purposeChange, badRequest("Invalid token"))
	if err != nil {
		return err
	}
	stmts := append([]sqlite.Stmt{
		l.take,
		must(l.refused, `SELECT 1 FROM _session WHERE id = ? AND user = ? AND expires > ?`, l.state.Session, l.user[:], s.now().Unix()),
	}, s.dropClaims(l.state.Email, l.user)...)
	stmts = append(stmts, must(ErrConflict,
		`UPDATE _user SET email = ?, unverified_email = NULL WHERE id = ? AND email IS ? AND disabled = 0 RETURNING 1`,
		l.state.Email, l.user[:], null(l.state.Old)))
	if err := s.addressChanged(r, l.user, l.state.Old, l.state.Session, stmts); err != nil {
		return err
	}
	return done(w, l.target, "email changed")
}

// serveChangeUsername is POST /change_username.
func (s *Service) serveChangeUsername(w http.ResponseWriter, r *http.Request) error {
	caller, err := s.requireSession(w, r)
	if err != nil {
		return err
	}
	f, err := s.readForm(w, r)
	if err != nil {
		return err
	}
	username := strings.TrimSpace(f.value("new_username"))
	stmt := must(badRequest("Cannot unset username"),
		`UPDATE _user SET username = NULL WHERE id = ? AND email IS NOT NULL RETURNING 1`, caller.ID[:])
	switch policy := s.cfg.Identifier; {
	case username == "" && policy != OnlyEmail && policy != RequireEmail:
		return badRequest("Cannot unset username")
	case username != "" && policy == OnlyEmail:
		return badRequest("Cannot change username")
	case username != "":
		if username, err = cleanUsername(username); err != nil {
			return err
		}
		stmt = must(ErrUnauthorized, `UPDATE _user SET username = ? WHERE id = ? RETURNING 1`, username, caller.ID[:])
	}
	if err := s.db.Write(r.Context(), stmt); err != nil {
		return taken(err)
	}
	s.changed()
	w.WriteHeader(http.StatusOK)
	return nil
}

// serveChangePassword is POST /change_password. Whoever has got hold of a
// session must know the old password as well, and is as limited in guessing it
// as at the sign-in.
func (s *Service) serveChangePassword(w http.ResponseWriter, r *http.Request) error {
	caller, err := s.requireSession(w, r)
	if err != nil {
		return err
	}
	f, err := s.readForm(w, r)
	if err != nil {
		return err
	}
	target, failure, err := s.targets(f)
	if err != nil {
		return err
	}
	if err := s.changePassword(r, f, caller); err != nil {
		return formFailed(w, f, failure, err)
	}
	return done(w, target, "password changed")
}

func (s *Service) changePassword(r *http.Request, f *form, caller *User) error {
	ctx := r.Context()
	password := f.value("new_password")
	repeat, given := f.body["new_password_repeat"]
	if !given {
		repeat = password
	}
	if err := s.policy.Check(password, repeat); err != nil {
		return err
	}
	u, err := s.userByID(ctx, caller.ID)
	if err != nil {
		return err
	}
	if u == nil {
		return ErrUnauthorized
	}
	refused := badRequest("invalid `old_password`")
	a, err := s.try(ctx, r, u.limitName(), u)
	if err != nil {
		return err
	}
	defer a.release()
	ok, _, err := s.hasher.Verify(ctx, u.hash, f.value("old_password"))
	if err != nil {
		return err
	}
	if !ok {
		if err := a.failed(ctx); err != nil {
			return err
		}
		return refused
	}
	return s.setPassword(ctx, password, append([]sqlite.Stmt{
		a.succeeded(),
		// Somebody else may have changed it meanwhile.
		must(refused, `SELECT 1 FROM _user WHERE id = ? AND password_hash = ?`, u.id[:], u.hash),
		endSessions(u.id, caller.session),
	}, s.notice(r, mailPasswordChanged, u, "")...), u.id)
}

// setPassword gives a user a new password, in one write with further
// statements. What was begun with the old one ends.
func (s *Service) setPassword(ctx context.Context, password string, with []sqlite.Stmt, user UserID) error {
	hash, err := s.hasher.Hash(ctx, password)
	if err != nil {
		return err
	}
	err = s.db.Write(ctx, append(with, dropTokens(user),
		must(ErrUnauthorized, `UPDATE _user SET password_hash = ? WHERE id = ? AND disabled = 0 RETURNING 1`, hash, user[:]))...)
	s.changed()
	s.outbox.Wake()
	return err
}

// limitName is what attempts for u are counted by, the same as at a sign-in
// with the address or, without one, with the name.
func (u *row) limitName() string {
	if u.email == "" && u.username == "" {
		return "user/" + u.id.String()
	}
	return name{u.email, u.username}.account()
}
