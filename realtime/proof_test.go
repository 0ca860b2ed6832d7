package realtime_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/realtime"
	"github.com/bedplate/bedplate/sqlite"
)

const proofSchema = `CREATE TABLE note (id INTEGER PRIMARY KEY, n INTEGER NOT NULL) STRICT`

// TestNothingIsMissed is the claim of this package as a test: many clients
// that come and go, while two processes write, transactions are rolled back,
// the log is pruned and the server is restarted. For each client what it was
// given and the gaps that it was told of make up exactly what was committed.
func TestNothingIsMissed(t *testing.T) {
	t.Parallel()
	if testing.Short() && !raceEnabled {
		t.Skip("runs with the race detector, and without it in full runs")
	}
	const clients, rounds, perRound = 200, 8, 120
	path := filepath.Join(t.TempDir(), "proof.db")
	site := newProofSite(t, path)
	other := startWriter(t, path)

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	sealer, err := site.log.Sealer(t.Context(), site.head(t).Epoch)
	if err != nil {
		t.Fatal(err)
	}
	open := func(id string) int64 {
		seq, ok := sealer.Open(id)
		if !ok {
			t.Errorf("id %q", id)
		}
		return seq
	}
	var away gate
	followers := make([]*follower, clients)
	for i := range followers {
		followers[i] = &follower{open: open, cuts: &cutter{site: site, rand: rand.New(rand.NewPCG(uint64(i), 7))}}
		if i%4 == 0 {
			followers[i].cuts.away = &away
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			followers[i].follow(ctx)
		}()
	}
	waitUntil(t, func() bool {
		return !slices.ContainsFunc(followers, func(f *follower) bool { return f.position() == 0 })
	})
	start := site.head(t)

	for round := range rounds {
		var writers sync.WaitGroup
		writers.Add(1)
		go func() {
			defer writers.Done()
			other.write(t, perRound)
		}()
		for i := range perRound {
			site.write(t, i)
		}
		writers.Wait()
		switch round {
		case 2, 5:
			site.prune(t, 40)
			away.open()
		case 3:
			site.restart(t)
		}
	}
	away.leaveOpen()
	ledger := site.collect(t)
	end := site.head(t)
	waitUntil(t, func() bool {
		return !slices.ContainsFunc(followers, func(f *follower) bool { return f.position() != end.Seq })
	})
	cancel()
	wg.Wait()

	var delivered, gaps, missed, cuts int
	for i, f := range followers {
		delivered += len(f.got)
		gaps += len(f.gaps)
		cuts += int(f.cuts.n.Load())
		n, err := f.audit(ledger, start.Seq)
		if err != nil {
			t.Errorf("client %d: %v", i, err)
		}
		missed += n
	}
	t.Logf("%d changes, %d clients, %d cuts: %d delivered, %d in %d announced gaps", len(ledger), clients, cuts, delivered, missed, gaps)
	if cuts < clients {
		t.Errorf("only %d connections were cut", cuts)
	}
	if gaps == 0 {
		t.Error("nobody was behind what was pruned")
	}
}

// A follower is a client that keeps all it is told.
type follower struct {
	cuts *cutter
	open func(id string) (seq int64)

	mu   sync.Mutex // guards what follows
	seq  int64      // behind what was dealt with
	got  []received
	gaps [][2]int64 // behind, up to
	errs []error
}

type received struct {
	seq  int64
	data string
}

func (f *follower) position() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seq
}

func (f *follower) follow(ctx context.Context) {
	tr := &http.Transport{DialContext: f.cuts.dial, DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	err := realtime.Subscribe(ctx, realtime.SubscribeOptions{
		URL: "http://proof.test", API: "notes", Client: &http.Client{Transport: tr},
		MinBackoff: 5 * time.Millisecond, MaxBackoff: 200 * time.Millisecond,
		Position: func(id string) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.seq = f.open(id)
		},
		Logger: quiet(),
	}, func(e realtime.Event) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		before, seq := f.seq, f.open(e.ID)
		f.seq = seq
		if e.Op == realtime.OpGap {
			f.gaps = append(f.gaps, [2]int64{before, seq})
			return nil
		}
		f.got = append(f.got, received{seq, string(e.Op) + " " + string(e.Data)})
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		f.errs = append(f.errs, err)
	}
}

// audit compares with what was committed behind start, by seq, and returns how
// much was in gaps.
func (f *follower) audit(ledger map[int64]string, start int64) (missed int, err error) {
	if len(f.errs) > 0 {
		return 0, f.errs[0]
	}
	seen := map[int64]bool{}
	last := int64(0)
	for _, r := range f.got {
		if r.seq <= last {
			return 0, fmt.Errorf("change %d after %d", r.seq, last)
		}
		last = r.seq
		seen[r.seq] = true
		if ledger[r.seq] != r.data {
			return 0, fmt.Errorf("change %d is %s, want %s", r.seq, r.data, ledger[r.seq])
		}
	}
	for seq := range ledger {
		gap := slices.ContainsFunc(f.gaps, func(g [2]int64) bool { return g[0] < seq && seq <= g[1] })
		switch {
		case seq <= start:
		case seen[seq] && gap:
			return 0, fmt.Errorf("change %d was delivered and is in a gap", seq)
		case gap:
			missed++
		case !seen[seq]:
			return 0, fmt.Errorf("change %d is missing", seq)
		}
	}
	return missed, nil
}

// A cutter makes connections to a site that break after a random number of
// bytes, in the middle of whatever is under way.
type cutter struct {
	site *proofSite

	mu   sync.Mutex
	rand *rand.Rand
	n    atomic.Int64
	away *gate // behind it connections stay away for long, at times; nil: never
}

// A gate holds up whoever comes until it is opened the next time.
type gate struct {
	mu   sync.Mutex
	next chan struct{}
	stay bool
}

func (g *gate) pass() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.next == nil {
		g.next = make(chan struct{})
		if g.stay {
			close(g.next)
		}
	}
	return g.next
}

func (g *gate) open() {
	next := g.pass()
	g.mu.Lock()
	defer g.mu.Unlock()
	if (<-chan struct{})(g.next) == next && !g.stay {
		close(g.next)
		g.next = nil
	}
}

func (g *gate) leaveOpen() {
	g.open()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stay = true
	if g.next != nil {
		close(g.next)
	}
}

func (c *cutter) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	c.mu.Lock()
	left, long := 600+c.rand.IntN(20_000), c.rand.IntN(4) == 0
	c.mu.Unlock()
	if long && c.away != nil && c.n.Load() > 0 {
		select {
		case <-c.away.pass():
		case <-ctx.Done():
		}
	}
	addr := c.site.addr.Load()
	if addr == nil {
		return nil, syscall.ECONNREFUSED
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, (*addr).String())
	if err != nil {
		return nil, err
	}
	return &cutConn{Conn: conn, left: left, n: &c.n}, nil
}

type cutConn struct {
	net.Conn
	left int
	n    *atomic.Int64
}

func (c *cutConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		c.n.Add(1)
		_ = c.Conn.Close()
		return 0, io.ErrUnexpectedEOF
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// A proofSite is a server that can be restarted.
type proofSite struct {
	path string
	addr atomic.Pointer[net.Addr] // nil while it is stopped

	db     *sqlite.DB
	log    *sqlite.ChangeLog
	svc    *realtime.Service
	srv    *http.Server
	ledger map[int64]string
	upTo   sqlite.Position // collected
}

func newProofSite(t *testing.T, path string) *proofSite {
	s := &proofSite{path: path, ledger: map[int64]string{}}
	s.start(t, proofSchema)
	t.Cleanup(func() { s.stop(t) })
	return s
}

func (s *proofSite) start(t *testing.T, schema string) {
	t.Helper()
	s.db = sqlitetest.OpenFile(t, s.path, schema, sqlite.Options{ChangeLog: sqlite.ChangeLogOptions{MaxRows: -1, MaxBytes: -1, MaxAge: -1}})
	s.log = mainLog(t, s.db, "note")
	s.svc = newService(t, s.db, realtime.Config{Retry: 5 * time.Millisecond, Subscribe: views{"notes": &testView{table: "note"}}.subscribe})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.srv = &http.Server{Handler: routes(s.svc), ReadHeaderTimeout: time.Minute}
	s.srv.RegisterOnShutdown(s.svc.Drain)
	go func() { _ = s.srv.Serve(ln) }()
	addr := ln.Addr()
	s.addr.Store(&addr)
}

func (s *proofSite) stop(t *testing.T) {
	t.Helper()
	s.addr.Store(nil)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := errors.Join(s.srv.Shutdown(ctx), s.svc.Close(), s.db.Close()); err != nil {
		t.Error(err)
	}
}

func (s *proofSite) restart(t *testing.T) {
	t.Helper()
	s.stop(t)
	s.start(t, "")
}

func (s *proofSite) head(t *testing.T) sqlite.Position {
	t.Helper()
	head, err := s.log.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return head
}

// write makes one of the things that happen to rows.
func (s *proofSite) write(t *testing.T, i int) {
	t.Helper()
	ctx := t.Context()
	exec := func(tx *sqlite.Tx, query string, args ...any) error {
		_, err := tx.ExecContext(ctx, query, args...)
		return err
	}
	err := s.db.Update(ctx, func(tx *sqlite.Tx) error {
		switch i % 6 {
		case 0, 1, 2:
			return exec(tx, "INSERT INTO note (n) VALUES (?)", i)
		case 3:
			return exec(tx, "UPDATE note SET n = n + 1 WHERE id IN (SELECT id FROM note ORDER BY id DESC LIMIT 2)")
		case 4:
			return exec(tx, "DELETE FROM note WHERE id = (SELECT min(id) FROM note)")
		default:
			return errors.Join(exec(tx, "INSERT INTO note (n) VALUES (-1)"), errUndo)
		}
	})
	if err != nil && !errors.Is(err, errUndo) {
		t.Error(err)
	}
}

var errUndo = errors.New("undo")

// collect reads what was committed since the last call.
func (s *proofSite) collect(t *testing.T) map[int64]string {
	t.Helper()
	for more := true; more; {
		err := s.db.Read(t.Context(), func(r *sqlite.Reader) error {
			if s.upTo.Epoch == "" {
				s.upTo = sqlite.Position{Epoch: s.head(t).Epoch}
			}
			page, err := s.log.Page(r, s.upTo, 1<<62, 1000)
			if err != nil {
				return err
			}
			if page.Gap {
				return errors.New("the ledger has a gap")
			}
			more, s.upTo = len(page.Changes) > 0, page.End
			for _, c := range page.Changes {
				image, op := c.New, "Insert"
				switch c.Op {
				case sqlite.RowUpdate:
					op = "Update"
				case sqlite.RowDelete:
					image, op = c.Old, "Delete"
				case sqlite.RowInsert:
				default:
					continue
				}
				s.ledger[c.Seq] = fmt.Sprintf(`%s {"id":%d,"n":%d}`, op, image[0], image[1])
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return s.ledger
}

// prune leaves about keep changes in the log.
func (s *proofSite) prune(t *testing.T, keep int64) {
	t.Helper()
	s.collect(t)
	err := s.db.Update(t.Context(), func(tx *sqlite.Tx) error {
		_, err := tx.ExecContext(t.Context(), "UPDATE _change_state SET floor = max(floor, (SELECT max(seq) FROM _change) - ?)", keep)
		if err == nil {
			_, err = tx.ExecContext(t.Context(), "DELETE FROM _change WHERE seq <= (SELECT floor FROM _change_state)")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A writer is another process that writes to the same file.
type writer struct {
	in  io.WriteCloser
	out *bufio.Reader
}

const writerEnv = "BEDPLATE_TEST_WRITER"

func startWriter(t *testing.T, path string) *writer {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^$")
	cmd.Env = append(os.Environ(), writerEnv+"="+path)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("writing process: %v", err)
		}
	})
	return &writer{in, bufio.NewReader(out)}
}

func (w *writer) write(t *testing.T, n int) {
	if _, err := fmt.Fprintln(w.in, n); err != nil {
		t.Error(err)
		return
	}
	if line, err := w.out.ReadString('\n'); err != nil || line != "done\n" {
		t.Errorf("writing process: %q, %v", line, err)
	}
}

// runWriter is the main function of that process.
func runWriter(path string) error {
	ctx := context.Background()
	db, err := sqlite.Open(ctx, path, sqlite.Options{})
	if err != nil {
		return err
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			return err
		}
		for i := range n {
			if err := db.Write(ctx, sqlite.Stmt{SQL: "INSERT INTO note (n) VALUES (" + strconv.Itoa(1_000_000+i) + ")"}); err != nil {
				return err
			}
		}
		fmt.Println("done")
	}
	return db.Close()
}

func decode[T any](t *testing.T, text []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}
