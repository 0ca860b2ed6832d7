package records_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

const explainSchema = `
CREATE TABLE _user (id INTEGER PRIMARY KEY);
INSERT INTO _user VALUES (1), (2), (3);
CREATE TABLE member (user INTEGER, room INTEGER, level REAL);
INSERT INTO member VALUES (1, 1, 1), (1, 2, 0.5), (2, 2, -1), (3, 1, NULL), (NULL, 1, 2);
CREATE TABLE thing (
	id    INTEGER PRIMARY KEY,
	owner INTEGER REFERENCES _user(id),
	room  INTEGER DEFAULT (1 + 1),
	name  TEXT COLLATE NOCASE DEFAULT 'Ada',
	any_  ANY,
	_note TEXT DEFAULT 'none',
	twice INTEGER AS (room * 2)
);
INSERT INTO thing (id, owner, room, name, any_, _note) VALUES
	(1, 1, 1, 'ada', 1, 'x'), (2, 2, 2, 'Bob', 0.5, NULL), (3, NULL, NULL, NULL, 'text', ''), (4, 3, 1, 'ADA', -1, '{"a":1}');`

// A dice makes rules, requests and callers.
type dice struct{ *rand.Rand }

func (d dice) pick(of ...string) string { return of[d.IntN(len(of))] }

// rule makes a rule over the given rows, in which it may fail to evaluate.
func (d dice) rule(depth int, row, req bool) string {
	if depth > 0 && d.IntN(3) > 0 {
		a, b := d.rule(depth-1, row, req), d.rule(depth-1, row, req)
		switch d.IntN(6) {
		case 0:
			return "NOT (" + a + ")"
		case 1:
			return "(" + a + ") OR (" + b + ")"
		case 2:
			return a + " OR " + b
		case 3:
			return "CASE WHEN " + a + " THEN " + b + " END"
		}
		return a + " AND " + b
	}
	leaves := []string{
		`1`, `0`, `NULL`, `2`, `0.5`, `-1`, `'text'`, `_USER_.id`, `_USER_.id IS NOT NULL`, `_USER_.id = 1`, `_USER_.id BETWEEN 1 AND 2`, `_USER_.id IN (1, 3)`,
		`EXISTS (SELECT 1 FROM member WHERE user = _USER_.id)`, `(SELECT level FROM member WHERE user = _USER_.id AND room = 2)`,
	}
	if row {
		leaves = append(leaves,
			`_ROW_.owner = _USER_.id`, `owner IS _USER_.id`, `_ROW_.room`, `_ROW_.any_`, `_ROW_.name = 'ADA'`, `_ROW_.name`, `_ROW_._note = 'none'`, `_ROW_.id = 1`,
			`EXISTS (SELECT 1 FROM member WHERE user = _USER_.id AND room = _ROW_.room)`, `json_extract(_ROW_._note, '$.a') = 1`, `_ROW_.any_ > 0`,
			`abs(-9223372036854775807 - _ROW_.room) > 0`, `typeof(_ROW_.room) = 'integer'`, `typeof(_ROW_.any_) = 'text'`)
	}
	if req {
		leaves = append(leaves,
			`_REQ_.owner = _USER_.id`, `_REQ_.owner IS NULL`, `'owner' NOT IN _REQ_FIELDS_`, `'name' IN _REQ_FIELDS_`, `_REQ_.room`, `_REQ_.room > 1`,
			`(SELECT count(*) FROM _REQ_FIELDS_) < 3`, `EXISTS (SELECT 1 FROM member WHERE room = _REQ_.room AND user = _USER_.id)`)
	}
	return d.pick(leaves...)
}

func (d dice) maybe(s string) string {
	if d.IntN(3) == 0 {
		return ""
	}
	return s
}

func (d dice) body() string {
	values := map[string]any{}
	for name, of := range map[string][]any{
		"owner": {1, 2, nil}, "room": {1, 2, 3, nil, "7"}, "name": {"ADA", "Eve", nil}, "any_": {1, "1", 0.5, nil}, "_note": {"none", `{"a":1}`}, "twice": {5},
	} {
		if d.IntN(3) == 0 {
			values[name] = of[d.IntN(len(of))]
		}
	}
	if d.IntN(4) == 0 {
		values["id"] = d.IntN(6)
	}
	if d.IntN(30) == 0 {
		values["room"] = []int{1}
	}
	b, err := json.Marshal(values)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// What is explained is what happens.
func TestExplainAgreesWithRequests(t *testing.T) {
	t.Parallel()
	db := openDB(t, explainSchema)
	d := dice{rand.New(rand.NewPCG(4, 2))}
	all := []records.Permission{records.Create, records.Read, records.Update, records.Delete}
	outcomes := map[string]int{}
	apis := 150
	if testing.Short() {
		apis = 60
	}
	for range apis {
		api := records.API{
			Name: "thing", Table: "thing",
			World: records.Permission(d.IntN(16)), Authenticated: records.Permission(d.IntN(16) | d.IntN(16)),
			ReadRule: d.maybe(d.rule(2, true, false)), CreateRule: d.maybe(d.rule(2, false, true)), UpdateRule: d.maybe(d.rule(2, true, true)),
			DeleteRule: d.maybe(d.rule(2, true, false)), Check: d.maybe(d.maybe(d.rule(1, true, false))),
			Conflict: records.Conflict(d.IntN(3)), AutofillUser: d.IntN(2) == 0,
		}
		cfg := records.Config{APIs: []records.API{api}, Caller: callerOf, Logger: quiet(), CursorKey: make([]byte, 32)}
		svc, err := records.New(db, cfg)
		if err != nil {
			if strings.Contains(err.Error(), "CASE") {
				continue
			}
			t.Fatalf("%+v: %v", api, err)
		}
		h := signIn(svc)
		for range 12 {
			q := records.Question{API: "thing", Op: all[d.IntN(4)]}
			who := d.pick("", "1", "2", "3")
			if who != "" {
				id, _ := strconv.ParseInt(who, 10, 64)
				q.Caller.ID = id
			}
			method, target, body := "POST", "/thing", ""
			if q.Op != records.Create {
				q.ID = strconv.Itoa(d.IntN(6))
				target += "/" + url.PathEscape(q.ID)
			}
			switch q.Op {
			case records.Read:
				method = "GET"
			case records.Delete:
				method = "DELETE"
			case records.Update:
				method, body = "PATCH", d.body()
			default:
				body = d.body()
			}
			q.Body = []byte(body)
			before := dump(t, db)
			got, err := svc.Explain(t.Context(), q)
			if err != nil {
				t.Fatalf("%+v: %s: %v", api, body, err)
			}
			if dump(t, db) != before {
				t.Fatal("it has changed something")
			}
			for _, s := range got.Steps {
				if s.Verdict == records.NotJudged && (!strings.Contains(s.Note, "the database chooses") || !namesKey.MatchString(s.Text)) {
					t.Errorf("not judged: %+v", s)
				}
			}
			r := call(h, who, method, target, body)
			if last := got.Steps[len(got.Steps)-1]; last.Verdict == records.NotJudged {
				continue
			}
			if got.Status != r.status || got.Granted != (r.status == 200) {
				t.Fatalf("%+v\n%s %s as %q with %s: %v\n%s\n%s", api, method, target, who, body, r, got, before)
			}
			outcomes[fmt.Sprint(q.Op, " ", r.status)]++
			for _, s := range got.Steps {
				consistent(t, s)
				outcomes[s.Name+" "+string(s.Verdict)]++
			}
			if d.IntN(5) == 0 || strings.Count(before, "\n") > 30 {
				execSQL(t, db, `DELETE FROM thing; DELETE FROM member; `+explainSchema[strings.Index(explainSchema, "INSERT INTO thing"):]+
					`INSERT INTO member VALUES (1, 1, 1), (1, 2, 0.5), (2, 2, -1), (3, 1, NULL), (NULL, 1, 2);`)
			}
		}
	}
	for _, op := range all {
		for _, status := range []string{"200", "403"} {
			if n := outcomes[fmt.Sprint(op, " ", status)]; n < 20 {
				t.Errorf("only %d times %v has had status %s", n, op, status)
			}
		}
	}
	for _, step := range []string{"access control list denies", "update rule denies", "create rule denies", "delete rule denies", "read rule denies", "check denies", "check holds", "record denies", "conflict denies", "conflict holds", "body denies"} {
		if outcomes[step] == 0 {
			t.Errorf("never has there been: %s", step)
		}
	}
}

// namesKey finds the column id of the row, which is that of no other table here.
var namesKey = regexp.MustCompile(`(^|[^_A-Za-z.])(_ROW_\.)?id\b`)

// consistent checks that the parts of a rule explain its value.
func consistent(t *testing.T, s records.ExplainedStep) {
	t.Helper()
	yes, failed := 0, false
	for _, p := range s.Parts {
		if p.Value == "true" {
			yes++
		}
		failed = failed || strings.HasPrefix(p.Value, "error")
	}
	holds := s.Op == "AND" && yes == len(s.Parts) || s.Op == "OR" && yes > 0
	if s.Op != "" && !failed && holds != (s.Verdict == records.Holds) {
		t.Errorf("%s %s, but its parts are %+v", s.Text, s.Verdict, s.Parts)
	}
}

func TestExplainText(t *testing.T) {
	t.Parallel()
	db := openDB(t, explainSchema+`
		CREATE TABLE text (id TEXT PRIMARY KEY NOT NULL, n INTEGER); INSERT INTO text VALUES ('a', 1);
		CREATE TABLE nested (id INTEGER PRIMARY KEY, nested INTEGER)`)
	cfg := records.Config{CursorKey: make([]byte, 32), APIs: []records.API{
		{
			Name: "thing", Table: "thing",
			World: records.Read, Authenticated: everything,
			ReadRule:   `(_ROW_.owner = _USER_.id OR NOT _ROW_.any_ BETWEEN 1 AND 2) AND json_extract(_ROW_._note, '$.a') IS NULL`,
			UpdateRule: "_ROW_.owner = _USER_.id -- the owner\n AND 'owner' NOT IN _REQ_FIELDS_",
			Check:      `_ROW_.room < 3`,
		},
		{Name: "others", Table: "thing", Authenticated: everything, Check: `(SELECT count(*) FROM thing) < 5`},
		{Name: "keys", Table: "thing", Authenticated: everything, Check: `_ROW_.id > 5`},
		{Name: "owned", Table: "thing", Authenticated: everything, Check: `_ROW_.owner = _USER_.id AND EXISTS (SELECT 1 FROM _user u WHERE u.id = _ROW_.owner)`},
		{Name: "rowids", Table: "thing", Authenticated: everything, Check: `EXISTS (SELECT 1 FROM member m WHERE m.rowid = 1) AND rowid > 5`},
		{Name: "texts", Table: "text", Authenticated: everything, Check: `_ROW_.oid > 5`},
		{Name: "nested", Table: "nested", Authenticated: everything, Check: `_ROW_.nested > 5 AND (SELECT max(nested) FROM main.nested) > 5`},
		{Name: "doubled", Table: "thing", Authenticated: everything, Check: `_ROW_.twice > 5`},
		{Name: "hooked", Table: "thing", World: everything, Check: `_ROW_.room = 1`, Before: func(context.Context, *records.Change) error { panic("called") }},
	}}
	for _, test := range []struct {
		q    records.Question
		want string
	}{
		{records.Question{API: "thing", Op: records.Update, ID: "1", Caller: records.Caller{ID: int64(1)}, Body: []byte(`{"owner": 2}`)}, `
update thing 1 by user 1: denied (403 Forbidden)
  holds       access control list: Authenticated has update
  holds       record: it is there
  denies      update rule: _ROW_.owner = _USER_.id -- the owner AND 'owner' NOT IN _REQ_FIELDS_
      true            _ROW_.owner = _USER_.id
      false       AND 'owner' NOT IN _REQ_FIELDS_
`},
		{records.Question{API: "thing", Op: records.Update, ID: "1", Caller: records.Caller{ID: int64(1)}, Body: []byte(`{"room": 3}`)}, `
update thing 1 by user 1: denied (403 Forbidden)
  holds       access control list: Authenticated has update
  holds       record: it is there
  holds       update rule: _ROW_.owner = _USER_.id -- the owner AND 'owner' NOT IN _REQ_FIELDS_
      true            _ROW_.owner = _USER_.id
      true        AND 'owner' NOT IN _REQ_FIELDS_
  denies      check: _ROW_.room < 3
`},
		{records.Question{API: "thing", Op: records.Read, ID: "1"}, `
read thing 1 by an anonymous caller: denied (403 Forbidden)
  holds       access control list: World has read
  holds       record: it is there
  denies      read rule: (_ROW_.owner = _USER_.id OR NOT _ROW_.any_ BETWEEN 1 AND 2) AND json_extract(_ROW_._note, '$.a') IS NULL (it cannot be evaluated: malformed JSON)
      null            (_ROW_.owner = _USER_.id OR NOT _ROW_.any_ BETWEEN 1 AND 2)
          null            _ROW_.owner = _USER_.id
          false       OR  NOT _ROW_.any_ BETWEEN 1 AND 2
      error: malformed JSON  AND json_extract(_ROW_._note, '$.a') IS NULL
`},
		{records.Question{API: "thing", Op: records.Read, ID: "9"}, `
read thing 9 by an anonymous caller: denied (403 Forbidden)
  holds       access control list: World has read
  denies      record: there is none with this id (with a read rule a client cannot tell this from a record that it may not see)
`},
		{records.Question{API: "others", Op: records.Delete, ID: "9", Caller: records.Caller{ID: "a\x1b[31m\u202eb"}}, `
delete others 9 by user a\x1b[31m\u202eb: denied (404 Not Found)
  holds       access control list: Authenticated has delete
  denies      record: there is none with this id
`},
		{records.Question{API: "others", Op: records.Create, Caller: records.Caller{ID: []byte{1}}}, `
create others by user AQ==: granted (200 OK)
  holds       access control list: Authenticated has create
  not judged  check: (SELECT count(*) FROM thing) < 5 (it looks at other rows of the table, which the request would change)
`},
		{records.Question{API: "keys", Op: records.Create, Caller: records.Caller{ID: []byte{1}}}, `
create keys by user AQ==: granted (200 OK)
  holds       access control list: Authenticated has create
  not judged  check: _ROW_.id > 5 (it depends on "id", which the database chooses)
`},
		{records.Question{API: "owned", Op: records.Create, Caller: records.Caller{ID: int64(1)}, Body: []byte(`{"owner":2}`)}, `
create owned by user 1: denied (403 Forbidden)
  holds       access control list: Authenticated has create
  denies      check: _ROW_.owner = _USER_.id AND EXISTS (SELECT 1 FROM _user u WHERE u.id = _ROW_.owner)
      false           _ROW_.owner = _USER_.id
      true        AND EXISTS (SELECT 1 FROM _user u WHERE u.id = _ROW_.owner)
`},
		{records.Question{API: "keys", Op: records.Create, Caller: records.Caller{ID: int64(1)}, Body: []byte(`{"id":null}`)}, `
create keys by user 1: granted (200 OK)
  holds       access control list: Authenticated has create
  not judged  check: _ROW_.id > 5 (it depends on "id", which the database chooses)
`},
		{records.Question{API: "rowids", Op: records.Create, Caller: records.Caller{ID: int64(1)}}, `
create rowids by user 1: granted (200 OK)
  holds       access control list: Authenticated has create
  not judged  check: EXISTS (SELECT 1 FROM member m WHERE m.rowid = 1) AND rowid > 5 (it depends on "id", which the database chooses)
`},
		{records.Question{API: "texts", Op: records.Update, ID: "a", Caller: records.Caller{ID: int64(1)}, Body: []byte(`{"n":1}`)}, `
update texts a by user 1: granted (200 OK)
  holds       access control list: Authenticated has update
  holds       record: it is there
  not judged  check: _ROW_.oid > 5 (it depends on the rowid)
`},
		{records.Question{API: "nested", Op: records.Create, Caller: records.Caller{ID: int64(1)}, Body: []byte(`{"nested":1}`)}, `
create nested by user 1: granted (200 OK)
  holds       access control list: Authenticated has create
  not judged  check: _ROW_.nested > 5 AND (SELECT max(nested) FROM main.nested) > 5 (it looks at other rows of the table, which the request would change)
`},
		{records.Question{API: "doubled", Op: records.Update, ID: "1", Caller: records.Caller{ID: []byte{1}}, Body: []byte(`{"room":1}`)}, `
update doubled 1 by user AQ==: granted (200 OK)
  holds       access control list: Authenticated has update
  holds       record: it is there
  not judged  check: _ROW_.twice > 5 (it depends on the generated column "twice")
`},
		{records.Question{API: "hooked", Op: records.Update, ID: "1", Body: []byte(`{"room":2}`)}, `
update hooked 1 by an anonymous caller: granted (200 OK)
  holds       access control list: World has update
  holds       record: it is there
  not judged  check: _ROW_.room = 1 (the hook Before may change what is written)
`},
		{records.Question{API: "thing", Op: records.Read}, `
read thing by an anonymous caller: granted (200 OK)
  holds       access control list: World has read
  not judged  read rule: (_ROW_.owner = _USER_.id OR NOT _ROW_.any_ BETWEEN 1 AND 2) AND json_extract(_ROW_._note, '$.a') IS NULL (a list has the rows that it grants)
`},
		{records.Question{API: "thing", Op: records.Delete, ID: "1", Caller: records.Caller{ID: int64(7), Allow: func(string, records.Permission) bool { return false }}}, `
delete thing 1 by user 7: denied (403 Forbidden)
  denies      access control list: the limits of the caller itself, as of an API key, leave out delete
`},
		{records.Question{API: "thing", Op: records.Update, ID: "3", Body: []byte(`{"room": 9}`), Caller: records.Caller{System: true}}, `
update thing 3 by the application: granted (200 OK)
  holds       access control list: the application itself may do everything
  holds       record: it is there
  holds       update rule: _ROW_.owner = _USER_.id -- the owner AND 'owner' NOT IN _REQ_FIELDS_ (it does not count for the application itself)
  holds       check: _ROW_.room < 3 (it does not count for the application itself)
`},
		{records.Question{API: "thing", Op: records.Update, ID: "\x1b[2J", Caller: records.Caller{ID: int64(1)}, Body: []byte(`{}`)}, `
update thing \x1b[2J by user 1: denied (400 Bad Request)
  denies      id: Invalid id
`},
		{records.Question{API: "thing", Op: records.Schema}, `
schema thing by an anonymous caller: denied (403 Forbidden)
  denies      access control list: neither World nor Authenticated has schema
`},
	} {
		before := dump(t, db)
		got, err := records.Explain(t.Context(), db, cfg, test.q)
		if err != nil {
			t.Errorf("%+v: %v", test.q, err)
			continue
		}
		if "\n"+got.String() != test.want {
			t.Errorf("got\n%s\nwant%s", got, test.want)
		}
		if dump(t, db) != before {
			t.Error("it has changed something")
		}
	}
	if one(t, db, `SELECT count(*) FROM sqlite_schema WHERE name = '_records_key'`) != "0" {
		t.Error("it has made a table")
	}
}

// What is told of a rule is bounded, in parts and in depth.
func TestExplainedParts(t *testing.T) {
	t.Parallel()
	db := openDB(t, explainSchema)
	deep := "1"
	for i := range 20 {
		deep = []string{"(" + deep + " AND 1)", "(" + deep + " OR 0)"}[i%2]
	}
	cfg := records.Config{CursorKey: make([]byte, 32), APIs: []records.API{
		{Name: "wide", Table: "thing", World: records.Read, ReadRule: "1" + strings.Repeat(" AND 1", 99)},
		{Name: "deep", Table: "thing", World: records.Read, ReadRule: deep},
	}}
	explain := func(api string) []records.ExplainedPart {
		t.Helper()
		e, err := records.Explain(t.Context(), db, cfg, records.Question{API: api, Op: records.Read, ID: "1"})
		if err != nil || !e.Granted {
			t.Fatalf("%v, %v", e, err)
		}
		return e.Steps[len(e.Steps)-1].Parts
	}
	if parts := explain("wide"); len(parts) != 65 || parts[64].Text != "…" || parts[63].Text != "1" {
		t.Errorf("%d parts: %+v", len(parts), parts)
	}
	depth := 0
	for parts := explain("deep"); len(parts) > 0; parts = parts[0].Parts {
		depth++
	}
	if depth != 8 {
		t.Errorf("parts in a depth of %d, want 8", depth)
	}
}

// Files that an update keeps are not in the request, so that Check cannot be
// judged on it.
func TestExplainKeptFiles(t *testing.T) {
	t.Parallel()
	f := newFileService(t, fileSchema, records.FilesConfig{}, records.API{Name: "doc", Table: "doc", World: everything, Check: `_ROW_.one IS NOT NULL`})
	path := f.create(`{"one":` + fileJSON("a", "", "A") + `}`)
	body := []byte(`{"one":` + f.member(path, "one") + `}`)
	e, err := f.svc.Explain(t.Context(), records.Question{API: "doc", Op: records.Update, ID: strings.TrimPrefix(path, "/doc/"), Body: body})
	if err != nil {
		t.Fatal(err)
	}
	if last := e.Steps[len(e.Steps)-1]; !e.Granted || last.Verdict != records.NotJudged || !strings.Contains(last.Note, "keeps files") {
		t.Errorf("%s", e)
	}
}

// A question ends with its context, also in the middle of a rule.
func TestExplainEnds(t *testing.T) {
	t.Parallel()
	db := openFile(t, filepath.Join(t.TempDir(), "test.db"), explainSchema+`; WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO member SELECT i, i, 1 FROM n`,
		sqlite.Options{MaxStatement: time.Hour}) // so that nothing else ends it
	cfg := records.Config{CursorKey: make([]byte, 32), APIs: []records.API{
		{Name: "thing", Table: "thing", World: everything, ReadRule: `(SELECT count(*) FROM member a, member b, member c WHERE a.level + b.level + c.level < 0) = 0`},
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	e, err := records.Explain(ctx, db, cfg, records.Question{API: "thing", Op: records.Read, ID: "1"})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, %v", e, err)
	}
}

func TestExplainMistakes(t *testing.T) {
	t.Parallel()
	db := openDB(t, explainSchema)
	cfg := records.Config{CursorKey: make([]byte, 32), Logger: quiet(), APIs: []records.API{{Name: "thing", Table: "thing"}}}
	svc, err := records.New(db, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		q    records.Question
		want string
	}{
		{records.Question{API: "nope", Op: records.Read}, `no api "nope"`},
		{records.Question{API: "thing"}, `operation 0 is not one of`},
		{records.Question{API: "thing", Op: records.Read | records.Create}, `operation 11 is not one of`},
		{records.Question{API: "thing", Op: records.Update}, `an update needs the id`},
		{records.Question{API: "thing", Op: records.Create, ID: "1"}, `a create has no id`},
		{records.Question{API: "thing", Op: records.Read, Body: []byte("{}")}, `a read has no body`},
		{records.Question{API: "thing", Op: records.Read, Caller: records.Caller{ID: 1}}, `caller's id is a int`},
	} {
		for _, explain := range []func() (*records.Explanation, error){
			func() (*records.Explanation, error) { return svc.Explain(t.Context(), test.q) },
			func() (*records.Explanation, error) { return records.Explain(t.Context(), db, cfg, test.q) },
		} {
			if e, err := explain(); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%+v: %v, %v, want %s", test.q, e, err, test.want)
			}
		}
	}
	cfg.APIs[0].ReadRule = "nope"
	if _, err := records.Explain(t.Context(), db, cfg, records.Question{API: "thing", Op: records.Read}); err == nil || !strings.Contains(err.Error(), "read rule") {
		t.Errorf("a mistake in a rule: %v", err)
	}
}
