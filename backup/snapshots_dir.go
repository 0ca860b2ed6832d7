package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	snapshotTime = "20060102T150405Z" // in names of files; sorts by time
	snapshotExt  = ".db"
	checksumExt  = ".sha256"

	// lockEvery is how often a lock is tried while somebody else has it.
	lockEvery = 50 * time.Millisecond
)

// A snapshotDir is a directory with snapshots, out of which no symbolic link leads. Beside them and
// their checksums are .NAME.lock and, while one is made, .NAME.partial, a directory in which
// everything is ours.
type snapshotDir struct {
	root *os.Root
	path string // absolute
	name string // what the names of the files begin with
}

// openSnapshotDir opens the directory; it makes it if that is wanted.
func openSnapshotDir(path, name string, create bool) (*snapshotDir, error) {
	if create {
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	d := &snapshotDir{root, path, name}
	info, err := root.Stat(".")
	if err == nil && info.Mode().Perm()&0o022 != 0 {
		err = fmt.Errorf("others may write to %s, its mode is %#o", path, info.Mode().Perm())
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return d, nil
}

func (d *snapshotDir) close() { _ = d.root.Close() } // it is only read

// lock waits until nobody else makes or deletes snapshots of that name.
func (d *snapshotDir) lock(ctx context.Context) (unlock func(), err error) {
	f, err := d.root.OpenFile("."+d.name+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(lockEvery)
	defer tick.Stop()
	for {
		ok, err := lockFile(f)
		if err == nil && !ok {
			select {
			case <-tick.C:
				continue
			case <-ctx.Done():
				err = fmt.Errorf("wait for the lock of %s: %w", d.path, context.Cause(ctx))
			}
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return func() { _ = f.Close() }, nil
	}
}

// list returns the snapshots, newest first.
func (d *snapshotDir) list() ([]Snapshot, error) {
	entries, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return nil, err
	}
	var list []Snapshot
	for _, e := range slices.Backward(entries) { // they come sorted by name
		at, ok := d.timeOf(e.Name())
		if !ok || !e.Type().IsRegular() {
			continue
		}
		info, err := d.root.Lstat(e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		sum, err := d.checksumOf(e.Name())
		if err != nil && !errors.Is(err, ErrCorrupt) {
			return nil, err
		}
		list = append(list, Snapshot{Path: filepath.Join(d.path, e.Name()), Time: at, Bytes: info.Size(), SHA256: sum})
	}
	return list, nil
}

// fileName returns the name of a file; number tells those of one second apart.
func (d *snapshotDir) fileName(at time.Time, number int) string {
	name := d.name + "-" + at.UTC().Format(snapshotTime)
	if number > 0 {
		name += fmt.Sprintf("_%02d", number) // _ sorts behind the dot
	}
	return name + snapshotExt
}

// timeOf returns the time in the name of a file, if it has the form of those that are ours.
func (d *snapshotDir) timeOf(file string) (at time.Time, ok bool) {
	rest, ok := strings.CutPrefix(file, d.name+"-")
	if !ok || len(rest) < len(snapshotTime) {
		return time.Time{}, false
	}
	at, err := time.Parse(snapshotTime, rest[:len(snapshotTime)])
	if err != nil {
		return time.Time{}, false
	}
	switch rest = rest[len(snapshotTime):]; len(rest) {
	case len(snapshotExt):
		return at, rest == snapshotExt
	case len("_01" + snapshotExt):
		return at, rest[0] == '_' && isDigit(rest[1]) && isDigit(rest[2]) && rest[3:] == snapshotExt
	}
	return time.Time{}, false
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// open opens a regular file of the directory.
func (d *snapshotDir) open(file string) (*os.File, fs.FileInfo, error) {
	before, err := d.root.Lstat(file) // opening a pipe might take for ever
	if err != nil {
		return nil, nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is not a regular file", file)
	}
	f, err := d.root.Open(file)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !os.SameFile(before, info) {
		err = fmt.Errorf("%s was replaced", file)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}

// checksumOf returns what the checksum of a file should be.
func (d *snapshotDir) checksumOf(file string) (string, error) {
	f, _, err := d.open(file + checksumExt)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: %s is missing", ErrCorrupt, file+checksumExt)
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 1<<10))
	if err != nil {
		return "", err
	}
	const digits = 64
	if len(text) > digits && checksumLine(string(text[:digits]), file) == string(text) &&
		strings.Trim(string(text[:digits]), "0123456789abcdef") == "" {
		return string(text[:digits]), nil
	}
	return "", fmt.Errorf("%w: %s is not a checksum", ErrCorrupt, file+checksumExt)
}

// checksumLine is the only line of a file that is checked with sha256sum -c.
func checksumLine(sum, file string) string { return sum + "  " + file + "\n" }

// partial is the name of the directory in which a snapshot is made.
func (d *snapshotDir) partial() string { return "." + d.name + ".partial" }

// begin makes a place for a copy and returns its path. The lock is held, and clean was called.
func (d *snapshotDir) begin() (path string, err error) {
	if err := d.root.Mkdir(d.partial(), 0o700); err != nil {
		return "", err
	}
	return filepath.Join(d.path, d.partial(), partialCopy), nil
}

const (
	partialCopy     = "copy" + snapshotExt
	partialChecksum = "checksum"
)

// seal makes the copy durable, and returns its size and checksum.
func (d *snapshotDir) seal(ctx context.Context) (bytes int64, sum string, err error) {
	for _, suffix := range []string{"-wal", "-journal"} {
		info, err := d.root.Lstat(filepath.Join(d.partial(), partialCopy+suffix))
		if err == nil && info.Size() > 0 {
			return 0, "", fmt.Errorf("the copy is not whole without the %s that Take has left beside it", suffix)
		}
	}
	f, info, err := d.open(filepath.Join(d.partial(), partialCopy))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, "", errors.New("no copy was made by Take")
	}
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	if info.Size() == 0 {
		return 0, "", errors.New("an empty copy was made by Take")
	}
	if info.Mode().Perm()&0o077 != 0 { // some file systems have modes that cannot be changed
		if err := f.Chmod(0o600); err != nil {
			return 0, "", err
		}
	}
	if err := f.Sync(); err != nil {
		return 0, "", err
	}
	sum, err = checksum(ctx, f)
	return info.Size(), sum, err
}

// publish gives the copy its name. The lock is held.
func (d *snapshotDir) publish(at time.Time, sum string) (path string, err error) {
	file, err := d.freeName(at)
	if err != nil {
		return "", err
	}
	if err := d.write(filepath.Join(d.partial(), partialChecksum), checksumLine(sum, file)); err != nil {
		return "", err
	}
	// What has its name has a checksum. One that has nothing is removed by clean.
	if err := d.root.Rename(filepath.Join(d.partial(), partialChecksum), file+checksumExt); err != nil {
		return "", err
	}
	if err := d.root.Rename(filepath.Join(d.partial(), partialCopy), file); err != nil {
		return "", err
	}
	path = filepath.Join(d.path, file)
	if err := d.sync(); err != nil {
		return "", errors.Join(err, d.remove(path))
	}
	return path, nil
}

// freeName returns a name that is neither that of a snapshot nor of a checksum.
func (d *snapshotDir) freeName(at time.Time) (string, error) {
	for number := range 100 {
		file := d.fileName(at, number)
		_, err := d.root.Lstat(file)
		_, sumErr := d.root.Lstat(file + checksumExt)
		if errors.Is(err, fs.ErrNotExist) && errors.Is(sumErr, fs.ErrNotExist) {
			return file, nil
		}
	}
	return "", fmt.Errorf("there is no free name like %s", d.fileName(at, 0))
}

// write writes a new file.
func (d *snapshotDir) write(file, text string) error {
	f, err := d.root.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// sync makes the names durable.
func (d *snapshotDir) sync() error {
	f, err := d.root.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	err = f.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil // a file system that does not do that for directories
	}
	return err
}

// remove deletes a snapshot, and its checksum after it. The lock is held.
func (d *snapshotDir) remove(path string) error {
	file := filepath.Base(path)
	for _, name := range []string{file, file + checksumExt} {
		if err := d.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// clean removes what was left by an attempt that did not end well. The lock is held.
func (d *snapshotDir) clean() error {
	if err := d.root.RemoveAll(d.partial()); err != nil {
		return err
	}
	entries, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		file, ok := strings.CutSuffix(e.Name(), checksumExt)
		if !ok || !e.Type().IsRegular() {
			continue
		}
		if _, ok := d.timeOf(file); !ok {
			continue
		}
		if _, err := d.root.Lstat(file); errors.Is(err, fs.ErrNotExist) {
			if err := d.root.Remove(e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}
