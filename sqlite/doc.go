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
