package jsonx

import (
	"bytes"
	"encoding/base64"
	"math"
	"math/bits"
	"strconv"
	"unicode/utf8"
)

// compactDepth is how deep a text may be for [AppendCompact].
const compactDepth = 512

// AppendString appends s as a JSON string. Only what must be escaped is:
// quotes, backslashes and control characters. Each byte that is not part of
// valid UTF-8 becomes U+FFFD.
func AppendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	done := 0 // how much of s has been appended
	for i := 0; ; {
		i = plainText(s, i)
		if i == len(s) {
			dst = append(dst, s[done:]...)
			return append(dst, '"')
		}
		c := s[i]
		if c < utf8.RuneSelf {
			dst = append(dst, s[done:i]...)
			dst = appendEscape(dst, c)
			i++
			done = i
			continue
		}
		for i < len(s) && s[i] >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				dst = append(dst, s[done:i]...)
				dst = append(dst, "\uFFFD"...)
				done = i + size
			}
			i += size
		}
	}
}

// appendEscape appends the escape sequence of a quote, a backslash or a
// control character.
func appendEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
	case '\b':
		c = 'b'
	case '\f':
		c = 'f'
	case '\n':
		c = 'n'
	case '\r':
		c = 'r'
	case '\t':
		c = 't'
	default:
		const hex = "0123456789abcdef"
		return append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
	}
	return append(dst, '\\', c)
}

// AppendBytesBase64URL appends b as a JSON string in the URL-safe alphabet of
// base64, padded.
func AppendBytesBase64URL(dst, b []byte) []byte {
	dst = append(dst, '"')
	dst = base64.URLEncoding.AppendEncode(dst, b)
	return append(dst, '"')
}

// AppendInt appends an integer.
func AppendInt(dst []byte, n int64) []byte {
	return strconv.AppendInt(dst, n, 10)
}

// AppendFloat appends the shortest number that reads back as f. It always
// has a fraction or an exponent, so 5 is appended as 5.0. Magnitudes from
// 1e-5 to below 1e16 are written without exponent, others as in 1e16 or
// 2.5e-7. NaN and the infinities, which JSON does not know, become null.
func AppendFloat(dst []byte, f float64) []byte {
	abs := math.Abs(f)
	switch {
	case math.IsNaN(f) || math.IsInf(f, 0):
		return append(dst, "null"...)
	case abs < 1<<53 && f == math.Trunc(f) && (f != 0 || !math.Signbit(f)):
		dst = strconv.AppendInt(dst, int64(f), 10)
		return append(dst, ".0"...)
	case abs == 0 || 1e-5 <= abs && abs < 1e16:
		dst = strconv.AppendFloat(dst, f, 'f', -1, 64)
		if f == math.Trunc(f) {
			dst = append(dst, ".0"...)
		}
		return dst
	}
	var buf [32]byte
	mantissa, exponent, _ := bytes.Cut(strconv.AppendFloat(buf[:0], f, 'e', -1, 64), []byte("e"))
	dst = append(dst, mantissa...)
	dst = append(dst, 'e')
	if exponent[0] == '-' {
		dst = append(dst, '-')
	}
	return append(dst, bytes.TrimLeft(exponent, "+-0")...)
}

// AppendCompact appends a JSON text without the spaces between its tokens. It
// is meant for stored texts and refuses less than [Parse] does: names may
// repeat, surrogates stand alone and numbers be of any size, and arrays and
// objects may be nested 512 deep. For what is no JSON at all it returns dst
// and an [*Error].
func AppendCompact(dst, raw []byte) ([]byte, error) {
	s := scanner{data: raw, lax: true, maxDepth: compactDepth}
	start := s.start()
	end := start
	if s.err == nil {
		end = s.skip(start, 0)
	}
	s.finish(end)
	if s.err != nil {
		return dst, s.err
	}
	raw = raw[start:end]

	done := 0
	for i := 0; i < len(raw); {
		switch raw[i] {
		case '"':
			i, _ = s.string(start + i)
			i -= start
		case ' ', '\t', '\n', '\r':
			dst = append(dst, raw[done:i]...)
			i = s.space(start+i) - start
			done = i
		default:
			i++
		}
	}
	return append(dst, raw[done:]...), nil
}

// plainText does for a string what plain does for a slice.
func plainText(s string, i int) int {
	for ; i+8 <= len(s); i += 8 {
		w := uint64(s[i]) | uint64(s[i+1])<<8 | uint64(s[i+2])<<16 | uint64(s[i+3])<<24 |
			uint64(s[i+4])<<32 | uint64(s[i+5])<<40 | uint64(s[i+6])<<48 | uint64(s[i+7])<<56
		if mask := special(w); mask != 0 {
			return i + bits.TrailingZeros64(mask)/8
		}
	}
	for ; i < len(s); i++ {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			break
		}
	}
	return i
}
