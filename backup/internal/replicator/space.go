//go:build linux || darwin || freebsd

package replicator

import (
	"os"

	"golang.org/x/sys/unix"
)

// freeBytes is how much room is on the file system of f.
func freeBytes(f *os.File) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, os.NewSyscallError("fstatfs", err)
	}
	free := uint64(st.Bavail) * uint64(st.Bsize) //nolint:gosec,unconvert // the types differ between systems
	return int64(min(free, 1<<62)), nil          //nolint:gosec // bounded
}
