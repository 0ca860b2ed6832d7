package storetest

import (
	"errors"
	"strings"
	"testing"
	"time"

	litestreamnats "github.com/benbjohnson/litestream/nats"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/bedplate/bedplate/backup/internal/natslease"
	"github.com/bedplate/bedplate/backup/internal/replicator"
	_ "github.com/bedplate/bedplate/backup/nats"
)

func TestNATS(t *testing.T) {
	t.Parallel()
	testStore(t, newNATS)
}

func TestNATSLease(t *testing.T) {
	t.Parallel()
	testLease(t, newNATS(t))
}

func newNATS(t *testing.T) *store {
	t.Helper()
	const admin, user, password = "admin", "me", "not a secret"
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
		Users: []*server.User{
			{Username: admin, Password: password},
			{Username: user, Password: password, Permissions: natsPermissions("bucket")},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(patience) {
		t.Fatal("the server of NATS does not start")
	}
	address := s.Addr().String()
	connection, err := nats.Connect("nats://"+address, nats.UserInfo(admin, password), nats.Timeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(connection.Close)
	js, err := jetstream.New(connection, jetstream.WithDefaultTimeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := js.CreateObjectStore(t.Context(), jetstream.ObjectStoreConfig{Bucket: "bucket"})
	if err != nil {
		t.Fatal(err)
	}
	r := newRelay(t)
	r.lead(address)
	return &store{
		relay: r, url: "nats://" + r.address() + "/bucket/%s", objects: natsObjects{bucket},
		credentials: map[string]string{"NATS_USER": user, "NATS_PASSWORD": password},
		leaser: func(_ *testing.T, prefix, owner string, ttl time.Duration) replicator.Leaser {
			c := litestreamnats.NewReplicaClient()
			c.URL, c.BucketName, c.Path, c.Username, c.Password = "nats://"+r.address(), "bucket", prefix, user, password
			return natslease.New(c, owner, ttl).(replicator.Leaser)
		},
	}
}

// natsPermissions are what a replica in a bucket needs.
func natsPermissions(bucket string) *server.Permissions {
	stream := "OBJ_" + bucket
	return &server.Permissions{
		Publish: &server.SubjectPermission{Allow: []string{
			"$O." + bucket + ".>", "$JS.FC." + stream + ".>", "$JS.API.STREAM.INFO." + stream, "$JS.API.STREAM.PURGE." + stream,
			"$JS.API.DIRECT.GET." + stream + ".>", "$JS.API.CONSUMER.CREATE." + stream + ".>", "$JS.API.CONSUMER.DELETE." + stream + ".>",
		}},
		Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
	}
}

type natsObjects struct{ bucket jetstream.ObjectStore }

func (o natsObjects) keys(t *testing.T, prefix string) (keys []string) {
	t.Helper()
	list, err := o.bucket.List(t.Context())
	if err != nil && !errors.Is(err, jetstream.ErrNoObjectsFound) {
		t.Fatal(err)
	}
	for _, object := range list {
		if strings.HasPrefix(object.Name, prefix) {
			keys = append(keys, object.Name)
		}
	}
	return keys
}

func (o natsObjects) read(t *testing.T, key string) []byte {
	t.Helper()
	data, err := o.bucket.GetBytes(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (o natsObjects) write(t *testing.T, key string, data []byte) {
	t.Helper()
	if _, err := o.bucket.PutBytes(t.Context(), key, data); err != nil {
		t.Fatal(err)
	}
}

func (o natsObjects) remove(t *testing.T, key string) {
	t.Helper()
	if err := o.bucket.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
}
