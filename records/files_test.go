package records_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

// memoryFiles is a FileStore in memory.
type memoryFiles struct {
	clock *fileClock
	put   func(id string) error                      // asked before each Put
	del   func(ctx context.Context, id string) error // and before each Delete
	read  func(content io.ReadSeeker) io.ReadSeeker  // what Open returns

	mu      sync.Mutex // guards what follows
	content map[string][]byte
	stored  map[string]time.Time
	every   map[string]bool // every id that there has ever been
}

type fileClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *fileClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fileClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newMemoryFiles() *memoryFiles {
	return &memoryFiles{
		clock:   &fileClock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
		content: map[string][]byte{}, stored: map[string]time.Time{}, every: map[string]bool{},
	}
}

func (m *memoryFiles) Put(ctx context.Context, id string, r io.Reader, size int64) error {
	if m.put != nil {
		if err := m.put(id); err != nil {
			return err
		}
	}
	b, err := io.ReadAll(r)
	if err != nil || int64(len(b)) != size {
		return fmt.Errorf("%d bytes, want %d: %w", len(b), size, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.content[id], m.stored[id], m.every[id] = b, m.clock.Now(), true
	return ctx.Err()
}

func (m *memoryFiles) Open(_ context.Context, id string) (io.ReadSeekCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.content[id]
	if !ok {
		return nil, fs.ErrNotExist
	}
	var content io.ReadSeeker = bytes.NewReader(b)
	if m.read != nil {
		content = m.read(content)
	}
	return struct {
		io.ReadSeeker
		io.Closer
	}{content, io.NopCloser(nil)}, nil
}

func (m *memoryFiles) Delete(ctx context.Context, id string) error {
	if m.del != nil {
		if err := m.del(ctx, id); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.content, id)
	delete(m.stored, id)
	return nil
}

func (m *memoryFiles) List(_ context.Context, fn func(id string, size int64, stored time.Time) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, b := range m.content {
		if err := fn(id, int64(len(b)), m.stored[id]); err != nil {
			return err
		}
	}
	return nil
}

// contents returns what is stored, sorted.
func (m *memoryFiles) contents() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []string
	for _, b := range m.content {
		all = append(all, string(b))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func (m *memoryFiles) ids() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Keys(m.every))
}

const fileSchema = `CREATE TABLE doc (id INTEGER PRIMARY KEY, owner TEXT, title TEXT UNIQUE,
	one TEXT CHECK (jsonschema('std.FileUpload', one)), many TEXT CHECK (jsonschema('std.FileUploads', many)),
	image TEXT CHECK (jsonschema('std.FileUpload', image, 'image/png, image/gif')), _secret TEXT CHECK (jsonschema('std.FileUpload', _secret))) STRICT;`

// fileService is a service with a store.
type fileService struct {
	http.Handler
	t     testing.TB
	svc   *records.Service
	db    *sqlite.DB
	store *memoryFiles
}

func newFileService(t testing.TB, schema string, cfg records.FilesConfig, apis ...records.API) *fileService {
	t.Helper()
	return openFileService(t, openDB(t, schema), newMemoryFiles(), cfg, apis...)
}

func openFileService(t testing.TB, db *sqlite.DB, store *memoryFiles, cfg records.FilesConfig, apis ...records.API) *fileService {
	t.Helper()
	cfg.Store = store
	if len(apis) == 0 {
		apis = []records.API{{Name: "doc", Table: "doc", World: everything}}
	}
	svc, err := records.New(db, records.Config{APIs: apis, Files: &cfg, Caller: callerOf, Logger: quiet(), Now: store.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	return &fileService{signIn(svc), t, svc, db, store}
}

// wantStored fails the test unless these are the contents of the store, and
// the registry knows the same number of files.
func (f *fileService) wantStored(contents ...string) {
	f.t.Helper()
	slices.Sort(contents)
	if got, want := f.store.contents(), strings.Join(contents, " "); got != want {
		f.t.Errorf("stored: %q, want %q", got, want)
	}
	if got := one(f.t, f.db, `SELECT count(*) FROM _file`); got != fmt.Sprint(len(contents)) {
		f.t.Errorf("%s files are registered, want %d", got, len(contents))
	}
	checkSums(f.t, f.db)
}

func (f *fileService) create(body string) (path string) {
	f.t.Helper()
	return "/doc/" + idsOf(f.t, call(f, "", "POST", "/doc", body))[0]
}

// member returns a member of a record.
func (f *fileService) member(path, name string) string {
	f.t.Helper()
	r := get(f, "", path)
	var m map[string]json.RawMessage
	if err := json.Unmarshal([]byte(r.body), &m); err != nil {
		f.t.Fatalf("GET %s: %v", path, r)
	}
	return string(m[name])
}

func (f *fileService) files(path, name string) (all []records.File) {
	f.t.Helper()
	text := f.member(path, name)
	if !strings.HasPrefix(text, "[") {
		text = "[" + text + "]"
	}
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		f.t.Fatalf("%s: %v", text, err)
	}
	return all
}

// fileJSON is an upload as JSON.
func fileJSON(name, contentType, content string) string {
	b, err := json.Marshal(map[string]string{"filename": name, "content_type": contentType, "data": base64.URLEncoding.EncodeToString([]byte(content))})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// A formPart is a part of a multipart form; without a disposition it is the
// usual one.
type formPart struct{ name, filename, contentType, content string }

func multipartCall(t testing.TB, h http.Handler, method, target string, parts ...formPart) response {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, p := range parts {
		header := textproto.MIMEHeader{}
		disposition := fmt.Sprintf(`form-data; name="%s"`, p.name)
		if p.filename != "-" {
			disposition += fmt.Sprintf(`; filename="%s"`, p.filename)
		}
		header.Set("Content-Disposition", disposition)
		if p.contentType != "" {
			header.Set("Content-Type", p.contentType)
		}
		pw, err := w.CreatePart(header)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(pw, p.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return call(h, "", method, target, b.String(), "Content-Type", w.FormDataContentType())
}

// What TrailBase's clients do: upload as base64 in both alphabets, read the
// metadata, download by both paths.
func TestFilesRoundTrip(t *testing.T) {
	t.Parallel()
	f := newFileService(t, fileSchema, records.FilesConfig{})
	content := "\x00\xfb\xff\xfe binary"
	path := f.create(`{"one":` + fileJSON("test0.text", "text/plain", content) + `,"many":[` + fileJSON("a.bin", "", "first") + `,
		{"name":"ignored","filename":null,"content_type":"application/x-thing; a=b","data":"` + base64.StdEncoding.EncodeToString([]byte(content)) + `"}]}`)
	if got := f.member(path, "one"); !regexp.MustCompile(`^\{"original_filename":"test0\.text","filename":"test0_[a-z0-9]{10}\.text","content_type":"text/plain"\}$`).MatchString(got) {
		t.Errorf("one: %s", got)
	}
	if got := f.member(path, "many"); !regexp.MustCompile(`^\[\{"original_filename":"a\.bin","filename":"a_[a-z0-9]{10}\.bin","mime_type":"text/plain"\},` +
		`\{"filename":"[a-z0-9]{10}","content_type":"application/x-thing; a=b"\}\]$`).MatchString(got) {
		t.Errorf("many: %s", got)
	}
	f.wantStored(content, content, "first")
	single, many := f.files(path, "one"), f.files(path, "many")
	for target, body := range map[string]string{
		"/file/one": content, "/files/one/" + single[0].Filename: content,
		"/files/many/" + many[0].Filename: "first", "/files/many/" + many[1].Filename: content,
	} {
		want(t, get(f, "", path+target), 200, body)
		r := call(f, "", "HEAD", path+target, "")
		if r.status != 200 || r.header.Get("Content-Length") != fmt.Sprint(len(body)) {
			t.Errorf("HEAD %s: %v %v", target, r, r.header)
		}
	}
	for target, answer := range map[string]response{
		path + "/file/many":                            {status: 400, body: "Not a file"},
		path + "/file/title":                           {status: 400, body: "Not a file"},
		path + "/file/nothing":                         {status: 400, body: "Invalid field/column name"},
		path + "/file/_secret":                         {status: 400, body: "Invalid field/column name"},
		path + "/file/ONE":                             {status: 400, body: "Invalid field/column name"},
		path + "/files/nothing/a":                      {status: 400, body: "Invalid field/column name"},
		path + "/files/_secret/a":                      {status: 400, body: "Invalid field/column name"},
		path + "/files/title/a":                        {status: 400, body: "Not a files list"},
		path + "/files/many/nothing":                   {status: 404},
		path + "/files/one/" + many[0].Filename:        {status: 404},
		path + "/file/image":                           {status: 404},
		path + "/files/many/" + many[0].Filename + "/": {status: 404},
		"/doc/99/file/one":                             {status: 404},
		"/doc/x/file/one":                              {status: 400, body: "Invalid id"},
		"/nothing/1/file/one":                          {status: 405},
	} {
		r := get(f, "", target)
		want(t, r, answer.status, answer.body)
	}
	want(t, call(f, "", "POST", path+"/file/one", "{}"), 405, "")
	want(t, call(f, "", "DELETE", path, ""), 200, "deleted")
	f.wantStored()
}

func TestFilesMultipart(t *testing.T) {
	t.Parallel()
	f := newFileService(t, fileSchema, records.FilesConfig{MaxFiles: 3, MaxSize: 10})
	path := "/doc/" + idsOf(t, multipartCall(t, f, "POST", "/doc", formPart{"title", "-", "", "a"}, formPart{"one", "a b.txt", "text/css", "css"},
		formPart{"many", "1.txt", "", "eins"}, formPart{"many", "2.txt", "", "zwei"}, formPart{"image", "", "application/octet-stream", ""},
		formPart{"nothing", "x", "", "unbound"}, formPart{"many", "", "", "drei"}))[0]
	f.wantStored("css", "eins", "zwei", "drei")
	if files := f.files(path, "many"); len(files) != 3 || files[0].OriginalFilename != "1.txt" || files[1].OriginalFilename != "2.txt" || files[2].OriginalFilename != "" {
		t.Errorf("many: %+v", files)
	}
	if files := f.files(path, "one"); files[0].ContentType != "text/css" || files[0].OriginalFilename != "a b.txt" {
		t.Errorf("one: %+v", files)
	}
	if got := f.member(path, "image"); got != "null" {
		t.Errorf("image: %s", got)
	}
	for _, c := range []struct {
		parts  []formPart
		status int
		body   string
	}{
		{[]formPart{{"one", "a", "", "1"}, {"one", "b", "", "2"}}, 400, "Invalid Parameters"},
		{[]formPart{{"title", "a", "", "1"}}, 400, "Invalid Parameters"},
		{[]formPart{{"one", "-", "", "text"}}, 400, "Invalid Parameters"},
		{[]formPart{{"many", "a", "", "1"}, {"many", "-", "", "[]"}}, 400, "Invalid Parameters"},
		{[]formPart{{"many", "a", "", "1"}, {"many", "b", "", "2"}, {"many", "c", "", "3"}, {"many", "d", "", "4"}}, 400, "too many files"},
		{[]formPart{{"one", "a", "", "12345678901"}}, 413, "file too large"},
		{[]formPart{{"", "a", "", "1"}}, 400, "Invalid body"},
	} {
		for _, method := range []string{"POST", "PATCH"} {
			target := "/doc"
			if method == "PATCH" {
				target = path
			}
			if r := multipartCall(t, f, method, target, c.parts...); r.status != c.status && c.parts[0].name != "" {
				t.Errorf("%s %v: %v, want %d %q", method, c.parts, r, c.status, c.body)
			}
		}
	}
	f.wantStored("css", "eins", "zwei", "drei")
	want(t, multipartCall(t, f, "PATCH", path, formPart{"many", "n.txt", "", "new"}), 200, "")
	f.wantStored("css", "new")
}

// An update keeps, replaces and removes files.
func TestFilesUpdate(t *testing.T) {
	t.Parallel()
	f := newFileService(t, fileSchema, records.FilesConfig{MaxFiles: 4})
	path := f.create(`{"one":` + fileJSON("a", "", "A") + `,"many":[` + fileJSON("b", "", "B") + `,` + fileJSON("c", "", "C") + `]}`)
	patch := func(body string, status int, answer string) {
		t.Helper()
		want(t, call(f, "", "PATCH", path, body), status, answer)
	}
	one, many := f.member(path, "one"), f.files(path, "many")
	meta := func(file records.File) string {
		b, err := json.Marshal(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	patch(`{"title":"other column"}`, 200, "")
	patch(`{"one":`+one+`}`, 200, "")
	f.wantStored("A", "B", "C")
	patch(`{"many":[`+meta(many[1])+`,`+fileJSON("d", "", "D")+`,{"filename":"`+many[0].Filename+`","content_type":"text/html","original_filename":"evil","mime_type":null}]}`, 200, "")
	f.wantStored("A", "B", "C", "D")
	now := f.files(path, "many")
	if len(now) != 3 || now[0] != many[1] || now[2] != many[0] {
		t.Errorf("after keeping: %+v, before: %+v", now, many)
	}
	patch(`{"many":[`+meta(now[1])+`]}`, 200, "")
	f.wantStored("A", "D")
	patch(`{"many":[]}`, 200, "")
	f.wantStored("A")
	if got := f.member(path, "many"); got != "[]" {
		t.Errorf("many: %s", got)
	}
	patch(`{"one":`+fileJSON("e", "", "E")+`}`, 200, "")
	f.wantStored("E")
	// Nothing of what is refused leaves a trace.
	before := dump(t, f.db)
	patch(`{"one":`+one+`}`, 400, "unknown file")
	patch(`{"one":{"filename":"nothing"}}`, 400, "unknown file")
	patch(`{"many":[`+meta(f.files(path, "one")[0])+`]}`, 400, "unknown file") // of another column
	patch(`{"many":[{"filename":"x"},{"filename":"x"}]}`, 400, "Invalid Parameters")
	patch(`{"many":[`+fileJSON("f", "", "F")+`,{"filename":"nothing"}]}`, 400, "unknown file")
	want(t, call(f, "", "POST", "/doc", `{"one":`+f.member(path, "one")+`}`), 400, "unknown file")
	want(t, call(f, "", "PATCH", "/doc/99", `{"one":{"filename":"x"}}`), 404, "")
	if dump(t, f.db) != before {
		t.Error("what was refused has left a trace")
	}
	f.wantStored("E")
	patch(`{"one":null,"many":null}`, 200, "")
	if got := one1(f.member(path, "one"), f.member(path, "many")); got != "null null" {
		t.Errorf("after null: %s", got)
	}
	f.wantStored()
}

func one1(parts ...string) string { return strings.Join(parts, " ") }

// What a request may hold for a file.
func TestFilesValues(t *testing.T) {
	t.Parallel()
	f := newFileService(t, fileSchema, records.FilesConfig{MaxFiles: 2, MaxSize: 4})
	for body, status := range map[string]int{
		`{"one":{"data":""}}`:                                      200, // an empty file
		`{"one":{"data":"AAAA"}}`:                                  200,
		`{"one":{"data":"-_-_","name":"x","filename":"y"}}`:        200,
		`{"one":{"data":"+/+/"}}`:                                  200,
		`{"one":{"data":"AAA="}}`:                                  200,
		`{"one":{"data":"\u0041AAA"}}`:                             200,
		`{"many":[]}`:                                              200,
		`{"one":{"data":"AAA"}}`:                                   400, // no padding
		`{"one":{"data":"AAB="}}`:                                  400, // not canonical
		`{"one":{"data":"-/AA"}}`:                                  400, // both alphabets
		`{"one":{"data":"AA\nAA"}}`:                                400,
		`{"one":{"data":[1,2]}}`:                                   400,
		`{"one":{"data":null}}`:                                    400,
		`{"one":{}}`:                                               400,
		`{"one":{"name":"x"}}`:                                     400,
		`{"one":{"data":"AAAA","id":"x"}}`:                         400,
		`{"one":{"data":"AAAA","ID":"x"}}`:                         400,
		`{"one":{"data":"AAAA","mime_type":"image/png"}}`:          400,
		`{"one":{"data":"AAAA","original_filename":"x"}}`:          400,
		`{"one":{"data":"AAAA","filename":7}}`:                     400,
		`{"one":{"filename":"x","id":"x"}}`:                        400,
		`{"one":"AAAA"}`:                                           400,
		`{"one":[]}`:                                               400,
		`{"one":[{"data":"AAAA"}]}`:                                400,
		`{"many":{"data":"AAAA"}}`:                                 400,
		`{"many":["AAAA"]}`:                                        400,
		`{"many":[null]}`:                                          400,
		`{"many":[{"data":"AAAA"},{"data":"AAAA"},{"data":""}]}`:   400,
		`{"one":{"data":"AAAAAAA="}}`:                              413,
		`{"many":[{"data":"AAAAAAAA"}]}`:                           413,
		`{"one":{"data":"AAAAAAAA","data":"A"}}`:                   400, // bad syntax counts first
		`{"one":{"data":"AAAAAAAA"}, bad}`:                         400,
		`[{"one":{"data":"AAAA"}},{"one":{"data":"AAAA"}}]`:        200,
		`[{"one":{"data":"AAAA"}},{"many":{"data":"AAAA"}}]`:       400,
		`{"image":{"data":"AAAA","content_type":"image/png"}}`:     400, // it does not look like one
		`{"_secret":{"data":"AAAA"}}`:                              200, // hidden is not read-only
		`{"one":{"data":"AAAA","content_type":"no media type"}}`:   200,
		`{"one":{"data":"AAAA","content_type":"a/b\r\nX-Evil:1"}}`: 200,
	} {
		before := f.store.contents()
		r := call(f, "", "POST", "/doc", body)
		wantStatus(t, r, status)
		if status != 200 {
			if t.Failed() {
				t.Log(body)
			}
			if f.store.contents() != before {
				t.Errorf("%s: has left a file", body)
			}
			continue
		}
		if t.Failed() {
			t.Log(body)
		}
		if got := one(t, f.db, `SELECT count(*) FROM doc WHERE one LIKE '%no media%' OR one LIKE '%Evil%'`); got != "0" {
			t.Errorf("%s: stored as content type", body)
		}
	}
}

// Without a store file columns can be read and cleared, but not written.
func TestFilesWithoutStore(t *testing.T) {
	t.Parallel()
	db := openDB(t, fileSchema+`INSERT INTO doc (id, one) VALUES (1, '{"id":"a","filename":"b"}')`)
	h := serve(t, db, records.API{Name: "doc", Table: "doc", World: everything})
	want(t, get(h, "", "/doc/1/file/one"), 404, "")
	want(t, get(h, "", "/doc/1/file/title"), 400, "Not a file")
	want(t, call(h, "", "PATCH", "/doc/1", `{"one":{"data":"AAAA"}}`), 400, "Invalid Parameters")
	want(t, call(h, "", "PATCH", "/doc/1", `{"one":{"filename":"b"}}`), 400, "Invalid Parameters")
	want(t, multipartCall(t, h, "PATCH", "/doc/1", formPart{"one", "a", "", "1"}), 400, "Invalid Parameters")
	want(t, call(h, "", "PATCH", "/doc/1", `{"one":null}`), 200, "")
	if got := one(t, db, `SELECT count(*) FROM sqlite_schema WHERE name LIKE '\_file%' ESCAPE '\'`); got != "0" {
		t.Errorf("%s tables, indexes and triggers for files that cannot be written", got)
	}
}

func TestFilesConfigMistakes(t *testing.T) {
	t.Parallel()
	db := openDB(t, fileSchema)
	before := one(t, db, `SELECT count(*) FROM sqlite_schema`)
	_, err := records.New(db, records.Config{Files: &records.FilesConfig{MaxSize: -1, MaxFiles: -1, UserQuota: -1, TotalQuota: -1, Grace: -1}})
	for _, part := range []string{"no store", "max size is negative", "max files is negative", "user quota is negative", "total quota is negative", "grace is negative"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error %v does not tell %q", err, part)
		}
	}
	if after := one(t, db, `SELECT count(*) FROM sqlite_schema`); after != before {
		t.Errorf("the schema has %s objects, had %s", after, before)
	}
}
