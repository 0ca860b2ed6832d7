package records

import (
	"slices"

	"github.com/bedplate/bedplate/internal/openapi"
)

// columnNames returns the visible columns of a format.
func (p *plan) columnNames(f format) (names []string) {
	for _, o := range p.output {
		if o.format == f {
			names = append(names, o.name)
		}
	}
	return names
}

// fileNames returns the columns with one file, and those with any.
func (p *plan) fileNames() (single, every []string) {
	single = p.columnNames(fileFormat)
	every = slices.Sorted(slices.Values(append(slices.Clone(single), p.columnNames(filesFormat)...)))
	return single, every
}

// includable returns what expand= may name.
func (p *plan) includable() (names []string) {
	for name := range p.expand {
		names = append(names, name)
	}
	for _, b := range p.api.Back {
		names = append(names, b.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// writableFiles returns the file columns that a request may name.
func (p *plan) writableFiles(files bool) (columns []*column) {
	for _, c := range p.fields(insertMode, files) {
		if c.format == fileFormat || c.format == filesFormat {
			columns = append(columns, c)
		}
	}
	return columns
}

// formSchema describes the parts of a form: texts and files.
func (p *plan) formSchema() object {
	properties := object{}
	for _, c := range p.fields(insertMode, true) {
		file := object{"type": "string", "contentMediaType": "application/octet-stream"}
		switch {
		case c.format == fileFormat:
			properties[c.name] = file
		case c.format == filesFormat:
			properties[c.name] = object{"type": "array", "items": file}
		case c.format == geoFormat, c.format == plainFormat && (c.typ == integerType || c.typ == realType):
		default:
			properties[c.name] = openapi.Text()
		}
	}
	return object{"type": "object", "properties": properties}
}

func recordParam(p *plan) object {
	schema := openapi.Text()
	if p.table.key.typ == integerType {
		schema = object{"type": "integer"}
	}
	return openapi.Path("record", "key of the record", schema)
}

func columnParam(names []string) object {
	return openapi.Path("column", "name of the column", object{"enum": names})
}

func expandParam(names []string) object {
	return openapi.Query("expand", "what to include", openapi.List(names))
}

func fieldsParam(p *plan) object {
	names := make([]string, 0, len(p.output))
	for _, o := range p.output {
		names = append(names, o.name)
	}
	return openapi.Query("fields", "the only columns that records shall have", openapi.List(names))
}

func filterParam() object {
	return object{
		"name": "filter", "in": "query", "style": "deepObject", "explode": true,
		"description": "conditions on columns: filter[column]=value or filter[column][$operator]=value, joined with filter[$and][0] and filter[$or][0]",
		"schema":      object{"type": "object", "additionalProperties": true},
	}
}

func idempotencyParam() object {
	return openapi.Header("Idempotency-Key", "makes the request take place once, however often it is sent within a day")
}

func noneMatchParam() object {
	return openapi.Header("If-None-Match", "entity tags of what the client has")
}

func conditionParams(p *plan) []any {
	return []any{
		recordParam(p),
		openapi.Header("If-Match", "entity tags, one of which the record must have"),
		openapi.Header("If-None-Match", "entity tags, none of which the record may have"),
	}
}

func changeCursor() object {
	return object{"description": "where to subscribe from so as to miss nothing", "schema": openapi.Text()}
}

// featureSchema describes a list as GeoJSON (RFC 7946, section 3.3).
func featureSchema() object {
	return object{
		"type": "object", "required": []string{"type", "features"},
		"properties": object{
			"type":        object{"const": "FeatureCollection"},
			"cursor":      openapi.Text(),
			"total_count": object{"type": "integer"},
			"features": object{"type": "array", "items": object{
				"type": "object", "required": []string{"type", "id", "geometry", "properties"},
				"properties": object{
					"type":       object{"const": "Feature"},
					"id":         object{"type": []string{"string", "integer"}},
					"geometry":   object{"type": []string{"object", "null"}},
					"properties": object{"type": "object"},
				},
			}},
		},
	}
}
