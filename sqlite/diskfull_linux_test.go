package sqlite_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

// smallDisk mounts a file system of some megabytes.
func smallDisk(t *testing.T, size string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,size="+size); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes what room there is in dir and returns a function that gives it back.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	name := filepath.Join(dir, "filling")
	f, err := os.Create(name)
	check(t, err)
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	wantErr(t, err, syscall.ENOSPC)
	check(t, f.Close())
	return sync.OnceFunc(func() { check(t, os.Remove(name)) })
}

const blobInsert = "INSERT INTO item (id, note) VALUES (?, hex(randomblob(2000)))"

// writeUntilFull writes with many at once until each has failed, and returns
// what was acknowledged.
func writeUntilFull(t *testing.T, db *sqlite.DB) (acknowledged []int64) {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for g := range int64(8) {
		wg.Go(func() {
			for i := int64(0); ; i++ {
				id := g*1000000 + i
				stmt := insert(id)
				stmt.SQL = blobInsert
				var err error
				switch i % 3 {
				case 0:
					err = db.Write(bg, stmt)
				case 1:
					err = db.Write(bg, sqlite.Stmt{SQL: "SELECT 1"}, stmt)
				default:
					err = db.Update(bg, func(tx *sqlite.Tx) error { return run(tx, blobInsert, id) })
				}
				if errors.Is(err, sqlite.ErrRolledBack) && !errors.Is(err, sqlite.ErrDiskFull) {
					continue
				}
				if err != nil {
					if !errors.Is(err, sqlite.ErrDiskFull) {
						t.Errorf("write %d on a full disk: %v", i%3, err)
					}
					return
				}
				mu.Lock()
				acknowledged = append(acknowledged, id)
				mu.Unlock()
			}
		})
	}
	within(t, "writers", wg.Wait)
	return acknowledged
}

func TestDiskFull(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "8m")
	path := filepath.Join(dir, "test.db")
	// The file that makes room later is there from the beginning.
	check(t, os.WriteFile(filepath.Join(dir, "other"), make([]byte, 3<<20), 0o600))
	db := sqlitetest.OpenFile(t, path, itemSchema, sqlite.Options{Logger: quiet})
	wantBallast(t, path, 1<<20)
	acknowledged := writeUntilFull(t, db)
	t.Logf("%d items", len(acknowledged))
	wantBallast(t, path, -1)
	wantErr(t, db.Err(), sqlite.ErrDiskFull)
	wantErr(t, write(db, -1)(), sqlite.ErrDiskFull)
	wantErr(t, update(db, -2)(), sqlite.ErrDiskFull)
	wantAll(t, db, acknowledged)
	var viewers sync.WaitGroup
	var viewed atomic.Int64
	for range 8 { // more connections than were open
		viewers.Go(func() {
			err := db.View(bg, func(tx *sqlite.Tx) error {
				return tx.QueryRowContext(bg, "SELECT count(*) FROM item ORDER BY 1").Scan(new(int))
			})
			if err != nil {
				t.Errorf("reading on a full disk: %v", err)
			}
			viewed.Add(1)
		})
	}
	viewers.Wait()

	check(t, os.Remove(filepath.Join(dir, "other")))
	until(t, "writes go on", func() bool { return db.Err() == nil })
	wantBallast(t, path, 1<<20)
	check(t, write(db, 1<<40)())
	check(t, update(db, 1<<41)())
	acknowledged = append(acknowledged, 1<<40, 1<<41)
	wantAll(t, db, acknowledged)
	check(t, db.Close())
	wantBallast(t, path, -1)
	wantAll(t, sqlitetest.OpenFile(t, path, ""), acknowledged)
}

func wantBallast(t *testing.T, path string, size int64) {
	t.Helper()
	info, err := os.Stat(path + "-ballast")
	switch {
	case errors.Is(err, os.ErrNotExist):
		if size >= 0 {
			t.Error("the ballast is gone")
		}
	case err != nil:
		t.Error(err)
	case info.Size() != size:
		t.Errorf("ballast of %d bytes, want %d", info.Size(), size)
	}
}

// A process that died left its ballast, and another filled the disk.
func TestOpenOnFullDisk(t *testing.T) {
	t.Parallel()
	for _, ballast := range []bool{true, false} {
		dir := smallDisk(t, "4m")
		path := filepath.Join(dir, "test.db")
		db := sqlitetest.OpenFile(t, path, itemSchema)
		check(t, write(db, 1, 2, 3)())
		check(t, db.Close())
		if ballast {
			check(t, os.WriteFile(path+"-ballast", make([]byte, 1<<20), 0o600))
		}
		free := fill(t, dir)
		db, err := sqlite.Open(bg, path, sqlite.Options{Logger: quiet})
		if err != nil {
			if ballast {
				t.Errorf("open on a full disk with a ballast: %v", err)
			} else {
				wantErr(t, err, sqlite.ErrDiskFull) // there is no room for the shared memory
			}
			free()
			continue
		}
		wantItems(t, db, 1, 2, 3)
		if err := write(db, 4)(); err != nil {
			wantErr(t, err, sqlite.ErrDiskFull)
			wantErr(t, db.Err(), sqlite.ErrDiskFull)
			wantItems(t, db, 1, 2, 3)
		}
		free()
		until(t, "writes go on", func() bool { return db.Err() == nil })
		check(t, write(db, 5)())
		check(t, db.Close())
	}
}

// A row that does not fit is a failure of the statement that returns it too.
func TestDiskFullInReturning(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "4m")
	check(t, os.WriteFile(filepath.Join(dir, "other"), make([]byte, 2<<20), 0o600))
	db := sqlitetest.OpenFile(t, filepath.Join(dir, "test.db"), itemSchema, sqlite.Options{Logger: quiet, Ballast: 64 << 10})
	var err error
	for range 2000 {
		// Beyond the page cache, so that the statement itself has to write.
		if err = db.Update(bg, func(tx *sqlite.Tx) error {
			return tx.QueryRowContext(bg, "INSERT INTO item (note) VALUES (hex(zeroblob(8000000))) RETURNING id").Scan(new(int64))
		}); err != nil {
			break
		}
	}
	wantErr(t, err, sqlite.ErrDiskFull)
	wantErr(t, db.Err(), sqlite.ErrDiskFull)
	check(t, os.Remove(filepath.Join(dir, "other")))
	until(t, "writes go on", func() bool { return db.Err() == nil })
}

func TestDiskFullWithoutBallast(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "4m")
	check(t, os.WriteFile(filepath.Join(dir, "other"), make([]byte, 2<<20), 0o600))
	db := sqlitetest.OpenFile(t, filepath.Join(dir, "test.db"), itemSchema, sqlite.Options{Logger: quiet, Ballast: -1})
	wantBallast(t, db.Path(), -1)
	acknowledged := writeUntilFull(t, db)
	wantAll(t, db, acknowledged)
	check(t, os.Remove(filepath.Join(dir, "other")))
	ctx, cancel := context.WithTimeout(bg, patience)
	defer cancel()
	for id := int64(-1); ; id-- {
		err := db.Write(ctx, insert(id))
		if err == nil {
			wantAll(t, db, append(acknowledged, id))
			break
		}
		wantErr(t, err, sqlite.ErrDiskFull)
		time.Sleep(time.Millisecond)
	}
}
