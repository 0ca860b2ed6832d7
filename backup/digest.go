package backup

import (
	"bufio"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// A digest stands for the content of a database. That of two databases is the same if they hold
// the same rows, with the same rowids, in the same tables.
type digest struct {
	tables map[string]tableDigest // also schemaTable and settingsTable, which are none
	rows   int64
}

type tableDigest struct {
	rows int64
	sum  [sha256.Size]byte
}

// What is not in tables is digested as if it were.
const (
	schemaTable     = "sqlite_schema"
	schemaContent   = `SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name, tbl_name, sql`
	settingsTable   = "sqlite_settings"
	settingsContent = `SELECT * FROM pragma_user_version, pragma_application_id, pragma_encoding, pragma_page_size`
)

// digestOf reads the whole database on a connection. With a transaction open there it is that of
// one moment.
//
// All tables count that have rows of their own: with those behind virtual tables, those of SQLite
// and of the replicator, but without virtual tables. Of generated columns only those that are
// stored count, so that what a function returns today does not matter.
func digestOf(ctx context.Context, db *sql.Conn) (digest, error) {
	d := digest{tables: map[string]tableDigest{}}
	contents := map[string]string{schemaTable: schemaContent, settingsTable: settingsContent}
	if err := tableContents(ctx, db, contents); err != nil {
		return digest{}, fmt.Errorf("list the tables: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(contents)) {
		table, err := digestRows(ctx, db, contents[name])
		if err != nil {
			return digest{}, fmt.Errorf("read table %q: %w", name, err)
		}
		d.tables[name] = table
		if name != schemaTable && name != settingsTable {
			d.rows += table.rows
		}
	}
	return d, nil
}

// size is the number of tables.
func (d digest) size() int { return max(len(d.tables)-2, 0) }

// difference says in which table the restored database d differs first from its source; "": in none.
func (d digest) difference(source digest) string {
	for _, name := range slices.Sorted(maps.Keys(source.tables)) {
		want := source.tables[name]
		switch got, ok := d.tables[name]; {
		case !ok:
			return fmt.Sprintf("table %q with %d rows is missing", name, want.rows)
		case got.rows != want.rows:
			return fmt.Sprintf("table %q has %d rows instead of %d", name, got.rows, want.rows)
		case got.sum != want.sum:
			return fmt.Sprintf("table %q has other content, in as many rows, %d", name, got.rows)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.tables)) {
		if _, ok := source.tables[name]; !ok {
			return fmt.Sprintf("table %q with %d rows should not be there", name, d.tables[name].rows)
		}
	}
	return ""
}

// tableContents adds, for each table, the query for all that it holds, in the order of its key.
func tableContents(ctx context.Context, db *sql.Conn, contents map[string]string) error {
	// Views and virtual tables have no root page.
	const query = `
SELECT s.name, l.wr, c.name, c.hidden = 2
FROM sqlite_schema s, pragma_table_list(s.name) l, pragma_table_xinfo(s.name) c
WHERE s.type = 'table' AND s.rootpage > 0 AND l.schema = 'main'
ORDER BY s.name, c.cid`
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	columns := map[string][]string{}
	withoutRowid := map[string]bool{}
	virtual := map[string]map[string]bool{} // columns that are generated when read
	for rows.Next() {
		var table, column string
		var wr, generated bool
		if err := rows.Scan(&table, &wr, &column, &generated); err != nil {
			return err
		}
		columns[table] = append(columns[table], column)
		withoutRowid[table] = wr
		if generated {
			if virtual[table] == nil {
				virtual[table] = map[string]bool{}
			}
			virtual[table][column] = true
		}
	}
	for table, names := range columns {
		var list []string
		if rowid := rowidOf(names); rowid != "" && !withoutRowid[table] {
			list = append(list, rowid)
		}
		for _, name := range names {
			if !virtual[table][name] {
				// As an expression it has no declared type. Drivers make times and booleans
				// of what columns of some types hold.
				list = append(list, "+"+quoted(name))
			}
		}
		// The table itself is read, not an index that holds the same.
		contents[table] = "SELECT " + strings.Join(list, ", ") + " FROM main." + quoted(table) + " NOT INDEXED"
	}
	return rows.Err()
}

// rowidOf returns a name of the rowid that is not one of a column; "": there is none.
func rowidOf(columns []string) string {
	for _, name := range []string{"rowid", "_rowid_", "oid"} {
		if !slices.ContainsFunc(columns, func(c string) bool { return strings.EqualFold(c, name) }) {
			return name
		}
	}
	return ""
}

func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// digestRows digests what a query returns.
func digestRows(ctx context.Context, db *sql.Conn, query string) (tableDigest, error) {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return tableDigest{}, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return tableDigest{}, err
	}
	sum := sha256.New()
	values := &valueWriter{bufio.NewWriterSize(sum, 64<<10)}
	dest := make([]any, len(columns))
	for i := range dest {
		dest[i] = values
	}
	var d tableDigest
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return tableDigest{}, err
		}
		d.rows++
	}
	_ = values.w.Flush() // a hash never fails
	sum.Sum(d.sum[:0])
	return d, rows.Err()
}

// A valueWriter writes values with their storage class, so that 1, 1.0, '1' and x'31' are four. It
// is the sql.Scanner of every column, since that sees values as the driver has read them.
type valueWriter struct{ w *bufio.Writer }

func (v *valueWriter) Scan(value any) error {
	switch x := value.(type) {
	case nil:
		return v.number('0', 0)
	case int64:
		return v.number('i', uint64(x))
	case float64:
		return v.number('f', math.Float64bits(x))
	case string:
		_ = v.number('t', uint64(len(x)))
		_, err := v.w.WriteString(x)
		return err
	case []byte:
		_ = v.number('b', uint64(len(x)))
		_, err := v.w.Write(x)
		return err
	default:
		return fmt.Errorf("the driver makes a %T of a value", x)
	}
}

func (v *valueWriter) number(class byte, n uint64) error {
	_, err := v.w.Write(binary.BigEndian.AppendUint64(append(v.w.AvailableBuffer(), class), n))
	return err
}
