//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package replicator

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"time"
)

// walWriteLock is the byte of the file that stands for the right to write.
const walWriteLock = 120

// What SQLite locks in a database file as long as it has it open.
const (
	sharedFirst = 0x40000002
	sharedSize  = 510
)

// lockShared takes the lock that keeps other processes from taking a database for theirs alone. It
// belongs to the process, which may have it already.
func lockShared(database *os.File) error {
	lock := syscall.Flock_t{Type: syscall.F_RDLCK, Whence: io.SeekStart, Start: sharedFirst, Len: sharedSize}
	return syscall.FcntlFlock(database.Fd(), syscall.F_SETLK, &lock)
}

// lock keeps other processes from writing, as SQLite itself does it. Connections of this process
// are not kept from it, and the first one that has written ends it.
func (w *walIndex) lock(ctx context.Context) error {
	for {
		err := w.fcntl(syscall.F_WRLCK)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EACCES) && !errors.Is(err, syscall.EINTR):
			return err
		}
		select {
		case <-time.After(200 * time.Microsecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (w *walIndex) unlock() error { return w.fcntl(syscall.F_UNLCK) }

func (w *walIndex) fcntl(kind int16) error {
	lock := syscall.Flock_t{Type: kind, Whence: io.SeekStart, Start: walWriteLock, Len: 1}
	return syscall.FcntlFlock(w.file.Fd(), syscall.F_SETLK, &lock)
}
