package main

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/sqlite"
)

const rulesSchema = `CREATE TABLE post (id INTEGER PRIMARY KEY, author BLOB NOT NULL REFERENCES _user(id), title TEXT);
CREATE TABLE room (id TEXT PRIMARY KEY NOT NULL) STRICT;`

// rulesConfig writes a configuration with a migration that has the schema.
func rulesConfig(t *testing.T, text string) string {
	t.Helper()
	config := writeConfig(t, "server: {data_dir: state}\nmigrations: migrations\n"+text, "migrations/0001_schema.sql")
	if err := os.WriteFile(filepath.Join(filepath.Dir(config), "migrations", "0001_schema.sql"), []byte(rulesSchema), 0o600); err != nil {
		t.Fatal(err)
	}
	return config
}

func TestRulesCheck(t *testing.T) {
	t.Parallel()
	config := rulesConfig(t, `auth: {}
record_apis:
  - name: posts
    table_name: post
    acl_world: [READ]
    acl_authenticated: [CREATE, UPDATE]
    create_access_rule: _REQ_.author = _USER_.id
    update_access_rule: _ROW_.author = _USER_.id
  - name: rooms
    table_name: room
    acl_authenticated: [DELETE]
`)
	want := config + `:10: warning: api "posts": update rule: it compares author with _USER_.id before the update only, so the owner may give a record to somebody else: add 'author' NOT IN _REQ_FIELDS_, or set Check to _ROW_.author = _USER_.id (owner-moves)
` + config + `:5: info: api "posts": read rule: there is none: everybody reads the records of all users (author) (no-read-rule)
` + config + `:11: warning: api "rooms": delete rule: there is none: whoever is signed in may delete any record (no-write-rule)
`
	for _, state := range []string{"before the first start", "with a database"} {
		got, err := tryCommand(t, config, "", "rules", "check")
		if err == nil || err.Error() != "2 of 3 findings are warnings or errors" {
			t.Errorf("%s: %v", state, err)
		}
		if got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", state, got, want)
		}
		if _, err := os.Stat(filepath.Join(filepath.Dir(config), "state")); state == "before the first start" && !os.IsNotExist(err) {
			t.Errorf("it has made the data directory: %v", err)
		}
		openState(t, config)
	}

	text, err := tryCommand(t, config, "", "rules", "check", "--json")
	var findings []struct{ API, Place, Severity, Code, Text string }
	if jerr := json.Unmarshal([]byte(text), &findings); err == nil || jerr != nil || len(findings) != 3 || findings[0].Code != "owner-moves" || findings[0].Severity != "warning" {
		t.Errorf("%v, %v: %s", err, jerr, text)
	}
}

func TestRulesCheckQuiet(t *testing.T) {
	t.Parallel()
	config := rulesConfig(t, "auth: {}\nrecord_apis: [{name: rooms, table_name: room, acl_world: [READ]}]\n")
	if got := command(t, config, "", "rules", "check"); got != "Nothing found in 1 record APIs.\n" {
		t.Errorf("%q", got)
	}
	if got := command(t, config, "", "rules", "check", "--json"); got != "[]\n" {
		t.Errorf("%q", got)
	}
	config = rulesConfig(t, "auth: {}\nrecord_apis:\n - name: rooms\n   table_name: room\n   read_access_rule: nope\n")
	if _, err := tryCommand(t, config, "", "rules", "check"); err == nil || !strings.Contains(err.Error(), config+`:7: records: api "rooms": read rule`) {
		t.Errorf("a mistake: %v", err)
	}
}

func TestRulesExplain(t *testing.T) {
	t.Parallel()
	config := rulesConfig(t, `auth: {user_identifier: REQUIRE_USERNAME}
record_apis:
  - name: posts
    table_name: post
    acl_authenticated: [CREATE, UPDATE]
    create_access_rule: _REQ_.author = _USER_.id
    update_access_rule: _ROW_.author = _USER_.id
`)
	explain := func(args ...string) string {
		t.Helper()
		return command(t, config, "", append([]string{"rules", "explain", "posts"}, args...)...)
	}
	if _, err := tryCommand(t, config, "", "rules", "explain", "posts", "read"); err == nil || !strings.Contains(err.Error(), "there is no ") {
		t.Errorf("without a database: %v", err)
	}
	b := openState(t, config)
	ada := strings.TrimSpace(command(t, config, testPassword, "user", "add", "--username=ada"))
	command(t, config, testPassword, "user", "add", "--username=bob")
	err := b.DB.Update(t.Context(), func(tx *sqlite.Tx) error {
		_, err := tx.ExecContext(t.Context(), `INSERT INTO post (id, author) SELECT 7, id FROM _user WHERE username = 'ada'`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"ada", ada} {
		if got, want := explain("update", "--user="+user, "--id=7", `--body={"title":"x"}`), "update posts 7 by user "+ada+`: granted (200 OK)
  holds       access control list: Authenticated has update
  holds       record: it is there
  holds       update rule: _ROW_.author = _USER_.id
`; got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
	if got := explain("update", "--user=bob", "--id=7"); !strings.Contains(got, ": denied (403 Forbidden)\n") || !strings.HasSuffix(got, "denies      update rule: _ROW_.author = _USER_.id\n") {
		t.Errorf("somebody else: %s", got)
	}
	if got := explain("create"); got != `create posts by an anonymous caller: denied (403 Forbidden)
  denies      access control list: the caller is anonymous and World does not have create
` {
		t.Errorf("anonymous: %s", got)
	}
	var answer struct {
		Granted bool
		Status  int
		Steps   []struct{ Name, Verdict string }
	}
	text := explain("create", "--user=bob", "--json", `--body={"author":"`+ada+`"}`)
	if err := json.Unmarshal([]byte(text), &answer); err != nil || answer.Granted || answer.Status != 403 || len(answer.Steps) != 2 || answer.Steps[1].Verdict != "denies" {
		t.Errorf("%v: %s", err, text)
	}
	for want, args := range map[string][]string{
		`there is no user "eve"`: {"read", "--user=eve"},
		`needs the id`:           {"update", "--user=bob"},
		`must be one of`:         {"drop"},
	} {
		if _, err := tryCommand(t, config, "", append([]string{"rules", "explain", "posts"}, args...)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %s", args, err, want)
		}
	}
}

// The commands that look at a database leave it as it is, whatever a server
// would do when it starts: tables, keys, what is out of date.
func TestLookingChangesNothing(t *testing.T) {
	t.Parallel()
	config := rulesConfig(t, `auth: {}
databases: [{name: other}]
record_apis: [{name: posts, table_name: post, acl_world: [READ], acl_authenticated: [DELETE], enable_subscriptions: true}]
`)
	state := filepath.Join(filepath.Dir(config), "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	open := func(name string) *sqlite.DB {
		t.Helper()
		db, err := sqlite.Open(t.Context(), filepath.Join(state, name), sqlite.Options{Ballast: -1})
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	db := open("main.db")
	if err := auth.Migrate(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	if err := db.Migrate(t.Context(), os.DirFS(filepath.Join(filepath.Dir(config), "migrations"))); err != nil {
		t.Fatal(err)
	}
	err := db.Update(t.Context(), func(tx *sqlite.Tx) error {
		_, err := tx.ExecContext(t.Context(), `
			INSERT INTO _user (email) VALUES ('ada@example.com'); INSERT INTO post (id, author) SELECT 7, id FROM _user;
			INSERT INTO _one_time (hash, purpose, expires) VALUES (x'00', 'x', 2);
			DROP TABLE _session; ALTER TABLE _user DROP COLUMN totp_step`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Close(), open("other.db").Close()); err != nil {
		t.Fatal(err)
	}
	testLooks(t, config, state)
	b := openState(t, config) // as the server does, with all its tables
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	testLooks(t, config, state)
	if err := os.Remove(filepath.Join(state, "other.db")); err != nil {
		t.Fatal(err)
	}
	if _, err := tryCommand(t, config, "", "types", "--lang=ts"); err == nil || !strings.Contains(err.Error(), `database "other"`) {
		t.Errorf("without a database: %v", err)
	}
	if _, err := os.Stat(filepath.Join(state, "other.db")); err == nil {
		t.Error("it has made a database")
	}
}

func testLooks(t *testing.T, config, state string) {
	t.Helper()
	before := contents(t, state)
	for want, args := range map[string][]string{
		"": {"rules", "check"}, "by user ": {"rules", "explain", "posts", "read", "--id=7", "--user=Ada@example.com"},
		"interface Posts": {"types", "--lang=ts"}, "/api/records/v1/posts": {"openapi"},
	} {
		if text, err := tryCommand(t, config, "", args...); !strings.Contains(text, want) || err != nil && want != "" {
			t.Errorf("%v: %v: %s", args, err, text)
		}
		if after := contents(t, state); !maps.Equal(before, after) {
			t.Errorf("%v has changed something: %v, before %v", args, slices.Sorted(maps.Keys(after)), slices.Sorted(maps.Keys(before)))
		}
	}
}

// contents returns what is in all files of a directory.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		all[path] = ""
		if d.Type().IsRegular() {
			text, err := os.ReadFile(path)
			all[path] = string(text)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A mistake that the database shows has its line.
func TestRulesExplainLocates(t *testing.T) {
	t.Parallel()
	config := rulesConfig(t, "auth: {}\nrecord_apis:\n - name: rooms\n   table_name: room\n   read_access_rule: nope\n")
	broken, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, config, strings.Replace(string(broken), "nope", "'1'", 1))
	openState(t, config)
	write(t, config, string(broken))
	if _, err := tryCommand(t, config, "", "rules", "explain", "rooms", "read"); err == nil || !strings.Contains(err.Error(), config+`:7: records: api "rooms": read rule`) {
		t.Error(err)
	}
}

// A mistake is at the line of what it is about, not of what it mentions.
func TestLocate(t *testing.T) {
	t.Parallel()
	conf := &config{file: "f", places: map[string]int{`api "a"`: 1, `api "a": read rule`: 2, `api "b"`: 3, "longer than all the others": 4}}
	for text, want := range map[string]string{
		`api "b": refers to api "a": read rule`: "f:3: ", `api "a": read rule: api "b"`: "f:2: ", `api "a": expand: longer than all the others`: "f:1: ", "nothing": "f: ",
	} {
		for range 20 { // the order of places is a matter of chance
			if err := conf.locate(errors.New(text)); err.Error() != want+text {
				t.Fatalf("%v, want %s", err, want)
			}
		}
	}
}

// Without a sign-in of the server ids are what they look like.
func TestRulesExplainOtherUsers(t *testing.T) {
	t.Parallel()
	config := writeConfig(t, "server: {data_dir: state}\nmigrations: migrations\nrecord_apis: [{name: rooms, table_name: room, acl_authenticated: [READ], read_access_rule: _ROW_.id = _USER_.id}]\n", "migrations/0001_schema.sql")
	schema := `CREATE TABLE room (id TEXT PRIMARY KEY NOT NULL) STRICT; INSERT INTO room VALUES ('x');`
	if err := os.WriteFile(filepath.Join(filepath.Dir(config), "migrations", "0001_schema.sql"), []byte(schema), 0o600); err != nil {
		t.Fatal(err)
	}
	openState(t, config)
	for user, want := range map[string]string{"x": "by user x: granted", "7": "by user 7: denied", "": "by an anonymous caller: denied"} {
		args := []string{"rules", "explain", "rooms", "read", "--id=x"}
		if user != "" {
			args = append(args, "--user="+user)
		}
		if got := command(t, config, "", args...); !strings.Contains(got, want) {
			t.Errorf("%q: %s", user, got)
		}
	}
}
