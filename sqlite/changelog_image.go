package sqlite

import (
	"database/sql/driver"
	"encoding/hex"
	"math"
	"strconv"
	"strings"
)

// decodeImage reads the image of a row: a JSON array of its values, perhaps in
// arrays of their own, as json_array writes it. blobs tells which columns are
// hexadecimal. Text that is not UTF-8 stays as it is.
func decodeImage(text string, blobs []bool) (values []driver.Value, ok bool) {
	d := imageDecoder{text: text, blobs: blobs, values: make([]driver.Value, 0, len(blobs))}
	end := d.array(0, 0)
	if end != len(text) || len(d.values) != len(blobs) {
		return nil, false
	}
	return d.values, true
}

// imageDecoder walks over an image. Its methods take the offset at which
// something begins and return the one at which it ends, or -1.
type imageDecoder struct {
	text   string
	blobs  []bool
	values []driver.Value
}

// array reads an array inside of depth arrays.
func (d *imageDecoder) array(i, depth int) int {
	if i >= len(d.text) || d.text[i] != '[' || depth > 1 {
		return -1
	}
	for {
		if i++; i < len(d.text) && d.text[i] == '[' {
			i = d.array(i, depth+1)
		} else {
			i = d.value(i)
		}
		if i < 0 || i >= len(d.text) {
			return -1
		}
		switch d.text[i] {
		case ',':
		case ']':
			return i + 1
		default:
			return -1
		}
	}
}

func (d *imageDecoder) value(i int) int {
	if i >= len(d.text) || len(d.values) == len(d.blobs) {
		return -1
	}
	blob := d.blobs[len(d.values)]
	var v driver.Value
	end := -1
	switch c := d.text[i]; {
	case c == 'n':
		if strings.HasPrefix(d.text[i:], "null") {
			end = i + len("null")
		}
	case c == '"' && blob:
		v, end = d.blob(i, `"`, `"`)
	case c == '"':
		v, end = d.string(i)
	case c == '{':
		v, end = d.blob(i, `{"$b":"`, `"}`)
	default:
		v, end = d.number(i)
	}
	d.values = append(d.values, v)
	return end
}

// blob reads hexadecimal digits between two texts.
func (d *imageDecoder) blob(i int, before, after string) (driver.Value, int) {
	rest, ok := strings.CutPrefix(d.text[i:], before)
	if !ok {
		return nil, -1
	}
	digits, _, ok := strings.Cut(rest, after)
	if !ok {
		return nil, -1
	}
	b, err := hex.DecodeString(digits)
	if err != nil {
		return nil, -1
	}
	return b, i + len(before) + len(digits) + len(after)
}

// number reads an integer, or a float, which has a point or an exponent, or is
// infinite as older versions of SQLite write it.
func (d *imageDecoder) number(i int) (driver.Value, int) {
	if digits := strings.TrimPrefix(d.text[i:], "-"); strings.HasPrefix(digits, "Inf") {
		if len(digits) < len(d.text[i:]) {
			return math.Inf(-1), i + len("-Inf")
		}
		return math.Inf(1), i + len("Inf")
	}
	end, float := i, false
	for ; end < len(d.text); end++ {
		switch c := d.text[end]; {
		case '0' <= c && c <= '9', c == '-', c == '+':
			continue
		case c == '.', c == 'e', c == 'E':
			float = true
			continue
		}
		break
	}
	if float {
		f, err := strconv.ParseFloat(d.text[i:end], 64)
		if err != nil && f < 1 && f > -1 {
			return nil, -1 // the other error, out of range, is how infinity is written
		}
		return f, end
	}
	n, err := strconv.ParseInt(d.text[i:end], 10, 64)
	if err != nil {
		return nil, -1
	}
	return n, end
}

// string reads a string.
func (d *imageDecoder) string(i int) (driver.Value, int) {
	i++
	n := strings.IndexByte(d.text[i:], '"')
	if n < 0 {
		return nil, -1
	}
	s, end := d.text[i:i+n], i+n+1
	if strings.IndexByte(s, '\\') >= 0 {
		if s, end = d.escaped(i); end < 0 {
			return nil, -1
		}
	}
	return s, end
}

// escaped reads a string behind its quote.
func (d *imageDecoder) escaped(i int) (string, int) {
	var b strings.Builder
	for i < len(d.text) {
		c := d.text[i]
		if c == '"' {
			return b.String(), i + 1
		}
		if c != '\\' {
			n := strings.IndexAny(d.text[i:], `"\`)
			if n < 0 {
				return "", -1
			}
			b.WriteString(d.text[i : i+n])
			i += n
			continue
		}
		if i+1 >= len(d.text) {
			return "", -1
		}
		switch e := d.text[i+1]; e {
		case '"', '\\', '/':
			b.WriteByte(e)
		case 'b':
			b.WriteByte('\b')
		case 'f':
			b.WriteByte('\f')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 't':
			b.WriteByte('\t')
		case 'u':
			if i+6 > len(d.text) {
				return "", -1
			}
			r, err := strconv.ParseUint(d.text[i+2:i+6], 16, 16)
			if err != nil {
				return "", -1
			}
			b.WriteRune(rune(r))
			i += 4
		default:
			return "", -1
		}
		i += 2
	}
	return "", -1
}
