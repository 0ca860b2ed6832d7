package sqlite

import "database/sql/driver"

// SavepointName is the savepoint that surrounds the function of an Update.
const SavepointName = savepointName

// Waiting returns how many writes wait for the writer of db.
func Waiting(db *DB) int { return db.writer.waiting() }

// DecodeImage reads the image of a row.
func DecodeImage(text string, blobs []bool) ([]driver.Value, bool) { return decodeImage(text, blobs) }

// Watching returns how many wait in [ChangeLog.Wait] for a log of db.
func Watching(db *DB) int { return int(db.commits.waiting.Load()) }

// PollEvery is how often they look for what other processes have written.
const PollEvery = pollEvery
