package replicator

import (
	"context"
	"errors"
	"io/fs"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/benbjohnson/litestream"
)

// A memoryStore is a LeaseStore. Its object is there when its text is not nil.
type memoryStore struct {
	mu     sync.Mutex
	text   []byte
	writes int
	before func() // is called before the next write
}

func (s *memoryStore) Read(context.Context) (text []byte, tag string, age time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.text == nil {
		return nil, "", 0, fs.ErrNotExist
	}
	return s.text, strconv.Itoa(s.writes), -time.Minute, nil
}

func (s *memoryStore) Write(ctx context.Context, text []byte, tag string) (newTag string, err error) {
	s.mu.Lock()
	before := s.before
	s.before = nil
	s.mu.Unlock()
	if before != nil {
		before()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := ctx.Deadline(); !ok {
		return "", errors.New("the request has no end")
	}
	if (s.text == nil) != (tag == "") || s.text != nil && tag != strconv.Itoa(s.writes) {
		return "", litestream.ErrLeaseNotHeld
	}
	s.text = text
	s.writes++
	return strconv.Itoa(s.writes), nil
}

func TestObjectLease(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), &memoryStore{}
	one, two := NewLeaser("test", s, "one", time.Hour), NewLeaser("test", s, "two", time.Hour)
	var exists *litestream.LeaseExistsError

	if lease, _, err := one.ReadLease(ctx); lease != nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %+v, %v", lease, err)
	}
	s.before = func() {
		if _, err := two.AcquireLease(ctx); err != nil {
			t.Error(err)
		}
	}
	if _, err := one.AcquireLease(ctx); !errors.As(err, &exists) || exists.Owner != "two" || exists.ExpiresAt.IsZero() {
		t.Errorf("somebody was faster: %v", err)
	}
	if _, err := one.AcquireLease(ctx); !errors.As(err, &exists) {
		t.Errorf("somebody has it: %v", err)
	}
	held, age, err := two.ReadLease(ctx)
	if err != nil || held.Owner != "two" || held.Generation != 1 || age != 0 {
		t.Fatalf("%+v, age %v, %v", held, age, err)
	}
	if err := two.ReleaseLease(ctx, held); err != nil {
		t.Fatal(err)
	}
	if err := two.ReleaseLease(ctx, held); !errors.Is(err, litestream.ErrLeaseNotHeld) {
		t.Errorf("released twice: %v", err)
	}
	if held, err = one.AcquireLease(ctx); err != nil || held.Generation != 2 || held.Owner != "one" {
		t.Errorf("%+v, %v", held, err)
	}
	s.text = []byte("{")
	if lease, _, err := one.ReadLease(ctx); !errors.Is(err, ErrLeaseDamaged) || lease.ETag == "" || lease.Generation != 0 {
		t.Errorf("damaged: %+v, %v", lease, err)
	}
	if _, err := one.AcquireLease(ctx); !errors.Is(err, ErrLeaseDamaged) {
		t.Errorf("damaged: %v", err)
	}
}
