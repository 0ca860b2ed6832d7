package auth

import (
	"context"
	"database/sql/driver"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/bedplate/bedplate/internal/totp"
	"github.com/bedplate/bedplate/sqlite"
)

// sealedPrefix marks the secrets in _user that are sealed. It has a character
// that base32 has not.
const sealedPrefix = "sealed:"

func isSealed(stored string) bool { return strings.HasPrefix(stored, sealedPrefix) }

// sealSeed returns a user's TOTP secret as it is stored.
func (s *Service) sealSeed(id UserID, secret []byte) string {
	return sealedPrefix + base64.RawStdEncoding.EncodeToString(s.key.Seal(seedContext(id), secret))
}

// seed returns the TOTP secret of a user, also one that somebody has written
// as base32.
func (s *Service) seed(u *row) ([]byte, error) {
	encoded, ok := strings.CutPrefix(u.totp, sealedPrefix)
	if !ok {
		return totp.Decode(u.totp)
	}
	sealed, err := base64.RawStdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, errors.New("not base64")
	}
	return s.key.Open(seedContext(u.id), sealed)
}

func seedContext(id UserID) string { return "totp/" + id.String() }

// seedChunk is how many secrets are sealed in one write.
const seedChunk = 100

// sealSeeds seals the TOTP secrets that SQL or TrailBase has written as they
// are.
func (s *Service) sealSeeds(ctx context.Context) error {
	return s.rewriteSeeds(ctx, `substr(totp_secret, 1, 7) <> 'sealed:'`, func(stored string) bool { return stored != "" })
}

// rewriteSeeds seals those of the secrets where a condition holds that are
// chosen by their stored form.
func (s *Service) rewriteSeeds(ctx context.Context, condition string, chosen func(stored string) bool) error {
	for last := []byte{}; ; {
		var stmts []sqlite.Stmt
		rows := 0
		err := s.db.Query(ctx, `SELECT id, totp_secret FROM _user WHERE `+condition+` AND id > ? ORDER BY id LIMIT ?`,
			[]driver.Value{last, int64(seedChunk)}, func(v []driver.Value) error {
				u := &row{totp: text(v[1])}
				last = blob(v[0])
				copy(u.id[:], last)
				rows++
				if !chosen(u.totp) {
					return nil
				}
				secret, err := s.seed(u)
				if err != nil {
					// Its owner cannot sign in with it, but everybody else can.
					s.log.WarnContext(ctx, "a TOTP secret is unreadable", "user", u.id.String(), "error", err)
					return nil
				}
				stmts = append(stmts, sqlite.Stmt{
					SQL:  `UPDATE _user SET totp_secret = ? WHERE id = ? AND totp_secret = ?`,
					Args: []driver.Value{s.sealSeed(u.id, secret), u.id[:], u.totp},
				})
				return nil
			})
		if err == nil && len(stmts) > 0 {
			err = s.db.Write(ctx, stmts...)
		}
		if err != nil {
			return fmt.Errorf("auth: seal TOTP secrets: %w", err)
		}
		if rows < seedChunk {
			return nil
		}
	}
}

// maxOffers is how many secrets a user is offered at the same time: pages ask
// twice, and people open them twice.
const maxOffers = 4

// serveTOTPRegister is GET /totp/register: it offers a new secret as a URL for
// the authenticator app. It becomes the user's when it is confirmed.
func (s *Service) serveTOTPRegister(w http.ResponseWriter, r *http.Request) error {
	caller, err := s.requireFresh(w, r)
	if err != nil {
		return err
	}
	png := false
	if v := r.URL.Query().Get("png"); v != "" {
		if png, err = strconv.ParseBool(v); err != nil {
			return badRequest("invalid query")
		}
	}
	u, err := s.userByID(r.Context(), caller.ID)
	switch {
	case err != nil:
		return err
	case u == nil:
		return ErrUnauthorized
	case u.totp != "":
		return ErrConflict
	}
	account := u.account()
	if account == "" {
		account = u.id.String()
	}
	secret := totp.NewSecret()
	offer := struct {
		URL string  `json:"totp_url"`
		PNG *string `json:"png"`
	}{URL: totp.URL(s.cfg.AppName, account, secret)}
	if png {
		image, err := totp.PNG(offer.URL)
		if err != nil {
			return err
		}
		encoded := base64.StdEncoding.EncodeToString(image)
		offer.PNG = &encoded
	}
	err = s.db.Write(r.Context(),
		dropOldest(u.id, purposeTOTP, maxOffers-1),
		s.put(oneTime{hash: s.offerHash(u.id, secret), purpose: purposeTOTP, user: &u.id, ttl: totpTTL}))
	if err != nil {
		return err
	}
	return writeJSON(w, offer)
}

func (s *Service) offerHash(id UserID, secret []byte) []byte {
	return s.mac("totp offer", string(id[:]), string(secret))
}

// serveTOTPConfirm is POST /totp/confirm: the app shows that it has taken over
// the secret, which is the user's second factor from now on. Clients send the
// URL back; a secret is good only if it was offered to this user a short while
// ago. Sessions that began without the factor end, but for the one that
// confirms.
func (s *Service) serveTOTPConfirm(w http.ResponseWriter, r *http.Request) error {
	caller, err := s.requireFresh(w, r)
	if err != nil {
		return err
	}
	f, err := s.readForm(w, r)
	if err != nil {
		return err
	}
	secret, err := totp.ParseURL(f.value("totp_url"))
	if err != nil {
		return badRequest("invalid totp url")
	}
	u, err := s.userByID(r.Context(), caller.ID)
	switch {
	case err != nil:
		return err
	case u == nil:
		return ErrUnauthorized
	case u.totp != "":
		return ErrConflict
	}
	hash := s.offerHash(u.id, secret)
	offer, err := s.peek(r.Context(), purposeTOTP, hash)
	if err != nil {
		return err
	}
	if !offer.ok {
		return badRequest("invalid totp url")
	}
	step, ok := totp.Verify(secret, factorCode(f), s.now(), 0)
	if !ok {
		return badRequest("invalid TOTP code")
	}
	stmts := []sqlite.Stmt{
		must(ErrConflict, `UPDATE _user SET totp_secret = ?, totp_step = ? WHERE id = ? AND coalesce(totp_secret, '') = '' RETURNING 1`,
			s.sealSeed(u.id, secret), step, u.id[:]),
		s.mustTake(purposeTOTP, hash, badRequest("invalid totp url")),
		endSessions(u.id, caller.session),
		// It may have ended meanwhile, and then it confirms nothing.
		must(ErrUnauthorized, `UPDATE _session SET method = CASE WHEN instr(method, ' ') THEN method ELSE method || ?1 END
			WHERE id = ?2 RETURNING 1`, " "+methodTOTP, caller.session),
	}
	for _, purpose := range []string{purposeTOTP, purposeMFA, purposeCode} {
		stmts = append(stmts, dropOthers(u.id, purpose))
	}
	stmts = append(stmts, s.notice(r, mailMFAChanged, u, "")...)
	var codes []string
	if f.json && f.value("recovery_codes") == "true" {
		codes = newRecoveryCodes()
		stmts = append(stmts, s.replaceRecoveryCodes(u.id, codes)...)
	} else {
		stmts = append(stmts, s.replaceRecoveryCodes(u.id, nil)...)
	}
	if err := s.db.Write(r.Context(), stmts...); err != nil {
		return err
	}
	s.changed()
	s.outbox.Wake()
	if codes != nil {
		return writeJSON(w, recoveryCodes{codes})
	}
	return writeText(w, "TOTP enabled")
}

// errNotEnrolled is the contract's text.
var errNotEnrolled = &Error{Status: http.StatusBadRequest, Text: "TOTP not enabled for this user"}

// serveTOTPUnregister is POST /totp/unregister: it ends the second factor,
// recovery codes included, for who shows it once more.
func (s *Service) serveTOTPUnregister(w http.ResponseWriter, r *http.Request) error {
	u, code, err := s.factorRequest(w, r)
	if err != nil {
		return err
	}
	stmts := []sqlite.Stmt{
		must(errUsed, `UPDATE _user SET totp_secret = NULL WHERE id = ? AND totp_secret IS NOT NULL RETURNING 1`, u.id[:]),
		dropOthers(u.id, purposeMFA),
	}
	stmts = append(stmts, s.replaceRecoveryCodes(u.id, nil)...)
	stmts = append(stmts, s.notice(r, mailMFAChanged, u, "")...)
	err = s.tryFactor(r, u, func() (shownFactor, error) { return s.checkFactor(r.Context(), u, code) }, stmts...)
	if err != nil {
		return err
	}
	s.changed()
	s.outbox.Wake()
	return writeText(w, "TOTP disabled")
}

// factorRequest reads a request of an enrolled user that shows a code.
func (s *Service) factorRequest(w http.ResponseWriter, r *http.Request) (u *row, code string, err error) {
	caller, err := s.requireFresh(w, r)
	if err != nil {
		return nil, "", err
	}
	f, err := s.readForm(w, r)
	if err != nil {
		return nil, "", err
	}
	u, err = s.userByID(r.Context(), caller.ID)
	code = factorCode(f)
	switch {
	case err != nil:
	case u == nil:
		err = ErrUnauthorized
	case u.totp == "":
		err = errNotEnrolled
	case code == "":
		err = badRequest("TOTP missing")
	}
	return u, code, err
}
