// Package gs links replicas in Google Cloud Storage into a program: import it for that alone.
//
//	gs://bucket/prefix
//
// Credentials are Google's application default credentials: those of the machine or workload, or
// the file that GOOGLE_APPLICATION_CREDENTIALS names, which Config.Credentials may return. There
// are no parameters. STORAGE_EMULATOR_HOST, the address of a store for tests that asks nobody who he
// is, has to be of this machine.
package gs

import (
	"errors"
	"net/netip"
	"net/url"
	"os"
	"path"
	"strings"

	"github.com/benbjohnson/litestream"
	"github.com/benbjohnson/litestream/gs"

	"github.com/bedplate/bedplate/backup"
	"github.com/bedplate/bedplate/backup/internal/gslease"
	"github.com/bedplate/bedplate/backup/internal/replicator"
)

const scheme = "gs"

func init() {
	backup.Register(scheme)
	replicator.Run(scheme, replicator.Scheme{Client: client, Leaser: gslease.New})
}

func client(text string) (litestream.ReplicaClient, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	if host := os.Getenv("STORAGE_EMULATOR_HOST"); host != "" && !isLocal(host) {
		return nil, errors.New("STORAGE_EMULATOR_HOST leads to another machine, where the database would go unencrypted and to anybody")
	}
	c := gs.NewReplicaClient()
	c.Bucket, c.Path = u.Host, strings.TrimPrefix(path.Clean("/"+u.Path), "/")
	return c, nil
}

// isLocal reports whether an address, with or without a scheme, is of this machine.
func isLocal(address string) bool {
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	host := u.Hostname()
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && addr.Unmap().IsLoopback()
}
