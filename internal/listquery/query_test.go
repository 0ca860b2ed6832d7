package listquery_test

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/listquery"
)

func ExampleParse() {
	q, err := listquery.Parse("limit=20&order=-created,title&count=true&filter[year][$gte]=1999&filter[lang]=en")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(q.Limit, q.Order, q.Count)
	for _, term := range q.Filter.Children {
		fmt.Println(term.Column, term.Op == listquery.Gte, term.Value)
	}
	// Output:
	// 20 [{created true} {title false}] true
	// year true 1999
	// lang false en
}

func TestParse(t *testing.T) {
	t.Parallel()
	query := func(change func(*listquery.Query)) listquery.Query {
		q := listquery.Query{Limit: -1}
		change(&q)
		return q
	}
	order := func(order ...listquery.Order) func(*listquery.Query) {
		return func(q *listquery.Query) { q.Order, q.HasOrder = order, true }
	}
	tests := []struct {
		in     string
		change func(*listquery.Query)
	}{
		{"", func(*listquery.Query) {}},
		{"&&", func(*listquery.Query) {}},
		{"=", func(*listquery.Query) {}},
		{"unknown=1&unknown=2&Limit=x&filters[a]=1&filter.a=1&filte=", func(*listquery.Query) {}},
		{"a[b]=1&[limit]=1", func(*listquery.Query) {}},

		{"limit=0", func(q *listquery.Query) { q.Limit = 0 }},
		{"limit=007", func(q *listquery.Query) { q.Limit = 7 }},
		{"l%69mit=%31+", nil},
		{"l%69mit=%31", func(q *listquery.Query) { q.Limit = 1 }},
		{"limit=" + strconv.Itoa(math.MaxInt), func(q *listquery.Query) { q.Limit = math.MaxInt }},
		{"offset=9007199254740992", func(q *listquery.Query) { q.Offset = 1 << 53 }},
		{"offset=12&limit=3", func(q *listquery.Query) { q.Offset, q.Limit = 12, 3 }},

		{"cursor=", func(q *listquery.Query) { q.HasCursor = true }},
		{"cursor", func(q *listquery.Query) { q.HasCursor = true }},
		{"cursor=AZ-_%3D=", func(q *listquery.Query) { q.Cursor, q.HasCursor = "AZ-_==", true }},

		{"count=true", func(q *listquery.Query) { q.Count = true }},
		{"count=TRUE", func(q *listquery.Query) { q.Count = true }},
		{"count=1", func(q *listquery.Query) { q.Count = true }},
		{"count=false", func(q *listquery.Query) {}},
		{"count=FALSE", func(q *listquery.Query) {}},
		{"count=0", func(q *listquery.Query) {}},
		{"skip_cursor=true", func(q *listquery.Query) { q.SkipCursor = true }},
		{"skip_cursor=0", func(q *listquery.Query) {}},

		{"order=a", order(listquery.Order{Column: "a"})},
		{"order=+a", order(listquery.Order{Column: "a"})},
		{"order=%2Ba", order(listquery.Order{Column: "a"})},
		{"order=-a", order(listquery.Order{Column: "a", Desc: true})},
		{"order=%2Da%2C+b", order(listquery.Order{Column: "a", Desc: true}, listquery.Order{Column: "b"})},
		{"order=--a", order(listquery.Order{Column: "-a", Desc: true})},
		{"order=a,-b,+c,d_1,E.f-g", order(
			listquery.Order{Column: "a"}, listquery.Order{Column: "b", Desc: true}, listquery.Order{Column: "c"},
			listquery.Order{Column: "d_1"}, listquery.Order{Column: "E.f-g"})},
		{"order=" + strings.Repeat("a", 128), order(listquery.Order{Column: strings.Repeat("a", 128)})},

		{"expand=a", func(q *listquery.Query) { q.Expand = []string{"a"} }},
		{"expand=a,b,c,d,e", func(q *listquery.Query) { q.Expand = []string{"a", "b", "c", "d", "e"} }},
		{"fields=a", func(q *listquery.Query) { q.Fields = []string{"a"} }},
		{"fields=b,a,c,d,e,f", func(q *listquery.Query) { q.Fields = []string{"b", "a", "c", "d", "e", "f"} }},
		{"match=a+b*", func(q *listquery.Query) { q.Match = "a b*" }},
		{"match=" + strings.Repeat("a", 256), func(q *listquery.Query) { q.Match = strings.Repeat("a", 256) }},
		{"fields=", nil},
		{"fields=a,", nil},
		{"fields=a,b,a", nil},
		{"fields=a&fields=b", nil},
		{"fields[]=a", nil},
		{"fields=a b", nil},
		{"fields=" + numbered(129), nil},
		{"match=", nil},
		{"match=a&match=a", nil},
		{"match[0]=a", nil},
		{"match=" + strings.Repeat("a", 257), nil},
		{"geojson=geom", func(q *listquery.Query) { q.GeoJSON = "geom" }},

		{"limit=-1", nil},
		{"limit=%2B1", nil},
		{"limit=1e3", nil},
		{"limit=1.0", nil},
		{"limit=0x10", nil},
		{"limit=1_0", nil},
		{"limit=", nil},
		{"limit", nil},
		{"limit=+1", nil},
		{"limit=١", nil},
		{"limit=9223372036854775808", nil},
		{"limit=18446744073709551617", nil},
		{"limit=" + strings.Repeat("9", 8000), nil},
		{"limit=1&limit=1", nil},
		{"limit=1&%6cimit=2", nil},
		{"limit[]=1", nil},
		{"limit[0]=1", nil},
		{"offset=9007199254740993", nil},
		{"offset=-1", nil},
		{"offset=", nil},
		{"offset=1&offset=2", nil},
		{"cursor=a&cursor=a", nil},
		{"cursor[]=a", nil},
		{"count=yes", nil},
		{"count=True", nil},
		{"count=", nil},
		{"count", nil},
		{"count=true&count=true", nil},
		{"skip_cursor=x", nil},
		{"skip_cursor=1&skip_cursor=1", nil},
		{"order=", nil},
		{"order", nil},
		{"order=,", nil},
		{"order=a,", nil},
		{"order=-", nil},
		{"order=- a", nil},
		{"order=a b", nil},
		{"order=a;b", nil},
		{"order=a'", nil},
		{"order=a%22", nil},
		{"order=a(1)", nil},
		{"order=%C3%A4", nil},
		{"order=a%0A", nil},
		{"order=a,b,c,d,e,f", nil},
		{"order=" + strings.Repeat(",", 8000), nil},
		{"order=a,-a", nil},
		{"order=a&order=b", nil},
		{"order=" + strings.Repeat("a", 129), nil},
		{"expand=a,a", nil},
		{"expand=a,+b", nil},
		{"expand=a,b,c,d,e,f", nil},
		{"expand=a/b", nil},
		{"expand=" + strings.Repeat("a", 129), nil},
		{"geojson=", nil},
		{"geojson=a b", nil},
		{"geojson=a&geojson=a", nil},

		{"x=%", nil},
		{"x=%4", nil},
		{"x=%zz", nil},
		{"%=", nil},
		{"x=%00", nil},
		{"x=a%00b", nil},
		{"x=\x00", nil},
		{"x%00=1", nil},
		{"x=\xff", nil},
		{"x=%ff", nil},
		{"%c3=1", nil},
		{"x=%ED%A0%80", nil},
		{"x=%C3\xA4", func(*listquery.Query) {}},
		{"x=" + strings.Repeat("a", 8<<10), func(*listquery.Query) {}},
		{"x=" + strings.Repeat("a", 8<<10+1), nil},
		{"x=" + strings.Repeat("%61", 8<<10), func(*listquery.Query) {}},
		{"x=" + strings.Repeat("%61", 8<<10+1), nil},
		{strings.Repeat("a", 64<<10), func(*listquery.Query) {}},
		{strings.Repeat("a", 64<<10+1), nil},
		{strings.Repeat("a=1&", 255) + "limit=1", func(q *listquery.Query) { q.Limit = 1 }},
		{strings.Repeat("a=1&", 256) + "limit=1", nil},
		{strings.Repeat("&", 256) + "limit=1", nil},
	}
	for _, test := range tests {
		got, err := listquery.Parse(test.in)
		if test.change == nil {
			checkError(t, test.in, err)
			if !reflect.DeepEqual(got, listquery.Query{}) {
				t.Errorf("Parse(%.60q) = %+v beside an error", test.in, got)
			}
			continue
		}
		if want := query(test.change); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("Parse(%.60q) = %+v, %v, want %+v", test.in, got, err, want)
		}
	}
}

// numbered returns n names of columns.
func numbered(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = "c" + strconv.Itoa(i)
	}
	return strings.Join(names, ",")
}

// checkError wants the one error that clients get to see.
func checkError(t *testing.T, in string, err error) {
	t.Helper()
	var e *listquery.Error
	if !errors.As(err, &e) {
		t.Errorf("%.60q: got %v, want an error", in, err)
		return
	}
	if e.Error() != "Invalid query" || e.Reason == "" {
		t.Errorf("%.60q: message %q, reason %q", in, e, e.Reason)
	}
}

func TestParseTogether(t *testing.T) {
	t.Parallel()
	q, err := listquery.Parse("geojson=g&filter%5Ba%5D=1&expand=x,y&skip_cursor=TRUE&order=-id&count=1&cursor=c&offset=4&limit=9&other=z")
	if err != nil {
		t.Fatal(err)
	}
	want := listquery.Query{
		Limit: 9, Offset: 4, Cursor: "c", HasCursor: true, Count: true, SkipCursor: true,
		Order: []listquery.Order{{Column: "id", Desc: true}}, HasOrder: true,
		Expand: []string{"x", "y"}, GeoJSON: "g",
		Filter: &listquery.Filter{Column: "a", Value: "1"},
	}
	if !reflect.DeepEqual(q, want) {
		t.Errorf("got %+v, want %+v", q, want)
	}
}

func TestParseFilterIgnoresOthers(t *testing.T) {
	t.Parallel()
	f, err := listquery.ParseFilter("limit=x&limit=y&order=&ws=true&filter[a]=1")
	if err != nil || text(f) != "a eq 1" {
		t.Errorf("got %s, %v", text(f), err)
	}
	f, err = listquery.ParseFilter("limit=5")
	if err != nil || f != nil {
		t.Errorf("got %s, %v", text(f), err)
	}
	for _, in := range []string{"filter=1", "match=a&filter[a]=1", "match", "m%61tch=a", "match[0]=a", "a=%00&filter[a]=1", "a=%", strings.Repeat("&", 300)} {
		f, err := listquery.ParseFilter(in)
		checkError(t, in, err)
		if f != nil {
			t.Errorf("%q: %s beside an error", in, text(f))
		}
	}
}
