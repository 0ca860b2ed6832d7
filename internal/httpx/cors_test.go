package httpx_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/httpx"
)

func TestCORS(t *testing.T) {
	t.Parallel()
	const app, other = "https://app.example.com", "https://other.example.com"
	tests := []struct {
		name    string
		origins []string
		method  string
		header  map[string]string
		status  int
		want    map[string]string // "" means absent
	}{
		{"no origin", []string{"*"}, "GET", nil, 200, map[string]string{"Access-Control-Allow-Origin": "", "Vary": "Origin"}},
		{"any origin is mirrored", []string{"*"}, "GET", map[string]string{"Origin": app}, 200, map[string]string{
			"Access-Control-Allow-Origin": app, "Access-Control-Allow-Credentials": "", "Vary": "Origin",
		}},
		{"listed", []string{app}, "PATCH", map[string]string{"Origin": app}, 200, map[string]string{
			"Access-Control-Allow-Origin": app, "Access-Control-Expose-Headers": "Change-Cursor, ETag, Retry-After",
		}},
		{"not listed", []string{app}, "GET", map[string]string{"Origin": other}, 200, map[string]string{
			"Access-Control-Allow-Origin": "", "Access-Control-Expose-Headers": "",
		}},
		{"a longer host is another one", []string{app}, "GET", map[string]string{"Origin": app + ".evil.test"}, 200, map[string]string{"Access-Control-Allow-Origin": ""}},
		{"none", nil, "GET", map[string]string{"Origin": app}, 200, map[string]string{"Access-Control-Allow-Origin": ""}},
		{"preflight repeats the headers", []string{"*"}, "OPTIONS", map[string]string{
			"Origin": app, "Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "authorization,content-type,csrf-token",
		}, 204, map[string]string{
			"Access-Control-Allow-Origin":  app,
			"Access-Control-Allow-Methods": "GET, HEAD, POST, PATCH, DELETE",
			"Access-Control-Allow-Headers": "authorization,content-type,csrf-token",
			"Access-Control-Max-Age":       "600", "Access-Control-Allow-Credentials": "",
		}},
		{"preflight from elsewhere", []string{app}, "OPTIONS", map[string]string{
			"Origin": other, "Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "authorization",
		}, 204, map[string]string{"Access-Control-Allow-Origin": "", "Access-Control-Allow-Methods": "", "Access-Control-Allow-Headers": ""}},
		{"odd header names are not repeated", []string{"*"}, "OPTIONS", map[string]string{
			"Origin": app, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "a:b<c>",
		}, 204, map[string]string{"Access-Control-Allow-Headers": ""}},
		{"long lists are not repeated", []string{"*"}, "OPTIONS", map[string]string{
			"Origin": app, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": strings.Repeat("a", 2000),
		}, 204, map[string]string{"Access-Control-Allow-Headers": ""}},
		{"a plain OPTIONS is the application's", []string{"*"}, "OPTIONS", map[string]string{"Origin": app}, 200, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cors, err := httpx.NewCORS(tt.origins...)
			if err != nil {
				t.Fatal(err)
			}
			r := httptest.NewRequest(tt.method, "/x", nil)
			for k, v := range tt.header {
				r.Header.Set(k, v)
			}
			w := httptest.NewRecorder()
			cors.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200) })).ServeHTTP(w, r)
			if w.Code != tt.status {
				t.Errorf("status %d, want %d", w.Code, tt.status)
			}
			for k, want := range tt.want {
				if got := w.Header().Get(k); got != want {
					t.Errorf("%s: %q, want %q", k, got, want)
				}
			}
		})
	}
}

func TestNewCORSReportsEveryMistake(t *testing.T) {
	t.Parallel()
	bad := []string{
		"example.com", "https://example.com/", "https://Example.com", "https://example.com:443", "http://example.com:80",
		"https://*.example.com", "ftp://example.com", "null", "", "https://user@example.com", "https://example.com?x",
	}
	_, err := httpx.NewCORS(append(bad, "*", "https://good.example.com:8443", "http://localhost:3000")...)
	if err == nil {
		t.Fatal("no error")
	}
	if lines := strings.Split(err.Error(), "\n"); len(lines) != len(bad) {
		t.Errorf("%d mistakes, want %d:\n%v", len(lines), len(bad), err)
	}
}

func TestQuiet(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /here", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "mine", http.StatusTeapot) })
	tests := []struct {
		method, path string
		status       int
		body, allow  string
	}{
		{"GET", "/here", 418, "mine\n", ""},
		{"GET", "/there", 404, "", ""},
		{"POST", "/here", 405, "", "GET, HEAD"},
	}
	for _, tt := range tests {
		w := httptest.NewRecorder()
		httpx.Quiet(mux).ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
		body, _ := io.ReadAll(w.Body)
		if w.Code != tt.status || string(body) != tt.body || w.Header().Get("Allow") != tt.allow {
			t.Errorf("%s %s: %d %q Allow %q, want %d %q Allow %q", tt.method, tt.path, w.Code, body, w.Header().Get("Allow"), tt.status, tt.body, tt.allow)
		}
		if tt.body == "" && w.Header().Get("Content-Type") != "" {
			t.Errorf("%s %s: content type %q of an empty body", tt.method, tt.path, w.Header().Get("Content-Type"))
		}
	}
}
