package backup_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
)

// A restore that fails at its last step leaves everything where it was, also what the replicator
// knows: it is what tells that another machine has written to the replica since.
func TestRestoreUndone(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]bool{"a database": false, "a broken one": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			from, path := filepath.Join(t.TempDir(), "copy.db"), filepath.Join(dir, "app.db")
			makeDatabase(t, from, 3)
			if broken {
				makeFile(t, path, "garbage")
			} else {
				makeDatabase(t, path, 2)
			}
			state := filepath.Join(path+"-replica", "litestream")
			if err := os.MkdirAll(state, 0o700); err != nil {
				t.Fatal(err)
			}
			now := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
			makeFile(t, path+".before-20261121T090000.000Z", "in the way")
			before := names(t, dir)
			cfg := backup.Config{Now: func() time.Time { return now }}
			_, err := backup.RestoreFile(t.Context(), cfg, from, path, backup.RestoreOptions{Replace: true, Force: broken})
			if err == nil {
				t.Fatal("what was kept before is lost")
			}
			if after := names(t, dir); after != before {
				t.Errorf("there is %s, before it was %s", after, before)
			}
			if _, err := os.Stat(state); err != nil {
				t.Errorf("the state of the replicator: %v", err)
			}
		})
	}
}
