package auth

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/bedplate/bedplate/auth/internal/outbox"
	"github.com/bedplate/bedplate/auth/internal/throttle"
	"github.com/bedplate/bedplate/sqlite"
)

// A mailJob is a mail that somebody has asked for. It is stored before anybody
// has looked whether the address has an account; the worker does, and makes
// the token. So the request takes the same time for known and unknown
// addresses, and no token waits in the database.
type mailJob struct {
	Kind        mailKind  `json:"kind"`
	User        []byte    `json:"user,omitempty"`    // known already
	New         bool      `json:"new,omitempty"`     // User has just been made
	Session     []byte    `json:"session,omitempty"` // that asks; the mail is for nothing when it has ended
	Email       string    `json:"email,omitempty"`   // whom to look for, or the new address
	Username    string    `json:"username,omitempty"`
	RedirectURI string    `json:"redirect_uri,omitempty"`
	Device      string    `json:"device,omitempty"`
	Address     string    `json:"address,omitempty"`
	Time        time.Time `json:"time"`
}

// mailRetry is how long the worker tries to deliver a mail of a kind: for no
// longer than somebody waits for it.
func mailRetry(kind mailKind) time.Duration {
	switch kind {
	case mailOTP:
		return otpTTL
	case mailResetPassword:
		return resetTTL
	}
	return 48 * time.Hour
}

// mailTries is how often, with the outbox's back-off, it tries within that.
const mailTries = 60

// job is j as the outbox takes it.
func (s *Service) job(j mailJob) outbox.Job {
	j.Time = s.now()
	payload, err := json.Marshal(j)
	if err != nil {
		panic("auth: encode a mail job: " + err.Error()) // text and times only
	}
	return outbox.Job{Kind: string(j.Kind), Payload: payload, Expires: s.now().Add(mailRetry(j.Kind))}
}

// enqueue stores a job in a transaction. The caller wakes the worker behind
// the commit.
func (s *Service) enqueue(ctx context.Context, tx *sqlite.Tx, j mailJob) error {
	if err := run(ctx, tx, s.outbox.Stmts(s.job(j))...); err != nil {
		return fmt.Errorf("auth: store a mail: %w", err)
	}
	return nil
}

// mailLimit counts a mail that a request asks for, against the recipient,
// whether or not there is one, and the request's address.
func (s *Service) mailLimit(r *http.Request, n name) error {
	return s.takeLimits(r, append(s.recipientChecks(n),
		throttle.Check{Scope: "mail address", Subject: s.bucket(r), Limit: s.cfg.Limits.AddressMails.limit()}))
}

// recipientChecks are the limits of a mail that hold whoever asks for it.
func (s *Service) recipientChecks(n name) []throttle.Check {
	return []throttle.Check{
		{Scope: "mail", Subject: n.mailbox(), Limit: s.cfg.Limits.Mails.limit()},
		{Scope: "mail global", Limit: s.cfg.Limits.GlobalMails.limit()},
	}
}

// takeLimits counts what a request asks for, or refuses it with status 429.
func (s *Service) takeLimits(r *http.Request, checks []throttle.Check) error {
	wait, err := s.limits.Take(r.Context(), checks...)
	if err == nil && wait > 0 {
		err = tooMany(wait)
	}
	return err
}

// errNobody is that a mail has no recipient: no such account, or one that
// gets no such mail. It is no failure.
var errNobody = errors.New("auth: nobody to send a mail to")

// deliver sends the mail of a job; it is the outbox's worker.
func (s *Service) deliver(ctx context.Context, job outbox.Job) error {
	var j mailJob
	if err := json.Unmarshal(job.Payload, &j); err != nil {
		return outbox.ErrPermanent(fmt.Errorf("auth: decode a mail job: %w", err))
	}
	kind, data, err := s.mailData(ctx, j)
	if errors.Is(err, errNobody) {
		return nil
	}
	if err != nil {
		return err
	}
	data.AppName, data.SiteURL, data.Device, data.Address, data.Time = s.cfg.AppName, s.cfg.SiteURL, j.Device, j.Address, j.Time
	data.RedirectURI = j.RedirectURI
	message, err := s.templates.render(kind, data)
	if err != nil {
		return outbox.ErrPermanent(err)
	}
	if s.cfg.Mailer == nil {
		s.log.InfoContext(ctx, "mail not sent, there is no Mailer", "to", message.To, "subject", message.Subject)
		return nil
	}
	err = s.cfg.Mailer.Send(ctx, message)
	var permanent interface{ Permanent() bool }
	if errors.As(err, &permanent) && permanent.Permanent() {
		return outbox.ErrPermanent(err)
	}
	return err
}

// mailData finds the recipient of a mail and makes the token that it carries.
// One that an earlier try has made ends. The kind is the job's, unless the
// address of the mail turns out to have an owner who is not who asked.
func (s *Service) mailData(ctx context.Context, j mailJob) (kind mailKind, d mailData, err error) {
	u, err := s.mailUser(ctx, j)
	if err != nil {
		return "", d, err
	}
	kind, d = j.Kind, mailData{Email: u.email, Username: u.username}
	switch kind {
	case mailVerifyEmail:
		if u.unverified == "" {
			return "", d, errNobody
		}
		owner, err := s.userByName(ctx, name{email: u.unverified})
		if err != nil {
			return "", d, err
		}
		if owner != nil && j.New {
			return "", d, s.addressOwned(ctx, u, owner)
		}
		if owner != nil {
			kind, d = mailRegisteredAlready, mailData{Email: owner.email, Username: owner.username}
			break
		}
		d.Email = u.unverified
		d.Token, err = s.mailToken(ctx, u, purposeVerify, verifyTTL, &addressState{Email: u.unverified, RedirectURI: j.RedirectURI},
			must(errNobody, `SELECT 1 FROM _user WHERE id = ? AND unverified_email = ?`, u.id[:], u.unverified))
		if err != nil {
			return "", d, err
		}
		d.URL, d.Minutes = s.link(s.cfg.Prefix+"/verify_email/confirm/"+d.Token, j.RedirectURI), minutes(verifyTTL)
	case mailChangeEmail:
		owner, err := s.userByName(ctx, name{email: j.Email})
		if err != nil {
			return "", d, err
		}
		if owner != nil && owner.id != u.id {
			kind, d = mailRegisteredAlready, mailData{Email: owner.email, Username: owner.username}
			break
		}
		d.Email = j.Email
		d.Token, err = s.mailToken(ctx, u, purposeChange, changeTTL,
			&addressState{Email: j.Email, Old: u.email, Session: j.Session, RedirectURI: j.RedirectURI},
			must(errNobody, `SELECT 1 FROM _session WHERE id = ? AND user = ?`, j.Session, u.id[:]))
		if err != nil {
			return "", d, err
		}
		d.URL, d.Minutes = s.link(s.cfg.Prefix+"/change_email/confirm/"+d.Token, j.RedirectURI), minutes(changeTTL)
	case mailResetPassword:
		if !u.active() || u.email == "" {
			return "", d, errNobody
		}
		d.Token, err = s.mailToken(ctx, u, purposeReset, resetTTL, nil, stillOwns(u))
		d.URL, d.Minutes = s.link(s.cfg.PagesPrefix+"/reset_password/update/"+d.Token, j.RedirectURI), minutes(resetTTL)
	case mailOTP:
		if !u.active() || u.email == "" {
			return "", d, errNobody
		}
		d.Code, err = s.mailCode(ctx, u)
		d.URL = s.cfg.SiteURL + withQuery(s.cfg.PagesPrefix+"/otp/login", "email", u.email, "code", d.Code)
		d.Minutes = minutes(otpTTL)
	case mailEmailChanged:
		d.Email = j.Email // the old address
	}
	switch kind {
	case mailRegisteredAlready:
		d.URL = s.cfg.SiteURL + s.cfg.PagesPrefix + "/login"
	case mailRecoveryCodeUsed:
		d.Remaining, err = s.recoveryCodesLeft(ctx, u.id)
	case mailPasswordChanged:
		d.URL = s.cfg.SiteURL + s.cfg.PagesPrefix + "/reset_password/request"
	}
	if err == nil && d.Email == "" {
		err = errNobody
	}
	return kind, d, err
}

// addressOwned tells the owner of an address that somebody has registered with
// it. The account that was made for that goes: there is nothing that it could
// become. It stays, of no use to anybody, if a row of the application's forbids
// that.
func (s *Service) addressOwned(ctx context.Context, u, owner *row) error {
	notice := s.outbox.Stmts(s.job(mailJob{Kind: mailRegisteredAlready, Email: owner.email}))
	err := s.db.Write(ctx, append(slices.Clone(notice), sqlite.Stmt{
		SQL:  `DELETE FROM _user WHERE id = ? AND unverified_email = ? AND email IS NULL`,
		Args: []driver.Value{u.id[:], u.unverified},
	})...)
	if isConstraint(err) {
		err = s.db.Write(ctx, notice...)
	}
	if err != nil {
		return err
	}
	s.outbox.Wake()
	return errNobody
}

// stillOwns returns the condition for storing what is going to be mailed to
// the address of u: a change of the address ends what was stored before it.
func stillOwns(u *row) sqlite.Stmt {
	return must(errNobody, `SELECT 1 FROM _user WHERE id = ? AND email = ?`, u.id[:], u.email)
}

func minutes(d time.Duration) int { return int(d / time.Minute) }

// mailUser returns the account that a mail is about.
func (s *Service) mailUser(ctx context.Context, j mailJob) (u *row, err error) {
	switch {
	case len(j.User) == len(UserID{}):
		u, err = s.userByID(ctx, UserID(j.User))
	case j.Kind == mailVerifyEmail:
		u, err = s.findUser(ctx, "unverified_email = ? ORDER BY created DESC LIMIT 1", j.Email)
	case j.Email != "" || j.Username != "":
		u, err = s.userByName(ctx, name{j.Email, j.Username})
	}
	if err == nil && (u == nil || u.disabled) {
		err = errNobody
	}
	return u, err
}

// addressState is the data of a token that proves an address.
type addressState struct {
	Email       string `json:"email"`
	Old         string `json:"old,omitempty"`     // the address of the account when it was asked for
	Session     []byte `json:"session,omitempty"` // that asked
	RedirectURI string `json:"redirect_uri,omitempty"`
}

// mailToken makes the token of a link, under a condition.
func (s *Service) mailToken(ctx context.Context, u *row, purpose string, ttl time.Duration, state *addressState, condition sqlite.Stmt) (string, error) {
	token := randomText(48, alphanumeric)
	t := oneTime{hash: hashToken(token), purpose: purpose, user: &u.id, ttl: ttl}
	if state != nil {
		t.data = state
	}
	return token, s.db.Write(ctx, condition, dropOthers(u.id, purpose), s.put(t))
}

// otpAlphabet has no characters that are mistaken for others.
const otpAlphabet = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"

// mailCode makes a code that a person types. Its hash depends on the user, so
// the code of one is no code of another.
func (s *Service) mailCode(ctx context.Context, u *row) (string, error) {
	code := randomText(6, otpAlphabet)
	return code, s.db.Write(ctx, stillOwns(u), dropOthers(u.id, purposeOTP), s.put(oneTime{
		hash: s.mac(purposeOTP, string(u.id[:])), purpose: purposeOTP, user: &u.id,
		data: otpState{s.mac("otp code", string(u.id[:]), code)}, ttl: otpTTL,
	}))
}

// otpState is the data of a mailed code. The row is found by its user, so that
// wrong codes can be counted against it.
type otpState struct {
	Code []byte `json:"code"`
}

// link returns a URL of this site, with the place to go to afterwards.
func (s *Service) link(path, redirectURI string) string {
	if redirectURI != "" {
		path = withQuery(path, "redirect_uri", redirectURI)
	}
	return s.cfg.SiteURL + path
}

// notice returns the statements that tell a user by mail what has happened to
// the account, for a write that does it. The caller wakes the worker.
func (s *Service) notice(r *http.Request, kind mailKind, u *row, email string) []sqlite.Stmt {
	return s.outbox.Stmts(s.job(mailJob{Kind: kind, User: u.id[:], Email: email, Device: s.device(r), Address: s.address(r)}))
}
