package replicator

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/benbjohnson/litestream/file"
	"github.com/superfly/ltx"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

// follow starts a follower. What it returns stops it.
func follow(t *testing.T, client litestream.ReplicaClient, output string) (*script, func() wire.Event) {
	t.Helper()
	c := newScript(t, client, wire.Order{Output: output, Interval: 10 * time.Millisecond})
	var done wire.Event
	var running sync.WaitGroup
	running.Go(func() { done = c.follow(context.Background()) })
	var once sync.Once
	stop := func() wire.Event {
		once.Do(func() {
			close(c.commands)
			running.Wait()
		})
		return done
	}
	t.Cleanup(func() { stop() })
	return c, stop
}

func isReady(e wire.Event) bool { return e.Kind == wire.Ready }

// caughtUp sends the command and returns the reply.
func caughtUp(t *testing.T, c *script, id int64) wire.Event {
	t.Helper()
	c.commands <- wire.Command{ID: id, Op: wire.CatchUp, Deadline: time.Now().Add(patience)}
	return c.await("reply", func(e wire.Event) bool { return e.Kind == wire.Reply && e.ID == id })
}

func TestFollow(t *testing.T) {
	t.Parallel()
	s := full(t)
	output := filepath.Join(t.TempDir(), "copy.db")
	c, stop := follow(t, s.client, output)
	last := s.history[len(s.history)-1]
	if e := c.await("Ready", isReady); e.TXID != uint64(last.txid) {
		t.Errorf("ready at %d, want %d", e.TXID, last.txid)
	}
	if n := look(t, output); n != last.rows {
		t.Errorf("%d rows, want %d", n, last.rows)
	}
	for i := range 10 {
		switch i {
		case 3: // grows by much, and shrinks
			s.exec("BEGIN", "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 500) INSERT INTO a SELECT 1, randomblob(3000) FROM n", "UPDATE b SET v = v + 500", "COMMIT")
			s.rows += 500
		case 5:
			s.exec("BEGIN", "DELETE FROM a WHERE rowid % 5 > 0", "UPDATE b SET v = (SELECT sum(v) FROM a)", "COMMIT", "VACUUM")
			if err := s.sql.QueryRow("SELECT v FROM b").Scan(&s.rows); err != nil {
				t.Fatal(err)
			}
		case 7:
			s.exec("CREATE TABLE more (x)", "CREATE INDEX by_v ON a (v)")
		default:
		}
		m := s.write()
		if e := caughtUp(t, c, int64(i)); e.Error != "" || e.TXID != uint64(m.txid) {
			t.Fatalf("%+v, want transaction %d", e, m.txid)
		}
		if n := look(t, output); n != m.rows {
			t.Errorf("%d rows, want %d", n, m.rows)
		}
		var pages int64
		s.must(s.sql.QueryRow("PRAGMA page_count").Scan(&pages))
		if info, err := os.Stat(output); err != nil || info.Size() != pages*4096 {
			t.Errorf("size %d, want %d pages, %v", info.Size(), pages, err)
		}
	}
	// By itself, too, and from higher levels when level 0 is gone.
	s.write()
	m := s.write()
	c.await("State", func(e wire.Event) bool {
		return e.Kind == wire.State && e.TXID == uint64(m.txid) && e.ReplicaTXID == e.TXID
	})
	if done := stop(); done.Error != "" || done.TXID != uint64(m.txid) {
		t.Errorf("%+v", done)
	}
	s.write()
	m = s.write()
	s.compact(1)
	s.remove(0, m.txid-1)
	c, stop = follow(t, s.client, output)
	if e := c.await("Ready", isReady); e.TXID >= uint64(m.txid) {
		t.Errorf("ready at %d: it has begun anew", e.TXID)
	}
	if e := caughtUp(t, c, 100); e.Error != "" || e.TXID != uint64(m.txid) || look(t, output) != m.rows {
		t.Errorf("%+v", e)
	}
	stop()
	if names := only(t, filepath.Dir(output)); names != "copy.db copy.db-txid" {
		t.Errorf("files: %s", names)
	}
	// What is left is a database like any other, with the content of the source.
	if a, b := content(t, s.path), content(t, output); a != b {
		t.Error("the contents differ")
	}
}

// content returns the rows of all tables.
func content(t *testing.T, path string) string {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var text strings.Builder
	for _, query := range []string{"SELECT v || hex(pad) FROM a ORDER BY rowid", "SELECT v FROM b", "SELECT name || coalesce(sql, '') FROM sqlite_schema"} {
		rows, err := db.Query(query)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var line string
			if err := rows.Scan(&line); err != nil {
				t.Fatal(err)
			}
			text.WriteString(line + "\n")
		}
		if err := rows.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return text.String()
}

// A tamperer is a client that changes what is read.
type tamperer struct {
	litestream.ReplicaClient

	mu     sync.Mutex
	tamper func(level int, minTXID ltx.TXID, content []byte) []byte
}

func (c *tamperer) set(tamper func(level int, minTXID ltx.TXID, content []byte) []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tamper = tamper
}

func (c *tamperer) OpenLTXFile(ctx context.Context, level int, minTXID, maxTXID ltx.TXID, offset, size int64) (io.ReadCloser, error) {
	body, err := c.ReplicaClient.OpenLTXFile(ctx, level, minTXID, maxTXID, offset, size)
	c.mu.Lock()
	tamper := c.tamper
	c.mu.Unlock()
	if err != nil || tamper == nil {
		return body, err
	}
	defer body.Close()
	content, err := io.ReadAll(body)
	return io.NopCloser(bytes.NewReader(tamper(level, minTXID, content))), err
}

func TestFollowDamaged(t *testing.T) {
	t.Parallel()
	s := full(t)
	output := filepath.Join(t.TempDir(), "copy.db")
	client := &tamperer{ReplicaClient: s.client}
	c, _ := follow(t, client, output)
	c.await("Ready", isReady)
	good := s.write()
	if e := caughtUp(t, c, 1); e.TXID != uint64(good.txid) {
		t.Fatalf("%+v", e)
	}
	before := content(t, output)
	for i, at := range []int{0, 20, 101, 150, -1, -30} {
		client.set(func(level int, minTXID ltx.TXID, content []byte) []byte {
			if level == 0 && minTXID == good.txid+1 {
				content[(at+len(content))%len(content)] ^= 1
			}
			return content
		})
		if i == 0 {
			s.write()
		}
		if e := caughtUp(t, c, int64(2+i)); e.Code != wire.CodeCorrupt || e.TXID != uint64(good.txid) {
			t.Errorf("flipped at %d: %+v", at, e)
		}
		if content(t, output) != before {
			t.Fatal("the copy has changed")
		}
	}
	e := c.await("State", func(e wire.Event) bool { return e.Kind == wire.State && e.Error != "" })
	if e.Code != wire.CodeCorrupt || e.TXID != uint64(good.txid) || e.ReplicaTXID <= e.TXID {
		t.Errorf("%+v", e)
	}
	// An object of a higher level has the same transactions.
	s.compact(1)
	if e := caughtUp(t, c, 10); e.Error != "" || e.TXID != uint64(good.txid)+1 {
		t.Errorf("%+v", e)
	}
	// A snapshot that goes further, too.
	client.set(func(level int, _ ltx.TXID, content []byte) []byte {
		if level < 9 {
			content[110] ^= 1
		}
		return content
	})
	s.write()
	m := s.write()
	if e := caughtUp(t, c, 11); e.Code != wire.CodeCorrupt {
		t.Errorf("%+v", e)
	}
	s.snapshot()
	if e := caughtUp(t, c, 12); e.Error != "" || e.TXID != uint64(m.txid) || look(t, output) != m.rows {
		t.Errorf("%+v", e)
	}
}

// When what comes next was deleted before it was seen, a new copy is made.
func TestFollowPruned(t *testing.T) {
	t.Parallel()
	s := full(t)
	output := filepath.Join(t.TempDir(), "copy.db")
	c, stop := follow(t, s.client, output)
	c.await("Ready", isReady)
	stop()
	for range 5 {
		s.write()
	}
	s.snapshot()
	m := s.write()
	for level := range 3 {
		s.remove(level, m.txid-1)
	}
	c, _ = follow(t, s.client, output)
	c.await("Ready", isReady)
	if e := c.await("Ready", isReady); e.TXID != uint64(m.txid) || look(t, output) != m.rows {
		t.Errorf("%+v", e)
	}
}

// A replica that has less than the copy changes nothing, until it has more.
func TestFollowReplicaLost(t *testing.T) {
	t.Parallel()
	s := full(t)
	output := filepath.Join(t.TempDir(), "copy.db")
	c, _ := follow(t, s.client, output)
	ready := c.await("Ready", isReady)
	away := s.dir + "-away"
	s.must(os.Rename(s.dir, away))
	if e := caughtUp(t, c, 1); e.Code != wire.CodeNoBackup || e.TXID != ready.TXID {
		t.Errorf("empty replica: %+v", e)
	}
	other := newSource(t)
	one := other.write()
	s.must(os.Rename(other.dir, s.dir))
	if e := caughtUp(t, c, 2); e.Error == "" || e.TXID != ready.TXID {
		t.Errorf("another replica: %+v", e)
	}
	if n := look(t, output); n == one.rows {
		t.Error("the copy has changed")
	}
	s.must(os.Rename(s.dir, other.dir))
	m := one
	for uint64(m.txid) < ready.TXID+2 {
		m = other.write()
	}
	s.must(os.Rename(other.dir, s.dir))
	if e := caughtUp(t, c, 3); e.Error != "" || e.TXID != uint64(m.txid) || look(t, output) != m.rows {
		t.Errorf("it has more now: %+v", e)
	}
}

func TestFollowSizeLimit(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	s.write()
	output := filepath.Join(t.TempDir(), "copy.db")
	c := newScript(t, s.client, wire.Order{Output: output, Interval: 10 * time.Millisecond, MaxBytes: 64 << 10})
	var running sync.WaitGroup
	running.Go(func() { c.follow(context.Background()) })
	defer running.Wait()
	defer close(c.commands)
	ready := c.await("Ready", isReady)
	for range 10 {
		s.write()
	}
	if e := caughtUp(t, c, 1); e.Code != wire.CodeTooLarge || e.TXID < ready.TXID {
		t.Errorf("%+v", e)
	}
	look(t, output)
}

// A copy that somebody else has changed is not gone on with.
func TestFollowChanged(t *testing.T) {
	t.Parallel()
	s := full(t)
	output := filepath.Join(t.TempDir(), "copy.db")
	c, stop := follow(t, s.client, output)
	c.await("Ready", isReady)
	stop()
	db, err := sql.Open("sqlite", output)
	s.must(err)
	for range 2 {
		_, err = db.Exec("UPDATE b SET v = v + 1")
		s.must(err)
	}
	s.must(db.Close())
	m := s.write()
	c, _ = follow(t, s.client, output)
	if e := c.await("Ready", isReady); e.TXID != uint64(m.txid) || look(t, output) != m.rows {
		t.Errorf("%+v", e)
	}
}

func TestFollowNothingYet(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	output := filepath.Join(t.TempDir(), "copy.db")
	c, stop := follow(t, s.client, output)
	if e := c.await("State", func(e wire.Event) bool { return e.Kind == wire.State && e.Error != "" }); e.Code != wire.CodeNoBackup {
		t.Errorf("%+v", e)
	}
	m := s.write()
	if e := c.await("Ready", isReady); e.TXID != uint64(m.txid) {
		t.Errorf("%+v", e)
	}
	stop()
}

// readerEnv makes a process of the test a reader of the database that it names.
const readerEnv = "REPLICATOR_TEST_READER"

// TestFollowReader is another process where it is told to be.
func TestFollowReader(t *testing.T) {
	path := os.Getenv(readerEnv)
	if path == "" {
		t.Skip("it is for TestFollowReaders")
	}
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro&_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	fmt.Println("reading")
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	reads, last, refused := 0, -1, 0
	for {
		select {
		case <-over:
			fmt.Println("reads", reads)
			return
		default:
		}
		var a, b, n int
		err := db.QueryRow("SELECT (SELECT sum(v) FROM a), (SELECT v FROM b), (SELECT count(length(pad)) FROM a)").Scan(&a, &b, &n)
		// SQLite looks for the journal, then for the writer's lock: between two transactions it can take
		// the journal of the one for what a crash has left, which only a handle that may write rolls back.
		if e := (*sqlite.Error)(nil); errors.As(err, &e) && e.Code() == sqlite3.SQLITE_READONLY_ROLLBACK && refused < 1000 {
			refused++
			continue
		}
		if err != nil || a != b || n < last {
			fmt.Println("torn", a, b, n, last, err)
			return
		}
		reads, last, refused = reads+1, n, 0
	}
}

// Readers in other processes see whole states only.
func TestFollowReaders(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	s.write()
	output := filepath.Join(t.TempDir(), "copy.db")
	c, stop := follow(t, s.client, output)
	c.await("Ready", isReady)
	type reader struct {
		cmd *exec.Cmd
		in  io.Closer
		out *bufio.Reader
	}
	var readers []reader
	for range 2 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestFollowReader$")
		cmd.Env = append(os.Environ(), readerEnv+"="+output)
		in, err := cmd.StdinPipe()
		s.must(err)
		out, err := cmd.StdoutPipe()
		s.must(err)
		s.must(cmd.Start())
		r := reader{cmd, in, bufio.NewReader(out)}
		if line, err := r.out.ReadString('\n'); line != "reading\n" {
			t.Fatal(line, err)
		}
		readers = append(readers, r)
	}
	var m moment
	for i := range 60 {
		m = s.write()
		if i%20 == 19 {
			s.compact(1)
			stop() // and on again
			c, stop = follow(t, s.client, output)
		}
	}
	if e := caughtUp(t, c, 1); e.Error != "" || e.TXID != uint64(m.txid) {
		t.Errorf("%+v", e)
	}
	for _, r := range readers {
		s.must(r.in.Close())
		line, err := r.out.ReadString('\n')
		if !strings.HasPrefix(line, "reads ") {
			t.Error(line, err)
		}
		t.Log(strings.TrimSpace(line))
		_, _ = io.Copy(io.Discard, r.out)
		s.must(r.cmd.Wait())
	}
}

// rounds is how often a follower is killed.
var rounds = flag.Int("rounds", 5, "how often a follower is killed")

// followerEnv makes a process of the test a follower: directory of the replica, and output.
const followerEnv = "REPLICATOR_TEST_FOLLOWER"

// TestFollowProcess is another process where it is told to be.
func TestFollowProcess(t *testing.T) {
	dir, output, ok := strings.Cut(os.Getenv(followerEnv), "\n")
	if !ok {
		t.Skip("it is for TestFollowKilled")
	}
	c := newScript(t, file.NewReplicaClient(dir), wire.Order{Output: output, Interval: time.Millisecond})
	c.follow(context.Background())
}

// Whenever a follower is killed, readers see whole states, and the next one goes on.
func TestFollowKilled(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	s.write()
	output := filepath.Join(t.TempDir(), "copy.db")
	c, stop := follow(t, s.client, output)
	c.await("Ready", isReady)
	stop()
	db, err := sql.Open("sqlite", "file:"+output+"?_pragma=busy_timeout(10000)") // not mode=ro: it rolls back what was left
	s.must(err)
	defer db.Close()
	seen := 0
	for round := range *rounds {
		began := seen
		cmd := exec.Command(os.Args[0], "-test.run=^TestFollowProcess$")
		cmd.Env = append(os.Environ(), followerEnv+"="+s.dir+"\n"+output)
		s.must(cmd.Start())
		for killed := false; ; {
			s.write()
			var a, b, n int
			s.must(db.QueryRow("SELECT (SELECT sum(v) FROM a), (SELECT v FROM b), (SELECT count(length(pad)) FROM a)").Scan(&a, &b, &n))
			if a != b || n < seen {
				t.Fatalf("torn: %d, %d, %d rows after %d", a, b, n, seen)
			}
			if killed {
				break
			}
			if n > began+round%7 {
				s.must(cmd.Process.Kill())
				_ = cmd.Wait()
				killed = true
			}
			seen = n
		}
	}
	s.must(db.Close())
	m := s.write()
	c, stop = follow(t, s.client, output)
	if e := c.await("Ready", isReady); e.TXID >= uint64(m.txid) {
		t.Errorf("ready at %d: it has begun anew", e.TXID)
	}
	if e := caughtUp(t, c, 1); e.Error != "" || e.TXID != uint64(m.txid) {
		t.Errorf("%+v", e)
	}
	stop()
	if a, b := content(t, s.path), content(t, output); a != b {
		t.Error("the contents differ")
	}
}
