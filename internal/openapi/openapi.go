// Package openapi makes the parts that OpenAPI documents (version 3.1.0) of
// several packages have in common. All of them are values for encoding/json;
// nothing is shared between two results.
package openapi

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
)

// Object is a JSON object.
type Object = map[string]any

// Operation returns an operation that is answered with ok, or refused with one
// of statuses; see [Refusals].
func Operation(id, summary string, params []any, ok Object, statuses ...int) Object {
	responses := Object{"200": ok}
	for _, status := range statuses {
		code := strconv.Itoa(status)
		responses[code] = Object{"$ref": "#/components/responses/" + code}
	}
	op := Object{"operationId": id, "summary": summary, "responses": responses}
	if len(params) > 0 {
		op["parameters"] = params
	}
	return op
}

// Add adds a response to an operation.
func Add(operation Object, status int, response Object) {
	operation["responses"].(Object)[strconv.Itoa(status)] = response
}

// Refusals returns what a document needs as components/responses for the
// operations in paths. A refusal is plain text, or a problem (RFC 9457) for
// clients that ask for these.
func Refusals(paths Object) Object {
	refusals := Object{}
	for _, item := range paths {
		for _, op := range item.(Object) {
			for code, response := range op.(Object)["responses"].(Object) {
				if response.(Object)["$ref"] != nil && refusals[code] == nil {
					refusals[code] = refusal(code)
				}
			}
		}
	}
	return refusals
}

func refusal(code string) Object {
	status, _ := strconv.Atoi(code)
	field := Object{
		"type": "object", "required": []string{"pointer", "code", "detail"},
		"properties": Object{"pointer": Text(), "code": Text(), "detail": Text()},
	}
	problem := Object{
		"type": "object", "required": []string{"status", "title"},
		"properties": Object{
			"status": Object{"type": "integer"}, "title": Text(), "detail": Text(),
			"errors": Object{"type": "array", "items": field},
		},
	}
	r := Object{
		"description": http.StatusText(status),
		"content": Object{
			"text/plain":               Object{"schema": Text()},
			"application/problem+json": Object{"schema": problem},
		},
	}
	if status == http.StatusServiceUnavailable {
		r["headers"] = Object{"Retry-After": Object{"description": "seconds", "schema": Object{"type": "integer"}}}
	}
	return r
}

// Response returns the response of a success. Both content and headers can be
// nil.
func Response(content, headers Object) Object {
	r := Object{"description": "done"}
	if content != nil {
		r["content"] = content
	}
	if len(headers) > 0 {
		r["headers"] = headers
	}
	return r
}

// JSON returns the content of JSON with a schema.
func JSON(schema any) Object { return Object{"application/json": Object{"schema": schema}} }

// Text returns the schema of a text.
func Text() Object { return Object{"type": "string"} }

// List returns the schema of a list of some names; nil: of any.
func List(names []string) Object {
	items := Text()
	if names != nil {
		items["enum"] = names
	}
	return Object{"type": "array", "items": items}
}

// Query returns a parameter of the query. The elements of a list have commas
// between them.
func Query(name, description string, schema Object) Object {
	p := Object{"name": name, "in": "query", "description": description, "schema": schema}
	if schema["type"] == "array" {
		p["style"], p["explode"] = "form", false
	}
	return p
}

// Header returns a parameter that is a header.
func Header(name, description string) Object {
	return Object{"name": name, "in": "header", "description": description, "schema": Text()}
}

// Path returns a parameter that is a part of the path.
func Path(name, description string, schema Object) Object {
	return Object{"name": name, "in": "path", "required": true, "description": description, "schema": schema}
}

// ETag returns the header of an entity tag.
func ETag() Object { return Object{"description": "entity tag", "schema": Text()} }

// NotModified returns the response 304.
func NotModified() Object {
	return Object{"description": "the client has it", "headers": Object{"ETag": ETag()}}
}

// Encode returns v as JSON, without the escapes that HTML needs.
func Encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
