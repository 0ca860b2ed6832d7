package records

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/bedplate/bedplate/internal/rule"
)

// tableFields is how the fields of a struct type hold the records of a plan.
type tableFields struct {
	plan   *plan
	fields []tableField
	output []output // the columns of fields, in their order

	readOne, readAny *statement // as those of plan
}

// tableField is a field that holds a column.
type tableField struct {
	index    []int
	column   *column
	optional bool  // omitempty or omitzero: the zero value is not written
	codec    codec // not for files
}

// newTableFields matches the fields of t with what p shows. It returns all
// mistakes.
func newTableFields(t reflect.Type, p *plan) (*tableFields, error) {
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("%s is not a struct", t)
	}
	b := &tableFields{plan: p}
	taken := map[*column]string{}
	var errs []error
	mistakes := eachField(t, nil, func(f reflect.StructField, index []int) {
		if _, ok := jsonName(f); !ok || !f.IsExported() {
			return
		}
		field, err := newTableField(f, index, p)
		if err == nil && taken[field.column] != "" {
			err = fmt.Errorf("column %q is field %s already", field.column.name, taken[field.column])
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("field %s: %w", f.Name, err))
			return
		}
		taken[field.column] = f.Name
		b.fields = append(b.fields, field)
		b.output = append(b.output, output{column: field.column})
	})
	errs = append(errs, mistakes...)
	if len(b.fields) == 0 && len(errs) == 0 {
		errs = append(errs, fmt.Errorf("%s has no field for a column", t))
	}
	b.readOne, b.readAny = b.readStatement(p.read), b.readStatement(nil)
	return b, errors.Join(errs...)
}

// readStatement selects one record if granting, if not nil, grants it.
func (b *tableFields) readStatement(granting *rule.Rule) *statement {
	var sql builder
	sql.add("SELECT ")
	addOutput(&sql, b.output)
	sql.add(" FROM ", b.plan.table.sql(), ` AS "_ROW_"`)
	sql.byKey(b.plan.table, granting, nil)
	return sql.statement()
}

func newTableField(f reflect.StructField, index []int, p *plan) (tableField, error) {
	name, _ := jsonName(f)
	_, options, _ := strings.Cut(f.Tag.Get("json"), ",")
	field := tableField{index: index}
	field.optional = slices.ContainsFunc(strings.Split(options, ","), func(o string) bool { return o == "omitempty" || o == "omitzero" })
	for i := range p.output {
		if c := p.output[i].column; c.name == name || name == f.Name && strings.EqualFold(c.name, name) {
			field.column = c
			break
		}
	}
	c := field.column
	switch {
	case c == nil:
		return field, fmt.Errorf("no column %q", name) // also if it is hidden or excluded
	case c.format == fileFormat || c.format == filesFormat:
		if !holdsFiles(f.Type, c) {
			return field, fmt.Errorf("a %s cannot hold column %q of files", f.Type, name)
		}
		return field, nil
	}
	var err error
	field.codec, err = newCodec(f.Type, c)
	return field, err
}

func (f *tableField) hasFiles() bool {
	return f.column.format == fileFormat || f.column.format == filesFormat
}

// load sets v, which is addressable, to a row of output.
func (b *tableFields) load(v reflect.Value, row []driver.Value) error {
	for i := range b.fields {
		f := &b.fields[i]
		dst := v.FieldByIndex(f.index)
		if f.hasFiles() {
			loadFiles(dst, f.column, row[i])
			continue
		}
		if err := f.codec.load(dst, row[i]); err != nil {
			return fmt.Errorf("column %q: %w", f.column.name, err)
		}
	}
	return nil
}

// request returns the request to create v, or to update the columns, if there
// are any, or else all.
func (b *tableFields) request(user caller, v reflect.Value, op Permission, columns []string) (*request, error) {
	p := b.plan
	r := p.newRequest(user)
	for _, name := range columns {
		i := slices.IndexFunc(b.fields, func(f tableField) bool { return f.column.name == name })
		switch {
		case i < 0:
			return nil, fmt.Errorf("%s has no field for column %q", v.Type(), name)
		case b.fields[i].column == p.table.key || b.fields[i].column.generated:
			return nil, fmt.Errorf("column %q cannot be updated", name)
		}
	}
	var wrong fieldErrors
	var causes []error
	for i := range b.fields {
		f := &b.fields[i]
		c, value := f.column, v.FieldByIndex(f.index)
		named := slices.Contains(columns, c.name)
		switch {
		case c.generated, len(columns) > 0 && !named, c == p.table.key && (op == Update || value.IsZero()), f.optional && !named && empty(value):
			continue
		case f.hasFiles():
			if err := p.storeFiles(r, c, value, named); err != nil {
				return nil, err
			}
			continue
		}
		stored, err := f.codec.store(value)
		if err == nil && c == p.table.key && !addressable(stored) {
			err = errors.New("key is too long")
		}
		if err != nil {
			wrong.add(c, "", typeCode, "", "Must be of another type.")
			causes = append(causes, fmt.Errorf("column %q: %w", c.name, err))
			continue
		}
		r.values[c.index] = stored
		r.given.add(c.index)
	}
	var refused *Error
	if errors.As(wrong.err(), &refused) {
		return nil, refused.because(errors.Join(causes...))
	}
	return r, nil
}

// empty reports whether a field that may be left out is.
func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		return v.Len() == 0
	}
	return v.IsZero()
}
