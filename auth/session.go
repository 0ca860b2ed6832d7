package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/bedplate/bedplate/internal/httpx"
	"github.com/bedplate/bedplate/sqlite"
)

// Tokens are what a sign-in gives to a client.
type Tokens struct {
	AuthToken    string `json:"auth_token"`
	RefreshToken string `json:"refresh_token"`
	CSRFToken    string `json:"csrf_token"`
}

const (
	refreshLength = 86
	maxSessions   = 100 // of one user; the one not seen for longest ends first
	maxRotated    = 100 // used refresh tokens of one session that are still known
	maxDevices    = 20  // known devices of one user
	rotateGrace   = 10 * time.Second
	seenEvery     = 5 * time.Minute
)

// A signIn is a user who has shown all that is asked for.
type signIn struct {
	user    *row
	method  string // "password", "password totp", ...
	browser string // value of the device cookie; "" for clients that are no browsers
	request *http.Request
	with    []sqlite.Stmt // done in the same write
	code    []byte        // hash of the authorization code that this uses up; nil: none
}

// errUsed is that a one-time token was used up by somebody who was faster.
var errUsed = errors.New("auth: one-time token was used before")

// begin begins a session.
func (s *Service) begin(ctx context.Context, in signIn) (Tokens, error) {
	now := s.now().Unix()
	session := make([]byte, 16)
	_, _ = rand.Read(session) // never fails
	t := Tokens{RefreshToken: randomText(refreshLength, alphanumeric)}
	var err error
	t.AuthToken, t.CSRFToken, err = s.mint(ctx, in.user, session, now)
	if err != nil {
		return Tokens{}, err
	}
	ttl := s.cfg.RefreshTTL
	if in.user.anonymous() {
		ttl = s.cfg.AnonymousTTL
	}
	user := in.user.id[:]
	stmts := append(in.with,
		sqlite.Stmt{
			SQL: `INSERT INTO _session (id, user, created, expires, seen, authenticated, method, cookie, device, address)
				SELECT ?1, id, ?3, ?4, ?3, ?3, ?5, ?6, ?7, ?8 FROM _user
				WHERE id = ?2 AND disabled = 0 AND unverified_email IS NULL AND (coalesce(totp_secret, '') = '' OR ?9)`,
			Args: []driver.Value{
				session, user, now, addSeconds(now, ttl), in.method, boolean(in.browser != ""), s.device(in.request), s.address(in.request),
				boolean(hasSecondFactor(in.method)),
			},
		},
		sqlite.Stmt{
			// The user may have been removed or disabled since it was looked
			// up, or have enrolled a second factor that nobody has shown.
			SQL:  `SELECT 1 FROM _session WHERE id = ?`,
			Args: []driver.Value{session},
			Done: func(rows int) error {
				if rows == 0 {
					return ErrUnauthorized
				}
				return nil
			},
		},
		sqlite.Stmt{
			SQL:  `INSERT INTO _refresh_token (hash, session) VALUES (?, ?)`,
			Args: []driver.Value{hashToken(t.RefreshToken), session},
		},
		sqlite.Stmt{
			// The new one stays, whatever the clock said when others were seen.
			SQL: `DELETE FROM _session WHERE user = ?1 AND id IN (
				SELECT id FROM _session WHERE user = ?1 AND id <> ?3 ORDER BY seen DESC, id LIMIT -1 OFFSET ?2)`,
			Args: []driver.Value{user, int64(maxSessions - 1), session},
		},
	)
	if in.code != nil {
		// Marked instead of removed, so that a second use is noticed.
		stmts = append(stmts, sqlite.Stmt{
			SQL:  `UPDATE _one_time SET session = ? WHERE hash = ? AND purpose = ? AND session IS NULL AND expires > ? RETURNING 1`,
			Args: []driver.Value{session, in.code, purposeCode, now},
			Done: func(rows int) error {
				if rows == 0 {
					return errUsed
				}
				return nil
			},
		})
	}
	notice, err := s.signInNotice(ctx, in)
	if err != nil {
		return Tokens{}, err
	}
	stmts = append(append(stmts, notice...), s.remember(in)...)
	if err := s.db.Write(ctx, stmts...); err != nil {
		return Tokens{}, err
	}
	if notice != nil {
		s.outbox.Wake()
	}
	if s.cfg.Hooks.AfterLogin != nil {
		if err := s.callAfterLogin(ctx, s.user(in.user, session, now)); err != nil {
			return Tokens{}, fmt.Errorf("auth: after-login hook: %w", err)
		}
	}
	return t, nil
}

// signInNotice tells users of a sign-in from a device that has not been seen
// before, unless it is the first one of the account.
func (s *Service) signInNotice(ctx context.Context, in signIn) ([]sqlite.Stmt, error) {
	if !s.cfg.SignInMails || in.user.email == "" {
		return nil, nil
	}
	known, err := s.knownDevice(ctx, in.request, in.user)
	if err != nil || known.device != "" {
		return nil, err
	}
	first := true
	err = s.db.Query(ctx, `SELECT 1 FROM _known_device WHERE user = ? LIMIT 1`, []driver.Value{in.user.id[:]}, func([]driver.Value) error {
		first = false
		return nil
	})
	if err != nil || first {
		return nil, err
	}
	return s.notice(in.request, mailNewSignIn, in.user, ""), nil
}

func (s *Service) callAfterLogin(ctx context.Context, u *User) (err error) {
	defer recoverHook(&err)
	s.cfg.Hooks.AfterLogin(ctx, u)
	return nil
}

// addSeconds adds a duration and stays within int64.
func addSeconds(now int64, d time.Duration) int64 {
	seconds := int64(d / time.Second)
	if now > math.MaxInt64-seconds {
		return math.MaxInt64
	}
	return now + seconds
}

func boolean(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// device is the User-Agent as text that can be shown in a list.
func (s *Service) device(r *http.Request) string {
	agent := strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return -1
		}
		return c
	}, strings.ToValidUTF8(r.UserAgent(), ""))
	if len(agent) > 256 {
		agent = strings.ToValidUTF8(agent[:256], "")
	}
	return agent
}

func (s *Service) address(r *http.Request) string {
	if a := s.client.Of(r); a.IsValid() {
		return a.String()
	}
	return ""
}

// bucket is the network that limits count the request for.
func (s *Service) bucket(r *http.Request) string {
	return httpx.Bucket(s.client.Of(r)).String()
}

// A refreshed session has a new auth token and, if the refresh token was
// rotated, its successor.
type refreshed struct {
	Tokens
	session []byte
	state   *sessionState
}

// refresh mints a new auth token. With rotate set the refresh token is used
// up and replaced by its successor; showing a used one again, later than a
// moment afterwards, ends the session, because one of the two who show it has
// stolen it (RFC 9700, section 4.14.2).
func (s *Service) refresh(ctx context.Context, token string, rotate bool) (*refreshed, error) {
	if len(token) != refreshLength {
		return nil, ErrUnauthorized
	}
	hash := hashToken(token)
	session, used, err := s.refreshToken(ctx, hash)
	if err != nil {
		return nil, err
	}
	state, err := s.sessionState(ctx, session)
	if err != nil {
		return nil, err
	}
	if state == nil || !state.user.active() {
		return nil, ErrUnauthorized
	}
	out := &refreshed{session: session, state: state, Tokens: Tokens{RefreshToken: token}}
	// First, since it may fail: the token must not be used up in vain.
	if out.AuthToken, out.CSRFToken, err = s.mint(ctx, state.user, session, state.authenticated); err != nil {
		return nil, err
	}
	if rotate || used {
		if out.RefreshToken, err = s.rotate(ctx, session, hash, token); err != nil {
			return nil, err
		}
	} else if now := s.now(); now.Unix()-state.seen >= int64(seenEvery/time.Second) {
		err := s.db.Write(ctx, sqlite.Stmt{SQL: `UPDATE _session SET seen = ? WHERE id = ?`, Args: []driver.Value{now.Unix(), session}})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *Service) refreshToken(ctx context.Context, hash []byte) (session []byte, used bool, err error) {
	err = s.db.Query(ctx, `SELECT session, used FROM _refresh_token WHERE hash = ?`, []driver.Value{hash}, func(v []driver.Value) error {
		session, used = blob(v[0]), v[1] != nil
		return nil
	})
	return session, used, err
}

// errReused is that a refresh token was shown again.
var errReused = errors.New("auth: refresh token was used before")

// rotate marks a refresh token as used and returns its successor. Requests
// that show the same one at nearly the same time, as browser tabs do, get the
// same successor: it is a function of its predecessor and of a secret, so it
// need not be stored to be given out twice.
func (s *Service) rotate(ctx context.Context, session, hash []byte, token string) (string, error) {
	next := s.successorOf(token)
	now := s.now().UnixMilli()
	var used int64
	err := s.db.Write(ctx,
		sqlite.Stmt{
			SQL:  `UPDATE _refresh_token SET used = coalesce(used, ?1) WHERE hash = ?2 RETURNING used`,
			Args: []driver.Value{now, hash},
			Row:  func(v []driver.Value) { used = integer(v[0]) },
			Done: func(rows int) error {
				age := time.Duration(now-used) * time.Millisecond
				switch {
				case rows == 0:
					return ErrUnauthorized
				case age > rotateGrace || age < -rotateGrace:
					return errReused
				}
				return nil
			},
		},
		sqlite.Stmt{
			SQL:  `INSERT INTO _refresh_token (hash, session) VALUES (?, ?) ON CONFLICT DO NOTHING`,
			Args: []driver.Value{hashToken(next), session},
		},
		sqlite.Stmt{
			SQL:  `UPDATE _session SET seen = ? WHERE id = ?`,
			Args: []driver.Value{now / 1000, session},
		},
		sqlite.Stmt{
			SQL: `DELETE FROM _refresh_token WHERE session = ?1 AND hash IN (
				SELECT hash FROM _refresh_token WHERE session = ?1 AND used IS NOT NULL ORDER BY used DESC LIMIT -1 OFFSET ?2)`,
			Args: []driver.Value{session, int64(maxRotated)},
		},
	)
	if !errors.Is(err, errReused) {
		return next, err
	}
	if err := s.endSession(ctx, session); err != nil {
		return "", err
	}
	s.log.WarnContext(ctx, "a used refresh token was shown again, its session is ended", "session", sessionName(session))
	return "", ErrUnauthorized
}

// successorOf returns the refresh token that follows token.
func (s *Service) successorOf(token string) string { return s.deriveToken(token) }

// deriveToken returns the refresh token that goes with from.
func (s *Service) deriveToken(from string) string {
	out := make([]byte, 0, refreshLength)
	for block := uint64(0); ; block++ {
		h := hmac.New(sha256.New, s.successor[:])
		h.Write(binary.BigEndian.AppendUint64(nil, block))
		h.Write([]byte(from))
		for _, b := range h.Sum(nil) {
			if int(b) >= 256-256%len(alphanumeric) {
				continue
			}
			if out = append(out, alphanumeric[int(b)%len(alphanumeric)]); len(out) == refreshLength {
				return string(out)
			}
		}
	}
}

// endSession ends one session.
func (s *Service) endSession(ctx context.Context, session []byte) error {
	err := s.db.Write(ctx, sqlite.Stmt{SQL: `DELETE FROM _session WHERE id = ?`, Args: []driver.Value{session}})
	s.changed()
	return err
}

// endSessions returns the statement that ends all sessions of a user but one,
// which may be nil.
func endSessions(user UserID, but []byte) sqlite.Stmt {
	return sqlite.Stmt{
		SQL:  `DELETE FROM _session WHERE user = ? AND id IS NOT ?`,
		Args: []driver.Value{user[:], nullBlob(but)},
	}
}

func nullBlob(b []byte) driver.Value {
	if b == nil {
		return nil
	}
	return b
}

// EndSessions ends all sessions of a user and authorization codes that could
// begin one. Tokens end within a minute, in this process at once, and event
// streams within seconds. API keys stay; [Service.SetPassword] ends those too.
func (s *Service) EndSessions(ctx context.Context, user UserID) error {
	err := s.db.Write(ctx, dropOthers(user, purposeCode), endSessions(user, nil))
	s.changed()
	return err
}
