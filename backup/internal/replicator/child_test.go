package replicator_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
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

	_ "github.com/bedplate/bedplate/backup/file"
	"github.com/bedplate/bedplate/backup/internal/replicator"
	"github.com/bedplate/bedplate/backup/internal/wire"
	_ "github.com/bedplate/bedplate/sqlite"
)

// The test binary is its own replicator, also for a kind of replica with faults.
func init() { replicator.Run("faulty", replicator.Scheme{Client: newFaulty}) }

// patience is how long anything may take here.
const patience = 2 * time.Minute

// A childProcess is a replicator that the test talks to as a program would.
type childProcess struct {
	t        *testing.T
	cmd      *exec.Cmd
	commands *os.File

	mu     sync.Mutex
	events []wire.Event
	news   chan struct{}
	ended  chan struct{}
	stderr strings.Builder
	lastID int64
}

// A setting changes how a child is started.
type setting struct {
	env   string // the value of wire.Env; default: the right one
	name  string // argv[0]
	line  []byte // instead of the order
	nonce string
}

func startChild(t *testing.T, o wire.Order, s setting) *childProcess {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	commandsOut, commandsIn, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	eventsOut, eventsIn, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	nonce := rand.Text()
	scheme, _, _ := strings.Cut(o.URL, ":")
	if s.env == "" {
		s.env = fmt.Sprintf("%s:%d:%s", scheme, os.Getpid(), nonce)
	}
	if s.name == "" {
		s.name = "child"
	}
	if s.nonce == "" {
		s.nonce = nonce
	}
	o.Nonce = s.nonce
	if o.Protocol == 0 {
		o.Protocol = wire.Protocol
	}
	c := &childProcess{t: t, commands: commandsIn, news: make(chan struct{}, 1), ended: make(chan struct{})}
	c.cmd = &exec.Cmd{Path: exe, Args: []string{s.name, "-test.run=^$"}, Stderr: &c.stderr}
	c.cmd.Env = append(os.Environ(), wire.Env+"="+s.env)
	c.cmd.ExtraFiles = []*os.File{commandsOut, eventsIn}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = commandsOut.Close(), eventsIn.Close()
	go func() {
		defer close(c.ended)
		lines := bufio.NewScanner(eventsOut)
		lines.Buffer(nil, 64<<20)
		for lines.Scan() {
			var e wire.Event
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				e = wire.Event{Kind: "garbage", Text: lines.Text()}
			}
			c.mu.Lock()
			c.events = append(c.events, e)
			c.mu.Unlock()
			select {
			case c.news <- struct{}{}:
			default:
			}
		}
		_ = c.cmd.Wait()
		_ = eventsOut.Close()
	}()
	t.Cleanup(func() {
		_ = c.commands.Close()
		_ = c.cmd.Process.Kill()
		<-c.ended
		if t.Failed() {
			for _, e := range c.all() {
				line, _ := json.Marshal(e)
				t.Logf("%s", line)
			}
			t.Log(c.stderr.String())
		}
	})
	line := s.line
	if line == nil {
		if line, err = json.Marshal(o); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.commands.Write(append(line, '\n')); err != nil {
		t.Log(err) // it has ended, which the test will see
	}
	return c
}

func (c *childProcess) all() []wire.Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]wire.Event(nil), c.events...)
}

// await returns the first event that fits.
func (c *childProcess) await(what string, fits func(e wire.Event) bool) wire.Event {
	c.t.Helper()
	timeout := time.After(patience)
	for next := 0; ; {
		events := c.all()
		for ; next < len(events); next++ {
			if fits(events[next]) {
				return events[next]
			}
		}
		select {
		case <-c.news:
		case <-c.ended:
			if next < len(c.all()) {
				continue
			}
			c.t.Fatalf("the child ended before: %s", what)
		case <-timeout:
			c.t.Fatalf("waited in vain: %s", what)
		}
	}
}

func (c *childProcess) awaitKind(kind wire.Kind) wire.Event {
	c.t.Helper()
	return c.await(string(kind), func(e wire.Event) bool { return e.Kind == kind })
}

// call sends a command and returns the reply.
func (c *childProcess) call(command wire.Command) wire.Event {
	c.t.Helper()
	c.lastID++
	command.ID = c.lastID
	line, err := json.Marshal(command)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.commands.Write(append(line, '\n')); err != nil {
		c.t.Fatal(err)
	}
	return c.await("reply to "+string(command.Op), func(e wire.Event) bool { return e.Kind == wire.Reply && e.ID == command.ID })
}

// end closes the pipe, as the end of the program does, and returns the last event.
func (c *childProcess) end() wire.Event {
	c.t.Helper()
	if err := c.commands.Close(); err != nil {
		c.t.Fatal(err)
	}
	return c.done()
}

func (c *childProcess) done() wire.Event {
	c.t.Helper()
	e := c.awaitKind(wire.Done)
	select {
	case <-c.ended:
	case <-time.After(patience):
		c.t.Fatal("the child does not exit")
	}
	return e
}

// A source is a database that is replicated, and where to.
type source struct {
	t       *testing.T
	db      *sql.DB
	order   wire.Order
	replica string // directory
	token   []byte
	number  uint64
}

func newSource(t *testing.T) *source {
	t.Helper()
	dir := t.TempDir()
	s := &source{t: t, replica: filepath.Join(dir, "replica"), token: []byte("0123456789abcdef")}
	s.order = wire.Order{
		Mode: wire.Replicate, URL: "file://" + s.replica, Dir: filepath.Join(dir, "state"),
		Database: filepath.Join(dir, "app.db"), SyncInterval: 50 * time.Millisecond,
		SnapshotInterval: time.Hour, Retention: time.Hour, FinalSync: patience / 2,
	}
	db, err := sql.Open("bedplate", s.order.Database+"?_journal_mode=WAL&_busy_timeout=10000&_synchronous=NORMAL")
	if err != nil {
		t.Fatal(err)
	}
	s.db = db
	t.Cleanup(func() { _ = db.Close() })
	s.exec("CREATE TABLE canary (id INTEGER PRIMARY KEY, b BLOB)")
	s.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")
	return s
}

func (s *source) exec(query string, args ...any) {
	s.t.Helper()
	if _, err := s.db.Exec(query, args...); err != nil {
		s.t.Fatal(err)
	}
}

// sing writes the next canary.
func (s *source) sing() {
	s.t.Helper()
	s.number++
	s.exec("INSERT INTO canary (id, b) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET b = excluded.b",
		binary.BigEndian.AppendUint64(append([]byte(nil), s.token...), s.number))
}

func (s *source) prove(c *childProcess) wire.Event {
	s.t.Helper()
	return c.call(wire.Command{Op: wire.Prove, Token: s.token, Number: s.number, Deadline: time.Now().Add(patience / 2)})
}

// replicate starts a child and waits until it is ready.
func (s *source) replicate() *childProcess {
	s.t.Helper()
	c := startChild(s.t, s.order, setting{})
	if !s.order.Known {
		c.awaitKind(wire.Vacant)
		if e := c.call(wire.Command{Op: wire.Go}); e.Error != "" {
			s.t.Fatal(e.Error)
		}
		s.order.Known = true
	}
	c.awaitKind(wire.Ready)
	return c
}

// objects returns the files of a level of the replica, oldest first.
func (s *source) objects(level int) []string {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(s.replica, "ltx", fmt.Sprint(level), "*.ltx"))
	if err != nil {
		s.t.Fatal(err)
	}
	return files
}

// newest returns the newest object of level 0.
func (s *source) newest() string {
	s.t.Helper()
	files := s.objects(0)
	if len(files) == 0 {
		s.t.Fatal("the replica is empty")
	}
	return files[len(files)-1]
}

// rows restores the replica and counts the rows of t.
func (s *source) rows() int {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out := filepath.Join(s.t.TempDir(), "restored.db")
	opt := litestream.NewRestoreOptions()
	opt.OutputPath = out
	if err := litestream.NewReplicaWithClient(nil, file.NewReplicaClient(s.replica)).Restore(ctx, opt); err != nil {
		s.t.Fatal(err)
	}
	db, err := sql.Open("bedplate", out)
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	var n int
	if err := db.QueryRow("SELECT count(*) FROM t").Scan(&n); err != nil {
		s.t.Fatal(err)
	}
	var ok string
	if err := db.QueryRow("PRAGMA integrity_check").Scan(&ok); err != nil || ok != "ok" {
		s.t.Fatal(ok, err)
	}
	return n
}

// A faultyClient is a replica in a directory where files with the names of faults have an effect.
type faultyClient struct {
	litestream.ReplicaClient
	dir string
}

func newFaulty(url string) (litestream.ReplicaClient, error) {
	dir := strings.TrimPrefix(url, "faulty://")
	if strings.HasSuffix(dir, "/panic") {
		panic("the client has a bug, and tells s3cr3t")
	}
	return &faultyClient{file.NewReplicaClient(dir), dir}, nil
}

// fault has the effect that is wanted.
func (f *faultyClient) fault(ctx context.Context, names ...string) error {
	for _, name := range names {
		text, err := os.ReadFile(f.dir + "." + name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case name == "hang":
			<-ctx.Done()
			return ctx.Err()
		default:
			return errors.New(string(text))
		}
	}
	return nil
}

func (f *faultyClient) LTXFiles(ctx context.Context, level int, seek ltx.TXID, exact bool) (ltx.FileIterator, error) {
	if err := f.fault(ctx, "fail", "hang"); err != nil {
		return nil, err
	}
	return f.ReplicaClient.LTXFiles(ctx, level, seek, exact)
}

func (f *faultyClient) WriteLTXFile(ctx context.Context, level int, first, last ltx.TXID, r io.Reader) (*ltx.FileInfo, error) {
	if err := f.fault(ctx, "fail", "failput", "hang"); err != nil {
		return nil, err
	}
	if err := f.fault(ctx, "half"); err != nil {
		text, readErr := io.ReadAll(r)
		name := filepath.Join(f.dir, "ltx", fmt.Sprint(level), ltx.FormatFilename(first, last))
		return nil, errors.Join(err, readErr, os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, text[:len(text)/2], 0o600))
	}
	return f.ReplicaClient.WriteLTXFile(ctx, level, first, last, r)
}

// setFault makes requests to a faulty replica fail with the text, until it is removed.
func (s *source) setFault(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(s.replica+"."+name, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *source) clearFault(name string) {
	s.t.Helper()
	if err := os.Remove(s.replica + "." + name); err != nil {
		s.t.Fatal(err)
	}
}

func faulty(s *source) *source {
	s.order.URL = "faulty://" + s.replica
	return s
}
