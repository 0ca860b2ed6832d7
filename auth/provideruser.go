package auth

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"github.com/bedplate/bedplate/sqlite"
)

// errForeign is that what a newcomer is called by belongs to somebody else's
// account. Who is told so has proved to own the address, at the provider.
var errForeign = &Error{
	Status: http.StatusConflict,
	Text:   "An account with this address exists already. Sign in to it first, then link the provider.",
}

// providerUser returns who an identity is here, and what a sign-in has to
// write. An identity is an issuer and a subject: an address never leads to an
// account that is there (RFC 9700; OpenID Connect Core, section 5.7).
func (s *Service) providerUser(r *http.Request, d Provider, identity Identity) (*row, []sqlite.Stmt, error) {
	ctx := r.Context()
	u, err := s.knownIdentity(ctx, d, identity.Subject)
	if err != nil {
		return nil, nil, err
	}
	if u == nil {
		email, err := s.vouchedEmail(identity)
		if err != nil {
			return nil, nil, err
		}
		if err := s.registrationLimit(r, ""); err != nil {
			return nil, nil, err
		}
		id, err := s.createFromIdentity(ctx, newcomer{provider: d, identity: identity, email: email})
		if err != nil {
			return nil, nil, err
		}
		if u, err = s.userByID(ctx, id); err != nil {
			return nil, nil, err
		}
	}
	if u == nil || !u.active() {
		return nil, nil, ErrUnauthorized
	}
	return u, []sqlite.Stmt{s.identitySeen(u.id, d.Issuer, identity.Subject)}, nil
}

// userByIdentity returns the user to whom an identity belongs, or nil.
func (s *Service) userByIdentity(ctx context.Context, issuer, subject string) (*row, error) {
	return s.findUser(ctx, "id = (SELECT user FROM _user_identity WHERE issuer = ? AND subject = ?)", issuer, subject)
}

// knownIdentity is userByIdentity that knows imported accounts too.
func (s *Service) knownIdentity(ctx context.Context, d Provider, subject string) (*row, error) {
	u, err := s.userByIdentity(ctx, d.Issuer, subject)
	if u != nil || err != nil {
		return u, err
	}
	if err := s.adopt(ctx, "provider_id = ? AND provider_user_id = ?", int64(d.Number), subject); err != nil {
		return nil, err
	}
	return s.userByIdentity(ctx, d.Issuer, subject)
}

// adopt gives an account that TrailBase has made with a provider the identity
// that its columns provider_id and provider_user_id stand for. They do not say
// which issuer that is, so it must be the only one of its number, and an
// account that has, or had, an identity of that number is not adopted again.
func (s *Service) adopt(ctx context.Context, where string, args ...driver.Value) error {
	const orphan = ` AND provider_id <> 0 AND provider_user_id IS NOT NULL
		AND NOT EXISTS (SELECT 1 FROM _user_identity i WHERE i.user = _user.id AND i.provider = _user.provider_id)`
	u, err := s.findUser(ctx, where+orphan, args...)
	if err != nil || u == nil {
		return err
	}
	d, ok := s.onlyProvider(u.provider)
	if !ok || checkSubject(u.providerUser) != nil {
		return nil
	}
	return s.db.Write(ctx, sqlite.Stmt{
		SQL: `INSERT INTO _user_identity (issuer, subject, user, provider, created, seen)
			SELECT ?, provider_user_id, id, provider_id, created, created FROM _user
			WHERE id = ? AND provider_id = ? AND provider_user_id = ?` + orphan + ` ON CONFLICT DO NOTHING`,
		Args: []driver.Value{d.Issuer, u.id[:], int64(u.provider), u.providerUser},
	})
}

// onlyProvider returns the provider with a number if there is exactly one.
func (s *Service) onlyProvider(number int) (only Provider, ok bool) {
	for _, p := range s.providers {
		if d := p.Provider(); d.Number == number {
			if ok {
				return Provider{}, false
			}
			only, ok = d, true
		}
	}
	return only, ok
}

// identitySeen is the statement that notes a sign-in. The identity may have
// been unlinked since it was looked up.
func (s *Service) identitySeen(user UserID, issuer, subject string) sqlite.Stmt {
	return sqlite.Stmt{
		SQL:  `UPDATE _user_identity SET seen = ? WHERE issuer = ? AND subject = ? AND user = ? RETURNING 1`,
		Args: []driver.Value{s.now().Unix(), issuer, subject, user[:]},
		Done: func(rows int) error {
			if rows == 0 {
				return ErrUnauthorized
			}
			return nil
		},
	}
}

// vouchedEmail returns the address that a new account gets: one that the
// provider vouches for, or none.
func (s *Service) vouchedEmail(identity Identity) (string, error) {
	email, err := cleanEmail(identity.Email)
	if err != nil {
		email = "" // none that we could use
	}
	if identity.Email != "" && !identity.EmailVerified {
		return "", badRequest("External OAuth user unverified")
	}
	switch s.cfg.Identifier {
	case OnlyUsername:
		return "", nil
	case OnlyEmail, RequireEmail, RequireEmailAndUsername:
		if email == "" {
			return "", errProvider
		}
	}
	return email, nil
}

// A newcomer is an identity that has no account yet.
type newcomer struct {
	provider Provider
	identity Identity
	email    string // that the account gets
	shy      bool   // does without an address that somebody has
}

// createFromIdentity makes an account for an identity, or returns the one that
// it got a moment ago. Pending registrations of the address lose it: whoever
// made them has not shown to own it.
func (s *Service) createFromIdentity(ctx context.Context, n newcomer) (UserID, error) {
	id := newUserID()
	d := n.provider
	err := s.db.Update(ctx, func(tx *sqlite.Tx) error {
		if owner, ok, err := identityOwner(ctx, tx, d.Issuer, n.identity.Subject); err != nil || ok {
			id = owner
			return err
		}
		fresh := NewUser{Email: n.email, Provider: &d}
		if taken, err := exists(ctx, tx, `SELECT 1 FROM _user WHERE email = ?`, null(n.email)); err != nil {
			return err
		} else if taken && !n.shy {
			return errTaken
		} else if taken {
			fresh.Email = ""
		}
		var err error
		if fresh.Username, err = s.freeUsername(ctx, tx, n.identity.Username); err != nil {
			return err
		}
		if err := s.beforeCreate(ctx, tx, &fresh); err != nil {
			return err
		}
		if fresh.Email != "" {
			if err := run(ctx, tx, s.dropClaims(fresh.Email, id)...); err != nil {
				return fmt.Errorf("auth: end pending registrations of an address: %w", err)
			}
		}
		return s.insertIdentityUser(ctx, tx, id, d, n.identity, &fresh)
	})
	s.changed() // pending registrations may have had sessions
	if errors.Is(err, errTaken) {
		return id, errForeign
	}
	return id, err
}

func (s *Service) insertIdentityUser(ctx context.Context, tx *sqlite.Tx, id UserID, d Provider, identity Identity, fresh *NewUser) error {
	providerUser, err := providerUserID(ctx, tx, d, identity.Subject)
	if err != nil {
		return err
	}
	now := s.now().Unix()
	_, err = tx.ExecContext(ctx, `INSERT INTO _user
		(id, email, username, admin, created, updated, provider_id, provider_user_id, provider_avatar_url)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		id[:], null(fresh.Email), null(fresh.Username), boolean(fresh.Admin), now, now,
		d.Number, providerUser, null(avatarURL(identity.AvatarURL)))
	if isConstraint(err) {
		return errTaken
	}
	if err != nil {
		return fmt.Errorf("auth: make an account for an identity: %w", err)
	}
	return s.insertIdentity(ctx, tx, id, d, identity.Subject)
}

func (s *Service) insertIdentity(ctx context.Context, tx *sqlite.Tx, user UserID, d Provider, subject string) error {
	now := s.now().Unix()
	_, err := tx.ExecContext(ctx, `INSERT INTO _user_identity (issuer, subject, user, provider, created, seen) VALUES (?, ?, ?, ?, ?, ?)`,
		d.Issuer, subject, user[:], d.Number, now, now)
	if err != nil {
		return fmt.Errorf("auth: store an identity: %w", err)
	}
	return nil
}

// providerUserID is what _user.provider_user_id gets: the subject, as the
// contract has it, or with its issuer where another one has the same number.
func providerUserID(ctx context.Context, tx *sqlite.Tx, d Provider, subject string) (string, error) {
	if d.Number != 0 {
		taken, err := exists(ctx, tx, `SELECT 1 FROM _user WHERE provider_id = ? AND provider_user_id = ?`, d.Number, subject)
		if err != nil || !taken {
			return subject, err
		}
	}
	return d.Issuer + " " + subject, nil
}

// identityOwner returns whose identity it is.
func identityOwner(ctx context.Context, tx *sqlite.Tx, issuer, subject string) (owner UserID, ok bool, err error) {
	var id []byte
	err = tx.QueryRowContext(ctx, `SELECT user FROM _user_identity WHERE issuer = ? AND subject = ?`, issuer, subject).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return UserID{}, false, nil
	}
	copy(owner[:], id)
	return owner, err == nil, err
}

// freeUsername makes a name out of one that a provider suggests: "" where none
// is allowed, or none is needed and the suggestion is of no use.
func (s *Service) freeUsername(ctx context.Context, tx *sqlite.Tx, wish string) (string, error) {
	if s.cfg.Identifier == OnlyEmail {
		return "", nil
	}
	const digits = "0123456789"
	base, candidate := "user", ""
	if clean, err := cleanUsername(onlyLettersAndDigits(wish)); err == nil {
		base, candidate = shorten(clean, 24), clean
	} else if s.cfg.Identifier == RequireEmail {
		return "", nil
	} else {
		candidate = base + randomText(8, digits)
	}
	for range 5 {
		taken, err := exists(ctx, tx, `SELECT 1 FROM _user WHERE username = ?`, candidate)
		if err != nil {
			return "", err
		}
		if !taken {
			return candidate, nil
		}
		candidate = base + randomText(8, digits)
	}
	if s.cfg.Identifier == RequireEmail {
		return "", nil
	}
	return "", errTaken
}

// onlyLettersAndDigits drops what stands between the parts of a name, as in
// "jane.doe", and digits before it.
func onlyLettersAndDigits(s string) string {
	if len(s) > 256 {
		return ""
	}
	s = strings.Map(func(c rune) rune {
		if unicode.IsLetter(c) || unicode.IsDigit(c) {
			return c
		}
		return -1
	}, s)
	return strings.TrimLeftFunc(s, unicode.IsDigit)
}

// shorten cuts s to at most n bytes.
func shorten(s string, n int) string {
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "")
	}
	return s
}

// avatarURL returns s if it can be shown in a page.
func avatarURL(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || len(s) > 2048 {
		return ""
	}
	return s
}

// exists reports whether a query returns a row.
func exists(ctx context.Context, tx *sqlite.Tx, query string, args ...any) (bool, error) {
	var one int
	err := tx.QueryRowContext(ctx, query, args...).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}
