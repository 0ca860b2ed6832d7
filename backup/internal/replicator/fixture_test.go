package replicator

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/benbjohnson/litestream/file"
	"github.com/superfly/ltx"
	_ "modernc.org/sqlite"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

// patience is how long anything may take here.
const patience = 2 * time.Minute

// A source is a database and its replica in a directory. Nothing runs by itself.
type source struct {
	t       *testing.T
	dir     string // of the replica
	path    string // of the database
	client  *file.ReplicaClient
	db      *litestream.DB
	sql     *sql.DB
	rows    int
	history []moment
}

// A moment is a state of a source: two tables with the same sum.
type moment struct {
	txid ltx.TXID
	time time.Time // not before the state
	rows int
}

func newSource(t *testing.T) *source {
	t.Helper()
	root := t.TempDir()
	s := &source{t: t, dir: filepath.Join(root, "replica"), path: filepath.Join(root, "app.db")}
	s.client = file.NewReplicaClient(s.dir)
	s.client.SetLogger(slog.New(slog.DiscardHandler))
	var err error
	if s.sql, err = sql.Open("sqlite", s.path+"?_pragma=journal_mode(WAL)&_pragma=busy_timeout(5000)&_pragma=wal_autocheckpoint(10000)"); err != nil {
		t.Fatal(err)
	}
	s.sql.SetMaxOpenConns(1)
	s.exec("CREATE TABLE a (v INTEGER, pad BLOB)", "CREATE TABLE b (v INTEGER)", "INSERT INTO b VALUES (0)")
	s.start()
	t.Cleanup(func() {
		s.stop()
		_ = s.sql.Close()
	})
	return s
}

func (s *source) start() {
	s.t.Helper()
	s.db = litestream.NewDB(s.path)
	s.db.MonitorInterval = 0
	s.db.Replica = litestream.NewReplicaWithClient(s.db, s.client)
	s.db.Replica.MonitorEnabled = false
	s.db.SetLogger(slog.New(slog.DiscardHandler))
	s.must(s.db.Open())
}

func (s *source) stop() { _ = s.db.Close(context.Background()) }

func (s *source) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *source) exec(statements ...string) {
	s.t.Helper()
	for _, statement := range statements {
		if _, err := s.sql.Exec(statement); err != nil {
			s.t.Fatal(statement, err)
		}
	}
}

// write makes a transaction of some pages and replicates it.
func (s *source) write() moment {
	s.t.Helper()
	s.rows++
	s.exec("BEGIN", "INSERT INTO a VALUES (1, randomblob(9000))", "UPDATE b SET v = v + 1", "COMMIT")
	return s.sync()
}

func (s *source) sync() moment {
	s.t.Helper()
	ctx := context.Background()
	for began := time.Now().UnixMilli(); time.Now().UnixMilli() == began; { // a time of its own
	}
	s.must(s.db.Sync(ctx))
	s.must(s.db.Replica.Sync(ctx))
	pos, err := s.db.Pos()
	s.must(err)
	m := moment{pos.TXID, time.Now(), s.rows}
	s.history = append(s.history, m)
	return m
}

func (s *source) compact(level int) {
	s.t.Helper()
	_, err := s.db.Compact(context.Background(), level)
	s.must(err)
}

func (s *source) snapshot() {
	s.t.Helper()
	_, err := s.db.Snapshot(context.Background())
	s.must(err)
}

// remove deletes objects of a level up to a transaction.
func (s *source) remove(level int, upTo ltx.TXID) {
	s.t.Helper()
	for _, o := range s.objects(level) {
		if o.MaxTXID <= upTo {
			s.must(os.Remove(s.file(o)))
		}
	}
}

func (s *source) objects(level int) []*ltx.FileInfo {
	s.t.Helper()
	list, err := listLevel(context.Background(), s.client, level, 0, false, 1000)
	s.must(err)
	return list
}

func (s *source) file(o *ltx.FileInfo) string {
	return s.client.LTXFilePath(o.Level, o.MinTXID, o.MaxTXID)
}

// full makes a source with objects of several kinds: a snapshot, levels 1 and 2, and level 0.
func full(t *testing.T) *source {
	t.Helper()
	s := newSource(t)
	for i := range 24 {
		s.write()
		switch i {
		case 5:
			s.compact(1)
		case 9:
			s.compact(1)
			s.snapshot()
		case 12:
			s.exec("DELETE FROM a WHERE rowid > (SELECT min(rowid) FROM a)", "VACUUM", "UPDATE b SET v = (SELECT sum(v) FROM a)")
			s.rows = 1
			s.sync()
		case 15:
			s.compact(1)
			s.compact(2)
		case 18:
			s.compact(1)
		default:
		}
	}
	return s
}

// look returns the rows of a copy, and checks it.
func look(t *testing.T, path string) int {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var check string
	var a, b, n int
	if err := db.QueryRow("PRAGMA integrity_check").Scan(&check); err != nil || check != "ok" {
		t.Fatalf("integrity_check of the copy: %q, %v", check, err)
	}
	if err := db.QueryRow("SELECT (SELECT coalesce(sum(v), 0) FROM a), (SELECT v FROM b), (SELECT count(*) FROM a)").Scan(&a, &b, &n); err != nil {
		t.Fatal(err)
	}
	if a != b {
		t.Fatalf("sums differ: %d, %d", a, b)
	}
	return n
}

// A script is a child without a process.
type script struct {
	*child
	t        *testing.T
	commands chan wire.Command
	events   chan wire.Event
}

func newScript(t *testing.T, client litestream.ReplicaClient, order wire.Order) *script {
	t.Helper()
	s := &script{t: t, commands: make(chan wire.Command), events: make(chan wire.Event, 10000)}
	s.child = &child{
		order: order, client: client, commands: s.commands,
		events: newEventPipe(eventLines(s.hear)), redact: newRedactor(wire.Order{}), log: slog.New(slog.DiscardHandler), quiet: slog.New(slog.DiscardHandler),
	}
	t.Cleanup(func() { s.child.events.close(patience) })
	return s
}

// hear gets a line of events.
func (s *script) hear(line []byte) {
	var e wire.Event
	if err := json.Unmarshal(line, &e); err != nil {
		s.t.Error(err)
	}
	select {
	case s.events <- e:
	default: // nobody looks
	}
}

// eventLines is a function that gets what is written.
type eventLines func(line []byte)

func (f eventLines) Write(line []byte) (int, error) {
	f(line)
	return len(line), nil
}

// inBubble runs a parallel test with time of its own: it does not depend on that of the machine.
func inBubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, test)
}

// await returns the next event for which ok.
func (s *script) await(what string, ok func(wire.Event) bool) wire.Event {
	s.t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case e := <-s.events:
			if ok(e) {
				return e
			}
		case <-timer.C:
			s.t.Fatalf("no %s", what)
		}
	}
}

// restored runs a restore.
func restored(t *testing.T, client litestream.ReplicaClient, order wire.Order) (path string, done wire.Event) {
	t.Helper()
	order.Output = filepath.Join(t.TempDir(), "copy.db")
	return order.Output, newScript(t, client, order).restore(context.Background())
}

// flip changes a bit of a file, and returns what undoes that.
func flip(t *testing.T, path string, at int64) (undo func()) {
	t.Helper()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(good)
	bad[at] ^= 1 << (at % 8)
	return overwrite(t, path, bad)
}

// overwrite changes a file, and returns what undoes that.
func overwrite(t *testing.T, path string, content []byte) (undo func()) {
	t.Helper()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	put := func(b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(content)
	return func() { put(good) }
}

// only returns the text of a directory listing, for messages.
func only(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

var _ io.Reader = (*objectReader)(nil)
