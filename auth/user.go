package auth

import (
	"context"
	"crypto/rand"
	"database/sql/driver"
	"encoding/base64"
	"errors"
	"time"
)

// A UserID is the 16 bytes of a user's UUID, as in _user.id.
type UserID [16]byte

// String returns the id as it is in tokens and URLs: padded URL-safe base64.
func (id UserID) String() string { return base64.URLEncoding.EncodeToString(id[:]) }

// ParseUserID is the reverse of [UserID.String].
func ParseUserID(s string) (UserID, error) {
	var id UserID
	b, err := base64.URLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, errors.New("auth: not a user id")
	}
	return UserID(b), nil
}

func newUserID() UserID {
	var id UserID
	_, _ = rand.Read(id[:]) // never fails
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}

// A Credential is what a request has shown.
type Credential int

// The credentials.
const (
	Bearer   Credential = iota + 1 // an auth token of ours
	Cookie                         // a cookie with one
	APIKey                         // a key of a machine
	External                       // a token of one of Config.Issuers
)

// A User is whoever makes a request. It must not be changed.
type User struct {
	ID       UserID
	Email    string // verified; "" if there is none
	Username string // "" if there is none
	Admin    bool   // as the database has it, whatever a token says
	MFA      bool   // a second factor is enrolled

	// Provider is the number of the identity provider that the account was
	// made with, 0 for none.
	Provider int

	// Credential is what the request has shown, Session the session that it
	// belongs to ("" for API keys and external tokens) and Authenticated when
	// somebody last showed a password, a code or the like in that session.
	Credential    Credential
	Session       string
	Authenticated time.Time

	// Expires is when the credential ends by itself, as far as it is accepted
	// here: a token's expiry with the leeway for clocks of a minute, or that of
	// its session if it is sooner, and an API key's or an external token's
	// expiry. It is zero for a user that [Service.Middleware] has not found.
	Expires time.Time

	// Claims are those of Hooks.Claims, or all of an external token.
	Claims map[string]any

	csrf    string
	session []byte

	keyHash      []byte // of an API key
	scopes       []Scope
	storedScopes string

	issuer, subject string // of an external token
}

// row is a user as the database has it.
type row struct {
	id              UserID
	email           string
	unverified      string
	username        string
	hash            string
	totp            string // as stored
	admin, disabled bool
	provider        int
	providerUser    string
	totpStep        int64
}

const userColumns = `id, email, unverified_email, username, password_hash, totp_secret, admin, disabled, provider_id, provider_user_id, totp_step`

// anonymous reports whether u was made by a sign-in without an account.
func (u *row) anonymous() bool {
	return u.email == "" && u.unverified == "" && u.hash == "" && u.provider == 0 && u.providerUser == ""
}

// active reports whether u may sign in: not disabled, and no address that
// still waits for its verification.
func (u *row) active() bool { return !u.disabled && u.unverified == "" }

// account is what u is called in an authenticator app.
func (u *row) account() string {
	if u.email != "" {
		return u.email
	}
	return u.username
}

func scanUser(v []driver.Value) *row {
	u := &row{
		email: text(v[1]), unverified: text(v[2]), username: text(v[3]), hash: text(v[4]), totp: text(v[5]),
		admin: integer(v[6]) != 0, disabled: integer(v[7]) != 0,
		provider: int(integer(v[8])), providerUser: text(v[9]), totpStep: integer(v[10]),
	}
	copy(u.id[:], blob(v[0]))
	return u
}

func text(v driver.Value) string {
	s, _ := v.(string)
	return s
}

func integer(v driver.Value) int64 {
	n, _ := v.(int64)
	return n
}

func blob(v driver.Value) []byte {
	b, _ := v.([]byte)
	return b
}

// null returns nil for "", so that it is stored as NULL.
func null(s string) driver.Value {
	if s == "" {
		return nil
	}
	return s
}

// findUser returns the user for which where holds, or nil.
func (s *Service) findUser(ctx context.Context, where string, args ...driver.Value) (*row, error) {
	var u *row
	err := s.db.Query(ctx, "SELECT "+userColumns+" FROM _user WHERE "+where, args, func(v []driver.Value) error {
		u = scanUser(v)
		return nil
	})
	return u, err
}

func (s *Service) userByID(ctx context.Context, id UserID) (*row, error) {
	return s.findUser(ctx, "id = ?", id[:])
}

// userByName returns the user with a verified address or a name.
func (s *Service) userByName(ctx context.Context, n name) (*row, error) {
	if n.email != "" {
		return s.findUser(ctx, "email = ?", n.email)
	}
	return s.findUser(ctx, "username = ?", n.username)
}
