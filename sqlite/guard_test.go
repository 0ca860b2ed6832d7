package sqlite

import (
	"os"
	"strings"
	"testing"
)

func TestCheckVersionNumber(t *testing.T) {
	t.Parallel()
	if err := checkVersion(); err != nil {
		t.Error(err)
	}
	for number, good := range map[int]bool{3_051_003: true, 3_051_004: true, 3_053_000: true, 4_000_000: true, 3_051_002: false, 3_050_004: false, 0: false} {
		err := checkVersionNumber("3.x", number)
		if (err == nil) != good {
			t.Errorf("%d: %v", number, err)
		}
		if err != nil && !strings.Contains(err.Error(), "3.x") {
			t.Errorf("%d: %v does not name the version", number, err)
		}
	}
}

func TestIsOpen(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Skip("no /proc/self/fd")
	}
	path := t.TempDir() + "/file"
	look := func(p string, want bool) {
		t.Helper()
		if open, err := isOpen(p); err != nil || open != want {
			t.Errorf("isOpen(%s) = %v, %v", p, open, err)
		}
	}
	look(path, false)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	look(path, false)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	look(path, true)
	link := path + "-link"
	if err := os.Link(path, link); err != nil {
		t.Fatal(err)
	}
	look(link, true) // the same file by another name
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	look(path, false)
	if err := checkSecondLibrary(path); err != nil { // none is linked into this test
		t.Error(err)
	}
}
