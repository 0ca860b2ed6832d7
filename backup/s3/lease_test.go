package s3

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/bedplate/bedplate/backup/internal/replicator"
)

// storeFor starts a store and returns the URL of a replica there.
func storeFor(t *testing.T, wrap func(http.Handler) http.Handler) string {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket("bucket"); err != nil {
		t.Fatal(err)
	}
	handler := gofakes3.New(backend).Server()
	if wrap != nil {
		handler = wrap(handler)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return "s3://bucket/some/where?region=us-east-1&endpoint=" + server.URL
}

func leaserAt(t *testing.T, url, owner string) replicator.Leaser {
	t.Helper()
	c, err := client(url)
	if err != nil {
		t.Fatal(err)
	}
	l, err := newLeaser(c, owner, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return l.(replicator.Leaser)
}

func setCredentials(t *testing.T) {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
}

func TestLease(t *testing.T) {
	setCredentials(t)
	url := storeFor(t, nil)
	ctx := t.Context()
	one, two := leaserAt(t, url, "one"), leaserAt(t, url, "two")
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

func TestLeaseRace(t *testing.T) {
	setCredentials(t)
	url := storeFor(t, nil)
	var winners atomic.Int32
	var all sync.WaitGroup
	for _, owner := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		l := leaserAt(t, url, owner)
		all.Go(func() {
			_, err := l.AcquireLease(context.Background())
			var exists *litestream.LeaseExistsError
			if err == nil {
				winners.Add(1)
			} else if !errors.As(err, &exists) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := winners.Load(); n != 1 {
		t.Errorf("%d have it", n)
	}
}

func TestLeaseDamagedAndOld(t *testing.T) {
	setCredentials(t)
	body := `{"generation":`
	modified := time.Now().Add(-time.Hour)
	url := storeFor(t, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/bucket/some/where/lock.json" {
				t.Errorf("request for %s", r.URL.Path)
			}
			w.Header().Set("Etag", `"e"`)
			w.Header().Set("Last-Modified", modified.UTC().Format(http.TimeFormat))
			_, _ = w.Write([]byte(body))
		})
	})
	l := leaserAt(t, url, "one")
	seen, age, err := l.ReadLease(t.Context())
	if !errors.Is(err, replicator.ErrLeaseDamaged) || seen.ETag != `"e"` {
		t.Errorf("%+v, %v", seen, err)
	}
	if age < 59*time.Minute || age > 70*time.Minute {
		t.Errorf("age %v", age)
	}
	body = strings.Repeat(" ", maxLease) + `{"generation":1}`
	if _, _, err := l.ReadLease(t.Context()); !errors.Is(err, replicator.ErrLeaseDamaged) {
		t.Errorf("%v", err)
	}
}

func TestLeaseDenied(t *testing.T) {
	setCredentials(t)
	url := storeFor(t, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>no</Message></Error>`))
		})
	})
	l := leaserAt(t, url, "one")
	if _, _, err := l.ReadLease(t.Context()); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "AccessDenied") {
		t.Error(err)
	}
}
