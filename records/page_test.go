package records_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

// A page of large records, or with the same large record expanded many times,
// ends early; its cursor leads on to the rest.
func TestLargePages(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds pages of 32 MiB")
	}
	const most = 40 << 20
	db := openDB(t, `CREATE TABLE big (id INTEGER PRIMARY KEY, s TEXT) STRICT; CREATE TABLE ref (id INTEGER PRIMARY KEY, big INTEGER REFERENCES big(id)) STRICT;
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12) INSERT INTO big SELECT i, printf('%.*c', 4000000, 'x') FROM n;
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12) INSERT INTO ref SELECT i, 1 FROM n`)
	h := serve(t, db, records.API{Name: "big", Table: "big", World: records.Read}, records.API{Name: "ref", Table: "ref", World: records.Read, Expand: []string{"big"}})
	wanted := []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"}
	for _, target := range []string{"/big?order=id&limit=100", "/ref?order=id&limit=100&expand=big", "/big?order=s&limit=100&skip_cursor=true"} {
		r := get(h, "", target)
		if len(r.body) > most {
			t.Errorf("%s: %d bytes", target, len(r.body))
		}
		if strings.Contains(target, "order=s") { // nothing would tell that there is more
			wantStatus(t, r, 400)
			continue
		}
		if got := walk(t, h, target, nil); !slices.Equal(got, wanted) {
			t.Errorf("%s: %v", target, got)
		}
	}
}

// However this handle changes the schema, the next request sees it.
func TestEveryWayToChangeTheSchema(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	openFile(t, filepath.Join(dir, "other.db"), `CREATE TABLE far (id INTEGER PRIMARY KEY) STRICT; INSERT INTO far VALUES (1)`, sqlite.Options{})
	db := openFile(t, filepath.Join(dir, "main.db"), `CREATE TABLE near (id INTEGER PRIMARY KEY) STRICT; INSERT INTO near VALUES (1)`, sqlite.Options{Attach: []sqlite.Attachment{{Name: "other", Path: filepath.Join(dir, "other.db")}}})
	h := serve(t, db, records.API{Name: "far", Table: "other.far", World: everything}, records.API{Name: "near", Table: "near", World: everything})
	has := func(api, column string) bool {
		r := get(h, "", "/"+api+"/1")
		if r.status != 200 {
			t.Errorf("%v", r)
		}
		return strings.Contains(r.body, `"`+column+`":`)
	}
	has("far", "x")
	execSQL(t, db, `ALTER TABLE other.far ADD COLUMN a TEXT`)
	if !has("far", "a") {
		t.Error("a change of the attached file is not seen")
	}
	execSQL(t, db, `CREATE TEMP TABLE x (y); DROP TABLE x; ALTER TABLE near ADD COLUMN a TEXT`)
	if !has("near", "a") {
		t.Error("a change by a script is not seen")
	}
	ctx := context.Background()
	if err := db.Migrate(ctx, fstest.MapFS{"0001_a.sql": {Data: []byte(`ALTER TABLE near ADD COLUMN b TEXT;`)}}); err != nil {
		t.Fatal(err)
	}
	if !has("near", "b") {
		t.Error("a migration is not seen")
	}
	err := db.Update(ctx, func(tx *sqlite.Tx) error {
		if _, err := tx.ExecContext(ctx, `ALTER TABLE near ADD COLUMN c TEXT`); err != nil {
			return err
		}
		return context.Canceled
	})
	if !errors.Is(err, context.Canceled) || has("near", "c") {
		t.Errorf("a change that was rolled back is seen, %v", err)
	}
	err = db.Update(ctx, func(tx *sqlite.Tx) error {
		st, err := tx.PrepareContext(ctx, `ALTER TABLE near ADD COLUMN d TEXT`)
		if err != nil {
			return err
		}
		defer func() { _ = st.Close() }()
		_, err = st.ExecContext(ctx)
		return err
	})
	if err != nil || !has("near", "d") {
		t.Errorf("a prepared change is not seen, %v", err)
	}
	if err := db.Write(ctx, sqlite.Stmt{SQL: `ALTER TABLE near ADD COLUMN e TEXT`}); err != nil {
		t.Fatal(err)
	}
	if !has("near", "e") {
		t.Log("a change by Write is seen a second later")
	}
}
