package archtest_test

import (
	"maps"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/bedplate/bedplate/internal/archtest"
)

// TestBedplate holds the sources of this module to its layering.
func TestBedplate(t *testing.T) {
	t.Parallel()
	root := os.DirFS("../..")
	layering := archtest.Bedplate()

	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(mod), "module "+layering.Module+"\n") {
		t.Fatalf("the layering is that of %s, go.mod says otherwise", layering.Module)
	}
	violations, err := archtest.Check(root, layering)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range violations {
		t.Error(v)
	}
}

// TestCheck plants files in a tree that keeps to the layering, and wants exactly the expected
// complaint.
func TestCheck(t *testing.T) {
	t.Parallel()
	const module = "github.com/bedplate/bedplate"
	sound := map[string]string{
		"go.mod":                      "module " + module + "\n",
		"backend.go":                  source("bedplate", "net/http", module+"/sqlite", module+"/records"),
		"backend_test.go":             source("bedplate_test", "testing", module, module+"/internal/apitest"),
		"sqlite/db.go":                source("sqlite", module+"/internal/geo", "github.com/mattn/go-sqlite3"),
		"records/service.go":          source("records", module+"/sqlite", module+"/internal/rule"),
		"records/service_test.go":     source("records_test", module+"/records", module+"/internal/sqlitetest"),
		"internal/rule/rule.go":       source("rule", module+"/internal/sqltoken"),
		"internal/sqltoken/token.go":  source("sqltoken"),
		"internal/geo/geo.go":         source("geo", "github.com/peterstace/simplefeatures/geom"),
		"internal/crash/doc.go":       source("crash"),
		"internal/crash/kill_test.go": source("crash_test", module+"/sqlite"),
		"internal/sqlitetest/open.go": source("sqlitetest", module+"/sqlite", "testing"),
		"internal/apitest/client.go":  source("apitest", module, module+"/internal/sqlitetest"),
		"cmd/refserver/main.go":       source("main", module, module+"/tlsauto", "github.com/alecthomas/kong"),
		"cmd/refserver/demo/demo.go":  source("demo"),
		"examples/mux/main.go":        source("main", module, module+"/records"),
		"tlsauto/manager.go":          source("tlsauto", "golang.org/x/crypto/acme/autocert"),
		"bench/go.mod":                "module " + module + "/bench\n",
		"bench/main.go":               source("main", "modernc.org/sqlite"),
		"records/testdata/broken.go":  "not Go",
	}

	tests := []struct {
		name    string
		planted map[string]string
		want    []string // in order; each a part of one line
	}{
		{name: "sound"},
		{
			name:    "sibling",
			planted: map[string]string{"records/peek.go": source("records", module+"/auth")},
			want:    []string{"records/peek.go:3: records must not import auth"},
		},
		{
			name:    "sibling in a test",
			planted: map[string]string{"records/peek_test.go": source("records_test", module+"/auth")},
			want:    []string{"records/peek_test.go:3: records must not import auth"},
		},
		{
			name:    "under a build constraint",
			planted: map[string]string{"records/peek_plan9.go": "//go:build never\n\n" + source("records", module+"/realtime")},
			want:    []string{"records/peek_plan9.go:5: records must not import realtime"},
		},
		{
			name:    "upwards",
			planted: map[string]string{"sqlite/up.go": source("sqlite", "fmt", module)},
			want:    []string{"sqlite/up.go:4: sqlite must not import ."},
		},
		{
			name:    "internal to public",
			planted: map[string]string{"internal/rule/up.go": source("rule", module+"/sqlite")},
			want:    []string{"internal/rule/up.go:3: internal/rule must not import sqlite"},
		},
		{
			name:    "root to backup",
			planted: map[string]string{"replica.go": source("bedplate", module+"/backup")},
			want: []string{
				"replica.go:3: . must not import backup",
				". must not reach backup (an application that wants replication or certificates links them itself): . -> backup",
			},
		},
		{
			name:    "root to ACME by a detour",
			planted: map[string]string{"sqlite/acme.go": source("sqlite", "golang.org/x/crypto/acme")},
			want: []string{
				"sqlite/acme.go:3: sqlite must not import golang.org/x/crypto/acme",
				". -> sqlite -> golang.org/x/crypto/acme",
				": records -> sqlite -> golang.org/x/crypto/acme",
				": sqlite -> golang.org/x/crypto/acme",
			},
		},
		{
			name:    "second SQLite library",
			planted: map[string]string{"records/other_test.go": source("records_test", "modernc.org/sqlite")},
			want:    []string{"records/other_test.go:3: records must not import modernc.org/sqlite"},
		},
		{
			name:    "unlisted library",
			planted: map[string]string{"internal/geo/two.go": source("geo", "github.com/peterstace/simplefeatures/geos")},
			want:    []string{"internal/geo/two.go:3: internal/geo must not import github.com/peterstace/simplefeatures/geos"},
		},
		{
			name:    "cgo",
			planted: map[string]string{"records/c.go": source("records", "C")},
			want:    []string{"records/c.go:3: records must not import C"},
		},
		{
			name:    "unlisted package, said once",
			planted: map[string]string{"extra/a.go": source("extra"), "extra/b.go": source("extra", module+"/auth")},
			want:    []string{"extra/a.go: package extra has no row in the layering"},
		},
		{
			name:    "unlisted internal package",
			planted: map[string]string{"internal/misc/a.go": source("misc")},
			want:    []string{"internal/misc/a.go: package internal/misc has no row in the layering"},
		},
		{
			name:    "test helper outside tests",
			planted: map[string]string{"records/helper.go": source("records", module+"/internal/sqlitetest")},
			want:    []string{"records/helper.go:3: records must not import internal/sqlitetest"},
		},
		{
			name:    "test library outside tests",
			planted: map[string]string{"records/diff.go": source("records", "github.com/google/go-cmp/cmp")},
			want:    []string{"records/diff.go:3: records must not import github.com/google/go-cmp/cmp"},
		},
		{
			name:    "programs do not import each other",
			planted: map[string]string{"examples/mux/more.go": source("main", module+"/cmd/refserver/demo")},
			want:    []string{"examples/mux/more.go:3: examples/mux must not import cmd/refserver/demo"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			files := maps.Clone(sound)
			maps.Copy(files, tt.planted)
			got, err := archtest.Check(tree(files), archtest.Bedplate())
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(tt.want) {
				t.Fatalf("got %d violations, want %d:\n%s", len(got), len(tt.want), strings.Join(got, "\n"))
			}
			for i, want := range tt.want {
				if !strings.Contains(got[i], want) {
					t.Errorf("violation %d is %q, want %q", i, got[i], want)
				}
			}
		})
	}
}

func TestCheckReportsUnreadableSources(t *testing.T) {
	t.Parallel()
	files := map[string]string{"a.go": "package a\nimport (", "b.go": "packag b\n"}
	_, err := archtest.Check(tree(files), archtest.Bedplate())
	if err == nil {
		t.Fatal("two broken files went unnoticed")
	}
	for _, name := range []string{"a.go", "b.go"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("error %q does not name %s", err, name)
		}
	}
}

// source returns a file with one import a line, the first of them on line 3.
func source(pkg string, imports ...string) string {
	var b strings.Builder
	b.WriteString("package " + pkg + "\n")
	if len(imports) == 0 {
		return b.String()
	}
	b.WriteString("import (\n")
	for _, path := range imports {
		b.WriteString("\t_ \"" + path + "\"\n")
	}
	b.WriteString(")\n")
	return b.String()
}

func tree(files map[string]string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return fsys
}
