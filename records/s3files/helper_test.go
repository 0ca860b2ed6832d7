package s3files_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/bedplate/bedplate/records/s3files"
)

// A fake is an S3 server that can be made to misbehave.
type fake struct {
	*httptest.Server
	backend *s3mem.Backend

	mu       sync.Mutex
	fault    func(w http.ResponseWriter, r *http.Request, next http.Handler) // nil: none
	requests []*http.Request
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{backend: s3mem.New()}
	if err := f.backend.CreateBucket("bucket"); err != nil {
		t.Fatal(err)
	}
	next := gofakes3.New(f.backend).Server()
	f.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		fault := f.fault
		f.requests = append(f.requests, r)
		f.mu.Unlock()
		if fault != nil {
			fault(w, r, next)
			return
		}
		next.ServeHTTP(w, r)
	}))
	ctx, cancel := context.WithCancel(context.Background())
	f.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	f.Config.ErrorLog = log.New(io.Discard, "", 0)
	f.Start()
	t.Cleanup(func() {
		cancel()
		f.Close() // waits for every request: none is left hanging
	})
	return f
}

func (f *fake) misbehave(fault func(w http.ResponseWriter, r *http.Request, next http.Handler)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// heard returns the requests since the last time.
func (f *fake) heard() []*http.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.requests
	f.requests = nil
	return all
}

func (f *fake) config(t *testing.T) s3files.Config {
	return s3files.Config{
		Bucket: "bucket", Prefix: "p/", Endpoint: f.URL, PathStyle: true,
		AccessKeyID: "the-id", SecretAccessKey: "the-secret", TempDir: t.TempDir(),
	}
}

func (f *fake) open(t *testing.T, timeout time.Duration) *s3files.Store {
	t.Helper()
	cfg := f.config(t)
	cfg.Timeout = timeout
	s, err := s3files.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// stored returns the keys in the bucket, as the server knows them.
func (f *fake) stored(t *testing.T) (keys []string) {
	t.Helper()
	list, err := f.backend.ListBucket("bucket", nil, gofakes3.ListBucketPage{})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range list.Contents {
		keys = append(keys, o.Key)
	}
	return keys
}

func ids(ctx context.Context, s *s3files.Store) (all []string, err error) {
	err = s.List(ctx, func(id string, _ int64, _ time.Time) error {
		all = append(all, id)
		return nil
	})
	return all, err
}

func readAll(ctx context.Context, s *s3files.Store, id string) ([]byte, error) {
	f, err := s.Open(ctx, id)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

func pattern(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i) ^ byte(i>>8)*7
	}
	return b
}

func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return base64.StdEncoding.EncodeToString(sum[:])
}
