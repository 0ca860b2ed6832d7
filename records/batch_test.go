package records_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

// withBatches serves the APIs of cfg and, at /execute, transactions.
func withBatches(t testing.TB, db *sqlite.DB, cfg records.Config) http.Handler {
	t.Helper()
	cfg.Caller, cfg.Logger = callerOf, quiet()
	svc, err := records.New(db, cfg)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/execute", svc.ServeTransaction)
	mux.Handle("/", svc)
	return signIn(mux)
}

// execute sends operations as one transaction.
func execute(h http.Handler, who, operations string, header ...string) response {
	return call(h, who, "POST", "/execute", `{"operations":[`+operations+`],"transaction":true}`, header...)
}

const orderSchema = `
	CREATE TABLE customer (id INTEGER PRIMARY KEY, owner INTEGER, name TEXT NOT NULL) STRICT;
	CREATE TABLE "order" (id BLOB PRIMARY KEY NOT NULL CHECK (is_uuid_v7(id)) DEFAULT (uuid_v7()), customer INTEGER NOT NULL REFERENCES customer(id), note TEXT) STRICT;
	CREATE TABLE item ("order" BLOB NOT NULL REFERENCES "order"(id), id INTEGER PRIMARY KEY, count INTEGER NOT NULL CHECK (count > 0), meta TEXT CHECK (jsonschema_matches('{}', meta))) STRICT;
	CREATE TABLE secret (id INTEGER PRIMARY KEY) STRICT;
	CREATE VIEW busy AS SELECT id, name FROM customer;`

func orderAPIs() []records.API {
	return []records.API{
		{Name: "customer", Table: "customer", World: everything, UpdateRule: "_ROW_.owner IS _USER_.id", DeleteRule: "_ROW_.owner IS _USER_.id"},
		{Name: "orders", Table: "order", World: everything},
		{Name: "item", Table: "item", World: everything},
		{Name: "secret", Table: "secret", World: records.Read},
		{Name: "busy", Table: "busy", World: records.Read},
		{Name: "ignoring", Table: "customer", World: everything, Conflict: records.Ignore},
	}
}

func TestBatch(t *testing.T) {
	t.Parallel()
	db := openDB(t, orderSchema)
	h := withBatches(t, db, records.Config{APIs: orderAPIs()})

	want(t, execute(h, "", ``), 200, `{"ids":[],"results":[]}`)
	want(t, execute(h, "", `{"Create":{"api_name":"customer","value":{"id":7,"owner":1,"name":"Ada"}}}`), 200, `{"ids":["7"],"results":[{"Id":"7"}]}`)

	// The id of one operation is a value, or the record, of those that follow.
	r := execute(h, "", `
		{"Create":{"api_name":"customer","value":{"owner":null,"name":"Bob"}}},
		{"Create":{"api_name":"orders","value":{"customer":{"$id":0},"note":"n"}}},
		{"Create":{"api_name":"item","value":{"order":{"$id":1},"count":2,"meta":{"$id":0}}}},
		{"Update":{"api_name":"orders","record_id":{"$id":1},"value":{"note":"changed"}}},
		{"Update":{"api_name":"customer","record_id":8,"value":{"name":"Bob B."}}},
		{"Delete":{"api_name":"item","record_id":{"$id":2}}},
		{"Create":{"api_name":"item","value":{"order":{"$id":3},"count":3}}}`)
	ids := idsOf(t, r)
	if len(ids) != 7 || ids[0] != "8" || ids[4] != "8" || ids[1] != ids[3] {
		t.Fatalf("%v", r)
	}
	var results struct{ Results []struct{ Id string } }
	if err := json.Unmarshal([]byte(r.body), &results); err != nil || len(results.Results) != 7 || results.Results[1].Id != ids[1] {
		t.Errorf("results: %v %v", r, err)
	}
	if got := one(t, db, `SELECT c.name || o.note || i.count FROM item i JOIN "order" o ON o.id = i."order" JOIN customer c ON c.id = o.customer`); got != "Bob B.changed3" {
		t.Errorf("joined: %q", got)
	}

	// Everything is undone when one fails, whichever it is and however.
	before := dump(t, db)
	ok := `{"Create":{"api_name":"customer","value":{"name":"X"}}}`
	for _, c := range []struct {
		operation string
		status    int
		body      string
	}{
		{`{"Create":{"api_name":"customer","value":{"name":null}}}`, 400, "db constraint: not null"},
		{`{"Create":{"api_name":"item","value":{"order":"AAAAAAAAAAAAAAAAAAAAAA==","count":1}}}`, 400, "db constraint: fk"},
		{`{"Update":{"api_name":"customer","record_id":"7","value":{"name":"stolen"}}}`, 403, ""},
		{`{"Update":{"api_name":"customer","record_id":"99","value":{"name":"x"}}}`, 403, ""},
		{`{"Update":{"api_name":"orders","record_id":"AAAAAAAAAAAAAAAAAAAAAA==","value":{"note":"x"}}}`, 404, ""},
		{`{"Delete":{"api_name":"customer","record_id":"7"}}`, 403, ""},
		{`{"Delete":{"api_name":"item","record_id":"99"}}`, 404, ""},
		{`{"Create":{"api_name":"secret","value":{}}}`, 403, ""},
		{`{"Create":{"api_name":"busy","value":{}}}`, 405, ""},
		{`{"Create":{"api_name":"nope","value":{}}}`, 405, ""},
		{`{"Update":{"api_name":"customer","record_id":"x","value":{}}}`, 400, "Invalid id"},
		{`{"Update":{"api_name":"customer","value":{}}}`, 400, "Invalid id"},
		{`{"Update":{"api_name":"item","record_id":1.5,"value":{}}}`, 400, "Invalid id"},
		{`{"Update":{"api_name":"item","record_id":"1","value":{"id":2}}}`, 400, "Primary key mismatch"},
		{`{"Create":{"api_name":"orders","value":{"customer":{"$id":1}}}}`, 400, "Invalid reference to an earlier operation"}, // itself
		{`{"Create":{"api_name":"orders","value":{"customer":{"$id":2}}}}`, 400, "Invalid reference to an earlier operation"},
		{`{"Create":{"api_name":"orders","value":{"customer":{"$id":-1}}}}`, 400, "Invalid reference to an earlier operation"},
		{`{"Create":{"api_name":"orders","value":{"customer":{"$id":"0"}}}}`, 400, "Invalid Parameters"},
		{`{"Create":{"api_name":"orders","value":{"customer":{"$id":0,"x":1}}}}`, 400, "Invalid Parameters"},
		{`{"Create":{"api_name":"orders","value":{"customer":{}}}}`, 400, "Invalid reference to an earlier operation"},
		{`{"Create":{"api_name":"item","value":{"order":{"$id":0},"count":1}}}`, 400, "Invalid reference to an earlier operation"}, // an INTEGER for a BLOB
		{`{"Upsert":{"api_name":"item","value":{}}}`, 400, "Invalid body"},
		{`{}`, 400, "Invalid body"},
		{`{"Create":{"api_name":"item"}}`, 400, "Invalid body"},
		{`{"Create":{"api_name":"customer","value":{"name":"a"}},"Delete":{"api_name":"customer","record_id":"1"}}`, 400, "Invalid body"},
		{`1`, 400, "Invalid body"},
	} {
		r := execute(h, "", ok+","+c.operation)
		if r.status != c.status || c.body != "" && !strings.Contains(r.body, "Invalid") && r.body != c.body {
			t.Errorf("%s: got %v, want %d %q", c.operation, r, c.status, c.body)
		}
		r = execute(h, "", c.operation+","+ok)
		if r.status != c.status && !strings.Contains(c.operation, "$id") {
			t.Errorf("%s first: got %v, want %d", c.operation, r, c.status)
		}
	}
	if after := dump(t, db); after != before {
		t.Errorf("something was left behind:\n%s\n%s", before, after)
	}

	problem := call(h, "", "POST", "/execute", `{"operations":[`+ok+`,{"Create":{"api_name":"secret","value":{}}}],"transaction":true}`, "Accept", "application/problem+json")
	if problem.status != 403 || !strings.Contains(problem.body, `"pointer":"#/operations/1"`) {
		t.Errorf("which operation is not told: %v", problem)
	}
}

// Ignore creates nothing for a taken key, and nothing can refer to that.
func TestBatchIgnored(t *testing.T) {
	t.Parallel()
	db := openDB(t, orderSchema)
	execSQL(t, db, `INSERT INTO customer (id, name) VALUES (1, 'there')`)
	h := withBatches(t, db, records.Config{APIs: orderAPIs()})
	taken := `{"Create":{"api_name":"ignoring","value":{"id":1,"name":"new"}}}`
	want(t, execute(h, "", taken), 200, `{"ids":[null],"results":[{"Error":"db constraint: pk"}]}`)
	want(t, execute(h, "", taken+`,{"Create":{"api_name":"orders","value":{"customer":{"$id":0}}}}`), 400, "An operation refers to one that has created nothing")
	want(t, execute(h, "", taken+`,{"Update":{"api_name":"customer","record_id":{"$id":0},"value":{"name":"x"}}}`), 400, "An operation refers to one that has created nothing")
	if got := one(t, db, `SELECT name FROM customer`); got != "there" {
		t.Errorf("there is %q", got)
	}
}

// Without "transaction", what comes before the first failure stays.
func TestBatchOneByOne(t *testing.T) {
	t.Parallel()
	for _, more := range []string{``, `,"transaction":false`, `,"transaction":null`} {
		db := openDB(t, orderSchema)
		h := withBatches(t, db, records.Config{APIs: orderAPIs()})
		r := call(h, "", "POST", "/execute", `{"operations":[
			{"Create":{"api_name":"customer","value":{"name":"a"}}},
			{"Create":{"api_name":"orders","value":{"customer":{"$id":0}}}},
			{"Create":{"api_name":"customer","value":{"name":null}}},
			{"Create":{"api_name":"customer","value":{"name":"c"}}}]`+more+`}`)
		want(t, r, 400, "db constraint: not null")
		if got := one(t, db, `SELECT group_concat(name) || (SELECT count(*) FROM "order") FROM customer`); got != "a1" {
			t.Errorf("%s: left %q", more, got)
		}
		wantStatus(t, call(h, "", "POST", "/execute", `{"operations":[{"Create":{"api_name":"customer","value":{"name":"a"}}}]`+more+`}`, "Idempotency-Key", "k"), 400)
	}
}

func TestBatchLimits(t *testing.T) {
	t.Parallel()
	db := openDB(t, orderSchema)
	h := withBatches(t, db, records.Config{APIs: orderAPIs(), BodyLimit: 1 << 16})
	op := `{"Create":{"api_name":"customer","value":{"name":"x"}}}`
	many := func(n int) string { return strings.TrimSuffix(strings.Repeat(op+",", n), ",") }
	if ids := idsOf(t, execute(h, "", many(128))); len(ids) != 128 {
		t.Errorf("%d ids", len(ids))
	}
	want(t, execute(h, "", many(129)), 400, "Batch size exceeds limit: 128")
	for body, status := range map[string]int{
		``: 400, `[]`: 400, `{"operations":{}}`: 400, `{"operations":[],"transaction":1}`: 400, `{"operations":[`: 400,
		`{"operations":` + strings.Repeat("[", 5000): 400, strings.Repeat(" ", 1<<16) + `{}`: 413, `{}`: 200,
	} {
		if r := call(h, "", "POST", "/execute", body, "Content-Type", "application/json"); r.status != status {
			t.Errorf("%.40q: %v, want %d", body, r, status)
		}
	}
	wantStatus(t, call(h, "", "POST", "/execute", `{}`, "Content-Type", "text/plain"), 400)
	wantStatus(t, get(h, "", "/execute"), 405)
}

// The files of one transaction cannot commit together across databases.
func TestBatchAcrossDatabases(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	openFile(t, filepath.Join(dir, "other.db"), `CREATE TABLE t (id INTEGER PRIMARY KEY) STRICT`, sqlite.Options{})
	db := openFile(t, filepath.Join(dir, "main.db"), `CREATE TABLE t (id INTEGER PRIMARY KEY) STRICT`,
		sqlite.Options{Attach: []sqlite.Attachment{{Name: "other", Path: filepath.Join(dir, "other.db")}}})
	h := withBatches(t, db, records.Config{APIs: []records.API{
		{Name: "here", Table: "t", World: everything}, {Name: "there", Table: "other.t", World: everything},
	}})
	both := `{"Create":{"api_name":"here","value":{}}},{"Create":{"api_name":"there","value":{}}}`
	want(t, execute(h, "", both), 400, "Operations are on different databases")
	wantStatus(t, call(h, "", "POST", "/execute", `{"operations":[`+both+`]}`), 200)
	wantStatus(t, execute(h, "", `{"Create":{"api_name":"there","value":{}}}`, "Idempotency-Key", "k"), 200)
}

// A role that one operation gains counts for the next, as rules see the state
// of the transaction, but who the caller is does not change on the way.
func TestBatchRules(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE member (id INTEGER PRIMARY KEY, person INTEGER) STRICT; CREATE TABLE doc (id INTEGER PRIMARY KEY, owner INTEGER) STRICT`)
	h := withBatches(t, db, records.Config{APIs: []records.API{
		{Name: "member", Table: "member", Authenticated: everything, CreateRule: "_REQ_.person = _USER_.id"},
		{Name: "doc", Table: "doc", Authenticated: everything, CreateRule: "EXISTS (SELECT 1 FROM member WHERE person = _USER_.id)", Check: "_ROW_.owner = _USER_.id"},
	}})
	join := `{"Create":{"api_name":"member","value":{"person":5}}}`
	doc := `{"Create":{"api_name":"doc","value":{"owner":5}}}`
	want(t, execute(h, "5", doc+","+join), 403, "")
	want(t, execute(h, "6", join+","+doc), 403, "")
	want(t, execute(h, "", join+","+doc), 403, "")
	want(t, execute(h, "5", join+","+strings.ReplaceAll(doc, "5", "6")), 403, "")
	want(t, execute(h, "5", join+","+doc), 200, `{"ids":["1","1"],"results":[{"Id":"1"},{"Id":"1"}]}`)
}

func BenchmarkBatch(b *testing.B) {
	db := openDB(b, `CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT NOT NULL) STRICT`)
	h := withBatches(b, db, records.Config{APIs: []records.API{{Name: "t", Table: "t", World: everything}}})
	for _, n := range []int{1, 100} {
		body := `{"operations":[` + strings.TrimSuffix(strings.Repeat(`{"Create":{"api_name":"t","value":{"v":"text"}}},`, n), ",") + `],"transaction":true}`
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				if r := call(h, "", "POST", "/execute", body); r.status != 200 {
					b.Fatal(r)
				}
			}
		})
	}
}
