package records_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

func tableOf[T any](t testing.TB, s *records.Service, api string) *records.Table[T] {
	t.Helper()
	table, err := records.TableOf[T](s, api)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// signedIn returns a context of that caller.
func signedIn(id int64) context.Context {
	return context.WithValue(context.Background(), callerKey{}, records.Caller{ID: id})
}

// wantIs fails the test unless err is target, nil for none.
func wantIs(t testing.TB, what string, err, target error) {
	t.Helper()
	if !errors.Is(err, target) || target == nil && err != nil {
		t.Errorf("%s: %v, want %v", what, err, target)
	}
}

const tableSchema = `
CREATE TABLE note (id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, text TEXT NOT NULL DEFAULT 'none' CHECK (length(text) < 20),
	stars INTEGER, _secret TEXT NOT NULL DEFAULT 's', cost REAL) STRICT;
INSERT INTO note (id, owner, text, stars, cost) VALUES (1, 7, 'one', 5, 0.5), (2, 7, 'two', NULL, 1), (3, 8, 'three', 2, 2.5), (4, 8, 'four', 4, NULL)`

func tableAPI() records.API {
	return records.API{
		Name: "notes", Table: "note", Authenticated: everything, Exclude: []string{"cost"},
		CreateRule: `_REQ_.owner = _USER_.id`, ReadRule: `_ROW_.owner = _USER_.id`,
		UpdateRule: `_ROW_.owner = _USER_.id`, DeleteRule: `_ROW_.owner = _USER_.id`, Check: `_ROW_.owner = _USER_.id`,
		Validate: map[string]string{"text": "max=12"},
	}
}

type note struct {
	ID    int64  `json:"id"`
	Owner int64  `json:"owner"`
	Text  string `json:"text,omitempty"`
	Stars *int   `json:"stars"`
}

func TestTable(t *testing.T) {
	t.Parallel()
	db := openDB(t, tableSchema)
	notes := tableOf[note](t, newService(t, db, tableAPI()), "notes")
	seven := signedIn(7)

	got, err := notes.Get(seven, 1)
	if five := 5; err != nil || !reflect.DeepEqual(got, note{1, 7, "one", &five}) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, id := range []any{"1", uint8(1), int64(1)} {
		if got, err := notes.Get(seven, id); err != nil || got.ID != 1 {
			t.Errorf("get %T: %+v, %v", id, got, err)
		}
	}
	for _, id := range []any{nil, "x", "01", 1.5, []byte{1}, records.UUID{}, uint64(math.MaxUint64), struct{}{}} {
		_, err := notes.Get(seven, id)
		wantIs(t, fmt.Sprintf("get %v", id), err, records.ErrInvalidID)
	}

	id, err := notes.Insert(seven, note{Owner: 7})
	if err != nil || id != any(int64(5)) {
		t.Fatalf("insert: %v, %v", id, err)
	}
	if got, err := notes.Get(seven, id); err != nil || got.Text != "none" || got.Stars != nil {
		t.Errorf("the default counts: %+v, %v", got, err)
	}
	if id, err := notes.Insert(seven, note{ID: 40, Owner: 7, Text: "forty"}); err != nil || id != any(int64(40)) {
		t.Errorf("insert with a key: %v, %v", id, err)
	}

	two := 2
	wantIs(t, "update", notes.Update(seven, id, note{ID: 99, Owner: 7, Stars: &two}), nil)
	if got := one(t, db, `SELECT text || stars FROM note WHERE id = 5`); got != "none2" {
		t.Errorf("after an update of all: %s", got)
	}
	wantIs(t, "update a column", notes.Update(seven, id, note{Text: "new"}, "text"), nil)
	if got := one(t, db, `SELECT text || stars || owner FROM note WHERE id = 5`); got != "new27" {
		t.Errorf("after an update of one: %s", got)
	}
	for _, column := range []string{"id", "Text", "cost", "_secret", "other"} {
		if err := notes.Update(seven, id, note{}, column); err == nil || !strings.Contains(err.Error(), column) {
			t.Errorf("update of %s: %v", column, err)
		}
	}
	wantIs(t, "delete", notes.Delete(seven, id), nil)
	wantIs(t, "delete again", notes.Delete(seven, id), records.ErrDenied)
	if got := one(t, db, `SELECT count(*) FROM note`); got != "5" {
		t.Errorf("%s notes", got)
	}
}

// A table grants what a request is granted, and no more.
func TestTableIdentity(t *testing.T) {
	t.Parallel()
	db := openDB(t, tableSchema)
	svc := newService(t, db, tableAPI())
	notes := tableOf[note](t, svc, "notes")
	before := dump(t, db)
	readOnly := records.Caller{ID: int64(7), Allow: func(_ string, p records.Permission) bool { return p == records.Read }}
	for who, table := range map[string]*records.Table[note]{
		"nobody": notes, "anonymous": notes.As(records.Caller{}), "another": notes.As(records.Caller{ID: int64(8)}), "limited": notes.As(readOnly),
	} {
		ctx := context.Background()
		_, err := table.Get(ctx, 1)
		if who == "limited" {
			wantIs(t, who+" gets", err, nil)
		} else {
			wantIs(t, who+" gets", err, records.ErrDenied)
			_, missing := table.Get(ctx, 1000)
			if err.Error() != missing.Error() {
				t.Errorf("%s: %v, but %v for no row", who, err, missing)
			}
		}
		page, err := table.List(ctx, records.Query{Count: true})
		switch {
		case who == "nobody" || who == "anonymous":
			wantIs(t, who+" lists", err, records.ErrDenied)
		case err != nil || page.Total != 2 || slices.ContainsFunc(page.Records, func(n note) bool { return n.Owner != page.Records[0].Owner }):
			t.Errorf("%s lists %+v, %v", who, page, err)
		}
		_, err = table.Insert(ctx, note{Owner: 7})
		wantIs(t, who+" inserts", err, records.ErrDenied)
		wantIs(t, who+" updates", table.Update(ctx, 1, note{Owner: 7, Text: "x"}), records.ErrDenied)
		wantIs(t, who+" deletes", table.Delete(ctx, 1), records.ErrDenied)
	}
	writeOnly := notes.As(records.Caller{ID: int64(7), Allow: func(_ string, p records.Permission) bool { return p != records.Read }})
	_, err := writeOnly.Get(context.Background(), 1)
	wantIs(t, "get without the permission", err, records.ErrDenied)
	_, err = writeOnly.List(context.Background(), records.Query{})
	wantIs(t, "list without the permission", err, records.ErrDenied)
	wantIs(t, "moving out of reach", notes.Update(signedIn(7), 1, note{Owner: 8}), records.ErrDenied)
	if after := dump(t, db); after != before {
		t.Errorf("changed to %s", after)
	}

	system := notes.AsSystem()
	ctx := signedIn(7) // does not count
	if got, err := system.Get(ctx, 3); err != nil || got.Text != "three" {
		t.Errorf("system gets %+v, %v", got, err)
	}
	_, err = system.Get(ctx, 1000)
	wantIs(t, "system gets no row", err, records.ErrNotFound)
	wantIs(t, "system updates no row", system.Update(ctx, 1000, note{}), records.ErrNotFound)
	if page, err := system.List(ctx, records.Query{Count: true, Filter: records.Where("text", "regexp", "o")}); err != nil || page.Total != 3 {
		t.Errorf("system lists %+v, %v", page, err)
	}
	wantIs(t, "system updates", system.Update(ctx, 1, note{Owner: 9, Text: "moved"}), nil)
	var refused *records.Error
	if err := system.Update(ctx, 1, note{Text: "longer than it may be"}, "text"); !errors.As(err, &refused) || refused.Status != 400 || len(refused.Fields) != 1 {
		t.Errorf("conditions hold for the system: %v", err)
	}
	wantIs(t, "system deletes", system.Delete(ctx, 3), nil)
	if _, err := notes.Get(signedIn(7), 2); err != nil {
		t.Errorf("the table that others were made of: %v", err)
	}
}

func TestTableMistakes(t *testing.T) {
	t.Parallel()
	db := openDB(t, tableSchema+`; CREATE VIEW notable AS SELECT id, text FROM note`)
	svc := newService(t, db, tableAPI(), records.API{Name: "view", Table: "notable", World: everything})
	type wrong struct {
		ID     string  `json:"id"`
		Author int     `json:"author"`
		Secret string  `json:"_secret"`
		Cost   float64 `json:"cost"`
		Text   int
		Again  string `json:"text"`
		Stars  chan int
		fine   int
		Fine   int `json:"-"`
	}
	_, err := records.TableOf[wrong](svc, "notes")
	if err == nil {
		t.Fatal("no error")
	}
	for _, mistake := range []string{
		`field ID: a string cannot hold column "id"`, `field Author: no column "author"`, `field Secret: no column "_secret"`, `field Cost: no column "cost"`,
		`field Text: a int cannot hold column "text"`, `field Stars: a chan int cannot hold column "stars"`,
	} {
		if !strings.Contains(err.Error(), mistake) {
			t.Errorf("%v\n does not tell: %s", err, mistake)
		}
	}
	_ = wrong{}.fine
	type twice struct {
		Text  string
		Again *string `json:"text"`
	}
	type base struct{ ID int }
	type pointing struct{ *base }
	for name, try := range map[string]func() error{
		"column \"text\" is field Text already": func() error { _, err := records.TableOf[twice](svc, "notes"); return err },
		"is not a struct":                       func() error { _, err := records.TableOf[*note](svc, "notes"); return err },
		"has no field for a column":             func() error { _, err := records.TableOf[struct{}](svc, "notes"); return err },
		"a pointer cannot be embedded":          func() error { _, err := records.TableOf[pointing](svc, "notes"); return err },
		`there is no API "other"`:               func() error { _, err := records.TableOf[note](svc, "other"); return err },
	} {
		if err := try(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want %s", err, name)
		}
	}

	type seen struct{ ID int }
	view := tableOf[seen](t, svc, "view")
	ctx := context.Background()
	if v, err := view.Get(ctx, 2); err != nil || v.ID != 2 {
		t.Errorf("view: %v, %v", v, err)
	}
	_, err = view.AsSystem().Insert(ctx, seen{})
	wantIs(t, "insert into a view", err, records.ErrNotAllowed)
	wantIs(t, "update of a view", view.AsSystem().Update(ctx, 1, seen{}), records.ErrNotAllowed)
	wantIs(t, "delete from a view", view.AsSystem().Delete(ctx, 1), records.ErrNotAllowed)
	if page, err := view.List(ctx, records.Query{Order: []string{"id"}, Limit: 2}); err != nil || len(page.Records) != 2 || page.Cursor != "" {
		t.Errorf("view: %+v, %v", page, err)
	}
}

// Operations in a transaction are a part of it.
func TestTableInTransaction(t *testing.T) {
	t.Parallel()
	db := openDB(t, tableSchema+`; CREATE TABLE audit (note INTEGER NOT NULL, text TEXT) STRICT`)
	notes := tableOf[note](t, newService(t, db, tableAPI()), "notes").As(records.Caller{ID: int64(7)})
	ctx := context.Background()
	undo := errors.New("undo")
	for _, outcome := range []error{undo, nil} {
		err := db.Update(ctx, func(tx *sqlite.Tx) error {
			inside := notes.In(tx)
			id, err := inside.Insert(ctx, note{Owner: 7, Text: "mine"})
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO audit (note, text) VALUES (?, 'made')`, id); err != nil {
				return err
			}
			// What fails leaves the rest as it is.
			wantIs(t, "a rule", inside.Update(ctx, 3, note{Owner: 7}), records.ErrDenied)
			_, err = inside.Insert(ctx, note{ID: 1, Owner: 7})
			var refused *records.Error
			if !errors.As(err, &refused) || refused.Status != 400 {
				t.Errorf("a key that is taken: %v", err)
			}
			if got, err := inside.Get(ctx, id); err != nil || got.Text != "mine" {
				t.Errorf("inside: %+v, %v", got, err)
			}
			if _, err := notes.Get(ctx, id); !errors.Is(err, records.ErrDenied) {
				t.Errorf("outside: %v", err)
			}
			page, err := inside.List(ctx, records.Query{Count: true, Filter: records.Where("text", "=", "mine")})
			if err != nil || page.Total != 1 || len(page.Records) != 1 || page.Records[0].ID != id {
				t.Errorf("list inside: %+v, %v", page, err)
			}
			return outcome
		})
		wantIs(t, "transaction", err, outcome)
		want := map[error]string{undo: "40", nil: "51"}[outcome]
		if got := one(t, db, `SELECT count(*) || (SELECT count(*) FROM audit) FROM note`); got != want {
			t.Errorf("after %v: %s, want %s", outcome, got, want)
		}
	}
	// In a transaction for reading, nothing can be written.
	err := db.View(ctx, func(tx *sqlite.Tx) error {
		if _, err := notes.In(tx).Get(ctx, 1); err != nil {
			t.Errorf("read: %v", err)
		}
		if err := notes.In(tx).Delete(ctx, 1); err == nil {
			t.Error("written while reading")
		}
		return nil
	})
	wantIs(t, "view", err, nil)
}

// Keys that are UUIDs are the same in every form.
func TestTableUUIDs(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE thing (id BLOB PRIMARY KEY NOT NULL CHECK (is_uuid(id)), owner BLOB) STRICT`)
	type thing struct {
		ID    records.UUID `json:"id"`
		Owner [16]byte     `json:"owner"`
	}
	things := tableOf[thing](t, newService(t, db, records.API{Name: "things", Table: "thing", Authenticated: everything, ReadRule: `_ROW_.owner = _USER_.id`}), "things")
	ctx := context.Background()
	key, owner := records.UUID{6: 0x40, 8: 0x80, 15: 1}, [16]byte{15: 2}
	for _, caller := range []any{owner, records.UUID(owner), owner[:]} {
		mine := things.As(records.Caller{ID: caller})
		if id, err := mine.Insert(ctx, thing{key, owner}); err != nil || id != any(key) {
			t.Fatalf("%T: %v, %v", caller, id, err)
		}
		for _, id := range []any{key, [16]byte(key), key[:], key.String(), "00000000-0000-4000-8000-000000000001"} {
			if got, err := mine.Get(ctx, id); err != nil || got != (thing{key, owner}) {
				t.Errorf("%T gets %T: %v, %v", caller, id, got, err)
			}
		}
		wantIs(t, "delete", mine.Delete(ctx, key), nil)
	}
	_, err := things.As(records.Caller{ID: [3]byte{}}).Get(ctx, key)
	if err == nil {
		t.Error("a caller with an id of 3 bytes")
	}
}

// When the schema changes, a table goes on as long as T fits.
func TestTableFollowsSchema(t *testing.T) {
	t.Parallel()
	db := openFile(t, filepath.Join(t.TempDir(), "test.db"), tableSchema, sqlite.Options{})
	notes := tableOf[note](t, newService(t, db, tableAPI()), "notes").As(records.Caller{ID: int64(7)})
	ctx := context.Background()
	execSQL(t, db, `ALTER TABLE note ADD COLUMN more TEXT`)
	if _, err := notes.Get(ctx, 1); err != nil {
		t.Errorf("with another column: %v", err)
	}
	execSQL(t, db, `ALTER TABLE note RENAME COLUMN stars TO points`)
	_, err := notes.Get(ctx, 1)
	var failed *records.Error
	if !errors.As(err, &failed) || failed.Status != 500 || !strings.Contains(err.Error(), `no column "stars"`) {
		t.Errorf("without a column: %v", err)
	}
	execSQL(t, db, `ALTER TABLE note RENAME COLUMN points TO stars`)
	if _, err := notes.Get(ctx, 1); err != nil {
		t.Errorf("with the column again: %v", err)
	}
}

func TestTableEnds(t *testing.T) {
	t.Parallel()
	db := openDB(t, tableSchema)
	notes := tableOf[note](t, newService(t, db, tableAPI()), "notes").AsSystem()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := notes.Get(ctx, 1)
	wantIs(t, "get", err, context.Canceled)
	_, err = notes.List(ctx, records.Query{})
	wantIs(t, "list", err, context.Canceled)
	_, err = notes.Insert(ctx, note{})
	wantIs(t, "insert", err, context.Canceled)
}

// A Table may be used by several goroutines, also while the schema changes.
func TestTableConcurrently(t *testing.T) {
	t.Parallel()
	db := openDB(t, tableSchema)
	notes := tableOf[note](t, newService(t, db, tableAPI()), "notes")
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			mine := notes.As(records.Caller{ID: int64(100 + i)})
			for range 10 {
				id, err := mine.Insert(context.Background(), note{Owner: int64(100 + i)})
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := mine.Get(context.Background(), id); err != nil || got.Owner != int64(100+i) {
					t.Errorf("%+v, %v", got, err)
				}
				if page, err := mine.List(context.Background(), records.Query{Limit: 1}); err != nil || len(page.Records) != 1 || page.Records[0].ID != id {
					t.Errorf("%+v, %v", page, err)
				}
			}
		})
	}
	for i := range 5 {
		execSQL(t, db, fmt.Sprintf(`ALTER TABLE note ADD COLUMN more%d TEXT`, i))
	}
	group.Wait()
	if got := one(t, db, `SELECT count(*) FROM note WHERE owner >= 100`); got != "80" {
		t.Errorf("%s notes", got)
	}
}
