package backup_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
)

func TestSnapshotRetention(t *testing.T) {
	t.Parallel()
	clock := newShotClock()
	s := newShots(t, func(c *backup.SnapshotsConfig) { c.Now, c.KeepLast = clock.Now, 2 })
	for range 100 * 3 { // each eight hours for 100 days
		clock.add(8 * time.Hour)
		shot := takeShot(t, s)
		if names := shotNames(t, s); len(names) > 2+7+4 || "app-"+names[0]+".db" != filepath.Base(shot.Path) {
			t.Fatalf("after %s there are %s", shot.Path, names)
		}
	}
	wantNames(t, "names", shotNames(t, s),
		"20270301T213000Z", // Monday: last, first of its day and week
		"20270301T133000Z", // the one before
		"20270228T213000Z", // of Sunday, and of last week
		"20270227T213000Z",
		"20270226T213000Z",
		"20270225T213000Z",
		"20270224T213000Z",
		"20270223T213000Z",
		"20270221T213000Z", // of the weeks before
		"20270214T213000Z",
	)
	list, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, shot := range list {
		if err := s.Verify(t.Context(), shot); err != nil {
			t.Error(err)
		}
	}
}

func TestSnapshotRetentionOfBytes(t *testing.T) {
	t.Parallel()
	clock := newShotClock()
	take := shotCopy(t)
	size := int64(len(shotDatabase(t)))
	for max, want := range map[int64]int{1: 1, size: 1, 2*size - 1: 1, 2 * size: 2, 5*size + 1: 5, 100 * size: 8} {
		s := newShots(t, func(c *backup.SnapshotsConfig) {
			c.Now, c.Take, c.KeepLast, c.MaxBytes = clock.Now, take, 8, max
		})
		for range 10 {
			clock.add(time.Second)
			takeShot(t, s)
		}
		if names := shotNames(t, s); len(names) != want || names[0] != clock.Now().Format("20060102T150405Z") {
			t.Errorf("MaxBytes %d keeps %s, want %d", max, names, want)
		}
	}
}

// Only what was made here is deleted.
func TestSnapshotRetentionSparesOthers(t *testing.T) {
	t.Parallel()
	clock := newShotClock()
	var dir string
	change := func(c *backup.SnapshotsConfig) {
		c.Now, c.KeepLast, c.KeepDaily, c.KeepWeekly = clock.Now, 1, -1, -1
		if dir != "" {
			c.Dir = dir
		}
		dir = c.Dir
	}
	s := newShots(t, change)
	first := takeShot(t, s)
	other := newShots(t, func(c *backup.SnapshotsConfig) { change(c); c.Name = "app-2" })
	takeShot(t, other)
	target := filepath.Join(t.TempDir(), "target")
	content, err := os.ReadFile(first.Path)
	if err != nil {
		t.Fatal(err)
	}
	makeFile(t, target, "precious")
	for _, name := range []string{
		"app.db", "app-old.db", "app-20261121T213000Z", "app-20261121T213000Z_1.db", "app-20261321T213000Z.db",
		"app-20250101T000000Z.db.bak", "xapp-20250101T000000Z.db", "app-20250101T000000Z.dbx",
		"app-20250101T000000Z.db", // without a checksum
	} {
		makeFile(t, filepath.Join(dir, name), string(content))
		if name != "app-20250101T000000Z.db" {
			makeFile(t, filepath.Join(dir, name+".sha256"), first.SHA256+"  "+name+"\n")
		}
	}
	makeFile(t, filepath.Join(dir, "app-20250102T000000Z.db"), string(content)) // with that of another
	makeFile(t, filepath.Join(dir, "app-20250102T000000Z.db.sha256"), first.SHA256+"  "+filepath.Base(first.Path)+"\n")
	if err := errors.Join(
		os.Symlink(target, filepath.Join(dir, "app-20250103T000000Z.db")),
		os.Mkdir(filepath.Join(dir, "app-20250104T000000Z.db"), 0o700),
		os.Symlink(filepath.Dir(target), filepath.Join(dir, ".app.partial")),
		os.Symlink(target, filepath.Join(dir, "app-20250105T000000Z.db.sha256")),
	); err != nil {
		t.Fatal(err)
	}
	before := dirNames(t, dir)
	clock.add(time.Hour)
	takeShot(t, s)
	want := []string{"app-20261121T223000Z.db", "app-20261121T223000Z.db.sha256"}
	for _, name := range before {
		if !strings.HasPrefix(name, "app-20261121T213000Z.db") && name != ".app.partial" {
			want = append(want, name)
		}
	}
	slices.Sort(want)
	wantNames(t, "directory", dirNames(t, dir), want...)
	if content, err := os.ReadFile(target); err != nil || string(content) != "precious" {
		t.Errorf("the target of a symbolic link is %q, %v", content, err)
	}
	wantNames(t, "names", shotNames(t, s), "20261121T223000Z", "20250102T000000Z", "20250101T000000Z")
}

func TestSnapshotClockSetWrong(t *testing.T) {
	t.Parallel()
	clock := newShotClock()
	s := newShots(t, func(c *backup.SnapshotsConfig) { c.Now, c.KeepLast = clock.Now, 1 })
	takeShot(t, s)
	clock.add(10 * 365 * 24 * time.Hour)
	for range 20 {
		clock.add(24 * time.Hour)
		takeShot(t, s)
	}
	clock.add(-10*365*24*time.Hour - 20*24*time.Hour)
	for range 20 {
		clock.add(24 * time.Hour)
		takeShot(t, s)
	}
	var present, future []string
	for _, name := range shotNames(t, s) {
		if strings.HasPrefix(name, "2026") {
			present = append(present, name)
		} else {
			future = append(future, name)
		}
	}
	wantNames(t, "present", present,
		"20261211T213000Z", "20261210T213000Z", "20261209T213000Z", "20261208T213000Z", "20261207T213000Z",
		"20261206T213000Z", "20261205T213000Z", "20261129T213000Z", "20261122T213000Z")
	if len(future) < 7 || len(future) > 11 {
		t.Errorf("of the future there are %s", future)
	}
}
