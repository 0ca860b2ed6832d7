package backup

import "time"

// A DrillResult is what a trial restore has found.
type DrillResult struct {
	At time.Time `json:"at"`

	// Error is empty when the restored database was sound and equal to the source.
	Error string `json:"error,omitempty"`
}

type driller struct{ r *Replica }

func (d *driller) run() {}

func (d *driller) last() *DrillResult { return nil }
