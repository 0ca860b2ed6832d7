package backup

import "errors"

// Errors that can be told by errors.Is.
var (
	// ErrNoBackup: nothing is in the replica, or nothing for that time. A wrong bucket or prefix
	// looks the same.
	ErrNoBackup = errors.New("there is no such backup in the replica")

	// ErrNotEmpty: the replica holds another database, or one from before this file was made.
	// Restore it, choose another URL, or set Config.Adopt.
	ErrNotEmpty = errors.New("the replica holds another database")

	// ErrLeased: another machine replicates to the same URL.
	ErrLeased = errors.New("another machine has the lease of the replica")

	// ErrFenced: another machine has taken over the replica.
	ErrFenced = errors.New("another machine has taken over the replica")

	// ErrCorrupt: an object in the replica is damaged, or what was restored is.
	ErrCorrupt = errors.New("the backup is damaged")

	// ErrInUse: another process has the database, or replicates it.
	ErrInUse = errors.New("the database is in use")

	// ErrNotReplicated: Close could not copy everything.
	ErrNotReplicated = errors.New("not everything is in the replica")

	// ErrClosed: it was closed, or not started.
	ErrClosed = errors.New("it is closed, or was not started")
)
