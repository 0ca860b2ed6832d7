package listquery_test

import (
	"net/url"
	"testing"

	"github.com/bedplate/bedplate/internal/listquery"
)

func BenchmarkParse(b *testing.B) {
	for _, bench := range []struct{ name, query string }{
		{"page", "limit=50&cursor=AZH8mYTFd5OexZn4K10jCAAZH8mYTFd5OexZn4K10jCA"},
		{"sort", "limit=50&order=-created,title&count=true"},
		{"filter2sort", "filter[author]=AZH8mYTFd5OexZn4K10jCA==&filter[created][$gte]=1700000000&order=-created&limit=50"},
		{"filter2sort_encoded", "filter%5Bauthor%5D=AZH8mYTFd5OexZn4K10jCA%3D%3D&filter%5Bcreated%5D%5B%24gte%5D=1700000000&order=-created&limit=50"},
		{"nested", "filter[$and][0][$or][0][a][$gt]=2&filter[$and][0][$or][1][b]=x&filter[$and][1][c]=y"},
	} {
		b.Run(bench.name+"/listquery", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := listquery.Parse(bench.query); err != nil {
					b.Fatal(err)
				}
			}
		})
		// What only taking the pairs apart costs with the standard library.
		b.Run(bench.name+"/net_url", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := url.ParseQuery(bench.query); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
