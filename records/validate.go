package records

import (
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/go-playground/validator/v10"
)

// validation is what the values of creates and updates through one API must
// satisfy before the database is asked. It is safe for concurrent use.
//
// A create is judged as a whole. A column that it leaves out is judged like
// NULL, unless the database fills it: then only "required" counts. NULL is
// judged as the zero value of the column's type, so that "required" refuses it
// and "omitempty" lets it pass; a number that is given is there for both, also
// if it is 0. Of an update only the columns that it gives are judged.
//
// What compares a column with others counts if the values of all of them are
// known; an update does not look at those that are stored.
type validation struct {
	checker *validator.Validate
	demands []demand
	bound   *binding // nil: without API.Bind
}

// A demand is the tag of one column.
type demand struct {
	column   *column
	field    *boundField // nil: the tag is from API.Validate
	tag      string
	alone    string    // the tag without what compares with other columns
	others   []*column // with which it compares
	required bool      // the tag says so
	optional bool      // … the contrary
}

// newValidation returns what api demands of the columns of t, nil if that is
// nothing, and all mistakes in it. input are the columns that a request may
// name.
func newValidation(api API, t *table, input map[string]*column) (*validation, []error) {
	if api.Validate == nil && api.Bind == nil {
		return nil, nil
	}
	v := &validation{checker: validator.New(validator.WithRequiredStructEnabled())}
	var errs []error
	if t.view && len(api.Validate) > 0 {
		errs = append(errs, fmt.Errorf("validate: %q is a view, nothing is written to it", t.name))
	}
	for _, name := range slices.Sorted(maps.Keys(api.Validate)) {
		c := input[name]
		if c == nil {
			errs = append(errs, fmt.Errorf("validate: no column %q", name))
			continue
		}
		d := newDemand(c, api.Validate[name])
		mistakes := append(d.misplaced(), v.mistakes(d.tag, plainType(c), nil)...)
		for _, err := range mistakes {
			errs = append(errs, fmt.Errorf("validate: column %q: %w", name, err))
		}
		v.demands = append(v.demands, d)
	}
	if api.Bind != nil && !t.view {
		for _, err := range v.bind(api.Bind, t, input) {
			errs = append(errs, fmt.Errorf("bind: %w", err))
		}
	}
	if len(errs) > 0 || len(v.demands) == 0 && v.bound == nil {
		return nil, errs
	}
	return v, nil
}

func newDemand(c *column, tag string) demand {
	d := demand{column: c, tag: tag, alone: tag}
	for _, part := range parts(tag) {
		if part == "dive" {
			break
		}
		d.required = d.required || part == "required"
		d.optional = d.optional || part == "omitempty" || part == "omitzero" || part == "omitnil"
	}
	return d
}

// misplaced reports why the column cannot have a tag.
func (d *demand) misplaced() []error {
	switch {
	case d.column.hidden():
		return []error{errors.New("it is hidden, so no answer could tell what is wrong with it")}
	case d.column.generated:
		return []error{errors.New("it is generated, so no request gives it")}
	case d.column.format == fileFormat || d.column.format == filesFormat:
		return []error{errors.New("it holds files, see Config.Files")}
	}
	return nil
}

// check returns an *Error with status 400 that names what the values of r do
// not satisfy.
func (v *validation) check(r *request, update bool) error {
	if v == nil {
		return nil
	}
	f := fieldErrors{at: r.at}
	var bound reflect.Value
	var unfit fieldSet // columns that the bound type cannot hold
	if v.bound != nil {
		bound = v.bound.fill(r, update, func(c *column) {
			unfit.add(c.index)
			f.add(c, "", typeCode, "", "Must be of another type.")
		})
	}
	for i := range v.demands {
		d := &v.demands[i]
		if !unfit.has(d.column.index) && d.counts(r, update) {
			v.judge(&f, d, r, d.applicable(r, update), bound)
		}
	}
	return f.err()
}

// counts reports whether d is judged on r.
func (d *demand) counts(r *request, update bool) bool {
	return known(r, d.column, update) || d.required && !update && absent(r, d.column, update)
}

// applicable returns the part of the tag that counts for r.
func (d *demand) applicable(r *request, update bool) string {
	for _, c := range d.others {
		if !known(r, c, update) {
			return d.alone
		}
	}
	return d.tag
}

// known reports whether r tells what c will hold.
func known(r *request, c *column, update bool) bool {
	if absent(r, c, update) {
		return !update && !c.hasDef && !c.generated && !c.alias
	}
	switch r.values[c.index].(type) {
	case nil, int64, float64, string, []byte:
		return true
	}
	return false // stands for something that is known later
}

// absent reports whether r leaves c out.
func absent(r *request, c *column, update bool) bool {
	return !r.given.has(c.index) && (update || r.values[c.index] == nil)
}

// value returns what the tag is judged on.
func (d *demand) value(r *request, bound reflect.Value) any {
	if d.field != nil {
		return bound.Elem().FieldByIndex(d.field.index).Interface()
	}
	return plainValue(d.column, r.values[d.column.index])
}

// plainType is the type of plainValue, any if that depends on the value.
func plainType(c *column) reflect.Type {
	switch {
	case c.format == jsonFormat:
		return reflect.TypeFor[any]()
	case c.typ == integerType:
		return reflect.TypeFor[int64]()
	case c.typ == realType:
		return reflect.TypeFor[float64]()
	case c.typ == textType:
		return reflect.TypeFor[string]()
	case c.typ == blobType:
		return reflect.TypeFor[[]byte]()
	}
	return reflect.TypeFor[any]()
}

// plainValue returns the value of a column as the validator is to see it. It
// takes a pointer for a value that is there, even if it points to 0.
func plainValue(c *column, value driver.Value) any {
	switch value := value.(type) {
	case int64:
		return &value
	case float64:
		return &value
	case string:
		if c.format != jsonFormat {
			return value
		}
		var document any
		if !modest(value) || json.Unmarshal([]byte(value), &document) != nil {
			return unreadable{}
		}
		if document != nil {
			return document
		}
	case []byte:
		if len(value) > 0 {
			return value
		}
	}
	switch {
	case c.format == jsonFormat:
		return []any(nil)
	case c.typ == integerType:
		return int64(0)
	case c.typ == realType:
		return float64(0)
	case c.typ == blobType:
		return []byte(nil)
	}
	return ""
}

// unreadable is a JSON value that is not judged but refused.
type unreadable struct{}

// Bounds of a JSON value that is judged: of its members and elements, since
// each of them may become an error, of the names of members, in bytes as they
// are written, and of the number of the former times the longest of the
// latter, since each place is spelled out with all names on the way to it.
const (
	maxItems = 1000
	maxName  = 256
	maxSpelt = 128 << 10
)

// modest reports whether the JSON text s keeps to these bounds.
func modest(s string) bool {
	items, longest := 0, 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case ',', '[', '{':
			items++
		case '"':
			begin := i + 1
			for i++; i < len(s) && s[i] != '"'; i++ {
				if s[i] == '\\' {
					i++
				}
			}
			if i < len(s) && strings.HasPrefix(strings.TrimLeft(s[i+1:], " \t\r\n"), ":") {
				longest = max(longest, i-begin)
			}
		}
		if items > maxItems || longest > maxName {
			return false
		}
	}
	return items*longest <= maxSpelt
}

// judge adds to f what is wrong with the value of d in r after tag. bound is
// the zero Value without API.Bind.
func (v *validation) judge(f *fieldErrors, d *demand, r *request, tag string, bound reflect.Value) {
	if d.field != nil && d.field.nested && r.values[d.column.index] == nil {
		switch { // the validator does not look at the tag of a struct
		case d.required:
			f.add(d.column, "", "required", "", sentence("required", "", reflect.Struct, nil))
			return
		case d.optional:
			return
		}
	}
	value := d.value(r, bound)
	if _, bad := value.(unreadable); bad {
		f.add(d.column, "", typeCode, "", "Must be a smaller value.")
		return
	}
	var parent any = struct{}{}
	if bound.IsValid() {
		parent = bound.Interface()
	}
	found, err := v.try(value, parent, tag)
	if err != nil { // a tag met a value of a type that it has no meaning for
		f.add(d.column, "", typeCode, "", "Must be of another type.")
	}
	for _, e := range found {
		if f.full() {
			return
		}
		below := pointerBelow(e.StructNamespace(), reflect.ValueOf(value))
		code := codeOf(e.Tag())
		param := v.shown(code, e.Param(), below == "")
		f.add(d.column, below, code, param, sentence(code, param, e.Kind(), e.Type()))
	}
}

// shown returns what a client is told of the parameter of a tag: names of Go
// are none of its business, those of columns are.
func (v *validation) shown(code, param string, top bool) string {
	switch {
	case strings.Contains(code, "|"), code == "validateFn", code == "unique":
		return ""
	case !compares(code):
		return param
	case !top || !strings.HasSuffix(code, "field"):
		return ""
	}
	names := words(param)
	if len(names) != 1 {
		return ""
	}
	c := v.bound.other(names[0])
	if c == nil || c.hidden() || strings.ContainsAny(names[0], ".[") {
		return ""
	}
	return c.name
}

// try has the validator judge value. The error is a panic of its.
func (v *validation) try(value, parent any, tag string) (found validator.ValidationErrors, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	if err := v.checker.VarWithValue(value, parent, tag); err != nil && !errors.As(err, &found) {
		return nil, err
	}
	return found, nil
}

// fieldErrors collects what is wrong with a request.
type fieldErrors struct {
	at     string // JSON Pointer to the record
	fields []FieldError
	texts  []string
}

// How many errors a client is told of: as fields, and in the text.
const (
	maxFieldErrors = 64
	maxFieldTexts  = 8
)

const typeCode = "type"

func (f *fieldErrors) full() bool { return len(f.fields) == maxFieldErrors }

// add adds an error of c or, with the JSON Pointer below, of something in it.
func (f *fieldErrors) add(c *column, below, code, param, detail string) {
	e := FieldError{Pointer: f.at + "/" + escapePointer(c.name) + below, Code: code, Detail: detail}
	if f.full() || slices.Contains(f.fields, e) {
		return
	}
	f.fields = append(f.fields, e)
	if len(f.texts) == maxFieldTexts {
		return
	}
	text := "invalid " + c.name + below + ": " + code
	if param != "" {
		text += "=" + param
	}
	f.texts = append(f.texts, text)
}

func (f *fieldErrors) err() error {
	if len(f.fields) == 0 {
		return nil
	}
	return &Error{Status: http.StatusBadRequest, Text: strings.Join(f.texts, "; "), Fields: f.fields}
}

// escapePointer escapes a name for a JSON Pointer (RFC 6901, section 3).
func escapePointer(name string) string {
	return strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
}
