package replicator

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"
)

// A silentStore takes every request and never answers, but for the parts of it that are set.
type silentStore struct {
	litestream.ReplicaClient
	write func(ctx context.Context, body io.Reader) error
	body  io.ReadCloser
	files ltx.FileIterator
}

func (s *silentStore) Type() string           { return "silent" }
func (s *silentStore) SetLogger(*slog.Logger) {}

func (s *silentStore) Init(ctx context.Context) error { return silence(ctx) }

func (s *silentStore) LTXFiles(ctx context.Context, _ int, _ ltx.TXID, _ bool) (ltx.FileIterator, error) {
	if s.files != nil {
		return s.files, nil
	}
	return nil, silence(ctx)
}

func (s *silentStore) OpenLTXFile(ctx context.Context, _ int, _, _ ltx.TXID, _, _ int64) (io.ReadCloser, error) {
	if s.body != nil {
		return s.body, nil
	}
	return nil, silence(ctx)
}

func (s *silentStore) WriteLTXFile(ctx context.Context, _ int, _, _ ltx.TXID, body io.Reader) (*ltx.FileInfo, error) {
	if s.write != nil {
		return &ltx.FileInfo{}, s.write(ctx, body)
	}
	return nil, silence(ctx)
}

func (s *silentStore) DeleteLTXFiles(ctx context.Context, _ []*ltx.FileInfo) error {
	return silence(ctx)
}

func silence(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func requests(c litestream.ReplicaClient) map[string]func(ctx context.Context) error {
	return map[string]func(ctx context.Context) error{
		"init": c.Init,
		"list": func(ctx context.Context) error {
			_, err := c.LTXFiles(ctx, 0, 0, false)
			return err
		},
		"get": func(ctx context.Context) error {
			_, err := c.OpenLTXFile(ctx, 0, 1, 1, 0, 0)
			return err
		},
		"put": func(ctx context.Context) error {
			_, err := c.WriteLTXFile(ctx, 0, 1, 1, strings.NewReader("x"))
			return err
		},
		"delete": func(ctx context.Context) error {
			return c.DeleteLTXFiles(ctx, []*ltx.FileInfo{{MinTXID: 1, MaxTXID: 1}})
		},
	}
}

func TestSilentStore(t *testing.T) {
	t.Parallel()
	c, g := bound(&silentStore{})
	g.patience = 20 * time.Millisecond
	for name, request := range requests(c) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := request(t.Context()); !errors.Is(err, errNoAnswer) {
				t.Error(err)
			}
		})
	}
}

// When the gate is shut, what is under way ends, and nothing else begins.
func TestGateShut(t *testing.T) {
	t.Parallel()
	taken := errors.New("taken over")
	for name := range requests(&silentStore{}) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, g := bound(&silentStore{})
			request := requests(c)[name]
			ended := make(chan error)
			go func() { ended <- request(t.Context()) }()
			for g.silence() == 0 { // until it is under way
				time.Sleep(time.Millisecond)
			}
			g.shut(taken)
			if err := <-ended; !errors.Is(err, taken) {
				t.Errorf("under way: %v", err)
			}
			if err := request(t.Context()); !errors.Is(err, taken) {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

// The store may take its time as long as it gets on, and the time of others is not its own.
func TestSlowStore(t *testing.T) {
	t.Parallel()
	const patience = 500 * time.Millisecond
	t.Run("put", func(t *testing.T) {
		inBubble(t, func(t *testing.T) {
			c, g := bound(&silentStore{write: func(ctx context.Context, body io.Reader) error {
				for range 10 {
					if _, err := body.Read(make([]byte, 1)); err != nil {
						return err
					}
					select {
					case <-time.After(patience / 4):
					case <-ctx.Done():
						return ctx.Err()
					}
				}
				return nil
			}})
			g.patience = patience
			if _, err := c.WriteLTXFile(t.Context(), 0, 1, 1, strings.NewReader("0123456789")); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("get", func(t *testing.T) {
		inBubble(t, func(t *testing.T) {
			c, g := bound(&silentStore{body: io.NopCloser(strings.NewReader("x"))})
			g.patience = patience
			body, err := c.OpenLTXFile(t.Context(), 0, 1, 1, 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * patience) // nobody reads
			if text, err := io.ReadAll(body); string(text) != "x" || err != nil {
				t.Errorf("%q %v", text, err)
			}
			if err := body.Close(); err != nil {
				t.Error(err)
			}
			if len(g.pending) != 0 {
				t.Error("the request has no end")
			}
		})
	})
	t.Run("list", func(t *testing.T) {
		inBubble(t, func(t *testing.T) {
			c, g := bound(&silentStore{files: ltx.NewFileInfoSliceIterator([]*ltx.FileInfo{{MaxTXID: 1}, {MaxTXID: 2}})})
			g.patience = patience
			newest, err := newestOf(t.Context(), c, 0)
			if err != nil || newest.MaxTXID != 2 {
				t.Error(newest, err)
			}
			if len(g.pending) != 0 {
				t.Error("the request has no end")
			}
		})
	})
}

// A file is handed on as one: clients treat those differently.
func TestUploadOfFile(t *testing.T) {
	t.Parallel()
	for _, body := range []io.Reader{bytes.NewReader([]byte("0123456789")), io.MultiReader(strings.NewReader("0123456789"))} {
		_, isFile := body.(io.Seeker)
		c, _ := bound(&silentStore{write: func(_ context.Context, got io.Reader) error {
			if file, ok := got.(interface {
				io.ReadSeeker
				io.ReaderAt
			}); ok != isFile {
				t.Errorf("seeks: %v, want %v", ok, isFile)
			} else if ok {
				if n, err := file.Seek(0, io.SeekEnd); n != 10 || err != nil {
					t.Error(n, err)
				}
			}
			return nil
		}})
		if _, err := c.WriteLTXFile(t.Context(), 0, 1, 1, body); err != nil {
			t.Error(err)
		}
	}
}
