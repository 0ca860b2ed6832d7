package records

import (
	"bytes"
	"database/sql/driver"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// binding is the struct type of API.Bind.
type binding struct {
	typ    reflect.Type
	fields []*boundField
	byName map[string]*boundField // by the name in Go, as tags spell it
}

// boundField is a field that holds a column.
type boundField struct {
	index  []int
	name   string // in Go
	column *column
	nested bool // a struct, whose fields are judged as well
	judged bool // there is a demand
}

// other returns the column of the field that a tag names, or nil.
func (b *binding) other(name string) *column {
	if b == nil {
		return nil
	}
	if i := strings.IndexAny(name, ".["); i >= 0 {
		name = name[:i]
	}
	if f := b.byName[name]; f != nil {
		return f.column
	}
	return nil
}

// bind reads the type of value. It returns all mistakes.
func (v *validation) bind(value any, t *table, input map[string]*column) (errs []error) {
	typ := reflect.TypeOf(value)
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct {
		return []error{fmt.Errorf("%s is not a struct", typ)}
	}
	b := &binding{typ: typ, byName: map[string]*boundField{}}
	byColumn := map[*column]string{}
	visit := func(f reflect.StructField, index []int) {
		fail := func(err error) { errs = append(errs, fmt.Errorf("field %s: %w", f.Name, err)) }
		tag := f.Tag.Get("validate")
		if tag == "-" {
			tag = ""
		}
		name, ok := jsonName(f)
		switch {
		case !f.IsExported() && tag != "":
			fail(errors.New("it has a validate tag but is not exported"))
			return
		case !f.IsExported() || !ok && tag == "":
			return
		case !ok:
			fail(errors.New("it has a validate tag but is no column"))
			return
		}
		c := t.exact(name)
		switch {
		case c == nil, input[name] == nil && tag != "":
			fail(fmt.Errorf("no column %q", name))
			return
		case byColumn[c] != "":
			fail(fmt.Errorf("column %q is field %s already", name, byColumn[c]))
			return
		case input[name] == nil: // excluded: nobody gives it
			return
		case !holds(f.Type, c):
			fail(fmt.Errorf("a %s cannot hold column %q", f.Type, name))
			return
		}
		byColumn[c] = f.Name
		field := &boundField{index: index, name: f.Name, column: c, nested: isNested(f.Type)}
		b.fields = append(b.fields, field)
		b.byName[f.Name] = field
		d := newDemand(c, tag)
		d.field = field
		if tag == "" && c.format == jsonFormat && isNested(indirect(f.Type)) {
			d.tag = "omitempty" // what is in the struct may have tags
		}
		if d.tag != "" {
			field.judged = true
			v.demands = append(v.demands, d)
		}
		if tag != "" {
			for _, err := range d.misplaced() {
				fail(err)
			}
		}
	}
	errs = append(errs, eachField(typ, nil, visit)...)
	for i := range v.demands {
		d := &v.demands[i]
		if d.field == nil {
			if name := byColumn[d.column]; name != "" {
				errs = append(errs, fmt.Errorf("field %s: column %q has conditions in Validate already", name, d.column.name))
			}
			continue
		}
		for _, err := range v.compare(d, b) {
			errs = append(errs, fmt.Errorf("field %s: %w", d.field.name, err))
		}
	}
	errs = append(errs, v.structMistakes(typ, map[reflect.Type]bool{})...)
	v.bound = b
	return errs
}

// compare notes with which columns the tag of d compares.
func (v *validation) compare(d *demand, b *binding) (errs []error) {
	var alone []string
	for _, part := range parts(d.tag) {
		names := comparedWith(part)
		if names == nil {
			alone = append(alone, part)
		}
		for _, name := range names {
			c := b.other(name)
			if c == nil {
				errs = append(errs, fmt.Errorf("tag %q: no field %s that is a column", part, name))
				continue
			}
			if !slices.Contains(d.others, c) {
				d.others = append(d.others, c)
			}
			other, _ := b.typ.FieldByName(name)
			mine := b.typ.FieldByIndex(d.field.index)
			if ordered(part) && other.Type != nil && indirect(other.Type) != indirect(mine.Type) {
				errs = append(errs, fmt.Errorf("tag %q: a %s is compared with a %s", part, mine.Type, other.Type))
			}
		}
	}
	d.alone = strings.Join(alone, ",")
	return errs
}

// fill returns a pointer to a value with the columns of r that are known, and
// calls unfit for each one that it cannot hold.
func (b *binding) fill(r *request, update bool, unfit func(*column)) reflect.Value {
	p := reflect.New(b.typ)
	for _, f := range b.fields {
		if !known(r, f.column, update) || f.column.format == fileFormat || f.column.format == filesFormat {
			continue
		}
		if value := r.values[f.column.index]; value != nil && !f.set(p.Elem().FieldByIndex(f.index), value) {
			unfit(f.column)
		}
	}
	return p
}

// eachField calls visit for the fields of a struct as encoding/json sees them,
// those of embedded structs among them.
func eachField(t reflect.Type, index []int, visit func(f reflect.StructField, index []int)) (errs []error) {
	for i := range t.NumField() {
		f := t.Field(i)
		at := append(slices.Clone(index), i)
		switch {
		case !f.Anonymous || f.Tag.Get("json") != "":
			visit(f, at)
		case f.Type.Kind() == reflect.Struct:
			errs = append(errs, eachField(f.Type, at, visit)...)
		case f.Type.Kind() == reflect.Pointer:
			errs = append(errs, fmt.Errorf("field %s: a pointer cannot be embedded", f.Name))
		default:
			visit(f, at)
		}
	}
	return errs
}

// jsonName returns the name of f in JSON, and whether it has one.
func jsonName(f reflect.StructField) (name string, ok bool) {
	tag := f.Tag.Get("json")
	name, _, _ = strings.Cut(tag, ",")
	if name == "" {
		name = f.Name
	}
	return name, tag != "-"
}

func indirect(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// isNested reports whether t is a struct that the validator looks into.
func isNested(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !t.ConvertibleTo(reflect.TypeFor[time.Time]())
}

// holds reports whether a t can hold the values of c; see boundField.set.
func holds(t reflect.Type, c *column) bool {
	t = indirect(t)
	kind := t.Kind()
	if c.format == fileFormat || c.format == filesFormat || kind == reflect.Interface && t.NumMethod() == 0 {
		return true
	}
	if c.format == jsonFormat {
		return kind != reflect.Chan && kind != reflect.Func && kind != reflect.Interface
	}
	whole := reflect.Int <= kind && kind <= reflect.Int64 || reflect.Uint <= kind && kind <= reflect.Uint64 || kind == reflect.Bool
	fraction := kind == reflect.Float32 || kind == reflect.Float64
	words := kind == reflect.String || reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
	octets := (kind == reflect.Slice || kind == reflect.Array) && t.Elem().Kind() == reflect.Uint8
	switch c.typ {
	case integerType:
		return whole
	case realType:
		return fraction
	case textType:
		return words
	case blobType:
		return octets
	}
	return whole || fraction || words || octets
}

// set sets dst to a value of the column and reports whether it fits.
func (f *boundField) set(dst reflect.Value, value driver.Value) bool {
	if f.column.format == jsonFormat {
		text, ok := value.(string)
		return ok && (modest(text) || !f.judged) && decodeExactly([]byte(text), dst)
	}
	for dst.Kind() == reflect.Pointer {
		dst.Set(reflect.New(dst.Type().Elem()))
		dst = dst.Elem()
	}
	if dst.Kind() == reflect.Interface {
		dst.Set(reflect.ValueOf(value))
		return true
	}
	switch value := value.(type) {
	case string:
		if u, ok := dst.Addr().Interface().(encoding.TextUnmarshaler); ok {
			return u.UnmarshalText([]byte(value)) == nil
		}
		if dst.Kind() == reflect.String {
			dst.SetString(value)
			return true
		}
	case []byte:
		switch {
		case dst.Kind() == reflect.Slice && dst.Type().Elem().Kind() == reflect.Uint8:
			dst.SetBytes(value)
			return true
		case dst.Kind() == reflect.Array && dst.Type().Elem().Kind() == reflect.Uint8:
			return reflect.Copy(dst, reflect.ValueOf(value).Convert(reflect.SliceOf(dst.Type().Elem()))) == dst.Len() && len(value) == dst.Len()
		}
	case float64:
		if dst.CanFloat() {
			dst.SetFloat(value)
			return !dst.OverflowFloat(value)
		}
	case int64:
		return setInt(dst, value)
	}
	return false
}

func setInt(dst reflect.Value, n int64) bool {
	switch {
	case dst.Kind() == reflect.Bool:
		dst.SetBool(n != 0)
		return n == 0 || n == 1
	case dst.CanInt():
		dst.SetInt(n)
		return !dst.OverflowInt(n)
	case dst.CanUint():
		dst.SetUint(uint64(n))
		return n >= 0 && !dst.OverflowUint(uint64(n))
	case dst.CanFloat():
		dst.SetFloat(float64(n))
		return true
	}
	return false
}

// decodeExactly is json.Unmarshal with names in their exact spelling. What is
// stored is the text: a member in another case must not be judged in the place
// of the one that others will read.
func decodeExactly(text []byte, dst reflect.Value) bool {
	if hasStruct(dst.Type(), map[reflect.Type]bool{}) {
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		var document any
		if d.Decode(&document) != nil {
			return false
		}
		prune(document, dst.Type())
		var err error
		if text, err = json.Marshal(document); err != nil {
			return false
		}
	}
	return json.Unmarshal(text, dst.Addr().Interface()) == nil
}

// hasStruct reports whether something in t is decoded by the names of fields.
func hasStruct(t reflect.Type, seen map[reflect.Type]bool) bool {
	t = indirect(t)
	if seen[t] || decodesItself(t) {
		return false
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Struct:
		return true
	case reflect.Slice, reflect.Array, reflect.Map:
		return hasStruct(t.Elem(), seen)
	}
	return false
}

// prune removes the members that only look like fields of t.
func prune(document any, t reflect.Type) {
	t = indirect(t)
	if decodesItself(t) {
		return
	}
	switch d := document.(type) {
	case []any:
		if t.Kind() == reflect.Slice || t.Kind() == reflect.Array {
			for _, element := range d {
				prune(element, t.Elem())
			}
		}
	case map[string]any:
		switch t.Kind() {
		case reflect.Map:
			for _, member := range d {
				prune(member, t.Elem())
			}
		case reflect.Struct:
			types := map[string]reflect.Type{}
			_ = eachField(t, nil, func(f reflect.StructField, _ []int) {
				if name, ok := jsonName(f); ok && f.IsExported() {
					types[name] = f.Type
				}
			})
			for name, member := range d {
				if types[name] == nil {
					delete(d, name)
					continue
				}
				prune(member, types[name])
			}
		}
	}
}

func decodesItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(reflect.TypeFor[json.Unmarshaler]()) || p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}
