// Package backup copies a SQLite database elsewhere while it is used, and proves that it can be had
// back. It works on any SQLite file in WAL mode, with or without the rest of Bedplate.
//
//	replica, err := backup.New(backup.Config{URL: "s3://bucket/app", Driver: "sqlite3"})
//	…
//	if _, err := replica.RestoreIfMissing(ctx, "app.db", nil); err != nil { … } // on a new machine
//	db, err := sql.Open("sqlite3", "app.db?_journal_mode=WAL&_busy_timeout=10000")
//	…
//	if err := replica.Start(ctx, "app.db", "", nil); err != nil { … }
//	defer replica.Close() // after the database
//
// The kinds of replica are linked by blank imports of small packages: backup/file, backup/s3,
// backup/sftp, backup/gs, backup/abs, backup/nats and backup/webdav.
//
// The copying is done by Litestream (https://litestream.io) in a child process, the replicator: it
// brings an SQLite library of its own, and two of them in one process ignore each other's file
// locks and destroy the database. The replicator is the same executable, started again by those
// packages: their initialization never returns in it, so that nothing of the program runs there.
// What the program's package initialization does before, in packages that they depend on or that
// come earlier in the order of import paths, happens in the replicator too.
//
// What is acknowledged but not yet copied is lost with the machine, normally about a second;
// [Replica.WaitReplicated] waits for what must not be. [Replica.Status] does not rely on what the
// replicator counts: the lag is that of a row which the program writes and then finds in what the
// replica holds. [Replica.Drill] restores for a trial and compares.
package backup
