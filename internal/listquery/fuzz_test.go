package listquery_test

import (
	"net/url"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/bedplate/bedplate/internal/listquery"
)

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "limit=10&offset=5&cursor=abc%3D&count=1&skip_cursor=TRUE&order=-a,+b&expand=x,y&geojson=g",
		"filter[a]=1", "filter%5Ba%5D%5B%24gte%5D=1&filter[b][$is]=!NULL",
		"filter[$and][0][$or][0][a][$gt]=2&filter[$and][0][$or][1][b]=x&filter[$and][1][c]=y",
		"filter[$or][1][a]=1&filter[$or][0][b]=2", "filter[geom][@within]=POLYGON((0 0,0 1,1 1,0 0))",
		"filter[$or][31][a]=1", "filter[[[[[[[[[[=1", "limit=%00&%ff", "filter=&a&&=b", "order=a,a,a,a,a,a",
		`filter[a][$in]=["a","b,c",3]&filter[b][$nin]=[]`, "fields=a,b&match=x*",
		"filter[$or][0][$or][0][$or][0][$or][0][a]=1&filter[$or][0][$or][0][$or][0][$or][1][b]=1",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := listquery.Parse(raw)
		again, errAgain := listquery.Parse(raw)
		if !reflect.DeepEqual(q, again) || !reflect.DeepEqual(err, errAgain) {
			t.Fatalf("two results for %q: %+v, %v and %+v, %v", raw, q, err, again, errAgain)
		}
		if err != nil {
			checkError(t, raw, err)
			return
		}
		if q.Limit < -1 || q.Offset < 0 || q.Offset > listquery.MaxOffset {
			t.Fatalf("limit %d, offset %d", q.Limit, q.Offset)
		}
		if len(q.Order) > listquery.MaxColumns || len(q.Expand) > listquery.MaxColumns || q.HasOrder != (len(q.Order) > 0) {
			t.Fatalf("order %v, expand %v", q.Order, q.Expand)
		}
		columns := map[string]bool{}
		for _, o := range q.Order {
			checkColumn(t, o.Column)
			columns[o.Column] = true
		}
		if len(columns) != len(q.Order) {
			t.Fatalf("order %v", q.Order)
		}
		for _, e := range q.Expand {
			checkColumn(t, e)
		}
		for _, c := range q.Fields {
			checkColumn(t, c)
		}
		if len(q.Fields) > listquery.MaxFields || q.Fields != nil && len(q.Fields) == 0 || len(q.Match) > listquery.MaxMatch {
			t.Fatalf("fields %v, match %q", q.Fields, q.Match)
		}
		checkValue(t, q.Match)
		if q.GeoJSON != "" {
			checkColumn(t, q.GeoJSON)
		}
		checkValue(t, q.Cursor)
		terms := 0
		if q.Filter != nil {
			checkFilter(t, q.Filter, 1, &terms)
		}
		if terms > listquery.MaxTerms {
			t.Fatalf("%d terms", terms)
		}

		filter, err := listquery.ParseFilter(raw)
		if q.Match != "" {
			checkError(t, raw, err)
		} else if err != nil || !reflect.DeepEqual(filter, q.Filter) {
			t.Fatalf("ParseFilter: %s, %v, want %s", text(filter), err, text(q.Filter))
		}

		// What net/url takes for the same query must have the same values.
		if values, err := url.ParseQuery(raw); err == nil {
			filters := 0
			for key := range values {
				if strings.HasPrefix(key, "filter[") {
					filters++
				}
			}
			if values.Get("cursor") != q.Cursor || values.Has("cursor") != q.HasCursor || filters != terms {
				t.Fatalf("net/url reads %v, got %+v with %d terms", values, q, terms)
			}
		}
	})
}

func checkFilter(t *testing.T, f *listquery.Filter, height int, terms *int) {
	t.Helper()
	if height > 10 {
		t.Fatal("filter too high")
	}
	switch f.Bool {
	case 0:
		*terms++
		checkColumn(t, f.Column)
		checkValue(t, f.Value)
		if f.Children != nil || opNames[f.Op] == "" {
			t.Fatalf("term %+v", f)
		}
		if f.Op == listquery.Is && f.Value != "NULL" && f.Value != "!NULL" {
			t.Fatalf("term %+v", f)
		}
		list := f.Op == listquery.In || f.Op == listquery.NotIn
		if list != (f.Values != nil) || len(f.Values) > listquery.MaxList {
			t.Fatalf("term %+v", f)
		}
		for _, v := range f.Values {
			checkValue(t, v)
		}
		if (f.Op == listquery.Like || f.Op == listquery.Re) && len(f.Value) > listquery.MaxPattern {
			t.Fatalf("term %+v", f)
		}
	case listquery.And, listquery.Or:
		if len(f.Children) < 2 || f.Column != "" || f.Op != 0 || f.Value != "" {
			t.Fatalf("node %+v", f)
		}
		for _, c := range f.Children {
			checkFilter(t, c, height+1, terms)
		}
	default:
		t.Fatalf("filter %+v", f)
	}
}

func checkColumn(t *testing.T, name string) {
	t.Helper()
	const chars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	if name == "" || len(name) > listquery.MaxName || strings.Trim(name, chars) != "" {
		t.Fatalf("column %q", name)
	}
}

func checkValue(t *testing.T, value string) {
	t.Helper()
	if len(value) > listquery.MaxValue || !utf8.ValidString(value) || strings.Contains(value, "\x00") {
		t.Fatalf("value %q", value)
	}
}
