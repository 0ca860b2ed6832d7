package replicator_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

func TestReplicate(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	c := s.replicate()
	s.exec("INSERT INTO t (v) VALUES ('x'), ('y')")
	e := c.call(wire.Command{Op: wire.Sync, Wait: true})
	if e.Error != "" || e.TXID == 0 || e.ReplicaTXID < e.TXID {
		t.Fatalf("sync: %+v", e)
	}
	if n := s.rows(); n != 2 {
		t.Errorf("%d rows", n)
	}
	s.sing()
	if e := s.prove(c); e.Error != "" || e.Number != s.number {
		t.Errorf("prove: %+v", e)
	}
	if e := c.call(wire.Command{Op: wire.Shot}); e.Error != "" || e.TXID == 0 || len(s.objects(9)) == 0 {
		t.Errorf("shot: %+v", e)
	}
	if e := c.call(wire.Command{Op: wire.Status}); e.Error != "" {
		t.Errorf("status: %+v", e)
	}
	state := c.await("a state that has caught up", func(e wire.Event) bool {
		return e.Kind == wire.State && e.TXID > 0 && e.ReplicaTXID == e.TXID
	})
	if state.RSS == 0 || state.WALBytes == 0 || state.Error != "" {
		t.Errorf("%+v", state)
	}
	if e := c.call(wire.Command{Op: "dance"}); e.Error == "" {
		t.Error("an unknown command is not refused")
	}
	s.exec("INSERT INTO t (v) VALUES ('last')")
	if e := c.end(); e.Error != "" || e.ReplicaTXID != e.TXID {
		t.Errorf("end: %+v", e)
	}
	if !c.cmd.ProcessState.Success() {
		t.Error(c.cmd.ProcessState)
	}
	if n := s.rows(); n != 3 {
		t.Errorf("%d rows in the end", n)
	}
}

// After the end of a replicator without warning, another one goes on where it was.
func TestKilled(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	for range 3 {
		c := s.replicate()
		s.exec("INSERT INTO t (v) VALUES ('x')")
		s.exec("PRAGMA wal_checkpoint(PASSIVE)")
		if err := c.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-c.ended
		s.exec("INSERT INTO t (v) VALUES ('while it was away')")
	}
	c := s.replicate()
	if e := c.end(); e.Error != "" {
		t.Error(e.Error)
	}
	for _, e := range c.all() {
		if e.Kind == wire.Log && strings.Contains(e.Text, "whole database") {
			t.Errorf("%s", e.Text)
		}
	}
	if n := s.rows(); n != 6 {
		t.Errorf("%d rows", n)
	}
}

func TestOneAtATime(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	first := s.replicate()
	second := startChild(t, s.order, setting{})
	e := second.awaitKind(wire.Waiting)
	if e.Code != "lock" || !strings.Contains(e.Text, "process ") {
		t.Errorf("%+v", e)
	}
	if e := first.end(); e.Error != "" {
		t.Error(e.Error)
	}
	second.awaitKind(wire.Ready)
}

func TestNotEmpty(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	if e := s.replicate().end(); e.Error != "" {
		t.Fatal(e.Error)
	}
	other := newSource(t)
	other.order.URL, other.replica = s.order.URL, s.replica
	c := startChild(t, other.order, setting{})
	if e := c.awaitKind(wire.Refused); e.Code != wire.CodeNotEmpty {
		t.Errorf("%+v", e)
	}
	if e := c.done(); e.Code != wire.CodeNotEmpty {
		t.Errorf("%+v", e)
	}

	other.order.Adopt = true
	other.exec("INSERT INTO t (v) VALUES ('new')")
	if e := other.replicate().end(); e.Error != "" {
		t.Error(e.Error)
	}
	if n := other.rows(); n != 1 {
		t.Errorf("%d rows", n)
	}
}

// The store is away when the replicator starts, in the middle, and at the end.
func TestStoreAway(t *testing.T) {
	t.Parallel()
	s := faulty(newSource(t))
	s.order.FinalSync = time.Second
	s.setFault("fail", "the store is AccessDenied today")
	c := startChild(t, s.order, setting{})
	denied := func(e wire.Event) bool { return e.Kind == wire.State && e.Code == wire.CodeDenied }
	c.await("the error", denied)
	s.clearFault("fail")
	c.awaitKind(wire.Vacant)
	if e := c.call(wire.Command{Op: wire.Go}); e.Error != "" {
		t.Fatal(e.Error)
	}
	c.awaitKind(wire.Ready)
	s.order.Known = true

	s.setFault("failput", "no PUT today")
	s.exec("INSERT INTO t (v) VALUES ('x')")
	if e := c.call(wire.Command{Op: wire.Sync, Wait: true}); !strings.Contains(e.Error, "no PUT today") {
		t.Errorf("%+v", e)
	}
	if e := c.call(wire.Command{Op: wire.Sync}); e.Error != "" { // that is local
		t.Errorf("%+v", e)
	}
	s.sing()
	if e := s.prove(c); e.Error == "" {
		t.Errorf("%+v", e)
	}
	s.clearFault("failput")
	if e := s.prove(c); e.Error != "" {
		t.Errorf("%+v", e)
	}

	s.exec("INSERT INTO t (v) VALUES ('y')")
	s.setFault("fail", "it is away")
	if e := c.end(); !strings.Contains(e.Error, "it is away") || e.TXID <= e.ReplicaTXID {
		t.Errorf("%+v", e)
	}
	if code := c.cmd.ProcessState.ExitCode(); code != 4 {
		t.Errorf("exit code %d", code)
	}
	s.clearFault("fail")
	s.order.FinalSync = patience / 2
	if e := s.replicate().end(); e.Error != "" {
		t.Error(e.Error)
	}
	if n := s.rows(); n != 2 {
		t.Errorf("%d rows", n)
	}
}

// A store that takes requests and never answers does not keep a command from its reply.
func TestHangingStore(t *testing.T) {
	t.Parallel()
	s := faulty(newSource(t))
	s.order.FinalSync = time.Second
	c := s.replicate()
	s.setFault("hang", "")
	s.exec("INSERT INTO t (v) VALUES ('x')")
	e := c.call(wire.Command{Op: wire.Sync, Wait: true, Deadline: time.Now().Add(500 * time.Millisecond)})
	if e.Code != wire.CodeNotInTime {
		t.Errorf("%+v", e)
	}
	if e := c.call(wire.Command{Op: wire.Status}); e.Error != "" {
		t.Errorf("%+v", e)
	}
	if e := c.end(); e.Error == "" {
		t.Errorf("%+v", e)
	}
}

// The last sync does not go on for something that is not there any more.
func TestDatabaseGone(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	s.order.FinalSync = time.Hour
	c := s.replicate()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(s.order.Database + suffix); err != nil {
			t.Fatal(err)
		}
	}
	if e := c.end(); e.Error == "" {
		t.Errorf("%+v", e)
	}
}

// The program ends before the replicator has begun.
func TestStoppedAtOnce(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	if e := startChild(t, s.order, setting{}).end(); !strings.Contains(e.Error, "stopped before") {
		t.Errorf("unknown: %+v", e)
	}
	if e := s.replicate().end(); e.Error != "" {
		t.Fatal(e.Error)
	}
	s.exec("INSERT INTO t (v) VALUES ('x')")
	if e := startChild(t, s.order, setting{}).end(); e.Error != "" { // the last sync is made
		t.Errorf("known: %+v", e)
	}
	if n := s.rows(); n != 1 {
		t.Errorf("%d rows", n)
	}
}

// Whatever is lost or damaged between the database and the replica, the replica gets right again.
func TestDamage(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		running bool // while the replicator runs
		damage  func(s *source) error
	}{
		{"local files lost", true, func(s *source) error { return os.RemoveAll(s.localDir()) }},
		{"local files lost", false, func(s *source) error { return os.RemoveAll(s.localDir()) }},
		{"local file damaged", false, func(s *source) error { return flip(s.localNewest()) }},
		{"local file cut", false, func(s *source) error { return cut(s.localNewest(), 42) }},
		{"replica emptied", false, func(s *source) error { return os.RemoveAll(s.replica) }},
		{"level 0 lost", false, func(s *source) error { return s.promote() }},
		{"level 0 and local files lost", false, func(s *source) error {
			if err := os.RemoveAll(s.localDir()); err != nil {
				return err
			}
			return s.promote()
		}},
		{"newest object damaged and local files lost", false, func(s *source) error {
			if err := flip(s.newest()); err != nil {
				return err
			}
			return os.RemoveAll(s.localDir())
		}},
		{"newest object cut and local files lost", false, func(s *source) error {
			if err := cut(s.newest(), 42); err != nil {
				return err
			}
			return os.RemoveAll(s.localDir())
		}},
	} {
		name := test.name
		if test.running {
			name += " while running"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSource(t)
			c := s.replicate()
			for range 5 {
				s.exec("INSERT INTO t (v) VALUES ('x')")
				if e := c.call(wire.Command{Op: wire.Sync, Wait: true}); e.Error != "" {
					t.Fatal(e.Error)
				}
			}
			if !test.running {
				if e := c.end(); e.Error != "" {
					t.Fatal(e.Error)
				}
			}
			if err := test.damage(s); err != nil {
				t.Fatal(err)
			}
			if !test.running {
				c = s.replicate()
			}
			for range 3 {
				s.exec("INSERT INTO t (v) VALUES ('y')")
				s.sing()
				until := time.Now().Add(patience / 2)
				for {
					e := s.prove(c)
					if e.Error == "" && e.Number == s.number {
						break
					}
					if time.Now().After(until) {
						t.Fatalf("%+v", e)
					}
				}
			}
			if e := c.end(); e.Error != "" {
				t.Error(e.Error)
			}
			if n := s.rows(); n != 8 {
				t.Errorf("%d rows", n)
			}
		})
	}
}

func (s *source) localDir() string { return filepath.Join(s.order.Dir, "litestream", "ltx") }

func (s *source) localNewest() string {
	files, err := filepath.Glob(filepath.Join(s.localDir(), "0", "*.ltx"))
	if err != nil || len(files) == 0 {
		s.t.Fatal("no local files", err)
	}
	return files[len(files)-1]
}

// promote leaves nothing but a snapshot in the replica, as an idle database would after a rule of
// the bucket has removed old objects.
func (s *source) promote() error {
	c := s.replicate()
	if e := c.call(wire.Command{Op: wire.Shot}); e.Error != "" {
		s.t.Fatal(e.Error)
	}
	if e := c.end(); e.Error != "" {
		s.t.Fatal(e.Error)
	}
	return os.RemoveAll(filepath.Join(s.replica, "ltx", "0"))
}

// flip changes a bit in the middle of a file.
func flip(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text[len(text)/2] ^= 1
	return os.WriteFile(file, text, 0o600)
}

// cut takes bytes off the end of a file.
func cut(file string, n int64) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	return os.Truncate(file, info.Size()-n)
}

// While no replicator runs, the log of the database is checkpointed and begins anew.
func TestLogBeginsAnewMeanwhile(t *testing.T) {
	t.Parallel()
	for _, orderly := range []bool{true, false} {
		for _, rows := range []int{1, 3, 30} {
			s := newSource(t)
			s.exec("CREATE TABLE u (v TEXT)") // in a page of its own
			c := s.replicate()
			for range 10 {
				s.exec("INSERT INTO t (v) VALUES ('x')")
			}
			if e := c.call(wire.Command{Op: wire.Sync, Wait: true}); e.Error != "" {
				t.Fatal(e.Error)
			}
			if orderly {
				c.end()
			} else {
				_ = c.cmd.Process.Kill()
				<-c.ended
			}
			for range 5 {
				s.exec("INSERT INTO t (v) VALUES ('never seen in the log')")
			}
			var busy, frames, done int
			if err := s.db.QueryRow("PRAGMA wal_checkpoint(PASSIVE)").Scan(&busy, &frames, &done); err != nil || busy != 0 || frames != done {
				t.Fatal(busy, frames, done, err)
			}
			for range rows {
				s.exec("INSERT INTO u (v) VALUES ('in the new log')")
			}
			if e := s.replicate().end(); e.Error != "" {
				t.Error(e.Error)
			}
			if n := s.rows(); n != 15 {
				t.Errorf("orderly %v, %d rows since: %d rows", orderly, rows, n)
			}
		}
	}
}

// A store keeps the half of what is uploaded, and says that it has failed.
func TestHalfStored(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		for _, op := range []wire.Op{wire.Sync, wire.Shot} {
			s := faulty(newSource(t))
			c := s.replicate()
			s.exec("INSERT INTO t (v) VALUES ('x')")
			if e := c.call(wire.Command{Op: wire.Sync, Wait: true}); e.Error != "" {
				t.Fatal(e.Error)
			}
			if op == wire.Sync {
				s.setFault("half", "the connection was reset")
			}
			s.exec("INSERT INTO t (v) VALUES ('y')")
			if op == wire.Shot {
				if e := c.call(wire.Command{Op: wire.Sync, Wait: true}); e.Error != "" {
					t.Fatal(e.Error)
				}
				s.setFault("half", "the connection was reset")
			}
			if e := c.call(wire.Command{Op: op, Wait: true}); !strings.Contains(e.Error, "reset") {
				t.Errorf("%+v", e)
			}
			if restart {
				_ = c.cmd.Process.Kill()
				<-c.ended
			}
			s.clearFault("half")
			if restart {
				c = s.replicate()
				if n := s.rows(); n != 2 {
					t.Errorf("%s: %d rows after the start", op, n)
				}
			}
			s.exec("INSERT INTO t (v) VALUES ('z')")
			if e := c.call(wire.Command{Op: op, Wait: true}); e.Error != "" {
				t.Errorf("%+v", e)
			}
			if e := c.end(); e.Error != "" {
				t.Error(e.Error)
			}
			if n := s.rows(); n != 3 {
				t.Errorf("%s, restart %v: %d rows", op, restart, n)
			}
		}
	}
}

// Another machine takes the lease: nothing is written any more.
func TestFenced(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	s.order.Owner, s.order.LeaseTTL = "one", 2*time.Second
	c := s.replicate()
	other := wire.Order{
		Mode: wire.Lease, URL: s.order.URL, Dir: t.TempDir(), Owner: "two", LeaseTTL: time.Minute, TakeOver: true,
	}
	if e := startChild(t, other, setting{}).done(); e.Error != "" {
		t.Fatal(e.Error)
	}
	if e := c.awaitKind(wire.Fenced); e.Text != "two" {
		t.Errorf("%+v", e)
	}
	before := s.objects(0)
	s.exec("INSERT INTO t (v) VALUES ('x')")
	if e := c.done(); e.Code != wire.CodeLeased {
		t.Errorf("%+v", e)
	}
	if after := s.objects(0); len(after) != len(before) {
		t.Errorf("%d objects, then %d", len(before), len(after))
	}
	// Nor by the next one.
	s.order.FinalSync = 100 * time.Millisecond
	if e := startChild(t, s.order, setting{}).end(); e.Error == "" {
		t.Errorf("%+v", e)
	}
	if after := s.objects(0); len(after) != len(before) {
		t.Errorf("%d objects, in the end %d", len(before), len(after))
	}
}

// The log begins anew again and again while the database is written to: it is never longer than it
// has to be.
func TestLogStaysShort(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	s.exec("PRAGMA wal_autocheckpoint = 0")
	c := s.replicate()
	written := make(chan int)
	stop := make(chan struct{})
	go func() {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-stop:
				written <- n
				return
			case <-tick.C:
				if _, err := s.db.Exec("INSERT INTO t (v) VALUES (hex(randomblob(2000)))"); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	const rows, size, restarts = 50, 50000, 4
	first, rounds := s.logNumber(), 0
	for ; s.logNumber() < first+restarts && rounds < 10*restarts; rounds++ {
		tx, err := s.db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		for range rows {
			if _, err := tx.Exec("INSERT INTO t (v) VALUES (hex(randomblob(?)))", size/2); err != nil {
				t.Fatal(err)
			}
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		if e := c.call(wire.Command{Op: wire.Sync}); e.Error != "" {
			t.Fatal(e.Error)
		}
	}
	close(stop)
	n := rounds*rows + <-written
	if again := s.logNumber() - first; again < restarts {
		t.Errorf("the log has begun anew %d times while %d bytes were written", again, rounds*rows*size)
	}
	if e := c.end(); e.Error != "" {
		t.Error(e.Error)
	}
	for _, e := range c.all() {
		if e.Kind == wire.Log && (strings.Contains(e.Text, "whole database") || strings.Contains(e.Text, "again")) {
			t.Errorf("%s %s", e.Text, e.Attrs)
		}
	}
	if got := s.rows(); got != n {
		t.Errorf("%d rows of %d", got, n)
	}
}

// logNumber returns how often the log has begun anew, from its header
// (https://sqlite.org/fileformat2.html#the_write_ahead_log).
func (s *source) logNumber() uint32 {
	s.t.Helper()
	f, err := os.Open(s.order.Database + "-wal")
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	var number [4]byte
	if _, err := f.ReadAt(number[:], 12); err != nil {
		s.t.Fatal(err)
	}
	return binary.BigEndian.Uint32(number[:])
}
