package records

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// parts splits a tag at its commas.
func parts(tag string) []string {
	if tag == "" {
		return nil
	}
	return strings.Split(tag, ",")
}

// codeOf returns the names in one part of a tag, without the parameters.
func codeOf(part string) string {
	names := strings.Split(part, "|")
	for i, n := range names {
		names[i], _, _ = strings.Cut(n, "=")
	}
	return strings.Join(names, "|")
}

// compares reports whether the tag of that name compares with other fields.
func compares(name string) bool {
	return strings.HasSuffix(name, "field") || strings.HasPrefix(name, "field") ||
		strings.HasPrefix(name, "required_") || strings.HasPrefix(name, "excluded_") || name == "skip_unless"
}

// ordered reports whether a part of a tag compares values of one type.
func ordered(part string) bool {
	name := codeOf(part)
	return strings.HasSuffix(name, "field") && !strings.HasSuffix(name, "_field") && !strings.Contains(name, "|")
}

// comparedWith returns the fields that a part of a tag compares with.
func comparedWith(part string) (names []string) {
	for _, one := range strings.Split(part, "|") {
		name, param, _ := strings.Cut(one, "=")
		if !compares(name) {
			continue
		}
		given := words(param)
		step := 1
		switch name {
		case "required_if", "required_unless", "excluded_if", "excluded_unless", "skip_unless":
			step = 2 // names and values
		}
		for i := 0; i < len(given); i += step {
			names = append(names, given[i])
		}
		if len(given) == 0 {
			names = append(names, "")
		}
	}
	return names
}

// words splits a parameter at its spaces; what is between ' is one word.
func words(param string) (all []string) {
	for param = strings.TrimLeft(param, " "); param != ""; param = strings.TrimLeft(param, " ") {
		var word string
		if rest, ok := strings.CutPrefix(param, "'"); ok {
			word, param, _ = strings.Cut(rest, "'")
		} else {
			word, param, _ = strings.Cut(param, " ")
		}
		all = append(all, word)
	}
	return all
}

// outward reports whether the tag of that name asks the file system, of which
// a client would learn something.
func outward(name string) bool {
	switch name {
	case "file", "filepath", "dir", "dirpath", "image", "uds_exists":
		return true
	}
	return false
}

// measures reports whether the tag of that name has a meaning for a number
// or, if octets, for bytes. Most others are for text, and would refuse all.
func measures(name string, octets bool) bool {
	switch name {
	case "required", "isdefault", "len", "min", "max", "eq", "ne", "lt", "lte", "gt", "gte", "validateFn":
		return true
	case "oneof", "noneof", "latitude", "longitude", "numeric", "number", "boolean", "port", "luhn_checksum":
		return !octets
	}
	return compares(name)
}

// mistakes returns what is wrong with a tag for values of type t, which are in
// a struct of type parent or, if that is nil, in none.
func (v *validation) mistakes(tag string, t, parent reflect.Type) (errs []error) {
	fail := func(part, format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		errs = append(errs, fmt.Errorf("tag %q: %s", part, strings.ReplaceAll(text, " on field ''", ""))) // the field is known
	}
	at := t // the type that the part is about; nil: unknown
	var outer []reflect.Type
	for _, part := range parts(tag) {
		switch part {
		case "dive":
			at = indirect(at)
			outer = append(outer, at)
			switch at.Kind() {
			case reflect.Slice, reflect.Array, reflect.Map:
				at = at.Elem()
			case reflect.Interface:
			default:
				fail(part, "a %s has no elements", at)
				return errs
			}
			continue
		case "keys":
			if len(outer) > 0 && outer[len(outer)-1].Kind() == reflect.Map {
				at = outer[len(outer)-1].Key()
			}
			continue
		case "endkeys":
			if len(outer) > 0 && outer[len(outer)-1].Kind() == reflect.Map {
				at = outer[len(outer)-1].Elem()
			}
			continue
		case "omitempty", "omitnil", "omitzero", "structonly", "nostructlevel":
			continue
		}
		if err := v.partMistake(part, at, parent); err != nil {
			fail(part, "%v", err)
		}
	}
	if len(errs) == 0 {
		// What is wrong with the tag as a whole: it is read before anything else.
		if err := v.tries(tag, t, parent); err != nil {
			fail(tag, "%v", err)
		}
	}
	return errs
}

func (v *validation) partMistake(part string, t, parent reflect.Type) error {
	kind := indirect(t).Kind()
	octets := kind == reflect.Slice && indirect(t).Elem().Kind() == reflect.Uint8
	scalar := octets || reflect.Bool <= kind && kind <= reflect.Float64
	for _, one := range strings.Split(part, "|") {
		name, _, _ := strings.Cut(one, "=")
		switch {
		case outward(name):
			return fmt.Errorf("%s asks the file system", name)
		case parent == nil && compares(name):
			return fmt.Errorf("%s compares fields, which Bind can do", name)
		case name == "unique" && (scalar || kind == reflect.String):
			return fmt.Errorf("%s is about elements, and a %s has none", name, t)
		case scalar && !measures(name, octets) && v.knows(name) && !t.Implements(reflect.TypeFor[fmt.Stringer]()):
			return fmt.Errorf("%s has no meaning for a %s", name, t)
		}
	}
	return v.tries(part, t, parent)
}

// knows reports whether there is a tag of that name.
func (v *validation) knows(name string) bool {
	_, err := v.try("", struct{}{}, name)
	return err == nil || !strings.HasPrefix(err.Error(), "Undefined")
}

// tries returns an error if a tag panics on all samples of t.
func (v *validation) tries(tag string, t, parent reflect.Type) (err error) {
	var in any = struct{}{}
	if parent != nil {
		in = reflect.New(parent).Interface()
	}
	for _, s := range samples(t, 3) {
		if _, err = v.try(s.Interface(), in, tag); err == nil {
			return nil
		}
	}
	return err
}

// structMistakes returns what is wrong with the tags in a struct type and in
// those below it.
func (v *validation) structMistakes(t reflect.Type, seen map[reflect.Type]bool) (errs []error) {
	return v.walk(t, seen, true)
}

func (v *validation) walk(t reflect.Type, seen map[reflect.Type]bool, top bool) (errs []error) {
	t = indirect(t)
	switch t.Kind() {
	case reflect.Slice, reflect.Array:
		return v.walk(t.Elem(), seen, false)
	case reflect.Map:
		return append(v.walk(t.Key(), seen, false), v.walk(t.Elem(), seen, false)...)
	case reflect.Struct:
	default:
		return nil
	}
	if seen[t] || !isNested(t) {
		return nil
	}
	seen[t] = true
	visit := func(f reflect.StructField, _ []int) {
		if !f.IsExported() {
			return
		}
		tag := f.Tag.Get("validate")
		if tag != "" && tag != "-" {
			mistakes := v.mistakes(tag, f.Type, t)
			if !top && slices.ContainsFunc(parts(tag), func(p string) bool { return strings.HasSuffix(codeOf(p), "csfield") }) {
				mistakes = append(mistakes, fmt.Errorf("tag %q: only fields that are columns compare across structs", tag))
			}
			for _, err := range mistakes {
				errs = append(errs, fmt.Errorf("field %s of %s: %w", f.Name, t, err))
			}
		}
		errs = append(errs, v.walk(f.Type, seen, false)...)
	}
	embedded := eachField(t, nil, visit)
	if top {
		return errs // bind has told of these
	}
	return append(errs, embedded...)
}

// samples returns values of t that are not zero, to try tags on.
func samples(t reflect.Type, depth int) []reflect.Value {
	if t.Kind() == reflect.Interface {
		var all []reflect.Value
		for _, s := range []any{"1", int64(1), 1.0, []byte("1"), []any{}, map[string]any{}} {
			if t.NumMethod() == 0 {
				all = append(all, reflect.ValueOf(s))
			}
		}
		return all
	}
	return []reflect.Value{sample(t, depth)}
}

func sample(t reflect.Type, depth int) reflect.Value {
	v := reflect.New(t).Elem()
	if depth == 0 {
		return v
	}
	switch t.Kind() {
	case reflect.String:
		v.SetString("1")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		p := reflect.New(t.Elem())
		p.Elem().Set(sample(t.Elem(), depth-1))
		v.Set(p)
	case reflect.Slice:
		v.Set(reflect.Append(v, sample(t.Elem(), depth-1)))
	case reflect.Map:
		v.Set(reflect.MakeMap(t))
		v.SetMapIndex(sample(t.Key(), depth-1), sample(t.Elem(), depth-1))
	case reflect.Struct:
		if t.ConvertibleTo(reflect.TypeFor[time.Time]()) {
			v.Set(reflect.ValueOf(time.Unix(1, 0)).Convert(t))
		}
	default:
		switch {
		case v.CanInt():
			v.SetInt(1)
		case v.CanUint():
			v.SetUint(1)
		case v.CanFloat():
			v.SetFloat(1)
		}
	}
	return v
}
