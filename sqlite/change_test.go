package sqlite_test

import (
	"database/sql/driver"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

func TestChangeLogOf(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, "", sqlite.Options{Attach: []sqlite.Attachment{{Name: "other", Path: filepath.Join(t.TempDir(), "other.db")}}})
	a, err := db.ChangeLog("main")
	check(t, err)
	b, err := db.ChangeLog("Main")
	check(t, err)
	c, err := db.ChangeLog("other")
	check(t, err)
	if a != b || a == c {
		t.Error("there is one log for each database")
	}
	for _, name := range []string{"", "temp", "none"} {
		if _, err := db.ChangeLog(name); err == nil {
			t.Errorf("no error for database %q", name)
		}
	}
}

func TestTrackRefuses(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema+`;
		CREATE VIEW v AS SELECT id FROM item;
		CREATE VIRTUAL TABLE f USING rtree(id, a, b);
		CREATE TABLE seq (id INTEGER PRIMARY KEY AUTOINCREMENT)`)
	l, err := db.ChangeLog("main")
	check(t, err)
	check(t, db.Migrate(bg, migrations()))
	err = l.Track(bg, "item", "v", "f", "f_node", "sqlite_sequence", "_migration", "_change", "_CHANGE_state", "none", `it"em`)
	if err == nil {
		t.Fatal("no error")
	}
	for _, name := range []string{`"v"`, `"f"`, `"f_node"`, `"sqlite_sequence"`, `"_migration"`, `"_change"`, `"_CHANGE_state"`, `"none"`, `"it\"em"`} {
		if !strings.Contains(err.Error(), "table "+name) {
			t.Errorf("%v does not tell of %s", err, name)
		}
	}
	if tables, err := l.Tracked(bg); err != nil || len(tables) != 0 {
		t.Errorf("tracked are %v, %v", tables, err)
	}
	f := follow(t, db, l)
	check(t, write(db, 1)())
	f.want()
}

func TestTrack(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "test.db")
	db := sqlitetest.OpenFile(t, path, itemSchema+`; CREATE TABLE "a ""b" (x, "y ""z"); CREATE TABLE "item_i" (x)`)
	l := mainLog(t, db, "ITEM", `A "b`, "item_i")
	f := follow(t, db, l)
	version := schemaVersion(t, db)
	check(t, l.Install(bg))
	check(t, l.Track(bg, "item", `a "B`))
	check(t, l.Track(bg))
	if got := schemaVersion(t, db); got != version {
		t.Error("the schema was changed once more")
	}
	f.want()

	execute(t, db, "INSERT INTO item VALUES (1, 'a')", `INSERT INTO "a ""b" VALUES (1, 'b')`, "INSERT INTO item_i VALUES (2)",
		"UPDATE item SET note = 'c'", "DELETE FROM item")
	f.want("item: insert [1 a]", `a "b: insert [1 b]`, "item_i: insert [2]", "item: update [1 a] [1 c]", "item: delete [1 c]")

	tables, err := l.Tracked(bg)
	if want := []string{`a "b`, "item", "item_i"}; err != nil || !reflect.DeepEqual(tables, want) {
		t.Errorf("tracked are %v, %v, want %v", tables, err, want)
	}
	check(t, l.Untrack(bg, "Item", "none"))
	check(t, write(db, 2)())
	f.want("item: break")
	check(t, db.Close())

	// Tracking is kept in the file, and more tables come on top.
	db = sqlitetest.OpenFile(t, path, "")
	l = mainLog(t, db, "item")
	f = &follower{t, db, l, f.at}
	execute(t, db, "INSERT INTO item_i VALUES (3)", "INSERT INTO item VALUES (3, 'd')")
	f.want("item: break", "item_i: insert [3]", "item: insert [3 d]")
}

func TestTrackAttached(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Attach: []sqlite.Attachment{{Name: "other", Path: filepath.Join(t.TempDir(), "other.db")}}})
	execute(t, db, "CREATE TABLE other.item (id INTEGER PRIMARY KEY, x)", "CREATE TABLE other.only (id INTEGER PRIMARY KEY)")
	a, err := db.ChangeLog("main")
	check(t, err)
	if err := a.Track(bg, "only"); err == nil {
		t.Error("a table of another database was tracked")
	}
	check(t, a.Track(bg, "item"))
	b, err := db.ChangeLog("other")
	check(t, err)
	check(t, b.Track(bg, "item", "only"))
	fa, fb := follow(t, db, a), follow(t, db, b)
	if fa.at.Epoch == fb.at.Epoch {
		t.Error("two logs have one epoch")
	}
	execute(t, db, "INSERT INTO main.item VALUES (1, 'a')", "INSERT INTO other.item VALUES (2, x'00ff')", "INSERT INTO other.only VALUES (3)",
		"ALTER TABLE other.item ADD COLUMN y", "INSERT INTO other.item VALUES (4, 5, 6)")
	fa.want("item: insert [1 a]")
	fb.want("only: insert [3]", "item: break", "item: insert [4 5 6]")
}

func TestHead(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	l := mainLog(t, db, "item")
	for id := range int64(5) {
		before := head(t, l)
		check(t, write(db, id)())
		after := head(t, l)
		if after.Epoch != before.Epoch || after.Seq != before.Seq+1 {
			t.Errorf("head is %v after %v", after, before)
		}
		if text := value(t, db, "SELECT "+l.HeadExpr()); text != after.String() {
			t.Errorf("text is %v, want %v", text, after)
		}
		if p, err := sqlite.ParsePosition(after.String()); err != nil || p != after {
			t.Errorf("text is read as %v, %v", p, err)
		}
		if n := len(after.Epoch); n < 8 || n > 12 || strings.ToLower(after.Epoch) != after.Epoch {
			t.Errorf("epoch is %q", after.Epoch)
		}
	}
	// Neither scans the log.
	sandbox, err := db.Sandbox(bg, func(string) bool { return true })
	check(t, err)
	defer func() { check(t, sandbox.Close()) }()
	steps, err := sandbox.Plan("SELECT "+l.HeadExpr(), nil)
	check(t, err)
	for _, step := range steps {
		if strings.Contains(step, "SCAN c") {
			t.Errorf("plan is %q", steps)
		}
	}
}

func TestPublish(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	l := mainLog(t, db, "item")
	f := follow(t, db, l)
	check(t, l.Publish(bg, "news", []byte(`{"a": 1}`)))
	err := db.Update(bg, func(tx *sqlite.Tx) error {
		return errors.Join(exec(tx, 1), l.PublishTx(bg, tx, "news", []byte(`"b"`)), exec(tx, 2))
	})
	check(t, err)
	wantErr(t, db.Update(bg, func(tx *sqlite.Tx) error {
		return errors.Join(l.PublishTx(bg, tx, "news", []byte(`"lost"`)), errOwn)
	}), errOwn)
	f.want(`event news {"a": 1}`, "item: insert [1 <nil>]", `event news "b"`, "item: insert [2 <nil>]")

	big := []byte(`"` + strings.Repeat("x", 1<<20) + `"`)
	for _, bad := range []struct {
		channel string
		event   []byte
	}{{"", []byte("1")}, {strings.Repeat("x", 1025), []byte("1")}, {"\xff", []byte("1")}, {"a\x00b", []byte("1")}, {"a", nil},
		{"a", []byte("{")}, {"a", []byte("1 2")}, {"a", []byte("\"\xff\"")}, {"a", big}} {
		if err := l.Publish(bg, bad.channel, bad.event); err == nil {
			t.Errorf("Publish(%.10q, %.10q) gives no error", bad.channel, bad.event)
		}
		err := db.Update(bg, func(tx *sqlite.Tx) error { return l.PublishTx(bg, tx, bad.channel, bad.event) })
		if err == nil {
			t.Errorf("PublishTx(%.10q, %.10q) gives no error", bad.channel, bad.event)
		}
	}
	f.want()
}

func TestParsePosition(t *testing.T) {
	t.Parallel()
	if p, err := sqlite.ParsePosition("abc.12"); err != nil || p != (sqlite.Position{Epoch: "abc", Seq: 12}) {
		t.Errorf("position is %v, %v", p, err)
	}
	for _, bad := range []string{"", ".", "a", "a.", ".1", "a.-1", "a.+1", "a.1.2", "a.x", "a.1 ", " a.1", "a b.1", "a.9223372036854775808",
		"a\n.1", "ü.1", strings.Repeat("a", 33) + ".1"} {
		if p, err := sqlite.ParsePosition(bad); !errors.Is(err, sqlite.ErrPosition) {
			t.Errorf("%q is read as %v, %v", bad, p, err)
		}
	}
}

// A copy of a file that is opened as a file of its own has an epoch of its own.
func TestEpochOfACopy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := sqlitetest.OpenFile(t, filepath.Join(dir, "a.db"), itemSchema)
	l := mainLog(t, db, "item")
	check(t, write(db, 1)())
	before := head(t, l)
	outsideExec(t, outside(t, db), "VACUUM INTO '"+filepath.Join(dir, "b.db")+"'")

	copied := sqlitetest.OpenFile(t, filepath.Join(dir, "b.db"), "")
	copiedLog, err := copied.ChangeLog("main")
	check(t, err)
	check(t, copiedLog.Install(bg))
	after := head(t, copiedLog)
	if after.Epoch == before.Epoch || after.Seq != before.Seq {
		t.Errorf("head of the copy is %v, that of the original %v", after, before)
	}
	if p := page(t, copied, copiedLog, before, 1<<40, 10); !p.Gap || len(p.Changes) != 0 || p.End != after {
		t.Errorf("page is %+v", p)
	}
	if now := head(t, l); now != before {
		t.Errorf("head of the original became %v", now)
	}
	check(t, copiedLog.Renew(bg))
	if renewed := head(t, copiedLog); renewed.Epoch == after.Epoch || renewed.Seq != after.Seq {
		t.Errorf("head is %v after Renew, was %v", renewed, after)
	}
	check(t, copied.Close())
	copied = sqlitetest.OpenFile(t, filepath.Join(dir, "b.db"), "")
	again, err := copied.ChangeLog("main")
	check(t, err)
	if now := head(t, again); now.Epoch == after.Epoch || now.Epoch == before.Epoch {
		t.Errorf("head is %v when opened again", now)
	}
}

// A file that is put in the place of another one may have the same inode.
func TestEpochOfARestoredFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.db")
	db := sqlitetest.OpenFile(t, path, itemSchema)
	before := head(t, mainLog(t, db, "item"))
	check(t, db.Close())
	backup, err := os.ReadFile(path)
	check(t, err)
	check(t, os.Remove(path))
	check(t, os.WriteFile(path, backup, 0o600))
	db = sqlitetest.OpenFile(t, path, "")
	if now := head(t, mainLog(t, db)); now.Epoch == before.Epoch {
		t.Errorf("head is %v, was %v", now, before)
	}
}

func TestChangeLogClosed(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	l := mainLog(t, db, "item")
	at := head(t, l)
	check(t, db.Close())
	_, headErr := l.Head(bg)
	_, trackedErr := l.Tracked(bg)
	for name, err := range map[string]error{"Install": l.Install(bg), "Track": l.Track(bg, "item"), "Untrack": l.Untrack(bg, "item"),
		"Head": headErr, "Tracked": trackedErr, "Wait": l.Wait(bg, at), "Publish": l.Publish(bg, "a", []byte("1")), "Prune": l.Prune(bg),
		"Renew": l.Renew(bg), "WithoutChangeFeed": l.WithoutChangeFeed(bg, func(*sqlite.Tx) error { return nil })} {
		if !errors.Is(err, sqlite.ErrClosed) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

func schemaVersion(tb testing.TB, db *sqlite.DB) int64 {
	tb.Helper()
	v, err := db.SchemaVersion(bg)
	check(tb, err)
	return v
}

// LastInsertId and RowsAffected are those of the statement, not of the log.
func TestChangeLogHidesItsWork(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	l := mainLog(t, db, "item")
	f := follow(t, db, l)
	check(t, db.Update(bg, func(tx *sqlite.Tx) error {
		for _, s := range []struct {
			query    string
			id, rows int64
		}{
			{"INSERT INTO item VALUES (1000, 'a'), (1001, 'b')", 1001, 2},
			{"UPDATE item SET note = 'c'", 1001, 2},
			{"INSERT INTO item VALUES (7, 'd')", 7, 1},
			{"DELETE FROM item WHERE id > 500", 7, 2},
			{"DELETE FROM item", 7, 1},
		} {
			res, err := tx.ExecContext(bg, s.query)
			if err != nil {
				return err
			}
			id, _ := res.LastInsertId()
			rows, _ := res.RowsAffected()
			if id != s.id || rows != s.rows {
				t.Errorf("%s: LastInsertId %d, RowsAffected %d", s.query, id, rows)
			}
		}
		var ids []int64
		rows, err := tx.QueryContext(bg, "INSERT INTO item VALUES (1, 'a'), (2, 'b') RETURNING id")
		if err != nil {
			return err
		}
		defer func() { check(t, rows.Close()) }()
		for rows.Next() {
			var id int64
			check(t, rows.Scan(&id))
			ids = append(ids, id)
		}
		if !reflect.DeepEqual(ids, []int64{1, 2}) {
			t.Errorf("returned were %v", ids)
		}
		return rows.Err()
	}))
	if n := len(f.changes()); n != 10 {
		t.Errorf("%d changes", n)
	}
	if n := value(t, db, "SELECT count(*) FROM item"); n != driver.Value(int64(2)) {
		t.Errorf("%v items", n)
	}
}
