package records_test

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

// What subscribers get of a row is what a list shows of it, apart from
// expansion: no hidden column, no excluded one, no id of a file.
func TestAppendRowIsLikeList(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id BLOB PRIMARY KEY CHECK (is_uuid(id)), "b ""q" TEXT, i INTEGER, r REAL, any ANY, blob BLOB, _hidden TEXT, secret TEXT,
			j TEXT CHECK (jsonschema_matches('{}', j)), f TEXT CHECK (jsonschema('std.FileUpload', f)), fs TEXT CHECK (jsonschema('std.FileUploads', fs)),
			g BLOB CHECK (ST_IsValid(g)), up TEXT AS (upper("b ""q")) STORED, t BLOB REFERENCES t(id)) STRICT;
		INSERT INTO t (id, "b ""q", i, r, any, blob, _hidden, secret, j, f, fs, g) VALUES
			(uuid_parse('01890000-0000-7000-8000-000000000001'), 'x"<é', 9007199254740993, 1, 'a', x'00ff', 'HIDDEN', 'SECRET', '{"a": [1, 2]}',
			 '{"id":"FILEID","filename":"n","content_type":"c","mime_type":"m"}', '[{"id":"FILEID","filename":"n","content_type":"c","mime_type":"m"}]', ST_GeomFromText('POINT(1 2)', 4326)),
			(uuid_parse('01890000-0000-7000-8000-000000000002'), NULL, NULL, 1e300, x'01', NULL, 'HIDDEN', 'SECRET', NULL, NULL, NULL, NULL),
			(uuid_parse('01890000-0000-7000-8000-000000000003'), '', -1, -0.5, 1.5, x'', NULL, NULL, '"text"', NULL, '[]', NULL);
		UPDATE t SET t = uuid_parse('01890000-0000-7000-8000-000000000001')`)
	api := records.API{Name: "t", Table: "t", World: records.Read, Exclude: []string{"secret"}, Subscriptions: true}
	expanding := api
	expanding.Name, expanding.Expand = "expanding", []string{"t"}
	svc := newService(t, db, api, expanding)
	columns, rows := rowsAs(t, db, "t")
	records := list(t, svc, "", "/t?order=id").Records
	if len(records) != len(rows) {
		t.Fatalf("%d records, %d rows", len(records), len(rows))
	}
	for i, record := range records {
		for _, name := range []string{"t", "expanding"} {
			v := view(t, svc, name, "")
			wantRow(t, v, inserts("t", columns, 1, rows[i])[0], false, string(record))
			wantRow(t, v, &sqlite.Change{Op: sqlite.RowDelete, Columns: columns, Old: rows[i]}, true, string(record))
			if key, ok := v.RowKey(inserts("t", columns, 1, rows[i])[0], false).([]byte); !ok || len(key) != 16 {
				t.Errorf("key %v", key)
			}
		}
		for _, word := range []string{"HIDDEN", "SECRET", "FILEID", "hidden", "secret"} {
			if strings.Contains(string(record), word) {
				t.Errorf("%s has %s", record, word)
			}
		}
	}
	if view(t, svc, "t", "").Encoding() != view(t, svc, "expanding", "filter[i]=1").Encoding() {
		t.Error("the same rows have different encodings")
	}
}

// Columns come by name, in whatever order the log has them.
func TestAppendRowColumns(t *testing.T) {
	t.Parallel()
	svc := newService(t, openDB(t, noteSchema), noteAPIs()...)
	v, own := view(t, svc, "note", ""), view(t, svc, "own", "")
	c := &sqlite.Change{Op: sqlite.RowUpdate, Columns: []string{"_secret", "gone", "OWNER", "price", "id", "parent", "body", "file"},
		Old: []driver.Value{"s", "g", "alice", 1.5, int64(7), nil, "a", nil}, New: []driver.Value{"s", "g", "bob", 2.5, int64(8), nil, nil, nil}}
	wantRow(t, v, c, true, `{"body":"a","file":null,"id":7,"owner":"alice","parent":null}`)
	wantRow(t, v, c, false, `{"body":null,"file":null,"id":8,"owner":"bob","parent":null}`)
	if v.RowKey(c, true) != int64(7) || v.RowKey(c, false) != int64(8) {
		t.Error(v.RowKey(c, true), v.RowKey(c, false))
	}
	q := scratch(t, openDB(t, noteSchema))
	if got := judge(t, q, own, []*sqlite.Change{c}, "alice", "bob", "eve"); !slices.Equal(got, []string{"0/0/old", "0/1/new"}) {
		t.Error(got)
	}
}

// A row that leaves the view was visible before and is not after; a delete is
// judged on the row that was, and by what the database holds now.
func TestJudgeImages(t *testing.T) {
	t.Parallel()
	db := openDB(t, noteSchema+`CREATE TABLE friend (a TEXT, b TEXT); INSERT INTO friend VALUES ('alice', 'bob')`)
	api := noteAPIs()[0]
	api.Name, api.ReadRule = "friends", `_ROW_.owner = _USER_.id OR EXISTS (SELECT 1 FROM friend WHERE a = _USER_.id AND b = _ROW_.owner)`
	svc := newService(t, db, append(noteAPIs(), api)...)
	q := scratch(t, db)
	columns := []string{"id", "owner", "body", "_secret", "price", "file", "parent"}
	of := func(owner, body string) []driver.Value {
		return []driver.Value{int64(1), owner, body, "s", 1.5, nil, nil}
	}
	changes := []*sqlite.Change{
		{Seq: 1, Op: sqlite.RowInsert, New: of("bob", "a")},
		{Seq: 2, Op: sqlite.RowUpdate, Old: of("bob", "a"), New: of("bob", "b")},
		{Seq: 3, Op: sqlite.RowUpdate, Old: of("bob", "b"), New: of("eve", "b")},
		{Seq: 4, Op: sqlite.RowDelete, Old: of("eve", "b")},
	}
	for _, c := range changes {
		c.Columns = columns
	}
	for _, test := range []struct {
		api, query string
		want       []string
	}{
		{"own", "", []string{"0/1/new", "1/1/new", "1/1/old", "2/1/old", "2/2/new", "3/2/old"}},
		{"friends", "", []string{"0/0/new", "0/1/new", "1/0/new", "1/0/old", "1/1/new", "1/1/old", "2/0/old", "2/1/old", "2/2/new", "3/2/old"}},
		{"own", "filter[body]=b", []string{"1/1/new", "2/1/old", "2/2/new", "3/2/old"}},
		{"note", "filter[body]=a", []string{"0/0/new", "1/0/old"}},
		{"note", "filter[owner][$is]=NULL", []string{}},
		{"note", "", []string{"0/0/new", "1/0/new", "1/0/old", "2/0/new", "2/0/old", "3/0/old"}},
	} {
		if got := judge(t, q, view(t, svc, test.api, test.query), changes, "alice", "bob", "eve", nil); !slices.Equal(got, test.want) {
			t.Errorf("%s?%s: got %v, want %v", test.api, test.query, got, test.want)
		}
	}
	execSQL(t, db, `DELETE FROM friend`) // from then on, also for what was before
	if got := judge(t, q, view(t, svc, "friends", ""), changes, "alice"); len(got) != 0 {
		t.Error(got)
	}
}

// The tables of the APIs are recorded, those of attached databases, too, and
// lists and reads tell from where to subscribe.
func TestChangeCursor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	openFile(t, filepath.Join(dir, "other.db"), `CREATE TABLE item (id INTEGER PRIMARY KEY, v TEXT) STRICT`, sqlite.Options{})
	db := openFile(t, filepath.Join(dir, "test.db"), noteSchema, sqlite.Options{Attach: []sqlite.Attachment{{Name: "other", Path: filepath.Join(dir, "other.db")}}})
	svc := newService(t, db, append(noteAPIs(), records.API{Name: "item", Table: "other.item", World: everything, Subscriptions: true})...)
	h := signIn(svc)
	head := func(database string) string {
		t.Helper()
		log, err := db.ChangeLog(database)
		if err != nil {
			t.Fatal(err)
		}
		p, err := log.Head(bg)
		if err != nil {
			t.Fatal(err)
		}
		return p.String()
	}
	check := func(r response, status int, want string) {
		t.Helper()
		got := r.header.Get("Change-Cursor")
		if epoch, _, ok := strings.Cut(got, "."); ok && strings.HasPrefix(want, epoch) {
			got = unseal(t, db, got)
		}
		if r.status != status || got != want {
			t.Errorf("%v, position %q, want %q", r, got, want)
		}
	}
	first := head("main")
	for _, target := range []string{"/note/1", "/note/1?expand=", "/note", "/note?count=true&limit=1", "/note?filter[body]=none", "/note?limit=0", "/own"} {
		check(get(h, "alice", target), 200, first)
		check(call(h, "alice", "HEAD", target, ""), 200, first)
	}
	for target, status := range map[string]int{"/note/9": 404, "/own/2": 403, "/own/9": 403, "/members": 403, "/members/1": 403, "/none": 405, "/note?limit=x": 400, "/off": 200, "/off/1": 200} {
		check(get(h, "", target), status, "")
	}
	execSQL(t, db, `UPDATE note SET body = 'c' WHERE id = 1`)
	if head("main") == first {
		t.Error("note is not recorded")
	}
	check(get(h, "", "/note/1"), 200, head("main"))
	was := head("other")
	check(get(h, "", "/item"), 200, was)
	wantStatus(t, call(h, "", "POST", "/item", `{"v":"a"}`), 200)
	if head("other") == was {
		t.Error("item is not recorded")
	}
	check(get(h, "", "/item/1"), 200, head("other"))
	if view(t, svc, "item", "").Err() != nil {
		t.Error("no view of item")
	}
	if database, table := view(t, svc, "item", "").Source(); database != "other" || table != "item" {
		t.Error(database, table)
	}
}

// unseal returns a position of a response as the log has it.
func unseal(t *testing.T, db *sqlite.DB, text string) string {
	t.Helper()
	epoch, _, _ := strings.Cut(text, ".")
	for _, name := range []string{"main", "other"} {
		log, err := db.ChangeLog(name)
		if err != nil {
			continue
		}
		sealer, err := log.Sealer(bg, epoch)
		if err != nil {
			continue
		}
		if seq, ok := sealer.Open(text); ok {
			return sqlite.Position{Epoch: epoch, Seq: seq}.String()
		}
	}
	t.Errorf("%q is no position", text)
	return ""
}

// What follows the position of a response begins with the first change of
// what is in it, however much is written meanwhile.
func TestChangeCursorIsOfTheSameMoment(t *testing.T) {
	t.Parallel()
	db := openDB(t, noteSchema)
	svc := newService(t, db, noteAPIs()...)
	log, err := db.ChangeLog("main")
	if err != nil {
		t.Fatal(err)
	}
	const writes = 300
	done := make(chan error, 1)
	go func() {
		for i := range writes {
			if err := db.Write(bg, sqlite.Stmt{SQL: `UPDATE note SET body = ?1 WHERE id = 1`, Args: []driver.Value{fmt.Sprint(i)}}); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	type seen struct{ cursor, body string }
	var all []seen
	for running := true; running; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			running = false
		default:
		}
		for _, target := range []string{"/note/1", "/note?filter[id]=1"} {
			r := get(svc, "", target)
			var v struct {
				Body    string
				Records []struct{ Body string }
			}
			if err := json.Unmarshal([]byte(r.body), &v); err != nil {
				t.Fatal(err)
			}
			if len(v.Records) > 0 {
				v.Body = v.Records[0].Body
			}
			all = append(all, seen{r.header.Get("Change-Cursor"), v.Body})
		}
	}
	end, err := log.Head(bg)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		after, err := sqlite.ParsePosition(unseal(t, db, s.cursor))
		if err != nil {
			t.Fatal(s.cursor, err)
		}
		next := fmt.Sprint(writes - 1)
		err = db.Read(context.Background(), func(r *sqlite.Reader) error {
			p, err := log.Page(r, after, end.Seq, 1)
			if err == nil && len(p.Changes) > 0 {
				i := slices.Index(p.Changes[0].Columns, "body")
				next = p.Changes[0].Old[i].(string)
			}
			return err
		})
		if err != nil || next != s.body {
			t.Fatalf("the body is %q, position %s; the change behind it, from %q, %v", s.body, s.cursor, next, err)
		}
	}
}
