package main

import (
	"math"
	"slices"

	"github.com/bedplate/bedplate/bench/internal/result"
)

// key names what was measured.
type key struct {
	part     string
	server   string
	workload string
	conns    int
}

// measured holds the valid measurements of a run.
type measured map[key][]result.Result

// add keeps a line unless it had errors.
func (m measured) add(l line) {
	if l.Errs > 0 {
		return
	}
	k := key{l.Part, l.Label, l.Workload, l.Conns}
	m[k] = append(m[k], l.Result)
}

// field picks a number from a measurement.
type field func(result.Result) float64

func rps(r result.Result) float64 { return r.RPS }
func cpu(r result.Result) float64 { return r.ServerCPU }
func p50(r result.Result) float64 { return r.P50 }
func p99(r result.Result) float64 { return r.P99 }
func rss(r result.Result) float64 { return r.ServerRSS }

// inMs turns a time in microseconds into milliseconds.
func inMs(f field) field {
	return func(r result.Result) float64 { return f(r) / 1e3 }
}

// ofStream picks from what became of events.
func ofStream(f func(result.Stream) float64) field {
	return func(r result.Result) float64 {
		if r.Stream == nil {
			return math.NaN()
		}
		return f(*r.Stream)
	}
}

func written(s result.Stream) float64  { return float64(s.Events) }
func received(r result.Result) float64 { return float64(r.Reqs) }
func connKiB(s result.Stream) float64  { return s.ConnKiB }

// ofWrites and ofReads pick from one half of a mixed load.
func ofWrites(f field) field {
	return func(r result.Result) float64 {
		if r.Writes == nil {
			return math.NaN()
		}
		return f(result.Result{Numbers: *r.Writes})
	}
}

func ofReads(f field) field {
	return func(r result.Result) float64 {
		if r.Reads == nil {
			return math.NaN()
		}
		return f(result.Result{Numbers: *r.Reads})
	}
}

// median of the field over all rounds; NaN without a valid measurement.
func (m measured) median(k key, f field) float64 {
	var values []float64
	for _, r := range m[k] {
		values = append(values, f(r))
	}
	return median(values)
}

// ratio is the median over the rounds of a's number divided by b's.
func (m measured) ratio(a, b key, f field) float64 {
	return m.compare(a, b, f, func(a, b float64) float64 { return a / b })
}

// difference is the median over the rounds of a's number less b's.
func (m measured) difference(a, b key, f field) float64 {
	return m.compare(a, b, f, func(a, b float64) float64 { return a - b })
}

// compare is the median of what op makes of a's number and of b's in the same
// round. The two stood close in time, so that a load from elsewhere that comes
// and goes weighs on both.
func (m measured) compare(a, b key, f field, op func(a, b float64) float64) float64 {
	others := make(map[int][]float64) // by round
	for _, r := range m[b] {
		others[r.Round] = append(others[r.Round], f(r))
	}
	var values []float64
	for _, r := range m[a] {
		if o := others[r.Round]; len(o) > 0 {
			values = append(values, op(f(r), o[0]))
			others[r.Round] = o[1:]
		}
	}
	return median(values)
}

// median returns the middle value, the mean of the two middle ones if their
// number is even, or NaN if there is none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	mid := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[mid]
	}
	return (sorted[mid-1] + sorted[mid]) / 2
}
