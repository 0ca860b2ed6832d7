package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/bedplate/bedplate/backup"
)

// restoreCommand puts databases back, or proves that it could.
type restoreCommand struct {
	where
	backupFlags
	Database  string        `placeholder:"NAME" help:"Restore this database; default all of them."`
	To        string        `placeholder:"PATH" help:"Write a copy to this new file; default the data directory."`
	Timestamp time.Time     `placeholder:"RFC3339" help:"Restore the newest state of the replica as of that time (RFC 3339, as 2026-11-21T21:30:00Z); default the newest."`
	TXID      uint64        `name:"txid" placeholder:"NUMBER" help:"Restore the state after this transaction of the replica."`
	From      string        `placeholder:"FILE" help:"Restore this local snapshot rather than from the replica."`
	Replace   bool          `help:"Replace databases that are there. They are kept beside; the server must not run."`
	Force     bool          `help:"With --replace: also replace a file that is damaged or of another program."`
	Verify    bool          `help:"Restore for a trial, check, print what was found as JSON, and remove it again."`
	MaxAge    time.Duration `placeholder:"DURATION" help:"With --verify: fail if the newest proof of copying, which is renewed every 15 s while the server runs, is older."`
}

func (c *restoreCommand) Run(p *program) error {
	conf, err := c.load()
	if err != nil {
		return err
	}
	if err := c.apply(conf); err != nil {
		return err
	}
	names, err := c.check(conf)
	if err != nil {
		return err
	}
	if c.Verify {
		return c.verify(p, conf, names)
	}
	if c.To == "" {
		if err := os.MkdirAll(conf.DataDir, 0o700); err != nil {
			return fmt.Errorf("make the data directory: %w", err)
		}
	}
	for _, name := range names {
		path := c.To
		if path == "" {
			path = conf.databaseFile(name)
		}
		res, err := c.restore(p, conf, name, path)
		if err != nil {
			return c.explain(name, err)
		}
		fmt.Fprintf(p.stdout, "Restored database %s to %s: %s\n", name, path, describeRestored(res))
		if res.Kept != "" {
			fmt.Fprintf(p.stdout, "What was there is %s; delete it when you do not need it any more.\n", res.Kept)
		}
	}
	return nil
}

// check refuses flags that contradict each other, and returns the names of the databases.
func (c *restoreCommand) check(conf *config) ([]string, error) {
	names := conf.databases()
	if c.Database != "" {
		if !slices.Contains(names, c.Database) {
			return nil, fmt.Errorf("there is no database %q in the configuration", c.Database)
		}
		names = []string{c.Database}
	}
	var errs []error
	refuse := func(when bool, text string) {
		if when {
			errs = append(errs, errors.New(text))
		}
	}
	chosen := 0
	for _, given := range []bool{!c.Timestamp.IsZero(), c.TXID != 0, c.From != ""} {
		if given {
			chosen++
		}
	}
	refuse(chosen > 1, "at most one of --timestamp, --txid and --from can be given")
	refuse(len(names) > 1 && (c.To != "" || c.TXID != 0 || c.From != ""), "there are several databases: --to, --txid and --from need --database")
	refuse(c.Verify && (c.To != "" || c.From != "" || c.Replace), "--verify goes with none of --to, --from and --replace")
	refuse(c.MaxAge != 0 && !c.Verify, "--max-age needs --verify")
	refuse(c.Force && !c.Replace, "--force needs --replace")
	refuse(c.From == "" && !conf.replicated(), "there is neither a replica nor a snapshot to restore from: --replica-url or --from is needed")
	return names, errors.Join(errs...)
}

// restore restores one database to path.
func (c *restoreCommand) restore(p *program, conf *config, database, path string) (backup.Restored, error) {
	log := logger(p.stderr, slog.LevelInfo)
	options := backup.RestoreOptions{
		TXID: c.TXID, Timestamp: c.Timestamp, Replace: c.Replace, Force: c.Force, Check: conf.checkCopy(database),
		Lease: path == conf.databaseFile(database),
	}
	if c.From != "" {
		cfg, err := conf.replicaConfig(database, log)
		if err != nil {
			return backup.Restored{}, err
		}
		res, err := backup.RestoreFile(p.ctx, cfg, c.From, path, options)
		if at, ok := snapshotTime(c.From); ok {
			res.Time = at
		}
		return res, err
	}
	r, err := conf.replica(database, log, nil)
	if err != nil {
		return backup.Restored{}, conf.locate(err)
	}
	return r.Restore(p.ctx, path, options)
}

// snapshotTime is the time in the name of a local snapshot. A copy of the file keeps it, unlike that
// of the last change.
func snapshotTime(file string) (at time.Time, ok bool) {
	found := snapshotName.FindStringSubmatch(filepath.Base(file))
	if found == nil {
		return at, false
	}
	at, err := time.Parse("20060102T150405Z", found[1])
	return at, err == nil
}

var snapshotName = regexp.MustCompile(`^.+-([0-9]{8}T[0-9]{6}Z)(_[0-9]{2})?\.db$`)

// explain adds to what went wrong what can be done.
func (c *restoreCommand) explain(database string, err error) error {
	hint := ""
	switch {
	case errors.Is(err, backup.ErrInUse):
		hint = "; stop the server first, or restore to another file with --to"
	case errors.Is(err, backup.ErrLeased):
		hint = "; stop the server there first, or restore to another file with --to"
	case errors.Is(err, fs.ErrExist) && c.To == "":
		hint = "; --replace keeps it beside, --to restores to another file"
	}
	return fmt.Errorf("database %q: %w%s", database, err, hint)
}

func describeRestored(r backup.Restored) string {
	what := fmt.Sprintf("%d bytes, as of %s", r.Bytes, moment(r.Time))
	if r.TXID != 0 {
		what += fmt.Sprintf(", transaction %d", r.TXID)
	}
	return what + ", in " + r.Duration.Round(time.Millisecond).String()
}

// A verification is what a trial restore has found.
type verification struct {
	Database string `json:"database"`
	backup.Restored
	Written time.Time     `json:"written,omitzero"` // when the newest proof in the copy was written
	Age     time.Duration `json:"age_ns,omitempty"` // and how long ago that is
	Error   string        `json:"error,omitempty"`  // empty: it is sound
}

// verify restores databases to a directory that is removed afterwards.
func (c *restoreCommand) verify(p *program, conf *config, names []string) (err error) {
	if err := conf.makeBackupDir(); err != nil {
		return err
	}
	lock, locked, err := conf.lockFile("verify.lock")
	if err == nil && !locked {
		err = fmt.Errorf("another trial restore goes on in %s", conf.backupDir())
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := conf.removeTrials(); err != nil {
		return fmt.Errorf("remove what is left of a trial restore: %w", err)
	}
	dir, err := os.MkdirTemp(conf.backupDir(), trialPrefix)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var found []verification
	var errs []error
	for _, name := range names {
		v := verification{Database: name}
		path := filepath.Join(dir, name+".db")
		v.Restored, err = c.restore(p, conf, name, path)
		if err == nil {
			v.Written, err = conf.written(p.ctx, path)
		}
		if err == nil && !v.Written.IsZero() {
			v.Age = time.Since(v.Written)
		}
		if err == nil && c.MaxAge != 0 && (v.Written.IsZero() || v.Age > c.MaxAge) {
			err = fmt.Errorf("the newest state in the replica is older than %v", c.MaxAge)
		}
		if err != nil {
			v.Error = err.Error()
			errs = append(errs, fmt.Errorf("database %q: %w", name, err))
		}
		found = append(found, v)
	}
	return errors.Join(append(errs, printJSON(p, found))...)
}

const trialPrefix = "verify-" // of the directories of trial restores

// removeTrials removes what trial restores that were killed have left.
func (conf *config) removeTrials() error {
	entries, err := os.ReadDir(conf.backupDir())
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), trialPrefix) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(conf.backupDir(), e.Name())))
		}
	}
	return err
}

// written returns when the row that proves replication was written to a copy; zero: there is none.
func (conf *config) written(ctx context.Context, path string) (at time.Time, err error) {
	db, err := conf.openCopy(path)
	if err != nil {
		return at, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	// The schema may come from anybody who could write to the replica.
	var is bool
	err = db.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_schema WHERE name = '_backup' AND type = 'table' AND rootpage > 0`).Scan(&is)
	if err != nil || !is {
		return at, err
	}
	var ms int64
	err = db.QueryRowContext(ctx, `SELECT coalesce(max(written), 0) FROM _backup WHERE typeof(written) = 'integer'`).Scan(&ms)
	if err != nil || ms == 0 {
		return at, err
	}
	return time.UnixMilli(ms).UTC(), nil
}
