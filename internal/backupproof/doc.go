// Package backupproof holds the proof that a backup holds what was acknowledged, whatever is
// killed. It has no code but its tests.
//
// An application, the test binary started again, commits numbered transactions to a database that
// is replicated to a directory or to an S3 server, and tells the test about each when it is
// acknowledged. What a commit writes follows from its number and from who makes it, so any state that
// is found anywhere can be checked row for row: it must be exactly that of some commit.
//
//	go test ./internal/backupproof -v -rounds=200
//
// TestKills kills, stops and replaces the application and its replicator at random moments, and
// wants to find every acknowledged commit in what is then restored. With -full writers do not rest,
// and -only chooses what happens.
//
// TestHalfCommit has the replicator find in the log what looks like commits and is none: SQLite
// overwrites what a process that was killed had not finished.
//
// TestLoseDirectory kills both and deletes their directory under load. The application must serve
// again after it has restored what it misses; nothing is lost that it was told to be in the replica.
// With -size the database is filled with as many bytes before. Then, and with many rounds, what is
// lost must not have been acknowledged more than two seconds before.
//
// TestLatency runs with -latency=N only: it compares how long commits take with and without
// replication, in N rounds of both.
package backupproof
