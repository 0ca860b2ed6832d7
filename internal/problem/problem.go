// Package problem writes error responses: plain ones, as the record protocol
// has them, or problem details (RFC 9457) for clients that ask for these.
package problem

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/bedplate/bedplate/internal/jsonx"
)

// A Field tells what is wrong with one value of a request. Empty members are
// left out.
type Field struct {
	Pointer string // JSON Pointer (RFC 6901) into the body, such as "/title"
	Code    string // for programs
	Detail  string // for people
}

// Write answers with status. The body is text, possibly empty, or a problem
// whose detail is text if the request accepts application/problem+json. That
// has to be named in Accept: */* is content with text.
func Write(w http.ResponseWriter, r *http.Request, status int, text string) {
	WriteFields(w, r, status, text, nil)
}

// WriteFields is Write with what is wrong with single values. Problem details
// have them in the member errors, with the pointers as fragments of a URI; the
// plain answer does not.
func WriteFields(w http.ResponseWriter, r *http.Request, status int, text string, fields []Field) {
	h := w.Header()
	h.Add("Vary", "Accept")
	var body []byte
	switch {
	case accepts(r):
		h.Set("Content-Type", mediaType)
		body = appendProblem(nil, status, text, fields)
	case text != "":
		h.Set("Content-Type", "text/plain; charset=utf-8")
		body = []byte(text)
	}
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client is gone if this fails
}

const mediaType = "application/problem+json"

func appendProblem(dst []byte, status int, text string, fields []Field) []byte {
	dst = append(dst, `{"status":`...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = jsonx.AppendString(append(dst, `,"title":`...), http.StatusText(status))
	if text != "" {
		dst = jsonx.AppendString(append(dst, `,"detail":`...), text)
	}
	for i, f := range fields {
		if i == 0 {
			dst = append(dst, `,"errors":[`...)
		} else {
			dst = append(dst, ',')
		}
		dst = append(dst, '{')
		if f.Pointer != "" {
			dst = appendMember(dst, "pointer", "#"+(&url.URL{Fragment: f.Pointer}).EscapedFragment())
		}
		dst = appendMember(dst, "code", f.Code)
		dst = appendMember(dst, "detail", f.Detail)
		dst = append(dst, '}')
	}
	if len(fields) > 0 {
		dst = append(dst, ']')
	}
	return append(dst, '}')
}

func appendMember(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	if dst[len(dst)-1] != '{' {
		dst = append(dst, ',')
	}
	dst = append(append(append(dst, '"'), name...), `":`...)
	return jsonx.AppendString(dst, value)
}

// accepts reports whether Accept (RFC 9110, section 12.5.1) names problem
// details with a weight that is not 0.
func accepts(r *http.Request) bool {
	for _, v := range r.Header["Accept"] {
		for v != "" {
			var element string
			element, v = cut(v, ',')
			name, params := cut(element, ';')
			if strings.EqualFold(strings.TrimSpace(name), mediaType) && wanted(params) {
				return true
			}
		}
	}
	return false
}

// wanted reports whether the parameters of a media range leave it a weight.
func wanted(params string) bool {
	for params != "" {
		var param string
		param, params = cut(params, ';')
		name, value, _ := strings.Cut(param, "=")
		if strings.EqualFold(strings.TrimSpace(name), "q") {
			q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			return err == nil && q > 0 && q <= 1
		}
	}
	return true
}

// cut splits s at the first sep outside of a quoted string.
func cut(s string, sep byte) (before, after string) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case quoted && s[i] == '\\':
			i++
		case !quoted && s[i] == sep:
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}
