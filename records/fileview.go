package records

import (
	"bytes"
	"database/sql/driver"

	"github.com/bedplate/bedplate/internal/jsonx"
	"github.com/bedplate/bedplate/internal/sqltoken"
	"github.com/bedplate/bedplate/sqlite"
)

// markFiles marks the columns of a view that may show what a file column
// holds, ids of files included: the view reads from a table that has one,
// perhaps through other views, and it is not known what the column is. Callers
// cannot compare such columns, and ids are left out of what they show.
func (t *table) markFiles(r *sqlite.Reader, create string) error {
	views, tables := map[string]string{}, map[string]string{}
	err := r.Query("SELECT type, name, sql FROM "+quote(t.database)+".sqlite_schema WHERE type = 'view' OR type = 'table' AND sql LIKE '%std.FileUpload%'", nil, func(row []driver.Value) error {
		if row[0] == "view" {
			views[sqltoken.Fold(row[1].(string))] = row[2].(string)
		} else {
			tables[sqltoken.Fold(row[1].(string))] = row[2].(string)
		}
		return nil
	})
	if err != nil || len(tables) == 0 {
		return err
	}
	reads, err := readsTable(create, views, tables)
	if err != nil || !reads {
		return err
	}
	for _, c := range t.columns {
		c.mayFile = c.format == plainFormat && !c.original && c != t.key && c.typ != integerType && c.typ != realType
	}
	return nil
}

// readsTable reports whether a view names one of the tables, or another view
// that does. All names are folded.
func readsTable(create string, views, tables map[string]string) (bool, error) {
	for todo := []string{create}; len(todo) > 0; {
		tokens, err := sqltoken.Scan(todo[0])
		if err != nil {
			return false, err
		}
		todo = todo[1:]
		for _, token := range tokens {
			name := sqltoken.Fold(token.Name() + token.Value())
			if _, ok := tables[name]; ok {
				return true, nil
			}
			if text, ok := views[name]; ok {
				delete(views, name)
				todo = append(todo, text)
			}
		}
	}
	return false, nil
}

// appendGuarded appends the value of a column that may show files, without
// their ids.
func appendGuarded(dst []byte, v driver.Value) []byte {
	switch v := v.(type) {
	case string:
		if !mentionsFile([]byte(v)) {
			break
		}
		switch kind, _ := jsonx.TopLevel([]byte(v)); {
		case kind == jsonx.Object && isFile([]byte(v)):
			return appendFile(dst, []byte(v))
		case kind == jsonx.Array && areFiles([]byte(v)):
			return appendFiles(dst, []byte(v))
		}
		return append(dst, "null"...) // a file inside of something else
	case []byte:
		if mentionsFile(v) {
			return append(dst, "null"...)
		}
	}
	return appendValue(dst, v)
}

// mentionsFile reports whether b has the name of the member that all metadata
// of files has.
func mentionsFile(b []byte) bool { return bytes.Contains(bytes.ToLower(b), []byte("filename")) }

// isFile reports whether an object has the members of a file's metadata, and
// no others.
func isFile(object []byte) bool {
	file := false
	err := jsonx.ParseObject(object, func(name []byte, _ jsonx.Value) error {
		switch string(name) {
		case "filename":
			file = true
		case "id", "original_filename", "content_type", "mime_type":
		default:
			return errValue
		}
		return nil
	})
	return err == nil && file
}

func areFiles(array []byte) bool {
	err := jsonx.ParseArray(array, func(v jsonx.Value) error {
		if v.Kind != jsonx.Object || !isFile(v.Raw) {
			return errValue
		}
		return nil
	})
	return err == nil
}
