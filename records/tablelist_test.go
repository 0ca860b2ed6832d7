package records_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

const wareSchema = `
CREATE TABLE ware (id INTEGER PRIMARY KEY, name TEXT, price REAL, stock INTEGER, made TEXT, loose ANY, tag BLOB, _cost INTEGER, place BLOB CHECK (ST_IsValid(place))) STRICT`

type ware struct {
	ID    int64      `json:"id"`
	Name  *string    `json:"name"`
	Price float64    `json:"price"`
	Stock *int       `json:"stock"`
	Made  *time.Time `json:"made"`
	Tag   []byte     `json:"tag"`
}

func wares(t testing.TB) (*sqlite.DB, *records.Table[ware]) {
	t.Helper()
	db := openDB(t, wareSchema+`;
		INSERT INTO ware (id, name, price, stock, made, loose, tag, _cost, place) VALUES
		(1, 'apple', 0.5, 3, '2024-01-01T00:00:00.000Z', 5, x'01', 1, ST_GeomFromText('POINT(1 1)')),
		(2, 'pear', 2, 0, '2024-02-01T00:00:00.000Z', 'five', x'02', 2, ST_GeomFromText('POINT(9 9)')),
		(3, 'a%b', 1.25, NULL, NULL, x'05', NULL, 3, NULL),
		(4, NULL, 100, 12, '2025-01-01T00:00:00.000Z', NULL, x'', 4, NULL)`)
	return db, tableOf[ware](t, newService(t, db, records.API{Name: "wares", Table: "ware", World: records.Read}), "wares")
}

func ids(page records.Page[ware]) string {
	var b strings.Builder
	for _, w := range page.Records {
		fmt.Fprint(&b, w.ID)
	}
	return b.String()
}

func TestTableFilters(t *testing.T) {
	t.Parallel()
	_, table := wares(t)
	type name string
	where, and, or := records.Where, records.And, records.Or
	january := time.Date(2024, 1, 1, 1, 0, 0, 0, time.FixedZone("", 3600))
	for _, test := range []struct {
		filter records.Filter
		want   string // "" is an error
	}{
		{records.Filter{}, "1234"},
		{where("name", "=", "apple"), "1"},
		{where("name", "=", name("apple")), "1"},
		{where("name", "=", nil), "4"},
		{where("name", "!=", (*string)(nil)), "123"},
		{where("name", "!=", "apple"), "23"},
		{where("name", "=", "' OR 1=1 --"), "-"},
		{where("name", "like", "a%"), "13"},
		{where("name", "regexp", "^a.p"), "14"},
		{where("price", "<", 2), "13"},
		{where("price", ">=", 1.25), "234"},
		{where("price", "=", float32(0.5)), "1"},
		{where("stock", "in", []int{0, 3}), "12"},
		{where("stock", "not in", []any{0, "3"}), ""},
		{where("stock", "not in", []any{0, int8(3)}), "4"},
		{where("stock", "in", []int{}), "-"},
		{where("stock", ">", uint16(2)), "14"},
		{where("made", "=", january), "1"},
		{where("made", ">", january), "24"},
		{where("tag", "=", []byte{2}), "2"},
		{where("tag", "=", [1]byte{1}), "1"},
		{where("loose", "=", 5), "1"},
		{where("place", "within", "POLYGON((0 0,0 2,2 2,2 0,0 0))"), "1"},
		{and(), "1234"},
		{and(records.Filter{}, where("id", ">", 1), where("id", "<", 4)), "23"},
		{or(where("id", "=", 1), where("id", "=", 4)), "14"},
		{or(where("id", "=", 1), records.Filter{}), "1234"},
		{and(or(where("id", "=", 1), where("id", "=", 2)), or(where("stock", "=", 0), where("stock", "=", 12))), "2"},

		{or(), ""},
		{and(or()), ""},
		{where("", "", nil), ""},
		{or(where("id", "=", 1), where("", "", nil)), ""},
		{where("name", "", "x"), ""},
		{where("name", "==", "apple"), ""},
		{where("name", "= 1 OR 1", "apple"), ""},
		{where("name] = 1", "=", "apple"), ""},
		{where("_cost", "=", 1), ""},
		{where("other", "=", 1), ""},
		{where("Name", "=", "apple"), ""},
		{where("name", "=", 5), ""},
		{where("name", "=", "\x00"), ""},
		{where("name", "=", "\xff"), ""},
		{where("name", "<", nil), ""},
		{where("name", "like", 5), ""},
		{where("name", "like", nil), ""},
		{where("name", "like", strings.Repeat("x", 257)), ""},
		{where("name", "regexp", "("), ""},
		{where("name", "in", "apple"), ""},
		{where("name", "in", nil), ""},
		{where("name", "in", make([]string, 201)), ""},
		{where("name", "in", []*string{nil}), ""},
		{where("stock", "=", 1.5), ""},
		{where("stock", "=", uint64(1)<<63), ""},
		{where("loose", "=", "5"), ""},
		{where("place", "=", []byte{}), ""},
		{where("place", "within", "POLYGON"), ""},
		{and(and(and(and(and(and(and(and(and(and(where("id", "=", 1))))))))))), ""},
	} {
		page, err := table.List(context.Background(), records.Query{Filter: test.filter, Order: []string{"id"}, Count: true})
		got := ids(page)
		if err == nil && got == "" {
			got = "-"
		}
		var refused *records.Error
		if got != test.want || err != nil && (!errors.As(err, &refused) || refused.Status != 400) {
			t.Errorf("%+v: %s, %v, want %s", test.filter, got, err, test.want)
		}
		if err == nil && page.Total != int64(len(page.Records)) {
			t.Errorf("%+v: total %d", test.filter, page.Total)
		}
	}
}

// Bytes are compared as bytes, or not at all: never as the text, the number or
// the UUID that a request would spell alike.
func TestTableFiltersByBytes(t *testing.T) {
	t.Parallel()
	type row struct {
		ID int `json:"id"`
	}
	decoded := func(text string) []byte {
		b, err := base64.URLEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	digits, hyphens := decoded("1234"), decoded("00000000-0000-4000-8000-000000000001")
	db := openDB(t, `
		CREATE TABLE anything (id INTEGER PRIMARY KEY, v ANY, b BLOB) STRICT;
		INSERT INTO anything VALUES (1, x'05', x'05'), (2, 'BQ==', NULL), (3, 1234, NULL), (4, '', x''), (5, x'', x'00000000000040008000000000000001'), (6, '1234', NULL);
		CREATE TABLE numeric (id INTEGER PRIMARY KEY, v NUMERIC);
		INSERT INTO numeric VALUES (1, x'05'), (2, 'BQ=='), (3, 1234), (4, ''), (5, x'00')`)
	svc := newService(t, db, records.API{Name: "anything", Table: "anything", World: records.Read}, records.API{Name: "numeric", Table: "numeric", World: records.Read})
	for _, test := range []struct {
		api    string
		filter records.Filter
		want   string // "" is an error
	}{
		{"anything", records.Where("v", "=", []byte{5}), "1"},
		{"anything", records.Where("v", "in", [][]byte{{5}, {6}}), "1"},
		{"anything", records.Where("v", "in", []any{[]byte{5}, 1234}), "13"},
		{"anything", records.Where("v", "=", digits), ""},
		{"anything", records.Where("v", ">", digits), ""},
		{"anything", records.Where("v", "in", [][]byte{{5}, digits}), ""},
		{"anything", records.Where("v", "=", []byte{}), ""},
		{"anything", records.Where("b", "=", []byte{}), "4"},
		{"anything", records.Where("b", "=", []byte{5}), "1"},
		{"anything", records.Where("b", "=", hyphens), ""},
		{"anything", records.Where("b", "not in", [][]byte{hyphens}), ""},
		{"numeric", records.Where("v", "=", []byte{5}), ""},
		{"numeric", records.Where("v", "in", [][]byte{{0}}), ""},
		{"numeric", records.Where("v", "=", 1234), "3"},
		{"numeric", records.Where("v", "=", "BQ=="), "2"},
	} {
		page, err := tableOf[row](t, svc, test.api).List(context.Background(), records.Query{Filter: test.filter, Order: []string{"id"}})
		var got strings.Builder
		for _, r := range page.Records {
			fmt.Fprint(&got, r.ID)
		}
		var refused *records.Error
		if got.String() != test.want || (err != nil) != (test.want == "") || err != nil && (!errors.As(err, &refused) || refused.Status != 400) {
			t.Errorf("%s %+v: %q, %v, want %q", test.api, test.filter, got.String(), err, test.want)
		}
	}
}

func TestTablePages(t *testing.T) {
	t.Parallel()
	db, table := wares(t)
	ctx := context.Background()
	for _, order := range [][]string{nil, {"id"}, {"-price"}, {"stock", "-id"}, {"-stock"}, {"made"}, {"name", "price"}} {
		all, err := table.List(ctx, records.Query{Order: order})
		if err != nil || len(all.Records) != 4 {
			t.Fatalf("%v: %+v, %v", order, all, err)
		}
		q := records.Query{Order: order, Limit: 3}
		var paged []ware
		for {
			page, err := table.List(ctx, q)
			if err != nil {
				t.Fatalf("%v: %v", order, err)
			}
			paged = append(paged, page.Records...)
			if q.Cursor = page.Cursor; q.Cursor == "" {
				break
			}
		}
		if !reflect.DeepEqual(paged, all.Records) {
			t.Errorf("%v: %+v, want %+v", order, paged, all.Records)
		}
		skipped, err := table.List(ctx, records.Query{Order: order, Offset: 2, SkipCursor: true})
		if err != nil || !slices.EqualFunc(skipped.Records, all.Records[2:], func(a, b ware) bool { return a.ID == b.ID }) || skipped.Cursor != "" {
			t.Errorf("%v: %+v, %v", order, skipped, err)
		}
	}
	first, err := table.List(ctx, records.Query{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	for name, q := range map[string]records.Query{
		"limit":            {Limit: 1025},
		"negative limit":   {Limit: -1},
		"negative offset":  {Offset: -1},
		"column":           {Order: []string{"other"}},
		"hidden column":    {Order: []string{"_cost"}},
		"column twice":     {Order: []string{"id", "-id"}},
		"injected":         {Order: []string{"id;"}},
		"file or geometry": {Order: []string{"place"}},
		"no cursor":        {Cursor: "x"},
		"other order":      {Cursor: first.Cursor, Order: []string{"price"}},
		"no index":         {Match: "apple"},
	} {
		_, err := table.List(ctx, q)
		var refused *records.Error
		if !errors.As(err, &refused) || refused.Status != 400 {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err = table.As(records.Caller{ID: int64(1)}).List(ctx, records.Query{Cursor: first.Cursor})
	if err == nil {
		t.Error("a cursor of somebody else")
	}
	// A page ends when it takes too much memory, and the next one goes on.
	execSQL(t, db, `DELETE FROM ware; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6) INSERT INTO ware (id, tag, price) SELECT i, zeroblob(10 << 20), 1 FROM n`)
	var total int
	for q := (records.Query{}); ; {
		page, err := table.List(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Records) > 4 {
			t.Errorf("%d records of 10 MiB in a page", len(page.Records))
		}
		total += len(page.Records)
		if q.Cursor = page.Cursor; q.Cursor == "" {
			break
		}
	}
	if total != 6 {
		t.Errorf("%d records in all pages", total)
	}
}

// What a list costs is bounded by Config.QueryTimeout, also for the application.
func TestTableListTakesTooLong(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE VIEW slow AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) SELECT CAST(i AS INTEGER) AS id FROM n WHERE i < 0`)
	svc, err := records.New(db, records.Config{APIs: []records.API{{Name: "slow", Table: "slow"}}, QueryTimeout: 50 * time.Millisecond, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		ID int `json:"id"`
	}
	_, err = tableOf[row](t, svc, "slow").AsSystem().List(context.Background(), records.Query{})
	var refused *records.Error
	if !errors.As(err, &refused) || refused.Status != 503 {
		t.Errorf("%v", err)
	}
}
