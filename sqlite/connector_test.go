package sqlite_test

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/sqlite"
)

// A table whose CHECK names a custom schema can be checked as a whole, which
// the driver by its name cannot do.
func TestNewConnector(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "copy.db")
	connector, err := sqlite.NewConnector(path, map[string]string{"mine": `{"type": "object"}`})
	check(t, err)
	db := sql.OpenDB(connector)
	defer db.Close()
	_, err = db.ExecContext(bg, `CREATE TABLE t (id INTEGER PRIMARY KEY, doc TEXT CHECK (jsonschema('mine', doc)));
		INSERT INTO t (doc) VALUES ('{}')`)
	check(t, err)
	if _, err := db.ExecContext(bg, `INSERT INTO t (doc) VALUES ('[]')`); sqlite.Code(err) != 275 {
		t.Errorf("what the schema refuses: %v", err)
	}
	byName, err := sql.Open(sqlite.DriverName, path)
	check(t, err)
	defer byName.Close()
	for name, tt := range map[string]struct {
		db   *sql.DB
		want bool
	}{"connector": {db, true}, "driver": {byName, false}} {
		var result string
		err := tt.db.QueryRowContext(bg, "PRAGMA integrity_check").Scan(&result)
		if ok := err == nil && result == "ok"; ok != tt.want {
			t.Errorf("%s: %q, %v", name, result, err)
		}
	}
}

func TestNewConnectorRefuses(t *testing.T) {
	t.Parallel()
	_, err := sqlite.NewConnector("x.db", map[string]string{"a": "{", "std.x": "{}"})
	if err == nil || !strings.Contains(err.Error(), `"a"`) || !strings.Contains(err.Error(), `"std.x"`) {
		t.Errorf("error %v", err)
	}
}
