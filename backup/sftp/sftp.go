// Package sftp links replicas on an SFTP server into a program: import it for that alone.
//
//	sftp://user@host/var/backups/app?hostKey=ssh-ed25519%20AAAA…&keyPath=/etc/app/id_ed25519
//	sftp://user@host:2222/~/app?hostKey=…
//
// The path is absolute, or below the user's home directory if it begins with /~/. The directory is
// made if it is missing. hostKey is the public key of the server, its type and its text as in
// known_hosts, without a comment; a replica without it is refused, as anybody could take the
// server's place. It is the key that the server prefers, in most cases ssh-ed25519:
//
//	ssh-keyscan -t ed25519 host
//
// keyPath is the absolute path of a private key without a passphrase. A password is given as
// SFTP_PASSWORD, which Config.Credentials may return. There are no leases: see to it that only one
// machine replicates to a directory.
package sftp

import (
	"net/url"
	"os"
	"path"
	"strings"

	"github.com/benbjohnson/litestream"
	"github.com/benbjohnson/litestream/sftp"

	"github.com/bedplate/bedplate/backup"
	"github.com/bedplate/bedplate/backup/internal/replicator"
)

const scheme = "sftp"

func init() {
	backup.Register(scheme)
	replicator.Run(scheme, replicator.Scheme{Client: client})
}

func client(text string) (litestream.ReplicaClient, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	c := sftp.NewReplicaClient()
	c.Host, c.User, c.Password = u.Host, u.User.Username(), os.Getenv("SFTP_PASSWORD")
	c.Path = path.Clean("/" + u.Path)
	if home, ok := strings.CutPrefix(c.Path, "/~/"); ok {
		c.Path = home
	}
	c.KeyPath = u.Query().Get("keyPath")
	c.HostKey = hostKey(u.Query().Get("hostKey"))
	if c.HostKey == "" {
		return nil, errNoHostKey
	}
	return c, nil
}
