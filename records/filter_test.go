package records_test

import (
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/records"
)

// Every operator gives the rows that the same condition in SQL gives.
func TestFilters(t *testing.T) {
	t.Parallel()
	for kind, schema := range orderedSchema[:3] {
		db := openDB(t, schema)
		fill(t, db, rand.New(rand.NewPCG(11, uint64(kind))), kind, 1, 120)
		h := serve(t, db, records.API{Name: "t", Table: "t", World: records.Read, ListLimit: 200})
		check := func(query, condition string) {
			t.Helper()
			var params []string
			for pair := range strings.SplitSeq(query, "&") {
				name, value, _ := strings.Cut(pair, "=")
				params = append(params, url.QueryEscape(name)+"="+url.QueryEscape(value))
			}
			target := "/t?order=id&count=true&limit=200&" + strings.Join(params, "&")
			p := list(t, h, "", target)
			wanted := keysInOrder(t, db, `id`)
			wanted = slices.DeleteFunc(wanted, func(string) bool { return true })
			for _, row := range rowsOf(t, db, `SELECT CASE typeof(id) WHEN 'text' THEN '"' || id || '"' ELSE id END FROM t WHERE `+condition+` ORDER BY id`) {
				wanted = append(wanted, row[0])
			}
			if got := p.column(t, "id"); !slices.Equal(got, wanted) || p.Total == nil || *p.Total != len(wanted) {
				t.Errorf("table %d: %s: %d rows (total %v), SQL has %d:\n got %v\nwant %v", kind, query, len(got), p.Total, len(wanted), got, wanted)
			}
		}
		for op, sql := range map[string]string{"": "=", "[$eq]": "=", "[$ne]": "<>", "[$gt]": ">", "[$gte]": ">=", "[$lt]": "<", "[$lte]": "<="} {
			for _, v := range []string{"0", "1", "-1", "9223372036854775807", "-9223372036854775808", "7"} {
				check("filter[i]"+op+"="+v, "i "+sql+" "+v)
				check("filter[r]"+op+"="+v, "r "+sql+" "+v)
				check("filter[a]"+op+"="+v, "a "+sql+" "+v)
			}
			for _, v := range []string{"1.5", "5.0", "-0.0", "1e-300", "9007199254740993"} {
				check("filter[r]"+op+"="+v, "r "+sql+" "+v)
			}
			for _, v := range []string{"", "a", "A", "a ", "ä", "1", "007", "1.0", "' OR 1=1 --", "inf", "NULL", "null"} {
				check("filter[s]"+op+"="+v, "s "+sql+" '"+strings.ReplaceAll(v, "'", "''")+"'")
				check("filter[n]"+op+"="+v, "n "+sql+" '"+strings.ReplaceAll(v, "'", "''")+"'")
			}
			for v, hex := range map[string]string{"": "", "AA==": "00", "_w==": "ff", "AAE=": "0001"} {
				check("filter[b]"+op+"="+v, "b "+sql+" x'"+hex+"'")
			}
		}
		for _, c := range []string{"i", "r", "s", "n", "b", "a", "nn"} {
			check("filter["+c+"][$is]=NULL", c+" IS NULL")
			check("filter["+c+"][$is]=!NULL", c+" IS NOT NULL")
		}
		for _, p := range []string{"%", "a", "A", "a%", "_", "%x", "l%g%", "", "\\%", "%'%"} {
			check("filter[s][$like]="+p, "s LIKE '"+strings.ReplaceAll(p, "'", "''")+"'")
			check("filter[n][$like]="+p, "n LIKE '"+strings.ReplaceAll(p, "'", "''")+"'")
		}
		check("filter[s][$re]=^[aä]", "s IS NULL OR substr(s, 1, 1) IN ('a', 'ä')")
		check("filter[s][$re]=(?i)^a$", "s IS NULL OR s COLLATE BINARY IN ('a', 'A')")
		check("filter[s][$re]=", "1")
		check("filter[a]=a", "a = 'a'")
		check("filter[i][$gte]=0&filter[i][$lt]=7&filter[nn]=1", "i >= 0 AND i < 7 AND nn = 1")
		check("filter[$or][0][i]=1&filter[$or][1][s]=a", "i = 1 OR s = 'a'")
		check("filter[$or][0][i]=1&filter[$or][1][s]=a&filter[nn]=1", "(i = 1 OR s = 'a') AND nn = 1")
		check("filter[$and][0][$or][0][i][$gt]=2&filter[$and][0][$or][1][s]=a&filter[$and][1][nn]=1", "(i > 2 OR s = 'a') AND nn = 1")
		check("filter[$or][0][i]=1&filter[$or][0][nn]=2&filter[$or][1][s][$is]=NULL", "(i = 1 AND nn = 2) OR s IS NULL")
		check("filter[$or][0][$and][0][i]=1&filter[$or][0][$and][1][nn]=1&filter[$or][1][s][$ne]=a", "(i = 1 AND nn = 1) OR s <> 'a'")
	}
}

// Columns of ordinary tables compare as what they hold.
func TestFiltersOfDeclaredTypes(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, d DATETIME, bo BOOLEAN, n NUMERIC);
		INSERT INTO t VALUES (1, '2024-01-02 03:04:05', 1, 5), (2, '20240102T030405Z', 0, 5.5), (3, 1700000000, NULL, 'abcd'), (4, '2024', 1, '12ab')`)
	h := serve(t, db, records.API{Name: "t", Table: "t", World: records.Read})
	for query, want := range map[string]string{
		"filter[d][$gte]=2024-01-01&filter[d][$lt]=2024-02-01": "[1]",
		"filter[d]=20240102T030405Z":                           "[2]", // also valid base64
		"filter[d]=1700000000":                                 "[3]",
		"filter[bo]=1":                                         "[1 4]",
		"filter[bo]=0":                                         "[2]",
		"filter[n]=5":                                          "[1]",
		"filter[n]=5.0":                                        "[1]",
		"filter[n]=abcd":                                       "[3]", // also valid base64
		"filter[n]=12ab":                                       "[4]", // also valid base64
	} {
		if got := list(t, h, "", "/t?order=id&"+query).column(t, "id"); "["+strings.Join(got, " ")+"]" != want {
			t.Errorf("%s: %v, want %s", query, got, want)
		}
	}
}

// What a filter, an order or an expansion must not name is refused in the
// same words as what does not exist.
func TestHiddenColumns(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE other (id INTEGER PRIMARY KEY, s TEXT) STRICT;
		CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT, _hidden TEXT, excluded TEXT, _fk INTEGER REFERENCES other(id), exfk INTEGER REFERENCES other(id), exgeo BLOB CHECK (ST_IsValid(exgeo)), _geo BLOB CHECK (ST_IsValid(_geo))) STRICT;
		INSERT INTO t VALUES (1, 'a', 'SECRET1', 'SECRET2', NULL, NULL, NULL, NULL), (2, 'b', 'SECRET3', 'SECRET4', NULL, NULL, NULL, NULL)`)
	h := serve(t, db, records.API{Name: "t", Table: "t", World: everything, Exclude: []string{"excluded", "exfk", "exgeo"}}, records.API{Name: "other", Table: "other"})
	for _, q := range []string{
		"filter[X]=a", "filter[X][$ne]=a", "filter[X][$gt]=a", "filter[X][$is]=NULL", "filter[X][$is]=!NULL", "filter[X][$like]=%25", "filter[X][$re]=.", "filter[X][$re]=(", "filter[X][@within]=POINT(1 2)", "filter[X]=",
		"filter[$or][0][s]=a&filter[$or][1][X]=b", "order=X", "order=-X", "order=s,X", "expand=X", "geojson=X", "count=true&filter[X]=1", "limit=0&order=X", "filter[s]=a&order=X&cursor=AAAA",
	} {
		q = strings.ReplaceAll(strings.ReplaceAll(q, "POINT(1 2)", "POINT(1%202)"), "(\x00", "")
		nothing := get(h, "", "/t?"+strings.ReplaceAll(q, "X", "nothing"))
		if nothing.status != 400 {
			t.Errorf("%s: %v", strings.ReplaceAll(q, "X", "nothing"), nothing)
		}
		for _, name := range []string{"_hidden", "excluded", "_fk", "exfk", "exgeo", "_geo", "rowid", "_rowid_", "oid", "S", "ID", "t.s", "_ROW_.s"} {
			for _, accept := range []string{"", "application/problem+json"} {
				got := call(h, "", "GET", "/t?"+strings.ReplaceAll(q, "X", name), "", "Accept", accept)
				nothing := call(h, "", "GET", "/t?"+strings.ReplaceAll(q, "X", "nothing"), "", "Accept", accept)
				if got.same() != nothing.same() {
					t.Errorf("%s: %s is told from nothing: %v, %v", q, name, got, nothing)
				}
			}
		}
	}
	for _, target := range []string{"/t/1", "/t", "/t?order=s", "/t?filter[s]=a", "/t?count=true&limit=1"} {
		if r := get(h, "", target); r.status != 200 || strings.Contains(r.body, "SECRET") || strings.Contains(r.body, "hidden") || strings.Contains(r.body, "excluded") {
			t.Errorf("%s: %v", target, r)
		}
	}
	want(t, get(h, "", "/t/1"), 200, `{"id":1,"s":"a"}`)

	// Hidden columns may be written, excluded ones not.
	id := idsOf(t, call(h, "", "POST", "/t", `{"s":"c","_hidden":"H","excluded":"E","exfk":99,"rowid":77,"_rowid_":78,"oid":79,"S":"x","ID":80}`))[0]
	if got := one(t, db, `SELECT id || s || _hidden || coalesce(excluded, '-') || coalesce(exfk, '-') FROM t WHERE id = ?1`, id); got != "3cH--" {
		t.Errorf("stored %s", got)
	}
	want(t, call(h, "", "PATCH", "/t/1", `{"_hidden":"H","excluded":"E","rowid":5,"S":"x"}`), 200, "")
	if got := one(t, db, `SELECT s || _hidden || excluded FROM t WHERE id = 1`); got != "aHSECRET2" {
		t.Errorf("stored %s", got)
	}
}
