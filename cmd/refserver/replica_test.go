package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// replicatedConfig is backedUpConfig with a replica in a directory, fast enough for a test.
func replicatedConfig(t *testing.T) (file, data, url string) {
	t.Helper()
	url = "file://" + filepath.Join(t.TempDir(), "replica")
	file, data = backedUpConfig(t, "backup: {replica: {url: '"+url+"', sync_interval: 100ms, lease_ttl: 10s, drill_interval: 0s}}\nauth: {}\n")
	return file, data, url
}

// proven waits until what was written before is in the replica.
func proven(t *testing.T, data string) {
	t.Helper()
	began := time.Now()
	awaitStatus(t, data, func(s *status) bool {
		for _, d := range s.Databases {
			if d.Replica == nil || !d.Replica.Proven.After(began) {
				return false
			}
		}
		return len(s.Databases) > 0
	})
}

// A server whose databases are lost goes on with those of the replica.
func TestServerRestores(t *testing.T) {
	t.Parallel()
	config, data, _ := replicatedConfig(t)
	s := startHere(t, "listening", "serve", "--listen=127.0.0.1:0", "--config", config)
	s.create(t, "things", "a")
	s.create(t, "notes", "b")
	proven(t, data)
	between := time.Now().UTC()
	if out := command(t, config, "", "backup", "status"); !strings.Contains(out, "replicating") {
		t.Errorf("status:\n%s", out)
	}
	if !strings.Contains(s.logs.String(), "master.key") {
		t.Errorf("the master key is not mentioned:\n%s", s.logs)
	}
	if out, err := tryCommand(t, config, "", "restore", "--replace"); err == nil || !strings.Contains(err.Error(), "stop the server first") || out != "" {
		t.Errorf("while the server runs: %q, %v", out, err)
	}
	s.create(t, "things", "later")
	if err := s.end(t); err != nil {
		t.Fatalf("%v\n%s", err, s.logs)
	}

	lose(t, data)
	if err := startRefused(t, "serve", "--config", config, "--no-restore-if-missing"); !strings.Contains(err.Error(), "the replica is not empty") {
		t.Errorf("without restoring: %v", err)
	}
	if _, err := os.Stat(filepath.Join(data, "main.db")); err == nil {
		t.Error("a new database was made")
	}
	// What is put in its place by hand is under the lease, with which the server goes on.
	command(t, config, "", "restore", "--database=other")
	if _, err := os.Stat(filepath.Join(data, "other.db-replica", "lease.json")); err != nil {
		t.Error(err)
	}
	s = startHere(t, "listening", "serve", "--listen=127.0.0.1:0", "--config", config)
	if got := s.list(t, "things") + "|" + s.list(t, "notes"); got != "a later|b" {
		t.Errorf("restored %q\n%s", got, s.logs)
	}
	if err := s.end(t); err != nil {
		t.Fatalf("%v\n%s", err, s.logs)
	}

	// A point in time, over what is there and beside it.
	to := filepath.Join(t.TempDir(), "copy.db")
	when := "--timestamp=" + between.Format(time.RFC3339Nano)
	command(t, config, "", "restore", when, "--database=main", "--to", to)
	if got := names(t, to, "things"); got != "a" {
		t.Errorf("in the copy: %q", got)
	}
	command(t, config, "", "restore", when, "--replace")
	if got := names(t, filepath.Join(data, "main.db"), "things"); got != "a" {
		t.Errorf("restored to a point in time: %q", got)
	}
	if _, err := tryCommand(t, config, "", "restore", "--timestamp=2001-01-01T00:00:00Z", "--database=main", "--to", to+"2"); err == nil {
		t.Error("a time before everything is restored")
	}
	list := command(t, config, "", "backup", "list")
	if strings.Count(list, "--timestamp") != 2 || !strings.Contains(list, "--txid ") {
		t.Errorf("list:\n%s", list)
	}

	// The server goes on from there.
	s = startHere(t, "listening", "serve", "--listen=127.0.0.1:0", "--config", config)
	s.create(t, "things", "again")
	proven(t, data)
	if got := s.list(t, "things"); got != "a again" {
		t.Errorf("after that: %q", got)
	}
	if err := os.Mkdir(filepath.Join(data, "backup", "verify-1"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(data, "backup", "verify-1", "main.db"), "left")
	var found []verification
	out := command(t, config, "", "restore", "--verify", "--max-age=5m")
	if err := json.Unmarshal([]byte(out), &found); err != nil || len(found) != 2 || found[0].Bytes == 0 || found[0].TXID == 0 ||
		found[0].Age <= 0 || found[0].Age > time.Minute || found[0].Error != "" {
		t.Errorf("verified: %v\n%s", err, out)
	}
	if out, err := tryCommand(t, config, "", "restore", "--verify", "--max-age=1ns"); err == nil || !strings.Contains(err.Error(), "older than 1ns") || out == "" {
		t.Errorf("an old replica: %q, %v", out, err)
	}
	if left, _ := filepath.Glob(filepath.Join(data, "backup", "verify-*")); len(left) > 0 { // also of one that was killed
		t.Errorf("left behind: %q", left)
	}
}

// lose removes everything but the master key.
func lose(t *testing.T, data string) {
	t.Helper()
	entries, err := os.ReadDir(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "secrets" {
			if err := os.RemoveAll(filepath.Join(data, e.Name())); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// startRefused runs a command that is to fail.
func startRefused(t *testing.T, args ...string) error {
	t.Helper()
	_, logs, err := tryBare(t, append(args, "--listen=127.0.0.1:0")...)
	if err == nil {
		t.Fatalf("%q: no error\n%s", args, logs)
	}
	return err
}

// list returns the names of all records.
func (s *running) list(t *testing.T, api string) string {
	t.Helper()
	status, body := s.request(t, http.MethodGet, "/api/records/v1/"+api+"?order=id", "")
	var l struct{ Records []struct{ Name string } }
	if err := json.Unmarshal([]byte(body), &l); err != nil || status != 200 {
		t.Fatalf("%s: %d %s", api, status, body)
	}
	var all []string
	for _, r := range l.Records {
		all = append(all, r.Name)
	}
	return strings.Join(all, " ")
}

// secondMachine makes a data directory with the master key of another one.
func secondMachine(t *testing.T, data string) string {
	t.Helper()
	key, err := os.ReadFile(filepath.Join(data, "secrets", "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	second := filepath.Join(t.TempDir(), "second")
	if err := os.MkdirAll(filepath.Join(second, "secrets"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(second, "secrets", "master.key"), string(key))
	return second
}

// A standby follows, is promoted when the server is gone, and is the server then.
func TestStandby(t *testing.T) {
	t.Parallel()
	config, data, url := replicatedConfig(t)
	s := startHere(t, "listening", "serve", "--listen=127.0.0.1:0", "--config", config)
	s.create(t, "things", "a")
	s.create(t, "notes", "b")

	second := secondMachine(t, data)
	if _, err := tryCommand(t, config, "", "promote", "--data-dir", second); err == nil || !strings.Contains(err.Error(), "no standby runs") {
		t.Errorf("without a standby: %v", err)
	}
	if _, err := tryCommand(t, config, "", "promote"); err == nil || !strings.Contains(err.Error(), "there is a server") {
		t.Errorf("where the server runs: %v", err)
	}
	if err := startRefused(t, "standby", "--config", config); !strings.Contains(err.Error(), "runs already") {
		t.Errorf("where the server runs: %v", err)
	}
	if err := startRefused(t, "standby", "--config", config, "--data-dir", t.TempDir()); !strings.Contains(err.Error(), "the master key is not in the replica") {
		t.Errorf("without the master key: %v", err)
	}
	if err := startRefused(t, "standby", "--data-dir", second); !strings.Contains(err.Error(), "needs a replica") {
		t.Errorf("without a replica: %v", err)
	}

	b := startHere(t, "standing by", "standby", "--listen=127.0.0.1:0", "--config", config, "--data-dir", second)
	awaitStatus(t, second, func(s *status) bool {
		for _, d := range s.Databases {
			if d.Standby == nil || !d.Standby.Ready {
				return false
			}
		}
		return len(s.Databases) == 2
	})
	if out := command(t, config, "", "backup", "status", "--data-dir", second); !strings.Contains(out, "following") {
		t.Errorf("status:\n%s", out)
	}
	for path, want := range map[string]int{"/livez": 200, "/readyz": 503, "/status.json": 200, "/api/records/v1/things": 404} {
		status, body := b.request(t, http.MethodGet, path, "")
		if status != want {
			t.Errorf("%s: %d %s", path, status, body)
		}
		if strings.Contains(body, second) || strings.Contains(body, url) {
			t.Errorf("%s tells a path: %s", path, body)
		}
	}
	// As long as the server lives the standby stays one.
	if _, err := tryCommand(t, config, "", "promote", "--data-dir", second); err == nil || !strings.Contains(err.Error(), "not promoted, the standby goes on") {
		t.Errorf("beside a server: %v\n%s", err, b.logs)
	}
	s.create(t, "things", "last")
	if err := s.end(t); err != nil {
		t.Fatalf("%v\n%s", err, s.logs)
	}
	if _, err := tryCommand(t, config, "", "promote"); err == nil || !strings.Contains(err.Error(), "it ended") {
		t.Errorf("where the server has ended: %v", err)
	}
	if err := startRefused(t, "standby", "--config", config); !strings.Contains(err.Error(), "there is a database already") {
		t.Errorf("where the server has ended: %v", err)
	}
	if out := command(t, config, "", "promote", "--data-dir", second); !strings.Contains(out, "Promoted") {
		t.Errorf("promote: %q", out)
	}
	b.url = b.awaitURL(t, "listening")
	if got := b.list(t, "things") + "|" + b.list(t, "notes"); got != "a last|b" {
		t.Errorf("the standby has %q\n%s", got, b.logs)
	}
	b.create(t, "things", "new")
	proven(t, second)
	// The old server does not come back.
	if err := startRefused(t, "serve", "--config", config); !strings.Contains(err.Error(), "lease") {
		t.Errorf("the old server: %v", err)
	}
	if err := b.end(t); err != nil {
		t.Fatalf("%v\n%s", err, b.logs)
	}
	if got := names(t, filepath.Join(data, "main.db"), "things"); got != "a last" {
		t.Errorf("the old database was changed: %q", got)
	}
	// A unit that starts the standby again starts the server.
	b = startHere(t, "listening", "standby", "--listen=127.0.0.1:0", "--config", config, "--data-dir", second)
	if got := b.list(t, "things"); got != "a last new" {
		t.Errorf("after another start: %q\n%s", got, b.logs)
	}
}

// What was promoted is kept when another database could not be, also over a restart.
func TestStandbyIsPromotedInPart(t *testing.T) {
	t.Parallel()
	config, data, _ := replicatedConfig(t)
	s := startHere(t, "listening", "serve", "--listen=127.0.0.1:0", "--config", config)
	s.create(t, "things", "a")
	s.create(t, "notes", "b")
	if err := s.end(t); err != nil {
		t.Fatalf("%v\n%s", err, s.logs)
	}
	second := secondMachine(t, data)
	standby := []string{"standby", "--listen=127.0.0.1:0", "--config", config, "--data-dir", second}
	inPart := func(s *status) bool {
		return len(s.Databases) == 2 && s.Databases[0].Promoted && !s.Databases[1].Promoted && s.Databases[1].Standby != nil && s.Databases[1].Standby.Ready
	}

	migration := filepath.Join(filepath.Dir(config), "sql", "other", "0001_notes.sql")
	if err := os.Rename(migration, migration+".away"); err != nil {
		t.Fatal(err)
	}
	b := startHere(t, "standing by", standby...)
	awaitStatus(t, second, func(s *status) bool { return len(s.Databases) == 2 })
	_, err := tryCommand(t, config, "", "promote", "--data-dir", second)
	if err == nil || !strings.Contains(err.Error(), `database "other"`) || !strings.Contains(err.Error(), "kept for when that succeeds for all: main") {
		t.Fatalf("promoted in part: %v\n%s", err, b.logs)
	}
	awaitStatus(t, second, inPart)
	if out := command(t, config, "", "backup", "status", "--data-dir", second); !strings.Contains(out, "promoted") {
		t.Errorf("status:\n%s", out)
	}
	if err := b.end(t); err != nil {
		t.Fatalf("%v\n%s", err, b.logs)
	}

	if err := os.Rename(migration+".away", migration); err != nil {
		t.Fatal(err)
	}
	b = startHere(t, "standing by", standby...)
	if status, body := b.request(t, http.MethodGet, "/status.json", ""); status != 200 || !strings.Contains(body, `"promoted":true`) {
		t.Errorf("progress: %d %s", status, body)
	}
	awaitStatus(t, second, inPart)
	command(t, config, "", "promote", "--data-dir", second)
	b.url = b.awaitURL(t, "listening")
	if got := b.list(t, "things") + "|" + b.list(t, "notes"); got != "a|b" {
		t.Errorf("the standby has %q\n%s", got, b.logs)
	}
}

// A server ends when a standby takes its replica away.
func TestServerIsFenced(t *testing.T) {
	t.Parallel()
	config, data, _ := replicatedConfig(t)
	s := startHere(t, "listening", "serve", "--listen=127.0.0.1:0", "--config", config)
	s.create(t, "things", "a")
	s.create(t, "notes", "b")
	proven(t, data)
	second := secondMachine(t, data)
	b := startHere(t, "standing by", "standby", "--listen=127.0.0.1:0", "--config", config, "--data-dir", second)
	awaitStatus(t, second, func(s *status) bool { return len(s.Databases) == 2 })
	command(t, config, "", "promote", "--force", "--data-dir", second)
	if err := s.await(t); err == nil || !strings.Contains(err.Error(), "another machine has taken over") {
		t.Errorf("the old server: %v\n%s", err, s.logs)
	}
	b.url = b.awaitURL(t, "listening")
	if got := b.list(t, "things"); got != "a" {
		t.Errorf("the standby has %q", got)
	}
	if _, err := os.Stat(filepath.Join(second, "backup", "promoted")); err != nil {
		t.Errorf("the promotion is not remembered: %v", err)
	}
}
