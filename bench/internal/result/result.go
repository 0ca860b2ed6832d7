// Package result is the line of JSON the load generator prints and the runner
// reads.
package result

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
