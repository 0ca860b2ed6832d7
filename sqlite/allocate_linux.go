package sqlite

import (
	"os"
	"syscall"
)

// allocate gives f size bytes of the disk.
func allocate(f *os.File, size int64) error {
	err := syscall.Fallocate(int(f.Fd()), 0, 0, size)
	if err == syscall.EOPNOTSUPP { //nolint:errorlint // a bare errno
		return fill(f, size)
	}
	return err
}
