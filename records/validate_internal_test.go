package records

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/sqlite"
)

func inputOf(t *testing.T, create string) (*table, map[string]*column) {
	t.Helper()
	db, err := sqlite.Open(context.Background(), filepath.Join(t.TempDir(), "test.db"), sqlite.Options{Synchronous: sqlite.Normal, Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := db.Write(context.Background(), sqlite.Stmt{SQL: create}); err != nil {
		t.Fatal(err)
	}
	var tab *table
	err = db.Read(context.Background(), func(r *sqlite.Reader) (err error) {
		tab, err = loadTable(r, "t", "")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	input := map[string]*column{}
	for _, c := range tab.columns {
		input[c.name] = c
	}
	return tab, input
}

// Nothing to judge costs a nil check.
func TestNoValidation(t *testing.T) {
	t.Parallel()
	tab, input := inputOf(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT) STRICT`)
	v, errs := newValidation(API{}, tab, input)
	if v != nil || errs != nil {
		t.Fatalf("%v, %v", v, errs)
	}
	if err := v.check(&request{}, false); err != nil {
		t.Fatal(err)
	}
	v, errs = newValidation(API{Validate: map[string]string{}}, tab, input)
	if v != nil || errs != nil {
		t.Fatalf("%v, %v", v, errs)
	}
}

// A value that stands for the id of an earlier operation is not judged, nor is
// what compares with it.
func TestValidationOfReferences(t *testing.T) {
	t.Parallel()
	type reference struct{ operation int }
	tab, input := inputOf(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, parent INTEGER, other INTEGER) STRICT`)
	type row struct {
		Parent int64 `json:"parent" validate:"required,lt=5"`
		Other  int64 `json:"other" validate:"lt=10,nefield=Parent"`
	}
	for _, api := range []API{{Validate: map[string]string{"parent": "required,lt=5"}}, {Bind: row{}}} {
		v, errs := newValidation(api, tab, input)
		if errs != nil {
			t.Fatal(errs)
		}
		for _, update := range []bool{false, true} {
			r := &request{values: make([]driver.Value, 3)}
			r.given.add(1)
			r.given.add(2)
			r.values[1] = reference{0}
			if err := v.check(r, update); err != nil {
				t.Error(err)
			}
			r.values[1] = int64(7)
			if err := v.check(r, update); err == nil || !strings.Contains(err.Error(), "invalid parent: lt=5") {
				t.Error(err)
			}
		}
	}
}

// Errors point into the body that the record came in.
func TestPointersInArrays(t *testing.T) {
	t.Parallel()
	tab, input := inputOf(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT) STRICT`)
	v, errs := newValidation(API{Validate: map[string]string{"a": "required"}}, tab, input)
	if errs != nil {
		t.Fatal(errs)
	}
	var e *Error
	err := v.check(&request{at: "/operations/1/value", values: make([]driver.Value, 2)}, false)
	if !errors.As(err, &e) || e.Text != "invalid a: required" || len(e.Fields) != 1 || e.Fields[0].Pointer != "/operations/1/value/a" {
		t.Errorf("%+v", err)
	}
	p := &plan{table: tab, input: input}
	cause := fmt.Errorf("wrapped: %w", clash(t))
	err = (&Service{}).refusal(t.Context(), p, &request{at: "/2"}, cause, false)
	if !errors.As(err, &e) || len(e.Fields) != 1 || e.Fields[0].Pointer != "/2/a" || !errors.Is(err, cause) {
		t.Errorf("%+v", err)
	}
	err = (&Service{}).refusal(t.Context(), p, nil, cause, false)
	if !errors.As(err, &e) || len(e.Fields) != 1 || e.Fields[0].Pointer != "/a" {
		t.Errorf("%+v", err)
	}
	err = (&Service{}).refusal(t.Context(), p, nil, fmt.Errorf("x: %w", sqlite.ErrRolledBack), true)
	if !errors.As(err, &e) || e.Status != 503 || e.Text != "" {
		t.Errorf("%+v", err)
	}
	if err := (&Service{}).refusal(t.Context(), p, nil, nil, true); err != nil {
		t.Error(err)
	}
	known := Refuse(418, "no")
	if err := (&Service{}).refusal(t.Context(), p, nil, known, true); !errors.Is(err, known) {
		t.Error(err)
	}
}

// clash returns an error of a UNIQUE constraint on t.a.
func clash(t *testing.T) error {
	t.Helper()
	db, err := sqlite.Open(context.Background(), filepath.Join(t.TempDir(), "test.db"), sqlite.Options{Synchronous: sqlite.Normal, Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	err = db.Write(context.Background(), sqlite.Stmt{SQL: `CREATE TABLE t (a TEXT UNIQUE)`}, sqlite.Stmt{SQL: `INSERT INTO t VALUES (1), (1)`})
	if err == nil {
		t.Fatal("no error")
	}
	return err
}

// Of an element the validator spells out the way to it: the names of members
// must not add up. It is not parallel, because it measures what is allocated.
//
//nolint:paralleltest // see above
func TestValidationAllocates(t *testing.T) {
	tab, input := inputOf(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, tree TEXT CHECK (jsonschema_matches('{}', tree))) STRICT`)
	type row struct {
		Tree map[string][]int `json:"tree" validate:"dive,dive,max=1"`
	}
	type node struct {
		Below map[string]*node `json:"below" validate:"dive"`
		Sizes []int            `json:"sizes" validate:"dive,max=1"`
	}
	type nested struct {
		Tree *node `json:"tree" validate:"omitempty"`
	}
	const length = 120 << 10
	wide := func(name string, elements int) string {
		return `{"` + name + `":[1` + strings.Repeat(",5", elements-1) + `]}`
	}
	deep := func(name string, depth int) string {
		return strings.Repeat(`{"below":{"`+name+`":`, depth) + `{"sizes":[1` + strings.Repeat(",5", 100) + "]}" + strings.Repeat("}}", depth)
	}
	for name, api := range map[string]API{"tag": {Validate: map[string]string{"tree": "dive,dive,max=1"}}, "map": {Bind: row{}}, "struct": {Bind: nested{}}} {
		v, errs := newValidation(api, tab, input)
		if errs != nil {
			t.Fatal(errs)
		}
		for shape, text := range map[string]string{
			"long name":  wide(strings.Repeat("k", length/2), length/4),
			"short text": wide(strings.Repeat("k", 4000), 2000),
			"allowed":    wide(strings.Repeat("k", 128), 990),
			"deep":       deep(strings.Repeat("k", 250), 30),
			"deeper":     deep(strings.Repeat("k", 250), length/260),
		} {
			r := &request{values: []driver.Value{nil, text}}
			r.given.add(1)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := v.check(r, false)
			runtime.ReadMemStats(&after)
			if bytes := after.TotalAlloc - before.TotalAlloc; bytes > 16<<20 {
				t.Errorf("%s, %s: %d bytes for %d: %.80v", name, shape, bytes, len(text), err)
			} else {
				t.Logf("%s, %s: %d bytes for %d", name, shape, bytes, len(text))
			}
		}
	}
}

// The work for one value is in proportion to its length, hostile or not.
func BenchmarkValidation(b *testing.B) {
	c := &column{index: 0, name: "a", typ: textType}
	tab := &table{columns: []*column{c}, byName: map[string]*column{"a": c}}
	type row struct {
		A string `json:"a" validate:"required,min=3,max=80"`
	}
	for _, bench := range []struct {
		name  string
		api   API
		value string
	}{
		{"none", API{}, "hello"},
		{"tag", API{Validate: map[string]string{"a": "required,min=3,max=80"}}, "hello"},
		{"bind", API{Bind: row{}}, "hello"},
		{"email1MB", API{Validate: map[string]string{"a": "email"}}, strings.Repeat("a.", 1<<19) + "@b"},
		{"url1MB", API{Validate: map[string]string{"a": "url"}}, "http://" + strings.Repeat("a.", 1<<19)},
		{"html1MB", API{Validate: map[string]string{"a": "html"}}, strings.Repeat("<a ", 1<<18)},
		{"uuid1MB", API{Validate: map[string]string{"a": "uuid"}}, strings.Repeat("a", 1<<20)},
		{"datauri1MB", API{Validate: map[string]string{"a": "datauri"}}, "data:" + strings.Repeat("a", 1<<20)},
		{"semver1MB", API{Validate: map[string]string{"a": "semver"}}, "1.2.3-" + strings.Repeat("a.", 1<<19)},
		{"fqdn1MB", API{Validate: map[string]string{"a": "fqdn"}}, strings.Repeat("a.", 1<<19)},
		{"base64_1MB", API{Validate: map[string]string{"a": "base64"}}, strings.Repeat("abcd", 1<<18)},
		{"alphanumunicode1MB", API{Validate: map[string]string{"a": "alphanumunicode"}}, strings.Repeat("é", 1<<19)},
	} {
		v, errs := newValidation(bench.api, tab, tab.byName)
		if errs != nil {
			b.Fatal(errs)
		}
		b.Run(bench.name, func(b *testing.B) {
			r := &request{values: []driver.Value{bench.value}}
			r.given.add(0)
			b.ReportAllocs()
			for b.Loop() {
				_ = v.check(r, false)
			}
		})
	}
}

func BenchmarkNewValidation(b *testing.B) {
	c := &column{index: 0, name: "a", typ: textType}
	tab := &table{columns: []*column{c}, byName: map[string]*column{"a": c}}
	b.ReportAllocs()
	for b.Loop() {
		_, _ = newValidation(API{Validate: map[string]string{"a": "required,min=3,max=80"}}, tab, tab.byName)
	}
}

func TestSentences(t *testing.T) {
	t.Parallel()
	text, number, octets, moment := reflect.TypeFor[string](), reflect.TypeFor[int64](), reflect.TypeFor[[]byte](), reflect.TypeFor[time.Time]()
	for _, c := range []struct {
		code, param string
		typ         reflect.Type
		want        string
	}{
		{"required", "", text, "A value is needed."},
		{"required_with", "", text, "A value is needed."},
		{"excluded_if", "", text, "Must be left out."},
		{"min", "3", text, "Must have at least 3 characters."},
		{"max", "1", text, "Must have at most 1 character."},
		{"len", "2", octets, "Must have exactly 2 bytes."},
		{"eq", "2", reflect.TypeFor[map[string]any](), "Must have exactly 2 items."},
		{"gt", "2", reflect.TypeFor[[]any](), "Must have more than 2 items."},
		{"ne", "2", reflect.TypeFor[[]any](), "Must have not 2 items."},
		{"eq", "yes", text, "Must be equal to yes."},
		{"len", "2", number, "Must be equal to 2."},
		{"lt", "2", number, "Must be less than 2."},
		{"gt", "", moment, "Must be in the future."},
		{"lt", "", moment, "Must be in the past."},
		{"gtefield", "start", number, "Must be at least start."},
		{"nefield", "", number, "Must be other than another value."},
		{"oneof", "a b", text, "Must be one of: a b."},
		{"uuid4", "", text, "Must be a UUID."},
		{"email", "", text, "Must be an e-mail address."},
		{"isbn", "", text, "Does not satisfy isbn."},
	} {
		if got := sentence(c.code, c.param, c.typ.Kind(), c.typ); got != c.want {
			t.Errorf("%s=%s of %s: %q, want %q", c.code, c.param, c.typ, got, c.want)
		}
	}
}
