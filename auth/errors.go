package auth

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/bedplate/bedplate/auth/internal/outbox"
	"github.com/bedplate/bedplate/internal/password"
	"github.com/bedplate/bedplate/internal/problem"
	"github.com/bedplate/bedplate/sqlite"
)

// An Error is one that a client is told: by its status and, if there is any,
// its text.
type Error struct {
	Status     int
	Text       string
	RetryAfter time.Duration // of status 429 and 503
}

func (e *Error) Error() string {
	if e.Text == "" {
		return "auth: " + http.StatusText(e.Status)
	}
	return "auth: " + e.Text
}

// Errors that the methods of [Service] return.
var (
	ErrUnauthorized = &Error{Status: http.StatusUnauthorized}
	ErrForbidden    = &Error{Status: http.StatusForbidden}
	ErrNotFound     = &Error{Status: http.StatusNotFound}
	ErrConflict     = &Error{Status: http.StatusConflict}

	// ErrNotFresh asks the client to sign in again before an act that
	// changes credentials; see Config.FreshTTL.
	ErrNotFresh = &Error{Status: http.StatusForbidden, Text: "sign in again first"}
)

func badRequest(text string) error { return &Error{Status: http.StatusBadRequest, Text: text} }

func tooMany(wait time.Duration) *Error {
	return &Error{Status: http.StatusTooManyRequests, RetryAfter: wait}
}

// asError returns what a client is told about err: nil if that is only that
// something failed.
func asError(err error) *Error {
	var e *Error
	var policy *password.PolicyError
	switch {
	case errors.As(err, &e):
		if e == nil || e.Status < 400 || e.Status > 599 {
			return nil // a hook's mistake
		}
		return e
	case errors.As(err, &policy):
		return &Error{Status: http.StatusBadRequest, Text: policy.Error()}
	case errors.Is(err, sqlite.ErrDiskFull):
		return &Error{Status: http.StatusInsufficientStorage}
	case errors.Is(err, password.ErrBusy):
		return tooMany(time.Second)
	case errors.Is(err, sqlite.ErrBusy), errors.Is(err, sqlite.ErrFailed), errors.Is(err, sqlite.ErrClosed),
		errors.Is(err, sqlite.ErrTimeout), errors.Is(err, outbox.ErrFull), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &Error{Status: http.StatusServiceUnavailable, RetryAfter: time.Second}
	}
	return nil
}

// answer writes err: what it says if it is meant for the client, otherwise
// 500 and a line in the log. A person who is browsing gets it in words.
func (s *Service) answer(w http.ResponseWriter, r *http.Request, err error) {
	e := asError(err)
	if e == nil {
		s.log.ErrorContext(r.Context(), "auth request failed", "method", r.Method, "path", s.route(r), "error", err)
		e = &Error{Status: http.StatusInternalServerError}
	}
	if e.Status == http.StatusServiceUnavailable || e.Status == http.StatusTooManyRequests {
		seconds := max(1, int64((e.RetryAfter+time.Second-1)/time.Second))
		w.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
	}
	if wantsPage(r) && e.Status != http.StatusNotFound && e.Status != http.StatusMethodNotAllowed {
		s.errorPage(w, r, e)
		return
	}
	problem.Write(w, r, e.Status, e.Text)
}
