package records

import (
	"net/url"
	"slices"
	"sort"

	"github.com/bedplate/bedplate/internal/sqltoken"
)

// columnSchema is what the CHECK of a JSON column says about its values.
type columnSchema struct {
	name string // of a schema that the database knows, or
	text string // a schema
}

// namedSchema reads the arguments of jsonschema('name', column).
func namedSchema(args []sqltoken.Token) columnSchema {
	if len(args) == 0 {
		return columnSchema{}
	}
	return columnSchema{name: args[0].Value()}
}

// inlineSchema reads the arguments of jsonschema_matches('{…}', column).
func inlineSchema(args []sqltoken.Token) columnSchema {
	if len(args) == 0 {
		return columnSchema{}
	}
	return columnSchema{text: args[0].Value()}
}

// describe returns the schema of p, to be placed where base refers to, which
// is a URI fragment.
func (c *catalog) describe(p *plan, mode schemaMode, base string, visible func(*plan) bool) object {
	d := &describer{catalog: c, mode: mode, base: base, visible: visible, defs: object{}}
	schema := d.record(p, "", true)
	schema["title"] = p.api.Name
	if len(d.defs) > 0 {
		schema["$defs"] = d.defs
	}
	return schema
}

// A describer makes one schema.
type describer struct {
	*catalog
	mode    schemaMode
	base    string
	visible func(*plan) bool
	defs    object
}

// record describes the records of p. Names of definitions begin with prefix.
// With include it has what a request can ask to include, as it is on the first
// level of a response.
func (d *describer) record(p *plan, prefix string, include bool) object {
	properties, required := object{}, []string{}
	for _, c := range p.fields(d.mode, d.files) {
		var value any
		if e := p.expand[c.name]; e != nil && include && d.mode == selectMode {
			value = d.expandable(p, e)
		} else {
			value = d.column(c, prefix)
		}
		if p.nullable(c) {
			value = orNull(value)
		}
		properties[c.name] = value
		if p.required(c, d.mode) {
			required = append(required, c.name)
		}
	}
	if include && d.mode == selectMode {
		for _, b := range p.api.Back {
			properties[b.Name] = d.back(p, b)
		}
	}
	return object{"type": "object", "properties": properties, "required": required}
}

// fields returns the columns that a schema shows, by name. Without a place for
// files nobody can write file columns.
func (p *plan) fields(mode schemaMode, files bool) []*column {
	var columns []*column
	if mode == selectMode {
		for _, o := range p.output {
			columns = append(columns, o.column)
		}
		return columns
	}
	for _, c := range p.input {
		if c.hidden() || c.generated || !files && (c.format == fileFormat || c.format == filesFormat) {
			continue
		}
		columns = append(columns, c)
	}
	sort.Slice(columns, func(i, j int) bool { return columns[i].name < columns[j].name })
	return columns
}

// nullable reports whether a value of c can be null. Records have a key.
func (p *plan) nullable(c *column) bool { return !c.notNull && c != p.table.key }

// required reports whether a record must have a value of c.
func (p *plan) required(c *column, mode schemaMode) bool {
	switch mode {
	case insertMode:
		return !p.nullable(c) && !c.hasDef && !c.alias && !slices.Contains(p.owners, c)
	case selectMode:
		return !p.nullable(c)
	}
	return false
}

// orNull extends a schema by null.
func orNull(schema any) any {
	if o, ok := schema.(object); ok {
		switch t := o["type"].(type) {
		case string:
			o["type"] = []string{"null", t}
			return o
		case []string:
			o["type"] = append([]string{"null"}, t...)
			return o
		}
		if len(o) == 0 {
			return o
		}
	}
	return object{"anyOf": []any{object{"type": "null"}, schema}}
}

// column describes the values of a column other than null.
func (d *describer) column(c *column, prefix string) any {
	switch c.format {
	case jsonFormat:
		return d.custom(c, prefix)
	case geoFormat:
		return d.shared("_geojson_geometry", geometrySchema)
	case fileFormat:
		return d.file()
	case filesFormat:
		return object{"type": "array", "items": d.file()}
	}
	switch c.typ {
	case integerType:
		return object{"type": "integer"}
	case realType:
		return object{"type": "number"}
	case textType, blobType:
		return object{"type": "string"}
	case anyType:
		if d.mode != selectMode {
			bytes := object{"type": "integer", "minimum": 0, "maximum": 255}
			return object{"type": []string{"number", "string", "boolean", "array"}, "items": bytes}
		}
	}
	if d.mode != selectMode {
		return object{"type": []string{"number", "string", "boolean"}}
	}
	return object{"type": []string{"number", "string"}}
}

// define adds a definition and returns where it is. The schema is made by
// build, which is told that.
func (d *describer) define(name string, build func(ref string) any) object {
	for d.defs[name] != nil { // a column can have any name
		name += "_"
	}
	d.defs[name] = true
	ref := d.base + "/$defs/" + url.PathEscape(escapePointer(name))
	d.defs[name] = build(ref)
	return object{"$ref": ref}
}

// shared is like define for what several columns have in common. Its name
// begins with an underscore, as that of no visible column.
func (d *describer) shared(name string, build func(ref string) any) object {
	if d.defs[name] != nil {
		return object{"$ref": d.base + "/$defs/" + name}
	}
	return d.define(name, build)
}

// custom describes a JSON column: by its own schema, if that can be told.
func (d *describer) custom(c *column, prefix string) object {
	schema, ok := d.customSchema(c)
	if !ok {
		return object{}
	}
	return d.define(prefix+c.name, func(ref string) any { return schema.at(ref) })
}

// expandable describes a foreign key that may be expanded.
func (d *describer) expandable(p *plan, e *expansion) any {
	name := p.api.Name + "." + e.column.name
	return d.define(name, func(string) any {
		return object{
			"type":       "object",
			"properties": object{"id": d.column(e.column, ""), "data": d.expanded(e, name+".")},
			"required":   []string{"id"},
		}
	})
}

// expanded describes the row that a foreign key refers to: as the APIs show it
// that it may come from, but not those that the reader may not know.
func (d *describer) expanded(e *expansion, prefix string) any {
	if e.plain != nil {
		return d.record(e.plain, prefix, false)
	}
	var all []any
	for _, q := range e.apis {
		if !d.visible(q) {
			return object{"type": "object"}
		}
		all = append(all, d.record(q, prefix, false))
	}
	switch len(all) {
	case 0:
		return object{"type": "object"}
	case 1:
		return all[0]
	}
	return object{"anyOf": all}
}

// back describes the rows that refer to a row.
func (d *describer) back(p *plan, b BackRelation) any {
	return d.define(p.api.Name+"."+b.Name, func(ref string) any {
		record := object{"type": "object"}
		if q := d.byName[b.API]; q != nil && d.visible(q) {
			record = d.record(q, p.api.Name+"."+b.Name+".", false)
		}
		return object{
			"type":       "object",
			"properties": object{"records": object{"type": "array", "items": record}, "more": object{"type": "boolean"}},
			"required":   []string{"records"},
		}
	})
}

// file describes one file: what is known of it or, in a request, its content.
// An update may also leave a file as it is.
func (d *describer) file() object {
	switch d.mode {
	case insertMode:
		return d.shared("_upload", uploadSchema)
	case updateMode:
		return object{"anyOf": []any{d.shared("_upload", uploadSchema), d.shared("_file", fileSchema)}}
	}
	return d.shared("_file", fileSchema)
}

func fileSchema(string) any {
	text := object{"type": []string{"string", "null"}}
	return object{
		"title": "FileUpload", "type": "object", "additionalProperties": false,
		"properties": object{
			"original_filename": text, "filename": object{"type": "string"}, "content_type": text, "mime_type": text,
		},
	}
}

func uploadSchema(string) any {
	text := object{"type": "string"}
	return object{
		"type": "object", "additionalProperties": false, "required": []string{"data"},
		"properties": object{
			"name": text, "filename": text, "content_type": text,
			"data": object{"type": "string", "description": "base64, with padding"},
		},
	}
}

// geometrySchema describes a geometry object of GeoJSON (RFC 7946, section 3.1).
func geometrySchema(ref string) any {
	kinds := []string{"Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon"}
	return object{
		"type": "object",
		"oneOf": []any{
			object{
				"properties": object{"type": object{"enum": kinds}, "coordinates": object{"type": "array"}},
				"required":   []string{"type", "coordinates"},
			},
			object{
				"properties": object{
					"type":       object{"const": "GeometryCollection"},
					"geometries": object{"type": "array", "items": object{"$ref": ref}},
				},
				"required": []string{"type", "geometries"},
			},
		},
	}
}
