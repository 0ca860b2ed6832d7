package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/bedplate/bedplate/backup"
	_ "github.com/bedplate/bedplate/backup/file" // file:// replicas
	_ "github.com/bedplate/bedplate/backup/s3"   // s3:// replicas
	"github.com/bedplate/bedplate/sqlite"
)

// The keys of the replica in the environment, which wins over the file.
const (
	replicaAccessKeyVariable = "BEDPLATE_REPLICA_ACCESS_KEY_ID"
	replicaSecretKeyVariable = "BEDPLATE_REPLICA_SECRET_ACCESS_KEY"
)

// backupConfig says where else the databases are kept.
type backupConfig struct {
	// Replica is what the replicas of all databases have in common. That of a database is at URL
	// with its name added; "": there are none.
	Replica         backup.Config
	AccessKeyID     string
	SecretAccessKey string
	wanted          bool // the file has a section replica
	Restore         bool // a database that is missing

	Snapshots backup.SnapshotsConfig
	Scheduled bool // the server takes snapshots by itself
}

// backupFlags are the flags of all commands that deal with backups, or else their environment
// variables.
type backupFlags struct {
	ReplicaURL string `name:"replica-url" env:"BEDPLATE_REPLICA_URL" placeholder:"URL" help:"Where the databases are replicated: s3://BUCKET/PREFIX or file:///DIR; each gets a place below by its name (${env}; default none)."`
	BackupDir  string `name:"backup-dir" env:"BEDPLATE_BACKUP_DIR" placeholder:"DIR" help:"Directory of the local snapshots, best on another disk (${env}; default backup/snapshots in the data directory)."`
}

// apply overrides what the configuration file says.
func (f backupFlags) apply(conf *config) error {
	b := &conf.Backup
	if f.ReplicaURL != "" {
		delete(conf.places, replicaPlace)
	}
	override(&b.Replica.URL, f.ReplicaURL, "")
	override(&b.Snapshots.Dir, f.BackupDir, filepath.Join(conf.backupDir(), "snapshots"))
	b.Scheduled = b.Scheduled || f.BackupDir != ""
	if b.wanted && b.Replica.URL == "" {
		return conf.locate(fmt.Errorf("%sthe replica needs a url, there, as --replica-url or as BEDPLATE_REPLICA_URL", replicaPlace))
	}
	return nil
}

// setBackups joins the flags of the server with the configuration file.
func (c *serveCommand) setBackups(conf *config) error {
	b := &conf.Backup
	if c.BackupInterval < 0 || c.BackupKeep < 0 {
		return errors.New("--backup-interval and --backup-keep cannot be negative")
	}
	override(&b.Snapshots.Interval, c.BackupInterval, 0)
	override(&b.Snapshots.KeepDaily, c.BackupKeep, 0)
	b.Scheduled = b.Scheduled || c.BackupInterval > 0
	b.Restore = c.RestoreIfMissing
	return c.apply(conf)
}

// replicaPlace is in the library's errors about replicas.
const replicaPlace = "backup: "

// backup reads the section of that name.
func (r *configReader) backup(n ast.Node) {
	r.object(n, object{"replica": r.replica, "snapshots": r.snapshots})
}

func (r *configReader) replica(n ast.Node) {
	b := &r.Backup
	c := &b.Replica
	keys := map[string]ast.Node{} // by what the library's errors call them
	at := func(name string, read func(ast.Node)) func(ast.Node) {
		return func(n ast.Node) {
			keys[name] = n
			read(n)
		}
	}
	secret, secretFile := r.secret(&b.SecretAccessKey)
	b.wanted = true
	r.places[replicaPlace] = lineOf(n)
	if !r.object(n, object{
		"url":                    at("URL", r.text(&c.URL)),
		"sync_interval":          at("SyncInterval", r.duration(&c.SyncInterval)),
		"snapshot_interval":      at("SnapshotInterval", r.duration(&c.SnapshotInterval)),
		"retention":              at("Retention", r.duration(&c.Retention)),
		"drill_interval":         at("DrillInterval", r.durationOrNone(&c.DrillInterval)),
		"lease_ttl":              at("LeaseTTL", r.durationOrNone(&c.LeaseTTL)),
		"alarm_after":            at("AlarmAfter", r.duration(&c.AlarmAfter)),
		"max_size":               at("MaxSize", r.integer(&c.MaxSize, 1, math.MaxInt64)),
		"adopt":                  r.flag(&c.Adopt),
		"access_key_id":          r.text(&b.AccessKeyID),
		"secret_access_key":      secret,
		"secret_access_key_file": secretFile,
	}) {
		return
	}
	check := *c
	override(&check.URL, "", "file:///later") // it may be a flag
	_, err := backup.New(check)
	r.refusedAt(n, keys, err)
}

func (r *configReader) snapshots(n ast.Node) {
	c := &r.Backup.Snapshots
	keys := map[string]ast.Node{}
	daily, weekly := int64(0), int64(0)
	if !r.object(n, object{
		"dir": r.path(&c.Dir),
		"interval": func(n ast.Node) {
			keys["Interval"] = n
			r.duration(&c.Interval)(n)
		},
		"keep_daily":  r.limit(&daily, 10_000),
		"keep_weekly": r.limit(&weekly, 10_000),
	}) {
		return
	}
	c.KeepDaily, c.KeepWeekly = int(daily), int(weekly)
	r.Backup.Scheduled = true
	check := *c
	override(&check.Dir, "", ".")
	check.Take = func(context.Context, string) error { return nil }
	_, err := backup.NewSnapshots(check)
	r.refusedAt(n, keys, err)
}

// refusedAt notes the mistakes that package backup found, one a line, each at the key that it is
// about, or else at n.
func (r *configReader) refusedAt(n ast.Node, keys map[string]ast.Node, err error) {
	if err == nil {
		return
	}
	for line := range strings.Lines(err.Error()) {
		line = strings.TrimSpace(line)
		where := n
		for name, key := range keys {
			text := strings.TrimPrefix(strings.TrimPrefix(line, "backup: "), "snapshots: ")
			if rest, ok := strings.CutPrefix(text, name); ok && strings.Trim(rest[:1], " :") == "" {
				where = key
			}
		}
		r.mistake(where, "%s", line)
	}
}

// duration reads a length of time, such as 30s or 24h.
func (r *configReader) duration(to *time.Duration) func(ast.Node) { return r.atLeast(1, to) }

// durationOrNone reads one that may be 0s for never, which the library has as -1.
func (r *configReader) durationOrNone(to *time.Duration) func(ast.Node) {
	return func(n ast.Node) {
		d := time.Duration(-1)
		r.atLeast(0, &d)(n)
		if d == 0 {
			d = -1
		}
		*to = d
	}
}

func (r *configReader) atLeast(least time.Duration, to *time.Duration) func(ast.Node) {
	return func(n ast.Node) {
		text := ""
		if s, ok := n.(*ast.StringNode); ok {
			text = s.Value
		}
		d, err := time.ParseDuration(text)
		if err != nil || d < least {
			r.mistake(n, "want a length of time such as 30s or 24h, found %s", describe(n))
			return
		}
		*to = d
	}
}

// databases are the names of all databases.
func (conf *config) databases() []string { return append([]string{"main"}, conf.Databases...) }

func (conf *config) databaseFile(name string) string { return filepath.Join(conf.DataDir, name+".db") }

// replicated reports whether the databases are replicated.
func (conf *config) replicated() bool { return conf.Backup.Replica.URL != "" }

// replicaConfig is the configuration of the replica of a database, or of restoring it from a file.
func (conf *config) replicaConfig(database string, log *slog.Logger) (backup.Config, error) {
	c := conf.Backup.Replica
	if u, err := url.Parse(c.URL); err == nil && c.URL != "" {
		c.URL = u.JoinPath(database).String()
	}
	c.Open = conf.openCopy
	c.Logger = log.With("database", database)
	var err error
	c.Credentials, err = conf.Backup.credentials()
	return c, err
}

// replica returns the replica of a database, which is not started.
func (conf *config) replica(database string, log *slog.Logger, onFenced func(by string)) (*backup.Replica, error) {
	if !conf.replicated() {
		return nil, errors.New("there is no replica: name one as --replica-url, or as backup.replica.url in the configuration file")
	}
	c, err := conf.replicaConfig(database, log)
	if err != nil {
		return nil, err
	}
	c.OnFenced = onFenced
	return backup.New(c)
}

// snapshotsOf returns the local snapshots of a database, which take copies the database from.
func (conf *config) snapshotsOf(database string, log *slog.Logger, take func(ctx context.Context, path string) error) (*backup.Snapshots, error) {
	c := conf.Backup.Snapshots
	c.Name, c.Take, c.Open, c.Logger = database, take, conf.openCopy, log.With("database", database)
	return backup.NewSnapshots(c)
}

// openCopy opens a database file with everything that its schema may use.
func (conf *config) openCopy(name string) (*sql.DB, error) {
	connector, err := sqlite.NewConnector(name, conf.Schemas)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

// checkCopy refuses a copy of a database that is newer than the migrations, or of another program.
func (conf *config) checkCopy(database string) func(ctx context.Context, path string) error {
	return func(ctx context.Context, path string) error {
		if migrations := conf.Migrations[database]; migrations != nil {
			return sqlite.CheckMigrations(ctx, path, migrations)
		}
		return nil
	}
}

// credentials returns the keys of the replica as the replicator gets them, or nil if that is to
// find them in its environment, or in whatever else clients of S3 look at.
func (b backupConfig) credentials() (func(context.Context) (map[string]string, error), error) {
	id, secret := b.AccessKeyID, b.SecretAccessKey
	override(&id, os.Getenv(replicaAccessKeyVariable), "")
	override(&secret, os.Getenv(replicaSecretKeyVariable), "")
	if id == "" && secret == "" {
		return nil, nil
	}
	if id == "" || secret == "" {
		return nil, fmt.Errorf("%saccess_key_id and secret_access_key are needed both or not at all, there or as %s and %s in the environment",
			replicaPlace, replicaAccessKeyVariable, replicaSecretKeyVariable)
	}
	return func(context.Context) (map[string]string, error) {
		return map[string]string{
			"AWS_ACCESS_KEY_ID": id, "AWS_SECRET_ACCESS_KEY": secret,
			"AWS_SESSION_TOKEN": "", // one of the environment belongs to other keys
		}, nil
	}, nil
}
