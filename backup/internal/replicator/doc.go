// Package replicator is the child half of package backup: Litestream, in a process of its own.
//
// [Run] is called while the packages that bring the clients are initialized. In a process that was
// started as a replicator it never returns: it reads an order from one pipe (see package wire),
// does what that says, and tells on another pipe how it goes, until the first one closes.
//
// In Replicate mode two loops work side by side. One captures what was committed in files beside
// the database, the other uploads those; each runs once per sync interval and when a command wants
// it. A command only waits for the next round of a loop, so its deadline never cuts an upload
// short. Litestream's own loops are not used for that: they wait up to five minutes after errors,
// and cannot be stopped without a last upload.
//
// What is captured is less than what Litestream would read by itself, and at times more: see
// [keeper.capture]. A local file is uploaded when it is known to hold nothing but what was
// committed, and where it is not certain that it follows from the one before, the whole database is
// copied again.
//
// Everything between Litestream and the store goes through one client, which ends requests that
// get no answer, and all of them when the lease of the replica is lost.
package replicator
