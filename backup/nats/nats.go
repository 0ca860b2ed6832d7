// Package nats links replicas in an object store of NATS JetStream into a program: import it for
// that alone.
//
//	nats://host/bucket
//	nats://host:4222/bucket/prefix?ca=/etc/app/ca.pem
//
// The bucket has to exist ("nats object add"), without a time after which it forgets objects, and
// should hold nothing but replicas of few databases: to list one, all of it is listed. Credentials are NATS_USER and NATS_PASSWORD,
// NATS_TOKEN, or NATS_CREDS, the path of a credentials file; Config.Credentials may return them.
// The connection is encrypted with TLS, except to this machine and with the parameter
// plaintext=true, by which both the credentials and the database can be read on the way. ca is a
// file of certificates to trust, cert and key are those of this client; all are absolute paths.
package nats

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"path"
	"strings"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/benbjohnson/litestream/nats"
	"github.com/superfly/ltx"

	"github.com/bedplate/bedplate/backup"
	"github.com/bedplate/bedplate/backup/internal/natslease"
	"github.com/bedplate/bedplate/backup/internal/replicator"
)

const scheme = "nats"

func init() {
	backup.Register(scheme)
	replicator.Run(scheme, replicator.Scheme{Client: client, Leaser: newLeaser})
}

func client(text string) (litestream.ReplicaClient, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	bucket, prefix, _ := strings.Cut(strings.TrimPrefix(path.Clean("/"+u.Path), "/"), "/")
	if bucket == "" {
		return nil, errors.New("the bucket is missing")
	}
	query := u.Query()
	c := nats.NewReplicaClient()
	c.URL, c.BucketName, c.Path = scheme+"://"+u.Host, bucket, prefix
	c.Username, c.Password = os.Getenv("NATS_USER"), os.Getenv("NATS_PASSWORD")
	c.Token, c.Creds = os.Getenv("NATS_TOKEN"), os.Getenv("NATS_CREDS")
	c.TLS = query.Get("plaintext") != "true" && !isLoopback(u.Hostname())
	if ca := query.Get("ca"); ca != "" {
		c.RootCAs = []string{ca}
	}
	c.ClientCert, c.ClientKey = query.Get("cert"), query.Get("key")
	return &replica{c}, nil
}

func newLeaser(c litestream.ReplicaClient, owner string, ttl time.Duration) (litestream.Leaser, error) {
	r, ok := c.(*replica)
	if !ok {
		return nil, fmt.Errorf("no leases for a replica of type %s", c.Type())
	}
	return natslease.New(r.ReplicaClient, owner, ttl), nil
}

// A replica is Litestream's client, but may take its time to read an object: without a deadline
// nats.go reads for five seconds in all.
type replica struct{ *nats.ReplicaClient }

func (r *replica) OpenLTXFile(ctx context.Context, level int, minTXID, maxTXID ltx.TXID, offset, size int64) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	body, err := r.ReplicaClient.OpenLTXFile(soon{ctx}, level, minTXID, maxTXID, 0, 0)
	if err != nil {
		cancel()
		return nil, err
	}
	o := &object{ctx, cancel, body}
	if _, err := io.CopyN(io.Discard, o, offset); err != nil {
		_ = o.Close() // it was only read
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: it ends before byte %d", litestream.ErrLTXCorrupted, offset)
		}
		return nil, err
	}
	if size <= 0 {
		return o, nil
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(o, size), o}, nil
}

// soon is a context whose deadline is always a moment away. A read of an object that has to wait
// ends then, so that it can be seen whether anybody still wants it.
type soon struct{ context.Context }

func (soon) Deadline() (time.Time, bool) { return time.Now().Add(time.Second), true }

// An object is the body of an object that is read.
type object struct {
	ctx    context.Context
	cancel context.CancelFunc
	body   io.ReadCloser
}

func (o *object) Read(p []byte) (int, error) {
	for {
		n, err := o.body.Read(p)
		switch {
		case n > 0 || len(p) == 0:
			return n, nil // an error comes again
		case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
			return 0, err
		case o.ctx.Err() != nil:
			return 0, o.ctx.Err()
		}
	}
}

func (o *object) Close() error {
	o.cancel()
	return o.body.Close()
}

// isLoopback reports whether a host is this machine.
func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && addr.Unmap().IsLoopback()
}
