// Package file links replicas in a directory, such as one on another disk, into a program: import
// it for that alone.
//
//	file:///var/backups/app
//
// The path is absolute and written as in any URL, with %20 for a space. There are no parameters and
// no credentials. A directory of the same disk protects from mistakes, not from the loss of the disk.
package file

import (
	"errors"
	"net/url"
	"path"

	"github.com/benbjohnson/litestream"
	"github.com/benbjohnson/litestream/file"

	"github.com/bedplate/bedplate/backup"
	"github.com/bedplate/bedplate/backup/internal/replicator"
)

const scheme = "file"

func init() {
	backup.Register(scheme)
	replicator.Run(scheme, replicator.Scheme{Client: client, Leaser: newLeaser})
}

func client(text string) (litestream.ReplicaClient, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	if u.Scheme != scheme || u.Host != "" || !path.IsAbs(u.Path) || path.Clean(u.Path) == "/" {
		return nil, errors.New("the path of a file replica has to be absolute")
	}
	return file.NewReplicaClient(path.Clean(u.Path)), nil
}
