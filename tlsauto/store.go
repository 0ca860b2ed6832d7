package tlsauto

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/acme/autocert"
)

// A Store keeps values under keys. It has the methods of [autocert.Cache], so that [autocert.DirCache]
// is one. What is in it is secret. Keys have letters, digits, ".", "-", "_" and "+" only, and at most
// 200 bytes. Methods must return when ctx ends, and are called by several goroutines at once.
type Store interface {
	// Get returns the value of a key, or [ErrNotFound].
	Get(ctx context.Context, key string) ([]byte, error)

	// Put sets the value of a key. When it returns, the value should be on disk.
	Put(ctx context.Context, key string, value []byte) error

	// Delete removes a key. One that is not there is no error.
	Delete(ctx context.Context, key string) error
}

// ErrNotFound is the error of a [Store] that does not have a key. It is that of an autocert.Cache.
var ErrNotFound = autocert.ErrCacheMiss

// A Leaser is a [Store] by which several processes agree on one that does something. Without it each
// orders for itself, and one that begins at the same time as another may fail once.
type Leaser interface {
	// Acquire takes or renews a lease, and reports whether owner has it now. It lasts until now+ttl, or
	// until it is released. A lease that has longer to go than any may is nobody's, as it was taken by a
	// clock that was wrong: longer than a day, and than ttl if that is more.
	Acquire(ctx context.Context, lease, owner string, now time.Time, ttl time.Duration) (bool, error)

	// Release ends a lease if owner has it.
	Release(ctx context.Context, lease, owner string) error
}

// NewMemoryStore returns a Store, and Leaser, that keeps everything in memory: for tests, and for
// issuers that nobody counts the orders of.
func NewMemoryStore() Store {
	return &memoryStore{values: map[string][]byte{}, leases: map[string]lease{}}
}

type memoryStore struct {
	mu     sync.Mutex
	values map[string][]byte
	leases map[string]lease
}

type lease struct {
	owner string
	until time.Time
}

func (s *memoryStore) Get(_ context.Context, key string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	value, ok := s.values[key]
	if !ok {
		return nil, ErrNotFound
	}
	return append([]byte(nil), value...), nil
}

func (s *memoryStore) Put(_ context.Context, key string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[key] = append([]byte(nil), value...)
	return nil
}

func (s *memoryStore) Delete(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.values, key)
	return nil
}

func (s *memoryStore) Acquire(_ context.Context, name, owner string, now time.Time, ttl time.Duration) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l, ok := s.leases[name]; ok && l.owner != owner && l.until.After(now) && !l.until.After(longestLease(now, ttl)) {
		return false, nil
	}
	s.leases[name] = lease{owner, now.Add(ttl)}
	return true, nil
}

func (s *memoryStore) Release(_ context.Context, name, owner string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leases[name].owner == owner {
		delete(s.leases, name)
	}
	return nil
}

// longestLease is when a lease ends at the latest, unless it was taken by a clock that was wrong. Those
// of other processes may last longer than ttl, but not for a day.
func longestLease(now time.Time, ttl time.Duration) time.Time {
	return now.Add(max(ttl, 24*time.Hour))
}

// partOf is the part of a store that belongs to an issuer.
func partOf(s Store, issuer string) Store {
	return &storePart{s, shortHash(issuer) + "+"}
}

type storePart struct {
	store  Store
	prefix string
}

func (p *storePart) Get(ctx context.Context, key string) ([]byte, error) {
	return p.store.Get(ctx, p.prefix+key)
}

func (p *storePart) Put(ctx context.Context, key string, value []byte) error {
	return p.store.Put(ctx, p.prefix+key, value)
}

func (p *storePart) Delete(ctx context.Context, key string) error {
	return p.store.Delete(ctx, p.prefix+key)
}

// certificateID is the name in the store of a certificate with these names, in whatever order: the first
// of them in that of the alphabet, so that somebody who looks sees what it is, and a hash if that is not all.
func certificateID(names []string) string {
	names = slices.Sorted(slices.Values(names))
	first := strings.NewReplacer("*", "_wildcard", ":", "_").Replace(names[0])
	if len(names) == 1 && len(first) <= 120 {
		return first
	}
	return first[:min(len(first), 120)] + "-" + shortHash(strings.Join(names, ","))
}

func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:8])
}
