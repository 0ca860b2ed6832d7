package auth

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/bedplate/bedplate/internal/jsonx"
)

// A route is one method on one path; {name} in the path is one segment.
type route struct {
	method  string
	path    []string
	handler func(w http.ResponseWriter, r *http.Request) error
}

// addRoute adds a route by "METHOD /path".
type addRoute func(pattern string, handler func(http.ResponseWriter, *http.Request) error)

// adder returns what adds to routes.
func adder(routes *[]route) addRoute {
	return func(pattern string, handler func(http.ResponseWriter, *http.Request) error) {
		method, path, _ := strings.Cut(pattern, " ")
		*routes = append(*routes, route{method, strings.Split(path, "/")[1:], handler})
	}
}

func (s *Service) allRoutes() []route {
	var routes []route
	add := adder(&routes)
	add("POST /register", s.serveRegister)
	add("POST /login", s.serveLogin)
	add("POST /login_mfa", s.serveLoginMFA)
	if s.cfg.Anonymous {
		add("POST /login_anonymous", s.serveLoginAnonymous)
		add("POST /promote_anonymous", s.servePromoteAnonymous)
	}
	add("POST /refresh", s.serveRefresh)
	add("GET /status", s.serveStatus)
	add("GET /logout", s.serveLogoutPage)
	add("POST /logout", s.serveLogout)
	add("POST /token", s.serveToken)
	s.mailRoutes(add)
	s.mfaRoutes(add)
	s.providerRoutes(add)
	s.accountRoutes(add)
	s.apiKeyRoutes(add)
	return routes
}

// ServeHTTP answers the requests of the contract's section 3. Mount it behind
// [http.StripPrefix], or use [Service.At].
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.serve("", w, r) }

// At returns a handler for the same requests below prefix, which begins with a
// slash and does not end in one.
func (s *Service) At(prefix string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(prefix, w, r) })
}

func (s *Service) serve(prefix string, w http.ResponseWriter, r *http.Request) {
	s.dispatch(s.routes, strings.TrimPrefix(r.URL.Path, prefix), w, r)
}

// dispatch has a request answered by the route that its path names.
func (s *Service) dispatch(routes []route, path string, w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	handler, allow := match(routes, r, path)
	if handler == nil {
		if allow == "" {
			s.answer(w, r, ErrNotFound)
			return
		}
		h.Set("Allow", allow)
		s.answer(w, r, &Error{Status: http.StatusMethodNotAllowed})
		return
	}
	if err := handler(w, r); err != nil {
		s.answer(w, r, err)
	}
}

// match returns the handler of a path, or the methods that the path knows.
func match(routes []route, r *http.Request, path string) (handler func(http.ResponseWriter, *http.Request) error, allow string) {
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	if len(segments) > 4 {
		return nil, ""
	}
	for _, route := range routes {
		if !matches(route.path, segments) {
			continue
		}
		if route.method != r.Method && (route.method != http.MethodGet || r.Method != http.MethodHead) {
			if allow != "" {
				allow += ", "
			}
			allow += route.method
			continue
		}
		for i, p := range route.path {
			if strings.HasPrefix(p, "{") {
				r.SetPathValue(p[1:len(p)-1], segments[i])
			}
		}
		return route.handler, ""
	}
	return nil, allow
}

func matches(pattern, segments []string) bool {
	if len(pattern) != len(segments) {
		return false
	}
	for i, p := range pattern {
		if p != segments[i] && !(strings.HasPrefix(p, "{") && segments[i] != "") {
			return false
		}
	}
	return true
}

// route is the path of a request as it may be logged: tokens are part of some.
func (s *Service) route(r *http.Request) string {
	segments := strings.Split(strings.TrimPrefix(r.URL.Path, s.cfg.Prefix+"/"), "/")
	for _, route := range s.routes {
		if matches(route.path, segments) {
			return s.cfg.Prefix + "/" + strings.Join(route.path, "/")
		}
	}
	return "other"
}

// maxBody is the greatest request body but for avatars.
const maxBody = 64 << 10

// A form holds the members of a request body and query that are text.
type form struct {
	body  map[string]string
	query url.Values
	json  bool // the body was JSON, so the answer is no redirect
}

// value returns a member of the body.
func (f *form) value(name string) string { return f.body[name] }

// param returns a parameter of the query, or else a member of the body.
func (f *form) param(name string) string {
	if f.query.Has(name) {
		return f.query.Get(name)
	}
	return f.body[name]
}

// readForm reads a body of any of the three types of the contract's "either"
// family. All mistakes are status 400. What a page can make a browser send
// without being asked, which JSON is not, must come from a page of this site,
// or it could sign its user in as somebody else.
func (s *Service) readForm(w http.ResponseWriter, r *http.Request) (*form, error) {
	f := &form{body: map[string]string{}}
	var err error
	if f.query, err = url.ParseQuery(r.URL.RawQuery); err != nil {
		return nil, badRequest("invalid query")
	}
	contentType := r.Header.Get("Content-Type")
	if contentType == "" && len(f.query) > 0 && r.ContentLength == 0 {
		f.json = true
		return f, s.checkOrigin(r) // all parameters are in the query
	}
	if r.ContentLength > maxBody {
		return nil, &Error{Status: http.StatusRequestEntityTooLarge, Text: "length limit exceeded"}
	}
	body := http.MaxBytesReader(w, r.Body, maxBody)
	switch {
	case strings.HasPrefix(contentType, "application/json"):
		f.json = true
		err = f.readJSON(body)
	case strings.HasPrefix(contentType, "application/x-www-form-urlencoded"):
		err = f.readURLEncoded(body)
	case strings.HasPrefix(contentType, "multipart/form-data"):
		err = f.readMultipart(body, contentType)
	case contentType == "":
		err = badRequest("missing content type")
	default:
		err = badRequest("unsupported content type")
	}
	if err == nil && !f.json {
		err = s.checkOrigin(r)
	}
	if e := asError(err); err != nil && e == nil {
		err = badRequest("invalid body")
	}
	return f, err
}

// checkOrigin refuses what a page of another origin has made a browser send.
func (s *Service) checkOrigin(r *http.Request) error {
	if s.csrf.Check(r) != nil {
		return &Error{Status: http.StatusForbidden, Text: "cross-origin request"}
	}
	return nil
}

func (f *form) readJSON(body io.Reader) error {
	data, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	return jsonx.ParseObject(data, func(name []byte, v jsonx.Value) error {
		switch v.Kind {
		case jsonx.String:
			text, err := v.Text()
			if err != nil {
				return err
			}
			f.body[string(name)] = text
		case jsonx.Bool:
			f.body[string(name)] = strconv.FormatBool(v.Bool)
		}
		return nil // null is absent; other values are of no member that we know
	})
}

func (f *form) readURLEncoded(body io.Reader) error {
	data, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	values, err := url.ParseQuery(string(data))
	if err != nil {
		return err
	}
	for name, v := range values {
		if len(v) > 1 {
			return badRequest("duplicate field")
		}
		f.body[name] = v[0]
	}
	return nil
}

func (f *form) readMultipart(body io.Reader, contentType string) error {
	_, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return err
	}
	for reader := multipart.NewReader(body, params["boundary"]); ; {
		part, err := reader.NextPart()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := part.FormName()
		if _, twice := f.body[name]; twice || name == "" || part.FileName() != "" {
			return badRequest("invalid multipart body")
		}
		value, err := io.ReadAll(part)
		if err != nil {
			return err
		}
		f.body[name] = string(value)
	}
}

// readJSON reads a body of the contract's "plain JSON" family into members
// that are text or booleans.
func (s *Service) readJSON(w http.ResponseWriter, r *http.Request, known ...string) (*form, error) {
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		return nil, &Error{Status: http.StatusUnsupportedMediaType, Text: "expected application/json"}
	}
	f := &form{body: map[string]string{}, json: true}
	err := f.readJSON(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, &Error{Status: http.StatusRequestEntityTooLarge, Text: "length limit exceeded"}
	case err != nil:
		return nil, badRequest("invalid JSON")
	}
	for _, name := range known {
		if _, ok := f.body[name]; !ok {
			return nil, &Error{Status: http.StatusUnprocessableEntity, Text: "missing field " + name}
		}
	}
	return f, nil
}

func writeJSON(w http.ResponseWriter, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the client is gone if this fails
	return nil
}

func writeText(w http.ResponseWriter, text string) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = io.WriteString(w, text)
	return nil
}

// done answers a request of a family that the contract marks: with a redirect
// that carries text as a message if there is a target, otherwise with text.
func done(w http.ResponseWriter, target, text string) error {
	if target != "" {
		redirect(w, withQuery(target, "alert", text))
		return nil
	}
	return writeText(w, text)
}

// target returns where a request wants to be sent, checked; "" is nowhere.
func (s *Service) target(f *form, name string) (string, error) {
	uri := f.param(name)
	if uri == "" {
		return "", nil
	}
	return s.redirectTarget(uri)
}
