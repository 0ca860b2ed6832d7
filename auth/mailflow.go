package auth

import (
	"context"
	"database/sql/driver"
	"net/http"
	"net/url"

	"github.com/bedplate/bedplate/sqlite"
)

// mailRoutes adds what has to do with addresses, names and passwords.
func (s *Service) mailRoutes(add addRoute) {
	add("GET /verify_email/trigger", s.serveVerifyTrigger)
	add("GET /verify_email/confirm/{token}", s.serveVerifyPage)
	add("POST /verify_email/confirm/{token}", s.serveVerifyConfirm)
	add("POST /change_email/request", s.serveChangeEmail)
	add("POST /change_email", s.serveChangeEmail) // as the JavaScript client calls it
	add("GET /change_email/confirm/{token}", s.serveChangeEmailPage)
	add("POST /change_email/confirm/{token}", s.serveChangeEmailConfirm)
	add("POST /change_username", s.serveChangeUsername)
	add("POST /change_password", s.serveChangePassword)
	add("POST /reset_password/request", s.serveResetRequest)
	add("POST /reset_password/update", s.serveResetUpdate)
	if s.cfg.OTP {
		add("POST /otp/request", s.serveOTPRequest)
		add("POST /otp/login", s.serveOTPLogin)
	}
}

// readQuery reads a request that has all its parameters in the query.
func readQuery(r *http.Request) (*form, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badRequest("invalid query")
	}
	return &form{body: map[string]string{}, query: query}, nil
}

// targets returns where a request wants to be sent after success and, if it is
// a browser's form, after a failure.
func (s *Service) targets(f *form) (success, failure string, err error) {
	if success, err = s.target(f, "redirect_uri"); err != nil {
		return "", "", err
	}
	failure, err = s.target(f, "err_redirect_uri")
	return success, failure, err
}

// formFailed sends a browser's form to target, if there is one, with what is
// wrong with it.
func formFailed(w http.ResponseWriter, f *form, target string, err error) error {
	e := asError(err)
	if f.json || target == "" || e == nil || e.Status != http.StatusBadRequest {
		return err
	}
	redirect(w, withQuery(target, "alert", e.Text))
	return nil
}

// send stores a mail for the worker.
func (s *Service) send(ctx context.Context, j mailJob) error {
	err := s.db.Write(ctx, s.outbox.Stmts(s.job(j))...)
	s.outbox.Wake()
	return err
}

// must returns a statement whose write is undone, with err, unless it returns
// a row.
func must(err error, query string, args ...driver.Value) sqlite.Stmt {
	return sqlite.Stmt{SQL: query, Args: args, Done: func(rows int) error {
		if rows == 0 {
			return err
		}
		return nil
	}}
}

// mustTake returns the statement that uses a token up in a write that depends
// on it: of several at the same time, one is done, and the others fail with
// err.
func (s *Service) mustTake(purpose string, hash []byte, err error) sqlite.Stmt {
	var f found
	stmt := s.takeStmt(purpose, hash, &f)
	stmt.Done = must(err, "").Done
	return stmt
}

// dropTokens returns the statement that ends what somebody could still do with
// a mail or a half-finished sign-in from before now. Links that verify an
// address stay: they give access to nothing.
func dropTokens(user UserID) sqlite.Stmt {
	return sqlite.Stmt{
		SQL:  `DELETE FROM _one_time WHERE user = ? AND purpose <> ?`,
		Args: []driver.Value{user[:], purposeVerify},
	}
}

// linkPage answers the link of a mail. It changes nothing, because programs
// open links as well as people do: the page has a button that posts to the same
// path.
func (s *Service) linkPage(w http.ResponseWriter, r *http.Request, title, text, button string) error {
	f, err := readQuery(r)
	if err != nil {
		return err
	}
	target, err := s.target(f, "redirect_uri")
	if err != nil {
		return err
	}
	return s.confirmPage(w, target, title, text, button)
}

// A link is one of a mail, about an address, whose button was pressed.
type link struct {
	user    UserID
	state   addressState
	target  string      // where to go afterwards
	take    sqlite.Stmt // uses the token up, or fails with refused
	refused error
}

// readLink reads a link. The error is refused if its token is not good.
func (s *Service) readLink(r *http.Request, purpose string, refused error) (link, error) {
	f, err := readQuery(r)
	if err != nil {
		return link{}, err
	}
	l := link{refused: refused}
	if l.target, err = s.target(f, "redirect_uri"); err != nil {
		return link{}, err
	}
	hash := hashToken(r.PathValue("token"))
	t, err := s.peek(r.Context(), purpose, hash)
	if err != nil {
		return link{}, err
	}
	if !t.ok {
		return link{}, refused
	}
	if err := s.unsealData(purpose, t.data, &l.state); err != nil {
		return link{}, err
	}
	if l.target == "" && l.state.RedirectURI != "" {
		// The template has left it out. What is not allowed any more is not used.
		l.target, _ = s.redirectTarget(l.state.RedirectURI)
	}
	l.user, l.take = t.user, s.mustTake(purpose, hash, refused)
	return l, nil
}

// requestMail reads a request for a mail to whoever goes by a name, counts it
// and stores it for the worker. It looks nobody up. target is where the request
// wants to be sent afterwards.
func (s *Service) requestMail(w http.ResponseWriter, r *http.Request, kind mailKind) (n name, target string, err error) {
	f, err := s.readForm(w, r)
	if err != nil {
		return n, "", err
	}
	if target, err = s.target(f, "redirect_uri"); err != nil {
		return n, "", err
	}
	if n, err = loginName(f); err != nil {
		return n, "", err
	}
	if err := s.mailLimit(r, n); err != nil {
		return n, "", err
	}
	return n, target, s.send(r.Context(), mailJob{Kind: kind, Email: n.email, Username: n.username, RedirectURI: target})
}
