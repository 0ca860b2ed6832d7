// Package realtime tells subscribers about changes of an SQLite database, as
// they are committed, by Server-Sent Events.
//
// A [Service] follows the change logs of a [sqlite.DB], which hold what has
// happened to rows, whoever has written them, and what the application has
// published. A stream is told everything that it may see, once, in the order
// of the commits. Streams pull: one that is slow has a place in the log and no
// queue, and holds up nobody.
//
//	svc, err := realtime.New(db, realtime.Config{
//		Subscribe: subscribe, // whose View of which table
//		Accept:    accept,    // who may listen to which channel
//		Identify:  identify,  // who is asking
//		Check:     check,     // and whether that still stands
//	})
//	...
//	defer svc.Close()
//	mux.HandleFunc("/api/records/v1/{api}/subscribe/{record}", svc.ServeRecords)
//	mux.HandleFunc("/api/realtime/v1/{channel}", svc.ServeChannel)
//	mux.HandleFunc("POST /api/realtime/v1/ticket", svc.ServeTicket)
//	srv.RegisterOnShutdown(svc.Drain)
//
// Package bedplate does this when a record API has Subscriptions or its
// Config.Realtime is set: record APIs are the views then, and its sign-in says
// who is asking. docs/realtime.md is the manual.
//
// # Views
//
// A [View] says which rows of a table a subscriber sees and how they look.
// Its access rule is judged on rows as they were and as they are, by
// [View.Judge], for all changes of a page and all users in one call:
//
//   - an insert that can be seen is an Insert;
//   - an update whose row can be seen after it is an Update; if it could be
//     seen before it only, it is a Delete of the old row, and the end for those
//     who watch that one record;
//   - a delete of a row that could be seen is a Delete;
//   - a change of the primary key is a Delete and an Insert.
//
// The table has to be tracked, see [sqlite.ChangeLog.Track].
//
// # Channels
//
// [Service.Publish] tells events of the application's own to those who listen to
// a channel, and [Service.PublishTx] as part of a transaction. They stand in
// the same log as the changes of rows, with the same history.
//
// # Positions
//
// The id of an event is its position in the log, sealed by [sqlite.Sealer]:
// clients learn nothing from it about what else is written. One that shows the
// last position it has dealt with, as Last-Event-ID or in the query, is told
// what it has missed. When that is not in the log any more, or is of another
// history, there is one event that says so: an Error with status 2, on a
// channel an event of the type "gap".
//
// # Framing
//
// Clients of TrailBase, which read streams line by line, want the data of an
// event in front and alone: the id follows in a block of its own. Whoever asks for
// text/event-stream in Accept, and everybody on a channel, gets both in one
// block (HTML standard, section 9.2).
//
// # Ends
//
// A stream ends when its identity does ([Identity].Expires, [Config].Check,
// [Service.End]), when its view is gone, after [Config].MaxLifetime, when the
// client takes nothing for [Config].WriteTimeout, and with [Service.Drain].
// Clients are expected to come back. [Subscribe] is one that does.
package realtime
