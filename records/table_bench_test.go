package records_test

import (
	"testing"

	"github.com/bedplate/bedplate/records"
)

// BenchmarkTableGet compares the read of a record from Go with one over HTTP.
func BenchmarkTableGet(b *testing.B) {
	db := openDB(b, tableSchema)
	svc := newService(b, db, tableAPI())
	notes, ctx := tableOf[note](b, svc, "notes"), signedIn(7)
	b.Run("table", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if n, err := notes.Get(ctx, 1); err != nil || n.Text != "one" {
				b.Fatal(n, err)
			}
		}
	})
	h := signIn(svc)
	b.Run("HTTP", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if r := get(h, "7", "/notes/1"); r.status != 200 {
				b.Fatal(r)
			}
		}
	})
}

func BenchmarkTableList(b *testing.B) {
	db := openDB(b, tableSchema+`; WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 110) INSERT INTO note (id, owner) SELECT i, 7 FROM n`)
	svc := newService(b, db, tableAPI())
	notes, ctx := tableOf[note](b, svc, "notes"), signedIn(7)
	b.Run("table", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if p, err := notes.List(ctx, records.Query{}); err != nil || len(p.Records) != 50 {
				b.Fatal(err)
			}
		}
	})
	h := signIn(svc)
	b.Run("HTTP", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if r := get(h, "7", "/notes"); r.status != 200 {
				b.Fatal(r)
			}
		}
	})
}
