package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	sqlite3 "github.com/mattn/go-sqlite3"
)

const (
	snapshotStep = 1 << 20                // bytes that are copied at a time
	snapshotRest = 100 * time.Millisecond // after a step, at most
	snapshotRoom = 16 << 20               // bytes that must be free beside the copy
)

// Snapshot copies the database "main", or an attached one, as it is at one
// moment, to a new file at path that its owner only can read. It returns when
// the copy is whole and on the disk. Until then it is in the same directory
// under path with a dot, digits and ".part" added; a process that dies leaves
// that file behind.
//
// Others read and write meanwhile. After each MiB there is a rest as long as
// that has taken, so that the copy does not crowd out the disk writes of
// commits; a gigabyte takes some 10 to 30 s. What is committed in that time
// stays in the write-ahead log, which grows by as much, also when somebody
// replicates it. The copies of one DB are made one after another.
//
// The copy is in WAL mode like its original, complete without a log. Its
// schema_version begins anew.
//
// If there is a file at path, or one that would be taken for the log of the
// copy, the error is an [fs.ErrExist], and if the disk of path has no room,
// [ErrDiskFull]. When it fails, when ctx ends, and when the database is closed
// ([ErrClosed]), no file is left.
func (db *DB) Snapshot(ctx context.Context, database, path string) error {
	if _, err := db.ChangeLog(database); err != nil {
		return err
	}
	if err := db.snapshots.enter(ctx); err != nil {
		return err
	}
	defer db.snapshots.leave()
	if err := db.takeSnapshot(ctx, database, path); err != nil {
		return fmt.Errorf("sqlite: snapshot: %w", db.classify(err))
	}
	return nil
}

func (db *DB) takeSnapshot(ctx context.Context, database, path string) (err error) {
	if err := vacant(path); err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.part")
	if err != nil {
		return err
	}
	defer func() {
		if rerr := os.Remove(file.Name()); !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}()
	// Closed after SQLite has closed the file, whose locks that would end.
	err = db.copyTo(ctx, file, database)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	return publish(file.Name(), path)
}

// vacant refuses a path whose name, or that of a side file, is taken. SQLite
// would take the log of another file for that of the copy.
func vacant(path string) error {
	for _, suffix := range []string{"", "-journal", "-wal", "-shm"} {
		switch _, err := os.Lstat(path + suffix); {
		case err == nil:
			return &fs.PathError{Op: "create", Path: path + suffix, Err: fs.ErrExist}
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	return nil
}

// publish gives the file temp the name path durably, replacing nothing.
func publish(temp, path string) error {
	if err := vacant(path); err != nil {
		return err
	}
	err := os.Link(temp, path)
	if err != nil && !errors.Is(err, fs.ErrExist) { // the file system has no links
		err = os.Rename(temp, path)
	}
	if err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil // which has no such thing
	}
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// copyTo copies a database into file, which is empty.
func (db *DB) copyTo(ctx context.Context, file *os.File, database string) (err error) {
	then := func(close func() error) {
		if cerr := close(); err == nil {
			err = cerr
		}
	}
	source, err := db.openConn(true)
	if err != nil {
		return err
	}
	defer then(source.close)
	pages, pageSize, err := source.beginCopy(database)
	if err != nil {
		return err
	}
	if free, ok := freeSpace(file.Name()); ok && free < uint64(pages*pageSize+snapshotRoom) {
		return fmt.Errorf("%w: a copy of %d bytes, with %d free", ErrDiskFull, pages*pageSize, free)
	}
	var plain sqlite3.SQLiteDriver
	opened, err := plain.Open(fileURI(file.Name(), "?_mutex=no"))
	if err != nil {
		return err
	}
	defer then(opened.Close)
	target := opened.(*sqlite3.SQLiteConn)
	// It is removed when anything goes wrong, so it needs no journal.
	if _, err := target.Exec("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-1024", nil); err != nil {
		return err
	}
	backup, err := target.Backup("main", source.raw, database)
	if err != nil {
		return err
	}
	defer then(backup.Close)
	return db.snapshots.copy(ctx, backup, max(1, int(snapshotStep/pageSize)), file)
}

// beginCopy begins a transaction that sees the database at one moment. Because
// it stays open, all steps of a backup are of that moment; without it, they
// would begin anew with every commit
// (https://www.sqlite.org/c3ref/backup_finish.html).
func (c *conn) beginCopy(database string) (pages, pageSize int64, err error) {
	if err := c.exec("BEGIN"); err != nil {
		return 0, 0, err
	}
	number := func(pragma string) (n int64, err error) {
		v, err := c.pragma(quoteName(database) + "." + pragma)
		n, _ = v.(int64)
		return n, err
	}
	if pageSize, err = number("page_size"); err != nil {
		return 0, 0, err
	}
	pages, err = number("page_count") // reads the file
	return pages, pageSize, err
}

// snapshots lets one copy be made at a time, until close.
type snapshots struct {
	turn chan struct{} // one slot, taken by who makes a copy
	quit chan struct{} // closed by close
}

func (s *snapshots) init() {
	s.turn = make(chan struct{}, 1)
	s.quit = make(chan struct{})
}

func (s *snapshots) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-s.quit:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	case s.turn <- struct{}{}:
		return nil
	}
}

func (s *snapshots) leave() { <-s.turn }

// active reports whether a copy is being made.
func (s *snapshots) active() bool { return len(s.turn) > 0 }

// close ends a running copy, waits for that, and lets no other begin.
func (s *snapshots) close() {
	close(s.quit)
	s.turn <- struct{}{}
}

// copy runs the steps of backup, each of a number of pages.
func (s *snapshots) copy(ctx context.Context, backup *sqlite3.SQLiteBackup, pages int, file *os.File) error {
	rest := time.NewTimer(0)
	defer rest.Stop()
	var written int64 // up to where file is on the disk
	for remaining := -1; ; remaining = backup.Remaining() {
		select {
		case <-s.quit:
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		case <-rest.C:
		}
		began := time.Now()
		done, err := backup.Step(pages)
		if err != nil || done {
			return err
		}
		if backup.Remaining() == remaining {
			return ErrBusy // the driver does not tell when the file is locked, which nobody should know
		}
		// Too much at once would hold up the fsyncs of commits.
		info, err := file.Stat()
		if err != nil {
			return err
		}
		if n := info.Size() - written; n > 0 { // 0 would mean the whole file
			if err := writeBack(file, written, n); err != nil {
				return err
			}
			written += n
		}
		rest.Reset(min(time.Since(began), snapshotRest))
	}
}
