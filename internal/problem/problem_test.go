package problem_test

import (
	"net/http/httptest"
	"testing"

	"github.com/bedplate/bedplate/internal/problem"
)

func TestWrite(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		accept   []string
		status   int
		text     string
		wantType string
		wantBody string
	}{
		{nil, 403, "", "", ""},
		{nil, 400, "Invalid id", "text/plain; charset=utf-8", "Invalid id"},
		{[]string{"application/json, */*"}, 400, "Invalid id", "text/plain; charset=utf-8", "Invalid id"},
		{[]string{"application/problem+json"}, 403, "", "application/problem+json", `{"status":403,"title":"Forbidden"}`},
		{[]string{"text/html", "application/json;q=0.5, application/problem+json;q=0.9"}, 400, "say \"<hi>\"\n", "application/problem+json",
			`{"status":400,"title":"Bad Request","detail":"say \"<hi>\"\n"}`},
		{[]string{"application/problem+json"}, 507, "", "application/problem+json", `{"status":507,"title":"Insufficient Storage"}`},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["Accept"] = c.accept
		w := httptest.NewRecorder()
		problem.Write(w, r, c.status, c.text)
		if w.Code != c.status || w.Header().Get("Content-Type") != c.wantType || w.Body.String() != c.wantBody {
			t.Errorf("%v %d %q: got %d %q %q", c.accept, c.status, c.text, w.Code, w.Header().Get("Content-Type"), w.Body.String())
		}
		if w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Error("the body may be sniffed")
		}
	}
}
