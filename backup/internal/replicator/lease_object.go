package replicator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"time"

	"github.com/benbjohnson/litestream"
)

const (
	// LeaseObject is the name of the object with the lease, below the path of the replica: the one
	// that Litestream gives it in S3.
	LeaseObject = "lock.json"

	// MaxLease bounds that object in bytes.
	MaxLease = 64 << 10

	// leaseTimeout bounds a request about the lease, which is no larger than a line.
	leaseTimeout = 10 * time.Second
)

// A LeaseStore reads and writes the object with the lease. Each write gives it another tag.
type LeaseStore interface {
	// Read returns up to MaxLease bytes of the object, its tag, and for how long it has not
	// changed, at least, by the clock of the store. The error is fs.ErrNotExist when there is
	// none; the tag is then what Write needs to make it.
	Read(ctx context.Context) (text []byte, tag string, age time.Duration, err error)

	// Write replaces the object if it still has the tag, and returns its new one. The error is
	// litestream.ErrLeaseNotHeld when it has another, or is not there.
	Write(ctx context.Context, text []byte, tag string) (newTag string, err error)
}

// NewLeaser returns a Leaser for the object in s, whose replicas are of that kind. It is safe for
// concurrent use if s is.
func NewLeaser(kind string, s LeaseStore, owner string, ttl time.Duration) Leaser {
	return &objectLeaser{kind, s, owner, ttl}
}

type objectLeaser struct {
	kind  string
	store LeaseStore
	owner string
	ttl   time.Duration
}

func (l *objectLeaser) Type() string { return l.kind }

func (l *objectLeaser) ReadLease(ctx context.Context) (*litestream.Lease, time.Duration, error) {
	lease, age, err := l.read(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, err
	}
	return lease, age, err
}

func (l *objectLeaser) AcquireLease(ctx context.Context) (*litestream.Lease, error) {
	old, _, err := l.read(ctx)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	case old.Owner != "" && !old.IsExpired():
		return nil, &litestream.LeaseExistsError{Owner: old.Owner, ExpiresAt: old.ExpiresAt}
	}
	lease, err := l.write(ctx, l.owner, l.ttl, old.Generation+1, old.ETag)
	if errors.Is(err, litestream.ErrLeaseNotHeld) { // somebody was faster
		exists := &litestream.LeaseExistsError{}
		if now, _, err := l.read(ctx); err == nil {
			exists.Owner, exists.ExpiresAt = now.Owner, now.ExpiresAt
		}
		return nil, exists
	}
	return lease, err
}

func (l *objectLeaser) RenewLease(ctx context.Context, held *litestream.Lease) (*litestream.Lease, error) {
	return l.write(ctx, l.owner, l.ttl, held.Generation, held.ETag)
}

func (l *objectLeaser) ReleaseLease(ctx context.Context, held *litestream.Lease) error {
	_, err := l.write(ctx, "", 0, held.Generation, held.ETag)
	return err
}

// read returns what stands. The lease has nothing but an ETag when there is none, fs.ErrNotExist,
// or when it cannot be understood, ErrLeaseDamaged; it is nil after other errors.
func (l *objectLeaser) read(ctx context.Context) (*litestream.Lease, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, leaseTimeout)
	defer cancel()
	text, tag, age, err := l.store.Read(ctx)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &litestream.Lease{ETag: tag}, 0, err
	case err != nil:
		return nil, 0, err
	}
	lease := &litestream.Lease{}
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(lease); err != nil || lease.Generation <= 0 {
		return &litestream.Lease{ETag: tag}, max(age, 0), ErrLeaseDamaged
	}
	lease.ETag = tag
	return lease, max(age, 0), nil
}

func (l *objectLeaser) write(ctx context.Context, owner string, ttl time.Duration, generation int64, tag string) (*litestream.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, leaseTimeout)
	defer cancel()
	lease := &litestream.Lease{Generation: generation, ExpiresAt: time.Now().Add(ttl), Owner: owner}
	text, err := json.Marshal(lease)
	if err != nil {
		return nil, err
	}
	lease.ETag, err = l.store.Write(ctx, text, tag)
	if err != nil {
		return nil, err
	}
	return lease, nil
}
