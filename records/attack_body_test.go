package records_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"mime/multipart"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/records"
)

// Patterns and lists in filters are bounded, whatever they are made of.
func TestE3_Patterns(t *testing.T) {
	t.Parallel()
	db := openDB(t, hostileSchema)
	h := serve(t, db, hostileAPIs()...)
	// So many that what is not linear does not end, and so few that what is ends in time on a busy machine.
	execSQL(t, db, `WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 2009) INSERT INTO t (id, s, owner) SELECT i, 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' || i, 'alice' FROM n`)
	list := func(n int, element string) string {
		return "[" + strings.TrimSuffix(strings.Repeat(element+",", n), ",") + "]"
	}
	for name, c := range map[string]struct {
		filter, value string
		status        int
	}{
		"many percents":     {"[s][$like]", strings.Repeat("%", 256), 200},
		"percents, letters": {"[s][$like]", strings.Repeat("%a", 127) + "b", 200},
		"underscores":       {"[s][$like]", strings.Repeat("%_", 128), 200},
		"long LIKE":         {"[s][$like]", strings.Repeat("a", 257), 400},
		"50 KB":             {"[s][$like]", strings.Repeat("%a", 25_000), 400},
		"nested stars":      {"[s][$re]", "((a*)*)*b", 200},
		"alternatives":      {"[s][$re]", "(a|aa|aaa)+$", 200},
		"anchored":          {"[s][$re]", "^(a+)+$", 200},
		"email":             {"[s][$re]", `^([a-zA-Z0-9])(([\-.]|[_]+)?([a-zA-Z0-9]+))*(@){1}[a-z0-9]+$`, 200},
		"long REGEXP":       {"[s][$re]", strings.Repeat("(a|b)*", 43), 400},
		"repetitions":       {"[s][$re]", "((((a{100}){100}){100}){100})", 400},
		"200 elements":      {"[s][$in]", list(200, `"a"`), 200},
		"not 200 elements":  {"[s][$nin]", list(200, `"a"`), 200},
		"201 elements":      {"[s][$in]", list(201, `"a"`), 400},
		"deep list":         {"[s][$in]", strings.Repeat("[", 5000) + strings.Repeat("]", 5000), 400},
		"nested list":       {"[s][$in]", `[["a"]]`, 400},
		"object":            {"[s][$in]", `[{"a":1}]`, 400},
		"not an array":      {"[s][$in]", `"a"`, 400},
		"open":              {"[s][$in]", `["a"`, 400},
		"NUL":               {"[s][$in]", `["a\u0000"]`, 400},
		"endless element":   {"[s][$in]", `["` + strings.Repeat("a", 65_000) + `"]`, 400},
		"SQL":               {"[s][$in]", `["a') OR 1=1 --"]`, 200},
		"many lists":        {"[s][$in]", list(200, `"a"`) + strings.Repeat("&filter[s][$in]=[1]", 3), 400},
	} {
		escaped := strings.ReplaceAll(url.QueryEscape(c.value), "%26filter", "&filter")
		for _, api := range []string{"/t", "/rule"} {
			// What takes long is interrupted and has another status.
			r := get(h, "alice", api+"?limit=0&count=true&filter"+c.filter+"="+escaped)
			if r.status != c.status {
				t.Errorf("%s: %.200v, want %d", name, r, c.status)
			}
		}
	}
	// Lists count by their length, so that terms cannot multiply them.
	var terms strings.Builder
	for i := range 32 {
		fmt.Fprintf(&terms, "&filter[$or][%d][s][$in]=%s", i, url.QueryEscape(list(200, `"a"`)))
	}
	wantStatus(t, get(h, "alice", "/t?limit=0"+terms.String()), 400)
}

// The body of a transaction is as bounded as that of a record.
func TestE4_BatchBodies(t *testing.T) {
	t.Parallel()
	db := openDB(t, hostileSchema)
	h := withBatches(t, db, records.Config{APIs: hostileAPIs(), BodyLimit: 4 << 20})
	before := dump(t, db)
	create := func(value string) string {
		return `{"operations":[{"Create":{"api_name":"t","value":` + value + `}}],"transaction":true}`
	}
	var names strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&names, `"k%d":1,`, i)
	}
	for name, body := range map[string]string{
		"deep": strings.Repeat(`{"operations":[`, 10_000), "deep value": create(strings.Repeat(`{"j":`, 10_000) + "1" + strings.Repeat("}", 10_000)), "deep JSON": create(`{"j":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + "}"),
		"wide": "{" + names.String() + `"operations":[]}`, "wide value": create("{" + strings.TrimSuffix(names.String(), ",") + "}"), "wide operation": `{"operations":[{` + names.String() + `"Create":{"api_name":"t","value":{}}}]}`,
		"twice": `{"operations":[],"operations":[{"Create":{"api_name":"t","value":{}}}]}`, "mode twice": `{"operations":[{"Create":{"api_name":"t","value":{}}}],"transaction":true,"transaction":false}`, "escaped twice": `{"operations":[],"oper\u0061tions":[]}`,
		"api twice": `{"operations":[{"Create":{"api_name":"rule","api_name":"t","value":{}}}]}`, "value twice": `{"operations":[{"Create":{"api_name":"t","value":{},"value":{"s":"x"}}}]}`, "column twice": create(`{"s":"a","s":"b"}`), "two kinds": `{"operations":[{"Create":{"api_name":"t","value":{}},"Delete":{"api_name":"t","record_id":"1"}}]}`,
		"NUL": create(`{"s":"\u0000"}`), "surrogate bytes": create("{\"s\":\"\xed\xa0\x80\"}"), "bom": "\ufeff" + create(`{}`), "NaN": create(`{"n":NaN}`), "big": create(`{"n":18446744073709551616}`), "exponent": create(`{"n":1e400}`), "garbage": create(`{}`) + "x", "two": create(`{}`) + create(`{}`),
		"operations object": `{"operations":{"0":{"Create":{"api_name":"t","value":{}}}}}`, "null operation": `{"operations":[null]}`, "array": `[{"Create":{"api_name":"t","value":{}}}]`, "truncated": create(`{}`)[:50], "kind in small": `{"operations":[{"create":{"api_name":"t","value":{}}}]}`, "number as a name": `{"operations":[{"Create":{"api_name":1,"value":{}}}]}`,
		"129": `{"operations":[` + strings.Repeat(`{"Create":{"api_name":"t","value":{}}},`, 128) + `{"Create":{"api_name":"t","value":{}}}]}`, "129 unknown": `{"operations":[` + strings.Repeat(`1,`, 128) + `1]}`, "null transaction": `{"operations":[1],"transaction":"true"}`,
	} {
		if r := call(h, "alice", "POST", "/execute", body); r.status != 400 {
			t.Errorf("%s: %.200v", name, r)
		}
		if after := dump(t, db); after != before {
			t.Fatalf("%s: changed: %s", name, difference(before, after))
		}
	}
	wantStatus(t, call(h, "alice", "POST", "/execute", strings.Repeat(" ", 4<<20)+"{}"), 413)
}

// Every parameter has one meaning, and there are not many.
func TestE5_Parameters(t *testing.T) {
	t.Parallel()
	a := newAttacked(t)
	names := strings.TrimSuffix(strings.Repeat("title,", 300), ",")
	for name, q := range map[string]string{
		"limit twice": "limit=1&limit=2", "order twice": "order=id&order=title", "fields twice": "fields=id&fields=title", "expand twice": "expand=parent&expand=notes", "count twice": "count=true&count=true", "cursor twice": "cursor=a&cursor=b", "offset twice": "offset=1&offset=1", "match twice": "match=a&match=b",
		"filter twice": "filter[id]=1&filter[id]=2", "list twice": "filter[id][$in]=[1]&filter[id][$in]=[2]", "escaped twice": "limit=1&%6cimit=2", "field twice": "fields=title,title", "many fields": "fields=" + names, "many expansions": "expand=" + strings.Repeat("notes,", 300) + "notes",
		"empty fields": "fields=", "empty field": "fields=id,,title", "spaces": "fields=id,%20title", "long field": "fields=" + strings.Repeat("a", 60_000), "NUL": "fields=id%00", "one megabyte": "fields=" + strings.Repeat("id,", 350_000), "100,000": strings.Repeat("fields=id&", 100_000), "deep": "filter" + strings.Repeat("[$or][0]", 1000) + "[id][$in]=[1]",
		"semicolons": "limit=1;limit=2", "broken": "limit=%zz", "operator of operators": "filter[id][$in][$in]=[1]", "index of a list": "filter[id][$in][0]=1", "unknown operator": "filter[id][$notin]=[1]",
	} {
		for _, target := range []string{"/own?", "/own/1?"} {
			r := get(a, "alice", target+q)
			if r.status != 400 && r.status != 414 {
				t.Errorf("%s: %s: %.200v", target, name, r)
			}
		}
	}
	flood := strings.Repeat("a=1&", 100_000)
	read := func() {
		for parameter := range strings.SplitSeq(flood, "&") {
			if _, err := url.ParseQuery(parameter); err != nil {
				t.Error(err)
			}
		}
	}
	if tooSlow(10, read, func() { get(a, "alice", "/own?"+flood) }) {
		t.Error("a flood of parameters takes ten times as long as reading it")
	}
}

// tooSlow reports whether f takes more than factor times as long as something
// else, which is measured at the same time, and does so again and again.
func tooSlow(factor int, than, f func()) bool {
	for range 5 {
		start := time.Now()
		than()
		middle := time.Now()
		f()
		if time.Since(middle) <= time.Duration(factor)*middle.Sub(start) {
			return false
		}
	}
	return true
}

// Forms that have no end, no names, or parts without number leave nothing in
// the database and no file.
func TestE6_Multipart(t *testing.T) {
	t.Parallel()
	f := newFileService(t, fileSchema, records.FilesConfig{MaxFiles: 8})
	file := "--X\r\nContent-Disposition: form-data; name=\"many\"; filename=\"a\"\r\n\r\nA\r\n"
	title := "--X\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nt\r\n"
	const end = "--X--\r\n"
	long := strings.Repeat(title, 20_000) + end
	scan := func() {
		for parts := multipart.NewReader(strings.NewReader(long), "X"); ; {
			if _, err := parts.NextRawPart(); err != nil {
				return
			}
		}
	}
	before := dump(t, f.db)
	for name, body := range map[string]string{
		"1,000,000 parts":     file + strings.Repeat("--X\r\n\r\n\r\n", 1_000_000) + end,
		"1,001 parts":         file + strings.Repeat("--X\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n\r\n", 1001) + end,
		"too many files":      strings.Repeat(file, 9) + end,
		"endless header":      file + "--X\r\nContent-Disposition: form-data; name=\"" + strings.Repeat("a", 8<<20) + "\r\n" + end,
		"many headers":        file + "--X\r\n" + strings.Repeat("a: b\r\n", 500_000) + "\r\n" + end,
		"missing end":         file + title,
		"missing end of file": file + "--X\r\nContent-Disposition: form-data; name=\"one\"; filename=\"a\"\r\n\r\nA",
		"end in the middle":   file + "--X\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\n\r\n--X--garbage",
		"nested":              file + "--X\r\nContent-Disposition: form-data; name=\"title\"\r\nContent-Type: multipart/mixed; boundary=Y\r\n\r\n--Y\r\n\r\n\x00--Y--\r\n" + end,
		"no name":             file + "--X\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + end,
		"empty name":          file + "--X\r\nContent-Disposition: form-data; name=\"\"\r\n\r\nx\r\n" + end,
		"no disposition":      file + "--X\r\n\r\nx\r\n" + end,
		"NUL":                 file + "--X\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\na\x00b\r\n" + end,
		"invalid UTF-8":       file + "--X\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\n\xff\r\n" + end,
		"twice":               file + title + title + end,
		"file for text":       file + "--X\r\nContent-Disposition: form-data; name=\"title\"; filename=\"a\"\r\n\r\nx\r\n" + end,
		"text for file":       file + "--X\r\nContent-Disposition: form-data; name=\"one\"\r\n\r\nx\r\n" + end,
		"two for one":         strings.ReplaceAll(file+file, "many", "one") + end,
		"other boundary":      strings.ReplaceAll(file+end, "--X", "--Y"),
		"bare line feeds":     strings.ReplaceAll(file, "\r\n", "\n") + "--X\nContent-Disposition: form-data; name=\n\n\n" + end,
		"dashes":              strings.Repeat("-", 8<<20) + end,
		"almost boundaries":   file + "--X\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n" + strings.Repeat("\r\n--W", 1_000_000),
	} {
		var r response
		if tooSlow(100, scan, func() { r = call(f, "", "POST", "/doc", body, "Content-Type", "multipart/form-data; boundary=X") }) {
			t.Errorf("%s takes a hundred times as long as finding 20,000 parts", name)
		}
		if r.status != 400 && r.status != 413 {
			t.Errorf("%s: %v", name, r)
		}
		if got := f.store.contents(); got != "" {
			t.Fatalf("%s: stored %q", name, got)
		}
	}
	for _, media := range []string{"multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=\"\"", "multipart/form-data; boundary=X; boundary=Y", "multipart/form-data; boundary=" + strings.Repeat("x", 100_000), "multipart/form-data; =X", "multipart/mixed; boundary=X", "multipart/form-data, boundary=X"} {
		wantStatus(t, call(f, "", "POST", "/doc", file+end, "Content-Type", media), 400)
	}
	if after := dump(t, f.db); after != before {
		t.Errorf("changed: %s", difference(before, after))
	}
	f.wantStored()
	// Odd, and complete.
	for name, body := range map[string]string{
		"unused input": "--X\r\nContent-Disposition: form-data; name=\"one\"; filename=\"\"\r\n\r\n\r\n" + end, "end only": "--X--", "preamble": "preamble\r\n" + title + end + "epilogue",
		"transfer encoding": "--X\r\nContent-Disposition: form-data; name=\"one\"; filename=\"a\"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=41\r\n" + end,
	} {
		wantStatus(t, call(f, "", "POST", "/doc", body, "Content-Type", "multipart/form-data; boundary=X"), 200)
		execSQL(t, f.db, `UPDATE doc SET title = NULL`)
		if got := f.store.contents(); got != "" && got != "=41" {
			t.Errorf("%s: stored %q", name, got)
		}
	}
}

// A body is what its type says, in UTF-8 and as it is: nothing is guessed and
// nothing is unpacked.
func TestE7_ContentTypes(t *testing.T) {
	t.Parallel()
	db := openDB(t, hostileSchema)
	h := withBatches(t, db, records.Config{APIs: hostileAPIs(), BodyLimit: 1 << 20})
	before := dump(t, db)
	object := `{"s":"x"}`
	for _, media := range []string{"", "text/plain", "text/json", "application/xml", "application/octet-stream", "multipart/mixed; boundary=X", "*/*", "json", "text/html; application/json", "application/ json", "application/x-ndjson", "application/vnd.api+json", "text/plain, application/json", "\x00application/json"} {
		for _, target := range []string{"POST /t", "PATCH /t/1", "POST /execute"} {
			method, path, _ := strings.Cut(target, " ")
			want(t, call(h, "", method, path, object, "Content-Type", media), 400, "Unsupported content type")
		}
	}
	utf16 := func(s string) string {
		var b strings.Builder
		for _, r := range s {
			b.WriteByte(byte(r))
			b.WriteByte(0)
		}
		return b.String()
	}
	var bomb bytes.Buffer
	unpack := func() {
		z, err := gzip.NewReader(bytes.NewReader(bomb.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, z); err != nil { //nolint:gosec // it is ours
			t.Fatal(err)
		}
	}
	z := gzip.NewWriter(&bomb)
	for range 16 { // times what a body may have
		if _, err := z.Write(bytes.Repeat([]byte(" "), 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := z.Write([]byte(object)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ media, body, encoding string }{
		{"application/json", "s=x", ""}, {"application/json", "--X\r\nContent-Disposition: form-data; name=\"s\"\r\n\r\nx\r\n--X--", ""}, {"multipart/form-data; boundary=X", object, ""}, {"application/json; charset=utf-16", utf16(object), ""}, {"application/json; charset=utf-16le", "\xff\xfe" + utf16(object), ""},
		{"application/json; charset=utf-7", "+AHs-+ACI-s+ACI-:1+AH0-", ""}, {"application/json; charset=latin-1", "{\"s\":\"\xe4\"}", ""}, {"application/json; charset=ibm037", "\xc0\x7f\xa2\x7f\x7a\xf1\xd0", ""}, {"application/x-www-form-urlencoded; charset=utf-16", utf16("s=x") + "%", ""},
		{"application/json", bomb.String(), "gzip"}, {"application/json", bomb.String(), ""}, {"application/json", bomb.String(), "x-gzip, identity"}, {"application/json", bomb.String(), "br"},
	} {
		for _, target := range []string{"POST /t", "PATCH /t/1", "POST /execute"} {
			method, path, _ := strings.Cut(target, " ")
			var r response
			send := func() {
				r = call(h, "", method, path, c.body, "Content-Type", c.media, "Content-Encoding", c.encoding)
			}
			if send(); r.status != 400 {
				t.Errorf("%s of %s %s: %v", target, c.media, c.encoding, r)
			}
			if c.body == bomb.String() && tooSlow(1, unpack, send) {
				t.Errorf("%s of %s %s takes as long as unpacking it", target, c.media, c.encoding)
			}
		}
	}
	// A form is data to a form, whatever it looks like.
	wantStatus(t, call(h, "", "POST", "/t", `{"s":"x"}`, "Content-Type", "application/x-www-form-urlencoded"), 200)
	if got := one(t, db, `SELECT count(*) FROM t WHERE s = 'x'`); got != "0" {
		t.Error("a form was read as JSON")
	}
	execSQL(t, db, `DELETE FROM t WHERE id > 2`)
	if after := dump(t, db); after != before {
		t.Errorf("changed: %s", difference(before, after))
	}
	// What comes back says what it is, so that no browser takes it for a page.
	html := `<script>alert(1)</script>`
	execSQL(t, db, `UPDATE t SET s = ?1 WHERE id = 1`, html)
	if r := get(h, "", "/t/1"); r.header.Get("Content-Type") != "application/json" {
		t.Error(r.header)
	}
	for _, target := range []string{"/" + html, "/t/" + html, "/t?order=" + html, "/t?expand=" + html, "/t?filter[" + html + "]=1", "/t?cursor=" + html, "/t?fields=" + html, "/t/1/file/" + html} {
		r := get(h, "", strings.ReplaceAll(strings.ReplaceAll(target, "<", "%3C"), ">", "%3E"))
		if strings.Contains(r.body, "script") || strings.Contains(r.header.Get("Content-Type"), "html") || r.body != "" && r.status >= 400 && r.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %s", target, r.same())
		}
	}
}

// Names and tags in a configuration are checked when it is read, and are never
// SQL.
func TestE9_ConfigurationIsNoSQL(t *testing.T) {
	t.Parallel()
	db := openDB(t, attackSchema+`CREATE TABLE "a""; DROP TABLE note; --" (id INTEGER PRIMARY KEY, "x]; DROP TABLE note; --" TEXT, "'" INTEGER REFERENCES doc(id)) STRICT; INSERT INTO "a""; DROP TABLE note; --" VALUES (1, 'odd', NULL);
		CREATE VIEW attacking AS SELECT id, (SELECT count(*) FROM doc) AS n FROM note`)
	doc := func(change func(*records.API)) records.API {
		api := records.API{Name: "doc", Table: "doc", World: everything}
		change(&api)
		return api
	}
	note := records.API{Name: "note", Table: "note", World: everything}
	for _, text := range []string{"doc; DROP TABLE note", `doc" AS x; DROP TABLE note; --`, "doc) UNION SELECT * FROM note --", "(SELECT * FROM note)", "doc\x00", "pragma_table_info('doc')", "main.doc; ATTACH 'x' AS y", "json_each('[1]')", "sqlite_schema", "doc.title", "'", `"`, "doc JOIN note"} {
		for name, api := range map[string]records.API{
			"FullText": doc(func(a *records.API) { a.FullText = text }), "Table": {Name: "x", Table: text}, "Name": {Name: text, Table: "doc"}, "Exclude": doc(func(a *records.API) { a.Exclude = []string{text} }), "Expand": doc(func(a *records.API) { a.Expand = []string{text} }), "Key": {Name: "x", Table: "attacking", Key: text},
			"Back.Column": doc(func(a *records.API) { a.Back = []records.BackRelation{{Name: "n", API: "note", Column: text}} }), "Back.API": doc(func(a *records.API) { a.Back = []records.BackRelation{{Name: "n", API: text, Column: "doc"}} }), "Back.Name": doc(func(a *records.API) { a.Back = []records.BackRelation{{Name: text, API: "note", Column: "doc"}} }),
			"Validate column": doc(func(a *records.API) { a.Validate = map[string]string{text: "required"} }), "Validate tag": doc(func(a *records.API) { a.Validate = map[string]string{"title": text} }),
		} {
			if _, err := tryServe(db, api, note); err == nil && (text != "sqlite_schema" || !strings.HasSuffix(name, "Name")) {
				t.Errorf("%s %q is accepted", name, text)
			}
		}
		for _, rule := range []string{text + " = 1", "EXISTS (SELECT 1 FROM " + text + " WHERE load_extension('x'))", "(SELECT title FROM doc ORDER BY randomblob(1000000000)) = 1", "(WITH RECURSIVE n(i) AS (SELECT 1 UNION SELECT i + 1 FROM n) SELECT max(i) FROM n) = 1", "writefile('x', 'y')", "edit('x')", "readfile('/etc/passwd') = ''", "fts3_tokenizer('x') = 1", "zeroblob(2000000000) = 1", "(SELECT 1 FROM generate_series(1, 1e12)) = 1", "(ATTACH 'x' AS y)", "(PRAGMA writable_schema = 1)"} {
			if _, err := tryServe(db, doc(func(a *records.API) { a.SchemaRule = rule })); err == nil {
				t.Errorf("schema rule %q is accepted", rule)
			}
			if _, err := tryServe(db, doc(func(a *records.API) { a.Check = rule })); err == nil && !strings.HasPrefix(rule, text) {
				t.Errorf("check %q is accepted", rule)
			}
		}
	}
	// Odd names of the schema itself are names.
	odd := `a"; DROP TABLE note; --`
	h := serve(t, db, records.API{Name: "odd", Table: odd, World: everything, Expand: []string{"'"}, Validate: map[string]string{"x]; DROP TABLE note; --": "omitempty,max=5"}},
		doc(func(a *records.API) { a.Back = []records.BackRelation{{Name: "odds", API: "odd", Column: "'"}} }))
	wantStatus(t, call(h, "", "POST", "/doc", `{"id":1}`), 200)
	wantStatus(t, call(h, "", "PATCH", "/odd/1", `{"x]; DROP TABLE note; --":"too long for it"}`), 400)
	wantStatus(t, call(h, "", "PATCH", "/odd/1", `{"x]; DROP TABLE note; --":"'","'":1}`), 200)
	if r := get(h, "", "/doc/1?expand=odds"); r.status != 200 || !strings.Contains(r.body, `"odds":{"records":[{"'":`) {
		t.Error(r)
	}
	if got := one(t, db, `SELECT group_concat(name, ' ') FROM (SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND substr(name, 1, 1) <> '_' ORDER BY 1)`); got != `a"; DROP TABLE note; -- attacking doc note` {
		t.Errorf("the schema has %s", got)
	}
}

// Text that a spreadsheet or a page would run comes back as the text that it
// is: the answers are JSON, and nothing else is made of records.
func TestE12_TextIsText(t *testing.T) {
	t.Parallel()
	db := openDB(t, hostileSchema)
	h := serve(t, db, hostileAPIs()...)
	for _, text := range []string{`=HYPERLINK("http://x","y")`, "+1+1", "-2+3", "@SUM(1)", "\t=1", "<img src=x onerror=alert(1)>", "</script><script>", "{{.Secret}}", "${x}", "\u2028\u2029", "\x1b[2J", "a\r\nSet-Cookie: x=y"} {
		quoted := jsonText(text)
		wantStatus(t, call(h, "", "PATCH", "/t/1", `{"s":`+quoted+`}`), 200)
		if got := one(t, db, `SELECT s = ?1 FROM t WHERE id = 1`, text); got != "1" {
			t.Errorf("%q is stored as something else", text)
		}
		r := get(h, "", "/t/1?fields=s")
		if r.header.Get("Content-Type") != "application/json" || strings.ContainsAny(r.body, "\x1b\r\n\t") {
			t.Errorf("%q: %s", text, r.same())
		}
	}
}
