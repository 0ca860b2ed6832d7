// Package nats links replicas in an object store of NATS JetStream into a program: import it for
// that alone.
//
//	nats://host/bucket
//	nats://host:4222/bucket/prefix?ca=/etc/app/ca.pem
//
// The bucket has to exist ("nats object add"). Credentials are NATS_USER and NATS_PASSWORD,
// NATS_TOKEN, or NATS_CREDS, the path of a credentials file; Config.Credentials may return them.
// The connection is encrypted with TLS, except to this machine and with the parameter
// plaintext=true, by which both the credentials and the database can be read on the way. ca is a
// file of certificates to trust, cert and key are those of this client; all are absolute paths.
// There are no leases: see to it that only one machine replicates to a prefix.
package nats

import (
	"errors"
	"net/netip"
	"net/url"
	"os"
	"path"
	"strings"

	"github.com/benbjohnson/litestream"
	"github.com/benbjohnson/litestream/nats"

	"github.com/bedplate/bedplate/backup"
	"github.com/bedplate/bedplate/backup/internal/replicator"
)

const scheme = "nats"

func init() {
	backup.Register(scheme)
	replicator.Run(scheme, replicator.Scheme{Client: client})
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
	return c, nil
}

// isLoopback reports whether a host is this machine.
func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && addr.Unmap().IsLoopback()
}
