// Package gs links replicas in Google Cloud Storage into a program: import it for that alone.
//
//	gs://bucket/prefix
//
// Credentials are Google's application default credentials: those of the machine or workload, or
// the file that GOOGLE_APPLICATION_CREDENTIALS names, which Config.Credentials may return. There
// are no parameters, and no leases: see to it that only one machine replicates to a prefix.
package gs

import (
	"net/url"
	"path"
	"strings"

	"github.com/benbjohnson/litestream"
	"github.com/benbjohnson/litestream/gs"

	"github.com/bedplate/bedplate/backup"
	"github.com/bedplate/bedplate/backup/internal/replicator"
)

const scheme = "gs"

func init() {
	backup.Register(scheme)
	replicator.Run(scheme, replicator.Scheme{Client: client})
}

func client(text string) (litestream.ReplicaClient, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	c := gs.NewReplicaClient()
	c.Bucket, c.Path = u.Host, strings.TrimPrefix(path.Clean("/"+u.Path), "/")
	return c, nil
}
