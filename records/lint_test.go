package records_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/records"
)

const lintSchema = `
CREATE TABLE _user (id BLOB PRIMARY KEY NOT NULL CHECK (is_uuid_v7(id)) DEFAULT (uuid_v7()), email TEXT UNIQUE, admin INTEGER);
CREATE TABLE post (id INTEGER PRIMARY KEY, author BLOB NOT NULL REFERENCES _user(id), room INTEGER REFERENCES room(id), text TEXT);
CREATE TABLE note (id INTEGER PRIMARY KEY, owner INTEGER, text TEXT);
CREATE TABLE room (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE member (room INTEGER, user BLOB);
CREATE TABLE guest (room INTEGER, user BLOB, PRIMARY KEY (room, user)) WITHOUT ROWID;
CREATE TABLE mail (id INTEGER PRIMARY KEY, sender BLOB REFERENCES _user(id), receiver BLOB REFERENCES _user(id));
CREATE TABLE account (id INTEGER PRIMARY KEY, name TEXT, password_hash TEXT, apiKey TEXT, access_token TEXT, token_count INTEGER, _secret TEXT, monkey TEXT, totp BLOB);
CREATE VIEW loud AS SELECT id, upper(text) AS text FROM post;
CREATE VIEW names AS SELECT id, name FROM room;
CREATE VIEW inner_names AS SELECT * FROM names;
CREATE VIEW latest AS SELECT CAST(max(id) AS INTEGER) AS id, room FROM post GROUP BY room;`

func TestLint(t *testing.T) {
	t.Parallel()
	const (
		write = records.Create | records.Update | records.Delete
		mine  = `_ROW_.author = _USER_.id`
		own   = `_REQ_.author = _USER_.id`
	)
	db := openDB(t, lintSchema)
	for _, test := range []struct {
		name string
		api  records.API
		want []string // severity, place and code
	}{
		{"nothing is allowed", records.API{Table: "post"}, nil},
		{"as it should be", records.API{Table: "post", Authenticated: everything, CreateRule: own, ReadRule: mine, UpdateRule: mine, DeleteRule: mine, Check: mine}, nil},
		{"public", records.API{Table: "post", World: records.Read, Authenticated: write, CreateRule: own, UpdateRule: mine, DeleteRule: mine, Check: mine},
			[]string{"info/read rule/no-read-rule"}},
		{"missing read rule", records.API{Table: "post", Authenticated: everything, CreateRule: own, UpdateRule: mine, DeleteRule: mine, Check: mine},
			[]string{"warning/read rule/no-read-rule"}},

		{"create: no rule", records.API{Table: "post", Authenticated: records.Create}, []string{"warning/create rule/create-owner"}},
		{"create: another rule", records.API{Table: "post", Authenticated: records.Create, CreateRule: `EXISTS (SELECT 1 FROM guest WHERE room = _REQ_.room AND user = _USER_.id)`},
			[]string{"warning/create rule/create-owner"}},
		{"create: filled in", records.API{Table: "post", Authenticated: records.Create, AutofillUser: true}, []string{"warning/create rule/create-owner"}},
		{"create: filled in only", records.API{Table: "post", Authenticated: records.Create, AutofillUser: true, CreateRule: `'author' NOT IN _REQ_FIELDS_`}, nil},
		{"create: not named", records.API{Table: "post", Authenticated: records.Create, CreateRule: `NOT ('author' IN _REQ_FIELDS_) AND 1`}, nil},
		{"create: the other way round", records.API{Table: "post", Authenticated: records.Create, CreateRule: `_REQ_.text <> '' AND (_USER_.id == _REQ_."AUTHOR")`}, nil},
		{"create: checked", records.API{Table: "post", Authenticated: records.Create, Check: `author = _USER_.id`}, nil},
		{"create: in both cases", records.API{Table: "post", Authenticated: records.Create, CreateRule: own + ` AND _REQ_.room = 1 OR _REQ_.room = 2 AND ` + own}, nil},
		{"create: perhaps", records.API{Table: "post", Authenticated: records.Create, CreateRule: own + ` OR _REQ_.room = 2`}, []string{"info/create rule/create-owner"}},
		{"create: a calculation", records.API{Table: "post", Authenticated: records.Create, CreateRule: `coalesce(_REQ_.author, 1) = _USER_.id`}, []string{"info/create rule/create-owner"}},
		{"create: not different", records.API{Table: "post", Authenticated: records.Create, CreateRule: `_REQ_.author <> _USER_.id`}, []string{"info/create rule/create-owner"}},
		{"create: one of two", records.API{Table: "mail", Authenticated: records.Create, CreateRule: `_REQ_.sender = _USER_.id`}, nil},
		{"create: none of two", records.API{Table: "mail", Authenticated: records.Create}, []string{"warning/create rule/create-owner"}},
		{"create: known by another rule", records.API{Table: "note", Authenticated: records.Create | records.Delete, DeleteRule: `_ROW_.owner = _USER_.id`}, []string{"warning/create rule/create-owner"}},
		{"create: nobody's", records.API{Table: "note", Authenticated: records.Create}, nil},
		{"create: out of reach", records.API{Table: "note", Authenticated: records.Create | records.Delete, Exclude: []string{"owner"}, DeleteRule: `_ROW_.owner = _USER_.id`}, nil},

		{"update: owner moves", records.API{Table: "post", Authenticated: records.Update, UpdateRule: mine}, []string{"warning/update rule/owner-moves"}},
		{"update: named", records.API{Table: "post", Authenticated: records.Update, UpdateRule: mine + ` AND 'author' NOT IN _REQ_FIELDS_`}, nil},
		{"update: null", records.API{Table: "post", Authenticated: records.Update, UpdateRule: mine + ` AND (_REQ_.author IS NULL OR _REQ_.author = _USER_.id)`}, nil},
		{"update: null, the other way round", records.API{Table: "post", Authenticated: records.Update, UpdateRule: mine + ` AND (NULL IS _REQ_.author OR _USER_.id = _REQ_.author)`}, nil},
		{"update: null where it can be", records.API{Table: "note", Authenticated: records.Update, UpdateRule: `_ROW_.owner = _USER_.id AND _REQ_.owner IS NULL`}, []string{"warning/update rule/owner-moves"}},
		{"update: the same", records.API{Table: "post", Authenticated: records.Update, UpdateRule: mine + ` AND _ROW_.author IS _REQ_.author`}, nil},
		{"update: checked", records.API{Table: "post", Authenticated: records.Update, UpdateRule: mine, Check: mine}, nil},
		{"update: checked for something else", records.API{Table: "post", Authenticated: records.Update, UpdateRule: mine, Check: `_ROW_.room = 1`}, []string{"warning/update rule/owner-moves"}},
		{"update: perhaps", records.API{Table: "post", Authenticated: records.Update, UpdateRule: mine, Check: mine + ` OR _ROW_.room = 1`}, []string{"info/update rule/owner-moves"}},
		{"update: excluded", records.API{Table: "note", Authenticated: records.Update, UpdateRule: `_ROW_.owner = _USER_.id`, Exclude: []string{"owner"}}, nil},
		{"update: or an administrator", records.API{Table: "post", Authenticated: records.Update, UpdateRule: mine + ` OR EXISTS (SELECT 1 FROM _user WHERE id = _USER_.id AND admin)`},
			[]string{"warning/update rule/owner-moves"}},

		{"no rule", records.API{Table: "room", Authenticated: everything}, []string{"warning/delete rule/no-write-rule", "warning/update rule/no-write-rule"}},
		{"the world", records.API{Table: "room", World: everything}, []string{"error/delete rule/world-writes", "error/update rule/world-writes", "warning/create rule/world-writes"}},
		{"the world with rules", records.API{Table: "room", World: everything, CreateRule: `_REQ_.name <> ''`, UpdateRule: `_ROW_.name = 'x'`, DeleteRule: `_USER_.id IS NOT NULL`},
			[]string{"info/create rule/world-writes", "warning/update rule/world-writes"}},
		{"the world, who knows", records.API{Table: "room", World: records.Delete, DeleteRule: `EXISTS (SELECT 1 FROM guest WHERE room = _ROW_.id AND user = _USER_.id)`}, []string{"info/delete rule/world-writes"}},
		{"nobody's own", records.API{Table: "note", World: records.Read, ReadRule: `_ROW_.owner IS _USER_.id`}, []string{"warning/read rule/null-owner"}},
		{"nobody's own that cannot be", records.API{Table: "post", World: records.Read, ReadRule: `_ROW_.author IS _USER_.id`}, nil},
		{"a view", records.API{Table: "loud", Authenticated: everything}, []string{"info//view-writes"}},
		{"replace", records.API{Table: "room", Authenticated: records.Create | records.Update, Conflict: records.Replace}, []string{"warning/update rule/no-write-rule", "warning/update rule/replace-unguards"}},

		{"by a table without index", records.API{Table: "room", World: records.Read, ReadRule: `EXISTS (SELECT 1 FROM member WHERE room = _ROW_.id AND user = _USER_.id)`}, []string{"warning/read rule/rule-scans"}},
		{"by a table with one", records.API{Table: "room", World: records.Read, ReadRule: `EXISTS (SELECT 1 FROM guest WHERE room = _ROW_.id AND user = _USER_.id)`}, nil},
		{"by a list made for it", records.API{Table: "room", Authenticated: records.Create, CreateRule: `(SELECT count(*) FROM (SELECT DISTINCT user FROM guest WHERE room = _REQ_.id) AS a JOIN (SELECT DISTINCT user FROM guest WHERE room = 1) AS b) > 1`}, nil},
		{"create by a table without index", records.API{Table: "room", Authenticated: records.Create, CreateRule: `_USER_.id IN (SELECT user FROM member WHERE room = _REQ_.id)`}, []string{"warning/create rule/rule-scans"}},
		{"check by a table without index", records.API{Table: "room", Authenticated: records.Create, Check: `(SELECT count(*) FROM member WHERE room = _ROW_.id) < 5`}, []string{"warning/check/rule-scans"}},
		{"by an index for the occasion", records.API{Table: "room", Authenticated: records.Create, CreateRule: `(SELECT count(m.room) FROM guest g CROSS JOIN guest h LEFT JOIN member m ON m.user = g.user AND m.room = h.room WHERE g.room = _REQ_.id AND h.room = 1) > 2`}, []string{"warning/create rule/rule-scans"}},
		{"a view by itself", records.API{Table: "latest", Authenticated: records.Read, ReadRule: `_ROW_.room = 1`}, []string{"info//key-scans"}},
		{"no table at all", records.API{Table: "room", Authenticated: records.Create, CreateRule: `'a' IN (VALUES ('a'), ('b')) AND (SELECT count(*) FROM _REQ_FIELDS_) < 3 AND 1 IN (SELECT value FROM json_each('[1]'))`}, nil},
		{"a view without a key", records.API{Table: "latest", World: records.Read}, []string{"info//key-scans"}},
		{"expand", records.API{Table: "post", World: records.Read, Expand: []string{"room"}}, []string{"info/expand/reference-scans"}},
		{"subscriptions", records.API{Table: "room", World: records.Read, Subscriptions: true, ReadRule: `EXISTS (SELECT 1 FROM guest WHERE room = _ROW_.id AND user = _USER_.id)`}, []string{"info/read rule/other-tables"}},

		{"secrets", records.API{Table: "account", World: records.Read},
			[]string{"warning/exclude/secret-visible", "warning/exclude/secret-visible", "warning/exclude/secret-visible", "warning/exclude/secret-visible"}},
		{"secrets that nobody reads", records.API{Table: "account", Authenticated: records.Create}, nil},
	} {
		test.api.Name = "it"
		before := dump(t, db)
		found, err := records.Lint(t.Context(), db, records.Config{APIs: []records.API{test.api}})
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		var got []string
		for _, f := range found {
			got = append(got, string(f.Severity)+"/"+f.Place+"/"+f.Code)
			if f.API != "it" || f.Text == "" || !strings.Contains(f.String(), f.Text) {
				t.Errorf("%s: %+v", test.name, f)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %v", test.name, found)
		}
		if dump(t, db) != before {
			t.Errorf("%s: it has changed something", test.name)
		}
	}
}

// What one API says of a table counts for another one.
func TestLintSeveralAPIs(t *testing.T) {
	t.Parallel()
	db := openDB(t, lintSchema)
	cfg := records.Config{CursorKey: make([]byte, 32), APIs: []records.API{
		{Name: "drop", Table: "note", Authenticated: records.Create},
		{Name: "mine", Table: "note", Authenticated: records.Read, ReadRule: `_ROW_.owner = _USER_.id`},
		{Name: "rooms", Table: "room"},
	}}
	svc, err := records.New(db, cfg)
	if err != nil {
		t.Fatal(err)
	}
	found, err := svc.Lint(t.Context())
	if err != nil || len(found) != 1 || found[0].API != "drop" || found[0].Code != records.LintCreateOwner {
		t.Errorf("%v, %v", found, err)
	}
	if b, err := json.Marshal(found); err != nil || !strings.HasPrefix(string(b), `[{"api":"drop","place":"create rule","severity":"warning","code":"create-owner","text":"`) {
		t.Errorf("%s, %v", b, err)
	}
	cfg.APIs[0].CreateRule, cfg.APIs[1].Table = "nope", "nope"
	if found, err := records.Lint(t.Context(), db, cfg); err == nil || len(found) > 0 || !strings.Contains(err.Error(), "create rule") || !strings.Contains(err.Error(), `no table or view "nope"`) {
		t.Errorf("%v, %v", found, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := svc.Lint(ctx); err == nil {
		t.Error("no error after the context has ended")
	}
}

// A view shows what a rule of another API keeps back.
func TestLintViews(t *testing.T) {
	t.Parallel()
	db := openDB(t, lintSchema)
	rooms := records.API{Name: "rooms", Table: "room", ReadRule: `_USER_.id IS NOT NULL`}
	for name, c := range map[string]struct {
		apis []records.API
		want int
	}{
		"no rule":              {[]records.API{rooms, {Name: "v", Table: "names", World: records.Read}}, 1},
		"through another":      {[]records.API{{Name: "v", Table: "inner_names", Authenticated: records.Read}, rooms}, 1},
		"a rule":               {[]records.API{rooms, {Name: "v", Table: "names", World: records.Read, ReadRule: `_USER_.id IS NOT NULL`}}, 0},
		"nobody reads it":      {[]records.API{rooms, {Name: "v", Table: "names", World: records.Schema}}, 0},
		"of another table":     {[]records.API{{Name: "p", Table: "post", ReadRule: `_USER_.id IS NOT NULL`}, {Name: "v", Table: "names", World: records.Read}}, 0},
		"no rule for either":   {[]records.API{{Name: "rooms", Table: "room", World: records.Read}, {Name: "v", Table: "names", World: records.Read}}, 0},
		"two of the same view": {[]records.API{{Name: "own", Table: "names", World: records.Read, ReadRule: `_USER_.id IS NOT NULL`}, {Name: "v", Table: "names", World: records.Read}}, 0},
	} {
		found, err := records.Lint(t.Context(), db, records.Config{APIs: c.apis})
		if err != nil {
			t.Fatal(err)
		}
		found = slices.DeleteFunc(found, func(f records.Finding) bool { return f.Code != records.LintViewWithoutRule })
		if len(found) != c.want || c.want > 0 && (found[0].API != "v" || found[0].Severity != records.SeverityWarning || !strings.Contains(found[0].Text, `room, of which api "rooms"`)) {
			t.Errorf("%s: %v", name, found)
		}
	}
}

func TestLintBackRelations(t *testing.T) {
	t.Parallel()
	db := openDB(t, lintSchema)
	cfg := records.Config{APIs: []records.API{
		{Name: "rooms", Table: "room", World: records.Read, Back: []records.BackRelation{{Name: "posts", API: "posts", Column: "room"}}},
		{Name: "posts", Table: "post", World: records.Read},
	}}
	found, err := records.Lint(t.Context(), db, cfg)
	if err != nil || len(found) != 1 || found[0].API != "rooms" || found[0].Place != "back" || found[0].Code != records.LintReferenceScans {
		t.Errorf("%v, %v", found, err)
	}
	execSQL(t, db, `CREATE INDEX post_room ON post(room, text)`)
	if found, err = records.Lint(t.Context(), db, cfg); err != nil || len(found) > 0 {
		t.Errorf("with an index: %v, %v", found, err)
	}
}
