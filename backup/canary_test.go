package backup_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
)

// What was written is proven to be in the replica, without anybody asking for it.
func TestCanary(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	makeDatabase(t, path, 1)
	db := openDatabase(t, path)
	r, err := backup.New(backup.Config{URL: "file://" + filepath.Join(t.TempDir(), "replica"), DrillInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Start(t.Context(), path, "", nil); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for i := range 2 { // the second canary proves that there are more than one
		written := time.Now()
		if _, err := db.ExecContext(t.Context(), "INSERT INTO t (text) VALUES ('x')"); err != nil {
			t.Fatal(err)
		}
		for !r.Status().Proven.After(written) || r.Status().Lag > 0 {
			if time.Since(written) > patience {
				t.Fatalf("write %d is not proven: %+v", i+1, r.Status())
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	if s := r.Status(); s.State != backup.Replicating || s.ReplicaTXID == 0 || s.Alarm != nil {
		t.Errorf("status %+v", s)
	}
}
