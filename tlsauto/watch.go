package tlsauto

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"syscall"
	"time"
)

// maxFileSize bounds what is read of a file: five times the authorities that browsers trust.
const maxFileSize = 1 << 20

// poll calls look at once, after each interval and after each wake, until ctx ends.
func poll(ctx context.Context, interval time.Duration, wake <-chan struct{}, look func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for ctx.Err() == nil {
		look()
		select {
		case <-ctx.Done():
		case <-ticker.C:
		case <-wake:
		}
	}
}

// A watch reads files again when they have changed. It polls, since notices of changes are lost or
// never made for some of the ways in which files are replaced. It is used by one goroutine at a time.
type watch struct {
	paths []string
	infos []os.FileInfo     // of the files as they were read; nil: they could not be
	sum   [sha256.Size]byte // of what was in them
	again bool              // read them even if they look the same
}

// look returns what is in the files, or nil if that is what the look before has found, too. After an
// error everything is new.
func (w *watch) look() ([][]byte, error) {
	if !w.again && w.unchanged() {
		return nil, nil
	}
	contents, infos, err := readFiles(w.paths)
	if err != nil {
		w.infos, w.sum = nil, [sha256.Size]byte{}
		return nil, err
	}
	sum := hash(contents)
	// A file may be written again within the resolution of its time: two looks must see the same.
	w.again = sum != w.sum
	w.infos, w.sum = infos, sum
	if !w.again {
		return nil, nil
	}
	return contents, nil
}

// unchanged reports whether the files that the paths lead to look as they did when they were read. The
// time of the last access does not count, since reading changes it.
func (w *watch) unchanged() bool {
	if w.infos == nil {
		return false
	}
	for i, path := range w.paths {
		info, err := os.Stat(path)
		then := w.infos[i]
		if err != nil || !os.SameFile(info, then) || info.Size() != then.Size() ||
			!info.ModTime().Equal(then.ModTime()) || info.Mode() != then.Mode() {
			return false
		}
	}
	return true
}

func readFiles(paths []string) ([][]byte, []os.FileInfo, error) {
	contents, infos := make([][]byte, len(paths)), make([]os.FileInfo, len(paths))
	for i, path := range paths {
		var err error
		if contents[i], infos[i], err = readFile(path); err != nil {
			return nil, nil, err
		}
	}
	return contents, infos, nil
}

var (
	errNotRegular = errors.New("not a regular file")
	errTooLarge   = errors.New("larger than 1 MiB")
)

func readFile(path string) ([]byte, os.FileInfo, error) {
	fail := func(err error) ([]byte, os.FileInfo, error) {
		return nil, nil, &os.PathError{Op: "read", Path: path, Err: err}
	}
	// Opening alone can do something to a device.
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return fail(errNotRegular)
	}
	// It may have become a pipe meanwhile, for whose other end nobody should wait.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = file.Close() }()
	info, err = file.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return fail(errNotRegular)
	}
	content, err := io.ReadAll(io.LimitReader(file, maxFileSize+1))
	if err != nil {
		return nil, nil, err
	}
	if len(content) > maxFileSize {
		return fail(errTooLarge)
	}
	return content, info, nil
}

func hash(contents [][]byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, content := range contents {
		_ = binary.Write(h, binary.BigEndian, int64(len(content))) // a hash takes everything
		h.Write(content)
	}
	h.Sum(sum[:0])
	return sum
}

// A refusal tells of what is wrong with files: when two looks in a row have found something wrong,
// since files are not replaced all at once, and not again until it is something else.
type refusal struct {
	looks int
	told  string
}

// due reports whether to tell of what a look has found, nil if nothing is wrong.
func (r *refusal) due(err error) bool {
	if err == nil {
		*r = refusal{}
		return false
	}
	r.looks++
	if r.looks < 2 || r.told == err.Error() {
		return false
	}
	r.told = err.Error()
	return true
}
