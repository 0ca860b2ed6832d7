package sqlite_test

import (
	"database/sql/driver"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

// messageSchema is a table of eight columns.
const messageSchema = `CREATE TABLE message (id INTEGER PRIMARY KEY, room BLOB NOT NULL, author BLOB NOT NULL, body TEXT NOT NULL,
	score REAL, created INTEGER NOT NULL, edited INTEGER, state TEXT) STRICT`

func message(id int64) sqlite.Stmt {
	return sqlite.Stmt{SQL: "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?, ?)", Args: []driver.Value{
		id, []byte("0123456789abcdef"), []byte("fedcba9876543210"), strings.Repeat("some words ", 18), 0.5, int64(1_700_000_000), nil, "new"}}
}

// BenchmarkChangeCapture creates rows in turn in a database that tracks them
// and in one that does not.
func BenchmarkChangeCapture(b *testing.B) {
	for _, synchronous := range []sqlite.Synchronous{sqlite.Full, sqlite.Normal} {
		for _, batch := range []int{1, 100} {
			b.Run(fmt.Sprintf("synchronous=%d/batch=%d", synchronous, batch), func(b *testing.B) {
				var dbs [2]*sqlite.DB
				for i := range dbs {
					dbs[i] = sqlitetest.Open(b, messageSchema, sqlite.Options{Synchronous: synchronous})
				}
				mainLog(b, dbs[1], "message")
				var took [2]time.Duration
				stmts := make([]sqlite.Stmt, batch)
				id := int64(0)
				b.ResetTimer()
				for n := 0; n < b.N; n += batch {
					for i := range stmts {
						id++
						stmts[i] = message(id)
					}
					for k := range dbs {
						which := (k + n/batch) % 2 // neither is always the second
						start := time.Now()
						check(b, dbs[which].Write(bg, stmts...))
						took[which] += time.Since(start)
					}
				}
				b.StopTimer()
				b.ReportMetric(took[1].Seconds()/took[0].Seconds(), "ratio")
				b.ReportMetric(float64((took[1]-took[0]).Microseconds())/float64(id), "µs/row")
			})
		}
	}
}

func BenchmarkChangePage(b *testing.B) {
	db := sqlitetest.Open(b, messageSchema)
	l := mainLog(b, db, "message")
	const rows = 256
	head, err := l.Head(bg)
	check(b, err)
	for id := range int64(rows) {
		check(b, db.Write(bg, message(id)))
	}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if p := page(b, db, l, head, 1<<40, rows); len(p.Changes) != rows {
			b.Fatal(len(p.Changes))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*rows), "µs/row")
}
