package auth

import (
	"database/sql/driver"
	"net/http"

	"github.com/bedplate/bedplate/sqlite"
)

// serveResetRequest is POST /reset_password/request.
func (s *Service) serveResetRequest(w http.ResponseWriter, r *http.Request) error {
	_, target, err := s.requestMail(w, r, mailResetPassword)
	if err != nil {
		return err
	}
	return done(w, target, "Password reset email sent")
}

// serveResetUpdate is POST /reset_password/update. The old password may have
// been stolen, so everything that was got with it ends. It signs nobody in: a
// second factor is asked for as ever.
func (s *Service) serveResetUpdate(w http.ResponseWriter, r *http.Request) error {
	f, err := s.readForm(w, r)
	if err != nil {
		return err
	}
	target, failure, err := s.targets(f)
	if err != nil {
		return err
	}
	if err := s.resetPassword(r, f); err != nil {
		return formFailed(w, f, failure, err)
	}
	return done(w, target, "Password reset")
}

func (s *Service) resetPassword(r *http.Request, f *form) error {
	password := f.value("password")
	if err := s.policy.Check(password, f.value("password_repeat")); err != nil {
		return err
	}
	token := f.value("password_reset_token")
	if token == "" {
		token = f.value("password_reset_code")
	}
	hash, refused := hashToken(token), badRequest("Invalid token")
	t, err := s.peek(r.Context(), purposeReset, hash)
	if err != nil {
		return err
	}
	if !t.ok {
		return refused
	}
	u, err := s.userByID(r.Context(), t.user)
	if err != nil {
		return err
	}
	if u == nil {
		return refused
	}
	stmts := []sqlite.Stmt{
		s.mustTake(purposeReset, hash, refused),
		must(refused, `SELECT 1 FROM _user WHERE id = ? AND disabled = 0 AND email IS NOT NULL AND unverified_email IS NULL`, u.id[:]),
		endSessions(u.id, nil),
		dropAPIKeys(u.id),
		{SQL: `DELETE FROM _known_device WHERE user = ?`, Args: []driver.Value{u.id[:]}},
		// Who could not remember the password may sign in with the new one.
		s.limits.Forget("account", name{email: u.email}.account()),
		s.limits.Forget("account", name{username: u.username}.account()),
	}
	stmts = append(stmts, dropIdentities(u.id)...)
	return s.setPassword(r.Context(), password, append(stmts, s.notice(r, mailPasswordChanged, u, "")...), u.id)
}

// dropIdentities removes the identities of an account: a thief may have linked
// one, or have made the account with one whose provider lies about addresses.
// The owner links them again.
func dropIdentities(user UserID) []sqlite.Stmt {
	return []sqlite.Stmt{
		{SQL: `DELETE FROM _user_identity WHERE user = ?`, Args: []driver.Value{user[:]}},
		{
			SQL: `UPDATE _user SET provider_user_id = CASE WHEN provider_id = 0 THEN 'unlinked ' || hex(id) END
				WHERE id = ? AND provider_user_id IS NOT NULL`,
			Args: []driver.Value{user[:]},
		},
	}
}
