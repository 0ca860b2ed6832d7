package sqlite

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	sqlite3 "github.com/mattn/go-sqlite3"
)

// minVersion is the first SQLite without the WAL-reset bug, which can corrupt
// a database that several connections write and checkpoint
// (https://www.sqlite.org/wal.html#walresetbug).
const minVersion = 3_051_003

func checkVersion() error {
	text, number, _ := sqlite3.Version()
	return checkVersionNumber(text, number)
}

func checkVersionNumber(text string, number int) error {
	if number < minVersion {
		return fmt.Errorf("sqlite: SQLite %s can corrupt a WAL database, 3.51.3 or later is needed; "+
			"build without the libsqlite3 tag and with mattn/go-sqlite3 v1.14.52 or later", text)
	}
	return nil
}

// otherLibraries are modules that bring an SQLite of their own.
var otherLibraries = []string{"modernc.org/sqlite", "github.com/ncruces/go-sqlite3", "crawshaw.io/sqlite", "github.com/tailscale/sqlite", "github.com/glebarez/go-sqlite"}

// checkSecondLibrary refuses a file that this process has open already when
// it could have been opened by another SQLite library. On systems without
// /proc nothing can be found out.
func checkSecondLibrary(path string) error {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	var linked []string
	for _, dep := range info.Deps {
		for _, lib := range otherLibraries {
			if dep.Path == lib {
				linked = append(linked, lib)
			}
		}
	}
	if len(linked) == 0 {
		return nil
	}
	open, err := isOpen(path)
	if err != nil || !open || opened.has(path) {
		return err
	}
	return fmt.Errorf("%w: %s is linked in; close its handles first, or use driver %q for them",
		ErrSecondLibrary, strings.Join(linked, ", "), DriverName)
}

// opened are the files that handles of this package have open. They were found to be nobody else's
// before.
var opened openFiles

type openFiles struct {
	mu    sync.Mutex
	files []os.FileInfo
}

// add notes files that are about to be opened, until forget is called.
func (o *openFiles) add(paths []string) (forget func()) {
	var mine []os.FileInfo
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil {
			mine = append(mine, info)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.files = append(o.files, mine...)
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		for _, m := range mine {
			i := slices.IndexFunc(o.files, func(f os.FileInfo) bool { return os.SameFile(f, m) })
			o.files = slices.Delete(o.files, i, i+1)
		}
	}
}

func (o *openFiles) has(path string) bool {
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.ContainsFunc(o.files, func(f os.FileInfo) bool { return os.SameFile(f, info) })
}

// isOpen reports whether this process has a file descriptor of path.
func isOpen(path string) (bool, error) {
	want, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return false, nil //nolint:nilerr // not Linux: the question has no answer
	}
	for _, fd := range fds {
		if got, err := os.Stat("/proc/self/fd/" + fd.Name()); err == nil && os.SameFile(want, got) {
			return true, nil
		}
	}
	return false, nil
}
