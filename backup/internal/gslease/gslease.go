// Package gslease has the leases of replicas in Google Cloud Storage. A write is conditional on the
// generation of the object
// (https://cloud.google.com/storage/docs/request-preconditions).
package gslease

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/http"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/benbjohnson/litestream/gs"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/option"
	"google.golang.org/api/storage/v1"

	"github.com/bedplate/bedplate/backup/internal/replicator"
)

// New returns a leaser for the replica of c, a [*gs.ReplicaClient], whose credentials are found as
// that finds them.
func New(c litestream.ReplicaClient, owner string, ttl time.Duration) (litestream.Leaser, error) {
	replica, ok := c.(*gs.ReplicaClient)
	if !ok {
		return nil, fmt.Errorf("no leases for a replica of type %s", c.Type())
	}
	s := &store{bucket: replica.Bucket, name: path.Join(replica.Path, replicator.LeaseObject)}
	return replicator.NewLeaser(gs.ReplicaClientType, s, owner, ttl), nil
}

// A store speaks the JSON API, whose answers have the time of the store with them.
type store struct {
	bucket, name string

	mu      sync.Mutex
	service *storage.Service // nil: has to be made
}

func (s *store) connect(ctx context.Context) (*storage.Service, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.service != nil {
		return s.service, nil
	}
	options := []option.ClientOption{option.WithScopes(storage.DevstorageReadWriteScope)}
	if host := os.Getenv("STORAGE_EMULATOR_HOST"); host != "" { // as for Google's own client
		if !strings.Contains(host, "://") {
			host = "http://" + host
		}
		options = []option.ClientOption{option.WithEndpoint(strings.TrimRight(host, "/") + "/storage/v1/"), option.WithoutAuthentication()}
	}
	service, err := storage.NewService(context.WithoutCancel(ctx), options...) // it renews tokens by it
	if err != nil {
		return nil, err
	}
	s.service = service
	return service, nil
}

func (s *store) Read(ctx context.Context) (text []byte, tag string, age time.Duration, err error) {
	service, err := s.connect(ctx)
	if err != nil {
		return nil, "", 0, err
	}
	answer, err := service.Objects.Get(s.bucket, s.name).Context(ctx).Download()
	if hasStatus(err, http.StatusNotFound) { // of a bucket that is not there, too: then it cannot be written
		return nil, "", 0, fs.ErrNotExist
	}
	if err != nil {
		return nil, "", 0, err
	}
	defer answer.Body.Close()
	text, err = io.ReadAll(io.LimitReader(answer.Body, replicator.MaxLease))
	if err != nil {
		return nil, "", 0, err
	}
	tag = answer.Header.Get("X-Goog-Generation")
	if _, err := strconv.ParseInt(tag, 10, 64); err != nil {
		return nil, "", 0, errors.New("the store does not tell the generation of the lease")
	}
	now, nowErr := http.ParseTime(answer.Header.Get("Date"))
	changed, changedErr := http.ParseTime(answer.Header.Get("Last-Modified"))
	if nowErr == nil && changedErr == nil {
		age = now.Sub(changed) - time.Second // both are whole seconds
	}
	return text, tag, age, nil
}

func (s *store) Write(ctx context.Context, text []byte, tag string) (newTag string, err error) {
	service, err := s.connect(ctx)
	if err != nil {
		return "", err
	}
	object := &storage.Object{Name: s.name, ContentType: "application/json", CacheControl: "no-store"}
	written, err := service.Objects.Insert(s.bucket, object).IfGenerationMatch(generation(tag)).
		Media(bytes.NewReader(text), googleapi.ContentType(object.ContentType)).Context(ctx).Do()
	if hasStatus(err, http.StatusPreconditionFailed) {
		return "", litestream.ErrLeaseNotHeld
	}
	if err != nil {
		return "", err
	}
	return strconv.FormatInt(written.Generation, 10), nil
}

// generation is the condition for a tag. 0 means that there is no object; what is not the tag of
// one never holds.
func generation(tag string) int64 {
	if tag == "" {
		return 0
	}
	n, err := strconv.ParseInt(tag, 10, 64)
	if err != nil || n <= 0 {
		return math.MaxInt64
	}
	return n
}

func hasStatus(err error, status int) bool {
	var answer *googleapi.Error
	return errors.As(err, &answer) && answer.Code == status
}
