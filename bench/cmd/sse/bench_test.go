package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/bench/internal/dataset"
	"github.com/bedplate/bedplate/bench/internal/result"
)

const (
	testUsers  = 10 // of whom nine are in the hall
	testEvents = 40
)

// TestCounts runs servers that make mistakes and checks that each is counted.
func TestCounts(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		rule   bool
		spoil  func(s *fakeStream, frame string) []string
		want   result.Stream
		errors bool
	}{
		{
			name: "exact",
			want: result.Stream{Events: testEvents, Expected: testUsers * testEvents},
		},
		{
			name: "exact with a rule", rule: true,
			spoil: membersOnly,
			want:  result.Stream{Events: testEvents, Expected: (testUsers - 1) * testEvents},
		},
		{
			name: "no rule where one is asked for", rule: true,
			want: result.Stream{Events: testEvents, Expected: (testUsers - 1) * testEvents, Leaked: testEvents},
		},
		{
			name:  "one lost",
			spoil: onNth(7, func(s *fakeStream, frame string) []string { return nil }),
			want:  result.Stream{Events: testEvents, Expected: testUsers * testEvents, Lost: 1},
		},
		{
			name:  "one twice",
			spoil: onNth(7, func(s *fakeStream, frame string) []string { return []string{frame, frame} }),
			want:  result.Stream{Events: testEvents, Expected: testUsers * testEvents, Repeated: 1},
		},
		{
			name: "another order on one stream",
			spoil: func(s *fakeStream, frame string) []string {
				if s.number != 3 {
					return []string{frame}
				}
				if s.count%2 == 0 {
					s.held = frame
					return nil
				}
				return []string{frame, s.held}
			},
			// Whether the two are of one writer is up to chance: at least the order
			// as a whole is noticed.
			want: result.Stream{Events: testEvents, Expected: testUsers * testEvents, Disordered: 1},
		},
		{
			name: "a gap", errors: true,
			spoil: onNth(7, func(s *fakeStream, frame string) []string {
				return []string{"data: {\"Error\":{\"status\":2,\"message\":\"gap\"},\"seq\":7}\n\n"}
			}),
			want: result.Stream{Events: testEvents, Expected: testUsers * testEvents, Lost: testEvents - 7},
		},
	}
	for api := range peers {
		for _, tt := range tests {
			t.Run(api+" "+tt.name, func(t *testing.T) {
				t.Parallel()
				b := newTestBench(t, api, tt.rule, tt.spoil)
				res, err := b.run(stint{workload: burst, events: testEvents, duration: time.Minute})
				if err != nil {
					t.Fatal(err)
				}
				got := *res.Stream
				if tt.want.Disordered > 0 && got.Disordered > 0 {
					got.Disordered = tt.want.Disordered
				}
				if got != tt.want {
					t.Errorf("got %+v, want %+v", got, tt.want)
				}
				if wantReqs := got.Expected - got.Lost; res.Reqs != wantReqs {
					t.Errorf("received %d, want %d", res.Reqs, wantReqs)
				}
				if (res.Errs > 0) != tt.errors {
					t.Errorf("%d errors, first: %s", res.Errs, res.FirstErr)
				}
			})
		}
	}
}

// TestTrickle checks that events are written at their time, and that a second
// workload does not look at those of the first.
func TestTrickle(t *testing.T) {
	t.Parallel()
	b := newTestBench(t, "bedplate", false, nil)
	for range 2 {
		start := time.Now()
		res, err := b.run(stint{workload: trickle, events: 10, gap: 5 * time.Millisecond, duration: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		if want := (result.Stream{Events: 10, Expected: 10 * testUsers}); *res.Stream != want {
			t.Errorf("got %+v, want %+v", *res.Stream, want)
		}
		if took := time.Since(start); took < 45*time.Millisecond {
			t.Errorf("ten events at intervals of 5 ms took %v", took)
		}
	}
}

// TestSubscriberPieces cuts a stream at every place.
func TestSubscriberPieces(t *testing.T) {
	t.Parallel()
	const stream = ": ping\n\nid: e.1\ndata: {\"body\":\"" + mark + "00000000 x\"}\n\n:\n\ndata: " + mark + "00000001\n\n"
	for i := range len(stream) {
		b := &bench{loop: new(loop), plan: plan{peer: peers["bedplate"]}}
		s := &subscriber{bench: b}
		s.allowed = true
		b.tally.subscribers = append(b.tally.subscribers, &s.progress)
		b.tally.reset()
		b.tally.write(event{})
		b.tally.write(event{})
		for _, piece := range []string{stream[:i], stream[i:]} {
			if err := s.feed([]byte(piece)); err != nil {
				t.Fatal(err)
			}
		}
		if want := (result.Stream{Events: 2, Expected: 2}); *b.tally.finish() != want || b.ready != 1 {
			t.Fatalf("cut at %d: got %+v, %d ready", i, *b.tally.finish(), b.ready)
		}
	}
}

// membersOnly is the rule.
func membersOnly(s *fakeStream, frame string) []string {
	if !dataset.InHall(s.user) {
		return nil
	}
	return []string{frame}
}

// onNth does something to the nth event of one stream.
func onNth(n int, do func(s *fakeStream, frame string) []string) func(*fakeStream, string) []string {
	return func(s *fakeStream, frame string) []string {
		if s.number == 3 && s.count == n {
			return do(s, frame)
		}
		return []string{frame}
	}
}

// newTestBench subscribes every user to a server that spoils events.
func newTestBench(t *testing.T, api string, rule bool, spoil func(*fakeStream, string) []string) *bench {
	t.Helper()
	fake := &fakeServer{spoil: spoil}
	srv := httptest.NewServer(fake)
	t.Cleanup(srv.Close)
	targets := &dataset.Targets{Hall: "hall"}
	for u := range testUsers {
		targets.Users = append(targets.Users, dataset.User{ID: fmt.Sprint("user", u), Token: strconv.Itoa(u)})
	}
	b, err := newBench(plan{
		addr: netip.MustParseAddrPort(srv.Listener.Addr().String()), peer: peers[api], targets: targets,
		rule: rule, subscribers: testUsers, quiet: 300 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.close)
	if err := b.subscribe(); err != nil {
		t.Fatal(err)
	}
	return b
}

// fakeServer speaks as much of both protocols as is needed.
type fakeServer struct {
	spoil   func(s *fakeStream, frame string) []string
	mu      sync.Mutex
	streams []*fakeStream
}

// fakeStream is one subscriber.
type fakeStream struct {
	number int
	user   int
	count  int    // of events
	held   string // for spoil
	frames chan string
	topic  bool
}

func (f *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, err := strconv.Atoi(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	if err != nil {
		http.Error(w, "who?", http.StatusUnauthorized)
		return
	}
	switch {
	case r.Method == http.MethodPost && r.URL.Path == subscribePath:
		f.setTopic(w, r)
	case r.Method == http.MethodPost:
		f.write(w, r)
	default:
		f.stream(w, r, user)
	}
}

func (f *fakeServer) stream(w http.ResponseWriter, r *http.Request, user int) {
	f.mu.Lock()
	s := &fakeStream{number: len(f.streams), user: user, frames: make(chan string, 3*testEvents)}
	f.streams = append(f.streams, s)
	f.mu.Unlock()
	if r.URL.Path == subscribePath {
		fmt.Fprintf(w, "id:x\nevent:PB_CONNECT\ndata:{\"clientId\":\"%d\"}\n\n", s.number)
	} else {
		f.mu.Lock()
		s.topic = true
		f.mu.Unlock()
		fmt.Fprint(w, ": ping\n\n")
	}
	for {
		_ = http.NewResponseController(w).Flush()
		select {
		case frame := <-s.frames:
			_, _ = io.WriteString(w, frame)
		case <-r.Context().Done():
			return
		}
	}
}

func (f *fakeServer) setTopic(w http.ResponseWriter, r *http.Request) {
	var body struct {
		ClientID      string
		Subscriptions []string
	}
	_ = json.NewDecoder(r.Body).Decode(&body)
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.streams, func(s *fakeStream) bool { return strconv.Itoa(s.number) == body.ClientID })
	if i < 0 || len(body.Subscriptions) != 1 {
		http.Error(w, "what?", http.StatusBadRequest)
		return
	}
	f.streams[i].topic = true
	w.WriteHeader(http.StatusNoContent)
}

func (f *fakeServer) write(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	frame := fmt.Sprintf("data: {\"Insert\":%s}\n\n", body)
	f.mu.Lock()
	for _, s := range f.streams {
		if !s.topic {
			continue
		}
		frames := []string{frame}
		if f.spoil != nil {
			frames = f.spoil(s, frame)
		}
		s.count++
		for _, frame := range frames {
			s.frames <- frame
		}
	}
	f.mu.Unlock()
	_, _ = io.WriteString(w, "{}")
}
