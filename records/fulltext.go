package records

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"

	"github.com/bedplate/bedplate/internal/sqltoken"
)

var errMatch = badRequest("Invalid match query")

// fullText is the FTS5 table of an API (https://www.sqlite.org/fts5.html).
type fullText struct {
	table string // for use in statements
	match string // its hidden column that MATCH is about, quoted
	rowid string // of the rows that it indexes, in statements
}

// byRank orders by how well a row matches, the best first.
const byRank = `"_MATCH_".rank`

// from adds what a list by rank joins the table with.
func (f *fullText) from(b *builder) {
	b.add(f.table, ` AS "_MATCH_" CROSS JOIN `)
}

// where adds the condition that a row matches query. joined tells that from
// was added.
func (f *fullText) where(b *builder, query string, joined bool) {
	if joined {
		b.add(`"_MATCH_".`, f.match, " MATCH ", b.param(query), " AND ", f.rowid, `="_MATCH_".rowid`)
		return
	}
	b.add(f.rowid, " IN (SELECT rowid FROM ", f.table, " WHERE ", f.match, " MATCH ", b.param(query), ")")
}

// check asks the index alone whether query is well-formed, so that the answer
// depends neither on the rows nor on the rest of the request.
func (f *fullText) check(query queryFunc, match string) error {
	err := query("SELECT 1 FROM "+f.table+" WHERE "+f.match+" MATCH ?1 LIMIT 1", []driver.Value{match}, func([]driver.Value) error { return nil })
	if err != nil && evaluation(err) {
		return errMatch.because(err)
	}
	return err
}

// maxPrefixes bounds the prefixes in a full-text query: what each of them
// finds is collected at once, which cannot be interrupted.
const maxPrefixes = 4

// searchable reports whether a query may be given to FTS5. One that begins
// with an asterisk is not a query but a question about its inner state.
func searchable(query string) bool {
	return !strings.HasPrefix(query, "*") && strings.Count(query, "*") <= maxPrefixes
}

// fullText finds the index of p.
func (c *compiler) fullText(p *plan) {
	if p.api.FullText == "" {
		return
	}
	if p.api.ReadRule != "" {
		c.fail(p.api.Name, fmt.Errorf("full text %q: not together with a read rule: the time that a search takes depends on all rows, and would tell what is in hidden ones", p.api.FullText))
		return
	}
	var err error
	if p.search, err = c.loadFullText(p); err != nil {
		c.fail(p.api.Name, fmt.Errorf("full text %q: %w", p.api.FullText, err))
	}
}

func (c *compiler) loadFullText(p *plan) (*fullText, error) {
	compiled := false
	err := c.reader.Query("SELECT 1 FROM pragma_module_list WHERE name = 'fts5'", nil, func([]driver.Value) error {
		compiled = true
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !compiled {
		return nil, errors.New("FTS5 is not compiled in; build the program with -tags sqlite_fts5")
	}
	t := p.table
	row := t.rowid
	if t.key.alias {
		row = t.key
	}
	switch {
	case t.view:
		return nil, fmt.Errorf("%q is a view", p.api.Table)
	case row == nil:
		return nil, fmt.Errorf("%q has no rowid", p.api.Table)
	}
	var name, create string
	err = c.reader.Query("SELECT name, coalesce(sql, '') FROM "+quote(t.database)+".sqlite_schema WHERE name = ?1 COLLATE NOCASE AND type = 'table'",
		[]driver.Value{p.api.FullText}, func(row []driver.Value) error {
			name, create = row[0].(string), row[1].(string)
			return nil
		})
	if err != nil {
		return nil, err
	}
	tokens, err := sqltoken.Scan(create)
	if err != nil {
		return nil, err
	}
	if !isFTS5(tokens) {
		return nil, fmt.Errorf("there is no such FTS5 table in the database of %q", p.api.Table)
	}
	if err := checkContent(tokens, t); err != nil {
		return nil, err
	}
	// A match on a column that a caller may not see would tell what is in it.
	err = c.reader.Query("PRAGMA "+quote(t.database)+".table_xinfo("+quote(name)+")", nil, func(row []driver.Value) error {
		column, _ := row[1].(string)
		if row[6] == int64(1) { // hidden: that for MATCH, and rank
			return nil
		}
		if col := p.visible(column); col == nil || !col.comparable() {
			return fmt.Errorf("its column %q is not one of the api that callers may compare", column)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &fullText{quote(t.database) + "." + quote(name), quote(name), rowColumn(row)}, nil
}

// isFTS5 reports whether a statement is CREATE VIRTUAL TABLE … USING fts5.
func isFTS5(create []sqltoken.Token) bool {
	for i, t := range create {
		if t.Is("USING") && i+1 < len(create) {
			return sqltoken.Fold(create[i+1].Name()) == "fts5" && i > 1 && create[1].Is("VIRTUAL")
		}
	}
	return false
}

// checkContent makes sure that an index whose content is in another table
// indexes t, by its rowid.
func checkContent(create []sqltoken.Token, t *table) error {
	for i := 1; i+2 < len(create); i++ {
		if !create[i+1].IsPunct("=") || !create[i-1].IsPunct("(") && !create[i-1].IsPunct(",") {
			continue
		}
		value := create[i+2].Name() + create[i+2].Value()
		switch sqltoken.Fold(create[i].Name()) {
		case "content":
			if value != "" && sqltoken.Fold(value) != sqltoken.Fold(t.name) {
				return fmt.Errorf("its content is in %q, not in %q", value, t.name)
			}
		case "content_rowid":
			if col := t.column(value); col != nil && !col.alias || col == nil && !isRowid(value) {
				return fmt.Errorf("its content_rowid %q is not the rowid of %q", value, t.name)
			}
		}
	}
	return nil
}
