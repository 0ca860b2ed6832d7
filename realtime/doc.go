// Package realtime tells subscribers about changes of an SQLite database, as
// they are committed, by Server-Sent Events.
package realtime
