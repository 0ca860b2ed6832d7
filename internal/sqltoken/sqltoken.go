// Package sqltoken splits SQL text into the tokens of SQLite's lexical grammar
// (https://www.sqlite.org/draft/tokenreq.html). It knows no syntax beyond that.
package sqltoken

import (
	"fmt"
	"strings"
)

// Kind is the kind of a token.
type Kind uint8

const (
	Word   Kind = iota // a keyword or a bare identifier
	Quoted             // an identifier in double quotes, backticks or brackets
	String             // 'text'
	Blob               // x'00ff'
	Number
	Param // ?, ?1, :name, @name, $name
	Punct // operators and punctuation, longest match
)

// A Token is one token of a source text.
type Token struct {
	Kind Kind
	Text string // as in the source
	Pos  int    // byte offset in the source
}

// Is reports whether t is the keyword word, in any case.
func (t Token) Is(word string) bool { return t.Kind == Word && Fold(t.Text) == Fold(word) }

// Fold folds the case of a name as SQLite does: to lower case, in ASCII only.
func Fold(name string) string {
	for i := range len(name) {
		if 'A' <= name[i] && name[i] <= 'Z' {
			b := []byte(name)
			for ; i < len(b); i++ {
				if 'A' <= b[i] && b[i] <= 'Z' {
					b[i] |= 0x20
				}
			}
			return string(b)
		}
	}
	return name
}

// IsPunct reports whether t is the operator or punctuation text.
func (t Token) IsPunct(text string) bool { return t.Kind == Punct && t.Text == text }

// Name returns the identifier that t stands for, without quotes, or "".
func (t Token) Name() string {
	switch t.Kind {
	case Word:
		return t.Text
	case Quoted:
		q := t.Text[len(t.Text)-1:]
		if q == "]" {
			return t.Text[1 : len(t.Text)-1]
		}
		return strings.ReplaceAll(t.Text[1:len(t.Text)-1], q+q, q)
	}
	return ""
}

// Value returns the text of a string literal, without quotes, or "".
func (t Token) Value() string {
	if t.Kind != String {
		return ""
	}
	return strings.ReplaceAll(t.Text[1:len(t.Text)-1], "''", "'")
}

// An Error says what is wrong with a text and where.
type Error struct {
	Pos int // byte offset
	Msg string
}

func (e *Error) Error() string { return e.Msg }

// Position returns the line and the column, from 1 and in bytes, of offset pos.
func Position(src string, pos int) (line, column int) {
	before := src[:min(pos, len(src))]
	return 1 + strings.Count(before, "\n"), len(before) - strings.LastIndexByte(before, '\n')
}

// Scan returns the tokens of src without white space and comments. The error
// is an [*Error].
func Scan(src string) ([]Token, error) {
	var tokens []Token
	for pos := 0; pos < len(src); {
		kind, n, err := next(src[pos:])
		if err != "" {
			return nil, &Error{pos, err}
		}
		if kind != space {
			tokens = append(tokens, Token{kind, src[pos : pos+n], pos})
		}
		pos += n
	}
	return tokens, nil
}

// space is white space and comments, which no caller sees.
const space Kind = 255

func next(s string) (kind Kind, n int, err string) {
	switch c := s[0]; {
	case c == ' ' || c == '\t' || c == '\n' || c == '\f' || c == '\r':
		return space, 1, ""
	case strings.HasPrefix(s, "--"):
		if i := strings.IndexByte(s, '\n'); i >= 0 {
			return space, i + 1, ""
		}
		return space, len(s), ""
	case strings.HasPrefix(s, "/*"):
		if i := strings.Index(s[2:], "*/"); i >= 0 {
			return space, i + 4, ""
		}
		return 0, 0, "comment is not closed"
	case c == '\'':
		return quoted(s, '\'', String)
	case c == '"' || c == '`':
		return quoted(s, c, Quoted)
	case c == '[':
		if i := strings.IndexByte(s, ']'); i >= 0 {
			return Quoted, i + 1, ""
		}
		return 0, 0, "identifier is not closed"
	case (c == 'x' || c == 'X') && len(s) > 1 && s[1] == '\'':
		kind, n, err := quoted(s[1:], '\'', Blob)
		return kind, n + 1, err
	case digit(c) || c == '.' && len(s) > 1 && digit(s[1]):
		return Number, number(s), ""
	case strings.HasPrefix(s, "\ufeff"):
		return 0, 0, "unexpected byte order mark" // white space to SQLite
	case word(c):
		n := 1
		for n < len(s) && (word(s[n]) || digit(s[n]) || s[n] == '$') {
			n++
		}
		return Word, n, ""
	case c == '?' || c == ':' || c == '@' || c == '$' || c == '#':
		n := 1
		for n < len(s) && (word(s[n]) || digit(s[n])) {
			n++
		}
		return Param, n, ""
	}
	for _, op := range [...]string{"->>", "||", "<=", ">=", "<>", "!=", "==", "<<", ">>", "->"} {
		if strings.HasPrefix(s, op) {
			return Punct, len(op), ""
		}
	}
	if strings.IndexByte("()+-*/%&|~<>=,.;", s[0]) >= 0 {
		return Punct, 1, ""
	}
	return 0, 0, fmt.Sprintf("unexpected character %q", s[:1])
}

// quoted scans up to the closing quote q; a doubled q stands for itself.
func quoted(s string, q byte, kind Kind) (Kind, int, string) {
	for i := 1; i < len(s); i++ {
		if s[i] != q {
			continue
		}
		if i+1 < len(s) && s[i+1] == q {
			i++
			continue
		}
		return kind, i + 1, ""
	}
	return 0, 0, "quote is not closed"
}

// number scans a numeric literal; what is odd about it SQLite will say.
func number(s string) int {
	n := 1
	for n < len(s) {
		c := s[n]
		sign := (c == '+' || c == '-') && (s[n-1] == 'e' || s[n-1] == 'E') && !strings.HasPrefix(s, "0x") && !strings.HasPrefix(s, "0X")
		if !digit(c) && !word(c) && c != '.' && !sign {
			break
		}
		n++
	}
	return n
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

// word reports whether c may start a bare identifier.
func word(c byte) bool { return c == '_' || c >= 0x80 || 'a' <= c|0x20 && c|0x20 <= 'z' }
