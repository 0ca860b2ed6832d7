package replicator

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

// lineOf is a script of a machine that replicates from a directory where Litestream has begun.
func lineOf(t *testing.T, o *leaseObject, owner, dir string) *script {
	t.Helper()
	s := leaseScript(t, o, owner, false)
	s.order.Mode, s.order.Dir = wire.Replicate, dir
	if err := os.MkdirAll(stateDir(s.order), 0o700); err != nil {
		t.Fatal(err)
	}
	return s
}

// A lease that somebody else was faster to get was not held, also when that one has ended.
func TestLeaseOnlyIntended(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // a lease that is taken for another's is waited for
		defer cancel()
		for _, owner := range []string{"two", ""} {
			o := &leaseObject{}
			dir := t.TempDir()
			s := lineOf(t, o, "one", dir)
			_, release, err := s.holdLease(ctx)
			if err != nil {
				t.Fatal(err)
			}
			release()
			h, err := s.newHolder(0)
			if err != nil {
				t.Fatal(err)
			}
			now, err := h.read(ctx)
			if err != nil {
				t.Fatal(err)
			}
			o.put(owner, now.lease.Generation+1, time.Hour)
			if _, err := h.replace(ctx, now); !lostRace(err) {
				t.Fatal(err)
			}
			if _, _, err := lineOf(t, o, "one", dir).holdLease(ctx); codeOf(err) != wire.CodeOtherOwner {
				t.Errorf("held by %q: %v", owner, err)
			}
		}
	})
}

// The generations of leases go on when what told about them was deleted.
func TestLeaseGenerationsGoOn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		o := &leaseObject{}
		dir := t.TempDir()
		for generation := int64(1); generation < 4; generation++ {
			_, release, err := lineOf(t, o, "one", dir).holdLease(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := o.stands().Generation; got != generation {
				t.Errorf("generation %d, want %d", got, generation)
			}
			release()
			if generation == 2 {
				o.change(func() { o.lease = nil })
			}
		}
		s := lineOf(t, o, "one", dir)
		hold(t, s)
		for _, deleted := range []func(){
			func() { o.lease = nil },
			func() { o.set("one", 1, time.Hour) }, // and made again, but the process was not told
		} {
			before := o.stands().Generation
			o.change(deleted)
			await(t, "lease with a new generation", func() bool { return o.stands().Generation > before })
		}
		await(t, "memory", func() bool {
			h, err := s.newHolder(0)
			if err != nil {
				t.Fatal(err)
			}
			l, _, err := h.remembered()
			return err == nil && l.Generation == o.stands().Generation
		})
	})
}

// Who cannot renew the lease stops writing when others may have it, and goes on when it can again.
func TestLeaseNotRenewed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		o := &leaseObject{}
		s := leaseScript(t, o, "one", false)
		lost := hold(t, s)
		mayWrite := func() error {
			r, err := s.gate.begin(t.Context(), true)
			if err == nil {
				_ = r.end(nil)
			}
			return err
		}
		if err := mayWrite(); err != nil {
			t.Fatal(err)
		}
		o.change(func() { o.down = errors.New("down") })
		await(t, "end of writing", func() bool { return errors.Is(mayWrite(), errLapsed) })
		o.change(func() { o.down = nil })
		await(t, "writing again", func() bool { return mayWrite() == nil })
		select {
		case by := <-lost:
			t.Errorf("lost to %q", by)
		default:
		}
	})
}

func TestGateLapses(t *testing.T) {
	t.Parallel()
	for name := range requests(&silentStore{}) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			writes := name == "put" || name == "delete"
			c, g := bound(&silentStore{})
			g.permit(time.Now(), time.Hour)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			request := requests(c)[name]
			ended := make(chan error, 1)
			go func() { ended <- request(ctx) }()
			for g.silence() == 0 { // until it is under way
				time.Sleep(time.Millisecond)
			}
			g.permit(time.Now().Add(-time.Hour), time.Hour)
			if writes {
				if err := <-ended; !errors.Is(err, errLapsed) {
					t.Errorf("under way: %v", err)
				}
				if err := request(ctx); !errors.Is(err, errLapsed) {
					t.Errorf("afterwards: %v", err)
				}
				g.permit(time.Now(), time.Hour)
			}
			g.patience = time.Millisecond
			if err := request(ctx); !errors.Is(err, errNoAnswer) {
				t.Errorf("it did not reach the store: %v", err)
			}
		})
	}
}

// An upload ends where it is when the lease has lapsed while nothing ran.
func TestUploadLapses(t *testing.T) {
	t.Parallel()
	var g *gate
	c, g := bound(&silentStore{write: func(_ context.Context, body io.Reader) error {
		g.mu.Lock()
		g.tenure = &tenure{time.Now().Add(-time.Hour), time.Minute}
		g.mu.Unlock()
		_, err := io.ReadAll(body)
		return err
	}})
	if _, err := c.WriteLTXFile(t.Context(), 0, 1, 1, strings.NewReader("x")); !errors.Is(err, errLapsed) {
		t.Error(err)
	}
}

// A hookClient calls a function while an object is read.
type hookClient struct {
	litestream.ReplicaClient
	opened int
	hook   func() // when much of it has been read
}

func (c *hookClient) OpenLTXFile(ctx context.Context, level int, first, last ltx.TXID, offset, size int64) (io.ReadCloser, error) {
	c.opened++
	body, err := c.ReplicaClient.OpenLTXFile(ctx, level, first, last, offset, size)
	if err != nil {
		return nil, err
	}
	return &hookBody{ReadCloser: body, left: 19_000_000, hook: c.hook}, nil
}

type hookBody struct {
	io.ReadCloser
	left int
	hook func()
}

func (b *hookBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left > 0 && n >= b.left {
		b.hook()
	}
	b.left -= n
	return n, err
}

// The copy can be read while a large object comes in.
func TestPagesOfLargeObject(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSource(t)
	before := s.write()
	for name, most := range map[string]int64{"in memory": mostHeld, "by a file": 1 << 20} {
		path := filepath.Join(t.TempDir(), "copy.db")
		res, err := newScript(t, s.client, wire.Order{}).restoreTo(ctx, path+"-fresh", target{txid: before.txid})
		s.must(err)
		s.must(putCopy(path+"-fresh", path, ltx.TXID(res.TXID)))
		d, err := openPages(ctx, path, 0)
		s.must(err)
		d.most = most
		if s.rows == before.rows {
			s.exec("INSERT INTO a VALUES (0, randomblob(20000000))")
			s.rows++
			s.write()
		}
		objects := s.objects(0)
		for objects[0].MinTXID <= before.txid {
			objects = objects[1:]
		}
		large := objects[0]
		looked := 0
		client := &hookClient{ReplicaClient: s.client, hook: func() {
			looked++
			if n := look(t, path); n != before.rows {
				t.Errorf("%s: %d rows meanwhile", name, n)
			}
		}}
		reader, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
		s.must(err)
		defer reader.Close()
		reading, err := reader.Begin()
		s.must(err)
		var n int
		s.must(reading.QueryRow("SELECT count(*) FROM a").Scan(&n))
		if err := d.apply(ctx, client, large); !isBusy(err) {
			t.Errorf("%s: %v while somebody reads", name, err)
		}
		s.must(reading.Rollback())
		opened := client.opened
		s.must(d.apply(ctx, client, large))
		if looked == 0 {
			t.Errorf("%s: nobody has looked", name)
		}
		if again := client.opened > opened; again != (most == mostHeld) {
			t.Errorf("%s: it was read again: %v", name, again)
		}
		for _, o := range objects[1:] {
			s.must(d.apply(ctx, s.client, o))
		}
		if n := look(t, path); n != s.rows {
			t.Errorf("%s: %d rows, want %d", name, n, s.rows)
		}
		s.must(d.close())
		if names := only(t, filepath.Dir(path)); names != "copy.db copy.db-txid" {
			t.Errorf("%s: files: %s", name, names)
		}
	}
}
