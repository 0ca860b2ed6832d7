package records_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/records"
)

func TestFields(t *testing.T) {
	t.Parallel()
	h := serve(t, openDB(t, listSchema), listAPI())
	for _, test := range []struct{ fields, record string }{
		{"id", `{"id":1}`},
		{"t", `{"t":"a"}`},
		{"t,id,n", `{"id":1,"n":1,"t":"a"}`},
		{"a,b,f,g,id,n,r,t", `{"a":1,"b":"AA==","f":null,"g":null,"id":1,"n":1,"r":1.5,"t":"a"}`},
	} {
		want(t, get(h, "", "/v/1?fields="+test.fields), 200, test.record)
		p := list(t, h, "", "/v?order=id&limit=1&fields="+test.fields)
		if len(p.Records) != 1 || string(p.Records[0]) != test.record {
			t.Errorf("fields=%s: %s", test.fields, p.Records)
		}
	}
	all := get(h, "", "/v/1")
	want(t, get(h, "", "/v/1?fields=a,b,f,g,id,n,r,t"), 200, all.body)
	for _, bad := range []string{"", "none", "_none", "_h", "x", "ID", "id,_h", "id,x", "rowid", "id,id", "id,", "*"} {
		for _, target := range []string{"/v?fields=", "/v/1?fields="} {
			r, unknown := get(h, "", target+bad), get(h, "", target+"unknown")
			want(t, r, 400, "Invalid query")
			if r.same() != unknown.same() {
				t.Errorf("%s%s: %v, want %v", target, bad, r, unknown)
			}
		}
	}
}

// Pages go on where they ended, whatever is shown of the records.
func TestFieldsWithCursor(t *testing.T) {
	t.Parallel()
	h := serve(t, openDB(t, listSchema), listAPI())
	for _, order := range []string{"", "&order=t", "&order=-n", "&order=-r,t"} {
		whole, narrow := "", ""
		for _, got := range []struct {
			query string
			to    *string
		}{{"", &whole}, {"&fields=a", &narrow}} {
			cursor := ""
			for range 6 {
				p := list(t, h, "", "/v?limit=2"+order+got.query+cursor)
				*got.to += fmt.Sprintln(p.column(t, "a"))
				if p.Cursor == "" {
					break
				}
				cursor = "&cursor=" + p.Cursor
			}
		}
		if whole != narrow || strings.Count(whole, "\n") != 4 {
			t.Errorf("order %q: got\n%s, want\n%s", order, narrow, whole)
		}
	}
}

func TestFieldsWithExpandAndGeometry(t *testing.T) {
	t.Parallel()
	db := openDB(t, librarySchema+`
		CREATE TABLE place (id INTEGER PRIMARY KEY, name TEXT, at BLOB CHECK (ST_IsValid(at))) STRICT;
		INSERT INTO place VALUES (1, 'here', ST_GeomFromText('POINT (1 2)'))`)
	h := serve(t, db, append(libraryAPIs(), records.API{Name: "places", Table: "place", World: records.Read})...)
	want(t, get(h, "alice", "/books/1?fields=author,title&expand=author"), 200, `{"author":{"data":{"id":1,"name":"Ann","owner":"alice"},"id":1},"title":"one"}`)
	want(t, get(h, "alice", "/books/1?fields=author"), 200, `{"author":{"id":1}}`)
	want(t, get(h, "alice", "/books/1?fields=title&expand=author"), 400, "Invalid expansion")
	want(t, get(h, "alice", "/books?fields=title&expand=author"), 400, "Invalid expansion")
	want(t, get(h, "alice", "/books/1?fields=author&expand=title"), 400, "Invalid expansion")
	p := list(t, h, "alice", "/books?fields=author,title&expand=author&order=id&limit=1")
	if got := string(p.Records[0]); got != `{"author":{"data":{"id":1,"name":"Ann","owner":"alice"},"id":1},"title":"one"}` {
		t.Error(got)
	}
	point := `{"geometry":{"type":"Point","coordinates":[1,2]},"id":1,"properties":`
	for fields, properties := range map[string]string{"name": `{"name":"here"}`, "name,at": `{"name":"here"}`, "at": `{}`, "at,id": `{"id":1}`} {
		r := get(h, "", "/places?skip_cursor=true&geojson=at&fields="+fields)
		if !strings.Contains(r.body, point+properties) {
			t.Errorf("fields=%s: %v", fields, r)
		}
	}
}

// Nobody gets more by asking for less.
func TestFieldsKeepTheRule(t *testing.T) {
	t.Parallel()
	h := serve(t, openDB(t, hostileSchema), hostileAPIs()...)
	want(t, get(h, "alice", "/rule/1?fields=s"), 200, `{"s":"a"}`)
	want(t, get(h, "alice", "/rule/2?fields=s"), 403, "")
	want(t, get(h, "alice", "/rule/9?fields=s"), 403, "")
	want(t, get(h, "", "/t/9?fields=s"), 404, "")
	p := list(t, h, "alice", "/rule?fields=s&count=true")
	if len(p.Records) != 1 || *p.Total != 1 || string(p.Records[0]) != `{"s":"a"}` {
		t.Errorf("%s", p.Records)
	}
}
