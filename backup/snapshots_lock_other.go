//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd)

package backup

import (
	"errors"
	"os"
)

const snapshotLocks = false

func lockFile(*os.File) (bool, error) { return false, errors.ErrUnsupported }
