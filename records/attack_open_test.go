package records_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/bedplate/bedplate/records"
)

// A transaction tells those without permission nothing of the columns: the
// access control list is asked before the body is read.
func TestD17_BatchTellsNoColumns(t *testing.T) {
	t.Parallel()
	a := newAttacked(t)
	for _, op := range []string{`{"Create":{"api_name":"locked","value":{X:{}}}}`, `{"Update":{"api_name":"locked","record_id":"1","value":{X:{}}}}`, `{"Update":{"api_name":"locked","record_id":"1","value":{X:2}}}`} {
		ask := func(name string) response { return execute(a, "alice", replaceX(op, name)) }
		nothing := ask(`"nothing"`)
		for _, name := range []string{`"title"`, `"_hidden"`, `"secret"`, `"one"`, `"id"`, `"tenant"`} {
			if got := ask(name); got.same() != nothing.same() {
				t.Errorf("%s: %s is told from nothing: %v, %v", op, name, got, nothing)
			}
		}
	}
}

// A reference to a key that the caller has chosen is a value as any other: the
// conditions of the column count.
func TestAttackReferencesAreValidated(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE word (id TEXT PRIMARY KEY) STRICT; CREATE TABLE doc (id INTEGER PRIMARY KEY, state TEXT) STRICT`)
	h := withBatches(t, db, records.Config{APIs: []records.API{{Name: "word", Table: "word", World: everything}, {Name: "doc", Table: "doc", World: everything, Validate: map[string]string{"state": "oneof=draft"}}}})
	want(t, call(h, "", "POST", "/doc", `{"state":"published"}`), 400, "invalid state: oneof=draft")
	wantStatus(t, execute(h, "", `{"Create":{"api_name":"word","value":{"id":"published"}}},{"Create":{"api_name":"doc","value":{"state":{"$id":0}}}}`), 400)
}

// A create that would overwrite another's row is refused before a hook hears of it.
func TestAttackHookOfDeniedReplace(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, owner TEXT) STRICT; INSERT INTO t VALUES (1, 'alice'), (2, 'bob')`)
	var called atomic.Int64
	before := func(context.Context, *records.Change) error { called.Add(1); return nil }
	h := withBatches(t, db, records.Config{APIs: []records.API{
		{Name: "t", Table: "t", World: everything, Conflict: records.Replace, UpdateRule: ownDoc, Before: before},
		{Name: "n", Table: "t", World: records.Create, Conflict: records.Replace, Before: before}}})
	for _, api := range []string{"t", "n"} {
		wantStatus(t, call(h, "alice", "POST", "/"+api, `{"id":2,"owner":"alice"}`), 403)
		if n := called.Swap(0); n != 0 {
			t.Errorf("%s: %d hooks of a denied request", api, n)
		}
	}
}

// A form that ends within a header is no complete form, whatever is in it.
func TestE6_TruncatedForm(t *testing.T) {
	t.Parallel()
	db := openDB(t, hostileSchema)
	h := serve(t, db, hostileAPIs()...)
	body := "--X\r\nContent-Disposition: form-data; name=\"s\"\r\n\r\n--X--\r\n--X\r\nContent-Disposition: form-data; name=\"ow"
	wantStatus(t, call(h, "", "POST", "/t", body, "Content-Type", "multipart/form-data; boundary=X"), 200) // ends at --X--
	body = "--X\r\nContent-Disposition: form-data; name=\"s\"\r\n\r\nv\r\n--X\r\nContent-Disposition: form-data; name=\"a--X--b"
	wantStatus(t, call(h, "", "POST", "/t", body, "Content-Type", "multipart/form-data; boundary=X"), 400)
}

func replaceX(op, name string) string {
	for i := range op {
		if op[i] == 'X' {
			return op[:i] + name + op[i+1:]
		}
	}
	return op
}
