package records_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/bedplate/bedplate/records"
)

// Writes that arrive together share a commit. When it fails because of one of
// them, the others are done again, and their answers must be those of the
// second time: here the row that they are about has never existed.
func TestAnswersAfterSharedCommitFailed(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE parent (id INTEGER PRIMARY KEY) STRICT;
		CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER NOT NULL REFERENCES parent(id) DEFERRABLE INITIALLY DEFERRED, title TEXT) STRICT;
		CREATE TABLE note (id INTEGER PRIMARY KEY, child INTEGER NOT NULL) STRICT`)
	h := serve(t, db, records.API{Name: "child", Table: "child", World: everything},
		records.API{Name: "note", Table: "note", World: everything, CreateRule: `EXISTS (SELECT 1 FROM child WHERE id = _REQ_.child)`})
	for round := range 150 {
		id := 1 + round
		var wg sync.WaitGroup
		start := make(chan struct{})
		for range 4 {
			wg.Go(func() {
				<-start
				if r := call(h, "", "POST", "/child", fmt.Sprintf(`{"id":%d,"parent":99,"title":"a"}`, id)); r.status != 400 {
					t.Errorf("create of an orphan: %v", r)
				}
			})
			wg.Go(func() {
				<-start
				if r := call(h, "", "PATCH", fmt.Sprintf("/child/%d", id), `{"title":"b"}`); r.status != 404 {
					t.Errorf("update of a row that never was: %v", r)
				}
			})
			wg.Go(func() {
				<-start
				if r := call(h, "", "POST", "/note", fmt.Sprintf(`{"child":%d}`, id)); r.status != 403 {
					t.Errorf("create that the rule denies: %v", r)
				}
			})
		}
		close(start)
		wg.Wait()
		if t.Failed() {
			break
		}
	}
	if n := one(t, db, `SELECT (SELECT count(*) FROM child) + (SELECT count(*) FROM note)`); n != "0" {
		t.Errorf("%s rows are left", n)
	}
}

// A create is not refused for a row that another write never committed.
func TestUniqueAgainstUncommittedRow(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE parent (id INTEGER PRIMARY KEY) STRICT;
		INSERT INTO parent VALUES (1);
		CREATE TABLE child (id INTEGER PRIMARY KEY, name TEXT UNIQUE, parent INTEGER NOT NULL REFERENCES parent(id) DEFERRABLE INITIALLY DEFERRED) STRICT`)
	h := serve(t, db, records.API{Name: "child", Table: "child", World: everything})
	for round := range 150 {
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range 9 {
			wg.Go(func() {
				<-start
				if i != 4 {
					if r := call(h, "", "POST", "/child", fmt.Sprintf(`{"name":"n%d","parent":99}`, round)); r.status != 400 {
						t.Errorf("create of an orphan: %v", r)
					}
				} else if r := call(h, "", "POST", "/child", fmt.Sprintf(`{"name":"n%d","parent":1}`, round)); r.status != 200 {
					t.Errorf("the only create that is right: %v", r)
				}
			})
		}
		close(start)
		wg.Wait()
		if t.Failed() {
			break
		}
	}
}
