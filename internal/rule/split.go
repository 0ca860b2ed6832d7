package rule

import (
	"github.com/bedplate/bedplate/internal/sqltoken"
)

// Split takes an expression apart at its outermost operator, if that is AND or
// OR: op is "AND" or "OR" and parts are the operands, from left to right, as
// they are written. Otherwise op is empty and the only part is src without
// parentheses around it. What cannot be scanned stays whole.
func Split(src string) (op string, parts []string) {
	tokens, err := sqltoken.Scan(src)
	if err != nil || len(tokens) == 0 {
		return "", []string{src}
	}
	tokens = unwrap(tokens)
	for _, op := range []string{"OR", "AND"} { // OR binds weaker
		if at := operators(tokens, op); len(at) > 0 {
			start := 0
			for _, i := range append(at, len(tokens)) {
				parts = append(parts, text(src, tokens[start:i]))
				start = i + 1
			}
			return op, parts
		}
	}
	return "", []string{text(src, tokens)}
}

// unwrap removes parentheses around a whole expression, but not those of a
// sub-query.
func unwrap(tokens []sqltoken.Token) []sqltoken.Token {
	for len(tokens) > 2 && tokens[0].IsPunct("(") && closing(tokens) == len(tokens)-1 {
		if t := tokens[1]; t.Is("SELECT") || t.Is("WITH") || t.Is("VALUES") {
			break
		}
		tokens = tokens[1 : len(tokens)-1]
	}
	return tokens
}

// operators returns where the logical operator word stands outside of
// parentheses and of CASE, if there is something on both sides of each.
func operators(tokens []sqltoken.Token, word string) (at []int) {
	depth, cases, between := 0, 0, 0
	for i, t := range tokens {
		switch {
		case t.IsPunct("("):
			depth++
		case t.IsPunct(")"):
			depth--
		case depth > 0, i > 0 && tokens[i-1].IsPunct("."):
		case t.Is("CASE"):
			cases++
		case t.Is("END"):
			cases--
		case cases != 0:
		case t.Is("BETWEEN"):
			between++
		case t.Is("AND") && between > 0:
			between-- // of BETWEEN a AND b
		case t.Is(word):
			at = append(at, i)
		}
	}
	if cases != 0 {
		return nil // END is a name here
	}
	before := -1
	for _, i := range append(at[:len(at):len(at)], len(tokens)) {
		if i == before+1 {
			return nil
		}
		before = i
	}
	return at
}

// text returns what src says from the first to the last of tokens.
func text(src string, tokens []sqltoken.Token) string {
	last := tokens[len(tokens)-1]
	return src[tokens[0].Pos : last.Pos+len(last.Text)]
}
