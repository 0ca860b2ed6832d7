package sqlite_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

// BenchmarkSnapshot measures how long commits take at 400 a second while nobody
// copies the database, while Snapshot does, and while VACUUM INTO does. For the
// numbers to mean something the temporary directory must be on a disk and the
// machine at rest.
func BenchmarkSnapshot(b *testing.B) {
	for _, megabytes := range []int64{64, 1100} {
		b.Run(fmt.Sprintf("MB=%d", megabytes), func(b *testing.B) { benchmarkSnapshot(b, megabytes) })
	}
}

func benchmarkSnapshot(b *testing.B, megabytes int64) {
	db := sqlitetest.Open(b, "CREATE TABLE item (id INTEGER PRIMARY KEY, key TEXT, note TEXT); CREATE INDEX key ON item (key)",
		sqlite.Options{MaxStatement: time.Minute})
	const perMB = 250 // of rows of 4 kB
	const fill = `WITH RECURSIVE n(i) AS (SELECT ?1 UNION ALL SELECT i+1 FROM n WHERE i < ?1 + ?2 - 1)
		INSERT INTO item SELECT i, hex(randomblob(8)), hex(randomblob(2000)) FROM n`
	for m := range megabytes {
		check(b, db.Write(bg, sqlite.Stmt{SQL: fill, Args: []driver.Value{m * perMB, int64(perMB)}}))
	}
	for _, copying := range []struct {
		name string
		run  func(path string) error
	}{
		{"none", func(string) error { time.Sleep(10 * time.Second); return nil }},
		{"snapshot", func(path string) error { return db.Snapshot(bg, "main", path) }},
		{"vacuum", func(path string) error {
			own := sql.OpenDB(db.Connector())
			_, err := own.ExecContext(bg, "VACUUM INTO ?", path)
			return errors.Join(err, own.Close())
		}},
	} {
		b.Run(copying.name, func(b *testing.B) {
			for i := range b.N {
				path := filepath.Join(b.TempDir(), fmt.Sprint("copy", i))
				ctx, stop := context.WithCancel(bg)
				var wg sync.WaitGroup
				var took []time.Duration
				wg.Go(func() { took = commits(ctx, b, db, 400, megabytes*perMB) })
				began := time.Now()
				check(b, copying.run(path))
				b.ReportMetric(time.Since(began).Seconds(), "s/copy")
				stop()
				wg.Wait()
				slices.Sort(took)
				at := func(f float64) float64 {
					return float64(took[int(f*float64(len(took)-1))].Microseconds()) / 1000
				}
				b.ReportMetric(at(0.5), "p50-ms")
				b.ReportMetric(at(0.99), "p99-ms")
				b.ReportMetric(at(1), "max-ms")
				b.ReportMetric(0, "ns/op")
				if info, err := os.Stat(db.Path() + "-wal"); err == nil {
					b.ReportMetric(float64(info.Size()>>20), "log-MB")
				}
			}
		})
	}
}

// commits writes at a steady rate until ctx ends, as clients do that do not
// wait for each other, and returns how long after its time each write was done.
func commits(ctx context.Context, tb testing.TB, db *sqlite.DB, perSecond int, rows int64) (took []time.Duration) {
	const clients = 8
	var mu sync.Mutex
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			due := time.Now().Add(time.Second * time.Duration(c) / time.Duration(perSecond))
			for i := int64(c); ctx.Err() == nil; i += clients {
				time.Sleep(time.Until(due))
				err := db.Write(bg, sqlite.Stmt{SQL: "UPDATE item SET key = hex(randomblob(8)), note = hex(randomblob(2000)) WHERE id = ?", Args: []driver.Value{i * 7919 % rows}})
				if err != nil {
					tb.Error(err)
					return
				}
				mu.Lock()
				took = append(took, time.Since(due))
				mu.Unlock()
				due = due.Add(time.Second * clients / time.Duration(perSecond))
			}
		})
	}
	wg.Wait()
	return took
}
