//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package backup

import (
	"errors"
	"os"
	"syscall"
)

// snapshotLocks says that [lockFile] works.
const snapshotLocks = true

// lockFile takes an exclusive lock on the file, unless somebody has one, also in this process. It
// ends when f is closed, and with the process.
func lockFile(f *os.File) (ok bool, err error) {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, syscall.EINTR):
			return false, &os.PathError{Op: "lock", Path: f.Name(), Err: err}
		}
	}
}
