//go:build sqlite_fts5 || fts5

package records_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/records"
)

const searchSchema = `
CREATE TABLE doc (id INTEGER PRIMARY KEY, title TEXT, body TEXT, owner TEXT, _note TEXT, draft TEXT) STRICT;
CREATE VIRTUAL TABLE doc_fts USING fts5(title, body, content='doc', content_rowid='id');
CREATE TRIGGER doc_ai AFTER INSERT ON doc BEGIN INSERT INTO doc_fts (rowid, title, body) VALUES (new.id, new.title, new.body); END;
CREATE TRIGGER doc_ad AFTER DELETE ON doc BEGIN INSERT INTO doc_fts (doc_fts, rowid, title, body) VALUES ('delete', old.id, old.title, old.body); END;
CREATE TRIGGER doc_au AFTER UPDATE ON doc BEGIN
  INSERT INTO doc_fts (doc_fts, rowid, title, body) VALUES ('delete', old.id, old.title, old.body);
  INSERT INTO doc_fts (rowid, title, body) VALUES (new.id, new.title, new.body);
END;
INSERT INTO doc VALUES (1, 'Bread', 'flour water salt', 'alice', 'NOTE', 'DRAFT'), (2, 'Cake', 'flour sugar egg butter and a very long text about nothing much', 'alice', NULL, NULL),
  (3, 'Flour', 'flour flour flour', 'bob', NULL, NULL), (4, 'Soup', 'water salt and bread', 'bob', NULL, NULL), (0, 'Zero', 'nothing', 'bob', NULL, NULL);
CREATE TABLE tag (id BLOB PRIMARY KEY CHECK (is_uuid(id)), name TEXT) STRICT;
CREATE VIRTUAL TABLE tag_fts USING fts5(name);
INSERT INTO tag VALUES (x'01020304050647088102030405060708', 'red green'), (x'02020304050647088102030405060708', 'green blue');
INSERT INTO tag_fts (rowid, name) SELECT rowid, name FROM tag;
`

func searchAPIs() []records.API {
	return []records.API{
		{Name: "docs", Table: "doc", World: everything, FullText: "doc_fts", Exclude: []string{"draft"}, Subscriptions: true},
		{Name: "members", Table: "doc", Authenticated: records.Read, FullText: "doc_fts"},
		{Name: "tags", Table: "tag", World: records.Read, FullText: "TAG_FTS"},
	}
}

func TestFullText(t *testing.T) {
	t.Parallel()
	db := openDB(t, searchSchema)
	h := serve(t, db, searchAPIs()...)
	ids := func(who, target string) string {
		t.Helper()
		p := list(t, h, who, target)
		if p.Total != nil && *p.Total != len(p.Records) && !strings.Contains(target, "limit") {
			t.Errorf("%s: total %d of %d", target, *p.Total, len(p.Records))
		}
		return strings.Join(p.column(t, "id"), " ")
	}
	for _, test := range []struct{ who, target, want string }{
		{"", "/docs?match=flour&count=true", "3 1 2"}, // the best first
		{"", "/docs?match=flour&limit=2", "3 1"},
		{"", "/docs?match=flour&limit=2&offset=2", "2"},
		{"", "/docs?match=flour&order=id", "1 2 3"},
		{"", "/docs?match=flour&order=-title", "3 2 1"},
		{"", "/docs?match=title:flour", "3"},
		{"", "/docs?match=" + url.QueryEscape(`bre* NOT "flour water"`), "4"},
		{"", "/docs?match=" + url.QueryEscape(`{title body}: flour AND (sugar OR salt)`) + "&order=id", "1 2"},
		{"", "/docs?match=none", ""},
		{"", "/docs?match=flour&filter[owner]=alice&order=id&count=1", "1 2"},
		{"alice", "/members?match=flour&count=true", "3 1 2"},
		{"bob", "/members?match=flour+OR+water&order=title", "1 2 3 4"},
		{"", "/tags?match=green&order=name", `"AgIDBAUGRwiBAgMEBQYHCA==" "AQIDBAUGRwiBAgMEBQYHCA=="`},
		{"", "/tags?match=red", `"AQIDBAUGRwiBAgMEBQYHCA=="`},
	} {
		if got := ids(test.who, test.target); got != test.want {
			t.Errorf("%q %s: got %s, want %s", test.who, test.target, got, test.want)
		}
	}
	// It follows what is written.
	wantStatus(t, call(h, "", "POST", "/docs", `{"title":"Pie","body":"flour and apple","owner":"alice"}`), 200)
	if got := ids("", "/docs?match=apple"); got != "5" {
		t.Error(got)
	}
	wantStatus(t, call(h, "", "PATCH", "/docs/5", `{"body":"pear"}`), 200)
	if got := ids("", "/docs?match=apple") + ids("", "/docs?match=pear"); got != "5" {
		t.Error(got)
	}
	if got := get(h, "", "/docs?match=pear&fields=title&geojson="); got.status != 400 {
		t.Error(got)
	}
	wantStatus(t, get(h, "", "/members?match=pear"), 403)
	p := list(t, h, "", "/docs?match=pear&fields=title")
	if got := fmt.Sprintf("%s", p.Records); got != `[{"title":"Pie"}]` {
		t.Error(got)
	}
}

// Where the order is one that a cursor can continue, it does.
func TestFullTextCursor(t *testing.T) {
	t.Parallel()
	h := serve(t, openDB(t, searchSchema), searchAPIs()...)
	for _, test := range []struct{ who, target, want string }{
		{"", "/docs?match=flour&limit=2&order=title", "1 2 3"},
		{"alice", "/members?match=flour&limit=1&order=-id", "3 2 1"},
	} {
		got, cursor := []string{}, ""
		for range 4 {
			p := list(t, h, test.who, test.target+cursor)
			got = append(got, p.column(t, "id")...)
			cursor = "&cursor=" + p.Cursor
			if p.Cursor == "" {
				break
			}
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: %s, want %s", test.target, got, test.want)
		}
	}
	if p := list(t, h, "", "/docs?match=flour"); p.Cursor != "" {
		t.Error("an order by rank has a cursor")
	}
	p := list(t, h, "", "/docs")
	wantStatus(t, get(h, "", "/docs?match=flour&cursor="+p.Cursor), 400)
}

// What is wrong with a query is the same for everybody, whatever is in the
// table, and SQLite's words for it stay inside.
func TestFullTextRefuses(t *testing.T) {
	t.Parallel()
	full := serve(t, openDB(t, searchSchema), searchAPIs()...)
	empty := openDB(t, searchSchema)
	execSQL(t, empty, `DELETE FROM doc; DELETE FROM tag; DELETE FROM tag_fts`)
	none := serve(t, empty, searchAPIs()...)
	for _, bad := range []string{`"`, `(`, `flour AND`, `AND`, `flour)`, `_note:NOTE`, `draft:DRAFT`, `none:x`, `{title none}:x`, `*`, `*id`, `*reads`, `a"b`, `a+`, `NEAR(`, `a' OR 1=1 --`,
		`a* b* c* d* e*`, `rank:1`, `doc_fts:flour`, strings.Repeat("(", 250) + "a"} {
		var first string
		for _, h := range []struct{ who, api string }{{"", "docs"}, {"alice", "docs"}, {"alice", "members"}, {"bob", "members"}} {
			for _, suffix := range []string{"", "&count=true", "&order=title", "&limit=0", "&filter[owner]=nobody", "&filter[id][$in]=[]"} {
				target := "/" + h.api + "?match=" + url.QueryEscape(bad) + suffix
				for _, handler := range []response{get(full, h.who, target), get(none, h.who, target)} {
					want(t, handler, 400, "Invalid match query")
					if first == "" {
						first = handler.same()
					}
					if handler.same() != first {
						t.Errorf("%s: %s, want %s", target, handler.same(), first)
					}
				}
			}
		}
	}
	for _, bad := range []string{"", strings.Repeat("a", 257), "%00"} {
		want(t, get(full, "", "/docs?match="+bad), 400, "Invalid query")
	}
	svc, err := records.New(empty, records.Config{APIs: searchAPIs(), Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := svc.Subscribe(t.Context(), "docs", "*", "match=flour"); err == nil {
		t.Error("a subscription takes match")
	}
}

func TestFullTextMistakes(t *testing.T) {
	t.Parallel()
	db := openDB(t, searchSchema+`
		CREATE VIEW doc_view AS SELECT * FROM doc;
		CREATE TABLE flat (id TEXT PRIMARY KEY, title TEXT, body TEXT) STRICT, WITHOUT ROWID;
		CREATE TABLE upload (id INTEGER PRIMARY KEY, file TEXT CHECK (jsonschema('std.FileUpload', file))) STRICT;
		CREATE VIRTUAL TABLE note_fts USING fts5(title, _note);
		CREATE VIRTUAL TABLE draft_fts USING fts5(title, draft);
		CREATE VIRTUAL TABLE case_fts USING fts5(Title);
		CREATE VIRTUAL TABLE extra_fts USING fts5(title, summary UNINDEXED);
		CREATE VIRTUAL TABLE file_fts USING fts5(file);
		CREATE VIRTUAL TABLE id_fts USING fts5(title, content='doc', content_rowid='owner');
		CREATE VIRTUAL TABLE box USING rtree(id, a, b)`)
	for _, test := range []struct {
		mistake string
		api     records.API
	}{
		{"no such FTS5 table", records.API{Table: "doc", FullText: "none"}},
		{"no such FTS5 table", records.API{Table: "doc", FullText: "doc"}},
		{"no such FTS5 table", records.API{Table: "doc", FullText: "box"}},
		{"no such FTS5 table", records.API{Table: "doc", FullText: `doc_fts"`}},
		{"no such FTS5 table", records.API{Table: "doc", FullText: `doc_fts_data`}},
		{`column "_note"`, records.API{Table: "doc", FullText: "note_fts"}},
		{`column "draft"`, records.API{Table: "doc", FullText: "draft_fts", Exclude: []string{"draft"}}},
		{`column "Title"`, records.API{Table: "doc", FullText: "case_fts"}},
		{`column "summary"`, records.API{Table: "doc", FullText: "extra_fts"}},
		{`column "file"`, records.API{Table: "upload", FullText: "file_fts"}},
		{`content is in "doc"`, records.API{Table: "flat2", FullText: "doc_fts"}},
		{`content_rowid "owner"`, records.API{Table: "doc", FullText: "id_fts"}},
		{"is a view", records.API{Table: "doc_view", FullText: "doc_fts"}},
		{"not together with a read rule", records.API{Table: "doc", World: records.Read, FullText: "doc_fts", ReadRule: `_ROW_.owner = _USER_.id`}},
		{"not together with a read rule", records.API{Table: "doc", Authenticated: records.Read, FullText: "doc_fts", ReadRule: "1"}},
		{"has no rowid", records.API{Table: "flat", FullText: "doc_fts"}},
	} {
		if test.api.Table == "flat2" {
			execSQL(t, db, `CREATE TABLE flat2 (id INTEGER PRIMARY KEY, title TEXT, body TEXT) STRICT`)
		}
		test.api.Name = "a"
		_, err := tryServe(db, test.api)
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("api \"a\": full text %q: ", test.api.FullText)) || !strings.Contains(err.Error(), test.mistake) {
			t.Errorf("%s of %s: %v, want %q", test.api.FullText, test.api.Table, err, test.mistake)
		}
	}
	if _, err := tryServe(db, records.API{Name: "a", Table: "doc", FullText: "draft_fts"}); err != nil {
		t.Error(err)
	}
}
