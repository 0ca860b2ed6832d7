package records

import (
	"bytes"
	"context"
	"errors"
	"io"
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
	route, err := splitPath(r.URL, prefix)
	if err != nil {
		return err
	}
	p, err := s.plan(route.api)
	if err != nil {
		return err
	}
	user, err := s.caller(r.Context())
	if err != nil {
		return err
	}
	switch {
	case route.column != "":
		return s.servePart(w, r, p, user, route)
	case route.id == "":
		switch r.Method {
		case http.MethodGet, http.MethodHead:
			return s.serveList(w, r, p, user)
		case http.MethodPost:
			return s.serveCreate(w, r, p, user)
		}
		return notAllowed(w, "GET, HEAD, POST")
	case route.id == "schema" && !route.encoded && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		return s.serveSchema(w, r, p, user)
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return s.serveRead(w, r, p, user, route.id)
	case http.MethodPatch:
		return s.serveUpdate(w, r, p, user, route.id)
	case http.MethodDelete:
		return s.serveDelete(w, r, p, user, route.id)
	}
	return notAllowed(w, "GET, HEAD, PATCH, DELETE")
}

func notAllowed(w http.ResponseWriter, allow string) error {
	w.Header().Set("Allow", allow)
	return ErrNotAllowed
}

// servePart answers requests for the files of a record.
func (s *Service) servePart(w http.ResponseWriter, r *http.Request, p *plan, user caller, route route) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return notAllowed(w, "GET, HEAD")
	}
	return s.serveFile(w, r, p, user, route.id, route.column, route.file)
}

// route is what a request is about: /{api}, /{api}/{id},
// /{api}/{id}/file/{column} or /{api}/{id}/files/{column}/{file}. What is not
// there is empty.
type route struct {
	api, id, column, file string
	encoded               bool // percent-encoded, so that an id is no word of the protocol
}

// splitPath takes apart what is behind prefix; an id may hold any character
// in percent-encoding.
func splitPath(u *url.URL, prefix string) (route, error) {
	whole, encoded := u.Path, false
	if u.RawPath != "" {
		whole, encoded = u.RawPath, true
	}
	whole, ok := strings.CutPrefix(whole, prefix)
	if !ok {
		return route{}, ErrNotFound
	}
	var p route
	var rest string
	var hasID, hasRest bool
	p.api, p.id, hasID = strings.Cut(strings.TrimPrefix(whole, "/"), "/")
	if p.id, rest, hasRest = strings.Cut(p.id, "/"); hasID && p.id == "" {
		return route{}, ErrNotFound
	}
	if hasRest {
		var kind string
		kind, rest, _ = strings.Cut(rest, "/")
		p.column, p.file, ok = strings.Cut(rest, "/")
		switch {
		case p.column == "", kind != "file" && kind != "files", (kind == "files") != (p.file != ""), ok && p.file == "":
			return route{}, ErrNotFound
		}
	}
	if encoded {
		p.encoded = strings.IndexByte(p.id, '%') >= 0
		for _, part := range []*string{&p.api, &p.id, &p.column, &p.file} {
			var err error
			if *part, err = url.PathUnescape(*part); err != nil {
				return route{}, ErrNotFound
			}
		}
	}
	return p, nil
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
	problem.WriteFields(w, r, e.Status, e.Text, problemFields(e.Fields))
}

func problemFields(fields []FieldError) []problem.Field {
	out := make([]problem.Field, len(fields))
	for i, f := range fields {
		out[i] = problem.Field{Pointer: f.Pointer, Code: f.Code, Detail: f.Detail}
	}
	return out
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
	body, head, tag, err := s.list(r.Context(), p, user, r.URL.RawQuery, buf.b)
	if err != nil {
		return err
	}
	out = body
	setCursor(w, head)
	return writeTagged(w, r, tag, body)
}

func (s *Service) serveRead(w http.ResponseWriter, r *http.Request, p *plan, user caller, id string) error {
	req, err := p.request(user, id)
	if err != nil {
		return err
	}
	var q listquery.Query
	if r.URL.RawQuery != "" {
		if q, err = listquery.Parse(r.URL.RawQuery); err != nil {
			return errQuery.because(err)
		}
	}
	buf := s.buffers.get()
	out := buf.b
	defer func() { buf.put(out) }()
	body, head, err := s.readSelected(r.Context(), p, req, &q, buf.b)
	if err != nil {
		return err
	}
	out = body
	setCursor(w, head)
	tag := strongTag(body)
	if q.Fields != nil || q.Expand != nil {
		tag = s.weakTag(body, -1, nil)
	}
	return writeTagged(w, r, tag, body)
}

// writeTagged writes a 200 response with its entity tag, or 304 if the client
// has it.
func writeTagged(w http.ResponseWriter, r *http.Request, tag string, body []byte) error {
	h := w.Header()
	h["Etag"] = []string{tag}
	h["Cache-Control"] = revalidate
	if unchanged(r, tag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	return writeJSON(w, body)
}

// revalidate is shared by all responses and never written to.
var revalidate = []string{"private, no-cache"}

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
	var sent []byte
	if len(r.Header["Idempotency-Key"]) > 0 {
		if sent, err = s.readBody(w, r, nil); err != nil {
			return err
		}
		r.Body = io.NopCloser(bytes.NewReader(sent))
	}
	records, err := s.decodeBody(w, r, p, user, true)
	if err != nil {
		return err
	}
	writes := make([]*write, len(records))
	for i, rec := range records {
		writes[i] = &write{op: Create, p: p, r: rec}
	}
	once, err := s.newOnce(r, user, p.api.Name, p.table.database, sent, func() []byte { return createdBody(writes) })
	if err != nil {
		return err
	}
	err = s.apply(r.Context(), nil, writes, once)
	body := []byte(nil)
	switch {
	case errors.Is(err, errAnswered):
		body = once.kept
	case err != nil:
		return err
	default:
		body = createdBody(writes)
	}
	if redirect != "" {
		w.Header().Set("Location", redirect)
		w.WriteHeader(http.StatusSeeOther)
		return nil
	}
	return writeJSON(w, body)
}

// createdBody is the answer to a create: the ids of the records. One whose
// key was taken has none with Conflict Ignore.
func createdBody(writes []*write) []byte {
	body := append(make([]byte, 0, 64), `{"ids":[`...)
	for _, w := range writes {
		if w.rows == 0 {
			continue
		}
		if body[len(body)-1] != '[' {
			body = append(body, ',')
		}
		body = jsonx.AppendString(body, idString(w.key))
	}
	return append(body, "]}"...)
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
	cond, err := newCondition(r.Header)
	if err != nil {
		return err
	}
	records, err := s.decodeBody(w, r, p, user, false)
	if err != nil {
		return err
	}
	body := records[0]
	body.key = req.key
	if err := body.sameKey(p); err != nil {
		return err
	}
	update := &write{op: Update, p: p, r: body, cond: cond}
	if err := s.apply(r.Context(), nil, []*write{update}, nil); err != nil {
		return err
	}
	if update.etag != "" {
		w.Header()["Etag"] = []string{update.etag}
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
	cond, err := newCondition(r.Header)
	if err != nil {
		return err
	}
	if err := s.apply(r.Context(), nil, []*write{{op: Delete, p: p, r: req, cond: cond}}, nil); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", "7")
	_, err = w.Write([]byte("deleted"))
	_ = err // the client is gone; there is nobody to tell
	return nil
}
