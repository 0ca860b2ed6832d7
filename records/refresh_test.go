package records_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

// A failure while the APIs are compiled anew, here because no connection can
// be opened for a moment, is not a verdict about the APIs.
func TestRefreshFailsForAMoment(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "test.db")
	db := openFile(t, path, `CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT) STRICT; INSERT INTO t VALUES (1, 'a')`, sqlite.Options{Readers: 2})
	h := serve(t, db, records.API{Name: "t", Table: "t", World: everything})
	wantStatus(t, get(h, "", "/t/1"), 200)
	execSQL(t, db, `CREATE TABLE other (id INTEGER)`)
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	get(h, "", "/t/1")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return get(h, "", "/t/1").status == 200 })
}
