package records_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/records"
)

// Who asks for problem details gets them for every refusal, with the status of
// the plain answer and no more in it.
func TestProblemDetails(t *testing.T) {
	t.Parallel()
	db := openDB(t, hostileSchema)
	h := serve(t, db, hostileAPIs()...)
	for _, c := range []struct{ method, target, body string }{
		{"GET", "/nope", ""}, {"PUT", "/t", "{}"}, {"GET", "/t/", ""}, {"GET", "/t/x", ""}, {"GET", "/t/99", ""}, {"GET", "/rule/1", ""}, {"GET", "/t?limit=x", ""}, {"GET", "/t?order=_h", ""}, {"GET", "/t?filter[_h]=1", ""},
		{"GET", "/t?cursor=x", ""}, {"GET", "/t?expand=s", ""}, {"POST", "/t", "{"}, {"POST", "/t", `{"id":1}`}, {"POST", "/t", `{"s":1}`}, {"PATCH", "/t/1", `{"id":2}`}, {"POST", "/rule", `{}`}, {"DELETE", "/rule/1", ""},
	} {
		plain := call(h, "", c.method, c.target, c.body)
		r := call(h, "", c.method, c.target, c.body, "Accept", "application/problem+json")
		var p map[string]any
		if err := json.Unmarshal([]byte(r.body), &p); err != nil || r.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: %v %v", c.method, c.target, err, r)
			continue
		}
		detail, _ := p["detail"].(string)
		if r.status != plain.status || p["status"] != float64(plain.status) || detail != plain.body || p["title"] == "" {
			t.Errorf("%s %s: %v, plain %v", c.method, c.target, r, plain)
		}
		if plain.body != "" && !strings.HasPrefix(plain.header.Get("Content-Type"), "text/plain") {
			t.Errorf("%s %s: %v", c.method, c.target, plain.header)
		}
	}
}

// HEAD is GET without the body, which net/http leaves out.
func TestHead(t *testing.T) {
	t.Parallel()
	db := openDB(t, hostileSchema)
	h := serve(t, db, records.API{Name: "t", Table: "t", World: records.Read})
	for _, target := range []string{"/t/1", "/t?skip_cursor=1", "/t/99", "/t/x"} {
		head, get := call(h, "", "HEAD", target, ""), get(h, "", target)
		if head.status != get.status || head.header.Get("Content-Type") != get.header.Get("Content-Type") || head.header.Get("Content-Length") != get.header.Get("Content-Length") {
			t.Errorf("%s: HEAD %v %v, GET %v %v", target, head, head.header, get, get.header)
		}
	}
}

// Nothing of the database's errors, paths or statements reaches a client.
func TestErrorsAreQuiet(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT, _h TEXT UNIQUE CONSTRAINT tell_tale CHECK (_h <> 'x'), g TEXT) STRICT;
		CREATE TRIGGER tr BEFORE INSERT ON t WHEN new.s = 'boom' BEGIN SELECT RAISE(ABORT, 'tell_tale'); END;
		CREATE TRIGGER tr2 BEFORE INSERT ON t WHEN new.s = 'error' BEGIN SELECT abs(-9223372036854775808); END;
		INSERT INTO t VALUES (1, 'a', 'tell_tale', NULL)`)
	h := serve(t, db, records.API{Name: "t", Table: "t", World: everything}, records.API{Name: "r", Table: "t", World: everything, ReadRule: `_ROW_._h = _USER_.id`})
	for _, c := range []struct{ body, want string }{
		{`{"s":"boom"}`, "db constraint: trigger"}, {`{"_h":"x"}`, "db constraint: check"}, {`{"_h":"tell_tale"}`, "db constraint: unique"}, {`{"s":"error"}`, "rejected"},
	} {
		want(t, call(h, "", "POST", "/t", c.body), 400, c.want)
	}
	want(t, call(h, "", "PATCH", "/t/1", `{"_h":"x"}`), 400, "db constraint: check")
	execSQL(t, db, `DROP TABLE t`)
	for _, target := range []string{"/t", "/t/1", "/r", "/r/1"} {
		for _, accept := range []string{"", "application/problem+json"} {
			if r := call(h, "", "GET", target, "", "Accept", accept); r.status != 500 || strings.Contains(r.body, "t") && accept == "" || strings.Contains(r.body, "table") || strings.Contains(r.body, "schema") {
				t.Errorf("%s: %v", target, r)
			}
		}
	}
}
