package sqlite

import (
	"errors"
	"fmt"
	"syscall"

	sqlite3 "github.com/mattn/go-sqlite3"
)

var (
	// ErrBusy is returned when the write queue is full or when another
	// process held the write lock for longer than Options.BusyTimeout.
	// Nothing was written; the caller may try again later.
	ErrBusy = errors.New("sqlite: database is busy")

	// ErrDiskFull is returned for writes that found no room on the disk.
	// Nothing was written; reads go on.
	ErrDiskFull = errors.New("sqlite: disk is full")

	// ErrClosed is returned by every method after Close.
	ErrClosed = errors.New("sqlite: database is closed")

	// ErrFailed is returned for every write after a commit or an fsync has
	// failed. What the failed commit left behind on the disk is unknown, so
	// the handle refuses further writes until the process is restarted.
	ErrFailed = errors.New("sqlite: a commit failed, writes are refused until restart")

	// ErrHeldTooLong is returned by Update when the function kept the writer
	// for longer than Options.MaxHold. Its work was rolled back. A nested
	// Update inside an Update ends this way.
	ErrHeldTooLong = errors.New("sqlite: update held the writer for too long")

	// ErrTimeout is returned by Write, Query and Read for a statement that
	// took longer than Options.MaxStatement and was interrupted.
	ErrTimeout = errors.New("sqlite: statement took too long")

	// ErrRolledBack is returned by Update when the shared transaction was
	// lost for a reason outside of the function, for example because
	// another one violated a deferred constraint. The function may be run
	// again.
	ErrRolledBack = errors.New("sqlite: the shared transaction was rolled back")

	// ErrSecondLibrary is returned by Open when the file is already open in
	// this process and another SQLite library is linked in.
	ErrSecondLibrary = errors.New("sqlite: the file may be open with another SQLite library in this process")

	// ErrNewerSchema is returned by Migrate when the database has seen
	// migrations that the given file system does not hold.
	ErrNewerSchema = errors.New("sqlite: the database is newer than the program")
)

// A StmtError tells which statement of a Write an error of SQLite comes from.
type StmtError struct {
	Index int // in the list
	Err   error
}

func (e *StmtError) Error() string { return e.Err.Error() }

func (e *StmtError) Unwrap() error { return e.Err }

// A PanicError is what Update and View return when the function panicked.
// Its work was rolled back.
type PanicError struct {
	Value any    // what was passed to panic
	Stack []byte // the stack of the panicking goroutine
}

func (e *PanicError) Error() string { return fmt.Sprintf("sqlite: panic in transaction: %v", e.Value) }

// Unwrap returns the panic's value if that was an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Code returns SQLite's extended result code of err
// (https://www.sqlite.org/rescode.html), or 0 if err did not come from SQLite.
func Code(err error) int {
	if err == nil {
		return 0
	}
	var e sqlite3.Error
	if errors.As(err, &e) {
		return int(e.ExtendedCode)
	}
	return 0
}

// classify adds the sentinel that tells a caller what to do about err.
func (db *DB) classify(err error) error {
	if err == nil {
		return nil
	}
	var e sqlite3.Error
	if !errors.As(err, &e) {
		return err
	}
	switch {
	case e.Code == sqlite3.ErrInterrupt:
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	case e.Code == sqlite3.ErrFull, e.SystemErrno == syscall.ENOSPC, e.SystemErrno == syscall.EDQUOT:
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	case e.Code == sqlite3.ErrBusy, e.Code == sqlite3.ErrLocked, e.Code == sqlite3.ErrProtocol:
		// A disk without room surfaces as lock contention at times,
		// because the shared-memory file cannot grow either.
		if lowOnSpace(db.path) {
			return fmt.Errorf("%w: %w", ErrDiskFull, err)
		}
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return err
}

// lowOnSpace reports whether the file system of path has no room for even a
// few pages.
func lowOnSpace(path string) bool {
	free, ok := freeSpace(path)
	return ok && free < 64<<10
}

// fatal reports whether err, met while writing, leaves the state of the disk
// unknown. Running out of space is not fatal: SQLite notices it before it
// tells anybody that a commit succeeded.
func fatal(err error) bool {
	var e sqlite3.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case sqlite3.ErrIoErr:
		return e.ExtendedCode == sqlite3.ErrIoErrFsync || e.SystemErrno != syscall.ENOSPC
	case sqlite3.ErrCorrupt, sqlite3.ErrNotADB:
		return true
	}
	return false
}
