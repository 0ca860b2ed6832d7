// Package wire is what a program and its replicator, a child process of the same executable, say to
// each other: JSON objects, one a line, over two pipes. The program writes an [Order] and then
// [Command]s, the replicator writes [Event]s. When the program's end of the first pipe closes, for
// whatever reason, the replicator finishes what it does and exits.
//
// Nothing secret is in the arguments or the environment of the replicator: credentials are part of
// the Order.
package wire

import (
	"encoding/json"
	"time"
)

// Protocol is the version of these messages. Both sides come from the same executable, unless that
// was replaced while the program ran.
const Protocol = 1

// Env is the environment variable that makes a process a replicator. Its value is
// SCHEME:PID:NONCE: of the replica's URL, of the program, and random text that the Order repeats.
const Env = "BEDPLATE_REPLICATOR"

// File descriptors of the pipes in the replicator.
const (
	CommandFD = 3 // read
	EventFD   = 4 // written
)

// A Mode is what a replicator does.
type Mode string

// The modes. All but Replicate and Follow end by themselves, with an Event of kind Done.
const (
	Replicate Mode = "replicate" // follow the database until told to stop
	Restore   Mode = "restore"   // write a copy of the database to Output
	List      Mode = "list"      // tell what could be restored
	Follow    Mode = "follow"    // keep a copy at Output up to date
	Lease     Mode = "lease"     // acquire the lease as Owner and leave it standing. Done: Number is its generation, 0 if there are none
)

// An Order is the first message to a replicator.
type Order struct {
	Protocol int    `json:"protocol"`
	Nonce    string `json:"nonce"`
	Mode     Mode   `json:"mode"`

	URL string            `json:"url"`           // of the replica
	Env map[string]string `json:"env,omitempty"` // variables to set, such as credentials
	Dir string            `json:"dir,omitempty"` // the replicator's own state; absolute

	// Replicate.
	Database         string        `json:"database,omitempty"` // absolute
	Known            bool          `json:"known,omitempty"`    // the database was replicated there before
	Adopt            bool          `json:"adopt,omitempty"`    // or shall be, whatever is there
	SyncInterval     time.Duration `json:"sync_interval,omitempty"`
	SnapshotInterval time.Duration `json:"snapshot_interval,omitempty"`
	Retention        time.Duration `json:"retention,omitempty"`
	FinalSync        time.Duration `json:"final_sync,omitempty"` // how long to try at the end

	// Replicate and Lease. Without Owner no lease is held.
	Owner    string        `json:"owner,omitempty"`
	LeaseTTL time.Duration `json:"lease_ttl,omitempty"`
	TakeOver bool          `json:"take_over,omitempty"` // a lease of somebody else that has not expired

	// Restore and Follow.
	Output    string        `json:"output,omitempty"`    // absolute; must not exist, but for Follow
	TXID      uint64        `json:"txid,omitempty"`      // state to restore; 0: the latest
	Timestamp time.Time     `json:"timestamp,omitzero"`  // the latest not after it; zero: the latest
	MaxBytes  int64         `json:"max_bytes,omitempty"` // of Output; 0: no limit
	Interval  time.Duration `json:"interval,omitempty"`  // between looks, of Follow
}

// An Op is what a Command wants.
type Op string

// The operations. Each is answered by an Event of kind Reply with the Command's ID.
const (
	// Replicate.
	Go     Op = "go"     // start, after the Event Vacant
	Sync   Op = "sync"   // capture what is committed; with Wait, until it is in the replica. Reply: TXID, ReplicaTXID
	Prove  Op = "prove"  // sync, then read back from the replica a page that holds Token followed by 8 bytes, big endian, of at least Number. Reply: TXID, ReplicaTXID, Number as found
	Shot   Op = "shot"   // make a snapshot in the replica
	Status Op = "status" // send an Event State at once

	// Follow.
	CatchUp Op = "catch_up" // apply everything that is in the replica. Reply: TXID

	// All modes. Stop means a last sync where there is one to do, at most Order.FinalSync long,
	// then Done.
	Stop Op = "stop"
)

// A Command asks a running replicator for something. Deadline bounds the answer: a replicator that
// cannot do it in time replies with an error, so that silence always means that it is stuck.
type Command struct {
	ID       int64     `json:"id"`
	Op       Op        `json:"op"`
	Deadline time.Time `json:"deadline,omitzero"`
	Wait     bool      `json:"wait,omitempty"`
	Token    []byte    `json:"token,omitempty"`
	Number   uint64    `json:"number,omitempty"`
}

// A Kind says what an Event is about.
type Kind string

// The kinds.
const (
	Hello   Kind = "hello"   // first of all: Protocol, Version
	Waiting Kind = "waiting" // for what Code says, "lock" or "lease", held by Text
	Vacant  Kind = "vacant"  // the replica is empty, or Adopt: Go may be said
	Ready   Kind = "ready"   // replicating, or following: TXID
	State   Kind = "state"   // each second, also while starting: TXID, ReplicaTXID, WALBytes, RSS, Moved, Error of the last sync
	Refused Kind = "refused" // will never replicate this: Code, Text. Done follows
	Fenced  Kind = "fenced"  // the lease was lost to Text; nothing is written any more. Done follows
	Log     Kind = "log"     // Level, Text, Attrs
	Reply   Kind = "reply"   // ID, and either Error with Code or what the Op says
	Done    Kind = "done"    // last of all; Error, or what the Mode has to tell
)

// A Code tells errors apart that a program treats differently.
type Code string

// The codes.
const (
	CodeNotEmpty   Code = "not-empty"   // a database that is not the replica's, over a replica that is not empty
	CodeLeased     Code = "leased"      // somebody else has the lease
	CodeNoBackup   Code = "no-backup"   // nothing is in the replica, or nothing for that time
	CodeCorrupt    Code = "corrupt"     // an object of the replica is damaged
	CodeTooLarge   Code = "too-large"   // the copy would be larger than MaxBytes
	CodeNotThere   Code = "not-there"   // Prove: what was sent is not what is there
	CodeConfig     Code = "config"      // the URL or the credentials cannot be used
	CodeNotInTime  Code = "not-in-time" // the deadline passed
	CodeOther      Code = ""            // anything else; most often the store cannot be reached
	CodeFullDisk   Code = "full-disk"   // there is no room for the replicator's own state
	CodeDenied     Code = "denied"      // the store does not accept the credentials
	CodeOtherOwner Code = "other-owner" // Prove: somebody else writes to the same replica
)

// An Event is what a replicator tells. Fields beyond those its Kind names are empty.
type Event struct {
	Kind  Kind   `json:"kind"`
	ID    int64  `json:"id,omitempty"`
	Code  Code   `json:"code,omitempty"`
	Error string `json:"error,omitempty"`
	Text  string `json:"text,omitempty"`

	Protocol int    `json:"protocol,omitempty"`
	Version  string `json:"version,omitempty"` // of Litestream

	TXID        uint64 `json:"txid,omitempty"`
	ReplicaTXID uint64 `json:"replica_txid,omitempty"`
	Number      uint64 `json:"number,omitempty"`
	WALBytes    int64  `json:"wal_bytes,omitempty"`
	RSS         int64  `json:"rss,omitempty"`   // bytes
	Moved       int64  `json:"moved,omitempty"` // bytes to and from the store, since the start

	Level int             `json:"level,omitempty"` // of log/slog
	Attrs json.RawMessage `json:"attrs,omitempty"` // an object

	Restored *Restored `json:"restored,omitempty"` // Done of Restore
	Points   []Point   `json:"points,omitempty"`   // Done of List
	Until    time.Time `json:"until,omitzero"`     // Waiting for a lease: when it expires
}

// Restored tells what a restore has written.
type Restored struct {
	TXID    uint64    `json:"txid"`
	Time    time.Time `json:"time"`  // of the last transaction
	Bytes   int64     `json:"bytes"` // of the copy
	Fetched int64     `json:"fetched"`
	Files   int       `json:"files"` // of the replica that were read
}

// A Point is one object of the replica, which ends in a state that can be restored.
type Point struct {
	Level   int       `json:"level"` // 0 the finest; 9 a snapshot
	MinTXID uint64    `json:"min_txid"`
	MaxTXID uint64    `json:"max_txid"`
	Time    time.Time `json:"time"`
	Bytes   int64     `json:"bytes"`
}
