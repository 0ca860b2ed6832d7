package backup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// When somebody has made a database where a copy was to be put, its log stays.
func TestUndoReplacesNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(path+"-wal", "an orphan")
	write(path+"-shm", "of the orphan")
	var aside renames
	if err := aside.moveBeside(path, path+".before"); err != nil {
		t.Fatal(err)
	}
	write(path+"-wal", "commits")
	if err := aside.undo(); !errors.Is(err, fs.ErrExist) {
		t.Errorf("error %v", err)
	}
	for name, want := range map[string]string{"-wal": "commits", "-shm": "of the orphan", ".before-wal": "an orphan"} {
		if text, err := os.ReadFile(path + name); err != nil || string(text) != want {
			t.Errorf("app.db%s: %q, %v", name, text, err)
		}
	}
}
