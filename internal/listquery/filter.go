package listquery

import (
	"strings"

	"github.com/bedplate/bedplate/internal/jsonx"
)

// A Filter is either a boolean node over at least two other filters or a
// term, which compares one column with a value.
//
// Children stand in the order in which their keys first appeared, those of a
// $and or $or list in the order of their indices. Lists with a single
// element are replaced by that element. A Filter is at most ten nodes high.
type Filter struct {
	Bool     Bool      // 0 for a term
	Children []*Filter // of a boolean node

	Column string // of a term
	Op     Op     // of a term
	Value  string // of a term, as the client sent it; for Is either "NULL" or "!NULL"

	Values []string // of In and NotIn: the elements of Value
}

// A Bool says how a node joins its children.
type Bool uint8

// The kinds of boolean nodes. The zero Bool marks a term.
const (
	And Bool = 1 + iota // all children hold
	Or                  // at least one child holds
)

// An Op is the operator of a term.
type Op uint8

// The operators and how they are written.
const (
	Eq         Op = iota // $eq, or no operator
	Ne                   // $ne
	Gte                  // $gte
	Gt                   // $gt
	Lte                  // $lte
	Lt                   // $lt
	Is                   // $is: the value is NULL or !NULL
	Like                 // $like: SQL LIKE
	Re                   // $re: a regular expression, found anywhere
	Within               // @within: the value is WKT, neither parsed nor checked further here
	Intersects           // @intersects, likewise
	Contains             // @contains, likewise
	In                   // $in: a JSON array of strings and numbers
	NotIn                // $nin, likewise
)

// parseOp returns the operator written as s.
func parseOp(s string) (op Op, ok bool) {
	switch s {
	case "$eq":
		return Eq, true
	case "$ne":
		return Ne, true
	case "$gte":
		return Gte, true
	case "$gt":
		return Gt, true
	case "$lte":
		return Lte, true
	case "$lt":
		return Lt, true
	case "$is":
		return Is, true
	case "$like":
		return Like, true
	case "$re":
		return Re, true
	case "@within":
		return Within, true
	case "@intersects":
		return Intersects, true
	case "@contains":
		return Contains, true
	case "$in":
		return In, true
	case "$nin":
		return NotIn, true
	}
	return 0, false
}

// check reports whether value can stand beside op.
func (op Op) check(value string) error {
	switch op {
	case Is:
		if value != "NULL" && value != "!NULL" {
			return &Error{"$is takes NULL or !NULL"}
		}
	case Like, Re:
		if len(value) > MaxPattern {
			return &Error{"pattern too long"}
		}
	case Within, Intersects, Contains:
		if strings.ContainsAny(value, ";'") {
			return &Error{"geometry has a semicolon or a quote"}
		}
	}
	return nil
}

// tree collects the terms of a filter.
//
// While it grows, levels alternate: a group joins terms and lists by AND, a
// list (one $and or $or) joins groups. Both are boolean nodes; an element of
// a list that has not been seen yet is nil.
type tree struct {
	root  *Filter // a group; nil without terms
	terms int
}

// add stores the term whose key, after "filter", is path.
func (t *tree) add(path, value string) error {
	if path == "" {
		return &Error{"filter without a column"}
	}
	if strings.Count(path, "[") > MaxDepth {
		return &Error{"filter too deep"}
	}
	if t.root == nil {
		t.root = newNode(And)
	}
	group := t.root
	for {
		name, rest, err := cutBracket(path)
		if err != nil {
			return err
		}
		path = rest

		var b Bool
		switch name {
		case "$and":
			b = And
		case "$or":
			b = Or
		default:
			term, err := group.addTerm(name, path, value)
			if err != nil {
				return err
			}
			if t.terms += cost(term); t.terms > MaxTerms {
				return &Error{"too many filters"}
			}
			return nil
		}
		index, rest, err := cutBracket(path)
		if err != nil {
			return err
		}
		path = rest
		if group, err = group.list(b).group(index); err != nil {
			return err
		}
	}
}

// finish checks and simplifies the tree. It returns nil when there were no
// terms.
func (t *tree) finish() (*Filter, error) {
	if t.root == nil {
		return nil, nil
	}
	return t.root.simplify()
}

func newNode(b Bool) *Filter {
	return &Filter{Bool: b, Children: make([]*Filter, 0, 2)}
}

// addTerm adds a comparison to a group.
func (f *Filter) addTerm(column, path, value string) (*Filter, error) {
	if err := checkName(column); err != nil {
		return nil, err
	}
	op := Eq
	if path != "" {
		name, rest, err := cutBracket(path)
		if err != nil {
			return nil, err
		}
		var ok bool
		if op, ok = parseOp(name); !ok || rest != "" {
			return nil, &Error{"unknown operator"}
		}
	}
	if err := op.check(value); err != nil {
		return nil, err
	}
	for _, c := range f.Children {
		if c.Bool == 0 && c.Column == column && c.Op == op {
			return nil, &Error{"filter given twice"}
		}
	}
	term := &Filter{Column: column, Op: op, Value: value}
	if op == In || op == NotIn {
		var err error
		if term.Values, err = parseList(value); err != nil {
			return nil, err
		}
	}
	f.Children = append(f.Children, term)
	return term, nil
}

// cost returns as how many terms a term counts.
func cost(term *Filter) int { return 1 + max(0, len(term.Values)-1)/25 }

// parseList reads a JSON array of strings and numbers as it is written.
func parseList(s string) ([]string, error) {
	refused := &Error{"not a list of at most 200 strings and numbers"}
	values := make([]string, 0, min(MaxList, 1+strings.Count(s, ",")))
	err := jsonx.ParseArray([]byte(s), func(v jsonx.Value) (err error) {
		text := string(v.Raw)
		switch {
		case len(values) == MaxList || v.NUL:
			return refused
		case v.Kind == jsonx.String:
			if text, err = v.Text(); err != nil {
				return err
			}
		case v.Kind != jsonx.Int && v.Kind != jsonx.Float:
			return refused
		}
		values = append(values, text)
		return nil
	})
	if err != nil {
		return nil, refused
	}
	return values, nil
}

// list returns the list of a group, made on first use.
func (f *Filter) list(b Bool) *Filter {
	for _, c := range f.Children {
		if c.Bool == b {
			return c
		}
	}
	list := newNode(b)
	f.Children = append(f.Children, list)
	return list
}

// group returns an element of a list, made on first use.
func (f *Filter) group(index string) (*Filter, error) {
	if len(index) > 1 && index[0] == '0' {
		return nil, &Error{"index with leading zero"}
	}
	// As many elements as terms could be without a gap.
	i, err := parseNumber(index, MaxTerms-1)
	if err != nil {
		return nil, err
	}
	for int64(len(f.Children)) <= i {
		f.Children = append(f.Children, nil)
	}
	if f.Children[i] == nil {
		f.Children[i] = newNode(And)
	}
	return f.Children[i], nil
}

// simplify refuses gaps and replaces nodes that have a single child.
func (f *Filter) simplify() (*Filter, error) {
	for i, c := range f.Children {
		if c == nil {
			return nil, &Error{"list with a gap"}
		}
		var err error
		if f.Children[i], err = c.simplify(); err != nil {
			return nil, err
		}
	}
	if len(f.Children) == 1 {
		return f.Children[0], nil
	}
	return f, nil
}

// cutBracket takes "[name]" off the front of a path.
func cutBracket(path string) (name, rest string, err error) {
	if path == "" || path[0] != '[' {
		return "", "", &Error{"malformed filter key"}
	}
	name, rest, ok := strings.Cut(path[1:], "]")
	if !ok {
		return "", "", &Error{"unclosed bracket"}
	}
	return name, rest, nil
}
