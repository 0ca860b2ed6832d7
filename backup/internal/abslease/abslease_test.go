package abslease

import (
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/benbjohnson/litestream/abs"

	"github.com/bedplate/bedplate/backup/internal/replicator"
)

// leaserFor returns a leaser for a store that answers as handler does.
func leaserFor(t *testing.T, handler http.HandlerFunc) replicator.Leaser {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	c := abs.NewReplicaClient()
	c.AccountName, c.AccountKey, c.Endpoint, c.Bucket, c.Path = "me", "a2V5", server.URL+"/me", "box", "some/where"
	l, err := New(c, "one", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return l.(replicator.Leaser)
}

// The age is by the clock of the store.
func TestAge(t *testing.T) {
	t.Parallel()
	changed := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	modified := changed
	l := leaserFor(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/me/box/some/where/lock.json" {
			t.Errorf("request for %s", r.URL)
		}
		w.Header().Set("Etag", `"e"`)
		w.Header().Set("Last-Modified", modified.Format(http.TimeFormat))
		w.Header().Set("Date", changed.Add(time.Hour).Format(http.TimeFormat))
		_, _ = w.Write([]byte(`{"generation":3,"owner":"two","expires_at":"2001-02-03T04:05:26Z"}`))
	})
	lease, age, err := l.ReadLease(t.Context())
	if err != nil || lease.ETag != `"e"` || lease.Owner != "two" || age != time.Hour-time.Second {
		t.Errorf("%+v, age %v, %v", lease, age, err)
	}
	modified = changed.Add(2 * time.Hour)
	if _, age, err := l.ReadLease(t.Context()); err != nil || age != 0 {
		t.Errorf("changed later than it is now: age %v, %v", age, err)
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status      int
		code        string
		none, taken bool // what it is taken for
	}{
		{status: http.StatusForbidden, code: "AuthorizationFailure"},
		{status: http.StatusNotFound, code: "BlobNotFound", none: true, taken: true},
		{status: http.StatusNotFound, code: "ContainerNotFound"},
		{status: http.StatusPreconditionFailed, code: "ConditionNotMet", taken: true},
		{status: http.StatusConflict, code: "BlobAlreadyExists", taken: true},
		{status: http.StatusConflict, code: "ContainerBeingDeleted"},
		{status: http.StatusServiceUnavailable, code: "ServerBusy"},
	} {
		l := leaserFor(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Ms-Error-Code", c.code)
			w.WriteHeader(c.status)
		})
		if _, _, err := l.ReadLease(t.Context()); err == nil || errors.Is(err, fs.ErrNotExist) != c.none || errors.Is(err, replicator.ErrLeaseDamaged) {
			t.Errorf("read, %s: %v", c.code, err)
		}
		if _, err := l.RenewLease(t.Context(), &litestream.Lease{Generation: 1, ETag: `"e"`}); err == nil || errors.Is(err, litestream.ErrLeaseNotHeld) != c.taken {
			t.Errorf("write, %s: %v", c.code, err)
		}
	}
}
