package records

import (
	"slices"
	"strconv"
	"strings"

	"github.com/bedplate/bedplate/internal/sqltoken"
	"github.com/bedplate/bedplate/sqlite"
)

// maxViewDepth bounds how many views are read through to find the tables.
const maxViewDepth = 4

// inferTypes completes the columns of a view by what its SELECT tells about
// them beyond their declared types. What it does not understand for certain
// it leaves as it is: WITH, UNION, sub-queries, operators.
func (t *table) inferTypes(r *sqlite.Reader, depth int) error {
	tokens, err := sqltoken.Scan(t.create)
	if err != nil {
		return nil //nolint:nilerr // SQLite has understood it
	}
	q, from, ok := parseView(tokens)
	if !ok {
		return nil
	}
	if ok, err = q.readSources(r, from, t.database, depth); err != nil || !ok {
		return err
	}
	values, ok := q.columns()
	if !ok || len(values) != len(t.columns) {
		return nil
	}
	for i, c := range t.columns {
		c.refine(values[i])
	}
	return nil
}

// viewQuery is the SELECT of a view.
type viewQuery struct {
	items   [][]sqltoken.Token // the expressions selected, without aliases
	sources []viewSource
	merged  bool // joined by NATURAL or USING: the sources share columns
	single  bool // it may yield one row of no rows, which is all NULL
}

// viewSource is a table or view that a view selects from.
type viewSource struct {
	name     string // or alias, folded
	table    *table
	nullable bool // by an outer join
}

// value is what is known of the value of an expression.
type value struct {
	base    *column   // the column that it is, or nil
	view    bool      // base is a column of another view
	typ     valueType // if it is not NULL; anyType: not known
	notNull bool
}

// refine takes over what is known of the value of c.
func (c *column) refine(v value) {
	if v.base != nil {
		// For SQLite, ANY in a view is BLOB.
		if v.base.declared != c.declared && !(v.base.typ == anyType && c.typ == blobType) {
			return // it reads the view in another way
		}
		c.typ, c.format, c.uuid, c.collation, c.ref = v.base.typ, v.base.format, v.base.uuid, v.base.collation, v.base.ref
		c.notNull, c.exact, c.schema = v.notNull, v.base.exact, v.base.schema
		c.original = v.base.original || !v.view
		c.mayFile = v.base.mayFile
		return
	}
	if c.typ == anyType {
		c.typ = v.typ
	}
	c.notNull = v.notNull
	c.exact = v.typ != anyType && c.typ == v.typ
}

// parseView splits CREATE VIEW … AS SELECT … into its parts; from is what
// stands between FROM and the next clause.
func parseView(tokens []sqltoken.Token) (q *viewQuery, from []sqltoken.Token, ok bool) {
	start := find(tokens, func(i int) bool { return tokens[i].Is("AS") })
	if start < 0 || start+1 >= len(tokens) || !tokens[start+1].Is("SELECT") {
		return nil, nil, false
	}
	tokens = tokens[start+2:]
	if len(tokens) > 0 && (tokens[0].Is("DISTINCT") || tokens[0].Is("ALL")) {
		tokens = tokens[1:]
	}
	if find(tokens, func(i int) bool { return isWord(tokens, i, "UNION", "INTERSECT", "EXCEPT") }) >= 0 {
		return nil, nil, false
	}
	end := find(tokens, func(i int) bool {
		return isWord(tokens, i, "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT") || tokens[i].IsPunct(";") ||
			isWord(tokens, i, "WINDOW") && i+3 < len(tokens) && tokens[i+2].Is("AS") && tokens[i+3].IsPunct("(")
	})
	var rest []sqltoken.Token
	if end >= 0 {
		tokens, rest = tokens[:end], tokens[end:]
	}
	// The other FROM is that of IS DISTINCT FROM.
	if i := find(tokens, func(i int) bool { return isWord(tokens, i, "FROM") && !(i > 0 && tokens[i-1].Is("DISTINCT")) }); i >= 0 {
		tokens, from = tokens[:i], tokens[i+1:]
		if len(from) == 0 {
			return nil, nil, false
		}
	}
	q = &viewQuery{}
	for _, item := range split(tokens) {
		q.items = append(q.items, withoutAlias(item))
	}
	if find(rest, func(i int) bool { return isWord(rest, i, "GROUP") }) < 0 {
		q.single = slices.ContainsFunc(q.items, mayAggregate)
		if i := find(rest, func(i int) bool { return isWord(rest, i, "HAVING", "ORDER") }); i >= 0 {
			q.single = q.single || rest[i].Is("HAVING") || mayAggregate(rest[i:])
		}
	}
	return q, from, true
}

// mayAggregate reports whether tokens call a function that may be an aggregate.
func mayAggregate(tokens []sqltoken.Token) bool {
	for i, t := range tokens {
		if i > 0 && t.IsPunct("(") && tokens[i-1].Name() != "" && !scalar(sqltoken.Fold(tokens[i-1].Name())) {
			return true
		}
	}
	return false
}

// find returns the first place outside of parentheses where is holds, or -1.
func find(tokens []sqltoken.Token, is func(i int) bool) int {
	depth := 0
	for i, t := range tokens {
		switch {
		case t.IsPunct("("):
			depth++
		case t.IsPunct(")"):
			depth--
		case depth == 0 && is(i):
			return i
		}
	}
	return -1
}

// isWord reports whether tokens[i] is one of the keywords, and not a name
// behind a dot.
func isWord(tokens []sqltoken.Token, i int, words ...string) bool {
	return bare(tokens, i) && slices.ContainsFunc(words, tokens[i].Is)
}

func bare(tokens []sqltoken.Token, i int) bool { return i == 0 || !tokens[i-1].IsPunct(".") }

// split splits at the commas outside of parentheses.
func split(tokens []sqltoken.Token) (parts [][]sqltoken.Token) {
	for {
		i := find(tokens, func(i int) bool { return tokens[i].IsPunct(",") })
		if i < 0 {
			return append(parts, tokens)
		}
		parts, tokens = append(parts, tokens[:i]), tokens[i+1:]
	}
}

// withoutAlias cuts "AS name" or a name alone off the end of an expression.
func withoutAlias(item []sqltoken.Token) []sqltoken.Token {
	n := len(item)
	if n < 2 {
		return item
	}
	last, before := item[n-1], item[n-2]
	switch {
	case last.Kind != sqltoken.Word && last.Kind != sqltoken.Quoted && last.Kind != sqltoken.String:
		return item
	case before.Is("AS"):
		return item[:n-2]
	case last.Is("ISNULL"), last.Is("NOTNULL"), before.Is("OVER"):
		return item
	case before.Kind != sqltoken.Punct || before.IsPunct(")"):
		return item[:n-1]
	}
	return item
}

// readSources reads the tables of a FROM clause. ok is false if there is
// something else.
func (q *viewQuery) readSources(r *sqlite.Reader, from []sqltoken.Token, database string, depth int) (ok bool, err error) {
	if len(from) > 0 && depth >= maxViewDepth {
		return false, nil
	}
	for nullable := false; len(from) > 0; {
		name := from[0].Name()
		from = from[1:]
		if len(from) > 1 && from[0].IsPunct(".") {
			if !strings.EqualFold(name, database) {
				return false, nil
			}
			name, from = from[1].Name(), from[2:]
		}
		if name == "" {
			return false, nil // a sub-query
		}
		alias := name
		switch {
		case len(from) > 1 && from[0].Is("AS"):
			alias, from = from[1].Name()+from[1].Value(), from[2:]
		case len(from) > 0 && from[0].IsPunct("("):
			return false, nil // a function
		case len(from) > 0 && (from[0].Kind != sqltoken.Word || !joinWord(from[0], "ON", "USING", "INDEXED", "NOT", "JOIN")) && from[0].Kind != sqltoken.Punct:
			alias, from = from[0].Name()+from[0].Value(), from[1:]
		}
		t, err := describe(r, database, name, depth+1)
		if err != nil || t == nil {
			return false, err
		}
		q.sources = append(q.sources, viewSource{sqltoken.Fold(alias), t, nullable})

		// Its condition, and how the next one is joined.
		next, words := nextJoin(from)
		q.merged = q.merged || find(from[:next], func(i int) bool { return isWord(from, i, "USING") }) >= 0
		nullable = false
		for _, w := range from[next : next+words] {
			switch {
			case w.Is("NATURAL"):
				q.merged = true
			case w.Is("LEFT"):
				nullable = true
			case w.Is("RIGHT"), w.Is("FULL"):
				nullable = nullable || w.Is("FULL")
				for i := range q.sources {
					q.sources[i].nullable = true
				}
			}
		}
		if from = from[next+words:]; words > 0 && len(from) == 0 {
			return false, nil
		}
	}
	return true, nil
}

// joinWord reports whether t is a word of a join operator or one of others.
func joinWord(t sqltoken.Token, others ...string) bool {
	return slices.ContainsFunc(append(others, "NATURAL", "LEFT", "RIGHT", "FULL", "OUTER", "INNER", "CROSS"), t.Is)
}

// nextJoin returns where the next join operator of a FROM clause begins, and
// of how many tokens it is: 0 at the end.
func nextJoin(from []sqltoken.Token) (at, words int) {
	at = find(from, func(i int) bool {
		if from[i].IsPunct(",") {
			words = 1
			return true
		}
		n := i
		for n < len(from) && n < i+3 && joinWord(from[n]) {
			n++
		}
		if n < len(from) && from[n].Is("JOIN") && bare(from, i) {
			words = n + 1 - i
			return true
		}
		return false
	})
	if at < 0 {
		return len(from), 0
	}
	return at, words
}

// columns returns the values of the columns of the view, in their order.
func (q *viewQuery) columns() (values []value, ok bool) {
	for _, item := range q.items {
		star, source := len(item) > 0 && item[len(item)-1].IsPunct("*"), ""
		switch {
		case !star:
			values = append(values, q.value(item))
			continue
		case len(item) == 3 && item[1].IsPunct("."):
			source = sqltoken.Fold(item[0].Name())
		case len(item) != 1:
			return nil, false
		}
		if q.merged {
			return nil, false // some columns are there once
		}
		found := false
		for _, s := range q.sources {
			if source != "" && s.name != source {
				continue
			}
			if found && source != "" {
				return nil, false
			}
			found = true
			for _, c := range s.table.columns {
				values = append(values, q.columnValue(s, c))
			}
		}
		if !found {
			return nil, false
		}
	}
	return values, true
}

func (q *viewQuery) columnValue(s viewSource, c *column) value {
	v := value{base: c, view: s.table.view, notNull: (c.notNull || c.alias) && !s.nullable && !q.single}
	if c.exact {
		v.typ = c.typ
	}
	return v
}

// value returns what is known of an expression.
func (q *viewQuery) value(e []sqltoken.Token) value {
	switch {
	case len(e) == 0:
		return value{}
	case e[0].IsPunct("(") && closing(e, 0) == len(e)-1:
		return q.value(e[1 : len(e)-1])
	case len(e) == 1 && e[0].Name() != "" || len(e) == 3 && e[1].IsPunct("."):
		return q.reference(e)
	case len(e) == 1:
		return literal(e[0].Kind, e[0].Text)
	case len(e) == 2 && e[0].IsPunct("-") && e[1].Kind == sqltoken.Number:
		return literal(sqltoken.Number, "-"+e[1].Text)
	case e[0].Kind == sqltoken.Word && e[1].IsPunct("("):
		end := closing(e, 1)
		if end < 0 {
			return value{}
		}
		return q.call(sqltoken.Fold(e[0].Text), e[2:end], e[end+1:])
	}
	return value{}
}

// closing returns where the parenthesis at i is closed, or -1.
func closing(e []sqltoken.Token, i int) int {
	depth := 0
	for ; i < len(e); i++ {
		switch {
		case e[i].IsPunct("("):
			depth++
		case e[i].IsPunct(")"):
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// reference returns the column called name or source.name, if there is one.
func (q *viewQuery) reference(e []sqltoken.Token) (found value) {
	name, source := e[len(e)-1].Name(), ""
	if len(e) == 3 {
		source = sqltoken.Fold(e[0].Name())
	} else if isWord(e, 0, "NULL", "CURRENT_DATE", "CURRENT_TIME", "CURRENT_TIMESTAMP") {
		return value{}
	}
	for _, s := range q.sources {
		c := s.table.column(name)
		if c == nil || len(e) == 3 && s.name != source {
			continue
		}
		if found.base != nil {
			return value{} // which of them, SQLite decides
		}
		found = q.columnValue(s, c)
	}
	return found
}

func literal(kind sqltoken.Kind, text string) value {
	switch kind {
	case sqltoken.String:
		return value{typ: textType, notNull: true}
	case sqltoken.Blob:
		return value{typ: blobType, notNull: true}
	case sqltoken.Number:
		if _, err := strconv.ParseInt(text, 10, 64); err == nil {
			return value{typ: integerType, notNull: true}
		}
		if _, err := strconv.ParseFloat(text, 64); err == nil && strings.ContainsAny(text, ".eE") && !strings.ContainsAny(text, "xX_") {
			return value{typ: realType, notNull: true}
		}
	}
	return value{}
}
