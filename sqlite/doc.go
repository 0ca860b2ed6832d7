// Package sqlite is the database handle that the rest of Bedplate stands on:
// one SQLite file with one group-committing writer and several readers.
//
// # Writing
//
// SQLite has one writer at a time, and a durable commit costs one fsync.
// [DB.Write] and [DB.Update] therefore share commits: the first caller leads,
// callers that arrive while it works join the same transaction, and all of
// them are answered after its COMMIT has returned. There is no timer and no
// writer goroutine, so a lone caller waits for nothing but its own commit.
// An acknowledged write is on disk ([Full]); [Normal] trades that promise for
// a little speed and is never the default.
//
//	err := db.Update(ctx, func(tx *sqlite.Tx) error {
//		_, err := tx.ExecContext(ctx, `INSERT INTO note (body) VALUES (?)`, body)
//		return err
//	})
//
// Every function runs in a savepoint of its own: an error or a panic undoes
// that function's work and nobody else's.
//
// # Reading
//
// [DB.View] gives a consistent snapshot with the methods of database/sql;
// [DB.Query] and [DB.Read] are the direct path that the record layer uses:
// prepared once per connection, no reflection.
//
// # Changes
//
// A [ChangeLog] records how the rows of tracked tables change, by triggers in
// the file itself: what other processes write is there, too, in the order of
// the commits, and what was rolled back is not. A position in the log can be
// kept and read on from later, across restarts; where history is missing, the
// log says so.
//
//	log, err := db.ChangeLog("main")
//	err = log.Track(ctx, "note")
//	at, err := log.Head(ctx)
//	for {
//		err = log.Wait(ctx, at)
//		err = db.Read(ctx, func(r *sqlite.Reader) (err error) {
//			page, err = log.Page(r, at, math.MaxInt64, 100)
//			return err
//		})
//		at = page.End
//	}
//
// Rows that were deleted stay in the log, and so in the file, until they are
// pruned; see [ChangeLogOptions].
//
// The handle keeps triggers in step with the schema: after every change of it
// through the handle, in the same transaction, and soon after one by others
// while somebody waits. SQLite refuses to drop a column of a tracked table:
// do that in a migration or in [ChangeLog.WithoutChangeFeed].
//
// # Copies
//
// [DB.Snapshot] copies a database while it is written, without holding up
// those who write. [Options].Replicated makes room for a process that follows
// the write-ahead log, and [CheckMigrations] looks at a file before it takes
// the place of another one.
//
// # One SQLite per process
//
// A process must not open one file with two different SQLite libraries, for
// example mattn/go-sqlite3 (this package) and modernc.org/sqlite: POSIX locks
// belong to the process, so the two do not see each other's locks and corrupt
// the file (https://www.sqlite.org/howtocorrupt.html, section 2.2.1).
// [Open] refuses a file that is already open when another library is linked
// in. An application's own connections to the same file are welcome when they
// use this package's driver:
//
//	own, err := sql.Open(sqlite.DriverName, "app.db")
package sqlite
