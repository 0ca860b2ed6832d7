//go:build !(linux || darwin || freebsd)

package replicator

import "os"

// freeBytes is not known on this system.
func freeBytes(*os.File) (int64, error) { return 1 << 62, nil }
