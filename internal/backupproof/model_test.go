package backupproof_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/bedplate/bedplate/sqlite"
)

// The tables that commits change. What a commit writes depends on its number and on the life of the
// application that makes it: when a commit is lost and its number used again, the rows differ.
var schema = []string{
	`CREATE TABLE IF NOT EXISTS counter (id INTEGER PRIMARY KEY CHECK (id = 1), n INTEGER NOT NULL) STRICT`,
	`CREATE TABLE IF NOT EXISTS origin (n INTEGER PRIMARY KEY, life INTEGER NOT NULL) STRICT`, // of n and later
	`CREATE TABLE IF NOT EXISTS balance (id INTEGER PRIMARY KEY, amount INTEGER NOT NULL) STRICT`,
	`CREATE TABLE IF NOT EXISTS entry (id INTEGER PRIMARY KEY, key TEXT NOT NULL, body TEXT NOT NULL) STRICT`,
	`CREATE INDEX IF NOT EXISTS entry_key ON entry (key)`,
	`CREATE UNIQUE INDEX IF NOT EXISTS entry_body ON entry (body, id)`,
	`CREATE TABLE IF NOT EXISTS pair (a INTEGER, b INTEGER, n INTEGER NOT NULL, PRIMARY KEY (a, b)) STRICT, WITHOUT ROWID`,
	`CREATE TABLE IF NOT EXISTS picture (id INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT`,
	`CREATE TABLE IF NOT EXISTS bulk (id INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT`,
	`INSERT INTO counter (id, n) VALUES (1, 0) ON CONFLICT DO NOTHING`,
	`INSERT INTO balance (id, amount) VALUES (1, 0), (2, 0) ON CONFLICT DO NOTHING`,
}

const (
	entriesKept  = 1500 // commits after which an entry is deleted
	pictureEvery = 5    // commits
	picturesKept = 500  // commits
	bulkRow      = 64 << 10
)

// commit makes the next commit in tx and returns its number.
func commit(ctx context.Context, tx *sqlite.Tx, life int64) (n int64, err error) {
	if err := tx.QueryRowContext(ctx, "UPDATE counter SET n = n + 1 WHERE id = 1 RETURNING n").Scan(&n); err != nil {
		return 0, err
	}
	run := func(query string, args ...any) {
		if err == nil {
			_, err = tx.ExecContext(ctx, query, args...)
		}
	}
	c := change{n, life}
	run("INSERT INTO origin (n, life) SELECT ?1, ?2 WHERE ?2 IS NOT (SELECT life FROM origin ORDER BY n DESC LIMIT 1)", n, life)
	run("INSERT INTO entry (id, key, body) VALUES (?, ?, ?)", n, c.entryKey(), c.entryBody())
	run("DELETE FROM entry WHERE id = ?", n-entriesKept)
	run("UPDATE balance SET amount = amount - ? WHERE id = 1", c.moved())
	run("UPDATE balance SET amount = amount + ? WHERE id = 2", c.moved())
	a, b := c.pair()
	run("INSERT INTO pair (a, b, n) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET n = excluded.n", a, b, n)
	if n%pictureEvery == 0 {
		run("INSERT INTO picture (id, data) VALUES (?, ?)", n, c.picture())
		run("DELETE FROM picture WHERE id = ?", n-picturesKept)
	}
	return n, err
}

// fill makes the rows of bulk.
func fill(ctx context.Context, db *sqlite.DB, bytes int64) error {
	const portion = 16
	for first := int64(0); first < bytes/bulkRow; first += portion {
		err := db.Update(ctx, func(tx *sqlite.Tx) (err error) {
			for id := first; id < min(first+portion, bytes/bulkRow) && err == nil; id++ {
				_, err = tx.ExecContext(ctx, "INSERT INTO bulk (id, data) VALUES (?, ?) ON CONFLICT DO NOTHING", id, random(-id-1, bulkRow))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// A change is what one commit does.
type change struct{ n, life int64 }

func (c change) entryKey() string { return fmt.Sprintf("key %d", c.draw(0)%1000) }
func (c change) entryBody() string {
	return strings.Repeat(fmt.Sprintf("%d/%d ", c.life, c.n), 1+int(c.draw(1)%60))
}
func (c change) moved() int64       { return int64(c.draw(2) % 1000) }
func (c change) picture() []byte    { return random(c.n<<16|c.life, int(c.draw(3)%12_000)) }
func (c change) pair() (a, b int64) { return int64(c.draw(4) % 40), int64(c.draw(5) % 60) }

// draw returns a number that depends on the change and on what it is for (the finalizer of
// SplitMix64).
func (c change) draw(use uint64) uint64 {
	x := uint64(c.n<<16|c.life)*8 + use + 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// random returns bytes that depend on n.
func random(n int64, length int) []byte {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], uint64(n))
	data := make([]byte, length)
	_, _ = rand.NewChaCha8(seed).Read(data) // never fails
	return data
}

// A model is what the tables hold after a commit, as far as it does not follow from its number at
// once.
type model struct {
	n       int64
	origins []change // the first of each life, one after the other
	balance int64    // of the second account
	pairs   map[[2]int64]int64
}

// after returns the model after commit n.
func after(n int64, origins []change) *model {
	m := &model{n: n, origins: origins, pairs: map[[2]int64]int64{}}
	for c := range m.changes(1, 1) {
		m.balance += c.moved()
		a, b := c.pair()
		m.pairs[[2]int64{a, b}] = c.n
	}
	return m
}

// changes returns those from number first on, each step-th.
func (m *model) changes(first, step int64) iter.Seq[change] {
	return func(yield func(change) bool) {
		next := 0 // origin
		for n := first; n <= m.n; n += step {
			for next < len(m.origins) && m.origins[next].n <= n {
				next++
			}
			if next == 0 || !yield(change{n, m.origins[next-1].life}) {
				return
			}
		}
	}
}

// life returns which life made commit n.
func (m *model) life(n int64) int64 {
	for c := range m.changes(n, m.n) {
		return c.life
	}
	return 0
}

// A row of a table, each value as its text.
type row []string

// A table is one that commits change, and what it must hold in the order of its primary key.
type table struct {
	name, columns, order string

	rows iter.Seq[row]
}

// tables returns all tables. bulk is how many bytes the application was told to fill in.
func (m *model) tables(bulk int64) []table {
	return []table{
		{"counter", "id, n", "id", slices.Values([]row{texts(1, m.n)})},
		{"origin", "n, life", "n", func(yield func(row) bool) {
			for _, c := range m.origins {
				if !yield(texts(c.n, c.life)) {
					return
				}
			}
		}},
		{"balance", "id, amount", "id", slices.Values([]row{texts(1, -m.balance), texts(2, m.balance)})},
		{"entry", "id, key, body", "id", func(yield func(row) bool) {
			for c := range m.changes(max(1, m.n-entriesKept+1), 1) {
				if !yield(texts(c.n, c.entryKey(), c.entryBody())) {
					return
				}
			}
		}},
		{"pair", "a, b, n", "a, b", func(yield func(row) bool) {
			keys := slices.SortedFunc(maps.Keys(m.pairs), func(a, b [2]int64) int { return slices.Compare(a[:], b[:]) })
			for _, key := range keys {
				if !yield(texts(key[0], key[1], m.pairs[key])) {
					return
				}
			}
		}},
		{"picture", "id, data", "id", func(yield func(row) bool) {
			newest := m.n / pictureEvery * pictureEvery
			for c := range m.changes(max(pictureEvery, newest-picturesKept+pictureEvery), pictureEvery) {
				if !yield(texts(c.n, string(c.picture()))) {
					return
				}
			}
		}},
		{"bulk", "id, data", "id", func(yield func(row) bool) {
			for id := range bulk / bulkRow {
				if !yield(texts(id, string(random(-id-1, bulkRow)))) {
					return
				}
			}
		}},
	}
}

func texts(values ...any) row {
	r := make(row, len(values))
	for i, v := range values {
		r[i] = fmt.Sprint(v)
	}
	return r
}
