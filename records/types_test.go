package records_test

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/apitest"
	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

// typedDB has columns and schemas with names that are hard to declare.
func typedDB(t testing.TB) *sqlite.DB {
	t.Helper()
	db := describedDB(t)
	execSQL(t, db, `
		CREATE TABLE odd (id TEXT PRIMARY KEY NOT NULL, class TEXT, type INTEGER, "a b" TEXT, "a""b" TEXT, "a,b" TEXT, "a`+"`"+`b" TEXT, "-" TEXT, "1st" TEXT, "été" TEXT, "日本" TEXT, foo_bar TEXT, fooBar_ TEXT, "foo-bar" TEXT, "*/ x" TEXT, "<b>" TEXT, "new
			line" TEXT, user_id INTEGER NOT NULL DEFAULT 5) STRICT;
		CREATE TABLE loose (id INTEGER PRIMARY KEY, made TIMESTAMP, flag BOOLEAN NOT NULL, whatever);
		CREATE TABLE choice (id INTEGER PRIMARY KEY,
			c1 TEXT CHECK (jsonschema_matches('{"anyOf": [{"type": "string"}, {"type": ["number", "null"]}, {"const": true}]}', c1)),
			c2 TEXT CHECK (jsonschema_matches('{"type": "object", "additionalProperties": {"type": "array", "items": {"enum": ["a", 1, null]}}}', c2)),
			c3 TEXT CHECK (jsonschema_matches('{"allOf": [{"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}, {"type": "object", "properties": {"b c": {"$ref": "#/$defs/n"}}}], "$defs": {"n": {"type": "integer"}}}', c3)),
			c4 TEXT CHECK (jsonschema_matches('{"type": "array", "prefixItems": [{"type": "string"}]}', c4)),
			c5 TEXT CHECK (jsonschema_matches('{"oneOf": [{}, {"type": "string"}]}', c5)),
			c6 TEXT CHECK (jsonschema_matches('false', c6)),
			c7 TEXT CHECK (jsonschema_matches('{"$ref": "#"}', c7)),
			c8 TEXT CHECK (jsonschema_matches('{"type": "object", "patternProperties": {"^x": {}}, "additionalProperties": false, "properties": {"__proto__": {"type": "boolean"}}}', c8)),
			c9 TEXT CHECK (jsonschema_matches('{"type": "object", "additionalProperties": false}', c9))) STRICT;`)
	return db
}

func typedAPIs() []records.API {
	return append(describedAPIs(),
		records.API{Name: "1st", Table: "odd", World: all},
		records.API{Name: "string", Table: "loose", World: all},
		records.API{Name: "a_b", Table: "choice", World: all},
		records.API{Name: "aB", Table: "person", World: records.Read, Exclude: []string{"meta", "salary"}},
		records.API{Name: "person_insert", Table: "hideout", World: records.Read},
		records.API{Name: "geometry", Table: "hideout", World: records.Read},
		records.API{Name: "__", Table: "hideout", World: records.Read},
	)
}

func typesIn(t testing.TB, svc *records.Service, lang string) string {
	t.Helper()
	var b strings.Builder
	if err := svc.WriteTypes(&b, lang); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTypes(t *testing.T) {
	t.Parallel()
	db := typedDB(t)
	svc := describer(t, db, typedAPIs()...)
	ts, model := typesIn(t, svc, "ts"), typesIn(t, svc, "go")
	for _, text := range []string{ts, model} {
		for _, word := range []string{"hidden", "secret", "salary", "_map"} {
			if strings.Contains(text, word) {
				t.Errorf("%q is shown", word)
			}
		}
		if strings.Contains(text, "*/") != strings.Contains(text, `"*/ x"`) {
			t.Error("a name ends a comment")
		}
	}
	if ts != typesIn(t, svc, "ts") || model != typesIn(t, svc, "go") {
		t.Error("the order is left to chance")
	}
	apitest.Golden(t, "testdata/types/types.ts", ts)
	apitest.Golden(t, "testdata/types/model.go", model)
	var early strings.Builder
	cfg := records.Config{APIs: typedAPIs(), Files: &records.FilesConfig{Store: describedFiles{}}}
	if err := records.WriteTypes(t.Context(), &early, db, cfg, "ts"); err != nil || early.String() != ts {
		t.Errorf("without a service they are others: %v", err)
	}
	cfg.APIs = append(cfg.APIs, records.API{Name: "more", Table: "nothing"})
	if err := records.WriteTypes(t.Context(), &early, db, cfg, "ts"); err == nil || !strings.Contains(err.Error(), `"more"`) {
		t.Error(err)
	}
	if err := svc.WriteTypes(failingWriter{}, "ts"); !errors.Is(err, errFull) {
		t.Error(err)
	}
	if err := svc.WriteTypes(&strings.Builder{}, "cobol"); err == nil {
		t.Error("any language will do")
	}
}

var errFull = errors.New("full")

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errFull }

// The declarations in Go are such, and vet finds nothing in them.
func TestTypesCompile(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: compiles the package")
	}
	t.Parallel()
	if out, err := exec.CommandContext(t.Context(), "go", "vet", "./testdata/types").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
