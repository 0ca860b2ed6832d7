package records_test

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"unicode/utf8"

	"github.com/bedplate/bedplate/records"
)

// Whatever name a file comes with, it is stored under an id, and the names
// that are told are harmless (security tests G1 and G6).
func TestFileNamesAreHarmless(t *testing.T) {
	t.Parallel()
	f := newFileService(t, fileSchema, records.FilesConfig{})
	for _, c := range []struct{ name, original string }{
		{"../../etc/passwd", "passwd"}, {"/etc/passwd", "passwd"}, {`C:\Windows\system.ini`, "system.ini"}, {`..\..\x`, "x"},
		{"..", ""}, {".", ""}, {"", ""}, {"/", ""}, {"a/", ""}, {". .", ""}, {"\x00", ""}, {"a\x00b.txt", "ab.txt"}, {"CON", "CON"}, {".htaccess", ".htaccess"},
		{"a\r\nX-Evil: 1", "aX-Evil: 1"}, {`a"; filename="b.exe`, `a"; filename="b.exe`}, {"a%00b", "a%00b"}, {"b\u202egpj.exe", "bgpj.exe"}, {"\u2066x", "x"},
		{"naïve ☃.png", "naïve ☃.png"}, {"名前.pdf", "名前.pdf"}, {"a\u2028b", "ab"}, {"x.tar.gz", "x.tar.gz"}, {"semi;colon,=*'.txt", "semi;colon,=*'.txt"},
		{strings.Repeat("a", 4096) + ".jpeg", strings.Repeat("a", 250) + ".jpeg"}, {strings.Repeat("é", 200), strings.Repeat("é", 127)}, {"a." + strings.Repeat("b", 100), "a." + strings.Repeat("b", 100)},
	} {
		path := f.create(`{"one":` + fileJSON(c.name, "", "x") + `}`)
		file := f.files(path, "one")[0]
		if file.OriginalFilename != c.original {
			t.Errorf("%q: original name %q, want %q", c.name, file.OriginalFilename, c.original)
		}
		if len(file.Filename) > 128 || len(file.Filename) < 10 || strings.HasPrefix(file.Filename, ".") || strings.Trim(file.Filename, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != "" {
			t.Errorf("%q: stored name %q", c.name, file.Filename)
		}
		want(t, get(f, "", path+"/files/one/"+file.Filename), 200, "x")
		r := get(f, "", path+"/file/one")
		header := r.header.Get("Content-Disposition")
		kind, params, err := mime.ParseMediaType(header)
		wantName := c.original
		if wantName == "" {
			wantName = file.Filename
		}
		if err != nil || kind != "attachment" || len(r.header["Content-Disposition"]) != 1 || r.header.Get("X-Evil") != "" || strings.ContainsAny(header, "\r\n\x00") {
			t.Errorf("%q: Content-Disposition %q: %v", c.name, header, err)
		}
		if got := params["filename"]; got != wantName || !utf8.ValidString(got) {
			t.Errorf("%q: a client takes %q for %q", c.name, header, got)
		}
		// What programs see that know the first form only.
		if plain, _, _ := strings.Cut(strings.TrimPrefix(header, `attachment; filename="`), `"`); strings.ContainsAny(plain, `"\%/`) || strings.Trim(plain, " !#$&'()*+,-.0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^_`abcdefghijklmnopqrstuvwxyz{|}~") != "" {
			t.Errorf("%q: plain name %q", c.name, plain)
		}
	}
	for _, id := range f.store.ids() {
		if len(id) != 36 || strings.Trim(id, "0123456789abcdef-") != "" || id[14] != '4' {
			t.Errorf("id %q", id)
		}
	}
}

// A browser runs nothing of what was uploaded (G2). Archives and images are
// never unpacked (G3): they are bytes like any other.
func TestFilesAreNotRendered(t *testing.T) {
	t.Parallel()
	f := newFileService(t, fileSchema, records.FilesConfig{})
	png := "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\xc3\x50\x00\x00\xc3\x50"
	for _, c := range []struct{ content, declared, served string }{
		{"<!DOCTYPE html><script>alert(1)</script>", "text/plain", "text/html"},
		{"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "image/svg+xml", "image/svg+xml"},
		{"just text", "text/html", "text/html"},
		{"just text", "", "text/plain; charset=utf-8"},
		{"\x00\x01\x02", "", "text/plain; charset=utf-8"},
		{"\x00\x01\x02", "application/x-thing", "application/x-thing"},
		{"\x00\x01\x02", "nonsense", "text/plain; charset=utf-8"},
		{"alert(1)", "text/javascript", "text/plain; charset=utf-8"},
		{"alert(1)", "Application/X-JavaScript; charset=utf-8", "text/plain; charset=utf-8"},
		{"alert(1)", "text/javascript1.5", "text/plain; charset=utf-8"},
		{"\x00\x01\x02", "application/ecmascript", "text/plain; charset=utf-8"},
		{"body{}", "text/css", "text/plain; charset=utf-8"},
		{"a,b", "text/csv", "text/csv"},
		{"{}", "application/json", "application/json"},
		{"\x00\x01\x02", "a/b\r\nSet-Cookie: x=y", "text/plain; charset=utf-8"},
		{"\x00\x01\x02", strings.Repeat("a", 200) + "/b", "text/plain; charset=utf-8"},
		{"GIF89a/*<script>*/=1;", "text/javascript", "image/gif"},
		{png, "image/jpeg", "image/png"},
		{"PK\x03\x04", "", "application/zip"},
		{"\x1f\x8b\x08 not really", "", "application/x-gzip"},
		{"%PDF-1.7 <script>", "text/html", "application/pdf"},
		{"", "", "text/plain; charset=utf-8"},
	} {
		path := f.create(`{"one":` + fileJSON("x.html", c.declared, c.content) + `}`)
		r := get(f, "", path+"/file/one")
		want(t, r, 200, c.content)
		for name, value := range map[string]string{
			"Content-Type": c.served, "Content-Disposition": `attachment; filename="x.html"`, "X-Content-Type-Options": "nosniff",
			"Content-Security-Policy": "default-src 'none'; sandbox", "Cache-Control": "private, no-cache", "Accept-Ranges": "bytes",
			"Set-Cookie": "", "Cross-Origin-Resource-Policy": "same-site", "Last-Modified": "", "Content-Encoding": "",
		} {
			if got := r.header.Get(name); got != value {
				t.Errorf("%q as %q: %s is %q, want %q", c.content, c.declared, name, got, value)
			}
		}
	}
	wantStatus(t, call(f, "", "POST", "/doc", `{"image":`+fileJSON("x.png", "image/png", "<html>")+`}`), 400)
	wantStatus(t, call(f, "", "POST", "/doc", `{"image":`+fileJSON("x.png", "text/html", png)+`}`), 200)
}

// One range, or the whole (G6); a client that has the file is told so.
func TestFileRangesAndConditions(t *testing.T) {
	t.Parallel()
	f := newFileService(t, fileSchema, records.FilesConfig{})
	path := f.create(`{"one":`+fileJSON("a", "", "0123456789")+`}`) + "/file/one"
	etag := get(f, "", path).header.Get("Etag")
	var many []string
	for i := range 10_000 {
		many = append(many, fmt.Sprintf("%d-%d", i%10, i%10))
	}
	for _, c := range []struct {
		header, value string
		status        int
		body          string
	}{
		{"Range", "bytes=2-4", 206, "234"}, {"Range", "bytes=-3", 206, "789"}, {"Range", "bytes=7-", 206, "789"}, {"Range", "bytes=0-99", 206, "0123456789"},
		{"Range", "bytes=0-1,3-4", 200, "0123456789"}, {"Range", "bytes=" + strings.Join(many, ","), 200, "0123456789"}, {"Range", "bytes=0-" + strings.Repeat("0", 100) + "4", 200, "0123456789"},
		{"If-None-Match", etag, 304, ""}, {"If-None-Match", "W/" + etag, 304, ""}, {"If-None-Match", `"other"`, 200, "0123456789"}, {"If-Match", `"other"`, 412, ""}, {"If-Match", etag, 200, "0123456789"},
	} {
		r := call(f, "", "GET", path, "", c.header, c.value)
		if r.status != c.status || r.body != c.body {
			t.Errorf("%s %.50s: %v, want %d %q", c.header, c.value, r, c.status, c.body)
		}
		if strings.Contains(r.header.Get("Content-Type"), "multipart") {
			t.Errorf("%s %.50s: several parts", c.header, c.value)
		}
	}
	for _, method := range []string{"GET", "HEAD"} {
		r := call(f, "", method, path, "", "Range", "bytes=20-30")
		want(t, r, 416, "")
		for name, value := range map[string]string{
			"Content-Range": "bytes */10", "Etag": etag, "Cache-Control": "private, no-cache", "Content-Type": "", "Content-Disposition": "", "Content-Length": "0",
		} {
			if got := r.header.Get(name); got != value {
				t.Errorf("%s with 416: %s is %q, want %q", method, name, got, value)
			}
		}
	}
	want(t, call(f, "", "GET", path, "", "Range", "bytes=20-30", "Accept", "application/problem+json"), 416, `{"status":416,"title":"Requested Range Not Satisfiable"}`)
	if r := call(f, "", "GET", path, "", "Range", "bytes=0-1", "If-Range", `"other"`); r.status != 200 {
		t.Errorf("range of another content: %v", r)
	}
	want(t, call(f, "", "PATCH", strings.TrimSuffix(path, "/file/one"), `{"one":`+fileJSON("a", "", "0123456789")+`}`), 200, "")
	if again := get(f, "", path).header.Get("Etag"); again == etag || etag == "" {
		t.Errorf("etag %s after %s, for another file", again, etag)
	}
}

// The rule is asked at each download (G5), and a row that it hides is the same
// as one that is not there (D2).
func TestFileOfHiddenRow(t *testing.T) {
	t.Parallel()
	f := newFileService(t, fileSchema, records.FilesConfig{},
		records.API{Name: "doc", Table: "doc", World: everything},
		records.API{Name: "own", Table: "doc", World: everything, ReadRule: `_ROW_.owner = _USER_.id`, UpdateRule: `_ROW_.owner = _USER_.id AND coalesce(_REQ_.one, '{}') LIKE '{%'`, Exclude: []string{"many"}},
		records.API{Name: "write", Table: "doc", World: records.Create | records.Update})
	path := f.create(`{"owner":"alice","one":` + fileJSON("a", "", "A") + `,"many":[` + fileJSON("b", "", "B") + `]}`)
	id := strings.TrimPrefix(path, "/doc/")
	name := f.files(path, "many")[0].Filename
	single := f.files(path, "one")[0].Filename
	want(t, get(f, "alice", "/own/"+id+"/file/one"), 200, "A")
	wantStatus(t, get(f, "", "/write/"+id+"/file/one"), 403)
	wantStatus(t, get(f, "", "/write/99/file/one"), 403)
	for _, what := range []string{"/file/one", "/files/one/" + single, "/files/one/nothing", "/file/image"} {
		hidden, absent := get(f, "bob", "/own/"+id+what), get(f, "bob", "/own/99"+what)
		if hidden.same() != absent.same() || hidden.status != 403 {
			t.Errorf("%s: hidden %v, missing %v", what, hidden, absent)
		}
	}
	for _, what := range []string{"/file/many", "/files/many/" + name, "/file/_secret", "/file/nothing"} {
		want(t, get(f, "alice", "/own/"+id+what), 400, "Invalid field/column name")
	}
	// Keeping a file asks nothing that the rule would not answer.
	for _, body := range []string{`{"one":{"filename":"nothing"}}`, `{"one":{"filename":"` + single + `"}}`} {
		hidden, absent := call(f, "bob", "PATCH", "/own/"+id, body), call(f, "bob", "PATCH", "/own/99", body)
		if hidden.same() != absent.same() || hidden.status != 403 {
			t.Errorf("PATCH %s: hidden %v, missing %v", body, hidden, absent)
		}
	}
	want(t, call(f, "alice", "PATCH", "/own/"+id, `{"one":{"filename":"nothing"}}`), 400, "unknown file")
	want(t, call(f, "alice", "PATCH", "/own/"+id, `{"one":{"filename":"`+single+`"}}`), 200, "")
	execSQL(t, f.db, `UPDATE doc SET owner = 'bob', title = 'private'`)
	wantStatus(t, get(f, "alice", "/own/"+id+"/file/one"), 403)
	want(t, get(f, "bob", "/own/"+id+"/file/one"), 200, "A")
}

// Files are downloaded through a view as it is at this moment.
func TestFileOfView(t *testing.T) {
	t.Parallel()
	f := newFileService(t, fileSchema+`CREATE VIEW card AS SELECT id, title, one AS face, many FROM doc WHERE title IS NOT 'private'`, records.FilesConfig{},
		records.API{Name: "doc", Table: "doc", World: everything}, records.API{Name: "card", Table: "card", World: records.Read})
	path := f.create(`{"title":"public","one":` + fileJSON("a", "", "A") + `,"many":[` + fileJSON("b", "", "B") + `]}`)
	name := f.files(path, "many")[0].Filename
	want(t, get(f, "", "/card/1/file/face"), 200, "A")
	want(t, get(f, "", "/card/1/files/many/"+name), 200, "B")
	if page := list(t, f, "", "/card?filter[title]=public&order=title"); len(page.Records) != 1 {
		t.Errorf("the view has %d records", len(page.Records))
	}
	execSQL(t, f.db, `UPDATE doc SET title = 'private'`)
	wantStatus(t, get(f, "", "/card/1/file/face"), 404)
	want(t, get(f, "", path+"/file/one"), 200, "A")
}

// However a view shows a file, it does not show the id, nor lets it be found
// out by comparing.
func TestFileIDsInViews(t *testing.T) {
	t.Parallel()
	f := newFileService(t, fileSchema+`CREATE TABLE plain (id INTEGER PRIMARY KEY, t TEXT) STRICT; INSERT INTO plain VALUES (100, '{"id":"mine","filename":"kept"}');
		CREATE VIEW a AS SELECT id, one AS x, many AS y FROM doc; CREATE VIEW b AS SELECT * FROM a; CREATE VIEW c AS WITH w AS (SELECT * FROM "doc") SELECT id, one AS x, many AS y FROM w;
		CREATE VIEW d AS SELECT id, NULL AS x, '' AS y FROM plain UNION ALL SELECT id, one, many FROM doc; CREATE VIEW e AS SELECT id, coalesce(one, 'none') AS x, CAST(many AS BLOB) AS y FROM [doc];
		CREATE VIEW f AS SELECT id, (SELECT one FROM doc d WHERE d.id = doc.id) AS x, json_group_array(json(one)) AS y FROM doc GROUP BY id; CREATE VIEW g AS SELECT id, 'x' || one AS x, jsonb(one) AS y FROM b AS doc JOIN doc USING (id);
		CREATE VIEW h AS SELECT id, upper(one) AS x, json_object('f', json(one)) AS y FROM doc; CREATE VIEW i AS SELECT id, x || '' AS x, coalesce(y, '') AS y FROM A; CREATE VIEW p AS SELECT id, t AS x, t || '' AS y FROM plain`,
		records.FilesConfig{}, append([]records.API{{Name: "doc", Table: "doc", World: everything}}, viewsOf("a", "b", "c", "d", "e", "f", "g", "h", "i", "p")...)...)
	f.create(`{"one":` + fileJSON("a", "", "A") + `,"many":[` + fileJSON("b", "", "B") + `]}`)
	for _, view := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i"} {
		for _, target := range []string{"/" + view, "/" + view + "/1", "/" + view + "/2"} {
			text := get(f, "", target).body
			for _, id := range f.store.ids() {
				if strings.Contains(strings.ToLower(text), id) {
					t.Errorf("%s: an id is in %s", target, text)
				}
			}
			if view < "d" && target == "/"+view && !strings.Contains(text, `"x":{"original_filename":"a","filename":"a_`) {
				t.Errorf("%s: no file is in %s", target, text)
			}
		}
		for _, query := range []string{"filter[x][$like]=%25", "filter[x][$gt]=a", "filter[x]=a", "filter[y][$re]=a", "filter[y][$ne]=a", "order=x", "order=-y"} {
			wantStatus(t, get(f, "", "/"+view+"?"+query), 400)
		}
		wantStatus(t, get(f, "", "/"+view+"?filter[id]=1&order=-id"), 200)
	}
	want(t, get(f, "", "/p?filter[x][$like]=%25kept%25"), 200, get(f, "", "/p").body)
	if text := get(f, "", "/p").body; !strings.Contains(text, "mine") {
		t.Errorf("text of a view without files: %s", text)
	}
}

// What is generated from a file column shows no id either, nor do views that
// look for it.
func TestFileIDsInGeneratedColumns(t *testing.T) {
	t.Parallel()
	f := newFileService(t, `CREATE TABLE doc (id INTEGER PRIMARY KEY, title TEXT, one TEXT CHECK (jsonschema('std.FileUpload', one)), many TEXT CHECK (jsonschema('std.FileUploads', many)),
			whole TEXT AS (one), key TEXT AS (one ->> '$.id') STORED, flat TEXT AS (replace("key", '-', '')), [blob] BLOB AS (CAST(many AS BLOB)), j TEXT AS (json_array(key)) CHECK (jsonschema_matches('{}', j)),
			name TEXT AS (json_extract(one, '$.original_filename')), upper TEXT AS (upper(title)), files INTEGER AS (json_array_length(many)), first TEXT AS (json_extract(many, '$[0]')) CHECK (jsonschema('std.FileUpload', first))) STRICT;
		CREATE VIEW direct AS SELECT * FROM doc; CREATE VIEW more AS SELECT id, key AS a, json_extract(many, '$[1].id') AS b, substr('x' || key || 'x', 1, 38) AS c, replace(upper(key), '-', '_') AS d, CAST(flat AS BLOB) AS e, upper FROM direct;
		CREATE VIEW keyed AS SELECT key AS id, title FROM doc`, records.FilesConfig{},
		append([]records.API{{Name: "doc", Table: "doc", World: everything, Subscriptions: true}}, viewsOf("direct", "more")...)...)
	f.create(`{"title":"t","one":` + fileJSON("a", "", "A") + `,"many":[` + fileJSON("b", "", "B") + `,` + fileJSON("c", "", "C") + `]}`)
	flat := strings.NewReplacer("-", "", "_", "")
	for _, target := range []string{"/doc", "/doc/1", "/direct", "/direct/1", "/more", "/more/1", "/doc/1?fields=key,flat", "/doc/1/file/first", "/doc/1/file/key"} {
		text := get(f, "", target).body
		for _, id := range f.store.ids() {
			if strings.Contains(flat.Replace(strings.ToLower(text)), flat.Replace(id)) {
				t.Errorf("%s: an id is in %s", target, text)
			}
		}
	}
	for _, column := range []string{"whole", "key", "flat", "blob", "j"} {
		if got := f.member("/doc/1", column); got != "null" && column != "whole" {
			t.Errorf("%s: %s", column, got)
		}
		for _, query := range []string{"filter[%s][$like]=a%%25", "filter[%s]=a", "order=%s"} {
			for _, api := range []string{"/doc?", "/direct?"} {
				wantStatus(t, get(f, "", api+fmt.Sprintf(query, column)), 400)
			}
		}
	}
	for _, column := range []string{"a", "b", "c", "d", "e"} {
		if got := f.member("/more/1", column); got != "null" {
			t.Errorf("%s: %s", column, got)
		}
		wantStatus(t, get(f, "", "/more?order="+column), 400)
	}
	// What has nothing of an id in it is as it was.
	for target, part := range map[string]string{"/doc/1": `"name":"a","one":`, "/doc?filter[files]=2&filter[upper]=T": `"upper":"T"`, "/more/1": `"upper":"T"`, "/doc?order=files": `"files":2`, "/doc?filter[title]=t": `"whole":{"original_filename":"a",`} {
		if text := get(f, "", target).body; !strings.Contains(text, part) {
			t.Errorf("%s: no %s in %s", target, part, text)
		}
	}
	want(t, get(f, "", "/doc/1/file/first"), 200, "B")
	if _, err := tryServe(f.db, viewsOf("keyed")...); err == nil || !strings.Contains(err.Error(), `the key column "id" is made of a column for files`) {
		t.Errorf("a view with ids of files as its key: %v", err)
	}
}

func viewsOf(names ...string) (apis []records.API) {
	for _, name := range names {
		apis = append(apis, records.API{Name: name, Table: name, World: records.Read})
	}
	return apis
}

// An id is never told and never taken (D3): it would be a key to a file of
// somebody else.
func TestFileIDsStayInside(t *testing.T) {
	t.Parallel()
	f := newFileService(t, fileSchema+`CREATE TABLE note (id INTEGER PRIMARY KEY, doc INTEGER REFERENCES doc(id)) STRICT; CREATE VIEW card AS SELECT id, one AS face, many AS faces FROM doc`,
		records.FilesConfig{UserQuota: 1000},
		records.API{Name: "doc", Table: "doc", World: everything}, records.API{Name: "card", Table: "card", World: records.Read},
		records.API{Name: "note", Table: "note", World: everything, Expand: []string{"doc"}})
	path := f.create(`{"title":"t","one":` + fileJSON("a", "", "A") + `,"many":[` + fileJSON("b", "", "B") + `,` + fileJSON("c", "", "C") + `],"_secret":` + fileJSON("d", "", "D") + `}`)
	wantStatus(t, call(f, "", "POST", "/note", `{"id":1,"doc":1}`), 200)
	secret := one(t, f.db, `SELECT json_extract(one, '$.id') FROM doc`)
	var answers []response
	add := func(r response) { answers = append(answers, r) }
	for _, target := range []string{
		path, "/doc", "/doc?count=true", "/doc?order=one", "/doc?filter[one][$like]=%25" + secret[:8] + "%25", "/card", "/card/1", "/note/1?expand=doc", "/note?expand=doc", path + "/file/one", path + "/file/many",
		path + "/files/one/" + f.files(path, "one")[0].Filename, path + "/files/many/" + f.files(path, "many")[1].Filename, "/card/1/file/face", path + "/files/one/nothing",
	} {
		add(get(f, "", target))
		add(call(f, "", "GET", target, "", "Accept", "application/problem+json", "Range", "bytes=9-"))
		add(call(f, "", "HEAD", target, ""))
	}
	for _, id := range f.store.ids() {
		for _, body := range []string{
			`{"one":{"id":"` + id + `","filename":"x"}}`, `{"one":{"id":"` + id + `","data":"AAAA"}}`, `{"many":[{"id":"` + id + `"}]}`, `{"one":"` + id + `"}`, `{"one":"{\"id\":\"` + id + `\"}"}`,
			`{"many":[{"ID":"` + id + `","filename":"x"}]}`, `{"one":{"\u0069d":"` + id + `","filename":"x"}}`, `{"one":{"filename":"x","filename":"` + id + `"}}`,
		} {
			r := call(f, "", "POST", "/doc", body, "Accept", "application/problem+json")
			wantStatus(t, r, 400)
			wantStatus(t, call(f, "", "PATCH", path, body), 400)
			add(r)
		}
		if r := multipartCall(t, f, "POST", "/doc", formPart{"one", "-", "", `{"id":"` + id + `"}`}); r.status != 400 {
			t.Errorf("text in a form: %v", r)
		}
	}
	add(call(f, "", "POST", "/doc", `{"title":"t","one":`+fileJSON("x", "", "X")+`}`, "Accept", "application/problem+json"))           // not unique
	add(call(f, "", "POST", "/doc", `{"image":`+fileJSON("x", "", "X")+`}`, "Accept", "application/problem+json"))                     // CHECK
	add(call(f, "", "POST", "/doc", `{"one":`+fileJSON("x", "", strings.Repeat("X", 2000))+`}`, "Accept", "application/problem+json")) // quota
	add(call(f, "", "PATCH", path, `{"many":[{"filename":"b"},`+fileJSON("x", "", "X")+`]}`, "Accept", "application/problem+json"))    // unknown
	f.store.put = func(id string) error { return errors.New("no place for " + id) }
	add(call(f, "", "POST", "/doc", `{"one":`+fileJSON("x", "", "X")+`}`, "Accept", "application/problem+json"))
	for _, r := range answers {
		for _, id := range f.store.ids() {
			if text := r.same(); strings.Contains(strings.ToLower(text), id) || strings.Contains(text, "no place") {
				t.Errorf("an id is in %s", text)
			}
		}
	}
	wantStatus(t, answers[len(answers)-1], 503)
	f.wantStored("A", "B", "C", "D")
}

// What is refused leaves no file (G4).
func TestRefusedUploadLeavesNothing(t *testing.T) {
	t.Parallel()
	f := newFileService(t, fileSchema+`CREATE TABLE parent (id INTEGER PRIMARY KEY) STRICT; CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent,
			one TEXT NOT NULL CHECK (jsonschema('std.FileUpload', one))) STRICT`, records.FilesConfig{},
		records.API{Name: "doc", Table: "doc", World: everything, CreateRule: `_REQ_.title IS NOT 'no'`, UpdateRule: `_ROW_.title IS NOT 'locked'`, Check: `_ROW_.title IS NOT 'never'`},
		records.API{Name: "ignore", Table: "doc", World: everything, Conflict: records.Ignore},
		records.API{Name: "replace", Table: "doc", World: everything, Conflict: records.Replace},
		records.API{Name: "child", Table: "child", World: everything},
		records.API{Name: "hooked", Table: "doc", World: everything, Before: func(_ context.Context, c *records.Change) error {
			switch c.Values["title"] {
			case "refused":
				return records.Refuse(422, "no")
			case "panic":
				panic("hook")
			}
			delete(c.Values, "one")
			return nil
		}},
		records.API{Name: "members", Table: "doc", Authenticated: everything})
	file := `"one":` + fileJSON("x", "", "X")
	wantStatus(t, call(f, "", "POST", "/doc", `{"id":1,"title":"taken"}`), 200)
	wantStatus(t, call(f, "", "POST", "/doc", `{"id":2,"title":"locked"}`), 200)
	for _, c := range []struct {
		method, target, body string
		status               int
	}{
		{"POST", "/doc", `{"title":"no",` + file + `}`, 403},
		{"POST", "/doc", `{"title":"never",` + file + `}`, 403},
		{"POST", "/doc", `{"title":"taken",` + file + `}`, 400},
		{"POST", "/doc", `{"id":1,` + file + `}`, 400},
		{"POST", "/doc", `{"image":` + fileJSON("x", "", "X") + `}`, 400},
		{"POST", "/doc", `[{` + file + `},{` + file + `},{"title":"taken",` + file + `}]`, 400},
		{"POST", "/doc", `{` + file + `,"title":7}`, 400},
		{"POST", "/members", `{` + file + `}`, 403},
		{"POST", "/child", `{` + file + `,"parent":9}`, 400},
		{"POST", "/child", `{}`, 400},
		{"PATCH", "/doc/2", `{` + file + `}`, 403},
		{"PATCH", "/doc/1", `{"title":"never",` + file + `}`, 403},
		{"PATCH", "/doc/9", `{` + file + `}`, 403},
		{"PATCH", "/replace/9", `{` + file + `}`, 404},
		{"PATCH", "/doc/1", `{"title":"locked",` + file + `}`, 400},
		{"POST", "/hooked", `{"title":"refused",` + file + `}`, 422},
		{"POST", "/hooked", `{"title":"panic",` + file + `}`, 500},
		{"POST", "/hooked", `{"id":3,` + file + `}`, 200},
		{"POST", "/ignore", `{"id":1,` + file + `}`, 200},
	} {
		if r := call(f, "", c.method, c.target, c.body); r.status != c.status {
			t.Errorf("%s %s %s: %v, want %d", c.method, c.target, c.body, r, c.status)
		}
		f.wantStored()
		if t.Failed() {
			t.Fatalf("%s %s %s", c.method, c.target, c.body)
		}
	}
	wantStatus(t, call(f, "", "POST", "/replace", `{"id":1,`+file+`}`), 200)
	wantStatus(t, call(f, "", "POST", "/replace", `{"id":1,`+strings.ReplaceAll(file, "WA==", "WQ==")+`}`), 200)
	f.wantStored("Y")
	wantStatus(t, call(f, "", "POST", "/replace", `{"id":1}`), 200)
	f.wantStored()
}

// A store without room or without an answer stores nothing, and says so (G4).
func TestStoreFails(t *testing.T) {
	t.Parallel()
	f := newFileService(t, fileSchema, records.FilesConfig{})
	for cause, status := range map[error]int{
		syscall.ENOSPC: 507, fmt.Errorf("put: %w", syscall.EDQUOT): 507, errors.New("connection refused"): 503, context.DeadlineExceeded: 503,
	} {
		var n atomic.Int64
		f.store.put = func(string) error {
			if n.Add(1) == 3 {
				return cause
			}
			return nil
		}
		r := call(f, "", "POST", "/doc", `{"many":[`+strings.Repeat(fileJSON("a", "", "A")+",", 5)+fileJSON("b", "", "B")+`]}`)
		want(t, r, status, "")
		f.wantStored()
	}
	if got := one(t, f.db, `SELECT count(*) FROM doc`); got != "0" {
		t.Errorf("%s rows", got)
	}
}

// Quotas hold, however many upload at once (G4).
func TestFileQuotas(t *testing.T) {
	t.Parallel()
	f := newFileService(t, fileSchema, records.FilesConfig{UserQuota: 40, TotalQuota: 100})
	body := `{"one":` + fileJSON("a", "", "0123456789") + `}`
	var granted [4]atomic.Int64
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			who := []string{"alice", "bob", "7", ""}[i%4]
			switch r := call(f, who, "POST", "/doc", body); r.status {
			case http.StatusOK:
				granted[i%4].Add(1)
			case http.StatusRequestEntityTooLarge:
				if r.body != "quota exceeded" {
					t.Errorf("refused: %v", r)
				}
			default:
				t.Errorf("upload: %v", r)
			}
		})
	}
	wg.Wait()
	total := int64(0)
	for i := range granted {
		if n := granted[i].Load(); n > 4 {
			t.Errorf("caller %d has stored %d files", i, n)
		} else {
			total += n
		}
	}
	if total != 10 || len(strings.Fields(f.store.contents())) != 10 {
		t.Errorf("%d files were granted, %s are stored", total, f.store.contents())
	}
	if got := one(t, f.db, `SELECT sum(size) FROM _file`); got != "100" {
		t.Errorf("%s bytes are registered", got)
	}
	// Who deletes may upload again, but only so much.
	execSQL(t, f.db, `DELETE FROM doc`)
	wantStatus(t, call(f, "", "DELETE", "/doc/1", ""), 404)
	if _, err := f.svc.SweepFiles(context.Background()); err != nil {
		t.Fatal(err)
	}
	f.wantStored()
	if got := one(t, f.db, `SELECT total(bytes) FROM _file_usage`); got != "0" {
		t.Errorf("%s bytes are used by nobody", got)
	}
	four := `[` + strings.TrimSuffix(strings.Repeat(body+",", 4), ",") + `]`
	wantStatus(t, call(f, "alice", "POST", "/doc", four), 200)
	wantStatus(t, call(f, "alice", "POST", "/doc", `{"one":`+fileJSON("a", "", "0")+`}`), 413)
	wantStatus(t, call(f, "alice", "POST", "/doc", `{"one":`+fileJSON("a", "", "")+`}`), 200)
	wantStatus(t, call(f, "bob", "POST", "/doc", four), 200)
	wantStatus(t, call(f, "", "POST", "/doc", four), 413)
	if got := one(t, f.db, `SELECT sum(size) FROM _file`); got != "80" {
		t.Errorf("%s bytes are registered", got)
	}
}
