package records_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

const hookSchema = `
CREATE TABLE item (id INTEGER PRIMARY KEY, owner INTEGER, name TEXT UNIQUE, stock INTEGER NOT NULL DEFAULT 1 CHECK (stock >= 0), _note TEXT, twice INTEGER AS (stock * 2)) STRICT;
CREATE TABLE sale (id INTEGER PRIMARY KEY, item INTEGER REFERENCES item, n INTEGER) STRICT;
INSERT INTO item (id, owner, name, stock) VALUES (1, 7, 'cup', 3), (2, 8, 'pot', 0)`

type item struct {
	ID    int64  `json:"id"`
	Owner int64  `json:"owner,omitempty"`
	Name  string `json:"name,omitempty"`
	Stock *int   `json:"stock,omitempty"`
}

// logBuffer collects log lines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// hooked is a service with hooks, its handler and what it has logged.
type hooked struct {
	db  *sqlite.DB
	svc *records.Service
	h   http.Handler
	log *logBuffer
}

func newHooked(t testing.TB, timeout time.Duration, apis ...records.API) *hooked {
	t.Helper()
	s := &hooked{db: openDB(t, hookSchema), log: &logBuffer{}}
	var err error
	s.svc, err = records.New(s.db, records.Config{APIs: apis, Caller: callerOf, HookTimeout: timeout, Logger: slog.New(slog.NewTextHandler(s.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", s.svc)
	mux.HandleFunc("/execute", s.svc.ServeTransaction)
	s.h = signIn(mux)
	return s
}

func itemAPI(before func(context.Context, *records.Change) error, after func(context.Context, *records.Change)) records.API {
	return records.API{Name: "items", Table: "item", World: everything, Before: before, After: after}
}

// shown is a change as text.
func shown(c *records.Change) string {
	values := func(m map[string]any) string {
		var b strings.Builder
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if m[k] != nil {
				fmt.Fprintf(&b, " %s=%v", k, m[k])
			}
		}
		return b.String()
	}
	op := map[records.Permission]string{records.Create: "create", records.Update: "update", records.Delete: "delete"}[c.Op]
	text := fmt.Sprintf("%s %s %v by %v:%s", op, c.API, c.ID, c.Caller.ID, values(c.Values))
	if c.Old != nil {
		text += " was" + values(c.Old)
	}
	return text
}

func TestHookSeesChange(t *testing.T) {
	t.Parallel()
	var before, after []string
	s := newHooked(t, 0, itemAPI(func(ctx context.Context, c *records.Change) error {
		var n int
		if err := c.Tx.QueryRowContext(ctx, `SELECT count(*) FROM item`).Scan(&n); err != nil {
			return err
		}
		if _, ok := ctx.Deadline(); !ok {
			t.Error("no deadline")
		}
		before = append(before, fmt.Sprintf("%d %s", n, shown(c)))
		return nil
	}, func(ctx context.Context, c *records.Change) {
		if _, ok := ctx.Deadline(); !ok || c.Tx != nil {
			t.Errorf("after the commit: %v, transaction %v", ctx, c.Tx)
		}
		after = append(after, shown(c))
	}))
	wantStatus(t, call(s.h, "7", "POST", "/items", `{"name":"mug"}`), 200)
	wantStatus(t, call(s.h, "7", "POST", "/items", `{"id":9,"name":"jug","stock":2,"twice":5,"other":1}`), 200)
	wantStatus(t, call(s.h, "", "PATCH", "/items/1", `{"stock":5}`), 200)
	wantStatus(t, call(s.h, "7", "DELETE", "/items/9", ""), 200)
	wantStatus(t, call(s.h, "7", "DELETE", "/items/9", ""), 404)
	wantStatus(t, get(s.h, "7", "/items/1"), 200)
	wantLines(t, before,
		"2 create items <nil> by 7: name=mug",
		"3 create items 9 by 7: id=9 name=jug stock=2",
		"4 update items 1 by <nil>: stock=5 was id=1 name=cup owner=7 stock=3 twice=6",
		"4 delete items 9 by 7: was id=9 name=jug stock=2 twice=4")
	wantLines(t, after,
		"create items 3 by 7: name=mug",
		"create items 9 by 7: id=9 name=jug stock=2",
		"update items 1 by <nil>: stock=5 was id=1 name=cup owner=7 stock=3 twice=6",
		"delete items 9 by 7: was id=9 name=jug stock=2 twice=4")
}

func wantLines(t testing.TB, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestHookChangesValues(t *testing.T) {
	t.Parallel()
	var change func(v map[string]any)
	s := newHooked(t, 0, itemAPI(func(_ context.Context, c *records.Change) error {
		change(c.Values)
		return nil
	}, nil))
	change = func(v map[string]any) {
		v["name"], v["_note"], v["owner"], v["id"] = strings.ToUpper(v["name"].(string)), "hidden", 5, int64(50)
		delete(v, "stock")
	}
	want(t, call(s.h, "", "POST", "/items", `{"name":"mug","stock":77}`), 200, `{"ids":["50"]}`)
	if got := one(t, s.db, `SELECT name || _note || owner || stock FROM item WHERE id = 50`); got != "MUGhidden51" {
		t.Error(got)
	}
	change = func(v map[string]any) { v["stock"], v["name"] = true, nil }
	wantStatus(t, call(s.h, "", "PATCH", "/items/50", `{}`), 200)
	if got := one(t, s.db, `SELECT coalesce(name, '-') || stock FROM item WHERE id = 50`); got != "-1" {
		t.Error(got)
	}
	change = func(v map[string]any) { clear(v) }
	wantStatus(t, call(s.h, "", "PATCH", "/items/50", `{"name":"x"}`), 200)
	wantStatus(t, call(s.h, "", "POST", "/items", `{"name":"x"}`), 200)
	if got := one(t, s.db, `SELECT count(*) FROM item WHERE name = 'x'`); got != "0" {
		t.Error("a value that was removed is written")
	}

	// Constraints hold, and what is no column is a mistake of the program.
	before := dump(t, s.db)
	for _, test := range []struct {
		status int
		column string
		value  any
	}{
		{400, "stock", -1}, {400, "name", "cup"}, {400, "stock", nil}, {400, "stock", "many"},
		{500, "other", 1}, {500, "NAME", "x"}, {500, "twice", 4}, {500, "name", []string{"x"}}, {500, "name", uint8(1)}, {500, "id", 3},
	} {
		change = func(v map[string]any) { v[test.column] = test.value }
		r := call(s.h, "", "PATCH", "/items/50", `{"owner":1}`)
		if r.status != test.status || test.status == 500 && r.body != "" {
			t.Errorf("%s set to %v: %v", test.column, test.value, r)
		}
	}
	if after := dump(t, s.db); after != before {
		t.Errorf("changed to %s", after)
	}
}

// A hook decides what the client is told, and whatever it does nothing remains.
func TestHookRefuses(t *testing.T) {
	t.Parallel()
	var with func() error
	s := newHooked(t, 0, itemAPI(func(ctx context.Context, c *records.Change) error {
		if _, err := c.Tx.ExecContext(ctx, `INSERT INTO sale (item) VALUES (1)`); err != nil {
			return err
		}
		return with()
	}, func(context.Context, *records.Change) { t.Error("called after no commit") }))
	before := dump(t, s.db)
	for _, test := range []struct {
		name string
		with func() error
		want string
		log  string
	}{
		{"refusal", func() error { return records.Refuse(409, "sold out") }, `409 "sold out"`, ""},
		{"wrapped refusal", func() error { return fmt.Errorf("stock: %w", records.Refuse(422, "not today")) }, `422 "not today"`, ""},
		{"refusal with another status", func() error { return records.Refuse(200, "x") }, `400 "x"`, ""},
		{"denial", func() error { return records.ErrDenied }, `403 ""`, ""},
		{"error", func() error { return errors.New("secret cause") }, `500 ""`, "secret cause"},
		{"error of the server", func() error { return &records.Error{Status: 507, Text: "internals"} }, `500 ""`, "internals"},
		{"panic", func() error { panic("secret panic") }, `500 ""`, "secret panic"},
		{"deadline", func() error { return fmt.Errorf("ask: %w", context.DeadlineExceeded) }, `503 ""`, "deadline"},
	} {
		with = test.with
		for _, r := range []response{
			call(s.h, "", "POST", "/items", `{"name":"mug"}`),
			call(s.h, "", "PATCH", "/items/1", `{"name":"mug"}`),
			call(s.h, "", "PATCH", "/items/1", `{"name":"mug"}`, "If-Match", "*"),
			call(s.h, "", "DELETE", "/items/1", ""),
			call(s.h, "", "POST", "/items", `[{"name":"mug"},{"name":"jug"}]`),
			call(s.h, "", "POST", "/execute", `{"operations":[{"Delete":{"api_name":"items","record_id":"1"}}],"transaction":true}`),
		} {
			if r.String() != test.want {
				t.Errorf("%s: %v, want %s", test.name, r, test.want)
			}
		}
		if !strings.Contains(s.log.String(), test.log) {
			t.Errorf("%s: not in the log", test.name)
		}
	}
	if strings.Contains(s.log.String(), "sold out") {
		t.Error("a refusal is in the log")
	}
	if after := dump(t, s.db); after != before {
		t.Errorf("changed to %s", after)
	}
}

// A rule is asked about the request, Check about the row that comes of it.
func TestHookAndRules(t *testing.T) {
	t.Parallel()
	calls, change := 0, func(map[string]any) {}
	api := itemAPI(func(_ context.Context, c *records.Change) error {
		calls++
		change(c.Values)
		return nil
	}, nil)
	api.CreateRule = `_REQ_.owner = _USER_.id AND NOT 'stock' IN _REQ_FIELDS_`
	api.UpdateRule = `_ROW_.owner = _USER_.id AND NOT 'stock' IN _REQ_FIELDS_`
	api.DeleteRule = `_ROW_.owner = _USER_.id`
	checked := api
	checked.Name, checked.Check = "checked", `_ROW_.owner = _USER_.id AND _ROW_.stock < 100`
	s := newHooked(t, 0, api, checked)
	for _, r := range []response{
		call(s.h, "7", "POST", "/items", `{"owner":8}`), call(s.h, "7", "POST", "/items", `{"owner":7,"stock":1}`), call(s.h, "", "POST", "/items", `{}`),
		call(s.h, "7", "PATCH", "/items/2", `{"name":"x"}`), call(s.h, "7", "PATCH", "/items/1", `{"stock":1}`), call(s.h, "7", "PATCH", "/items/99", `{}`),
		call(s.h, "7", "DELETE", "/items/2", ""), call(s.h, "7", "DELETE", "/items/99", ""),
	} {
		want(t, r, 403, "")
	}
	if calls != 0 {
		t.Errorf("%d calls for what is denied", calls)
	}
	change = func(v map[string]any) { v["owner"], v["stock"] = 8, 50 }
	want(t, call(s.h, "7", "POST", "/items", `{"owner":7}`), 200, `{"ids":["3"]}`)
	wantStatus(t, call(s.h, "7", "PATCH", "/items/1", `{"name":"given away"}`), 200)
	if got := one(t, s.db, `SELECT group_concat(owner || '/' || stock) FROM item WHERE id <> 2`); got != "8/50,8/50" {
		t.Error(got)
	}
	before := dump(t, s.db)
	want(t, call(s.h, "8", "POST", "/checked", `{"owner":8}`), 200, `{"ids":["4"]}`)
	want(t, call(s.h, "7", "POST", "/checked", `{"owner":7}`), 403, "")
	change = func(v map[string]any) { v["stock"] = 100 }
	want(t, call(s.h, "8", "PATCH", "/checked/1", `{"name":"x"}`), 403, "")
	execSQL(t, s.db, `DELETE FROM item WHERE id = 4`)
	if after := dump(t, s.db); after != before {
		t.Errorf("changed to %s", after)
	}
}

// A hook that takes too long loses its transaction. Others go on.
func TestHookTakesTooLong(t *testing.T) {
	t.Parallel()
	const timeout = 30 * time.Millisecond
	for name, wait := range map[string]func(ctx context.Context, release <-chan struct{}) error{
		"waits for its context": func(ctx context.Context, _ <-chan struct{}) error { <-ctx.Done(); return ctx.Err() },
		"returns nil too late":  func(ctx context.Context, _ <-chan struct{}) error { <-ctx.Done(); return nil },
		"ignores its context":   func(_ context.Context, release <-chan struct{}) error { <-release; return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			entered, release := make(chan struct{}, 8), make(chan struct{})
			s := newHooked(t, timeout,
				itemAPI(func(ctx context.Context, _ *records.Change) error {
					entered <- struct{}{}
					return wait(ctx, release)
				}, func(context.Context, *records.Change) { t.Error("called after no commit") }),
				records.API{Name: "sales", Table: "sale", World: everything})
			answer := make(chan response, 1)
			go func() { answer <- call(s.h, "", "PATCH", "/items/1", `{"name":"late"}`) }()
			<-entered
			wantStatus(t, call(s.h, "", "POST", "/sales", `{"item":1}`), 200)
			close(release)
			failed(t, <-answer)
			if got := one(t, s.db, `SELECT name || (SELECT count(*) FROM sale) FROM item WHERE id = 1`); got != "cup1" {
				t.Error(got)
			}
		})
	}
}

// failed fails the test unless the client is told that it is not to blame.
func failed(t testing.TB, r response) {
	t.Helper()
	if r.status != 500 && r.status != 503 || r.body != "" {
		t.Errorf("got %v, want 500 or 503", r)
	}
}

// After is called behind a commit and in no other case.
func TestHookAfter(t *testing.T) {
	t.Parallel()
	var after []string
	var s *hooked
	ignore := itemAPI(nil, func(context.Context, *records.Change) { t.Error("called for a record that was not made") })
	ignore.Name, ignore.Conflict = "ignoring", records.Ignore
	s = newHooked(t, 0, itemAPI(nil, func(_ context.Context, c *records.Change) {
		// Others see it already.
		after = append(after, shown(c)+": "+one(t, s.db, `SELECT count(*) FROM item`))
		if c.Values["name"] == "panic" {
			panic("secret panic")
		}
	}), ignore)
	for body, status := range map[string]int{`{"name":"cup"}`: 400, `{"stock":-1}`: 400, `[{"name":"a"},{"name":"pot"}]`: 400} {
		wantStatus(t, call(s.h, "", "POST", "/items", body), status)
	}
	wantStatus(t, call(s.h, "", "PATCH", "/items/1", `{"stock":-1}`), 400)
	wantStatus(t, call(s.h, "", "PATCH", "/items/1", `{"stock":1}`, "If-Match", `"no"`), 412)
	wantStatus(t, call(s.h, "", "POST", "/ignoring", `{"id":1}`), 200)
	wantLines(t, after)

	wantStatus(t, call(s.h, "", "POST", "/items", `{"name":"panic"}`), 200)
	wantLines(t, after, "create items 3 by <nil>: name=panic: 3")
	if !strings.Contains(s.log.String(), "secret panic") {
		t.Error("the panic is not in the log")
	}

	items, ctx := tableOf[item](t, s.svc, "items"), context.Background()
	after = nil
	undo := errors.New("undo")
	for _, outcome := range []error{undo, nil} {
		err := s.db.Update(ctx, func(tx *sqlite.Tx) error {
			if _, err := items.In(tx).Insert(ctx, item{Name: "a"}); err != nil {
				return err
			}
			if err := items.In(tx).Delete(ctx, 3); err != nil {
				return err
			}
			if _, err := items.In(tx).Insert(ctx, item{Name: "cup"}); err == nil {
				t.Error("a name twice")
			}
			if len(after) > 0 {
				t.Error("called before the commit")
			}
			return outcome
		})
		wantIs(t, "transaction", err, outcome)
		if outcome != nil {
			wantLines(t, after)
		}
	}
	wantLines(t, after, "create items 4 by <nil>: name=a: 3", "delete items 3 by <nil>: was id=3 name=panic stock=1 twice=2: 3")
}

func TestHookOfManyRecords(t *testing.T) {
	t.Parallel()
	var before, after []string
	s := newHooked(t, 0, itemAPI(func(ctx context.Context, c *records.Change) error {
		before = append(before, fmt.Sprint(len(after))+" "+shown(c))
		if c.Values["name"] == "bad" {
			return records.Refuse(409, "bad")
		}
		return nil
	}, func(_ context.Context, c *records.Change) { after = append(after, shown(c)) }))

	want(t, call(s.h, "", "POST", "/items", `[{"name":"a"},{"name":"b"}]`), 200, `{"ids":["3","4"]}`)
	wantLines(t, before, "0 create items <nil> by <nil>: name=a", "0 create items <nil> by <nil>: name=b")
	wantLines(t, after, "create items 3 by <nil>: name=a", "create items 4 by <nil>: name=b")

	before, after = nil, nil
	want(t, call(s.h, "", "POST", "/items", `[{"name":"c"},{"name":"bad"},{"name":"d"}]`), 409, "bad")
	if len(before) != 2 || len(after) != 0 {
		t.Errorf("%q, %q", before, after)
	}

	const operations = `{"operations":[{"Create":{"api_name":"items","value":{"name":"e"}}},{"Update":{"api_name":"items","record_id":{"$id":0},"value":{"name":%q}}},` +
		`{"Delete":{"api_name":"items","record_id":"4"}}],"transaction":%v}`
	before, after = nil, nil
	wantStatus(t, call(s.h, "", "POST", "/execute", fmt.Sprintf(operations, "f", true)), 200)
	wantLines(t, before, "0 create items <nil> by <nil>: name=e", "0 update items 5 by <nil>: name=f was id=5 name=e stock=1 twice=2",
		"0 delete items 4 by <nil>: was id=4 name=b stock=1 twice=2")
	wantLines(t, after, "create items 5 by <nil>: name=e", "update items 5 by <nil>: name=f was id=5 name=e stock=1 twice=2",
		"delete items 4 by <nil>: was id=4 name=b stock=1 twice=2")

	// One by one, those before the one that fails stand.
	before, after = nil, nil
	wantStatus(t, call(s.h, "", "POST", "/execute", fmt.Sprintf(operations, "bad", true)), 409)
	wantLines(t, after)
	wantStatus(t, call(s.h, "", "POST", "/execute", fmt.Sprintf(operations, "bad", false)), 409)
	wantLines(t, after, "create items 6 by <nil>: name=e")
}

// A hook uses other tables, with their hooks, in its transaction.
func TestHookUsesTables(t *testing.T) {
	t.Parallel()
	type sale struct {
		ID   int64 `json:"id"`
		Item int64 `json:"item"`
		N    int   `json:"n"`
	}
	var items *records.Table[item]
	var done []string
	note := func(_ context.Context, c *records.Change) { done = append(done, shown(c)) }
	sales := records.API{Name: "sales", Table: "sale", Authenticated: records.Create, After: note, Before: func(ctx context.Context, c *records.Change) error {
		n := int(c.Values["n"].(int64))
		it, err := items.In(c.Tx).Get(ctx, c.Values["item"])
		if err != nil {
			return err
		}
		left := *it.Stock - n
		return items.In(c.Tx).Update(ctx, it.ID, item{Stock: &left}, "stock")
	}}
	hidden := itemAPI(func(_ context.Context, c *records.Change) error {
		if c.Values["stock"].(int64) < 0 {
			return records.Refuse(409, "sold out")
		}
		return nil
	}, note)
	hidden.World = 0
	s := newHooked(t, 0, sales, hidden)
	items = tableOf[item](t, s.svc, "items").AsSystem()
	want(t, call(s.h, "7", "POST", "/sales", `{"item":1,"n":2}`), 200, `{"ids":["1"]}`)
	want(t, call(s.h, "7", "POST", "/sales", `{"item":1,"n":2}`), 409, "sold out")
	want(t, call(s.h, "7", "POST", "/sales", `{"item":9,"n":2}`), 404, "")
	if got := one(t, s.db, `SELECT stock || (SELECT count(*) FROM sale) FROM item WHERE id = 1`); got != "11" {
		t.Error(got)
	}
	wantLines(t, done, "update items 1 by <nil>: stock=1 was id=1 name=cup owner=7 stock=3 twice=6", "create sales 1 by 7: item=1 n=2")

	// The same from Go, in a transaction of the application.
	err := s.db.Update(context.Background(), func(tx *sqlite.Tx) error {
		_, err := tableOf[sale](t, s.svc, "sales").As(records.Caller{ID: int64(7)}).In(tx).Insert(context.Background(), sale{Item: 1, N: 1})
		return err
	})
	wantIs(t, "transaction", err, nil)
	if len(done) != 4 {
		t.Errorf("%q", done)
	}
}

// A hook that writes outside of its transaction waits for itself, but not for ever.
func TestHookWaitsForItself(t *testing.T) {
	t.Parallel()
	for name, passed := range map[string]func(context.Context) context.Context{
		"with its context": func(ctx context.Context) context.Context { return ctx },
		"without":          context.WithoutCancel,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			type sale struct{ N int }
			var sales *records.Table[sale]
			s := newHooked(t, 30*time.Millisecond, itemAPI(func(ctx context.Context, _ *records.Change) error {
				_, err := sales.Insert(passed(ctx), sale{5})
				return err
			}, nil), records.API{Name: "sales", Table: "sale", World: everything})
			sales = tableOf[sale](t, s.svc, "sales")
			failed(t, call(s.h, "", "PATCH", "/items/1", `{"name":"x"}`))
			wantStatus(t, call(s.h, "", "POST", "/sales", `{"item":1}`), 200)
			if got := one(t, s.db, `SELECT name FROM item WHERE id = 1`); got != "cup" {
				t.Error(got)
			}
		})
	}
}

// What is undone within a transaction is not told of when the rest is committed.
func TestHookAfterUndoneInside(t *testing.T) {
	t.Parallel()
	var after []string
	var sales *records.Table[saleN]
	s := newHooked(t, 0, itemAPI(func(ctx context.Context, c *records.Change) error {
		_, err := sales.In(c.Tx).Insert(ctx, saleN{N: 1})
		return err
	}, nil), records.API{Name: "sales", Table: "sale", World: everything, After: func(_ context.Context, c *records.Change) { after = append(after, shown(c)) }})
	sales = tableOf[saleN](t, s.svc, "sales")
	items, ctx := tableOf[item](t, s.svc, "items"), context.Background()
	err := s.db.Update(ctx, func(tx *sqlite.Tx) error {
		if _, err := items.In(tx).Insert(ctx, item{Name: "cup"}); err == nil {
			t.Error("a name twice")
		}
		err := tx.Nested(func() error {
			_, err := sales.In(tx).Insert(ctx, saleN{N: 2})
			return errors.Join(err, errors.New("undo"))
		})
		if err == nil {
			t.Error("not undone")
		}
		_, err = sales.In(tx).Insert(ctx, saleN{N: 3})
		return err
	})
	wantIs(t, "transaction", err, nil)
	wantLines(t, after, "create sales 1 by <nil>: n=3")
}

type saleN struct {
	N int `json:"n"`
}
