package records

import (
	"database/sql/driver"
	"math"
	"regexp"
	"regexp/syntax"
	"strconv"

	"github.com/bedplate/bedplate/internal/geo"
	"github.com/bedplate/bedplate/internal/listquery"
)

// visible returns the column that a caller may name, or nil. Hidden and
// excluded columns are the same to it as columns that do not exist.
func (p *plan) visible(name string) *column {
	if c := p.input[name]; c != nil && !c.hidden() {
		return c
	}
	return nil
}

// filter adds the condition of f. Functions that can fail or take long are
// computed for rows that the condition readable grants only, if it is not empty:
// otherwise a caller could tell from an error or the time what is in others.
func (p *plan) filter(b *builder, f *listquery.Filter, readable string) error {
	if f.Bool != 0 {
		op := " AND "
		if f.Bool == listquery.Or {
			op = " OR "
		}
		b.add("(")
		for i, child := range f.Children {
			if i > 0 {
				b.add(op)
			}
			if err := p.filter(b, child, readable); err != nil {
				return err
			}
		}
		b.add(")")
		return nil
	}
	c := p.visible(f.Column)
	if c == nil {
		return errFilter
	}
	switch f.Op {
	case listquery.Is:
		b.add(rowColumn(c), " IS ")
		if f.Value == "!NULL" {
			b.add("NOT ")
		}
		b.add("NULL")
		return nil
	case listquery.Within, listquery.Intersects, listquery.Contains:
		return spatial(b, c, f, readable)
	}
	if !c.comparable() {
		return errFilter
	}
	switch f.Op {
	case listquery.Like:
		condition := rowColumn(c) + " LIKE " + b.param(f.Value)
		if b.patterns == 0 {
			b.add(condition)
			return nil
		}
		guarded(b, readable, bounded(b, c, f, condition))
		return nil
	case listquery.Re:
		if _, err := regexp.Compile(f.Value); err != nil {
			return errRejected
		}
		// The contract has NULL match; see section 1.10 of the protocol.
		guarded(b, readable, rowColumn(c)+" IS NULL OR "+bounded(b, c, f, rowColumn(c)+" REGEXP "+b.param(f.Value)))
		return nil
	}
	if f.Op == listquery.In || f.Op == listquery.NotIn {
		return among(b, c, f)
	}
	v, err := c.filterValue(f.Value)
	if err != nil {
		return err
	}
	b.add(rowColumn(c), comparison[f.Op], b.param(v))
	return nil
}

// among adds the condition that c is one of the values of f, or none of them.
// Of NULL neither is true.
func among(b *builder, c *column, f *listquery.Filter) error {
	if len(f.Values) == 0 {
		if f.Op == listquery.In {
			b.add("0")
		} else {
			b.add(rowColumn(c), " IS NOT NULL")
		}
		return nil
	}
	b.add(rowColumn(c))
	if f.Op == listquery.NotIn {
		b.add(" NOT")
	}
	sep := " IN ("
	for _, text := range f.Values {
		v, err := c.filterValue(text)
		if err != nil {
			return err
		}
		b.add(sep, b.param(v))
		sep = ","
	}
	b.add(")")
	return nil
}

var comparison = map[listquery.Op]string{
	listquery.Eq: "=", listquery.Ne: "<>", listquery.Gte: ">=", listquery.Gt: ">", listquery.Lte: "<=", listquery.Lt: "<",
}

// guarded adds condition, evaluated only where readable holds.
func guarded(b *builder, readable, condition string) {
	if readable == "" {
		b.add("(", condition, ")")
		return
	}
	b.add("CASE WHEN ", readable, " THEN ", condition, " END")
}

// maxPatternWork bounds what all patterns of a filter do with an image of a
// row, as others wait for that: steps of the pattern times bytes of the value.
// A match cannot be interrupted.
const maxPatternWork = 1 << 22

// bounded returns a condition that compares c with the pattern of f. On images,
// a value that is too long for it does not match.
func bounded(b *builder, c *column, f *listquery.Filter, condition string) string {
	if b.patterns == 0 {
		return condition
	}
	steps := len(f.Value) + 1
	if f.Op == listquery.Re {
		steps = programSize(f.Value)
	}
	most := maxPatternWork / b.patterns / steps
	return "CASE WHEN octet_length(" + rowColumn(c) + ") <= " + strconv.Itoa(most) + " THEN " + condition + " END"
}

// programSize returns the number of instructions of a regular expression.
func programSize(expression string) int {
	tree, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return maxPatternWork
	}
	program, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return maxPatternWork
	}
	return len(program.Inst)
}

// countPatterns returns how many patterns f has.
func countPatterns(f *listquery.Filter) (n int) {
	switch {
	case f == nil:
		return 0
	case f.Bool == 0 && (f.Op == listquery.Like || f.Op == listquery.Re):
		return 1
	}
	for _, child := range f.Children {
		n += countPatterns(child)
	}
	return n
}

func spatial(b *builder, c *column, f *listquery.Filter, readable string) error {
	if c.format != geoFormat {
		return errFilter
	}
	shape, err := geo.FromWKT(f.Value)
	if err != nil {
		return errFilter
	}
	fn := map[listquery.Op]string{listquery.Within: "ST_Within", listquery.Intersects: "ST_Intersects", listquery.Contains: "ST_Contains"}[f.Op]
	guarded(b, readable, fn+"("+rowColumn(c)+","+b.param(shape)+")")
	return nil
}

// filterValue reads the text of a filter by the type of its column.
func (c *column) filterValue(s string) (driver.Value, error) {
	switch c.typ {
	case textType:
		return s, nil
	case integerType:
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return n, nil
		}
	case realType:
		if v, ok := number(s); ok {
			return v, nil
		}
	case blobType:
		if v, ok := decodeBlob(s); ok {
			return v, nil
		}
	default:
		if v, ok := number(s); ok {
			return v, nil
		}
		if v, ok := decodeBlob(s); ok && s != "" && c.typ == anyType {
			return v, nil
		}
		return s, nil
	}
	return nil, errFilter
}

func number(s string) (driver.Value, bool) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n, true
	}
	// Only the spellings of numbers, not "inf", "nan" or "0x1p-2".
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && c != '.' && c != '-' && c != '+' && c != 'e' && c != 'E' {
			return nil, false
		}
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil && !math.IsInf(f, 0)
}
