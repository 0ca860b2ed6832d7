// Package abs links replicas in Azure Blob Storage into a program: import it for that alone.
//
//	abs://account@container/prefix
//	abs://account@container/prefix?endpoint=https://blob.example.com/account
//
// Credentials are LITESTREAM_AZURE_SAS_TOKEN or LITESTREAM_AZURE_ACCOUNT_KEY, which
// Config.Credentials may return, or else what Azure's libraries find, such as AZURE_CLIENT_ID and
// AZURE_CLIENT_SECRET or a managed identity. An endpoint with http:// that is not this machine needs
// the parameter plaintext=true. An object may have up to 48 GiB: the 50,000 blocks that Azure allows,
// of the one MiB that Litestream's client gives them; that is how large a whole copy may get,
// compressed.
package abs

import (
	"net/url"
	"path"
	"strings"

	"github.com/benbjohnson/litestream"
	"github.com/benbjohnson/litestream/abs"

	"github.com/bedplate/bedplate/backup"
	"github.com/bedplate/bedplate/backup/internal/abslease"
	"github.com/bedplate/bedplate/backup/internal/replicator"
)

const scheme = "abs"

func init() {
	backup.Register(scheme)
	replicator.Run(scheme, replicator.Scheme{Client: client, Leaser: abslease.New})
}

func client(text string) (litestream.ReplicaClient, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	c := abs.NewReplicaClient()
	c.AccountName, c.Bucket = u.User.Username(), u.Host
	c.Path = strings.TrimPrefix(path.Clean("/"+u.Path), "/")
	c.Endpoint = u.Query().Get("endpoint")
	return c, nil
}
