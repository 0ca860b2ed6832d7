package backup_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
)

// A result from the future, by a clock that was wrong, is not waited for.
func TestDrillClockSetBack(t *testing.T) {
	t.Parallel()
	for _, failure := range []string{"", "the copy is not equal to the database"} {
		b := newDrillBench(t)
		b.cfg.DrillInterval = time.Second
		future := backup.DrillResult{At: time.Now().Add(365 * 24 * time.Hour), Error: failure}
		text, err := json.Marshal(future)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(filepath.Dir(b.scratch()), "drill.json")
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, text, 0o600)); err != nil {
			t.Fatal(err)
		}
		r := b.start(t)
		drillUntil(t, "another drill", func() bool { return r.Status().Drill != nil && r.Status().Drill.At.Before(future.At) })
	}
}
