package records

import (
	"bytes"
	"database/sql"
	"database/sql/driver"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/bedplate/bedplate/internal/geo"
	"github.com/bedplate/bedplate/internal/jsonx"
)

// A codec turns the values of one Go type into those of one column and back.
type codec struct {
	// store returns what the column is to hold.
	store func(v reflect.Value) (driver.Value, error)
	// load sets dst, which is addressable, to what the column holds.
	load func(dst reflect.Value, v driver.Value) error
}

// newCodec returns the codec for fields of type t that hold c, which is no file
// column. NULL is a nil pointer, and otherwise read as the zero value.
func newCodec(t reflect.Type, c *column) (codec, error) {
	if t.Kind() == reflect.Pointer {
		return pointerCodec(t, c)
	}
	cd, ok := codecOf(t, c)
	if !ok {
		return codec{}, fmt.Errorf("a %s cannot hold column %q", t, c.name)
	}
	load := cd.load
	cd.load = func(dst reflect.Value, v driver.Value) error {
		if v == nil {
			dst.SetZero()
			return nil
		}
		return load(dst, v)
	}
	return cd, nil
}

func pointerCodec(t reflect.Type, c *column) (codec, error) {
	elem, err := newCodec(t.Elem(), c)
	if err != nil || t.Elem().Kind() == reflect.Pointer {
		return codec{}, fmt.Errorf("a %s cannot hold column %q", t, c.name)
	}
	return codec{
		store: func(v reflect.Value) (driver.Value, error) {
			if v.IsNil() {
				return nil, nil
			}
			return elem.store(v.Elem())
		},
		load: func(dst reflect.Value, v driver.Value) error {
			if v == nil {
				dst.SetZero()
				return nil
			}
			dst.Set(reflect.New(t.Elem()))
			return elem.load(dst.Elem(), v)
		},
	}, nil
}

var (
	scannerType = reflect.TypeFor[sql.Scanner]()
	valuerType  = reflect.TypeFor[driver.Valuer]()
	timeType    = reflect.TypeFor[time.Time]()
	bytesType   = reflect.TypeFor[[]byte]()
)

// codecOf chooses the codec by the type first where that has a meaning of its
// own, then by the column.
func codecOf(t reflect.Type, c *column) (codec, bool) {
	kind := t.Kind()
	loose := c.typ == anyType || c.typ == numericType
	switch {
	case c.format == geoFormat && t == bytesType:
		return bytesCodec(), true
	case c.format == geoFormat && kind == reflect.String:
		return geoTextCodec(), true
	case c.format == geoFormat, c.format == jsonFormat:
		return jsonCodec(c), kind != reflect.Chan && kind != reflect.Func
	case t == timeType:
		return timeCodec(c), c.typ == textType || c.typ == integerType || loose
	case isOctets(t) && (c.typ == blobType || loose):
		return bytesCodec(), true
	case isOctets(t) && isText(t) && c.typ == textType: // even if it is a driver.Valuer of bytes
		return textCodec(), true
	case t.Implements(valuerType) && reflect.PointerTo(t).Implements(scannerType):
		return scannerCodec(t, c), true
	case kind == reflect.Interface && t.NumMethod() == 0:
		return anyCodec(c), true
	case isText(t) && (c.typ == textType || loose):
		return textCodec(), true
	case kind == reflect.String && (c.typ == textType || loose):
		return stringCodec(), true
	case (isInt(kind) || isUint(kind) || kind == reflect.Bool) && (c.typ == integerType || loose):
		return intCodec(), true
	case (kind == reflect.Float32 || kind == reflect.Float64) && (c.typ == realType || loose):
		return floatCodec(), true
	}
	return codec{}, false
}

func isInt(k reflect.Kind) bool  { return reflect.Int <= k && k <= reflect.Int64 }
func isUint(k reflect.Kind) bool { return reflect.Uint <= k && k <= reflect.Uintptr }

// isOctets reports whether t is a slice or an array of bytes.
func isOctets(t reflect.Type) bool {
	return (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) && t.Elem() == reflect.TypeFor[byte]()
}

// isText reports whether t turns itself into text and back.
func isText(t reflect.Type) bool {
	return t.Implements(reflect.TypeFor[encoding.TextMarshaler]()) && reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// misfit is the error for a value of the database that the Go type cannot hold.
func misfit(dst reflect.Value, v driver.Value) error {
	if n, ok := v.(int64); ok {
		return fmt.Errorf("%d does not fit into a %s", n, dst.Type())
	}
	return fmt.Errorf("a %T does not fit into a %s", v, dst.Type())
}

// plainText refuses what a request could not give either.
func plainText(s string) (driver.Value, error) {
	if !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
		return nil, errors.New("text is not valid UTF-8 without NUL")
	}
	return s, nil
}

func stringCodec() codec {
	return codec{
		store: func(v reflect.Value) (driver.Value, error) { return plainText(v.String()) },
		load: func(dst reflect.Value, v driver.Value) error {
			s, ok := v.(string)
			if !ok {
				return misfit(dst, v)
			}
			dst.SetString(s)
			return nil
		},
	}
}

func textCodec() codec {
	return codec{
		store: func(v reflect.Value) (driver.Value, error) {
			if valuer, ok := v.Interface().(driver.Valuer); ok {
				if value, err := valuer.Value(); err != nil || value == nil {
					return nil, err
				}
			}
			b, err := v.Interface().(encoding.TextMarshaler).MarshalText()
			if err != nil {
				return nil, err
			}
			return plainText(string(b))
		},
		load: func(dst reflect.Value, v driver.Value) error {
			s, ok := v.(string)
			if !ok {
				return misfit(dst, v)
			}
			return dst.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(s))
		},
	}
}

// bytesCodec is for slices and arrays of bytes.
func bytesCodec() codec {
	return codec{
		store: func(v reflect.Value) (driver.Value, error) {
			if v.Kind() == reflect.Slice {
				if v.IsNil() {
					return nil, nil
				}
				return append([]byte{}, v.Bytes()...), nil
			}
			b := make([]byte, v.Len())
			reflect.Copy(reflect.ValueOf(b), v)
			return b, nil
		},
		load: func(dst reflect.Value, v driver.Value) error {
			b, ok := v.([]byte)
			switch {
			case !ok, dst.Kind() == reflect.Array && dst.Len() != len(b):
				return misfit(dst, v)
			case dst.Kind() == reflect.Array:
				reflect.Copy(dst, reflect.ValueOf(b))
			default:
				dst.SetBytes(b)
			}
			return nil
		},
	}
}

func intCodec() codec {
	return codec{
		store: func(v reflect.Value) (driver.Value, error) {
			switch {
			case v.Kind() == reflect.Bool:
				return boolInt(v.Bool()), nil
			case v.CanInt():
				return v.Int(), nil
			case v.Uint() > math.MaxInt64:
				return nil, errors.New("number is too large for an INTEGER")
			}
			return int64(v.Uint()), nil
		},
		load: func(dst reflect.Value, v driver.Value) error {
			n, ok := v.(int64)
			if !ok || dst.Kind() == reflect.Bool && n != 0 && n != 1 || !setInt(dst, n) {
				return misfit(dst, v)
			}
			return nil
		},
	}
}

func floatCodec() codec {
	return codec{
		store: func(v reflect.Value) (driver.Value, error) {
			if f := v.Float(); math.IsNaN(f) || math.IsInf(f, 0) {
				return nil, errors.New("number is not finite")
			}
			return v.Float(), nil
		},
		load: func(dst reflect.Value, v driver.Value) error {
			switch v := v.(type) {
			case float64:
				if !dst.OverflowFloat(v) {
					dst.SetFloat(v)
					return nil
				}
			case int64: // in a column without a type
				dst.SetFloat(float64(v))
				return nil
			}
			return misfit(dst, v)
		},
	}
}

// timeLayout is how SQLite's strftime('%Y-%m-%dT%H:%M:%fZ') and JavaScript's
// toISOString write a time: RFC 3339 in UTC, all of the same width, so that
// texts sort as times do.
const timeLayout = "2006-01-02T15:04:05.000Z"

// timeCodec is for TEXT, and for Unix seconds in INTEGER columns.
func timeCodec(c *column) codec {
	return codec{
		store: func(v reflect.Value) (driver.Value, error) { return storedTime(v.Interface().(time.Time), c) },
		load: func(dst reflect.Value, v driver.Value) error {
			t, err := loadedTime(v)
			if err != nil {
				return err
			}
			dst.Set(reflect.ValueOf(t))
			return nil
		},
	}
}

func storedTime(t time.Time, c *column) (driver.Value, error) {
	t = t.UTC()
	switch {
	case c.typ == integerType:
		return t.Unix(), nil
	case c.typ == realType, c.typ == blobType:
		return nil, fmt.Errorf("a time cannot be in column %q", c.name)
	case t.Year() < 0 || t.Year() > 9999:
		return nil, errors.New("time is not in the years 0 to 9999")
	}
	return t.Format(timeLayout), nil
}

// loadedTime also reads what SQLite's date, datetime and CURRENT_TIMESTAMP write.
func loadedTime(v driver.Value) (time.Time, error) {
	switch v := v.(type) {
	case int64:
		return time.Unix(v, 0).UTC(), nil
	case string:
		for _, layout := range [...]string{time.RFC3339, time.DateTime, time.DateOnly} {
			if t, err := time.Parse(layout, v); err == nil {
				return t.UTC(), nil
			}
		}
		return time.Time{}, errors.New("a text is not a time")
	}
	return time.Time{}, fmt.Errorf("a %T is not a time", v)
}

// scannerCodec is for types such as sql.NullString.
func scannerCodec(t reflect.Type, c *column) codec {
	timed := t == reflect.TypeFor[sql.NullTime]() || t == reflect.TypeFor[sql.Null[time.Time]]()
	return codec{
		store: func(v reflect.Value) (driver.Value, error) {
			value, err := v.Interface().(driver.Valuer).Value()
			if err != nil {
				return nil, err
			}
			return storedAny(value, c)
		},
		load: func(dst reflect.Value, v driver.Value) error {
			var src any = v
			if timed {
				t, err := loadedTime(v)
				if err != nil {
					return err
				}
				src = t
			}
			return dst.Addr().Interface().(sql.Scanner).Scan(src)
		},
	}
}

// anyCodec is for fields of type any: they are int64, float64, string or []byte.
func anyCodec(c *column) codec {
	return codec{
		store: func(v reflect.Value) (driver.Value, error) { return storedAny(v.Interface(), c) },
		load: func(dst reflect.Value, v driver.Value) error {
			dst.Set(reflect.ValueOf(v))
			return nil
		},
	}
}

// storedAny returns a value of any type as c stores it.
func storedAny(value any, c *column) (driver.Value, error) {
	for range maxValuers {
		v := reflect.ValueOf(value)
		valuer, ok := value.(driver.Valuer)
		if value == nil || v.Kind() == reflect.Pointer && v.IsNil() {
			return nil, nil
		}
		if t := reflect.Indirect(v).Type(); !ok || v.Kind() == reflect.Array || c.typ == textType && isOctets(t) && isText(t) {
			break
		}
		var err error
		if value, err = valuer.Value(); err != nil {
			return nil, err
		}
	}
	v := reflect.ValueOf(value)
	if value == nil {
		return nil, nil
	}
	if isInt(v.Kind()) && c.typ == realType {
		return float64(v.Int()), nil
	}
	cd, err := newCodec(v.Type(), c)
	if err != nil {
		return nil, err
	}
	return cd.store(v)
}

// maxValuers bounds how often the value of a driver.Valuer may be another one.
const maxValuers = 3

// jsonCodec is for columns whose values are JSON on the wire: JSON columns, and
// geometries as GeoJSON (RFC 7946).
func jsonCodec(c *column) codec {
	return codec{
		store: func(v reflect.Value) (driver.Value, error) {
			var text bytes.Buffer
			encoder := json.NewEncoder(&text)
			encoder.SetEscapeHTML(false)
			if err := encoder.Encode(v.Interface()); err != nil {
				return nil, err
			}
			parsed, err := jsonx.Parse(text.Bytes())
			if err != nil {
				return nil, err
			}
			return c.decode(parsed)
		},
		load: func(dst reflect.Value, v driver.Value) error {
			dst.SetZero() // json.Unmarshal adds to what there is
			return json.Unmarshal(c.append(nil, v), dst.Addr().Interface())
		},
	}
}

// geoTextCodec is for geometries as strings of GeoJSON; "" is NULL.
func geoTextCodec() codec {
	return codec{
		store: func(v reflect.Value) (driver.Value, error) {
			if v.String() == "" {
				return nil, nil
			}
			return nilIfError(geo.FromGeoJSON([]byte(v.String())))
		},
		load: func(dst reflect.Value, v driver.Value) error {
			b, ok := v.([]byte)
			if !ok {
				return misfit(dst, v)
			}
			text, err := geo.AppendGeoJSON(nil, b)
			dst.SetString(string(text))
			return err
		},
	}
}
