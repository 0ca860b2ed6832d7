package main

import (
	"fmt"
	"math"
	"regexp"
	"slices"

	"github.com/goccy/go-yaml/ast"

	"github.com/bedplate/bedplate/records"
)

var apiName = regexp.MustCompile(`^[A-Za-z0-9_]+$`)

// recordAPI reads a record API. What needs the database to be judged is noted
// with its line, by what the library's errors call it.
func (r *configReader) recordAPI(n ast.Node) {
	var api records.API
	var attached []string
	var limit int64
	lines := lines{}
	isAPI := r.object(n, object{
		"name":                             r.text(&api.Name),
		"table_name":                       r.text(&api.Table),
		"attached_databases":               r.texts(&attached),
		"conflict_resolution":              choice(r.document, &api.Conflict, conflicts),
		"autofill_missing_user_id_columns": r.flag(&api.AutofillUser),
		"acl_world":                        r.permissions(&api.World),
		"acl_authenticated":                r.permissions(&api.Authenticated),
		"enable_subscriptions":             r.flag(&api.Subscriptions),
		"excluded_columns":                 lines.at("exclude", r.texts(&api.Exclude)),
		"create_access_rule":               lines.at("create rule", r.text(&api.CreateRule)),
		"read_access_rule":                 lines.at("read rule", r.text(&api.ReadRule)),
		"update_access_rule":               lines.at("update rule", r.text(&api.UpdateRule)),
		"delete_access_rule":               lines.at("delete rule", r.text(&api.DeleteRule)),
		"schema_access_rule":               lines.at("schema rule", r.text(&api.SchemaRule)),
		"check_rule":                       lines.at("check", r.text(&api.Check)),
		"expand":                           lines.at("expand", r.texts(&api.Expand)),
		"back_relations":                   r.each(r.backRelation(&api.Back, lines)),
		"full_text":                        lines.at("full text", r.text(&api.FullText)),
		"validate":                         lines.at("validate", r.validate(&api.Validate, lines)),
		"listing_hard_limit":               r.integer(&limit, 1, math.MaxInt32),
		"key_column":                       r.text(&api.Key),
	})
	if !isAPI {
		return
	}
	api.ListLimit = int(limit)
	place := fmt.Sprintf("api %q", api.Name)
	line, twice := r.places[place]
	switch {
	case !apiName.MatchString(api.Name):
		r.mistake(n, "a record API needs a name of letters, digits and underscores")
	case twice:
		r.mistake(n, "record API %q is already at line %d", api.Name, line)
	case api.Table == "":
		r.mistake(n, "record API %q needs a table_name", api.Name)
	default:
		r.APIs = append(r.APIs, api)
		r.places[place] = lineOf(n)
		for label, line := range lines {
			r.places[place+": "+label] = line
		}
	}
	r.checks = append(r.checks, func() {
		for _, name := range attached {
			if !slices.Contains(r.Databases, name) {
				r.mistake(n, "record API %q: database %q is not listed under databases", api.Name, name)
			}
		}
	})
}

// lines are those of the parts of a record API, by what errors call them.
type lines map[string]int

func (l lines) at(label string, read func(ast.Node)) func(ast.Node) {
	return func(n ast.Node) {
		l[label] = lineOf(n)
		read(n)
	}
}

var conflicts = map[string]records.Conflict{
	"ABORT": records.Abort, "IGNORE": records.Ignore, "REPLACE": records.Replace,
}

var permissions = map[string]records.Permission{
	"CREATE": records.Create, "READ": records.Read, "UPDATE": records.Update,
	"DELETE": records.Delete, "SCHEMA": records.Schema,
}

// permissions reads a list of operations into a set.
func (r *configReader) permissions(to *records.Permission) func(ast.Node) {
	return r.each(func(n ast.Node) {
		var one records.Permission
		choice(r.document, &one, permissions)(n)
		*to |= one
	})
}

// backRelation reads rows of another API that can be included with a row.
func (r *configReader) backRelation(to *[]records.BackRelation, lines lines) func(ast.Node) {
	return func(n ast.Node) {
		var back records.BackRelation
		var limit int64
		if !r.object(n, object{
			"name":   r.text(&back.Name),
			"api":    r.text(&back.API),
			"column": r.text(&back.Column),
			"limit":  r.integer(&limit, 1, math.MaxInt32),
		}) {
			return
		}
		back.Limit = int(limit)
		if back.Name == "" || back.API == "" || back.Column == "" {
			r.mistake(n, "a back relation needs a name, an api and a column of that")
			return
		}
		lines[fmt.Sprintf("back relation %q", back.Name)] = lineOf(n)
		*to = append(*to, back)
	}
}

// validate reads conditions by column.
func (r *configReader) validate(to *map[string]string, lines lines) func(ast.Node) {
	return func(n ast.Node) {
		m, ok := n.(ast.MapNode)
		if !ok {
			r.mistake(n, "want a mapping, found %s", describe(n))
			return
		}
		*to = map[string]string{}
		for i := m.MapRange(); i.Next(); {
			column, ok := i.Key().(*ast.StringNode)
			if !ok {
				r.mistake(i.Key(), "want the name of a column, found %s", describe(i.Key()))
				continue
			}
			if _, twice := (*to)[column.Value]; twice {
				r.mistake(column, "column %q is already there", column.Value)
				continue
			}
			var tag string
			r.text(&tag)(i.Value())
			(*to)[column.Value] = tag
			lines[fmt.Sprintf("validate: column %q", column.Value)] = lineOf(column)
			lines[fmt.Sprintf("validate: no column %q", column.Value)] = lineOf(column)
		}
	}
}
