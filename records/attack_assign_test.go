package records_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/records"
)

// stamping is an API with a column that a hook sets and columns that no caller
// may.
func stamping() records.API {
	return records.API{
		Name: "own", Table: "doc", World: everything, CreateRule: ownNewDoc, ReadRule: ownDoc, UpdateRule: ownDoc + ` AND 'owner' NOT IN _REQ_FIELDS_`, DeleteRule: ownDoc, Check: ownDoc,
		Exclude: []string{"secret", "_hidden"},
		Before: func(_ context.Context, c *records.Change) error {
			if c.Op != records.Delete {
				c.Values["tenant"] = 7
			}
			return nil
		},
	}
}

// hostileMembers name, in every way, what a caller may not set.
var hostileMembers = []string{
	`"secret":"H"`, `"_hidden":"H"`, `"twice":66`, `"tenant":66`, `"rowid":66`, `"_rowid_":66`, `"oid":66`, `"ROWID":66`, `"doc.secret":"H"`, `"main.doc.secret":"H"`, `"\"secret\"":"H"`, `"[secret]":"H"`, `"secret ":"H"`, `" secret":"H"`, `"SECRET":"H"`, `"secret\u0000":"H"`,
	`"secr\u0065t":"H"`, `"ＳＥＣＲＥＴ":"H"`, `"_ROW_":{"secret":"H"}`, `"_REQ_":{"owner":"bob"}`, `"OWNER":"bob"`, `"Owner":"bob"`, `"owner ":"bob"`, `"own\u200ber":"bob"`, `"owner.id":"bob"`, `"owner[]":"bob"`, `"doc":{"owner":"bob","secret":"H"}`, `"record":{"owner":"bob"}`, `"value":{"owner":"bob"}`, `"values":[{"secret":"H"}]`,
	`"$set":{"secret":"H"}`, `"__proto__":{"secret":"H"}`, `"constructor":{"prototype":{"secret":"H"}}`, `"_USER_":{"id":"bob"}`, `"user":"bob"`, `"admin":true`, `"ids":["66"]`, `"api_name":"note"`, `"System":true`,
}

// ambiguous bodies are refused, as others may read them otherwise.
var ambiguousMembers = []string{
	`"owner":"alice","owner":"bob"`, `"owner":"bob","owner":"alice"`, `"owner":"alice","\u006fwner":"bob"`, `"x":1,"x":2`, `"title":"a","title":"a"`, `"owner":["bob"]`, `"owner":{"$ne":1}`, `"owner":{"$id":0,"x":1}`, `"owner":true`, `"owner":1`,
	`"one":{"id":"00000000-0000-4000-8000-000000000000","filename":"x"}`, `"one":"x"`, `"one":{"data":"AAAA","id":"x"}`, `"many":[{"id":"x","data":"AAAA"}]`, `"many":{"data":"AAAA"}`, `"many":[[]]`,
}

// Nobody sets what is not theirs to set, by whatever body it comes.
func TestD3_MassAssignment(t *testing.T) {
	t.Parallel()
	a := newAttacked(t, stamping(), records.API{Name: "note", Table: "note", World: everything})
	// wantRow fails unless the row is alice's, and the columns that no caller may set are as the database and the hook have them.
	wantRow := func(id, where string) {
		t.Helper()
		got := one(t, a.db, `SELECT owner || ' ' || secret || ' ' || _hidden || ' ' || tenant || ' ' || (twice - 2 * id) FROM doc WHERE id = ?1`, id)
		if got != "alice TATTLE TATTLE 7 0" {
			t.Errorf("%s: row %s is %q", where, id, got)
		}
	}
	multipart := func(members string) []formPart {
		parts := []formPart{}
		for _, m := range strings.Split(members, ",") {
			name, value, _ := strings.Cut(m, ":")
			parts = append(parts, formPart{strings.ReplaceAll(strings.Trim(name, `"`), `\"`, "%22"), "-", "", strings.Trim(value, `"`)})
		}
		return parts
	}
	form := func(members string) string {
		v := url.Values{}
		for _, p := range multipart(members) {
			v.Add(p.name, p.content)
		}
		return v.Encode()
	}
	const urlencoded = "application/x-www-form-urlencoded"
	for _, m := range hostileMembers {
		created := []response{
			call(a, "alice", "POST", "/own", `{"owner":"alice",`+m+`}`),
			call(a, "alice", "POST", "/own", `[{"owner":"alice",`+m+`},{`+m+`,"owner":"alice"}]`),
			call(a, "alice", "POST", "/own", "owner=alice&"+form(m), "Content-Type", urlencoded),
			multipartCall(t, signedAs{a, "alice"}, "POST", "/own", append(multipart(m), formPart{"owner", "-", "", "alice"})...),
			execute(a, "alice", `{"Create":{"api_name":"own","value":{"owner":"alice",`+m+`}}}`),
			execute(a, "alice", `{"Create":{"api_name":"own","value":{"owner":"alice"},`+m+`}}`),
		}
		for i, r := range created {
			if r.status != 200 {
				if r.status != 400 && !(i > 4 && r.status == 405) { // api_name is given twice or another's
					t.Errorf("%s: %v", m, r)
				}
				continue
			}
			for _, id := range idsOf(t, r) {
				wantRow(id, m)
			}
		}
		for _, r := range []response{
			call(a, "alice", "PATCH", "/own/1", `{`+m+`}`),
			call(a, "alice", "PATCH", "/own/1", form(m), "Content-Type", urlencoded),
			multipartCall(t, signedAs{a, "alice"}, "PATCH", "/own/1", multipart(m)...),
			execute(a, "alice", `{"Update":{"api_name":"own","record_id":1,"value":{`+m+`}}}`),
		} {
			if r.status != 200 && r.status != 400 {
				t.Errorf("update: %s: %v", m, r)
			}
			wantRow("1", m)
		}
	}

	before := a.state()
	for _, m := range ambiguousMembers {
		for _, r := range []response{
			call(a, "alice", "POST", "/own", `{`+m+`}`), call(a, "alice", "POST", "/own", `[{"owner":"alice"},{`+m+`}]`), call(a, "alice", "PATCH", "/own/1", `{`+m+`}`),
			execute(a, "alice", `{"Create":{"api_name":"own","value":{`+m+`}}}`), execute(a, "alice", `{"Update":{"api_name":"own","record_id":"1","value":{`+m+`}}}`),
		} {
			if r.status != 400 {
				t.Errorf("%s: %v", m, r)
			}
		}
	}
	for _, body := range []string{"owner=alice&owner=bob", "owner=bob&owner=alice", "owner=alice&%6fwner=bob", "owner=alice;owner=bob", "one=x&owner=alice"} {
		wantStatus(t, call(a, "alice", "POST", "/own", body, "Content-Type", urlencoded), 400)
	}
	for _, parts := range [][]formPart{
		{{"owner", "-", "", "alice"}, {"owner", "-", "", "bob"}}, {{"owner", "-", "", "alice"}, {"owner", "f", "", "bob"}}, {{"owner", "f", "text/plain", "alice"}}, {{"owner", "-", "", "alice"}, {"one", "a", "", "1"}, {"one", "b", "", "2"}},
		{{"owner", "-", "", "alice"}, {"one", "-", "", `{"id":"x"}`}}, {{"owner", "-", "", "alice"}, {"many", "-", "", `[]`}, {"many", "a", "", "1"}},
	} {
		wantStatus(t, multipartCall(t, signedAs{a, "alice"}, "POST", "/own", parts...), 400)
	}
	// The owner and the key are as they are.
	for _, m := range []string{`"owner":"bob"`, `"owner":null`, `"owner":""`, `"owner":"ALICE"`, `"owner":"alice "`, `"title":"x"`} {
		for _, r := range []response{
			call(a, "alice", "POST", "/own", `{`+m+`}`), call(a, "alice", "POST", "/own", `[{"owner":"alice"},{`+m+`}]`), call(a, "alice", "POST", "/own", form(m), "Content-Type", urlencoded), multipartCall(t, signedAs{a, "alice"}, "POST", "/own", multipart(m)...),
			execute(a, "alice", `{"Create":{"api_name":"own","value":{`+m+`}}}`), call(a, "alice", "PATCH", "/own/1", `{`+strings.Replace(m, "title", "owner", 1)+`}`), call(a, "alice", "PATCH", "/own/2", `{`+m+`}`),
		} {
			wantStatus(t, r, 403)
		}
	}
	wantStatus(t, call(a, "alice", "PATCH", "/own/1", `{"id":2}`), 400)
	wantStatus(t, execute(a, "alice", `{"Update":{"api_name":"own","record_id":1,"value":{"id":2}}}`), 400)
	wantStatus(t, call(a, "alice", "POST", "/own", `{"id":2,"owner":"alice"}`), 400)
	if after := a.state(); after != before {
		t.Errorf("changed: %s", difference(before, after))
	}
	a.wantStored("alice one", "alice many", "bob one", "bob many")
}

// What keeps one's own row from another does not tell what is in that.
func TestD5_ClashesTellNothing(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id TEXT PRIMARY KEY, owner TEXT, a TEXT UNIQUE, b TEXT, c TEXT CHECK (c <> 'TATTLE' OR b = 'TATTLE'), _h TEXT UNIQUE, UNIQUE (b, c)) STRICT;
		CREATE TRIGGER stop BEFORE UPDATE OF b ON t WHEN new.b = 'stop' BEGIN SELECT RAISE(ABORT, 'TATTLE of the trigger'); END;
		CREATE UNIQUE INDEX odd ON t (lower(a)); CREATE UNIQUE INDEX partial ON t (owner) WHERE owner = 'TATTLE';
		INSERT INTO t VALUES ('k1', 'bob', 'a1', 'TATTLE', 'c1', 'h1'), ('TATTLE', 'TATTLE', 'a2', 'b2', 'c2', 'h2'), ('mine', 'alice', 'a3', 'b3', 'c3', 'h3')`)
	own := `_ROW_.owner = _USER_.id`
	apis := func(read string) []records.API {
		return []records.API{
			{Name: "t", Table: "t", World: everything, ReadRule: read, UpdateRule: own},
			{Name: "replace", Table: "t", World: everything, ReadRule: read, UpdateRule: own, Conflict: records.Replace},
			{Name: "ignore", Table: "t", World: everything, ReadRule: read, UpdateRule: own, Conflict: records.Ignore},
			{Name: "narrow", Table: "t", World: everything, ReadRule: read, UpdateRule: own, Exclude: []string{"a", "b"}},
		}
	}
	hidden, open := withBatches(t, db, records.Config{APIs: apis(own)}), withBatches(t, db, records.Config{APIs: apis("")})
	before := dump(t, db)
	for _, api := range []string{"t", "replace", "ignore", "narrow"} {
		for _, body := range []string{
			`{"id":"k1","owner":"alice"}`, `{"id":"TATTLE"}`, `{"id":"n","a":"a1"}`, `{"id":"n","a":"A1"}`, `{"id":"n","_h":"h1"}`, `{"id":"n","b":"TATTLE","c":"c1"}`, `{"id":"n","c":"TATTLE"}`, `{"id":"n","owner":"TATTLE"}`, `{"id":"mine","a":"a1"}`, `{"id":null}`,
		} {
			for _, accept := range []string{"*/*", "application/problem+json"} {
				for _, method := range []string{"POST", "BULK", "BATCH", "PATCH"} {
					r, o := clash(hidden, method, api, body, accept), clash(open, method, api, body, accept)
					if strings.Contains(r.same(), "TATTLE") || strings.Contains(r.same(), "h1") || r.status >= 500 {
						t.Errorf("%s %s %s: %v", method, api, body, r)
					}
					if r.status != 200 && r.same() != o.same() {
						t.Errorf("%s %s %s: %s, of readable rows %s", method, api, body, r.same(), o.same())
					}
					if api == "narrow" && (strings.Contains(r.body, "#/a") || strings.Contains(r.body, "#/b")) || strings.Contains(r.body, "_h") {
						t.Errorf("%s %s %s: %v", method, api, body, r)
					}
					execSQL(t, db, `DELETE FROM t WHERE id = 'n'; UPDATE t SET owner = 'alice', a = 'a3', b = 'b3', c = 'c3', _h = 'h3' WHERE id = 'mine'`)
				}
			}
		}
	}
	want(t, call(hidden, "alice", "PATCH", "/t/mine", `{"b":"stop"}`, "Accept", "text/plain"), 400, "db constraint: trigger")
	if r := call(hidden, "alice", "PATCH", "/t/mine", `{"b":"stop"}`, "Accept", "application/problem+json"); strings.Contains(r.body, "TATTLE") {
		t.Error(r)
	}
	if after := dump(t, db); after != before {
		t.Errorf("changed: %s", difference(before, after))
	}
}

// clash sends a record as alice in one of the ways that there are.
func clash(h http.Handler, method, api, body, accept string) response {
	switch method {
	case "BULK":
		return call(h, "alice", "POST", "/"+api, `[`+body+`]`, "Accept", accept)
	case "BATCH":
		return execute(h, "alice", `{"Create":{"api_name":"`+api+`","value":`+body+`}}`, "Accept", accept)
	case "PATCH":
		return call(h, "alice", "PATCH", "/"+api+"/mine", strings.Replace(body, `"id":"n"`, `"id":"mine"`, 1), "Accept", accept)
	}
	return call(h, "alice", "POST", "/"+api, body, "Accept", accept)
}

// What goes wrong in a hook is for the log, unless the hook says otherwise.
func TestD5_HookErrorsTellNothing(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT UNIQUE) STRICT; INSERT INTO t VALUES (1, 'a')`)
	h := withBatches(t, db, records.Config{APIs: []records.API{{Name: "t", Table: "t", World: everything, Before: func(ctx context.Context, c *records.Change) error {
		switch c.Values["v"] {
		case "error":
			return errors.New("TATTLE of the hook")
		case "panic":
			panic("TATTLE of the hook")
		case "sql":
			_, err := c.Tx.ExecContext(ctx, `INSERT INTO t (v) VALUES ('a')`)
			return err
		case "wrapped":
			return fmt.Errorf("TATTLE of the hook: %w", &records.Error{Status: 500, Text: "TATTLE"})
		case "type":
			c.Values["v"] = struct{ Secret string }{"TATTLE"}
		case "column":
			c.Values["TATTLE"] = 1
		}
		return nil
	}}}})
	before := dump(t, db)
	for _, v := range []string{"error", "panic", "sql", "wrapped", "type", "column"} {
		for _, accept := range []string{"*/*", "application/problem+json"} {
			for _, r := range []response{
				call(h, "", "POST", "/t", `{"v":"`+v+`"}`, "Accept", accept), call(h, "", "PATCH", "/t/1", `{"v":"`+v+`"}`, "Accept", accept), execute(h, "", `{"Create":{"api_name":"t","value":{"v":"`+v+`"}}}`, "Accept", accept),
			} {
				if strings.Contains(r.same(), "TATTLE") || r.status < 400 || v != "sql" && r.status != 500 {
					t.Errorf("%s: %s", v, r.same())
				}
			}
		}
	}
	if after := dump(t, db); after != before {
		t.Errorf("changed: %s", difference(before, after))
	}
}

// References are as the schema has them: a foreign key is enforced on all rows,
// and a cascade takes along what refers to a row, also rows that the caller may
// not touch. The answer is the same however many there are.
func TestD6_CascadesAndReferences(t *testing.T) {
	t.Parallel()
	const schema = `CREATE TABLE post (id INTEGER PRIMARY KEY, owner TEXT) STRICT;
		CREATE TABLE comment (id INTEGER PRIMARY KEY, owner TEXT, text TEXT, post INTEGER REFERENCES post(id) ON DELETE %s) STRICT;
		INSERT INTO post VALUES (1, 'alice'), (2, 'alice'), (3, 'bob'); INSERT INTO comment VALUES (1, 'bob', 'TATTLE', 1), (2, 'bob', 'TATTLE', 3)`
	own := `_ROW_.owner = _USER_.id`
	apis := []records.API{
		{Name: "post", Table: "post", World: everything, ReadRule: own, UpdateRule: own, DeleteRule: own},
		{Name: "comment", Table: "comment", World: everything, ReadRule: own, UpdateRule: own, DeleteRule: own, CreateRule: `_REQ_.owner = _USER_.id AND EXISTS (SELECT 1 FROM post WHERE id = _REQ_.post AND owner = _USER_.id)`, Expand: []string{"post"}},
	}
	for action, left := range map[string]string{"CASCADE": "2:3", "SET NULL": "1: 2:3"} {
		db := openDB(t, fmt.Sprintf(schema, action))
		h := serve(t, db, apis...)
		wantStatus(t, get(h, "alice", "/comment/1"), 403)
		referred, alone := call(h, "alice", "DELETE", "/post/1", ""), call(h, "alice", "DELETE", "/post/2", "")
		if referred.status != 200 || referred.same() != alone.same() {
			t.Errorf("%s: %s, without a comment %s", action, referred.same(), alone.same())
		}
		if got := one(t, db, `SELECT group_concat(id || ':' || coalesce(post, ''), ' ' ORDER BY id) FROM comment`); got != left {
			t.Errorf("%s: left %q, want %q", action, got, left)
		}
		// Others' rows go with rows that one may delete only.
		denied, missing := call(h, "alice", "DELETE", "/post/3", ""), call(h, "alice", "DELETE", "/post/9", "")
		if denied.status != 403 || denied.same() != missing.same() {
			t.Errorf("%s: %v %v", action, denied, missing)
		}
	}
	db := openDB(t, fmt.Sprintf(schema, "RESTRICT"))
	h := serve(t, db, apis...)
	r := call(h, "alice", "DELETE", "/post/1", "", "Accept", "application/problem+json")
	if r.status != 400 || strings.Contains(r.body, "TATTLE") || strings.Contains(r.body, "comment") || strings.Contains(r.body, "pointer") {
		t.Errorf("RESTRICT: %v", r)
	}
	// A rule that asks for the caller's own row makes all others alike.
	hidden, missing := call(h, "alice", "POST", "/comment", `{"owner":"alice","post":3}`), call(h, "alice", "POST", "/comment", `{"owner":"alice","post":99}`)
	if hidden.status != 403 || hidden.same() != missing.same() {
		t.Errorf("hidden %v, missing %v", hidden, missing)
	}
}
