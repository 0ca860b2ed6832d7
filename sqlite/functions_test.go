package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	sqlite3 "github.com/mattn/go-sqlite3"
)

// functionDB opens a database in memory whose connection has the functions and
// does not trust the schema.
func functionDB(t testing.TB, o functionOptions) *sql.DB {
	t.Helper()
	db := sql.OpenDB(functionConnector{o})
	db.SetMaxOpenConns(1)
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

type functionConnector struct{ o functionOptions }

func (c functionConnector) Connect(context.Context) (driver.Conn, error) {
	return c.Driver().Open(":memory:")
}

func (c functionConnector) Driver() driver.Driver {
	return &sqlite3.SQLiteDriver{ConnectHook: func(conn *sqlite3.SQLiteConn) error {
		if err := registerFunctions(conn, c.o); err != nil {
			return err
		}
		_, err := conn.Exec("PRAGMA trusted_schema=OFF", nil)
		return err
	}}
}

func TestFunctions(t *testing.T) {
	t.Parallel()
	schemas, err := newSchemaSet(map[string]string{
		"person": `{"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name"]}`,
	})
	if err != nil {
		t.Fatal(err)
	}
	db := functionDB(t, functionOptions{schemas: schemas})

	const (
		v4 = "x'8f2b4c1d00114a3b9c2d0123456789ab'"
		v7 = "x'019aa3f2c1d07b3b8c2d0123456789ab'"
		no = "x'019aa3f2c1d0fb3b8c2d0123456789ab'" // version 15
	)
	long := strings.Repeat("a", 300)
	type failure string // part of the error's text
	tests := []struct {
		expr string
		want any
	}{
		{"is_uuid(" + v4 + ")", 1}, {"is_uuid(" + v7 + ")", 1}, {"is_uuid(NULL)", 1},
		{"is_uuid(" + no + ")", 0}, {"is_uuid(x'')", 0}, {"is_uuid(zeroblob(16))", 0}, {"is_uuid(zeroblob(17))", 0},
		{"is_uuid(x'019aa3f2c1d07b3b0c2d0123456789ab')", 0}, // variant
		{"is_uuid('019aa3f2-c1d0-7b3b-8c2d-0123456789ab')", 0}, {"is_uuid('0123456789abcdef')", 0},
		{"is_uuid(7)", 0}, {"is_uuid(7.5)", 0},
		{"is_uuid_v4(" + v4 + ")", 1}, {"is_uuid_v4(" + v7 + ")", 0}, {"is_uuid_v4(NULL)", 1}, {"is_uuid_v4('x')", 0},
		{"is_uuid_v7(" + v7 + ")", 1}, {"is_uuid_v7(" + v4 + ")", 0}, {"is_uuid_v7(NULL)", 1}, {"is_uuid_v7(1)", 0},
		{"is_uuid_v7()", failure("wrong number of arguments")},
		{"is_uuid_v4(uuid_v4())", 1}, {"is_uuid_v7(uuid_v7())", 1}, {"uuid_v7() < uuid_v7()", 1},
		{"uuid_text(" + v7 + ")", "019aa3f2-c1d0-7b3b-8c2d-0123456789ab"}, {"uuid_text(NULL)", nil},
		{"uuid_text(x'00')", failure("not a blob of 16 bytes")}, {"uuid_text('0123456789abcdef')", failure("uuid_text")},
		{"uuid_parse('019AA3F2-c1d0-7b3b-8c2d-0123456789ab') = " + v7, 1}, {"uuid_parse(NULL)", nil},
		{"uuid_parse('019aa3f2c1d07b3b8c2d0123456789ab')", failure("uuid_parse")},
		{"uuid_parse('019aa3f2-c1d0-7b3b-8c2d-0123456789ax')", failure("uuid_parse")},
		{"uuid_parse('-19aa3f2-c1d0-7b3b-8c2d-0123456789a-')", failure("uuid_parse")},
		{"uuid_parse(" + v7 + ")", failure("uuid_parse")}, {"uuid_parse('')", failure("uuid_parse")},

		{"is_email('alice@trailbase.io')", 1}, {"is_email('admin@localhost')", 1}, {"is_email(NULL)", 1},
		{"is_email('a.b+c!#$%&''*/=?^_`{|}~-@a-b.c')", 1},
		{"is_email('a@" + strings.Repeat("a", 63) + ".de')", 1}, {"is_email('a@" + strings.Repeat("a", 64) + ".de')", 0},
		{"is_email('')", 0}, {"is_email('@')", 0}, {"is_email('a@')", 0}, {"is_email('@b')", 0}, {"is_email('ab')", 0},
		{"is_email('a@b@c')", 0}, {"is_email('a@b..c')", 0}, {"is_email('a@.c')", 0}, {"is_email('a@c.')", 0},
		{"is_email('a@-c')", 0}, {"is_email('a@c-')", 0}, {"is_email('a@c-.d')", 0}, {"is_email('a b@c')", 0},
		{"is_email('ä@c')", 0}, {"is_email('a@ä')", 0}, {"is_email('a@c' || char(10))", 0}, {"is_email('a@c' || char(0))", 0},
		{"is_email(1)", 0}, {"is_email(x'614062')", 0}, {"is_email('" + long + "@" + long + "')", 0},

		{"is_json('{\"a\": [1, null]}')", 1}, {"is_json('1')", 1}, {"is_json('null')", 1}, {"is_json(NULL)", 1},
		{"is_json('')", 0}, {"is_json('{')", 0}, {"is_json('1 2')", 0}, {"is_json('{a: 1}')", 0}, {"is_json(1)", 0},
		{"is_json(x'31')", 0}, {"is_json(CAST(x'22ff22' AS TEXT))", 0},

		{"jsonschema('person', '{\"name\": \"Alice\", \"age\": 3}')", 1}, {"jsonschema('person', NULL)", 1},
		{"jsonschema('person', '{\"name\": 1}')", 0}, {"jsonschema('person', '{}')", 0}, {"jsonschema('person', 'x')", 0},
		{"jsonschema('person', '{\"name\": \"Alice\", \"age\": 3.5}')", 0},
		{"jsonschema('person', 1)", 0}, {"jsonschema('person', x'7b7d')", 0}, {"jsonschema('person', '[]', '')", 0},
		{"jsonschema('nobody', '{}')", failure(`unknown schema "nobody"`)}, {"jsonschema(NULL, '{}')", failure("not text")},
		{"jsonschema('person', '{\"name\": \"a\", \"age\": 1e999999999}')", 0}, // would take gigabytes
		{"jsonschema('person', '{\"name\": \"a\", \"age\": " + strings.Repeat("9", 500) + "}')", 0},
		{"jsonschema('person', '{\"name\": \"a\", \"x\": " + strings.Repeat("[", 200) + strings.Repeat("]", 200) + "}')", 0},
		{"jsonschema('person', '{\"name\": \"' || hex(zeroblob(524288)) || '\"}')", 0}, // too long
		{"jsonschema('person', '{\"name\": \"" + strings.Repeat("[", 200) + "\"}')", 1},
		{"jsonschema('std.FileUpload', '{\"id\": \"x\", \"filename\": \"f\", \"content_type\": null}')", 1},
		{"jsonschema('std.FileUpload', '{\"id\": 1}')", 0}, {"jsonschema('std.FileUpload', '{\"data\": \"x\"}')", 0},
		{"jsonschema('std.FileUpload', '[]')", 0},
		{"jsonschema('std.FileUpload', NULL, 'image/png')", 1},
		{"jsonschema('std.FileUpload', '{\"mime_type\": \"image/png\"}', 'image/jpeg, image/png')", 1},
		{"jsonschema('std.FileUpload', '{\"mime_type\": \"image/png\"}', 'image/*')", 1},
		{"jsonschema('std.FileUpload', '{\"mime_type\": \"text/plain; charset=utf-8\"}', 'text/plain')", 1},
		{"jsonschema('std.FileUpload', '{\"mime_type\": \"image/svg\"}', 'image/svg+xml')", 0},
		{"jsonschema('std.FileUpload', '{\"mime_type\": \"image/png\"}', '')", 0},
		{"jsonschema('std.FileUpload', '{\"mime_type\": \"\"}', '')", 0},
		{"jsonschema('std.FileUpload', '{\"content_type\": \"image/png\"}', 'image/png')", 0},
		{"jsonschema('std.FileUpload', '{}', NULL)", failure("not text")},
		{"jsonschema('std.FileUploads', '[{\"filename\": \"a\"}, {\"filename\": \"b\"}]')", 1}, {"jsonschema('std.FileUploads', '[]')", 1},
		{"jsonschema('std.FileUploads', '[{\"mime_type\": \"image/png\"}, {\"mime_type\": \"image/gif\"}]', 'image/*')", 1},
		{"jsonschema('std.FileUploads', '[{\"mime_type\": \"image/png\"}, {\"mime_type\": \"text/html\"}]', 'image/*')", 0},
		{"jsonschema('std.FileUploads', '[1]')", 0}, {"jsonschema('std.FileUploads', '{}')", 0},
		{"jsonschema('std.KeyValue', '{\"a\": \"b\"}')", 1}, {"jsonschema('std.KeyValue', '{\"a\": 1}')", 0},
		{`jsonschema_matches('{"type": "array"}', '[]')`, 1}, {`jsonschema_matches('{"type": "array"}', NULL)`, 1},
		{`jsonschema_matches('{"type": "array"}', '{}')`, 0}, {`jsonschema_matches('{"type": "array"}', 3)`, 0},
		{`jsonschema_matches('{"type": "arrow"}', '{}')`, failure("jsonschema_matches")}, {`jsonschema_matches('{', '{}')`, failure("jsonschema_matches")},
		{`jsonschema_matches('{"$ref": "file:///etc/passwd"}', '{}')`, failure("not followed")},
		{`jsonschema_matches(1, '{}')`, failure("not text")},

		{"'hello' REGEXP 'ell'", 1}, {"'hello' REGEXP '^ell'", 0}, {"regexp('^h.*o$', 'hello')", 1}, {"regexp('', '')", 1},
		{"NULL REGEXP 'a'", nil}, {"'a' REGEXP NULL", nil}, {"1 REGEXP '1'", 0}, {"x'61' REGEXP 'a'", 0},
		{"'a' REGEXP '('", failure("rejected")}, {"'a' REGEXP '(?=a)'", failure("rejected")}, {"'a' REGEXP 1", failure("rejected")},
		{"'a' REGEXP '" + strings.Repeat("a", 257) + "'", failure("rejected")}, {"'a' REGEXP '(a{100}){100}'", failure("rejected")},
		{"'a' REGEXP '(abcdefghijklmnopqrstuvwxyz){1000}'", failure("rejected")},
		{"hex(zeroblob(1000000)) REGEXP '(x+x+){30}y'", failure("rejected")},
		{"hex(zeroblob(20000)) REGEXP '(0+0+)+y'", 0},

		{"base64_encode(x'fbff00')", "-_8A"}, {"base64_encode('a')", "YQ=="}, {"base64_encode(NULL)", nil}, {"base64_encode(x'')", ""},
		{"base64_encode(1)", failure("base64_encode")}, {"length(base64_encode(zeroblob(3000)))", 4000},
		{"base64_decode('-_8A') = x'fbff00'", 1}, {"base64_decode('') = x''", 1}, {"base64_decode(NULL)", nil},
		{"base64_decode('YQ')", failure("base64_decode")}, {"base64_decode('YR==')", failure("base64_decode")},
		{"base64_decode('+/8A')", failure("base64_decode")}, {"base64_decode('-_8' || char(10) || 'A')", failure("base64_decode")},
		{"base64_decode(x'61')", failure("base64_decode")},

		{"ST_IsValid(ST_GeomFromText('POINT(1 2)'))", 1}, {"ST_IsValid(NULL)", 1}, {"ST_IsValid(x'00')", 0}, {"ST_IsValid('POINT(1 2)')", 0},
		{"ST_IsValid(1)", 0},
		{"hex(ST_GeomFromText('POINT(1 2)', 4326))", "0101000000000000000000F03F0000000000000040"}, {"ST_GeomFromText(NULL)", nil},
		{"ST_GeomFromText('POINT(1)')", failure("ST_GeomFromText")}, {"ST_GeomFromText(1)", failure("not text")},
		{"ST_GeomFromText('POINT(1 2)', 'x')", failure("spatial reference")},
		{"ST_AsText(ST_GeomFromText('LINESTRING(1 2, 3 4)'))", "LINESTRING(1 2,3 4)"}, {"ST_AsText(NULL)", nil}, {"ST_AsText(x'01')", failure("ST_AsText")},
		{"ST_AsText('x')", failure("ST_AsText")},
		{"ST_AsGeoJSON(ST_GeomFromText('POINT(1 2)'))", `{"type":"Point","coordinates":[1,2]}`}, {"ST_AsGeoJSON(NULL)", nil},
		{"ST_AsGeoJSON(x'01')", failure("ST_AsGeoJSON")}, {"ST_AsGeoJSON(1)", failure("ST_AsGeoJSON")},
		{"ST_Within(ST_GeomFromText('POINT(1 1)'), ST_GeomFromText('POLYGON((0 0, 2 0, 2 2, 0 2, 0 0))'))", 1},
		{"ST_Contains(ST_GeomFromText('POINT(1 1)'), ST_GeomFromText('POLYGON((0 0, 2 0, 2 2, 0 2, 0 0))'))", 0},
		{"ST_Intersects(ST_GeomFromText('POINT(0 0)'), ST_GeomFromText('POLYGON((0 0, 2 0, 2 2, 0 2, 0 0))'))", 1},
		{"ST_Within(NULL, x'01')", nil}, {"ST_Within(x'01', NULL)", nil}, {"ST_Within(x'01', x'01')", failure("ST_Within")},
		{"ST_Within(1, 2)", failure("ST_Within: not a geometry")},
	}
	for _, tt := range tests {
		var got any
		err := db.QueryRow("SELECT " + tt.expr).Scan(&got)
		if text, ok := tt.want.(failure); ok {
			if err == nil || !strings.Contains(err.Error(), string(text)) {
				t.Errorf("%.120s = %v, %v, want an error with %q", tt.expr, got, err, text)
			}
			continue
		}
		if n, ok := tt.want.(int); ok {
			tt.want = int64(n)
		}
		if err != nil || got != tt.want {
			t.Errorf("%.120s = %#v, %v, want %#v", tt.expr, got, err, tt.want)
		}
	}
}

// A schema that is not trusted may use every function.
func TestFunctionsInSchema(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, schema, ok, bad string }{
		{
			"check and default",
			`CREATE TABLE t (id BLOB PRIMARY KEY NOT NULL CHECK (is_uuid_v7(id)) DEFAULT (uuid_v7()), mail TEXT CHECK (is_email(mail))) STRICT`,
			`INSERT INTO t (mail) VALUES ('a@b'), (NULL)`, `INSERT INTO t (id) VALUES (x'00')`,
		},
		{
			"json",
			`CREATE TABLE t (a TEXT CHECK (jsonschema('std.KeyValue', a)), b TEXT CHECK (jsonschema_matches('{"type": "array"}', b)), c TEXT CHECK (is_json(c)))`,
			`INSERT INTO t VALUES ('{}', '[]', '1')`, `INSERT INTO t (a) VALUES ('[]')`,
		},
		{
			"geometry",
			`CREATE TABLE t (geom BLOB CHECK (ST_IsValid(geom))); CREATE INDEX i ON t (geom)`,
			`INSERT INTO t VALUES (ST_GeomFromText('POINT(12.4924 41.8902)', 4326)), (NULL)`, `INSERT INTO t VALUES (x'0101')`,
		},
		{
			"index on an expression",
			`CREATE TABLE t (id BLOB); CREATE UNIQUE INDEX i ON t (uuid_text(id)); CREATE INDEX j ON t (id) WHERE is_uuid(id); INSERT INTO t VALUES (x'019aa3f2c1d07b3b8c2d0123456789ab')`,
			`INSERT INTO t VALUES (NULL)`, `INSERT INTO t VALUES (x'019aa3f2c1d07b3b8c2d0123456789ab')`,
		},
		{
			"generated column",
			`CREATE TABLE t (id BLOB, text TEXT AS (uuid_text(id)) STORED, code TEXT AS (base64_encode(id)) VIRTUAL CHECK (code REGEXP '^[^=]*={2}$'))`,
			`INSERT INTO t VALUES (uuid_v4())`, `INSERT INTO t VALUES (x'00')`,
		},
		{
			"view",
			`CREATE TABLE t (id BLOB); INSERT INTO t VALUES (uuid_v4()); CREATE VIEW v AS SELECT uuid_text(id) AS id, uuid_v7() AS fresh FROM t`,
			`SELECT id, fresh FROM v`, `INSERT INTO v VALUES (1)`,
		},
		{
			"trigger",
			`CREATE TABLE t (id BLOB, a TEXT); CREATE TRIGGER r AFTER INSERT ON t BEGIN UPDATE t SET id = uuid_parse(new.a) WHERE rowid = new.rowid; END`,
			`INSERT INTO t (a) VALUES ('019aa3f2-c1d0-7b3b-8c2d-0123456789ab')`, `INSERT INTO t (a) VALUES ('x')`,
		},
	}
	for _, tt := range tests {
		db := functionDB(t, functionOptions{})
		if _, err := db.Exec(tt.schema); err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if _, err := db.Exec(tt.ok); err != nil {
			t.Errorf("%s: %s: %v", tt.name, tt.ok, err)
		}
		if _, err := db.Exec(tt.bad); err == nil {
			t.Errorf("%s: %s: no error", tt.name, tt.bad)
		}
	}
	db := functionDB(t, functionOptions{})
	if _, err := db.Exec(`CREATE TABLE t (id BLOB); CREATE INDEX i ON t (uuid_v7())`); err == nil {
		t.Error("an index may depend on uuid_v7()")
	}
}

func TestUUIDv7Order(t *testing.T) {
	t.Parallel()
	start := time.UnixMilli(1_700_000_000_000)
	var mu sync.Mutex
	now := start
	ids := newIDSource(func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	})
	set := func(at time.Time) {
		mu.Lock()
		defer mu.Unlock()
		now = at
	}

	first := ids.v7()
	if got := fmt.Sprintf("%x", first[:6]); got != fmt.Sprintf("%012x", start.UnixMilli()) {
		t.Errorf("time of the first id: %s", got)
	}
	last := first
	for _, at := range []time.Time{start, start.Add(-time.Hour), start.Add(time.Millisecond), start.Add(1500 * time.Microsecond), time.Unix(-1, 0), start.Add(time.Hour)} {
		set(at)
		for range 5000 {
			id := ids.v7()
			if bytes.Compare(last[:], id[:]) >= 0 {
				t.Fatalf("%x after %x, clock at %v", id, last, at)
			}
			if id[6]>>4 != 7 || id[8]>>6 != 2 {
				t.Fatalf("%x has another version or variant", id)
			}
			last = id
		}
	}
}

func TestUUIDv7Concurrent(t *testing.T) {
	t.Parallel()
	ids := newIDSource(time.Now)
	const workers, each = 4, 2000
	seen := make([]map[[16]byte]bool, workers)
	var wg sync.WaitGroup
	for w := range workers {
		seen[w] = map[[16]byte]bool{}
		db := functionDB(t, functionOptions{ids: ids})
		wg.Go(func() {
			rows, err := db.Query(`WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT uuid_v7() FROM n`, each)
			if err != nil {
				t.Error(err)
				return
			}
			defer rows.Close()
			var last []byte
			for rows.Next() {
				var id []byte
				if err := rows.Scan(&id); err != nil {
					t.Error(err)
					return
				}
				if bytes.Compare(last, id) >= 0 {
					t.Errorf("%x after %x", id, last)
				}
				last = id
				seen[w][[16]byte(id)] = true
			}
			if err := rows.Err(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	all := map[[16]byte]bool{}
	for _, ids := range seen {
		for id := range ids {
			all[id] = true
		}
	}
	if len(all) != workers*each {
		t.Errorf("%d different ids, want %d", len(all), workers*each)
	}
}

func TestRandomIsNotRepeated(t *testing.T) {
	t.Parallel()
	ids := newIDSource(time.Now)
	seen := map[[8]byte]bool{}
	for range 1000 {
		v4, v7 := ids.v4(), ids.v7()
		for _, id := range [][16]byte{v4, v7} {
			tail := [8]byte(id[8:])
			if seen[tail] {
				t.Fatalf("%x: random part seen before", id)
			}
			seen[tail] = true
		}
	}
}

func TestSchemaSetErrors(t *testing.T) {
	t.Parallel()
	bad := map[string]string{
		"broken":     `{`,
		"empty":      ``,
		"type":       `{"type": "arrow"}`,
		"pattern":    `{"pattern": "("}`,
		"remote":     `{"$ref": "https://example.com/schema.json"}`,
		"file":       `{"$ref": "file:///etc/passwd"}`,
		"sibling":    `{"$ref": "fine"}`,
		"meta":       `{"$schema": "https://example.com/meta"}`,
		"dangling":   `{"$ref": "#/$defs/missing"}`,
		"huge":       `{"title": "` + strings.Repeat("x", maxSchema) + `"}`,
		"deep":       strings.Repeat(`{"not":`, 500) + `{}` + strings.Repeat(`}`, 500),
		"number":     `{"maximum": 1e999999999}`,
		"std.Custom": `{}`,
		"":           `{}`,
	}
	named := map[string]string{
		"fine":    `{"$defs": {"a": {"type": "string"}}, "properties": {"b": {"$ref": "#/$defs/a"}}}`,
		"draft 7": `{"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}`,
		"tree":    `{"properties": {"child": {"$ref": "#"}}}`,
		"bool":    `true`,
	}
	if _, err := newSchemaSet(named); err != nil {
		t.Fatal(err)
	}
	for name, text := range bad {
		if _, err := newSchemaSet(map[string]string{name: text}); err == nil {
			t.Errorf("%s: no error", name)
		}
		named[name] = text
	}
	_, err := newSchemaSet(named)
	if err == nil {
		t.Fatal("no error")
	}
	for name := range named {
		mentioned := strings.Contains(err.Error(), fmt.Sprintf("JSON Schema %q:", name))
		if _, isBad := bad[name]; mentioned != isBad {
			t.Errorf("%q: mentioned = %t in %v", name, mentioned, err)
		}
	}
}

func TestCachesAreBounded(t *testing.T) {
	t.Parallel()
	cache := patterns{}
	inline := inlineSchemas{}
	db := sql.OpenDB(functionConnector{})
	defer db.Close()
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Raw(func(c any) error {
		handle, err := databaseHandle(c.(*sqlite3.SQLiteConn))
		if err != nil {
			return err
		}
		if err := (function{"regexp", 2, true, cache.regexp}).register(handle); err != nil {
			return err
		}
		return function{"jsonschema_matches", 2, true, inline.matches}.register(handle)
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ExecContext(t.Context(), `WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
		SELECT 'x' REGEXP i || '$', jsonschema_matches('{"maximum": ' || i || '}', '1') FROM n`); err != nil {
		t.Fatal(err)
	}
	if len(cache) == 0 || len(cache) > patternCache {
		t.Errorf("%d patterns cached", len(cache))
	}
	if len(inline) == 0 || len(inline) > schemaCache {
		t.Errorf("%d schemas cached", len(inline))
	}
}

func TestPanicInFunction(t *testing.T) {
	t.Parallel()
	db := functionDB(t, functionOptions{now: func() time.Time { panic("no clock") }})
	for range 2 { // no lock is left held
		if _, err := db.Exec("SELECT uuid_v7()"); err == nil || !strings.Contains(err.Error(), "no clock") {
			t.Errorf("error = %v", err)
		}
	}
}

// A closed connection keeps nothing of its functions alive.
func TestFunctionsAreReleased(t *testing.T) {
	t.Parallel()
	released := make(chan struct{})
	func() {
		ids := newIDSource(time.Now)
		runtime.AddCleanup(ids, func(c chan struct{}) { close(c) }, released)
		db := sql.OpenDB(functionConnector{functionOptions{ids: ids}})
		if _, err := db.Exec("SELECT uuid_v7()"); err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	deadline := time.After(2 * time.Minute)
	for {
		runtime.GC()
		select {
		case <-released:
			return
		case <-deadline:
			t.Fatal("the functions are still there")
		default:
		}
	}
}

// The driver's field that databaseHandle reads.
func TestDatabaseHandle(t *testing.T) {
	t.Parallel()
	field, ok := reflect.TypeFor[sqlite3.SQLiteConn]().FieldByName("db")
	if !ok || field.Type.Kind() != reflect.Pointer {
		t.Fatal("SQLiteConn has no handle in field db")
	}
	if _, err := databaseHandle(&sqlite3.SQLiteConn{}); err == nil {
		t.Error("a closed connection has a handle")
	}
}

func FuzzFunctions(f *testing.F) {
	db := functionDB(f, functionOptions{})
	f.Add("a@b", `{"a": "b"}`, []byte{1, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, a, b string, c []byte) {
		for _, query := range []string{
			"SELECT is_email(?1), is_json(?2), ST_IsValid(?3), is_uuid(?3), is_uuid(?1), jsonschema('std.FileUpload', ?2, ?1), jsonschema('std.KeyValue', ?2)",
			"SELECT uuid_parse(?1), uuid_text(?3)",
			"SELECT jsonschema_matches(?1, ?2)",
			"SELECT ?2 REGEXP ?1",
			"SELECT base64_decode(base64_encode(?3)) IS ?3",
			"SELECT ST_AsText(ST_GeomFromText(?1)), ST_Within(?3, ST_GeomFromText(?1))",
		} {
			var ignored any
			rows, err := db.Query(query, a, b, c)
			if err != nil {
				continue
			}
			for rows.Next() && ignored == nil {
				if columns, _ := rows.Columns(); len(columns) == 1 {
					_ = rows.Scan(&ignored)
				}
			}
			if err := rows.Err(); err == nil && strings.Contains(query, "base64") && c != nil && ignored != int64(1) {
				t.Errorf("base64 round trip of %x: %v", c, ignored)
			} else if err != nil && strings.Contains(err.Error(), "panic") {
				t.Errorf("%s: %v", query, err)
			}
			rows.Close()
		}
	})
}

// BenchmarkFunctions measures one evaluation of an expression within a
// statement; the first is the cost without a function.
func BenchmarkFunctions(b *testing.B) {
	const id = "x'019aa3f2c1d07b3b8c2d0123456789ab'"
	for _, expr := range []string{
		"x", "is_uuid_v7(x)", "uuid_v7()", "uuid_v4()", "uuid_text(x)", "base64_encode(x)", "is_email(y)", "y REGEXP 'a[0-9]b'",
	} {
		b.Run(expr, func(b *testing.B) {
			db := functionDB(b, functionOptions{})
			b.ReportAllocs()
			var n int
			if err := db.QueryRow("WITH RECURSIVE n(i, x, y) AS (VALUES (1, "+id+", 'alice@a1b.example') UNION ALL SELECT i + 1, x, y FROM n WHERE i < ?) SELECT count("+expr+") FROM n", b.N).Scan(&n); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkInsert measures a row with a version 7 id in one transaction,
// against the same row with the functions left out.
func BenchmarkInsert(b *testing.B) {
	for name, column := range map[string]string{
		"functions": "id BLOB PRIMARY KEY NOT NULL CHECK (is_uuid_v7(id)) DEFAULT (uuid_v7())",
		"bare":      "id INTEGER PRIMARY KEY",
	} {
		b.Run(name, func(b *testing.B) {
			db := functionDB(b, functionOptions{})
			if _, err := db.Exec("CREATE TABLE t (" + column + ", a TEXT) STRICT"); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			if _, err := db.Exec("WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO t (a) SELECT 'text' FROM n", b.N); err != nil {
				b.Fatal(err)
			}
		})
	}
}
