package records_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

// Writers whose deferred constraints fail the shared commit do not keep those
// from writing whose transactions cannot just be repeated.
func TestHookedWritesAreNotStarved(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE p (id INTEGER PRIMARY KEY) STRICT;
		CREATE TABLE bad (id INTEGER PRIMARY KEY, p INTEGER REFERENCES p(id) DEFERRABLE INITIALLY DEFERRED) STRICT; CREATE TABLE good (id INTEGER PRIMARY KEY) STRICT`)
	var runs atomic.Int64
	h := serve(t, db, records.API{Name: "bad", Table: "bad", World: everything}, records.API{Name: "good", Table: "good", World: everything,
		Before: func(context.Context, *records.Change) error { runs.Add(1); return nil }})
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				want(t, call(h, "", "POST", "/bad", `{"p":99}`), 400, "db constraint: fk")
			}
		})
	}
	const requests = 300
	for range requests {
		wantStatus(t, call(h, "", "POST", "/good", `{}`), 200)
	}
	stop()
	wg.Wait()
	if n := one(t, db, `SELECT count(*) FROM good`); n != fmt.Sprint(requests) {
		t.Errorf("%s rows", n)
	}
	if n := runs.Load(); n > 2*requests {
		t.Errorf("the hook ran %d times for %d requests", n, requests)
	}
}

// What a create would replace is judged as the request has it, before hooks.
func TestReplaceWithHooks(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, status TEXT, secret TEXT) STRICT; INSERT INTO t VALUES (1, 'one', 's', 'old'), (2, 'two', 's', 'old')`)
	h := serve(t, db, records.API{Name: "t", Table: "t", World: everything, Conflict: records.Replace, Exclude: []string{"secret"},
		UpdateRule: `_REQ_.name <> 'bad' AND _REQ_.status IS NULL`,
		Before: func(_ context.Context, c *records.Change) error {
			if c.Values["name"] == "moved" {
				c.Values["id"] = int64(2) // nobody has asked about that row
			}
			if c.Op == records.Create {
				c.Values["status"], c.Values["secret"] = "set", "hook"
			}
			return nil
		}})
	want(t, call(h, "", "PATCH", "/t/1", `{"name":"bad"}`), 403, "")
	want(t, call(h, "", "POST", "/t", `{"id":1,"name":"bad"}`), 403, "")
	want(t, call(h, "", "POST", "/t", `{"id":1,"name":"good"}`), 200, `{"ids":["1"]}`)
	if got := one(t, db, `SELECT name || status || secret FROM t WHERE id = 1`); got != "goodsethook" {
		t.Errorf("replaced by %q", got)
	}
	want(t, call(h, "", "POST", "/t", `{"id":3,"name":"bad"}`), 200, `{"ids":["3"]}`) // a new row, of which the update rule says nothing
	want(t, call(h, "", "POST", "/t", `{"id":4,"name":"moved"}`), 403, "")
	if got := one(t, db, `SELECT name FROM t WHERE id = 2`); got != "two" {
		t.Errorf("replaced by %q", got)
	}
}

// A create that is ignored has no effect, that of its hook included.
func TestIgnoreWithHooks(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT) STRICT; CREATE TABLE stock (n INTEGER) STRICT; INSERT INTO stock VALUES (10)`)
	after := 0
	h := withBatches(t, db, records.Config{APIs: []records.API{{Name: "t", Table: "t", World: everything, Conflict: records.Ignore,
		Before: func(ctx context.Context, c *records.Change) error {
			_, err := c.Tx.ExecContext(ctx, `UPDATE stock SET n = n - 1`)
			return err
		}, After: func(context.Context, *records.Change) { after++ }}}})
	want(t, call(h, "", "POST", "/t", `{"id":1}`), 200, `{"ids":["1"]}`)
	want(t, call(h, "", "POST", "/t", `{"id":1}`), 200, `{"ids":[]}`)
	want(t, call(h, "", "POST", "/t", `[{"id":1},{"id":2}]`), 200, `{"ids":["2"]}`)
	if got := one(t, db, `SELECT n FROM stock`); got != "8" || after != 2 {
		t.Errorf("stock %s, After %d times", got, after)
	}
}

// Errors of hooks reach the client only if they were made for it.
func TestHookErrorsStayInside(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT) STRICT; CREATE TABLE other (id INTEGER PRIMARY KEY, code TEXT UNIQUE) STRICT; INSERT INTO other (code) VALUES ('x')`)
	type row struct {
		Code string `json:"code"`
	}
	var others *records.Table[row]
	svc, err := records.New(db, records.Config{Caller: callerOf, Logger: quiet(), APIs: []records.API{
		{Name: "other", Table: "other"},
		{Name: "t", Table: "t", World: everything, Before: func(ctx context.Context, c *records.Change) error {
			switch c.Values["v"] {
			case "table":
				_, err := others.AsSystem().In(c.Tx).Insert(ctx, row{"x"})
				return err
			case "panic":
				panic(fmt.Errorf("wrapped: %w", records.Refuse(404, "inside")))
			case "own":
				return &records.Error{Text: "no status"}
			case "wrapped":
				return fmt.Errorf("deep inside: %w", records.Refuse(409, "taken"))
			case "denied":
				return records.ErrDenied
			}
			return nil
		}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	others = tableOf[row](t, svc, "other")
	h := signIn(svc)
	for v, status := range map[string]int{"table": 500, "panic": 500, "own": 500, "wrapped": 409, "denied": 403, "fine": 200} {
		r := call(h, "", "POST", "/t", fmt.Sprintf(`{"v":%q}`, v), "Accept", "application/problem+json")
		if r.status != status || strings.Contains(r.body, "code") || strings.Contains(r.body, "inside") {
			t.Errorf("%s: %v, want %d", v, r, status)
		}
	}
}

// Bytes that a hook changes in place are those of its own run.
func TestHookChangesBytesInPlace(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB) STRICT`)
	runs := 0
	h := serve(t, db, records.API{Name: "t", Table: "t", World: everything, Before: func(ctx context.Context, c *records.Change) error {
		for i, b := range c.Values["v"].([]byte) {
			c.Values["v"].([]byte)[i] = b + 1
		}
		if runs++; runs == 1 {
			_, err := c.Tx.ExecContext(ctx, `INSERT OR ROLLBACK INTO t (id) VALUES (1), (1)`)
			if err == nil {
				t.Error("inserted twice")
			}
			return nil // the transaction is gone
		}
		return nil
	}})
	wantStatus(t, call(h, "", "POST", "/t", `{"id":5,"v":[0,0]}`), 200)
	if got := one(t, db, `SELECT hex(v) FROM t`); got != "0101" || runs != 2 {
		t.Errorf("stored %s after %d runs", got, runs)
	}
}

// Tables are used inside a transaction right after the schema has changed.
func TestTableInTransactionAfterSchemaChange(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT) STRICT; CREATE TABLE u (id INTEGER PRIMARY KEY) STRICT`)
	svc, err := records.New(db, records.Config{APIs: []records.API{
		{Name: "t", Table: "t", World: everything, Subscriptions: true}, {Name: "u", Table: "u", World: everything},
	}, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		V string `json:"v"`
	}
	table := tableOf[row](t, svc, "t")
	execSQL(t, db, `DROP TABLE t; CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT) STRICT; DROP TABLE _records_answer`)
	ctx := context.Background()
	other := make(chan error, 1)
	err = db.Update(ctx, func(tx *sqlite.Tx) error {
		go func() { other <- db.Write(ctx, sqlite.Stmt{SQL: `INSERT INTO u DEFAULT VALUES`}) }()
		_, err := table.In(tx).Insert(ctx, row{"x"})
		return err
	})
	if err := errors.Join(err, <-other); err != nil {
		t.Error(err)
	}
	wantStatus(t, get(svc, "", "/u"), 200) // outside, which prepares the rest
	if n := one(t, db, `SELECT count(*) FROM sqlite_schema WHERE name = '_records_answer'`); n != "1" {
		t.Error("the table for repeated requests was not made anew")
	}
}

// Which of several writes was refused is told.
func TestBatchTellsWhich(t *testing.T) {
	t.Parallel()
	h := withBatches(t, openDB(t, orderSchema), records.Config{APIs: orderAPIs()})
	ok := `{"Create":{"api_name":"customer","value":{"name":"X"}}}`
	for _, bad := range []string{`{"Delete":{"api_name":"item","record_id":"99"}}`, `{"Update":{"api_name":"customer","record_id":"99","value":{"name":"x"}}}`, `{"Create":{"api_name":"customer","value":{"name":null}}}`} {
		r := execute(h, "", ok+","+ok+","+bad, "Accept", "application/problem+json")
		if r.status < 400 || !strings.Contains(r.body, `"pointer":"#/operations/2`) {
			t.Errorf("%s: %v", bad, r)
		}
	}
}
