package listquery

import (
	"strings"
	"unicode/utf8"
)

// pairs takes a raw query string apart.
type pairs struct {
	rest string // what is still to be read
	n    int    // pairs read
}

// next returns the next key and value, decoded. An empty pair, as in "a&&b",
// gives an empty key and value.
func (p *pairs) next() (key, value string, err error) {
	if p.n++; p.n > MaxParams {
		return "", "", &Error{"too many parameters"}
	}
	var pair string
	pair, p.rest, _ = strings.Cut(p.rest, "&")
	key, value, _ = strings.Cut(pair, "=")
	if key, err = decode(key); err != nil {
		return "", "", err
	}
	if value, err = decode(value); err != nil {
		return "", "", err
	}
	if len(value) > MaxValue {
		return "", "", &Error{"value too long"}
	}
	return key, value, nil
}

// decode resolves percent-encoding and '+'. The result is valid UTF-8
// without NUL. A string that needs no change is not copied.
func decode(s string) (string, error) {
	if strings.IndexByte(s, '%') >= 0 || strings.IndexByte(s, '+') >= 0 {
		var b strings.Builder
		b.Grow(len(s))
		for i := 0; i < len(s); i++ {
			c := s[i]
			switch c {
			case '+':
				c = ' '
			case '%':
				if i+2 >= len(s) {
					return "", &Error{"incomplete percent-encoding"}
				}
				hi, lo := unhex(s[i+1]), unhex(s[i+2])
				if hi > 15 || lo > 15 {
					return "", &Error{"malformed percent-encoding"}
				}
				c = hi<<4 | lo
				i += 2
			}
			b.WriteByte(c)
		}
		s = b.String()
	}
	if strings.IndexByte(s, 0) >= 0 {
		return "", &Error{"NUL"}
	}
	if !utf8.ValidString(s) {
		return "", &Error{"invalid UTF-8"}
	}
	return s, nil
}

// unhex returns the value of a hexadecimal digit, or 16.
func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 16
}
