package file

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/benbjohnson/litestream/file"

	"github.com/bedplate/bedplate/backup/internal/replicator"
)

func leaserIn(t *testing.T, dir, owner string) replicator.Leaser {
	t.Helper()
	l, err := newLeaser(file.NewReplicaClient(dir), owner, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return l.(replicator.Leaser)
}

func TestLease(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "not", "there")
	ctx := t.Context()
	one, two := leaserIn(t, dir, "one"), leaserIn(t, dir, "two")
	if _, _, err := one.ReadLease(ctx); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	held, err := one.AcquireLease(ctx)
	if err != nil || held.Generation != 1 || held.Owner != "one" || held.TTL() < 50*time.Minute {
		t.Fatalf("%+v, %v", held, err)
	}
	var exists *litestream.LeaseExistsError
	if _, err := two.AcquireLease(ctx); !errors.As(err, &exists) || exists.Owner != "one" {
		t.Fatal(err)
	}
	old := *held
	if held, err = one.RenewLease(ctx, held); err != nil || held.Generation != 1 || held.ETag == old.ETag {
		t.Fatalf("%+v, %v", held, err)
	}
	if _, err := one.RenewLease(ctx, &old); !errors.Is(err, litestream.ErrLeaseNotHeld) {
		t.Fatal(err)
	}
	seen, age, err := two.ReadLease(ctx)
	if err != nil || seen.ETag != held.ETag || seen.Owner != "one" || age < 0 || age > 10*time.Minute {
		t.Fatalf("%+v, %v, %v", seen, age, err)
	}
	// The object is the one of Litestream's leaser for S3.
	text, err := os.ReadFile(filepath.Join(dir, "lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil || fields["owner"] != "one" || fields["generation"] != 1.0 || fields["expires_at"] == nil {
		t.Fatalf("%s, %v", text, err)
	}
	taken, err := two.RenewLease(ctx, &litestream.Lease{Generation: 2, ETag: seen.ETag})
	if err != nil || taken.Generation != 2 || taken.Owner != "two" {
		t.Fatalf("%+v, %v", taken, err)
	}
	if err := one.ReleaseLease(ctx, held); !errors.Is(err, litestream.ErrLeaseNotHeld) {
		t.Fatal(err)
	}
	if err := two.ReleaseLease(ctx, taken); err != nil {
		t.Fatal(err)
	}
	if seen, _, err = one.ReadLease(ctx); err != nil || seen.Owner != "" || seen.TTL() > 0 {
		t.Fatalf("%+v, %v", seen, err)
	}
	if held, err = one.AcquireLease(ctx); err != nil || held.Generation != 3 {
		t.Fatalf("%+v, %v", held, err)
	}
}

func TestLeaseAge(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := leaserIn(t, dir, "one")
	if _, err := l.AcquireLease(t.Context()); err != nil {
		t.Fatal(err)
	}
	hourAgo := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(dir, leaseFile), hourAgo, hourAgo); err != nil {
		t.Fatal(err)
	}
	if _, age, err := l.ReadLease(t.Context()); err != nil || age < 59*time.Minute || age > 70*time.Minute {
		t.Error(age, err)
	}
}

func TestLeaseDamaged(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "{", "\x00", `{"generation":0}`, "null", `{"generation":"1"}`} {
		dir := t.TempDir()
		l := leaserIn(t, dir, "one")
		if err := os.WriteFile(filepath.Join(dir, leaseFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		seen, _, err := l.ReadLease(t.Context())
		if !errors.Is(err, replicator.ErrLeaseDamaged) || seen.ETag == "" {
			t.Fatalf("%q: %+v, %v", text, seen, err)
		}
		if _, err := l.AcquireLease(t.Context()); !errors.Is(err, replicator.ErrLeaseDamaged) {
			t.Errorf("%q: %v", text, err)
		}
		if held, err := l.RenewLease(t.Context(), &litestream.Lease{Generation: 1, ETag: seen.ETag}); err != nil || held.Owner != "one" {
			t.Errorf("%q: %+v, %v", text, held, err)
		}
	}
}

// Of many who want it at the same time, one has it.
func TestLeaseRace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var winners atomic.Int32
	var all sync.WaitGroup
	for _, owner := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		all.Go(func() {
			l := leaserIn(t, dir, owner)
			held, err := l.AcquireLease(context.Background())
			if err == nil {
				winners.Add(1)
				_, err = l.RenewLease(context.Background(), held)
			}
			var exists *litestream.LeaseExistsError
			if err != nil && !errors.As(err, &exists) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := winners.Load(); n != 1 {
		t.Errorf("%d have it", n)
	}
}

func TestLeaseLockEnds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := leaserIn(t, dir, "one").(*leaser)
	err := l.locked(t.Context(), func(time.Time) error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, _, err := l.ReadLease(ctx)
		return err
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
