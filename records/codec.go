package records

import (
	"database/sql/driver"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/bedplate/bedplate/internal/geo"
	"github.com/bedplate/bedplate/internal/jsonx"
)

// maxKey bounds a key in a path, in bytes.
const maxKey = 1024

var errValue = errors.New("value does not fit the column")

// decodeID returns the key that a path segment stands for.
func (c *column) decodeID(s string) (driver.Value, error) {
	switch c.typ {
	case integerType:
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || !canonicalInt(s) {
			return nil, ErrInvalidID
		}
		return n, nil
	case textType:
		if !addressable(s) || !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
			return nil, ErrInvalidID
		}
		return s, nil
	}
	b, ok := decodeBlob(s)
	if !ok || !addressable(b) {
		return nil, ErrInvalidID
	}
	return b, nil
}

// addressable reports whether a path can name the key v.
func addressable(v driver.Value) bool {
	switch v := v.(type) {
	case string:
		return v != "" && len(v) <= maxKey
	case []byte:
		return len(v) != 0 && len(v) <= maxKey
	}
	return true
}

// canonicalInt refuses the spellings "+1", "-0" and "007", so that a record
// has one path.
func canonicalInt(s string) bool {
	digits := strings.TrimPrefix(s, "-")
	return digits[0] >= '1' && digits[0] <= '9' || s == "0"
}

// idString returns the key as create returns it: always a string.
func idString(v driver.Value) string {
	switch v := v.(type) {
	case int64:
		return strconv.FormatInt(v, 10)
	case []byte:
		return base64.URLEncoding.EncodeToString(v)
	case string:
		return v
	}
	return ""
}

// decodeBlob reads the 36 characters of a UUID, or padded URL-safe base64.
func decodeBlob(s string) ([]byte, bool) {
	if len(s) == 36 {
		if b, ok := parseUUID(s); ok {
			return b, true
		}
	}
	return decodeBase64(s)
}

func decodeBase64(s string) ([]byte, bool) {
	b, err := strictBase64.DecodeString(s)
	// The decoder skips line breaks, which have no place here.
	return b, err == nil && !strings.ContainsAny(s, "\r\n")
}

var strictBase64 = base64.URLEncoding.Strict()

func parseUUID(s string) ([]byte, bool) {
	if s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return nil, false
	}
	b := make([]byte, 16)
	src := s[0:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	_, err := hex.Decode(b, []byte(src))
	return b, err == nil
}

// decode returns the value to store for v.
func (c *column) decode(v jsonx.Value) (driver.Value, error) {
	if v.Kind == jsonx.Null {
		return nil, nil
	}
	switch c.format {
	case jsonFormat:
		// The column holds the JSON text; its CHECK holds the schema.
		if v.NUL {
			return nil, errValue
		}
		b, err := jsonx.AppendCompact(nil, v.Raw)
		return string(b), err
	case geoFormat:
		if v.Kind != jsonx.Object {
			return nil, errValue
		}
		return nilIfError(geo.FromGeoJSON(v.Raw))
	case fileFormat, filesFormat:
		return nil, errValue // see plan.decodeFiles
	}
	switch c.typ {
	case integerType:
		switch v.Kind {
		case jsonx.Int:
			return v.Int, nil
		case jsonx.Bool:
			return boolInt(v.Bool), nil
		}
	case realType:
		if v.Kind == jsonx.Int || v.Kind == jsonx.Float {
			return v.Float, nil
		}
	case textType:
		if v.Kind == jsonx.String {
			return text(v)
		}
	case blobType:
		switch v.Kind {
		case jsonx.String:
			return blob(v)
		case jsonx.Array:
			return byteArray(v.Raw)
		}
	case anyType, numericType:
		switch v.Kind {
		case jsonx.String:
			return text(v)
		case jsonx.Int:
			return v.Int, nil
		case jsonx.Float:
			return v.Float, nil
		case jsonx.Bool:
			return boolInt(v.Bool), nil
		case jsonx.Array:
			if c.typ == anyType {
				return byteArray(v.Raw)
			}
		}
	}
	return nil, errValue
}

func nilIfError(b []byte, err error) (driver.Value, error) {
	if err != nil {
		return nil, err
	}
	return b, nil
}

func boolInt(b bool) driver.Value {
	if b {
		return int64(1)
	}
	return int64(0)
}

// text refuses NUL, at which much of SQLite's own text handling stops.
func text(v jsonx.Value) (driver.Value, error) {
	if v.NUL {
		return nil, errValue
	}
	s, err := v.Text()
	if err != nil {
		return nil, err
	}
	return s, nil
}

func blob(v jsonx.Value) (driver.Value, error) {
	s, err := v.Text()
	if err != nil {
		return nil, err
	}
	b, ok := decodeBlob(s)
	if !ok {
		return nil, errValue
	}
	return b, nil
}

func byteArray(raw []byte) (driver.Value, error) {
	b := []byte{}
	err := jsonx.ParseArray(raw, func(v jsonx.Value) error {
		if v.Kind != jsonx.Int || v.Int < 0 || v.Int > 255 {
			return errValue
		}
		b = append(b, byte(v.Int))
		return nil
	})
	return nilIfError(b, err)
}

// decodeForm returns the value to store for a field of a form: a string.
func (c *column) decodeForm(s string) (driver.Value, error) {
	if !utf8.ValidString(s) {
		return nil, errValue
	}
	if c.format == jsonFormat {
		if !jsonx.Valid([]byte(s)) {
			return nil, errValue
		}
		return s, nil
	}
	quoted := jsonx.AppendString(nil, s)
	v, err := jsonx.Parse(quoted)
	if err != nil {
		return nil, err
	}
	return c.decode(v)
}

// append appends the value v of the column as JSON.
func (c *column) append(dst []byte, v driver.Value) []byte {
	if v == nil {
		return append(dst, "null"...)
	}
	if c.mayFile {
		if out, ok := appendGuarded(dst, v); ok {
			return out
		}
	}
	switch c.format {
	case jsonFormat:
		if s, ok := v.(string); ok {
			if out, err := jsonx.AppendCompact(dst, []byte(s)); err == nil {
				return out
			}
		}
	case geoFormat:
		if b, ok := v.([]byte); ok {
			if out, err := geo.AppendGeoJSON(dst, b); err == nil {
				return out
			}
			return append(dst, "null"...)
		}
	case fileFormat, filesFormat:
		s, ok := v.(string)
		switch {
		case !ok: // whatever it is, an id could be in it
			return append(dst, "null"...)
		case c.format == fileFormat:
			return appendFile(dst, []byte(s))
		}
		return appendFiles(dst, []byte(s))
	}
	return appendValue(dst, v)
}

// appendValue appends v by its storage class.
func appendValue(dst []byte, v driver.Value) []byte {
	switch v := v.(type) {
	case int64:
		return jsonx.AppendInt(dst, v)
	case float64:
		return jsonx.AppendFloat(dst, v)
	case string:
		return jsonx.AppendString(dst, v)
	case []byte:
		return jsonx.AppendBytesBase64URL(dst, v)
	}
	return append(dst, "null"...)
}

// appendFile appends a file's metadata without its id, which is the key of
// the stored file and stays inside.
func appendFile(dst, stored []byte) []byte {
	start := len(dst)
	dst = append(dst, '{')
	err := jsonx.ParseObject(stored, func(name []byte, v jsonx.Value) error {
		if string(name) == "id" {
			return nil
		}
		if dst[len(dst)-1] != '{' {
			dst = append(dst, ',')
		}
		dst = append(jsonx.AppendString(dst, string(name)), ':')
		var err error
		dst, err = jsonx.AppendCompact(dst, v.Raw)
		return err
	})
	if err != nil {
		return append(dst[:start], "null"...)
	}
	return append(dst, '}')
}

func appendFiles(dst, stored []byte) []byte {
	start := len(dst)
	dst = append(dst, '[')
	err := jsonx.ParseArray(stored, func(v jsonx.Value) error {
		if dst[len(dst)-1] != '[' {
			dst = append(dst, ',')
		}
		dst = appendFile(dst, v.Raw)
		return nil
	})
	if err != nil {
		return append(dst[:start], "null"...)
	}
	return append(dst, ']')
}
