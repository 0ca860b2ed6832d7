package records

import (
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// A customSchema is the schema of a JSON column, made fit to become a part of
// another one.
type customSchema struct {
	root    any
	id      string            // of the root, which references may begin with
	anchors map[string]string // pointers by the name of an anchor
	places  map[string]bool   // pointers to all schemas in it
	refs    []string          // what it refers to
	old     bool              // of a draft in which nothing counts beside $ref
	odd     bool              // it has what does not fit into another one
}

// parseCustom reads a schema. It is not ok if another one cannot mean the same:
// if it is in parts that have names of their own, is written in a dialect that
// reads otherwise, or refers to what is not in it.
func parseCustom(text string) (_ *customSchema, ok bool) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	c := &customSchema{anchors: map[string]string{}, places: map[string]bool{}}
	if d.Decode(&c.root) != nil {
		return nil, false
	}
	if root, ok := c.root.(object); ok {
		c.id, _ = root["$id"].(string)
		c.id = strings.TrimSuffix(c.id, "#")
		dialect, _ := root["$schema"].(string)
		switch strings.TrimSuffix(dialect, "#") {
		case "", "https://json-schema.org/draft/2020-12/schema":
		case "http://json-schema.org/draft-07/schema", "http://json-schema.org/draft-06/schema":
			c.old = true
		default:
			return nil, false
		}
	}
	c.survey(c.root, "")
	for _, ref := range c.refs {
		place, ok := c.resolve(ref)
		c.odd = c.odd || !ok || !c.places[place]
	}
	return c, !c.odd
}

// keywordKind says where in the value of a keyword schemas are.
type keywordKind uint8

const (
	plainKeyword  keywordKind = iota + 1 // nowhere
	schemaKeyword                        // it is one
	listKeyword                          // it is a list of them
	mapKeyword                           // its members are
)

// kindOf returns 0 for keywords that say nothing about values.
func kindOf(keyword string) keywordKind {
	switch keyword {
	case "$ref", "type", "enum", "const", "multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum",
		"maxLength", "minLength", "pattern", "maxItems", "minItems", "uniqueItems", "maxContains", "minContains",
		"maxProperties", "minProperties", "required", "dependentRequired", "format", "contentEncoding", "contentMediaType",
		"title", "description", "default", "deprecated", "readOnly", "writeOnly", "examples", "$comment":
		return plainKeyword
	case "additionalProperties", "items", "contains", "not", "if", "then", "else", "propertyNames",
		"unevaluatedItems", "unevaluatedProperties", "contentSchema":
		return schemaKeyword
	case "allOf", "anyOf", "oneOf", "prefixItems":
		return listKeyword
	case "properties", "patternProperties", "$defs", "definitions", "dependentSchemas":
		return mapKeyword
	}
	return 0
}

// survey notes what is in the schema at place, a JSON Pointer.
func (c *customSchema) survey(schema any, place string) {
	c.places[place] = true
	o, ok := schema.(object)
	if !ok {
		_, ok = schema.(bool)
		c.odd = c.odd || !ok
		return
	}
	for keyword, value := range o {
		switch keyword {
		case "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$vocabulary", "dependencies", "additionalItems":
			c.odd = true
		case "dependentRequired", "dependentSchemas", "prefixItems", "minContains", "maxContains", "unevaluatedItems", "unevaluatedProperties":
			c.odd = c.odd || c.old // where they say nothing
		case "$id", "$schema":
			c.odd = c.odd || place != ""
		case "$anchor":
			name, _ := value.(string)
			c.anchors[name] = place
		case "$ref":
			ref, _ := value.(string)
			c.refs = append(c.refs, ref)
			c.odd = c.odd || c.old && len(o) > 1
		}
	}
	c.each(o, func(keyword, inner string, schema any) any {
		c.survey(schema, place+"/"+keyword+inner)
		return nil
	})
}

// each replaces the schemas in the value of every keyword by what fn returns,
// which is told where they are, in a copy of o. Keywords that say nothing are
// left out.
func (c *customSchema) each(o object, fn func(keyword, inner string, schema any) any) object {
	out := object{}
	for keyword, value := range o {
		switch kindOf(keyword) {
		case plainKeyword:
			out[keyword] = value
		case schemaKeyword:
			out[keyword] = fn(keyword, "", value)
		case listKeyword:
			list, ok := value.([]any)
			c.odd = c.odd || !ok
			list = slices.Clone(list)
			for i, schema := range list {
				list[i] = fn(keyword, "/"+strconv.Itoa(i), schema)
			}
			out[keyword] = list
		case mapKeyword:
			members, ok := value.(object)
			c.odd = c.odd || !ok
			copied := object{}
			for name, schema := range members {
				copied[name] = fn(keyword, "/"+escapePointer(name), schema)
			}
			out[keyword] = copied
		}
	}
	return out
}

// resolve returns the place that a reference is to.
func (c *customSchema) resolve(ref string) (place string, ok bool) {
	uri, fragment, _ := strings.Cut(ref, "#")
	if uri != "" && uri != c.id {
		return "", false
	}
	fragment, err := url.PathUnescape(fragment)
	if err != nil {
		return "", false
	}
	if fragment == "" || fragment[0] == '/' {
		return fragment, true
	}
	place, ok = c.anchors[fragment]
	return place, ok
}

// at returns the schema as it reads at base, a URI fragment.
func (c *customSchema) at(base string) any { return c.rebase(c.root, base) }

func (c *customSchema) rebase(schema any, base string) any {
	o, ok := schema.(object)
	if !ok {
		return schema
	}
	out := c.each(o, func(_, _ string, schema any) any { return c.rebase(schema, base) })
	if ref, ok := out["$ref"].(string); ok {
		place, _ := c.resolve(ref)
		out["$ref"] = base + strings.ReplaceAll(url.PathEscape(place), "%2F", "/")
	}
	return out
}
