package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
	"github.com/bedplate/bedplate/sqlite"
)

// backedUpConfig is the configuration of a server with two databases, a custom schema, and a
// record API for each database. more is added to it.
func backedUpConfig(t *testing.T, more string) (file, data string) {
	t.Helper()
	file = writeConfig(t, `
server: {data_dir: state}
databases: [{name: other}]
migrations: sql
schemas:
  - {name: mine, schema: '{"type": "object"}'}
record_apis:
  - {name: things, table_name: things, acl_world: [CREATE, READ]}
  - {name: notes, table_name: other.notes, attached_databases: [other], acl_world: [CREATE, READ]}
`+more, "sql/main/README", "sql/other/README")
	dir := filepath.Dir(file)
	write(t, filepath.Join(dir, "sql", "main", "0001_things.sql"),
		`CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT NOT NULL, doc TEXT DEFAULT ('{}') CHECK (jsonschema('mine', doc))) STRICT;`)
	write(t, filepath.Join(dir, "sql", "other", "0001_notes.sql"), `CREATE TABLE notes (id INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT;`)
	return file, filepath.Join(dir, "state")
}

// patience bounds what is waited for, on the slowest machine.
const patience = 2 * time.Minute

// A running is a command in this process that goes on until it is stopped.
type running struct {
	process // only its url, buffers and ended
	stop    context.CancelFunc
}

// startHere runs a command until the test ends, and waits for what its log calls said.
func startHere(t *testing.T, said string, args ...string) *running {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	s := &running{process{stdout: newBuffer(), logs: newBuffer(), ended: make(chan error, 1)}, stop}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.ended <- run(&program{ctx, strings.NewReader(""), s.stdout, s.logs}, args)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	s.url = s.awaitURL(t, said)
	return s
}

// awaitURL waits for a line of the log that tells an address.
func (s *running) awaitURL(t *testing.T, said string) string {
	t.Helper()
	deadline := time.After(patience)
	for {
		for line := range strings.Lines(s.logs.String()) {
			var entry struct{ Msg, URL string }
			if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == said {
				return entry.URL
			}
		}
		select {
		case <-s.logs.wrote:
		case err := <-s.ended:
			s.ended <- err
			t.Fatalf("ended early: %v\n%s", err, s.logs)
		case <-deadline:
			t.Fatalf("no %q:\n%s", said, s.logs)
		}
	}
}

// end stops the command and returns its error.
func (s *running) end(t *testing.T) error {
	t.Helper()
	s.stop()
	return s.await(t)
}

// await waits for the end of the command.
func (s *running) await(t *testing.T) error {
	t.Helper()
	select {
	case err := <-s.ended:
		s.ended <- err
		return err
	case <-time.After(patience):
		t.Fatalf("it does not end:\n%s", s.logs)
		return nil
	}
}

func (s *running) create(t *testing.T, api, name string) {
	t.Helper()
	if status, body := s.request(t, http.MethodPost, "/api/records/v1/"+api, `{"name":"`+name+`"}`); status != 200 {
		t.Fatalf("create in %s: %d %s\n%s", api, status, body, s.logs)
	}
}

// names returns what is in a table of a database file.
func names(t *testing.T, file, table string) string {
	t.Helper()
	db, err := sql.Open(sqlite.DriverName, "file:"+file+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var all sql.NullString
	if err := db.QueryRowContext(t.Context(), "SELECT group_concat(name, ' ' ORDER BY id) FROM "+table).Scan(&all); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return all.String
}

// tryBare is tryCommand for what writes to standard error.
func tryBare(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), patience) // should it go on
	defer stop()
	var out, logs bytes.Buffer
	err = run(&program{ctx, strings.NewReader(""), &out, &logs}, args)
	return out.String(), logs.String(), err
}

// Snapshots are taken while the server runs, listed, and restored.
func TestSnapshotCommands(t *testing.T) {
	t.Parallel()
	config, data := backedUpConfig(t, "")
	if _, err := tryCommand(t, config, "", "backup", "now"); err == nil || !strings.Contains(err.Error(), "start the server once") {
		t.Errorf("without a database: %v", err)
	}
	s := startHere(t, "listening", "serve", "--listen=127.0.0.1:0", "--config", config)
	s.create(t, "things", "a")
	s.create(t, "notes", "b")
	files := strings.Fields(command(t, config, "", "backup", "now"))
	if len(files) != 2 || filepath.Dir(files[0]) != filepath.Join(data, "backup", "snapshots") {
		t.Fatalf("snapshots %q", files)
	}
	if got := names(t, files[0], "things") + names(t, files[1], "notes"); got != "ab" {
		t.Errorf("in the snapshots: %q", got)
	}
	list := command(t, config, "", "backup", "list")
	for _, file := range files {
		if !strings.Contains(list, "--from "+file+"\n") {
			t.Errorf("no %s in\n%s", file, list)
		}
	}

	// What came later is undone, with the server stopped.
	s.create(t, "things", "later")
	now := time.Now()
	if err := os.Chtimes(files[0], now, now.Add(-time.Hour)); err != nil { // as copying the file may
		t.Fatal(err)
	}
	from := []string{"restore", "--database=main", "--from", files[0]}
	for want, args := range map[string][]string{
		"--database":         {"restore", "--from", files[0]},
		"in use":             append(from, "--replace"),
		"--replace keeps it": from,
	} {
		if out, err := tryCommand(t, config, "", args...); err == nil || !strings.Contains(err.Error(), want) || out != "" {
			t.Errorf("%q: %q, %v", args, out, err)
		}
	}
	if err := s.end(t); err != nil {
		t.Fatalf("%v\n%s", err, s.logs)
	}
	out := command(t, config, "", append(from, "--replace")...)
	if got := names(t, filepath.Join(data, "main.db"), "things"); got != "a" {
		t.Errorf("restored %q\n%s", got, out)
	}
	if at, ok := snapshotTime(files[0]); !ok || !strings.Contains(out, "as of "+moment(at)) {
		t.Errorf("the time is not that of %s:\n%s", files[0], out)
	}
	_, kept, _ := strings.Cut(out, "What was there is ")
	kept, _, _ = strings.Cut(kept, ";")
	if got := names(t, kept, "things"); got != "a later" {
		t.Errorf("kept %q\n%s", got, out)
	}
	to := filepath.Join(t.TempDir(), "copy.db")
	command(t, config, "", "restore", "--database=other", "--from", files[1], "--to", to)
	if got := names(t, to, "notes"); got != "b" {
		t.Errorf("in a copy: %q", got)
	}

	// A copy that is newer than the program is not put in place.
	if err := os.Remove(filepath.Join(filepath.Dir(config), "sql", "main", "0001_things.sql")); err != nil {
		t.Fatal(err)
	}
	newer := filepath.Join(t.TempDir(), "newer.db")
	if _, err := tryCommand(t, config, "", append(from, "--to", newer)...); err == nil || !strings.Contains(err.Error(), "migrations") {
		t.Errorf("newer than the migrations: %v", err)
	}
	if _, err := os.Stat(newer); err == nil {
		t.Error("it was put in place")
	}
}

// A server takes snapshots by itself, and says so in a file.
func TestServerTakesSnapshots(t *testing.T) {
	t.Parallel()
	config, data := backedUpConfig(t, "backup: {snapshots: {interval: 24h}}\n")
	if _, err := tryCommand(t, config, "", "backup", "status"); err == nil || !strings.Contains(err.Error(), "no server with backups has run") {
		t.Errorf("before there is a server: %v", err)
	}
	s := startHere(t, "listening", "serve", "--listen=127.0.0.1:0", "--config", config)
	awaitStatus(t, data, func(st *status) bool {
		for _, d := range st.Databases {
			if d.Snapshots == nil || d.Snapshots.Newest == nil {
				return false
			}
		}
		return len(st.Databases) == 2
	})
	if out := command(t, config, "", "backup", "status"); !strings.Contains(out, "other") {
		t.Errorf("status:\n%s", out)
	}
	info, err := os.Stat(filepath.Join(data, "backup", "status.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file of the status: %v, %v", info.Mode(), err)
	}
	if err := startRefused(t, "serve", "--config", config); !strings.Contains(err.Error(), "runs already") {
		t.Errorf("a second server: %v", err)
	}
	if out, err := tryCommand(t, config, "", "backup", "status"); err != nil {
		t.Errorf("after a second server was refused: %v\n%s", err, out)
	}
	if err := s.end(t); err != nil {
		t.Errorf("%v\n%s", err, s.logs)
	}
	if out, err := tryCommand(t, config, "", "backup", "status"); err == nil || !strings.Contains(err.Error(), "the server is not running: it ended") || out == "" {
		t.Errorf("after the end: %q, %v", out, err)
	}
	if err := os.Chmod(filepath.Join(data, "backup"), 0o720); err != nil { //nolint:gosec // that is the mistake
		t.Fatal(err)
	}
	if err := startRefused(t, "serve", "--config", config); !strings.Contains(err.Error(), "others may write to") {
		t.Errorf("where others can write: %v", err)
	}
}

// awaitStatus waits until the file of the status is as wanted.
func awaitStatus(t *testing.T, data string, wanted func(*status) bool) *status {
	t.Helper()
	conf := &config{DataDir: data}
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	deadline := time.After(patience)
	for {
		s, err := conf.readStatus()
		if err == nil && wanted(s) {
			return s
		}
		select {
		case <-look.C:
		case <-deadline:
			text, _ := json.Marshal(s)
			t.Fatalf("the status is %s, %v", text, err)
		}
	}
}

// What is old, or told by a clock that is wrong, is not taken for the state of now, and alarms are
// errors.
func TestStatusProblems(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 15, 12, 0, 0, 0, time.UTC)
	alarm := &backup.Alarm{Text: "dreadful"}
	for name, tt := range map[string]struct {
		s           status
		gone, alarm string // parts of the errors
	}{
		"fine":               {status{Time: now.Add(-time.Second)}, "", ""},
		"old":                {status{Time: now.Add(-time.Minute)}, "is not running, or hangs", ""},
		"future":             {status{Time: now.Add(time.Minute)}, "clock", ""},
		"ended":              {status{Time: now, Ended: true}, "it ended", ""},
		"replica":            {status{Time: now, Databases: []databaseStatus{{Name: "x", Replica: &backup.Status{Alarm: alarm}}}}, "", `"x": replica: dreadful`},
		"snapshots":          {status{Time: now, Databases: []databaseStatus{{Snapshots: &backup.SnapshotsStatus{Alarm: alarm}}}}, "", "snapshots: dreadful"},
		"standby":            {status{Time: now, Databases: []databaseStatus{{Standby: &backup.StandbyStatus{Error: "lost"}}}}, "", "standby: lost"},
		"standby that hangs": {status{Time: now, Databases: []databaseStatus{{Standby: &backup.StandbyStatus{Heard: now.Add(-time.Minute)}}}}, "", "nothing was heard"},
	} {
		for want, err := range map[string]error{tt.gone + "|": tt.s.gone(now), "|" + tt.alarm: tt.s.alarms(now)} {
			want = strings.Trim(want, "|")
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", name, err, want)
			}
		}
	}
}

func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	config, _ := backedUpConfig(t, "")
	for want, flags := range map[string]string{
		"neither a replica nor":          "",
		`no database "third"`:            "--database=third --from=x",
		"at most one of":                 "--from=x --txid=1",
		"at most one":                    "--timestamp=2026-01-15T12:00:00Z --txid=1",
		"need --database":                "--from=x",
		"--verify goes with none":        "--verify --from=x",
		"--max-age needs":                "--max-age=1m --replica-url=file:///x",
		"--force needs":                  "--force --replica-url=file:///x",
		"no such file":                   "--database=main --from=/nowhere/x",
		"no client for ftp":              "--replica-url=ftp://x/y",
		"invalid value":                  "--timestamp=yesterday",
		"has to be absolute":             "--replica-url=file://x/y",
		"--replica-url or --from is nee": "--replace",
	} {
		if out, err := tryCommand(t, config, "", append([]string{"restore"}, strings.Fields(flags)...)...); err == nil || out != "" {
			t.Errorf("%s: %q, %v", flags, out, err)
		} else if !strings.Contains(err.Error(), want) && want != "invalid value" {
			t.Errorf("%s: %v, want %q", flags, err, want)
		}
	}
}
