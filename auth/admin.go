package auth

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/bedplate/bedplate/sqlite"
)

// CreateUser is what [Service.CreateUser] makes an account of.
type CreateUser struct {
	Email    string // with or without Username, as Config.Identifier says
	Username string
	Password string // "": none; the user signs in in another way
	Admin    bool
	Verified bool // Email is known to be the user's; otherwise a mail asks
}

// CreateUser makes an account, under the same rules as a registration: those
// for names, for passwords and of Hooks.BeforeCreate. A rule that says no is
// an [*Error] with status 400, a name that somebody has [ErrConflict].
func (s *Service) CreateUser(ctx context.Context, u CreateUser) (UserID, error) {
	n, err := s.newName(u.Email, u.Username)
	if err != nil {
		return UserID{}, err
	}
	if n.email == "" && u.Password == "" {
		return UserID{}, badRequest("a user without email needs a password")
	}
	var hash string
	if u.Password != "" {
		if hash, err = s.newHash(ctx, u.Password, u.Password); err != nil {
			return UserID{}, err
		}
	}
	id := newUserID()
	err = s.db.Update(ctx, func(tx *sqlite.Tx) error {
		return s.insertUser(ctx, tx, id, NewUser{Email: n.email, Username: n.username, Admin: u.Admin}, hash, u.Verified)
	})
	if err != nil {
		return UserID{}, err
	}
	s.outbox.Wake()
	return id, nil
}

// newHash checks a new password and hashes it.
func (s *Service) newHash(ctx context.Context, password, repeat string) (string, error) {
	if err := s.policy.Check(password, repeat); err != nil {
		return "", badRequest(err.Error())
	}
	return s.hasher.Hash(ctx, password)
}

// insertUser makes an account out of names and a hash that were checked. A
// verified address is taken from those who only claim it; one that is not is
// asked for by mail.
func (s *Service) insertUser(ctx context.Context, tx *sqlite.Tx, id UserID, u NewUser, hash string, verified bool) error {
	admin := u.Admin
	if err := s.beforeCreate(ctx, tx, &u); err != nil {
		return err
	}
	email, unverified := u.Email, ""
	if !verified {
		email, unverified = "", u.Email
	}
	if email != "" {
		if err := run(ctx, tx, s.dropClaims(email, id)...); err != nil {
			return err
		}
	}
	now := s.now().Unix()
	_, err := tx.ExecContext(ctx, `INSERT INTO _user (id, email, unverified_email, username, password_hash, admin, created, updated)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		id[:], null(email), null(unverified), null(u.Username), null(hash), boolean(admin || u.Admin), now, now)
	if isConstraint(err) {
		return ErrConflict
	}
	if err != nil || unverified == "" {
		return err
	}
	var owners int
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM _user WHERE email = ?`, unverified).Scan(&owners); err != nil {
		return err
	}
	if owners > 0 {
		return ErrConflict
	}
	return s.enqueue(ctx, tx, mailJob{Kind: mailVerifyEmail, User: id[:], Email: unverified})
}

// DeleteUser removes an account and what refers to it with ON DELETE CASCADE.
// The error is [ErrNotFound] if there is none, and an [*Error] with status 400
// if something refers to it in a way that forbids this.
func (s *Service) DeleteUser(ctx context.Context, user UserID) error {
	err := s.db.Write(ctx, must(ErrNotFound, `DELETE FROM _user WHERE id = ? RETURNING 1`, user[:]))
	s.changed()
	if name := constraints[sqlite.Code(err)]; name != "" {
		return badRequest("sqlite constraint: " + name)
	}
	return err
}

// constraints are SQLite's result codes for what keeps a row that others
// refer to, by the names of the contract.
var constraints = map[int]string{275: "check", 787: "fk", 1299: "not null", 1811: "trigger"}

// SetDisabled locks an account or opens it again. A disabled user is refused
// everywhere, from the next request on in this process and within a minute in
// others; sessions and pending links end for good, while API keys work again
// when the account is opened. The error is [ErrNotFound] if there is none.
func (s *Service) SetDisabled(ctx context.Context, user UserID, disabled bool) error {
	stmts := []sqlite.Stmt{must(ErrNotFound, `UPDATE _user SET disabled = ? WHERE id = ? RETURNING 1`, boolean(disabled), user[:])}
	if disabled {
		stmts = append(stmts, endSessions(user, nil), dropTokens(user))
	}
	err := s.db.Write(ctx, stmts...)
	s.changed()
	return err
}

// SetAdmin makes a user an administrator or an ordinary user, from the next
// request on in this process and within a minute in others. The error is
// [ErrNotFound] if there is no such user.
func (s *Service) SetAdmin(ctx context.Context, user UserID, admin bool) error {
	err := s.db.Write(ctx, must(ErrNotFound, `UPDATE _user SET admin = ? WHERE id = ? RETURNING 1`, boolean(admin), user[:]))
	s.changed()
	return err
}

// SetPassword gives a user a new password, as after a suspected theft: all
// sessions, API keys, linked identities, pending links and known devices end,
// and a mail tells the user. A second factor stays. The error is [ErrNotFound] if there is no
// such user and an [*Error] with status 400 if the password is too simple.
func (s *Service) SetPassword(ctx context.Context, user UserID, password string) error {
	hash, err := s.newHash(ctx, password, password)
	if err != nil {
		return err
	}
	stmts := []sqlite.Stmt{
		must(ErrNotFound, `UPDATE _user SET password_hash = ? WHERE id = ? RETURNING 1`, hash, user[:]),
		endSessions(user, nil),
		dropTokens(user),
		dropAPIKeys(user),
		{SQL: `DELETE FROM _known_device WHERE user = ?`, Args: []driver.Value{user[:]}},
	}
	stmts = append(stmts, dropIdentities(user)...)
	stmts = append(stmts, s.outbox.Stmts(s.job(mailJob{Kind: mailPasswordChanged, User: user[:]}))...)
	err = s.db.Write(ctx, stmts...)
	s.changed()
	s.outbox.Wake()
	return err
}

// Find returns the user with a verified address or with a username, whether
// or not the account is disabled. The error is [ErrNotFound] if there is none.
func (s *Service) Find(ctx context.Context, emailOrUsername string) (*User, error) {
	var n name
	var err error
	if strings.Contains(emailOrUsername, "@") {
		n.email, err = cleanEmail(emailOrUsername)
	} else {
		n.username, err = cleanUsername(emailOrUsername)
	}
	if err != nil {
		return nil, ErrNotFound // nobody can have such a name
	}
	u, err := s.userByName(ctx, n)
	if err != nil {
		return nil, fmt.Errorf("auth: find a user: %w", err)
	}
	if u == nil {
		return nil, ErrNotFound
	}
	found := s.user(u, nil, 0)
	found.Authenticated = time.Time{}
	return found, nil
}

// SetupLink returns a link to a page on which the first administrator makes an
// account, or "" if there is an administrator. It is good for 15 minutes, once,
// and ends all earlier ones. Show it to nobody but who has started the program:
//
//	if link, err := service.SetupLink(ctx); err == nil && link != "" {
//		fmt.Fprintln(os.Stderr, "first administrator:", link)
//	}
func (s *Service) SetupLink(ctx context.Context) (string, error) {
	token := randomText(setupLength, alphanumeric)
	err := s.db.Write(ctx,
		noAdmin(),
		sqlite.Stmt{SQL: `DELETE FROM _one_time WHERE purpose = ?`, Args: []driver.Value{purposeSetup}},
		s.put(oneTime{hash: hashToken(token), purpose: purposeSetup, ttl: setupTTL}),
	)
	if errors.Is(err, errHasAdmin) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("auth: make a setup link: %w", err)
	}
	return s.cfg.SiteURL + s.setupPage(token), nil
}

const setupLength = 48

func (s *Service) setupPage(token string) string { return s.cfg.PagesPrefix + "/setup/" + token }

var errHasAdmin = errors.New("auth: there is an administrator")

// noAdmin returns a statement that undoes its write if there is an
// administrator.
func noAdmin() sqlite.Stmt {
	return sqlite.Stmt{
		SQL: `SELECT 1 FROM _user WHERE admin <> 0 LIMIT 1`,
		Done: func(rows int) error {
			if rows > 0 {
				return errHasAdmin
			}
			return nil
		},
	}
}

// serveSetup is POST /setup: the first administrator's account, by a link that
// only who runs the program has seen. The address counts as verified.
func (s *Service) serveSetup(w http.ResponseWriter, r *http.Request) error {
	f, err := s.readForm(w, r)
	if err != nil {
		return err
	}
	token, refused := f.value("token"), badRequest("invalid token")
	if len(token) != setupLength {
		return refused
	}
	// Before a password is hashed for somebody without a link.
	switch t, err := s.peek(r.Context(), purposeSetup, hashToken(token)); {
	case err != nil:
		return err
	case !t.ok:
		return refused
	}
	n, err := s.newName(f.value("email"), f.value("username"))
	var hash string
	if err == nil {
		hash, err = s.newHash(r.Context(), f.value("password"), f.value("password_repeat"))
	}
	if e := asError(err); e != nil && e.Status == http.StatusBadRequest && !f.json {
		redirect(w, withQuery(s.setupPage(token), "alert", e.Text))
		return nil
	}
	if err != nil {
		return err
	}
	err = s.db.Update(r.Context(), func(tx *sqlite.Tx) error {
		var admins int
		if err := tx.QueryRowContext(r.Context(), `SELECT count(*) FROM _user WHERE admin <> 0`).Scan(&admins); err != nil {
			return err
		}
		res, err := tx.ExecContext(r.Context(), `DELETE FROM _one_time WHERE hash = ? AND purpose = ? AND expires > ?`,
			hashToken(token), purposeSetup, s.now().Unix())
		if err != nil {
			return err
		}
		if used, err := res.RowsAffected(); err != nil || used == 0 || admins > 0 {
			return errors.Join(err, refused)
		}
		return s.insertUser(r.Context(), tx, newUserID(), NewUser{Email: n.email, Username: n.username, Admin: true}, hash, true)
	})
	if err != nil {
		return err
	}
	target := ""
	if !f.json {
		target = s.cfg.PagesPrefix + "/login"
	}
	return done(w, target, "admin created")
}
