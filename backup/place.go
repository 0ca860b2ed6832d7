package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A place is a path at which a copy of a database is going to be put. While it is claimed, nobody
// else puts one there by means of this package, in this process or another.
type place struct {
	cfg    Config
	path   string // absolute
	exists bool   // there is a database, to be replaced
	old    installed
	lock   *os.File
}

// claim waits for the place until ctx ends. The error is fs.ErrExist when there is a database that
// o does not want replaced.
func (c Config) claim(ctx context.Context, path string, o RestoreOptions) (*place, error) {
	lock, err := lockPlace(ctx, path)
	if err != nil {
		return nil, err
	}
	p := &place{cfg: c, path: path, lock: lock}
	if err := p.prepare(ctx, o); err != nil {
		p.release()
		return nil, err
	}
	return p, nil
}

func (p *place) prepare(ctx context.Context, o RestoreOptions) (err error) {
	if err := p.removeLeftovers(); err != nil {
		return err
	}
	if p.exists, err = hasContent(p.path); err != nil || !p.exists {
		return err
	}
	if !o.Replace {
		return fmt.Errorf("%s: %w", p.path, fs.ErrExist)
	}
	if p.old, err = p.cfg.lookAt(ctx, p.path); o.Force && !errors.Is(err, ErrInUse) {
		return nil
	}
	return err
}

// release lets others have the place.
func (p *place) release() {
	// Who waits for a lock on a file without a name makes a new one. What cannot be removed is used
	// again.
	_ = os.Remove(p.lock.Name())
	_ = p.lock.Close() // nothing was written
}

// lockPlace waits for the lock of a path until ctx ends.
func lockPlace(ctx context.Context, path string) (*os.File, error) {
	tick := time.NewTicker(lockEvery)
	defer tick.Stop()
	for {
		if f, err := tryLock(path + "-restoring.lock"); f != nil || err != nil {
			return f, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: another restore to %s: %w", ErrInUse, path, ctx.Err())
		}
	}
}

// tryLock returns nil if somebody else has the lock, or had it until now.
func tryLock(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	ok, err := lockFile(f)
	if ok {
		ok, err = hasName(f, name)
	}
	if !ok || err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// hasName reports whether f still is the file of that name.
func hasName(f *os.File, name string) (bool, error) {
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case !named.Mode().IsRegular():
		return false, fmt.Errorf("%s is not a regular file", name)
	}
	return os.SameFile(info, named), nil
}

// besideDatabase is what may be beside a file that SQLite has opened.
var besideDatabase = []string{"-wal", "-shm", "-journal"}

// scratchSuffixes is what a copy that is being made may consist of.
var scratchSuffixes = append([]string{"", ".partial"}, besideDatabase...)

// scratchInfix and 26 characters of rand.Text follow the path in the name of such a copy.
const (
	scratchInfix  = ".restoring-"
	scratchRandom = 26
)

// removeLeftovers removes the copies of those who were killed while they made them.
func (p *place) removeLeftovers() error {
	dir, base := filepath.Split(p.path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), base+scratchInfix)
		if !ok || !e.Type().IsRegular() || !isScratch(rest) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func isScratch(rest string) bool {
	if len(rest) < scratchRandom || strings.Trim(rest[:scratchRandom], "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
		return false
	}
	for _, suffix := range scratchSuffixes {
		if rest[scratchRandom:] == suffix {
			return true
		}
	}
	return false
}
