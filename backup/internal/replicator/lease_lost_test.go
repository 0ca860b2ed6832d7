package replicator

import (
	"context"
	"errors"
	"testing"
	"time"

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

// A lease that was made where another was lost, and of which no more is known than that, is not
// followed by one that somebody remembers either.
func TestLeaseAfterLostOneUnfinished(t *testing.T) {
	t.Parallel()
	for name, trouble := range map[string]func(*leaseObject){
		"the answer is lost":   func(o *leaseObject) { o.lease, o.lose = nil, true },
		"its maker was killed": func(o *leaseObject) { o.set("three", 1, -time.Hour); o.age = time.Hour },
		"it is damaged":        func(o *leaseObject) { o.damaged, o.age = true, time.Hour },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				o := &leaseObject{}
				dir := t.TempDir()
				for range 2 { // it remembers the second
					_, release, err := lineOf(t, o, "one", dir).holdLease(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					release()
				}
				o.change(func() { trouble(o) })
				ofTwo := t.TempDir()
				for range 2 {
					two := lineOf(t, o, "two", ofTwo)
					two.client = &usedReplica{}
					_, release, err := two.holdLease(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					release()
					if _, _, err := lineOf(t, o, "one", dir).holdLease(t.Context()); codeOf(err) != wire.CodeOtherOwner {
						t.Fatalf("it does not know that there was another: %+v, %v", o.stands(), err)
					}
				}
			})
		})
	}
}

// Who has a lease that is deleted makes another one also while the replica cannot be listed: nobody
// else has had one since.
func TestLeaseDeletedFromHolder(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		o := &leaseObject{}
		s := lineOf(t, o, "one", t.TempDir())
		s.client = &usedReplica{}
		lost := hold(t, s)
		before := o.stands()
		s.client = &usedReplica{down: errors.New("down")}
		o.change(func() { o.lease = nil })
		pause(t.Context(), 10*testTTL)
		select {
		case by := <-lost:
			t.Errorf("lost to %q", by)
		default:
		}
		if l := o.stands(); l.Owner != "one" || l.Generation <= before.Generation || l.IsExpired() {
			t.Errorf("%+v, before that %+v", l, before)
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
	for url, other := range map[string]string{
		"s3://bucket/app":   "s3://bucket/app/b",
		"abs://one@box/app": "abs://two@box/app",
	} {
		if replicaDigest(url) == replicaDigest(other) {
			t.Errorf("%s is the same replica as %s", url, other)
		}
	}
}
