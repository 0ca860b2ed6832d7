package sqlite_test

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/bedplate/bedplate/sqlite"
)

// Whatever jsonschema() knows by a name, JSONSchema returns by it.
func TestJSONSchema(t *testing.T) {
	t.Parallel()
	const own = `{"type": "object"}`
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "test.db"), sqlite.Options{Ballast: -1, Schemas: map[string]string{"own": own}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, name := range []string{"own", "std.FileUpload", "std.FileUploads", "std.KeyValue"} {
		text, ok := db.JSONSchema(name)
		if !ok || !json.Valid([]byte(text)) {
			t.Errorf("%s: %q, %v", name, text, ok)
		}
		if name == "own" && text != own {
			t.Errorf("own is %q", text)
		}
		if err := db.Query(t.Context(), "SELECT jsonschema('"+name+"', NULL)", nil, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"", "other", "std.Other"} {
		if text, ok := db.JSONSchema(name); ok || text != "" {
			t.Errorf("%q: %q, %v", name, text, ok)
		}
	}
}
