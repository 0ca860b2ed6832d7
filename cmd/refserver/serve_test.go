package main

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/bedplate/bedplate/sqlite"
)

// Flags win over environment variables, and these over the file.
func TestSettingsPrecedence(t *testing.T) {
	file := writeConfig(t, "server:\n  listen: file:1\n  cors_allowed_origins: [https://file.example]\n  request_size_limit_bytes: 1\n")
	tests := []struct {
		name   string
		args   []string
		env    map[string]string
		listen string
		cors   string
		limit  int64
	}{
		{"defaults", nil, nil, "127.0.0.1:4000", "*", 0},
		{"file", []string{"--config", file}, nil, "file:1", "https://file.example", 1},
		{"file by environment", nil, map[string]string{"BEDPLATE_CONFIG": file}, "file:1", "https://file.example", 1},
		{
			"environment over file",
			[]string{"--config", file},
			map[string]string{
				"BEDPLATE_LISTEN": "env:2", "BEDPLATE_CORS_ALLOWED_ORIGINS": "https://env.example,https://too.example",
				"BEDPLATE_REQUEST_SIZE_LIMIT_BYTES": "2",
			},
			"env:2", "https://env.example https://too.example", 2,
		},
		{
			"flag over both",
			[]string{"serve", "--listen", "flag:3", "--cors-allowed-origins", "https://flag.example", "--config", file, "--request-size-limit-bytes=3"},
			map[string]string{"BEDPLATE_LISTEN": "env:2", "BEDPLATE_CORS_ALLOWED_ORIGINS": "https://env.example", "BEDPLATE_REQUEST_SIZE_LIMIT_BYTES": "2"},
			"flag:3", "https://flag.example", 3,
		},
		{
			"repeated flag",
			[]string{"--cors-allowed-origins=https://a.example", "--cors-allowed-origins=https://b.example"},
			nil, "127.0.0.1:4000", "https://a.example https://b.example", 0,
		},
		{"no origin", []string{"--cors-allowed-origins=none"}, nil, "127.0.0.1:4000", "", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			var c commands
			parser, err := kong.New(&c, kong.Vars{"version": "test"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := parser.Parse(tt.args); err != nil {
				t.Fatal(err)
			}
			conf, err := c.Serve.settings()
			if err != nil {
				t.Fatal(err)
			}
			if conf.Listen != tt.listen || strings.Join(conf.CORSOrigins, " ") != tt.cors || conf.RequestSizeLimit != tt.limit {
				t.Errorf("%s, %q, %d, want %s, %q, %d", conf.Listen, conf.CORSOrigins, conf.RequestSizeLimit, tt.listen, tt.cors, tt.limit)
			}
		})
	}
}

// The same for the public address, whose default is known when the server
// listens.
func TestSiteURLPrecedence(t *testing.T) {
	file := writeConfig(t, "server: {site_url: https://file.example}\n")
	for _, tt := range []struct {
		args      []string
		env, want string
	}{
		{nil, "", ""},
		{[]string{"--config", file}, "", "https://file.example"},
		{[]string{"--config", file}, "https://env.example", "https://env.example"},
		{[]string{"--config", file, "--site-url", "https://flag.example"}, "https://env.example", "https://flag.example"},
	} {
		if tt.env != "" {
			t.Setenv("BEDPLATE_SITE_URL", tt.env)
		}
		var c commands
		parser, err := kong.New(&c, kong.Vars{"version": "test"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.Parse(tt.args); err != nil {
			t.Fatal(err)
		}
		if conf, err := c.Serve.settings(); err != nil || conf.SiteURL != tt.want {
			t.Errorf("%q with %q: %q, %v, want %q", tt.args, tt.env, conf.SiteURL, err, tt.want)
		}
	}
}

// The binary is built once and started as an operator would.
func TestBinary(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "refserver")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for name, test := range map[string]func(*testing.T, string){
		"demo": testDemo, "configured": testConfigured, "second signal": testSecondSignal,
		"refusals": testRefusals, "version": testVersion, "sign-in": testSignIn, "no sign-in": testNoSignIn,
		"tail": testTail, "files": testFiles, "refusals of records": testRefusalsOfRecords,
		"hangup": testHangup,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, binary)
		})
	}
}

func testDemo(t *testing.T, binary string) {
	data := filepath.Join(t.TempDir(), "data")
	s := start(t, binary, "--listen", "127.0.0.1:0", "--data-dir", data)
	s.stdout.await(t, "&expand=object'\n\n") // the end of the banner

	var commands []string
	for line := range strings.Lines(s.stdout.String()) {
		if strings.HasPrefix(line, "curl ") {
			commands = append(commands, strings.TrimSpace(line))
		}
	}
	if len(commands) < 4 {
		t.Fatalf("%d curl commands in the banner:\n%s", len(commands), s.stdout)
	}
	if _, err := exec.LookPath("curl"); err != nil {
		t.Log("curl is not installed: the banner's commands are not tried")
		commands = nil
	}
	for _, command := range commands {
		if line, err := firstLine(t, command+" -sSNi"); err != nil || !strings.Contains(line, " 200 ") {
			t.Errorf("%s\n%v: %s", command, err, line)
		}
	}

	for _, tt := range []struct {
		method, path, body string
		status             int
		want               string // a part
	}{
		{"GET", "/livez", "", 200, "ok\n"},
		{"GET", "/readyz", "", 200, "ok\n"},
		{"GET", "/api/healthcheck", "", 200, "Ok"},
		{"GET", "/nowhere", "", 404, ""},
		{"POST", "/livez", "", 405, ""},
		{"GET", "/api/records/v1/nowhere/1", "", 405, ""},
		{"GET", "/api/records/v1/constellations?count=true&limit=1", "", 200, `"total_count":88`},
		{"GET", "/api/records/v1/messier?count=true&limit=1", "", 200, `"total_count":110`},
		{"GET", "/api/records/v1/stars?count=true&limit=1", "", 200, `"total_count":149`},
		{"GET", "/api/records/v1/sky?count=true&limit=1", "", 200, `"total_count":110`},
		{"GET", "/api/records/v1/stars/32349?expand=constellation", "", 200, `"name":"Canis Major"`},
		{"GET", "/api/records/v1/sky/42", "", 200, `"guide_star":"Rigel"`},
		{"PATCH", "/api/records/v1/stars/32349", `{"name":"mine"}`, 403, ""},
		{"POST", "/api/records/v1/observations", `{"object":111,"observer":"a","seen_on":"2026-01-15"}`, 400, "db constraint: fk"},
		{"POST", "/api/records/v1/observations", `{"object":1,"observer":" ","seen_on":"2026-01-15"}`, 400, "db constraint: check"},
		{"POST", "/api/records/v1/observations", `{"object":1,"observer":"a","seen_on":"2026-02-30"}`, 400, "db constraint: check"},
		{"POST", "/api/records/v1/observations", `{"object":1,"observer":"a","seen_on":"now"}`, 400, "db constraint: check"},
		{"POST", "/api/records/v1/observations", `{"object":1,"observer":"a","seen_on":"2026-01-15","created":1}`, 403, ""},
		{"POST", "/api/records/v1/observations", `{"object":1,"observer":"a","seen_on":"2026-01-15"}`, 200, `{"ids":["`},
	} {
		status, body := s.request(t, tt.method, tt.path, tt.body)
		if status != tt.status || !strings.Contains(body, tt.want) || tt.want == "" && body != "" {
			t.Errorf("%s %s %s: %d %q, want %d %q", tt.method, tt.path, tt.body, status, body, tt.status, tt.want)
		}
	}

	res, err := http.DefaultClient.Do(newRequest(t, "OPTIONS", s.url+"/api/records/v1/stars", "", "Origin", "https://page.example",
		"Access-Control-Request-Method", "PATCH", "Access-Control-Request-Headers", "authorization"))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 204 || res.Header.Get("Access-Control-Allow-Origin") != "https://page.example" ||
		res.Header.Get("Access-Control-Allow-Headers") != "authorization" || res.Header.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("preflight: %d %v", res.StatusCode, res.Header)
	}

	const count = "/api/records/v1/observations?count=true&limit=1"
	_, before := s.request(t, "GET", count, "")
	s.stop(t)

	// A second start finds what the first has left.
	s = start(t, binary, "--listen", "127.0.0.1:0", "--data-dir", data)
	if _, after := s.request(t, "GET", count, ""); total(t, after) != total(t, before) {
		t.Errorf("after a restart %s, before %s", after, before)
	}
	s.stop(t)
}

// firstLine returns the first line that a command of the shell prints, and ends it then: it may have no end.
func firstLine(t *testing.T, command string) (string, error) {
	t.Helper()
	ctx, end := context.WithTimeout(t.Context(), patience)
	defer end()
	c := exec.CommandContext(ctx, "sh", "-c", "exec "+command)
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	end()
	_ = c.Wait() // it was killed, or has failed
	return line, err
}

func testConfigured(t *testing.T, binary string) {
	config := writeConfig(t, `
migrations: sql
record_apis:
  - name: things
    table_name: things
    acl_world: [CREATE, READ]
server:
  data_dir: state
  request_size_limit_bytes: 100
  cors_allowed_origins: []
`, "sql/README")
	write(t, filepath.Join(filepath.Dir(config), "sql", "0001_things.sql"), `CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT;`)
	s := start(t, binary, "serve", "--listen", "127.0.0.1:0", "--config", config)
	if s.stdout.String() != "" {
		t.Errorf("a banner outside the demo:\n%s", s.stdout)
	}
	if status, body := s.request(t, "POST", "/api/records/v1/things", `{"name":"a"}`); status != 200 || body != `{"ids":["1"]}` {
		t.Errorf("create: %d %s", status, body)
	}
	if status, _ := s.request(t, "POST", "/api/records/v1/things", `{"name":"`+strings.Repeat("a", 100)+`"}`); status != 413 {
		t.Errorf("a body over the limit: %d, want 413", status)
	}
	if status, body := s.request(t, "GET", "/api/records/v1/things/1", ""); status != 200 || body != `{"id":1,"name":"a"}` {
		t.Errorf("read: %d %s", status, body)
	}
	res, err := http.DefaultClient.Do(newRequest(t, "GET", s.url+"/livez", "", "Origin", "https://page.example"))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if got := res.Header.Get("Access-Control-Allow-Origin"); got != "" {
		t.Errorf("allowed origin %q without any in the file", got)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(config), "state", "main.db")); err != nil {
		t.Errorf("the data directory of the file: %v", err)
	}
	s.stop(t)
}

// A request that does not end delays the exit, a second signal does not wait
// for it.
func testSecondSignal(t *testing.T, binary string) {
	s := start(t, binary, "--listen", "127.0.0.1:0", "--data-dir", t.TempDir())
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// The interim answer says that the handler reads the body.
	if _, err := io.WriteString(c, "POST /api/records/v1/observations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"+
		"Content-Length: 10\r\nExpect: 100-continue\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, "100") {
		t.Fatalf("%q, %v", line, err)
	}
	s.signal(t)
	// The listener closes at the beginning of the drain.
	for {
		probe, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			break
		}
		probe.Close()
		select {
		case err := <-s.ended:
			t.Fatalf("ended with a request in flight: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	s.signal(t)
	select {
	case err := <-s.ended: // without it the drain comes to its end, and that is an exit
		var exit *exec.ExitError
		if !errors.As(err, &exit) || !exit.Sys().(syscall.WaitStatus).Signaled() {
			t.Errorf("%v, want that the signal has ended it", err)
		}
	case <-time.After(patience):
		t.Error("still there after the second signal")
	}
}

func testRefusals(t *testing.T, binary string) {
	foreign := t.TempDir()
	db, err := sql.Open(sqlite.DriverName, filepath.Join(foreign, "main.db"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), `CREATE TABLE mine (id INTEGER PRIMARY KEY)`); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	bad := writeConfig(t, "record_apis:\n  - name: a\n    table_name: a\n    acl_wrld: [READ]\n")
	rule := writeConfig(t, `
migrations: sql
record_apis:
  - name: fine
    table_name: things
  - name: rules
    table_name: things
    acl_world: [READ]
    read_access_rule: _ROW_.nmae = 'x'
  - name: expansions
    table_name: things
    expand:
      - nowhere
  - name: tables
    table_name: no_such_table
`, "sql/README")
	write(t, filepath.Join(filepath.Dir(rule), "sql", "0001_things.sql"), `CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT;`)
	for name, tt := range map[string]struct {
		args []string
		want []string
	}{
		"somebody's database": {[]string{"--data-dir", foreign}, []string{"is not the demo"}},
		"unknown flag":        {[]string{"--lisen", "x"}, []string{"--lisen"}},
		"unknown command":     {[]string{"sevre"}, []string{"sevre"}},
		"bad origin":          {[]string{"--cors-allowed-origins", "example.com", "--data-dir", t.TempDir()}, []string{`"example.com"`}},
		"bad file":            {[]string{"--config", bad, "--data-dir", t.TempDir()}, []string{bad + `:4: unknown key "acl_wrld"`}},
		"bad rule":            {[]string{"--config", rule, "--data-dir", t.TempDir()}, []string{rule + `:9: `, "no column", rule + `:13: `, rule + `:14: `}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := refused(t, binary, tt.args...)
			for _, want := range tt.want {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
		})
	}
}

// refused returns what a server says that is not to start.
func refused(t *testing.T, binary string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary, append([]string{"--listen", "127.0.0.1:0"}, args...)...).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("%v, want exit status 1", err)
	}
	return string(out)
}

func testVersion(t *testing.T, binary string) {
	out, err := exec.CommandContext(t.Context(), binary, "--version").Output()
	if err != nil || !bytes.Contains(out, []byte(" go1.")) {
		t.Errorf("%q, %v", out, err)
	}
}

// A process is a running server.
type process struct {
	cmd    *exec.Cmd
	url    string
	stdout *buffer
	logs   *buffer
	ended  chan error
}

// start runs the binary until the test ends and waits for its address.
func start(t *testing.T, binary string, args ...string) *process {
	t.Helper()
	s := &process{cmd: exec.Command(binary, args...), stdout: newBuffer(), logs: newBuffer(), ended: make(chan error, 1)}
	s.cmd.Stdout, s.cmd.Stderr = s.stdout, s.logs
	s.cmd.Env = slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "BEDPLATE_") })
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.ended <- s.cmd.Wait() }()
	t.Cleanup(func() { _ = s.cmd.Process.Kill() })
	deadline := time.After(patience)
	for {
		for line := range strings.Lines(s.logs.String()) {
			var entry struct{ Msg, URL string }
			if json.Unmarshal([]byte(line), &entry) == nil && (entry.Msg == "listening" || entry.Msg == "standing by") {
				s.url = entry.URL
			}
		}
		if s.url != "" {
			return s
		}
		select {
		case <-s.logs.wrote:
		case err := <-s.ended:
			t.Fatalf("ended early: %v\n%s", err, s.logs)
		case <-deadline:
			t.Fatalf("no address:\n%s", s.logs)
		}
	}
}

func (s *process) signal(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

// stop asks the server to end, which is an error if something has to be waited for
// to the end of the drain.
func (s *process) stop(t *testing.T) {
	t.Helper()
	s.signal(t)
	select {
	case err := <-s.ended:
		if err != nil {
			t.Errorf("after SIGTERM: %v", err)
		}
	case <-time.After(patience):
		t.Error("still there after SIGTERM")
	}
}

func (s *process) request(t *testing.T, method, path, body string) (status int, answer string) {
	t.Helper()
	res, err := http.DefaultClient.Do(newRequest(t, method, s.url+path, body, "Content-Type", "application/json"))
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

func newRequest(t *testing.T, method, url, body string, header ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

func total(t *testing.T, list string) int {
	t.Helper()
	var l struct {
		Total int `json:"total_count"`
	}
	if err := json.Unmarshal([]byte(list), &l); err != nil {
		t.Fatalf("%v: %s", err, list)
	}
	return l.Total
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A buffer collects output while others look at it.
type buffer struct {
	mu    sync.Mutex
	text  bytes.Buffer
	wrote chan struct{} // something is new
}

func newBuffer() *buffer { return &buffer{wrote: make(chan struct{}, 1)} }

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case b.wrote <- struct{}{}:
	default:
	}
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// await waits until part is there.
func (b *buffer) await(t *testing.T, part string) {
	t.Helper()
	deadline := time.After(patience)
	for !strings.Contains(b.String(), part) {
		select {
		case <-b.wrote:
		case <-deadline:
			t.Fatalf("no %q in\n%s", part, b)
		}
	}
}
