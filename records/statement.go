package records

import (
	"database/sql/driver"
	"strconv"
	"strings"

	"github.com/bedplate/bedplate/internal/jsonx"
	"github.com/bedplate/bedplate/internal/rule"
)

// builder writes an SQL statement and collects its parameters. All values are
// parameters; names come from the schema and are quoted.
type builder struct {
	strings.Builder
	args []driver.Value // values, or slots that bind fills
	seen map[slot]int   // parameter numbers

	// patterns is how many patterns the filter has, for conditions on images
	// of rows; see maxPatternWork. Otherwise it is 0.
	patterns int
}

// A slot stands in args for a value that differs from request to request.
type slot struct {
	kind slotKind
	col  *column
}

type slotKind uint8

const (
	userSlot  slotKind = iota // the caller's id
	keySlot                   // the id in the path
	valueSlot                 // the request's value of col
)

func (b *builder) add(parts ...string) *builder {
	for _, p := range parts {
		b.WriteString(p)
	}
	return b
}

// param adds a parameter with a value and returns its SQL.
func (b *builder) param(v driver.Value) string {
	b.args = append(b.args, v)
	return "?" + strconv.Itoa(len(b.args))
}

// slot returns the SQL of the parameter for s, adding it at first use.
func (b *builder) slot(s slot) string {
	n, ok := b.seen[s]
	if !ok {
		b.args = append(b.args, s)
		n = len(b.args)
		if b.seen == nil {
			b.seen = map[slot]int{}
		}
		b.seen[s] = n
	}
	return "?" + strconv.Itoa(n)
}

// granted adds the condition of r. Columns of _REQ_ that are not among given
// are NULL.
func (b *builder) granted(r *rule.Rule, t *table, given *fieldSet) string {
	return r.SQL(
		func() string { return b.slot(slot{kind: userSlot}) },
		func(name string) string {
			c := t.column(name)
			if given == nil || !given.has(c.index) {
				return "NULL"
			}
			return b.slot(slot{valueSlot, c})
		})
}

// byKey adds the condition that finds one row. The rule comes behind a unary
// plus: without it the planner may turn a sub-query into a join and, with
// outdated statistics, scan the table for the one row.
func (b *builder) byKey(t *table, r *rule.Rule, given *fieldSet) {
	b.add(" WHERE ", rowColumn(t.key), "=", b.slot(slot{kind: keySlot}))
	if r != nil {
		b.add(" AND +", b.granted(r, t, given))
	}
}

// fields adds the common table expression of _REQ_FIELDS_ if r uses it.
func (b *builder) fields(t *table, given *fieldSet, rules ...*rule.Rule) {
	used := false
	for _, r := range rules {
		used = used || r != nil && r.Uses(rule.Fields)
	}
	if !used {
		return
	}
	b.add(`WITH "_REQ_FIELDS_"("_") AS (`)
	sep := "VALUES "
	for _, c := range t.columns {
		if given != nil && given.has(c.index) {
			b.add(sep, "('", strings.ReplaceAll(c.name, "'", "''"), "')")
			sep = ","
		}
	}
	if sep == "VALUES " {
		b.add("SELECT NULL WHERE 0")
	}
	b.add(") ")
}

// statement returns what has been built.
func (b *builder) statement() *statement { return &statement{b.String(), b.args} }

// statement is a compiled statement: the same text for every request.
type statement struct {
	sql  string
	args []driver.Value
}

// request is what the slots of a statement are filled from.
type request struct {
	user   caller
	key    driver.Value
	given  fieldSet       // columns with a value
	named  fieldSet       // of these, the ones that the client named
	values []driver.Value // by column index

	at       string    // JSON Pointer to the record in the body, "" if it is the body
	uploads  []*upload // files to store
	uploaded *int      // how many there are in all records of the body; nil: those of this one
	keeps    bool      // some value stands for files that the row has already

	// refer, if not nil, reads a value that refers to an earlier operation.
	refer func(c *column, v jsonx.Value) (driver.Value, error)
}

// bind returns the arguments of s for one request.
func (s *statement) bind(r *request) []driver.Value {
	if len(s.args) == 0 {
		return nil
	}
	args := make([]driver.Value, len(s.args))
	for i, a := range s.args {
		sl, ok := a.(slot)
		if !ok {
			args[i] = a
			continue
		}
		switch sl.kind {
		case userSlot:
			args[i] = r.user.id
		case keySlot:
			args[i] = r.key
		case valueSlot:
			args[i] = r.values[sl.col.index]
		}
	}
	return args
}

// keyIndex returns where in the arguments the key is.
func (s *statement) keyIndex() int {
	for i, a := range s.args {
		if a == (slot{kind: keySlot}) {
			return i
		}
	}
	return -1
}

// fieldSet is a set of columns by index.
type fieldSet [maxColumns / 64]uint64

func (f *fieldSet) add(i int)      { f[i/64] |= 1 << (i % 64) }
func (f *fieldSet) remove(i int)   { f[i/64] &^= 1 << (i % 64) }
func (f *fieldSet) has(i int) bool { return f[i/64]&(1<<(i%64)) != 0 }
func (f *fieldSet) empty() bool    { return *f == fieldSet{} }

// rowColumn is a column of the row that a statement is about.
func rowColumn(c *column) string { return `"_ROW_".` + quote(c.name) }

// selected is a column as a result: the plus keeps the driver from turning
// the values of some declared types into something else.
func selected(c *column) string {
	if c.odd {
		return "+" + rowColumn(c)
	}
	return rowColumn(c)
}
