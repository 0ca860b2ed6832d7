package records_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

const valuesSchema = `
CREATE TABLE strict (id INTEGER PRIMARY KEY, i INTEGER, r REAL, t TEXT, b BLOB, a ANY,
  j TEXT CHECK (jsonschema_matches('{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}', j)),
  k TEXT CHECK (jsonschema('std.KeyValue', k)),
  f TEXT CHECK (jsonschema('std.FileUpload', f)), g BLOB CHECK (ST_IsValid(g)), p TEXT CHECK (is_json(p)),
  nn TEXT NOT NULL DEFAULT 'd', gen INTEGER AS (i IS NOT NULL), _h TEXT) STRICT;
CREATE TABLE loose (id INTEGER PRIMARY KEY, i BIGINT, r DOUBLE PRECISION, t VARCHAR(10), d DATETIME, bo BOOLEAN, n NUMERIC, x, b BLOB, ts TIMESTAMP, da DATE, de DECIMAL(5, 2));
`

// What is written comes back; what does not fit is refused and nothing is
// written.
func TestValues(t *testing.T) {
	t.Parallel()
	db := openDB(t, valuesSchema)
	h := serve(t, db, records.API{Name: "strict", Table: "strict", World: everything}, records.API{Name: "loose", Table: "loose", World: everything})
	const uuid = "01930e5e-9a3b-7c1d-8e2f-0123456789ab"
	for _, c := range []struct{ api, column, in, out, stored string }{
		{"strict", "i", `1`, `1`, `1`}, {"strict", "i", `-0`, `0`, `0`}, {"strict", "i", `9223372036854775807`, `9223372036854775807`, `9223372036854775807`},
		{"strict", "i", `-9223372036854775808`, `-9223372036854775808`, `-9223372036854775808`},
		{"strict", "i", `9223372036854775808`, `-9223372036854775808`, `-9223372036854775808`}, {"strict", "i", `18446744073709551615`, `-1`, `-1`},
		{"strict", "i", `9007199254740993`, `9007199254740993`, `9007199254740993`}, {"strict", "i", `true`, `1`, `1`}, {"strict", "i", `false`, `0`, `0`}, {"strict", "i", `null`, `null`, `NULL`},
		{"strict", "i", `5.0`, ``, ``}, {"strict", "i", `1e2`, ``, ``}, {"strict", "i", `"1"`, ``, ``}, {"strict", "i", `[]`, ``, ``}, {"strict", "i", `{}`, ``, ``}, {"strict", "i", `18446744073709551616`, ``, ``}, {"strict", "i", `-9223372036854775809`, ``, ``},
		{"strict", "r", `5.0`, `5.0`, `5.0`}, {"strict", "r", `5`, `5.0`, `5.0`}, {"strict", "r", `0.1`, `0.1`, `0.1`}, {"strict", "r", `1e300`, `1e300`, ``}, {"strict", "r", `null`, `null`, `NULL`},
		{"strict", "r", `-2.5e-7`, `-2.5e-7`, ``}, {"strict", "r", `18446744073709551615`, `1.8446744073709552e19`, ``},
		{"strict", "r", `true`, ``, ``}, {"strict", "r", `"1.5"`, ``, ``}, {"strict", "r", `[1]`, ``, ``}, {"strict", "r", `1e999`, ``, ``}, {"strict", "r", `NaN`, ``, ``},
		{"strict", "t", `"héllo \u2028 \"<&>\" \ud83d\ude00"`, "\"héllo \u2028 \\\"<&>\\\" 😀\"", ``}, {"strict", "t", `""`, `""`, `''`}, {"strict", "t", `"5"`, `"5"`, `'5'`}, {"strict", "t", `null`, `null`, `NULL`},
		{"strict", "t", `"a\nb\t\\/"`, `"a\nb\t\\/"`, ``}, {"strict", "t", `1`, ``, ``}, {"strict", "t", `true`, ``, ``}, {"strict", "t", `[]`, ``, ``}, {"strict", "t", `{}`, ``, ``}, {"strict", "t", `"a\u0000b"`, ``, ``}, {"strict", "t", `"\ud800"`, ``, ``},
		{"strict", "b", `"AQID"`, `"AQID"`, `X'010203'`}, {"strict", "b", `"_-8="`, `"_-8="`, `X'FFEF'`}, {"strict", "b", `[]`, `""`, `X''`}, {"strict", "b", `""`, `""`, `X''`}, {"strict", "b", `[0,255]`, `"AP8="`, `X'00FF'`}, {"strict", "b", `null`, `null`, `NULL`},
		{"strict", "b", `"` + uuid + `"`, `"AZMOXpo7fB2OLwEjRWeJqw=="`, `X'01930E5E9A3B7C1D8E2F0123456789AB'`},
		{"strict", "b", `"AQI"`, ``, ``}, {"strict", "b", `"_-9="`, ``, ``}, {"strict", "b", `"/+8="`, ``, ``}, {"strict", "b", `[256]`, ``, ``}, {"strict", "b", `[-1]`, ``, ``}, {"strict", "b", `[1.0]`, ``, ``}, {"strict", "b", `["a"]`, ``, ``}, {"strict", "b", `1`, ``, ``}, {"strict", "b", `{}`, ``, ``}, {"strict", "b", `true`, ``, ``}, {"strict", "b", `"AQ\nID"`, ``, ``},
		{"strict", "a", `"x"`, `"x"`, `'x'`}, {"strict", "a", `true`, `1`, `1`}, {"strict", "a", `5`, `5`, `5`}, {"strict", "a", `5.0`, `5.0`, `5.0`}, {"strict", "a", `"5"`, `"5"`, `'5'`}, {"strict", "a", `[1,2]`, `"AQI="`, `X'0102'`}, {"strict", "a", `null`, `null`, `NULL`},
		{"strict", "a", `{}`, ``, ``}, {"strict", "a", `[300]`, ``, ``}, {"strict", "a", `[[1]]`, ``, ``},
		{"strict", "j", `{"n": 1 , "z":[1, 2]}`, `{"n":1,"z":[1,2]}`, `'{"n":1,"z":[1,2]}'`}, {"strict", "j", `null`, `null`, `NULL`},
		{"strict", "j", `{"n":"x"}`, ``, ``}, {"strict", "j", `{}`, ``, ``}, {"strict", "j", `[]`, ``, ``}, {"strict", "j", `5`, ``, ``}, {"strict", "j", `"{\"n\":1}"`, ``, ``}, {"strict", "j", `{"n":1,"z":"\u0000"}`, ``, ``},
		{"strict", "k", `{"a":"b"}`, `{"a":"b"}`, `'{"a":"b"}'`}, {"strict", "k", `{"a":1}`, ``, ``},
		{"strict", "g", `{"type":"Point","coordinates":[1,2]}`, `{"type":"Point","coordinates":[1,2]}`, ``}, {"strict", "g", `null`, `null`, `NULL`},
		{"strict", "g", `{"type":"Point"}`, ``, ``}, {"strict", "g", `{"type":"Nope","coordinates":[1,2]}`, ``, ``}, {"strict", "g", `"AQID"`, ``, ``}, {"strict", "g", `[1,2]`, ``, ``}, {"strict", "g", `5`, ``, ``},
		{"strict", "f", `{"filename":"x"}`, ``, ``}, {"strict", "f", `"x"`, ``, ``}, {"strict", "f", `null`, `null`, `NULL`},
		{"strict", "p", `"[1,2]"`, `"[1,2]"`, `'[1,2]'`}, {"strict", "p", `[1,2]`, ``, ``}, {"strict", "p", `"["`, ``, ``},
		{"strict", "nn", `null`, ``, ``},
		{"loose", "i", `5`, `5`, `5`}, {"loose", "i", `5.5`, ``, ``}, {"loose", "r", `5`, `5.0`, `5.0`}, {"loose", "t", `"longer than ten"`, `"longer than ten"`, ``}, {"loose", "t", `5`, ``, ``},
		{"loose", "d", `"2024-01-02 03:04:05"`, `"2024-01-02 03:04:05"`, `'2024-01-02 03:04:05'`}, {"loose", "d", `1700000000`, `1700000000`, `1700000000`}, {"loose", "d", `1700000000000`, `1700000000000`, `1700000000000`}, {"loose", "d", `"2024-01-02T03:04:05Z"`, `"2024-01-02T03:04:05Z"`, ``},
		{"loose", "ts", `"2024-01-02"`, `"2024-01-02"`, ``}, {"loose", "ts", `1700000000`, `1700000000`, ``}, {"loose", "da", `"2024-01-02"`, `"2024-01-02"`, ``}, {"loose", "da", `5`, `5`, ``},
		{"loose", "bo", `true`, `1`, `1`}, {"loose", "bo", `false`, `0`, `0`}, {"loose", "bo", `2`, `2`, `2`}, {"loose", "bo", `null`, `null`, `NULL`},
		{"loose", "n", `5.0`, `5`, `5`}, {"loose", "n", `5.5`, `5.5`, `5.5`}, {"loose", "n", `"5"`, `5`, `5`}, {"loose", "n", `"x"`, `"x"`, `'x'`}, {"loose", "de", `1.25`, `1.25`, `1.25`}, {"loose", "x", `5.0`, `5.0`, `5.0`}, {"loose", "x", `"5"`, `"5"`, `'5'`}, {"loose", "b", `"AQID"`, `"AQID"`, `X'010203'`},
	} {
		body := fmt.Sprintf(`{%q:%s}`, c.column, c.in)
		before := dump(t, db)
		r := call(h, "", "POST", "/"+c.api, body)
		if c.out == "" {
			if r.status != 400 || r.body == "" {
				t.Errorf("%s %s: %v, want 400", c.api, body, r)
			}
			if dump(t, db) != before {
				t.Errorf("%s %s: refused, but something was written", c.api, body)
			}
			continue
		}
		if r.status != 200 {
			t.Errorf("%s %s: %v", c.api, body, r)
			continue
		}
		id := idsOf(t, r)[0]
		check := func(how string) {
			t.Helper()
			for _, r := range []response{get(h, "", "/"+c.api+"/"+id), get(h, "", "/"+c.api+"?filter[id]="+id)} {
				var m map[string]json.RawMessage
				text := r.body
				if _, inner, ok := strings.Cut(text, `"records":[`); ok {
					text = strings.TrimSuffix(inner, "]}")
				}
				if err := json.Unmarshal([]byte(text), &m); err != nil || string(m[c.column]) != c.out {
					t.Errorf("%s %s of %s: got %s, want %s (%v)", how, c.api, body, m[c.column], c.out, err)
				}
			}
			if stored := one(t, db, `SELECT quote(`+c.column+`) FROM `+c.api+` WHERE id = ?1`, id); c.stored != "" && stored != c.stored {
				t.Errorf("%s %s of %s: stored %s, want %s", how, c.api, body, stored, c.stored)
			}
		}
		check("create")
		id = idsOf(t, call(h, "", "POST", "/"+c.api, `{}`))[0]
		want(t, call(h, "", "PATCH", "/"+c.api+"/"+id, body), 200, "")
		check("update")
	}
}

// What other programs have stored is shown, too, whatever it is.
func TestForeignValues(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE loose (id INTEGER PRIMARY KEY, i INTEGER, t TEXT, d DATETIME, bo BOOLEAN, j TEXT CHECK (jsonschema_matches('{}', j) OR 1), g BLOB CHECK (ST_IsValid(g) OR 1), f TEXT CHECK (jsonschema('std.FileUpload', f)), fs TEXT CHECK (jsonschema('std.FileUploads', fs)))`)
	h := serve(t, db, records.API{Name: "loose", Table: "loose", World: everything})
	for in, out := range map[string]string{
		`i = 'text'`: `"i":"text"`, `i = x'0102'`: `"i":"AQI="`, `i = 9e999`: `"i":null`, `i = -9e999`: `"i":null`, `i = 1.5`: `"i":1.5`,
		`t = x'ff'`: `"t":"_w=="`, `t = CAST(x'61ff62' AS TEXT)`: `"t":"a` + "\ufffd" + `b"`, `t = 'a' || char(0) || 'b'`: `"t":"a\u0000b"`, `t = char(1, 31, 127)`: "\"t\":\"\\u0001\\u001f\u007f\"",
		`d = 'soon'`: `"d":"soon"`, `d = 1.5`: `"d":1.5`, `bo = 'yes'`: `"bo":"yes"`, `bo = 7`: `"bo":7`, `d = '2024-01-02 03:04:05.678+02:00'`: `"d":"2024-01-02 03:04:05.678+02:00"`,
		`j = '{not json'`: `"j":"{not json"`, `j = '[1, {"a" : 2}]'`: `"j":[1,{"a":2}]`, `j = x'01'`: `"j":"AQ=="`, `g = x'0102'`: `"g":null`, `g = 'text'`: `"g":"text"`,
		`f = '{"id":"SECRET","filename":"a.txt","content_type":null}'`:            `"f":{"filename":"a.txt","content_type":null}`,
		`fs = '[{"id":"SECRET","filename":"a"},{"filename":"b","id":"SECRET2"}]'`: `"fs":[{"filename":"a"},{"filename":"b"}]`,
		`fs = '[]'`: `"fs":[]`,
	} {
		execSQL(t, db, `DELETE FROM loose; INSERT INTO loose (id) VALUES (1); UPDATE loose SET `+in)
		for _, r := range []response{get(h, "", "/loose/1"), get(h, "", "/loose")} {
			if r.status != 200 || !strings.Contains(r.body, out) || strings.Contains(r.body, "SECRET") || !json.Valid([]byte(r.body)) {
				t.Errorf("%s: %v, want %s in it", in, r, out)
			}
		}
	}
	// The id of a stored file cannot be found out by comparing either.
	execSQL(t, db, `DELETE FROM loose; INSERT INTO loose (id, f) VALUES (1, '{"id":"SECRET","filename":"a.txt"}')`)
	for _, q := range []string{"filter[f][$like]=%25SECRET%25", "filter[f][$re]=SECRET", "filter[f][$gt]=a", "order=f", "filter[f]=x"} {
		if r := get(h, "", "/loose?"+q); r.status != 400 {
			t.Errorf("%s: %v", q, r)
		}
	}
}

// Keys of every kind make the round trip through the path.
func TestKeys(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE num (id INTEGER PRIMARY KEY, v TEXT) STRICT; CREATE TABLE txt (id TEXT PRIMARY KEY, v TEXT) STRICT; CREATE TABLE nocase (id TEXT PRIMARY KEY NOT NULL COLLATE NOCASE, v TEXT);
		CREATE TABLE uid (id BLOB PRIMARY KEY CHECK (is_uuid_v7(id)) DEFAULT (uuid_v7()), v TEXT) STRICT; CREATE TABLE ref (id BLOB PRIMARY KEY REFERENCES uid(id), v TEXT) STRICT; CREATE TABLE worid (id TEXT PRIMARY KEY, v TEXT) STRICT, WITHOUT ROWID`)
	var apis []records.API
	for _, n := range []string{"num", "txt", "nocase", "uid", "ref", "worid"} {
		apis = append(apis, records.API{Name: n, Table: n, World: everything})
	}
	h := serve(t, db, apis...)
	round := func(api, id, path string) {
		t.Helper()
		in, err := json.Marshal(id)
		if err != nil {
			t.Fatal(err)
		}
		if api == "num" {
			in = []byte(id)
		}
		r := call(h, "", "POST", "/"+api, fmt.Sprintf(`{"id":%s,"v":"a"}`, in))
		if r.status != 200 || idsOf(t, r)[0] != id {
			t.Errorf("%s: create with id %q: %v", api, id, r)
			return
		}
		want(t, call(h, "", "PATCH", path, `{"v":"b"}`), 200, "")
		if api == "nocase" {
			in = []byte(`"aBc"`)
		}
		want(t, call(h, "", "PATCH", path, fmt.Sprintf(`{"id":%s,"v":"c"}`, in)), 200, "")
		if r := get(h, "", path); r.status != 200 || !strings.Contains(r.body, `"v":"c"`) {
			t.Errorf("%s: read %s: %v", api, path, r)
		}
		want(t, call(h, "", "DELETE", path, ""), 200, "deleted")
		want(t, get(h, "", path), 404, "")
		want(t, call(h, "", "DELETE", path, ""), 404, "")
		want(t, call(h, "", "PATCH", path, `{"v":"b"}`), 404, "")
	}
	for _, id := range []string{"0", "1", "-1", "9223372036854775807", "-9223372036854775808"} {
		round("num", id, "/num/"+id)
	}
	for _, id := range []string{"a", "a/b", "/", "%", "%2F", "a b", "ü€😀", "schema", "..", ".", "a//b", "?", "#x", "a;b", "+", "' OR 1=1 --", "\u202e", strings.Repeat("x", 1024), "\n", `"`} {
		escaped := url.PathEscape(id)
		if id == "schema" { // unescaped, that is a word of the protocol
			escaped = "%73chema"
		}
		round("txt", id, "/txt/"+escaped)
		round("worid", id, "/worid/"+escaped)
	}
	round("nocase", "AbC", "/nocase/aBc")
	r := call(h, "", "POST", "/uid", `{"v":"a"}`)
	id := idsOf(t, r)[0]
	if len(id) != 24 || !strings.HasSuffix(id, "==") {
		t.Errorf("id %q", id)
	}
	want(t, call(h, "", "POST", "/ref", fmt.Sprintf(`{"id":%q,"v":"a"}`, id)), 200, `{"ids":["`+id+`"]}`)
	wantStatus(t, get(h, "", "/ref/"+id), 200)
	wantStatus(t, get(h, "", "/uid/"+url.PathEscape(id)), 200)
	text := strings.ToLower(one(t, db, `SELECT substr(h, 1, 8) || '-' || substr(h, 9, 4) || '-' || substr(h, 13, 4) || '-' || substr(h, 17, 4) || '-' || substr(h, 21) FROM (SELECT hex(id) AS h FROM uid)`))
	wantStatus(t, get(h, "", "/uid/"+text), 200)
	wantStatus(t, get(h, "", "/uid/"+strings.ToUpper(text)), 200)
	want(t, get(h, "", "/uid/AQID"), 404, "")
	for _, bad := range []string{
		"/num/x", "/num/1.0", "/num/+1", "/num/-0", "/num/007", "/num/9223372036854775808", "/num/1e3", "/num/0x1", "/num/%20", "/num/%31%00", "/num/-", "/num/" + strings.Repeat("9", 5000), "/num/1%3b", "/num/%EF%BC%91",
		"/uid/" + strings.TrimRight(id, "="), "/uid/x", "/uid/%00", "/uid/{" + text + "}", "/uid/" + strings.Repeat("A", 4096), "/uid/%0A" + id,
		"/txt/%00", "/txt/a%00b", "/txt/%ff", "/txt/" + strings.Repeat("x", 1025),
	} {
		for _, method := range []string{"GET", "PATCH", "DELETE"} {
			want(t, call(h, "", method, bad, `{}`), 400, "Invalid id")
		}
	}
	want(t, call(h, "", "PATCH", "/ref/"+id, `{"id":"AZMOXpo7fB2OLwEjRWeJqw=="}`), 400, "Primary key mismatch")
	want(t, call(h, "", "PATCH", "/ref/"+id, `{"id":null}`), 400, "Primary key mismatch")
	wantStatus(t, call(h, "", "PATCH", "/ref/"+id, `{"id":5}`), 400)
}

// A key that is NULL cannot be addressed. An ordinary table lets it in, unless
// it is refused at the start or when such a row would be made.
func TestNullKeys(t *testing.T) {
	t.Parallel()
	for _, column := range []string{`id TEXT PRIMARY KEY`, `id INT PRIMARY KEY`, `id BLOB PRIMARY KEY CHECK (is_uuid(id))`} {
		db := openDB(t, `CREATE TABLE t (`+column+`, v TEXT)`)
		h, err := tryServe(db, records.API{Name: "t", Table: "t", World: everything})
		if err != nil {
			continue
		}
		for _, body := range []string{`{"v":"a"}`, `{"id":null}`, `[{"v":"a"},{"v":"b"}]`} {
			if r := call(h, "", "POST", "/t", body); r.status < 400 || one(t, db, `SELECT count(*) FROM t`) != "0" {
				t.Errorf("%s: %s: %v, and there are %s rows", column, body, r, one(t, db, `SELECT count(*) FROM t`))
			}
		}
	}
}

func TestOddNames(t *testing.T) {
	t.Parallel()
	db := openFile(t, t.TempDir()+"/odd ?#%.db", `CREATE TABLE "we""ird [t] 'x'" ("Id" INTEGER PRIMARY KEY, "a""b" TEXT, "c'd" TEXT, [e f] TEXT, "select" TEXT, "ü" TEXT, "x.y" TEXT, "" TEXT, "rowid" TEXT, "end" TEXT) STRICT`, sqlite.Options{})
	h := serve(t, db, records.API{Name: "w", Table: `WE"ird [t] 'x'`, World: everything,
		ReadRule: `_ROW_."a""b" IS NOT 'hide' AND _ROW_.[e f] IS NOT 'hide' AND _ROW_."end" IS NOT 'hide'`, UpdateRule: `'c''d' NOT IN _REQ_FIELDS_ AND _REQ_."a""b" IS NOT 'x'`})
	want(t, call(h, "", "POST", "/w", `{"Id":1,"id":7,"a\"b":"A","c'd":"C","e f":"E","select":"S","ü":"U","x.y":"X","":"N","rowid":"R"}`), 200, `{"ids":["1"]}`)
	all := `{"":"N","Id":1,"a\"b":"A","c'd":"C","e f":"E","end":null,"rowid":"R","select":"S","x.y":"X","ü":"U"}`
	want(t, get(h, "", "/w/1"), 200, all)
	want(t, get(h, "", "/w?filter[x.y]=X&order=x.y,select&skip_cursor=1"), 200, `{"records":[`+all+`]}`)
	want(t, call(h, "", "PATCH", "/w/1", `{"c'd":"x"}`), 403, "")
	want(t, call(h, "", "PATCH", "/w/1", `{"a\"b":"x"}`), 403, "")
	want(t, call(h, "", "PATCH", "/w/1", `{"a\"b":"hide"}`), 200, "")
	want(t, get(h, "", "/w/1"), 403, "")
}
