//go:build linux || darwin || freebsd

package sqlite

import "syscall"

// freeSpace returns how many bytes are free on the file system of path.
func freeSpace(path string) (bytes uint64, ok bool) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, false
	}
	return uint64(max(0, st.Bavail)) * uint64(st.Bsize), true
}
