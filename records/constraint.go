package records

import (
	"context"
	"database/sql/driver"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/bedplate/bedplate/internal/sqltoken"
	"github.com/bedplate/bedplate/sqlite"
)

// refusal turns an error of the database about the write r, which may be nil,
// into what the client is told; see the func refusal. If a constraint is
// violated the answer names the columns that it is about, as far as callers
// may see them, and never a value.
func (s *Service) refusal(ctx context.Context, p *plan, r *request, err error, guarded bool) error {
	if errors.Is(err, sqlite.ErrRolledBack) {
		return (&Error{Status: http.StatusServiceUnavailable}).because(err)
	}
	told := refusal(err, guarded)
	var e *Error
	if !errors.As(told, &e) || e.Status != http.StatusBadRequest || len(e.Fields) > 0 {
		return told
	}
	v := violation{s: s, p: p, fields: fieldErrors{}}
	if r != nil {
		v.fields.at = r.at
	}
	message := err.Error()
	switch sqlite.Code(err) {
	case constraintUnique, constraintPrimaryKey:
		v.unique(message)
	case constraintNotNull:
		v.notNull(message)
	case constraintCheck:
		v.check(ctx, message)
	case constraintForeignKey:
		if r != nil {
			v.foreignKey(ctx, r)
		}
	}
	if len(v.fields.fields) == 0 {
		return told
	}
	return &Error{Status: e.Status, Text: e.Text, Fields: v.fields.fields, cause: e.cause}
}

// Extended result codes, see https://www.sqlite.org/rescode.html.
const (
	constraintCheck      = 275
	constraintForeignKey = 787
	constraintNotNull    = 1299
	constraintPrimaryKey = 1555
	constraintUnique     = 2067
)

// violation finds out which columns a violated constraint is about. Triggers
// and cascades violate those of other tables, of which nothing is told.
type violation struct {
	s      *Service
	p      *plan
	fields fieldErrors
}

func (v *violation) add(c *column, code, detail string) {
	if v.p.visible(c.name) == c {
		v.fields.add(c, "", code, "", detail)
	}
}

// unique reads "UNIQUE constraint failed: t.a, t.b".
func (v *violation) unique(message string) {
	columns := slices.DeleteFunc(v.named(message, "UNIQUE constraint failed: "), func(c *column) bool { return v.p.visible(c.name) != c })
	detail := "This value is taken."
	if len(columns) > 1 {
		detail = "This combination of values is taken."
	}
	for _, c := range columns {
		v.add(c, "unique", detail)
	}
}

// notNull reads "NOT NULL constraint failed: t.a".
func (v *violation) notNull(message string) {
	for _, c := range v.named(message, "NOT NULL constraint failed: ") {
		v.add(c, "not_null", "A value is needed.")
	}
}

// named returns the columns in the list behind prefix, nil if it is about
// another table.
func (v *violation) named(message, prefix string) (columns []*column) {
	dot := v.p.table.name + "."
	_, list, _ := strings.Cut(message, prefix)
	list, ok := strings.CutPrefix(list, dot)
	for ok {
		var name string
		name, list, ok = strings.Cut(list, ", "+dot)
		c := v.p.table.exact(name)
		if c == nil {
			return nil
		}
		columns = append(columns, c)
	}
	return columns
}

// check reads "CHECK constraint failed: " with the name of the constraint or
// its text, and looks for it in the declaration of the table. SQLite does not
// say which table it is of; one that a trigger writes to may have the same.
func (v *violation) check(ctx context.Context, message string) {
	_, label, ok := strings.Cut(message, "CHECK constraint failed: ")
	if !ok {
		return
	}
	t := v.p.table
	var create string
	err := v.s.db.Query(ctx, "SELECT coalesce(sql, '') FROM "+quote(t.database)+".sqlite_schema WHERE name = ?1 AND type = 'table'",
		[]driver.Value{t.name}, func(row []driver.Value) error {
			create, _ = row[0].(string)
			return nil
		})
	if err != nil {
		return // the client is told less
	}
	var found []declaredCheck
	for _, c := range t.checks(create) {
		if c.label == label {
			found = append(found, c)
		}
	}
	if len(found) != 1 {
		return // of another table, or there is no telling which
	}
	about := found[0].column
	if about == nil {
		columns := slices.DeleteFunc(found[0].mentioned, func(c *column) bool { return v.p.visible(c.name) != c })
		if len(columns) != 1 {
			return
		}
		about = columns[0]
	}
	if found[0].schema {
		v.add(about, "schema", "Does not match the schema of the column.")
	} else {
		v.add(about, "check", "This value is not allowed.")
	}
}

// declaredCheck is a CHECK in a CREATE TABLE statement.
type declaredCheck struct {
	label     string    // as SQLite's message has it
	column    *column   // in whose definition it has a name; else nil
	mentioned []*column // in the expression
	schema    bool      // it is a JSON schema
}

// checks returns the CHECKs of a CREATE TABLE statement for t.
func (t *table) checks(create string) (checks []declaredCheck) {
	tokens, err := sqltoken.Scan(create)
	if err != nil {
		return nil
	}
	for _, def := range definitions(tokens) {
		of := t.exact(def[0].Name() + def[0].Value())
		name := ""
		depth := 0
		for i, token := range def {
			switch {
			case token.IsPunct("("):
				depth++
			case token.IsPunct(")"):
				depth--
			case depth == 0 && token.Is("CONSTRAINT") && i+1 < len(def):
				name = def[i+1].Name() + def[i+1].Value()
			case depth == 0 && token.Is("CHECK") && i+2 < len(def) && def[i+1].IsPunct("("):
				c := t.declared(create, def[i+1:])
				if name != "" {
					c.label, c.column = name, of
				}
				checks = append(checks, c)
			}
		}
	}
	return checks
}

// declared reads ( expression ) at the beginning of tokens.
func (t *table) declared(create string, tokens []sqltoken.Token) (c declaredCheck) {
	end, depth := 0, 0
	for i, token := range tokens {
		if token.IsPunct("(") {
			depth++
		}
		if token.IsPunct(")") {
			if depth--; depth == 0 {
				end = i
				break
			}
		}
	}
	if end < 2 {
		return c
	}
	c.label = strings.Trim(create[tokens[0].Pos+1:tokens[end].Pos], " \t\n\v\f\r")
	if first := tokens[1]; first.Kind == sqltoken.Quoted || first.Kind == sqltoken.String {
		c.label = first.Name() + first.Value() // SQLite takes off the quotes, and all behind them
	}
	switch strings.ToLower(tokens[1].Name()) {
	case "jsonschema", "jsonschema_matches":
		c.schema = true
	}
	for i := 1; i < end; i++ {
		col := t.column(tokens[i].Name())
		if col != nil && !tokens[i+1].IsPunct("(") && !tokens[i+1].IsPunct(".") && !slices.Contains(c.mentioned, col) {
			c.mentioned = append(c.mentioned, col)
		}
	}
	return c
}

// foreignKey names the reference that leads nowhere, which SQLite does not
// tell, if it is the only one that the client named. It says no more than the
// violation does: no row has that key, whoever may read such rows.
//
// Only what is committed can be asked. A row that the same transaction has made
// is not there any more, so a reference to the table itself is not judged, and
// none of a batch.
func (v *violation) foreignKey(ctx context.Context, r *request) {
	if strings.HasPrefix(r.at, batchPlace) {
		return
	}
	var named *column
	for _, c := range v.p.table.columns {
		switch {
		case c.ref == nil, !r.given.has(c.index), r.values[c.index] == nil:
		case !r.named.has(c.index):
			if found, err := v.parentExists(ctx, c, r.values[c.index]); err != nil || !found {
				return
			}
		case named != nil:
			return
		default:
			named = c
		}
	}
	if named == nil || strings.EqualFold(named.ref.table, v.p.table.name) {
		return
	}
	if found, err := v.parentExists(ctx, named, r.values[named.index]); err == nil && !found {
		v.add(named, "fk", "There is no such record.")
	}
}

// batchPlace begins the places of the records of a batch.
const batchPlace = "/operations/"

// parentExists compares as SQLite does when it enforces the key: with the
// affinity and the collation of the column that is referred to.
func (v *violation) parentExists(ctx context.Context, c *column, value driver.Value) (found bool, err error) {
	db, database, key := v.s.db, v.p.table.database, c.ref.column
	if key == "" {
		err = db.Query(ctx, "SELECT name FROM pragma_table_info(?1, ?2) WHERE pk = 1", []driver.Value{c.ref.table, database}, func(row []driver.Value) error {
			key, _ = row[0].(string)
			return nil
		})
	}
	if err != nil {
		return false, err
	}
	err = db.Query(ctx, "SELECT 1 FROM "+quote(database)+"."+quote(c.ref.table)+" WHERE "+quote(key)+" = ?1 LIMIT 1", []driver.Value{value}, func([]driver.Value) error {
		found = true
		return nil
	})
	return found, err
}
