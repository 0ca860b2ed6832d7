package replicator

import (
	"context"
	"errors"
	"testing"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

// An emptyReplica holds nothing.
type emptyReplica struct{ litestream.ReplicaClient }

func (emptyReplica) LTXFiles(context.Context, int, ltx.TXID, bool) (ltx.FileIterator, error) {
	return ltx.NewFileInfoSliceIterator(nil), nil
}

// A usedReplica holds a snapshot, or cannot be reached.
type usedReplica struct {
	litestream.ReplicaClient
	down error
}

func (r *usedReplica) LTXFiles(_ context.Context, level int, _ ltx.TXID, _ bool) (ltx.FileIterator, error) {
	if level < litestream.SnapshotLevel {
		return ltx.NewFileInfoSliceIterator(nil), r.down
	}
	return ltx.NewFileInfoSliceIterator([]*ltx.FileInfo{{Level: level, MinTXID: 1, MaxTXID: 7}}), r.down
}

// Where the lease was deleted from a replica that is in use, the next one has no generation that
// somebody remembers who has never heard of that.
func TestLeaseAfterLostOne(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		o := &leaseObject{}
		dir := t.TempDir()
		s := lineOf(t, o, "one", dir)
		_, release, err := s.holdLease(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		release()
		o.change(func() { o.lease = nil })

		two := lineOf(t, o, "two", t.TempDir())
		two.client = &usedReplica{down: errors.New("down")}
		h, err := two.newHolder(1)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.acquire(t.Context()); err == nil || o.stands().Generation != 0 {
			t.Fatalf("nobody knows whether there was a lease: %+v, %v", o.stands(), err)
		}
		two.client = &usedReplica{}
		if _, release, err = two.holdLease(t.Context()); err != nil {
			t.Fatal(err)
		}
		release() // and nobody's name is there

		one := lineOf(t, o, "one", dir)
		if _, _, err := one.holdLease(t.Context()); codeOf(err) != wire.CodeOtherOwner {
			t.Errorf("it does not know that there was another: %+v, %v", o.stands(), err)
		}
	})
}

// A slash more in the URL does not make a machine forget its leases.
func TestReplicaDigest(t *testing.T) {
	t.Parallel()
	for url, same := range map[string]string{
		"file:///var/app": "file:///var//app/",
		"s3://bucket/app": "s3://bucket/app/?region=eu-central-1",
		"s3://bucket":     "s3://bucket/",
		"s3://b-1/a?endpoint=https://minio.example.com": "s3://b-1/a?endpoint=https://Minio.example.com/",
	} {
		if replicaDigest(url) != replicaDigest(same) {
			t.Errorf("%s is another replica than %s", url, same)
		}
	}
	if replicaDigest("s3://bucket/app") == replicaDigest("s3://bucket/app/b") {
		t.Error("two replicas are the same")
	}
}
