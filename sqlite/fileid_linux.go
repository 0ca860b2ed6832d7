package sqlite

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// fileIdentity tells a file from its copies, or is "". Inodes are used again,
// so the time when the file was born is a part of it, where that is kept.
func fileIdentity(path string) string {
	var stat unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_INO|unix.STATX_BTIME, &stat); err != nil {
		return ""
	}
	id := strconv.FormatUint(stat.Ino, 10)
	if stat.Mask&unix.STATX_BTIME != 0 {
		id += "." + strconv.FormatInt(stat.Btime.Sec, 10) + "." + strconv.FormatUint(uint64(stat.Btime.Nsec), 10)
	}
	return id
}
