package records

import (
	"context"
	"errors"
	"net/http"

	"github.com/bedplate/bedplate/sqlite"
)

// An Error is a refusal that the client is told about.
type Error struct {
	Status int    // of HTTP
	Text   string // of the body; empty for most statuses

	// Fields tell what is wrong with single values. A client sees them in
	// problem details (RFC 9457), if it asks for these.
	Fields []FieldError

	cause   error // for the log, never for the client
	refused bool  // by Refuse
}

// A FieldError tells what is wrong with one value of a request.
type FieldError struct {
	Pointer string // JSON Pointer (RFC 6901) into the body, such as "/title"
	Code    string // the validation tag, or a constraint as in "unique"
	Detail  string
}

func (e *Error) Error() string {
	text := e.Text
	if text == "" {
		text = http.StatusText(e.Status)
	}
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return "records: " + text
}

func (e *Error) Unwrap() error { return e.cause }

// HTTPStatus returns the status that the client gets.
func (e *Error) HTTPStatus() int { return e.Status }

// Is reports whether target is an Error with the same status and text.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error) //nolint:errorlint // Is compares, errors.Is unwraps
	return ok && t.Status == e.Status && t.Text == e.Text
}

// What a request can be refused with, beside messages about its content.
var (
	// ErrDenied: an access control list or a rule says no; with a rule this
	// is also the answer for a row that does not exist.
	ErrDenied = &Error{Status: http.StatusForbidden}
	// ErrNotFound: there is no such record.
	ErrNotFound = &Error{Status: http.StatusNotFound}
	// ErrNotAllowed: there is no such API, or it is a view and the request
	// is to write.
	ErrNotAllowed = &Error{Status: http.StatusMethodNotAllowed}
	// ErrInvalidID: the id in the path is not one.
	ErrInvalidID = badRequest("Invalid id")

	errQuery     = badRequest("Invalid query")
	errFilter    = badRequest("Invalid filter params")
	errExpand    = badRequest("Invalid expansion")
	errParams    = badRequest("Invalid Parameters")
	errGeometry  = badRequest("Invalid geometry column")
	errLimit     = badRequest("limit exceeds max limit of 1024")
	errCursor    = badRequest("Bad cursor")
	errNoCursor  = badRequest("Only TABLEs with PK primary order support cursors. Use offset instead.")
	errBody      = badRequest("Invalid body")
	errTooLarge  = &Error{Status: http.StatusRequestEntityTooLarge, Text: "length limit exceeded"}
	errTypes     = badRequest("Unsupported content type")
	errRedirect  = badRequest("invalid redirect")
	errRejected  = badRequest("rejected")
	errBulk      = badRequest("Bulk creation exceeds limit: 1024")
	errNoValues  = badRequest("no values provided")
	errNoRecord  = badRequest("Expected record or array of records")
	errNotSingle = badRequest("Expected single record")
	errKey       = badRequest("Primary key mismatch")
)

func badRequest(text string) *Error { return &Error{Status: http.StatusBadRequest, Text: text} }

func (e *Error) because(cause error) *Error {
	wrapped := *e
	wrapped.cause = cause
	return &wrapped
}

// constraints are SQLite's extended result codes that a request can cause.
var constraints = map[int]string{
	275:  "check",
	531:  "commit hook",
	3091: "data type",
	787:  "fk",
	1043: "function",
	1299: "not null",
	2835: "pinned",
	1555: "pk",
	2579: "row id",
	1811: "trigger",
	2067: "unique",
	2323: "vtab",
}

// refusal turns an error of the database into what the client is told.
// guarded says whether a rule was part of the statement: an error of SQL then
// means that the rule could not be evaluated, and such a rule denies.
func refusal(err error, guarded bool) error {
	if err == nil {
		return nil
	}
	var known *Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, sqlite.ErrDiskFull):
		return (&Error{Status: http.StatusInsufficientStorage}).because(err)
	case errors.Is(err, sqlite.ErrBusy), errors.Is(err, sqlite.ErrTimeout), errors.Is(err, sqlite.ErrFailed), errors.Is(err, sqlite.ErrClosed), errors.Is(err, sqlite.ErrHeldTooLong),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return (&Error{Status: http.StatusServiceUnavailable}).because(err)
	}
	if guarded && evaluation(err) {
		return ErrDenied.because(err)
	}
	code := sqlite.Code(err)
	if name, ok := constraints[code]; ok {
		return badRequest("db constraint: " + name).because(err)
	}
	switch {
	case code == sqliteError:
		return errRejected.because(err)
	case code == sqliteMismatch, code == sqliteTooBig:
		return badRequest("db constraint: data type").because(err)
	}
	return (&Error{Status: http.StatusInternalServerError}).because(err)
}

// evaluation reports whether err is from evaluating an expression.
func evaluation(err error) bool {
	switch sqlite.Code(err) {
	case sqliteError, sqliteMismatch, sqliteTooBig:
		return true
	}
	return false
}

// Primary result codes, see https://www.sqlite.org/rescode.html.
const (
	sqliteError    = 1
	sqliteTooBig   = 18
	sqliteMismatch = 20
)
