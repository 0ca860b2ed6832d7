//go:build sqlite_fts5

package records_test

import (
	"context"
	"errors"
	"testing"

	"github.com/bedplate/bedplate/records"
)

func TestFullTextOfTable(t *testing.T) {
	t.Parallel()
	db := openDB(t, wareSchema+`;
		CREATE VIRTUAL TABLE ware_text USING fts5(name, content='ware', content_rowid='id');
		INSERT INTO ware (id, name, price) VALUES (1, 'red apple pie and more', 1), (2, 'apple', 2), (3, 'pear', 3);
		INSERT INTO ware_text (ware_text) VALUES ('rebuild')`)
	svc := newService(t, db, records.API{Name: "wares", Table: "ware", World: records.Read, FullText: "ware_text"})
	table, ctx := tableOf[ware](t, svc, "wares"), context.Background()
	for _, test := range []struct {
		q    records.Query
		want string
	}{
		{records.Query{Match: "apple"}, "21"}, // the best first
		{records.Query{Match: "apple", Order: []string{"id"}}, "12"},
		{records.Query{Match: "apple", Filter: records.Where("price", "<", 2)}, "1"},
		{records.Query{Match: "plum"}, ""},
	} {
		test.q.Count = true
		page, err := table.List(ctx, test.q)
		if err != nil || ids(page) != test.want || page.Total != int64(len(test.want)) {
			t.Errorf("%+v: %+v, %v", test.q, page, err)
		}
	}
	for _, match := range []string{`"`, "other:apple", "*x", "a\x00"} {
		_, err := table.List(ctx, records.Query{Match: match})
		var refused *records.Error
		if !errors.As(err, &refused) || refused.Status != 400 {
			t.Errorf("%q: %v", match, err)
		}
	}
}
