package records

import (
	"bytes"
	"database/sql/driver"
	"fmt"
	"slices"

	"github.com/bedplate/bedplate/internal/jsonx"
	"github.com/bedplate/bedplate/internal/sqltoken"
	"github.com/bedplate/bedplate/sqlite"
)

// markFiles marks the columns of a view that may show what a file column
// holds, ids of files included: the view reads from a table that has one,
// perhaps through other views, and it is not known what the column is. Callers
// cannot compare such columns, and ids are left out of what they show.
func (t *table) markFiles(r *sqlite.Reader, create string) error {
	if t.key.mayFile {
		return fmt.Errorf("view %q: the key column %q is made of a column for files", t.name, t.key.name)
	}
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
		if c.format == plainFormat && !c.original && c != t.key {
			c.markFile()
		}
	}
	return nil
}

// markGenerated marks the columns of a table that are made of its file
// columns, given their definitions.
func (t *table) markGenerated(definitions [][]sqltoken.Token) {
	mayFile := func(token sqltoken.Token) bool {
		c := t.column(token.Name())
		return c != nil && (c.mayFile || c.format == fileFormat || c.format == filesFormat)
	}
	for again := true; again; { // one may be made of another
		again = false
		for _, def := range definitions {
			c := t.exact(def[0].Name() + def[0].Value())
			if c != nil && c.generated && !c.mayFile && slices.ContainsFunc(def[1:], mayFile) {
				c.markFile()
				again = again || c.mayFile
			}
		}
	}
}

// markFile marks c, unless it can only hold numbers.
func (c *column) markFile() {
	if (c.format == plainFormat || c.format == jsonFormat) && c.typ != integerType && c.typ != realType {
		c.mayFile, c.notNull = true, false // for it may be shown as null
	}
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
// their ids. ok is false if it has nothing to do with files.
func appendGuarded(dst []byte, v driver.Value) (out []byte, ok bool) {
	text, isBlob := v.([]byte)
	if s, ok := v.(string); ok {
		text = []byte(s)
	}
	if mentionsFile(text) && !isBlob {
		switch kind, _ := jsonx.TopLevel(text); {
		case kind == jsonx.Object && isFile(text):
			return appendFile(dst, text), true
		case kind == jsonx.Array && areFiles(text):
			return appendFiles(dst, text), true
		}
	}
	if mentionsFile(text) || mentionsID(text) { // a file inside of something else, or a part of one
		return append(dst, "null"...), true
	}
	return dst, false
}

// mentionsFile reports whether b has the name of the member that all metadata
// of files has.
func mentionsFile(b []byte) bool { return bytes.Contains(bytes.ToLower(b), []byte("filename")) }

// mentionsID reports whether b has something of the shape of a file's id in it:
// 32 hexadecimal digits, of which the 8th, 12th, 16th and 20th are followed by
// something else, or none.
func mentionsID(b []byte) bool {
	isHex := func(c byte) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f' }
	for i := 0; i+32 <= len(b); i++ {
		digits, parted := 0, 0
		for _, c := range b[i:min(len(b), i+36)] {
			if isHex(c) {
				if digits++; digits == 32 {
					break
				}
				continue
			}
			if digits != 8+4*parted {
				break
			}
			parted++
		}
		if digits == 32 && parted == 4 {
			return true
		}
		if digits == 32 && parted == 0 && (i == 0 || !isHex(b[i-1])) && (i+32 == len(b) || !isHex(b[i+32])) {
			return true
		}
	}
	return false
}

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
