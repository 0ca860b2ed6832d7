package sqlite_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

// openLarge opens a database that takes many steps to copy.
func openLarge(t *testing.T, opts sqlite.Options) *sqlite.DB {
	t.Helper()
	opts.Synchronous = sqlite.Normal
	db := sqlitetest.Open(t, itemSchema, opts)
	for block := range int64(8) {
		check(t, db.Write(bg, sqlite.Stmt{SQL: `WITH RECURSIVE n(i) AS (SELECT ?1 UNION ALL SELECT i+1 FROM n WHERE i < ?1 + 999)
			INSERT INTO item SELECT -i, hex(randomblob(2000)) FROM n`, Args: []driver.Value{1 + block*1000}}))
	}
	return db
}

// A halfway is the context of a copy to dir, which asks it between two steps
// whether to go on. The first time that something has been copied, it calls do.
type halfway struct {
	context.Context
	dir  string
	do   func()
	done bool
}

func (h *halfway) Done() <-chan struct{} {
	if !h.done && h.underWay() {
		h.done = true
		h.do()
	}
	return h.Context.Done()
}

func (h *halfway) underWay() bool {
	parts, err := filepath.Glob(filepath.Join(h.dir, "*.part"))
	if err != nil || len(parts) != 1 {
		return false
	}
	info, err := os.Stat(parts[0])
	return err == nil && info.Size() > 0
}

// A copy that is made while the database is written is of one moment.
func TestSnapshotIsOfOneMoment(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]sqlite.Options{"alone": {Checkpoint: 100}, "replicated": {Replicated: true, Checkpoint: 100}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := openLarge(t, opts)
			if opts.Replicated {
				defer replicate(t, db)()
			}
			// Two rows are moved at a time, one near the beginning of the file
			// and one near its end, and each commit adds a row.
			ctx, stop := context.WithCancel(bg)
			defer stop()
			var last atomic.Int64
			var wg sync.WaitGroup
			wg.Go(func() {
				for ; ctx.Err() == nil; last.Add(1) {
					id := last.Load() + 1
					if err := db.Write(bg, insert(id),
						sqlite.Stmt{SQL: "UPDATE item SET note = ? WHERE id IN (-1, -8000)", Args: []driver.Value{strings.Repeat("x", int(id%5000))}}); err != nil {
						t.Error(err)
						return
					}
				}
			})
			dir := t.TempDir()
			path := filepath.Join(dir, "copy.db")
			before := value(t, db, "SELECT max(0, max(id)) FROM item").(int64)
			halfway := &halfway{Context: bg, dir: dir}
			var latest int64
			halfway.do = func() {
				latest = last.Load() + 1 // it may have been committed already
				until(t, "there are more commits", func() bool { return last.Load() > latest })
			}
			check(t, db.Snapshot(halfway, "main", path))
			stop()
			wg.Wait()

			wantFiles(t, dir, "copy.db")
			info, err := os.Stat(path)
			check(t, err)
			if info.Mode() != 0o600 {
				t.Errorf("mode is %v", info.Mode())
			}
			check(t, sqlite.CheckMigrations(bg, path, migrations()))
			copied := sqlitetest.OpenFile(t, path, "") // checks its integrity at the end
			after := value(t, copied, "SELECT max(0, max(id)) FROM item").(int64)
			t.Logf("%d commits, the copy has %d; %d when it began", last.Load(), after, before)
			if after < before || after > latest || latest == 0 {
				t.Errorf("the last commit in it is %d, want one from %d to %d", after, before, latest)
			}
			if n := value(t, copied, "SELECT count(*) FROM item"); n != 8000+after {
				t.Errorf("%v rows, want %d", n, 8000+after)
			}
			if n := value(t, copied, "SELECT count(DISTINCT note) FROM item WHERE id IN (-1, -8000)"); n != int64(1) && after > 0 {
				t.Error("two rows that change together are different")
			}
			check(t, write(copied, last.Load()+1)())
		})
	}
}

func TestSnapshotOfAttached(t *testing.T) {
	t.Parallel()
	for _, pageSize := range []string{"512", "4096", "65536"} {
		t.Run(pageSize, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			other := filepath.Join(dir, "other.db")
			raw, err := sql.Open(sqlite.DriverName, other)
			check(t, err)
			_, err = raw.ExecContext(bg, "PRAGMA page_size="+pageSize+"; CREATE TABLE far (id INTEGER PRIMARY KEY, body); INSERT INTO far VALUES (1, randomblob(3000000))")
			check(t, errors.Join(err, raw.Close()))
			db := sqlitetest.Open(t, itemSchema, sqlite.Options{Attach: []sqlite.Attachment{{Name: "Other", Path: other}}})
			check(t, db.Write(bg, insert(1), sqlite.Stmt{SQL: "INSERT INTO other.far VALUES (2, 'in the log')"}))
			check(t, db.Snapshot(bg, "main", filepath.Join(dir, "a")))
			check(t, db.Snapshot(bg, "oTHER", filepath.Join(dir, "b")))
			wantItems(t, sqlitetest.OpenFile(t, filepath.Join(dir, "a"), ""), 1)
			far := sqlitetest.OpenFile(t, filepath.Join(dir, "b"), "")
			if got := value(t, far, "SELECT count(*) || ' ' || max(length(body)) || ' ' || (SELECT page_size FROM pragma_page_size) FROM far"); got != "2 3000000 "+pageSize {
				t.Errorf("the copy of the attached database has %v", got)
			}
			if err := db.Snapshot(bg, "third", filepath.Join(dir, "c")); err == nil {
				t.Error("a database that is not attached was copied")
			}
		})
	}
}

func TestSnapshotOfEmpty(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, "")
	path := filepath.Join(t.TempDir(), "100% a#b?c.db")
	check(t, db.Snapshot(bg, "main", path))
	wantFiles(t, filepath.Dir(path), filepath.Base(path))
	check(t, write(sqlitetest.OpenFile(t, path, itemSchema), 1)())
}

// What is there already is neither replaced nor taken for a part of the copy.
func TestSnapshotReplacesNothing(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	for _, suffix := range []string{"", "-journal", "-wal", "-shm"} {
		dir := t.TempDir()
		path := filepath.Join(dir, "copy")
		check(t, os.WriteFile(path+suffix, []byte("mine"), 0o600))
		wantErr(t, db.Snapshot(bg, "main", path), fs.ErrExist)
		wantFiles(t, dir, "copy"+suffix)
		if b, err := os.ReadFile(path + suffix); err != nil || string(b) != "mine" {
			t.Errorf("the file has %q, %v", b, err)
		}
	}
	dir := t.TempDir()
	check(t, os.Symlink("nowhere", filepath.Join(dir, "link")))
	wantErr(t, db.Snapshot(bg, "main", filepath.Join(dir, "link")), fs.ErrExist)
	wantErr(t, db.Snapshot(bg, "main", db.Path()), fs.ErrExist)
	wantErr(t, db.Snapshot(bg, "main", filepath.Join(dir, "none", "copy")), fs.ErrNotExist)
	wantFiles(t, dir, "link")
}

// A file that takes the name while the copy is made stays, too.
func TestSnapshotReplacesNothingAtItsEnd(t *testing.T) {
	t.Parallel()
	db := openLarge(t, sqlite.Options{})
	dir := t.TempDir()
	path := filepath.Join(dir, "copy")
	ctx := &halfway{Context: bg, dir: dir, do: func() { check(t, os.WriteFile(path, []byte("mine"), 0o600)) }}
	wantErr(t, db.Snapshot(ctx, "main", path), fs.ErrExist)
	wantFiles(t, dir, "copy")
	if b, err := os.ReadFile(path); err != nil || string(b) != "mine" {
		t.Errorf("the file has %d bytes, %v", len(b), err)
	}
}

func TestSnapshotEnds(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		end  func(db *sqlite.DB, cancel func()) error
		want error
	}{
		"context": {func(_ *sqlite.DB, cancel func()) error { cancel(); return nil }, context.Canceled},
		"close":   {func(db *sqlite.DB, _ func()) error { return db.Close() }, sqlite.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := openLarge(t, sqlite.Options{})
			dir := t.TempDir()
			ctx, cancel := context.WithCancel(bg)
			defer cancel()
			var ending sync.WaitGroup
			half := &halfway{Context: ctx, dir: dir, do: func() {
				ending.Go(func() {
					if err := tt.end(db, cancel); err != nil {
						t.Error(err)
					}
					if name == "close" { // there is nothing left when it returns
						if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
							t.Errorf("left: %v, %v", left, err)
						}
					}
				})
				wantErr(t, db.Snapshot(ctx, "main", filepath.Join(dir, "b")), tt.want) // waits for its turn
			}}
			wantErr(t, db.Snapshot(half, "main", filepath.Join(dir, "a")), tt.want)
			ending.Wait()
			wantFiles(t, dir)
			wantErr(t, db.Snapshot(ctx, "main", filepath.Join(dir, "c")), tt.want)
			wantFiles(t, dir)
		})
	}
}

// A copy takes none of the connections that others read with.
func TestSnapshotTakesNoReader(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Readers: 1})
	path := filepath.Join(t.TempDir(), "copy")
	check(t, db.View(bg, func(*sqlite.Tx) error { return db.Snapshot(bg, "main", path) }))
}

func TestSnapshotsTakeTurns(t *testing.T) {
	t.Parallel()
	db := openLarge(t, sqlite.Options{})
	dir := t.TempDir()
	var wg sync.WaitGroup
	for _, name := range []string{"a", "b", "c"} {
		wg.Go(func() {
			if err := db.Snapshot(bg, "main", filepath.Join(dir, name)); err != nil {
				t.Error(err)
			}
			parts, err := filepath.Glob(filepath.Join(dir, "*.part"))
			if err != nil || len(parts) > 1 {
				t.Errorf("at the same time: %q, %v", parts, err)
			}
		})
	}
	wg.Wait()
	wantFiles(t, dir, "a", "b", "c")
}
