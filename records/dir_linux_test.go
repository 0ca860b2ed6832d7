package records_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"syscall"
	"testing"
)

func TestDirFull(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, "mode=0700,size=1m"); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(path, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	d := openStoreDir(t, filepath.Join(path, "files"))
	putFile(t, d, "small", pattern(1000))
	for range 3 {
		if err := d.Put(t.Context(), "large", bytes.NewReader(pattern(2<<20)), 2<<20); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%v, want ENOSPC", err)
		}
	}
	wantSizes(t, d, map[string]int64{"small": 1000})
	putFile(t, d, "half", pattern(500<<10)) // what failed takes no room
	wantFile(t, d, "half", pattern(500<<10))
}

// A pipe in the place of a file does not hold up who opens it.
func TestDirPipe(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	d := openStoreDir(t, path)
	putFile(t, d, "idx", nil)
	if err := syscall.Mkfifo(filepath.Join(path, "id", "id"), 0o600); err != nil {
		t.Fatal(err)
	}
	if f, err := d.Open(t.Context(), "id"); err == nil {
		t.Error("opened a pipe")
		_ = f.Close()
	}
	wantSizes(t, d, map[string]int64{"idx": 0})
}
