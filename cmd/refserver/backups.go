package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/bedplate/bedplate"
	"github.com/bedplate/bedplate/backup"
	"github.com/bedplate/bedplate/sqlite"
)

// backups are the replicas and snapshots of the databases of a running server, or of a standby. It
// writes their state to a file from time to time.
type backups struct {
	conf      *config
	log       *slog.Logger
	databases []backedUp
	db        *sqlite.DB // what snapshots are taken of
	lock      *os.File   // that no other process has while this one writes to the file
	told      string     // what was last logged about an order that is refused

	mu        sync.Mutex // also for promoted of databases
	mode      mode
	promotion *promotion

	changed chan struct{} // the file is to be written at once
	stop    chan struct{}
	work    sync.WaitGroup
}

type backedUp struct {
	name      string
	replica   *backup.Replica   // nil: it is not replicated
	standby   *backup.Standby   // nil: it does not stand by
	promoted  bool              // it does no more
	snapshots *backup.Snapshots // nil: none are taken
}

// newBackups makes the backups that conf wants, but starts nothing. When another machine has taken
// over a replica, fence is called with an error that is a [backup.ErrFenced].
func (conf *config) newBackups(log *slog.Logger, fence func(error)) (*backups, error) {
	b := &backups{conf: conf, log: log, mode: modeServer, changed: make(chan struct{}, 1), stop: make(chan struct{})}
	if !conf.replicated() && !conf.Backup.Scheduled {
		return b, nil
	}
	for _, name := range conf.databases() {
		d := backedUp{name: name}
		var err error
		if conf.replicated() {
			d.replica, err = conf.replica(name, log, func(by string) {
				if err := removeFile(conf.promotedFile()); err != nil {
					log.Warn("forget the promotion", "error", err)
				}
				by = printable(by[:min(len(by), maxName)])
				fence(fmt.Errorf("database %q: %w: %s", name, backup.ErrFenced, by))
			})
			if err != nil {
				return nil, conf.locate(err) // that of another is as wrong
			}
		}
		if conf.Backup.Scheduled {
			d.snapshots, err = conf.snapshotsOf(name, log, func(ctx context.Context, path string) error {
				return b.db.Snapshot(ctx, name, path)
			})
			if err != nil {
				return nil, err
			}
		}
		b.databases = append(b.databases, d)
	}
	return b, nil
}

// maxName is the length in bytes up to which the name of another machine is told.
const maxName = 100

// open begins to write the file, if there is anything to tell. No other process does that in the
// same data directory until close.
func (b *backups) open() error {
	if len(b.databases) == 0 {
		return nil
	}
	if err := b.hold(); err != nil {
		return err
	}
	b.work.Go(b.report)
	return nil
}

// hold sees to it that no other server or standby has the data directory, until close.
func (b *backups) hold() error {
	if b.lock != nil {
		return nil
	}
	if err := b.conf.makeBackupDir(); err != nil {
		return err
	}
	lock, locked, err := b.conf.lockFile("lock")
	if err == nil && !locked {
		err = fmt.Errorf("a server or a standby runs already with the data directory %s", b.conf.DataDir)
	}
	b.lock = lock
	return err
}

// close ends the standbys, and the file with the last state of everything.
func (b *backups) close() {
	for _, d := range b.databases {
		if d.standby != nil {
			if err := d.standby.Close(); err != nil {
				b.log.Warn("end the standby", "error", err)
			}
		}
	}
	select {
	case <-b.stop:
	default:
		close(b.stop)
	}
	b.work.Wait()
	if b.lock != nil {
		_ = b.lock.Close() // nothing was written to it
	}
}

// complete gives the replicas to what is to be opened.
func (b *backups) complete(options *bedplate.Config) {
	for i, d := range b.databases {
		if d.replica == nil {
			continue
		}
		var r bedplate.Replica = d.replica
		if !b.conf.Backup.Restore {
			r = onlyIfEmpty{d.replica}
		}
		if i == 0 {
			options.Replica = r
		} else {
			options.Databases[i-1].Replica = r
		}
	}
}

// onlyIfEmpty is a replica from which no missing database is restored. One that is missing although
// the replica holds it is an error.
type onlyIfEmpty struct{ *backup.Replica }

func (r onlyIfEmpty) RestoreIfMissing(ctx context.Context, path string, _ func(context.Context, string) error) (bool, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > 0 {
		return false, nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	points, err := r.Points(ctx)
	if err == nil && len(points) > 0 {
		err = fmt.Errorf("%s is missing, and the replica is not empty: restore it, or start without --no-restore-if-missing", path)
	}
	if errors.Is(err, backup.ErrNoBackup) {
		err = nil
	}
	return false, err
}

// serving begins to take snapshots of db, until endSnapshots, and says what no replica holds.
func (b *backups) serving(db *sqlite.DB) {
	b.db = db
	b.set(func() {
		if b.promotion != nil {
			b.promotion = &promotion{ID: b.promotion.ID, Done: true}
		}
	})
	for _, d := range b.databases {
		if d.snapshots != nil {
			d.snapshots.Start()
		}
	}
	if b.conf.replicated() {
		if missing := b.conf.notReplicated(); len(missing) > 0 {
			b.log.Warn("not in the replica, copy it elsewhere: a key once, files regularly", "paths", missing)
		}
	}
}

func (b *backups) endSnapshots() {
	for _, d := range b.databases {
		if d.snapshots != nil {
			d.snapshots.Close()
		}
	}
}

// notReplicated is what of the data directory only file copies can bring back.
func (conf *config) notReplicated() (paths []string) {
	if _, err := os.Stat(conf.keyFile()); err == nil {
		paths = append(paths, conf.keyFile())
	}
	uploads := filepath.Join(conf.DataDir, "uploads")
	if entries, err := os.ReadDir(uploads); err == nil && len(entries) > 1 && conf.S3 == nil { // one is always there
		paths = append(paths, uploads)
	}
	return paths
}

// statusEvery is how often the file is written.
const statusEvery = 2 * time.Second

// report writes the file until close, and once more then.
func (b *backups) report() {
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	told := ""
	for ended := false; ; {
		err := replaceSmall(b.conf.statusFile(), b.status(ended))
		if err != nil && err.Error() != told {
			told = err.Error()
			b.log.Warn("write the state of the backups", "error", err)
		}
		if ended {
			return
		}
		select {
		case <-tick.C:
		case <-b.changed:
		case <-b.stop:
			ended = true
		}
	}
}

// status is how everything does now.
func (b *backups) status(ended bool) *status {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &status{PID: os.Getpid(), Mode: b.mode, Time: time.Now().UTC(), Ended: ended, Promotion: b.promotion}
	for _, d := range b.databases {
		of := databaseStatus{Name: d.name}
		of.Promoted = b.mode == modeStandby && d.promoted
		if b.mode == modeStandby && d.standby != nil && !d.promoted {
			st := d.standby.Status()
			of.Standby = &st
		}
		if b.mode == modeServer && d.replica != nil {
			st := d.replica.Status()
			of.Replica = &st
		}
		if b.mode == modeServer && d.snapshots != nil {
			st := d.snapshots.Status()
			of.Snapshots = &st
		}
		s.Databases = append(s.Databases, of)
	}
	return s
}

// set changes what is told, which is in the file soon after.
func (b *backups) set(change func()) {
	b.mu.Lock()
	change()
	b.mu.Unlock()
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

func (conf *config) statusFile() string { return filepath.Join(conf.backupDir(), "status.json") }
