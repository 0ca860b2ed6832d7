package sqlite_test

import (
	"database/sql/driver"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

const replaySchema = `
	CREATE TABLE owner (id INTEGER PRIMARY KEY, n INTEGER) STRICT;
	CREATE TABLE thing (k TEXT PRIMARY KEY, owner INTEGER REFERENCES owner ON DELETE CASCADE ON UPDATE CASCADE,
		parent TEXT REFERENCES thing ON DELETE SET NULL, v, changes INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
	CREATE TABLE total (id INTEGER PRIMARY KEY, n INTEGER) STRICT;
	INSERT INTO total VALUES (1, 0);
	CREATE TRIGGER early AFTER UPDATE OF v ON thing BEGIN UPDATE thing SET changes = changes + 1 WHERE k = NEW.k; END;
	CREATE TRIGGER count_in AFTER INSERT ON thing BEGIN UPDATE total SET n = n + 1; END;
	CREATE TRIGGER count_out AFTER DELETE ON thing BEGIN UPDATE total SET n = n - 1; END`

// TestReplay runs random statements in random transactions: whoever applies
// the log to an empty database has what the tables have.
func TestReplay(t *testing.T) {
	t.Parallel()
	seeds := 12
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(uint64(seed), 11)) //nolint:gosec // to be repeatable
			db := sqlitetest.Open(t, replaySchema, sqlite.Options{Synchronous: sqlite.Normal, Logger: quiet})
			r := replayer{f: follow(t, db, mainLog(t, db, "owner", "thing", "total")), tables: map[string]map[driver.Value][]driver.Value{
				"owner": {}, "thing": {}, "total": {int64(1): {int64(1), int64(0)}}}}
			keys := map[string]int{"owner": 0, "thing": 0, "total": 0}
			for round := range 120 {
				_ = db.Update(bg, func(tx *sqlite.Tx) error { return randomWork(tx, rnd) }) // failing is a part of it
				if rnd.IntN(60) == 0 {
					// A younger trigger, which does no harm any more.
					execute(t, db, fmt.Sprintf("CREATE TRIGGER late%d AFTER UPDATE OF owner ON thing BEGIN UPDATE thing SET changes = changes + 10 WHERE k = NEW.k; END", round))
				}
				if round%10 == 9 {
					r.apply(t, keys)
					r.compare(t, db, keys)
				}
			}
		})
	}
}

// randomWork is what one transaction does.
func randomWork(tx *sqlite.Tx, rnd *rand.Rand) error {
	depth := 0
	for range 1 + rnd.IntN(12) {
		id, k := rnd.IntN(8), fmt.Sprintf("k%d", rnd.IntN(12))
		value := []string{"NULL", "1", "2.5", "'text'", "x'00ff'", "json('[1]')"}[rnd.IntN(6)]
		query := ""
		switch rnd.IntN(16) {
		case 0, 1:
			query = fmt.Sprintf("INSERT INTO owner VALUES (%d, %d) ON CONFLICT (id) DO UPDATE SET n = n + 1", id, id)
		case 2, 3, 4:
			query = fmt.Sprintf("INSERT INTO thing (k, owner, v) VALUES ('%s', %d, %s) ON CONFLICT (k) DO UPDATE SET v = excluded.v, owner = excluded.owner", k, id, value)
		case 5:
			query = fmt.Sprintf("INSERT OR IGNORE INTO thing (k, v) VALUES ('%s', %s), ('%sx', %s)", k, value, k, value)
		case 6:
			query = fmt.Sprintf("UPDATE thing SET v = %s WHERE k > '%s'", value, k)
		case 7:
			query = fmt.Sprintf("UPDATE owner SET id = %d WHERE id = %d", rnd.IntN(8), id)
		case 8:
			query = fmt.Sprintf("DELETE FROM owner WHERE id = %d", id)
		case 9:
			query = fmt.Sprintf("DELETE FROM thing WHERE k < '%s'", k)
		case 10:
			query = fmt.Sprintf("UPDATE thing SET parent = 'k%d' WHERE k = '%s' AND k <> 'k%[1]d'", rnd.IntN(12), k)
		case 11:
			query = []string{"DELETE FROM thing", "DELETE FROM owner", "UPDATE OR IGNORE thing SET owner = owner + 1"}[rnd.IntN(3)]
		case 12:
			query = fmt.Sprintf("UPDATE thing SET k = 'k%d', v = %s WHERE k = '%s' AND parent IS NULL", rnd.IntN(12), value, k)
		case 13:
			query = "SAVEPOINT s"
			depth++
		case 14:
			if depth == 0 {
				continue
			}
			query = []string{"ROLLBACK TO s", "RELEASE s"}[rnd.IntN(2)]
			if query == "RELEASE s" {
				depth--
			}
		case 15:
			if rnd.IntN(4) == 0 {
				return errOwn
			}
			continue
		}
		_ = run(tx, query) // failing is a part of it
	}
	return nil
}

// replayer applies changes to tables by their keys.
type replayer struct {
	f      *follower
	tables map[string]map[driver.Value][]driver.Value
}

func (r *replayer) apply(t *testing.T, keys map[string]int) {
	t.Helper()
	for _, c := range r.f.changes() {
		if c.Op == sqlite.LogBreak {
			continue
		}
		table, key := r.tables[c.Table], keys[c.Table]
		if c.Old != nil {
			if have := table[c.Old[key]]; !reflect.DeepEqual(have, c.Old) {
				t.Fatalf("%s: there is %v", describe(c), have)
			}
			delete(table, c.Old[key])
		}
		if c.New != nil {
			if have, ok := table[c.New[key]]; ok {
				t.Fatalf("%s: there is %v", describe(c), have)
			}
			table[c.New[key]] = c.New
		}
	}
}

func (r *replayer) compare(t *testing.T, db *sqlite.DB, keys map[string]int) {
	t.Helper()
	for table, key := range keys {
		columns := map[string]string{"owner": "id, n", "thing": "k, owner, parent, v, changes", "total": "id, n"}[table]
		n := 0
		check(t, db.Query(bg, "SELECT "+columns+" FROM "+table, nil, func(row []driver.Value) error {
			n++
			if have := r.tables[table][row[key]]; !reflect.DeepEqual(have, row) {
				t.Errorf("%s: the log says %v, the table %v", table, have, row)
			}
			return nil
		}))
		if n != len(r.tables[table]) {
			t.Errorf("%s: %d rows by the log, %d in the table", table, len(r.tables[table]), n)
		}
	}
}
