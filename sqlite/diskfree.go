//go:build linux || darwin || freebsd

package sqlite

import "syscall"

// lowOnSpace reports whether the file system of path has no room for even a
// few pages.
func lowOnSpace(path string) bool {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return false
	}
	return uint64(st.Bavail)*uint64(st.Bsize) < 64<<10
}
