package auth

import (
	"context"
	"database/sql/driver"
	"net/http"

	"github.com/bedplate/bedplate/sqlite"
)

// Recovery codes stand in for an authenticator app that was lost. Each is good
// once.
const (
	recoveryCount  = 10
	recoveryLength = 10 // of 32 characters: 50 bits
)

// recoveryCodes are shown once; the database has only their HMAC.
type recoveryCodes struct {
	Codes []string `json:"recovery_codes"`
}

// newRecoveryCodes returns codes as they are shown, XXXXX-XXXXX.
func newRecoveryCodes() []string {
	codes := make([]string, recoveryCount)
	for i := range codes {
		code := randomText(recoveryLength, otpAlphabet)
		codes[i] = code[:recoveryLength/2] + "-" + code[recoveryLength/2:]
	}
	return codes
}

// recoveryHash is that of a code as [factorCode] reads it.
func (s *Service) recoveryHash(id UserID, code string) []byte {
	return s.mac("recovery", string(id[:]), code)
}

// replaceRecoveryCodes returns the statements that end a user's codes and
// store others, if any.
func (s *Service) replaceRecoveryCodes(id UserID, codes []string) []sqlite.Stmt {
	stmts := []sqlite.Stmt{{SQL: `DELETE FROM _recovery_code WHERE user = ?`, Args: []driver.Value{id[:]}}}
	for _, code := range codes {
		hash := s.recoveryHash(id, code[:recoveryLength/2]+code[recoveryLength/2+1:])
		stmts = append(stmts, sqlite.Stmt{
			SQL:  `INSERT INTO _recovery_code (user, hash) VALUES (?, ?)`,
			Args: []driver.Value{id[:], hash},
		})
	}
	return stmts
}

func (s *Service) checkRecoveryCode(ctx context.Context, u *row, code string) (shownFactor, error) {
	hash, found := s.recoveryHash(u.id, code), false
	err := s.db.Query(ctx, `SELECT 1 FROM _recovery_code WHERE user = ? AND hash = ? AND used IS NULL`,
		[]driver.Value{u.id[:], hash}, func([]driver.Value) error {
			found = true
			return nil
		})
	if err != nil {
		return shownFactor{}, err
	}
	if !found {
		return shownFactor{}, errWrongFactor
	}
	return shownFactor{methodRecovery, []sqlite.Stmt{must(errUsed,
		`UPDATE _recovery_code SET used = ? WHERE user = ? AND hash = ? AND used IS NULL RETURNING 1`,
		s.now().Unix(), u.id[:], hash)}}, nil
}

// serveRecoveryCodes is POST /totp/recovery_codes: it replaces the codes by
// new ones, for who shows the app's code once more. A recovery code is not
// enough, or one that was found would make ten.
func (s *Service) serveRecoveryCodes(w http.ResponseWriter, r *http.Request) error {
	u, code, err := s.factorRequest(w, r)
	if err != nil {
		return err
	}
	codes := newRecoveryCodes()
	stmts := append(s.replaceRecoveryCodes(u.id, codes), s.notice(r, mailMFAChanged, u, "")...)
	err = s.tryFactor(r, u, func() (shownFactor, error) { return s.checkTOTP(u, code) }, stmts...)
	if err != nil {
		return err
	}
	s.outbox.Wake()
	return writeJSON(w, recoveryCodes{codes})
}

// serveRecoveryCodesLeft is GET /totp/recovery_codes: how many are unused.
func (s *Service) serveRecoveryCodesLeft(w http.ResponseWriter, r *http.Request) error {
	caller, err := s.requireSession(w, r)
	if err != nil {
		return err
	}
	left, err := s.recoveryCodesLeft(r.Context(), caller.ID)
	if err != nil {
		return err
	}
	return writeJSON(w, struct {
		Remaining int `json:"remaining"`
	}{left})
}

func (s *Service) recoveryCodesLeft(ctx context.Context, id UserID) (left int, err error) {
	err = s.db.Query(ctx, `SELECT count(*) FROM _recovery_code WHERE user = ? AND used IS NULL`,
		[]driver.Value{id[:]}, func(v []driver.Value) error {
			left = int(integer(v[0]))
			return nil
		})
	return left, err
}
