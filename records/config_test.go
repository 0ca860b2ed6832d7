package records_test

import (
	"context"
	"database/sql"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/records"
)

const configSchema = `
CREATE TABLE _user (id INTEGER PRIMARY KEY, email TEXT) STRICT;
CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT, owner INTEGER REFERENCES _user(id), must TEXT NOT NULL, _h INTEGER REFERENCES t(id), other INTEGER REFERENCES t(id), far INTEGER REFERENCES uniq(code)) STRICT;
CREATE TABLE uniq (id INTEGER PRIMARY KEY, code INTEGER UNIQUE) STRICT;
CREATE TABLE two (a INTEGER, b INTEGER, PRIMARY KEY (a, b)) STRICT;
CREATE TABLE none (a INTEGER) STRICT;
CREATE TABLE hid (_id INTEGER PRIMARY KEY) STRICT;
CREATE TABLE plainblob (id BLOB PRIMARY KEY) STRICT;
CREATE TABLE realkey (id REAL PRIMARY KEY) STRICT;
CREATE VIEW v AS SELECT id, s FROM t;
CREATE VIEW nokey AS SELECT s FROM t;
`

// Every mistake is told, with the API, the rule and the place.
func TestConfigMistakes(t *testing.T) {
	t.Parallel()
	db := openDB(t, configSchema)
	for _, c := range []struct {
		api  records.API
		want string
	}{
		{records.API{Name: "", Table: "t"}, `records: api name "": only letters, digits and underscores are allowed`},
		{records.API{Name: "a b", Table: "t"}, `records: api name "a b": only letters`},
		{records.API{Name: "a/b", Table: "t"}, `records: api name "a/b": only letters`},
		{records.API{Name: "é", Table: "t"}, `records: api name "é": only letters`},
		{records.API{Name: "x", Table: ""}, `records: api "x": no table or view ""`},
		{records.API{Name: "x", Table: "nope"}, `records: api "x": no table or view "nope"`},
		{records.API{Name: "x", Table: "nope.t"}, `records: api "x": `},
		{records.API{Name: "x", Table: "_user"}, `records: api "x": table "_user" is internal; expose a view of it`},
		{records.API{Name: "x", Table: "main._user"}, `records: api "x": table "main._user" is internal`},
		{records.API{Name: "x", Table: "sqlite_schema"}, `records: api "x": table "sqlite_schema" is internal`},
		{records.API{Name: "x", Table: "SQLITE_schema"}, `records: api "x": table "SQLITE_schema" is internal`},
		{records.API{Name: "x", Table: "temp.sqlite_schema"}, `records: api "x": no database "temp"`},
		{records.API{Name: "x", Table: "two"}, `records: api "x": table "two" has a primary key of 2 columns, one is needed`},
		{records.API{Name: "x", Table: "none"}, `records: api "x": table "none" has no primary key`},
		{records.API{Name: "x", Table: "hid"}, `records: api "x": table "hid": the primary key "_id" is hidden`},
		{records.API{Name: "x", Table: "plainblob"}, `records: api "x": table "plainblob": the primary key "id" must be INTEGER, TEXT, or BLOB`},
		{records.API{Name: "x", Table: "realkey"}, `records: api "x": table "realkey": the primary key "id" must be`},
		{records.API{Name: "x", Table: "nokey"}, `records: api "x": view "nokey" has no column "id"; name its key column in Key`},
		{records.API{Name: "x", Table: "v", Key: "nope"}, `records: api "x": view "v" has no column "nope"`},
		{records.API{Name: "x", Table: "t", Key: "id"}, `records: api "x": key is for views, "t" is a table`},
		{records.API{Name: "x", Table: "v", CreateRule: "1"}, `records: api "x": "v" is a view and cannot be written to, so it needs no rule for that`},
		{records.API{Name: "x", Table: "v", Subscriptions: true}, `records: api "x": "v" is a view, there are no changes to subscribe to`},
		{records.API{Name: "x", Table: "t", ListLimit: -1}, `records: api "x": list limit is negative`},
		{records.API{Name: "x", Table: "t", Conflict: 7}, `records: api "x": conflict is neither Abort, Ignore nor Replace`},
		{records.API{Name: "x", Table: "t", World: 64}, `records: api "x": unknown permission bits`},
		{records.API{Name: "x", Table: "t", Exclude: []string{"nope"}}, `records: api "x": exclude: no column "nope"`},
		{records.API{Name: "x", Table: "t", Exclude: []string{"S"}}, `records: api "x": exclude: no column "S"`},
		{records.API{Name: "x", Table: "t", Exclude: []string{"id"}}, `records: api "x": exclude: "id" is the primary key`},
		{records.API{Name: "x", Table: "t", Exclude: []string{"s", "s"}}, `records: api "x": exclude: "s" is listed twice`},
		{records.API{Name: "x", Table: "t", World: records.Create, Exclude: []string{"must"}}, `records: api "x": exclude: "must" is NOT NULL without a default`},
		{records.API{Name: "x", Table: "t", Expand: []string{"nope"}}, `records: api "x": expand "nope": no such column`},
		{records.API{Name: "x", Table: "t", Expand: []string{"s"}}, `records: api "x": expand "s": not a foreign key of one column`},
		{records.API{Name: "x", Table: "t", Expand: []string{"_h"}}, `records: api "x": expand "_h": the column is hidden`},
		{records.API{Name: "x", Table: "t", Expand: []string{"owner"}}, `records: api "x": expand "owner": table "_user" is internal`},
		{records.API{Name: "x", Table: "t", Expand: []string{"other", "other"}}, `records: api "x": expand "other": listed twice`},
		{records.API{Name: "x", Table: "t", Expand: []string{"far"}}, `records: api "x": expand "far": it refers to uniq(code), which is not the primary key`},
		{records.API{Name: "x", Table: "t", Exclude: []string{"other"}, Expand: []string{"other"}}, `records: api "x": expand "other": no such column`},
		{records.API{Name: "x", Table: "t", ReadRule: `_ROW_.nope = 1`}, `records: api "x": read rule: 1:7: no column "nope"`},
		{records.API{Name: "x", Table: "t", ReadRule: `_REQ_.s = 1`}, `records: api "x": read rule: 1:1: _REQ_ is not available in this rule`},
		{records.API{Name: "x", Table: "t", CreateRule: `_ROW_.s = 1`}, `records: api "x": create rule: 1:1: _ROW_ is not available in this rule`},
		{records.API{Name: "x", Table: "t", DeleteRule: `'s' IN _REQ_FIELDS_`}, `records: api "x": delete rule: 1:8: _REQ_FIELDS_ is not available in this rule`},
		{records.API{Name: "x", Table: "t", Check: `_REQ_.s = 1`}, `records: api "x": check: 1:1: _REQ_ is not available in this rule`},
		{records.API{Name: "x", Table: "t", SchemaRule: `_ROW_.s = 1`}, `records: api "x": schema rule: 1:1: _ROW_ is not available in this rule`},
		{records.API{Name: "x", Table: "t", UpdateRule: `_REQ_.s = 'a' AND` + "\n  'nope' IN _REQ_FIELDS_"}, `records: api "x": update rule: 2:3: no column "nope" in a request`},
		{records.API{Name: "x", Table: "t", Exclude: []string{"s"}, UpdateRule: `_REQ_.s = 'a'`}, `records: api "x": update rule: 1:7: no column "s" in a request`},
		{records.API{Name: "x", Table: "t", ReadRule: `1 = `}, `records: api "x": read rule: 1:`},
		{records.API{Name: "x", Table: "t", ReadRule: `1 = 1 AND nope`}, `records: api "x": read rule: 1:11: `},
		{records.API{Name: "x", Table: "t", ReadRule: `EXISTS (SELECT 1 FROM missing)`}, `records: api "x": read rule: 1:23: `},
		{records.API{Name: "x", Table: "t", ReadRule: `nofunc(1)`}, `records: api "x": read rule: 1:1: `},
		{records.API{Name: "x", Table: "t", ReadRule: `length(1, 2)`}, `records: api "x": read rule: 1:`},
		{records.API{Name: "x", Table: "t", ReadRule: `load_extension('x')`}, `records: api "x": read rule: 1:`},
		{records.API{Name: "x", Table: "t", ReadRule: `randomblob(1000000000) IS NOT NULL`}, `function randomblob is not allowed`},
		{records.API{Name: "x", Table: "t", ReadRule: `zeroblob(1000000000) IS NOT NULL`}, `function zeroblob is not allowed`},
		{records.API{Name: "x", Table: "t", ReadRule: `printf('%1000000000d', 1) = 1`}, `function printf is not allowed`},
		{records.API{Name: "x", Table: "t", ReadRule: `replace('a', 'a', 'b') = 1`}, `function replace is not allowed`},
		{records.API{Name: "x", Table: "t", ReadRule: `(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n) > 1`}, `recursion is not allowed`},
		{records.API{Name: "x", Table: "t", ReadRule: `(SELECT 1 FROM pragma_table_info('t')) = 1`}, `records: api "x": read rule: 1:`},
		{records.API{Name: "x", Table: "t", ReadRule: `1); DELETE FROM t; --`}, `records: api "x": read rule: 1:2: parenthesis is not opened`},
		{records.API{Name: "x", Table: "t", ReadRule: `1; DELETE FROM t`}, `records: api "x": read rule: 1:2: a rule is one expression, without semicolon`},
		{records.API{Name: "x", Table: "t", ReadRule: `(DELETE FROM t RETURNING 1)`}, `records: api "x": read rule: 1:`},
	} {
		_, err := tryServe(db, c.api)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v:\n got %v\nwant %s", c.api, err, c.want)
		}
	}

	_, err := tryServe(db,
		records.API{Name: "ok", Table: "t"},
		records.API{Name: "bad", Table: "t", ReadRule: "1 =", UpdateRule: "_row_.s", Expand: []string{"nope"}, Exclude: []string{"nada"}, ListLimit: -1},
		records.API{Name: "worse", Table: "nope"},
		records.API{Name: "ok", Table: "t"})
	for _, part := range []string{`"bad": read rule`, `"bad": update rule: 1:1: write _ROW_ in capitals`, `"nada"`, `list limit`, `"worse": no table`, `api "ok" is defined twice`} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s is not in: %v", part, err)
		}
	}
	for _, cfg := range []records.Config{{BodyLimit: -1}, {QueryTimeout: -1}, {CursorKey: []byte("short")}, {CursorKey: []byte{}}} {
		if _, err := records.New(db, cfg); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
}

// A change of the schema by this handle is seen by the next request.
func TestSchemaChange(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE a (id INTEGER PRIMARY KEY, v TEXT) STRICT; CREATE TABLE b (id INTEGER PRIMARY KEY, v TEXT) STRICT; INSERT INTO a VALUES (1, 'x'); INSERT INTO b VALUES (1, 'y')`)
	h := serve(t, db, records.API{Name: "a", Table: "a", World: everything, ReadRule: `_ROW_.v <> 'hide'`}, records.API{Name: "b", Table: "b", World: everything})
	want(t, get(h, "", "/a/1"), 200, `{"id":1,"v":"x"}`)
	for _, c := range []string{"c1", "c2", "c3"} {
		execSQL(t, db, `ALTER TABLE a ADD COLUMN `+c+` TEXT`)
		want(t, call(h, "", "PATCH", "/a/1", `{"`+c+`":"new"}`), 200, "")
	}
	want(t, get(h, "", "/a/1"), 200, `{"c1":"new","c2":"new","c3":"new","id":1,"v":"x"}`)
	execSQL(t, db, `ALTER TABLE a RENAME COLUMN c1 TO _c1; ALTER TABLE a DROP COLUMN c2`)
	want(t, get(h, "", "/a/1"), 200, `{"c3":"new","id":1,"v":"x"}`)
	want(t, get(h, "", "/a?order=c2"), 400, "Invalid query")
	execSQL(t, db, `ALTER TABLE a RENAME COLUMN v TO w`) // the rule does not fit any more
	for _, c := range []struct{ method, target string }{{"GET", "/a/1"}, {"GET", "/a"}, {"POST", "/a"}, {"PATCH", "/a/1"}, {"DELETE", "/a/1"}} {
		want(t, call(h, "", c.method, c.target, `{}`), 500, "")
	}
	want(t, get(h, "", "/b/1"), 200, `{"id":1,"v":"y"}`)
	execSQL(t, db, `DROP TABLE a`)
	want(t, get(h, "", "/a/1"), 500, "")
	want(t, get(h, "", "/nope/1"), 405, "")
	want(t, call(h, "", "PATCH", "/b/1", `{"v":"z"}`), 200, "")
	execSQL(t, db, `CREATE TABLE a (id TEXT PRIMARY KEY, v TEXT) STRICT; INSERT INTO a VALUES ('k', 'back')`)
	want(t, get(h, "", "/a/k"), 200, `{"id":"k","v":"back"}`)
	execSQL(t, db, `DROP TABLE b; CREATE VIEW b AS SELECT CAST(5 AS INTEGER) AS id, v FROM a`)
	want(t, get(h, "", "/b"), 200, `{"records":[{"id":5,"v":"back"}]}`)
	want(t, call(h, "", "POST", "/b", `{}`), 405, "")
}

// A change by another connection is seen after a while.
func TestSchemaChangeElsewhere(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE a (id INTEGER PRIMARY KEY, v TEXT) STRICT; INSERT INTO a VALUES (1, 'x')`)
	h := serve(t, db, records.API{Name: "a", Table: "a", World: everything})
	want(t, get(h, "", "/a/1"), 200, `{"id":1,"v":"x"}`)
	own := sql.OpenDB(db.Connector())
	defer func() { _ = own.Close() }()
	if _, err := own.ExecContext(context.Background(), `ALTER TABLE a ADD COLUMN w TEXT`); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool {
		r := get(h, "", "/a/1")
		wantStatus(t, r, 200)
		return r.body == `{"id":1,"v":"x","w":null}`
	})
}
