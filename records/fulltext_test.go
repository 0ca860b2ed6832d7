//go:build !sqlite_fts5 && !fts5

package records_test

import (
	"strings"
	"testing"

	"github.com/bedplate/bedplate/records"
)

// Without FTS5, the start says what is missing.
func TestFullTextNotCompiledIn(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT) STRICT`)
	_, err := tryServe(db, records.API{Name: "t", Table: "t", FullText: "t_fts"})
	if err == nil || !strings.Contains(err.Error(), `api "t": full text "t_fts": FTS5 is not compiled in; build the program with -tags sqlite_fts5`) {
		t.Error(err)
	}
	_, err = tryServe(db, records.API{Name: "t", Table: "t", FullText: "t_fts", ReadRule: "_ROW_.s = 'x'"})
	if err == nil || !strings.Contains(err.Error(), `api "t": full text "t_fts": not together with a read rule`) {
		t.Error(err)
	}
	h := serve(t, db, records.API{Name: "t", Table: "t", World: records.Read})
	want(t, get(h, "", "/t?match=a"), 400, "Invalid match query")
}
