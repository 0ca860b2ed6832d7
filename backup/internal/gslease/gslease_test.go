package gslease

import (
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/benbjohnson/litestream/gs"

	"github.com/bedplate/bedplate/backup/internal/replicator"
)

// leaserFor returns a leaser for a store that answers as handler does.
func leaserFor(t *testing.T, handler http.HandlerFunc) replicator.Leaser {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	t.Setenv("STORAGE_EMULATOR_HOST", server.URL)
	c := gs.NewReplicaClient()
	c.Bucket, c.Path = "bucket", "some/where"
	l, err := New(c, "one", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return l.(replicator.Leaser)
}

// The age is by the clock of the store.
func TestAge(t *testing.T) {
	changed := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	modified := changed.Format(http.TimeFormat)
	l := leaserFor(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/storage/v1/b/bucket/o/some/where/lock.json" || r.URL.Query().Get("alt") != "media" {
			t.Errorf("request for %s", r.URL)
		}
		w.Header().Set("X-Goog-Generation", "17")
		w.Header().Set("Last-Modified", modified)
		w.Header().Set("Date", changed.Add(time.Hour).Format(http.TimeFormat))
		_, _ = w.Write([]byte(`{"generation":3,"owner":"two","expires_at":"2001-02-03T04:05:26Z"}`))
	})
	lease, age, err := l.ReadLease(t.Context())
	if err != nil || lease.ETag != "17" || lease.Owner != "two" || age != time.Hour-time.Second {
		t.Errorf("%+v, age %v, %v", lease, age, err)
	}
	for _, modified = range []string{"", "nonsense", changed.Add(2 * time.Hour).Format(http.TimeFormat)} {
		if _, age, err := l.ReadLease(t.Context()); err != nil || age != 0 {
			t.Errorf("changed at %q: age %v, %v", modified, age, err)
		}
	}
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		status      int
		none, taken bool // what it is taken for
	}{
		{status: http.StatusForbidden},
		{status: http.StatusNotFound, none: true},
		{status: http.StatusPreconditionFailed, taken: true},
		{status: http.StatusConflict},
		{status: http.StatusOK}, // without a generation
	} {
		l := leaserFor(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.status)
			_, _ = w.Write([]byte(`no`))
		})
		if _, _, err := l.ReadLease(t.Context()); err == nil || errors.Is(err, fs.ErrNotExist) != c.none || errors.Is(err, replicator.ErrLeaseDamaged) {
			t.Errorf("read, status %d: %v", c.status, err)
		}
		if _, err := l.RenewLease(t.Context(), &litestream.Lease{Generation: 1, ETag: "1"}); err == nil || errors.Is(err, litestream.ErrLeaseNotHeld) != c.taken {
			t.Errorf("write, status %d: %v", c.status, err)
		}
	}
}

// The condition is in the request, for each kind of tag.
func TestCondition(t *testing.T) {
	got := ""
	l := leaserFor(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.URL.Query().Get("ifGenerationMatch")
		if !strings.HasPrefix(r.URL.Path, "/upload/") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = w.Write([]byte(`{"generation":"18"}`))
	})
	for tag, want := range map[string]string{"17": "17", "0": "9223372036854775807", `"0000"`: "9223372036854775807", "-1": "9223372036854775807"} {
		if lease, err := l.RenewLease(t.Context(), &litestream.Lease{Generation: 1, ETag: tag}); err != nil || got != want || lease.ETag != "18" {
			t.Errorf("tag %q: condition %q, %+v, %v", tag, got, lease, err)
		}
	}
	if lease, err := l.AcquireLease(t.Context()); err != nil || got != "0" || lease.ETag != "18" {
		t.Errorf("none: condition %q, %+v, %v", got, lease, err)
	}
}
