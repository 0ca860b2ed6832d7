package sqlite_test

import (
	"database/sql/driver"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/sqlitetest"
)

func TestSandbox(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema+"; CREATE INDEX by_note ON item (note)")
	sandbox, err := db.Sandbox(bg, func(f string) bool { return f == "lower" || f == "count" })
	check(t, err)
	defer func() { check(t, sandbox.Close()) }()
	refused := []string{
		"INSERT INTO item (id) VALUES (1)", "INSERT INTO item (id) VALUES (1) RETURNING id", "UPDATE item SET note = ''", "DELETE FROM item", "REPLACE INTO item (id) VALUES (1)",
		"CREATE TABLE x (id)", "CREATE TEMP TABLE x (id)", "CREATE VIEW x AS SELECT 1", "DROP TABLE item", "ALTER TABLE item ADD COLUMN x", "CREATE TRIGGER x AFTER INSERT ON item BEGIN SELECT 1; END",
		"PRAGMA user_version", "PRAGMA query_only=OFF", "ATTACH ':memory:' AS x", "DETACH main", "BEGIN", "COMMIT", "SAVEPOINT x", "VACUUM", "VACUUM INTO '/tmp/x'", "REINDEX", "ANALYZE",
		"SELECT load_extension('x')", "SELECT randomblob(1)", "SELECT zeroblob(1000000000)", "SELECT upper('x')", "SELECT count(*), max(id) FROM item",
		endless + "SELECT count(*) FROM n", "SELECT * FROM (" + endless + "SELECT i FROM n)",
		"WITH x AS (SELECT 1) DELETE FROM item", "EXPLAIN DELETE FROM item", "SELECT * FROM nowhere", "SELECT", "SELECT 1 FROM item WHERE",
		"SELECT 1; DELETE FROM item", "SELECT 1; SELECT 2", "/**/", "",
		"SELECT * FROM pragma_table_info('item')", "SELECT * FROM pragma_query_only",
	}
	allowed := map[string]int{
		"SELECT 1": 0, "SELECT lower(note) FROM item WHERE id = ?1 OR note = ?2": 2, "SELECT count(*) FROM item": 0, "SELECT id FROM item WHERE note = :a": 1,
		"WITH x AS (SELECT 1 AS a) SELECT a FROM x": 0, "SELECT 1 -- comment": 0,
	}
	for range 2 {
		for _, query := range refused {
			if _, err := sandbox.Prepare(query); err == nil {
				t.Errorf("permitted: %s", query)
			}
		}
		for query, want := range allowed {
			if n, err := sandbox.Prepare(query); err != nil || n != want {
				t.Errorf("%s: %d parameters, %v", query, n, err)
			}
		}
		// What Plan does must not open the sandbox for the second round.
		steps, err := sandbox.Plan("SELECT id FROM item WHERE note = ?", []driver.Value{"x"})
		if err != nil || !strings.Contains(strings.Join(steps, "\n"), "by_note") {
			t.Errorf("plan: %q, %v", steps, err)
		}
	}
	for query, part := range map[string]string{
		"SELECT randomblob(1)": "randomblob", endless + "SELECT 1 FROM n": "recurs", "DELETE FROM item": "allowed", "SELECT x FROM item": "no such column",
	} {
		if _, err := sandbox.Prepare(query); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %v does not say %q", query, err, part)
		}
	}
	check(t, write(db, 1)())
	wantItems(t, db, 1)
	if v := value(t, db, "SELECT count(*) FROM sqlite_master"); v != int64(2) {
		t.Errorf("%v objects", v)
	}
}
