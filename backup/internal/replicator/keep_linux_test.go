package replicator_test

import (
	"database/sql"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

// reopen closes the database, and has another process but the replicator open it and close it last.
func (s *source) reopen(between func()) {
	s.t.Helper()
	if err := s.db.Close(); err != nil {
		s.t.Fatal(err)
	}
	between()
	for _, driver := range []string{"sqlite", "bedplate"} { // the former deletes the log if it can
		db, err := sql.Open(driver, s.order.Database+"?_journal_mode=WAL&_busy_timeout=10000&_synchronous=NORMAL")
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() { _ = db.Close() })
		if s.db = db; driver == "sqlite" {
			s.exec("INSERT INTO t (v) VALUES ('in between')")
			if err := db.Close(); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

// sharedWith returns the process that keeps this one from having the database for itself alone.
func (s *source) sharedWith() (pid int) {
	s.t.Helper()
	f, err := os.Open(s.order.Database)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	lock := syscall.Flock_t{Type: syscall.F_WRLCK, Start: 0x40000002, Len: 510}
	if err := syscall.FcntlFlock(f.Fd(), syscall.F_GETLK, &lock); err != nil {
		s.t.Fatal(err)
	}
	return int(lock.Pid)
}

// The replicator keeps the log from being deleted, also after it has opened the database again.
func TestLogIsKept(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	c := s.replicate()
	s.exec("INSERT INTO t (v) VALUES ('x')")
	if e := c.call(wire.Command{Op: wire.Sync, Wait: true}); e.Error != "" {
		t.Fatal(e.Error)
	}
	if err := os.RemoveAll(s.localDir()); err != nil {
		t.Fatal(err)
	}
	s.sing()
	for until := time.Now().Add(patience); s.prove(c).Error != ""; { // which it is by then
		if time.Now().After(until) {
			t.Fatal("it does not get on")
		}
	}
	for range 3 {
		s.exec("INSERT INTO t (v) VALUES ('y')")
		s.reopen(func() {
			if pid := s.sharedWith(); pid != c.cmd.Process.Pid {
				t.Errorf("process %d has a lock on the database", pid)
			}
		})
		for _, suffix := range []string{"-wal", "-shm"} {
			if _, err := os.Stat(s.order.Database + suffix); err != nil {
				t.Error(err)
			}
		}
	}
	if e := c.end(); e.Error != "" {
		t.Error(e.Error)
	}
	reopened := false
	for _, e := range c.all() {
		reopened = reopened || e.Kind == wire.Log && strings.Contains(e.Text, "missing or damaged")
	}
	if n := s.rows(); n != 7 || !reopened {
		t.Errorf("%d rows, opened again: %v", n, reopened)
	}
}

// When the others have another index of the log nevertheless, the replicator ends, and the next one
// misses nothing.
func TestOtherIndex(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	c := s.replicate()
	s.exec("INSERT INTO t (v) VALUES ('x')")
	if e := c.call(wire.Command{Op: wire.Sync, Wait: true}); e.Error != "" {
		t.Fatal(e.Error)
	}
	s.exec("INSERT INTO t (v) VALUES ('y')")
	s.reopen(func() {
		if err := os.Remove(s.order.Database + "-shm"); err != nil { // and the log stays, so that nothing is lost
			t.Error(err)
		}
	})
	s.exec("INSERT INTO t (v) VALUES ('z')")
	if e := c.done(); !strings.Contains(e.Error, "not those that were opened") {
		t.Errorf("%+v", e)
	}
	if e := s.replicate().end(); e.Error != "" {
		t.Error(e.Error)
	}
	if n := s.rows(); n != 4 {
		t.Errorf("%d rows", n)
	}
}
