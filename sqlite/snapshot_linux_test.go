package sqlite_test

import (
	"path/filepath"
	"testing"

	"github.com/bedplate/bedplate/sqlite"
)

// A disk that the copy does not fit on is left as it was.
func TestSnapshotOnSmallDisk(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "20m")
	db := openLarge(t, sqlite.Options{})
	wantErr(t, db.Snapshot(bg, "main", filepath.Join(dir, "copy")), sqlite.ErrDiskFull)
	wantFiles(t, dir)
	check(t, db.Err())
	check(t, write(db, 1)())
}

// So is a disk that others fill while the copy is made.
func TestSnapshotOnDiskThatBecomesFull(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "64m")
	db := openLarge(t, sqlite.Options{})
	free := func() {}
	ctx := &halfway{Context: bg, dir: dir, do: func() { free = fill(t, dir) }}
	wantErr(t, db.Snapshot(ctx, "main", filepath.Join(dir, "copy")), sqlite.ErrDiskFull)
	wantFiles(t, dir, "filling")
	check(t, db.Err())
	check(t, write(db, 1)())
	free()
	check(t, db.Snapshot(bg, "main", filepath.Join(dir, "copy")))
}
