package tlsauto

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// nextHandler answers what nobody else does.
func nextHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusTeapot) })
}

func do(h http.Handler, method, host, target string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	if !strings.Contains(target, "://") {
		r.Host = host
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestHTTPHandlerRedirects(t *testing.T) {
	t.Parallel()
	m := idleManager(t, Config{Names: []string{"example.com", "*.wild.example", "192.0.2.1", "2001:db8::1", "bücher.example"}})
	other := idleManager(t, Config{Names: []string{"example.com", "2001:db8::1"}, HTTPSPort: 8443})
	for _, tt := range []struct {
		m                    *Manager
		method, host, target string
		want                 string // Location; "": 421
	}{
		{m, "GET", "example.com", "/", "https://example.com/"},
		{m, "GET", "EXAMPLE.com.:8080", "/a/b?x=1&y=%20z", "https://example.com/a/b?x=1&y=%20z"},
		{m, "POST", "example.com:", "/a%2fb?", "https://example.com/a%2fb?"},
		{m, "GET", "a.wild.example", "/", "https://a.wild.example/"},
		{m, "GET", "192.0.2.1:80", "/", "https://192.0.2.1/"},
		{m, "GET", "[2001:db8::1]:80", "/", "https://[2001:db8::1]/"},
		{m, "GET", "[2001:DB8:0::1]", "/", "https://[2001:db8::1]/"},
		{m, "GET", "xn--bcher-kva.example", "/ü", "https://xn--bcher-kva.example/%C3%BC"},
		{other, "GET", "example.com:80", "/x", "https://example.com:8443/x"},
		{other, "GET", "[2001:db8::1]", "/x", "https://[2001:db8::1]:8443/x"},
		{m, "OPTIONS", "example.com", "*", "https://example.com/"},
		{m, "POST", "example.com", "/.well-known/acme-challenge/" + testToken, "https://example.com/.well-known/acme-challenge/" + testToken},

		// Nothing of a request leads elsewhere.
		{m, "GET", "example.com", "//evil.example/x", "https://example.com//evil.example/x"},
		{m, "GET", "example.com", "///evil.example", "https://example.com///evil.example"},
		{m, "GET", "example.com", "/\\evil.example", "https://example.com/%5Cevil.example"},
		{m, "GET", "example.com", "/@evil.example", "https://example.com/@evil.example"},
		{m, "GET", "example.com", "/%0d%0aSet-Cookie:%20a=b?%0d%0aX:y", "https://example.com/%0d%0aSet-Cookie:%20a=b?%0d%0aX:y"},
		{m, "GET", "example.com", "/?//evil.example", "https://example.com/?//evil.example"},
		{m, "GET", "", "http://example.com/x", "https://example.com/x"},
		{m, "GET", "", "http://user:secret@example.com:99/x", "https://example.com/x"},
		{m, "GET", "", "ftp://example.com", "https://example.com/"},
		{m, "GET", "", "http://evil.example/x", ""},
		{m, "GET", "evil.example", "/", ""},
		{m, "GET", "example.com.evil.example", "/", ""},
		{m, "GET", "example.com@evil.example", "/", ""},
		{m, "GET", "evil.example#example.com", "/", ""},
		{m, "GET", "evil.example/example.com", "/", ""},
		{m, "GET", "example.com\r\nX: y", "/", ""},
		{m, "GET", "example.com:80:evil.example", "/", ""},
		{m, "GET", "wild.example", "/", ""},
		{m, "GET", "*.wild.example", "/", ""},
		{m, "GET", "a.b.wild.example", "/", ""},
		{m, "GET", "192.0.2.2", "/", ""},
		{m, "GET", "localhost", "/", ""},
		{m, "GET", "", "/", ""},
	} {
		w := do(tt.m.HTTPHandler(nil), tt.method, tt.host, tt.target)
		status := http.StatusPermanentRedirect
		if tt.want == "" {
			status = http.StatusMisdirectedRequest
		}
		if w.Code != status || w.Header().Get("Location") != tt.want || w.Header().Get("Connection") != "close" {
			t.Errorf("%s %s%s: %d %q, want %d %q", tt.method, tt.host, tt.target, w.Code, w.Header(), status, tt.want)
		}
		if strings.Contains(w.Body.String(), "evil") && tt.want == "" {
			t.Errorf("%s %s: the body has what the client sent: %s", tt.host, tt.target, w.Body)
		}
	}
}

// Names on demand are sent to https if OnDemand accepts them, which it is asked once in a while, or if they have been
// accepted. Nothing is ordered for that.
func TestHTTPHandlerOnDemand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		m := demandManager(t, Config{OnDemand: func(_ context.Context, name string) error {
			asked++
			if name != "a.example.org" {
				return errors.New("not ours")
			}
			return nil
		}})
		h := m.HTTPHandler(nil)
		for range 3 {
			for host, want := range map[string]string{
				"A.example.org.": "https://a.example.org/", "b.example.org": "", "localhost": "", "192.0.2.1": "", "*.example.org": "", "b\u00fccher.example": "",
			} {
				if w := do(h, "GET", host, "/"); w.Header().Get("Location") != want || want == "" && w.Code != http.StatusMisdirectedRequest {
					t.Errorf("%s: %d %q, want %q", host, w.Code, w.Header(), want)
				}
			}
		}
		if s := m.Status(); asked != 2 || s.OnDemand != 0 {
			t.Errorf("asked %d times, %d certificates on demand", asked, s.OnDemand)
		}
	})
	m := idleManager(t, Config{OnDemand: func(context.Context, string) error { return nil }})
	h := m.HTTPHandler(nil)
	if w := do(h, "GET", "a.example.org", "/"); w.Code != http.StatusMisdirectedRequest {
		t.Errorf("before Run: %d", w.Code)
	}
	if err := m.admit("a.example.org"); err != nil {
		t.Fatal(err)
	}
	if w := do(h, "GET", "a.example.org", "/"); w.Header().Get("Location") != "https://a.example.org/" {
		t.Errorf("after: %d %q", w.Code, w.Header())
	}
}

func TestHTTPHandlerAnswers(t *testing.T) {
	t.Parallel()
	store := NewMemoryStore()
	cfg := Config{Names: []string{"example.com", "192.0.2.1"}, Store: store}
	m := idleManager(t, cfg)
	if m.board.ServesHTTP01() {
		t.Error("it serves HTTP-01 without a handler")
	}
	alone, before := m.HTTPHandler(nil), m.HTTPHandler(nextHandler())
	if !m.board.ServesHTTP01() {
		t.Error("it does not serve HTTP-01")
	}
	if _, err := m.board.HTTP01(t.Context(), testToken, []byte(testKeyAuth)); err != nil {
		t.Fatal(err)
	}
	other := idleManager(t, cfg).HTTPHandler(nil) // another process

	for _, h := range []http.Handler{alone, before, other} {
		for _, host := range []string{"example.com", "example.com:5002", "EXAMPLE.com.", "192.0.2.1:80"} {
			for _, method := range []string{"GET", "HEAD"} {
				w := do(h, method, host, challengePath+testToken)
				want := testKeyAuth
				if method == "HEAD" {
					want = ""
				}
				header := w.Header()
				if w.Code != 200 || w.Body.String() != want || header.Get("Content-Type") != "application/octet-stream" ||
					header.Get("Content-Length") != "87" || header.Get("X-Content-Type-Options") != "nosniff" {
					t.Errorf("%s %s: %d %q %q", method, host, w.Code, w.Body, header)
				}
			}
		}
	}
	for _, tt := range []struct {
		method, host, target string
		alone                int // status; with next all are its own
	}{
		{"GET", "example.com", challengePath + otherToken, 404},
		{"HEAD", "example.com", challengePath + otherToken, 404},
		{"GET", "example.com", challengePath, 404},
		{"GET", "example.com", challengePath + testToken + "/", 404},
		{"GET", "example.com", challengePath + "x/../" + testToken, 404},
		{"GET", "evil.example", challengePath + testToken, 404},
		{"POST", "example.com", challengePath + testToken, 308},
		{"GET", "example.com", "/.well-known/acme-challenge", 308},
		{"GET", "example.com", "/x" + challengePath + testToken, 308},
		{"GET", "example.com", "/", 308},
		{"GET", "evil.example", "/", 421},
	} {
		if w := do(alone, tt.method, tt.host, tt.target); w.Code != tt.alone {
			t.Errorf("%s %s%s: %d, want %d", tt.method, tt.host, tt.target, w.Code, tt.alone)
		}
		if w := do(before, tt.method, tt.host, tt.target); w.Code != http.StatusTeapot {
			t.Errorf("%s %s%s: %d, want that of next", tt.method, tt.host, tt.target, w.Code)
		}
	}
}

func TestHTTPHandlerTooMany(t *testing.T) {
	t.Parallel()
	m := idleManager(t, Config{Names: []string{"example.com"}})
	m.board.reading = maxLookups
	w := do(m.HTTPHandler(nextHandler()), "GET", "example.com", challengePath+testToken)
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" {
		t.Errorf("%d %q", w.Code, w.Header())
	}
}

// While OnDemand is asked for as many names as it may be, others are not told that they are not ours.
func TestHTTPHandlerTooManyOnDemand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		m := demandManager(t, Config{OnDemand: func(context.Context, string) error { <-release; return nil }})
		h := m.HTTPHandler(nil)
		var all sync.WaitGroup
		for i := range maxDecisions {
			all.Go(func() { do(h, "GET", fmt.Sprintf("a%d.example.org", i), "/") })
		}
		synctest.Wait()
		w := do(h, "GET", "b.example.org", "/")
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" {
			t.Errorf("%d %q", w.Code, w.Header())
		}
		close(release)
		all.Wait()
		if w := do(h, "GET", "b.example.org", "/"); w.Code != http.StatusPermanentRedirect {
			t.Errorf("afterwards: %d", w.Code)
		}
	})
}

func TestHTTPHandlerWithoutStore(t *testing.T) {
	t.Parallel()
	m := tableManager(t, Config{HTTPSPort: 443}, []*tls.Certificate{tableCert(t, "file", nil, "example.com")})
	if w := do(m.HTTPHandler(nil), "GET", "example.com", challengePath+testToken); w.Code != 404 {
		t.Errorf("challenge: %d", w.Code)
	}
	if w := do(m.HTTPHandler(nil), "GET", "example.com", "/"); w.Header().Get("Location") != "https://example.com/" {
		t.Errorf("%d %q", w.Code, w.Header())
	}
}

func TestHSTS(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		age  time.Duration
		host string
		tls  bool
		want string
	}{
		{365 * 24 * time.Hour, "example.com", true, "max-age=31536000"},
		{1500 * time.Millisecond, "example.com:8443", true, "max-age=1"},
		{0, "example.com", true, "max-age=0"},
		{-time.Hour, "example.com", true, "max-age=0"},
		{time.Hour, "example.com", false, ""},
		{time.Hour, "192.0.2.1:443", true, ""},
		{time.Hour, "[::1]", true, ""},
		{time.Hour, "", true, ""},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host, r.TLS = tt.host, nil
		if tt.tls {
			r.TLS = &tls.ConnectionState{}
		}
		w := httptest.NewRecorder()
		HSTS(tt.age, nextHandler()).ServeHTTP(w, r)
		if got := w.Header().Get("Strict-Transport-Security"); got != tt.want || w.Code != http.StatusTeapot {
			t.Errorf("%s, tls %t: %q, %d, want %q", tt.host, tt.tls, got, w.Code, tt.want)
		}
	}
}
