package backup_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bedplate/bedplate/backup"
)

func TestSnapshotsOfOneSecond(t *testing.T) {
	t.Parallel()
	clock := newShotClock()
	dir := filepath.Join(t.TempDir(), "shots")
	change := func(c *backup.SnapshotsConfig) { c.Now, c.Dir, c.KeepLast = clock.Now, dir, 100 }
	both := []*backup.Snapshots{newShots(t, change), newShots(t, change)}
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			if _, err := both[i%2].Now(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var want []string
	for i := 11; i > 0; i-- {
		want = append(want, fmt.Sprintf("20261121T213000Z_%02d", i))
	}
	wantNames(t, "names", shotNames(t, both[0]), append(want, "20261121T213000Z")...)
}

func TestSnapshotSchedule(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // on 2000-01-01, a Saturday, at midnight
		clock := &shotClock{now: time.Now()}
		dir := filepath.Join(t.TempDir(), "shots")
		change := func(c *backup.SnapshotsConfig) { c.Now, c.Dir, c.Interval = clock.Now, dir, time.Hour }
		later := func(d time.Duration) {
			time.Sleep(d)
			clock.add(d)
			time.Sleep(2 * time.Second) // for a look at the clock
			synctest.Wait()
		}
		newest := func(s *backup.Snapshots, want string) {
			t.Helper()
			if status := s.Status(); status.Newest == nil || filepath.Base(status.Newest.Path) != "app-"+want+".db" {
				t.Errorf("newest is not %s: %+v", want, status)
			}
		}
		first := newShots(t, change)
		first.Start()
		first.Start()
		later(0)
		newest(first, "20000101T000000Z")

		// What an earlier process has left is removed, though none is due.
		makeFile(t, filepath.Join(dir, "app-19991231T000000Z.db.sha256"), "half a checksum")
		if err := os.Mkdir(filepath.Join(dir, ".app.partial"), 0o700); err != nil {
			t.Fatal(err)
		}
		makeFile(t, filepath.Join(dir, ".app.partial", "copy.db.1.part"), "half a copy")
		second := newShots(t, change)
		second.Start()
		later(0)
		newest(second, "20000101T000000Z")
		wantNames(t, "directory", dirNames(t, dir), ".app.lock", "app-20000101T000000Z.db", "app-20000101T000000Z.db.sha256")

		later(time.Hour - time.Second)
		newest(first, "20000101T000000Z")

		// Only one of them takes the next.
		later(time.Second)
		newest(first, "20000101T010000Z")
		newest(second, "20000101T010000Z")
		wantNames(t, "names", shotNames(t, first), "20000101T010000Z", "20000101T000000Z")

		// A clock that is set back a little changes nothing, one that is set back much does.
		clock.add(-30 * time.Second)
		later(0)
		if status := first.Status(); status.Age != 0 {
			t.Errorf("age is %v", status.Age)
		}
		newest(first, "20000101T010000Z")
		clock.add(-10 * time.Hour)
		later(0)
		newest(first, "19991231T145930Z")
		newest(second, "19991231T145930Z")
		wantNames(t, "names", shotNames(t, first), "20000101T010000Z", "20000101T000000Z", "19991231T145930Z")

		// After a long time there is one at once, not all that were missed.
		first.Close()
		second.Close()
		clock.add(10*time.Hour + 30*time.Second)
		later(100 * time.Hour)
		third := newShots(t, change)
		third.Start()
		later(0)
		later(10 * time.Minute)
		wantNames(t, "names", shotNames(t, third)[:2], "20000105T050000Z", "20000101T010000Z")
		for _, s := range []*backup.Snapshots{first, second, third} {
			if status := s.Status(); status.Alarm != nil || status.Error != "" {
				t.Errorf("status is %+v", status)
			}
		}
	})
}

// After an error it is tried again, but not at once.
func TestSnapshotScheduleAfterErrors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		alarms := &shotAlarms{}
		parent := filepath.Join(t.TempDir(), "disk") // which is not mounted
		s := newShots(t, func(c *backup.SnapshotsConfig) {
			c.Dir, c.OnAlarm = filepath.Join(parent, "shots"), alarms.tell
		})
		began := time.Now()
		s.Start()
		failed := func(after time.Duration) {
			t.Helper()
			synctest.Wait()
			if status := s.Status(); status.Failed.Sub(began).Round(time.Minute) != after || status.Alarm == nil {
				t.Errorf("failed after %v; status is %+v", status.Failed.Sub(began), status)
			}
		}
		failed(0)
		if _, err := os.Stat(parent); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("what is to hold the directory was made: %v", err)
		}
		if _, err := s.List(t.Context()); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("list without a directory: %v", err)
		}
		if status := s.Status(); status.Newest != nil || !strings.Contains(status.Alarm.Text, "no such file") {
			t.Errorf("status is %+v", status)
		}
		time.Sleep(50 * time.Second)
		for _, after := range []time.Duration{0, 1, 3, 7, 15, 31, 63, 123, 183, 243} { // minutes
			time.Sleep(after*time.Minute + 50*time.Second - time.Since(began))
			failed(after * time.Minute)
		}
		if err := os.Mkdir(parent, 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if status := s.Status(); status.Succeeded.Sub(began).Round(time.Minute) != 303*time.Minute || status.Alarm != nil {
			t.Errorf("succeeded after %v; status is %+v", status.Succeeded.Sub(began), status)
		}
		if got := alarms.String(); strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, "\nover") {
			t.Errorf("alarms are %q", got)
		}
	})
}

func TestSnapshotEnds(t *testing.T) {
	t.Parallel()
	// hang waits for the end of the context, as a Take that is under way.
	hang := func(entered chan<- struct{}) func(context.Context, string) error {
		return func(ctx context.Context, path string) error {
			if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
				return err
			}
			entered <- struct{}{}
			<-ctx.Done()
			return errors.New("interrupted")
		}
	}
	for name, test := range map[string]struct {
		end   func(s *backup.Snapshots, cancel func())
		want  error
		alarm bool
	}{
		"context": {func(_ *backup.Snapshots, cancel func()) { cancel() }, context.Canceled, false},
		"Close":   {func(s *backup.Snapshots, _ func()) { s.Close() }, backup.ErrClosed, false},
		"timeout": {func(*backup.Snapshots, func()) {}, context.DeadlineExceeded, true},
	} {
		inBubble(t, name, func(t *testing.T) {
			entered := make(chan struct{}, 10)
			var dir string
			s := newShots(t, func(c *backup.SnapshotsConfig) {
				c.Take, dir = hang(entered), c.Dir
			})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			result := make(chan error, 1)
			go func() { _, err := s.Now(ctx); result <- err }()
			<-entered
			test.end(s, cancel)
			if err := <-result; !errors.Is(err, test.want) {
				t.Errorf("error is %v, want %v", err, test.want)
			}
			if alarm := s.Status().Alarm; (alarm != nil) != test.alarm {
				t.Errorf("alarm is %+v", alarm)
			}
			wantNames(t, "directory", dirNames(t, dir), ".app.lock")
		})
	}
	inBubble(t, "while waiting for another", func(t *testing.T) {
		entered := make(chan struct{}, 10)
		s := newShots(t, func(c *backup.SnapshotsConfig) { c.Take = hang(entered) })
		s.Start()
		<-entered
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := s.Now(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v", err)
		}
		s.Close()
		s.Close()
		s.Start()
		if _, err := s.Now(t.Context()); !errors.Is(err, backup.ErrClosed) {
			t.Errorf("error is %v", err)
		}
	})
	inBubble(t, "never", func(t *testing.T) {
		release := make(chan struct{})
		s := newShots(t, func(c *backup.SnapshotsConfig) {
			c.Take = func(context.Context, string) error { <-release; return nil }
		})
		t.Cleanup(func() { close(release) })
		s.Start()
		time.Sleep(time.Hour)
		synctest.Wait()
		if alarm := s.Status().Alarm; alarm != nil {
			t.Errorf("alarm is %+v", alarm)
		}
		time.Sleep(7 * time.Minute)
		synctest.Wait()
		if alarm := s.Status().Alarm; alarm == nil || !strings.Contains(alarm.Text, "does not come to an end") {
			t.Errorf("alarm is %+v", alarm)
		}
	})
}

// inBubble runs a parallel test with time of its own.
func inBubble(t *testing.T, name string, test func(t *testing.T)) {
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, test)
	})
}

// shotChildDir is the environment variable with the directory of TestSnapshotChild.
const shotChildDir = "BEDPLATE_TEST_SHOT_DIR"

// TestSnapshotChild is the process that TestSnapshotAfterKill kills.
func TestSnapshotChild(t *testing.T) {
	dir := os.Getenv(shotChildDir)
	if dir == "" {
		t.Skip("only runs in another process")
	}
	s := newShots(t, func(c *backup.SnapshotsConfig) {
		c.Dir = dir
		c.Take = func(_ context.Context, path string) error {
			if err := os.WriteFile(path, []byte("half a copy"), 0o600); err != nil {
				return err
			}
			fmt.Println("half")
			select {}
		}
	})
	takeShot(t, s)
}

// While a process takes a snapshot no other does. When it is killed the next one starts over.
func TestSnapshotAfterKill(t *testing.T) {
	t.Parallel()
	clock := newShotClock()
	var dir string
	s := newShots(t, func(c *backup.SnapshotsConfig) { dir, c.Now = c.Dir, clock.Now })
	child := exec.Command(os.Args[0], "-test.run=^TestSnapshotChild$", "-test.v")
	child.Env = append(os.Environ(), shotChildDir+"="+dir, "TMPDIR="+t.TempDir()) // it leaves its own behind
	output, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	kill := sync.OnceFunc(func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	})
	t.Cleanup(kill)
	lines := bufio.NewScanner(output)
	for lines.Scan() && lines.Text() != "half" {
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := s.Now(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "lock") {
		t.Errorf("error is %v", err)
	}
	wantNames(t, "directory", dirNames(t, dir), ".app.lock", ".app.partial")
	kill()
	takeShot(t, s)
	wantNames(t, "directory", dirNames(t, dir), ".app.lock", "app-20261121T213000Z.db", "app-20261121T213000Z.db.sha256")
}
