package records_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/bedplate/bedplate/records"
)

// A change of the schema is visible to whoever asks after Update has returned,
// also while others ask all the time.
func TestSchemaChangeIsVisibleAtOnce(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY) STRICT; INSERT INTO t VALUES (1)`)
	h := serve(t, db, records.API{Name: "t", Table: "t", World: everything})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					get(h, "", "/t/1")
				}
			}
		})
	}
	late := 0
	for i := range 40 {
		execSQL(t, db, fmt.Sprintf(`ALTER TABLE t ADD COLUMN c%d TEXT`, i))
		if r := get(h, "", "/t/1"); !strings.Contains(r.body, fmt.Sprintf(`"c%d":`, i)) {
			late++
		}
	}
	close(stop)
	wg.Wait()
	if late > 0 {
		t.Errorf("%d of 40 columns were not visible at once", late)
	}
}

// Names of columns differ by case in ASCII only, as in SQLite: here the second
// is the Kelvin sign, whose lower case in Unicode is the first.
func TestNamesFoldAsInSQLite(t *testing.T) {
	t.Parallel()
	db := openDB(t, "CREATE TABLE t (id INTEGER PRIMARY KEY, k TEXT, \"\u212a\" TEXT, \"é\" TEXT, \"É\" TEXT) STRICT")
	h := serve(t, db, records.API{Name: "t", Table: "t", World: everything, CreateRule: `_REQ_.k IS 'good' AND _REQ_."é" IS 'good'`, Exclude: []string{"É"}})
	want(t, call(h, "", "POST", "/t", "{\"k\":\"bad\",\"\u212a\":\"good\",\"é\":\"good\"}"), 403, "")
	want(t, call(h, "", "POST", "/t", "{\"k\":\"good\",\"\u212a\":\"bad\",\"é\":\"good\"}"), 200, `{"ids":["1"]}`)
	want(t, get(h, "", "/t/1"), 200, "{\"id\":1,\"k\":\"good\",\"é\":\"good\",\"\u212a\":\"bad\"}")
}
