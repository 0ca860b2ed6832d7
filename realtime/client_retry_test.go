package realtime_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bedplate/bedplate/realtime"
)

// What the answers of a server lead to.
func TestSubscribe_answers(t *testing.T) {
	t.Parallel()
	refuse := func(status int, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "go\x1b away\n")
		}
	}
	stream := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			streamHead(w)
			_, _ = io.WriteString(w, text)
		}
	}
	abort := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	const half = 500 * time.Millisecond
	tests := map[string]struct {
		answer http.HandlerFunc
		pause  time.Duration // before the next attempt, up to half as much again; 0: there is none
		status int           // of the error
		text   string        // of the error
	}{
		"over":                {answer: refuse(204)},
		"bad request":         {answer: refuse(400), status: 400, text: "realtime: go  away"},
		"unauthorized":        {answer: refuse(401), status: 401},
		"forbidden":           {answer: refuse(403), status: 403},
		"not found":           {answer: refuse(404), status: 404},
		"other success":       {answer: refuse(206), status: 206},
		"forbidden for now":   {answer: refuse(403, "Retry-After", "1"), status: 403},
		"too many":            {answer: refuse(429), pause: half},
		"too many, later":     {answer: refuse(429, "Retry-After", "20"), pause: 20 * time.Second},
		"broken":              {answer: refuse(500), pause: half},
		"unavailable":         {answer: refuse(503), pause: half},
		"unavailable, later":  {answer: refuse(503, "Retry-After", "90"), pause: 90 * time.Second},
		"sooner than we come": {answer: refuse(503, "Retry-After", "0"), pause: half},
		// Time in a bubble begins with the year 2000.
		"until a date":      {answer: refuse(503, "Retry-After", "Sat, 01 Jan 2000 00:01:00 GMT"), pause: time.Minute},
		"until yesterday":   {answer: refuse(503, "Retry-After", "Fri, 31 Dec 1999 00:00:00 GMT"), pause: half},
		"for ages":          {answer: refuse(503, "Retry-After", "99999999"), pause: 10 * time.Minute},
		"nonsense":          {answer: refuse(503, "Retry-After", "-5"), pause: half},
		"no answer":         {answer: abort, pause: half},
		"a stream ends":     {answer: stream(": ping\n\n"), pause: half},
		"retry":             {answer: stream("retry: 7000\nid: e.1\n: ping\n\n"), pause: 7 * time.Second},
		"retry alone":       {answer: stream("retry: 7000\n"), pause: 7 * time.Second},
		"half a retry":      {answer: stream("retry: 7000"), pause: half},
		"retry soon":        {answer: stream("retry: 0\n\n"), pause: half},
		"retry never":       {answer: stream("retry: 9999999999999999999999\n\n"), pause: 10 * time.Minute},
		"not a stream":      {answer: refuse(200, "Content-Type", "text/html; charset=utf-8"), text: `"text/html", not an event stream`},
		"of no type":        {answer: refuse(200, "Content-Type", ""), text: "not an event stream"},
		"stream, charset":   {answer: refuse(200, "Content-Type", "Text/Event-Stream; charset=utf-8"), pause: half},
		"compressed":        {answer: refuse(200, "Content-Type", "text/event-stream", "Content-Encoding", "gzip"), text: `coded as "gzip"`},
		"redirect, nowhere": {answer: refuse(302), status: 302},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var at []time.Time
				o := clientServer(t, func(w http.ResponseWriter, r *http.Request) {
					if at = append(at, time.Now()); len(at) > 1 {
						w.WriteHeader(http.StatusNoContent)
						return
					}
					test.answer(w, r)
				})
				o.Since = "e.0"
				err := realtime.Subscribe(t.Context(), o, func(realtime.Event) error { return nil })
				var refusal *realtime.Error
				if errors.As(err, &refusal) != (test.status != 0) || refusal != nil && refusal.Status != test.status ||
					err == nil && test.text != "" || err != nil && !strings.Contains(err.Error(), test.text) || err != nil && test.pause > 0 {
					t.Errorf("error %v", err)
				}
				switch {
				case test.pause == 0:
					if len(at) != 1 {
						t.Errorf("%d requests", len(at))
					}
				case len(at) != 2 || !between(at[1].Sub(at[0]), test.pause):
					t.Errorf("requests at %v, want a pause of %v", at, test.pause)
				}
			})
		})
	}
}

// between reports whether got is a pause of that least length.
func between(got, least time.Duration) bool { return got >= least && got <= least*3/2 }

// The pause doubles while nothing is achieved and is short again after that.
func TestSubscribe_backoff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time // when attempts have ended
		o := clientServer(t, func(w http.ResponseWriter, r *http.Request) {
			switch n := len(at); n {
			case 0: // counts once
				w.Header().Set("Retry-After", "3")
				w.WriteHeader(http.StatusServiceUnavailable)
			case 1: // a stream without anything
				streamHead(w)
			case 9: // a stream with an event
				streamHead(w)
				_, _ = io.WriteString(w, "id: e.1\ndata: {\"Insert\":{},\"seq\":1}\n\n")
			case 12: // a stream that lasts
				streamHead(w)
				for range 4 {
					time.Sleep(10 * time.Second)
					_, _ = io.WriteString(w, ":\n\n")
					_ = http.NewResponseController(w).Flush()
				}
			case 14: // a stream that neither lasts nor has an event
				streamHead(w)
				_, _ = io.WriteString(w, "id: e.2\n\n")
			case 17:
				w.WriteHeader(http.StatusNoContent)
			default:
				w.Header().Set("Retry-After", "60") // does not go with that
				w.WriteHeader(http.StatusInternalServerError)
			}
			at = append(at, time.Now())
		})
		err := realtime.Subscribe(t.Context(), o, func(realtime.Event) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		want := []time.Duration{3000, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000, 500, 1000, 2000, 500, 1000, 2000, 4000, 8000}
		var pauses []time.Duration
		for i := range at[1:] {
			pause := at[i+1].Sub(at[i])
			if i+1 == 12 {
				pause -= 40 * time.Second
			}
			pauses = append(pauses, pause)
		}
		for i := range want {
			want[i] *= time.Millisecond
		}
		if !slices.EqualFunc(pauses, want, between) {
			t.Errorf("pauses %v, want %v", pauses, want)
		}
	})
}

// A server that is silent is left, whenever that is. Others are not.
func TestSubscribe_idle(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		answer func(w http.ResponseWriter, gone <-chan struct{})
		after  time.Duration
	}{
		"before the answer": {func(_ http.ResponseWriter, gone <-chan struct{}) { <-gone }, 45 * time.Second},
		"from the beginning": {func(w http.ResponseWriter, gone <-chan struct{}) {
			streamHead(w)
			<-gone
		}, 45 * time.Second},
		"in an error": {func(w http.ResponseWriter, gone <-chan struct{}) {
			w.WriteHeader(http.StatusInternalServerError)
			_ = http.NewResponseController(w).Flush()
			<-gone
		}, 45 * time.Second},
		"after heartbeats": {func(w http.ResponseWriter, gone <-chan struct{}) {
			streamHead(w)
			for range 10 {
				time.Sleep(44 * time.Second)
				_, _ = io.WriteString(w, ":\n\n")
				_ = http.NewResponseController(w).Flush()
			}
			<-gone
		}, 485 * time.Second},
		"while the handler is busy": {func(w http.ResponseWriter, _ <-chan struct{}) {
			streamHead(w)
			_, _ = io.WriteString(w, "id: e.1\ndata: {\"Insert\":{},\"seq\":1}\n\n")
			_ = http.NewResponseController(w).Flush()
			time.Sleep(10*time.Minute + 30*time.Second)
		}, 10*time.Minute + 30*time.Second},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				began, took, requests := time.Now(), time.Duration(0), 0
				o := clientServer(t, func(w http.ResponseWriter, r *http.Request) {
					if requests++; requests > 1 {
						w.WriteHeader(http.StatusNoContent)
						return
					}
					test.answer(w, r.Context().Done())
					took = time.Since(began)
				})
				o.Client.Timeout = time.Second // which is for answers that end
				o.Since = "e.0"
				err := realtime.Subscribe(t.Context(), o, func(realtime.Event) error {
					time.Sleep(10 * time.Minute)
					return nil
				})
				if err != nil || took != test.after || requests != 2 {
					t.Errorf("left after %v, want %v; error %v; %d requests", took, test.after, err, requests)
				}
			})
		})
	}
}

// A context that is done ends everything at once.
func TestSubscribe_cancel(t *testing.T) {
	t.Parallel()
	waiting := func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	streaming := func(w http.ResponseWriter, r *http.Request) {
		streamHead(w)
		_, _ = io.WriteString(w, strings.Repeat("id: e.1\ndata: {\"Insert\":{}}\n\n", 10))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	tests := map[string]struct {
		answer http.HandlerFunc
		change func(t *testing.T, o *realtime.SubscribeOptions)
	}{
		"during a pause":       {answer: func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusBadGateway) }},
		"before the answer":    {answer: waiting},
		"while there is peace": {answer: streaming},
		"while connecting": {change: func(t *testing.T, o *realtime.SubscribeOptions) {
			l := newMemoryListener()
			t.Cleanup(func() { _ = l.Close() })
			o.Client = &http.Client{Transport: &http.Transport{DialContext: l.dial}}
		}},
		"while a token is fetched": {change: func(_ *testing.T, o *realtime.SubscribeOptions) {
			o.Token = func(ctx context.Context) (string, error) {
				<-ctx.Done()
				return "", ctx.Err()
			}
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Second+time.Millisecond, errors.New("enough"))
				defer cancel()
				o := clientServer(t, test.answer)
				if test.change != nil {
					test.change(t, &o)
				}
				deadline, _ := ctx.Deadline()
				err := realtime.Subscribe(ctx, o, func(realtime.Event) error { return nil })
				if late := time.Since(deadline); !errors.Is(err, context.DeadlineExceeded) || late != 0 {
					t.Errorf("%v late: %v", late, err)
				}
			})
		})
	}
	t.Run("no event after it", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			calls := 0
			err := realtime.Subscribe(ctx, clientServer(t, streaming), func(realtime.Event) error {
				calls++
				cancel()
				return nil
			})
			if !errors.Is(err, context.Canceled) || calls != 1 {
				t.Errorf("%d events, %v", calls, err)
			}
		})
	})
}

// The error of the handler is that of Subscribe, and its event is not dealt
// with.
func TestSubscribe_handlerFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		requests := 0
		o := clientServer(t, func(w http.ResponseWriter, _ *http.Request) {
			requests++
			streamHead(w)
			_, _ = io.WriteString(w, "id: e.1\ndata: {\"Insert\":{},\"seq\":1}\n\nid: e.2\ndata: {\"Insert\":{},\"seq\":2}\n\n")
		})
		for _, fail := range []error{errors.New("no"), &realtime.Error{Status: 503}, context.Canceled} {
			var ids []string
			requests = 0
			err := realtime.Subscribe(t.Context(), o, func(e realtime.Event) error {
				if ids = append(ids, e.ID); len(ids) == 2 {
					return fail
				}
				return nil
			})
			if err != fail || !slices.Equal(ids, []string{"e.1", "e.2"}) || requests != 1 {
				t.Errorf("%v: returned %v after %v and %d requests", fail, err, ids, requests)
			}
		}
	})
}

func TestSubscribe_token(t *testing.T) {
	t.Parallel()
	type answers []int // of the server
	tests := map[string]struct {
		answers answers
		asked   int
		status  int           // of the error
		pause   time.Duration // in all, at least
	}{
		"once per attempt":      {answers: answers{503, 503, 204}, asked: 3, pause: 1500 * time.Millisecond},
		"refresh":               {answers: answers{401, 204}, asked: 2},
		"refused":               {answers: answers{401, 401}, asked: 2, status: 401},
		"refused in between":    {answers: answers{401, 200, 401, 204}, asked: 4, pause: 500 * time.Millisecond},
		"refused after trouble": {answers: answers{401, 503, 401, 204}, asked: 4, pause: 500 * time.Millisecond},
		"forbidden":             {answers: answers{403}, asked: 1, status: 403},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var got []string
				o := clientServer(t, func(w http.ResponseWriter, r *http.Request) {
					status := test.answers[len(got)]
					got = append(got, r.Header.Get("Authorization"))
					if status == http.StatusOK {
						streamHead(w)
						return
					}
					w.WriteHeader(status)
				})
				var want []string
				o.Since = "e.0"
				o.Token = func(context.Context) (string, error) {
					token := strings.Repeat("t", len(want)+1)
					want = append(want, "Bearer "+token)
					return token, nil
				}
				began := time.Now()
				err := realtime.Subscribe(t.Context(), o, func(realtime.Event) error { return nil })
				var refusal *realtime.Error
				if errors.As(err, &refusal) != (test.status != 0) || refusal != nil && refusal.Status != test.status {
					t.Errorf("error %v", err)
				}
				if !slices.Equal(got, want) || len(got) != test.asked {
					t.Errorf("sent %q, want %q", got, want)
				}
				if took := time.Since(began); !between(took, test.pause) {
					t.Errorf("took %v, want %v", took, test.pause)
				}
			})
		})
	}
}

// Failures of the token func itself.
func TestSubscribe_noToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		requests := 0
		o := clientServer(t, func(w http.ResponseWriter, r *http.Request) {
			requests++
			w.WriteHeader(http.StatusNoContent)
		})
		asked := 0
		o.Token = func(context.Context) (string, error) {
			if asked++; asked < 3 {
				return "", errors.New("no network")
			}
			return "", nil // goes without
		}
		began := time.Now()
		handle := func(realtime.Event) error { return nil }
		if err := realtime.Subscribe(t.Context(), o, handle); err != nil || requests != 1 || !between(time.Since(began), 1500*time.Millisecond) {
			t.Errorf("%v, %d requests after %v", err, requests, time.Since(began))
		}
		requests = 0
		end := &realtime.Error{Status: 401, Text: "signed out"}
		o.Token = func(context.Context) (string, error) { return "", end }
		if err := realtime.Subscribe(t.Context(), o, handle); !errors.Is(err, end) {
			t.Errorf("%v", err)
		}
		for _, token := range []string{"secret\n", "secret\r\nX: y", "a b", "sécret"} {
			o.Token = func(context.Context) (string, error) { return token, nil }
			err := realtime.Subscribe(t.Context(), o, handle)
			if err == nil || strings.Contains(err.Error(), token) {
				t.Errorf("%q: %v", token, err)
			}
		}
		if requests != 0 {
			t.Errorf("%d requests", requests)
		}
	})
}

// A token goes nowhere but where it is meant for.
func TestSubscribe_redirect(t *testing.T) {
	t.Parallel()
	const path = "/api/records/v1/notes/subscribe/*"
	tests := map[string]struct {
		to      string
		follows bool
	}{
		"path":           {"/elsewhere", true},
		"same origin":    {"http://server/elsewhere", true},
		"other host":     {"http://evil/elsewhere", false},
		"subdomain":      {"http://sub.server/elsewhere", false},
		"other port":     {"http://server:8080/elsewhere", false},
		"other scheme":   {"https://server/elsewhere", false},
		"scheme-less":    {"//evil/elsewhere", false},
		"itself":         {path, false},
		"host in a user": {"http://server@evil/elsewhere", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				followed := 0
				// All hosts lead to this server.
				o := clientServer(t, func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == path {
						http.Redirect(w, r, test.to, http.StatusFound)
						return
					}
					if r.Header.Get("Authorization") != "Bearer secret" || r.Header.Get("Last-Event-ID") != "e.4" {
						t.Errorf("headers %v", r.Header)
					}
					followed++
					w.WriteHeader(http.StatusNoContent)
				})
				o.Since = "e.4"
				o.Token = func(context.Context) (string, error) { return "secret", nil }
				err := realtime.Subscribe(t.Context(), o, func(realtime.Event) error { return nil })
				if test.follows != (followed == 1) || test.follows != (err == nil) {
					t.Errorf("followed %d times, %v", followed, err)
				}
				if err != nil && !strings.Contains(err.Error(), "the server redirects") {
					t.Errorf("%v", err)
				}
			})
		})
	}
	t.Run("as the client likes", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			o := clientServer(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) })
			o.Client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			err := realtime.Subscribe(t.Context(), o, func(realtime.Event) error { return nil })
			var refusal *realtime.Error
			if !errors.As(err, &refusal) || refusal.Status != http.StatusFound {
				t.Errorf("%v", err)
			}
		})
	})
}

// What is logged shows neither the token nor what is filtered by.
func TestSubscribe_log(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		requests := 0
		o := clientServer(t, func(w http.ResponseWriter, _ *http.Request) {
			if requests++; requests > 1 {
				w.WriteHeader(http.StatusNoContent)
				return
			}
			panic(http.ErrAbortHandler)
		})
		var log strings.Builder
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		o.Filter = url.Values{"filter[name]": {"private"}}
		o.Token = func(context.Context) (string, error) { return "secret", nil }
		if err := realtime.Subscribe(t.Context(), o, func(realtime.Event) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if text := log.String(); !strings.Contains(text, "EOF") || strings.Contains(text, "secret") || strings.Contains(text, "private") {
			t.Errorf("%s", text)
		}
	})
}
