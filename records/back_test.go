package records_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/records"
)

const backSchema = `
CREATE TABLE post (id INTEGER PRIMARY KEY, title TEXT NOT NULL) STRICT;
CREATE TABLE comment (id INTEGER PRIMARY KEY, post INTEGER REFERENCES post(id), author TEXT, text TEXT, mail TEXT, _ip TEXT, hidden_post INTEGER REFERENCES post) STRICT;
CREATE INDEX comment_post ON comment (post);
CREATE TABLE vote (id TEXT PRIMARY KEY, post INTEGER REFERENCES post, ok INTEGER) STRICT;
CREATE TABLE other (id INTEGER PRIMARY KEY, title TEXT UNIQUE, _post INTEGER REFERENCES post(id), named TEXT REFERENCES other(title)) STRICT;
CREATE VIEW posts_view AS SELECT id, title FROM post;
INSERT INTO post VALUES (1, 'one'), (2, 'two'), (3, 'three');
INSERT INTO comment VALUES (1, 1, 'alice', 'hi', 'MAIL', 'IP', NULL), (2, 1, 'bob', 'SECRET', 'MAIL', 'IP', NULL), (3, 1, 'alice', 'ho', NULL, NULL, 2), (4, 2, 'bob', 'SECRET', NULL, NULL, NULL), (5, NULL, 'alice', 'LOST', NULL, NULL, NULL);
INSERT INTO vote VALUES ('b', 1, 1), ('a', 1, 0), ('c', 3, 1);
`

func backAPIs() []records.API {
	return []records.API{
		{Name: "posts", Table: "post", World: records.Read, Back: []records.BackRelation{
			{Name: "comments", API: "comments", Column: "post"},
			{Name: "all_comments", API: "moderated", Column: "post", Limit: 2},
			{Name: "votes", API: "votes", Column: "post"},
		}},
		{Name: "comments", Table: "comment", World: records.Read, ReadRule: `_ROW_.author = _USER_.id`, Exclude: []string{"mail", "hidden_post"}},
		{Name: "moderated", Table: "comment", Exclude: []string{"mail", "text", "hidden_post"}, Authenticated: records.Read},
		{Name: "votes", Table: "vote", World: records.Read},
	}
}

func TestBackRelation(t *testing.T) {
	t.Parallel()
	h := serve(t, openDB(t, backSchema), backAPIs()...)
	alice := `"comments":{"records":[{"author":"alice","id":1,"post":1,"text":"hi"},{"author":"alice","id":3,"post":1,"text":"ho"}]}`
	want(t, get(h, "alice", "/posts/1"), 200, `{"id":1,"title":"one"}`)
	want(t, get(h, "alice", "/posts/1?expand=comments"), 200, `{`+alice+`,"id":1,"title":"one"}`)
	want(t, get(h, "alice", "/posts/1?expand=votes,comments"), 200,
		`{`+alice+`,"id":1,"title":"one","votes":{"records":[{"id":"a","ok":0,"post":1},{"id":"b","ok":1,"post":1}]}}`)
	want(t, get(h, "alice", "/posts/1?expand=all_comments"), 200,
		`{"all_comments":{"records":[{"author":"alice","id":1,"post":1},{"author":"bob","id":2,"post":1}],"more":true},"id":1,"title":"one"}`)
	want(t, get(h, "alice", "/posts/1?expand=comments&fields=title"), 200, `{`+alice+`,"title":"one"}`)

	// Rows that the caller may not read are the same as no rows.
	want(t, get(h, "alice", "/posts/2?expand=comments"), 200, `{"comments":{"records":[]},"id":2,"title":"two"}`)
	want(t, get(h, "alice", "/posts/3?expand=comments"), 200, `{"comments":{"records":[]},"id":3,"title":"three"}`)
	want(t, get(h, "", "/posts/1?expand=comments"), 200, `{"comments":{"records":[]},"id":1,"title":"one"}`)
	want(t, get(h, "", "/posts/1?expand=all_comments"), 200, `{"all_comments":{"records":[]},"id":1,"title":"one"}`)

	for _, bad := range []string{"comment", "Comments", "comments,nope", "post", "title"} {
		for _, target := range []string{"/posts?expand=", "/posts/1?expand="} {
			want(t, get(h, "alice", target+bad), 400, "Invalid expansion")
		}
	}
	want(t, get(h, "alice", "/posts?expand=comments,comments"), 400, "Invalid query")
	want(t, get(h, "alice", "/posts?fields=comments&expand=comments"), 400, "Invalid query")
	want(t, get(h, "alice", "/posts?order=comments"), 400, "Invalid query")
	want(t, get(h, "alice", "/posts?filter[comments]=1"), 400, "Invalid filter params")

	// A list shows what a read shows.
	for _, who := range []string{"", "alice", "bob"} {
		p := list(t, h, who, "/posts?order=id&expand=votes,comments,all_comments")
		for i := range p.Records {
			if r := get(h, who, fmt.Sprintf("/posts/%d?expand=votes,comments,all_comments", i+1)); r.body != string(p.Records[i]) {
				t.Errorf("%q: read %v, list %s", who, r, p.Records[i])
			}
			for _, secret := range []string{"MAIL", "IP", "LOST"} {
				if strings.Contains(string(p.Records[i]), secret) {
					t.Errorf("%q sees %s", who, p.Records[i])
				}
			}
		}
	}
	p := list(t, h, "alice", "/posts?limit=1&fields=title&expand=comments")
	q := list(t, h, "alice", "/posts?limit=1&fields=title&expand=comments&cursor="+p.Cursor)
	if got := fmt.Sprintf("%s", q.Records); got != `[{"comments":{"records":[]},"title":"two"}]` {
		t.Error(got)
	}
}

// An API key without the scope of the other API finds nothing in the relation.
func TestBackRelationOutOfScope(t *testing.T) {
	t.Parallel()
	db := openDB(t, backSchema)
	h := serveConfig(t, db, records.Config{APIs: backAPIs(), Caller: limitedCaller("posts")})
	want(t, get(h, "", "/posts/1?expand=votes"), 200, `{"id":1,"title":"one","votes":{"records":[]}}`)
}

// "more" speaks of records that the caller may read.
func TestBackRelationTellsOnlyOfReadableRows(t *testing.T) {
	t.Parallel()
	db := openDB(t, backSchema)
	h := serve(t, db, backAPIs()...)
	many := `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 49) INSERT INTO comment (post, author) SELECT 3, ?1 FROM n`
	execSQL(t, db, many, "bob")
	execSQL(t, db, many, "alice")
	execSQL(t, db, `INSERT INTO comment (post, author) VALUES (3, 'alice'), (3, 'bob')`)
	if r := get(h, "alice", "/posts/3?expand=comments"); strings.Contains(r.body, "more") || strings.Count(r.body, `"author"`) != 50 {
		t.Error(r)
	}
	execSQL(t, db, `INSERT INTO comment (post, author) VALUES (3, 'alice')`)
	if r := get(h, "alice", "/posts/3?expand=comments"); !strings.Contains(r.body, `],"more":true}`) || strings.Count(r.body, `"author"`) != 50 {
		t.Error(r)
	}
}

func TestBackRelationIsBounded(t *testing.T) {
	t.Parallel()
	db := openDB(t, backSchema)
	apis := backAPIs()
	apis[0].Back[2].Limit = 1024
	h := serve(t, db, apis...)
	execSQL(t, db, `INSERT INTO post (id, title) VALUES (100,''),(101,''),(102,''),(103,''),(104,''),(105,''),(106,''),(107,''),(108,''),(109,'')`)
	execSQL(t, db, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10010) INSERT INTO vote (id, post) SELECT 'v' || i, 100 + i % 10 FROM n`)
	want(t, get(h, "", "/posts?expand=votes"), 400, "too many records included, use a smaller limit")
	if p := list(t, h, "", "/posts?expand=votes&limit=9"); len(p.Records) != 9 || len(p.Records[8]) < 10000 {
		t.Errorf("%d records", len(p.Records))
	}
}

// A rule that cannot be evaluated denies.
func TestBackRelationWithFailingRule(t *testing.T) {
	t.Parallel()
	apis := backAPIs()
	apis[3].ReadRule = `_ROW_.ok = 1 OR abs(_ROW_.ok - 9223372036854775807 - 1) > 0`
	h := serve(t, openDB(t, backSchema), apis...)
	want(t, get(h, "", "/posts/1?expand=votes"), 200, `{"id":1,"title":"one","votes":{"records":[]}}`)
	want(t, get(h, "", "/posts/3?expand=votes"), 200, `{"id":3,"title":"three","votes":{"records":[{"id":"c","ok":1,"post":3}]}}`)
}

func TestBackRelationWithBrokenAPI(t *testing.T) {
	t.Parallel()
	db := openDB(t, backSchema)
	h := serve(t, db, backAPIs()...)
	execSQL(t, db, `ALTER TABLE vote RENAME TO votes`)
	want(t, get(h, "", "/posts/1"), 200, `{"id":1,"title":"one"}`)
	wantStatus(t, get(h, "", "/posts/1?expand=votes"), 500)
	execSQL(t, db, `ALTER TABLE votes RENAME TO vote`)
	wantStatus(t, get(h, "", "/posts/1?expand=votes"), 200)
}

func TestBackRelationMistakes(t *testing.T) {
	t.Parallel()
	db := openDB(t, backSchema)
	others := append(backAPIs()[1:], records.API{Name: "view", Table: "posts_view"}, records.API{Name: "others", Table: "other"})
	for _, test := range []struct {
		mistake  string
		relation records.BackRelation
	}{
		{`no api "none"`, records.BackRelation{Name: "r", API: "none", Column: "post"}},
		{`has no column "none"`, records.BackRelation{Name: "r", API: "comments", Column: "none"}},
		{`has no column "hidden_post"`, records.BackRelation{Name: "r", API: "comments", Column: "hidden_post"}},
		{`has no column "_post"`, records.BackRelation{Name: "r", API: "others", Column: "_post"}},
		{`has no column "POST"`, records.BackRelation{Name: "r", API: "comments", Column: "POST"}},
		{`"author" of api "comments" is not a foreign key`, records.BackRelation{Name: "r", API: "comments", Column: "author"}},
		{`"named" of api "others" is not a foreign key`, records.BackRelation{Name: "r", API: "others", Column: "named"}},
		{`is of a view`, records.BackRelation{Name: "r", API: "view", Column: "id"}},
		{`column of that name`, records.BackRelation{Name: "Title", API: "votes", Column: "post"}},
		{`a name consists`, records.BackRelation{Name: "", API: "votes", Column: "post"}},
		{`a name consists`, records.BackRelation{Name: "_r", API: "votes", Column: "post"}},
		{`a name consists`, records.BackRelation{Name: "a,b", API: "votes", Column: "post"}},
		{`limit is not`, records.BackRelation{Name: "r", API: "votes", Column: "post", Limit: -1}},
		{`limit is not`, records.BackRelation{Name: "r", API: "votes", Column: "post", Limit: 1025}},
	} {
		_, err := tryServe(db, append(others, records.API{Name: "posts", Table: "post", Back: []records.BackRelation{test.relation}})...)
		if err == nil || !strings.Contains(err.Error(), `api "posts": back relation`) || !strings.Contains(err.Error(), test.mistake) {
			t.Errorf("%+v: %v, want %q", test.relation, err, test.mistake)
		}
	}
	twice := records.BackRelation{Name: "r", API: "votes", Column: "post"}
	if _, err := tryServe(db, append(others, records.API{Name: "posts", Table: "post", Back: []records.BackRelation{twice, twice}})...); err == nil || !strings.Contains(err.Error(), "listed twice") {
		t.Error(err)
	}
	if _, err := tryServe(db, append(others, records.API{Name: "v", Table: "posts_view", Back: []records.BackRelation{twice}})...); err == nil || !strings.Contains(err.Error(), "is a view") {
		t.Error(err)
	}
}

// limitedCaller is a caller with access to one API.
func limitedCaller(api string) func(context.Context) records.Caller {
	return func(context.Context) records.Caller {
		return records.Caller{Allow: func(name string, _ records.Permission) bool { return name == api }}
	}
}

// For the application itself no rule and no access control list counts.
func TestSystemLists(t *testing.T) {
	t.Parallel()
	apis := backAPIs()
	apis[0].World, apis[3].ReadRule = 0, `_USER_.id = 'nobody'`
	h := serveConfig(t, openDB(t, backSchema), records.Config{APIs: apis, Caller: func(context.Context) records.Caller { return records.Caller{System: true} }})
	want(t, get(h, "", "/posts/1?expand=votes"), 200, `{"id":1,"title":"one","votes":{"records":[{"id":"a","ok":0,"post":1},{"id":"b","ok":1,"post":1}]}}`)
	if r := get(h, "", "/posts?expand=comments&order=id&limit=1"); strings.Count(r.body, `"author"`) != 3 {
		t.Error(r)
	}
	if p := list(t, h, "", "/votes?count=true"); len(p.Records) != 3 || *p.Total != 3 {
		t.Errorf("%s", p.Records)
	}
	want(t, get(h, "", "/votes/a?fields=ok"), 200, `{"ok":0}`)
	want(t, get(h, "", "/votes/x?fields=ok"), 404, "")
}
