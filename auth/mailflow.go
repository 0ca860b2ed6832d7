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

// addressToken looks at a token that proves an address; ok is false if it is
// not good.
func (s *Service) addressToken(ctx context.Context, purpose string, hash []byte) (user UserID, state addressState, ok bool, err error) {
	f, err := s.peek(ctx, purpose, hash)
	if err != nil || !f.ok {
		return user, state, false, err
	}
	err = s.unsealData(purpose, f.data, &state)
	return f.user, state, err == nil, err
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
