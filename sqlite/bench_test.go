package sqlite_test

import (
	"database/sql/driver"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

// spread runs call b.N times in all, by a number of goroutines, and reports
// calls per second.
func spread(b *testing.B, goroutines int, call func(i int64) error) {
	b.ReportAllocs()
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range goroutines {
		wg.Go(func() {
			for {
				i := next.Add(1)
				if i > int64(b.N) {
					return
				}
				if err := call(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}

func BenchmarkWrite(b *testing.B) {
	for _, synchronous := range []sqlite.Synchronous{sqlite.Full, sqlite.Normal} {
		for _, batch := range []int{0, 1} {
			for _, goroutines := range []int{1, 16, 64} {
				name := fmt.Sprintf("%s/batch=%s/writers=%d", map[sqlite.Synchronous]string{sqlite.Full: "full", sqlite.Normal: "normal"}[synchronous],
					map[int]string{0: "default", 1: "1"}[batch], goroutines)
				b.Run(name, func(b *testing.B) {
					db := sqlitetest.Open(b, itemSchema, sqlite.Options{Synchronous: synchronous, MaxBatch: batch})
					spread(b, goroutines, func(i int64) error { return db.Write(bg, insert(i)) })
				})
			}
		}
	}
}

func BenchmarkUpdate(b *testing.B) {
	for _, goroutines := range []int{1, 64} {
		b.Run(fmt.Sprintf("writers=%d", goroutines), func(b *testing.B) {
			db := sqlitetest.Open(b, itemSchema)
			spread(b, goroutines, func(i int64) error { return update(db, i)() })
		})
	}
}

func BenchmarkQuery(b *testing.B) {
	const rows = 10_000
	db := sqlitetest.Open(b, itemSchema)
	if err := db.Write(bg, sqlite.Stmt{SQL: `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < ?)
		INSERT INTO item SELECT i, 'note ' || i FROM n`, Args: []driver.Value{int64(rows)}}); err != nil {
		b.Fatal(err)
	}
	for _, goroutines := range []int{1, 16} {
		b.Run(fmt.Sprintf("by id/readers=%d", goroutines), func(b *testing.B) {
			spread(b, goroutines, func(i int64) error {
				return db.Query(bg, "SELECT id, note FROM item WHERE id = ?", []driver.Value{1 + i%rows}, func([]driver.Value) error { return nil })
			})
		})
		b.Run(fmt.Sprintf("by id in View/readers=%d", goroutines), func(b *testing.B) {
			spread(b, goroutines, func(i int64) error {
				return db.View(bg, func(tx *sqlite.Tx) error {
					var id int64
					var note string
					return tx.QueryRowContext(bg, "SELECT id, note FROM item WHERE id = ?", 1+i%rows).Scan(&id, &note)
				})
			})
		})
	}
}
