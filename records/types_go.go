package records

import (
	"fmt"
	goformat "go/format"
	"strconv"
	"strings"
	"unicode"
)

// goTypes returns declarations for programs.
func (c *catalog) goTypes() ([]byte, error) {
	g := &goWriter{}
	taken := names{}
	for _, p := range c.plans() {
		g.api(p, taken.unique(exported(p.api.Name)))
	}
	var b strings.Builder
	b.WriteString("// Code generated from the record APIs. DO NOT EDIT.\n\n// Package model holds the records of the record APIs.\npackage model\n")
	if imports := g.imports(); len(imports) > 0 {
		b.WriteString("\nimport (\n" + strings.Join(imports, "\n\n") + "\n)\n")
	}
	b.WriteString(g.b.String())
	text, err := goformat.Source([]byte(b.String()))
	if err != nil {
		return nil, fmt.Errorf("records: types: %w", err)
	}
	return text, nil
}

type goWriter struct {
	b       strings.Builder
	json    bool // whether encoding/json is imported
	records bool // whether this package is
}

// imports returns what the declarations need, as it is written in groups.
func (g *goWriter) imports() (paths []string) {
	if g.json {
		paths = append(paths, `"encoding/json"`)
	}
	if g.records {
		paths = append(paths, `"github.com/bedplate/bedplate/records"`)
	}
	return paths
}

func (g *goWriter) api(p *plan, name string) {
	fmt.Fprintf(&g.b, "\n// %s is a record of the API %s.\ntype %s struct {\n", name, p.api.Name, name)
	taken := names{}
	for _, c := range p.fields(selectMode, true) {
		if !taggable(c.name) {
			fmt.Fprintf(&g.b, "// no field for %q, which no tag can name\n", c.name)
			continue
		}
		options := ""
		if c.generated || c == p.table.key && !p.required(c, insertMode) {
			options = ",omitzero" // left to the database
		} else if c.name == "-" {
			options = ","
		}
		tag := "json:" + strconv.Quote(c.name+options)
		fmt.Fprintf(&g.b, "%s %s %s\n", taken.unique(exported(c.name)), g.column(c, p.nullable(c)), quoteTag(tag))
	}
	g.b.WriteString("}\n")
}

// column returns the type of a column's values.
func (g *goWriter) column(c *column, nullable bool) string {
	switch c.format {
	case jsonFormat, geoFormat:
		g.json = true
		return "json.RawMessage"
	case fileFormat:
		g.records = true
		return "*records.File"
	case filesFormat:
		g.records = true
		return "[]records.File"
	}
	kind := ""
	switch c.typ {
	case integerType:
		kind = "int64"
	case realType:
		kind = "float64"
	case textType:
		kind = "string"
	case blobType:
		return "[]byte"
	default:
		return "any"
	}
	if nullable {
		return "*" + kind
	}
	return kind
}

// taggable reports whether a json tag can hold a name.
func taggable(name string) bool {
	for _, c := range name {
		if !strings.ContainsRune("!#$%&()*+-./:;<=>?@[]^_{|}~ ", c) && !unicode.IsLetter(c) && !unicode.IsDigit(c) {
			return false
		}
	}
	return name != ""
}

// quoteTag returns a tag as it is written behind a field.
func quoteTag(tag string) string {
	if strconv.CanBackquote(tag) {
		return "`" + tag + "`"
	}
	return strconv.Quote(tag)
}
