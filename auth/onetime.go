package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"time"

	"github.com/bedplate/bedplate/sqlite"
)

// The purposes of one-time tokens. A token serves the purpose that it was made
// for and no other.
const (
	purposeCode     = "code"     // authorization code of the PKCE flow
	purposeMFA      = "mfa"      // between password and second factor
	purposeVerify   = "verify"   // of an address
	purposeChange   = "change"   // of an address
	purposeReset    = "reset"    // of a password
	purposeOTP      = "otp"      // mailed code
	purposeTOTP     = "totp"     // secret that a user was offered
	purposeSetup    = "setup"    // first admin
	purposeProvider = "provider" // between us and an identity provider
)

// Lives of one-time tokens.
const (
	codeTTL     = time.Minute
	mfaTTL      = 5 * time.Minute
	verifyTTL   = 24 * time.Hour
	changeTTL   = 4 * time.Hour
	resetTTL    = 30 * time.Minute
	otpTTL      = 10 * time.Minute
	totpTTL     = 15 * time.Minute
	setupTTL    = 15 * time.Minute
	providerTTL = 10 * time.Minute
)

// latest is when a token of a purpose that is made now expires, give or take
// the leeway. One that is good for longer was made before the clock was set
// back; it must not live longer for that.
func (s *Service) latest(purpose string) int64 {
	ttl := verifyTTL // the longest
	switch purpose {
	case purposeCode:
		ttl = codeTTL
	case purposeMFA:
		ttl = mfaTTL
	case purposeChange:
		ttl = changeTTL
	case purposeReset:
		ttl = resetTTL
	case purposeOTP:
		ttl = otpTTL
	case purposeTOTP:
		ttl = totpTTL
	case purposeSetup:
		ttl = setupTTL
	case purposeProvider:
		ttl = providerTTL
	}
	return s.now().Add(ttl + leeway).Unix()
}

// maxTries is how many wrong codes a one-time token bears.
const maxTries = 5

const alphanumeric = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// randomText returns n characters of the alphabet, of at most 256.
func randomText(n int, alphabet string) string {
	out := make([]byte, 0, n)
	limit := 256 - 256%len(alphabet)
	for buf := make([]byte, n+n/2); ; {
		_, _ = rand.Read(buf) // never fails
		for _, b := range buf {
			if int(b) >= limit {
				continue // or some characters would be likelier
			}
			if out = append(out, alphabet[int(b)%len(alphabet)]); len(out) == n {
				return string(out)
			}
		}
	}
}

func hashToken(token string) []byte {
	h := sha256.Sum256([]byte(token))
	return h[:]
}

// mac hashes what is too short to be hashed without a key.
func (s *Service) mac(purpose string, parts ...string) []byte {
	h := hmac.New(sha256.New, s.pepper[:])
	h.Write([]byte(purpose))
	for _, p := range parts {
		h.Write([]byte{0})
		h.Write([]byte(p))
	}
	return h.Sum(nil)
}

// A oneTime is a one-time token or code as it is kept.
type oneTime struct {
	hash    []byte
	purpose string
	user    *UserID // nil: nobody's
	data    any     // sealed JSON; nil: none
	ttl     time.Duration
}

// put returns the statement that stores t.
func (s *Service) put(t oneTime) sqlite.Stmt {
	var user, data driver.Value
	if t.user != nil {
		user = t.user[:]
	}
	if t.data != nil {
		encoded, err := json.Marshal(t.data)
		if err != nil {
			panic(fmt.Sprintf("auth: encode the data of a one-time token: %v", err)) // our own types
		}
		data = s.key.Seal("one-time/"+t.purpose, encoded)
	}
	return sqlite.Stmt{
		SQL:  `INSERT INTO _one_time (hash, purpose, user, data, expires) VALUES (?, ?, ?, ?, ?)`,
		Args: []driver.Value{t.hash, t.purpose, user, data, s.now().Add(t.ttl).Unix()},
	}
}

// dropOthers removes the user's tokens for a purpose: making a new one ends
// the old.
func dropOthers(user UserID, purpose string) sqlite.Stmt {
	return sqlite.Stmt{SQL: `DELETE FROM _one_time WHERE user = ? AND purpose = ?`, Args: []driver.Value{user[:], purpose}}
}

// dropOldest is dropOthers but for the newest tokens.
func dropOldest(user UserID, purpose string, keep int) sqlite.Stmt {
	return sqlite.Stmt{
		SQL: `DELETE FROM _one_time WHERE user = ?1 AND purpose = ?2 AND hash IN (
			SELECT hash FROM _one_time WHERE user = ?1 AND purpose = ?2 ORDER BY expires DESC, hash LIMIT -1 OFFSET ?3)`,
		Args: []driver.Value{user[:], purpose, int64(keep)},
	}
}

// A found is a one-time token that was shown.
type found struct {
	user   UserID // zero: nobody's
	data   []byte // sealed
	ok     bool
	tries  int64
	expiry int64
}

// peek looks at a token without using it up.
func (s *Service) peek(ctx context.Context, purpose string, hash []byte) (f found, err error) {
	err = s.db.Query(ctx, `SELECT user, data, tries, expires FROM _one_time WHERE hash = ? AND purpose = ? AND expires > ? AND expires <= ? AND session IS NULL`,
		[]driver.Value{hash, purpose, s.now().Unix(), s.latest(purpose)}, func(v []driver.Value) error {
			copy(f.user[:], blob(v[0]))
			f.data, f.tries, f.expiry, f.ok = blob(v[1]), integer(v[2]), integer(v[3]), true
			return nil
		})
	return f, err
}

// take uses a token up: of several at the same time, one finds it. Further
// statements may follow in the same write; they are undone with it.
func (s *Service) takeStmt(purpose string, hash []byte, f *found) sqlite.Stmt {
	return sqlite.Stmt{
		SQL:  `DELETE FROM _one_time WHERE hash = ? AND purpose = ? AND expires > ? AND expires <= ? AND session IS NULL RETURNING user, data`,
		Args: []driver.Value{hash, purpose, s.now().Unix(), s.latest(purpose)},
		Row: func(v []driver.Value) {
			*f = found{data: blob(v[1]), ok: true}
			copy(f.user[:], blob(v[0]))
		},
		Done: func(rows int) error {
			if rows == 0 {
				*f = found{}
			}
			return nil
		},
	}
}

func (s *Service) take(ctx context.Context, purpose string, hash []byte) (f found, err error) {
	err = s.db.Write(ctx, s.takeStmt(purpose, hash, &f))
	return f, err
}

// miss counts a wrong code against a token and burns it at the limit.
func (s *Service) miss(purpose string, hash []byte) []sqlite.Stmt {
	return []sqlite.Stmt{
		{SQL: `UPDATE _one_time SET tries = tries + 1 WHERE hash = ? AND purpose = ?`, Args: []driver.Value{hash, purpose}},
		{SQL: `DELETE FROM _one_time WHERE hash = ? AND purpose = ? AND tries >= ?`, Args: []driver.Value{hash, purpose, int64(maxTries)}},
	}
}

// unsealData decodes the data of a token.
func (s *Service) unsealData(purpose string, sealed []byte, into any) error {
	data, err := s.key.Open("one-time/"+purpose, sealed)
	if err != nil {
		return fmt.Errorf("auth: open the data of a one-time token: %w", err)
	}
	return json.Unmarshal(data, into)
}

// run executes statements that were made for a write, without what they do with
// rows.
func run(ctx context.Context, tx *sqlite.Tx, stmts ...sqlite.Stmt) error {
	for _, stmt := range stmts {
		args := make([]any, len(stmt.Args))
		for i, a := range stmt.Args {
			args[i] = a
		}
		if _, err := tx.ExecContext(ctx, stmt.SQL, args...); err != nil {
			return err
		}
	}
	return nil
}
