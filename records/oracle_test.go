package records_test

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

// A filter that fails on a row that the caller may not read must not fail for
// the caller: it would tell that there is such a row.
func TestFilterDoesNotTellOfHiddenRows(t *testing.T) {
	t.Parallel()
	const schema = `CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT, b BLOB, g BLOB CHECK (ST_IsValid(g) OR 1), owner TEXT) STRICT; INSERT INTO t VALUES (1, 'mine', NULL, NULL, 'alice')`
	hidden := []string{
		`INSERT INTO t (s, owner) VALUES (printf('%.*c', 2000000, 'a'), 'bob')`,
		`INSERT INTO t (s, owner) VALUES (CAST(x'ff61' AS TEXT), 'bob')`,
		`INSERT INTO t (g, owner) VALUES (x'0102', 'bob')`,
		`INSERT INTO t (g, owner) VALUES (zeroblob(100), 'bob')`,
		`INSERT INTO t (g, owner) VALUES (ST_GeomFromText('POINT EMPTY'), 'bob')`,
		`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) INSERT INTO t (s, owner) SELECT i, 'bob' FROM n`,
	}
	queries := []string{
		"filter[s][$re]=" + url.QueryEscape(`[a-z]{300}z`), "filter[s][$re]=" + url.QueryEscape(`(a|b|c|d|e)*x[a-z]{400}`), "filter[s][$re]=a", "filter[s][$like]=" + strings.Repeat("%25a", 80),
		"filter[g][@within]=" + url.QueryEscape("POLYGON((0 0,0 9,9 9,9 0,0 0))"), "filter[g][@intersects]=POINT(1%201)", "filter[g][@contains]=POINT(1%201)", "filter[s]=a", "filter[b]=AQ==",
	}
	for _, rule := range []string{`_ROW_.owner = _USER_.id`, `EXISTS (SELECT 1 WHERE _ROW_.owner = _USER_.id)`, `lower(_ROW_.owner) = _USER_.id`, `CASE _ROW_.owner WHEN _USER_.id THEN 1 END`} {
		api := records.API{Name: "t", Table: "t", World: records.Read, ReadRule: rule}
		db := openDB(t, schema)
		h := serve(t, db, api)
		alone := map[string]string{}
		for _, q := range queries {
			for _, suffix := range []string{"", "&count=true", "&order=s"} {
				r := get(h, "alice", "/t?skip_cursor=true&"+q+suffix)
				if r.status != 200 {
					t.Errorf("%s: %v", q, r)
				}
				alone[q+suffix] = r.same()
			}
		}
		for _, insert := range hidden {
			execSQL(t, db, `DELETE FROM t WHERE owner = 'bob'`)
			execSQL(t, db, insert)
			for q, want := range alone {
				if got := get(h, "alice", "/t?skip_cursor=true&"+q); got.same() != want {
					t.Errorf("rule %s, hidden row of %s, %s:\n got %.300s\nwant %.300s", rule, insert, q, got.same(), want)
				}
			}
		}
	}
}

// A key that cannot stand in a path is refused when a record is created.
func TestKeysThatNoPathCanName(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id TEXT PRIMARY KEY, v TEXT) STRICT; CREATE TABLE r (id BLOB PRIMARY KEY CHECK (is_uuid(id))) STRICT`)
	h := serve(t, db, records.API{Name: "t", Table: "t", World: everything}, records.API{Name: "r", Table: "r", World: everything})
	for _, id := range []string{"", strings.Repeat("x", 1025)} {
		if r := call(h, "", "POST", "/t", fmt.Sprintf(`{"id":%q}`, id)); r.status != 400 {
			t.Errorf("id of %d bytes: %.100v", len(id), r)
		}
	}
	for _, id := range []string{`""`, `"AQID"`, `[]`} {
		if r := call(h, "", "POST", "/r", `{"id":`+id+`}`); r.status != 400 {
			t.Errorf("id %s: %v", id, r)
		}
	}
}

// When too many writes wait, more of them are refused at once, and reading
// goes on.
func TestFullQueue(t *testing.T) {
	t.Parallel()
	db := openFile(t, t.TempDir()+"/test.db", `CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT) STRICT; INSERT INTO t VALUES (1, 'a')`, sqlite.Options{MaxQueue: 1})
	h := serve(t, db, records.API{Name: "t", Table: "t", World: everything})
	wantStatus(t, get(h, "", "/t/1"), 200)
	held, release, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- db.Update(context.Background(), func(*sqlite.Tx) error {
			close(held)
			<-release
			return nil
		})
	}()
	<-held
	answers := make(chan response, 5)
	for range 5 {
		go func() { answers <- call(h, "", "POST", "/t", `{"v":"b"}`) }()
	}
	for range 4 {
		if r := <-answers; r.status != 503 || r.header.Get("Retry-After") == "" || r.body != "" {
			t.Errorf("%v %v", r, r.header)
		}
	}
	want(t, get(h, "", "/t/1"), 200, `{"id":1,"v":"a"}`)
	close(release)
	want(t, <-answers, 200, `{"ids":["2"]}`)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
