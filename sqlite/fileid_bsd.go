//go:build darwin || freebsd

package sqlite

import (
	"os"
	"strconv"
	"syscall"
)

// fileIdentity tells a file from its copies, or is "". Inodes are used again,
// so the time when the file was born is a part of it.
func fileIdentity(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return strconv.FormatUint(stat.Ino, 10) + "." + strconv.FormatInt(stat.Birthtimespec.Nano(), 10)
}
