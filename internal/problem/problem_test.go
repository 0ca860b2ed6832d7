package problem_test

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
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
		{
			[]string{"text/html", "application/json;q=0.5, application/problem+json;q=0.9"}, 400, "say \"<hi>\"\n", "application/problem+json",
			`{"status":400,"title":"Bad Request","detail":"say \"<hi>\"\n"}`,
		},
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

func TestWriteFields(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		fields []problem.Field
		want   string // of the member errors, with what is before it
	}{
		{nil, `{"status":400,"title":"Bad Request","detail":"d"}`},
		{[]problem.Field{{"/title", "max", "Too long."}}, `{"status":400,"title":"Bad Request","detail":"d","errors":[{"pointer":"#/title","code":"max","detail":"Too long."}]}`},
		{[]problem.Field{{}, {"", "unique", ""}}, `{"status":400,"title":"Bad Request","detail":"d","errors":[{},{"code":"unique"}]}`},
		{
			[]problem.Field{{"/größe \"<x>\"/~0%#?", "a\"b", "\n</script>"}, {"/2/b", "fk", ""}},
			`{"status":400,"title":"Bad Request","detail":"d","errors":[{"pointer":"#/gr%C3%B6%C3%9Fe%20%22%3Cx%3E%22/~0%25%23?","code":"a\"b","detail":"\n</script>"},{"pointer":"#/2/b","code":"fk"}]}`,
		},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		w := httptest.NewRecorder()
		problem.WriteFields(w, r, 400, "d", c.fields)
		if w.Body.String() != "d" || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
			t.Errorf("plain: %q %v", w.Body, w.Header())
		}
		r.Header.Set("Accept", "application/problem+json")
		w = httptest.NewRecorder()
		problem.WriteFields(w, r, 400, "d", c.fields)
		if !json.Valid(w.Body.Bytes()) || w.Body.String() != c.want {
			t.Errorf("got  %s\nwant %s", w.Body, c.want)
		}
	}
}

func TestAccept(t *testing.T) {
	t.Parallel()
	for accept, want := range map[string]bool{
		"":                                    false,
		"*/*":                                 false,
		"application/*, application/json;q=1": false,
		"application/problem+json":            true,
		"Application/Problem+JSON":            true,
		" application/problem+json ; charset=utf-8 ; q=0.1 ":     true,
		"text/html,application/problem+json":                     true,
		"application/problem+json;q=0":                           false,
		"application/problem+json; Q=0.000":                      false,
		"application/problem+json;q=x":                           false,
		"application/problem+json;q=NaN":                         false,
		"application/problem+json;q=-1":                          false,
		"application/problem+json;q=2":                           false,
		"application/problem+json;q=0, application/problem+json": true,
		"application/problem+jsonx":                              false,
		"xapplication/problem+json":                              false,
		`text/html;x="a, application/problem+json"`:              false,
		`text/html;x="a\", ", application/problem+json`:          true,
		`text/html;x="a, application/problem+json`:               false,
		`application/problem+json;x=";q=0"`:                      true,
		",,;,application/problem+json":                           true,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		problem.Write(w, r, 400, "no")
		if got := w.Header().Get("Content-Type") == "application/problem+json"; got != want {
			t.Errorf("%q: %v, want %v", accept, got, want)
		}
	}
}
