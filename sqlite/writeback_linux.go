package sqlite

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// writeBack writes a part of f to the disk and waits for that, but not for what
// the file system notes about f: that is what the fsyncs of other files would
// wait for, too. Where it cannot be done, the system writes when it likes.
func writeBack(f *os.File, offset, n int64) error {
	const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	err := unix.SyncFileRange(int(f.Fd()), offset, n, all)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}
