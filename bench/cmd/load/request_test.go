package main

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/bench/internal/dataset"
)

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
