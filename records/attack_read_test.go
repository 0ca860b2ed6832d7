package records_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

// Whatever is included is what the caller could have read by itself.
func TestD7_IncludedRows(t *testing.T) {
	t.Parallel()
	a := newAttacked(t)
	execSQL(t, a.db, `UPDATE doc SET parent = 2 WHERE id = 1; INSERT INTO note VALUES (10, 2, 'alice', 'mine on a hidden one'), (11, 1, 'bob', 'TATTLE'), (12, NULL, 'bob', 'TATTLE')`)
	for _, target := range []string{
		"/own/1?expand=parent,notes", "/own?expand=parent,notes", "/own?expand=parent,notes&fields=parent", "/own/1?expand=notes&fields=id", "/own?expand=notes&count=true&limit=1", "/own?expand=parent&order=parent&filter[parent]=2",
		"/note/10?expand=doc", "/note?expand=doc", "/note?expand=doc&fields=doc,text", "/note?expand=doc&filter[doc]=2", "/note?expand=doc&order=-doc&count=true",
	} {
		r := get(a, "alice", target)
		if r.status != 200 || strings.Contains(r.body, "bob") || strings.Contains(r.body, "TATTLE") || strings.Contains(r.body, "more") {
			t.Errorf("%s: %v", target, r)
		}
		if nobody := get(a, "", target); strings.Contains(nobody.body, "TITLE") || strings.Contains(nobody.body, "TEXT") {
			t.Errorf("%s for everybody: %v", target, nobody)
		}
	}
	// The row behind a reference may be hidden or gone.
	want(t, get(a, "alice", "/note/10?expand=doc"), 200, `{"doc":{"id":2},"id":10,"owner":"alice","text":"mine on a hidden one"}`)
	want(t, get(a, "alice", "/own/1?fields=parent&expand=parent"), 200, `{"parent":{"id":2}}`)
	want(t, get(a, "bob", "/own/2?fields=id&expand=notes"), 200, `{"id":2,"notes":{"records":[{"doc":2,"id":2,"owner":"bob","text":"TEXT of bob"}]}}`)
	// How many hidden rows refer to a row changes neither the answer nor its entity tag.
	before := get(a, "alice", "/own/1?expand=notes")
	execSQL(t, a.db, `WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 300) INSERT INTO note SELECT i, 1, 'bob', 'TATTLE' FROM n`)
	if after := get(a, "alice", "/own/1?expand=notes"); before.header.Get("Etag") != after.header.Get("Etag") || before.body != after.body {
		t.Errorf("before %v, after %v", before, after)
	}
}

// Columns that callers may not see are in no place told from columns that do
// not exist.
func TestD8_HiddenColumnsAnywhere(t *testing.T) {
	t.Parallel()
	a := newAttacked(t)
	places := []string{
		"filter[X][$in]=" + url.QueryEscape(`["TATTLE"]`), "filter[X][$nin]=" + url.QueryEscape(`["TATTLE"]`), "filter[X][$in]=[]", "filter[X][$in]=[1]", "filter[X][$in]=x", "filter[$and][0][X][$nin]=[]", "filter[X][$gte]=T", "filter[X][$lt]=T",
		"fields=X", "fields=title,X", "fields=X&expand=parent", "fields=id&order=X", "fields=X&count=true&limit=0", "expand=X", "expand=notes,X", "geojson=X", "match=X:TATTLE", "match=TATTLE&fields=X", "order=X&cursor=AAAA", "limit=0&filter[X][$like]=T%25", "offset=99&filter[X][$re]=T",
	}
	secrets := []string{"secret", "_hidden", "rowid", "_rowid_", "oid", "SECRET", "Title", "doc.title", "_ROW_.title", "*", "count(*)", "note.text"}
	for _, place := range places {
		for _, target := range []string{"/own?", "/own/1?"} {
			for _, accept := range []string{"*/*", "application/problem+json"} {
				ask := func(name string) response {
					r := call(a, "alice", "GET", target+strings.ReplaceAll(place, "X", url.QueryEscape(name)), "", "Accept", accept)
					r.header.Del("Change-Cursor") // is sealed anew each time
					return r
				}
				nothing := ask("nothing")
				for _, name := range secrets {
					got := ask(name)
					// A name with characters that no column has is refused in other words, whether or not there is such a column.
					if strings.ContainsAny(name, " .*()") && got.status == 400 && !strings.Contains(got.body, "TATTLE") {
						continue
					}
					if got.same() != nothing.same() || strings.Contains(got.body, "TATTLE") {
						t.Errorf("%s%s: %s is told from nothing: %s, %s", target, place, name, got.same(), nothing.same())
					}
				}
			}
		}
	}
	// Nor do values of hidden rows answer.
	for _, q := range []string{
		"filter[title][$in]=" + url.QueryEscape(`["TITLE of bob"]`), "filter[id][$in]=[2,99]", "filter[id][$nin]=[1]", "filter[title][$gt]=" + url.QueryEscape("TITLE of alice"), "filter[owner][$nin]=" + url.QueryEscape(`["alice"]`), "filter[one][$is]=!NULL&filter[id]=2",
	} {
		want(t, get(a, "alice", "/own?count=true&"+q), 200, `{"total_count":0,"records":[]}`)
	}
}

// A cursor is for the API, the order and the caller that it was made for,
// whatever is shown of the records.
func TestD9_CursorsOfOthers(t *testing.T) {
	t.Parallel()
	a := newAttacked(t, append(attackAPIs(), records.API{Name: "all", Table: "doc", World: records.Read}, records.API{Name: "same", Table: "doc", World: records.Read, Exclude: []string{"owner"}})...)
	execSQL(t, a.db, `INSERT INTO doc (id, owner, title) VALUES (3, 'alice', 'c'), (4, 'bob', 'd'), (5, 'alice', 'e')`)
	cursor := list(t, a, "alice", "/own?limit=1&order=owner&fields=title").Cursor
	if p := list(t, a, "alice", "/own?order=owner&fields=id&cursor="+cursor); len(p.Records) != 2 {
		t.Errorf("%s", p.Records)
	}
	for _, c := range []struct{ who, target string }{
		{"bob", "/own?order=owner"}, {"", "/own?order=owner"}, {"alice", "/all?order=owner"}, {"alice", "/same?order=title"}, {"alice", "/own?order=-owner"}, {"alice", "/own"}, {"alice", "/own?order=title"}, {"alice", "/blind?order=owner"},
		{"alice", "/own?order=id"}, {"alice", "/note?order=owner"},
	} {
		sep := "&"
		if !strings.Contains(c.target, "?") {
			sep = "?"
		}
		want(t, get(a, c.who, c.target+sep+"fields=id&cursor="+cursor), 400, "Bad cursor")
	}
	for _, q := range []string{"order=secret", "order=_hidden", "order=nothing", "order=rowid", "fields=title&order=secret"} {
		want(t, get(a, "alice", "/own?"+q+"&cursor="+cursor), 400, "Invalid query")
	}
	want(t, get(a, "", "/locked?cursor="+cursor), 403, "")
	// The values in it are sealed.
	if raw, err := json.Marshal(cursor); err != nil || strings.Contains(string(raw), "alice") {
		t.Error(cursor)
	}
	// An offset, a count and a cursor of the other's page agree with what each may see.
	for who, n := range map[string]int{"alice": 3, "bob": 2, "": 0} {
		p := list(t, a, who, "/own?count=true&fields=id&offset=0")
		if *p.Total != n || len(p.Records) != n {
			t.Errorf("%q: %d of %d", who, len(p.Records), *p.Total)
		}
	}
}

// Numbers are about what the caller may see.
func TestD10_Counts(t *testing.T) {
	t.Parallel()
	a := newAttacked(t)
	execSQL(t, a.db, `INSERT INTO doc (id, owner, title) SELECT 100 + value, 'bob', 'b' || value FROM json_each('[1,2,3,4,5,6,7,8,9]')`)
	for _, q := range []string{"", "&filter[id][$gt]=0", "&filter[id][$nin]=[]", "&filter[id][$nin]=[77]", "&filter[owner][$in]=" + url.QueryEscape(`["alice","bob"]`), "&fields=title", "&expand=notes", "&order=-title", "&filter[title][$re]=.", "&filter[title][$like]=%25"} {
		for _, window := range []struct {
			query   string
			records int
		}{{"limit=0", 0}, {"limit=1", 1}, {"limit=1024", 1}, {"offset=1", 0}, {"offset=5", 0}, {"offset=9007199254740991", 0}} {
			p := list(t, a, "alice", "/own?count=true&"+window.query+q)
			if *p.Total != 1 || len(p.Records) != window.records {
				t.Errorf("%s%s: %d of %d", window.query, q, len(p.Records), *p.Total)
			}
		}
		want(t, get(a, "", "/own?count=true"+strings.Replace(q, "&fields=title", "&fields=id", 1)), 200, `{"total_count":0,"records":[]}`)
	}
	for _, q := range []string{"limit=-1", "limit=1025", "limit=1e3", "offset=-1", "offset=9223372036854775808", "count=2", "count=true&count=false", "limit=1&limit=2", "limit=0x1", "limit=١"} {
		wantStatus(t, get(a, "alice", "/own?"+q), 400)
	}
	// The entity tag of a list is of what it shows.
	before := get(a, "alice", "/own?count=true&skip_cursor=true").header.Get("Etag")
	execSQL(t, a.db, `DELETE FROM doc WHERE id > 100`)
	if after := get(a, "alice", "/own?count=true&skip_cursor=true").header.Get("Etag"); after != before {
		t.Error("the entity tag tells of hidden rows")
	}
}

// A view is an API of its own: the rules of the table do not count for it, and
// what it selects is what its readers see. A table of the same name elsewhere
// is never taken for it.
func TestD11_ViewsAndNamesakes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	openFile(t, dir+"/other.db", `CREATE TABLE doc (id INTEGER PRIMARY KEY, owner TEXT, title TEXT) STRICT; INSERT INTO doc VALUES (1, 'alice', 'OTHER'), (7, 'alice', 'OTHER'); CREATE TABLE card (id INTEGER PRIMARY KEY) STRICT`, sqlite.Options{})
	db := openFile(t, dir+"/main.db", `CREATE TABLE doc (id INTEGER PRIMARY KEY, owner TEXT, title TEXT, _secret TEXT) STRICT; INSERT INTO doc VALUES (1, 'alice', 'MAIN', 'TATTLE'), (2, 'bob', 'HIS', 'TATTLE');
		CREATE VIEW card AS SELECT id, title, owner, _secret FROM doc; CREATE VIEW shown AS SELECT id, title FROM doc WHERE owner = 'alice'`,
		sqlite.Options{Attach: []sqlite.Attachment{{Name: "other", Path: dir + "/other.db"}}})
	h := serve(t, db,
		records.API{Name: "doc", Table: "doc", World: everything, ReadRule: ownDoc, UpdateRule: ownDoc},
		records.API{Name: "other", Table: "other.doc", World: everything, ReadRule: ownDoc, UpdateRule: ownDoc},
		records.API{Name: "card", Table: "card", World: everything, ReadRule: ownDoc},
		records.API{Name: "shown", Table: "shown", World: records.Read})
	check := func() {
		t.Helper()
		want(t, get(h, "alice", "/doc/1"), 200, `{"id":1,"owner":"alice","title":"MAIN"}`)
		want(t, get(h, "alice", "/other/1"), 200, `{"id":1,"owner":"alice","title":"OTHER"}`)
		want(t, get(h, "alice", "/doc/7"), 403, "")
		want(t, get(h, "alice", "/card/1"), 200, `{"id":1,"owner":"alice","title":"MAIN"}`)
		want(t, get(h, "alice", "/card/2"), 403, "")
		want(t, get(h, "", "/shown?skip_cursor=true"), 200, `{"records":[{"id":1,"title":"MAIN"}]}`)
		want(t, get(h, "", "/shown/2"), 404, "")
		wantStatus(t, call(h, "alice", "PATCH", "/doc/1", `{"title":"MAIN"}`), 200)
		wantStatus(t, call(h, "alice", "PATCH", "/doc/2", `{"title":"x"}`), 403)
		wantStatus(t, call(h, "alice", "PATCH", "/card/1", `{"title":"x"}`), 405)
		wantStatus(t, call(h, "alice", "POST", "/card", `{"title":"x"}`), 405)
		wantStatus(t, call(h, "alice", "DELETE", "/card/1", ""), 405)
		if got := one(t, db, `SELECT (SELECT group_concat(title) FROM main.doc) || ' ' || (SELECT group_concat(title) FROM other.doc)`); got != "MAIN,HIS OTHER,OTHER" {
			t.Error(got)
		}
	}
	check()
	// A temporary table of the application, on the connection that writes, has the name of the API's.
	execSQL(t, db, `CREATE TEMP TABLE doc (id INTEGER PRIMARY KEY, owner TEXT, title TEXT, _secret TEXT); INSERT INTO temp.doc VALUES (1, 'alice', 'TEMP', ''), (2, 'alice', 'TEMP', '')`)
	check()
	if got := one(t, db, `SELECT count(*) FROM main.doc`); got != "2" {
		t.Error(got)
	}
	execSQL(t, db, `DROP TABLE temp.doc`)
	// Views and tables share their names, so one cannot take the place of the other.
	err := db.Update(t.Context(), func(tx *sqlite.Tx) error {
		_, err := tx.ExecContext(t.Context(), `CREATE VIEW doc AS SELECT 1 AS id`)
		return err
	})
	if err == nil {
		t.Error("a view has the name of a table")
	}
	if _, err := tryServe(db, records.API{Name: "x", Table: "temp.doc"}); err == nil {
		t.Error("an API of a temporary table")
	}
}

// Descriptions hold what the caller may know, and nothing of the rest.
func TestD17_Schemas(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT, _pin TEXT, tattle TEXT) STRICT;
		CREATE TABLE doc (id INTEGER PRIMARY KEY, owner INTEGER REFERENCES person(id), title TEXT DEFAULT 'TATTLE', tattle TEXT CHECK (tattle <> 'TATTLE'), _tattle TEXT) STRICT`)
	apis := []records.API{
		{Name: "doc", Table: "doc", World: records.Schema | records.Read, Exclude: []string{"tattle"}, Expand: []string{"owner"}, ReadRule: `_ROW_.title <> 'TATTLE'`},
		{Name: "person", Table: "person", World: records.Read, Authenticated: records.Schema, SchemaRule: `_USER_.id = 'alice'`, Exclude: []string{"tattle"}, Back: []records.BackRelation{{Name: "docs", API: "doc", Column: "owner"}, {Name: "tattles", API: "hush", Column: "owner"}}},
		{Name: "hush", Table: "doc", World: records.Read},
		{Name: "written", Table: "doc", World: records.Create},
	}
	h := serve(t, db, apis...)
	for _, mode := range []string{"", "?mode=Insert", "?mode=Select", "?mode=Update"} {
		for _, c := range []struct {
			who, api string
			status   int
		}{
			{"", "doc", 200}, {"alice", "doc", 200}, {"", "person", 403}, {"bob", "person", 403}, {"alice", "person", 200}, {"", "hush", 403}, {"alice", "hush", 403}, {"", "written", 403}, {"alice", "written", 403}, {"", "nothing", 405}, {"", "_user", 405},
		} {
			r := get(h, c.who, "/"+c.api+"/schema"+mode)
			wantStatus(t, r, c.status)
			text := strings.ToLower(r.same())
			for _, secret := range []string{"_tattle", "_pin", `"tattle"`, "tattle'"} {
				if strings.Contains(text, secret) {
					t.Errorf("%q: %s%s tells %s: %s", c.who, c.api, mode, secret, r.body)
				}
			}
			if c.api == "doc" && c.who == "" && strings.Contains(text, `"name"`) {
				t.Errorf("columns of person: %s", r.body)
			}
			if strings.Contains(text, "hush") {
				t.Errorf("%q: %s%s names an api without schema: %s", c.who, c.api, mode, r.body)
			}
		}
	}
	wantStatus(t, get(serveConfig(t, db, records.Config{APIs: apis, Caller: limitedCaller("person")}), "", "/doc/schema"), 403)
	// Problem details describe nothing either.
	for _, body := range []string{`{"tattle":5}`, `{"_tattle":null,"tattle":"TATTLE"}`} {
		if r := call(h, "", "POST", "/written", body, "Accept", "application/problem+json"); strings.Contains(r.body, "_tattle") || strings.Contains(r.body, "TATTLE") {
			t.Error(r)
		}
	}
}

// Tables that are no API are not found, in whatever spelling.
func TestD18_OtherTables(t *testing.T) {
	t.Parallel()
	f := newFileService(t, fileSchema+`CREATE TABLE secret (id INTEGER PRIMARY KEY, password TEXT) STRICT; INSERT INTO secret VALUES (1, 'TATTLE'); CREATE TABLE _user (id INTEGER PRIMARY KEY, mail TEXT) STRICT; INSERT INTO _user VALUES (1, 'TATTLE')`,
		records.FilesConfig{}, records.API{Name: "doc", Table: "doc", World: everything, Subscriptions: true})
	h := withTransactions(f.svc)
	wantStatus(t, call(h, "1", "POST", "/doc", `{"one":`+fileJSON("a", "", "A")+`}`, "Idempotency-Key", "k"), 200)
	var internal []string
	for _, row := range rowsOf(t, f.db, `SELECT name FROM sqlite_schema WHERE name <> 'doc'`) {
		internal = append(internal, row[0])
	}
	if len(internal) < 6 {
		t.Errorf("tables: %q", internal)
	}
	names := append(internal, "sqlite_schema", "sqlite_master", "sqlite_temp_schema", "dbstat", "pragma_table_info", "json_each", "DOC", "Doc", "doc ", "ｄｏｃ", "doc\x00", "doc.", "main.doc", "main.secret", `"secret"`, "[secret]", "`secret`", "doc,secret", "doc;secret", "doc--", "doc JOIN secret", "../secret", "doc/../secret", "temp.secret", "other.secret", "doc%00", ".", "..", "*", "~")
	for _, name := range names {
		for _, c := range []struct{ method, path, body string }{
			{"GET", "", ""}, {"GET", "/1", ""}, {"GET", "/schema", ""}, {"POST", "", `{}`}, {"PATCH", "/1", `{"password":"x"}`}, {"DELETE", "/1", ""}, {"GET", "/1/file/one", ""}, {"GET", "?count=true", ""},
		} {
			r := call(f, "1", c.method, "/"+url.PathEscape(name)+c.path, c.body)
			if r.status != 404 && r.status != 405 && r.status != 301 && r.status != 307 || strings.Contains(r.same(), "TATTLE") {
				t.Errorf("%s /%s%s: %v", c.method, name, c.path, r)
			}
		}
		for _, op := range []string{`{"Create":{"api_name":%s,"value":{}}}`, `{"Update":{"api_name":%s,"record_id":"1","value":{}}}`, `{"Delete":{"api_name":%s,"record_id":"1"}}`} {
			quoted, err := json.Marshal(name)
			if err != nil {
				t.Fatal(err)
			}
			if r := execute(h, "1", fmt.Sprintf(op, quoted)); r.status != 405 {
				t.Errorf("%s of %q: %v", op, name, r)
			}
		}
		if _, err := f.svc.Subscribe(context.Background(), name, "*", ""); err == nil {
			t.Errorf("subscribed to %q", name)
		}
	}
	for _, name := range internal {
		if !strings.HasPrefix(name, "_") && !strings.HasPrefix(name, "sqlite_") {
			continue
		}
		if _, err := tryServe(f.db, records.API{Name: "x", Table: name, World: everything}); err == nil {
			t.Errorf("an API of %q", name)
		}
	}
	f.wantStored("A")
}
