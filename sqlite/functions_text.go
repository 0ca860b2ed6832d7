package sqlite

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"unicode/utf8"
)

const (
	maxEmail          = 320     // bytes
	maxPattern        = 256     // bytes of a regular expression
	maxPatternProgram = 1000    // instructions, roughly
	maxPatternWork    = 1 << 24 // instructions times bytes of the value
	patternCache      = 64      // compiled expressions per connection
)

func textFunctions() []function {
	cache := patterns{}
	return []function{
		{"is_email", 1, true, check(isEmail)},
		{"is_json", 1, true, check(isJSON)},
		{"regexp", 2, true, cache.regexp},
		{"base64_encode", 1, true, base64Encode},
		{"base64_decode", 1, true, base64Decode},
	}
}

// check makes a function that tells whether a TEXT is ok; NULL is, other types
// are not.
func check(ok func(text []byte) bool) sqlFunc {
	return func(out *result, args []value) error {
		text, isText := args[0].text()
		out.setBool(args[0].isNull() || isText && ok(text))
		return nil
	}
}

// isJSON tells whether s is one JSON value.
func isJSON(s []byte) bool { return utf8.Valid(s) && json.Valid(s) }

// isEmail tells whether s is a valid e-mail address as HTML defines it for
// input fields: stricter than RFC 5322, which allows comments and quotes.
func isEmail(s []byte) bool {
	if len(s) > maxEmail {
		return false
	}
	at := 0
	for at < len(s) && s[at] != '@' {
		if !isAlphanumeric(s[at]) && !isEmailPunctuation(s[at]) {
			return false
		}
		at++
	}
	if at == 0 || at == len(s) {
		return false
	}
	label := 0 // bytes of the label of the host name so far
	for i, c := range s[at+1:] {
		switch {
		case isAlphanumeric(c):
			label++
		case c == '-' && label > 0:
			label++
		case c == '.' && label > 0 && s[at+i] != '-':
			label = 0
		default:
			return false
		}
		if label > 63 {
			return false
		}
	}
	return label > 0 && s[len(s)-1] != '-'
}

func isAlphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func isEmailPunctuation(c byte) bool {
	switch c {
	case '.', '!', '#', '$', '%', '&', '\'', '*', '+', '/', '=', '?', '^', '_', '`', '{', '|', '}', '~', '-':
		return true
	}
	return false
}

// patterns caches the compiled regular expressions of one connection.
type patterns map[string]pattern

type pattern struct {
	re   *regexp.Regexp
	size int // instructions, roughly
}

// regexp implements `value REGEXP pattern`: an unanchored search in RE2
// syntax, whose time is linear in the value. Values that are not TEXT do not
// match; NULL gives NULL.
func (p patterns) regexp(out *result, args []value) error {
	if args[0].isNull() || args[1].isNull() {
		return nil
	}
	expression, ok := args[0].text()
	if !ok {
		return errors.New("regexp: pattern rejected: not text")
	}
	compiled, ok := p[string(expression)]
	if !ok {
		var err error
		if compiled, err = compilePattern(string(expression)); err != nil {
			return fmt.Errorf("regexp: pattern rejected: %w", err)
		}
		if len(p) >= patternCache {
			clear(p)
		}
		p[string(expression)] = compiled
	}
	text, ok := args[1].text()
	if len(text) > maxPatternWork/compiled.size {
		return fmt.Errorf("regexp: pattern rejected: too costly for a value of %d bytes", len(text))
	}
	out.setBool(ok && compiled.re.Match(text))
	return nil
}

func compilePattern(s string) (pattern, error) {
	if len(s) > maxPattern {
		return pattern{}, fmt.Errorf("longer than %d bytes", maxPattern)
	}
	tree, err := syntax.Parse(s, syntax.Perl)
	if err != nil {
		return pattern{}, err
	}
	size := programSize(tree)
	if size > maxPatternProgram {
		return pattern{}, errors.New("too many repetitions")
	}
	re, err := regexp.Compile(s)
	if err != nil {
		return pattern{}, err
	}
	return pattern{re, size}, nil
}

// programSize estimates how large re becomes when its repetitions are
// unrolled. The parser bounds the depth and nested repetition counts.
func programSize(re *syntax.Regexp) int {
	size := 1
	if re.Op == syntax.OpLiteral {
		size = len(re.Rune)
	}
	for _, sub := range re.Sub {
		size += programSize(sub)
	}
	if re.Op == syntax.OpRepeat {
		size *= max(re.Min, re.Max, 1)
	}
	return size
}

// base64Encode returns a BLOB or TEXT in the URL-safe alphabet, padded.
func base64Encode(out *result, args []value) error {
	if args[0].isNull() {
		return nil
	}
	data, ok := args[0].blob()
	if !ok {
		if data, ok = args[0].text(); !ok {
			return errors.New("base64_encode: neither blob nor text")
		}
	}
	out.setText(base64.URLEncoding.AppendEncode(nil, data))
	return nil
}

// base64Decode returns the BLOB that base64_encode made text of.
func base64Decode(out *result, args []value) error {
	if args[0].isNull() {
		return nil
	}
	text, ok := args[0].text()
	if !ok {
		return errors.New("base64_decode: not text")
	}
	data := make([]byte, base64.URLEncoding.DecodedLen(len(text)))
	n, err := base64.URLEncoding.Strict().Decode(data, text)
	if err != nil || bytes.ContainsAny(text, "\r\n") { // the decoder skips line ends
		return errors.New("base64_decode: not padded URL-safe base64")
	}
	out.setBlob(data[:n])
	return nil
}
