//go:build unix

package seal_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/bedplate/bedplate/internal/seal"
)

func TestJ7_LoadFileModes(t *testing.T) {
	t.Parallel()
	path := write(t, line(secret(1)))
	for mode := range os.FileMode(0o1000) {
		if mode&0o400 == 0 {
			continue // the owner cannot read it, unless that is root
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		k, err := seal.LoadFile(path)
		if mode == 0o600 || mode == 0o400 {
			if err != nil {
				t.Errorf("mode %#o: %v", mode, err)
			}
			continue
		}
		wantRefusal(t, k, err, path, fmt.Sprintf("mode is %#o, must be 0600 or narrower", mode))
	}
}

func TestJ7_LoadFileKinds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	if err := os.WriteFile(good, []byte(line(secret(1))), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		create func(path string) error
		reason string
	}{
		"link":      {func(path string) error { return os.Symlink(good, path) }, "is a symbolic link"},
		"dangling":  {func(path string) error { return os.Symlink(filepath.Join(dir, "none"), path) }, "is a symbolic link"},
		"directory": {func(path string) error { return os.Mkdir(path, 0o600) }, "not a regular file"},
		"pipe":      {func(path string) error { return syscall.Mkfifo(path, 0o600) }, "not a regular file"},
		"socket": {func(path string) error {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
			if err == nil {
				l.SetUnlinkOnClose(false)
				err = l.Close()
			}
			return err
		}, ""},
	} {
		path := filepath.Join(dir, name)
		if err := test.create(path); err != nil {
			t.Fatal(err)
		}
		k, err := seal.LoadFile(path)
		wantRefusal(t, k, err, path, test.reason)

		if _, err := seal.CreateFile(path); !errors.Is(err, fs.ErrExist) {
			t.Errorf("CreateFile over a %s: %v, want fs.ErrExist", name, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("CreateFile has followed a link: %v", err)
	}

	k, err := seal.LoadFile("/dev/zero")
	wantRefusal(t, k, err, "/dev/zero", "not a regular file")
}

func TestJ7_LoadFileOwner(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	path := write(t, line(secret(1)))
	if err := os.Chown(path, 4711, -1); err != nil {
		t.Skipf("giving the file away: %v", err)
	}
	k, err := seal.LoadFile(path)
	wantRefusal(t, k, err, path, "belongs to user id 4711, this process runs as 0")
}

// The umask belongs to the process, so a child tries them.
func TestJ7_CreateFileUmask(t *testing.T) {
	t.Parallel()
	if path := os.Getenv("SEAL_TEST_CREATE"); path != "" {
		for _, umask := range []int{0, 0o022, 0o077, 0o277, 0o777} {
			syscall.Umask(umask)
			name := fmt.Sprintf("%s.%03o", path, umask)
			if _, err := seal.CreateFile(name); err != nil {
				t.Error(err)
				continue
			}
			info, err := os.Stat(name)
			if err != nil || info.Mode() != 0o600 {
				t.Errorf("umask %03o: mode %v, %v; want 0600", umask, info.Mode(), err)
			}
		}
		return
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestJ7_CreateFileUmask$", "-test.v")
	child.Env = append(os.Environ(), "SEAL_TEST_CREATE="+filepath.Join(t.TempDir(), "master.key"))
	if out, err := child.CombinedOutput(); err != nil {
		t.Errorf("child: %v\n%s", err, out)
	}
}
