package main

import (
	"time"

	"github.com/bedplate/bedplate/bench/internal/result"
)

// tally compares what was written with what has arrived.
type tally struct {
	subscribers []*progress
	written     []event // of all workloads, by number
	first       int     // number of the first event of this workload
	allowed     int     // subscribers who are to get every event
	received    int
	latencies   []time.Duration
	last        time.Time // of the deliveries
	stream      result.Stream
}

// event is one written message.
type event struct {
	writer int       // who waits for its answer before writing the next one
	begin  time.Time // of its latency
}

// progress is what one subscriber has got of this workload.
type progress struct {
	allowed bool
	seen    []uint64          // a bit for each event, counted from the first
	newest  [maxWriters]int32 // event of each writer
	order   uint64            // a hash of the numbers in the order of arrival
	count   int
}

// reset begins a workload.
func (t *tally) reset() {
	t.first = len(t.written)
	t.allowed, t.received = 0, 0
	t.latencies, t.stream = t.latencies[:0], result.Stream{}
	for _, p := range t.subscribers {
		*p = progress{allowed: p.allowed, seen: p.seen[:0]}
		if p.allowed {
			t.allowed++
		}
	}
}

// write adds an event and returns its number.
func (t *tally) write(e event) int {
	t.written = append(t.written, e)
	return len(t.written) - 1
}

// arrive notes that a subscriber has got an event.
func (t *tally) arrive(p *progress, number int, at time.Time) {
	t.last = at
	i := number - t.first
	if !p.allowed {
		t.stream.Leaked++
		return
	}
	for len(p.seen) <= i/64 {
		p.seen = append(p.seen, 0)
	}
	if i < 0 || p.seen[i/64]&(1<<(i%64)) != 0 {
		t.stream.Repeated++
		return
	}
	p.seen[i/64] |= 1 << (i % 64)
	e := t.written[number]
	if newest := &p.newest[e.writer]; number < int(*newest) {
		t.stream.Disordered++
	} else {
		*newest = int32(number)
	}
	p.order = (p.order + uint64(i) + 1) * 0x9e3779b97f4a7c15
	p.count++
	t.received++
	t.latencies = append(t.latencies, at.Sub(e.begin))
}

// missing is how many deliveries of what was written are still to come.
func (t *tally) missing() int {
	return t.allowed*(len(t.written)-t.first) - t.received
}

// finish returns the counts. Whoever has got everything must have got it in
// the same order as the others: that of the commits.
func (t *tally) finish() *result.Stream {
	s := t.stream
	s.Events = len(t.written) - t.first
	s.Expected = t.allowed * s.Events
	s.Lost = t.missing()
	var common uint64
	for _, p := range t.subscribers {
		switch {
		case p.count < s.Events || s.Events == 0:
		case common == 0:
			common = p.order
		case p.order != common:
			s.Disordered++
		}
	}
	return &s
}
