package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/bedplate/bedplate/tlsauto"
)

// A server that waits for certificates is not ready, however it is asked, and answers everything else.
func TestNotReadyWithoutCertificates(t *testing.T) {
	t.Parallel()
	manager, err := tlsauto.New(tlsauto.Config{
		Names: []string{"localhost"}, Issuers: []tlsauto.Issuer{&tlsauto.DevCA{Dir: t.TempDir()}}, Store: tlsauto.NewMemoryStore(),
	})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { health(w, nil) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { health(w, nil) })
	secured, srv := &tlsServer{conf: &config{}, manager: manager}, &http.Server{Handler: mux} //nolint:gosec // it is not served
	secured.secure(srv)
	for _, unready := range []bool{true, false} {
		secured.unready.Store(unready)
		for _, method := range []string{"GET", "HEAD"} {
			for path, want := range map[string]int{"/livez": 200, "/readyz": map[bool]int{true: 503, false: 200}[unready]} {
				w := httptest.NewRecorder()
				srv.Handler.ServeHTTP(w, httptest.NewRequest(method, path, nil))
				if w.Code != want {
					t.Errorf("unready %v: %s %s: %d, want %d", unready, method, path, w.Code, want)
				}
			}
		}
	}
}
