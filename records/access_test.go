package records_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/apitest"
	"github.com/bedplate/bedplate/records"
)

const accessSchema = `
CREATE TABLE team (id INTEGER PRIMARY KEY, name TEXT) STRICT;
CREATE TABLE member (team INTEGER NOT NULL, user TEXT NOT NULL, PRIMARY KEY (team, user)) STRICT;
CREATE TABLE doc (id INTEGER PRIMARY KEY, owner TEXT NOT NULL, team INTEGER, title TEXT, _hidden TEXT DEFAULT 'h') STRICT;
`

const accessRows = `
DELETE FROM doc; DELETE FROM member; DELETE FROM team;
INSERT INTO team VALUES (1, 'red'), (2, 'blue');
INSERT INTO member VALUES (1, 'alice'), (2, 'bob');
INSERT INTO doc (id, owner, team, title) VALUES (1, 'alice', 1, 'A'), (2, 'bob', 2, 'B');
`

const memberRule = `EXISTS (SELECT 1 FROM member WHERE team = _ROW_.team AND user = _USER_.id)`

func accessAPIs() []records.API {
	own := `_ROW_.owner = _USER_.id`
	return []records.API{
		{Name: "none", Table: "doc"},
		{Name: "schema_only", Table: "doc", World: records.Schema, Authenticated: records.Schema},
		{Name: "world", Table: "doc", World: everything},
		{Name: "world_read", Table: "doc", World: records.Read, Authenticated: records.Create},
		{Name: "authenticated", Table: "doc", Authenticated: everything},
		{Name: "owner", Table: "doc", World: everything, CreateRule: `_REQ_.owner = _USER_.id`, ReadRule: own, UpdateRule: own, DeleteRule: own},
		{Name: "member", Table: "doc", Authenticated: everything,
			CreateRule: `EXISTS (SELECT 1 FROM member WHERE team = _REQ_.team AND user = _USER_.id)`,
			ReadRule:   memberRule, UpdateRule: memberRule, DeleteRule: `_ROW_.team IN (SELECT team FROM member WHERE user = _USER_.id)`},
		{Name: "check", Table: "doc", Authenticated: everything, Check: own},
		{Name: "keep_owner", Table: "doc", World: everything, UpdateRule: `_ROW_.owner = _USER_.id AND 'owner' NOT IN _REQ_FIELDS_`},
		{Name: "replace", Table: "doc", World: everything, UpdateRule: own, Conflict: records.Replace},
		{Name: "replace_no_update", Table: "doc", World: records.Create | records.Read, Conflict: records.Replace},
		{Name: "ignore", Table: "doc", World: everything, CreateRule: `_REQ_.owner = _USER_.id`, Conflict: records.Ignore},
	}
}

// accessRequests are made by every caller to every API.
var accessRequests = []struct{ name, method, path, body string }{
	{"create own", "POST", "", `{"owner":"alice","team":1,"title":"N"}`},
	{"create other's", "POST", "", `{"owner":"bob","team":2,"title":"N"}`},
	{"create own and other's", "POST", "", `[{"owner":"alice","team":1},{"owner":"bob","team":2}]`},
	{"create over own", "POST", "", `{"id":1,"owner":"alice","team":1,"title":"N"}`},
	{"create over other's", "POST", "", `{"id":2,"owner":"alice","team":1,"title":"N"}`},
	{"read own", "GET", "/1", ""},
	{"read other's", "GET", "/2", ""},
	{"read missing", "GET", "/99", ""},
	{"update own", "PATCH", "/1", `{"title":"N"}`},
	{"update other's", "PATCH", "/2", `{"title":"N"}`},
	{"update missing", "PATCH", "/99", `{"title":"N"}`},
	{"update nothing of own", "PATCH", "/1", `{}`},
	{"update nothing of other's", "PATCH", "/2", `{"unknown":1}`},
	{"give own away", "PATCH", "/1", `{"owner":"bob","team":2}`},
	{"take other's", "PATCH", "/2", `{"owner":"alice","team":1}`},
	{"delete own", "DELETE", "/1", ""},
	{"delete other's", "DELETE", "/2", ""},
	{"delete missing", "DELETE", "/99", ""},
	{"list", "GET", "?order=id&count=true&skip_cursor=true", ""},
	{"list filtered", "GET", "?filter[owner]=bob&count=true&skip_cursor=true&limit=0", ""},
}

// Who may do what to which row. Own and other's are from the view of alice.
func TestAccess(t *testing.T) {
	t.Parallel()
	db := openDB(t, accessSchema+accessRows)
	apis := accessAPIs()
	h := serve(t, db, apis...)
	untouched := dump(t, db)
	var b strings.Builder
	n := 0
	for _, api := range apis {
		fmt.Fprintf(&b, "# %s\n", api.Name)
		for _, c := range accessRequests {
			for _, who := range []string{"", "alice", "bob"} {
				r := call(h, who, c.method, "/"+api.Name+c.path, c.body)
				n++
				what := "nothing"
				if after := dump(t, db); after != untouched {
					what = difference(untouched, after)
					if r.status != 200 {
						t.Errorf("%s %s by %q: %v, but changed %s", api.Name, c.name, who, r, what)
					}
					execSQL(t, db, accessRows)
				}
				if who == "" {
					who = "world"
				}
				fmt.Fprintf(&b, "%-26s %-6s %s | %s\n", c.name, who, r, what)
				if r.status >= 500 || strings.Contains(r.body, "hidden") {
					t.Errorf("%s %s by %s: %v", api.Name, c.name, who, r)
				}
			}
		}
	}
	if n < 200 {
		t.Errorf("%d requests", n)
	}
	apitest.Golden(t, "testdata/access.golden", b.String())
}

// difference lists the lines that were taken away and added.
func difference(before, after string) string {
	var d []string
	for _, line := range strings.Split(before, "\n") {
		if !strings.Contains(after, line+"\n") {
			d = append(d, "-("+strings.TrimSpace(line)+")")
		}
	}
	for _, line := range strings.Split(after, "\n") {
		if !strings.Contains(before, line+"\n") {
			d = append(d, "+("+strings.TrimSpace(line)+")")
		}
	}
	return strings.Join(d, " ")
}

// A row that the caller may not touch is, to it, the same as one that is not
// there: every byte of the answer.
func TestHiddenIsMissing(t *testing.T) {
	t.Parallel()
	db := openDB(t, accessSchema+accessRows)
	h := serve(t, db, accessAPIs()...)
	compared := 0
	for _, api := range []string{"owner", "member", "keep_owner", "none", "schema_only", "authenticated"} {
		for _, who := range []string{"", "alice"} {
			if who == "alice" && api == "authenticated" {
				continue // everybody's
			}
			for _, c := range []struct{ method, query, body string }{
				{"GET", "", ""}, {"HEAD", "", ""}, {"GET", "?expand=", ""}, {"GET", "?expand=team", ""}, {"GET", "?limit=x", ""},
				{"PATCH", "", `{"title":"x"}`}, {"PATCH", "", `{}`}, {"PATCH", "", `{"id":1}`}, {"PATCH", "", `{"id":2}`}, {"PATCH", "", `{"owner":"alice"}`},
				{"PATCH", "", `{"title":5}`}, {"PATCH", "", `{`}, {"PATCH", "", `{"team":null,"owner":null}`},
				{"DELETE", "", ""}, {"PUT", "", ""}, {"POST", "", `{}`},
			} {
				if api == "keep_owner" && c.method != "PATCH" {
					continue // has no rule for that
				}
				for _, accept := range []string{"", "application/problem+json"} {
					hidden := call(h, who, c.method, "/"+api+"/2"+c.query, c.body, "Accept", accept)
					missing := call(h, who, c.method, "/"+api+"/99"+c.query, strings.Replace(c.body, `"id":2`, `"id":99`, 1), "Accept", accept)
					if hidden.same() != missing.same() {
						t.Errorf("%s as %q: %s%s %s:\nhidden  %s\nmissing %s", api, who, c.method, c.query, c.body, hidden.same(), missing.same())
					}
					if hidden.status == 200 {
						t.Errorf("%s as %q: %s %s: %v", api, who, c.method, c.body, hidden)
					}
					compared++
				}
			}
		}
	}
	if compared < 200 {
		t.Errorf("%d answers compared", compared)
	}
}

// A count, a limit of 0 and an offset tell of the caller's rows only.
func TestCountSeesWhatTheCallerSees(t *testing.T) {
	t.Parallel()
	db := openDB(t, accessSchema+accessRows)
	h := serve(t, db, accessAPIs()...)
	want(t, get(h, "alice", "/owner?count=true&limit=0"), 200, `{"total_count":1,"records":[]}`)
	want(t, get(h, "", "/owner?count=true&limit=0"), 200, `{"total_count":0,"records":[]}`)
	want(t, get(h, "alice", "/owner?count=true&offset=5"), 200, `{"total_count":1,"records":[]}`)
	want(t, get(h, "alice", "/owner?count=true&filter[title]=B"), 200, `{"total_count":0,"records":[]}`)
	want(t, get(h, "alice", "/owner?filter[title]=B"), 200, `{"records":[]}`)
	want(t, get(h, "alice", "/owner?count=true&filter[$or][0][title]=B&filter[$or][1][title][$ne]=Z&limit=0"), 200, `{"total_count":1,"records":[]}`)
	want(t, get(h, "bob", "/member?count=true&limit=0"), 200, `{"total_count":1,"records":[]}`)
	want(t, get(h, "", "/member?count=true&limit=0"), 403, "")
}
