package sqlite

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"strconv"
	"strings"
)

// How the value of a column is written into an image, a JSON array of all
// values of a row.
const (
	plainValue = "v" // integers and floats, and text without a subtype
	hexValue   = "x" // blobs in a STRICT table: hexadecimal
	anyValue   = "a" // whatever it is; blobs as {"$b":"hexadecimal"}
)

// A loggedColumn is a column as a shape has it.
type loggedColumn struct {
	Name     string `json:"n"`
	Encoding string `json:"e"`
	Text     bool   `json:"t,omitempty"` // of a STRICT table and declared TEXT
	NotNull  bool   `json:"r,omitempty"` // matters with hexValue only
}

// groupColumns is how many columns one call of json_array takes: older tools
// allow a function no more than 127 arguments. Wider tables have arrays inside
// of the array.
const groupColumns = 100

// loggedColumns returns the columns of a table, hidden and generated ones
// too, or nil when there is no ordinary table of that name. table is how the
// schema spells it.
func (l *ChangeLog) loggedColumns(c *conn, name string) (table string, columns []loggedColumn, err error) {
	strict := false
	db := quoteName(l.name)
	err = c.query(context.Background(), "PRAGMA "+db+".table_list("+quoteName(name)+")", nil, func(row []driver.Value) error {
		if schema, _ := row[0].(string); sameName(schema, l.name) && row[2] == "table" {
			table, strict = row[1].(string), row[5] == int64(1)
		}
		return nil
	})
	if err != nil || table == "" {
		return "", nil, err
	}
	err = c.query(context.Background(), "PRAGMA "+db+".table_xinfo("+quoteName(table)+")", nil, func(row []driver.Value) error {
		name, _ := row[1].(string)
		declared, _ := row[2].(string)
		column := loggedColumn{Name: name, Encoding: anyValue}
		if strict {
			switch strings.ToUpper(declared) {
			case "INT", "INTEGER", "REAL":
				column.Encoding = plainValue
			case "TEXT":
				column.Encoding, column.Text = plainValue, true
			case "BLOB":
				column.Encoding, column.NotNull = hexValue, row[3] == int64(1)
			}
		}
		columns = append(columns, column)
		return nil
	})
	return table, columns, err
}

// image returns an SQL expression for the image of a row, NEW or OLD.
func image(row string, columns []loggedColumn) string {
	var groups []string
	for len(columns) > 0 {
		n := min(len(columns), groupColumns)
		values := make([]string, n)
		for i, c := range columns[:n] {
			values[i] = c.value(row + "." + quoteName(c.Name))
		}
		groups = append(groups, "json_array("+strings.Join(values, ",")+")")
		columns = columns[n:]
	}
	if len(groups) == 1 {
		return groups[0]
	}
	return "json_array(" + strings.Join(groups, ",") + ")"
}

// value returns an SQL expression that json_array takes for the value of x as
// it is. It refuses blobs, and text that json() has made and that is still on
// its way into the table it would take for JSON
// (https://www.sqlite.org/json1.html#value_arguments): concatenation makes it
// text again.
func (c loggedColumn) value(x string) string {
	switch {
	case c.Encoding == hexValue && c.NotNull:
		return "hex(" + x + ")"
	case c.Encoding == hexValue:
		return "CASE WHEN " + x + " IS NULL THEN NULL ELSE hex(" + x + ") END"
	case c.Text:
		return x + "||''"
	case c.Encoding == plainValue:
		return x
	}
	return "CASE typeof(" + x + ") WHEN 'text' THEN " + x + "||'' WHEN 'blob' THEN json_object('$b',hex(" + x + ")) ELSE " + x + " END"
}

// A trigger is one as sqlite_schema has it.
type trigger struct {
	name, table string
	sql         string
}

// triggerPrefix begins the names of triggers of the log.
const triggerPrefix = "_change_"

// triggers returns those that log the changes of a table under a shape.
func triggers(table string, shape int64, columns []loggedColumn) []trigger {
	head := `INSERT INTO "_change"(shape,op,`
	body := func(o ChangeOp, into, values string) string {
		return head + into + ") VALUES(" + strconv.FormatInt(shape, 10) + "," + op(o) + "," + values + ")"
	}
	before, after := image("OLD", columns), image("NEW", columns)
	all := []trigger{
		{name: "i", sql: "INSERT ON " + quoteName(table) + " BEGIN " + body(RowInsert, "new", after)},
		{name: "u", sql: "UPDATE ON " + quoteName(table) + " BEGIN " + body(RowUpdate, "old,new", before+","+after)},
		{name: "d", sql: "DELETE ON " + quoteName(table) + " BEGIN " + body(RowDelete, "old", before)},
	}
	for i := range all {
		t := &all[i]
		t.table = table
		t.name = triggerPrefix + table + "_" + t.name
		t.sql = createTrigger + quoteName(t.name) + " AFTER " + t.sql + "; END"
	}
	return all
}

// createTrigger begins the text of every trigger in sqlite_schema, whatever
// has been written before the name.
const createTrigger = "CREATE TRIGGER "

// ours reports whether a trigger is one of a log, perhaps rewritten by ALTER
// TABLE.
func (t trigger) ours() bool {
	return strings.HasPrefix(t.name, triggerPrefix) && strings.Contains(t.sql, `INSERT INTO "_change"(shape,op,`)
}

// create returns a statement that creates the trigger in a database.
func (t trigger) create(database string) string {
	return createTrigger + quoteName(database) + "." + strings.TrimPrefix(t.sql, createTrigger)
}

func (t trigger) drop(database string) string {
	return "DROP TRIGGER " + quoteName(database) + "." + quoteName(t.name)
}

// schemaTriggers returns all triggers of the file, the oldest first, which is
// the one that SQLite runs last.
func (l *ChangeLog) schemaTriggers(c *conn) (all []trigger, err error) {
	err = c.query(context.Background(), "SELECT name, tbl_name, sql FROM "+quoteName(l.name)+
		".sqlite_schema WHERE type='trigger' ORDER BY rowid", nil, func(row []driver.Value) error {
		name, _ := row[0].(string)
		table, _ := row[1].(string)
		text, _ := row[2].(string)
		all = append(all, trigger{name, table, text})
		return nil
	})
	return all, err
}

func encodeColumns(columns []loggedColumn) (string, error) {
	text, err := json.Marshal(columns)
	return string(text), err
}
