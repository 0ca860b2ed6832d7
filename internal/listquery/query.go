// Package listquery reads the query string of a list request.
//
// A list request names a page, an order, columns to expand and a filter:
//
//	?limit=20&order=-created,title&filter[year][$gte]=1999&filter[$or][0][a]=1&filter[$or][1][b][$ne]=2
//
// [Parse] turns that text into a [Query] and [ParseFilter] into a [Filter]
// alone. Both know the grammar and nothing else: whether a column exists,
// may be seen, or can hold the value is for the caller to decide, and so is
// the meaning of a cursor.
//
// The input is hostile. Everything in it is bounded (see the Max constants),
// has one meaning only (a parameter given twice is an error, never "the
// last one wins"), and comes out as valid UTF-8 without NUL. The result
// depends on the input alone.
//
// # Lists of values
//
// $in and $nin take a JSON array of strings and numbers as their value,
// whether the column holds text or numbers:
//
//	filter[id][$in]=[1,2,3]
//	filter[tag][$nin]=["a","b,c"]
//
// Each element means what it would mean to $eq, so 1 and "1" are the same.
// NULL is neither in a list nor outside of it, as in SQL: a row with NULL in
// the column matches neither operator. Nothing is in an empty list.
package listquery

import (
	"math"
	"slices"
	"strings"
)

// The limits of a query. Whatever exceeds one is an error.
const (
	MaxQuery   = 64 << 10 // bytes of the raw query string
	MaxParams  = 256      // parameters, unknown and empty ones included
	MaxValue   = 8 << 10  // bytes of one decoded value
	MaxName    = 128      // bytes of one column name
	MaxPattern = 256      // bytes of a $like or $re pattern
	MaxColumns = 5        // columns in order, and in expand
	MaxFields  = 128      // columns in fields
	MaxMatch   = 256      // bytes of a full-text query
	MaxTerms   = 32       // terms of a filter; a list of values counts as one for every 25 begun
	MaxList    = 200      // values of a $in or $nin
	MaxDepth   = 9        // brackets in one filter key: at most four $and or $or inside each other
	MaxOffset  = 1 << 53  // largest offset
)

// A Query is the parsed query string of a list request.
type Query struct {
	Limit  int   // page size; -1 when absent
	Offset int64 // rows to skip; 0 when absent

	Cursor    string // opaque position, as the client sent it
	HasCursor bool   // whether cursor was given, even if empty

	Count      bool // whether the total is wanted
	SkipCursor bool // whether no cursor is wanted

	Order    []Order // columns to sort by, each at most once
	HasOrder bool    // whether order was given; it is then not empty

	Expand  []string // columns and relations to expand, each at most once
	Fields  []string // columns to show, each at most once; nil when absent
	Match   string   // full-text query; empty when absent
	GeoJSON string   // geometry column that shapes the output; empty when absent

	Filter *Filter // nil when there is none
}

// An Order is one column to sort by.
type Order struct {
	Column string
	Desc   bool
}

// An Error says that a query string is malformed. Its message is the same
// for every cause and safe to send to any client.
type Error struct {
	Reason string // what is wrong, in fixed words that never quote the input
}

// Error returns "Invalid query".
func (*Error) Error() string { return "Invalid query" }

// Parse reads the query string of a list request, without its leading '?'.
// Unknown parameters are ignored. The error, if any, is an [*Error].
func Parse(rawQuery string) (Query, error) {
	q := Query{Limit: -1}
	if err := parse(rawQuery, &q, &q.Filter); err != nil {
		return Query{}, err
	}
	return q, nil
}

// ParseFilter reads only the filter of a query string and ignores all other
// parameters, though these must be well-formed and within the limits too. But
// match is an error: it chooses among rows as a filter does.
// It returns nil when there is no filter. The error, if any, is an [*Error].
func ParseFilter(rawQuery string) (*Filter, error) {
	var f *Filter
	if err := parse(rawQuery, nil, &f); err != nil {
		return nil, err
	}
	return f, nil
}

// parse fills q, unless it is nil, and filter.
func parse(rawQuery string, q *Query, filter **Filter) error {
	if len(rawQuery) > MaxQuery {
		return &Error{"query string too long"}
	}
	var (
		tree tree
		seen params
	)
	pairs := pairs{rest: rawQuery}
	for pairs.rest != "" {
		key, value, err := pairs.next()
		if err != nil {
			return err
		}
		if path, ok := strings.CutPrefix(key, "filter"); ok && (path == "" || path[0] == '[') {
			if err := tree.add(path, value); err != nil {
				return err
			}
		} else if q != nil {
			if err := q.set(&seen, key, value); err != nil {
				return err
			}
		} else if name, _, _ := strings.Cut(key, "["); param(name) == paramMatch {
			return &Error{"match is for lists"}
		}
	}
	root, err := tree.finish()
	if err != nil {
		return err
	}
	*filter = root
	return nil
}

// params is the set of the parameters that were given.
type params uint16

const (
	paramLimit params = 1 << iota
	paramOffset
	paramCursor
	paramCount
	paramSkipCursor
	paramOrder
	paramExpand
	paramFields
	paramMatch
	paramGeoJSON
)

// param returns the parameter called name, or 0.
func param(name string) params {
	switch name {
	case "limit":
		return paramLimit
	case "offset":
		return paramOffset
	case "cursor":
		return paramCursor
	case "count":
		return paramCount
	case "skip_cursor":
		return paramSkipCursor
	case "order":
		return paramOrder
	case "expand":
		return paramExpand
	case "fields":
		return paramFields
	case "match":
		return paramMatch
	case "geojson":
		return paramGeoJSON
	}
	return 0
}

// set stores one parameter that is not part of the filter.
func (q *Query) set(seen *params, key, value string) (err error) {
	name, _, bracket := strings.Cut(key, "[")
	p := param(name)
	if p == 0 {
		return nil
	}
	if bracket {
		return &Error{"parameter takes no brackets"}
	}
	if *seen&p != 0 {
		return &Error{"parameter given twice"}
	}
	*seen |= p

	switch p {
	case paramLimit:
		var n int64
		n, err = parseNumber(value, math.MaxInt)
		q.Limit = int(n)
	case paramOffset:
		q.Offset, err = parseNumber(value, MaxOffset)
	case paramCursor:
		q.Cursor, q.HasCursor = value, true
	case paramCount:
		q.Count, err = parseBool(value)
	case paramSkipCursor:
		q.SkipCursor, err = parseBool(value)
	case paramOrder:
		q.Order, err = parseOrder(value)
		q.HasOrder = true
	case paramExpand:
		q.Expand, err = parseExpand(value)
	case paramFields:
		q.Fields, err = parseNames(value, MaxFields)
	case paramMatch:
		q.Match, err = value, checkMatch(value)
	case paramGeoJSON:
		q.GeoJSON, err = value, checkName(value)
	}
	return err
}

// parseNumber reads decimal digits, and nothing but digits.
func parseNumber(s string, limit int64) (int64, error) {
	if s == "" {
		return 0, &Error{"number is empty"}
	}
	var n int64
	for i := range len(s) {
		digit := int64(s[i]) - '0'
		if digit < 0 || digit > 9 {
			return 0, &Error{"number has other characters than digits"}
		}
		if n > (limit-digit)/10 {
			return 0, &Error{"number too large"}
		}
		n = n*10 + digit
	}
	return n, nil
}

func parseBool(s string) (bool, error) {
	switch s {
	case "true", "TRUE", "1":
		return true, nil
	case "false", "FALSE", "0":
		return false, nil
	}
	return false, &Error{"neither true nor false"}
}

// parseOrder reads "a,-b,+c". Spaces around a column are dropped, because a
// plus sign that was not percent-encoded arrives as a space.
func parseOrder(s string) ([]Order, error) {
	n, err := countColumns(s, MaxColumns)
	if err != nil {
		return nil, err
	}
	order := make([]Order, 0, n)
	for column := range strings.SplitSeq(s, ",") {
		column = strings.Trim(column, " ")
		column, desc := strings.CutPrefix(column, "-")
		if !desc {
			column = strings.TrimPrefix(column, "+")
		}
		if err := checkName(column); err != nil {
			return nil, err
		}
		for _, o := range order {
			if o.Column == column {
				return nil, &Error{"column given twice"}
			}
		}
		order = append(order, Order{column, desc})
	}
	return order, nil
}

// parseExpand reads "a,b,c"; nothing is nothing to expand.
func parseExpand(s string) ([]string, error) {
	if s == "" {
		return nil, nil
	}
	return parseNames(s, MaxColumns)
}

// parseNames reads up to limit different names: "a,b,c".
func parseNames(s string, limit int) ([]string, error) {
	n, err := countColumns(s, limit)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, n)
	for name := range strings.SplitSeq(s, ",") {
		if err := checkName(name); err != nil {
			return nil, err
		}
		if slices.Contains(names, name) {
			return nil, &Error{"column given twice"}
		}
		names = append(names, name)
	}
	return names, nil
}

// countColumns returns the number of columns in a comma-separated list.
func countColumns(s string, limit int) (int, error) {
	n := strings.Count(s, ",") + 1
	if n > limit {
		return 0, &Error{"too many columns"}
	}
	return n, nil
}

// checkMatch accepts what may be a full-text query.
func checkMatch(query string) error {
	if query == "" || len(query) > MaxMatch {
		return &Error{"full-text query empty or too long"}
	}
	return nil
}

// checkName accepts what may stand for a column.
func checkName(name string) error {
	if name == "" {
		return &Error{"column name is empty"}
	}
	if len(name) > MaxName {
		return &Error{"column name too long"}
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
		default:
			return &Error{"column name has other characters than letters, digits, '.', '-' and '_'"}
		}
	}
	return nil
}
