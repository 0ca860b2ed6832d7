package records

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"

	"github.com/bedplate/bedplate/internal/sqltoken"
	"github.com/bedplate/bedplate/sqlite"
)

// table is a table or view as the database describes it.
type table struct {
	database string // "main" or the name of an attached one
	name     string // as it is spelled in the schema
	view     bool
	strict   bool
	columns  []*column
	create   string             // the statement that made it
	byName   map[string]*column // by folded name
	keys     int                // columns in the primary key
	key      *column            // if that is one
	rowid    *column            // pseudo column, nil where key is it or where there is none
}

// column is a column with what its declaration tells about its values.
type column struct {
	index     int // in table.columns
	name      string
	typ       valueType
	format    format
	schema    columnSchema // of JSON in it
	notNull   bool
	hasDef    bool
	generated bool
	uuid      bool        // checked to be a UUID
	uuidV7    bool        // default is uuid_v7()
	alias     bool        // INTEGER PRIMARY KEY, another name of the rowid
	exact     bool        // all values are NULL or of type typ
	declared  string      // type, as it is written
	collation string      // empty: BINARY
	odd       bool        // the driver would turn its values into times or booleans
	ref       *foreignKey // single-column foreign key
	original  bool        // of a view: known to be a column of a table as it is
	mayFile   bool        // generated or of a view: may show what a file column holds
}

// hidden reports whether the column never leaves the database.
func (c *column) hidden() bool { return strings.HasPrefix(c.name, "_") }

// comparable reports whether a caller may compare the stored values: those of
// a file column hold the id of the file, which never leaves the server.
func (c *column) comparable() bool {
	return (c.format == plainFormat || c.format == jsonFormat) && !c.mayFile
}

type foreignKey struct {
	table  string
	column string // empty: the primary key
}

// valueType is what a column stores, after its declared type
// (https://www.sqlite.org/datatype3.html).
type valueType uint8

const (
	anyType valueType = iota // ANY or none
	numericType
	integerType
	realType
	textType
	blobType
)

// format is how a value looks in JSON.
type format uint8

const (
	plainFormat format = iota
	jsonFormat         // TEXT with CHECK (jsonschema(…))
	fileFormat         // … 'std.FileUpload'
	filesFormat        // … 'std.FileUploads'
	geoFormat          // BLOB with CHECK (ST_IsValid(…))
)

// maxColumns bounds the columns of a table, see fieldSet.
const maxColumns = 512

// loadTable reads the description of a table or view, spelled "name" or
// "database.name". viewKey names the key column of a view.
func loadTable(r *sqlite.Reader, spelled, viewKey string) (*table, error) {
	database, name, ok := strings.Cut(spelled, ".")
	if !ok {
		database, name = "main", spelled
	}
	// The database as SQLite spells it, so that a table has one name.
	known := ""
	err := r.Query("SELECT name FROM pragma_database_list WHERE name = ?1 COLLATE NOCASE", []driver.Value{database}, func(row []driver.Value) error {
		known = row[0].(string)
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case known == "" || known == "temp":
		return nil, fmt.Errorf("no database %q for table %q", database, spelled)
	}
	if strings.HasPrefix(name, "_") || strings.HasPrefix(strings.ToLower(name), "sqlite_") {
		return nil, fmt.Errorf("table %q is internal; expose a view of it", spelled)
	}
	t, err := describe(r, known, name, 0)
	switch {
	case err != nil:
		return nil, err
	case t == nil:
		return nil, fmt.Errorf("no table or view %q, or it is virtual", spelled)
	case !t.view:
		return t, t.checkKey(r)
	}
	if err := t.viewKey(viewKey); err != nil {
		return t, err
	}
	return t, t.markFiles(r, t.create)
}

// describe reads the description of a table or view, whatever it is called. It
// returns nil if there is none and for a virtual table. depth is through how
// many views it was found.
func describe(r *sqlite.Reader, database, name string, depth int) (*table, error) {
	t := &table{database: database, byName: map[string]*column{}}
	kind := ""
	err := r.Query("SELECT name, type, coalesce(sql, '') FROM "+quote(database)+".sqlite_schema WHERE name = ?1 COLLATE NOCASE AND type IN ('table', 'view')",
		[]driver.Value{name}, func(row []driver.Value) error {
			t.name, kind, t.create = row[0].(string), row[1].(string), row[2].(string)
			return nil
		})
	if err != nil || kind == "" || strings.HasPrefix(strings.ToUpper(t.create), "CREATE VIRTUAL") {
		return nil, err
	}
	t.view = kind == "view"
	if err := t.loadColumns(r); err != nil {
		return nil, err
	}
	if len(t.columns) > maxColumns {
		return nil, fmt.Errorf("table %q has more than %d columns", name, maxColumns)
	}
	if t.view {
		return t, t.inferTypes(r, depth)
	}
	if err := t.loadForeignKeys(r); err != nil {
		return nil, err
	}
	if err := t.applyChecks(t.create); err != nil {
		return nil, err
	}
	return t, t.loadKind(r)
}

// loadKind finds out whether the table is STRICT, and a name for the rowid of
// one whose key is not an alias of it (https://www.sqlite.org/rowidtable.html).
func (t *table) loadKind(r *sqlite.Reader) error {
	without := false
	err := r.Query("PRAGMA "+quote(t.database)+".table_list("+quote(t.name)+")", nil, func(row []driver.Value) error {
		if row[0] == t.database {
			without, t.strict = row[4] != int64(0), row[5] != int64(0)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, c := range t.columns {
		c.exact = c.typ != anyType && c.typ != numericType && (t.strict || c.alias)
	}
	if without || t.key == nil || t.key.alias {
		return nil
	}
	for _, name := range []string{"rowid", "_rowid_", "oid"} {
		if t.column(name) == nil {
			t.rowid = &column{index: -1, name: name, typ: integerType, notNull: true}
			break
		}
	}
	return nil
}

func (t *table) loadColumns(r *sqlite.Reader) error {
	err := r.Query("PRAGMA "+quote(t.database)+".table_xinfo("+quote(t.name)+")", nil, func(row []driver.Value) error {
		hidden := row[6].(int64)
		if hidden == 1 {
			return nil
		}
		declared, _ := row[2].(string)
		c := &column{
			index:     len(t.columns),
			name:      row[1].(string),
			typ:       declaredType(declared),
			declared:  declared,
			notNull:   row[3].(int64) != 0,
			hasDef:    row[4] != nil,
			generated: hidden == 2 || hidden == 3,
		}
		def, _ := row[4].(string)
		c.uuidV7 = strings.EqualFold(strings.Join(strings.Fields(strings.Trim(def, "()")), ""), "uuid_v7") || strings.EqualFold(def, "uuid_v7()")
		switch strings.ToLower(declared) {
		case "timestamp", "datetime", "date", "boolean":
			c.odd = true
		}
		if row[5].(int64) > 0 {
			c.alias = strings.EqualFold(declared, "INTEGER")
			t.keys++
			t.key = c
		}
		t.columns = append(t.columns, c)
		t.byName[sqltoken.Fold(c.name)] = c
		return nil
	})
	if t.keys > 1 {
		t.key = nil
		for _, c := range t.columns {
			c.alias = false
		}
	}
	return err
}

// declaredType maps a declared type as SQLite does, with the types of STRICT
// tables and the affinities of others.
func declaredType(declared string) valueType {
	d := strings.ToUpper(declared)
	switch {
	case strings.Contains(d, "INT"):
		return integerType
	case strings.Contains(d, "CHAR"), strings.Contains(d, "CLOB"), strings.Contains(d, "TEXT"):
		return textType
	case strings.Contains(d, "BLOB"):
		return blobType
	case strings.Contains(d, "REAL"), strings.Contains(d, "FLOA"), strings.Contains(d, "DOUB"):
		return realType
	case d == "", d == "ANY":
		return anyType
	}
	return numericType
}

func (t *table) loadForeignKeys(r *sqlite.Reader) error {
	type part struct {
		id   int64
		from string
		key  *foreignKey
	}
	var parts []part
	count := map[int64]int{}
	err := r.Query("PRAGMA "+quote(t.database)+".foreign_key_list("+quote(t.name)+")", nil, func(row []driver.Value) error {
		to, _ := row[4].(string)
		parts = append(parts, part{row[0].(int64), row[3].(string), &foreignKey{row[2].(string), to}})
		count[row[0].(int64)]++
		return nil
	})
	for _, p := range parts {
		if c := t.column(p.from); c != nil && count[p.id] == 1 {
			c.ref = p.key
		}
	}
	return err
}

// column returns the column of that name in any case, or nil.
func (t *table) column(name string) *column { return t.byName[sqltoken.Fold(name)] }

// exact returns the column of exactly that name, or nil.
func (t *table) exact(name string) *column {
	if c := t.byName[name]; c != nil && c.name == name {
		return c
	}
	if c := t.column(name); c != nil && c.name == name {
		return c
	}
	return nil
}

// applyChecks reads the column constraints of a CREATE TABLE statement: which
// columns are UUIDs, JSON, files or geometries is told by their CHECK.
func (t *table) applyChecks(create string) error {
	tokens, err := sqltoken.Scan(create)
	if err != nil {
		return fmt.Errorf("read declaration of table %q: %w", t.name, err)
	}
	defs := definitions(tokens)
	for _, def := range defs {
		c := t.exact(def[0].Name() + def[0].Value()) // SQLite takes strings for names
		if c == nil {
			continue // a table constraint
		}
		c.collation = collation(def)
		for i := 1; i+3 < len(def); i++ {
			if !def[i].Is("CHECK") || !def[i+1].IsPunct("(") || !def[i+3].IsPunct("(") {
				continue
			}
			c.check(def[i+2], def[i+4:])
		}
	}
	t.markGenerated(defs)
	return nil
}

// collation returns the name behind COLLATE in the definition of a column.
func collation(def []sqltoken.Token) (name string) {
	depth := 0
	for i, t := range def {
		switch {
		case t.IsPunct("("):
			depth++
		case t.IsPunct(")"):
			depth--
		case depth == 0 && i > 0 && t.Is("COLLATE") && i+1 < len(def):
			name = def[i+1].Name() + def[i+1].Value()
		}
	}
	return name
}

// check applies CHECK (function(args …)).
func (c *column) check(function sqltoken.Token, args []sqltoken.Token) {
	switch strings.ToLower(function.Name()) {
	case "is_uuid", "is_uuid_v4", "is_uuid_v7":
		c.uuid = true
	case "jsonschema_matches":
		c.format = jsonFormat
		c.schema = inlineSchema(args)
	case "jsonschema":
		c.format = jsonFormat
		c.schema = namedSchema(args)
		if len(args) > 0 {
			switch args[0].Value() {
			case "std.FileUpload":
				c.format = fileFormat
			case "std.FileUploads":
				c.format = filesFormat
			}
		}
	case "st_isvalid":
		if c.typ == blobType {
			c.format = geoFormat
		}
	}
}

// definitions returns the parts between the commas of CREATE TABLE t ( … ).
func definitions(tokens []sqltoken.Token) [][]sqltoken.Token {
	var parts [][]sqltoken.Token
	depth, start := 0, 0
	for i, t := range tokens {
		switch {
		case t.IsPunct("("):
			if depth++; depth == 1 {
				start = i + 1
			}
		case t.IsPunct(")"):
			depth--
		}
		if depth == 1 && t.IsPunct(",") || depth == 0 && t.IsPunct(")") {
			if i > start {
				parts = append(parts, tokens[start:i])
			}
			start = i + 1
		}
		if depth == 0 && t.IsPunct(")") {
			break
		}
	}
	return parts
}

// checkKey makes sure that the primary key is one that a path can carry.
func (t *table) checkKey(r *sqlite.Reader) error {
	switch {
	case t.keys == 0:
		return fmt.Errorf("table %q has no primary key", t.name)
	case t.keys > 1:
		return fmt.Errorf("table %q has a primary key of %d columns, one is needed", t.name, t.keys)
	}
	if t.key.hidden() {
		return fmt.Errorf("table %q: the primary key %q is hidden, because it begins with an underscore", t.name, t.key.name)
	}
	switch t.key.typ {
	case integerType, textType:
		return nil
	case blobType:
		if t.key.uuid {
			return nil
		}
		if ref := t.key.ref; ref != nil && ref.column != "" {
			return t.checkReference(r, ref)
		}
	}
	return fmt.Errorf("table %q: the primary key %q must be INTEGER, TEXT, or BLOB with CHECK (is_uuid(%s)) or a reference to such a column",
		t.name, t.key.name, t.key.name)
}

// checkReference accepts a BLOB key that refers to a UUID column.
func (t *table) checkReference(r *sqlite.Reader, ref *foreignKey) error {
	var create string
	err := r.Query("SELECT coalesce(sql, '') FROM "+quote(t.database)+".sqlite_schema WHERE name = ?1 COLLATE NOCASE AND type = 'table'",
		[]driver.Value{ref.table}, func(row []driver.Value) error {
			create = row[0].(string)
			return nil
		})
	if err != nil {
		return err
	}
	other := &table{name: ref.table, byName: map[string]*column{}}
	c := &column{name: ref.column, typ: blobType}
	other.byName[sqltoken.Fold(ref.column)] = c
	if err := other.applyChecks(create); err != nil {
		return err
	}
	if !c.uuid {
		return fmt.Errorf("table %q: the primary key %q refers to %s(%s), which is not checked to be a UUID", t.name, t.key.name, ref.table, ref.column)
	}
	t.key.uuid = true
	return nil
}

// viewKey chooses the key of a view; its values are the application's promise.
func (t *table) viewKey(name string) error {
	if name == "" {
		name = "id"
	}
	t.key = t.column(name)
	if t.key == nil {
		return fmt.Errorf("view %q has no column %q; name its key column in Key", t.name, name)
	}
	if t.key.hidden() {
		return fmt.Errorf("view %q: the key column %q is hidden", t.name, name)
	}
	if t.key.typ != integerType && t.key.typ != textType && t.key.typ != blobType {
		return errors.New("view " + t.name + ": the type of the key column must be known: a column of a table of type integer, text or blob, or a CAST to one of these")
	}
	t.key.uuid = t.key.typ == blobType
	return nil
}

// sql returns the table's name for use in statements.
func (t *table) sql() string { return quote(t.database) + "." + quote(t.name) }

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
