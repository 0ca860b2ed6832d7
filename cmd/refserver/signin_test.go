package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// signInConfig is a server with a sign-in and an API for those who did.
const signInConfig = `
server:
  data_dir: state
migrations: sql
record_apis:
  - name: notes
    table_name: notes
    acl_authenticated: [CREATE, READ]
    autofill_missing_user_id_columns: true
    read_access_rule: _ROW_.owner = _USER_.id
auth:
  user_identifier: REQUIRE_USERNAME
`

const testPassword = "Correct.horse.7"

func writeSignInConfig(t *testing.T) string {
	t.Helper()
	path := writeConfig(t, signInConfig, "sql/README")
	write(t, filepath.Join(filepath.Dir(path), "sql", "0001_notes.sql"),
		`CREATE TABLE notes (id INTEGER PRIMARY KEY, owner BLOB REFERENCES _user(id) ON DELETE CASCADE, text TEXT) STRICT;`)
	return path
}

var setupLink = regexp.MustCompile(`http\S*/_/auth/setup/(\w+)\n`)

func testSignIn(t *testing.T, binary string) {
	config := writeSignInConfig(t)
	// Files are closed to others however careless the environment is.
	s := start(t, "sh", "-c", `umask 000 && exec "$0" "$@"`, binary, "--listen", "127.0.0.1:0", "--config", config)
	state := filepath.Join(filepath.Dir(config), "state")
	for name, want := range map[string]os.FileMode{
		"": 0o700, "secrets": 0o700, "secrets/master.key": 0o600, "main.db": 0o600, "main.db-wal": 0o600,
	} {
		info, err := os.Stat(filepath.Join(state, filepath.FromSlash(name)))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%q: %v, %v, want mode %v", name, info.Mode(), err, want)
		}
	}

	s.stdout.await(t, "/_/auth/setup/")
	first := setupLink.FindStringSubmatch(s.stdout.String())
	if first == nil || !strings.HasPrefix(first[0], s.url+"/") {
		t.Fatalf("no link to %s in %s", s.url, s.stdout)
	}
	if strings.Contains(s.logs.String(), first[1]) {
		t.Error("the link of the first administrator is in the log")
	}
	s.stop(t)

	// Each start prints a link once, and only the last one is good.
	s = start(t, binary, "--listen", "127.0.0.1:0", "--config", config, "--site-url", "https://app.example.com")
	s.stdout.await(t, "/_/auth/setup/")
	links := setupLink.FindAllStringSubmatch(s.stdout.String(), -1)
	if len(links) != 1 || !strings.HasPrefix(links[0][0], "https://app.example.com/_/auth/setup/") {
		t.Fatalf("links %q, want one to the site", links)
	}
	setup := func(token string) int {
		status, _ := s.request(t, "POST", "/api/auth/v1/setup", `{"token":"`+token+`","username":"root","password":"`+testPassword+`","password_repeat":"`+testPassword+`"}`)
		return status
	}
	if status := setup(first[1]); status != 400 {
		t.Errorf("the link of the start before: %d, want 400", status)
	}
	if status := setup(links[0][1]); status != 200 {
		t.Errorf("the link: %d, want 200", status)
	}
	if status := setup(links[0][1]); status != 400 {
		t.Errorf("the link again: %d, want 400", status)
	}
	if token := s.login(t, "root", testPassword); token == "" {
		t.Error("the first administrator cannot sign in")
	}
	s.stop(t)

	s = start(t, binary, "--listen", "127.0.0.1:0", "--config", config)
	testUserCommands(t, s, config)
	s.stop(t)
	if strings.Contains(s.stdout.String(), "setup") {
		t.Errorf("a link although there is an administrator: %s", s.stdout)
	}
	if logs := s.logs.String(); strings.Contains(logs, testPassword) {
		t.Errorf("a password is in the log:\n%s", logs)
	}
}

// testUserCommands manages users of a running server.
func testUserCommands(t *testing.T, s *process, config string) {
	id := strings.TrimSpace(command(t, config, testPassword+"\n", "user", "add", "--username", "ada"))
	token := s.login(t, "ada", testPassword)
	if token == "" {
		t.Fatal("a user made by the command cannot sign in")
	}
	if status, _ := s.as(t, token, "POST", "/api/records/v1/notes", `{"text":"mine"}`); status != 200 {
		t.Errorf("create: %d", status)
	}
	if _, body := s.as(t, token, "GET", "/api/records/v1/notes/1", ""); !strings.Contains(body, id) {
		t.Errorf("the note %s is not of %s", body, id)
	}

	command(t, config, "Another.horse.8\n", "user", "set-password", "ada")
	if s.login(t, "ada", testPassword) != "" {
		t.Error("the old password is still good")
	}
	if token = s.login(t, "ada", "Another.horse.8"); token == "" {
		t.Error("the new password is not good")
	}
	command(t, config, "", "keys", "rotate")
	if status, _ := s.as(t, token, "GET", "/api/records/v1/notes/1", ""); status != 200 {
		t.Errorf("with a token of the old key: %d", status)
	}
	command(t, config, "", "user", "disable", "ada")
	if s.login(t, "ada", "Another.horse.8") != "" {
		t.Error("a disabled user signs in")
	}
	command(t, config, "", "user", "enable", id)
	if s.login(t, "ada", "Another.horse.8") == "" {
		t.Error("an enabled user does not sign in")
	}
	command(t, config, "", "user", "delete", "ada")
	if s.login(t, "ada", "Another.horse.8") != "" {
		t.Error("a deleted user signs in")
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(config), "state", "main.db-ballast")); err != nil {
		t.Errorf("the commands have touched what the server keeps for a full disk: %v", err)
	}
}

func testNoSignIn(t *testing.T, binary string) {
	config := writeConfig(t, "server:\n  data_dir: state\n")
	s := start(t, binary, "--listen", "127.0.0.1:0", "--config", config)
	for _, path := range []string{
		"/api/auth/v1/login", "/api/auth/v1/status", "/api/auth/v1/setup", "/api/auth/v1", "/_/auth/login", "/.well-known/jwks.json",
	} {
		for _, method := range []string{"GET", "POST"} {
			if status, body := s.request(t, method, path, "{}"); status != 404 {
				t.Errorf("%s %s: %d %q, want 404", method, path, status, body)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(config), "state", "secrets")); err == nil {
		t.Error("a directory for secrets although there are none")
	}
	s.stop(t)
}

// login returns the auth token, "" if the server refuses.
func (s *process) login(t *testing.T, username, password string) string {
	t.Helper()
	status, body := s.request(t, "POST", "/api/auth/v1/login", `{"username":"`+username+`","password":"`+password+`"}`)
	var tokens struct {
		AuthToken string `json:"auth_token"`
	}
	switch status {
	case http.StatusOK:
		if err := json.Unmarshal([]byte(body), &tokens); err != nil {
			t.Fatal(err)
		}
	case http.StatusUnauthorized:
	default:
		t.Fatalf("login: %d %s", status, body)
	}
	return tokens.AuthToken
}

// as is request with an auth token.
func (s *process) as(t *testing.T, token, method, path, body string) (status int, answer string) {
	t.Helper()
	res, err := http.DefaultClient.Do(newRequest(t, method, s.url+path, body, "Content-Type", "application/json", "Authorization", "Bearer "+token))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// command runs a command in this process and returns its output.
func command(t *testing.T, config, input string, args ...string) string {
	t.Helper()
	out, err := tryCommand(t, config, input, args...)
	if err != nil {
		t.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	return out
}

func tryCommand(t *testing.T, config, input string, args ...string) (string, error) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	flags := len(args) // end here
	if i := slices.Index(args, "--"); i >= 0 {
		flags = i
	}
	args = slices.Insert(slices.Clone(args), flags, "--config", config)
	err := run(&program{t.Context(), strings.NewReader(input), &stdout, &stderr}, args)
	if stderr.Len() > 0 {
		t.Errorf("%s: on standard error: %s", strings.Join(args, " "), &stderr)
	}
	return stdout.String(), err
}

func TestLocalURL(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"127.0.0.1:0":    "http://127.0.0.1:4321",
		":4000":          "http://localhost:4321",
		"0.0.0.0:80":     "http://localhost:4321",
		"[::]:80":        "http://localhost:4321",
		"[::1]:80":       "http://[::1]:4321",
		"Example.com:80": "http://example.com:4321",
	} {
		if got := localURL(address, &net.TCPAddr{IP: net.IPv4zero, Port: 4321}); got != want {
			t.Errorf("listening on %s: %s, want %s", address, got, want)
		}
	}
}
