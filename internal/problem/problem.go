// Package problem writes error responses: plain ones, as the record protocol
// has them, or problem details (RFC 9457) for clients that ask for these.
package problem

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/bedplate/bedplate/internal/jsonx"
)

// Write answers with status. The body is text, possibly empty, or a problem
// whose detail is text if the request accepts application/problem+json.
func Write(w http.ResponseWriter, r *http.Request, status int, text string) {
	h := w.Header()
	h.Add("Vary", "Accept")
	var body []byte
	switch {
	case accepts(r):
		h.Set("Content-Type", "application/problem+json")
		body = append(body, `{"status":`...)
		body = strconv.AppendInt(body, int64(status), 10)
		body = jsonx.AppendString(append(body, `,"title":`...), http.StatusText(status))
		if text != "" {
			body = jsonx.AppendString(append(body, `,"detail":`...), text)
		}
		body = append(body, '}')
	case text != "":
		h.Set("Content-Type", "text/plain; charset=utf-8")
		body = []byte(text)
	}
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client is gone if this fails
}

func accepts(r *http.Request) bool {
	for _, v := range r.Header["Accept"] {
		if strings.Contains(v, "application/problem+json") {
			return true
		}
	}
	return false
}
