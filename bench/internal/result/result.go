// Package result is the line of JSON the load generator prints and the runner
// reads.
package result

import (
	"slices"
	"time"
)

// Result is one measurement: one workload at one number of connections.
// Times are in microseconds.
type Result struct {
	Label    string  `json:"label,omitempty"` // the server
	Round    int     `json:"round,omitempty"` // set by the runner
	Workload string  `json:"workload"`
	Conns    int     `json:"conns"`
	Secs     float64 `json:"secs"`
	Errs     int     `json:"errs"` // more than none: no measurement
	FirstErr string  `json:"first_err,omitempty"`
	Numbers
	Reads     *Numbers `json:"reads,omitempty"`  // mixed only
	Writes    *Numbers `json:"writes,omitempty"` // mixed only
	ServerCPU float64  `json:"srv_cpu_us"`       // of the server, per request
	ClientCPU float64  `json:"cli_cpu_us"`       // of the load generator, per request
	ServerRSS float64  `json:"srv_rss_mb"`       // in units of 2^20 bytes
	Stream    *Stream  `json:"stream,omitempty"` // subscriptions only
}

// Stream is what became of the events of a subscription workload. There,
// Numbers and the CPU times are of deliveries, not of requests, and latencies
// are from the start of the write to the arrival of the event.
type Stream struct {
	Events     int     `json:"events"`   // written
	Expected   int     `json:"expected"` // deliveries
	Lost       int     `json:"lost"`
	Repeated   int     `json:"repeated"`
	Disordered int     `json:"disordered"` // not in the order of the commits
	Leaked     int     `json:"leaked"`     // to subscribers who may not see them
	ConnKiB    float64 `json:"conn_kib"`   // resident memory of the server per subscriber
}

// Numbers describe the requests of one sort.
type Numbers struct {
	Reqs int     `json:"reqs"`
	RPS  float64 `json:"rps"`
	P50  float64 `json:"p50_us"`
	P90  float64 `json:"p90_us"`
	P99  float64 `json:"p99_us"`
	P999 float64 `json:"p999_us"`
	Max  float64 `json:"max_us"`
}

// Of sorts the latencies in place and summarizes them.
func Of(latencies []time.Duration, elapsed time.Duration) Numbers {
	n := Numbers{Reqs: len(latencies)}
	if n.Reqs == 0 {
		return n
	}
	slices.Sort(latencies)
	at := func(q float64) float64 {
		i := min(int(q*float64(n.Reqs)), n.Reqs-1)
		return float64(latencies[i].Nanoseconds()) / 1e3
	}
	n.RPS = float64(n.Reqs) / elapsed.Seconds()
	n.P50, n.P90, n.P99, n.P999, n.Max = at(0.50), at(0.90), at(0.99), at(0.999), at(1)
	return n
}
