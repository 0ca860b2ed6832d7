package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/realtime"
	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/records/s3files"
	"github.com/bedplate/bedplate/sqlite"
)

// config is what a configuration file says. Zero values mean that it is
// silent.
type config struct {
	Listen           string
	DataDir          string
	CORSOrigins      []string // nil: not mentioned
	RequestSizeLimit int64

	Databases  []string          // attached beside main
	Schemas    map[string]string // JSON Schemas by name
	Migrations map[string]fs.FS  // by database
	APIs       []records.API

	Files records.FilesConfig // but for its Store
	S3    *s3files.Config     // where they are; nil: beside the databases

	AppName        string
	SiteURL        string
	Proxies        int64
	TrustedProxies []netip.Prefix
	Auth           *auth.Config // nil: no sign-in
	Mailer         auth.Mailer  // nil: mails are logged

	Realtime  realtime.Config
	ChangeLog sqlite.ChangeLogOptions

	Backup backupConfig
	TLS    tlsConfig

	file   string
	places map[string]int // lines, by what the library's errors call the thing there
}

var databaseName = regexp.MustCompile(`^[A-Za-z0-9_]+$`)

// reservedDatabases are names with a meaning of their own.
var reservedDatabases = []string{"main", "temp", "public", "logs", "session"}

// loadConfig reads a configuration file. The error tells every mistake in it,
// each with file and line. Relative paths in the file start at its directory.
func loadConfig(path string) (*config, error) {
	doc, root, err := openDocument(path)
	if err != nil {
		return nil, err
	}
	r := &configReader{document: doc, config: &config{
		Schemas: map[string]string{}, Migrations: map[string]fs.FS{}, file: path, places: map[string]int{},
	}}
	r.object(root, object{
		"server":      r.server,
		"databases":   r.each(r.database),
		"schemas":     r.each(r.schema),
		"migrations":  r.migrations,
		"record_apis": r.each(r.recordAPI),
		"files":       r.files,
		"auth":        r.auth,
		"email":       r.email,
		"realtime":    r.realtime,
		"backup":      r.backup,
		"tls":         r.tls,
	})
	for _, check := range r.checks {
		check()
	}
	return r.config, r.err()
}

// A configReader fills a config from a document.
type configReader struct {
	*document
	*config
	checks []func() // of what depends on another part of the file
}

// siteURLPlace is what the library calls site_url.
const siteURLPlace = "SiteURL"

func (r *configReader) server(n ast.Node) {
	r.object(n, object{
		"listen":                   r.text(&r.Listen),
		"data_dir":                 r.path(&r.DataDir),
		"cors_allowed_origins":     r.texts(&r.CORSOrigins),
		"request_size_limit_bytes": r.integer(&r.RequestSizeLimit, 1, math.MaxInt64),
		"application_name":         r.text(&r.AppName),
		"site_url":                 r.at(siteURLPlace, r.text(&r.SiteURL)),
		"proxies":                  r.integer(&r.Proxies, 0, 100),
		"trusted_proxies":          r.prefixes(&r.TrustedProxies),
	})
}

func (r *configReader) database(n ast.Node) {
	var name string
	if !r.object(n, object{"name": r.text(&name)}) {
		return
	}
	switch {
	case !databaseName.MatchString(name):
		r.mistake(n, "a database needs a name of letters, digits and underscores")
	case slices.Contains(reservedDatabases, name):
		r.mistake(n, "database name %q is reserved", name)
	case slices.Contains(r.Databases, name):
		r.mistake(n, "database %q is listed twice", name)
	default:
		r.Databases = append(r.Databases, name)
	}
}

func (r *configReader) schema(n ast.Node) {
	var name, text string
	if !r.object(n, object{"name": r.text(&name), "schema": r.text(&text)}) {
		return
	}
	_, twice := r.Schemas[name]
	var invalid json.RawMessage
	switch err := json.Unmarshal([]byte(text), &invalid); {
	case name == "":
		r.mistake(n, "a schema needs a name")
	case twice:
		r.mistake(n, "schema %q is listed twice", name)
	case text == "":
		r.mistake(n, "schema %q needs its JSON text under the key schema", name)
	case err != nil:
		r.mistake(n, "schema %q is not JSON: %v", name, err)
	default:
		r.Schemas[name] = text
		r.places[fmt.Sprintf("JSON Schema %q", name)] = lineOf(n)
	}
}

// migrations takes a directory with one directory for each database in it,
// or with the files of the main database themselves.
func (r *configReader) migrations(n ast.Node) {
	var dir string
	r.path(&dir)(n)
	if dir == "" {
		return
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		r.mistake(n, "migrations: %v", err)
		return
	}
	files := false
	for _, e := range entries {
		switch {
		case !e.IsDir():
			files = files || filepath.Ext(e.Name()) == ".sql"
		default:
			r.Migrations[e.Name()] = os.DirFS(filepath.Join(dir, e.Name()))
		}
	}
	if files {
		if r.Migrations["main"] != nil {
			r.mistake(n, "migrations: %s holds .sql files and the directory main: move the files there", dir)
		}
		r.Migrations["main"] = os.DirFS(dir)
	}
	r.checks = append(r.checks, func() {
		for name := range r.Migrations {
			if name != "main" && !slices.Contains(r.Databases, name) {
				r.mistake(n, "migrations: %s has a directory for %q, which is not listed under databases", dir, name)
			}
		}
	})
}

// at notes the line of a value that the library judges, by what its errors
// call it.
func (r *configReader) at(place string, read func(ast.Node)) func(ast.Node) {
	return func(n ast.Node) {
		r.places[place] = lineOf(n)
		read(n)
	}
}

// refused notes the mistakes that a part of the library found in n, one a
// line.
func (r *configReader) refused(n ast.Node, err error) {
	for line := range strings.Lines(err.Error()) {
		r.mistake(n, "%s", strings.TrimSpace(line))
	}
}

// path reads a file name, relative to the directory of the configuration.
func (r *configReader) path(to *string) func(ast.Node) {
	return func(n ast.Node) {
		r.text(to)(n)
		if *to != "" && !filepath.IsAbs(*to) {
			*to = filepath.Join(filepath.Dir(r.document.file), *to)
		}
	}
}

// locate adds file and line to the mistakes that only the database could
// find, such as an unknown column in a rule.
func (conf *config) locate(err error) error {
	if conf.file == "" || err == nil {
		return err
	}
	var errs []error
	for _, e := range flatten(err) {
		// What a mistake is about comes before what else it mentions.
		place, first := "", -1
		for p := range conf.places {
			i := strings.Index(e.Error(), p)
			if i >= 0 && (first < 0 || i < first || i == first && len(p) > len(place)) {
				place, first = p, i
			}
		}
		if place == "" {
			errs = append(errs, fmt.Errorf("%s: %w", conf.file, e))
		} else {
			errs = append(errs, fmt.Errorf("%s:%d: %w", conf.file, conf.places[place], e))
		}
	}
	return errors.Join(errs...)
}

// flatten takes joined errors apart.
func flatten(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error }) //nolint:errorlint // a single wrapped error stays whole
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, flatten(e)...)
	}
	return all
}
