package records_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

const problemJSON = "application/problem+json"

// errorsOf returns the member errors of problem details, as text.
func errorsOf(t testing.TB, r response) string {
	t.Helper()
	if r.header.Get("Content-Type") != problemJSON {
		t.Fatalf("no problem details: %v", r)
	}
	_, list, ok := strings.Cut(r.body, `,"errors":`)
	if !ok {
		return ""
	}
	return strings.TrimSuffix(list, "}")
}

const constraintSchema = `
	CREATE TABLE parent (id INTEGER PRIMARY KEY, code TEXT COLLATE NOCASE UNIQUE, owner INTEGER) STRICT;
	CREATE TABLE other (id INTEGER PRIMARY KEY, low INTEGER CHECK (low < 20), u TEXT UNIQUE, n TEXT NOT NULL ON CONFLICT ABORT DEFAULT '') STRICT;
	CREATE TABLE t (
		id     INTEGER PRIMARY KEY,
		u      TEXT UNIQUE,
		n      TEXT NOT NULL DEFAULT '',
		a      TEXT, b TEXT, "a, b" TEXT UNIQUE,
		low    INTEGER CHECK ( low < 10 ),
		named  INTEGER CONSTRAINT named_positive CHECK (named > 0 AND named < 100 + coalesce(low, 0)),
		"odd ""c" INTEGER CHECK ("odd ""c" > 0),
		twin INTEGER CONSTRAINT twins CHECK (twin < 10), other INTEGER CONSTRAINT twins CHECK (other < 10),
		x INTEGER, y INTEGER, solo INTEGER,
		js     TEXT CHECK (jsonschema_matches('{"type":"array"}', js)),
		_h     TEXT UNIQUE CHECK (_h <> 'bad'),
		_n     TEXT NOT NULL DEFAULT '',
		ex     TEXT UNIQUE DEFAULT NULL CHECK (ex <> 'bad'),
		p      INTEGER REFERENCES parent,
		code   TEXT REFERENCES parent (code),
		_p     INTEGER REFERENCES parent (id),
		fire   TEXT,
		UNIQUE (a, b), UNIQUE (a, _h),
		CONSTRAINT in_order CHECK (x < y),
		CONSTRAINT small_solo CHECK (solo < 5 /* , y */),
		CHECK (solo <> 3 OR _h IS NULL)
	) STRICT;
	CREATE TRIGGER fire AFTER INSERT ON t WHEN new.fire IS NOT NULL BEGIN
		INSERT INTO other (low) SELECT 50 WHERE new.fire = 'check';
		INSERT INTO other (u) SELECT 'x' FROM parent WHERE new.fire = 'unique';
		INSERT INTO other (n) SELECT NULL WHERE new.fire = 'null';
		SELECT RAISE(ABORT, 'UNIQUE constraint failed: t.u') WHERE new.fire = 'raise';
	END;
	INSERT INTO parent VALUES (1, 'one', 7), (2, 'two', 8);
	INSERT INTO t (id, u, a, b, "a, b", _h, ex) VALUES (1, 'tattle-u', 'tattle-a', 'tattle-b', 'tattle-c', 'tattle-h', 'tattle-e')`

func constraintHandler(t testing.TB, change func(*records.API)) func(method, target, body string) response {
	api := records.API{Name: "t", Table: "t", World: everything, Exclude: []string{"ex"}}
	if change != nil {
		change(&api)
	}
	h := serve(t, openDB(t, constraintSchema), api)
	return func(method, target, body string) response {
		t.Helper()
		plain := call(h, "", method, target, body)
		r := call(h, "", method, target, body, "Accept", problemJSON)
		if r.status != plain.status || r.status != 200 && !strings.Contains(r.body, `"detail":"`+plain.body+`"`) {
			t.Errorf("%v, plain %v", r, plain)
		}
		if strings.Contains(plain.body+r.body, "tattle") {
			t.Errorf("%s %s tells what is stored: %v", method, body, r)
		}
		return r
	}
}

// Which columns an answer names. Never one that the caller may not see, none
// of another table, and no value.
func TestConstraintFields(t *testing.T) {
	t.Parallel()
	send := constraintHandler(t, nil)
	field := func(column, code, detail string) string {
		return `{"pointer":"#/` + column + `","code":"` + code + `","detail":"` + detail + `"}`
	}
	const (
		taken, takenAll = "This value is taken.", "This combination of values is taken."
		notAllowed      = "This value is not allowed."
		noRecord        = "There is no such record."
	)
	for _, c := range []struct{ body, text, errors string }{
		{`{"u":"tattle-u"}`, "unique", "[" + field("u", "unique", taken) + "]"},
		{`{"id":1}`, "pk", "[" + field("id", "unique", taken) + "]"},
		{`{"a":"tattle-a","b":"tattle-b"}`, "unique", "[" + field("a", "unique", takenAll) + "," + field("b", "unique", takenAll) + "]"},
		{`{"a, b":"tattle-c"}`, "unique", "[" + field("a,%20b", "unique", taken) + "]"},
		{`{"n":null}`, "not null", "[" + field("n", "not_null", "A value is needed.") + "]"},
		{`{"low":10}`, "check", "[" + field("low", "check", notAllowed) + "]"},
		{`{"named":0}`, "check", "[" + field("named", "check", notAllowed) + "]"},
		{`{"odd \"c":0}`, "check", "[" + field("odd%20%22c", "check", notAllowed) + "]"},
		{`{"x":2,"y":1}`, "check", ""}, // one of two
		{`{"twin":10}`, "check", ""},   // of two with one name
		{`{"solo":5}`, "check", "[" + field("solo", "check", notAllowed) + "]"},
		{`{"solo":3,"_h":"x"}`, "check", "[" + field("solo", "check", notAllowed) + "]"},
		{`{"js":{}}`, "check", "[" + field("js", "schema", "Does not match the schema of the column.") + "]"},
		{`{"_h":"bad"}`, "check", ""},
		{`{"_h":"tattle-h"}`, "unique", ""},
		{`{"a":"tattle-a","_h":"tattle-h"}`, "unique", "[" + field("a", "unique", taken) + "]"},
		{`{"_n":null}`, "not null", ""},
		{`{"p":3}`, "fk", "[" + field("p", "fk", noRecord) + "]"},
		{`{"p":null,"code":"three"}`, "fk", "[" + field("code", "fk", noRecord) + "]"},
		{`{"p":1,"code":"three"}`, "fk", ""}, // one of two
		{`{"p":3,"code":"three"}`, "fk", ""},
		{`{"_p":3}`, "fk", ""},
		{`{"_p":3,"p":1}`, "fk", ""},
		{`{"fire":"check","low":1}`, "check", ""},
		{`{"fire":"unique","u":"new"}`, "unique", ""},
		{`{"fire":"null"}`, "not null", ""},
		{`{"fire":"raise"}`, "trigger", ""},
	} {
		r := send("POST", "/t", c.body)
		if got := errorsOf(t, r); r.status != 400 || !strings.Contains(r.body, `"detail":"db constraint: `+c.text+`"`) || got != c.errors {
			t.Errorf("%s: got %v\nwant %s %s", c.body, r, c.text, c.errors)
		}
	}
	wantStatus(t, send("POST", "/t", `{}`), 200)
}

func TestConstraintFieldsOfUpdate(t *testing.T) {
	t.Parallel()
	send := constraintHandler(t, nil)
	if r := send("PATCH", "/t/1", `{"p":9,"code":null}`); errorsOf(t, r) != `[{"pointer":"#/p","code":"fk","detail":"There is no such record."}]` {
		t.Error(r)
	}
	if r := send("PATCH", "/t/1", `{"n":null}`); !strings.Contains(errorsOf(t, r), `"#/n"`) {
		t.Error(r)
	}
}

// A reference is blamed only if it must be the one: rows that are made in the
// same transaction are there for a reference, but not any more afterwards.
func TestReferenceWithinTransaction(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE _user (id INTEGER PRIMARY KEY) STRICT; INSERT INTO _user VALUES (7);
		CREATE TABLE parent (id INTEGER PRIMARY KEY, name TEXT) STRICT;
		CREATE TABLE node (
			id INTEGER PRIMARY KEY, author INTEGER REFERENCES _user (id), p INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED,
			up INTEGER REFERENCES node (id), log INTEGER
		) STRICT;
		CREATE TABLE log (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent (id)) STRICT;
		CREATE TRIGGER logging AFTER INSERT ON node WHEN new.log IS NOT NULL BEGIN INSERT INTO log (parent) VALUES (new.log); END`)
	apis := []records.API{{Name: "parent", Table: "parent", World: everything}, {Name: "node", Table: "node", World: everything, AutofillUser: true}}
	svc, err := records.New(db, records.Config{APIs: apis, Caller: callerOf, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	batches := withBatches(t, db, records.Config{APIs: apis})
	create := func(api, value string) string { return `{"Create":{"api_name":"` + api + `","value":` + value + `}}` }
	errorsIn := func(r response) string {
		if r.status != 400 || !strings.Contains(r.body, `db constraint: fk`) {
			t.Errorf("%v, want a violation", r)
		}
		return errorsOf(t, r)
	}
	const blamed = `[{"pointer":"#/p","code":"fk","detail":"There is no such record."}]`
	for name, c := range map[string]struct{ who, body, errors string }{
		"alone":           {"7", `{"p":5}`, blamed},
		"itself":          {"7", `{"id":5,"up":5,"log":9}`, ""},
		"of the same":     {"7", `[{"id":5},{"up":5,"log":9}]`, ""},
		"unknown caller":  {"8", `{"p":5}`, ""},
		"by the trigger":  {"7", `{"log":9}`, ""},
		"one of an array": {"7", `[{"p":5}]`, `[{"pointer":"#/0/p","code":"fk","detail":"There is no such record."}]`},
	} {
		if got := errorsIn(call(signIn(svc), c.who, "POST", "/node", c.body, "Accept", problemJSON)); got != c.errors {
			t.Errorf("%s: %s, want %s", name, got, c.errors)
		}
	}
	body := `{"operations":[` + create("parent", `{"id":5}`) + `,` + create("node", `{"p":5,"log":9}`) + `],"transaction":true}`
	if got := errorsIn(call(batches, "7", "POST", "/execute", body, "Accept", problemJSON)); strings.Contains(got, "fk") {
		t.Errorf("in a batch: %s", got)
	}
	type node struct {
		ID     int64 `json:"id,omitzero"`
		Author int64 `json:"author"`
		P      int64 `json:"p"`
	}
	table, err := records.TableOf[node](svc, "node")
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(t.Context(), func(tx *sqlite.Tx) error {
		if _, err := tx.ExecContext(t.Context(), `INSERT INTO parent (id) VALUES (5)`); err != nil {
			return err
		}
		_, err := table.AsSystem().In(tx).Insert(t.Context(), node{P: 5, Author: 99})
		return err
	})
	var e *records.Error
	if !errors.As(err, &e) || e.Text != "db constraint: fk" || len(e.Fields) > 0 {
		t.Errorf("in the application's transaction: %+v", err)
	}
}

// A refused delete names no column: it is not the client's values that are
// wrong.
func TestConstraintOfDelete(t *testing.T) {
	t.Parallel()
	db := openDB(t, constraintSchema+`; INSERT INTO t (p) VALUES (1)`)
	h := serve(t, db, records.API{Name: "parent", Table: "parent", World: everything})
	want(t, call(h, "", "DELETE", "/parent/1", ""), 400, "db constraint: fk")
	if r := call(h, "", "DELETE", "/parent/1", "", "Accept", problemJSON); r.status != 400 || errorsOf(t, r) != "" {
		t.Error(r)
	}
	// Nor does an update of what others refer to.
	if r := call(h, "", "PATCH", "/parent/1", `{"code":"x"}`, "Accept", problemJSON); r.status != 200 {
		t.Error(r)
	}
}

// What a clash tells: that the value is taken, whoever may read the row that
// has it, and nothing of that row.
func TestClashWithUnreadableRow(t *testing.T) {
	t.Parallel()
	send := constraintHandler(t, func(api *records.API) { api.ReadRule = `_ROW_.id = 0` })
	readable := constraintHandler(t, nil)
	for _, body := range []string{`{"u":"tattle-u"}`, `{"id":1}`, `{"a":"tattle-a","b":"tattle-b","n":"x","x":1,"y":2}`} {
		if a, b := send("POST", "/t", body), readable("POST", "/t", body); a.same() != b.same() {
			t.Errorf("%s: %v, readable %v", body, a, b)
		}
	}
}

// A reference tells whether some row has the key, as the foreign key of SQLite
// must, but nothing else, whoever may read that row. A rule that looks for a
// row of the caller's own makes both the same.
func TestReferenceToUnreadableRow(t *testing.T) {
	t.Parallel()
	db := openDB(t, constraintSchema)
	h := serve(t, db,
		records.API{Name: "open", Table: "t", World: everything},
		records.API{Name: "own", Table: "t", World: everything,
			CreateRule: `_REQ_.p IS NULL OR EXISTS (SELECT 1 FROM parent WHERE id = _REQ_.p AND owner = _USER_.id)`,
			UpdateRule: `_REQ_.p IS NULL OR EXISTS (SELECT 1 FROM parent WHERE id = _REQ_.p AND owner = _USER_.id)`},
		records.API{Name: "parent", Table: "parent", World: records.Read, ReadRule: `_ROW_.owner = _USER_.id`})
	wantStatus(t, get(h, "7", "/parent/2"), 403)
	readable, hidden := call(h, "7", "POST", "/open", `{"id":70,"p":1}`), call(h, "7", "POST", "/open", `{"id":71,"p":2}`)
	if readable.status != 200 || hidden.status != 200 {
		t.Errorf("%v %v", readable, hidden)
	}
	if r := call(h, "7", "POST", "/open", `{"p":3}`, "Accept", problemJSON); errorsOf(t, r) != `[{"pointer":"#/p","code":"fk","detail":"There is no such record."}]` {
		t.Error(r)
	}
	for _, accept := range []string{"*/*", problemJSON} {
		for _, target := range []string{"POST /own", "PATCH /own/1"} {
			method, path, _ := strings.Cut(target, " ")
			hidden, missing := call(h, "7", method, path, `{"p":2}`, "Accept", accept), call(h, "7", method, path, `{"p":3}`, "Accept", accept)
			if hidden.status != 403 || hidden.same() != missing.same() {
				t.Errorf("%s: hidden %v, missing %v", target, hidden, missing)
			}
		}
	}
	wantStatus(t, call(h, "7", "PATCH", "/own/1", `{"p":1}`), 200)
}
