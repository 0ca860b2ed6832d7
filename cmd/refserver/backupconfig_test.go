package main

import (
	"log/slog"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/bedplate/bedplate/backup"
)

func TestLoadBackup(t *testing.T) {
	t.Parallel()
	path := writeConfig(t, `
backup:
  replica:
    url: s3://bucket/prefix?region=eu-central-1
    sync_interval: 500ms
    snapshot_interval: 12h
    retention: 336h
    drill_interval: 0s
    lease_ttl: 30s
    alarm_after: 1m
    max_size: 1000000000
    adopt: true
    access_key_id: id
    secret_access_key_file: secret
  snapshots:
    dir: copies
    interval: 6h
    keep_daily: 14
    keep_weekly: 0
`)
	write(t, filepath.Join(filepath.Dir(path), "secret"), "a-secret\n")
	conf, err := loadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	r := conf.Backup.Replica
	if r.URL != "s3://bucket/prefix?region=eu-central-1" || r.SyncInterval != 500*time.Millisecond || r.SnapshotInterval != 12*time.Hour ||
		r.Retention != 14*24*time.Hour || r.DrillInterval >= 0 || r.LeaseTTL != 30*time.Second || r.AlarmAfter != time.Minute || r.MaxSize != 1e9 || !r.Adopt {
		t.Errorf("replica %+v", r)
	}
	s := conf.Backup.Snapshots
	if s.Dir != filepath.Join(filepath.Dir(path), "copies") || s.Interval != 6*time.Hour || s.KeepDaily != 14 || s.KeepWeekly >= 0 || !conf.Backup.Scheduled {
		t.Errorf("snapshots %+v", s)
	}
	c, err := conf.replicaConfig("other", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if want := "s3://bucket/prefix/other?region=eu-central-1"; c.URL != want {
		t.Errorf("URL of a database %s, want %s", c.URL, want)
	}
	env, err := c.Credentials(t.Context())
	want := map[string]string{"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "a-secret", "AWS_SESSION_TOKEN": ""}
	if err != nil || !maps.Equal(env, want) {
		t.Errorf("credentials %v, %v", env, err)
	}
	if !conf.backend(slog.New(slog.DiscardHandler)).SQLite.Replicated {
		t.Error("the databases are not opened as replicated ones")
	}
}

func TestLoadBackupReportsEveryMistake(t *testing.T) {
	t.Parallel()
	const text = `
backup:
  replicas: {}                    # unknown key "replicas"
  replica:
    url: file://relative/path     # the path of a file replica has to be absolute
    sync_interval: 1ms            # SyncInterval is 1ms, at least
    snapshot_interval: 5          # want a length of time such as 30s or 24h, found 5
    retention: -1h                # want a length of time such as 30s or 24h, found "-1h"
    drill_interval: 1ms           # DrillInterval is 1ms
    lease_ttl: 1s                 # LeaseTTL is 1s
    alarm_after: 7d               # want a length of time such as 30s or 24h, found "7d"
    max_size: 0                   # want a whole number from 1
    adopt: 1                      # want true or false, found 1
    secret_access_key: one
    secret_access_key_file: two   # this secret is given twice
  snapshots:
    directory: x                  # unknown key "directory"
    interval: 1ms                 # Interval is 1ms
    keep_daily: -1                # want a whole number from 0
    keep_weekly: all              # want a whole number, found "all"
`
	wantMistakes(t, writeConfig(t, text), text)
	const scheme = `
backup:
  replica:
    url: ftp://user:geheim@host/x # no client for ftp:// is linked in
`
	path := writeConfig(t, scheme)
	wantMistakes(t, path, scheme)
	if _, err := loadConfig(path); strings.Contains(err.Error(), "geheim") {
		t.Errorf("the URL is told: %v", err)
	}
}

// settingsOf parses arguments of the server.
func settingsOf(t *testing.T, args ...string) (*config, error) {
	t.Helper()
	var c commands
	parser, err := kong.New(&c, kong.Vars{"version": "test"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(args); err != nil {
		t.Fatal(err)
	}
	return c.Serve.settings()
}

func TestBackupPrecedence(t *testing.T) {
	file := writeConfig(t, "backup:\n  replica: {url: file:///of/the/file}\n  snapshots: {dir: /of/the/file, interval: 1h, keep_daily: 1}\n")
	t.Setenv("BEDPLATE_BACKUP_KEEP", "2")
	for _, tt := range []struct {
		args      []string
		url, dir  string
		interval  time.Duration
		keep      int
		scheduled bool
		restore   bool
	}{
		{nil, "", "data/backup/snapshots", 0, 2, false, true},
		{[]string{"--config", file}, "file:///of/the/file", "/of/the/file", time.Hour, 2, true, true},
		{
			[]string{"--config", file, "--replica-url=file:///flag", "--backup-dir=/flag", "--backup-interval=2h", "--backup-keep=3", "--no-restore-if-missing"},
			"file:///flag", "/flag", 2 * time.Hour, 3, true, false,
		},
		{[]string{"--backup-dir=/flag"}, "", "/flag", 0, 2, true, true},
		{[]string{"--data-dir=/d", "--backup-interval=2h"}, "", "/d/backup/snapshots", 2 * time.Hour, 2, true, true},
	} {
		conf, err := settingsOf(t, tt.args...)
		if err != nil {
			t.Fatalf("%q: %v", tt.args, err)
		}
		b := conf.Backup
		if b.Replica.URL != tt.url || b.Snapshots.Dir != tt.dir || b.Snapshots.Interval != tt.interval || b.Snapshots.KeepDaily != tt.keep ||
			b.Scheduled != tt.scheduled || b.Restore != tt.restore {
			t.Errorf("%q: %+v", tt.args, b)
		}
	}
	if _, err := settingsOf(t, "--backup-interval=-1h"); err == nil {
		t.Error("a negative interval is taken")
	}
}

// The file can leave the URL and the keys to the environment of the server, but not forget them.
func TestReplicaOfTheEnvironment(t *testing.T) {
	file := writeConfig(t, "server: {}\nbackup:\n  replica: {sync_interval: 2s}\n")
	if _, err := settingsOf(t, "--config", file); err == nil || !strings.HasPrefix(err.Error(), file+":3: backup: the replica needs a url") {
		t.Errorf("without a URL: %v", err)
	}
	t.Setenv("BEDPLATE_REPLICA_URL", "s3://bucket/x")
	conf, err := settingsOf(t, "--config", file)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		id, secret string
		want       string // of the error
		credential bool
	}{
		{"", "", "", false},
		{"id", "secret", "", true},
		{"id", "", "BEDPLATE_REPLICA_SECRET_ACCESS_KEY", false},
		{"", "secret", "BEDPLATE_REPLICA_ACCESS_KEY_ID", false},
	} {
		t.Setenv(replicaAccessKeyVariable, tt.id)
		t.Setenv(replicaSecretKeyVariable, tt.secret)
		c, err := conf.replicaConfig("main", slog.New(slog.DiscardHandler))
		if tt.want != "" {
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%+v: %v", tt, err)
			}
			continue
		}
		if err != nil || (c.Credentials != nil) != tt.credential || c.SyncInterval != 2*time.Second {
			t.Errorf("%+v: %+v, %v", tt, c, err)
		}
	}
}

// Custom JSON Schemas are known when a copy is checked.
func TestOpenCopyKnowsSchemas(t *testing.T) {
	t.Parallel()
	conf := &config{Schemas: map[string]string{"mine": `{"type": "object"}`}, Backup: backupConfig{Replica: backup.Config{URL: "file:///x"}}}
	c, err := conf.replicaConfig("main", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	db, err := c.Open(filepath.Join(t.TempDir(), "copy.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var is bool
	if err := db.QueryRowContext(t.Context(), `SELECT jsonschema('mine', '{}') AND NOT jsonschema('mine', '[]')`).Scan(&is); err != nil || !is {
		t.Errorf("%t, %v", is, err)
	}
}
