package sqlite_test

import (
	"database/sql/driver"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

// literals are values as SQL expressions, of every storage class.
var literals = []string{
	"NULL", "0", "1", "-1", "9223372036854775807", "-9223372036854775808", "9007199254740993",
	"0.0", "-0.0", "1.5", "-1.5", "1e15", "1e300", "0.1+0.2", "5e-324", "1.7976931348623157e308", "9e999", "-9e999", "123456789012345678.0",
	"''", "'a'", "'5'", "'5.0'", "'1e3'", "' 7 '", "'null'", "'äöü€😀'", "char(1,8,9,10,12,13,31,34,47,92,127,8232)", "'a' || char(0) || 'b'", "char(0)",
	"'[1]'", `'{"$b":"41"}'`, `'"'`, `'\'`, "printf('%.5000c', '\"')", "CAST(x'61ff62' AS TEXT)",
	"x''", "x'00'", "x'ff00ff'", "zeroblob(3000)", "CAST('text' AS BLOB)",
	// Values that functions have marked as JSON.
	"json('[1,2]')", `json('{"$b":"41"}')`, "json('\"a\"')", "json('5')", "json('null')", "json_object('k', 1)", "json_array()", "jsonb('{\"a\":1}')",
	"json_extract('{\"a\":[1]}', '$.a')", "json_group_array(1)",
}

// TestChangeValues writes every value into every type of column, and the log
// must have what the table has.
func TestChangeValues(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		options string
		types   []string
	}{
		{"STRICT", []string{"INT", "INTEGER", "REAL", "TEXT", "BLOB", "ANY", "text"}},
		{"", []string{"", "INTEGER", "REAL", "TEXT", "BLOB", "NUMERIC", "ANY", "JSON", "VARCHAR(3)", "DATETIME", "DATE", "TIMESTAMP", "BOOLEAN", "FLOATING POINT"}},
		{"WITHOUT ROWID", []string{"", "TEXT", "BLOB"}},
	} {
		for _, declared := range test.types {
			t.Run(test.options+" "+declared, func(t *testing.T) {
				t.Parallel()
				db := sqlitetest.Open(t, fmt.Sprintf("CREATE TABLE t (id INTEGER PRIMARY KEY, v %s, g %s AS (v)) %s", declared, declared, test.options),
					sqlite.Options{Synchronous: sqlite.Normal, Logger: quiet})
				f := follow(t, db, mainLog(t, db, "t"))
				n := 0
				for _, literal := range literals {
					for _, query := range []string{"INSERT INTO t (v) VALUES (%s)", "INSERT INTO t (v) SELECT %s", "UPDATE t SET v = %s WHERE id = (SELECT max(id) FROM t)"} {
						if strings.HasPrefix(literal, "json_group_array") && !strings.Contains(query, "SELECT %") {
							continue
						}
						query = fmt.Sprintf(query, literal)
						if test.options == "WITHOUT ROWID" {
							query = strings.Replace(query, "(v)", "(id, v)", 1)
							query = strings.Replace(query, "VALUES (", fmt.Sprintf("VALUES (%d, ", n), 1)
							query = strings.Replace(query, "SELECT "+literal, fmt.Sprintf("SELECT %d, %s", n, literal), 1)
						}
						err := db.Write(bg, sqlite.Stmt{SQL: query})
						if err != nil && (test.options != "STRICT" || !strings.Contains(err.Error(), "cannot store")) {
							t.Fatalf("%s: %v", query, err)
						}
						if err == nil {
							n++
							wantNewest(t, db, f, query)
						}
					}
				}
				if n < 3 {
					t.Errorf("only %d values were stored", n)
				}
				wantTable(t, db, f.l)
			})
		}
	}
}

// wantNewest compares the one change there is with the newest row.
func wantNewest(t *testing.T, db *sqlite.DB, f *follower, query string) {
	t.Helper()
	changes := f.changes()
	if len(changes) != 1 {
		t.Fatalf("%s: %d changes", query, len(changes))
	}
	var stored []driver.Value
	check(t, db.Query(bg, "SELECT +id, +v, +g FROM t ORDER BY id DESC LIMIT 1", nil, func(row []driver.Value) error {
		stored = slices.Clone(row)
		return nil
	}))
	if got := changes[0].New; !sameValues(got, stored) {
		t.Errorf("%s: the log has %#v, the table %#v", query, got, stored)
	}
	if want := []string{"id", "v", "g"}; !reflect.DeepEqual(changes[0].Columns, want) {
		t.Errorf("columns are %v", changes[0].Columns)
	}
}

// wantTable compares what the log says of the values with what SQLite says of
// their types.
func wantTable(t *testing.T, db *sqlite.DB, l *sqlite.ChangeLog) {
	t.Helper()
	types := map[driver.Value]string{}
	check(t, db.Query(bg, "SELECT id, typeof(v) FROM t", nil, func(row []driver.Value) error {
		types[row[0]] = row[1].(string)
		return nil
	}))
	last := map[driver.Value]driver.Value{}
	all := follower{t, db, l, sqlite.Position{Epoch: head(t, l).Epoch}}
	for _, c := range all.changes() {
		if c.Op != sqlite.LogBreak {
			last[c.New[0]] = c.New[1]
		}
	}
	for id, want := range types {
		got := map[string]string{"<nil>": "null", "int64": "integer", "float64": "real", "string": "text", "[]uint8": "blob"}[fmt.Sprintf("%T", last[id])]
		if got != want {
			t.Errorf("row %v is of type %s in the log, of type %s in the table", id, got, want)
		}
	}
}

// sameValues compares values exactly, but for the sign of zero.
func sameValues(got, want []driver.Value) bool {
	return slices.EqualFunc(got, want, func(a, b driver.Value) bool {
		if x, ok := a.(float64); ok {
			y, ok := b.(float64)
			return ok && x == y
		}
		return reflect.DeepEqual(a, b)
	})
}

// FuzzImage reads arbitrary texts: what can be read has as many values as
// there are columns, of the types of SQLite.
func FuzzImage(f *testing.F) {
	for _, s := range []string{`[1,"a",null]`, `[1.5e+999,"\u0000\n","00ff"]`, `[[1],["b"],[null]]`, `[{"$b":"00"},{"$b":""},""]`, `[`, `[1,2,"`, `["\`, `["\u00`,
		`[1,2,3]x`, `[1,,3]`, `[-,+1,e]`, `[nul,1,2]`, "[\"\xff\",1,1]", `[[[1]],2,3]`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		values, ok := sqlite.DecodeImage(text, []bool{false, false, true})
		if !ok {
			return
		}
		if len(values) != 3 {
			t.Fatalf("%d values", len(values))
		}
		for _, v := range values {
			switch v := v.(type) {
			case nil, int64, string, []byte:
			case float64:
				if math.IsNaN(v) {
					t.Error("a value is not a number")
				}
			default:
				t.Errorf("value of type %T", v)
			}
		}
	})
}

// Older versions of SQLite write infinity so.
func TestDecodeInfinity(t *testing.T) {
	t.Parallel()
	values, ok := sqlite.DecodeImage("[Inf,-Inf,1]", []bool{false, false, false})
	if !ok || values[0] != math.Inf(1) || values[1] != math.Inf(-1) || values[2] != int64(1) {
		t.Errorf("values are %v, %t", values, ok)
	}
	for _, bad := range []string{"[In]", "[--Inf]", "[Infinity]", "[-]"} {
		if values, ok := sqlite.DecodeImage(bad, []bool{false}); ok {
			t.Errorf("%s is read as %v", bad, values)
		}
	}
}
