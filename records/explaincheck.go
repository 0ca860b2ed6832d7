package records

import (
	"context"
	"database/sql/driver"
	"fmt"
	"strconv"
	"strings"

	"github.com/bedplate/bedplate/internal/sqltoken"
	"github.com/bedplate/bedplate/sqlite"
)

// defaults reads the default values of a table that the request may create a
// row in.
func (e *explainer) defaults(ctx context.Context, db *sqlite.DB) error {
	t := e.p.table
	if e.q.Op != Create || e.p.check == nil {
		return nil
	}
	e.defs = make([]string, len(t.columns))
	return db.Read(ctx, func(r *sqlite.Reader) error {
		return r.Query("PRAGMA "+quote(t.database)+".table_xinfo("+quote(t.name)+")", nil, func(row []driver.Value) error {
			name, _ := row[1].(string)
			if c := t.exact(name); c != nil {
				e.defs[c.index], _ = row[4].(string)
			}
			return nil
		})
	})
}

// check judges Check on the row as the request would leave it; with old, on
// the record with the key of req as it would be changed.
func (e *explainer) check(old bool) error {
	src := e.p.api.Check
	if src == "" {
		return nil
	}
	if why := e.beyond(src, old); why != "" {
		e.add(ExplainedStep{Name: "check", Verdict: NotJudged, Text: src, Note: why})
		return nil
	}
	table, err := e.store(old)
	if err != nil {
		return err
	}
	return e.judge("check", src, func(b *builder) { b.add(" FROM ", table, ` AS "_ROW_"`) })
}

// beyond says why Check cannot be judged without writing, if so.
func (e *explainer) beyond(src string, old bool) string {
	t := e.p.table
	switch {
	case e.p.api.Before != nil:
		return "the hook Before may change what is written"
	case e.req.keeps:
		return "the request keeps files of the record"
	}
	tokens, err := sqltoken.Scan(src)
	if err != nil {
		return err.Error()
	}
	for i, tok := range tokens {
		name, of := tok.Name(), ""
		if i > 1 && tokens[i-1].IsPunct(".") {
			of = tokens[i-2].Name()
		}
		c := t.column(name)
		if c == nil && isRowid(name) && t.key.alias {
			c = t.key
		}
		switch {
		case name == "":
		case sqltoken.Fold(name) == sqltoken.Fold(t.name) && (c == nil || of != "_ROW_" && namesTable(tokens[:i])):
			return "it looks at other rows of the table, which the request would change"
		case of != "" && of != "_ROW_": // of the caller, or of another table
		case c == nil && isRowid(name):
			return "it depends on the rowid"
		case c == nil:
		case c.generated:
			return fmt.Sprintf("it depends on the generated column %q", c.name)
		case !old && c == t.key && e.chosen(c):
			return fmt.Sprintf("it depends on %q, which the database chooses", c.name)
		}
	}
	return ""
}

// namesTable reports whether a table is named behind tokens, perhaps with its
// database.
func namesTable(tokens []sqltoken.Token) bool {
	n := len(tokens)
	if n > 1 && tokens[n-1].IsPunct(".") {
		n -= 2
	}
	return n > 0 && (tokens[n-1].Is("FROM") || tokens[n-1].Is("JOIN") || tokens[n-1].Is("IN") || tokens[n-1].IsPunct(","))
}

// chosen reports whether the database chooses the key of a record that the
// request creates.
func (e *explainer) chosen(key *column) bool {
	if key.alias {
		return e.req.values[key.index] == nil
	}
	return !e.req.given.has(key.index) && e.defs[key.index] == ""
}

// store puts the row as the request would leave it into a temporary table
// with the columns, affinities and collations of the real one.
func (e *explainer) store(old bool) (name string, err error) {
	t := e.p.table
	name = "temp." + quote("_ROW_")
	var columns, values []string
	var args []driver.Value
	for _, c := range t.columns {
		columns = append(columns, quote(c.name)+" "+c.affinity(t.strict)+c.collate())
		switch {
		case e.req.given.has(c.index) && !(old && c == t.key):
			args = append(args, e.req.values[c.index])
			values = append(values, "?"+strconv.Itoa(len(args)))
		case c.generated:
			values = append(values, "NULL") // Check does not depend on it
		case old && !e.replaces(c):
			values = append(values, "+"+rowColumn(c))
		case e.defs != nil && e.defs[c.index] != "":
			values = append(values, "("+e.defs[c.index]+")")
		default:
			values = append(values, "NULL")
		}
	}
	if t.key.alias {
		for _, rowid := range []string{"rowid", "oid", "_rowid_"} {
			if t.column(rowid) == nil {
				columns = append(columns, quote(rowid)+" INTEGER AS ("+quote(t.key.name)+") VIRTUAL")
			}
		}
	}
	from := ""
	if old {
		args = append(args, e.req.key)
		from = " FROM " + t.sql() + ` AS "_ROW_" WHERE ` + rowColumn(t.key) + "=?" + strconv.Itoa(len(args))
	}
	var names []string
	for _, c := range t.columns {
		names = append(names, quote(c.name))
	}
	if err := e.query("CREATE TABLE "+name+" ("+strings.Join(columns, ", ")+")", nil, nil); err != nil {
		return "", err
	}
	return name, e.query("INSERT INTO "+name+" ("+strings.Join(names, ", ")+") SELECT "+strings.Join(values, ", ")+from, args, nil)
}

// replaces reports whether the request sets c although it does not give a
// value: where a create replaces a record.
func (e *explainer) replaces(c *column) bool {
	return e.q.Op == Create && c != e.p.table.key && e.p.input[c.name] == c
}
