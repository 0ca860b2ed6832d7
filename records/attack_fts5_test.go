//go:build sqlite_fts5 || fts5

package records_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/records"
)

// A full-text query finds nothing by columns that the caller may not see, and
// takes no time out of proportion. Where a rule hides rows there are none: FTS5
// looks at all documents, and how long that takes tells what is in them.
func TestD8_E3_Match(t *testing.T) {
	t.Parallel()
	db := openDB(t, searchSchema)
	for _, apis := range [][]records.API{
		{{Name: "own", Table: "doc", World: records.Read, FullText: "doc_fts", ReadRule: `_ROW_.owner = _USER_.id`}},
		{{Name: "own", Table: "doc", FullText: "doc_fts", ReadRule: `_ROW_.owner = _USER_.id`}}, // for the application alone
	} {
		if _, err := tryServe(db, apis...); err == nil || !strings.Contains(err.Error(), "read rule") {
			t.Errorf("a search behind a read rule: %v", err)
		}
	}
	h := serve(t, db, searchAPIs()...)
	// Who may not read learns nothing, not even whether a query is one.
	nothing := get(h, "", "/members?match=none")
	for _, q := range []string{"flour", "(", "title:flour", "_note:NOTE", strings.Repeat("a", 300)} {
		if r := get(h, "", "/members?match="+url.QueryEscape(q)); r.status != 403 || r.same() != nothing.same() {
			t.Errorf("%s: %v, want %v", q, r, nothing)
		}
	}
	// Columns that are not in the index are the same, whether or not the table has them.
	for _, q := range []string{"X:a", "{title X}: a", "-X:a", "- {X}: a", `"X":a`} {
		nothing := get(h, "alice", "/docs?match="+url.QueryEscape(strings.ReplaceAll(q, "X", "nothing")))
		for _, name := range []string{"_note", "draft", "owner", "rank", "doc_fts", "rowid", "id"} {
			if got := get(h, "alice", "/docs?match="+url.QueryEscape(strings.ReplaceAll(q, "X", name))); got.same() != nothing.same() {
				t.Errorf("%s: %s is told from nothing: %v, %v", q, name, got, nothing)
			}
		}
	}
	execSQL(t, db, `WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < 6000) INSERT INTO doc (id, title, body, owner) SELECT i, 'flour ' || i, 'flour a' || i || ' b' || i % 7, 'bob' FROM n`)
	for _, q := range []string{
		strings.Repeat("a* ", 4), "a* AND b* AND f*", strings.Repeat("(", 100) + "a" + strings.Repeat(")", 100), strings.Repeat("a OR ", 40) + "a", strings.Repeat("NOT ", 60) + "a", strings.Repeat("NEAR(a b, 1000000000) ", 10), strings.Repeat(`"`, 201), strings.Repeat("a", 257), "a*b*c*d*e*", "*reads", "^", `"`, "(", "a AND", "\x00", "NEAR(", ": a", "a'; DROP TABLE doc; --",
	} {
		// What takes long is interrupted and has another status.
		r := get(h, "alice", "/members?limit=0&count=true&match="+url.QueryEscape(q))
		if r.status != 200 && r.status != 400 || strings.Contains(r.body, "fts") || strings.Contains(r.body, "syntax") {
			t.Errorf("%q: %v", q, r)
		}
	}
}
