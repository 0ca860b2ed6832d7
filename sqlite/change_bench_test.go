package sqlite_test

import (
	"database/sql/driver"
	"fmt"
	"slices"
	"strings"
	"sync"
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
// and in one that does not: rows in one transaction, and transactions of one
// row by so many writers at once.
func BenchmarkChangeCapture(b *testing.B) {
	for _, synchronous := range []sqlite.Synchronous{sqlite.Full, sqlite.Normal} {
		for _, rows := range []int{1, 100} {
			b.Run(fmt.Sprintf("synchronous=%d/rows=%d", synchronous, rows), func(b *testing.B) {
				capture(b, synchronous, rows, func(db *sqlite.DB, stmts []sqlite.Stmt) { check(b, db.Write(bg, stmts...)) })
			})
		}
		b.Run(fmt.Sprintf("synchronous=%d/writers=64", synchronous), func(b *testing.B) {
			capture(b, synchronous, 640, func(db *sqlite.DB, stmts []sqlite.Stmt) {
				var wg sync.WaitGroup
				for own := range slices.Chunk(stmts, 10) {
					wg.Go(func() {
						for _, s := range own {
							if err := db.Write(bg, s); err != nil {
								b.Error(err)
							}
						}
					})
				}
				wg.Wait()
			})
		})
	}
}

// capture has write create b.N rows or more, so many in a call.
func capture(b *testing.B, synchronous sqlite.Synchronous, rows int, write func(*sqlite.DB, []sqlite.Stmt)) {
	var dbs [2]*sqlite.DB
	for i := range dbs {
		dbs[i] = sqlitetest.Open(b, messageSchema, sqlite.Options{Synchronous: synchronous})
	}
	mainLog(b, dbs[1], "message")
	var took [2]time.Duration
	stmts := make([]sqlite.Stmt, rows)
	id := int64(0)
	b.ResetTimer()
	for round := 0; round*rows < b.N; round++ {
		for i := range stmts {
			id++
			stmts[i] = message(id)
		}
		for k := range dbs {
			which := (k + round) % 2 // neither is always the second
			start := time.Now()
			write(dbs[which], stmts)
			took[which] += time.Since(start)
		}
	}
	b.StopTimer()
	b.ReportMetric(took[1].Seconds()/took[0].Seconds(), "ratio")
	b.ReportMetric(float64((took[1]-took[0]).Microseconds())/float64(id), "µs/row")
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

// BenchmarkChangeWait is the time from a commit's acknowledgement until
// somebody who waits has read the change.
func BenchmarkChangeWait(b *testing.B) {
	db := sqlitetest.Open(b, messageSchema, sqlite.Options{Synchronous: sqlite.Normal})
	l := mainLog(b, db, "message")
	at := head(b, l)
	read := make(chan time.Time)
	go func() {
		for range b.N {
			if err := l.Wait(bg, at); err != nil {
				b.Error(err)
			}
			at = page(b, db, l, at, 1<<40, 10).End
			read <- time.Now()
		}
	}()
	var took time.Duration
	for id := range int64(b.N) {
		check(b, db.Write(bg, message(id)))
		start := time.Now()
		took += (<-read).Sub(start)
	}
	b.ReportMetric(float64(took.Microseconds())/float64(b.N), "µs")
}
