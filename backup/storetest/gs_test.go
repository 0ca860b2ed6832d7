package storetest

import (
	"io"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/benbjohnson/litestream/gs"
	"github.com/fsouza/fake-gcs-server/fakestorage"

	_ "github.com/bedplate/bedplate/backup/gs"
	"github.com/bedplate/bedplate/backup/internal/gslease"
	"github.com/bedplate/bedplate/backup/internal/replicator"
)

func TestGS(t *testing.T) {
	t.Parallel()
	testStore(t, newGS)
}

// Google's libraries find the server in the environment.
func TestGSLease(t *testing.T) {
	s := newGS(t)
	t.Setenv(emulatorVariable, s.credentials[emulatorVariable])
	testLease(t, s)
}

const emulatorVariable = "STORAGE_EMULATOR_HOST"

func newGS(t *testing.T) *store {
	t.Helper()
	r := newRelay(t)
	fake, err := fakestorage.NewServerWithOptions(fakestorage.Options{
		NoListener: true, PublicHost: r.address(), ExternalURL: "http://" + r.address(), Writer: io.Discard,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Stop)
	fake.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: "bucket"})
	server := httptest.NewServer(fake.HTTPHandler())
	t.Cleanup(server.Close)
	r.lead(server.Listener.Addr().String())
	return &store{
		relay: r, url: "gs://bucket/%s", objects: gsObjects{fake},
		credentials: map[string]string{emulatorVariable: r.address()},
		leaser: func(t *testing.T, prefix, owner string, ttl time.Duration) replicator.Leaser {
			t.Helper()
			if os.Getenv(emulatorVariable) != r.address() {
				t.Fatal("the leaser would look for another server")
			}
			c := gs.NewReplicaClient()
			c.Bucket, c.Path = "bucket", prefix
			l, err := gslease.New(c, owner, ttl)
			if err != nil {
				t.Fatal(err)
			}
			return l.(replicator.Leaser)
		},
	}
}

type gsObjects struct{ fake *fakestorage.Server }

func (o gsObjects) keys(t *testing.T, prefix string) (keys []string) {
	t.Helper()
	list, _, err := o.fake.ListObjectsWithOptions("bucket", fakestorage.ListOptions{Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range list {
		keys = append(keys, object.Name)
	}
	return keys
}

func (o gsObjects) read(t *testing.T, key string) []byte {
	t.Helper()
	object, err := o.fake.GetObject("bucket", key)
	if err != nil {
		t.Fatal(err)
	}
	return object.Content
}

func (o gsObjects) write(_ *testing.T, key string, data []byte) {
	object := fakestorage.Object{ObjectAttrs: fakestorage.ObjectAttrs{BucketName: "bucket", Name: key}, Content: data}
	if old, err := o.fake.GetObject("bucket", key); err == nil {
		object.Metadata = old.Metadata
	}
	o.fake.CreateObject(object)
}

func (o gsObjects) remove(t *testing.T, key string) {
	t.Helper()
	if err := o.fake.Backend().DeleteObject("bucket", key); err != nil {
		t.Fatal(err)
	}
}
