// Package rule compiles access rules to SQL.
//
// A rule is one SQL expression in which four names stand for what a request
// is about:
//
//	_USER_.id       the caller, NULL when anonymous
//	_ROW_.column    the row in the database, before the operation
//	_REQ_.column    the value in the request, NULL when absent
//	_REQ_FIELDS_    a table with one column, "_": the names in the request
//
// The expression is folded into the statement that does the operation:
// _ROW_ is the alias of the statement's table, _USER_.id and _REQ_.column
// become parameters, and _REQ_FIELDS_ is a common table expression.
//
// A rule grants when its value is a number from 1 up. NULL, 0, text and blobs
// deny.
package rule

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bedplate/bedplate/internal/sqltoken"
)

// Names says which of the magic names a rule may use.
type Names uint8

const (
	Row    Names = 1 << iota // _ROW_
	Req                      // _REQ_
	Fields                   // _REQ_FIELDS_
)

// A Scope is what a rule is written against.
type Scope struct {
	Names      Names
	RowColumn  func(name string) bool // nil: not checked here
	ReqColumn  func(name string) bool
	UserColumn string // "id"
}

// A Rule is a parsed rule. It is immutable.
type Rule struct {
	src     string
	tokens  []token
	uses    Names
	boolean bool
}

type token struct {
	text  string // SQL text, or the name of a column of _REQ_
	which uint8  // plain, user or req
}

const (
	plain uint8 = iota
	user
	req
)

// An Error is a mistake in a rule.
type Error struct {
	Line, Column int // from 1, in bytes
	Msg          string
}

func (e *Error) Error() string { return fmt.Sprintf("%d:%d: %s", e.Line, e.Column, e.Msg) }

// Locate returns msg as an error at offset pos of src.
func Locate(src string, pos int, msg string) error {
	line, column := sqltoken.Position(src, pos)
	return &Error{line, column, msg}
}

// Parse checks src against scope. What only the database knows, such as the
// tables of sub-queries, is checked when the statement is prepared.
func Parse(src string, scope Scope) (*Rule, error) {
	tokens, err := sqltoken.Scan(src)
	if err != nil {
		e := err.(*sqltoken.Error) //nolint:errorlint // Scan promises it
		return nil, Locate(src, e.Pos, e.Msg)
	}
	if len(tokens) == 0 {
		return nil, Locate(src, 0, "the rule is empty")
	}
	if err := checkShape(src, tokens); err != nil {
		return nil, err
	}
	p := parser{src: src, tokens: tokens, scope: scope, rule: &Rule{src: src, boolean: boolean(tokens)}}
	for p.i < len(p.tokens) {
		if err := p.token(); err != nil {
			return nil, err
		}
	}
	return p.rule, nil
}

// checkShape makes sure that src is a single expression: it cannot close a
// parenthesis that it did not open, nor start another statement.
func checkShape(src string, tokens []sqltoken.Token) error {
	var open []int
	for i, t := range tokens {
		switch {
		case t.Kind == sqltoken.Param:
			return Locate(src, t.Pos, "parameters are not allowed in a rule: "+t.Text)
		case t.IsPunct(";"):
			return Locate(src, t.Pos, "a rule is one expression, without semicolon")
		case t.IsPunct(",") && len(open) == 0:
			return Locate(src, t.Pos, "a rule is one expression, not a list")
		case t.IsPunct("("):
			open = append(open, t.Pos)
		case t.IsPunct(")"):
			if len(open) == 0 {
				return Locate(src, t.Pos, "parenthesis is not opened")
			}
			open = open[:len(open)-1]
		case len(open) == 0 && !(t.Is("FROM") && i > 0 && tokens[i-1].Is("DISTINCT")) && (t.Is("AS") || t.Is("FROM") || t.Is("WHERE") || t.Is("SELECT") || t.Is("LIMIT") || t.Is("ORDER") || t.Is("UNION") || t.Is("WITH")):
			return Locate(src, t.Pos, "a rule is an expression; put parentheses around a SELECT")
		}
	}
	if len(open) > 0 {
		return Locate(src, open[len(open)-1], "parenthesis is not closed")
	}
	return nil
}

type parser struct {
	src    string
	tokens []sqltoken.Token
	i      int
	scope  Scope
	rule   *Rule
}

func (p *parser) peek(ahead int) sqltoken.Token {
	if i := p.i + ahead; i >= 0 && i < len(p.tokens) {
		return p.tokens[i]
	}
	return sqltoken.Token{Kind: sqltoken.Punct, Pos: len(p.src)}
}

func (p *parser) emit(which uint8, text string) {
	p.rule.tokens = append(p.rule.tokens, token{text, which})
}

// token consumes one token, or a magic name with its column.
func (p *parser) token() error {
	t := p.peek(0)
	name := t.Name()
	switch folded := sqltoken.Fold(name); folded {
	default:
		p.emit(plain, t.Text)
		p.i++
		return nil
	case "_user_", "_row_", "_req_", "_req_fields_":
		if capitals := strings.ToUpper(folded); name != capitals {
			return Locate(p.src, t.Pos, fmt.Sprintf("write %s in capitals", capitals))
		}
	}
	if p.peek(-1).IsPunct(".") || p.peek(-1).Is("AS") {
		return Locate(p.src, t.Pos, name+" cannot be used as a name")
	}
	if name == "_REQ_FIELDS_" {
		return p.fields(t)
	}
	col := p.peek(2)
	if !p.peek(1).IsPunct(".") || col.Name() == "" {
		return Locate(p.src, t.Pos, fmt.Sprintf("%s must be followed by a column, as in %s.id", name, name))
	}
	p.i += 3
	switch name {
	case "_USER_":
		if sqltoken.Fold(col.Name()) != p.scope.UserColumn {
			return Locate(p.src, col.Pos, fmt.Sprintf("_USER_ has the column %s only, not %q", p.scope.UserColumn, col.Name()))
		}
		p.emit(user, "")
	case "_ROW_":
		if err := p.allow(t, Row); err != nil {
			return err
		}
		if p.scope.RowColumn != nil && !p.scope.RowColumn(col.Name()) {
			return Locate(p.src, col.Pos, fmt.Sprintf("no column %q", col.Name()))
		}
		p.emit(plain, `"_ROW_"."`+strings.ReplaceAll(col.Name(), `"`, `""`)+`"`)
	case "_REQ_":
		if err := p.allow(t, Req); err != nil {
			return err
		}
		if p.scope.ReqColumn != nil && !p.scope.ReqColumn(col.Name()) {
			return Locate(p.src, col.Pos, fmt.Sprintf("no column %q in a request", col.Name()))
		}
		p.emit(req, col.Name())
	}
	return nil
}

// fields handles _REQ_FIELDS_: the left side of an IN must be the name of a
// column as a string.
func (p *parser) fields(t sqltoken.Token) error {
	if err := p.allow(t, Fields); err != nil {
		return err
	}
	if p.peek(-1).Is("IN") {
		left := p.peek(-2)
		if left.Is("NOT") {
			left = p.peek(-3)
		}
		if left.Kind != sqltoken.String {
			return Locate(p.src, t.Pos, "write 'column' IN _REQ_FIELDS_, with the column's name as a string")
		}
		if p.scope.ReqColumn != nil && !p.scope.ReqColumn(left.Value()) {
			return Locate(p.src, left.Pos, fmt.Sprintf("no column %q in a request", left.Value()))
		}
	}
	p.emit(plain, t.Text)
	p.i++
	return nil
}

func (p *parser) allow(t sqltoken.Token, n Names) error {
	if p.scope.Names&n == 0 {
		return Locate(p.src, t.Pos, t.Text+" is not available in this rule")
	}
	p.rule.uses |= n
	return nil
}

// Source returns the rule as it was written.
func (r *Rule) Source() string { return r.src }

// Uses reports whether the rule uses the magic name n.
func (r *Rule) Uses(n Names) bool { return r.uses&n != 0 }

// UsesUser reports whether it depends on the caller what the rule grants.
func (r *Rule) UsesUser() bool {
	return slices.ContainsFunc(r.tokens, func(t token) bool { return t.which == user })
}

// SQL returns the expression as a condition that is true, 1, exactly when the
// rule grants. user and req return the SQL text, usually a parameter, for
// _USER_.id and _REQ_.column.
func (r *Rule) SQL(userID func() string, reqColumn func(name string) string) string {
	var b strings.Builder
	b.WriteByte('(')
	for i, t := range r.tokens {
		if i > 0 {
			b.WriteByte(' ')
		}
		switch t.which {
		case user:
			b.WriteString(userID())
		case req:
			b.WriteString(reqColumn(t.text))
		default:
			b.WriteString(t.text)
		}
	}
	b.WriteByte(')')
	if r.boolean {
		return b.String()
	}
	// Numbers sort before text and blobs, and the unary plus takes a
	// column's affinity away, so only numbers from 1 up are in this range
	// (https://www.sqlite.org/datatype3.html#comparisons).
	return "(+" + b.String() + " BETWEEN 1 AND 9e999)"
}

// boolean reports whether the value of the expression can only be 0, 1 or
// NULL, because its outermost operator is a logical one. It may report false
// for such an expression, which costs the planner an index but is right.
func boolean(tokens []sqltoken.Token) bool {
	for len(tokens) >= 2 && tokens[0].IsPunct("(") && closing(tokens) == len(tokens)-1 {
		if tokens = tokens[1 : len(tokens)-1]; len(tokens) > 0 && (tokens[0].Is("SELECT") || tokens[0].Is("WITH") || tokens[0].Is("VALUES")) {
			return false
		}
	}
	if len(tokens) > 2 && tokens[0].Is("EXISTS") && closing(tokens[1:]) == len(tokens)-2 {
		return true
	}
	depth, found, postfix := 0, false, false
	for i, t := range tokens {
		if i > 0 && tokens[i-1].IsPunct(".") {
			continue // a column, whatever its name
		}
		switch {
		case t.IsPunct("("), t.Is("CASE"):
			depth++
		case t.IsPunct(")"), t.Is("END"):
			depth--
		case depth > 0:
		case arithmetic(t) && (postfix || i+1 < len(tokens) && tokens[i+1].Is("NOT")):
			// As in a IN (1) - 2, which is (a IN (1)) - 2, or ~ NOT a.
			return false
		case (t.Is("LIKE") || t.Is("GLOB")) && i+1 < len(tokens) && tokens[i+1].IsPunct("("):
			// A function of that name, perhaps.
		default:
			found = found || logical(t)
			postfix = postfix || t.Is("IN") || t.Is("ISNULL") || t.Is("NOTNULL") || t.Is("NOT")
		}
	}
	return found
}

// arithmetic reports whether t is an operator that binds stronger than the
// logical ones.
func arithmetic(t sqltoken.Token) bool {
	return t.Is("COLLATE") || t.Kind == sqltoken.Punct && !logical(t) && !t.IsPunct(".") && !t.IsPunct(",")
}

// closing returns the index of the parenthesis that closes tokens[0], or -1.
func closing(tokens []sqltoken.Token) int {
	depth := 0
	for i, t := range tokens {
		if t.IsPunct("(") {
			depth++
		} else if t.IsPunct(")") {
			if depth--; depth == 0 {
				return i
			}
		}
		if depth == 0 {
			return -1
		}
	}
	return -1
}

// logical reports whether t is an operator whose result is 0, 1 or NULL. All
// of them bind weaker than the arithmetic ones, so one of them outside of
// parentheses makes the whole expression logical
// (https://www.sqlite.org/lang_expr.html#operators_and_parse_affecting_attributes).
func logical(t sqltoken.Token) bool {
	switch t.Kind {
	case sqltoken.Punct:
		switch t.Text {
		case "=", "==", "<>", "!=", "<", "<=", ">", ">=":
			return true
		}
	case sqltoken.Word:
		switch sqltoken.Fold(t.Text) {
		case "and", "or", "not", "is", "in", "like", "glob", "between", "isnull", "notnull":
			return true
		}
	}
	return false
}
