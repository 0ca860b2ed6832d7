package records_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

func (f *fileService) sweep(removed int) {
	f.t.Helper()
	if n, err := f.svc.SweepFiles(context.Background()); n != removed || err != nil {
		f.t.Errorf("sweep: %d files removed, %v, want %d", n, err, removed)
	}
}

// strand stores a file of which nobody knows, as a crash does.
func (f *fileService) strand(id, content string) {
	f.t.Helper()
	if err := f.store.Put(context.Background(), id, strings.NewReader(content), int64(len(content))); err != nil {
		f.t.Fatal(err)
	}
}

// A sweep deletes what a crash has left, after a while, and nothing else.
func TestSweepFiles(t *testing.T) {
	t.Parallel()
	f := newFileService(t, fileSchema, records.FilesConfig{Grace: time.Hour})
	f.sweep(0)
	path := f.create(`{"one":` + fileJSON("a", "", "A") + `,"_secret":` + fileJSON("b", "", "B") + `}`)
	f.strand("stranded", "S")
	f.store.clock.advance(time.Hour)
	f.sweep(0)
	f.strand("young", "Y")
	f.store.clock.advance(time.Second)
	f.sweep(1)
	if got := f.store.contents(); got != "A B Y" {
		t.Errorf("stored: %s", got)
	}
	f.store.clock.advance(time.Hour)
	f.sweep(1)
	f.wantStored("A", "B")
	// Rows that went without triggers, and with them but without a request.
	execSQL(t, f.db, `INSERT OR REPLACE INTO doc (id, title) VALUES (1, 'replaced')`)
	checked := one(t, f.db, `SELECT count(*) FROM _file WHERE refs > 0`)
	if checked != "2" {
		t.Fatalf("REPLACE has told of %s files", checked)
	}
	f.sweep(2)
	f.wantStored()
	want(t, call(f, "", "PATCH", path, `{"one":`+fileJSON("c", "", "C")+`}`), 200, "")
	execSQL(t, f.db, `UPDATE doc SET one = NULL`)
	f.sweep(1)
	f.wantStored()
	// More than are looked up at once.
	for i := range 1201 {
		f.strand(fmt.Sprintf("many-%d", i), "M")
	}
	f.create(`{"one":` + fileJSON("a", "", "A") + `}`)
	f.store.clock.advance(2 * time.Hour)
	f.sweep(1201)
	f.wantStored("A")
}

// Nothing is swept that cannot be looked up.
func TestSweepWithoutDatabase(t *testing.T) {
	t.Parallel()
	f := newFileService(t, fileSchema, records.FilesConfig{})
	f.create(`{"one":` + fileJSON("a", "", "A") + `}`)
	f.strand("stranded", "S")
	f.store.clock.advance(2 * time.Hour)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if n, err := f.svc.SweepFiles(ctx); n != 0 || err == nil {
		t.Errorf("sweep with an ended context: %d, %v", n, err)
	}
	execSQL(t, f.db, `DROP TABLE _file`)
	if n, err := f.svc.SweepFiles(context.Background()); n != 1 || err != nil { // it is made anew
		t.Errorf("sweep without a registry: %d, %v", n, err)
	}
	if got := f.store.contents(); got != "A" {
		t.Errorf("stored: %s", got)
	}
	if err := f.db.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := f.svc.SweepFiles(context.Background()); n != 0 || err == nil {
		t.Errorf("sweep of a closed database: %d, %v", n, err)
	}
	if got := f.store.contents(); got != "A" {
		t.Errorf("stored: %s", got)
	}
	if n, err := mustNew(t, openDB(t, fileSchema)).SweepFiles(context.Background()); n != 0 || err != nil {
		t.Errorf("sweep without files: %d, %v", n, err)
	}
}

func mustNew(t testing.TB, db *sqlite.DB) *records.Service {
	t.Helper()
	svc, err := records.New(db, records.Config{Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	return svc
}

// Sweeps while files come and go delete none that a row refers to, and leave
// none that no row refers to. The store is a real one.
func TestSweepWhileUploading(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store, err := records.OpenDir(filepath.Join(dir, "files"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	db := openFile(t, filepath.Join(dir, "test.db"), fileSchema, sqlite.Options{})
	clock := &fileClock{now: time.Now()}
	svc, err := records.New(db, records.Config{
		APIs: []records.API{{Name: "doc", Table: "doc", World: everything}}, Logger: quiet(), Now: clock.Now,
		Files: &records.FilesConfig{Store: store, Grace: time.Hour},
	})
	if err != nil {
		t.Fatal(err)
	}
	const workers, rounds = 4, 40
	var done atomic.Bool
	var sweeps, wg sync.WaitGroup
	sweeps.Go(func() {
		for !done.Load() {
			if _, err := svc.SweepFiles(context.Background()); err != nil {
				t.Errorf("sweep: %v", err)
			}
		}
	})
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				r := call(svc, "", "POST", "/doc", `{"one":`+fileJSON("a", "", fmt.Sprint(w, i))+`,"many":[`+fileJSON("b", "", "B")+`]}`)
				if r.status != 200 {
					t.Errorf("create: %v", r)
					return
				}
				path := "/doc/" + idsOf(t, r)[0]
				switch i % 3 {
				case 0:
					want(t, call(svc, "", "DELETE", path, ""), 200, "deleted")
				case 1:
					want(t, call(svc, "", "PATCH", path, `{"many":[]}`), 200, "")
					fallthrough
				default:
					want(t, get(svc, "", path+"/file/one"), 200, fmt.Sprint(w, i))
				}
			}
		})
	}
	wg.Wait()
	done.Store(true)
	sweeps.Wait()
	checkCounts(t, db, "doc.one", "doc.many")
	stored := 0
	err = store.List(context.Background(), func(id string, _ int64, _ time.Time) error {
		if one(t, db, `SELECT count(*) FROM _file WHERE id = ?1`, id) != "1" {
			t.Errorf("file %s is in no registry", id)
		}
		stored++
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if got := one(t, db, `SELECT count(*) FROM _file`); got != fmt.Sprint(stored) {
		t.Errorf("%s files are registered, %d stored", got, stored)
	}
	clock.advance(2 * time.Hour)
	if n, err := svc.SweepFiles(context.Background()); n != 0 || err != nil {
		t.Errorf("after all: %d, %v", n, err)
	}
}
