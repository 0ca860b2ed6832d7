package main

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/bench/internal/result"
)

func TestMedian(t *testing.T) {
	t.Parallel()
	tests := []struct {
		values []float64
		want   float64
	}{
		{[]float64{3}, 3},
		{[]float64{9, 1, 2}, 2},
		{[]float64{4, 1, 3, 2}, 2.5},
	}
	for _, tt := range tests {
		if got := median(tt.values); got != tt.want {
			t.Errorf("median of %v is %v, want %v", tt.values, got, tt.want)
		}
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("median of nothing is %v", got)
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	tests := []struct {
		name   string
		atMost bool
		slack  float64
		values []float64
		want   verdict
	}{
		{"at least", false, 0, []float64{2, 3}, pass},
		{"at least, one below", false, 0, []float64{3, 1.9}, miss},
		{"at least, slack", false, 0.25, []float64{1.7}, pass},
		{"at least, beyond slack", false, 0.25, []float64{1.5}, miss},
		{"at most", true, 0, []float64{2, 1}, pass},
		{"at most, one above", true, 0, []float64{1, 2.1}, miss},
		{"at most, slack", true, 0.25, []float64{2.4}, pass},
		{"at most, beyond slack", true, 0.25, []float64{2.6}, miss},
		{"partly measured", false, 0, []float64{nan, 2}, pass},
		{"not measured", false, 0, []float64{nan}, unknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := gate{limit: 2, atMost: tt.atMost}
			for _, v := range tt.values {
				g.points = append(g.points, point{"", v})
			}
			if got := g.judge(tt.slack); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// TestRatio checks that only slots of the same round are compared: here both
// servers are slowed to a tenth in one round, and one slot of it is missing.
func TestRatio(t *testing.T) {
	t.Parallel()
	m := make(measured)
	a, b := key{partCreate, "a", "create", 1}, key{partCreate, "b", "create", 1}
	add := func(k key, round int, rate float64) {
		m.add(line{k.part, result.Result{Label: k.server, Workload: k.workload, Conns: k.conns, Round: round, Numbers: result.Numbers{RPS: rate}}})
	}
	add(a, 1, 300)
	add(b, 1, 100)
	add(a, 2, 30)
	add(b, 2, 10)
	add(b, 2, 10)
	add(a, 3, 1)
	if got := m.ratio(a, b, rps); got != 3 {
		t.Errorf("got %v, want 3", got)
	}
	if got := m.difference(a, b, rps); got != 110 {
		t.Errorf("got a difference of %v, want 110", got)
	}
	if got := m.ratio(a, key{}, rps); !math.IsNaN(got) {
		t.Errorf("ratio to nothing is %v", got)
	}
}

// TestGates checks one ratio from end to end, and that slots with errors do
// not count.
func TestGates(t *testing.T) {
	t.Parallel()
	m := make(measured)
	for _, rate := range []float64{100, 120, 110} {
		m.add(line{partCreate, result.Result{Label: oursNormal, Workload: "create", Conns: 64, Numbers: result.Numbers{RPS: rate}}})
		m.add(line{partCreate, result.Result{Label: bare, Workload: "postfixed", Conns: 64, Numbers: result.Numbers{RPS: 2 * rate}}})
	}
	m.add(line{partCreate, result.Result{Label: oursNormal, Workload: "create", Conns: 64, Errs: 1, Numbers: result.Numbers{RPS: 1e6}}})
	all := gates(m, nil)
	i := slices.IndexFunc(all, func(g gate) bool { return g.id == "1" })
	if i < 0 {
		t.Fatal("no gate 1")
	}
	if got, want := all[i].values(), "c=64: 0.500"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := all[i].judge(0); got != pass {
		t.Errorf("judged %v", got)
	}
}

// TestScheduleCoversGates fails when a gate asks for a slot nobody measures.
func TestScheduleCoversGates(t *testing.T) {
	t.Parallel()
	o := options{peers: true, only: parts, fit: maxSubscribers}
	m := make(measured)
	for _, s := range schedule(o, serversFor(o)) {
		n := result.Numbers{RPS: 1, P50: 1, P99: 1}
		for workload := range strings.SplitSeq(s.workload, ",") {
			m.add(line{s.part, result.Result{
				Label: s.server, Workload: workload, Conns: s.conns,
				Numbers: n, Writes: &n, Reads: &n, Stream: &result.Stream{ConnKiB: 1}, ServerCPU: 1,
			}})
		}
	}
	starts := make(map[string]starting)
	for _, name := range []string{oursFull, pbShipped, pbMattn} {
		starts[name] = starting{ready: 1, idleMB: 1, binaryMB: 1}
	}
	for _, g := range gates(m, starts) {
		if len(g.points) == 0 {
			t.Errorf("gate %s has no points", g.id)
		}
		want := 1.0
		switch {
		case g.id == "17a": // a difference
			want = 0
		case g.id == "22": // of records, not requests
			want = batchRows
		}
		for _, p := range g.points {
			if p.value != want {
				t.Errorf("gate %s at %q: %v, want %v", g.id, p.at, p.value, want)
			}
		}
	}
}

// TestGroups checks that reversing happens within what is compared.
func TestGroups(t *testing.T) {
	t.Parallel()
	slots := []slot{
		{partCreate, "a", "create", 1}, {partCreate, "b", "create", 1},
		{partCreate, "a", "create", 16},
		{partRead, "a", "read", 16}, {partRead, "b", "read", 16},
	}
	var sizes []int
	for group := range groups(slots) {
		sizes = append(sizes, len(group))
	}
	if want := []int{2, 1, 2}; !slices.Equal(sizes, want) {
		t.Errorf("got groups of %v, want %v", sizes, want)
	}
}
