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

// settleTime is when to look again at files that have changed, since somebody may still be writing them.
// It is no less than what the times of most files are rounded to.
const settleTime = time.Second

// poll calls look at once, after each interval and after each wake, until ctx ends. When look wants to
// look again soon, that is done after settleTime, and no wake makes it earlier.
func poll(ctx context.Context, interval time.Duration, wake <-chan struct{}, look func() (soon bool)) {
	timer := time.NewTimer(interval)
	defer timer.Stop()
	for ctx.Err() == nil {
		pause, woken := interval, wake
		if look() {
			pause, woken = min(interval, settleTime), nil
		}
		timer.Reset(pause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-woken:
		}
	}
}

// A watch reads files again when they have changed. It polls, since notices of changes are lost or
// never made for some of the ways in which files are replaced. It is used by one goroutine at a time.
type watch struct {
	paths     []string
	infos     []os.FileInfo     // of the files as they were read; nil: they could not be
	sum       [sha256.Size]byte // of what was found there
	returned  [sha256.Size]byte // of what look has returned last
	unsettled bool              // the last two looks differ
}

// look returns what is in the files, or why they cannot be read. The first look does so at once, others
// when the look before has found the same: a file that is being written may have all of a certificate
// and not yet those of its issuers. They return nil, nil while that differs, and for what was returned last.
func (w *watch) look() ([][]byte, error) {
	if !w.unsettled && w.unchanged() {
		return nil, nil
	}
	contents, infos, err := readFiles(w.paths)
	sum := hash(contents, err)
	w.unsettled = sum != w.sum
	w.infos, w.sum = infos, sum
	first := w.returned == [sha256.Size]byte{}
	if w.unsettled && !first || sum == w.returned {
		return nil, nil
	}
	w.returned = sum
	return contents, err
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

// hash is that of contents, or else of an error.
func hash(contents [][]byte, err error) (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, content := range contents {
		_ = binary.Write(h, binary.BigEndian, int64(len(content))) // a hash takes everything
		h.Write(content)
	}
	if err != nil {
		_ = binary.Write(h, binary.BigEndian, int64(-1)) // which no content has
		_, _ = io.WriteString(h, err.Error())
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
