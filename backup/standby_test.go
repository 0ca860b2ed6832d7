//go:build unix

package backup_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
)

// leftReplica returns a live database whose program has ended, with one row in the replica.
func leftReplica(t *testing.T) *live {
	t.Helper()
	l := newLive(t)
	l.cfg.LeaseTTL = 10 * time.Second // replicators start slowly on a busy machine
	r := l.start()
	l.exec("INSERT INTO t (v) VALUES ('x')")
	if _, err := r.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return l
}

// elsewhere is the path of the database on another machine.
func elsewhere(t *testing.T) string { return filepath.Join(t.TempDir(), "app.db") }

func (l *live) follow(path string) *backup.Standby {
	l.Helper()
	s, err := l.new().Follow(path)
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { _ = s.Close() })
	return s
}

func missing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

func TestPromote(t *testing.T) {
	t.Parallel()
	l := leftReplica(t)
	path := elsewhere(t)
	s := l.follow(path)
	hotJournal(t, path)
	if err := s.Promote(t.Context(), false, nil); err != nil {
		t.Fatal(err)
	}
	if n := countRows(t, path); n != 1 {
		t.Errorf("%d rows", n)
	}
	got := names(t, filepath.Dir(path))
	if !strings.HasPrefix(got, "app.db app.db-replica app.db.before-") || !strings.HasSuffix(got, "-journal") || strings.Count(got, " ") != 2 {
		t.Errorf("there is %s", got)
	}
	if err := s.Promote(t.Context(), true, nil); !errors.Is(err, backup.ErrClosed) {
		t.Errorf("promoted again: %v", err)
	}
}

// However long a check takes, no other machine gets the lease meanwhile.
func TestLeaseKept(t *testing.T) {
	t.Parallel()
	type check = func(context.Context, string) error
	for name, tt := range map[string]func(t *testing.T, l *live, path string, check check) error{
		"promote": func(t *testing.T, l *live, path string, check check) error {
			return l.follow(path).Promote(t.Context(), false, check)
		},
		"restore if missing": func(t *testing.T, l *live, path string, check check) error {
			_, err := l.new().RestoreIfMissing(t.Context(), path, check)
			return err
		},
		"replace": func(t *testing.T, l *live, path string, check check) error {
			makeDatabase(t, path, 7)
			_, err := l.new().Restore(t.Context(), path, backup.RestoreOptions{Replace: true, Check: check})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := leftReplica(t)
			path := elsewhere(t)
			err := tt(t, l, path, func(context.Context, string) error {
				if restored, err := l.new().RestoreIfMissing(t.Context(), elsewhere(t), nil); !errors.Is(err, backup.ErrLeased) {
					t.Errorf("another machine got the lease: %v, %v", restored, err)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if n := countRows(t, path); n != 1 {
				t.Errorf("%d rows", n)
			}
		})
	}
}

// Who loses the lease does not put its copy in place.
func TestPromoteLosesLease(t *testing.T) {
	t.Parallel()
	l := leftReplica(t)
	slow, fast := elsewhere(t), elsewhere(t)
	slower, faster := l.follow(slow), l.follow(fast)
	err := slower.Promote(t.Context(), false, func(ctx context.Context, _ string) error {
		if err := faster.Promote(t.Context(), true, nil); err != nil {
			t.Errorf("take over: %v", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(patience):
			t.Error("it does not notice")
		}
		return nil // sees nothing wrong
	})
	if !errors.Is(err, backup.ErrLeased) {
		t.Errorf("error %v", err)
	}
	if !missing(slow) {
		t.Error("there are two databases")
	}
	if n := countRows(t, fast); n != 1 {
		t.Errorf("%d rows", n)
	}
}

// What was closed starts nothing any more.
func TestCloseWhilePromoted(t *testing.T) {
	t.Parallel()
	l := leftReplica(t)
	var started atomic.Int32 // replicators
	l.cfg.LeaseTTL = -1
	l.cfg.Credentials = func(context.Context) (map[string]string, error) {
		started.Add(1)
		return map[string]string{}, nil
	}
	path := elsewhere(t)
	s := l.follow(path)
	var before int32
	err := s.Promote(t.Context(), false, func(ctx context.Context, _ string) error {
		if err := s.Promote(t.Context(), false, nil); err == nil || !strings.Contains(err.Error(), "already") {
			t.Errorf("a second Promote: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		before = started.Load()
		return ctx.Err()
	})
	if !errors.Is(err, backup.ErrClosed) {
		t.Errorf("error %v", err)
	}
	_ = s.Close() // waits for whatever there is
	if n := started.Load() - before; n != 0 {
		t.Errorf("%d replicators were started afterwards", n)
	}
	if !missing(path) {
		t.Error("it was promoted")
	}

	// When only the check fails, it goes on.
	s = l.follow(path)
	wrong := errors.New("wrong")
	if err := s.Promote(t.Context(), false, func(context.Context, string) error { return wrong }); !errors.Is(err, wrong) {
		t.Errorf("error %v", err)
	}
	if err := s.Promote(t.Context(), false, nil); err != nil {
		t.Error(err)
	}
	if n := countRows(t, path); n != 1 {
		t.Errorf("%d rows", n)
	}
}
