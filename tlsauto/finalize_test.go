package tlsauto_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

// failAt has the first requests to some paths answered by something else. If they are to arrive all the
// same, only the answers are lost. Orders are looked at as ever until one is finalized.
func failAt(times int64, arrives bool, answer http.HandlerFunc, paths ...string) func(ca *fakeACME) {
	return func(ca *fakeACME) {
		left := map[string]*atomic.Int64{}
		for _, path := range paths {
			left[path] = &atomic.Int64{}
			left[path].Store(times)
		}
		ca.intercept = func(w http.ResponseWriter, r *http.Request) bool {
			for path, n := range left {
				if path == "/order/" && ca.count("/finalize") == 0 {
					continue
				}
				if strings.HasPrefix(r.URL.Path, path) && n.Add(-1) >= 0 {
					if arrives {
						ca.ServeHTTP(httptest.NewRecorder(), r)
					}
					answer(w, r)
					return true
				}
			}
			return false
		}
	}
}

func unavailable(retryAfter string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		problem(w, http.StatusServiceUnavailable, "serverInternal", "busy")
	}
}

// reset ends the connection without an answer.
func reset(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// What has been issued is fetched, whatever happens on the way: it is one of few.
func TestACMEFetchesAgain(t *testing.T) {
	t.Parallel()
	html := func(w http.ResponseWriter, r *http.Request) { respond(w, "<html>") }
	for name, test := range map[string]struct {
		set  func(ca *fakeACME)
		wait time.Duration
	}{
		"request is refused":        {set: failAt(3, false, unavailable(""), "/finalize")},
		"request is reset":          {set: failAt(1, false, reset, "/finalize")},
		"answer is lost":            {set: failAt(1, true, reset, "/finalize")},
		"answer is another":         {set: failAt(1, true, unavailable(""), "/finalize")},
		"answer is none of ACME":    {set: failAt(1, true, html, "/finalize")},
		"certificate":               {set: failAt(5, false, unavailable(""), "/certificate")},
		"certificate is reset":      {set: failAt(2, false, reset, "/certificate")},
		"certificate is not there":  {set: failAt(1, false, http.NotFound, "/certificate")},
		"certificate is none":       {set: failAt(1, false, html, "/certificate")},
		"certificate after a pause": {set: failAt(1, false, unavailable("1"), "/certificate"), wait: time.Second},
		"order":                     {set: failAt(2, true, unavailable(""), "/order/", "/certificate")},
		"everything":                {set: failAt(2, false, unavailable(""), "/finalize", "/order/", "/certificate")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := newFakeACME(t, test.set)
			issuer := &tlsauto.ACME{Directory: directoryOf(ca)}
			issuer.SetPauses(make([]time.Duration, 7)...)
			start := time.Now()
			cert, err := issuer.Issue(t.Context(), orderFor(ca, "example.com"))
			if err != nil {
				t.Fatal(err)
			}
			ca.verify(t, cert, "example.com")
			if len(ca.orders) != 1 || ca.orders[0].issued != 1 {
				t.Errorf("%d orders, %d certificates", len(ca.orders), ca.orders[0].issued)
			}
			if d := time.Since(start); d < test.wait {
				t.Errorf("it took %s, and not %s", d, test.wait)
			}
		})
	}
}

func TestACMEFetchFails(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		set   func(ca *fakeACME)
		says  string
		after time.Duration
		path  string // that requests come to
		times int    // as often
	}{
		"for ever":  {set: failAt(100, false, unavailable(""), "/certificate"), says: "fetch the certificate: 503", path: "/certificate", times: 4},
		"long wait": {set: failAt(100, false, unavailable("3600"), "/certificate"), says: "fetch the certificate: 503", after: time.Hour, path: "/certificate", times: 1},
		"refused": {set: failAt(100, false, func(w http.ResponseWriter, r *http.Request) {
			problem(w, http.StatusForbidden, "unauthorized", "no more of them")
		}, "/finalize"), says: "no more of them", path: "/finalize", times: 1},
		"invalid order": {set: func(ca *fakeACME) {
			failAt(100, false, func(w http.ResponseWriter, r *http.Request) {
				ca.mu.Lock()
				ca.orders[0].state = "invalid"
				ca.mu.Unlock()
				unavailable("")(w, r)
			}, "/finalize")(ca)
		}, says: "the order is invalid", path: "/finalize", times: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := newFakeACME(t, test.set)
			issuer := &tlsauto.ACME{Directory: directoryOf(ca)}
			issuer.SetPauses(0, 0, 0)
			_, err := issuer.Issue(t.Context(), orderFor(ca, "example.com"))
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("error %v, want %q", err, test.says)
			}
			var after *tlsauto.RetryAfterError
			if errors.As(err, &after); (after == nil) != (test.after == 0) || after != nil && after.After != test.after {
				t.Errorf("error %#v, want a RetryAfterError: %s", err, test.after)
			}
			if n := ca.count(test.path); n != test.times {
				t.Errorf("%d requests to %s, want %d", n, test.path, test.times)
			}
		})
	}
}

// A pause ends with the context, and is not begun when that leaves no time for more.
func TestACMEFetchEndsWithContext(t *testing.T) {
	t.Parallel()
	failed := make(chan struct{}, 1)
	ca := newFakeACME(t, failAt(100, false, func(w http.ResponseWriter, r *http.Request) {
		unavailable("")(w, r)
		failed <- struct{}{}
	}, "/certificate"))
	issuer := &tlsauto.ACME{Directory: directoryOf(ca)}
	const pause = time.Minute
	issuer.SetPauses(pause)

	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-failed; cancel() }()
	start := time.Now()
	if _, err := issuer.Issue(ctx, orderFor(ca, "example.com")); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if d := time.Since(start); d >= pause {
		t.Errorf("it took %s, and with that the whole pause", d)
	}
	ctx, cancel = context.WithTimeout(t.Context(), pause-time.Second)
	defer cancel()
	if _, err := issuer.Issue(ctx, orderFor(ca, "example.com")); err == nil || !strings.Contains(err.Error(), "503") || ctx.Err() != nil {
		t.Errorf("error %v, and of the context %v", err, ctx.Err())
	}
}
