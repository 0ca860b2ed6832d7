package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const typesConfig = `auth: {}
record_apis:
  - name: posts
    table_name: post
    acl_world: [READ]
  - name: rooms
    table_name: room
    acl_authenticated: [DELETE, SCHEMA]
    enable_subscriptions: true
`

func TestTypesAndOpenAPI(t *testing.T) {
	t.Parallel()
	config := rulesConfig(t, typesConfig)
	state := filepath.Join(filepath.Dir(config), "state")
	for _, when := range []string{"before the first start", "with a database"} {
		ts, err := tryCommand(t, config, "", "types", "--lang", "ts")
		if want := "export interface Rooms {\n  id: string;\n}\n"; err != nil || !strings.Contains(ts, want) || !strings.Contains(ts, "export interface Posts ") {
			t.Errorf("%s: %v\n%s", when, err, ts)
		}
		model, err := tryCommand(t, config, "", "types", "--lang", "go")
		if want := "type Rooms struct {\n\tID string `json:\"id\"`\n}\n"; err != nil || !strings.Contains(model, want) {
			t.Errorf("%s: %v\n%s", when, err, model)
		}
		text, err := tryCommand(t, config, "", "openapi")
		var document struct {
			OpenAPI string
			Paths   map[string]map[string]any
		}
		if jerr := json.Unmarshal([]byte(text), &document); err != nil || jerr != nil || document.OpenAPI != "3.1.0" {
			t.Fatalf("%s: %v, %v\n%s", when, err, jerr, text)
		}
		for route, want := range map[string]bool{
			"get /api/records/v1/posts": true, "post /api/records/v1/posts": false, "delete /api/records/v1/rooms/{record}": true, "get /api/records/v1/rooms": false,
			"post /api/auth/v1/login": true, "post /api/realtime/v1/ticket": true, "get /api/healthcheck": true,
		} {
			method, path, _ := strings.Cut(route, " ")
			if got := document.Paths[path][method] != nil; got != want {
				t.Errorf("%s: %s: %v", when, route, got)
			}
		}
		if _, err := os.Stat(state); when == "before the first start" && !os.IsNotExist(err) {
			t.Errorf("it has made the data directory: %v", err)
		}
		openState(t, config)
	}
	file := filepath.Join(t.TempDir(), "types.ts")
	if text, err := tryCommand(t, config, "", "types", "--lang", "ts", "--out", file); err != nil || text != "" {
		t.Errorf("%v %q", err, text)
	}
	if text, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(text), "// Code generated") {
		t.Errorf("%v %q", err, text)
	}
	for _, args := range [][]string{{"types"}, {"types", "--lang", "cobol"}, {"types", "--lang", "ts", "--out", filepath.Join(file, "x")}, {"openapi", "--out", filepath.Join(file, "x")}} {
		if text, err := tryCommand(t, config, "", args...); err == nil {
			t.Errorf("%v: %q", args, text)
		}
	}
	broken := rulesConfig(t, "record_apis:\n  - name: nothing\n    table_name: nothing\n")
	for _, args := range [][]string{{"types", "--lang", "go"}, {"openapi"}} {
		if _, err := tryCommand(t, broken, "", args...); err == nil || !strings.HasPrefix(err.Error(), broken+":4: ") {
			t.Errorf("%v: %v", args, err)
		}
	}
}
