package file

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/benbjohnson/litestream/file"

	"github.com/bedplate/bedplate/backup/internal/replicator"
)

// leaseFile has the same name and content as the object by which Litestream holds leases in S3.
const leaseFile = "lock.json"

// maxLease bounds that file in bytes.
const maxLease = 64 << 10

// A leaser holds leases in a file in the directory of the replica. Whoever writes it holds a lock,
// so that machines that share the directory exclude each other if their file system knows flock.
type leaser struct {
	dir   string
	owner string
	ttl   time.Duration
}

var _ replicator.Leaser = (*leaser)(nil)

func newLeaser(c litestream.ReplicaClient, owner string, ttl time.Duration) (litestream.Leaser, error) {
	client, ok := c.(*file.ReplicaClient)
	if !ok {
		return nil, fmt.Errorf("no leases for a replica of type %s", c.Type())
	}
	return &leaser{client.Path(), owner, ttl}, nil
}

func (l *leaser) Type() string { return scheme }

func (l *leaser) ReadLease(ctx context.Context) (lease *litestream.Lease, age time.Duration, err error) {
	err = l.locked(ctx, func(now time.Time) error {
		var changed time.Time
		lease, changed, err = l.read()
		age = now.Sub(changed)
		return err
	})
	return lease, age, err
}

func (l *leaser) AcquireLease(ctx context.Context) (lease *litestream.Lease, err error) {
	err = l.locked(ctx, func(time.Time) error {
		old, _, err := l.read()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			old = &litestream.Lease{}
		case err != nil:
			return err
		case old.Owner != "" && !old.IsExpired():
			return &litestream.LeaseExistsError{Owner: old.Owner, ExpiresAt: old.ExpiresAt}
		}
		lease, err = l.write(old.Generation+1, l.owner, l.ttl)
		return err
	})
	return lease, err
}

func (l *leaser) RenewLease(ctx context.Context, held *litestream.Lease) (*litestream.Lease, error) {
	return l.replace(ctx, held, l.owner, l.ttl)
}

func (l *leaser) ReleaseLease(ctx context.Context, held *litestream.Lease) error {
	_, err := l.replace(ctx, held, "", 0)
	return err
}

func (l *leaser) replace(ctx context.Context, held *litestream.Lease, owner string, ttl time.Duration) (lease *litestream.Lease, err error) {
	err = l.locked(ctx, func(time.Time) error {
		old, _, err := l.read()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return litestream.ErrLeaseNotHeld
		case err != nil && !errors.Is(err, replicator.ErrLeaseDamaged):
			return err
		case old.ETag != held.ETag:
			return litestream.ErrLeaseNotHeld
		}
		lease, err = l.write(held.Generation, owner, ttl)
		return err
	})
	return lease, err
}

func (l *leaser) read() (lease *litestream.Lease, changed time.Time, err error) {
	f, err := os.Open(filepath.Join(l.dir, leaseFile))
	if err != nil {
		return nil, changed, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, changed, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxLease))
	if err != nil {
		return nil, changed, err
	}
	lease = &litestream.Lease{}
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(lease); err != nil || lease.Generation <= 0 {
		lease, err = &litestream.Lease{}, replicator.ErrLeaseDamaged
		lease.ETag = tag(text)
		return lease, info.ModTime(), err
	}
	lease.ETag = tag(text)
	return lease, info.ModTime(), nil
}

func (l *leaser) write(generation int64, owner string, ttl time.Duration) (*litestream.Lease, error) {
	lease := &litestream.Lease{Generation: generation, ExpiresAt: time.Now().Add(ttl), Owner: owner}
	text, err := json.Marshal(lease)
	if err != nil {
		return nil, err
	}
	name := filepath.Join(l.dir, leaseFile)
	f, err := os.OpenFile(name+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	if err := os.Rename(name+".new", name); err != nil {
		return nil, err
	}
	lease.ETag = tag(text)
	dir, err := os.Open(l.dir)
	if err != nil {
		return nil, err
	}
	return lease, errors.Join(dir.Sync(), dir.Close())
}

// tag stands for the content of the file, which is another one each time: it has the time.
func tag(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// locked runs fn while nobody else has the lock. now is the time by the clock that times of files
// in the directory come from.
func (l *leaser) locked(ctx context.Context, fn func(now time.Time) error) (err error) {
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(l.dir, leaseFile+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }() // and the lock is gone
	if err := lockFile(ctx, f); err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	if _, err := f.WriteAt([]byte{'\n'}, 0); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return fn(info.ModTime())
}
