package backup_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
	"github.com/bedplate/bedplate/sqlite"
)

// A shotClock is a clock that is set by hand.
type shotClock struct {
	mu  sync.Mutex
	now time.Time
}

func newShotClock() *shotClock {
	return &shotClock{now: time.Date(2026, 11, 21, 21, 30, 0, 0, time.UTC)}
}

func (c *shotClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *shotClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// shotAlarms are the alarms that were told.
type shotAlarms struct {
	mu  sync.Mutex
	all []backup.Alarm
}

func (a *shotAlarms) tell(alarm backup.Alarm) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, alarm)
}

func (a *shotAlarms) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var texts []string
	for _, alarm := range a.all {
		text := alarm.Text
		if alarm.Over {
			text = "over"
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, "\n")
}

// newShots makes Snapshots of a small database. change may change the configuration.
func newShots(t *testing.T, change func(*backup.SnapshotsConfig)) *backup.Snapshots {
	t.Helper()
	cfg := backup.SnapshotsConfig{
		Dir: filepath.Join(t.TempDir(), "shots"), Name: "app", Take: shotCopy(t),
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	if change != nil {
		change(&cfg)
	}
	s, err := backup.NewSnapshots(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// shotCopy returns a Take that copies a small database of its own, with a table and an index.
func shotCopy(t *testing.T) func(context.Context, string) error {
	t.Helper()
	content := shotDatabase(t)
	return func(_ context.Context, path string) error { return os.WriteFile(path, content, 0o644) }
}

// shotDatabase returns the content of a small database.
func shotDatabase(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "source.db")
	makeDatabase(t, path, 500, "CREATE INDEX t_text ON t (text)")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func takeShot(t *testing.T, s *backup.Snapshots) backup.Snapshot {
	t.Helper()
	shot, err := s.Now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return shot
}

// shotNames returns the names of the snapshots, newest first, without what they have in common.
func shotNames(t *testing.T, s *backup.Snapshots) []string {
	t.Helper()
	list, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, shot := range list {
		names = append(names, strings.TrimSuffix(strings.TrimPrefix(filepath.Base(shot.Path), "app-"), ".db"))
	}
	return names
}

// dirNames returns what is in a directory.
func dirNames(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func wantNames(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got\n\t%s\nwant\n\t%s", what, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func TestSnapshotIsWhole(t *testing.T) {
	t.Parallel()
	takers := map[string]func(t *testing.T, path string) func(context.Context, string) error{
		"sqlite.DB.Snapshot": func(t *testing.T, path string) func(context.Context, string) error {
			db, err := sqlite.Open(t.Context(), path, sqlite.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = db.Close() })
			return func(ctx context.Context, to string) error { return db.Snapshot(ctx, "main", to) }
		},
		"VacuumInto": func(t *testing.T, path string) func(context.Context, string) error {
			return backup.VacuumInto(openDatabase(t, path))
		},
	}
	for name, taker := range takers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source := filepath.Join(t.TempDir(), "source.db")
			makeDatabase(t, source, 1000, "CREATE TABLE u (id BLOB CHECK (is_uuid_v7(id)))", "INSERT INTO u VALUES (uuid_v7())")
			clock := newShotClock()
			dir := filepath.Join(t.TempDir(), "a dir? 100%#")
			s := newShots(t, func(c *backup.SnapshotsConfig) {
				c.Dir, c.Take, c.Now = dir, taker(t, source), clock.Now
			})
			shot := takeShot(t, s)

			wantNames(t, "directory", dirNames(t, dir), ".app.lock", "app-20261121T213000Z.db", "app-20261121T213000Z.db.sha256")
			for name, want := range map[string]fs.FileMode{
				".": 0o700 | fs.ModeDir, ".app.lock": 0o600,
				"app-20261121T213000Z.db": 0o600, "app-20261121T213000Z.db.sha256": 0o600,
			} {
				if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != want {
					t.Errorf("mode of %s is %v, want %v (%v)", name, info.Mode(), want, err)
				}
			}
			info, err := os.Stat(shot.Path)
			if err != nil {
				t.Fatal(err)
			}
			if shot.Path != filepath.Join(dir, "app-20261121T213000Z.db") || !shot.Time.Equal(clock.Now()) || shot.Bytes != info.Size() {
				t.Errorf("snapshot is %+v, of %d bytes", shot, info.Size())
			}
			list, err := s.List(t.Context())
			if err != nil || !slices.Equal(list, []backup.Snapshot{shot}) {
				t.Errorf("list is %+v, %v; want %+v", list, err, shot)
			}
			if err := s.Verify(t.Context(), shot); err != nil {
				t.Error(err)
			}
			wantNames(t, "directory after Verify", dirNames(t, dir), ".app.lock", "app-20261121T213000Z.db", "app-20261121T213000Z.db.sha256")
			status := s.Status()
			clock.add(time.Hour)
			if status := s.Status(); status.Newest == nil || *status.Newest != shot || status.Age != time.Hour {
				t.Errorf("status is %+v", status)
			}
			if !status.Succeeded.Equal(shot.Time) || status.Took <= 0 || status.Error != "" || status.Alarm != nil {
				t.Errorf("status is %+v", status)
			}
			copied := filepath.Join(t.TempDir(), "copied.db")
			content, err := os.ReadFile(shot.Path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(copied, content, 0o600); err != nil {
				t.Fatal(err)
			}
			if n := countRows(t, copied); n != 1000 {
				t.Errorf("the snapshot has %d rows", n)
			}
		})
	}
}

func TestSnapshotSha256sum(t *testing.T) {
	t.Parallel()
	tool, err := exec.LookPath("sha256sum")
	if err != nil {
		t.Skip(err)
	}
	s := newShots(t, nil)
	shot := takeShot(t, s)
	check := func() error {
		cmd := exec.Command(tool, "--strict", "-c", filepath.Base(shot.Path)+".sha256")
		cmd.Dir = filepath.Dir(shot.Path)
		return cmd.Run()
	}
	if err := check(); err != nil {
		t.Error(err)
	}
	flipByte(t, shot.Path, shot.Bytes/2)
	if err := check(); err == nil {
		t.Error("sha256sum has not seen the damage")
	}
}

func flipByte(t *testing.T, path string, at int64) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content[at] ^= 0x10
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestSnapshotVerifyFindsDamage(t *testing.T) {
	t.Parallel()
	rewrite := func(path, text string) error { return os.WriteFile(path, []byte(text), 0o600) }
	for name, test := range map[string]struct {
		damage func(shot *backup.Snapshot) error
		want   error
	}{
		"truncated": {func(shot *backup.Snapshot) error { return os.Truncate(shot.Path, shot.Bytes-1) }, backup.ErrCorrupt},
		"longer":    {func(shot *backup.Snapshot) error { return os.Truncate(shot.Path, shot.Bytes+4096) }, backup.ErrCorrupt},
		"no checksum": {func(shot *backup.Snapshot) error {
			shot.SHA256 = ""
			return os.Remove(shot.Path + ".sha256")
		}, backup.ErrCorrupt},
		"empty checksum": {func(shot *backup.Snapshot) error { return rewrite(shot.Path+".sha256", "") }, backup.ErrCorrupt},
		"checksum of another file": {func(shot *backup.Snapshot) error {
			return rewrite(shot.Path+".sha256", shot.SHA256+"  other.db\n")
		}, backup.ErrCorrupt},
		"checksum with another line": {func(shot *backup.Snapshot) error {
			return rewrite(shot.Path+".sha256", shot.SHA256+"  "+filepath.Base(shot.Path)+"\nmore\n")
		}, backup.ErrCorrupt},
		"another checksum was known": {func(shot *backup.Snapshot) error {
			shot.SHA256 = strings.Repeat("0", 64)
			return nil
		}, backup.ErrCorrupt},
		"no database, with its checksum": {func(shot *backup.Snapshot) error {
			// of "hello\n"
			shot.SHA256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
			return errors.Join(rewrite(shot.Path, "hello\n"), rewrite(shot.Path+".sha256", shot.SHA256+"  "+filepath.Base(shot.Path)+"\n"))
		}, backup.ErrCorrupt},
		"gone": {func(shot *backup.Snapshot) error { return os.Remove(shot.Path) }, fs.ErrNotExist},
		"symbolic link": {func(shot *backup.Snapshot) error {
			elsewhere := shot.Path + "-moved"
			return errors.Join(os.Rename(shot.Path, elsewhere), os.Symlink(filepath.Base(elsewhere), shot.Path))
		}, nil},
		"elsewhere": {func(shot *backup.Snapshot) error {
			shot.Path = filepath.Join(filepath.Dir(shot.Path), "..", filepath.Base(shot.Path))
			return nil
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShots(t, nil)
			shot := takeShot(t, s)
			if err := test.damage(&shot); err != nil {
				t.Fatal(err)
			}
			err := s.Verify(t.Context(), shot)
			if err == nil || test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("error is %v, want %v", err, test.want)
			}
		})
	}
	t.Run("each byte", func(t *testing.T) {
		t.Parallel()
		s := newShots(t, nil)
		shot := takeShot(t, s)
		for at := int64(0); at < shot.Bytes; at += shot.Bytes / 20 {
			flipByte(t, shot.Path, at)
			if err := s.Verify(t.Context(), shot); !errors.Is(err, backup.ErrCorrupt) {
				t.Errorf("byte %d: error is %v", at, err)
			}
			flipByte(t, shot.Path, at)
		}
		if err := s.Verify(t.Context(), shot); err != nil {
			t.Error(err)
		}
	})
}

// What is not whole or not sound gets no name, and nothing is deleted for it.
func TestSnapshotFails(t *testing.T) {
	t.Parallel()
	good := shotDatabase(t)
	corrupt := bytes.Clone(good)
	for i := len(corrupt) / 2; i < len(corrupt)/2+2000; i++ {
		corrupt[i] ^= 0xff
	}
	errOwn := errors.New("own error")
	for name, test := range map[string]struct {
		take func(ctx context.Context, path string) error
		want error
		text string
	}{
		"error": {func(_ context.Context, path string) error {
			return errors.Join(os.WriteFile(path, good[:4096], 0o600), os.WriteFile(path+".1.part", good, 0o600), errOwn)
		}, errOwn, "own error"},
		"nothing":       {func(context.Context, string) error { return nil }, nil, "no copy"},
		"empty":         {func(_ context.Context, path string) error { return os.WriteFile(path, nil, 0o600) }, nil, "empty copy"},
		"no database":   {func(_ context.Context, path string) error { return os.WriteFile(path, []byte("hello\n"), 0o600) }, backup.ErrCorrupt, ""},
		"truncated":     {func(_ context.Context, path string) error { return os.WriteFile(path, good[:len(good)/2], 0o600) }, backup.ErrCorrupt, ""},
		"corrupt":       {func(_ context.Context, path string) error { return os.WriteFile(path, corrupt, 0o600) }, backup.ErrCorrupt, ""},
		"directory":     {func(_ context.Context, path string) error { return os.Mkdir(path, 0o700) }, nil, "not a regular file"},
		"symbolic link": {func(_ context.Context, path string) error { return os.Symlink("/etc/passwd", path) }, nil, "not a regular file"},
		"with a log": {func(_ context.Context, path string) error {
			return errors.Join(os.WriteFile(path, good, 0o600), os.WriteFile(path+"-wal", []byte("x"), 0o600))
		}, nil, "not whole without the -wal"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock, alarms := newShotClock(), &shotAlarms{}
			take := shotCopy(t)
			s := newShots(t, func(c *backup.SnapshotsConfig) {
				c.Now, c.OnAlarm, c.KeepLast, c.KeepDaily, c.KeepWeekly = clock.Now, alarms.tell, 1, -1, -1
				c.Take = func(ctx context.Context, path string) error { return take(ctx, path) }
			})
			first := takeShot(t, s)
			sound := take
			take = test.take
			clock.add(time.Hour)
			shot, err := s.Now(t.Context())
			if err == nil || test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("error is %v, want %v %s", err, test.want, test.text)
			}
			if shot != (backup.Snapshot{}) {
				t.Errorf("snapshot is %+v", shot)
			}
			wantNames(t, "directory", dirNames(t, filepath.Dir(first.Path)), ".app.lock", "app-20261121T213000Z.db", "app-20261121T213000Z.db.sha256")
			status := s.Status()
			if status.Error == "" || status.Alarm == nil || !status.Failed.Equal(clock.Now()) || *status.Newest != first || status.Age != time.Hour {
				t.Errorf("status is %+v", status)
			}
			take = sound
			takeShot(t, s)
			if status := s.Status(); status.Error != "" || status.Alarm != nil {
				t.Errorf("status is %+v", status)
			}
			if got := alarms.String(); !strings.HasPrefix(got, "the last snapshot failed: ") || !strings.HasSuffix(got, "\nover") {
				t.Errorf("alarms are %q", got)
			}
			wantNames(t, "names", shotNames(t, s), "20261121T223000Z")
		})
	}
}

func TestSnapshotDirOpenToOthers(t *testing.T) {
	t.Parallel()
	for _, mode := range []fs.FileMode{0o770, 0o777, 0o702, 0o777 | fs.ModeSticky} {
		var dir string
		s := newShots(t, func(c *backup.SnapshotsConfig) { dir = c.Dir })
		if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, mode)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Now(t.Context()); err == nil || !strings.Contains(err.Error(), "others may write") {
			t.Errorf("mode %v: error is %v", mode, err)
		}
		wantNames(t, "directory", dirNames(t, dir))
	}
}

func TestNewSnapshotsMistakes(t *testing.T) {
	t.Parallel()
	_, err := backup.NewSnapshots(backup.SnapshotsConfig{
		Name: "../app", Driver: "nosuchdriver", Interval: time.Millisecond, Timeout: -1, KeepLast: -1, MaxBytes: -1,
	})
	if err == nil {
		t.Fatal("no error")
	}
	fields := regexp.MustCompile(`(?m)^backup: snapshots: (\w+)`).FindAllStringSubmatch(err.Error(), -1)
	var got []string
	for _, match := range fields {
		got = append(got, match[1])
	}
	wantNames(t, "mistakes", got, "Dir", "Take", "Name", "Driver", "Interval", "Timeout", "KeepLast", "MaxBytes")

	for _, name := range []string{"-app", ".app", "a/b", "a b", "a\nb", "ä", "a\\b", strings.Repeat("a", 101)} {
		cfg := backup.SnapshotsConfig{Dir: t.TempDir(), Name: name, Take: backup.VacuumInto(new(sql.DB))}
		if _, err := backup.NewSnapshots(cfg); err == nil {
			t.Errorf("name %q: no error", name)
		}
	}
}
