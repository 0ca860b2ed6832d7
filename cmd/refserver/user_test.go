package main

import (
	"database/sql/driver"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bedplate/bedplate"
)

// openState opens the database of a configuration as the server does.
func openState(t *testing.T, config string) *bedplate.Backend {
	t.Helper()
	conf, err := (&where{Config: config}).load()
	if err != nil {
		t.Fatal(err)
	}
	if err := conf.makeDirectories(); err != nil {
		t.Fatal(err)
	}
	conf.Mailer, conf.SiteURL = noMailer{}, "http://localhost"
	b, err := bedplate.Open(t.Context(), conf.backend(nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestUserCommands(t *testing.T) {
	t.Parallel()
	config := writeConfig(t, "server: {data_dir: state}\nauth: {user_identifier: REQUIRE_USERNAME}\n")
	b := openState(t, config)
	must := func(input string, args ...string) string {
		t.Helper()
		return strings.TrimSpace(command(t, config, input, append([]string{"user"}, args...)...))
	}

	ada := must(testPassword+"\r\n", "add", "--username=ada", "--email=ada@example.com", "--admin")
	bob := must("", "add", "--username=bob", "--email=bob@example.com", "--no-password", "--unverified")
	must(testPassword, "add", "--username=carol")
	must("", "disable", "carol")
	want := [][]string{
		{"ID", "EMAIL", "USERNAME", "CREATED"},
		{ada, "ada@example.com", "ada", "", "admin"},
		{bob, "bob@example.com", "bob", "", "unverified"},
		{"", "-", "carol", "", "disabled"},
	}
	list := must("", "list")
	if lines := strings.Split(list, "\n"); len(lines) != len(want) {
		t.Errorf("list:\n%s", list)
	}
	for _, w := range want { // those of one second are in the order of their ids
		found := false
		for line := range strings.Lines(list) {
			fields := strings.Fields(line)
			matches := len(fields) == len(w)
			for i := range min(len(fields), len(w)) {
				matches = matches && (w[i] == "" || w[i] == fields[i])
			}
			found = found || matches
		}
		if !found {
			t.Errorf("no line %q in\n%s", w, list)
		}
	}

	// The mail that asks bob waits for the server.
	if n := count(t, b, `SELECT count(*) FROM _outbox WHERE due = 0 AND tries = 0 AND lease IS NULL`); n != 1 {
		t.Errorf("%d mails wait, want 1", n)
	}

	for range 2 {
		r := httptest.NewRequest("POST", "/api/auth/v1/login", strings.NewReader(`{"username":"ada","password":"`+testPassword+`"}`))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("User-Agent", "evil\u009b31m")
		w := httptest.NewRecorder()
		b.Handler().ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			t.Fatalf("login: %d %s", w.Code, w.Body)
		}
	}
	sessions := strings.Split(must("", "sessions", "ada@example.com"), "\n")
	if len(sessions) != 3 || strings.Contains(sessions[1], "\u009b") {
		t.Fatalf("sessions %q", sessions)
	}
	must("", "revoke", "--", ada, strings.Fields(sessions[1])[0]) // which may begin with hyphens
	if left := must("", "sessions", "ada"); strings.Contains(left, strings.Fields(sessions[1])[0]) || !strings.Contains(left, strings.Fields(sessions[2])[0]) {
		t.Errorf("after the end of one session: %s", left)
	}
	must("", "revoke", "ada")
	if left := must("", "sessions", "ada"); strings.Contains(left, "\n") {
		t.Errorf("after the end of all sessions: %s", left)
	}

	must("", "set-admin", "ada", "--off")
	must("", "set-admin", "--", bob)
	must("", "enable", "carol")
	if n := count(t, b, `SELECT count(*) FROM _user WHERE admin = (username = 'bob') AND disabled = 0`); n != 3 {
		t.Errorf("%d users are as they should be, want 3", n)
	}
	must("", "delete", "carol")
	if n := count(t, b, `SELECT count(*) FROM _user`); n != 2 {
		t.Errorf("%d users after a deletion, want 2", n)
	}
	command(t, config, "", "keys", "rotate")
	if n := count(t, b, `SELECT count(*) FROM _signing_key`); n != 2 {
		t.Errorf("%d signing keys, want 2", n)
	}

	for name, tt := range map[string]struct {
		input string
		args  []string
		want  string
	}{
		"an argument":      {"", []string{"add", "--username=eve", "--password=" + testPassword}, "unknown flag --password"},
		"no password":      {"", []string{"add", "--username=eve"}, "no password"},
		"an empty line":    {"\n" + testPassword, []string{"add", "--username=eve"}, "no password"},
		"a long password":  {strings.Repeat("x", 10000), []string{"add", "--username=eve"}, "too long"},
		"a short password": {"short", []string{"add", "--username=eve"}, "too short"},
		"two of a name":    {testPassword, []string{"add", "--username=ADA"}, "somebody has that"},
		"no name":          {testPassword, []string{"add", "--email=eve@example.com"}, "auth: "},
		"nobody":           {"", []string{"delete", "eve"}, `there is no user "eve"`},
		"no such id":       {"", []string{"disable", "AAAAAAAAAAAAAAAAAAAAAA=="}, "there is no user"},
		"new password":     {testPassword, []string{"set-password", "eve"}, "there is no user"},
		"a weak password":  {"short", []string{"set-password", "ada"}, "too short"},
		"no such session":  {"", []string{"revoke", "ada", "xyz"}, "no such session"},
	} {
		out, err := tryCommand(t, config, tt.input, append([]string{"user"}, tt.args...)...)
		if err == nil || !strings.Contains(err.Error(), tt.want) || out != "" || strings.Contains(err.Error(), testPassword) {
			t.Errorf("%s: %q, %v, want %q", name, out, err, tt.want)
		}
	}
}

func count(t *testing.T, b *bedplate.Backend, query string) (n int64) {
	t.Helper()
	if err := b.DB.Query(t.Context(), query, nil, func(v []driver.Value) error {
		n, _ = v[0].(int64)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

// Commands make no database by themselves, and know none without a sign-in.
func TestUserCommandsWithoutDatabase(t *testing.T) {
	t.Parallel()
	config := writeSignInConfig(t)
	if _, err := tryCommand(t, config, "", "user", "list"); err == nil || !strings.Contains(err.Error(), "start the server once") {
		t.Errorf("without a database: %v", err)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(config), "state")); err == nil {
		t.Error("a data directory was made")
	}
	if _, err := tryCommand(t, writeConfig(t, "databases: []\n"), "", "keys", "rotate"); err == nil || !strings.Contains(err.Error(), "no sign-in is configured") {
		t.Errorf("without auth: %v", err)
	}
}

func TestPrintable(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "-", "Mozilla/5.0 (X11)": "Mozilla/5.0 (X11)", "Ünï": "Ünï",
		"\x1b[31m": `"\x1b[31m"`, "a\tb\nc": `"a\tb\nc"`, "\xff": `"\xff"`, "\u202e": `"\u202e"`, `"`: `"\""`,
	} {
		if got := printable(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}
