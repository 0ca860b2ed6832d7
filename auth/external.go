package auth

import (
	"context"
	"database/sql/driver"
	"log/slog"
	"time"

	"github.com/bedplate/bedplate/sqlite"
)

const (
	verifyTimeout = 5 * time.Second

	// verifyEvery is how long a token of an issuer is believed without being
	// verified again, for the case that its key was withdrawn.
	verifyEvery = 5 * time.Minute

	// maxCachedExternal is the longest token that is cached, in bytes: what
	// an issuer puts into its tokens is up to it.
	maxCachedExternal = 4 << 10

	identitySeenEvery = 24 * time.Hour
)

// byIssuer returns the user of a bearer token of an issuer, nil if it is not
// good, or good for somebody who has no account here. A token that was verified
// is believed for a while; its user is looked up every 30 seconds, and at once
// when something was revoked.
func (s *Service) byIssuer(ctx context.Context, issuer Issuer, token string) (*User, error) {
	hash := cacheKey("issuer\x00" + token) // no lookup of our own tokens finds it
	now, epoch := s.now(), s.epoch.Load()
	t, cached := s.cache.get(hash)
	if cached {
		age := now.Sub(t.checked)
		switch since := now.Unix() - t.claims.Iat; {
		case now.Unix() >= t.claims.Exp || since < 0 || since >= int64(verifyEvery/time.Second):
			s.cache.remove(hash)
			cached = false
		case t.epoch == epoch && age >= 0 && age < checkEvery:
			return t.user, nil
		}
	}
	if cached {
		u, err := s.userByIdentity(context.WithoutCancel(ctx), issuer.Name(), t.claims.Sub)
		if err != nil {
			return nil, err
		}
		if u != nil || !s.cfg.ProvisionUsers {
			return s.cacheExternal(hash, token, issuer.Name(), t.claims, u, now, epoch), nil
		}
		// The account was removed. A new one needs what the token says.
	}
	verified, ok, err := s.verifyExternal(ctx, issuer, token)
	if !ok || err != nil {
		return nil, err
	}
	u, err := s.externalUser(context.WithoutCancel(ctx), issuer, verified.Identity)
	if err != nil {
		return nil, err
	}
	c := &claims{Sub: verified.Subject, Iat: now.Unix(), Exp: verified.Expires, other: verified.Claims}
	return s.cacheExternal(hash, token, issuer.Name(), c, u, now, epoch), nil
}

// cacheExternal keeps a verified token and returns its user. Of its claims,
// Iat is when it was verified.
func (s *Service) cacheExternal(hash [32]byte, token, issuer string, c *claims, u *row, now time.Time, epoch int64) *User {
	var user *User
	if u != nil && u.active() {
		user = s.user(u, nil, 0)
		user.Credential, user.Claims, user.Authenticated = External, c.other, time.Time{}
		user.Expires, user.issuer, user.subject = moment(c.Exp), issuer, c.Sub
	}
	if len(token) <= maxCachedExternal {
		s.cache.put(hash, &cachedToken{c, user, now, epoch})
	}
	return user
}

// verifyExternal asks the issuer about a token. Bad ones are no news, and
// anybody can send them: the log gets one line a minute.
func (s *Service) verifyExternal(ctx context.Context, issuer Issuer, token string) (v ExternalToken, ok bool, err error) {
	name := issuer.Name()
	if !s.enter("issuer", name) {
		return v, false, errWaiting
	}
	defer s.leave("issuer", name)
	within, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	v, err = issuer.Verify(within, token)
	if err == nil {
		err = checkSubject(v.Subject)
	}
	if err != nil {
		s.quietly(ctx, slog.LevelInfo, "bearer token of an issuer refused", name, err)
		return v, false, nil
	}
	return v, true, nil
}

// externalUser returns the account of an identity, nil if there is none. With
// Config.ProvisionUsers it makes one, with the address if the issuer vouches
// for it and nobody has it: an address never leads to an account.
func (s *Service) externalUser(ctx context.Context, issuer Issuer, identity Identity) (*row, error) {
	u, err := s.userByIdentity(ctx, issuer.Name(), identity.Subject)
	if err != nil {
		return nil, err
	}
	if u != nil {
		return u, s.externalSeen(ctx, issuer, identity.Subject)
	}
	if !s.cfg.ProvisionUsers {
		return nil, nil
	}
	n := newcomer{provider: Provider{Name: issuer.Name(), Display: issuer.Name(), Issuer: issuer.Name()}, identity: identity, shy: true}
	if email, err := cleanEmail(identity.Email); err == nil && identity.EmailVerified && s.cfg.Identifier != OnlyUsername {
		n.email = email
	}
	id, err := s.createFromIdentity(ctx, n)
	if err != nil {
		return nil, err
	}
	return s.userByID(ctx, id)
}

// externalSeen notes once a day that an identity is used.
func (s *Service) externalSeen(ctx context.Context, issuer Issuer, subject string) error {
	now := s.now().Unix()
	due := false
	err := s.db.Query(ctx, `SELECT 1 FROM _user_identity WHERE issuer = ? AND subject = ? AND seen <= ?`,
		[]driver.Value{issuer.Name(), subject, now - int64(identitySeenEvery/time.Second)}, func([]driver.Value) error {
			due = true
			return nil
		})
	if err != nil || !due {
		return err
	}
	return s.db.Write(ctx, sqlite.Stmt{
		SQL:  `UPDATE _user_identity SET seen = ? WHERE issuer = ? AND subject = ?`,
		Args: []driver.Value{now, issuer.Name(), subject},
	})
}
