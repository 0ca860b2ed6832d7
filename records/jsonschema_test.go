package records_test

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

// treeSchema refers to itself, by pointer, anchor and as a whole.
const treeSchema = `{
	"$id": "https://example.com/tree", "$defs": {
		"name": {"$anchor": "name", "type": "string", "maxLength": 5},
		"a/b~c %": {"$defs": {"deep": {"type": "integer"}}, "$ref": "#/$defs/a~1b~0c%20%25/$defs/deep"}},
	"type": "object", "required": ["name"], "additionalProperties": false, "x-note": {"$ref": "nowhere"},
	"properties": {
		"name": {"$ref": "#name"}, "other": {"$ref": "https://example.com/tree#/$defs/name"}, "n": {"$ref": "#/$defs/a~1b~0c%20%25"},
		"children": {"type": "array", "items": {"$ref": "#"}}, "const": {"const": {"$ref": "#"}}}}`

const describedSchema = `
	CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT NOT NULL, meta TEXT CHECK (jsonschema('tree', meta)), boss INTEGER REFERENCES person(id), _hidden TEXT, salary INTEGER) STRICT;
	CREATE TABLE hideout (id INTEGER PRIMARY KEY, place TEXT, _map TEXT) STRICT;
	CREATE TABLE kinds (
		id BLOB PRIMARY KEY NOT NULL DEFAULT (uuid_v7()) CHECK (is_uuid_v7(id)),
		i INTEGER NOT NULL, i_null INTEGER, r REAL NOT NULL DEFAULT 1.5, r_null REAL, t TEXT NOT NULL, t_null TEXT, b BLOB NOT NULL, b_null BLOB, a ANY NOT NULL, a_null ANY,
		tree TEXT NOT NULL CHECK (jsonschema('tree', tree)), tree_null TEXT CHECK (jsonschema('tree', tree_null)),
		inline TEXT NOT NULL CHECK (jsonschema_matches('{"enum": ["x", 2]}', inline)), inline_null TEXT CHECK (jsonschema_matches('{"enum": ["x", 2]}', inline_null)),
		old TEXT CHECK (jsonschema_matches('{"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"s": {"type": "string"}}, "items": {"$ref": "#/definitions/s"}}', old)),
		foreign_words TEXT CHECK (jsonschema_matches('{"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}]}', foreign_words)),
		kv TEXT CHECK (jsonschema('std.KeyValue', kv)),
		file TEXT CHECK (jsonschema('std.FileUpload', file)), files TEXT CHECK (jsonschema('std.FileUploads', files)),
		geo BLOB NOT NULL CHECK (ST_IsValid(geo)), geo_null BLOB CHECK (ST_IsValid(geo_null)),
		person INTEGER NOT NULL REFERENCES person(id), hideout INTEGER REFERENCES hideout(id), person2 INTEGER REFERENCES person(id),
		up TEXT AS (upper(t)) STORED, "a ""b/c~%" TEXT, secret TEXT, _hidden TEXT) STRICT;
	CREATE VIEW names AS SELECT id, name FROM person;
	INSERT INTO person (id, name, meta) VALUES (1, 'Ann', '{"name":"Ann","children":[{"name":"x"}]}');
	INSERT INTO person (id, name, boss) VALUES (2, 'Bob', 1);
	INSERT INTO hideout (id, place) VALUES (1, 'cave');
	INSERT INTO kinds (i, t, b, a, tree, inline, geo, person, file, files, hideout, person2, a_null, geo_null) VALUES
		(1, 't', x'00', 'any', '{"name":"n"}', '"x"', ST_GeomFromText('POINT(1 2)', 4326), 1, '{"id":"FILEID","filename":"n","content_type":"c","mime_type":"m"}',
		 '[{"id":"FILEID","filename":"n","content_type":null}]', 1, 2, 1.5, ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 2), LINESTRING(0 0, 1 1))', 4326)),
		(-9007199254740993, '', x'', x'00ff', '{"name":"n","n":3,"children":[{"name":"c","other":"o"}]}', '2', ST_GeomFromText('POLYGON((0 0, 1 0, 1 1, 0 0))', 4326), 2,
		 NULL, NULL, NULL, NULL, NULL, NULL);`

func describedDB(t testing.TB) *sqlite.DB {
	t.Helper()
	return openFile(t, filepath.Join(t.TempDir(), "test.db"), describedSchema, sqlite.Options{Schemas: map[string]string{"tree": treeSchema}})
}

const all = everything | records.Schema

func describedAPIs() []records.API {
	return []records.API{
		{Name: "kinds", Table: "kinds", World: all, Exclude: []string{"secret"}, Expand: []string{"person", "hideout", "person2"}},
		{Name: "person", Table: "person", World: all, Exclude: []string{"salary"}, Expand: []string{"boss"}, Back: []records.BackRelation{{Name: "of", API: "kinds", Column: "person"}}},
		{Name: "names", Table: "names", World: records.Read | records.Schema},
	}
}

func describer(t testing.TB, db *sqlite.DB, apis ...records.API) *records.Service {
	t.Helper()
	svc, err := records.New(db, records.Config{APIs: apis, Caller: callerOf, Logger: quiet(), Files: &records.FilesConfig{Store: describedFiles{}}})
	if err != nil {
		t.Fatal(err)
	}
	return svc
}

// describedFiles is a store that nothing is put into.
type describedFiles struct{ records.FileStore }

func (describedFiles) List(context.Context, func(string, int64, time.Time) error) error { return nil }

func schemaOf(t testing.TB, svc *records.Service, api, mode string) string {
	t.Helper()
	schema, err := svc.JSONSchema(api, mode)
	if err != nil {
		t.Fatal(err)
	}
	return string(schema)
}

// fits asks the database whether a value is valid against a schema.
func fits(t testing.TB, db *sqlite.DB, schema, value string) bool {
	t.Helper()
	var valid any
	err := db.Query(t.Context(), "SELECT jsonschema_matches(?1, ?2)", []driver.Value{schema, value}, func(row []driver.Value) error {
		valid = row[0]
		return nil
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, schema)
	}
	return valid == int64(1)
}

// with returns a JSON object with some members changed; a value of "" removes
// one.
func with(t testing.TB, base string, changes ...string) string {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal([]byte(base), &m); err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(changes); i += 2 {
		if changes[i+1] == "" {
			delete(m, changes[i])
			continue
		}
		m[changes[i]] = json.RawMessage(changes[i+1])
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What is read is valid against the schema of reading, expanded or not.
func TestSchemaOfAnswers(t *testing.T) {
	t.Parallel()
	db := describedDB(t)
	svc := describer(t, db, describedAPIs()...)
	for _, api := range []string{"kinds", "person", "names"} {
		schema := schemaOf(t, svc, api, "Select")
		queries := []string{""}
		if api == "kinds" {
			queries = append(queries, "?expand=person,hideout", "?expand=person2")
		}
		for _, query := range queries {
			got := list(t, svc, "", "/"+api+query)
			if len(got.Records) == 0 {
				t.Errorf("%s%s: no records", api, query)
			}
			for _, record := range got.Records {
				if !fits(t, db, schema, string(record)) {
					t.Errorf("%s%s: %s does not fit\n%s", api, query, record, schema)
				}
			}
		}
	}
	schema, record := schemaOf(t, svc, "kinds", "Select"), string(list(t, svc, "", "/kinds?expand=person,hideout,person2").Records[1])
	if !strings.Contains(record, `"cave"`) || !strings.Contains(record, `"Ann"`) {
		t.Fatal(record)
	}
	for _, changes := range [][]string{
		{"id", "null"}, {"i", "null"}, {"i", "1.5"}, {"i", ""}, {"r", `"1"`}, {"t", "1"}, {"b", "[0]"}, {"a", "null"}, {"a", "true"}, {"a", "{}"}, {"a_null", "[]"},
		{"tree", "null"}, {"tree", "{}"}, {"tree", `{"name":"toolong"}`}, {"tree", `{"name":"n","children":[null]}`}, {"tree", `{"name":"n","children":[{}]}`},
		{"tree", `{"name":"n","other":"toolong"}`}, {"tree", `{"name":"n","n":"text"}`}, {"tree", `{"name":"n","const":1}`}, {"tree_null", `{}`}, {"inline", "null"}, {"inline", "1"}, {"inline_null", "1"},
		{"old", "[1]"}, {"kv", `{"a":1}`}, {"file", `{"id":"FILEID","filename":"n"}`}, {"files", "[1]"}, {"files", "{}"}, {"geo", "null"}, {"geo", `{"type":"Circle","coordinates":[]}`}, {"geo", `{"type":"Point"}`},
		{"geo_null", `{"type":"GeometryCollection","geometries":[{}]}`}, {"person", "1"}, {"person", `{"data":{}}`}, {"person", `{"id":"1"}`}, {"person", "null"}, {"person", `{"id":1,"data":{"id":1}}`},
		{"person", `{"id":1,"data":{"id":1,"name":"n","meta":{}}}`}, {"person2", `{"id":null}`}, {"hideout", `{"id":1,"data":{"place":1}}`}, {"up", "1"},
	} {
		if value := with(t, record, changes...); fits(t, db, schema, value) {
			t.Errorf("%s fits", value)
		}
	}
	for _, changes := range [][]string{
		{"i_null", "null"}, {"a", "1"}, {"a", `"x"`}, {"a_null", "null"}, {"tree_null", "null"}, {"tree_null", `{"name":"n"}`}, {"tree", `{"name":"n","const":{"$ref":"#"}}`}, {"inline_null", "null"}, {"inline_null", "2"},
		{"old", `["a"]`}, {"old", "null"}, {"foreign_words", `[1]`}, {"kv", "{}"}, {"file", "null"}, {"files", "[]"}, {"geo_null", "null"}, {"person", `{"id":7}`}, {"person2", "null"}, {"hideout", `{"id":1}`}, {`a "b/c~%`, "null"},
	} {
		if value := with(t, record, changes...); !fits(t, db, schema, value) {
			t.Errorf("%s does not fit", value)
		}
	}
}

// What a create and an update take is valid against their schemas, and what is
// refused for its form is not.
func TestSchemaOfBodies(t *testing.T) {
	t.Parallel()
	db := describedDB(t)
	svc := describer(t, db, describedAPIs()...)
	insert, update := schemaOf(t, svc, "kinds", "Insert"), schemaOf(t, svc, "kinds", "Update")
	const record = `{"i":1,"t":"t","b":"AA==","a":1,"tree":{"name":"n"},"inline":"x","geo":{"type":"Point","coordinates":[1,2]},"person":1}`
	for _, changes := range [][]string{
		{}, {"i_null", "1", "r", "2", "r_null", "1e3", "t_null", `"x"`, "b_null", `"_-8="`, "a_null", "true"}, {"a", `[1,255]`}, {"a", `"x"`}, {"tree_null", "null"}, {"inline", "2"}, {"inline_null", "null"},
		{"tree", `{"name":"n","children":[{"name":"m"}],"n":4}`}, {"old", `["a"]`}, {"kv", `{"a":"b"}`}, {"geo_null", "null"}, {"hideout", "1"}, {"unknown", "{}"}, {`a "b/c~%`, `"x"`},
		{"geo", `{"type":"GeometryCollection","geometries":[{"type":"Point","coordinates":[1,2]}]}`},
	} {
		body := with(t, record, changes...)
		answer := call(svc, "", "POST", "/kinds", body)
		if wantStatus(t, answer, 200); !fits(t, db, insert, body) {
			t.Errorf("%s is taken and does not fit\n%s", body, insert)
		}
		if body := with(t, `{}`, changes...); !fits(t, db, update, body) {
			t.Errorf("%s does not fit an update\n%s", body, update)
		}
	}
	for _, changes := range [][]string{
		{"i", ""}, {"i", "null"}, {"i", `"1"`}, {"i", "1.5"}, {"t", ""}, {"t", "5"}, {"b", ""}, {"b", "1"}, {"a", ""}, {"a", "null"}, {"a", "{}"}, {"a", "[256]"}, {"a", `["x"]`}, {"a_null", "{}"}, {"r", "null"}, {"r", `"1"`},
		{"tree", ""}, {"tree", "null"}, {"tree", "{}"}, {"tree", `{"name":"n","x":1}`}, {"tree", `{"name":"n","n":"x"}`}, {"tree_null", "[]"}, {"inline", "1"}, {"inline_null", "3"}, {"old", "[1]"}, {"kv", "[]"}, {"geo", "null"}, {"geo", ""},
		{"geo", `{"type":"Point"}`}, {"geo", `"POINT(1 2)"`}, {"person", ""}, {"person", `{"id":1}`}, {"file", "1"}, {"file", `{"data":1}`}, {"files", `{"data":"AA=="}`},
	} {
		body := with(t, record, changes...)
		if answer := call(svc, "", "POST", "/kinds", body); answer.status != 400 {
			t.Errorf("%s: %v", body, answer)
		}
		if fits(t, db, insert, body) {
			t.Errorf("%s is refused and fits\n%s", body, insert)
		}
		missing := slices.Contains(changes, "")
		if fits(t, db, update, with(t, `{}`, changes...)) != missing {
			t.Errorf("%s: fits an update = %v\n%s", changes, !missing, update)
		}
	}
	upload, known := `{"filename":"f","data":"AA=="}`, `{"filename":"f_1","content_type":null}`
	for _, c := range []struct {
		schema, value string
		want          bool
	}{
		{insert, with(t, record, "file", upload, "files", "["+upload+","+upload+"]"), true},
		{insert, with(t, record, "file", `{"id":"x","data":""}`), false},
		{insert, with(t, record, "file", known), false},
		{insert, with(t, record, "files", "["+known+"]"), false},
		{update, with(t, `{}`, "file", known, "files", "["+known+","+upload+"]"), true},
		{update, with(t, `{}`, "file", `null`, "files", "null"), true},
		{update, with(t, `{}`, "files", `[1]`), false},
	} {
		if fits(t, db, c.schema, c.value) != c.want {
			t.Errorf("%s: want %v\n%s", c.value, c.want, c.schema)
		}
	}
}

// A schema has the members of the contract and nothing of what its readers
// cannot see.
func TestSchemaMembers(t *testing.T) {
	t.Parallel()
	svc := describer(t, describedDB(t), describedAPIs()...)
	for _, api := range []string{"kinds", "person", "names"} {
		for _, mode := range []string{"Insert", "Select", "Update"} {
			text := schemaOf(t, svc, api, mode)
			var schema map[string]any
			if err := json.Unmarshal([]byte(text), &schema); err != nil {
				t.Fatal(err)
			}
			members := slices.Sorted(maps.Keys(schema))
			if schema["$defs"] == nil {
				members = append([]string{"$defs"}, members...)
			}
			if want := []string{"$defs", "$schema", "properties", "required", "title", "type"}; !slices.Equal(members, want) {
				t.Errorf("%s %s: members %v", api, mode, members)
			}
			if schema["title"] != api || schema["$schema"] != "https://json-schema.org/draft/2020-12/schema" {
				t.Error(text)
			}
			for _, word := range []string{"hidden", "secret", "salary", "FILEID", "nowhere", "_map"} {
				if strings.Contains(text, word) {
					t.Errorf("%s %s has %q: %s", api, mode, word, text)
				}
			}
			if got := strings.Contains(text, `"up"`); api == "kinds" && got != (mode == "Select") {
				t.Errorf("%s: generated column: %v", mode, got)
			}
		}
	}
	want := `{"$schema":"https://json-schema.org/draft/2020-12/schema","properties":{"id":{"type":"integer"},"name":{"type":"string"}},"required":["id","name"],"title":"names","type":"object"}`
	if got := schemaOf(t, svc, "names", "Select"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if _, err := svc.JSONSchema("kinds", "insert"); err == nil {
		t.Error("any mode will do")
	}
	if _, err := svc.JSONSchema("none", "Insert"); err == nil {
		t.Error("any API will do")
	}
}

func TestSchemaRequests(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE member (id INTEGER PRIMARY KEY) STRICT; INSERT INTO member VALUES (1);
		CREATE TABLE t (id INTEGER PRIMARY KEY, owner INTEGER REFERENCES member(id)) STRICT`)
	const members = `(SELECT 1 FROM member WHERE id = _USER_.id)`
	h := serve(t, db,
		records.API{Name: "open", Table: "t", World: records.Schema},
		records.API{Name: "closed", Table: "t", World: everything},
		records.API{Name: "signed", Table: "t", Authenticated: records.Schema},
		records.API{Name: "ruled", Table: "t", World: records.Schema, SchemaRule: members},
		records.API{Name: "broken", Table: "t", World: records.Schema, SchemaRule: `json_extract('{', '$') = 1`},
		records.API{Name: "owned", Table: "t", World: records.Schema, Expand: []string{"owner"}},
		records.API{Name: "member", Table: "member", World: records.Read, Authenticated: records.Schema, SchemaRule: members},
	)
	for _, c := range []struct {
		who, method, target string
		want                int
	}{
		{"", "GET", "/open/schema", 200}, {"", "HEAD", "/open/schema", 200}, {"", "GET", "/open/schema?mode=Select", 200}, {"", "GET", "/open/schema?mode=Update", 200}, {"", "GET", "/open/schema?mode=insert", 400},
		{"", "GET", "/open/schema?mode=", 400}, {"", "GET", "/open/schema?mode=Insert&mode=Select", 400}, {"", "GET", "/open/schema?mode=%zz", 400}, {"", "POST", "/open/schema", 405},
		{"", "GET", "/closed/schema", 403}, {"1", "GET", "/closed/schema", 403}, {"", "GET", "/closed/schema?mode=x", 403}, {"", "GET", "/signed/schema", 403}, {"1", "GET", "/signed/schema", 200}, {"", "GET", "/nothing/schema", 405},
		{"", "GET", "/ruled/schema", 403}, {"1", "GET", "/ruled/schema", 200}, {"2", "GET", "/ruled/schema", 403}, {"1", "GET", "/broken/schema", 403},
	} {
		answer := call(h, c.who, c.method, c.target, "")
		if wantStatus(t, answer, c.want); answer.status != c.want {
			t.Log(c)
		}
		if c.want == 200 && answer.header.Get("Content-Type") != "application/json" {
			t.Errorf("%v: %v", c, answer.header)
		}
		if c.want == 403 && answer.body != "" {
			t.Errorf("%v: %q", c, answer.body)
		}
	}
	insert, byDefault := get(h, "", "/open/schema?mode=Insert"), get(h, "", "/open/schema")
	if insert.body != byDefault.body {
		t.Error("the default is not Insert")
	}
	// The schema of one API does not show what another keeps to itself.
	for who, want := range map[string]bool{"": false, "1": true, "2": false} {
		if got := get(h, who, "/owned/schema?mode=Select"); strings.Contains(got.body, `"data":{"properties"`) != want {
			t.Errorf("%q: %s", who, got.body)
		}
	}
}

// A schema that cannot become a part of another one is not told rather than
// told wrong.
func TestSchemaNotEmbedded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		schema string
		want   string // of the column; $ref stands for a definition
	}{
		{`{"type": "string"}`, "$ref"},
		{`true`, "$ref"},
		{`{"$ref": "#/x-types/a", "x-types": {"a": {"type": "string"}}}`, `{}`},
		{`{"$ref": "#/$defs/none"}`, `{}`},
		{`{"$ref": "#none"}`, `{}`},
		{`{"$ref": "https://example.com/other"}`, `{}`},
		{`{"$ref": "#/%zz"}`, `{}`},
		{`{"$defs": {"a": {"$id": "https://example.com/a", "type": "string"}}}`, `{}`},
		{`{"$dynamicAnchor": "a", "items": {"$dynamicRef": "#a"}}`, `{}`},
		{`{"$schema": "http://json-schema.org/draft-04/schema#"}`, `{}`},
		{`{"$schema": "http://json-schema.org/draft-07/schema#", "type": "string"}`, "$ref"},
		{`{"$schema": "http://json-schema.org/draft-07/schema#", "dependencies": {"a": ["b"]}}`, `{}`},
		{`{"$schema": "http://json-schema.org/draft-07/schema#", "prefixItems": [{"type": "string"}]}`, `{}`},
		{`{"$schema": "http://json-schema.org/draft-07/schema#", "items": {"$ref": "#", "type": "string"}}`, `{}`},
		{`{"anyOf": {}}`, `{}`},
		{`{"items": 1}`, `{}`},
		{`[]`, `{}`},
		{`nonsense`, `{}`},
		{``, `{}`},
	} {
		db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, j TEXT NOT NULL CHECK (jsonschema_matches('`+c.schema+`', j))) STRICT`)
		text := schemaOf(t, describer(t, db, records.API{Name: "t", Table: "t", World: all}), "t", "Insert")
		var schema struct {
			Properties map[string]json.RawMessage
			Defs       map[string]json.RawMessage `json:"$defs"`
		}
		if err := json.Unmarshal([]byte(text), &schema); err != nil {
			t.Fatal(err)
		}
		got := string(schema.Properties["j"])
		if c.want == "$ref" {
			if got != `{"$ref":"#/$defs/j"}` || schema.Defs["j"] == nil {
				t.Errorf("%s: %s", c.schema, text)
			}
		} else if got != c.want || schema.Defs != nil {
			t.Errorf("%s: %s", c.schema, text)
		}
	}
	// A schema of another name, or none that is a name.
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT CHECK (jsonschema('nothing', a)), b TEXT CHECK (jsonschema(a, b))) STRICT`)
	if text := schemaOf(t, describer(t, db, records.API{Name: "t", Table: "t", World: all}), "t", "Select"); !strings.Contains(text, `"a":{},"b":{},"id"`) {
		t.Error(text)
	}
}

// Requests of many callers at once share what is kept.
func TestSchemaConcurrently(t *testing.T) {
	t.Parallel()
	svc := describer(t, describedDB(t), describedAPIs()...)
	want := schemaOf(t, svc, "kinds", "Select")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if got, err := svc.JSONSchema("kinds", "Select"); err != nil || string(got) != want {
					t.Error(err)
				}
				if _, schemas := svc.OpenAPI(records.OpenAPIOptions{}); len(schemas) == 0 {
					t.Error("no schemas")
				}
			}
		})
	}
	wg.Wait()
}
