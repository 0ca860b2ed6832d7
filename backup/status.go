package backup

import (
	"time"
)

// A State is what a [Replica] does.
type State string

// The states.
const (
	Idle        State = "idle"        // not started
	Starting    State = "starting"    // nothing is copied yet; Status.Why says what is waited for
	Replicating State = "replicating" // the replicator runs; Status.Lag says how well
	Refusing    State = "refused"     // it will not, see Status.Why
	Fenced      State = "fenced"      // another machine has taken over
	Closed      State = "closed"
)

// A Status is how a [Replica] does. It marshals to JSON.
type Status struct {
	State State  `json:"state"`
	Why   string `json:"why,omitempty"`

	// Lag is the age of the oldest commit that has not been seen in the replica, 0 if there is
	// none. It is measured with a row that is written for it and read back from the replica, and
	// right within two seconds.
	Lag time.Duration `json:"lag_ns"`

	// Proven is when the newest row that was read back had been written: what was committed
	// before is in the replica.
	Proven time.Time `json:"proven,omitzero"`

	// TXID is Litestream's number of the newest transaction that was captured, ReplicaTXID of
	// the newest in the replica.
	TXID        uint64 `json:"txid"`
	ReplicaTXID uint64 `json:"replica_txid"`

	Error    string `json:"error,omitempty"` // of the last attempt, if that failed
	Alarm    *Alarm `json:"alarm,omitempty"`
	Restarts int    `json:"restarts"` // of the replicator

	PID      int   `json:"pid,omitempty"`       // of the replicator
	RSS      int64 `json:"rss,omitempty"`       // bytes of memory that it has
	WALBytes int64 `json:"wal_bytes,omitempty"` // size of the write-ahead log

	Drill *DrillResult `json:"drill,omitempty"` // the last one
}

// An Alarm says that the replica cannot be relied on.
type Alarm struct {
	Text  string    `json:"text"`
	Since time.Time `json:"since"`
	Over  bool      `json:"over,omitempty"` // it is all right again; only told to Config.OnAlarm
}
