package sqlite

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

const (
	maxSchema     = 256 << 10 // bytes of a JSON Schema
	maxJSON       = 1 << 20   // bytes of a value to validate
	maxJSONDepth  = 128       // of objects and arrays in each other
	maxJSONNumber = 400       // digits of a number, and its exponent
	schemaCache   = 64        // compiled inline schemas per connection
)

// The built-in schemas: the description of a stored file, a list of such, and
// an object of strings.
const (
	schemaFileUpload = `{
		"title": "FileUpload",
		"type": "object",
		"properties": {
			"id": {"type": "string"},
			"original_filename": {"type": ["string", "null"]},
			"filename": {"type": "string"},
			"content_type": {"type": ["string", "null"]},
			"mime_type": {"type": ["string", "null"]}
		},
		"additionalProperties": false
	}`
	schemaFileUploads = `{"title": "FileUploads", "type": "array", "items": ` + schemaFileUpload + `}`
	schemaKeyValue    = `{"title": "KeyValue", "type": "object", "additionalProperties": {"type": "string"}}`
)

// schemaSet holds compiled JSON Schemas by name. It does not change and is
// safe for concurrent use.
type schemaSet struct {
	compiled map[string]*jsonschema.Schema
}

// newSchemaSet compiles JSON Schemas, draft 2020-12 unless they say otherwise
// in $schema, and adds the built-in ones. A schema cannot refer to another
// document. The error tells all mistakes, by name.
func newSchemaSet(named map[string]string) (*schemaSet, error) {
	set := &schemaSet{compiled: map[string]*jsonschema.Schema{}}
	for name, text := range map[string]string{
		"std.FileUpload":  schemaFileUpload,
		"std.FileUploads": schemaFileUploads,
		"std.KeyValue":    schemaKeyValue,
	} {
		schema, err := compileSchema(name, []byte(text))
		if err != nil {
			return nil, fmt.Errorf("JSON Schema %q: %w", name, err)
		}
		set.compiled[name] = schema
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(named)) {
		if name == "" || strings.HasPrefix(name, "std.") {
			errs = append(errs, fmt.Errorf("JSON Schema %q: the name is reserved", name))
			continue
		}
		schema, err := compileSchema(name, []byte(named[name]))
		if err != nil {
			errs = append(errs, fmt.Errorf("JSON Schema %q: %w", name, err))
			continue
		}
		set.compiled[name] = schema
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return set, nil
}

func compileSchema(name string, text []byte) (schema *jsonschema.Schema, err error) {
	defer func() {
		if p := recover(); p != nil {
			schema, err = nil, fmt.Errorf("compile: %v", p)
		}
	}()
	if len(text) > maxSchema {
		return nil, fmt.Errorf("longer than %d bytes", maxSchema)
	}
	document, err := parseJSON(text)
	if err != nil {
		return nil, err
	}
	location := "schema:///" + url.PathEscape(name)
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(noLoader{})
	if err := c.AddResource(location, document); err != nil {
		return nil, err
	}
	return c.Compile(location)
}

// noLoader refuses references to other documents.
type noLoader struct{}

func (noLoader) Load(string) (any, error) {
	return nil, errors.New("references to other documents are not followed")
}

func jsonFunctions(set *schemaSet) []function {
	cache := inlineSchemas{}
	return []function{
		{"jsonschema", 2, true, set.matchesName},
		{"jsonschema", 3, true, set.matchesName},
		{"jsonschema_matches", 2, true, cache.matches},
	}
}

// matchesName implements jsonschema(name, column [, types]): whether the
// column is NULL or JSON text valid against the named schema. For files the
// third argument lists the media types that mime_type must be one of,
// separated by commas; image/* stands for a whole family. Other schemas ignore
// it.
func (s *schemaSet) matchesName(out *result, args []value) error {
	name, ok := args[0].text()
	if !ok {
		return errors.New("jsonschema: the name is not text")
	}
	schema := s.compiled[string(name)]
	if schema == nil {
		return fmt.Errorf("jsonschema: unknown schema %q", name)
	}
	var allowed []byte
	if len(args) > 2 {
		if allowed, ok = args[2].text(); !ok {
			return errors.New("jsonschema: the list of media types is not text")
		}
	}
	if args[1].isNull() {
		out.setBool(true)
		return nil
	}
	document, ok := validDocument(schema, &args[1])
	if len(args) > 2 && strings.HasPrefix(string(name), "std.File") {
		ok = ok && allowsFiles(string(allowed), document)
	}
	out.setBool(ok)
	return nil
}

// allowsFiles tells whether the media types of one or several files are in a
// comma-separated list.
func allowsFiles(list string, document any) bool {
	files, ok := document.([]any)
	if !ok {
		files = []any{document}
	}
	for _, f := range files {
		file, _ := f.(map[string]any)
		mime, _ := file["mime_type"].(string)
		if !allowsType(list, mime) {
			return false
		}
	}
	return true
}

// allowsType tells whether a comma-separated list has a media type, whose
// parameters do not matter.
func allowsType(list, mime string) bool {
	mime, _, _ = strings.Cut(mime, ";")
	mime = strings.TrimSpace(mime)
	family, _, ok := strings.Cut(mime, "/")
	if !ok || family == "" {
		return false
	}
	for allowed := range strings.SplitSeq(list, ",") {
		allowed = strings.TrimSpace(allowed)
		if strings.EqualFold(allowed, mime) || strings.EqualFold(allowed, family+"/*") {
			return true
		}
	}
	return false
}

// inlineSchemas caches the schemas that one connection met as text.
type inlineSchemas map[string]*jsonschema.Schema

// matches implements jsonschema_matches(schema, column).
func (c inlineSchemas) matches(out *result, args []value) error {
	text, ok := args[0].text()
	if !ok {
		return errors.New("jsonschema_matches: the schema is not text")
	}
	schema := c[string(text)]
	if schema == nil {
		var err error
		if schema, err = compileSchema("inline", text); err != nil {
			return fmt.Errorf("jsonschema_matches: %w", err)
		}
		if len(c) >= schemaCache {
			clear(c)
		}
		c[string(text)] = schema
	}
	ok = args[1].isNull()
	if !ok {
		_, ok = validDocument(schema, &args[1])
	}
	out.setBool(ok)
	return nil
}

// validDocument parses a TEXT and tells whether it is valid.
func validDocument(schema *jsonschema.Schema, v *value) (any, bool) {
	text, ok := v.text()
	if !ok || len(text) > maxJSON {
		return nil, false
	}
	document, err := parseJSON(text)
	if err != nil {
		return nil, false
	}
	return document, schema.Validate(document) == nil
}

// parseJSON parses one JSON value. It refuses what would make validation
// expensive: deep nesting and numbers that are astronomic when written out.
func parseJSON(text []byte) (any, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("not UTF-8")
	}
	if !json.Valid(text) {
		var v any
		if err := json.Unmarshal(text, &v); err != nil {
			return nil, err
		}
		return nil, errors.New("not JSON")
	}
	if jsonDepth(text) > maxJSONDepth {
		return nil, fmt.Errorf("nested deeper than %d levels", maxJSONDepth)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	return v, checkNumbers(v)
}

// jsonDepth returns how deep valid JSON is nested.
func jsonDepth(text []byte) int {
	depth, deepest, quoted := 0, 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return deepest
}

func checkNumbers(v any) error {
	switch v := v.(type) {
	case json.Number:
		_, exponent, _ := strings.Cut(strings.ToLower(v.String()), "e")
		n, err := strconv.Atoi(cmp.Or(exponent, "0"))
		if len(v) > maxJSONNumber || err != nil || n > maxJSONNumber || n < -maxJSONNumber {
			return errors.New("a number is out of range")
		}
	case []any:
		for _, element := range v {
			if err := checkNumbers(element); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, member := range v {
			if err := checkNumbers(member); err != nil {
				return err
			}
		}
	}
	return nil
}
