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
	done := make(chan error, 1)
	go func() { done <- db.Snapshot(bg, "main", filepath.Join(dir, "copy")) }()
	underWay(t, dir)
	free := fill(t, dir)
	wantErr(t, <-done, sqlite.ErrDiskFull)
	wantFiles(t, dir, "filling")
	check(t, db.Err())
	check(t, write(db, 1)())
	free()
	check(t, db.Snapshot(bg, "main", filepath.Join(dir, "copy")))
}
