package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// A document is a YAML file being taken apart strictly: mistakes collect in
// it, with their lines, while the reading goes on. Anchors, aliases and tags
// are refused, so that what a file says is what is written there.
type document struct {
	file     string
	mistakes []mistake
}

type mistake struct {
	line int
	text string
}

const maxDocument = 1 << 20 // bytes

// openDocument parses a file into its topmost node.
func openDocument(path string) (*document, ast.Node, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err != nil {
		return nil, nil, err
	}
	if len(text) > maxDocument {
		return nil, nil, fmt.Errorf("%s: larger than %d bytes", path, maxDocument)
	}
	// Duplicate keys are found below, with all other mistakes.
	tree, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var syntax yaml.Error
		if errors.As(err, &syntax) && syntax.GetToken() != nil {
			return nil, nil, fmt.Errorf("%s:%d: %s", path, syntax.GetToken().Position.Line, syntax.GetMessage())
		}
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	var bodies []ast.Node
	for _, d := range tree.Docs {
		if d.Body != nil {
			bodies = append(bodies, d.Body)
		}
	}
	if len(bodies) != 1 {
		return nil, nil, fmt.Errorf("%s: %d YAML documents, want one", path, len(bodies))
	}
	return &document{file: path}, bodies[0], nil
}

// mistake notes a mistake at the line of n.
func (d *document) mistake(n ast.Node, format string, args ...any) {
	d.mistakes = append(d.mistakes, mistake{lineOf(n), fmt.Sprintf(format, args...)})
}

// err is all mistakes in the order of their lines, or nil.
func (d *document) err() error {
	slices.SortStableFunc(d.mistakes, func(a, b mistake) int { return cmp.Compare(a.line, b.line) })
	var errs []error
	for _, m := range d.mistakes {
		errs = append(errs, fmt.Errorf("%s:%d: %s", d.file, m.line, m.text))
	}
	return errors.Join(errs...)
}

func lineOf(n ast.Node) int {
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 && !m.IsFlowStyle {
		return lineOf(m.Values[0].Key) // the token of a block mapping is its first colon
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 0
}

// object names the keys of a mapping and what reads their values.
type object map[string]func(ast.Node)

// object reads a mapping whose keys are all optional and all known. It
// reports whether there is one.
func (d *document) object(n ast.Node, fields object) bool {
	m, ok := n.(ast.MapNode)
	if !ok {
		d.mistake(n, "want a mapping, found %s", describe(n))
		return false
	}
	seen := map[string]bool{}
	for i := m.MapRange(); i.Next(); {
		key, ok := i.Key().(*ast.StringNode)
		if !ok {
			d.mistake(i.Key(), "want a plain key, found %s", describe(i.Key()))
			continue
		}
		read, known := fields[key.Value]
		switch {
		case !known:
			d.mistake(key, "unknown key %q; known are %s", key.Value, strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
		case seen[key.Value]:
			d.mistake(key, "key %q is already there", key.Value)
		default:
			read(i.Value())
		}
		seen[key.Value] = true
	}
	return true
}

// each reads the elements of a list.
func (d *document) each(read func(ast.Node)) func(ast.Node) {
	return func(n ast.Node) {
		list, ok := n.(*ast.SequenceNode)
		if !ok {
			d.mistake(n, "want a list, found %s", describe(n))
			return
		}
		for _, v := range list.Values {
			read(v)
		}
	}
}

// text reads a string, in quotes, without, or as a block.
func (d *document) text(to *string) func(ast.Node) {
	return func(n ast.Node) {
		switch n := n.(type) {
		case *ast.StringNode:
			*to = n.Value
		case *ast.LiteralNode:
			*to = n.Value.Value
		default:
			d.mistake(n, "want text, found %s", describe(n))
		}
	}
}

// texts reads a list of strings; an empty one is not nil.
func (d *document) texts(to *[]string) func(ast.Node) {
	return func(n ast.Node) {
		*to = []string{}
		d.each(func(n ast.Node) {
			var s string
			d.text(&s)(n)
			*to = append(*to, s)
		})(n)
	}
}

func (d *document) flag(to *bool) func(ast.Node) {
	return func(n ast.Node) {
		b, ok := n.(*ast.BoolNode)
		if !ok {
			d.mistake(n, "want true or false, found %s", describe(n))
			return
		}
		*to = b.Value
	}
}

// integer reads a decimal number from least to most.
func (d *document) integer(to *int64, least, most int64) func(ast.Node) {
	return func(n ast.Node) {
		if _, ok := n.(*ast.IntegerNode); !ok {
			d.mistake(n, "want a whole number, found %s", describe(n))
			return
		}
		v, err := strconv.ParseInt(n.GetToken().Value, 10, 64)
		if err != nil || v < least || v > most {
			d.mistake(n, "want a whole number from %d to %d", least, most)
			return
		}
		*to = v
	}
}

// choice reads one of a few words.
func choice[T any](d *document, to *T, words map[string]T) func(ast.Node) {
	return func(n ast.Node) {
		word, ok := n.(*ast.StringNode)
		if ok {
			*to, ok = words[word.Value]
		}
		if !ok {
			d.mistake(n, "want one of %s, found %s", strings.Join(slices.Sorted(maps.Keys(words)), ", "), describe(n))
		}
	}
}

// describe names what was found, for a mistake.
func describe(n ast.Node) string {
	switch n := n.(type) {
	case *ast.StringNode:
		return strconv.Quote(n.Value)
	case *ast.NullNode:
		return "nothing"
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value
	}
	return strings.ToLower(n.Type().String())
}
