package records

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/bedplate/bedplate/internal/openapi"
)

// typeScript returns declarations for clients.
func (c *catalog) typeScript() []byte {
	t := &tsWriter{
		catalog: c, names: map[*plan]string{}, included: map[*plan]string{}, values: map[*column]string{},
		taken: names{tsGeometry: true, tsFile: true, tsUpload: true},
	}
	for _, p := range c.plans() {
		t.names[p] = t.taken.unique(exported(p.api.Name), "Insert", "Update")
	}
	t.line("// Code generated from the record APIs. DO NOT EDIT.")
	for _, p := range c.plans() {
		t.api(p)
	}
	for len(t.later) > 0 { // some refer to further ones
		declare := t.later[0]
		t.later = t.later[1:]
		declare()
	}
	t.helpers()
	return []byte(t.b.String())
}

// Types that records refer to.
const (
	tsGeometry = "Geometry"
	tsFile     = "FileInfo"
	tsUpload   = "FileUpload"
)

type tsWriter struct {
	*catalog
	b     strings.Builder
	taken names
	names map[*plan]string // of the APIs

	included map[*plan]string   // names of records in other records, if they look different there
	values   map[*column]string // names of the values of JSON columns
	later    []func()           // declares these

	geo   bool // whether tsGeometry is needed
	files bool // whether tsFile and tsUpload are
}

func (t *tsWriter) line(parts ...string) {
	for _, p := range parts {
		t.b.WriteString(p)
	}
	t.b.WriteByte('\n')
}

func (t *tsWriter) api(p *plan) {
	name := t.names[p]
	t.line("\n// A record of the API ", p.api.Name, ".")
	t.line("export interface ", name, " {")
	for _, c := range p.fields(selectMode, true) {
		t.line("  ", tsKey(c.name), ": ", t.read(p, c), ";")
	}
	for _, b := range p.api.Back {
		of := "unknown"
		if q := t.byName[b.API]; q != nil {
			of = t.flat(q)
		}
		t.line("  ", tsKey(b.Name), "?: { records: ", tsArray(of), "; more?: boolean };")
	}
	t.line("}")
	if p.table.view {
		return
	}
	for _, mode := range []schemaMode{insertMode, updateMode} {
		t.line("\nexport interface ", name, string(mode), " {")
		for _, c := range p.fields(mode, true) {
			optional := "?"
			if p.required(c, mode) {
				optional = ""
			}
			t.line("  ", tsKey(c.name), optional, ": ", tsOrNull(t.column(p, c, mode), p.nullable(c)), ";")
		}
		t.line("}")
	}
}

// read returns the type of a column as it is read.
func (t *tsWriter) read(p *plan, c *column) string {
	e := p.expand[c.name]
	if e == nil {
		return tsOrNull(t.column(p, c, selectMode), p.nullable(c))
	}
	var rows []string
	if e.plain != nil {
		rows = append(rows, t.flat(e.plain))
	}
	for _, q := range e.apis {
		rows = append(rows, t.flat(q))
	}
	return tsOrNull("{ id: "+t.column(p, c, selectMode)+"; data?: "+tsUnion(rows)+" }", p.nullable(c))
}

// flat returns the type of a record that is included in another one.
func (t *tsWriter) flat(p *plan) string {
	if name := t.names[p]; name != "" && len(p.expand) == 0 && len(p.api.Back) == 0 {
		return name
	}
	if name := t.included[p]; name != "" {
		return name
	}
	name := t.taken.unique(exported(t.of(p)) + "Included")
	t.included[p] = name
	t.later = append(t.later, func() {
		t.line("\nexport interface ", name, " {")
		for _, c := range p.fields(selectMode, true) {
			t.line("  ", tsKey(c.name), ": ", tsOrNull(t.column(p, c, selectMode), p.nullable(c)), ";")
		}
		t.line("}")
	})
	return name
}

// of returns what the names of the parts of p begin with.
func (t *tsWriter) of(p *plan) string {
	if name := t.names[p]; name != "" {
		return name
	}
	return p.table.name
}

// value returns the type of a JSON column.
func (t *tsWriter) value(p *plan, c *column) string {
	if name := t.values[c]; name != "" {
		return name
	}
	schema, ok := t.customSchema(c)
	if !ok {
		return "unknown"
	}
	kind := schema.typeScript()
	if !strings.Contains(kind, "{") {
		return kind
	}
	name := t.taken.unique(exported(t.of(p)) + exported(c.name))
	t.values[c] = name
	t.later = append(t.later, func() { t.line("\nexport type ", name, " = ", kind, ";") })
	return name
}

// column returns the type of the values of a column other than null.
func (t *tsWriter) column(p *plan, c *column, mode schemaMode) string {
	switch c.format {
	case jsonFormat:
		return t.value(p, c)
	case geoFormat:
		t.geo = true
		return tsGeometry
	case fileFormat:
		return t.file(mode)
	case filesFormat:
		return tsArray(t.file(mode))
	}
	switch c.typ {
	case integerType, realType:
		return "number"
	case textType, blobType:
		return "string"
	case anyType:
		if mode != selectMode {
			return "number | string | boolean | number[]"
		}
	}
	if mode != selectMode {
		return "number | string | boolean"
	}
	return "number | string"
}

func (t *tsWriter) file(mode schemaMode) string {
	t.files = true
	switch mode {
	case insertMode:
		return tsUpload
	case updateMode:
		return tsUpload + " | " + tsFile
	}
	return tsFile
}

// helpers declares what the records refer to.
func (t *tsWriter) helpers() {
	if t.geo {
		t.line("\n// A geometry of GeoJSON (RFC 7946).")
		t.line("export type ", tsGeometry, " =")
		t.line(`  | { type: "Point" | "MultiPoint" | "LineString" | "MultiLineString" | "Polygon" | "MultiPolygon"; coordinates: unknown[] }`)
		t.line(`  | { type: "GeometryCollection"; geometries: `, tsGeometry, `[] };`)
	}
	if t.files {
		t.line("\n// A file that is stored.")
		t.line("export interface ", tsFile, " {")
		t.line("  filename: string;")
		t.line("  original_filename?: string | null;")
		t.line("  content_type?: string | null;")
		t.line("  mime_type?: string | null;")
		t.line("}")
		t.line("\n// A file to store; data is base64, with padding.")
		t.line("export interface ", tsUpload, " {")
		t.line("  name?: string;")
		t.line("  filename?: string;")
		t.line("  content_type?: string;")
		t.line("  data: string;")
		t.line("}")
	}
}

// tsKey returns a name as a member is declared.
func tsKey(name string) string {
	plain := name != "" && (name[0] < '0' || name[0] > '9')
	for i := range len(name) {
		b := name[i]
		plain = plain && (b == '_' || b >= '0' && b <= '9' || b|0x20 >= 'a' && b|0x20 <= 'z')
	}
	if plain {
		return name
	}
	return tsLiteral(name)
}

// tsLiteral returns v, a scalar of JSON, as a type.
func tsLiteral(v any) string {
	text, err := openapi.Encode(v)
	if err != nil {
		return "unknown"
	}
	return string(text)
}

func tsOrNull(kind string, nullable bool) string {
	if !nullable || kind == "unknown" || kind == "null" || strings.HasSuffix(kind, " | null") {
		return kind
	}
	return kind + " | null"
}

func tsArray(of string) string {
	for i := range len(of) {
		if b := of[i]; b != '_' && (b < '0' || b > '9') && (b|0x20 < 'a' || b|0x20 > 'z') {
			return "(" + of + ")[]"
		}
	}
	return of + "[]"
}

// typeScript returns a type that every valid value has.
func (c *customSchema) typeScript() string {
	t := &tsSchema{c: c, left: maxTypeParts, open: map[string]bool{}}
	return t.of(c.root)
}

// maxTypeParts bounds how much of a schema goes into a type; the rest is
// unknown.
const maxTypeParts = 500

type tsSchema struct {
	c    *customSchema
	left int
	open map[string]bool // what is being followed
}

func (t *tsSchema) of(schema any) string {
	if t.left--; t.left < 0 {
		return "unknown"
	}
	o, ok := schema.(object)
	if !ok {
		if schema == false {
			return "never"
		}
		return "unknown"
	}
	var all []string
	add := func(kind string) {
		if kind != "unknown" && !slices.Contains(all, kind) {
			all = append(all, kind)
		}
	}
	if ref, ok := o["$ref"].(string); ok {
		add(t.ref(ref))
	}
	list, isEnum := o["enum"].([]any)
	if v, ok := o["const"]; ok {
		list, isEnum = []any{v}, true
	}
	if isEnum {
		add(tsEnum(list))
	} else {
		add(t.kinds(o))
	}
	for _, keyword := range []string{"anyOf", "oneOf"} {
		if list, ok := o[keyword].([]any); ok {
			var kinds []string
			for _, schema := range list {
				kinds = append(kinds, t.of(schema))
			}
			add(tsUnion(kinds))
		}
	}
	list, _ = o["allOf"].([]any)
	for _, schema := range list {
		add(t.of(schema))
	}
	switch len(all) {
	case 0:
		return "unknown"
	case 1:
		return all[0]
	}
	return "(" + strings.Join(all, ") & (") + ")"
}

func (t *tsSchema) ref(ref string) string {
	place, _ := t.c.resolve(ref)
	if t.open[place] {
		return "unknown" // it is part of itself
	}
	t.open[place] = true
	defer delete(t.open, place)
	return t.of(t.c.lookup(place))
}

// lookup returns what is at a JSON Pointer.
func (c *customSchema) lookup(place string) any {
	at := c.root
	for token := range strings.SplitSeq(strings.TrimPrefix(place, "/"), "/") {
		if place == "" {
			break
		}
		token = strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~")
		switch v := at.(type) {
		case object:
			at = v[token]
		case []any:
			if i, err := strconv.Atoi(token); err == nil && i >= 0 && i < len(v) {
				at = v[i]
			}
		}
	}
	return at
}

func tsEnum(list []any) string {
	var kinds []string
	for _, v := range list {
		switch v.(type) {
		case object, []any:
			return "unknown"
		}
		kinds = append(kinds, tsLiteral(v))
	}
	return tsUnion(kinds)
}

// tsUnion returns the union of kinds, with null behind the others.
func tsUnion(kinds []string) string {
	if len(kinds) == 0 || slices.Contains(kinds, "unknown") {
		return "unknown"
	}
	slices.Sort(kinds)
	kinds = slices.Compact(kinds)
	if i := slices.Index(kinds, "null"); i >= 0 {
		kinds = append(slices.Delete(kinds, i, i+1), "null")
	}
	return strings.Join(kinds, " | ")
}

// kinds returns the union of what type lists.
func (t *tsSchema) kinds(o object) string {
	var list []any
	switch v := o["type"].(type) {
	case string:
		list = []any{v}
	case []any:
		list = v
	}
	var kinds []string
	for _, v := range list {
		switch v {
		case "integer", "number":
			kinds = append(kinds, "number")
		case "string", "boolean", "null":
			kinds = append(kinds, v.(string))
		case "array":
			kinds = append(kinds, t.array(o))
		case "object":
			kinds = append(kinds, t.object(o))
		default:
			return "unknown"
		}
	}
	return tsUnion(kinds)
}

func (t *tsSchema) array(o object) string {
	items, ok := o["items"]
	if _, prefixed := o["prefixItems"]; !ok || prefixed {
		return "unknown[]"
	}
	return tsArray(t.of(items))
}

func (t *tsSchema) object(o object) string {
	properties, _ := o["properties"].(object)
	required, _ := o["required"].([]any)
	var members []string
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		optional := "?"
		if slices.Contains(required, any(name)) {
			optional = ""
		}
		members = append(members, tsKey(name)+optional+": "+t.of(properties[name]))
	}
	rest := "unknown"
	additional, given := o["additionalProperties"]
	if _, patterns := o["patternProperties"]; given && !patterns {
		switch {
		case additional == false && len(members) > 0:
			return "{ " + strings.Join(members, "; ") + " }"
		case len(members) == 0:
			rest = t.of(additional)
		}
	}
	return "{ " + strings.Join(append(members, "[key: string]: "+rest), "; ") + " }"
}
