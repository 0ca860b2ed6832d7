package realtime

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/bedplate/bedplate/internal/httpx"
	"github.com/bedplate/bedplate/internal/jsonx"
	"github.com/bedplate/bedplate/internal/problem"
	"github.com/bedplate/bedplate/sqlite"
)

// Why requests are refused.
var (
	errMethod = &Error{Status: http.StatusMethodNotAllowed}
	errTicket = &Error{Status: http.StatusUnauthorized, Text: "Invalid ticket"}
	errFull   = &Error{Status: http.StatusServiceUnavailable, Text: "too many streams"}
)

// ServeRecords answers GET …/{api}/subscribe/{record} with the changes of an
// API's records, of all of them if record is "*". It takes the two from
// [http.Request.PathValue], as they were matched by the pattern of a
// [http.ServeMux].
//
// The stream follows spec section 4. A client that goes on where it was sends
// the id of the last event it has seen as Last-Event-ID, or in the query as
// last_event_id or since.
func (s *Service) ServeRecords(w http.ResponseWriter, r *http.Request) {
	s.handle(w, r, func(r *http.Request, c *conn) error {
		if s.cfg.Subscribe == nil {
			return errMethod
		}
		var err error
		c.sub, err = s.cfg.Subscribe(r, r.PathValue("api"), r.PathValue("record"))
		if err != nil {
			return err
		}
		// Clients that do not ask for an event stream read it line by line.
		c.idLast = !strings.Contains(strings.Join(r.Header["Accept"], ","), "text/event-stream")
		return c.sub.check()
	})
}

// ServeChannel answers GET …/{channel} with the events that are published
// there, each as the data of an event, whose id is where to go on. An event of
// the type "gap" says that some are missing, because they are not kept any
// more.
func (s *Service) ServeChannel(w http.ResponseWriter, r *http.Request) {
	s.handle(w, r, func(r *http.Request, c *conn) error {
		c.channel = r.PathValue("channel")
		if s.cfg.Accept == nil || !channelName(c.channel) {
			return &Error{Status: http.StatusForbidden}
		}
		err := s.cfg.Accept(r, c.channel)
		var known *Error
		if err != nil && !errors.As(err, &known) {
			return &Error{Status: http.StatusForbidden, Cause: err}
		}
		return err
	})
}

// ServeTicket answers a POST with a ticket, {"ticket": "…"}: for one request of
// the same identity within 30 seconds, as the parameter "ticket" of its query.
// It is for an EventSource on a page of another origin, which can send neither
// an Authorization header nor cookies.
func (s *Service) ServeTicket(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		s.answer(w, r, errMethod)
		return
	}
	id := s.cfg.Identify(r.Context())
	if id.User == "" {
		s.answer(w, r, &Error{Status: http.StatusUnauthorized})
		return
	}
	text, ok := s.tickets.issue(r.Context(), id.User)
	if !ok {
		s.answer(w, r, errFull)
		return
	}
	body := append(jsonx.AppendString([]byte(`{"ticket":`), text), '}')
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(body) // the client is gone if this fails
}

// handle serves a stream that open has said yes to.
func (s *Service) handle(w http.ResponseWriter, r *http.Request, open func(r *http.Request, c *conn) error) {
	err := s.stream(w, r, open)
	var refusal *Error
	switch {
	case err == nil:
	case errors.As(err, &refusal):
		s.answer(w, r, refusal)
	case errors.Is(err, ErrClosed), errors.Is(err, errHistory), errors.Is(err, sqlite.ErrBusy), errors.Is(err, sqlite.ErrClosed), errors.Is(err, context.Canceled):
		s.answer(w, r, &Error{Status: http.StatusServiceUnavailable, Cause: err})
	default:
		s.answer(w, r, &Error{Status: http.StatusInternalServerError, Cause: err})
	}
}

// stream returns an error if there was no stream. It is short because the
// stack of whoever serves a stream stays as deep as this for as long as it
// lasts.
func (s *Service) stream(w http.ResponseWriter, r *http.Request, open func(r *http.Request, c *conn) error) error {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		return errMethod
	}
	r, c, err := s.admit(r, open)
	if err != nil {
		return err
	}
	defer c.release()
	if err := s.enter(c); err != nil {
		return err
	}
	defer s.exit(c)
	if err := c.feed.join(r.Context(), c); err != nil {
		return err
	}
	defer c.feed.leave(c)
	w.Header().Add("Vary", "Accept")
	s.ended(r, s.engine.serve(w, r, streamOptions{idLast: c.idLast, writeTimeout: s.cfg.WriteTimeout, started: c.started}, c.pump))
	return nil
}

// admit returns the stream that a request is for, and the request with who
// makes it. The caller calls the stream's release.
func (s *Service) admit(r *http.Request, open func(r *http.Request, c *conn) error) (_ *http.Request, _ *conn, err error) {
	ctx := r.Context()
	query := r.URL.Query()
	if text := query.Get("ticket"); text != "" {
		values, ok := s.tickets.use(text)
		if !ok {
			return nil, nil, errTicket
		}
		ctx = ticketContext{ctx, values}
		r = r.WithContext(ctx)
	}
	id := s.cfg.Identify(ctx)
	if _, ok := ctx.(ticketContext); ok && !s.standsNow(ctx, id) {
		return nil, nil, errTicket
	}
	c := &conn{s: s, identity: id, page: pageLimitLeast, wake: make(chan struct{}, 1), bye: make(chan error, 1)}
	c.resume = resumeText(r.Header, query)
	release, ok := s.limits.acquire(c.identity.User, httpx.Bucket(s.client.Of(r)))
	if !ok {
		return nil, nil, errFull
	}
	c.release = release
	defer func() {
		if err != nil || c.feed == nil { // or open has panicked
			release()
		}
	}()
	if err := open(r, c); err != nil {
		return nil, nil, err
	}
	of := feedKey{database: "main"}
	if c.sub != nil {
		of.database, _ = c.sub.View.Source()
		of.filtered = c.sub.View.Filtered()
	}
	c.feed, err = s.feed(of)
	return r, c, err
}

// ended notes why a stream has ended.
func (s *Service) ended(r *http.Request, cause error) {
	if errors.Is(cause, http.ErrNotSupported) { // a middleware's mistake
		s.log.ErrorContext(r.Context(), "stream request failed", "path", r.URL.Path, "error", cause)
		return
	}
	s.log.DebugContext(r.Context(), "stream ended", "path", r.URL.Path, "cause", cause)
}

// standsNow reports whether id has not ended since its ticket was issued.
func (s *Service) standsNow(ctx context.Context, id Identity) bool {
	if !id.Expires.IsZero() && !s.cfg.Now().Before(id.Expires) {
		return false
	}
	if s.cfg.Check == nil {
		return true
	}
	stands, err := s.stands(ctx, []Identity{id})
	return err == nil && stands[0]
}

// resumeText returns where the client wants to go on, "" for from now on.
func resumeText(h http.Header, q url.Values) string {
	if id := h.Get("Last-Event-ID"); id != "" {
		return id
	}
	if id := q.Get("last_event_id"); id != "" {
		return id
	}
	return q.Get("since")
}

// answer refuses a request.
func (s *Service) answer(w http.ResponseWriter, r *http.Request, e *Error) {
	switch e.Status {
	case http.StatusInternalServerError:
		s.log.ErrorContext(r.Context(), "stream request failed", "path", r.URL.Path, "error", e)
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "2")
	}
	problem.Write(w, r, e.Status, e.Text)
}
