package sqlite

// SavepointName is the savepoint that surrounds the function of an Update.
const SavepointName = savepointName

// Waiting returns how many writes wait for the writer of db.
func Waiting(db *DB) int { return db.writer.waiting() }
