package httpx

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// CORS answers the questions of browsers about requests from pages of other
// origins (https://fetch.spec.whatwg.org/#http-cors-protocol). It is safe for
// concurrent use. Create it with [NewCORS].
//
// A page of an allowed origin may send any method that a record API knows and
// any header it asks for: the requested names are repeated in the answer,
// since "*" does not cover Authorization. Credentials are never allowed, so
// cookies stay at home and a page can do no more than anybody with curl.
type CORS struct {
	any     bool
	origins map[string]bool
}

// Limits and constants of a preflight answer.
const (
	corsMethods    = "GET, HEAD, POST, PATCH, DELETE"
	corsExposed    = "Change-Cursor, ETag, Retry-After"
	corsMaxAge     = "600" // seconds
	corsMaxHeaders = 1024  // bytes of Access-Control-Request-Headers
)

// NewCORS allows the origins, each "*" for everybody or written as browsers
// send it: scheme, host and, unless it is the scheme's own, port, as in
// "https://app.example.com". No origin at all allows none. All malformed
// origins are reported at once.
func NewCORS(origins ...string) (*CORS, error) {
	c := &CORS{origins: make(map[string]bool, len(origins))}
	var errs []error
	for _, o := range origins {
		if o == "*" {
			c.any = true
			continue
		}
		if err := checkOrigin(o); err != nil {
			errs = append(errs, fmt.Errorf("allowed origin %q: %w", o, err))
			continue
		}
		c.origins[o] = true
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return c, nil
}

// checkOrigin finds the spellings that no browser sends: such an origin would
// never match, without a word.
func checkOrigin(o string) error {
	u, err := url.Parse(o)
	switch {
	case err != nil:
		return errors.New("not an origin, write scheme://host")
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "", u.User != nil:
		return errors.New("write it as http://host or https://host")
	case o != u.Scheme+"://"+u.Host:
		return errors.New("path, query and the slash at the end are no part of an origin")
	case o != strings.ToLower(o):
		return errors.New("write it in lower case")
	case u.Scheme == "http" && u.Port() == "80", u.Scheme == "https" && u.Port() == "443":
		return errors.New("leave out the default port")
	case strings.Contains(u.Host, "*"):
		return errors.New("wildcards are not supported, list the origins")
	}
	return nil
}

// Handler answers preflight requests itself and passes all others to next,
// with the headers that let a page of an allowed origin read the answer.
// Requests without an Origin header pass unchanged.
func (c *CORS) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Add("Vary", "Origin")
		origin := r.Header.Get("Origin")
		preflight := r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != ""
		if origin == "" {
			next.ServeHTTP(w, r)
			return
		}
		allowed := c.any || c.origins[origin]
		if allowed {
			h.Set("Access-Control-Allow-Origin", origin)
		}
		if !preflight {
			if allowed {
				h.Set("Access-Control-Expose-Headers", corsExposed)
			}
			next.ServeHTTP(w, r)
			return
		}
		h.Add("Vary", "Access-Control-Request-Headers")
		if allowed {
			h.Set("Access-Control-Allow-Methods", corsMethods)
			h.Set("Access-Control-Max-Age", corsMaxAge)
			if names := strings.Join(r.Header.Values("Access-Control-Request-Headers"), ","); fieldNames(names) {
				h.Set("Access-Control-Allow-Headers", names)
			}
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

// fieldNames reports whether s is a list of HTTP field names, fit to be
// repeated in an answer.
func fieldNames(s string) bool {
	if s == "" || len(s) > corsMaxHeaders {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~, ", c) >= 0:
		default:
			return false
		}
	}
	return true
}
