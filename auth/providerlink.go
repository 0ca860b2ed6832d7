package auth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"

	"github.com/bedplate/bedplate/sqlite"
)

// serveLink is POST /oauth/{provider}/link: it begins to add an account at a
// provider to the ways in which the caller can sign in. Nothing else does that.
// The callback ends it, in the browser that has got this answer's cookie.
func (s *Service) serveLink(w http.ResponseWriter, r *http.Request) error {
	caller, err := s.requireFresh(w, r)
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
	p, err := s.provider(w, r)
	if err != nil {
		return err
	}
	at, err := s.beginVisit(w, r, p, &caller.ID, visit{Redirect: target, Session: caller.session})
	if err != nil {
		return err
	}
	if f.json {
		return writeJSON(w, map[string]string{"url": at})
	}
	redirect(w, at)
	return nil
}

// Refusals of a link.
var (
	errLinkedElsewhere = &Error{Status: http.StatusConflict, Text: "This account of the provider belongs to another account here."}
	errLinkedAlready   = &Error{Status: http.StatusConflict, Text: "Another account of this provider is linked already."}
)

// endLink gives an identity to the user who has asked for it, in a session
// that has not ended since. Cookies of a strict session are not sent with a
// callback; if there are any, they must be the same user's.
func (s *Service) endLink(w http.ResponseWriter, r *http.Request, d Provider, v *visit, identity Identity) error {
	ctx := r.Context()
	if c := s.cookie(r, cookieAuth); c != "" {
		u, err := s.lookup(ctx, c, Cookie)
		if err != nil {
			return err
		}
		if u != nil && u.ID != v.user {
			return ErrForbidden
		}
	}
	if _, err := s.knownIdentity(ctx, d, identity.Subject); err != nil { // it may be an imported account's
		return err
	}
	if err := s.adopt(ctx, "id = ?", v.user[:]); err != nil {
		return err
	}
	err := s.db.Update(ctx, func(tx *sqlite.Tx) error {
		alive, err := exists(ctx, tx, `SELECT 1 FROM _session s JOIN _user u ON u.id = s.user
			WHERE s.id = ? AND s.user = ? AND s.expires > ? AND u.disabled = 0`, v.Session, v.user[:], s.now().Unix())
		if err != nil {
			return err
		}
		if !alive {
			return ErrUnauthorized
		}
		owner, ok, err := identityOwner(ctx, tx, d.Issuer, identity.Subject)
		switch {
		case err != nil:
			return err
		case ok && owner != v.user:
			return errLinkedElsewhere
		case ok:
			return nil
		}
		if another, err := exists(ctx, tx, `SELECT 1 FROM _user_identity WHERE user = ? AND issuer = ?`, v.user[:], d.Issuer); err != nil {
			return err
		} else if another {
			return errLinkedAlready
		}
		if err := s.insertIdentity(ctx, tx, v.user, d, identity.Subject); err != nil {
			return err
		}
		if err := nameAnonymous(ctx, tx, v.user, d, identity.Subject); err != nil {
			return err
		}
		return run(ctx, tx, s.notice(r, mailIdentityChanged, &row{id: v.user}, "")...)
	})
	if err != nil {
		return err
	}
	s.changed()
	s.outbox.Wake()
	return done(w, v.Redirect, "linked")
}

// nameAnonymous makes an anonymous account one of the provider's.
func nameAnonymous(ctx context.Context, tx *sqlite.Tx, user UserID, d Provider, subject string) error {
	providerUser, err := providerUserID(ctx, tx, d, subject)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE _user SET provider_id = ?, provider_user_id = ? WHERE id = ? AND provider_id = 0 AND provider_user_id IS NULL
		AND email IS NULL AND unverified_email IS NULL AND password_hash IS NULL`, d.Number, providerUser, user[:])
	if err != nil {
		return fmt.Errorf("auth: link an anonymous account: %w", err)
	}
	return nil
}

// A linked is an identity as its owner sees it.
type linked struct {
	ID       string `json:"id"`       // for DELETE
	Provider string `json:"provider"` // "" if it is not configured
	Issuer   string `json:"issuer"`
	Subject  string `json:"subject"`
	Created  int64  `json:"created"`
	Seen     int64  `json:"seen"`

	number int64
}

// serveIdentities is GET /oauth/identities: those of the caller.
func (s *Service) serveIdentities(w http.ResponseWriter, r *http.Request) error {
	caller, err := s.requireSession(w, r)
	if err != nil {
		return err
	}
	if err := s.adopt(r.Context(), "id = ?", caller.ID[:]); err != nil {
		return err
	}
	list := []linked{}
	err = s.db.View(r.Context(), func(tx *sqlite.Tx) (err error) {
		list, err = s.identities(r.Context(), tx, caller.ID)
		return err
	})
	if err != nil {
		return err
	}
	return writeJSON(w, map[string]any{"identities": list})
}

func (s *Service) identities(ctx context.Context, tx *sqlite.Tx, user UserID) ([]linked, error) {
	rows, err := tx.QueryContext(ctx, `SELECT issuer, subject, provider, created, seen FROM _user_identity WHERE user = ? ORDER BY created, issuer`, user[:])
	if err != nil {
		return nil, fmt.Errorf("auth: list identities: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	list := []linked{}
	for rows.Next() {
		var l linked
		if err := rows.Scan(&l.Issuer, &l.Subject, &l.number, &l.Created, &l.Seen); err != nil {
			return nil, fmt.Errorf("auth: list identities: %w", err)
		}
		l.ID = identityID(l.Issuer, l.Subject)
		for name, p := range s.providers {
			if p.Provider().Issuer == l.Issuer {
				l.Provider = name
			}
		}
		list = append(list, l)
	}
	return list, rows.Err()
}

// identityID is what an identity is called in paths.
func identityID(issuer, subject string) string {
	sum := sha256.Sum256([]byte(issuer + "\x00" + subject))
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

// serveUnlink is DELETE /oauth/identities/{identity}, by id or by the name of
// the provider. Sessions that began with the identity end, but for the
// caller's. The last way to sign in stays.
func (s *Service) serveUnlink(w http.ResponseWriter, r *http.Request) error {
	caller, err := s.requireFresh(w, r)
	if err != nil {
		return err
	}
	ctx, name := r.Context(), r.PathValue("identity")
	if err := s.adopt(ctx, "id = ?", caller.ID[:]); err != nil {
		return err
	}
	err = s.db.Update(ctx, func(tx *sqlite.Tx) error {
		list, err := s.identities(ctx, tx, caller.ID)
		if err != nil {
			return err
		}
		var gone *linked
		others := false
		for i := range list {
			l := &list[i]
			if gone == nil && (l.ID == name || l.Provider != "" && l.Provider == name) {
				gone = l
			} else if l.Provider != "" {
				others = true
			}
		}
		if gone == nil {
			return ErrNotFound
		}
		if !others {
			if err := s.otherWayIn(ctx, tx, caller.ID); err != nil {
				return err
			}
		}
		if err := s.unlink(ctx, tx, caller, gone); err != nil {
			return err
		}
		return run(ctx, tx, s.notice(r, mailIdentityChanged, &row{id: caller.ID}, "")...)
	})
	if err != nil {
		return err
	}
	s.changed()
	s.outbox.Wake()
	return writeText(w, "unlinked")
}

// otherWayIn fails unless the user can sign in with a password or a mailed
// code.
func (s *Service) otherWayIn(ctx context.Context, tx *sqlite.Tx, user UserID) error {
	ok, err := exists(ctx, tx, `SELECT 1 FROM _user WHERE id = ? AND (
		password_hash IS NOT NULL AND (email IS NOT NULL OR username IS NOT NULL) OR ? AND email IS NOT NULL)`,
		user[:], boolean(s.cfg.OTP))
	if err == nil && !ok {
		err = &Error{Status: http.StatusConflict, Text: "Set a password or link another provider first."}
	}
	return err
}

// unlink removes an identity, and what it has opened that is still open. The
// account keeps the number of the provider that it was made with, so that it is
// no anonymous one.
func (s *Service) unlink(ctx context.Context, tx *sqlite.Tx, caller *User, gone *linked) error {
	user := caller.ID[:]
	for _, stmt := range []struct {
		sql  string
		args []any
	}{
		{`DELETE FROM _user_identity WHERE issuer = ? AND subject = ? AND user = ?`, []any{gone.Issuer, gone.Subject, user}},
		{
			`UPDATE _user SET provider_user_id = CASE WHEN provider_id = 0 THEN 'unlinked ' || hex(id) END
				WHERE id = ?1 AND provider_id = ?2 AND (provider_user_id = ?3 OR provider_user_id = ?4 || ' ' || ?3)`,
			[]any{user, gone.number, gone.Subject, gone.Issuer},
		},
		{`DELETE FROM _one_time WHERE user = ? AND purpose IN (?, ?, ?)`, []any{user, purposeCode, purposeMFA, purposeProvider}},
		{
			`DELETE FROM _session WHERE user = ?1 AND id IS NOT ?2 AND substr(method || ' ', 1, length(?3)) = ?3`,
			[]any{user, caller.session, "oauth:" + gone.Provider + " "},
		},
	} {
		if _, err := tx.ExecContext(ctx, stmt.sql, stmt.args...); err != nil {
			return fmt.Errorf("auth: unlink an identity: %w", err)
		}
	}
	return nil
}
