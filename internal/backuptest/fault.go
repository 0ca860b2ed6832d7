package backuptest

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// A Kind of request. Faults are for the kinds that are given, or for all if there are none.
type Kind string

// The kinds of requests.
const (
	Puts    Kind = "put"  // of an object, or of a part of one
	Gets    Kind = "get"  // of an object or of its metadata
	Lists   Kind = "list" // and whatever else is about the bucket
	Deletes Kind = "delete"
)

// A fault is what the server does wrong. There is one at a time.
type fault struct {
	kinds    []Kind
	serve    func(w http.ResponseWriter, r *http.Request, kind Kind, next http.Handler)
	released chan struct{} // closed when it is over
}

// Fail answers with an error of that status.
func (s *S3) Fail(status int, kinds ...Kind) {
	code := "InternalError"
	switch status {
	case http.StatusForbidden:
		code = "AccessDenied"
	case http.StatusServiceUnavailable:
		code = "SlowDown"
	}
	s.misbehave(kinds, func(w http.ResponseWriter, _ *http.Request, _ Kind, _ http.Handler) {
		refuse(w, status, code, "That is a test.")
	})
}

// Deny answers that the credentials have expired, even the newest.
func (s *S3) Deny(kinds ...Kind) {
	s.misbehave(kinds, func(w http.ResponseWriter, _ *http.Request, _ Kind, _ http.Handler) {
		refuse(w, http.StatusForbidden, "ExpiredToken", "The provided token has expired.")
	})
}

// Slow answers later by d.
func (s *S3) Slow(d time.Duration, kinds ...Kind) {
	s.misbehave(kinds, func(w http.ResponseWriter, r *http.Request, _ Kind, next http.Handler) {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			next.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	})
}

// Hang accepts requests and answers them when the fault is over.
func (s *S3) Hang(kinds ...Kind) {
	released := make(chan struct{})
	s.set(&fault{kinds: kinds, released: released, serve: func(w http.ResponseWriter, r *http.Request, _ Kind, next http.Handler) {
		select {
		case <-released:
			next.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	}})
}

// Truncate breaks connections in the middle of what is read, and stores the first half of what is
// written before it breaks the connection.
func (s *S3) Truncate(kinds ...Kind) {
	s.misbehave(kinds, func(w http.ResponseWriter, r *http.Request, kind Kind, next http.Handler) {
		if kind == Puts && r.Method == http.MethodPut {
			storeHalf(r, next)
		} else {
			answer := record(next, r)
			for name, values := range answer.Header() {
				w.Header()[name] = values
			}
			w.Header().Set("Content-Length", strconv.Itoa(answer.Body.Len()))
			w.WriteHeader(answer.Code)
			_, _ = w.Write(answer.Body.Bytes()[:answer.Body.Len()/2])
			_ = http.NewResponseController(w).Flush() // the half has to arrive
		}
		panic(http.ErrAbortHandler) // closes the connection
	})
}

func storeHalf(r *http.Request, next http.Handler) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	half := r.Clone(r.Context())
	half.Body = io.NopCloser(bytes.NewReader(body[:len(body)/2]))
	half.ContentLength = int64(len(body) / 2)
	half.Header.Set("Content-Length", strconv.Itoa(len(body)/2))
	half.Header.Del("Content-MD5")
	record(next, half)
}

// Mend ends the fault.
func (s *S3) Mend() { s.set(nil) }

func (s *S3) misbehave(kinds []Kind, serve func(http.ResponseWriter, *http.Request, Kind, http.Handler)) {
	s.set(&fault{kinds: kinds, serve: serve, released: make(chan struct{})})
}

func (s *S3) set(f *fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault != nil {
		close(s.fault.released)
	}
	s.fault = f
}

func includes(kinds []Kind, kind Kind) bool {
	return len(kinds) == 0 || slices.Contains(kinds, kind)
}

func kindOf(r *http.Request) Kind {
	query := r.URL.Query()
	switch {
	case r.Method == http.MethodDelete, query.Has("delete"):
		return Deletes
	case r.Method == http.MethodPut, r.Method == http.MethodPost:
		return Puts
	case keyOf(r) == "":
		return Lists
	default:
		return Gets
	}
}
