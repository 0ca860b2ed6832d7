package auth

import (
	"errors"
	"net/http"

	"github.com/bedplate/bedplate/sqlite"
)

// serveLoginAnonymous is POST /login_anonymous: an account without a name that
// anybody knows and without a password. When its session ends nobody can sign
// in to it any more; it is not removed, since rows of the application may refer
// to it.
func (s *Service) serveLoginAnonymous(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.readForm(w, r); err != nil {
		return err
	}
	if err := s.registrationLimit(r, ""); err != nil {
		return err
	}
	for range 5 {
		u := &row{id: newUserID(), username: "anon" + randomText(6, "abcdefghijklmnopqrstuvwxyz0123456789")}
		err := s.db.Update(r.Context(), func(tx *sqlite.Tx) error {
			fresh := NewUser{Username: u.username, Anonymous: true}
			if err := s.beforeCreate(r.Context(), tx, &fresh); err != nil {
				return err
			}
			now := s.now().Unix()
			_, err := tx.ExecContext(r.Context(), `INSERT INTO _user (id, username, created, updated) VALUES (?, ?, ?, ?)`,
				u.id[:], fresh.Username, now, now)
			u.username = fresh.Username
			if isConstraint(err) {
				return errTaken
			}
			return err
		})
		if errors.Is(err, errTaken) {
			continue
		}
		if err != nil {
			return err
		}
		t, err := s.begin(r.Context(), signIn{user: u, method: "anonymous", request: r})
		if err != nil {
			return err
		}
		return writeJSON(w, t)
	}
	return ErrConflict
}

// servePromoteAnonymous is POST /promote_anonymous: it gives an anonymous
// account a name and a password and keeps its id.
func (s *Service) servePromoteAnonymous(w http.ResponseWriter, r *http.Request) error {
	caller, err := s.requireSession(w, r)
	if err != nil {
		return err
	}
	f, err := s.readForm(w, r)
	if err != nil {
		return err
	}
	target, err := s.target(f, "redirect_uri")
	if err != nil {
		return err
	}
	u, err := s.userByID(r.Context(), caller.ID)
	if err != nil {
		return err
	}
	switch {
	case u == nil:
		return ErrUnauthorized
	case !u.anonymous():
		return &Error{Status: http.StatusFailedDependency}
	}
	n, err := s.newName(f.value("new_email"), f.value("new_username"))
	if err != nil {
		return err
	}
	repeat, given := f.body["new_password_repeat"]
	if !given {
		repeat = f.value("new_password")
	}
	if err := s.policy.Check(f.value("new_password"), repeat); err != nil {
		return err
	}
	if n.email != "" {
		if err := s.mailLimit(r, name{email: n.email}); err != nil {
			return err
		}
	}
	hash, err := s.hasher.Hash(r.Context(), f.value("new_password"))
	if err != nil {
		return err
	}
	err = s.db.Update(r.Context(), func(tx *sqlite.Tx) error {
		res, err := tx.ExecContext(r.Context(), `UPDATE _user SET unverified_email = ?, username = ?, password_hash = ?
			WHERE id = ? AND password_hash IS NULL AND unverified_email IS NULL AND email IS NULL`,
			null(n.email), null(n.username), hash, u.id[:])
		if isConstraint(err) {
			return ErrConflict
		}
		if err != nil {
			return err
		}
		if changed, err := res.RowsAffected(); err != nil || changed == 0 {
			return errors.Join(err, &Error{Status: http.StatusFailedDependency})
		}
		if n.email == "" {
			return nil
		}
		return s.enqueue(r.Context(), tx, mailJob{Kind: mailVerifyEmail, User: u.id[:], Email: n.email, RedirectURI: f.param("redirect_uri")})
	})
	if err != nil {
		return err
	}
	s.outbox.Wake()
	s.changed()
	return done(w, target, "promoted")
}

// requireSession returns the user who makes a request in a session of ours:
// not with an API key and not with somebody else's token.
func (s *Service) requireSession(w http.ResponseWriter, r *http.Request) (*User, error) {
	u := FromContext(r.Context())
	if u == nil {
		var err error
		if u, err = s.authenticate(w, r); err != nil {
			return nil, err
		}
	}
	if u == nil || u.Session == "" {
		return nil, ErrUnauthorized
	}
	return u, nil
}

// requireFresh is requireSession for what changes credentials: the user must
// have shown some a short while ago.
func (s *Service) requireFresh(w http.ResponseWriter, r *http.Request) (*User, error) {
	u, err := s.requireSession(w, r)
	if err != nil {
		return nil, err
	}
	if age := s.now().Sub(u.Authenticated); age > s.cfg.FreshTTL || age < -leeway {
		return nil, ErrNotFresh
	}
	return u, nil
}
