package records_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

const hostileSchema = `
CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT, n INTEGER, b BLOB, a ANY, j TEXT CHECK (jsonschema_matches('{}', j)), _h TEXT, owner TEXT) STRICT;
CREATE TABLE k (id TEXT PRIMARY KEY, s TEXT) STRICT;
CREATE TABLE secret (id INTEGER PRIMARY KEY, password TEXT) STRICT;
INSERT INTO t VALUES (1, 'a', 1, x'01', 1, '{}', 'HIDDEN', 'alice'), (2, 'b', 2, x'02', 'x', '[]', 'HIDDEN', 'bob');
INSERT INTO k VALUES ('a', 'b');
INSERT INTO secret VALUES (1, 'PASSWORD');
`

func hostileAPIs() []records.API {
	return []records.API{
		{Name: "t", Table: "t", World: everything},
		{Name: "rule", Table: "t", World: everything, CreateRule: `_REQ_.owner = _USER_.id`, ReadRule: `_ROW_.owner = _USER_.id`, UpdateRule: `_ROW_.owner = _USER_.id AND 'owner' NOT IN _REQ_FIELDS_`, DeleteRule: `_ROW_.owner = _USER_.id`},
		{Name: "k", Table: "k", World: everything},
	}
}

// Bodies that are refused leave nothing behind.
func TestBadBodies(t *testing.T) {
	t.Parallel()
	db := openDB(t, hostileSchema)
	h := serveConfig(t, db, records.Config{APIs: hostileAPIs(), BodyLimit: 4 << 20})
	before := dump(t, db)
	deep := func(open, shut string, n int) string { return strings.Repeat(open, n) + "1" + strings.Repeat(shut, n) }
	var keys strings.Builder
	keys.WriteString(`{"s":"x"`)
	for i := range 200_000 {
		fmt.Fprintf(&keys, `,"k%d":1`, i)
	}
	keys.WriteString("}")
	for name, body := range map[string]string{
		"empty": " ", "brace": "{", "bracket": "[", "unclosed": `{"s":"a`, "trailing comma": `{"s":"a",}`, "single quotes": `{'s':'a'}`, "comment": `{"s":"a"/**/}`, "NaN": `{"n":NaN}`, "Infinity": `{"a":Infinity}`, "hex": `{"n":0x1}`, "leading zero": `{"n":01}`, "plus": `{"n":+1}`,
		"bom": "\ufeff{}", "utf-16": "{\x00}\x00", "garbage behind": `{} x`, "two": `{}{}`, "null": `null`, "true": `true`, "number": `1`, "control": "{\"s\":\"a\nb\"}",
		"duplicate": `{"s":"a","s":"b"}`, "duplicate escaped": `{"s":"a","\u0073":"b"}`, "duplicate unknown": `{"x":1,"x":2}`, "duplicate deep": `{"j":{"x":1,"x":2}}`,
		"NUL": "{\"s\":\"a\x00b\"}", "NUL escaped": `{"s":"a\u0000b"}`, "NUL in json": `{"j":["\u0000"]}`, "NUL in name of json": `{"j":{"\u0000":1}}`, "invalid UTF-8": "{\"s\":\"\xff\xfe\"}", "invalid UTF-8 in name": "{\"\xff\":1}", "overlong": "{\"s\":\"\xc0\xaf\"}", "surrogate bytes": "{\"s\":\"\xed\xa0\x80\"}",
		"lone surrogate": `{"s":"\ud800"}`, "wrong pair": `{"s":"\ud800\ud800"}`, "low first": `{"s":"\udc00\ud800"}`, "bad escape": `{"s":"\x"}`, "short escape": `{"s":"\u12"}`,
		"deep arrays": `{"j":` + deep("[", "]", 10_000) + `}`, "deep objects": `{"j":` + deep(`{"a":`, "}", 10_000) + `}`, "deep in unknown": `{"zzz":` + deep("[", "]", 100_000) + `}`, "deep alone": strings.Repeat("[", 1_000_000), "many keys": keys.String(),
		"huge number": `{"n":` + strings.Repeat("9", 100_000) + `}`, "huge exponent": `{"a":1e999999999}`, "wrong types": `{"n":"1"}`, "object for any": `{"a":{}}`, "array in bulk": `[[]]`, "null in bulk": `[null]`, "bulk with bad tail": `[{"s":"fine"},{"s":1}]`, "bulk cut": `[{"s":"fine"},`, "bulk with duplicate": `[{"s":"fine"},{"s":"a","s":"b"}]`, "empty bulk": `[]`,
		"long base64": `{"b":"` + strings.Repeat("A", 1001) + `"}`,
	} {
		for _, c := range []struct{ method, target string }{{"POST", "/t"}, {"PATCH", "/t/1"}, {"POST", "/rule"}, {"PATCH", "/rule/1"}} {
			if r := call(h, "alice", c.method, c.target, body); r.status != 400 || r.body == "" {
				t.Errorf("%s: %s %s: %.200v", name, c.method, c.target, r)
			}
		}
	}
	for _, media := range []string{"", "text/plain", "application/xml", "text/json", "Application/JSON", " application/json", "multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=" + strings.Repeat("x", 300), "multipart/mixed; boundary=a", "*/*", "json", "application/octet-stream"} {
		for _, c := range []struct{ method, target string }{{"POST", "/t"}, {"PATCH", "/t/1"}} {
			r := httptest.NewRequest(c.method, c.target, strings.NewReader(`{"s":"new"}`))
			if media != "" {
				r.Header.Set("Content-Type", media)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != 400 && !(strings.EqualFold(strings.TrimSpace(media), "application/json") && w.Code == 200) {
				t.Errorf("%q: %d %s", media, w.Code, w.Body)
			}
		}
	}
	var form, parts strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&form, "k%d=v&", i)
		fmt.Fprintf(&parts, "--X\r\nContent-Disposition: form-data; name=\"k%d\"\r\n\r\nv\r\n", i)
		if parts.Len() > 3<<20 {
			break
		}
	}
	for media, body := range map[string]string{
		"application/x-www-form-urlencoded":    form.String(),
		"application/x-www-form-urlencoded; a": "s=%ff",
		"application/x-www-form-urlencoded; b": "s=a;n=b",
		"application/x-www-form-urlencoded; c": "s=a%00b",
		"multipart/form-data; boundary=X":      parts.String() + "--X--\r\n",
		"multipart/form-data; boundary=X; a=1": "--X\r\nContent-Disposition: form-data; name=\"s\"; filename=\"f\"\r\n\r\nfile\r\n--X--\r\n",
		"multipart/form-data; boundary=X; a=2": "--X\r\n" + strings.Repeat("A", 1<<20),
		"multipart/form-data; boundary=X; a=3": "--X\r\nContent-Disposition: form-data; name=\"s\"\r\n\r\n\xff\r\n--X--\r\n",
		"multipart/form-data; boundary=X; a=4": "--X\r\nContent-Disposition: form-data; name=\"s\"\r\n\r\na\r\n--X\r\nContent-Disposition: form-data; name=\"s\"\r\n\r\nb\r\n--X--\r\n",
		"multipart/form-data; boundary=X; a=5": "",
	} {
		if r := call(h, "", "PATCH", "/t/1", body, "Content-Type", media); body != "" && r.status != 400 {
			t.Errorf("%s: %.200v", media, r)
		}
	}
	if after := dump(t, db); after != before {
		t.Errorf("changed: %s", difference(before, after))
	}
}

// A body over the limit is refused, however its length is told.
func TestBodyLimit(t *testing.T) {
	t.Parallel()
	db := openDB(t, hostileSchema)
	h := serveConfig(t, db, records.Config{APIs: hostileAPIs(), BodyLimit: 1000})
	srv := httptest.NewServer(h)
	defer srv.Close()
	post := func(body io.Reader) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(context.Background(), "POST", srv.URL+"/t", body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		res, err := srv.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(text)
	}
	body := func(n int) string { return `{"s":"` + strings.Repeat("x", n-8) + `"}` }
	before := dump(t, db)
	if code, text := post(strings.NewReader(body(1001))); code != 413 || text != "length limit exceeded" {
		t.Errorf("Content-Length: %d %q", code, text)
	}
	if code, _ := post(io.MultiReader(strings.NewReader(body(1001)))); code != 400 {
		t.Errorf("chunked: %d", code)
	}
	if code, _ := post(io.MultiReader(strings.NewReader(`{"s":"a"}`), strings.NewReader(strings.Repeat(" ", 100_000)))); code != 400 {
		t.Errorf("chunked, spaces: %d", code)
	}
	if after := dump(t, db); after != before {
		t.Errorf("changed: %s", difference(before, after))
	}
	if code, text := post(strings.NewReader(body(1000))); code != 200 {
		t.Errorf("just within: %d %q", code, text)
	}
	if code, text := post(io.MultiReader(strings.NewReader(body(1000)))); code != 200 {
		t.Errorf("just within, chunked: %d %q", code, text)
	}
}

// Query strings out of all proportion.
func TestBadQueries(t *testing.T) {
	t.Parallel()
	db := openDB(t, hostileSchema)
	h := serve(t, db, hostileAPIs()...)
	for name, q := range map[string]string{
		"one megabyte": "x=" + strings.Repeat("a", 1<<20), "100,000 parameters": strings.Repeat("a=1&", 100_000), "deep": "filter" + strings.Repeat("[$and][0]", 1000) + "[n]=1", "brackets": "filter" + strings.Repeat("[", 30_000),
		"long pattern": "filter[s][$like]=" + strings.Repeat("%25", 5000), "long regexp": "filter[s][$re]=" + strings.Repeat("(a|b)*", 100), "huge repetition": "filter[s][$re]=((((a{100}){100}){100}){100})", "long column": "filter[" + strings.Repeat("a", 10_000) + "]=1", "many terms": manyTerms(100), "index": "filter[$or][4294967296][n]=1", "negative": "filter[$or][-1][n]=1",
		"limit": "limit=9223372036854775807", "offset": "offset=9223372036854775807", "long cursor": "cursor=" + strings.Repeat("A", 60_000), "long geojson": "geojson=" + strings.Repeat("g", 60_000),
	} {
		for _, api := range []string{"/t", "/rule", "/t/1"} {
			r := get(h, "alice", api+"?"+q)
			if api == "/t/1" && r.status == 200 && (strings.HasPrefix(name, "long") || strings.HasPrefix(name, "l") || name == "huge repetition") {
				continue // means nothing to a read
			}
			if r.status != 400 && r.status != 414 {
				t.Errorf("%s: %s: %.200v", name, api, r)
			}
		}
	}
	// Patterns are cheap, whatever is in them.
	execSQL(t, db, `INSERT INTO t (s, owner) VALUES (printf('%.*c', 200000, 'a'), 'alice')`)
	for _, q := range []string{"filter[s][$like]=" + strings.Repeat("%25a", 60) + "b", "filter[s][$re]=(a*)*b$", "filter[s][$re]=(a|aa)%2B$", "filter[s][$like]=" + strings.Repeat("%25_", 100)} {
		start := time.Now()
		if r := get(h, "", "/t?"+q); r.status >= 500 && r.status != 503 {
			t.Errorf("%s: %.100v", q, r)
		}
		if d := time.Since(start); d > patience {
			t.Errorf("%s takes %v", q, d)
		}
	}
}

func manyTerms(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "filter[$or][%d][n]=%d&", i, i)
	}
	return b.String()
}

// injections are pieces of SQL for every quoting that there is.
func injections() []string {
	var all []string
	for _, open := range []string{"", "'", "''", `"`, `""`, "`", "]", "')", `")`, "'))", `\'`, "%27", "1", "1)", "1'", "a", "a' ", "' '", "\u02bc", "\uff07", ";", "?", "?1", ":a", "x'", "/*", "*/", "--"} {
		for _, tail := range []string{"", " OR 1=1", " OR 1=1 --", "; DROP TABLE t", "; DROP TABLE t --", " UNION SELECT password FROM secret", " UNION ALL SELECT 1,2,3,4,5,6,7,8 --", ") OR (1=1", " AND (SELECT count(*) FROM secret) > 0 --", "; ATTACH 'x.db' AS x", "; PRAGMA user_version = 7", " || (SELECT password FROM secret) || '", "; INSERT INTO t DEFAULT VALUES; --", " IN (SELECT 1)", " LIMIT 1 OFFSET 1", " COLLATE nocase", "\n--", " /*", " GLOB '*'", "=1", "]=1&filter[s][$ne]=x"} {
			all = append(all, open+tail)
		}
	}
	return all
}

// SQL in any place is data, or it is refused; the database stays what it is
// and nobody sees more.
func TestInjection(t *testing.T) {
	t.Parallel()
	db := openDB(t, hostileSchema)
	h := serve(t, db, hostileAPIs()...)
	before := dump(t, db)
	texts := injections()
	if len(texts) < 500 {
		t.Errorf("%d texts", len(texts))
	}
	check := func(where string, r response, statuses ...int) {
		t.Helper()
		for _, s := range statuses {
			if r.status == s {
				statuses = nil
			}
		}
		if statuses != nil || strings.Contains(r.body, "PASSWORD") || strings.Contains(r.body, "HIDDEN") || strings.Contains(r.body, "SELECT") && r.status != 200 {
			t.Errorf("%s: %v", where, r)
		}
	}
	for i, text := range texts {
		q := url.QueryEscape(text)
		for _, place := range []string{"order=", "order=-", "order=s,", "expand=", "geojson=", "cursor=", "limit=", "offset=", "count=", "skip_cursor=", "filter[n]=", "filter[n][$gt]=", "filter[b]=", "filter[s][$is]=", "filter[s][@within]=", "filter="} {
			if text == "" || place == "filter[n]=" && text == "1" || place == "filter[n][$gt]=" && text == "1" || strings.HasPrefix(place, "order") && text == "a" || strings.HasSuffix(place, "=") && (text == "1" || text == "a") {
				continue
			}
			check(place+text, get(h, "", "/t?"+place+q), 400)
		}
		for _, place := range []string{"filter[s]=", "filter[s][$ne]=", "filter[a]=", "filter[s][$like]=", "filter[s][$re]=", "filter[$or][0][s]="} {
			r := get(h, "nobody", "/rule?count=true&"+place+q)
			check(place+text, r, 200, 400)
			if r.status == 200 && r.body != `{"total_count":0,"records":[]}` {
				t.Errorf("%s%s: %v", place, text, r)
			}
		}
		if text != "" && text != "a" && text != "1" {
			check("filter name "+text, get(h, "", "/t?filter["+q+"]=1"), 400)
			check("operator "+text, get(h, "", "/t?filter[s]["+q+"]=1"), 400)
			check("id "+text, get(h, "", "/t/"+url.PathEscape(text)), 400)
			check("text id "+text, get(h, "", "/k/"+url.PathEscape(text)), 404, 400)
			check("delete "+text, call(h, "", "DELETE", "/k/"+url.PathEscape(text), ""), 404, 400)
			check("api "+text, get(h, "", "/"+url.PathEscape(text)), 405, 404)
		}
		check("caller "+text, get(h, "q"+text, "/rule/1"), 403)
		id := 1000 + i
		body := fmt.Sprintf(`{"id":%d,"s":%s,"a":%[2]s,"owner":%[2]s,"j":[%[2]s],%s:1}`, id, jsonText(text), jsonText("x"+text))
		r := call(h, text, "POST", "/t", body)
		check("value "+text, r, 200)
		if got := one(t, db, `SELECT s = ?1 AND a = ?1 AND owner = ?1 AND j ->> 0 = ?1 FROM t WHERE id = ?2`, text, id); got != "1" {
			t.Errorf("%q was stored as something else", text)
		}
		if text != "" {
			check("own "+text, call(h, text, "DELETE", fmt.Sprintf("/rule/%d", id), ""), 200)
		} else {
			check("clean up", call(h, text, "DELETE", fmt.Sprintf("/t/%d", id), ""), 200)
		}
	}
	if after := dump(t, db); after != before {
		t.Errorf("changed: %s", difference(before, after))
	}
}

func jsonText(s string) string {
	var b bytes.Buffer
	b.WriteByte('"')
	for _, r := range s {
		fmt.Fprintf(&b, "\\u%04x", r)
	}
	b.WriteByte('"')
	return b.String()
}

// A client that goes away, or is slow, leaves nothing behind.
func TestCancelledRequests(t *testing.T) {
	t.Parallel()
	db := openFile(t, t.TempDir()+"/test.db", hostileSchema, sqlite.Options{Readers: 2})
	h := serve(t, db, hostileAPIs()...)
	before := dump(t, db)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, c := range []struct{ method, target string }{{"GET", "/t?order=s"}, {"GET", "/t"}, {"GET", "/t/1"}, {"POST", "/t"}, {"PATCH", "/t/1"}, {"DELETE", "/t/1"}} {
		r := httptest.NewRequestWithContext(ctx, c.method, c.target, strings.NewReader(`{"s":"x"}`))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if c.method != "GET" && w.Code != 503 {
			t.Errorf("%s %s: %d %s", c.method, c.target, w.Code, w.Body)
		}
	}
	if after := dump(t, db); after != before {
		t.Errorf("changed: %s", difference(before, after))
	}
}

// A list that takes too long is interrupted, and the connection is good again.
func TestSlowListIsInterrupted(t *testing.T) {
	t.Parallel()
	db := openFile(t, t.TempDir()+"/test.db", `CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT) STRICT;
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO t SELECT i, 's' || i FROM n`, sqlite.Options{Readers: 2})
	h := serveConfig(t, db, records.Config{QueryTimeout: 100 * time.Millisecond, APIs: []records.API{
		{Name: "slow", Table: "t", World: records.Read, ReadRule: `(SELECT count(*) FROM t a, t b WHERE a.s < b.s AND a.id <> _ROW_.id) > 0`}}})
	patient := serveConfig(t, db, records.Config{QueryTimeout: patience, APIs: []records.API{{Name: "t", Table: "t", World: records.Read}}})
	for range 4 {
		r := get(h, "", "/slow")
		if r.status != 503 || r.header.Get("Retry-After") == "" || r.body != "" {
			t.Errorf("%v", r)
		}
		wantStatus(t, get(patient, "", "/t?filter[s]=s7&count=true"), 200)
	}
}
