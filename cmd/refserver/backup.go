package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"text/tabwriter"
	"time"

	"github.com/bedplate/bedplate/backup"
	"github.com/bedplate/bedplate/sqlite"
)

// backupCommand is the commands about what is kept elsewhere of the databases.
type backupCommand struct {
	Now    backupNow    `cmd:"" help:"Take a snapshot of each database, also while the server runs. Prints the files."`
	Status backupStatus `cmd:"" help:"Tell how the backups of the running server do. Fails if there is an alarm, or no server."`
	List   backupList   `cmd:"" help:"List the local snapshots, and what the replica holds."`
}

type backupNow struct {
	where
	backupFlags
	BackupKeep int  `env:"BEDPLATE_BACKUP_KEEP" placeholder:"DAYS" help:"With --prune: keep one snapshot of each of so many days (${env}; default 7)."`
	Prune      bool `help:"Then delete old snapshots, as the server does after its own."`
}

func (c *backupNow) Run(p *program) error {
	conf, err := c.load()
	if err != nil {
		return err
	}
	if err := c.apply(conf); err != nil {
		return err
	}
	override(&conf.Backup.Snapshots.KeepDaily, c.BackupKeep, 0)
	if !c.Prune {
		conf.Backup.Snapshots.KeepLast = math.MaxInt
	}
	return conf.openAll(p, func(db *sqlite.DB) error {
		if err := conf.makeBackupDir(); err != nil {
			return err
		}
		var errs []error
		for _, name := range conf.databases() {
			file, err := conf.snapshotNow(p.ctx, db, name, logger(p.stderr, slog.LevelWarn))
			if file != "" {
				fmt.Fprintln(p.stdout, file)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("database %q: %w", name, err))
			}
		}
		return errors.Join(errs...)
	})
}

func (conf *config) snapshotNow(ctx context.Context, db *sqlite.DB, database string, log *slog.Logger) (file string, err error) {
	s, err := conf.snapshotsOf(database, log, func(ctx context.Context, path string) error {
		return db.Snapshot(ctx, database, path)
	})
	if err != nil {
		return "", err
	}
	defer s.Close()
	taken, err := s.Now(ctx)
	return taken.Path, err
}

// openAll opens all databases, which a running server may have open, and calls fn.
func (conf *config) openAll(p *program, fn func(*sqlite.DB) error) (err error) {
	options := conf.inspected(p).SQLite
	for _, name := range conf.databases() {
		path := conf.databaseFile(name)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("there is no %s: start the server once, or name its --data-dir", path)
		} else if err != nil {
			return err
		}
		if name != "main" {
			options.Attach = append(options.Attach, sqlite.Attachment{Name: name, Path: path})
		}
	}
	db, err := sqlite.Open(p.ctx, conf.mainFile(), options)
	if err != nil {
		return conf.locate(err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return fn(db)
}

type backupList struct {
	where
	backupFlags
	JSON bool `name:"json" help:"Print every object of the replica and every snapshot as JSON."`
}

// A listing is what there is of a database.
type listing struct {
	Name      string            `json:"name"`
	Snapshots []backup.Snapshot `json:"snapshots"`
	Points    []backup.Point    `json:"points,omitempty"`
}

func (c *backupList) Run(p *program) error {
	conf, err := c.load()
	if err != nil {
		return err
	}
	if err := c.apply(conf); err != nil {
		return err
	}
	var all []listing
	var errs []error
	for _, name := range conf.databases() {
		l, err := conf.list(p, name)
		if err != nil {
			errs = append(errs, fmt.Errorf("database %q: %w", name, err))
		}
		all = append(all, l)
	}
	if c.JSON {
		return errors.Join(append(errs, printJSON(p, all))...)
	}
	table := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "DATABASE\tTIME\tBYTES\tRESTORE WITH")
	for _, l := range all {
		for _, s := range l.Snapshots {
			fmt.Fprintf(table, "%s\t%s\t%d\t--from %s\n", l.Name, moment(s.Time), s.Bytes, printable(s.Path))
		}
		oldest, newest := span(l.Points)
		for _, point := range l.Points {
			if point.Level == wholeCopy {
				fmt.Fprintf(table, "%s\t%s\t%d\t--txid %d\n", l.Name, moment(point.Time), point.Bytes, point.TXID)
			}
		}
		if len(l.Points) > 0 {
			fmt.Fprintf(table, "%s\t%s\t\t--timestamp, from then on\n", l.Name, momentOrNone(oldest))
			fmt.Fprintf(table, "%s\t%s\t\tnothing: the newest state\n", l.Name, momentOrNone(newest))
		}
	}
	return errors.Join(append(errs, table.Flush())...)
}

// list is what there is of a database.
func (conf *config) list(p *program, database string) (l listing, err error) {
	l = listing{Name: database, Snapshots: []backup.Snapshot{}}
	log := logger(p.stderr, slog.LevelWarn)
	s, err := conf.snapshotsOf(database, log, func(context.Context, string) error { return nil })
	if err != nil {
		return l, err
	}
	defer s.Close()
	snapshots, err := s.List(p.ctx)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	l.Snapshots = append(l.Snapshots, snapshots...)
	if !conf.replicated() {
		return l, err
	}
	r, e := conf.replica(database, log, nil)
	if e == nil {
		l.Points, e = r.Points(p.ctx)
	}
	if errors.Is(e, backup.ErrNoBackup) {
		e = nil
	}
	return l, errors.Join(err, e)
}

// wholeCopy is the level of objects that need no others.
const wholeCopy = 9

// span is from when to when states can be restored.
func span(points []backup.Point) (oldest, newest time.Time) {
	for _, p := range points {
		if (p.Level == wholeCopy || p.MinTXID == 1) && (oldest.IsZero() || p.Time.Before(oldest)) {
			oldest = p.Time
		}
		if p.Time.After(newest) {
			newest = p.Time
		}
	}
	return oldest, newest
}
