package records_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

// fuzzed returns a handler over a small database and a function that fails
// the test when the database is not what it was.
func fuzzed(f *testing.F) (*sqlite.DB, http.Handler, func(*testing.T)) {
	f.Helper()
	db := openDB(f, hostileSchema)
	h := serveConfig(f, db, records.Config{APIs: hostileAPIs(), BodyLimit: 1 << 16})
	before := dump(f, db)
	return db, h, func(t *testing.T) {
		t.Helper()
		if after := dump(t, db); after != before {
			t.Errorf("changed: %s", difference(before, after))
		}
	}
}

// answer makes a request with a URL that may be anything.
func answer(t *testing.T, h http.Handler, method, path, rawQuery, body, media string) response {
	t.Helper()
	r := httptest.NewRequest(method, "/", strings.NewReader(body))
	r.URL = &url.URL{Path: path, RawQuery: rawQuery}
	if unescaped, err := url.PathUnescape(path); err == nil {
		r.URL.Path, r.URL.RawPath = unescaped, path
	}
	r.Header.Set("Content-Type", media)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	res := response{w.Code, w.Result().Header, w.Body.String()}
	if res.status >= 500 {
		t.Errorf("%s %q ?%q %q: %v", method, path, rawQuery, body, res)
	}
	if res.status == 200 && res.header.Get("Content-Type") == "application/json" && !json.Valid([]byte(res.body)) {
		t.Errorf("%s %q ?%q: not JSON: %q", method, path, rawQuery, res.body)
	}
	if strings.Contains(res.body, "HIDDEN") || strings.Contains(res.body, "PASSWORD") {
		t.Errorf("%s %q ?%q: %q", method, path, rawQuery, res.body)
	}
	return res
}

func FuzzFilter(f *testing.F) {
	_, h, unchanged := fuzzed(f)
	for _, q := range []string{"filter[s]=a", "filter[n][$gt]=1&count=1", "filter[$or][0][s]=a&filter[$or][1][n]=2", "filter[s][$re]=(a", "filter[s][$like]=%25", "filter[a]=AAAA", "filter[b]=AQ==", "filter[_h]=HIDDEN", "order=-s,n&limit=1", "offset=1&limit=0", "geojson=b", "expand=s", "filter[j][$is]=!NULL", "%", "&&&=", "filter[n]=9223372036854775808", "filter[a]=1e400"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, q string) {
		if r := answer(t, h, "GET", "/t", q, "", ""); r.status != 200 && r.status != 400 {
			t.Errorf("?%q: %v", q, r)
		}
		if r := answer(t, h, "GET", "/rule", q, "", ""); r.status == 200 && strings.Contains(r.body, `"id"`) {
			t.Errorf("?%q: shows what the rule hides: %v", q, r)
		}
		unchanged(t)
	})
}

func FuzzCursor(f *testing.F) {
	_, h, unchanged := fuzzed(f)
	r := get(h, "", "/t?limit=1&order=s")
	var p page
	if err := json.Unmarshal([]byte(r.body), &p); err != nil {
		f.Fatal(err)
	}
	for _, c := range []string{p.Cursor, p.Cursor[1:], "", "AAAA", strings.Repeat("A", 100), "%"} {
		f.Add(c, "s")
		f.Add(c, "")
	}
	f.Fuzz(func(t *testing.T, cursor, order string) {
		q := "cursor=" + url.QueryEscape(cursor)
		if order != "" {
			q += "&order=" + url.QueryEscape(order)
		}
		r := answer(t, h, "GET", "/t", q, "", "")
		ours := cursor == p.Cursor && strings.TrimPrefix(strings.Trim(order, " "), "+") == "s"
		if r.status != 400 && !ours || r.status != 200 && ours {
			t.Errorf("cursor %q order %q: %v", cursor, order, r)
		}
		unchanged(t)
	})
}

func FuzzID(f *testing.F) {
	_, h, unchanged := fuzzed(f)
	for _, id := range []string{"1", "-1", "9223372036854775808", "a", "%00", "%2F", "..", "/", "", "%zz", "' OR 1=1", "\xff", "1/2"} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		for _, api := range []string{"/t/", "/k/", "/rule/", "/"} {
			answer(t, h, "GET", api+id, "", "", "")
			answer(t, h, "PATCH", api+url.PathEscape(id), "", `{}`, "application/json")
		}
		for _, method := range []string{"DELETE", "PATCH"} {
			if r := answer(t, h, method, "/rule/"+id, "", `{"s":"x"}`, "application/json"); r.status == 200 {
				t.Errorf("%s %q: %v", method, id, r)
			}
		}
		unchanged(t)
	})
}

func FuzzBody(f *testing.F) {
	db, h, unchanged := fuzzed(f)
	for _, body := range []string{`{}`, `[]`, `[{}]`, `{"s":"a","n":1,"a":[1],"b":"AQ==","j":{"x":null}}`, `{"id":1}`, `{"s":"\ud800"}`, `{"s":"a","s":"b"}`, `{"a":1e400}`, `[{"s":1},`, "s=a&n=b", "--X\r\nContent-Disposition: form-data; name=\"s\"\r\n\r\nv\r\n--X--\r\n"} {
		for _, media := range []string{"application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=X"} {
			f.Add(body, media)
		}
	}
	f.Fuzz(func(t *testing.T, body, media string) {
		answer(t, h, "POST", "/rule", "", body, media) // an anonymous caller owns nothing
		answer(t, h, "PATCH", "/rule/1", "", body, media)
		unchanged(t)
		r := answer(t, h, "POST", "/t", "", body, media)
		if r.status == 200 {
			execSQL(t, db, `DELETE FROM t WHERE id NOT IN (1, 2)`)
		} else if r.status != 400 && r.status != 413 {
			t.Errorf("%q %q: %v", media, body, r)
		}
		unchanged(t)
	})
}
