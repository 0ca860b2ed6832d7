package records

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/bedplate/bedplate/internal/iox"
)

// A Dir is a [FileStore] in a directory of the local file system, which
// belongs to it alone. Several processes may use the same directory.
//
// Nothing in the directory leads out of it, not even a symbolic link that
// somebody planted. An upload that was cut off by a crash leaves a file that
// List reports under an id that was never used, so that a sweep finds it.
//
// Errors of the file system can be told by errors.Is: syscall.ENOSPC is a full
// disk. An id that is none is fs.ErrInvalid.
type Dir struct {
	root *os.Root

	mu     sync.Mutex
	synced map[string]bool // shards whose names are on the disk
}

// arriving is the directory of files that are not complete. Its name is longer
// than that of any shard.
const arriving = "tmp"

// OpenDir opens the directory at path, and creates it with mode 0700 if there
// is none; the one above must exist. A Dir is done with by Close.
func OpenDir(path string) (*Dir, error) {
	d, err := openDir(path)
	if err != nil {
		return nil, fmt.Errorf("opening the directory of files: %w", err)
	}
	return d, nil
}

func openDir(path string) (*Dir, error) {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	d := &Dir{root: root, synced: map[string]bool{}}
	if err := errors.Join(syncParent(path), d.makeDir(arriving)); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return d, nil
}

// Close lets go of the directory. What comes after fails with fs.ErrClosed.
func (d *Dir) Close() error { return d.root.Close() }

// Put stores size bytes of r under id; r must end there. What was under id is
// replaced.
func (d *Dir) Put(ctx context.Context, id string, r io.Reader, size int64) error {
	if err := d.put(ctx, id, r, size); err != nil {
		return fmt.Errorf("storing a file: %w", err)
	}
	return nil
}

func (d *Dir) put(ctx context.Context, id string, r io.Reader, size int64) error {
	shard, err := shardOf(id)
	if err != nil {
		return err
	}
	if size < 0 {
		return fmt.Errorf("%w: a size of %d bytes", fs.ErrInvalid, size)
	}
	temp := path.Join(arriving, rand.Text())
	f, err := d.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = iox.CopyExactly(ctx, f, r, size)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = d.publish(temp, shard, id)
	}
	if err != nil {
		_ = d.root.Remove(temp) // or else List reports it
	}
	return err
}

// publish gives a complete file its name.
func (d *Dir) publish(temp, shard, id string) error {
	if err := d.makeDir(shard); err != nil {
		return err
	}
	name := path.Join(shard, id)
	if err := d.root.Rename(temp, name); err != nil {
		return err
	}
	if err := d.sync(shard); err != nil {
		return errors.Join(err, d.root.Remove(name))
	}
	return nil
}

// Open opens a file for reading. What it returns is an *os.File, so that
// serving it costs no copying; a caller that is cancelled must close it.
func (d *Dir) Open(ctx context.Context, id string) (io.ReadSeekCloser, error) {
	f, err := d.open(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("opening a file: %w", err)
	}
	return f, nil
}

func (d *Dir) open(ctx context.Context, id string) (*os.File, error) {
	shard, err := shardOf(id)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	name := path.Join(shard, id)
	// A link is not followed, wherever it leads, and a pipe not waited for.
	info, err := d.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: not a regular file", fs.ErrInvalid)
	}
	return d.root.Open(name)
}

// Delete deletes a file, or what is left of one that did not arrive. After a
// loss of power it may be there again.
func (d *Dir) Delete(ctx context.Context, id string) error {
	shard, err := shardOf(id)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = errors.Join(d.remove(path.Join(shard, id)), d.remove(path.Join(arriving, id)))
	}
	if err != nil {
		return fmt.Errorf("deleting a file: %w", err)
	}
	return nil
}

func (d *Dir) remove(name string) error {
	if err := d.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// List calls fn for every file, also for those that are arriving or failed to.
// A file that comes or goes meanwhile may be among them or not.
func (d *Dir) List(ctx context.Context, fn func(id string, size int64, stored time.Time) error) error {
	err := d.each(ctx, ".", func(dir string) error {
		return d.each(ctx, dir, func(id string) error {
			shard, err := shardOf(id)
			if err != nil || dir != shard && dir != arriving {
				return nil // not a file of ours
			}
			info, err := d.root.Lstat(path.Join(dir, id))
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil
			case err != nil:
				return err
			case !info.Mode().IsRegular():
				return nil
			}
			return fn(id, info.Size(), info.ModTime())
		})
	})
	if err != nil {
		return fmt.Errorf("listing files: %w", err)
	}
	return nil
}

// each calls fn with the names in a directory; what is no directory has none.
func (d *Dir) each(ctx context.Context, dir string, fn func(name string) error) error {
	info, err := d.root.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return nil
	}
	if err != nil {
		return err
	}
	f, err := d.root.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		entries, err := f.ReadDir(256)
		for _, e := range entries {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := fn(e.Name()); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
	}
}

// makeDir creates a directory unless it is there, and sees to it that it stays.
func (d *Dir) makeDir(name string) error {
	err := d.root.Mkdir(name, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	created := err == nil
	d.mu.Lock()
	done := d.synced[name] && !created
	d.mu.Unlock()
	if done {
		return nil
	}
	// One that another has just created may not be on the disk yet.
	if err := d.sync("."); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.synced[name] = true
	return nil
}

// sync makes the names in a directory survive a loss of power.
func (d *Dir) sync(dir string) error {
	f, err := d.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(syncNames(f), f.Close())
}

// syncParent does so for the name of the directory itself. If the one above
// cannot be read, this one was not created here.
func syncParent(path string) error {
	f, err := os.Open(filepath.Dir(filepath.Clean(path)))
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(syncNames(f), f.Close())
}

func syncNames(dir *os.File) error {
	if runtime.GOOS == "windows" {
		return nil // which has no such thing
	}
	return dir.Sync()
}

// shardOf returns the directory that holds the file id, which it checks: it
// cannot lead elsewhere.
func shardOf(id string) (string, error) {
	valid := len(id) >= 1 && len(id) <= 64
	for i := 0; valid && i < len(id); i++ {
		c := id[i]
		valid = 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-'
	}
	if !valid {
		return "", fmt.Errorf("%w: the id is not of 1 to 64 letters, digits and dashes", fs.ErrInvalid)
	}
	// There are file systems to which upper and lower case are the same.
	return strings.ToLower(id[:min(len(id), 2)]), nil
}
