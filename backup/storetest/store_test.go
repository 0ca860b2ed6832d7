package storetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
	"github.com/bedplate/bedplate/backup/internal/replicator"
)

// A store is a server with one bucket, behind a relay of its own.
type store struct {
	*relay
	url         string            // of the bucket, with a %s for the prefix
	credentials map[string]string // for backup.Config
	objects     objects

	// leaser returns a leaser of the replica below a prefix.
	leaser func(t *testing.T, prefix, owner string, ttl time.Duration) replicator.Leaser
}

// objects are what is in the bucket, seen past the relay.
type objects interface {
	keys(t *testing.T, prefix string) []string
	read(t *testing.T, key string) []byte
	write(t *testing.T, key string, data []byte)
	remove(t *testing.T, key string)
}

// config is for a replica below prefix.
func (s *store) config(prefix string) backup.Config {
	return backup.Config{
		URL: fmt.Sprintf(s.url, prefix), SyncInterval: 50 * time.Millisecond, CanaryInterval: time.Second,
		AlarmAfter: 2 * time.Second, DrillInterval: -1, FinalSync: time.Minute,
		Credentials: func(context.Context) (map[string]string, error) { return s.credentials, nil },
	}
}
