package records_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/apitest"
	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

const contractSchema = `
CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT UNIQUE, kind TEXT DEFAULT 'plain', n INTEGER CHECK (n >= 0), must TEXT NOT NULL DEFAULT 'm', parent INTEGER REFERENCES item(id)) STRICT;
CREATE TRIGGER item_insert BEFORE INSERT ON item WHEN new.name = 'forbidden' BEGIN SELECT RAISE(ABORT, 'not this one'); END;
CREATE TABLE place (id INTEGER PRIMARY KEY, name TEXT, geom BLOB CHECK (ST_IsValid(geom))) STRICT;
INSERT INTO place VALUES (1, 'in', ST_GeomFromText('POINT(1 2)')), (2, 'out', ST_GeomFromText('POINT(20 2)')), (3, 'none', NULL);
CREATE VIEW shown AS SELECT id, name, n FROM item;
`

// The whole conversation stands in testdata.
func TestContract(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	openFile(t, filepath.Join(dir, "other.db"), `CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT) STRICT`, sqlite.Options{})
	db := openFile(t, filepath.Join(dir, "main.db"), contractSchema, sqlite.Options{Attach: []sqlite.Attachment{{Name: "other", Path: filepath.Join(dir, "other.db")}}})
	h := serve(t, db,
		records.API{Name: "item", Table: "item", World: everything},
		records.API{Name: "few", Table: "item", World: records.Read, ListLimit: 3},
		records.API{Name: "place", Table: "place", World: everything},
		records.API{Name: "shown", Table: "shown", World: everything},
		records.API{Name: "note", Table: "other.note", World: everything})
	apitest.Run(t, "testdata/contract.http", h)
}

func TestBulkLimits(t *testing.T) {
	t.Parallel()
	db := openDB(t, contractSchema)
	h := serve(t, db, records.API{Name: "item", Table: "item", World: everything}, records.API{Name: "own", Table: "item", World: everything, CreateRule: `_REQ_.kind IS NOT 'denied'`})
	bulk := func(n int) string { return "[" + strings.TrimSuffix(strings.Repeat(`{"n":1},`, n), ",") + "]" }
	if ids := idsOf(t, call(h, "", "POST", "/item", bulk(1024))); len(ids) != 1024 || ids[1023] != "1024" {
		t.Errorf("%d ids", len(ids))
	}
	want(t, call(h, "", "POST", "/item", bulk(1025)), 400, "Bulk creation exceeds limit: 1024")
	want(t, call(h, "", "POST", "/own", `[{"n":1},{"n":2,"kind":"denied"},{"n":3}]`), 403, "")
	want(t, call(h, "", "POST", "/own", `[{"n":1},{"n":-2},{"n":3}]`), 400, "db constraint: check")
	want(t, call(h, "", "POST", "/own", `[{"id":2000,"n":1},{"id":2000}]`), 400, "db constraint: pk")
	if n := one(t, db, `SELECT count(*) FROM item`); n != "1024" {
		t.Errorf("%s rows", n)
	}
}

// What replaces a row takes an update, and its rule.
func TestReplace(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, owner TEXT, name TEXT UNIQUE, note TEXT DEFAULT 'd', kept TEXT) STRICT;
		INSERT INTO t VALUES (1, 'alice', 'a', 'n', 'k'), (2, 'bob', 'b', 'n', 'k')`)
	own := `_ROW_.owner = _USER_.id`
	h := serve(t, db,
		records.API{Name: "r", Table: "t", World: everything, CreateRule: `_REQ_.owner = _USER_.id`, UpdateRule: own, Conflict: records.Replace, Exclude: []string{"kept"}},
		records.API{Name: "fields", Table: "t", World: everything, UpdateRule: own + ` AND 'note' NOT IN _REQ_FIELDS_`, Conflict: records.Replace},
		records.API{Name: "fields2", Table: "t", World: everything, CreateRule: `'note' NOT IN _REQ_FIELDS_`, UpdateRule: own + ` AND 'name' NOT IN _REQ_FIELDS_`, Conflict: records.Replace},
		records.API{Name: "check", Table: "t", World: everything, UpdateRule: own, Check: own, Conflict: records.Replace})
	state := func() string {
		return one(t, db, `SELECT group_concat(x, ';') FROM (SELECT concat_ws(',', id, owner, name, coalesce(note, '-'), coalesce(kept, '-')) AS x FROM t ORDER BY id)`)
	}
	was := state()
	want(t, call(h, "alice", "POST", "/r", `{"id":2,"owner":"alice"}`), 403, "")
	want(t, call(h, "alice", "POST", "/r", `[{"id":1,"owner":"alice"},{"id":2,"owner":"alice"}]`), 403, "")
	want(t, call(h, "alice", "POST", "/r", `{"id":1,"owner":"alice","name":"b"}`), 400, "db constraint: unique")
	want(t, call(h, "alice", "POST", "/r", `{"owner":"alice","name":"b"}`), 400, "db constraint: unique")
	want(t, call(h, "alice", "POST", "/r", `{"id":1,"owner":"bob"}`), 403, "")
	want(t, call(h, "alice", "POST", "/fields", `{"id":1,"owner":"alice","note":"x"}`), 403, "")
	want(t, call(h, "alice", "POST", "/fields2", `{"id":1,"owner":"alice","name":"x"}`), 403, "")
	want(t, call(h, "alice", "POST", "/fields2", `{"id":1,"owner":"alice","note":"x"}`), 403, "")
	want(t, call(h, "alice", "POST", "/check", `{"id":1,"owner":"bob"}`), 403, "")
	if state() != was {
		t.Errorf("now %s, was %s", state(), was)
	}
	want(t, call(h, "alice", "POST", "/r", `{"id":1,"owner":"alice","name":"new"}`), 200, `{"ids":["1"]}`)
	if got := state(); got != "1,alice,new,d,k;2,bob,b,n,k" {
		t.Errorf("now %s", got)
	}
	want(t, call(h, "alice", "POST", "/fields", `{"id":1,"owner":"alice","name":"y"}`), 200, `{"ids":["1"]}`)
	want(t, call(h, "alice", "POST", "/fields2", `{"id":1,"owner":"alice"}`), 200, `{"ids":["1"]}`)
	want(t, call(h, "alice", "POST", "/r", `[{"id":1,"owner":"alice","name":"z"},{"id":9,"owner":"alice"}]`), 200, `{"ids":["1","9"]}`)
	if got := state(); got != "1,alice,z,d,-;2,bob,b,n,k;9,alice,d" && got != "1,alice,z,d,-;2,bob,b,n,k;9,alice,d,-" {
		t.Errorf("now %s", got)
	}
}

func TestIgnore(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE) STRICT; INSERT INTO t VALUES (1, 'a')`)
	h := serve(t, db, records.API{Name: "t", Table: "t", World: everything, Conflict: records.Ignore, Check: `_ROW_.name <> 'bad'`})
	want(t, call(h, "", "POST", "/t", `{"id":1,"name":"x"}`), 200, `{"ids":[]}`)
	want(t, call(h, "", "POST", "/t", `[{"id":1,"name":"x"},{"id":2,"name":"y"},{"id":2,"name":"z"}]`), 200, `{"ids":["2"]}`)
	want(t, call(h, "", "POST", "/t", `{"id":3,"name":"a"}`), 400, "db constraint: unique")
	want(t, call(h, "", "POST", "/t", `[{"id":4,"name":"w"},{"id":5,"name":"bad"}]`), 403, "")
	if got := one(t, db, `SELECT group_concat(id || name) FROM t`); got != "1a,2y" {
		t.Errorf("now %s", got)
	}
}

func TestAutofill(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE _user (id INTEGER PRIMARY KEY) STRICT; INSERT INTO _user VALUES (1), (2);
		CREATE TABLE t (id INTEGER PRIMARY KEY, owner INTEGER REFERENCES _user(id), editor INTEGER REFERENCES _user (ID), short INTEGER REFERENCES _user, v TEXT) STRICT`)
	h := serve(t, db, records.API{Name: "t", Table: "t", World: everything, AutofillUser: true, CreateRule: `_REQ_.owner IS _USER_.id OR 'owner' NOT IN _REQ_FIELDS_`},
		records.API{Name: "plain", Table: "t", World: everything})
	row := func() string {
		return one(t, db, `SELECT quote(owner) || quote(editor) || quote(short) FROM t ORDER BY id DESC LIMIT 1`)
	}
	for _, c := range []struct{ api, who, body, want string }{
		{"t", "1", `{}`, "11NULL"}, {"t", "1", `{"v":"a"}`, "11NULL"}, {"t", "", `{"v":"a"}`, "NULLNULLNULL"}, {"t", "1", `{"owner":1,"editor":2}`, "12NULL"}, {"t", "1", `{"editor":null}`, "1NULLNULL"},
		{"plain", "1", `{}`, "NULLNULLNULL"},
	} {
		if r := call(h, c.who, "POST", "/"+c.api, c.body); r.status != 200 || row() != c.want {
			t.Errorf("%s %s by %q: %v, stored %s, want %s", c.api, c.body, c.who, r, row(), c.want)
		}
	}
	want(t, call(h, "1", "POST", "/t", `{"owner":2}`), 403, "")
	want(t, call(h, "3", "POST", "/t", `{}`), 400, "db constraint: fk")
	want(t, call(h, "2", "POST", "/t", `[{},{"v":"a"}]`), 200, `{"ids":["7","8"]}`)
}

// A caller's id may be of any of the documented types; another type is a
// mistake of the application, which no client can mistake for permission.
func TestCallers(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, owner ANY) STRICT; INSERT INTO t VALUES (1, 7), (2, 'seven'), (3, x'0707'), (4, NULL), (5, '7')`)
	h := serve(t, db, records.API{Name: "t", Table: "t", Authenticated: records.Read, ReadRule: `_ROW_.owner = _USER_.id`}, records.API{Name: "w", Table: "t", World: records.Read, ReadRule: `_ROW_.owner = _USER_.id`})
	for who, ids := range map[string]string{"7": "[1]", "seven": "[2]", "x:0707": "[3]", "nobody": "[]"} {
		if got := list(t, h, who, "/t?order=id").column(t, "id"); fmt.Sprint(got) != ids {
			t.Errorf("%s sees %v, want %s", who, got, ids)
		}
	}
	want(t, get(h, "", "/t"), 403, "")
	want(t, get(h, "", "/w"), 200, `{"records":[]}`)
	for _, id := range []any{7, uint64(7), 7.0, true, [16]byte{}, struct{}{}, &struct{}{}} {
		h := serveConfig(t, db, records.Config{APIs: []records.API{{Name: "t", Table: "t", World: everything}}, Caller: fixedCaller(id)})
		for _, method := range []string{"GET", "POST"} {
			if r := call(h, "", method, "/t", `{}`); r.status != 500 || r.body != "" {
				t.Errorf("caller of type %T: %v", id, r)
			}
		}
	}
	h = serveConfig(t, db, records.Config{APIs: []records.API{{Name: "t", Table: "t", Authenticated: everything}}, Caller: fixedCaller([]byte(nil))})
	want(t, get(h, "", "/t"), 403, "")
}
