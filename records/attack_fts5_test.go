//go:build sqlite_fts5 || fts5

package records_test

import (
	"net/url"
	"strings"
	"testing"
	"time"
)

// A full-text query finds what the caller may read, by columns that it may see,
// and takes no time out of proportion.
func TestD8_E3_Match(t *testing.T) {
	t.Parallel()
	db := openDB(t, searchSchema)
	h := serve(t, db, searchAPIs()...)
	for _, q := range []string{"flour", "bread", "flour OR water", "title:flour", "fl*", `"flour flour"`, "NEAR(flour water)", "salt NOT nothing"} {
		escaped := url.QueryEscape(q)
		for _, more := range []string{"&count=true", "&count=true&limit=0", "&order=id&count=true", "&fields=title&count=true", "&filter[owner]=bob&count=true", "&filter[id][$in]=[0,3,4]&count=true", "&offset=1&count=true"} {
			r := get(h, "alice", "/own?match="+escaped+more)
			nobody := get(h, "", "/own?match="+escaped+more)
			if r.status != 200 || strings.Contains(r.body, "bob") || strings.Contains(r.body, "NOTE") || !strings.Contains(nobody.body, `"total_count":0`) {
				t.Errorf("%s%s: %v, for everybody %v", q, more, r, nobody)
			}
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
	// How many hidden rows match changes nothing for those who may not read them.
	before := get(h, "alice", "/own?match=flour&count=true&skip_cursor=true")
	execSQL(t, db, `WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < 6000) INSERT INTO doc (id, title, body, owner) SELECT i, 'flour ' || i, 'flour a' || i || ' b' || i % 7, 'bob' FROM n`)
	if after := get(h, "alice", "/own?match=flour&count=true&skip_cursor=true"); after.same() != before.same() {
		t.Errorf("%v, before %v", after, before)
	}
	for _, q := range []string{
		strings.Repeat("a* ", 4), "a* AND b* AND f*", strings.Repeat("(", 100) + "a" + strings.Repeat(")", 100), strings.Repeat("a OR ", 40) + "a", strings.Repeat("NOT ", 60) + "a", strings.Repeat("NEAR(a b, 1000000000) ", 10), strings.Repeat(`"`, 201), strings.Repeat("a", 257), "a*b*c*d*e*", "*reads", "^", `"`, "(", "a AND", "\x00", "NEAR(", ": a", "a'; DROP TABLE doc; --",
	} {
		start := time.Now()
		r := get(h, "alice", "/own?limit=0&count=true&match="+url.QueryEscape(q))
		if r.status != 200 && r.status != 400 || strings.Contains(r.body, "fts") || strings.Contains(r.body, "syntax") {
			t.Errorf("%q: %v", q, r)
		}
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("%q takes %v", q, d)
		}
	}
}
