package httpx

import "net/http"

// Quiet serves mux, with the bodies of its own refusals left out: clients of
// record APIs expect a bare 404 for an unknown path and a bare 405, with its
// Allow header, for a known path with another method. What the handlers of
// mux write passes unchanged.
func Quiet(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		h.ServeHTTP(refusal{w}, r)
	})
}

// refusal passes the status and drops the text that net/http adds.
type refusal struct{ http.ResponseWriter }

func (w refusal) WriteHeader(status int) {
	h := w.Header()
	h.Del("Content-Type")
	h.Del("X-Content-Type-Options")
	w.ResponseWriter.WriteHeader(status)
}

func (w refusal) Write(p []byte) (int, error) { return len(p), nil }
