package sqlite_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

// The tests of this file run in child processes under testdata/syncshim.c,
// which counts the fsyncs of the write-ahead log or makes them fail.
var syncChildren = map[string]func(t *testing.T){
	"alone":     childAlone,
	"group":     childGroup,
	"no group":  childNoGroup,
	"normal":    childNormal,
	"failure":   childFailure,
	"lone fail": childLoneFailure,
}

func TestSync(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	shim := filepath.Join(dir, "syncshim.so")
	if out, err := osexec.Command("gcc", "-shared", "-fPIC", "-O1", "-o", shim, "testdata/syncshim.c", "-ldl").CombinedOutput(); err != nil {
		t.Skipf("no shim: %v\n%s", err, out)
	}
	for name := range syncChildren {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			count := filepath.Join(dir, "count")
			check(t, os.WriteFile(count, make([]byte, 8), 0o600))
			cmd := osexec.Command(os.Args[0], "-test.run=^TestSyncChild$", "-test.count=1", "-test.v")
			cmd.Env = append(os.Environ(), "LD_PRELOAD="+shim, "SQLITE_TEST_SYNC="+name,
				"SYNC_COUNT="+count, "SYNC_FAIL="+filepath.Join(dir, "fail"), "SYNC_DELAY=1000")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			for line := range strings.Lines(string(out)) {
				if strings.Contains(line, "fsyncs") {
					t.Log(strings.TrimSpace(line))
				}
			}
		})
	}
}

// TestSyncChild is one of the processes of TestSync.
func TestSyncChild(t *testing.T) {
	child, ok := syncChildren[os.Getenv("SQLITE_TEST_SYNC")]
	if !ok {
		t.Skip("runs in a child process only")
	}
	child(t)
}

// syncs returns how many fsyncs of the write-ahead log there have been.
func syncs(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile(os.Getenv("SYNC_COUNT"))
	check(t, err)
	return int(binary.NativeEndian.Uint64(b))
}

func failSyncs(t *testing.T, on bool) {
	t.Helper()
	path := os.Getenv("SYNC_FAIL")
	if on {
		check(t, os.WriteFile(path, nil, 0o600))
	} else {
		check(t, os.Remove(path))
	}
}

// childAlone: a lone caller has one fsync for each write.
func childAlone(t *testing.T) {
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Checkpoint: 1 << 30})
	check(t, write(db, 0)())
	total, background := syncs(t), backgroundSyncs()
	for id := int64(1); id <= 10; id++ {
		for name, call := range map[string]func() error{"single": write(db, id), "several": write(db, 100+id, 200+id), "Update": update(db, 300+id)} {
			before := syncs(t)
			check(t, call())
			if n := syncs(t) - before; n < 1 {
				t.Errorf("%s: acknowledged after %d fsyncs", name, n)
			}
		}
	}
	if n, more := syncs(t)-total, background(); n > 30+more {
		t.Errorf("%d fsyncs for 30 writes, and %d of the background at most", n, more)
	}
}

// backgroundSyncs returns a func that returns how many fsyncs of the log there
// can have been since then for the background's checkpoints: one for each of them,
// and one when the log begins anew.
func backgroundSyncs() func() int {
	began := time.Now()
	return func() int { return 2 * (2 + int(time.Since(began)/sqlite.CheckpointEvery)) }
}

// storm has writers write at the same time, each checking that an fsync came
// between its call and its answer, and returns writes and fsyncs, and how many
// of these can be the background's.
func storm(t *testing.T, db *sqlite.DB, writers, each int) (writes, fsyncs, background int) {
	before, since := syncs(t), backgroundSyncs()
	var wg sync.WaitGroup
	for g := range writers {
		wg.Go(func() {
			for i := range each {
				id := int64(1 + g*each + i)
				call := write(db, id)
				switch i % 3 {
				case 1:
					call = update(db, id)
				case 2:
					call = write(db, id, -id)
				}
				n := syncs(t)
				if err := call(); err != nil {
					t.Error(err)
				}
				if syncs(t) == n {
					t.Errorf("item %d was acknowledged without an fsync", id)
				}
			}
		})
	}
	wg.Wait()
	writes, fsyncs, background = writers*each, syncs(t)-before, since()
	t.Logf("%d writers: %d writes, %d fsyncs, %d of the background at most", writers, writes, fsyncs, background)
	return writes, fsyncs, background
}

func childGroup(t *testing.T) {
	writes, fsyncs, background := storm(t, sqlitetest.Open(t, itemSchema), 64, 30)
	if fsyncs-background > writes/5 {
		t.Errorf("%d fsyncs for %d writes", fsyncs, writes)
	}
}

func childNoGroup(t *testing.T) {
	writes, fsyncs, _ := storm(t, sqlitetest.Open(t, itemSchema, sqlite.Options{MaxBatch: 1}), 16, 6)
	if fsyncs < writes {
		t.Errorf("%d fsyncs for %d writes that have a commit each", fsyncs, writes)
	}
}

func childNormal(t *testing.T) {
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Synchronous: sqlite.Normal})
	before, background := syncs(t), backgroundSyncs()
	for id := range int64(50) {
		check(t, write(db, id)())
	}
	n, more := syncs(t)-before, background()
	t.Logf("normal: 50 writes, %d fsyncs", n)
	if n > more {
		t.Errorf("%d fsyncs for 50 writes that need none, and %d of the background at most", n, more)
	}
}

// childFailure: an fsync fails under many writers.
func childFailure(t *testing.T) {
	db, err := sqlite.Open(bg, t.TempDir()+"/test.db", sqlite.Options{Logger: quiet})
	check(t, err)
	check(t, db.Update(bg, func(tx *sqlite.Tx) error { return run(tx, itemSchema) }))
	var acknowledged sync.Map
	var failed atomic.Int64
	var wg sync.WaitGroup
	var enough sync.WaitGroup
	enough.Add(32)
	for g := range int64(32) {
		wg.Go(func() {
			for i := int64(0); ; i++ {
				if i == 5 {
					enough.Done()
				}
				id := g*1000000 + i
				call := update(db, id)
				if i%2 == 0 {
					call = write(db, id)
				}
				if err := call(); err != nil {
					wantErr(t, err, sqlite.ErrFailed)
					failed.Add(1)
					return
				}
				acknowledged.Store(id, true)
			}
		})
	}
	enough.Wait()
	failSyncs(t, true)
	within(t, "writers", wg.Wait)
	failSyncs(t, false)
	wantRefusal(t, db)
	n := 0
	there := map[int64]bool{}
	for _, id := range items(t, db) {
		there[id] = true
	}
	acknowledged.Range(func(id, _ any) bool {
		n++
		if !there[id.(int64)] {
			t.Errorf("before closing: item %d is missing", id)
		}
		return true
	})
	wantErr(t, db.View(bg, func(*sqlite.Tx) error { return errOwn }), errOwn)
	if err := db.Close(); err != nil {
		t.Log(err)
	}
	again := sqlitetest.OpenFile(t, db.Path(), "")
	there = map[int64]bool{}
	for _, id := range items(t, again) {
		there[id] = true
	}
	acknowledged.Range(func(id, _ any) bool {
		if !there[id.(int64)] {
			t.Errorf("after reopening: item %d is missing", id)
		}
		return true
	})
	check(t, write(again, 999_999_999)())
	t.Logf("%d acknowledged, %d callers failed, %d items, fsyncs failed", n, failed.Load(), len(there))
}

func childLoneFailure(t *testing.T) {
	for name, call := range map[string]func(db *sqlite.DB) error{
		"single":  func(db *sqlite.DB) error { return write(db, 2)() },
		"several": func(db *sqlite.DB) error { return write(db, 2, 3)() },
		"Update":  func(db *sqlite.DB) error { return update(db, 2)() },
	} {
		db, err := sqlite.Open(bg, fmt.Sprintf("%s/%s.db", t.TempDir(), name), sqlite.Options{Logger: quiet})
		check(t, err)
		check(t, db.Update(bg, func(tx *sqlite.Tx) error { return run(tx, itemSchema) }))
		check(t, write(db, 1)())
		failSyncs(t, true)
		err = call(db)
		failSyncs(t, false)
		if !errors.Is(err, sqlite.ErrFailed) {
			t.Errorf("%s: %v", name, err)
		}
		wantRefusal(t, db)
		wantItems(t, db, 1)
		if err := db.Close(); err != nil {
			t.Log(err)
		}
		again := sqlitetest.OpenFile(t, db.Path(), "")
		if got := items(t, again); len(got) == 0 || got[0] != 1 {
			t.Errorf("%s: %v after reopening", name, got)
		}
	}
}

func wantRefusal(t *testing.T, db *sqlite.DB) {
	t.Helper()
	wantErr(t, db.Err(), sqlite.ErrFailed)
	for range 3 {
		wantErr(t, write(db, -1)(), sqlite.ErrFailed)
		wantErr(t, update(db, -2)(), sqlite.ErrFailed)
	}
	wantErr(t, db.Migrate(bg, migrations("1_a.sql", "CREATE TABLE a (id)")), sqlite.ErrFailed)
}
