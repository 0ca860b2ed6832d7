package storetest

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/benbjohnson/litestream"

	"github.com/bedplate/bedplate/backup/internal/replicator"
)

const ttl = 10 * time.Minute

// testLease tests the leases of a store itself.
func testLease(t *testing.T, s *store) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *store, string)
	}{
		{"two", testLeaseOfTwo}, {"race", testLeaseRace}, {"expired", testLeaseExpired}, {"damaged", testLeaseDamaged},
		{"deleted", testLeaseDeleted}, {"age", testLeaseAge}, {"unreachable", testLeaseUnreachable},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, s, "some/"+test.name) })
	}
	t.Run("no prefix", func(t *testing.T) { testLeaseOfTwo(t, s, "") })
}

func testLeaseOfTwo(t *testing.T, s *store, prefix string) {
	ctx := t.Context()
	one, two := s.leaser(t, prefix, "one", ttl), s.leaser(t, prefix, "two", ttl)
	if _, _, err := one.ReadLease(ctx); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	began := time.Now()
	held, err := one.AcquireLease(ctx)
	if err != nil || held.Generation != 1 || held.Owner != "one" || held.ExpiresAt.Before(began.Add(ttl)) || held.ExpiresAt.After(time.Now().Add(ttl)) {
		t.Fatalf("%+v, %v", held, err)
	}
	if keys := s.objects.keys(t, prefix); !slices.Contains(keys, path.Join(prefix, "lock.json")) {
		t.Errorf("objects: %v", keys)
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
	// What no object has is how a store is tried that does not know conditions.
	if _, err := one.RenewLease(ctx, &litestream.Lease{Generation: 1, ETag: `"00000000000000000000000000000000"`}); !errors.Is(err, litestream.ErrLeaseNotHeld) {
		t.Fatal(err)
	}
	seen, _, err := two.ReadLease(ctx)
	if err != nil || seen.ETag != held.ETag || seen.Owner != "one" || !seen.ExpiresAt.Equal(held.ExpiresAt) {
		t.Fatalf("%+v, %v", seen, err)
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
	if seen, _, err = one.ReadLease(ctx); err != nil || seen.Owner != "" || seen.ExpiresAt.After(time.Now()) {
		t.Fatalf("%+v, %v", seen, err)
	}
	if held, err = one.AcquireLease(ctx); err != nil || held.Generation != 3 {
		t.Fatalf("%+v, %v", held, err)
	}
}

// Of many that want it at the same time, one gets it: where there was none, and where one was left.
func testLeaseRace(t *testing.T, s *store, prefix string) {
	leasers := make([]replicator.Leaser, 8)
	for i := range leasers {
		leasers[i] = s.leaser(t, prefix, string(rune('a'+i)), ttl)
		if _, _, err := leasers[i].ReadLease(t.Context()); !errors.Is(err, fs.ErrNotExist) { // and is connected
			t.Fatal(err)
		}
	}
	for generation := range int64(3) {
		var winner atomic.Pointer[litestream.Lease]
		var all sync.WaitGroup
		begin := make(chan struct{})
		for _, l := range leasers {
			all.Go(func() {
				<-begin
				held, err := l.AcquireLease(context.Background())
				var exists *litestream.LeaseExistsError
				switch {
				case err == nil && !winner.CompareAndSwap(nil, held):
					t.Errorf("%+v has it, and %+v", held, winner.Load())
				case err != nil && !errors.As(err, &exists):
					t.Error(err)
				}
			})
		}
		close(begin)
		all.Wait()
		held := winner.Load()
		if held == nil || held.Generation != 2*generation+1 {
			t.Fatalf("round %d: %+v has it", generation, held)
		}
		// The same with renewals of what everybody has seen.
		var renewed atomic.Int32
		for _, l := range leasers {
			all.Go(func() {
				_, err := l.RenewLease(context.Background(), &litestream.Lease{Generation: held.Generation + 1, ETag: held.ETag})
				switch {
				case err == nil:
					renewed.Add(1)
				case !errors.Is(err, litestream.ErrLeaseNotHeld):
					t.Error(err)
				}
			})
		}
		all.Wait()
		if n := renewed.Load(); n != 1 {
			t.Fatalf("round %d: %d have renewed it", generation, n)
		}
		last, _, err := leasers[0].ReadLease(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := leasers[0].ReleaseLease(t.Context(), last); err != nil {
			t.Fatal(err)
		}
	}
}

func testLeaseExpired(t *testing.T, s *store, prefix string) {
	if _, err := s.leaser(t, prefix, "one", -time.Second).AcquireLease(t.Context()); err != nil {
		t.Fatal(err)
	}
	held, err := s.leaser(t, prefix, "two", ttl).AcquireLease(t.Context())
	if err != nil || held.Owner != "two" || held.Generation != 2 {
		t.Errorf("%+v, %v", held, err)
	}
}

func testLeaseDamaged(t *testing.T, s *store, prefix string) {
	l := s.leaser(t, prefix, "one", ttl)
	for _, text := range []string{`{"generation":`, `{}`, ``, string(make([]byte, replicator.MaxLease)) + `{"generation":1}`} {
		s.objects.write(t, prefix+"/lock.json", []byte(text))
		seen, _, err := l.ReadLease(t.Context())
		if !errors.Is(err, replicator.ErrLeaseDamaged) || seen.ETag == "" {
			t.Fatalf("%.20q: %+v, %v", text, seen, err)
		}
		if _, err := l.AcquireLease(t.Context()); !errors.Is(err, replicator.ErrLeaseDamaged) {
			t.Errorf("%.20q: %v", text, err)
		}
		held, err := l.RenewLease(t.Context(), &litestream.Lease{Generation: 7, ETag: seen.ETag})
		if err != nil || held.Generation != 7 {
			t.Errorf("%.20q: %+v, %v", text, held, err)
		}
	}
}

func testLeaseDeleted(t *testing.T, s *store, prefix string) {
	l := s.leaser(t, prefix, "one", ttl)
	held, err := l.AcquireLease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.objects.remove(t, prefix+"/lock.json")
	if _, err := l.RenewLease(t.Context(), held); !errors.Is(err, litestream.ErrLeaseNotHeld) {
		t.Errorf("renewed: %v", err)
	}
	if _, _, err := l.ReadLease(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read: %v", err)
	}
	if held, err = l.AcquireLease(t.Context()); err != nil || held.Generation != 1 {
		t.Errorf("%+v, %v", held, err)
	}
}

// The age is by the clock of the store, which here is the one of this machine.
func testLeaseAge(t *testing.T, s *store, prefix string) {
	l := s.leaser(t, prefix, "one", ttl)
	began := time.Now()
	if _, err := l.AcquireLease(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, "the lease gets older", func() bool {
		_, age, err := l.ReadLease(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if most := time.Since(began); age < 0 || age > most {
			t.Fatalf("age %v after %v", age, most)
		}
		return age > 0
	})
}

// An error is not taken for a lease that is not there, nor for one that somebody else has.
func testLeaseUnreachable(t *testing.T, s *store, prefix string) {
	l := s.leaser(t, prefix, "one", ttl)
	held, err := l.AcquireLease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.cut()
	defer s.mend()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	for _, leaser := range []replicator.Leaser{l, s.leaser(t, prefix, "two", ttl)} {
		if _, _, err := leaser.ReadLease(ctx); err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, replicator.ErrLeaseDamaged) {
			t.Errorf("read: %v", err)
		}
		if _, err := leaser.RenewLease(ctx, held); err == nil || errors.Is(err, litestream.ErrLeaseNotHeld) {
			t.Errorf("renewed: %v", err)
		}
	}
	s.mend()
	await(t, "it is renewed again", func() bool {
		_, err := l.RenewLease(t.Context(), held)
		if errors.Is(err, litestream.ErrLeaseNotHeld) {
			t.Fatal(err)
		}
		return err == nil
	})
}
