// Package crash holds the proof that an acknowledged write survives the sudden death of the
// server. It has no code but its test.
//
// The test starts the reference server on an empty directory and lets 32 writers create records
// over HTTP, each noting what it sent and what the server answered. At a random moment the
// server gets SIGKILL and is started again on the same directory. As a rule it must be ready within
// two seconds, and the database must hold every acknowledged record once and unchanged, nothing
// that nobody sent, and pass SQLite's integrity check. Then the writers go on, for as many
// rounds as asked for:
//
//	go test ./internal/crash -v -rounds=30
//
// SIGKILL takes the process and leaves the kernel, so this shows that no answer precedes its
// commit and that recovery is sound; it does not show what a power cut does.
package crash
