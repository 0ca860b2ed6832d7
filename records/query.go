package records

import (
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"strconv"

	"github.com/bedplate/bedplate/internal/listquery"
)

// A Query says which records [Table.List] returns. The zero Query is for the
// first page of all, the greatest key first.
type Query struct {
	Filter Filter   // zero: all records
	Order  []string // columns, the first one counting most; "-" in front: descending

	// Match is a full-text query, for which [API.FullText] is needed. Without
	// an order the best matches come first.
	Match string

	Limit  int   // of records; default 50, at most API.ListLimit
	Offset int64 // records to leave out before the first one

	// Cursor continues behind a [Page] of the same order and caller.
	Cursor string

	SkipCursor bool // Page.Cursor is not needed
	Count      bool // Page.Total is needed, whatever that takes
}

// A Page is what [Table.List] returns.
type Page[T any] struct {
	Records []T

	// Cursor is where the next page begins, which may have no records. It is
	// "" if this one has none, for views, and if the best matches come first.
	Cursor string

	Total int64 // records that satisfy the filter, with Query.Count
}

// A Filter is a condition on records, made by [Where], [And] and [Or]. The zero
// Filter is satisfied by all.
type Filter struct {
	compares   bool // of Where
	column, op string
	value      any

	join  listquery.Bool // of And and Or
	parts []Filter
}

// Where returns the filter that compares a column with a value. op is
//
//	= != < <= > >=             value as a field of a Table; nil is NULL for = and !=
//	in, not in                 value is a slice, with at most 200 elements
//	like                       a string: a pattern of SQL LIKE, at most 256 bytes
//	regexp                     a string: a regular expression of package regexp, likewise; NULL matches
//	within intersects contains a string: WKT, for geometries
//
// As in SQL, NULL is neither equal nor unequal to anything else. What a request
// could not spell is a mistake: a text or bytes that it would take for something
// else, as it does with "5" in a column without a type. Mistakes are reported by
// List.
func Where(column, op string, value any) Filter {
	return Filter{compares: true, column: column, op: op, value: value}
}

// And returns the filter for records that satisfy all of parts; without any,
// that is all.
func And(parts ...Filter) Filter { return Filter{join: listquery.And, parts: parts} }

// Or returns the filter for records that satisfy one of parts, of which there
// must be one.
func Or(parts ...Filter) Filter { return Filter{join: listquery.Or, parts: parts} }

// maxFilterDepth bounds how deep And and Or may be nested.
const maxFilterDepth = 10

// resolve returns f as a list request has it, nil if all records satisfy it.
func (f Filter) resolve(p *plan, depth int) (*listquery.Filter, error) {
	switch {
	case depth == maxFilterDepth:
		return nil, errFilter.because(errors.New("filter is too deep"))
	case f.join != 0:
		return f.joined(p, depth)
	case !f.compares:
		return nil, nil
	}
	c := p.visible(f.column)
	if c == nil {
		return nil, errFilter.because(fmt.Errorf("no column %q", f.column))
	}
	lf, err := f.term(c)
	if err != nil {
		return nil, errFilter.because(fmt.Errorf("filter of column %q: %w", f.column, err))
	}
	return lf, nil
}

func (f Filter) joined(p *plan, depth int) (*listquery.Filter, error) {
	node := &listquery.Filter{Bool: f.join}
	for _, part := range f.parts {
		lf, err := part.resolve(p, depth+1)
		switch {
		case err != nil:
			return nil, err
		case lf != nil:
			node.Children = append(node.Children, lf)
		case f.join == listquery.Or:
			return nil, nil // that part is satisfied by all
		}
	}
	switch {
	case len(f.parts) == 0 && f.join == listquery.Or:
		return nil, errFilter.because(errors.New("Or without a part"))
	case len(node.Children) == 0:
		return nil, nil
	case len(node.Children) == 1:
		return node.Children[0], nil
	}
	return node, nil
}

var comparisons = map[string]listquery.Op{
	"=": listquery.Eq, "!=": listquery.Ne, "<": listquery.Lt, "<=": listquery.Lte, ">": listquery.Gt, ">=": listquery.Gte,
}

var textual = map[string]listquery.Op{
	"like": listquery.Like, "regexp": listquery.Re,
	"within": listquery.Within, "intersects": listquery.Intersects, "contains": listquery.Contains,
}

func (f Filter) term(c *column) (*listquery.Filter, error) {
	if op, ok := comparisons[f.op]; ok {
		return compare(c, op, f.value)
	}
	if f.op == "in" || f.op == "not in" {
		return f.among(c)
	}
	op, ok := textual[f.op]
	if !ok {
		return nil, fmt.Errorf("unknown operator %q", f.op)
	}
	v := reflect.ValueOf(f.value)
	if f.value == nil || v.Kind() != reflect.String {
		return nil, fmt.Errorf("%s needs a string, not a %T", f.op, f.value)
	}
	if _, err := plainText(v.String()); err != nil {
		return nil, err
	}
	if (op == listquery.Like || op == listquery.Re) && v.Len() > listquery.MaxPattern {
		return nil, errors.New("pattern is too long")
	}
	return &listquery.Filter{Column: c.name, Op: op, Value: v.String()}, nil
}

// among is the term for in and not in.
func (f Filter) among(c *column) (*listquery.Filter, error) {
	v := reflect.ValueOf(f.value)
	if f.value == nil || v.Kind() != reflect.Slice || v.Len() > listquery.MaxList {
		return nil, fmt.Errorf("%s needs a slice of at most %d elements", f.op, listquery.MaxList)
	}
	node := &listquery.Filter{Column: c.name, Op: listquery.In}
	if f.op == "not in" {
		node.Op = listquery.NotIn
	}
	for i := range v.Len() {
		term, err := compare(c, listquery.Eq, v.Index(i).Interface())
		switch {
		case err != nil:
			return nil, err
		case term.Op == listquery.Is:
			return nil, errors.New("NULL is neither in a list nor outside of it")
		}
		node.Values = append(node.Values, term.Value)
	}
	return node, nil
}

// compare returns the term that compares c with value, which a list request has
// as text.
func compare(c *column, op listquery.Op, value any) (*listquery.Filter, error) {
	if !c.comparable() {
		return nil, errors.New("it cannot be compared")
	}
	stored, err := storedAny(value, c)
	if err != nil {
		return nil, err
	}
	term := &listquery.Filter{Column: c.name, Op: op}
	switch v := stored.(type) {
	case nil:
		term.Op = listquery.Is
		switch op {
		case listquery.Eq:
			term.Value = "NULL"
		case listquery.Ne:
			term.Value = "!NULL"
		default:
			return nil, errors.New("NULL is neither less nor greater")
		}
		return term, nil
	case int64:
		term.Value = strconv.FormatInt(v, 10)
		return term, nil
	case float64:
		term.Value = strconv.FormatFloat(v, 'g', -1, 64)
		return term, nil
	case []byte:
		term.Value = base64.URLEncoding.EncodeToString(v)
	case string:
		term.Value = v
	}
	if read, err := c.filterValue(term.Value); err != nil || !reflect.DeepEqual(read, stored) {
		return nil, errors.New("a request would take this value for another one")
	}
	return term, nil
}
