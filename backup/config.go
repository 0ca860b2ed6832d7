package backup

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"
)

// Config configures [New]. URL is needed.
type Config struct {
	// URL is where the copy is: file:///absolute/directory, s3://bucket/prefix, sftp://user@host/path,
	// gs://bucket/prefix, abs://account@container/prefix, nats://host/bucket or webdavs://host/path.
	// The parameters and credentials are those that the package of the scheme names. Each database
	// needs a URL of its own.
	URL string

	// Credentials returns environment variables for the replicator, such as AWS_ACCESS_KEY_ID and
	// AWS_SECRET_ACCESS_KEY. They get there through a pipe, so neither the arguments nor the
	// environment of a process show them. It is called at each start of the replicator, which is
	// started again when the replica has not been reached for long. nil: the replicator has what
	// the program's own environment holds.
	Credentials func(ctx context.Context) (map[string]string, error)

	// Dir is where the replicator keeps its state: what is not copied yet, which needs up to the
	// size of the database. It should be on the same file system. Default: the path of the
	// database with "-replica" added.
	Dir string

	// Driver is the database/sql driver for looking into databases; default "bedplate", which
	// package sqlite of this module registers. It has to know the functions that the schema uses,
	// and must not be one of another SQLite library than the program's own. Open is a func to use
	// instead, for what a driver's name cannot say; it takes the path of a file.
	Driver string
	Open   func(path string) (*sql.DB, error)

	// SyncInterval is how often what was committed is copied; default 1 s.
	SyncInterval time.Duration

	// SnapshotInterval is how often the replica gets a whole copy, so that a restore does not
	// begin at the beginning; default 24 h.
	SnapshotInterval time.Duration

	// Retention is how far back points in time can be restored; default 7 days. What is older
	// than the snapshot before is deleted from the replica.
	Retention time.Duration

	// CanaryInterval is how often a row is written and looked for in the replica while nothing
	// else is written; default 15 s. When something is, it is once a second, or once a SyncInterval
	// if that is longer.
	CanaryInterval time.Duration

	// AlarmAfter is the lag that raises an alarm; default 30 s. An alarm is logged and told to
	// OnAlarm, which may call anything, also Close.
	AlarmAfter time.Duration
	OnAlarm    func(Alarm)

	// DrillInterval is how often the replica is restored for a trial and compared, see
	// [Replica.Drill]; default 24 h, never if negative.
	DrillInterval time.Duration

	// LeaseTTL is how long a machine that has gone silent keeps others from replicating to the
	// same URL; default 20 s. There are leases for all kinds but sftp and webdav; negative: none is used.
	LeaseTTL time.Duration

	// OnFenced is called when another machine has taken over the replica, see [Standby]. Nothing
	// is copied from then on, so the program should stop writing. It may call anything, also Close.
	OnFenced func(by string)

	// Adopt replicates over a replica that is not empty and not known to be of this database.
	// What it holds is kept for Retention.
	Adopt bool

	// ApplicationID is the PRAGMA application_id that a restored database must have; 0: any.
	ApplicationID int32

	// MaxSize is the greatest size of a restored database in bytes; 0: no limit.
	MaxSize int64

	// FinalSync is how long Close tries to copy what is left; default 20 s.
	FinalSync time.Duration

	// Executable is the program to start as the replicator; default the one that runs.
	Executable string

	Logger *slog.Logger     // default slog.Default()
	Now    func() time.Time // default time.Now
}

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.SyncInterval, time.Second)
	def(&c.SnapshotInterval, 24*time.Hour)
	def(&c.Retention, 7*24*time.Hour)
	def(&c.CanaryInterval, 15*time.Second)
	def(&c.AlarmAfter, 30*time.Second)
	def(&c.DrillInterval, 24*time.Hour)
	def(&c.LeaseTTL, 20*time.Second)
	def(&c.FinalSync, 20*time.Second)
	if c.Driver == "" {
		c.Driver = "bedplate"
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// validate reports every mistake at once. c has its defaults.
func (c Config) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("backup: "+format, args...)) }
	if runtime.GOOS == "windows" || runtime.GOOS == "plan9" || runtime.GOOS == "js" || runtime.GOOS == "wasip1" {
		bad("there is no replication on %s", runtime.GOOS)
	}
	for _, mistake := range checkURL(c.URL) {
		bad("%s", mistake)
	}
	if c.Open == nil && !hasDriver(c.Driver) {
		bad("Driver: no driver %q of database/sql is linked in", c.Driver)
	}
	for _, d := range []struct {
		name       string
		value, min time.Duration
	}{
		{"SyncInterval", c.SyncInterval, 10 * time.Millisecond},
		{"SnapshotInterval", c.SnapshotInterval, time.Second},
		{"Retention", c.Retention, time.Second},
		{"CanaryInterval", c.CanaryInterval, time.Second},
		{"AlarmAfter", c.AlarmAfter, 2 * time.Second},
		{"FinalSync", c.FinalSync, time.Millisecond},
	} {
		if d.value < d.min {
			bad("%s is %v, at least %v is needed", d.name, d.value, d.min)
		}
	}
	if c.AlarmAfter < 2*c.SyncInterval {
		bad("AlarmAfter is %v, at least twice SyncInterval is needed, %v", c.AlarmAfter, 2*c.SyncInterval)
	}
	if c.DrillInterval > 0 && c.DrillInterval < time.Second {
		bad("DrillInterval is %v, at least 1s is needed", c.DrillInterval)
	}
	if c.LeaseTTL > 0 && c.LeaseTTL < 2*time.Second {
		bad("LeaseTTL is %v, at least 2s is needed", c.LeaseTTL)
	}
	if c.MaxSize < 0 {
		bad("MaxSize is negative")
	}
	return errors.Join(errs...)
}
