package listquery_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/listquery"
)

var opNames = map[listquery.Op]string{
	listquery.Eq: "eq", listquery.Ne: "ne", listquery.Gte: "gte", listquery.Gt: "gt", listquery.Lte: "lte",
	listquery.Lt: "lt", listquery.Is: "is", listquery.Like: "like", listquery.Re: "re",
	listquery.Within: "within", listquery.Intersects: "intersects", listquery.Contains: "contains",
	listquery.In: "in", listquery.NotIn: "nin",
}

// text writes a filter like (a eq 1 AND (b ne 2 OR c is NULL)).
func text(f *listquery.Filter) string {
	if f == nil {
		return "none"
	}
	if f.Bool == 0 {
		if f.Op == listquery.In || f.Op == listquery.NotIn {
			return fmt.Sprintf("%s %s %q", f.Column, opNames[f.Op], f.Values)
		}
		return fmt.Sprintf("%s %s %s", f.Column, opNames[f.Op], f.Value)
	}
	var parts []string
	for _, c := range f.Children {
		parts = append(parts, text(c))
	}
	join := map[listquery.Bool]string{listquery.And: " AND ", listquery.Or: " OR "}[f.Bool]
	return "(" + strings.Join(parts, join) + ")"
}

func TestParseFilter(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                   "none",
		"filter[a]=1":        "a eq 1",
		"filter[a]=":         "a eq ",
		"filter[a]":          "a eq ",
		"filter%5Ba%5D=1":    "a eq 1",
		"f%69lter[%61]=%2b+": "a eq + ",
		"filter[a]=x=y":      "a eq x=y",
		"filter[a]=[$ne]":    "a eq [$ne]",
		"filter[a]=x;y'":     "a eq x;y'",
		"filter[A.b-c_9]=1":  "A.b-c_9 eq 1",
		"filter[a]=NULL":     "a eq NULL",

		"filter[a][$eq]=1":                  "a eq 1",
		"filter[a][$ne]=1":                  "a ne 1",
		"filter[a][$gte]=1":                 "a gte 1",
		"filter[a][$gt]=1":                  "a gt 1",
		"filter[a][$lte]=1":                 "a lte 1",
		"filter[a][$lt]=1":                  "a lt 1",
		"filter[a][$is]=NULL":               "a is NULL",
		"filter[a][$is]=!NULL":              "a is !NULL",
		"filter[a][$is]=%21NULL":            "a is !NULL",
		"filter[a][$like]=%25x_":            "a like %x_",
		"filter[a][$re]=^x":                 "a re ^x",
		"filter[a][%24re]=^x":               "a re ^x",
		"filter[a][@within]=POINT+(1+2)":    "a within POINT (1 2)",
		"filter[a][@intersects]=POINT(1 2)": "a intersects POINT(1 2)",
		"filter[a][@contains]=POINT(1 2)":   "a contains POINT(1 2)",
		"filter[a][%40contains]=POINT(1 2)": "a contains POINT(1 2)",

		`filter[a][$in]=[]`:                             `a in []`,
		`filter[a][$in]=["x","y,z"]`:                    `a in ["x" "y,z"]`,
		`filter[a][$nin]=+[1,-2.5,"1",1e3]+`:            `a nin ["1" "-2.5" "1" "1e3"]`,
		`filter[a][%24in]=%5B%22%5Cu00e4%5C%22%22%5D`:   `a in ["ä\""]`,
		`filter[$or][0][a][$in]=[1]&filter[$or][1][b]=`: `(a in ["1"] OR b eq )`,

		"filter[a][$gte]=1&filter[a][$lt]=9":                    "(a gte 1 AND a lt 9)",
		"filter[b]=1&filter[a]=2":                               "(b eq 1 AND a eq 2)",
		"filter[a][$gt]=1&filter[b]=2&limit=3&filter[a][$lt]=3": "(a gt 1 AND b eq 2 AND a lt 3)",
		"filter[a]=1&filter[A]=1":                               "(a eq 1 AND A eq 1)",

		"filter[$and][0][a]=1":                                                                    "a eq 1",
		"filter[$or][0][a]=1":                                                                     "a eq 1",
		"filter[$or][0][a]=1&filter[$or][1][b][$ne]=2":                                            "(a eq 1 OR b ne 2)",
		"filter[$or][1][a]=1&filter[$or][0][b]=2":                                                 "(b eq 2 OR a eq 1)",
		"filter[$or][2][c]=1&filter[$or][0][a]=1&filter[$or][1][b]=1":                             "(a eq 1 OR b eq 1 OR c eq 1)",
		"filter[$or][0][a]=1&filter[$or][1][a]=1":                                                 "(a eq 1 OR a eq 1)",
		"filter[$or][0][a]=1&filter[$or][0][b]=2&filter[$or][1][c]=3":                             "((a eq 1 AND b eq 2) OR c eq 3)",
		"filter[x]=0&filter[$or][0][a]=1&filter[$or][1][b]=2":                                     "(x eq 0 AND (a eq 1 OR b eq 2))",
		"filter[$or][0][a]=1&filter[x]=0&filter[$or][1][b]=2":                                     "((a eq 1 OR b eq 2) AND x eq 0)",
		"filter[$or][0][a]=1&filter[$or][1][b]=2&filter[$and][0][c]=3&filter[$and][1][d]=4":       "((a eq 1 OR b eq 2) AND (c eq 3 AND d eq 4))",
		"filter[$and][0][$or][0][a][$gt]=2&filter[$and][0][$or][1][b]=x&filter[$and][1][c]=y":     "((a gt 2 OR b eq x) AND c eq y)",
		"filter[$or][0][$and][0][a]=1&filter[$or][0][$and][1][b]=2&filter[$or][1][c]=3":           "((a eq 1 AND b eq 2) OR c eq 3)",
		"filter[$or][0][$or][0][$or][0][$or][0][a]=1&filter[$or][0][$or][0][$or][0][$or][1][b]=1": "(a eq 1 OR b eq 1)",
		"filter[" + strings.Repeat("a", 128) + "]=1":                                              strings.Repeat("a", 128) + " eq 1",
		"filter[a][$like]=" + strings.Repeat("x", 256):                                            "a like " + strings.Repeat("x", 256),
		"filter[a][$re]=" + strings.Repeat("x", 256):                                              "a re " + strings.Repeat("x", 256),
		"filter[a]=" + strings.Repeat("x", 8192):                                                  "a eq " + strings.Repeat("x", 8192),
	} {
		f, err := listquery.ParseFilter(in)
		if err != nil || text(f) != want {
			t.Errorf("ParseFilter(%.90s) = %.90s, %v, want %.90s", in, text(f), err, want)
		}
		q, err := listquery.Parse(in)
		if err != nil || text(q.Filter) != want {
			t.Errorf("Parse(%.90s).Filter = %.90s, %v", in, text(q.Filter), err)
		}
	}
}

// fiveLists is a filter of five lists of n values each.
func fiveLists(n int) string {
	var b strings.Builder
	for i := range 5 {
		fmt.Fprintf(&b, "&filter[c%d][$in]=[1%s]", i, strings.Repeat(",1", n-1))
	}
	return b.String()
}

// Values of a list count, so that all of a filter is bounded.
func TestParseFilterCountsValues(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 25, 26, 125, 150} {
		f, err := listquery.ParseFilter(fiveLists(n))
		if err != nil || len(f.Children) != 5 || len(f.Children[4].Values) != n {
			t.Errorf("five lists of %d: %v", n, err)
		}
	}
	if _, err := listquery.ParseFilter("filter[a][$nin]=[1" + strings.Repeat(",1", 199) + "]"); err != nil {
		t.Error("200 values:", err)
	}
}

func TestParseFilterRefuses(t *testing.T) {
	t.Parallel()
	for _, in := range []string{
		"filter", "filter=", "filter=1", "filter=1&filter[a]=1",
		"filter[]=1", "filter[][$eq]=1", "filter[=1", "filter]=1&filter[a=1", "filter[a=1",
		"filter[a]b=1", "filter[a]b[$eq]=1", "filter[a][$eq=1", "filter[a]]=1", "filter[[a]]=1", "filter[a[$eq]]=1",
		"filter[a b]=1", "filter[a%00]=1", "filter[a']=1", "filter[a%22]=1", "filter[a;]=1", "filter[%C3%A4]=1",
		"filter[" + strings.Repeat("a", 129) + "]=1",

		"filter[a][]=1", "filter[a][eq]=1", "filter[a][$EQ]=1", "filter[a][$in]=1", "filter[a][b]=1",
		"filter[a][$in]=", "filter[a][$in]=1,2", `filter[a][$in]="a"`, "filter[a][$in]=[1", "filter[a][$in]=[1]]", "filter[a][$in]=[1,]", "filter[a][$in]=[a]", "filter[a][$in]={}",
		"filter[a][$in]=[null]", "filter[a][$in]=[true]", "filter[a][$in]=[[1]]", "filter[a][$in]=[{}]", "filter[a][$in]=[007]", "filter[a][$in]=[1][2]", `filter[a][$in]=["\u0000"]`, `filter[a][$in]=["\ud800"]`,
		"filter[a][$in][0]=1", "filter[a][$in][]=1", "filter[a][$in]=[1]&filter[a][$in]=[2]", "filter[a][$nin]=", "filter[a][$NIN]=[1]",
		"filter[a][$in]=[1" + strings.Repeat(",1", 200) + "]",
		fiveLists(200), fiveLists(176),
		"filter[a][$eq][$eq]=1", "filter[a][$eq][]=1", "filter[a][@WITHIN]=x", "filter[a][$is ]=NULL",
		"filter[$eq]=1", "filter[$not][0][a]=1", "filter[@within]=1",

		"filter[a]=1&filter[a]=1", "filter[a]=1&filter[%61]=2", "filter[a]=1&filter[a][$eq]=2",
		"filter[a][$gt]=1&filter[b]=1&filter[a][$gt]=2",
		"filter[$or][0][a]=1&filter[$or][0][a]=1",

		"filter[a][$is]=", "filter[a][$is]=null", "filter[a][$is]=NOT NULL", "filter[a][$is]=1", "filter[a][$is]=+NULL",
		"filter[a][$like]=" + strings.Repeat("x", 257), "filter[a][$re]=" + strings.Repeat("x", 257),
		"filter[a][@within]=POINT(1 2);", "filter[a][@intersects]=POINT(1 2)'", "filter[a][@contains]=%27",
		"filter[a]=" + strings.Repeat("x", 8193),

		"filter[$and]=1", "filter[$or]=1", "filter[$or][0]=1", "filter[$or][a]=1", "filter[$or][a][b]=1", "filter[$or][]=1",
		"filter[$or][][a]=1", "filter[$or][-1][a]=1", "filter[$or][+0][a]=1", "filter[$or][00][a]=1",
		"filter[$or][0][a]=1&filter[$or][01][b]=1", "filter[$or][1e0][a]=1", "filter[$or][0x0][a]=1",
		"filter[$or][1][a]=1", "filter[$or][0][a]=1&filter[$or][2][b]=1", "filter[$or][32][a]=1",
		"filter[$or][999999999][a]=1", "filter[$or][18446744073709551616][a]=1",
		"filter[$or][$and][0][a]=1", "filter[$or][0][$and]=1", "filter[$or][0][0][a]=1",
		"filter[x]=1&filter[$or][0][$and][1][a]=1",
		"filter[a][$or][0]=1", "filter[a]=%", "filter[a]=%00", "filter[a]=%ff",
	} {
		f, err := listquery.ParseFilter(in)
		checkError(t, in, err)
		if f != nil {
			t.Errorf("%.60q: %s beside an error", in, text(f))
		}
		_, err = listquery.Parse(in)
		checkError(t, in, err)
	}
}

func TestFilterDepth(t *testing.T) {
	t.Parallel()
	nested := func(levels int) string { return "filter" + strings.Repeat("[$or][0]", levels) + "[a]" }
	// Eight brackets and the column's make nine.
	if f, err := listquery.ParseFilter(nested(4) + "=1"); err != nil || text(f) != "a eq 1" {
		t.Errorf("nine brackets: %s, %v", text(f), err)
	}
	for _, in := range []string{nested(4) + "[$eq]=1", nested(5) + "=1", nested(1000) + "=1", "filter" + strings.Repeat("[", 5000) + "=1"} {
		_, err := listquery.ParseFilter(in)
		checkError(t, in, err)
	}
}

func TestFilterTerms(t *testing.T) {
	t.Parallel()
	keys := func(n int, key string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "&filter"+key+"=1", i)
		}
		return b.String()
	}
	for _, key := range []string{"[c%d]", "[$or][%d][a]", "[$or][0][c%d]", "[$and][%d][$or][0][a]"} {
		f, err := listquery.ParseFilter(keys(listquery.MaxTerms, key))
		if err != nil || len(f.Children) != listquery.MaxTerms {
			t.Errorf("%d times %s: %s, %v", listquery.MaxTerms, key, text(f), err)
		}
		in := keys(listquery.MaxTerms+1, key)
		_, err = listquery.ParseFilter(in)
		checkError(t, in, err)
	}
}
