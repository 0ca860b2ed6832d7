package backup_test

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
	_ "github.com/bedplate/bedplate/backup/file"
	"github.com/bedplate/bedplate/sqlite"
	sqlite3 "github.com/mattn/go-sqlite3"
)

// A drillBench is a database with a replica in a directory.
type drillBench struct {
	cfg     backup.Config
	path    string // of the database
	objects string // where the replica is
	db      *sql.DB
	alarms  chan backup.Alarm
}

func newDrillBench(t *testing.T) *drillBench {
	t.Helper()
	dir := t.TempDir()
	b := &drillBench{path: filepath.Join(dir, "app.db"), objects: filepath.Join(dir, "replica"), alarms: make(chan backup.Alarm, 100)}
	b.cfg = backup.Config{
		URL: "file://" + b.objects, SyncInterval: 100 * time.Millisecond, DrillInterval: -1, FinalSync: finalSync,
		OnAlarm: func(a backup.Alarm) { b.alarms <- a },
	}
	db, err := sql.Open("bedplate", b.path+"?_journal_mode=WAL&_busy_timeout=20000&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	b.db = db
	b.exec(t, `CREATE TABLE entry (id INTEGER PRIMARY KEY, text TEXT UNIQUE, n REAL);
		CREATE TABLE pair (a TEXT, b BLOB, PRIMARY KEY (a)) WITHOUT ROWID;
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
		INSERT INTO entry SELECT i, 'entry ' || i, i / 3.0 FROM n;
		INSERT INTO pair SELECT text, randomblob(100) FROM entry`)
	return b
}

func (b *drillBench) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	if _, err := b.db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

// start begins to replicate, and ends with the test.
func (b *drillBench) start(t *testing.T) *backup.Replica {
	t.Helper()
	r, err := backup.New(b.cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	if err := r.Start(t.Context(), b.path, "", nil); err != nil {
		t.Fatal(err)
	}
	drillUntil(t, "replication", func() bool { return r.Status().State == backup.Replicating })
	return r
}

// scratch is where drills restore to.
func (b *drillBench) scratch() string { return filepath.Join(b.path+"-replica", "drill") }

// write makes transactions until the test ends, and tells when each was begun.
func (b *drillBench) write(t *testing.T, done func(began time.Time)) {
	ctx, cancel := context.WithCancel(context.Background())
	var writing sync.WaitGroup
	writing.Go(func() {
		tick := time.NewTicker(time.Millisecond) // or the log would be as long as the machine is fast
		defer tick.Stop()
		for ctx.Err() == nil {
			<-tick.C
			began := time.Now()
			tx, err := b.db.BeginTx(ctx, nil)
			if err == nil {
				_, err = tx.ExecContext(ctx, `INSERT INTO entry (text, n) VALUES (hex(randomblob(20)), random());
					DELETE FROM entry WHERE id = abs(random() % 1000)`)
				err = errors.Join(err, tx.Commit())
			}
			if err != nil && ctx.Err() == nil {
				t.Errorf("write: %v", err)
				return
			}
			done(began)
		}
	})
	t.Cleanup(func() { cancel(); writing.Wait() })
}

func drillUntil(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// standsStill reports whether a process that was told to stop has, with all its threads: on a busy
// machine that takes a while.
func standsStill(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid)) // elsewhere there are none
	return !slices.ContainsFunc(threads, func(file string) bool {
		stat, err := os.ReadFile(file)
		return err == nil && !bytes.Contains(stat, []byte(") T "))
	})
}

func TestDrillUnderLoad(t *testing.T) {
	t.Parallel()
	b := newDrillBench(t)
	r := b.start(t)
	var writes atomic.Int64
	b.write(t, func(time.Time) { writes.Add(1) })
	for range 3 {
		before := writes.Load()
		drillUntil(t, "writes", func() bool { return writes.Load() > before+10 })
		res, err := r.Drill(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d writes: %+v", writes.Load(), res)
		// With those of the canary and the replicator.
		if res.TXID == 0 || res.Error != "" || res.Tables < 4 || res.Rows < 1000 || res.Bytes < 100_000 {
			t.Errorf("result: %+v", res)
		}
		if res.Restore <= 0 || res.Stall <= 0 || res.Duration < res.Restore || res.Duration < res.Stall {
			t.Errorf("times: %+v", res)
		}
		if last := r.Status().Drill; last == nil || *last != res {
			t.Errorf("status: %+v, want %+v", last, res)
		}
	}
	if _, err := os.Stat(b.scratch()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was restored is still there: %v", err)
	}
}

// TestDrillSchemas drills on databases that are unlike others.
func TestDrillSchemas(t *testing.T) {
	t.Parallel()
	for name, statements := range map[string]string{
		"no tables":  `DROP TABLE entry; DROP TABLE pair`,
		"odd names":  `CREATE TABLE "a ""b"" 'c'" ("select" TEXT, "x y" DATETIME); INSERT INTO "a ""b"" 'c'" VALUES (x'00', 'soon')`,
		"functions":  `CREATE TABLE checked (id BLOB CHECK (is_uuid_v7(id)), g TEXT AS (uuid_text(id)) STORED)`,
		"full text":  `CREATE VIRTUAL TABLE words USING fts4(text); INSERT INTO words VALUES ('one two')`,
		"incomplete": `CREATE VIEW broken AS SELECT * FROM nowhere`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newDrillBench(t)
			b.exec(t, statements)
			r := b.start(t)
			if _, err := r.Drill(t.Context()); err != nil {
				t.Error(err)
			}
			b.exec(t, `CREATE TABLE later (x); INSERT INTO later VALUES (1)`)
			if _, err := r.Drill(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// level returns the objects of a level of the replica.
func (b *drillBench) level(t *testing.T, level string) []string {
	t.Helper()
	objects, err := filepath.Glob(filepath.Join(b.objects, "ltx", level, "*.ltx"))
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// TestDrillDamage damages everything in the replica, and heals it.
func TestDrillDamage(t *testing.T) {
	t.Parallel()
	b := newDrillBench(t)
	b.cfg.AlarmAfter = patience // the only alarm is that of a drill
	r := b.start(t)
	if err := r.WaitReplicated(t.Context()); err != nil {
		t.Fatal(err)
	}
	drillUntil(t, "a snapshot, which holds the same as other objects", func() bool { return len(b.level(t, "9")) > 0 })
	flip := func(name string) {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		content[len(content)/2] ^= 4
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var damaged []string
	var res backup.DrillResult
	var err error
	// Now and then what is damaged becomes a part of a larger object, which is sound.
	for merged, more := 0, true; more; more = err == nil && len(b.level(t, "[1-8]")) > merged {
		merged = len(b.level(t, "[1-8]"))
		for _, name := range b.level(t, "*") {
			if !slices.Contains(damaged, name) {
				damaged = append(damaged, name)
				flip(name)
			}
		}
		res, err = r.Drill(t.Context())
	}
	if !errors.Is(err, backup.ErrCorrupt) || res.Error == "" {
		t.Fatalf("a drill on a damaged replica: %+v, %v", res, err)
	}
	alarm := <-b.alarms
	if !strings.Contains(alarm.Text, res.Error) || alarm.Over {
		t.Errorf("alarm: %+v", alarm)
	}
	for _, name := range damaged {
		flip(name)
	}
	if _, err := r.Drill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if alarm := <-b.alarms; !alarm.Over {
		t.Errorf("alarm: %+v", alarm)
	}
}

// TestDrillDiffers changes what was restored before it is looked at.
func TestDrillDiffers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, statement, want string }{
		{"value", `UPDATE entry SET n = n + 1 WHERE id = 500`, `table "entry" has other content, in as many rows, 1000`},
		{"row", `DELETE FROM pair WHERE a = 'entry 7'`, `table "pair" has 999 rows instead of 1000`},
		{"table", `DROP TABLE IF EXISTS pair`, `table "pair" with 1000 rows is missing`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newDrillBench(t)
			var opened atomic.Int64
			b.cfg.Open = func(path string) (*sql.DB, error) {
				db, err := sql.Open("bedplate", path)
				if err == nil && filepath.Dir(path) == b.scratch() {
					opened.Add(1)
					_, err = db.Exec(c.statement)
				}
				return db, err
			}
			r := b.start(t)
			res, err := r.Drill(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(res.Error, c.want) {
				t.Errorf("got %v and %q, want %s", err, res.Error, c.want)
			}
			if opened.Load() == 0 {
				t.Error("the copy was not opened")
			}
		})
	}
}

// TestDrillLetsWritersGo stops the replicator when writers are locked out, until they are not.
func TestDrillLetsWritersGo(t *testing.T) {
	t.Parallel()
	b := newDrillBench(t)
	var pid int
	var stopped atomic.Pointer[time.Time]
	stop := sync.OnceFunc(func() {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Error(err)
		}
		for deadline := time.Now().Add(patience); !standsStill(pid) && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		now := time.Now()
		stopped.Store(&now)
	})
	b.cfg.Open = func(path string) (*sql.DB, error) {
		return sql.OpenDB(&drillConnector{path, func(query string) {
			if query == "BEGIN IMMEDIATE" && path == b.path {
				stop()
			}
		}}), nil
	}
	r := b.start(t)
	if pid = r.Status().PID; pid == 0 {
		t.Fatal("there is no replicator")
	}
	b.write(t, func(began time.Time) {
		if locked := stopped.Load(); locked != nil && began.After(*locked) {
			_ = syscall.Kill(pid, syscall.SIGCONT) // which may be over
		}
	})
	res, err := r.Drill(t.Context())
	if err != nil {
		t.Error(err)
	}
	// A replicator that does not answer is ended some day, which lets writers go, too.
	if n := r.Status().Restarts; res.Stall < time.Second || n > 0 {
		t.Errorf("writers stood for %v, want a second; the replicator was ended %d times", res.Stall, n)
	}
}

// A drillConnector opens connections that tell which statements they execute.
type drillConnector struct {
	path string
	tell func(query string)
}

func (c *drillConnector) Driver() driver.Driver { return sqlite.Driver{} }

func (c *drillConnector) Connect(context.Context) (driver.Conn, error) {
	conn, err := sqlite.Driver{}.Open(c.path)
	if err != nil {
		return nil, err
	}
	return &drillConn{conn.(*sqlite3.SQLiteConn), c.tell}, nil
}

type drillConn struct {
	*sqlite3.SQLiteConn
	tell func(query string)
}

func (c *drillConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	res, err := c.SQLiteConn.ExecContext(ctx, query, args)
	c.tell(query)
	return res, err
}

func TestDrillSchedule(t *testing.T) {
	t.Parallel()
	b := newDrillBench(t)
	left := filepath.Join(b.scratch(), "restored.db")
	if err := errors.Join(os.MkdirAll(b.scratch(), 0o700), os.WriteFile(left, []byte("of a process that died"), 0o600)); err != nil {
		t.Fatal(err)
	}
	r := b.start(t)
	drillUntil(t, "the leftovers are gone", func() bool {
		_, err := os.Stat(b.scratch())
		return errors.Is(err, fs.ErrNotExist)
	})
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}

	b.cfg.DrillInterval = time.Second
	r = b.start(t)
	drillUntil(t, "a drill", func() bool { return r.Status().Drill != nil })
	first := r.Status().Drill
	drillUntil(t, "another drill", func() bool { return r.Status().Drill.At.After(first.At) })
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	last := r.Status().Drill
	if last.Error != "" {
		t.Errorf("drill: %+v", last)
	}

	b.cfg.DrillInterval = time.Hour
	r = b.start(t)
	drillUntil(t, "the result of before", func() bool { return r.Status().Drill != nil })
	if got := r.Status().Drill; !got.At.Equal(last.At) || got.TXID != last.TXID {
		t.Errorf("after a restart: %+v, want %+v", got, last)
	}
}

func TestDrillEnds(t *testing.T) {
	t.Parallel()
	b := newDrillBench(t)
	r, err := backup.New(b.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Drill(t.Context()); !errors.Is(err, backup.ErrClosed) {
		t.Errorf("before Start: %v", err)
	}
	if _, err := os.Stat("drill.json"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a result was noted before Start: %v", err)
	}
	// The copy is opened when the drill may not go on.
	var interrupt atomic.Value // func()
	b.cfg.Open = func(path string) (*sql.DB, error) {
		if filepath.Dir(path) == b.scratch() {
			interrupt.Load().(func())()
		}
		return sql.Open("bedplate", path)
	}
	r = b.start(t)
	ctx, cancel := context.WithCancel(t.Context())
	interrupt.Store(func() { cancel() })
	if _, err := r.Drill(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that ends: %v", err)
	}
	closed := make(chan error, 1)
	closing := sync.OnceFunc(func() { go func() { closed <- r.Close() }() })
	interrupt.Store(func() {
		closing()
		for !errors.Is(r.WaitReplicated(t.Context()), backup.ErrClosed) && t.Context().Err() == nil {
			time.Sleep(time.Millisecond)
		}
	})
	if _, err := r.Drill(t.Context()); !errors.Is(err, backup.ErrClosed) {
		t.Errorf("with a Close meanwhile: %v", err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if got := r.Status().Drill; got != nil {
		t.Errorf("a drill that was ended has the result %+v", got)
	}
	if _, err := r.Drill(t.Context()); !errors.Is(err, backup.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := os.Stat(b.scratch()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was restored is still there: %v", err)
	}
}
