// Package jsonx reads and writes JSON on the path of every request.
//
// Reading is strict, and it allocates nothing for a body of the usual kind:
// objects of up to 16 members whose names have no escape sequences.
// [ParseObject] hands over the members of a body one by one:
//
//	err := jsonx.ParseObject(body, func(name []byte, v jsonx.Value) error {
//		switch v.Kind {
//		case jsonx.Int:
//			bind(name, v.Int)
//		case jsonx.String:
//			text, err := v.Text()
//			...
//		}
//		return nil
//	})
//
// Writing appends to a []byte: [AppendString], [AppendInt], [AppendFloat]
// and so on. There is no reflection and no tree of values.
//
// What is read must be one JSON text after RFC 8259 and, beyond it:
//
//   - valid UTF-8 without a byte order mark, surrogate escapes only in pairs
//   - at most [MaxDepth] arrays and objects inside each other
//   - in no object a name twice, and at most [MaxMembers] names
//   - no number too large for a float64
//
// This holds at every depth. A text that breaks a rule gives an [*Error].
// Time and memory grow with the length of the text, whatever it holds, so
// bounding that length bounds the work.
package jsonx

import (
	"bytes"
	"errors"
	"fmt"
)

// The limits of a JSON text that is read.
const (
	MaxSize    = 1 << 30 // bytes
	MaxDepth   = 32      // arrays and objects inside each other
	MaxMembers = 4096    // members of one object
)

// A Kind is the type of a JSON value. Numbers have two.
type Kind uint8

// The kinds of values. An Int is a number that is written without fraction
// and exponent and that fits into 64 bits; every other number is a Float,
// 5.0 and 1e3 among them.
const (
	Null Kind = iota
	Bool
	Int
	Float
	String
	Array
	Object
)

// A Value is one JSON value inside a text. Its slices share the memory of
// that text. The zero Value is null, though without a Raw.
type Value struct {
	Kind Kind

	Raw []byte // the value as written, without the spaces around it

	// Int is the value of an Int. Numbers from 1<<63 to 1<<64-1 wrap around
	// into negative ones.
	Int int64

	// Float is the value of a Float, and of an Int the float64 nearest to
	// the number as written (which has not wrapped around).
	Float float64

	Bool bool // the value of a Bool

	// NUL tells that a String holds the character U+0000 (which only the
	// escape sequence can write), or that some string or name inside an
	// Array or Object does.
	NUL bool

	escaped bool // a String has escape sequences
}

// Text returns the content of a String, and an error for every other kind.
func (v Value) Text() (string, error) {
	if v.Kind != String {
		return "", errNotString
	}
	if !v.escaped {
		return string(v.Raw[1 : len(v.Raw)-1]), nil
	}
	text, _ := v.AppendText(make([]byte, 0, len(v.Raw)))
	return string(text), nil
}

// AppendText appends the content of a String to dst. For every other kind it
// returns dst and an error.
func (v Value) AppendText(dst []byte) ([]byte, error) {
	if v.Kind != String {
		return dst, errNotString
	}
	content := v.Raw[1 : len(v.Raw)-1]
	if !v.escaped {
		return append(dst, content...), nil
	}
	return appendUnescaped(dst, content), nil
}

var errNotString = errors.New("reading a JSON string: value is not a string")

// An Error says what is wrong with a JSON text, in words that never quote
// it: they can be shown to whoever sent it.
type Error struct {
	Offset int    // where, in bytes from the start of the text
	Reason string // what, in fixed words
}

// Error returns the reason and the offset.
func (e *Error) Error() string {
	return fmt.Sprintf("invalid JSON at byte %d: %s", e.Offset, e.Reason)
}

// Parse reads a text that may be any JSON value.
func Parse(data []byte) (Value, error) {
	s := scanner{data: data}
	v, end := s.value(s.start(), 0)
	s.finish(end)
	if s.err != nil {
		return Value{}, s.err
	}
	return v, nil
}

// ParseObject reads a text that is an object and calls member for each of
// its members in order. The name is unescaped; it must not be changed, and
// not be kept beyond the call.
//
// The first error ends the parsing; an error from member is returned as it
// is. An error may well come after calls of member, so what they collected
// counts only if ParseObject returns nil. A name that is given twice may be
// noticed only at the end of the object.
func ParseObject(data []byte, member func(name []byte, v Value) error) error {
	s := scanner{data: data}
	i := s.start()
	if s.byte(i) == '{' {
		i = s.object(i, 1, member)
	} else {
		i = s.fail(i, "not an object")
	}
	s.finish(i)
	return s.err
}

// ParseArray reads a text that is an array and calls element for each of its
// elements in order. Errors are as with [ParseObject]. The number of elements
// is not limited: element should count them.
func ParseArray(data []byte, element func(v Value) error) error {
	s := scanner{data: data}
	i := s.start()
	if s.byte(i) == '[' {
		i = s.array(i, 1, element)
	} else {
		i = s.fail(i, "not an array")
	}
	s.finish(i)
	return s.err
}

// TopLevel tells the kind of value a text starts with. An array or object is
// only recognized by its bracket and must still be parsed; everything else is
// parsed, and an error returned if it is malformed.
func TopLevel(data []byte) (Kind, error) {
	s := scanner{data: data}
	switch s.byte(s.start()) {
	case '{':
		return Object, nil
	case '[':
		return Array, nil
	}
	v, err := Parse(data)
	return v.Kind, err
}

// Valid reports whether [Parse] accepts a text.
func Valid(data []byte) bool {
	_, err := Parse(data)
	return err == nil
}

// start returns the offset of the first byte that is not a space.
func (s *scanner) start() int {
	if len(s.data) > MaxSize {
		return s.fail(MaxSize, "text too long")
	}
	if bytes.HasPrefix(s.data, []byte("\xEF\xBB\xBF")) {
		return s.fail(0, "byte order mark")
	}
	return s.space(0)
}

// finish checks that nothing but space follows the value that ends at i.
func (s *scanner) finish(i int) {
	if i >= 0 {
		if i = s.space(i); i < len(s.data) {
			s.fail(i, "text after the end of the value")
		}
	}
}
