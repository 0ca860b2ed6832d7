package sqlite

import (
	"errors"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// ballast is a file that is given up when the disk is full. SQLite needs room
// even to read a WAL database, for its shared-memory file; the ballast leaves
// that room. While it is gone, writes are refused.
type ballast struct {
	path string
	size int64
	gone atomic.Bool

	mu   sync.Mutex // guards last and the file
	last time.Time  // of trying to restore it
}

func (b *ballast) open(db string, size int64) {
	b.path, b.size = db+"-ballast", size
	if size > 0 && b.create() != nil {
		b.gone.Store(true)
	}
}

// create makes a file with real blocks behind it, not a sparse one.
func (b *ballast) create() error {
	if info, err := os.Stat(b.path); err == nil && info.Size() == b.size {
		return nil
	}
	f, err := os.OpenFile(b.path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = allocate(f, b.size)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(b.path))
	}
	return nil
}

// release gives the ballast up.
func (b *ballast) release() {
	if b.size < 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = time.Now()
	b.gone.Store(true)
	_ = os.Remove(b.path) // gone already is fine; on any other error there is nothing left to do
}

// exhausted reports whether the disk is full. At most once a second it finds
// out whether there is room again.
func (b *ballast) exhausted() bool {
	if !b.gone.Load() {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Since(b.last) < time.Second {
		return b.gone.Load()
	}
	b.last = time.Now()
	if b.create() == nil {
		b.gone.Store(false)
	}
	return b.gone.Load()
}

func (b *ballast) close() {
	if b.size < 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := os.Remove(b.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.gone.Store(true)
	}
}

// fill writes zeros, for systems that cannot allocate without writing.
func fill(f *os.File, size int64) (err error) {
	block := make([]byte, 64<<10)
	for left := size; left > 0 && err == nil; left -= int64(len(block)) {
		_, err = f.Write(block[:min(left, int64(len(block)))])
	}
	return errors.Join(err, f.Sync())
}
