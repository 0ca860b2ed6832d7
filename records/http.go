package records

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/bedplate/bedplate/internal/jsonx"
	"github.com/bedplate/bedplate/internal/listquery"
	"github.com/bedplate/bedplate/internal/problem"
)

// ServeHTTP answers requests for /{api} and /{api}/{id}. Mount it behind
// [http.StripPrefix] with the prefix of your choice, or use [Service.At].
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.serveAt("", w, r)
}

// At returns a handler for the same requests below prefix, which begins with a
// slash and does not end in one. It does what http.StripPrefix does, without
// copying each request.
func (s *Service) At(prefix string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serveAt(prefix, w, r) })
}

func (s *Service) serveAt(prefix string, w http.ResponseWriter, r *http.Request) {
	if err := s.serve(prefix, w, r); err != nil {
		s.answer(w, r, err)
	}
}

func (s *Service) serve(prefix string, w http.ResponseWriter, r *http.Request) error {
	name, id, hasID, err := splitPath(r.URL, prefix)
	if err != nil {
		return err
	}
	p, err := s.plan(name)
	if err != nil {
		return err
	}
	user, err := s.caller(r.Context())
	if err != nil {
		return err
	}
	if !hasID {
		switch r.Method {
		case http.MethodGet, http.MethodHead:
			return s.serveList(w, r, p, user)
		case http.MethodPost:
			return s.serveCreate(w, r, p, user)
		}
		w.Header().Set("Allow", "GET, HEAD, POST")
		return ErrNotAllowed
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return s.serveRead(w, r, p, user, id)
	case http.MethodPatch:
		return s.serveUpdate(w, r, p, user, id)
	case http.MethodDelete:
		return s.serveDelete(w, r, p, user, id)
	}
	w.Header().Set("Allow", "GET, HEAD, PATCH, DELETE")
	return ErrNotAllowed
}

// splitPath splits /{api} or /{api}/{id} behind prefix; the id may hold any
// character in percent-encoding.
func splitPath(u *url.URL, prefix string) (name, id string, hasID bool, err error) {
	path, encoded := u.Path, false
	if u.RawPath != "" {
		path, encoded = u.RawPath, true
	}
	path, ok := strings.CutPrefix(path, prefix)
	if !ok {
		return "", "", false, ErrNotFound
	}
	name, id, hasID = strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if strings.Contains(id, "/") || hasID && id == "" {
		return "", "", false, ErrNotFound
	}
	if encoded {
		var nerr, ierr error
		name, nerr = url.PathUnescape(name)
		id, ierr = url.PathUnescape(id)
		if nerr != nil || ierr != nil {
			return "", "", false, ErrNotFound
		}
	}
	return name, id, hasID, nil
}

// answer writes err: what it says if it is meant for the client, otherwise
// 500 and a line in the log.
func (s *Service) answer(w http.ResponseWriter, r *http.Request, err error) {
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Status: http.StatusInternalServerError, cause: err}
	}
	switch e.Status {
	case http.StatusInternalServerError, http.StatusInsufficientStorage:
		s.log.ErrorContext(r.Context(), "record request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "1")
		if !errors.Is(err, context.Canceled) {
			s.log.WarnContext(r.Context(), "record request refused", "method", r.Method, "path", r.URL.Path, "error", err)
		}
	}
	problem.Write(w, r, e.Status, e.Text)
}

// writeJSON writes a 200 response.
func writeJSON(w http.ResponseWriter, body []byte) error {
	h := w.Header()
	h["Content-Type"] = jsonType
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	_, err := w.Write(body)
	_ = err // the client is gone; there is nobody to tell
	return nil
}

// setCursor tells from where to subscribe so as to miss nothing that happens
// after what is in the response.
func setCursor(w http.ResponseWriter, head string) {
	if head != "" {
		w.Header()["Change-Cursor"] = []string{head}
	}
}

// jsonType is shared by all responses and never written to.
var jsonType = []string{"application/json"}

func (s *Service) serveList(w http.ResponseWriter, r *http.Request, p *plan, user caller) error {
	buf := s.buffers.get()
	out := buf.b
	defer func() { buf.put(out) }()
	body, head, err := s.list(r.Context(), p, user, r.URL.RawQuery, buf.b)
	if err != nil {
		return err
	}
	out = body
	setCursor(w, head)
	return writeJSON(w, body)
}

func (s *Service) serveRead(w http.ResponseWriter, r *http.Request, p *plan, user caller, id string) error {
	req, err := p.request(user, id)
	if err != nil {
		return err
	}
	var expand []string
	if r.URL.RawQuery != "" {
		q, err := listquery.Parse(r.URL.RawQuery)
		if err != nil {
			return errQuery.because(err)
		}
		expand = q.Expand
	}
	buf := s.buffers.get()
	out := buf.b
	defer func() { buf.put(out) }()
	body, head, err := s.read(p, req, expand, buf.b)
	if err != nil {
		return err
	}
	out = body
	setCursor(w, head)
	return writeJSON(w, body)
}

// request returns a request for the record id.
func (p *plan) request(user caller, id string) (*request, error) {
	key, err := p.table.key.decodeID(id)
	if err != nil {
		return nil, err
	}
	return &request{user: user, key: key}, nil
}

func (s *Service) serveCreate(w http.ResponseWriter, r *http.Request, p *plan, user caller) error {
	switch {
	case p.table.view:
		return ErrNotAllowed
	case !p.allows(Create, user):
		return ErrDenied
	}
	redirect, err := redirectTarget(r)
	if err != nil {
		return err
	}
	records, err := s.decodeBody(w, r, p, user, true)
	if err != nil {
		return err
	}
	keys, err := s.create(r.Context(), p, records)
	if err != nil {
		return err
	}
	if redirect != "" {
		w.Header().Set("Location", redirect)
		w.WriteHeader(http.StatusSeeOther)
		return nil
	}
	body := append(make([]byte, 0, 64), `{"ids":[`...)
	for i, k := range keys {
		if i > 0 {
			body = append(body, ',')
		}
		body = jsonx.AppendString(body, idString(k))
	}
	return writeJSON(w, append(body, "]}"...))
}

// redirectTarget returns where a create is to redirect to: a path on this
// site, since anything else would let a link on another site choose.
func redirectTarget(r *http.Request) (string, error) {
	if !strings.Contains(r.URL.RawQuery, "redirect_uri") {
		return "", nil
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return "", errQuery
	}
	target := q.Get("redirect_uri")
	if target == "" {
		return "", nil
	}
	u, err := url.Parse(target)
	if err != nil || u.IsAbs() || u.Host != "" || !strings.HasPrefix(target, "/") || strings.HasPrefix(target, "//") || strings.ContainsAny(target, "\\\t\r\n") {
		return "", errRedirect
	}
	return target, nil
}

func (s *Service) serveUpdate(w http.ResponseWriter, r *http.Request, p *plan, user caller, id string) error {
	if p.table.view {
		return ErrNotAllowed
	}
	req, err := p.request(user, id)
	if err != nil {
		return err
	}
	if !p.allows(Update, user) {
		return ErrDenied
	}
	records, err := s.decodeBody(w, r, p, user, false)
	if err != nil {
		return err
	}
	body := records[0]
	body.key = req.key
	if k := p.table.key; body.given.has(k.index) {
		if idString(body.values[k.index]) != idString(req.key) {
			return errKey
		}
		body.given.remove(k.index)
	}
	if err := s.update(r.Context(), p, body); err != nil {
		return err
	}
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Service) serveDelete(w http.ResponseWriter, r *http.Request, p *plan, user caller, id string) error {
	if p.table.view {
		return ErrNotAllowed
	}
	req, err := p.request(user, id)
	if err != nil {
		return err
	}
	if !p.allows(Delete, user) {
		return ErrDenied
	}
	if err := s.delete(r.Context(), p, req); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", "7")
	_, err = w.Write([]byte("deleted"))
	_ = err // the client is gone; there is nobody to tell
	return nil
}
