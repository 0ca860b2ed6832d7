// Package webdav links replicas on a WebDAV server into a program: import it for that alone.
//
//	webdavs://user@host/path
//	webdav://user@127.0.0.1:8080/path
//
// The second is without encryption and needs the parameter plaintext=true when it is not this
// machine: both the password and the database can be read on the way. The password is
// WEBDAV_PASSWORD, which Config.Credentials may return. There are no leases: see to it that only
// one machine replicates to a path.
package webdav

import (
	"net/url"
	"os"
	"path"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/benbjohnson/litestream/webdav"

	"github.com/bedplate/bedplate/backup"
	"github.com/bedplate/bedplate/backup/internal/replicator"
)

// requestTimeout is for a request as a whole, such as the upload of a snapshot.
const requestTimeout = 10 * time.Minute

func init() {
	for _, scheme := range []string{"webdav", "webdavs"} {
		backup.Register(scheme)
		replicator.Run(scheme, replicator.Scheme{Client: client})
	}
}

func client(text string) (litestream.ReplicaClient, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	c := webdav.NewReplicaClient()
	c.URL = "https://" + u.Host
	if u.Scheme == "webdav" {
		c.URL = "http://" + u.Host
	}
	c.Username, c.Password = u.User.Username(), os.Getenv("WEBDAV_PASSWORD")
	c.Path = path.Clean("/" + u.Path)
	c.Timeout = requestTimeout
	return c, nil
}
