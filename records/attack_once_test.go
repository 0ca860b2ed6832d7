package records_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/records"
)

// A kept answer is for whoever got it, for the request that it was for, and as
// long as it is permitted.
func TestAttackIdempotencyKeys(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, owner TEXT, v TEXT) STRICT; CREATE TABLE member (person TEXT PRIMARY KEY) STRICT; INSERT INTO member VALUES ('alice'), ('bob')`)
	var denied atomic.Bool
	var clock atomic.Int64
	clock.Store(1_700_000_000)
	const member = `EXISTS (SELECT 1 FROM member WHERE person = _USER_.id)`
	svc, err := records.New(db, records.Config{
		Logger: quiet(), Now: func() time.Time { return time.Unix(clock.Load(), 0) },
		Caller: func(ctx context.Context) records.Caller {
			c := callerOf(ctx)
			c.Allow = func(string, records.Permission) bool { return !denied.Load() }
			return c
		},
		APIs: []records.API{{Name: "t", Table: "t", World: everything}, {Name: "ruled", Table: "t", Authenticated: records.Create, CreateRule: member}, {Name: "other", Table: "t", World: everything}},
	})
	if err != nil {
		t.Fatal(err)
	}
	h := signIn(svc)
	post := func(who, target, body, key string, header ...string) response {
		return call(h, who, "POST", target, body, append([]string{"Idempotency-Key", key}, header...)...)
	}
	rows := func() string { return one(t, db, `SELECT count(*) FROM t`) }
	first := post("alice", "/ruled", `{"v":"a"}`, "k")
	want(t, first, 200, `{"ids":["1"]}`)

	// Somebody else's key is nobody's: the same words are another request.
	want(t, post("bob", "/ruled", `{"v":"a"}`, "k"), 200, `{"ids":["2"]}`)
	want(t, post("bob", "/ruled", `{"v":"b"}`, "k"), 422, "Idempotency-Key was used for another request")
	want(t, post("eve", "/ruled", `{"v":"a"}`, "k"), 403, "")
	want(t, post("", "/ruled", `{"v":"a"}`, "k"), 403, "")
	for _, who := range []string{"string alice", "alice\x00", "ALICE", "alice ", `"alice"`} {
		want(t, post(who, "/ruled", `{"v":"a"}`, "k"), 403, "")
	}
	// Numbers and texts that look the same are different callers.
	want(t, post("7", "/t", `{"v":"n"}`, "k7"), 200, `{"ids":["3"]}`)
	want(t, post("x:37", "/t", `{"v":"n"}`, "k7"), 200, `{"ids":["4"]}`)

	// The key belongs to the path, the query, the type and every byte of the body.
	for _, r := range []response{
		post("alice", "/ruled", `{"v":"a"} `, "k"), post("alice", "/ruled", `{"v":"b"}`, "k"), post("alice", "/ruled", `[{"v":"a"}]`, "k"), post("alice", "/ruled?redirect_uri=/x", `{"v":"a"}`, "k"), post("alice", "/ruled", `{"v":"a"}`, "k", "Content-Type", "application/json; charset=utf-8"),
	} {
		want(t, r, 422, "Idempotency-Key was used for another request")
	}
	want(t, post("alice", "/other", `{"v":"a"}`, "k"), 200, `{"ids":["5"]}`)
	if n := rows(); n != "5" {
		t.Errorf("%s rows", n)
	}

	// Without the permission there is no answer any more, kept or not.
	denied.Store(true)
	want(t, post("alice", "/ruled", `{"v":"a"}`, "k"), 403, "")
	denied.Store(false)
	// A rule that would not grant it any more makes no new row, and what is repeated is what alice knows.
	execSQL(t, db, `DELETE FROM member WHERE person = 'alice'`)
	if again := post("alice", "/ruled", `{"v":"a"}`, "k"); again.status != 403 && again.same() != first.same() || rows() != "5" {
		t.Errorf("%v, %s rows", again, rows())
	}
	want(t, post("alice", "/ruled", `{"v":"a"}`, "k2"), 403, "")

	// What fails is not kept, so nobody fills the table with it.
	kept := one(t, db, `SELECT count(*) FROM _records_answer`)
	for i := range 300 {
		wantStatus(t, post("eve", "/ruled", `{"v":"a"}`, fmt.Sprint("flood", i)), 403)
		wantStatus(t, post("", "/t", `{"v":5}`, fmt.Sprint("flood", i)), 400)
	}
	if n := one(t, db, `SELECT count(*) FROM _records_answer`); n != kept {
		t.Errorf("%s answers are kept, were %s", n, kept)
	}
	// What succeeds goes when it is out of date, faster than new ones come.
	for i := range 100 {
		wantStatus(t, post("", "/t", `{}`, fmt.Sprint("good", i)), 200)
	}
	clock.Add(24*60*60 + 1)
	for i := range 10 {
		wantStatus(t, post("", "/t", `{}`, fmt.Sprint("later", i)), 200)
	}
	if n := one(t, db, `SELECT count(*) FROM _records_answer`); n != "10" {
		t.Errorf("%s answers are kept", n)
	}
}

// A transaction refers to records of its own operations, which are judged one
// by one: a reference is no way to another's row.
func TestAttackBatchReferences(t *testing.T) {
	t.Parallel()
	a := newAttacked(t)
	before := a.state()
	for _, ops := range []string{
		`{"Update":{"api_name":"own","record_id":"2","value":{}}},{"Create":{"api_name":"note","value":{"owner":"alice","doc":{"$id":0}}}}`,
		`{"Delete":{"api_name":"own","record_id":"2"}},{"Create":{"api_name":"note","value":{"owner":"alice","doc":{"$id":0}}}}`,
		`{"Create":{"api_name":"own","value":{"id":2,"owner":"alice"}}},{"Delete":{"api_name":"own","record_id":{"$id":0}}}`,
		`{"Create":{"api_name":"note","value":{"id":77,"owner":"alice"}}},{"Update":{"api_name":"own","record_id":{"$id":0},"value":{"title":"x"}}}`,
		`{"Create":{"api_name":"note","value":{"id":2,"owner":"alice"}}},{"Update":{"api_name":"own","record_id":{"$id":0},"value":{"title":"x"}}}`,
		`{"Create":{"api_name":"own","value":{"owner":"alice"}}},{"Update":{"api_name":"own","record_id":{"$id":0},"value":{"owner":"bob"}}}`,
		`{"Create":{"api_name":"own","value":{"owner":{"$id":0}}}}`, `{"Update":{"api_name":"own","record_id":{"$id":0},"value":{}}}`, `{"Update":{"api_name":"own","record_id":{"$id":9223372036854775807},"value":{}}}`, `{"Update":{"api_name":"own","record_id":{"$id":-9223372036854775808},"value":{}}}`,
		`{"Update":{"api_name":"own","record_id":{"$id":0,"$id":0},"value":{}}}`, `{"Create":{"api_name":"own","value":{"owner":"alice","one":{"$id":0}}}}`, `{"Create":{"api_name":"note","value":{"owner":"alice"}}},{"Create":{"api_name":"own","value":{"owner":{"$id":0}}}}`,
		`{"Create":{"api_name":"note","value":{"owner":"alice"}}},{"Create":{"api_name":"own","value":{"owner":"alice","twice":{"$id":0},"secret":{"$id":0},"many":[{"$id":0}]}}}`,
		`{"Create":{"api_name":"own","value":{"owner":"alice"}}},{"Delete":{"api_name":"own","record_id":{"$id":0}}},{"Create":{"api_name":"note","value":{"owner":"alice","doc":{"$id":1}}}}`,
	} {
		for _, accept := range []string{"*/*", "application/problem+json"} {
			if r := execute(a, "alice", ops, "Accept", accept); r.status < 400 || r.status >= 500 || strings.Contains(r.body, "bob") {
				t.Errorf("%s: %v", ops, r)
			}
		}
		if after := a.state(); after != before {
			t.Fatalf("%s: changed: %s", ops, difference(before, after))
		}
	}
	// One by one, those before the first refusal stay, and none behind it.
	r := call(a, "alice", "POST", "/execute", `{"operations":[{"Create":{"api_name":"own","value":{"id":50,"owner":"alice"}}},{"Update":{"api_name":"own","record_id":"2","value":{"title":"x"}}},{"Create":{"api_name":"own","value":{"id":51,"owner":"alice"}}}]}`)
	if n := one(t, a.db, `SELECT group_concat(id ORDER BY id) FROM doc`); r.status != 403 || n != "1,2,50" {
		t.Errorf("%v, rows %s", r, n)
	}
}

// A hook runs for what is permitted: no refused request has effects through it.
func TestAttackHooksOfDeniedRequests(t *testing.T) {
	t.Parallel()
	var called atomic.Int64
	apis := attackAPIs()[:2]
	apis = append(apis, records.API{Name: "signed", Table: "doc", Authenticated: everything}, records.API{Name: "reading", Table: "doc", World: records.Read}, records.API{Name: "ignore", Table: "doc", World: everything, CreateRule: ownNewDoc, Conflict: records.Ignore})
	a := newAttacked(t, apis...)
	for i := range apis {
		apis[i].Before = func(context.Context, *records.Change) error {
			called.Add(1)
			return nil
		}
		apis[i].After = func(context.Context, *records.Change) { called.Add(1) }
	}
	b := openFileService(t, a.db, a.store, records.FilesConfig{}, apis...)
	h := withTransactions(b.svc)
	tag := get(h, "bob", "/own/2").header.Get("Etag")
	before := a.state()
	for _, c := range []struct {
		who, method, path, body string
		header                  []string
	}{
		{"", "POST", "/signed", `{}`, nil}, {"", "PATCH", "/signed/1", `{}`, nil}, {"", "DELETE", "/signed/1", ``, nil}, {"alice", "POST", "/reading", `{}`, nil}, {"alice", "DELETE", "/reading/1", ``, nil},
		{"alice", "POST", "/own", `{"owner":"bob"}`, nil}, {"alice", "POST", "/own", `{}`, nil}, {"alice", "PATCH", "/own/2", `{"title":"x"}`, nil}, {"alice", "PATCH", "/own/2", `{}`, nil}, {"alice", "PATCH", "/own/99", `{}`, nil}, {"alice", "DELETE", "/own/2", ``, nil}, {"alice", "DELETE", "/own/99", ``, nil}, {"alice", "PATCH", "/signed/99", `{}`, nil},
		{"alice", "PATCH", "/own/1", `{"title":"x"}`, []string{"If-Match", `"wrong"`}}, {"alice", "DELETE", "/own/1", ``, []string{"If-Match", `"wrong"`}}, {"alice", "PATCH", "/own/2", `{"title":"x"}`, []string{"If-Match", tag}}, {"alice", "PATCH", "/own/1", `{"title":"x"}`, []string{"If-None-Match", "*"}},
		{"alice", "PATCH", "/own/1", `{"title":"` + strings.Repeat("x", 41) + `"}`, nil}, {"alice", "PATCH", "/own/1", `{"title":5}`, nil}, {"alice", "PATCH", "/own/1", `{"one":{"filename":"nothing"}}`, nil}, {"alice", "PATCH", "/own/1", `{"id":2}`, nil}, {"alice", "POST", "/own", `{"owner":"bob"}`, []string{"Idempotency-Key", "k"}}, {"alice", "POST", "/ignore", `{"id":1,"owner":"bob"}`, nil},
	} {
		wantNone := func(r response) {
			t.Helper()
			if n := called.Swap(0); n != 0 || r.status < 400 {
				t.Errorf("%q: %s %s %.60s %q: %v, %d hooks", c.who, c.method, c.path, c.body, c.header, r, n)
			}
		}
		wantNone(call(h, c.who, c.method, c.path, c.body, c.header...))
		if len(c.header) > 0 {
			continue
		}
		api, id, _ := strings.Cut(c.path[1:], "/")
		wantNone(execute(h, c.who, map[string]string{
			"POST": fmt.Sprintf(`{"Create":{"api_name":%q,"value":%s}}`, api, c.body), "PATCH": fmt.Sprintf(`{"Update":{"api_name":%q,"record_id":%q,"value":%s}}`, api, id, c.body), "DELETE": fmt.Sprintf(`{"Delete":{"api_name":%q,"record_id":%q}}`, api, id),
		}[c.method]))
	}
	if after := a.state(); after != before {
		t.Errorf("changed: %s", difference(before, after))
	}
	wantStatus(t, call(h, "alice", "PATCH", "/own/1", `{"title":"x"}`), 200)
	if n := called.Load(); n != 2 {
		t.Errorf("%d hooks of a permitted request", n)
	}
}

// What a hook has done in the transaction goes with a row that Check or the
// database refuses afterwards.
func TestAttackHookEffectsAreUndone(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, owner TEXT, v TEXT UNIQUE) STRICT; CREATE TABLE log (v TEXT) STRICT; INSERT INTO t VALUES (1, 'alice', 'a'), (2, 'bob', 'b')`)
	var after atomic.Int64
	h := withBatches(t, db, records.Config{APIs: []records.API{{
		Name: "t", Table: "t", World: everything, Conflict: records.Replace, UpdateRule: ownDoc, DeleteRule: ownDoc, Check: ownDoc,
		Before: func(ctx context.Context, c *records.Change) error {
			_, err := c.Tx.ExecContext(ctx, `INSERT INTO log VALUES (?1)`, fmt.Sprint(c.Op))
			return err
		},
		After: func(context.Context, *records.Change) { after.Add(1) },
	}}})
	before := dump(t, db)
	for _, r := range []response{
		call(h, "alice", "POST", "/t", `{"owner":"bob"}`), call(h, "alice", "POST", "/t", `{"id":2,"owner":"alice"}`), call(h, "alice", "POST", "/t", `{"owner":"alice","v":"b"}`), call(h, "alice", "PATCH", "/t/1", `{"owner":"bob"}`), call(h, "alice", "PATCH", "/t/1", `{"v":"b"}`),
		call(h, "alice", "POST", "/t", `[{"owner":"alice"},{"owner":"bob"}]`), execute(h, "alice", `{"Create":{"api_name":"t","value":{"owner":"alice"}}},{"Delete":{"api_name":"t","record_id":"2"}}`),
	} {
		if r.status < 400 || after.Load() != 0 {
			t.Errorf("%v, %d hooks after the commit", r, after.Load())
		}
	}
	if got := dump(t, db); got != before {
		t.Errorf("changed: %s", difference(before, got))
	}
}

// Of a delete and an update of the same version, one takes place.
func TestAttackDeleteAgainstUpdate(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER) STRICT; CREATE TABLE log (id INTEGER, what TEXT) STRICT;
		CREATE TRIGGER u AFTER UPDATE ON t BEGIN INSERT INTO log VALUES (new.id, 'update'); END; CREATE TRIGGER d AFTER DELETE ON t BEGIN INSERT INTO log VALUES (old.id, 'delete'); END`)
	h := serve(t, db, records.API{Name: "t", Table: "t", World: everything})
	won := map[string]int{}
	for id := range 60 {
		execSQL(t, db, `INSERT INTO t VALUES (?1, 0)`, id)
		target := fmt.Sprintf("/t/%d", id)
		tag := get(h, "", target).header.Get("Etag")
		var remove, update response
		var wg sync.WaitGroup
		start := make(chan struct{})
		wg.Go(func() { <-start; remove = call(h, "", "DELETE", target, "", "If-Match", tag) })
		wg.Go(func() { <-start; update = call(h, "", "PATCH", target, `{"v":1}`, "If-Match", tag) })
		close(start)
		wg.Wait()
		log := one(t, db, `SELECT coalesce(group_concat(what), '') FROM log WHERE id = ?1`, id)
		switch {
		case remove.status == 200 && update.status == 412 && log == "delete", remove.status == 412 && update.status == 200 && log == "update":
			won[log]++
		default:
			t.Errorf("delete %v, update %v, done: %s", remove, update, log)
		}
	}
	if won["update"]+won["delete"] != 60 {
		t.Errorf("%v", won)
	}
}
