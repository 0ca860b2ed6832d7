//go:build unix

package backup_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
)

// Who is started by mistake with the directory of a database that is replicated changes nothing
// there: a restore still knows whose state it is.
func TestStartWithDirOfOther(t *testing.T) {
	t.Parallel()
	l := newLive(t)
	l.cfg.Dir = filepath.Join(t.TempDir(), "state")
	r := l.start()
	if err := r.WaitReplicated(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := newLive(t)
	other.cfg.Dir, other.cfg.FinalSync = l.cfg.Dir, time.Second
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := other.new().Start(ctx, other.path, "", nil); err == nil {
		t.Fatal("started in the directory of another database")
	}
	if err := errors.Join(r.Close(), l.db.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.new().Restore(t.Context(), l.path, backup.RestoreOptions{Replace: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(l.cfg.Dir, "litestream")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the state of the database that was replaced is taken for that of the new one: %v", err)
	}
	if err := os.Remove(l.path); err != nil {
		t.Fatal(err)
	}
	if restored, err := l.new().RestoreIfMissing(t.Context(), l.path, nil); err != nil || !restored {
		t.Errorf("restored: %t, %v", restored, err)
	}
}
