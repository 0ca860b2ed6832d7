package main

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/bench/internal/dataset"
	"github.com/bedplate/bedplate/bench/internal/result"
)

// TestResponseFraming feeds each answer whole, byte by byte and cut in two at
// every place.
func TestResponseFraming(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, answer string
		status       int
		excerpt      string
	}{
		{"length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, ""},
		{"empty", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, ""},
		{"no content", "HTTP/1.1 204 No Content\r\n\r\n", 204, ""},
		{"error", "HTTP/1.1 403 Forbidden\r\ncontent-length: 6\r\n\r\ndenied", 403, "denied"},
		{
			"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" +
				"5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n", 200, "",
		},
		{
			"chunked error with trailer", "HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n" +
				"3\r\nbad\r\n0\r\nX-Late: 1\r\n\r\n", 500, "bad",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			check := func(r *response, pieces ...string) {
				t.Helper()
				r.reset()
				for i, piece := range pieces {
					done, err := r.feed([]byte(piece))
					if err != nil {
						t.Fatalf("piece %d of %q: %v", i, pieces, err)
					}
					if want := i == len(pieces)-1; done != want {
						t.Fatalf("piece %d of %q: done = %t", i, pieces, done)
					}
				}
				if r.status != tt.status || string(r.excerpt) != tt.excerpt {
					t.Fatalf("got %d %q, want %d %q", r.status, r.excerpt, tt.status, tt.excerpt)
				}
			}
			var r response
			check(&r, tt.answer)
			check(&r, strings.Split(tt.answer, "")...)
			for i := 1; i < len(tt.answer); i++ {
				check(&r, tt.answer[:i], tt.answer[i:])
			}
		})
	}
}

func TestResponseRefuses(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{
		"HTTP/1.1 abc OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\n\r\nuntil the connection closes",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
	} {
		var r response
		if _, err := r.feed([]byte(answer)); err == nil {
			t.Errorf("%q was accepted", answer)
		}
	}
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	var latencies []time.Duration
	for i := range 1000 {
		latencies = append(latencies, time.Duration(1000-i)*time.Microsecond)
	}
	got := numbers(latencies, 2*time.Second)
	want := result.Numbers{Reqs: 1000, RPS: 500, P50: 501, P90: 901, P99: 991, P999: 1000, Max: 1000}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestRequests checks that a mixed load keeps readers and writers apart and
// that a create is sent by a member of the room.
func TestRequests(t *testing.T) {
	t.Parallel()
	r, err := newRequests(plan{
		addr: netip.MustParseAddrPort("127.0.0.1:1"), api: "bedplate", workload: mixed,
		targets: &dataset.Targets{
			Users:    []dataset.User{{ID: "u0", Token: "t0"}, {ID: "u1", Token: "t1"}},
			Rooms:    []string{"r0", "r1"},
			Members:  [][]int{{0}, {1}},
			Messages: []dataset.Ref{{ID: "m0", User: 1}},
			Posts:    []dataset.Ref{{ID: "p0", User: 0}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.rng = rand.New(rand.NewPCG(1, 1))
	for range 20 {
		got := string(r.append(nil, r.sortOf(1)))
		if !strings.HasPrefix(got, "POST /api/records/v1/messages HTTP/1.1\r\n") {
			t.Fatalf("a writer sent %q", got)
		}
		u0 := strings.Contains(got, "Bearer t0\r\n") && strings.Contains(got, `{"room":"r0","author":"u0",`)
		u1 := strings.Contains(got, "Bearer t1\r\n") && strings.Contains(got, `{"room":"r1","author":"u1",`)
		if !u0 && !u1 {
			t.Fatalf("no member sent %q", got)
		}
		if got := r.append(nil, r.sortOf(2)); !bytes.HasPrefix(got, []byte("GET /api/records/v1/messages/m0 ")) {
			t.Fatalf("a reader sent %q", got)
		}
	}
}
