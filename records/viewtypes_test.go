package records_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/records"
)

const viewSchema = librarySchema + `
CREATE TABLE thing (id BLOB PRIMARY KEY NOT NULL CHECK (is_uuid(id)), data TEXT CHECK (jsonschema_matches('{}', data)), pic TEXT CHECK (jsonschema('std.FileUpload', pic)), at BLOB CHECK (ST_IsValid(at)), code TEXT, a ANY, _h TEXT) STRICT;
INSERT INTO thing VALUES (x'01020304050647088102030405060708', '{"a": 1}', '{"id":"SECRETID","filename":"x.png"}', ST_GeomFromText('POINT (1 2)'), '007', 'x', 'H');
CREATE VIEW things AS SELECT t.id, t.data, t.pic, t.at, t.code AS code, t.a, t._h AS shown, t._h FROM thing AS t;
CREATE VIEW shelved AS SELECT b.id, b.title, b.author, s.id AS shelf, count(*) AS n, coalesce(b.title, '') AS name FROM book b LEFT JOIN shelf s ON s.id = b.shelf GROUP BY b.id;
CREATE VIEW totals AS SELECT max(shelf) AS id, count(*) AS books FROM book GROUP BY shelf HAVING shelf IS NOT NULL;
`

// What the columns of tables are like comes through a view.
func TestViewFormats(t *testing.T) {
	t.Parallel()
	h := serve(t, openDB(t, viewSchema), records.API{Name: "things", Table: "things", World: records.Read, Exclude: []string{"a"}})
	const thing = `{"at":{"type":"Point","coordinates":[1,2]},"code":"007","data":{"a":1},"id":"AQIDBAUGRwiBAgMEBQYHCA==","pic":{"filename":"x.png"},"shown":"H"}`
	want(t, get(h, "", "/things/01020304-0506-4708-8102-030405060708"), 200, thing)
	for query, n := range map[string]int{
		"filter[code]=007": 1, "filter[code]=7": 0, "filter[id]=AQIDBAUGRwiBAgMEBQYHCA==": 1, "filter[shown]=H": 1,
		"filter[at][@within]=POLYGON((0%200,0%203,3%203,3%200,0%200))": 1, "filter[data][$like]=%25a%25": 1, "order=code": 1, `filter[code][$in]=["007"]`: 1, "fields=code": 1,
	} {
		if p := list(t, h, "", "/things?"+strings.ReplaceAll(query, `"`, "%22")); len(p.Records) != n {
			t.Errorf("%s: %d records, want %d", query, len(p.Records), n)
		}
	}
	if r := get(h, "", "/things?geojson=at"); !strings.Contains(r.body, `"FeatureCollection"`) {
		t.Error(r)
	}
	// The id of a file is as much a secret as in the table.
	for _, query := range []string{"filter[pic][$like]=%25SECRET%25", "filter[pic]=x", "filter[a]=x", "filter[_h]=H", "filter[pic][$in]=[]"} {
		want(t, get(h, "", "/things?"+query), 400, "Invalid filter params")
	}
	want(t, get(h, "", "/things?order=pic"), 400, "Invalid query")
}

// Foreign keys come through, so that rows can be expanded under the rules of
// the APIs that show them.
func TestViewExpand(t *testing.T) {
	t.Parallel()
	db := openDB(t, viewSchema)
	apis := append(libraryAPIs(), records.API{Name: "shelved", Table: "shelved", World: records.Read, Expand: []string{"author"}}, records.API{Name: "totals", Table: "totals", World: records.Read})
	h := serve(t, db, apis...)
	want(t, get(h, "alice", "/shelved/1?expand=author"), 200, `{"author":{"data":{"id":1,"name":"Ann","owner":"alice"},"id":1},"id":1,"n":1,"name":"one","shelf":7,"title":"one"}`)
	p := list(t, h, "alice", "/shelved?order=id&expand=author&filter[n]=1")
	if got := fmt.Sprint(p.column(t, "author")); got != `[{"data":{"id":1,"name":"Ann","owner":"alice"},"id":1} {"id":2} null]` {
		t.Error(got)
	}
	noSecrets(t, get(h, "alice", "/shelved?expand=author").body)
	execSQL(t, db, `UPDATE book SET title = '007' WHERE id = 3`)
	for filter, n := range map[string]int{"filter[name]=007": 1, "filter[name]=7": 0, `filter[name][$in]=["7","one"]`: 1} { // text, not numbers
		if p := list(t, h, "", "/shelved?"+strings.ReplaceAll(filter, `"`, "%22")); len(p.Records) != n {
			t.Errorf("%s: %d records, want %d", filter, len(p.Records), n)
		}
	}
	want(t, get(h, "", "/shelved?filter[n]=x"), 400, "Invalid filter params")
	want(t, get(h, "", "/totals/7"), 200, `{"books":2,"id":7}`)

	// What refers to nothing is not expanded.
	apis[2].Expand = []string{"shelf"}
	if _, err := tryServe(db, apis...); err == nil || !strings.Contains(err.Error(), `expand "shelf": not a foreign key`) {
		t.Error(err)
	}
}
