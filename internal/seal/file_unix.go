//go:build unix

package seal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// openNoFollow opens a file for reading unless it is a symbolic link. It does
// not wait for the other end of a named pipe.
func openNoFollow(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, errors.New("is a symbolic link")
	}
	return f, err
}

// checkAccess refuses a file that others than the user of this process have
// or had a way into.
func checkAccess(info fs.FileInfo) error {
	if mode := info.Mode().Perm(); mode&^0o600 != 0 {
		return fmt.Errorf("mode is %#o, must be 0600 or narrower", mode)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("owner is unknown")
	}
	if uid := os.Geteuid(); int64(st.Uid) != int64(uid) {
		return fmt.Errorf("belongs to user id %d, this process runs as %d", st.Uid, uid)
	}
	return nil
}

// syncDir makes the names in a directory survive a power failure.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
