package backup_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
)

func TestSnapshotDiskFull(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "mode=0700,size=1m"); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	source := filepath.Join(t.TempDir(), "source.db")
	makeDatabase(t, source, 10000)
	clock := newShotClock()
	dir := filepath.Join(disk, "shots")
	s := newShots(t, func(c *backup.SnapshotsConfig) {
		c.Dir, c.Now, c.Take = dir, clock.Now, backup.VacuumInto(openDatabase(t, source))
		c.KeepLast, c.KeepDaily, c.KeepWeekly = 1, -1, -1
	})
	first := takeShot(t, s)
	before := dirNames(t, dir)
	filling := filepath.Join(disk, "filling")
	f, err := os.Create(filling)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	clock.add(time.Hour)
	if _, err := s.Now(t.Context()); err == nil || s.Status().Alarm == nil {
		t.Errorf("error is %v, status %+v", err, s.Status())
	}
	wantNames(t, "directory", dirNames(t, dir), before...)
	if err := s.Verify(t.Context(), first); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filling); err != nil {
		t.Fatal(err)
	}
	if shot := takeShot(t, s); s.Status().Alarm != nil || shot.Path == first.Path {
		t.Errorf("snapshot is %+v, status %+v", shot, s.Status())
	}
	if _, err := os.Stat(first.Path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old one: %v", err)
	}
}
