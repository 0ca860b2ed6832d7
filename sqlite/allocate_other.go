//go:build !linux

package sqlite

import "os"

// allocate gives f size bytes of the disk.
func allocate(f *os.File, size int64) error { return fill(f, size) }
