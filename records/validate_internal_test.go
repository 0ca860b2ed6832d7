package records

import (
	"context"
	"database/sql/driver"
	"path/filepath"
	"strings"
	"testing"

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
