package records_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/records"
)

// Tables of every form can be replaced in.
func TestReplaceInEveryTable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ table, id, back string }{
		{`CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, w TEXT DEFAULT 'd', g TEXT AS (v || '!'), s TEXT AS (v || '?') STORED, _h TEXT, "q""q" TEXT) STRICT`, `7`, `7`},
		{`CREATE TABLE t (id TEXT PRIMARY KEY, v TEXT, w TEXT DEFAULT 'd', g TEXT AS (v || '!'), s TEXT AS (v || '?') STORED, _h TEXT, "q""q" TEXT) STRICT, WITHOUT ROWID`, `"k"`, `k`},
		{`CREATE TABLE t (v TEXT, w TEXT DEFAULT 'd', g TEXT AS (v || '!'), s TEXT AS (v || '?') STORED, id BLOB NOT NULL PRIMARY KEY CHECK (is_uuid(id)), _h TEXT, "q""q" TEXT)`, `"AZMOXpo7fB2OLwEjRWeJqw=="`, `AZMOXpo7fB2OLwEjRWeJqw==`},
		{`CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, v TEXT, w TEXT DEFAULT 'd', g TEXT AS (v || '!'), s TEXT AS (v || '?') STORED, _h TEXT, "q""q" TEXT)`, `7`, `7`},
	} {
		db := openDB(t, c.table)
		h := serve(t, db, records.API{Name: "t", Table: "t", World: everything, Conflict: records.Replace, CreateRule: `_REQ_.v IS NOT 'no' OR 'w' IN _REQ_FIELDS_`, UpdateRule: `_ROW_.v IS NOT 'locked' AND (_REQ_.w IS NULL OR 'w' IN _REQ_FIELDS_)`},
			records.API{Name: "bare", Table: "t", World: everything, Conflict: records.Replace, Exclude: []string{"v", "w", "g", "s", "_h", `q"q`}})
		row := func() string { return one(t, db, `SELECT concat_ws(',', v, w, g, s, _h, "q""q") FROM t`) }
		want(t, call(h, "", "POST", "/t", `{"id":`+c.id+`,"v":"a","w":"b","_h":"h","q\"q":"q","g":"x","s":"y"}`), 200, `{"ids":["`+c.back+`"]}`)
		if got := row(); got != "a,b,a!,a?,h,q" {
			t.Errorf("created %s", got)
		}
		want(t, call(h, "", "POST", "/t", `{"id":`+c.id+`,"v":"c"}`), 200, `{"ids":["`+c.back+`"]}`)
		if got := row(); got != "c,d,c!,c?" {
			t.Errorf("replaced by %s", got)
		}
		want(t, call(h, "", "POST", "/bare", `{"id":`+c.id+`,"v":"z"}`), 200, `{"ids":["`+c.back+`"]}`)
		want(t, call(h, "", "POST", "/t", `{"id":`+c.id+`,"v":"no"}`), 403, "")
		want(t, call(h, "", "PATCH", "/t/"+c.back, `{"v":"locked"}`), 200, "")
		want(t, call(h, "", "POST", "/t", `{"id":`+c.id+`,"v":"e"}`), 403, "")
		want(t, call(h, "", "POST", "/t", `[{"id":`+c.id+`},{"id":`+c.id+`}]`), 403, "")
		if got := row(); got != "locked,d,locked!,locked?" {
			t.Errorf("now %s", got)
		}
	}
}

// A table may have up to 512 columns.
func TestWideTables(t *testing.T) {
	t.Parallel()
	wide := func(name string, n int) string {
		var b strings.Builder
		fmt.Fprintf(&b, "CREATE TABLE %s (id INTEGER PRIMARY KEY", name)
		for i := 1; i < n; i++ {
			fmt.Fprintf(&b, ", c%d TEXT", i)
		}
		return b.String() + ") STRICT;"
	}
	db := openDB(t, wide("w512", 512)+wide("w513", 513))
	if _, err := tryServe(db, records.API{Name: "x", Table: "w513"}); err == nil || !strings.Contains(err.Error(), "more than 512 columns") {
		t.Errorf("513 columns: %v", err)
	}
	h := serve(t, db, records.API{Name: "w", Table: "w512", World: everything, CreateRule: `'c511' IN _REQ_FIELDS_ AND 'c1' IN _REQ_FIELDS_`, UpdateRule: `'c511' IN _REQ_FIELDS_ AND _REQ_.c511 = 'new'`})
	body := func(v string) string {
		var b strings.Builder
		for i := 1; i < 512; i++ {
			fmt.Fprintf(&b, `,"c%d":%q`, i, v)
		}
		return "{" + b.String()[1:] + "}"
	}
	want(t, call(h, "", "POST", "/w", body("old")), 200, `{"ids":["1"]}`)
	want(t, call(h, "", "POST", "/w", `{"c1":"a","c510":"b"}`), 403, "")
	want(t, call(h, "", "PATCH", "/w/1", body("old")), 403, "")
	want(t, call(h, "", "PATCH", "/w/1", body("new")), 200, "")
	if r := get(h, "", "/w/1"); r.status != 200 || strings.Count(r.body, `"new"`) != 511 {
		t.Errorf("%.100v", r)
	}
	// More forms of requests than statements are kept.
	for i := 1; i < 511; i++ {
		if r := call(h, "", "PATCH", "/w/1", fmt.Sprintf(`{"c%d":"x","c511":"new"}`, i)); r.status != 200 {
			t.Fatalf("%v", r)
		}
	}
	if r := get(h, "", "/w/1"); strings.Count(r.body, `"x"`) != 510 {
		t.Errorf("%.100v", r)
	}
}

// Declarations that are hard to read are read right, or refused.
func TestOddDeclarations(t *testing.T) {
	t.Parallel()
	db := openDB(t, `
CREATE TABLE /* t ( */ "a" ("id" BLOB -- CHECK (nothing),
  NOT NULL PRIMARY KEY CHECK ( /* , ) */ is_uuid ( "id" ) ), "check" TEXT DEFAULT ('a,(b' || ')'), 'quoted' TEXT, [j] TEXT NOT NULL DEFAULT '{}' CONSTRAINT "c,d" CHECK (JSONSCHEMA_matches('{"type":"object"}', j)), n NUMERIC(5, 2), UNIQUE (n, "check"), CHECK (is_uuid(n) OR 1))`)
	h := serve(t, db, records.API{Name: "a", Table: "a", World: everything})
	const id = "AZMOXpo7fB2OLwEjRWeJqw=="
	want(t, call(h, "", "POST", "/a", `{"id":"`+id+`","j":{"x":[1]},"quoted":"q","n":1.5}`), 200, `{"ids":["`+id+`"]}`)
	want(t, get(h, "", "/a/"+id), 200, `{"check":"a,(b)","id":"`+id+`","j":{"x":[1]},"n":1.5,"quoted":"q"}`)
	want(t, call(h, "", "POST", "/a", `{"id":"AQID"}`), 400, "db constraint: check")
	want(t, call(h, "", "POST", "/a", `{"id":"`+id+`","j":"{}"}`), 400, "db constraint: check")
	// Columns that are added later are read, too.
	execSQL(t, db, `ALTER TABLE a ADD COLUMN k TEXT CHECK (jsonschema('std.KeyValue', k))`)
	want(t, call(h, "", "PATCH", "/a/"+id, `{"k":{"a":"b"}}`), 200, "")
	if r := get(h, "", "/a/"+id); !strings.Contains(r.body, `"k":{"a":"b"}`) {
		t.Errorf("%v", r)
	}
}
