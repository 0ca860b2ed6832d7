//go:build linux || darwin || freebsd

package replicator

import (
	"os"
	"syscall"
)

// freeBytes is how much room is on the file system of f.
func freeBytes(f *os.File) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, os.NewSyscallError("fstatfs", err)
	}
	free := uint64(max(0, st.Bavail)) * uint64(st.Bsize)
	return int64(min(free, 1<<62)), nil
}
