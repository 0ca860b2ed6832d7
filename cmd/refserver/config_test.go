package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/records"
)

// writeConfig puts a configuration file, and files beside it, into a
// directory of its own.
func writeConfig(t *testing.T, text string, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("SELECT 1;"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadConfig(t *testing.T) {
	t.Parallel()
	path := writeConfig(t, `
server:
  listen: 127.0.0.1:1234
  data_dir: state
  cors_allowed_origins: [https://app.example.com]
  request_size_limit_bytes: 4096
databases:
  - name: other
schemas:
  - name: person
    schema: |
      {"type": "object"}
migrations: sql
record_apis:
  - name: posts
    table_name: other.posts
    attached_databases: [other]
    conflict_resolution: REPLACE
    autofill_missing_user_id_columns: true
    acl_world: [READ]
    acl_authenticated: [CREATE, READ, UPDATE, DELETE, SCHEMA]
    enable_subscriptions: true
    excluded_columns: [secret]
    create_access_rule: _REQ_.author = _USER_.id
    read_access_rule: "1"
    update_access_rule: >-
      _ROW_.author
      = _USER_.id
    delete_access_rule: '0'
    schema_access_rule: "1 = 1"
    check_rule: _ROW_.author = _USER_.id
    expand: [author, room]
    listing_hard_limit: 10
    key_column: post
  - {name: notes, table_name: notes}
`, "sql/main/0001_a.sql", "sql/other/0001_b.sql")
	conf, err := loadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	want := []records.API{{
		Name: "posts", Table: "other.posts",
		World:         records.Read,
		Authenticated: records.Create | records.Read | records.Update | records.Delete | records.Schema,
		CreateRule:    "_REQ_.author = _USER_.id",
		ReadRule:      "1",
		UpdateRule:    "_ROW_.author = _USER_.id",
		DeleteRule:    "0",
		SchemaRule:    "1 = 1",
		Check:         "_ROW_.author = _USER_.id",
		Expand:        []string{"author", "room"},
		Exclude:       []string{"secret"},
		Conflict:      records.Replace,
		AutofillUser:  true,
		ListLimit:     10,
		Key:           "post",
		Subscriptions: true,
	}, {Name: "notes", Table: "notes"}}
	if !reflect.DeepEqual(conf.APIs, want) {
		t.Errorf("record APIs\n%+v, want\n%+v", conf.APIs, want)
	}
	if conf.Listen != "127.0.0.1:1234" || conf.RequestSizeLimit != 4096 ||
		!reflect.DeepEqual(conf.CORSOrigins, []string{"https://app.example.com"}) {
		t.Errorf("server: %+v", conf)
	}
	if want := filepath.Join(filepath.Dir(path), "state"); conf.DataDir != want {
		t.Errorf("data directory %s, want %s: relative to the file", conf.DataDir, want)
	}
	if !reflect.DeepEqual(conf.Databases, []string{"other"}) ||
		!reflect.DeepEqual(conf.Schemas, map[string]string{"person": "{\"type\": \"object\"}\n"}) {
		t.Errorf("databases %v, schemas %v", conf.Databases, conf.Schemas)
	}
	for name, file := range map[string]string{"main": "0001_a.sql", "other": "0001_b.sql"} {
		if _, err := fs.Stat(conf.Migrations[name], file); err != nil {
			t.Errorf("migrations of %s: %v", name, err)
		}
	}
}

func TestLoadConfigFlatMigrations(t *testing.T) {
	t.Parallel()
	conf, err := loadConfig(writeConfig(t, "migrations: sql\n", "sql/0001_a.sql"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fs.Stat(conf.Migrations["main"], "0001_a.sql"); err != nil {
		t.Error(err)
	}
}

// Each line with a mistake says in a comment what its message holds; every
// other line is right, and no mistake hides another.
func TestLoadConfigReportsEveryMistake(t *testing.T) {
	t.Parallel()
	const text = `
sever:                                          # unknown key "sever"
  listen: x
server:
  listen: 80                                    # want text, found 80
  request_size_limit_bytes: 0                   # want a whole number from 1
  cors_allowed_origins: "*"                     # want a list, found "*"
  data_dir: &anchor state                       # want text, found anchor
databases:
  - name: main                                  # database name "main" is reserved
  - name: other
  - name: other                                 # database "other" is listed twice
  - name: a/b                                   # a database needs a name
schemas:
  - name: broken                                # schema "broken" is not JSON
    schema: "{"
  - schema: "{}"                                # a schema needs a name
  - name: hollow                                # schema "hollow" needs its JSON
migrations: nowhere                             # no such file or directory
record_apis:
  - name: fine
    table_name: fine
    acl_world: [READ, read, 1]                  # want one of CREATE, DELETE, READ, SCHEMA, UPDATE, found "read" # found 1
  - name: fine                                  # record API "fine" is already at line 21
    table_name: again
  - table_name: nameless                        # a record API needs a name
  - name: tableless                             # record API "tableless" needs a table_name
    table: x                                    # unknown key "table"
  - name: far                                   # database "elsewhere" is not listed
    table_name: elsewhere.far
    attached_databases: [elsewhere]
  - name: odd
    table_name: odd
    table_name: odder                           # key "table_name" is already there
    conflict_resolution: MERGE                  # want one of ABORT, IGNORE, REPLACE, found "MERGE"
    autofill_missing_user_id_columns: yes       # want true or false, found "yes"
    listing_hard_limit: -1                      # want a whole number from 1
    expand: {author: true}                      # want a list, found mapping
    read_access_rule:                           # want text, found nothing
  - just text                                   # want a mapping, found "just text"
`
	wantMistakes(t, writeConfig(t, text), text)
}

// wantMistakes checks that loading a file reports what its comments say, and
// nothing else.
func wantMistakes(t *testing.T, path, text string) {
	t.Helper()
	_, err := loadConfig(path)
	if err == nil {
		t.Fatal("no error")
	}
	var want []string // prefix, then a part
	for i, line := range strings.Split(text, "\n") {
		for _, part := range strings.Split(line, "# ")[1:] {
			want = append(want, path+":"+strconv.Itoa(i+1)+": ", strings.TrimSpace(part))
		}
	}
	got := strings.Split(err.Error(), "\n")
	if len(got) != len(want)/2 {
		t.Errorf("%d mistakes, want %d", len(got), len(want)/2)
	}
	for i := 0; i < len(want); i += 2 {
		found := false
		for _, g := range got {
			found = found || strings.HasPrefix(g, want[i]) && strings.Contains(g, want[i+1])
		}
		if !found {
			t.Errorf("no line %s... %s", want[i], want[i+1])
		}
	}
	if t.Failed() {
		t.Logf("all mistakes:\n%v", err)
	}
}

func TestLoadConfigRefuses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ text, want string }{
		"syntax":              {"server:\n  listen: [a\nx: y\n", "config.yaml:"},
		"nothing":             {"# only a comment\n", "0 YAML documents"},
		"two documents":       {"a: b\n---\nc: d\n", "2 YAML documents"},
		"a list":              {"- a\n", ":1: want a mapping, found sequence"},
		"a merge":             {"server: &s {listen: a}\nrecord_apis: *s\n", ":2: want a list, found alias"},
		"too large":           {strings.Repeat("# comment\n", 1<<17), "larger than"},
		"unlisted migrations": {"migrations: .\n", `:1: migrations: `},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := loadConfig(writeConfig(t, tt.text, "elsewhere/0001_a.sql"))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	if _, err := loadConfig(filepath.Join(t.TempDir(), "missing.yaml")); err == nil {
		t.Error("no error for a missing file")
	}
}
