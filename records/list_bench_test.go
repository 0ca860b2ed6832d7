package records_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/bedplate/bedplate/records"
)

const listBenchSchema = `
CREATE TABLE note (id INTEGER PRIMARY KEY, author TEXT NOT NULL, title TEXT NOT NULL, body TEXT, stars INTEGER NOT NULL, created REAL NOT NULL) STRICT;
CREATE INDEX note_stars ON note (stars);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
INSERT INTO note SELECT i, 'author' || (i % 10), 'title ' || i, 'some words about number ' || i, i % 50, i * 1.5 FROM n;
`

// BenchmarkList lists 50 records.
func BenchmarkList(b *testing.B) {
	db := openDB(b, listBenchSchema)
	svc, err := records.New(db, records.Config{APIs: []records.API{
		{Name: "open", Table: "note", World: records.Read},
		{Name: "ruled", Table: "note", World: records.Read, ReadRule: `_ROW_.stars >= 0`},
	}, Logger: quiet()})
	if err != nil {
		b.Fatal(err)
	}
	for _, bench := range []struct{ name, target string }{
		{"plain", "/open"},
		{"ruled", "/ruled"},
		{"filter", "/ruled?filter[stars][$gte]=5&order=-stars"},
	} {
		b.Run(bench.name, func(b *testing.B) { benchList(b, svc, bench.target) })
	}
}

func benchList(b *testing.B, h http.Handler, target string) {
	b.Helper()
	r := httptest.NewRequest("GET", target, nil)
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != 200 {
			b.Fatal(w.Code, w.Body)
		}
	}
}
