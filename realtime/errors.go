package realtime

import (
	"errors"
	"net/http"
)

// ErrGone is returned by a [View] that nobody may see any more.
var ErrGone = errors.New("realtime: there is nothing to subscribe to any more")

// ErrClosed is returned by every method after Close.
var ErrClosed = errors.New("realtime: closed")

// An Error is a refusal that the client is told about.
type Error struct {
	Status int    // of HTTP
	Text   string // of the body; may be empty
	Cause  error  // for the log, never for the client
}

func (e *Error) Error() string {
	text := e.Text
	if text == "" {
		text = http.StatusText(e.Status)
	}
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return "realtime: " + text
}

func (e *Error) Unwrap() error { return e.Cause }

// errHistory is that the log has begun a new history, as after a restore.
var errHistory = errors.New("realtime: the change log has begun a new history")
