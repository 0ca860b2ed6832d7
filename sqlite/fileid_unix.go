//go:build unix && !linux && !darwin && !freebsd

package sqlite

import (
	"os"
	"strconv"
	"syscall"
)

// fileIdentity tells a file from its copies, or is "".
func fileIdentity(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return strconv.FormatUint(uint64(stat.Ino), 10) //nolint:unconvert // not uint64 everywhere
}
