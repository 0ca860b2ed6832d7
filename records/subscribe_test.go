package records_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

// newService returns the records with callerOf.
func newService(t testing.TB, db *sqlite.DB, apis ...records.API) *records.Service {
	t.Helper()
	svc, err := records.New(db, records.Config{APIs: apis, Caller: callerOf, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	return svc
}

func as(c records.Caller) context.Context {
	return context.WithValue(context.Background(), callerKey{}, c)
}

const noteSchema = `
	CREATE TABLE note (id INTEGER PRIMARY KEY, owner TEXT, body TEXT, _secret TEXT, price REAL, file TEXT CHECK (jsonschema('std.FileUpload', file)), parent INTEGER REFERENCES note(id)) STRICT;
	INSERT INTO note (id, owner, body, _secret) VALUES (1, 'alice', 'a', 's'), (2, 'bob', 'b', 's');
	CREATE TABLE word (id TEXT PRIMARY KEY COLLATE NOCASE) STRICT;
	INSERT INTO word VALUES ('Hello');
	CREATE TABLE _private (id INTEGER PRIMARY KEY) STRICT;`

func noteAPIs() []records.API {
	note := records.API{Name: "note", Table: "note", World: records.Read, Exclude: []string{"price"}, Subscriptions: true}
	own := note
	own.Name, own.ReadRule = "own", `_ROW_.owner = _USER_.id`
	members := note
	members.Name, members.World, members.Authenticated = "members", 0, records.Read
	off := note
	off.Name, off.Subscriptions = "off", false
	return []records.API{note, own, members, off, {Name: "word", Table: "word", World: records.Read, Subscriptions: true}}
}

func TestSubscribe(t *testing.T) {
	t.Parallel()
	svc := newService(t, openDB(t, noteSchema), noteAPIs()...)
	alice := records.Caller{ID: "alice"}
	only := func(apis ...string) records.Caller {
		return records.Caller{ID: "alice", Allow: func(api string, p records.Permission) bool {
			for _, a := range apis {
				if a == api && p == records.Read {
					return true
				}
			}
			return false
		}}
	}
	for _, test := range []struct {
		caller             records.Caller
		api, record, query string
		status             int
		text               string
	}{
		{alice, "note", "*", "", 0, ""},
		{alice, "note", "*", "last_event_id=x.1&since=abc&ticket=t&limit=none&order=,", 0, ""},
		{alice, "note", "*", "ws=false", 0, ""},
		{alice, "note", "*", "filter[body]=a&filter[owner][$ne]=b", 0, ""},
		{alice, "note", "*", "filter[body]=a;b", 0, ""},
		{alice, "note", "1", "filter[no]=1", 0, ""},
		{alice, "own", "*", "", 0, ""},
		{alice, "own", "1", "", 0, ""},
		{records.Caller{}, "own", "*", "", 0, ""},
		{alice, "members", "*", "", 0, ""},
		{only("note"), "note", "*", "", 0, ""},

		{alice, "none", "*", "", 405, ""},
		{alice, "_private", "*", "", 405, ""},
		{alice, "Note", "*", "", 405, ""},
		{alice, "off", "*", "filter=", 403, ""},
		{alice, "note", "*", "filter=", 400, "Invalid query"},
		{alice, "note", "1", "filter=", 400, "Invalid query"},
		{records.Caller{}, "members", "*", "filter=", 400, "Invalid query"},
		{alice, "note", "*", "ws=true", 400, "ws unsupported"},
		{alice, "note", "1", "ws=1", 400, "ws unsupported"},
		{alice, "note", "*", "filter[none]=1", 400, "Invalid query"},
		{alice, "note", "*", "filter[_secret]=s", 400, "Invalid query"},
		{alice, "note", "*", "filter[_secret][$is]=NULL", 400, "Invalid query"},
		{alice, "note", "*", "filter[price]=1", 400, "Invalid query"},
		{alice, "note", "*", "filter[file]=x", 400, "Invalid query"},
		{alice, "note", "*", "filter[rowid]=1", 400, "Invalid query"},
		{alice, "note", "*", "filter[id]=x", 400, "Invalid query"},
		{alice, "note", "*", "filter[body][$re]=(", 400, "Invalid query"},
		{alice, "note", "*", "filter[$or][0][body]=a&filter[$or][1][_secret]=s", 400, "Invalid query"},
		{records.Caller{}, "members", "*", "filter[none]=1", 403, ""},
		{records.Caller{}, "members", "1", "", 403, ""},
		{records.Caller{}, "members", "x", "", 400, "Invalid id"},
		{only("other"), "note", "*", "", 403, ""},
		{only("other"), "note", "1", "", 403, ""},
		{alice, "note", "x", "", 400, "Invalid id"},
		{alice, "note", "", "", 400, "Invalid id"},
		{alice, "note", "007", "", 400, "Invalid id"},
		{alice, "note", "9", "", 404, ""},
		{alice, "own", "2", "", 403, ""},
		{alice, "own", "9", "", 403, ""},
		{records.Caller{}, "own", "1", "", 403, ""},
	} {
		name := fmt.Sprintf("%v subscribes %s/%s?%s", test.caller.ID, test.api, test.record, test.query)
		sub, err := svc.Subscribe(as(test.caller), test.api, test.record, test.query)
		if test.status == 0 {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if sub.View == nil || fmt.Sprint(sub.User) != fmt.Sprint(test.caller.ID) || (sub.Record == nil) != (test.record == "*") {
				t.Errorf("%s: %+v", name, sub)
			}
			continue
		}
		var e *records.Error
		if !errors.As(err, &e) || e.Status != test.status || e.Text != test.text {
			t.Errorf("%s: %v, want %d %q", name, err, test.status, test.text)
		}
	}
}

// The key is the stored one, to be compared with that of changes.
func TestSubscribeStoredKey(t *testing.T) {
	t.Parallel()
	svc := newService(t, openDB(t, noteSchema), noteAPIs()...)
	sub, err := svc.Subscribe(context.Background(), "word", "hELLO", "")
	if err != nil || sub.Record != "Hello" {
		t.Errorf("%+v, %v", sub, err)
	}
}

// Views that show the same have one key, and no others.
func TestViewKey(t *testing.T) {
	t.Parallel()
	svc := newService(t, openDB(t, noteSchema), noteAPIs()...)
	key := func(api, record, query string) string {
		t.Helper()
		sub, err := svc.Subscribe(as(records.Caller{ID: "alice"}), api, record, query)
		if err != nil {
			t.Fatal(err)
		}
		return sub.View.Key()
	}
	for _, group := range [][]string{
		{"", "limit=3", "since=e.1"},
		{"filter[body]=a&filter[owner]=b", "filter[owner]=b&filter[body]=a", "filter[body][$eq]=a&filter%5Bowner%5D=b", "filter[$and][0][owner]=b&filter[$and][1][body]=a"},
		{"filter[$or][0][body]=a&filter[$or][1][owner]=b", "filter[$or][0][owner]=b&filter[$or][1][body]=a"},
		{"filter[body]=a"}, {"filter[body]=b"}, {"filter[body][$ne]=a"}, {"filter[body]=a%22,%22"}, {"filter[body]=b&filter[owner]=a"},
	} {
		for _, api := range []string{"note", "own"} {
			first := key(api, "*", group[0])
			for _, query := range group {
				if k := key(api, "*", query); k != first {
					t.Errorf("%s: key %q, of %s: %q", group[0], first, query, k)
				}
			}
		}
	}
	seen := map[string]string{}
	for _, api := range []string{"note", "own"} {
		for _, query := range []string{"", "filter[body]=a", "filter[body]=b", "filter[body][$ne]=a", "filter[body]=a%22,%22", "filter[owner]=a", "filter[body]=a&filter[owner]=a", "filter[$or][0][body]=a&filter[$or][1][owner]=a"} {
			k := key(api, "*", query)
			if other, ok := seen[k]; ok {
				t.Errorf("%s?%s has the key of %s", api, query, other)
			}
			seen[k] = api + "?" + query
		}
	}
	if key("note", "1", "") != key("note", "*", "") {
		t.Error("a record is seen by a view of its own")
	}
}

func TestSubscriptionMistakes(t *testing.T) {
	t.Parallel()
	const schema = `CREATE TABLE a (id INTEGER PRIMARY KEY, v TEXT) STRICT; CREATE TABLE b (id TEXT PRIMARY KEY, v TEXT) STRICT; CREATE TABLE c (id TEXT PRIMARY KEY, v TEXT) STRICT, WITHOUT ROWID`
	db := openDB(t, schema)
	for _, test := range []struct{ table, rule, mistake string }{
		{"a", `_ROW_.rowid = 1`, ""},
		{"a", `rowid = 1 AND oid = 1 AND v <> ''`, ""},
		{"b", `EXISTS (SELECT 1 FROM a WHERE a.rowid = _ROW_.id)`, ""},
		{"b", `_ROW_.rowid = 1`, `records: api "t": read rule: it cannot be used with Subscriptions: no such column: _ROW_.rowid`},
		{"b", `_rowid_ = 1`, `records: api "t": read rule: it cannot be used with Subscriptions: no such column: _rowid_`},
		{"b", `"rowid" = 1`, `records: api "t": read rule: with Subscriptions it cannot use the rowid, which is not the primary key`},
		{"c", `(SELECT count(_USER_.id) FROM a) = 0 OR v = 'a'`, ""},
	} {
		_, err := records.New(db, records.Config{APIs: []records.API{{Name: "t", Table: test.table, World: records.Read, ReadRule: test.rule, Subscriptions: true}}, Logger: quiet()})
		if got := fmt.Sprint(err); test.mistake == "" && err != nil || test.mistake != "" && got != test.mistake {
			t.Errorf("%s, rule %s: %v, want %q", test.table, test.rule, err, test.mistake)
		}
		if _, err := records.New(db, records.Config{APIs: []records.API{{Name: "t", Table: test.table, World: records.Read, ReadRule: test.rule}}, Logger: quiet()}); err != nil {
			t.Errorf("%s, rule %s, without subscriptions: %v", test.table, test.rule, err)
		}
	}
}

// A list waits for no second connection, also not for the first position that
// it tells.
func TestListWithOneReader(t *testing.T) {
	t.Parallel()
	db := openFile(t, filepath.Join(t.TempDir(), "test.db"), noteSchema, sqlite.Options{Readers: 1})
	svc := newService(t, db, noteAPIs()...)
	answers := make(chan response, 1)
	go func() { answers <- get(svc, "", "/note?count=true") }()
	select {
	case r := <-answers:
		if r.status != 200 || r.header.Get("Change-Cursor") == "" {
			t.Error(r, r.header)
		}
	case <-time.After(patience):
		panic("the list hangs") // with it, closing the database would
	}
}

// A configuration that is refused leaves no trace in the file.
func TestRefusedConfigWritesNothing(t *testing.T) {
	t.Parallel()
	db := openDB(t, noteSchema)
	before := dump(t, db)
	bad := append(noteAPIs(), records.API{Name: "bad", Table: "nowhere"})
	for _, cfg := range []records.Config{{APIs: bad}, {APIs: noteAPIs(), BodyLimit: -1}, {APIs: noteAPIs(), CursorKey: []byte("short")}} {
		if _, err := records.New(db, cfg); err == nil {
			t.Error("no error")
		}
		if after := dump(t, db); after != before {
			t.Errorf("it has changed the file: %s", after)
		}
	}
}

// When another process has taken away the tables of the log, as by putting an
// older file into the place, they are made anew. So it is with a table that
// comes back.
func TestTracksAgain(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "test.db")
	db := openFile(t, path, noteSchema, sqlite.Options{})
	h := signIn(newService(t, db, noteAPIs()...))
	cursor := func() string { return get(h, "", "/note").header.Get("Change-Cursor") }
	first := cursor()
	if first == "" {
		t.Fatal("no position")
	}
	other := openFile(t, path, "", sqlite.Options{})
	drop := ""
	for _, row := range rowsOf(t, other, `SELECT type, name FROM sqlite_schema WHERE name LIKE '\_change%' ESCAPE '\' AND type IN ('table', 'trigger') ORDER BY type = 'table'`) {
		drop += `DROP ` + row[0] + ` "` + row[1] + `";`
	}
	execSQL(t, other, drop)
	until(t, func() bool { now := cursor(); return now != "" && epoch(now) != epoch(first) })
	logged := func(table string) bool {
		head := func() string { return one(t, db, `SELECT coalesce(max(seq), 0) FROM _change`) }
		before := head()
		execSQL(t, other, `UPDATE `+table+` SET id = id`)
		return head() != before
	}
	until(t, func() bool { return logged("note") && logged("word") })
	execSQL(t, other, `DROP TABLE word`)
	until(t, func() bool { return get(h, "", "/word").status == 500 })
	execSQL(t, other, `CREATE TABLE word (id TEXT PRIMARY KEY) STRICT; INSERT INTO word VALUES ('b')`)
	until(t, func() bool { return get(h, "", "/word").status == 200 && logged("word") })
}

func epoch(position string) string {
	before, _, _ := strings.Cut(position, ".")
	return before
}

// patience is for what must come: a machine that is busy may need a while, so
// that it only tells what hangs.
const patience = 2 * time.Minute

func until(t *testing.T, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for tick := time.NewTicker(20 * time.Millisecond); !done(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("it has not come")
		}
	}
}
