package records_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

// The owner of a row changes all the time while others write to it. Every
// write names the owner that it was allowed for, and a trigger compares: no
// write happens that the rule denies at its moment.
func TestNoMomentBetweenCheckAndWrite(t *testing.T) {
	t.Parallel()
	const rows, requests, workers = 8, 20_000, 8
	db := openDB(t, `CREATE TABLE doc (id INTEGER PRIMARY KEY, owner TEXT NOT NULL, by TEXT, v INTEGER NOT NULL DEFAULT 0) STRICT;
		CREATE TABLE wrong (id INTEGER, owner TEXT, by TEXT) STRICT;
		CREATE TRIGGER doc_update AFTER UPDATE OF by ON doc WHEN old.owner <> new.by BEGIN INSERT INTO wrong VALUES (old.id, old.owner, new.by); END;
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 8) INSERT INTO doc (id, owner) SELECT i, 'alice' FROM n`)
	h := serve(t, db,
		records.API{Name: "doc", Table: "doc", World: everything, UpdateRule: `_ROW_.owner = _USER_.id`, ReadRule: `_ROW_.owner = _USER_.id`},
		records.API{Name: "upsert", Table: "doc", World: everything, UpdateRule: `_ROW_.owner = _USER_.id`, Conflict: records.Replace},
		records.API{Name: "flip", Table: "doc", World: records.Update})
	names := []string{"alice", "bob"}
	var granted, denied, leaked atomic.Int64
	var wg sync.WaitGroup
	n := requests
	if testing.Short() {
		n = requests / 5
	}
	for w := range workers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(7, uint64(w)))
			for range n / workers {
				id, who := 1+rnd.IntN(rows), names[rnd.IntN(2)]
				switch rnd.IntN(4) {
				case 0:
					if r := call(h, "", "PATCH", "/flip/"+strconv.Itoa(id), fmt.Sprintf(`{"owner":%q}`, who)); r.status != 200 {
						t.Errorf("flip: %v", r)
					}
				case 1:
					r := get(h, who, "/doc/"+strconv.Itoa(id))
					if r.status == 200 && !strings.Contains(r.body, fmt.Sprintf(`"owner":%q`, who)) {
						leaked.Add(1)
					}
				case 2:
					count(t, call(h, who, "POST", "/upsert", fmt.Sprintf(`{"id":%d,"owner":%q,"by":%[2]q,"v":1}`, id, who)), &granted, &denied)
				default:
					count(t, call(h, who, "PATCH", "/doc/"+strconv.Itoa(id), fmt.Sprintf(`{"by":%q,"v":2}`, who)), &granted, &denied)
				}
			}
		})
	}
	wg.Wait()
	if wrong := rowsOf(t, db, `SELECT * FROM wrong`); len(wrong) > 0 {
		t.Errorf("%d writes that the rule denies, such as %v", len(wrong), wrong[0])
	}
	if leaked.Load() > 0 {
		t.Errorf("%d reads that the rule denies", leaked.Load())
	}
	if granted.Load() < 100 || denied.Load() < 100 {
		t.Errorf("%d granted, %d denied: not much of a race", granted.Load(), denied.Load())
	}
}

func count(t *testing.T, r response, granted, denied *atomic.Int64) {
	t.Helper()
	switch r.status {
	case 200:
		granted.Add(1)
	case 403:
		denied.Add(1)
	default:
		t.Errorf("neither granted nor denied: %v", r)
	}
}

// Fifty writers want the same few names and keys. Afterwards the table holds
// what the answers said, no more and no less.
func TestUniqueUnderConcurrency(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE acc (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, by INTEGER NOT NULL, n INTEGER NOT NULL DEFAULT 0) STRICT`)
	h := serve(t, db, records.API{Name: "acc", Table: "acc", World: everything}, records.API{Name: "ign", Table: "acc", World: everything, Conflict: records.Ignore})
	const writers, tries, names = 50, 30, 60
	type row struct{ name, by string }
	var mu sync.Mutex
	have := map[string]row{} // by id
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(9, uint64(w)))
			var mine []string
			for range tries {
				name := "n" + strconv.Itoa(rnd.IntN(names))
				switch k := rnd.IntN(10); {
				case k < 5:
					r := call(h, "", "POST", "/acc", fmt.Sprintf(`{"name":%q,"by":%d}`, name, w))
					if r.status == 400 && r.body == "db constraint: unique" {
						continue
					}
					for _, id := range idsOf(t, r) {
						mine = append(mine, id)
						mu.Lock()
						have[id] = row{name, strconv.Itoa(w)}
						mu.Unlock()
					}
				case k < 7: // all or nothing
					other := "n" + strconv.Itoa(rnd.IntN(names))
					r := call(h, "", "POST", "/acc", fmt.Sprintf(`[{"name":%q,"by":%d},{"name":%q,"by":%[2]d}]`, name, w, other))
					if r.status == 400 && r.body == "db constraint: unique" {
						continue
					}
					for i, id := range idsOf(t, r) {
						mine = append(mine, id)
						mu.Lock()
						have[id] = row{[]string{name, other}[i], strconv.Itoa(w)}
						mu.Unlock()
					}
				case len(mine) > 0: // nobody else touches my rows
					id := mine[len(mine)-1]
					if k == 7 {
						mine = mine[:len(mine)-1]
						mu.Lock() // before, since its id may be somebody's right after
						delete(have, id)
						mu.Unlock()
						want(t, call(h, "", "DELETE", "/acc/"+id, ""), 200, "deleted")
						continue
					}
					r := call(h, "", "PATCH", "/acc/"+id, fmt.Sprintf(`{"name":%q}`, name))
					switch {
					case r.status == 200:
						mu.Lock()
						have[id] = row{name, strconv.Itoa(w)}
						mu.Unlock()
					case r.status != 400 || r.body != "db constraint: unique":
						t.Errorf("update: %v", r)
					}
				}
			}
		})
	}
	wg.Wait()
	got := rowsOf(t, db, `SELECT id, name, by FROM acc`)
	if len(got) != len(have) {
		t.Errorf("%d rows, the answers say %d", len(got), len(have))
	}
	for _, r := range got {
		if have[r[0]] != (row{r[1], r[2]}) {
			t.Errorf("row %v, the answers say %v", r, have[r[0]])
		}
	}
}

// Reading goes on while everything else happens, the schema included.
func TestEverythingAtOnce(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE item (id INTEGER PRIMARY KEY, v TEXT) STRICT`)
	h := serve(t, db, records.API{Name: "item", Table: "item", World: everything})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				for _, r := range []response{
					call(h, "", "POST", "/item", fmt.Sprintf(`{"v":"%d-%d"}`, w, i)),
					get(h, "", "/item?limit=3&count=true&order=-v"),
				} {
					if r.status != 200 {
						t.Errorf("%v", r)
						return
					}
				}
			}
		})
	}
	for i := range 15 {
		err := db.Update(context.Background(), func(tx *sqlite.Tx) error {
			_, err := tx.ExecContext(context.Background(), fmt.Sprintf(`ALTER TABLE item ADD COLUMN c%d TEXT DEFAULT 'new'`, i))
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	if r := get(h, "", "/item?limit=1"); !strings.Contains(r.body, `"c14":`) {
		t.Errorf("the last column is missing: %v", r)
	}
}
