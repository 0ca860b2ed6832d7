package records_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

// checkCounts compares the registry with what the rows of doc-like tables say.
func checkCounts(t testing.TB, db *sqlite.DB, columns ...string) {
	t.Helper()
	var parts []string
	for _, c := range columns {
		table, column, _ := strings.Cut(c, ".")
		parts = append(parts, fmt.Sprintf(`SELECT e.value AS id FROM %s, json_tree(%s) AS e WHERE e.key = 'id'`, quoted(table), quoted(column)))
	}
	refs := rowsOf(t, db, `SELECT id, count(*) FROM (`+strings.Join(parts, " UNION ALL ")+`) GROUP BY id ORDER BY id`)
	have := rowsOf(t, db, `SELECT id, refs FROM _file WHERE refs <> 0 ORDER BY id`)
	if fmt.Sprint(refs) != fmt.Sprint(have) {
		t.Errorf("rows refer to %v, the registry has %v", refs, have)
	}
}

// checkSums compares the sums that quotas go by with the registry.
func checkSums(t testing.TB, db *sqlite.DB) {
	t.Helper()
	want := rowsOf(t, db, `SELECT quote(owner) AS o, sum(size) FROM _file GROUP BY owner HAVING sum(size) > 0 UNION ALL SELECT '', sum(size) FROM _file HAVING sum(size) > 0 ORDER BY o`)
	if have := rowsOf(t, db, `SELECT owner, bytes FROM _file_usage WHERE bytes <> 0 ORDER BY owner`); fmt.Sprint(have) != fmt.Sprint(want) {
		t.Errorf("sums of bytes: %v, want %v", have, want)
	}
}

func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// Whoever writes, the registry counts, and a file lives as long as a value
// refers to it.
func TestFilesCounted(t *testing.T) {
	t.Parallel()
	f := newFileService(t, fileSchema+`CREATE TABLE copy (id INTEGER PRIMARY KEY, doc INTEGER REFERENCES doc ON DELETE CASCADE,
		f TEXT CHECK (jsonschema('std.FileUploads', f))) STRICT`, records.FilesConfig{})
	path := f.create(`{"one":` + fileJSON("a", "", "A") + `,"many":[` + fileJSON("b", "", "B") + `,` + fileJSON("c", "", "C") + `]}`)
	other := f.create(`{}`)
	collect := func() { want(t, call(f, "", "PATCH", other, `{"title":null}`), 200, "") }
	columns := []string{"doc.one", "doc.many", "doc.image", "doc._secret", "copy.f"}
	run := func(script string, contents ...string) {
		t.Helper()
		execSQL(t, f.db, script)
		checkCounts(t, f.db, columns...)
		collect()
		checkCounts(t, f.db, columns...)
		f.wantStored(contents...)
	}
	run(`INSERT INTO doc (id, one, many) SELECT 100, one, many FROM doc WHERE id = 1`, "A", "B", "C")
	run(`INSERT INTO copy (id, doc, f) SELECT 1, 100, many FROM doc WHERE id = 1; INSERT INTO copy (id, doc, f) SELECT 2, 100, json_array(json(one), json(one)) FROM doc WHERE id = 1`, "A", "B", "C")
	want(t, call(f, "", "DELETE", path, ""), 200, "deleted")
	f.wantStored("A", "B", "C")
	run(`UPDATE doc SET many = NULL WHERE id = 100`, "A", "B", "C")
	run(`UPDATE copy SET f = json_remove(f, '$[0]') WHERE id = 1`, "A", "C")
	run(`UPDATE copy SET f = json_array(json_extract(f, '$[0]'), json_extract(f, '$[0]'), json('{"filename":"no id"}')) WHERE id = 1`, "A", "C")
	run(`UPDATE copy SET id = id + 10`, "A", "C")
	run(`UPDATE doc SET one = json_set(one, '$.filename', 'renamed') WHERE id = 100`, "A", "C")
	run(`INSERT INTO doc (id, title, one) VALUES (7, 'x', NULL) ON CONFLICT DO NOTHING; INSERT OR IGNORE INTO doc (id, one) SELECT 100, one FROM doc WHERE id = 100`, "A", "C")
	run(`INSERT INTO doc (id, one) SELECT 100, one FROM doc WHERE id = 100 ON CONFLICT (id) DO UPDATE SET one = excluded.one, title = 'upsert'`, "A", "C")
	run(`INSERT OR REPLACE INTO copy (id, f) SELECT 50, f FROM copy WHERE id = 11`, "A", "C")
	run(`DELETE FROM doc WHERE id = 100`, "C") // and what refers to it, but not 50
	run(`DELETE FROM copy`)
}

// An error of the statement undoes the count with it.
func TestFilesCountedWithErrors(t *testing.T) {
	t.Parallel()
	f := newFileService(t, fileSchema, records.FilesConfig{})
	f.create(`{"title":"a","one":` + fileJSON("a", "", "A") + `}`)
	f.create(`{"title":"b","one":` + fileJSON("b", "", "B") + `}`)
	for _, script := range []string{
		`UPDATE doc SET one = NULL, title = 'x'`,
		`INSERT INTO doc (title, one) SELECT 'c', one FROM doc UNION ALL SELECT 'a', one FROM doc`,
		`UPDATE OR ABORT doc SET one = '{"id":7}'`,
	} {
		err := f.db.Update(context.Background(), func(tx *sqlite.Tx) error {
			_, err := tx.ExecContext(context.Background(), script)
			return err
		})
		if err == nil {
			t.Errorf("%s: no error", script)
		}
	}
	execSQL(t, f.db, `UPDATE OR IGNORE doc SET title = 'x', one = NULL; UPDATE OR REPLACE doc SET title = title`)
	checkCounts(t, f.db, "doc.one")
	if _, err := f.svc.SweepFiles(context.Background()); err != nil {
		t.Error(err)
	}
	f.wantStored("B")
}

// Values that are no metadata at all are left alone: other tools write what
// they like.
func TestFilesCountedWhateverTheValue(t *testing.T) {
	t.Parallel()
	f := newFileService(t, `CREATE TABLE "doc" (id INTEGER PRIMARY KEY, [o"dd 'name] ANY CHECK (jsonschema('std.FileUploads', "o""dd 'name") OR 1));
		CREATE TABLE "x; DROP TABLE doc" (id TEXT PRIMARY KEY, "NEW" CHECK (jsonschema('std.FileUpload', "NEW") OR 1)) WITHOUT ROWID`, records.FilesConfig{})
	for _, value := range []string{
		`NULL`, `7`, `1.5`, `x'00'`, `x'7b7d'`, `''`, `'{'`, `'null'`, `'7'`, `'"text"'`, `'[]'`, `'{}'`, `'[[]]'`, `'[null,1,"x",[{"id":"deep"}]]'`, `'{"id":null}'`, `'{"id":7}'`,
		`'{"id":["x"]}'`, `'{id:"json5"}'`, `jsonb('{"id":"b"}')`, `'{"id":"a","id":"b"}'`, `'[{"id":"a"},{"id":"a"}]'`, `'{"id":""}'`, `'{"id":"it''s"}'`, `json('{"id":"sub"}')`,
	} {
		execSQL(t, f.db, `INSERT INTO doc VALUES (1, `+value+`); INSERT INTO "x; DROP TABLE doc" VALUES ('k', `+value+`);
			UPDATE doc SET id = 2, "o""dd 'name" = NULL; UPDATE doc SET "o""dd 'name" = `+value+`; UPDATE "x; DROP TABLE doc" SET "NEW" = (SELECT "o""dd 'name" FROM doc)`)
		if got := one(t, f.db, `SELECT count(*) FROM _file WHERE refs < 0 OR typeof(id) <> 'text'`); got != "0" {
			t.Errorf("%s: %s odd entries", value, got)
		}
		wantStatus(t, get(f, "", "/doc/2"), 200)
		execSQL(t, f.db, `DELETE FROM doc; DELETE FROM "x; DROP TABLE doc"`)
		if got := one(t, f.db, `SELECT coalesce(sum(refs), 0) FROM _file`); got != "0" {
			t.Errorf("%s: %s references are left", value, got)
		}
	}
}

// Files that were there before the registry, and tables that are made anew,
// are counted when that is noticed.
func TestFilesCountedAfterSchemaChanges(t *testing.T) {
	t.Parallel()
	db := openDB(t, fileSchema+`INSERT INTO doc (id, one) VALUES (500, '{"id":"before","filename":"b"}'), (501, '{"id":"before","filename":"b"}')`)
	store := newMemoryFiles()
	if err := store.Put(context.Background(), "before", strings.NewReader("old"), 3); err != nil {
		t.Fatal(err)
	}
	f := openFileService(t, db, store, records.FilesConfig{})
	checkCounts(t, db, "doc.one")
	want(t, get(f, "", "/doc/500/file/one"), 200, "old")
	want(t, call(f, "", "DELETE", "/doc/500", ""), 200, "deleted")
	f.wantStored("old")
	f.create(`{"title":"a","one":` + fileJSON("a", "", "A") + `}`)

	execSQL(t, db, `ALTER TABLE doc RENAME COLUMN one TO "o n'e"`)
	wantStatus(t, get(f, "", "/doc/501"), 200)
	execSQL(t, db, `UPDATE doc SET "o n'e" = "o n'e" WHERE title = 'a'; INSERT INTO doc (title, "o n'e") SELECT 'copy', "o n'e" FROM doc WHERE title = 'a'`)
	checkCounts(t, db, "doc.o n'e")

	execSQL(t, db, `ALTER TABLE doc RENAME TO paper; CREATE TABLE doc (id INTEGER PRIMARY KEY, f TEXT CHECK (jsonschema('std.FileUpload', f))) STRICT;
		INSERT INTO doc (f) SELECT "o n'e" FROM paper`) // as nobody has noticed yet
	wantStatus(t, get(f, "", "/doc/1"), 200)
	checkCounts(t, db, "doc.f", "paper.o n'e")
	execSQL(t, db, `DROP TABLE paper`) // which fires no triggers
	wantStatus(t, get(f, "", "/doc/1"), 200)
	execSQL(t, db, `UPDATE doc SET f = NULL WHERE id = 1`)
	if _, err := f.svc.SweepFiles(context.Background()); err != nil {
		t.Fatal(err)
	}
	checkCounts(t, db, "doc.f")
	f.wantStored("A")
	names := rowsOf(t, db, `SELECT name FROM sqlite_schema WHERE type = 'trigger' ORDER BY name`)
	if fmt.Sprint(names) != "[[_file__delete] [_file__insert] [_file__update] [_file_doc_delete] [_file_doc_insert] [_file_doc_update]]" {
		t.Errorf("triggers: %v", names)
	}
}

// A table that was made anew has no triggers until that is noticed. Nothing is
// deleted before.
func TestFilesNotCollectedWithoutTriggers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "test.db")
	db := openFile(t, path, fileSchema, sqlite.Options{})
	f := openFileService(t, db, newMemoryFiles(), records.FilesConfig{})
	f.create(`{"id":1,"one":` + fileJSON("a", "", "A") + `}`)
	other := openFile(t, path, "", sqlite.Options{}) // stands for another process
	execSQL(t, other, `DROP TRIGGER _file_doc_insert; DROP TRIGGER _file_doc_update; DROP TRIGGER _file_doc_delete`)
	f.create(`{"id":2,"one":` + fileJSON("b", "", "B") + `}`)
	want(t, call(f, "", "PATCH", "/doc/1", `{"one":`+fileJSON("c", "", "C")+`}`), 200, "")
	want(t, get(f, "", "/doc/1/file/one"), 200, "C")
	want(t, get(f, "", "/doc/2/file/one"), 200, "B")
	if _, err := f.svc.SweepFiles(context.Background()); err != nil {
		t.Fatal(err)
	}
	checkCounts(t, db, "doc.one")
	f.wantStored("B", "C")
}

// An attached database has a registry of its own, and a file that is in
// either stays.
func TestFilesInAttachedDatabase(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := openFile(t, filepath.Join(dir, "test.db"), "", sqlite.Options{Attach: []sqlite.Attachment{{Name: "aux1", Path: filepath.Join(dir, "aux.db")}}})
	execSQL(t, db, fileSchema)
	execSQL(t, db, `CREATE TABLE aux1.doc (id INTEGER PRIMARY KEY, one TEXT CHECK (jsonschema('std.FileUpload', one))) STRICT`)
	f := openFileService(t, db, newMemoryFiles(), records.FilesConfig{}, records.API{Name: "doc", Table: "doc", World: everything}, records.API{Name: "far", Table: "aux1.doc", World: everything})
	path := f.create(`{"one":` + fileJSON("a", "", "A") + `}`)
	far := "/far/" + idsOf(t, call(f, "", "POST", "/far", `{"one":`+fileJSON("b", "", "B")+`}`))[0]
	want(t, get(f, "", far+"/file/one"), 200, "B")
	want(t, get(f, "", path+"/file/one"), 200, "A")
	execSQL(t, db, `INSERT INTO aux1.doc (id, one) SELECT 9, one FROM main.doc`)
	want(t, call(f, "", "DELETE", path, ""), 200, "deleted")
	want(t, get(f, "", "/far/9/file/one"), 200, "A")
	f.store.clock.advance(48 * 3600e9)
	if n, err := f.svc.SweepFiles(context.Background()); n != 0 || err != nil {
		t.Errorf("sweep removed %d, %v", n, err)
	}
	want(t, get(f, "", "/far/9/file/one"), 200, "A")
	want(t, call(f, "", "DELETE", "/far/9", ""), 200, "deleted")
	want(t, call(f, "", "DELETE", far, ""), 200, "deleted")
	if f.store.contents() != "" {
		t.Errorf("left: %s", f.store.contents())
	}
}

// A migration may drop a file column, which the triggers would be in the way
// of. The files in it go with the next sweep.
func TestFileColumnDroppedByMigration(t *testing.T) {
	t.Parallel()
	f := newFileService(t, fileSchema, records.FilesConfig{})
	wantStatus(t, call(f, "", "POST", "/doc", `{"id":1,"one":`+fileJSON("a", "", "A")+`,"image":null,"many":[`+fileJSON("b", "", "B")+`]}`), 200)
	err := f.db.Migrate(context.Background(), fstest.MapFS{"0001_drop.sql": {Data: []byte(`ALTER TABLE doc DROP COLUMN one`)}})
	if err != nil {
		t.Fatal(err)
	}
	wantStatus(t, get(f, "", "/doc/1"), 200)
	f.store.clock.advance(2 * time.Hour)
	if n, err := f.svc.SweepFiles(context.Background()); n != 1 || err != nil {
		t.Errorf("%d swept, %v", n, err)
	}
	f.wantStored("B")
	want(t, call(f, "", "DELETE", "/doc/1", ""), 200, "deleted")
	f.wantStored()
}
