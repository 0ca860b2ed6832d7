package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// gate is one demand on the numbers of a run. It passes when every one of its
// points does.
type gate struct {
	id     string
	what   string
	limit  float64
	atMost bool // else the points must be at least the limit
	points []point
}

// point is one measured value; NaN when it was not measured.
type point struct {
	at    string // the number of connections, or the peer
	value float64
}

// verdict of a gate.
type verdict string

const (
	pass    verdict = "pass"
	miss    verdict = "**miss**"
	unknown verdict = "-" // nothing was measured
)

// judge compares the points that were measured. The slack loosens the limit
// by a fraction.
func (g gate) judge(slack float64) verdict {
	limit := g.limit / (1 + slack)
	if g.atMost {
		limit = g.limit * (1 + slack)
	}
	result := unknown
	for _, p := range g.points {
		switch {
		case math.IsNaN(p.value):
		case g.atMost && p.value > limit, !g.atMost && p.value < limit:
			return miss
		default:
			result = pass
		}
	}
	return result
}

// demand is the limit as text.
func (g gate) demand() string {
	if g.atMost {
		return "≤ " + ratio(g.limit)
	}
	return "≥ " + ratio(g.limit)
}

// values are the points as text.
func (g gate) values() string {
	var parts []string
	for _, p := range g.points {
		switch {
		case math.IsNaN(p.value):
		case p.at == "":
			parts = append(parts, ratio(p.value))
		default:
			parts = append(parts, p.at+": "+ratio(p.value))
		}
	}
	return strings.Join(parts, ", ")
}

// ratio shows three figures.
func ratio(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// unsteady are the gates on requests per second against the bare handler. A
// quick run leaves them out: they need long slots on a quiet machine.
var unsteady = []string{"1", "1 full", "9a"}

// gates are the demands on the record API. A ratio is the median of the ratios
// of the rounds.
func gates(m measured, starts map[string]starting) []gate {
	g := gateBuilder{m: m}
	busy := []int{16, 64, 256}

	const c, r, li, u, mx = "create", "read", "list", "update", "mixed"
	g.ratio("1", "create, NORMAL: req/s against bare POST", atLeast(0.40), rps, []int{64},
		key{partCreate, oursNormal, c, 0}, key{partCreate, bare, "postfixed", 0})
	g.ratio("1 full", "create, FULL: req/s against bare POST", atLeast(0.40), rps, busy,
		key{partCreate, oursFull, c, 0}, key{partCreate, bare, "postfixed", 0})
	g.ratio("2", "create, NORMAL: CPU against bare POST", atMost(3.0), cpu, []int{64},
		key{partCreate, oursNormal, c, 0}, key{partCreate, bare, "postfixed", 0})
	g.ratio("2 full", "create, FULL: CPU against bare POST", atMost(3.0), cpu, busy,
		key{partCreate, oursFull, c, 0}, key{partCreate, bare, "postfixed", 0})
	g.ratio("3a", "create, NORMAL: req/s against PocketBase as shipped", atLeast(12), rps, busy,
		key{partCreate, oursNormal, c, 0}, key{partCreate, pbShipped, c, 0})
	g.ratio("3a full", "create, FULL: req/s against PocketBase as shipped", atLeast(12), rps, busy,
		key{partCreate, oursFull, c, 0}, key{partCreate, pbShipped, c, 0})
	g.ratio("3b", "create, NORMAL: req/s against PocketBase with mattn", atLeast(9), rps, busy,
		key{partCreate, oursNormal, c, 0}, key{partCreate, pbMattn, c, 0})
	g.ratio("4a", "create, NORMAL: req/s against PocketBase tuned", atLeast(5), rps, busy,
		key{partCreate, oursNormal, c, 0}, key{partCreate, pbTuned, c, 0})
	g.ratio("4a full", "create, FULL: req/s against PocketBase tuned", atLeast(5), rps, busy,
		key{partCreate, oursFull, c, 0}, key{partCreate, pbTuned, c, 0})
	g.ratio("4b", "create, NORMAL: CPU of PocketBase tuned against ours", atLeast(8), cpu, busy,
		key{partCreate, pbTuned, c, 0}, key{partCreate, oursNormal, c, 0})
	g.ratio("5", "create: req/s FULL against NORMAL", atLeast(0.65), rps, []int{64, 256},
		key{partCreate, oursFull, c, 0}, key{partCreate, oursNormal, c, 0})
	g.ratio("6", "create, FULL, fsync + 1 ms: req/s grouped against single commits", atLeast(10), rps, []int{64},
		key{partSlow, oursSlow, c, 0}, key{partSlow, oursSlowSingle, c, 0})
	g.ratio("7", "create, NORMAL: median latency grouped against single commits", atMost(1.05), p50, []int{1},
		key{partGrouping, oursNormal, c, 0}, key{partGrouping, oursSingle, c, 0})
	g.ratio("8", "create, NORMAL: p99 against PocketBase with mattn", atMost(1.0/8), p99, []int{64},
		key{partCreate, oursNormal, c, 0}, key{partCreate, pbMattn, c, 0})
	g.ratio("9a", "read with rule: req/s against bare GET", atLeast(0.45), rps, busy,
		key{partRead, oursNormal, r, 0}, key{partRead, bare, "fixed", 0})
	g.ratio("9b", "read with rule: CPU against bare GET", atMost(2.4), cpu, busy,
		key{partRead, oursNormal, r, 0}, key{partRead, bare, "fixed", 0})
	g.ratio("10a", "read with rule: req/s against PocketBase as shipped", atLeast(7), rps, busy,
		key{partRead, oursNormal, r, 0}, key{partRead, pbShipped, r, 0})
	g.ratio("10b", "read with rule: req/s against PocketBase with mattn", atLeast(5), rps, busy,
		key{partRead, oursNormal, r, 0}, key{partRead, pbMattn, r, 0})
	g.ratio("10c", "read with rule: req/s against PocketBase tuned", atLeast(2), rps, busy,
		key{partRead, oursNormal, r, 0}, key{partRead, pbTuned, r, 0})
	g.ratio("11a", "list: req/s against PocketBase as shipped", atLeast(9), rps, busy,
		key{partList, oursNormal, li, 0}, key{partList, pbShipped, li, 0})
	g.value("11b", "list: CPU, µs", atMost(150), cpu, busy, key{partList, oursNormal, li, 0})
	g.ratio("11c", "list: CPU against bare GET", atMost(9), cpu, busy,
		key{partList, oursNormal, li, 0}, key{partList, bare, "fixed", 0})
	g.ratio("12", "update, NORMAL: req/s against PocketBase as shipped", atLeast(5), rps, busy,
		key{partUpdate, oursNormal, u, 0}, key{partUpdate, pbShipped, u, 0})
	g.ratio("13", "read: CPU with rule against without", atMost(1.10), cpu, busy,
		key{partRead, oursNormal, r, 0}, key{partRead, oursNormal, "readopen", 0})
	for suffix, peer := range []string{pbShipped, pbMattn} {
		letter := string(rune('a' + suffix))
		g.ratio("19"+letter, "mixed, NORMAL: writes/s against "+peer, atLeast(8), ofWrites(rps), []int{mixedConns},
			key{partMixed, oursNormal, mx, 0}, key{partMixed, peer, mx, 0})
		g.ratio("19"+letter+" p99", "mixed, NORMAL: p99 of writes against "+peer, atMost(1.0/8), ofWrites(p99), []int{mixedConns},
			key{partMixed, oursNormal, mx, 0}, key{partMixed, peer, mx, 0})
	}
	for suffix, peer := range []string{pbShipped, pbTuned} {
		letter := string(rune('a' + suffix))
		g.ratio("14"+letter, "stream, no rule, burst: delivered/s against "+peer, atLeast(10), rps, []int{streamConns},
			key{partStream, oursRealtime, burst, 0}, key{partStream, peer, burst, 0})
		g.ratio("15"+letter, "stream, membership rule, burst: delivered/s against "+peer, atLeast(25), rps, []int{streamConns},
			key{partStreamRule, oursRealtime, burst, 0}, key{partStreamRule, peer, burst, 0})
	}
	g.value("16", "memory per subscriber, KiB", atMost(32), ofStream(connKiB), []int{streamConns, maxSubscribers},
		key{partStream, oursRealtime, burst, 0})
	g.difference("17a", "create, NORMAL: CPU of recording the change, µs", atMost(4), cpu, []int{64},
		key{partCapture, oursRealtime, c, 0}, key{partCapture, oursNormal, c, 0})
	g.ratio("17b", "create, NORMAL: CPU with recording against without", atMost(1.12), cpu, []int{64},
		key{partCapture, oursRealtime, c, 0}, key{partCapture, oursNormal, c, 0})
	// With more connections the single creates share commits, too, and what
	// is left of both is SQLite's own time.
	g.compare("22", "batch of 100, FULL: records/s against single creates", atLeast(5), rps, []int{1, 16},
		key{partBatch, oursFull, "batch", 0}, key{partBatch, oursFull, c, 0},
		func(a, b key, f field) float64 { return batchRows * m.ratio(a, b, f) })
	g.ratio("23", "create, NORMAL: CPU with validation and hooks on another API", atMost(1.10), cpu, []int{64},
		key{partUnused, oursExtras, c, 0}, key{partUnused, oursNormal, c, 0})
	g.starts(starts)
	return g.gates
}

// batchRows is how many records the load generator creates with one batch.
const batchRows = 100

type gateBuilder struct {
	m     measured
	gates []gate
}

// limit is a bound with its direction.
type limit struct {
	value  float64
	atMost bool
}

func atLeast(v float64) limit { return limit{v, false} }
func atMost(v float64) limit  { return limit{v, true} }

// ratio adds the gate a/b at each number of connections.
func (g *gateBuilder) ratio(id, what string, l limit, f field, conns []int, a, b key) {
	g.compare(id, what, l, f, conns, a, b, g.m.ratio)
}

// difference adds the gate a-b at each number of connections.
func (g *gateBuilder) difference(id, what string, l limit, f field, conns []int, a, b key) {
	g.compare(id, what, l, f, conns, a, b, g.m.difference)
}

func (g *gateBuilder) compare(id, what string, l limit, f field, conns []int, a, b key, op func(a, b key, f field) float64) {
	var points []point
	for _, c := range conns {
		a.conns, b.conns = c, c
		points = append(points, point{"c=" + strconv.Itoa(c), op(a, b, f)})
	}
	g.add(id, what, l, points)
}

// value adds a gate on a number itself.
func (g *gateBuilder) value(id, what string, l limit, f field, conns []int, k key) {
	var points []point
	for _, c := range conns {
		k.conns = c
		points = append(points, point{"c=" + strconv.Itoa(c), g.m.median(k, f)})
	}
	g.add(id, what, l, points)
}

// starts adds the gates on what a server costs before it does anything.
func (g *gateBuilder) starts(starts map[string]starting) {
	ours, ok := starts[oursFull]
	if !ok {
		return
	}
	against := func(f func(starting) float64) []point {
		var points []point
		for _, peer := range []string{pbShipped, pbMattn} {
			if s, ok := starts[peer]; ok {
				points = append(points, point{peer, f(ours) / f(s)})
			}
		}
		return points
	}
	g.add("18a", "idle resident memory against PocketBase", atMost(0.5),
		against(func(s starting) float64 { return s.idleMB }))
	g.add("18b", "start to first answer against PocketBase", atMost(0.5),
		against(func(s starting) float64 { return s.ready.Seconds() }))
	g.add("18c", "stripped binary against PocketBase", atMost(0.8),
		against(func(s starting) float64 { return s.binaryMB }))
	g.add("idle", "idle resident memory, MiB", atMost(40), []point{{"", ours.idleMB}})
}

func (g *gateBuilder) add(id, what string, l limit, points []point) {
	g.gates = append(g.gates, gate{id: id, what: what, limit: l.value, atMost: l.atMost, points: points})
}
