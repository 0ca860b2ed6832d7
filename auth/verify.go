package auth

import (
	"database/sql/driver"
	"net/http"

	"github.com/bedplate/bedplate/sqlite"
)

// serveVerifyTrigger is GET /verify_email/trigger: it mails the link to an
// address that waits for its verification once more. The answer says nothing
// about whether there is one.
func (s *Service) serveVerifyTrigger(w http.ResponseWriter, r *http.Request) error {
	f, err := readQuery(r)
	if err != nil {
		return err
	}
	target, err := s.target(f, "redirect_uri")
	if err != nil {
		return err
	}
	email, err := cleanEmail(f.param("email"))
	if err != nil {
		return err
	}
	if r.Method != http.MethodHead {
		if err := s.mailLimit(r, name{email: email}); err != nil {
			return err
		}
		if err := s.send(r.Context(), mailJob{Kind: mailVerifyEmail, Email: email, RedirectURI: target}); err != nil {
			return err
		}
	}
	return done(w, target, "Verification email sent")
}

// serveVerifyPage is GET /verify_email/confirm/{token}, the link in the mail.
func (s *Service) serveVerifyPage(w http.ResponseWriter, r *http.Request) error {
	return s.linkPage(w, r, "Confirm your email address", "Press the button to confirm that this email address is yours.", "Confirm")
}

// serveVerifyConfirm is POST on the same path: it makes the address the
// account's. The token is all it needs, so the body is not read and who is
// signed in does not matter.
func (s *Service) serveVerifyConfirm(w http.ResponseWriter, r *http.Request) error {
	l, err := s.readLink(r, purposeVerify, badRequest("invalid token"))
	if err != nil {
		return err
	}
	stmts := append([]sqlite.Stmt{l.take}, s.dropClaims(l.state.Email, l.user)...)
	stmts = append(stmts, must(l.refused,
		`UPDATE _user SET email = unverified_email, unverified_email = NULL
			WHERE id = ? AND unverified_email = ? AND disabled = 0 RETURNING 1`, l.user[:], l.state.Email))
	if err := s.db.Write(r.Context(), stmts...); err != nil {
		return taken(err)
	}
	s.changed()
	return done(w, l.target, "email verified")
}

// taken makes a conflict of the refusal by a unique index.
func taken(err error) error {
	if isConstraint(err) {
		return ErrConflict
	}
	return err
}

// dropClaims returns the statements that take an address, which a user has
// just proved to own, from all others who wait for its verification. Who had
// registered with it lied or made a mistake, and must not be found in an
// account that its owner takes for his: the password goes too, unless there is
// a user name by which such an account may live without an address. One that
// was anonymous before is so again.
func (s *Service) dropClaims(email string, owner UserID) []sqlite.Stmt {
	return []sqlite.Stmt{
		{
			SQL:  `DELETE FROM _one_time WHERE user IN (SELECT id FROM _user WHERE unverified_email = ? AND id <> ?)`,
			Args: []driver.Value{email, owner[:]},
		},
		{
			SQL: `UPDATE _user SET unverified_email = NULL,
				password_hash = CASE WHEN email IS NOT NULL OR ?3 <> 0 AND username IS NOT NULL THEN password_hash END
				WHERE unverified_email = ?1 AND id <> ?2`,
			Args: []driver.Value{email, owner[:], boolean(s.emailOptional())},
		},
	}
}

// emailOptional reports whether a user with a name needs no address.
func (s *Service) emailOptional() bool {
	return s.cfg.Identifier == OnlyUsername || s.cfg.Identifier == RequireUsername
}
