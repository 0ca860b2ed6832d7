package jsonx

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"unicode/utf8"
)

// A scanner walks over one text. Its methods take the offset at which
// something starts and return the offset at which it ends, or -1 after an
// error, which is then in err.
type scanner struct {
	data []byte
	err  error
	nul  bool // a string or name with NUL went by

	lax      bool // RFC 8259 and valid UTF-8 suffice
	maxDepth int  // 0: MaxDepth

	// The names in all open objects that had escape sequences, without them,
	// one after the other.
	unescaped []byte
}

// A name is that of a member of an open object.
type name struct {
	start, end uint32 // its content in data or unescaped
	copied     bool   // in unescaped
	offset     uint32 // of the quote before it, in data
}

// Up to this many members each new name is compared with the others; if there
// are more, all are sorted when the object ends.
const fewMembers = 16

func (s *scanner) fail(offset int, reason string) int {
	if s.err == nil {
		s.err = &Error{Offset: max(offset, 0), Reason: reason}
	}
	return -1
}

// byte returns the byte at i, or 0 at the end of the text and after an error.
func (s *scanner) byte(i int) byte {
	if uint(i) < uint(len(s.data)) {
		return s.data[i]
	}
	return 0
}

// space skips whitespace.
func (s *scanner) space(i int) int {
	for i < len(s.data) {
		switch s.data[i] {
		case ' ', '\t', '\n', '\r':
			i++
		default:
			return i
		}
	}
	return i
}

// value reads a value inside depth arrays and objects.
func (s *scanner) value(i, depth int) (v Value, end int) {
	switch c := s.byte(i); {
	case c == '"':
		nul := s.nul
		s.nul = false
		end, v.escaped = s.string(i)
		v.Kind, v.NUL = String, s.nul
		s.nul = s.nul || nul
	case c == '-' || '0' <= c && c <= '9':
		var integral bool
		if end, integral = s.number(i); end >= 0 {
			v.setNumber(s.data[i:end], integral)
		}
	case c == '{' || c == '[':
		nul := s.nul
		s.nul = false
		v.Kind = Object
		if c == '[' {
			v.Kind = Array
		}
		end = s.skip(i, depth)
		v.NUL = s.nul
		s.nul = s.nul || nul
	default:
		end = s.literal(i)
		if c != 'n' {
			v.Kind, v.Bool = Bool, c == 't'
		}
	}
	if end >= 0 {
		v.Raw = s.data[i:end:end]
	}
	return v, end
}

// skip checks a value inside depth arrays and objects.
func (s *scanner) skip(i, depth int) (end int) {
	switch c := s.byte(i); {
	case c == '"':
		end, _ = s.string(i)
		return end
	case c == '-' || '0' <= c && c <= '9':
		end, _ = s.number(i)
		return end
	case c == '{':
		return s.object(i, depth+1, nil)
	case c == '[':
		return s.array(i, depth+1, nil)
	}
	return s.literal(i)
}

func (s *scanner) literal(i int) int {
	if i < 0 {
		return -1
	}
	rest := s.data[i:]
	switch {
	case bytes.HasPrefix(rest, []byte("null")), bytes.HasPrefix(rest, []byte("true")):
		return i + 4
	case bytes.HasPrefix(rest, []byte("false")):
		return i + 5
	case len(rest) == 0:
		return s.fail(i, "unexpected end")
	}
	return s.fail(i, "expected a value")
}

// enter checks the depth of an array or object.
func (s *scanner) enter(i, depth int) bool {
	limit := MaxDepth
	if s.maxDepth > 0 {
		limit = s.maxDepth
	}
	if depth > limit {
		s.fail(i, "nested too deep")
		return false
	}
	return true
}

// array reads an array that is the depth-th one. element may be nil.
func (s *scanner) array(i, depth int, element func(Value) error) int {
	if !s.enter(i, depth) {
		return -1
	}
	i = s.space(i + 1)
	if s.byte(i) == ']' {
		return i + 1
	}
	for {
		if element == nil {
			i = s.skip(i, depth)
		} else {
			var v Value
			if v, i = s.value(i, depth); i >= 0 {
				if s.err = element(v); s.err != nil {
					return -1
				}
			}
		}
		if i < 0 {
			return -1
		}
		i = s.space(i)
		switch s.byte(i) {
		case ',':
			i = s.space(i + 1)
		case ']':
			return i + 1
		default:
			return s.fail(i, "expected a comma or the end of the array")
		}
	}
}

// object reads an object that is the depth-th array or object. member may be
// nil.
func (s *scanner) object(i, depth int, member func([]byte, Value) error) int {
	if !s.enter(i, depth) {
		return -1
	}
	var few [fewMembers]name
	names := few[:0]
	outer := len(s.unescaped)
	i = s.space(i + 1)
	if s.byte(i) == '}' {
		return i + 1
	}
	for {
		if s.byte(i) != '"' {
			return s.fail(i, "expected a name")
		}
		end, escaped := s.string(i)
		if end < 0 {
			return -1
		}
		var key []byte
		if !s.lax {
			n, ok := s.name(names, i, end, escaped)
			if !ok {
				return -1
			}
			names = append(names, n)
			key = s.nameBytes(n)
		}
		i = s.space(end)
		if s.byte(i) != ':' {
			return s.fail(i, "expected a colon")
		}
		i = s.space(i + 1)
		if member == nil {
			i = s.skip(i, depth)
		} else {
			var v Value
			if v, i = s.value(i, depth); i >= 0 {
				if s.err = member(key, v); s.err != nil {
					return -1
				}
			}
		}
		if i < 0 {
			return -1
		}
		i = s.space(i)
		switch s.byte(i) {
		case ',':
			i = s.space(i + 1)
		case '}':
			if !s.distinct(names) {
				return -1
			}
			s.unescaped = s.unescaped[:outer]
			return i + 1
		default:
			return s.fail(i, "expected a comma or the end of the object")
		}
	}
}

// name returns the name whose quotes are at start and end-1, unless it is one
// name too many or among the names already.
func (s *scanner) name(names []name, start, end int, escaped bool) (n name, ok bool) {
	if len(names) == MaxMembers {
		s.fail(start, "too many members")
		return n, false
	}
	n = name{start: uint32(start + 1), end: uint32(end - 1), offset: uint32(start)}
	if escaped {
		content := s.data[n.start:n.end]
		n.start, n.copied = uint32(len(s.unescaped)), true
		s.unescaped = appendUnescaped(s.unescaped, content)
		n.end = uint32(len(s.unescaped))
	}
	if len(names) < fewMembers {
		key := s.nameBytes(n)
		for _, other := range names {
			if bytes.Equal(s.nameBytes(other), key) {
				s.fail(start, "name given twice")
				return n, false
			}
		}
	}
	return n, true
}

// distinct finishes the check of an object's names, whose order it changes.
func (s *scanner) distinct(names []name) bool {
	if len(names) <= fewMembers {
		return true
	}
	slices.SortFunc(names, func(a, b name) int {
		return cmp.Or(
			cmp.Compare(a.end-a.start, b.end-b.start),
			bytes.Compare(s.nameBytes(a), s.nameBytes(b)),
			cmp.Compare(a.offset, b.offset),
		)
	})
	for i, n := range names[1:] {
		if bytes.Equal(s.nameBytes(names[i]), s.nameBytes(n)) {
			s.fail(int(n.offset), "name given twice")
			return false
		}
	}
	return true
}

// nameBytes returns the content of a name, never nil.
func (s *scanner) nameBytes(n name) []byte {
	if n.copied {
		return s.unescaped[n.start:n.end:n.end]
	}
	return s.data[n.start:n.end:n.end]
}

// number reads a number and tells whether it is written as an integer.
func (s *scanner) number(start int) (end int, integral bool) {
	i := start
	if s.byte(i) == '-' {
		i++
	}
	switch c := s.byte(i); {
	case c == '0':
		i++
	case '1' <= c && c <= '9':
		i = s.digits(i)
	default:
		return s.fail(i, "expected a digit"), false
	}
	integers := i - start
	exponent := false
	integral = true
	if s.byte(i) == '.' {
		integral = false
		from := i + 1
		if i = s.digits(from); i == from {
			return s.fail(i, "expected a digit"), false
		}
	}
	if c := s.byte(i); c == 'e' || c == 'E' {
		integral, exponent = false, true
		i++
		if c := s.byte(i); c == '+' || c == '-' {
			i++
		}
		from := i
		if i = s.digits(from); i == from {
			return s.fail(i, "expected a digit"), false
		}
	}
	// Numbers below 1e308 need no closer look.
	if (exponent || integers > 308) && !s.lax {
		if _, err := strconv.ParseFloat(string(s.data[start:i]), 64); err != nil {
			return s.fail(start, "number too large"), false
		}
	}
	return i, integral
}

func (s *scanner) digits(i int) int {
	for i < len(s.data) && '0' <= s.data[i] && s.data[i] <= '9' {
		i++
	}
	return i
}

// setNumber sets v to a number, which is known to be in range.
func (v *Value) setNumber(text []byte, integral bool) {
	if integral {
		if u, neg, ok := parseInteger(text); ok {
			v.Kind, v.Int, v.Float = Int, int64(u), float64(u)
			if neg {
				v.Int, v.Float = -v.Int, -v.Float
			}
			return
		}
	}
	v.Kind = Float
	v.Float, _ = strconv.ParseFloat(string(text), 64)
}

// parseInteger returns the magnitude and sign of an integer; ok is false if
// it fits neither an int64 nor a uint64.
func parseInteger(text []byte) (u uint64, neg, ok bool) {
	if text[0] == '-' {
		neg = true
		text = text[1:]
	}
	if len(text) > 20 {
		return 0, false, false
	}
	for _, c := range text {
		hi, lo := bits.Mul64(u, 10)
		sum, carry := bits.Add64(lo, uint64(c-'0'), 0)
		if hi|carry != 0 {
			return 0, false, false
		}
		u = sum
	}
	if neg && u > -math.MinInt64 {
		return 0, false, false
	}
	return u, neg, true
}

// string reads a string and tells whether it has escape sequences.
func (s *scanner) string(start int) (end int, escaped bool) {
	data := s.data
	i := start + 1
	for {
		i = plain(data, i)
		if i == len(data) {
			return s.fail(i, "unexpected end"), false
		}
		switch c := data[i]; {
		case c == '"':
			return i + 1, escaped
		case c == '\\':
			escaped = true
			if i = s.escape(i); i < 0 {
				return -1, false
			}
		case c < ' ':
			return s.fail(i, "control character in a string"), false
		default:
			for i < len(data) && data[i] >= utf8.RuneSelf {
				r, size := utf8.DecodeRune(data[i:])
				if r == utf8.RuneError && size == 1 {
					return s.fail(i, "invalid UTF-8"), false
				}
				i += size
			}
		}
	}
}

// escape reads an escape sequence, or both halves of a surrogate pair.
func (s *scanner) escape(i int) int {
	switch s.byte(i + 1) {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2
	case 'u':
	default:
		return s.fail(i, "malformed escape sequence")
	}
	unit, ok := hex4(s.data[i+2:])
	if !ok {
		return s.fail(i, "malformed escape sequence")
	}
	if unit == 0 {
		s.nul = true
	}
	if s.lax || unit < 0xD800 || unit > 0xDFFF {
		return i + 6
	}
	if unit < 0xDC00 && s.byte(i+6) == '\\' && s.byte(i+7) == 'u' {
		if low, ok := hex4(s.data[i+8:]); ok && 0xDC00 <= low && low <= 0xDFFF {
			return i + 12
		}
	}
	return s.fail(i, "lone surrogate")
}

// hex4 reads four hexadecimal digits.
func hex4(b []byte) (n rune, ok bool) {
	if len(b) < 4 {
		return 0, false
	}
	for _, c := range b[:4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		n = n<<4 | rune(c)
	}
	return n, true
}

// appendUnescaped appends the content of a string that the scanner has read.
func appendUnescaped(dst, content []byte) []byte {
	for {
		i := bytes.IndexByte(content, '\\')
		if i < 0 {
			return append(dst, content...)
		}
		dst = append(dst, content[:i]...)
		c := content[i+1]
		content = content[i+2:]
		switch c {
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			r, _ := hex4(content)
			content = content[4:]
			if 0xD800 <= r && r <= 0xDFFF {
				low, _ := hex4(content[2:])
				content = content[6:]
				r = (r-0xD800)<<10 | (low - 0xDC00) + 0x10000
			}
			dst = utf8.AppendRune(dst, r)
			continue
		}
		dst = append(dst, c)
	}
}

// plain returns the offset, from i on, of the first byte that means something
// inside a string: a quote, a backslash, a control character or a byte that
// is not ASCII. It is len(b) if there is none.
func plain(b []byte, i int) int {
	for ; i+8 <= len(b); i += 8 {
		if mask := special(binary.LittleEndian.Uint64(b[i:])); mask != 0 {
			return i + bits.TrailingZeros64(mask)/8
		}
	}
	for ; i < len(b); i++ {
		if c := b[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			break
		}
	}
	return i
}

// special marks with 0x80 the bytes of w that mean something inside a string.
// The lowest mark is exact; above it there may be false ones.
func special(w uint64) uint64 {
	const (
		ones = 0x0101010101010101
		high = 0x8080808080808080
	)
	quote := w ^ ones*'"'
	slash := w ^ ones*'\\'
	return ((w-ones*' ')&^w | (quote-ones)&^quote | (slash-ones)&^slash | w) & high
}
