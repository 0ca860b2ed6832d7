package records_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/records"
)

const attackSchema = `
CREATE TABLE doc (id INTEGER PRIMARY KEY, tenant INTEGER, owner TEXT, title TEXT UNIQUE, parent INTEGER REFERENCES doc(id), secret TEXT DEFAULT 'TATTLE', _hidden TEXT DEFAULT 'TATTLE',
	twice INTEGER GENERATED ALWAYS AS (id * 2) VIRTUAL, one TEXT CHECK (jsonschema('std.FileUpload', one)), many TEXT CHECK (jsonschema('std.FileUploads', many))) STRICT;
CREATE TABLE note (id INTEGER PRIMARY KEY, doc INTEGER REFERENCES doc(id) ON DELETE CASCADE, owner TEXT, text TEXT) STRICT;
CREATE INDEX note_doc ON note (doc);
`

const (
	ownDoc    = `_ROW_.owner = _USER_.id`
	ownNewDoc = `_REQ_.owner = _USER_.id`
)

func attackAPIs() []records.API {
	return []records.API{
		{Name: "own", Table: "doc", World: everything | records.Schema, CreateRule: ownNewDoc, ReadRule: ownDoc, UpdateRule: ownDoc, DeleteRule: ownDoc, Check: ownDoc,
			Exclude: []string{"secret"}, Expand: []string{"parent"}, Back: []records.BackRelation{{Name: "notes", API: "note", Column: "doc"}}, Subscriptions: true,
			Validate: map[string]string{"title": "omitempty,max=40"}},
		{Name: "note", Table: "note", World: everything, ReadRule: `_ROW_.owner = _USER_.id`, CreateRule: ownNewDoc, Expand: []string{"doc"}},
		// Whoever has the number of a row may change it, whether or not they may read it.
		{Name: "blind", Table: "doc", World: everything, ReadRule: ownDoc, Exclude: []string{"secret"}},
		{Name: "locked", Table: "doc"},
	}
}

// An attacked is a service over documents of alice (1) and bob (2), each with a
// note and with files, and with transactions at /execute.
type attacked struct {
	*fileService
	mux http.Handler
}

func (a *attacked) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

func newAttacked(t testing.TB, apis ...records.API) *attacked {
	t.Helper()
	if apis == nil {
		apis = attackAPIs()
	}
	f := newFileService(t, attackSchema, records.FilesConfig{UserQuota: 1 << 20}, apis...)
	a := &attacked{f, withTransactions(f.svc)}
	for i, who := range []string{"alice", "bob"} {
		body := fmt.Sprintf(`{"id":%d,"tenant":%[1]d,"owner":%q,"title":"TITLE of %[2]s","one":%s,"many":[%s]}`, i+1, who, fileJSON("one", "", who+" one"), fileJSON("many", "", who+" many"))
		wantStatus(t, call(a, who, "POST", "/own", body), 200)
		wantStatus(t, call(a, who, "POST", "/note", fmt.Sprintf(`{"id":%d,"doc":%[1]d,"owner":%q,"text":"TEXT of %[2]s"}`, i+1, who)), 200)
	}
	return a
}

// fileOf returns the filename of a file of the document as its owner knows it.
func (a *attacked) fileOf(who, path, column string) string {
	a.t.Helper()
	return one(a.t, a.db, `SELECT coalesce(`+column+` ->> '$.filename', `+column+` ->> '$[0].filename') FROM doc WHERE id = ?1`, path)
}

// state is everything that is in the documents and notes.
func (a *attacked) state() string {
	a.t.Helper()
	var lines []string
	for _, row := range append(rowsOf(a.t, a.db, `SELECT concat_ws(', ', id, quote(tenant), quote(owner), quote(title), quote(parent), quote(secret), quote(_hidden), quote(one), quote(many)) FROM doc ORDER BY id`),
		rowsOf(a.t, a.db, `SELECT concat_ws(', ', id, quote(doc), quote(owner), quote(text)) FROM note ORDER BY id`)...) {
		lines = append(lines, row[0]+"\n")
	}
	return strings.Join(lines, "")
}

// A row that the caller may not touch is the same as none, on every route, with
// every header, and also to those who know what is in the row.
func TestD2_HiddenIsMissing(t *testing.T) {
	t.Parallel()
	a := newAttacked(t)
	tag := get(a, "bob", "/own/2").header.Get("Etag")
	if tag == "" {
		t.Fatal("no entity tag")
	}
	one, many := a.fileOf("bob", "2", "one"), a.fileOf("bob", "2", "many")
	before := a.state()
	keep := func(column, name string) string {
		if column == "many" {
			return `{"many":[{"filename":"` + name + `"}]}`
		}
		return `{"one":{"filename":"` + name + `"}}`
	}
	requests := []struct{ method, path, body string }{
		{"GET", "/own/#", ""}, {"HEAD", "/own/#", ""}, {"GET", "/own/#?fields=title", ""}, {"GET", "/own/#?fields=nothing", ""}, {"GET", "/own/#?fields=title&expand=notes", ""},
		{"GET", "/own/#?expand=parent,notes", ""}, {"GET", "/own/#?expand=nothing", ""}, {"GET", "/blind/#", ""}, {"GET", "/blind/#?fields=title", ""},
		{"GET", "/own/#/file/one", ""}, {"HEAD", "/own/#/file/one", ""}, {"GET", "/own/#/file/many", ""}, {"GET", "/own/#/file/secret", ""}, {"GET", "/own/#/file/title", ""},
		{"GET", "/own/#/files/many/" + many, ""}, {"GET", "/own/#/files/one/" + one, ""}, {"GET", "/own/#/files/many/nothing", ""}, {"GET", "/blind/#/file/one", ""},
		{"PATCH", "/own/#", `{"title":"x"}`}, {"PATCH", "/own/#", `{}`}, {"PATCH", "/own/#", `{"title":"TITLE of bob"}`}, {"PATCH", "/own/#", `{"title":"TITLE of alice"}`}, {"PATCH", "/own/#", `{"title":"` + strings.Repeat("x", 41) + `"}`},
		{"PATCH", "/own/#", `{"owner":"alice"}`}, {"PATCH", "/own/#", `{"parent":2}`}, {"PATCH", "/own/#", `{"parent":77}`},
		{"PATCH", "/own/#", keep("one", one)}, {"PATCH", "/own/#", keep("many", many)}, {"PATCH", "/own/#", keep("one", "nothing")}, {"PATCH", "/own/#", keep("many", "nothing")},
		{"PATCH", "/own/#", `{"one":` + fileJSON("a", "", "new") + `}`}, {"PATCH", "/own/#", `{"one":` + fileJSON("a", "", strings.Repeat("x", 1<<20+1)) + `}`}, {"PATCH", "/own/#", `{"one":{"filename":"` + one + `"},"title":"TITLE of alice"}`},
		{"DELETE", "/own/#", ""}, {"DELETE", "/locked/#", ""}, {"PATCH", "/locked/#", `{"title":"x"}`}, {"GET", "/locked/#", ""},
		{"POST", "/execute", `{"operations":[{"Update":{"api_name":"own","record_id":"#","value":{"title":"x"}}}],"transaction":true}`},
		{"POST", "/execute", `{"operations":[{"Update":{"api_name":"own","record_id":#,"value":` + keep("one", one) + `}}],"transaction":true}`},
		{"POST", "/execute", `{"operations":[{"Delete":{"api_name":"own","record_id":"#"}}],"transaction":true}`},
		{"POST", "/execute", `{"operations":[{"Delete":{"api_name":"own","record_id":"#"}},{"Create":{"api_name":"note","value":{"owner":"alice","doc":{"$id":0}}}}],"transaction":true}`},
		{"POST", "/execute", `{"operations":[{"Update":{"api_name":"own","record_id":"#","value":{"title":"x"}}}]}`},
	}
	headers := [][]string{
		nil, {"Accept", "application/problem+json"}, {"If-Match", "*"}, {"If-Match", tag}, {"If-Match", `"wrong"`}, {"If-None-Match", "*"}, {"If-None-Match", tag}, {"If-None-Match", `"wrong"`},
		{"If-Match", tag, "If-None-Match", tag}, {"Range", "bytes=0-1"}, {"Idempotency-Key", "k"}, {"Accept", "text/event-stream"},
	}
	compared := 0
	for _, q := range requests {
		for _, header := range headers {
			for _, who := range []string{"", "alice"} {
				at := func(id string) response {
					return call(a, who, q.method, strings.ReplaceAll(q.path, "#", id), strings.ReplaceAll(q.body, "#", id), header...)
				}
				hidden, missing := at("2"), at("99")
				if hidden.same() != missing.same() {
					t.Errorf("%q: %s %s %.80s %q:\nhidden  %s\nmissing %s", who, q.method, q.path, q.body, header, hidden.same(), missing.same())
				}
				if hidden.status < 300 || strings.Contains(hidden.same(), "bob") {
					t.Errorf("%q: %s %s %.80s %q: %v", who, q.method, q.path, q.body, header, hidden)
				}
				compared++
			}
		}
	}
	if compared < 900 {
		t.Errorf("%d answers compared", compared)
	}
	if after := a.state(); after != before {
		t.Errorf("changed: %s", difference(before, after))
	}
	a.wantStored("alice one", "alice many", "bob one", "bob many")

	// A change without a rule says whether it was done, and nothing of the row.
	for _, header := range [][]string{{"If-Match", tag}, {"If-Match", `"wrong"`}, {"If-Match", "*"}} {
		want(t, call(a, "alice", "PATCH", "/blind/2", `{"tenant":2}`, header...), 412, "")
	}
	right, wrong := call(a, "alice", "PATCH", "/blind/2", `{"tenant":2}`, "If-None-Match", tag), call(a, "alice", "PATCH", "/blind/2", `{"tenant":2}`, "If-None-Match", `"wrong"`)
	if right.same() != wrong.same() || right.header.Get("Etag") != "" {
		t.Errorf("an entity tag can be guessed: %s, %s", right.same(), wrong.same())
	}
}

// Subscribing to a hidden record is subscribing to none.
func TestD2_SubscribeToHidden(t *testing.T) {
	t.Parallel()
	a := newAttacked(t)
	as := func(who string) context.Context {
		return context.WithValue(t.Context(), callerKey{}, records.Caller{ID: who})
	}
	_, hidden := a.svc.Subscribe(as("alice"), "own", "2", "")
	_, missing := a.svc.Subscribe(as("alice"), "own", "99", "")
	if hidden == nil || missing == nil || hidden.Error() != missing.Error() {
		t.Errorf("hidden %v, missing %v", hidden, missing)
	}
	if _, err := a.svc.Subscribe(as("bob"), "own", "2", ""); err != nil {
		t.Error(err)
	}
}

// A hidden row takes as long as a missing one.
func TestD2_Timing(t *testing.T) { // not parallel: it measures
	a := newAttacked(t)
	execSQL(t, a.db, `UPDATE doc SET secret = printf('%.*c', 2000000, 'x'), title = printf('%.*c', 500000, 'y') WHERE id = 2`)
	for _, q := range []struct{ method, path, body string }{{"GET", "/own/", ""}, {"GET", "/own/?expand=notes", ""}, {"PATCH", "/own/", `{"title":"x"}`}} {
		var hidden, missing []time.Duration
		path, query, _ := strings.Cut(q.path, "?")
		for range 101 {
			for id, times := range map[string]*[]time.Duration{"2": &hidden, "99": &missing} {
				start := time.Now()
				call(a, "alice", q.method, path+id+"?"+query, q.body)
				*times = append(*times, time.Since(start))
			}
		}
		slices.Sort(hidden)
		slices.Sort(missing)
		if d := (hidden[50] - missing[50]).Abs(); d > time.Millisecond && d > missing[50]/2 {
			t.Errorf("%s %s: hidden %v, missing %v", q.method, q.path, hidden[50], missing[50])
		}
	}
}

// The tenant that a caller belongs to counts, and not the one that it names.
func TestD16_OtherTenant(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE member (person TEXT PRIMARY KEY, tenant INTEGER NOT NULL) STRICT; INSERT INTO member VALUES ('alice', 1), ('bob', 2);
		CREATE TABLE room (id INTEGER PRIMARY KEY, tenant INTEGER NOT NULL, name TEXT) STRICT; INSERT INTO room VALUES (1, 1, 'one'), (2, 2, 'TATTLE');
		CREATE TABLE bed (id INTEGER PRIMARY KEY, tenant INTEGER NOT NULL, room INTEGER REFERENCES room(id), name TEXT) STRICT; INSERT INTO bed VALUES (1, 1, 1, 'one'), (2, 2, 2, 'TATTLE')`)
	const mine = `_ROW_.tenant = (SELECT tenant FROM member WHERE person = _USER_.id)`
	const added = `_REQ_.tenant = (SELECT tenant FROM member WHERE person = _USER_.id)`
	const sameRoom = ` AND (_REQ_.room IS NULL OR EXISTS (SELECT 1 FROM room, member WHERE room.id = _REQ_.room AND room.tenant = member.tenant AND member.person = _USER_.id))`
	h := withBatches(t, db, records.Config{APIs: []records.API{
		{Name: "room", Table: "room", Authenticated: everything, CreateRule: added, ReadRule: mine, UpdateRule: mine, DeleteRule: mine, Check: mine, Back: []records.BackRelation{{Name: "beds", API: "bed", Column: "room"}}},
		{Name: "bed", Table: "bed", Authenticated: everything, CreateRule: added + sameRoom, ReadRule: mine, UpdateRule: mine + sameRoom, DeleteRule: mine, Check: mine, Expand: []string{"room"}},
	}})
	before := dump(t, db)
	forged := []string{"X-Tenant-Id", "2", "X-Tenant", "2", "Tenant", "2", "X-Forwarded-User", "bob", "X-User-Id", "bob", "X-Original-User", "bob", "Cookie", "tenant=2; user=bob", "Forwarded", "for=bob", "Host", "tenant2.example"}
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/bed/2", "", 403}, {"PATCH", "/bed/2", `{"name":"x"}`, 403}, {"PATCH", "/bed/2", `{"tenant":1}`, 403}, {"DELETE", "/bed/2", "", 403}, {"PATCH", "/bed/1", `{"tenant":2}`, 403}, {"PATCH", "/bed/1", `{"room":2}`, 403}, {"PATCH", "/bed/1?tenant=2", `{"room":2}`, 403},
		{"POST", "/bed", `{"tenant":2}`, 403}, {"POST", "/bed?tenant=1", `{"tenant":2}`, 403}, {"POST", "/bed", `[{"tenant":1},{"tenant":2}]`, 403}, {"POST", "/bed", `{"tenant":1,"room":2}`, 403}, {"POST", "/bed", `{"tenant":1,"tenant":2}`, 400}, {"POST", "/bed", `{"name":"x"}`, 403},
		{"POST", "/bed", `{"tenant":"1"}`, 400}, {"POST", "/bed", `{"tenant":[1,2]}`, 400}, {"POST", "/bed", `{"tenant":1.5}`, 400}, {"POST", "/bed", `{"tenant":null}`, 403},
		{"POST", "/execute", `{"operations":[{"Update":{"api_name":"bed","record_id":"2","value":{"tenant":1}}}],"transaction":true}`, 403},
		{"POST", "/execute", `{"operations":[{"Create":{"api_name":"room","value":{"tenant":1}}},{"Create":{"api_name":"bed","value":{"tenant":2,"room":{"$id":0}}}}],"transaction":true}`, 403},
		{"POST", "/execute", `{"operations":[{"Update":{"api_name":"room","record_id":"2","value":{}}},{"Create":{"api_name":"bed","value":{"tenant":1,"room":{"$id":0}}}}],"transaction":true}`, 403},
		{"POST", "/execute", `{"operations":[{"Update":{"api_name":"room","record_id":"1","value":{"tenant":2}}},{"Update":{"api_name":"room","record_id":"1","value":{"tenant":1}}}],"transaction":true}`, 403},
		{"POST", "/execute", `{"operations":[{"Create":{"api_name":"room","value":{"tenant":1}}},{"Update":{"api_name":"room","record_id":{"$id":0},"value":{"tenant":2}}}],"transaction":true}`, 403},
	} {
		if r := call(h, "alice", c.method, c.path, c.body, forged...); r.status != c.status || strings.Contains(r.body, "TATTLE") {
			t.Errorf("%s %s %s: %v, want %d", c.method, c.path, c.body, r, c.status)
		}
	}
	for _, q := range []string{"?filter[tenant]=2", "?filter[$or][0][tenant]=2&filter[$or][1][id]=2", "?filter[tenant][$in]=[2]", "?filter[room]=2", "?offset=1", "?tenant=2&filter[id]=2", "?filter[name][$like]=TATT%25", "?expand=room&filter[id]=2"} {
		if p := list(t, h, "alice", "/bed"+q); len(p.Records) != 0 {
			t.Errorf("%s: %s", q, p.Records)
		}
	}
	if r := get(h, "alice", "/bed?expand=room"); strings.Contains(r.body, "TATTLE") || strings.Count(r.body, `"tenant":1`) != 2 {
		t.Error(r)
	}
	// A row of another tenant that refers to one of ours does not come with it.
	execSQL(t, db, `INSERT INTO bed VALUES (3, 2, 1, 'TATTLE'), (4, 1, 2, 'ours')`)
	if r := get(h, "alice", "/room/1?expand=beds"); strings.Contains(r.body, "TATTLE") {
		t.Error(r)
	}
	want(t, get(h, "alice", "/bed/4?expand=room"), 200, `{"id":4,"name":"ours","room":{"id":2},"tenant":1}`)
	execSQL(t, db, `DELETE FROM bed WHERE id > 2`)
	if after := dump(t, db); after != before {
		t.Errorf("changed: %s", difference(before, after))
	}
}
