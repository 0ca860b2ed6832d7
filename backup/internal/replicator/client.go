package replicator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"
)

const (
	// leastPatience is how long a store may be silent before a request is given up.
	leastPatience = 20 * time.Second

	// mostPatience is the same for an upload that has handed over much: clients read ahead, and
	// stores take their time to put large objects together.
	mostPatience = 10 * time.Minute

	// slowest is how many bytes per second are expected to leave at least.
	slowest = 128 << 10
)

var errNoAnswer = errors.New("the replica does not answer")

// A gate is the way of all requests to the store. When it is shut, all that are under way end and
// there will be no others.
type gate struct {
	patience time.Duration // with a store that is silent, at least

	moved atomic.Int64 // bytes, of all requests

	mu      sync.Mutex
	why     error // why it is shut
	pending map[*request]struct{}
	tenure  *tenure // of the lease; nil: none is needed to write
	lapse   *time.Timer
}

// A tenure is the time in which nobody else can have the lease.
type tenure struct {
	began time.Time // the renewal
	ttl   time.Duration
}

// left is how much of it is left. The monotonic clock stands still while a machine sleeps.
func (t *tenure) left() time.Duration {
	return t.ttl - max(time.Since(t.began), time.Now().Round(0).Sub(t.began.Round(0)))
}

var errLapsed = errors.New("nothing is written to the replica: its lease was not renewed in time, so somebody else may have it")

// permit allows to write until ttl after began. From then on, until it is called again, all that
// changes the replica fails, and what is under way is given up. Before the first call there is no
// such limit.
func (g *gate) permit(began time.Time, ttl time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tenure = &tenure{began, ttl}
	if g.lapse != nil {
		g.lapse.Stop()
	}
	g.lapse = time.AfterFunc(g.tenure.left(), func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.lapsed() {
			for r := range g.pending {
				if r.writes {
					r.cancel(errLapsed)
				}
			}
		}
	})
}

// lapsed reports whether writing needs a lease that somebody else may have. g.mu is held.
func (g *gate) lapsed() bool { return g.tenure != nil && g.tenure.left() <= 0 }

// shut ends everything. err is what requests fail with from now on.
func (g *gate) shut(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.why = err
	for r := range g.pending {
		r.cancel(err)
	}
}

// silence is how long the store has been silent to the request that waits longest.
func (g *gate) silence() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	longest := time.Duration(0)
	for r := range g.pending {
		longest = max(longest, r.silence())
	}
	return longest
}

// A request ends itself when the store is silent for too long.
type request struct {
	gate   *gate
	writes bool // it changes the replica
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu       sync.Mutex
	timer    *time.Timer
	since    time.Time     // when it last got on; zero while nobody waits for the store
	least    time.Duration // of patience
	patience time.Duration
	moved    int64 // bytes
}

func (g *gate) begin(ctx context.Context, writes bool) (*request, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.why != nil {
		return nil, g.why
	}
	if writes && g.lapsed() {
		return nil, errLapsed
	}
	r := &request{gate: g, writes: writes, least: g.patience, patience: g.patience, since: time.Now()}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	r.timer = time.AfterFunc(r.patience, func() {
		r.cancel(fmt.Errorf("%w: nothing was heard for %v", errNoAnswer, r.silence().Round(time.Millisecond)))
	})
	g.pending[r] = struct{}{}
	return r, nil
}

// progress notes that n more bytes have moved.
func (r *request) progress(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.moved += int64(n)
	r.gate.moved.Add(int64(n))
	r.patience = min(r.least+time.Duration(r.moved/slowest)*time.Second, mostPatience)
	r.since = time.Now()
	r.timer.Reset(r.patience)
}

// pause stops the clock: it is not the store that is waited for.
func (r *request) pause() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.timer.Stop()
	r.since = time.Time{}
}

func (r *request) silence() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.since.IsZero() {
		return 0
	}
	return time.Since(r.since)
}

// end releases the request and returns its error, which is why it was given up if it was.
func (r *request) end(err error) error {
	r.gate.mu.Lock()
	delete(r.gate.pending, r)
	r.gate.mu.Unlock()
	r.pause()
	err = r.explain(err)
	r.cancel(nil)
	return err
}

func (r *request) explain(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	if cause := context.Cause(r.ctx); cause != nil && r.ctx.Err() != nil {
		return cause
	}
	return err
}

// bound returns a client for the store of c that goes through the returned gate.
func bound(c litestream.ReplicaClient) (litestream.ReplicaClient, *gate) {
	g := &gate{patience: leastPatience, pending: map[*request]struct{}{}}
	b := &boundClient{client: c, gate: g}
	if old, ok := c.(litestream.ReplicaClientV3); ok {
		return struct {
			*boundClient
			litestream.ReplicaClientV3
		}{b, old}, g
	}
	return b, g
}

// A boundClient passes requests on through a gate.
type boundClient struct {
	client litestream.ReplicaClient
	gate   *gate
}

func (b *boundClient) Type() string               { return b.client.Type() }
func (b *boundClient) SetLogger(log *slog.Logger) { b.client.SetLogger(log) }

func (b *boundClient) do(ctx context.Context, writes bool, fn func(ctx context.Context) error) error {
	r, err := b.gate.begin(ctx, writes)
	if err != nil {
		return err
	}
	return r.end(fn(r.ctx))
}

func (b *boundClient) Init(ctx context.Context) error { return b.do(ctx, false, b.client.Init) }

func (b *boundClient) DeleteAll(ctx context.Context) error {
	return b.do(ctx, true, b.client.DeleteAll)
}

// DeleteLTXFiles deletes in small portions, so that a long list is not taken for silence.
func (b *boundClient) DeleteLTXFiles(ctx context.Context, infos []*ltx.FileInfo) error {
	const portion = 1000 // of S3
	for len(infos) > 0 {
		n := min(portion, len(infos))
		err := b.do(ctx, true, func(ctx context.Context) error { return b.client.DeleteLTXFiles(ctx, infos[:n]) })
		if err != nil {
			return err
		}
		infos = infos[n:]
	}
	return nil
}

func (b *boundClient) WriteLTXFile(ctx context.Context, level int, minTXID, maxTXID ltx.TXID, body io.Reader) (*ltx.FileInfo, error) {
	r, err := b.gate.begin(ctx, true)
	if err != nil {
		return nil, err
	}
	up := upload{r, body}
	switch f := body.(type) {
	case seekerAt: // a file: what its size is makes a difference to the clients
		body = &fileUpload{upload: up, file: f}
	default:
		body = &up
	}
	info, err := b.client.WriteLTXFile(r.ctx, level, minTXID, maxTXID, body)
	return info, r.end(err)
}

// An upload is the body of a request.
type upload struct {
	request *request
	body    io.Reader
}

func (u *upload) Read(p []byte) (int, error) {
	if err := u.over(); err != nil {
		return 0, err
	}
	n, err := u.body.Read(p)
	u.request.progress(n)
	return n, err
}

// over returns why the upload must not go on, also where no timer was running.
func (u *upload) over() error {
	g := u.request.gate
	g.mu.Lock()
	lapsed := g.lapsed()
	g.mu.Unlock()
	if lapsed {
		u.request.cancel(errLapsed)
	}
	return context.Cause(u.request.ctx)
}

type seekerAt interface {
	io.ReadSeeker
	io.ReaderAt
}

// A fileUpload is the body of a request that is a file.
type fileUpload struct {
	upload
	file seekerAt
}

func (u *fileUpload) Seek(offset int64, whence int) (int64, error) {
	return u.file.Seek(offset, whence)
}

func (u *fileUpload) ReadAt(p []byte, offset int64) (int, error) {
	if err := u.over(); err != nil {
		return 0, err
	}
	n, err := u.file.ReadAt(p, offset)
	u.request.progress(n)
	return n, err
}

func (b *boundClient) OpenLTXFile(ctx context.Context, level int, minTXID, maxTXID ltx.TXID, offset, size int64) (io.ReadCloser, error) {
	r, err := b.gate.begin(ctx, false)
	if err != nil {
		return nil, err
	}
	body, err := b.client.OpenLTXFile(r.ctx, level, minTXID, maxTXID, offset, size)
	if err != nil {
		if strings.Contains(err.Error(), "InvalidRange") { // how S3 says that it is shorter, or empty
			err = fmt.Errorf("%w: %w", litestream.ErrLTXCorrupted, err)
		}
		return nil, r.end(err)
	}
	r.pause()
	return &download{r, body}, nil
}

// A download is the body of an answer. The clock runs while it is read.
type download struct {
	request *request
	body    io.ReadCloser
}

func (d *download) Read(p []byte) (int, error) {
	d.request.progress(0)
	n, err := d.body.Read(p)
	d.request.pause()
	return n, d.request.explain(err)
}

func (d *download) Close() error {
	err := d.body.Close()
	_ = d.request.end(nil)
	return err
}

func (b *boundClient) LTXFiles(ctx context.Context, level int, seek ltx.TXID, useMetadata bool) (ltx.FileIterator, error) {
	r, err := b.gate.begin(ctx, false)
	if err != nil {
		return nil, err
	}
	if useMetadata { // a page takes as many requests as it has objects
		r.least = mostPatience
	}
	files, err := b.client.LTXFiles(r.ctx, level, seek, useMetadata)
	if err != nil {
		return nil, r.end(err)
	}
	r.pause()
	return &listing{FileIterator: files, request: r}, nil
}

// A listing is an answer that comes in pages.
type listing struct {
	ltx.FileIterator
	request *request
	closed  bool
}

func (l *listing) Next() bool {
	l.request.progress(0)
	defer l.request.pause()
	return l.FileIterator.Next()
}

func (l *listing) Err() error { return l.request.explain(l.FileIterator.Err()) }

func (l *listing) Close() error {
	err := l.request.explain(l.FileIterator.Close())
	if !l.closed {
		l.closed = true
		_ = l.request.end(nil)
	}
	return err
}
