// Package archtest checks that packages import only what the layering of the module allows.
//
// The layering is data ([Layering]): rows that say which packages may import what, and bans
// that say what must not be reachable from where. [Check] parses the import clauses of every
// Go file under the module's root, whatever its build constraints, so that an edge that exists
// only on another system or under a build tag counts as well.
//
// The layering of this module stands in layering.go; the package's own test holds the sources
// to it. A new package needs a row there, and a new arrow needs a decision record in docs/adr.
package archtest

import (
	"cmp"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// A Layering states which imports a module permits. What it does not permit is a violation,
// and so is a package without a row.
type Layering struct {
	// Module is the module path. Packages are named relative to it; "." is its root package.
	Module string
	// Rows are searched in order: the first whose Packages match governs a package.
	Rows []Row
	// TestPackages may be imported by test files, and by each other, but by nothing else.
	TestPackages []string
	// TestLibraries may be imported by test files and test packages.
	TestLibraries []string
	// Bans hold for everything reachable through files that are not tests.
	Bans []Ban
}

// A Row governs the imports of some packages. The standard library is always permitted.
//
// Packages are named by their directory. A name that ends in "/*" stands for the packages
// directly below, one that ends in "/..." for the package and all below it.
type Row struct {
	Packages []string
	// May lists the packages of the module that these may import.
	May []string
	// Libraries lists the third-party import paths; each covers the paths below it.
	// "C" stands for cgo.
	Libraries []string
	// TestMay lists what only their test files may import in addition.
	TestMay []string
}

// A Ban says that the From packages must not reach a package, of the module or of a third
// party, that one of To names. As in [Row.Libraries], each covers the paths below it.
type Ban struct {
	From    []string
	To      []string
	Because string
}

// Check reads the Go files in fsys, the root of a module, and returns one line for each
// violation, in the order of file names; none means that the sources keep to l. Directories
// that the go command ignores, and modules nested in this one, are left out. The error tells of
// files that could not be read or parsed.
func Check(fsys fs.FS, l Layering) ([]string, error) {
	imports, err := collect(fsys, l.Module)
	if err != nil {
		return nil, err
	}
	var violations []string
	unlisted := map[string]bool{}
	for _, imp := range imports {
		row, ok := l.row(imp.from)
		if !ok {
			if !unlisted[imp.from] {
				unlisted[imp.from] = true
				violations = append(violations, fmt.Sprintf("%s: package %s has no row in the layering", imp.file, imp.from))
			}
			continue
		}
		if imp.path != "" && !l.permits(row, imp) {
			violations = append(violations, fmt.Sprintf("%s:%d: %s must not import %s", imp.file, imp.line, imp.from, imp.path))
		}
	}
	return append(violations, l.reached(imports)...), nil
}

// An edge is one import of one file. A file that imports nothing has one edge with an empty path.
type edge struct {
	file string
	line int
	from string // directory of the importing package
	path string // relative to the module for its own packages, else as written
	own  bool   // whether path is a package of the module
	test bool   // whether the file is a test
}

func collect(fsys fs.FS, module string) ([]edge, error) {
	var edges []edge
	var errs []error
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			if name != "." && ignored(fsys, name) {
				return fs.SkipDir
			}
		case strings.HasSuffix(name, ".go") && !strings.HasPrefix(d.Name(), "_") && !strings.HasPrefix(d.Name(), "."):
			found, err := readImports(fsys, name, module)
			edges, errs = append(edges, found...), append(errs, err)
		}
		return nil
	})
	return edges, errors.Join(append(errs, err)...)
}

// ignored reports whether dir holds no packages of this module.
func ignored(fsys fs.FS, dir string) bool {
	base := path.Base(dir)
	if strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
		return true
	}
	if base == "testdata" || base == "vendor" || base == "node_modules" {
		return true
	}
	_, err := fs.Stat(fsys, path.Join(dir, "go.mod"))
	return err == nil
}

func readImports(fsys fs.FS, name, module string) ([]edge, error) {
	src, err := fs.ReadFile(fsys, name)
	if err != nil {
		return nil, err
	}
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, src, parser.ImportsOnly)
	if err != nil {
		return nil, err
	}
	base := edge{file: name, from: path.Dir(name), test: strings.HasSuffix(name, "_test.go")}
	if len(file.Imports) == 0 {
		return []edge{base}, nil
	}
	var edges []edge
	for _, spec := range file.Imports {
		e := base
		e.line = files.Position(spec.Pos()).Line
		if e.path, err = strconv.Unquote(spec.Path.Value); err != nil {
			return nil, fmt.Errorf("%s:%d: import path: %w", name, e.line, err)
		}
		if e.path == module {
			e.path, e.own = ".", true
		} else if rest, ok := strings.CutPrefix(e.path, module+"/"); ok {
			e.path, e.own = rest, true
		}
		edges = append(edges, e)
	}
	return edges, nil
}

func (l Layering) row(pkg string) (Row, bool) {
	i := slices.IndexFunc(l.Rows, func(r Row) bool { return matchAny(r.Packages, pkg) })
	if i < 0 {
		return Row{}, false
	}
	return l.Rows[i], true
}

func (l Layering) permits(row Row, e edge) bool {
	forTests := e.test || matchAny(l.TestPackages, e.from)
	switch {
	case !e.own && standard(e.path):
		return true
	case !e.own:
		return under(row.Libraries, e.path) || forTests && under(l.TestLibraries, e.path)
	case e.path == e.from:
		return e.test // a black-box test imports the package beside it
	case matchAny(l.TestPackages, e.path):
		return forTests
	default:
		return matchAny(row.May, e.path) || e.test && matchAny(row.TestMay, e.path)
	}
}

// reached returns a line for each banned path that a package reaches, with the shortest way there.
func (l Layering) reached(edges []edge) []string {
	next := map[string][]string{}
	for _, e := range edges {
		if !e.test && e.path != "" && !slices.Contains(next[e.from], e.path) {
			next[e.from] = append(next[e.from], e.path)
		}
	}
	packages := make([]string, 0, len(next))
	for pkg := range next {
		packages = append(packages, pkg)
	}
	slices.SortFunc(packages, cmp.Compare[string])

	var violations []string
	for _, ban := range l.Bans {
		for _, pkg := range packages {
			if !matchAny(ban.From, pkg) {
				continue
			}
			if way := search(next, pkg, ban.To); way != nil {
				violations = append(violations, fmt.Sprintf("%s must not reach %s (%s): %s",
					pkg, way[len(way)-1], ban.Because, strings.Join(way, " -> ")))
			}
		}
	}
	return violations
}

// search walks breadth first from start and returns the way to the first path under one of
// targets, or nil.
func search(next map[string][]string, start string, targets []string) []string {
	came := map[string]string{start: ""}
	for queue := []string{start}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if at != start && under(targets, at) {
			way := []string{at}
			for at != start {
				at = came[at]
				way = append(way, at)
			}
			slices.Reverse(way)
			return way
		}
		for _, to := range next[at] {
			if _, seen := came[to]; !seen {
				came[to] = at
				queue = append(queue, to)
			}
		}
	}
	return nil
}

// standard reports whether an import path belongs to the standard library, whose paths are the
// ones without a dot in the first element. cgo's "C" is not one of them.
func standard(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return importPath != "C" && !strings.Contains(first, ".")
}

func under(prefixes []string, importPath string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool {
		return importPath == p || strings.HasPrefix(importPath, p+"/")
	})
}

func matchAny(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, pkg) })
}

func match(pattern, pkg string) bool {
	if dir, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == dir || strings.HasPrefix(pkg, dir+"/")
	}
	if dir, ok := strings.CutSuffix(pattern, "/*"); ok {
		return path.Dir(pkg) == dir
	}
	return pkg == pattern
}
