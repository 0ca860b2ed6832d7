package records_test

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/records"
)

const listSchema = `
CREATE TABLE v (id INTEGER PRIMARY KEY, t TEXT COLLATE NOCASE, n INTEGER, r REAL, b BLOB, a ANY, _h TEXT, x TEXT, f TEXT CHECK (jsonschema('std.FileUpload', f)), g BLOB CHECK (ST_IsValid(g))) STRICT;
INSERT INTO v (id, t, n, r, b, a, _h, x) VALUES
  (1, 'a', 1, 1.5, x'00', 1, 'HIDDEN', 'OUT'), (2, 'B,c', -2, 2.0, x'0102', 'x', 'HIDDEN', 'OUT'),
  (3, '3', 9223372036854775807, NULL, x'ff', 2.5, NULL, NULL), (4, NULL, NULL, 4, NULL, x'00ff', NULL, NULL), (5, '', 0, 0, x'', NULL, NULL, NULL);
`

func listAPI() records.API {
	return records.API{Name: "v", Table: "v", World: everything, Exclude: []string{"x"}}
}

func TestIn(t *testing.T) {
	t.Parallel()
	h := serve(t, openDB(t, listSchema), listAPI())
	for _, test := range []struct{ column, in, found, others string }{
		{"id", `[1,3]`, "1 3", "2 4 5"},
		{"id", `["1",3,3,3]`, "1 3", "2 4 5"},
		{"id", `[]`, "", "1 2 3 4 5"},
		{"id", `[7]`, "", "1 2 3 4 5"},
		{"t", `["a","b,C"]`, "1 2", "3 5"},
		{"t", `[3,""]`, "3 5", "1 2"},
		{"t", `[]`, "", "1 2 3 5"},
		{"t", `["\u0061"]`, "1", "2 3 5"},
		{"t", `["') OR 1=1 --"]`, "", "1 2 3 5"},
		{"n", `[9223372036854775807,-2]`, "2 3", "1 5"},
		{"r", `[1.5,2,"0"]`, "1 2 5", "4"},
		{"b", `["AQI=","AA=="]`, "1 2", "3 5"},
		{"a", `[1,"x","AP8=",2.5]`, "1 2 3 4", ""},
	} {
		for op, want := range map[string]string{"$in": test.found, "$nin": test.others} {
			target := "/v?order=id&count=true&filter[" + test.column + "][" + op + "]=" + url.QueryEscape(test.in)
			p := list(t, h, "", target)
			if got := strings.Join(p.column(t, "id"), " "); got != want || *p.Total != len(p.Records) {
				t.Errorf("%s %s %s: got %q (%d), want %q", test.column, op, test.in, got, *p.Total, want)
			}
		}
	}
	p := list(t, h, "", "/v?order=id&filter[$or][0][id][$in]=[4]&filter[$or][1][n][$nin]=[1,0]")
	if got := fmt.Sprint(p.column(t, "id")); got != "[2 3 4]" {
		t.Error(got)
	}
}

func TestInRefuses(t *testing.T) {
	t.Parallel()
	h := serve(t, openDB(t, listSchema), listAPI())
	for _, op := range []string{"$in", "$nin"} {
		for query, text := range map[string]string{
			`n][OP]=["a"]`: "Invalid filter params", `n][OP]=[1.5]`: "Invalid filter params", `r][OP]=["x"]`: "Invalid filter params", `b][OP]=["?"]`: "Invalid filter params",
			`none][OP]=[1]`: "Invalid filter params", `_h][OP]=["HIDDEN"]`: "Invalid filter params", `_none][OP]=["HIDDEN"]`: "Invalid filter params", `x][OP]=["OUT"]`: "Invalid filter params",
			`_h][OP]=[]`: "Invalid filter params", `f][OP]=[]`: "Invalid filter params", `g][OP]=["AA=="]`: "Invalid filter params",
			`n][OP]=`: "Invalid query", `n][OP]=1`: "Invalid query", `n][OP]=[null]`: "Invalid query", `n][OP][0]=1`: "Invalid query", `n][OP]=[[1]]`: "Invalid query",
		} {
			target := "/v?filter[" + strings.ReplaceAll(query, "OP", op)
			target = strings.ReplaceAll(target, `"`, "%22")
			want(t, get(h, "", target), 400, text)
		}
	}
	long := "/v?filter[id][$in]=[1" + strings.Repeat(",1", 200) + "]"
	want(t, get(h, "", long), 400, "Invalid query")
	p := list(t, h, "", "/v?filter[id][$in]=[1"+strings.Repeat(",1", 199)+"]")
	if len(p.Records) != 1 {
		t.Errorf("%d records", len(p.Records))
	}
}

// A subscription judges rows as a list does, and its views tell lists of
// values apart.
func TestInOfSubscription(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE s (id INTEGER PRIMARY KEY, kind TEXT) STRICT`)
	svc, err := records.New(db, records.Config{Logger: quiet(), APIs: []records.API{{Name: "s", Table: "s", World: records.Read, Subscriptions: true}}})
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	for _, query := range []string{`filter[kind][$in]=["a"]`, `filter[kind][$in]=["a","b"]`, `filter[kind][$in]=["a,b"]`, `filter[kind][$nin]=["a"]`, `filter[kind][$in]=[]`} {
		sub, err := svc.Subscribe(t.Context(), "s", "*", query)
		if err != nil {
			t.Fatal(query, err)
		}
		keys[sub.View.Key()] = true
	}
	if len(keys) != 5 {
		t.Errorf("%d views, want 5", len(keys))
	}
	for _, query := range []string{`filter[kind][$in]=a`, `filter[_kind][$in]=["a"]`, `match=a`} {
		if _, err := svc.Subscribe(t.Context(), "s", "*", query); err == nil {
			t.Errorf("%s: no error", query)
		}
	}
}

func TestInJudgesLikeList(t *testing.T) {
	t.Parallel()
	db := openDB(t, listSchema)
	api := listAPI()
	api.Subscriptions = true
	svc := newService(t, db, api)
	q := scratch(t, db)
	columns, rows := rowsAs(t, db, "v")
	changes := inserts("v", columns, 1, rows...)
	for _, query := range []string{
		`filter[id][$in]=[1,3]`, `filter[t][$in]=["A","b,c"]`, `filter[t][$nin]=["A"]`, `filter[n][$nin]=[]`, `filter[n][$in]=[]`, `filter[r][$in]=[2,"1.5"]`, `filter[b][$nin]=["AA=="]`, `filter[a][$in]=[1,"x"]`,
		`filter[$or][0][id][$in]=[4]&filter[$or][1][n][$nin]=[1,0]`,
	} {
		want := list(t, svc, "", "/v?order=id&"+strings.ReplaceAll(query, `"`, "%22")).column(t, "id")
		var got []string
		for _, seen := range judge(t, q, view(t, svc, "v", query), changes, nil) {
			number, _, _ := strings.Cut(seen, "/")
			i, err := strconv.Atoi(number)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, strconv.Itoa(i+1)) // ids count from 1
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: judged %s, listed %s", query, got, want)
		}
	}
}
