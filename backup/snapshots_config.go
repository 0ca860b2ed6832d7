package backup

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"
)

// SnapshotsConfig configures [NewSnapshots]. Dir and Take are needed.
type SnapshotsConfig struct {
	// Dir is the directory of the snapshots, best on a disk of its own. Nobody else may be able to
	// write to it. It is made if it is missing, but what it is in is not: with Dir a directory
	// inside one that was made by hand on that disk, a disk that is not there is an error, rather
	// than snapshots in its place.
	Dir string

	// Take writes a consistent copy of the database to path, where nothing is, and must return soon
	// when ctx ends. It is [VacuumInto], or with package sqlite of this module
	//
	//	func(ctx context.Context, path string) error { return db.Snapshot(ctx, "main", path) }
	Take func(ctx context.Context, path string) error

	// Name is what the names of the files begin with, as in Name-20261121T213000Z.db (UTC); default
	// "snapshot". Databases that share a Dir need different ones. It is made of ASCII letters,
	// digits and . _ -, and begins with a letter or digit.
	Name string

	// Driver is the database/sql driver for checking copies; default "bedplate", which package
	// sqlite of this module registers. It has to know the functions that the schema uses, to take
	// file: URIs, and must not be one of another SQLite library than the program's own. Open is a
	// func to use instead, for what a driver's name cannot say; it takes the path of a file.
	Driver string
	Open   func(path string) (*sql.DB, error)

	// Interval is how old the newest snapshot becomes before the next is taken; default 24 h.
	Interval time.Duration

	// Timeout is how long it may take to make and check a copy; default 1 h.
	Timeout time.Duration

	// Of the snapshots are kept: the KeepLast newest, by default 3; the newest of each of the last
	// KeepDaily days that have any, by default 7; and the newest of each of the last KeepWeekly
	// weeks that have any, by default 4. Days and weeks, which begin on Monday, are those of UTC.
	// None are kept for days or weeks if that number is negative. The others are deleted after a
	// new one has been found to be sound, and only then.
	KeepLast   int
	KeepDaily  int
	KeepWeekly int

	// MaxBytes is what all snapshots together may take up; 0: no limit. Of those that would be kept
	// the oldest are deleted, but never the one just taken, for which there has to be room besides.
	MaxBytes int64

	// OnAlarm is told when a snapshot could not be taken or checked, or old ones not deleted, and
	// when that is over. An alarm is logged, too. OnAlarm must return soon.
	OnAlarm func(Alarm)

	Logger *slog.Logger     // default slog.Default()
	Now    func() time.Time // default time.Now
}

// VacuumInto returns a [SnapshotsConfig.Take] that copies with VACUUM INTO, which every SQLite
// driver has. The copy is as small as can be and not in WAL mode; rowids of tables without an
// INTEGER PRIMARY KEY may change. Others can write meanwhile.
func VacuumInto(db *sql.DB) func(ctx context.Context, path string) error {
	return func(ctx context.Context, path string) error {
		_, err := db.ExecContext(ctx, "VACUUM INTO ?", path)
		return err
	}
}

func (c SnapshotsConfig) withDefaults() SnapshotsConfig {
	if c.Name == "" {
		c.Name = "snapshot"
	}
	if c.Driver == "" {
		c.Driver = "bedplate"
	}
	if c.Interval == 0 {
		c.Interval = 24 * time.Hour
	}
	if c.Timeout == 0 {
		c.Timeout = time.Hour
	}
	if c.KeepLast == 0 {
		c.KeepLast = 3
	}
	if c.KeepDaily == 0 {
		c.KeepDaily = 7
	}
	if c.KeepWeekly == 0 {
		c.KeepWeekly = 4
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// validate reports every mistake at once and makes Dir absolute. c has its defaults.
func (c *SnapshotsConfig) validate() error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("backup: snapshots: "+format, args...))
	}
	if !snapshotLocks {
		bad("there are none on this operating system")
	}
	if c.Dir == "" {
		bad("Dir is missing")
	} else if dir, err := filepath.Abs(c.Dir); err != nil {
		bad("Dir: %v", err)
	} else {
		c.Dir = dir
	}
	if c.Take == nil {
		bad("Take is missing")
	}
	if !isSnapshotPrefix(c.Name) {
		bad("Name is %q; it can be up to 100 ASCII letters, digits and . _ -, the first a letter or digit", c.Name)
	}
	if c.Open == nil && !hasDriver(c.Driver) {
		bad("Driver: no driver %q of database/sql is linked in", c.Driver)
	}
	if c.Interval < time.Second {
		bad("Interval is %v, at least 1s is needed", c.Interval)
	}
	if c.Timeout < time.Second {
		bad("Timeout is %v, at least 1s is needed", c.Timeout)
	}
	if c.KeepLast < 0 {
		bad("KeepLast is negative; the newest is always kept")
	}
	if c.MaxBytes < 0 {
		bad("MaxBytes is negative")
	}
	return errors.Join(errs...)
}

// isSnapshotPrefix reports whether name can be the beginning of a file name anywhere, with nothing
// in it that sha256sum or a shell would treat specially.
func isSnapshotPrefix(name string) bool {
	const alphanumeric = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	return name != "" && len(name) <= 100 &&
		strings.Trim(name, alphanumeric+"._-") == "" && strings.Contains(alphanumeric, name[:1])
}

func hasDriver(name string) bool {
	for _, d := range sql.Drivers() {
		if d == name {
			return true
		}
	}
	return false
}
