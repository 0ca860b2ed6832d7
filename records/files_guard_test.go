package records_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

// moves are ways to have values elsewhere than the triggers look for them,
// with as many triggers as before.
func moves() map[string]string {
	return map[string]string{
		"column": `ALTER TABLE doc ADD COLUMN photo TEXT CHECK (jsonschema('std.FileUpload', photo)); UPDATE doc SET photo = one, one = NULL WHERE id = 1`,
		"table":  `CREATE TABLE copy (f TEXT CHECK (jsonschema('std.FileUpload', f))); INSERT INTO copy SELECT one FROM doc WHERE id = 1; UPDATE doc SET one = NULL WHERE id = 1`,
		"rename": `ALTER TABLE doc RENAME TO old; ` + fileSchema + `INSERT INTO doc SELECT * FROM old; DELETE FROM old`,
		"twin": `ALTER TABLE doc RENAME TO old; ` + fileSchema + `INSERT INTO doc SELECT * FROM old; DELETE FROM old; DROP TABLE old;
			CREATE TRIGGER "_file_doc_insert" AFTER INSERT ON "doc" BEGIN SELECT 1; END; CREATE TRIGGER "_file_doc_update" AFTER UPDATE ON "doc" BEGIN SELECT 1; END; CREATE TRIGGER "_file_doc_delete" AFTER DELETE ON "doc" BEGIN SELECT 1; END`,
	}
}

// A file whose value was moved by a change of the schema, which nobody has
// noticed yet, is not taken for one that is not used any more.
func TestFilesMovedByAnotherProcess(t *testing.T) {
	t.Parallel()
	for name, script := range moves() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "test.db")
			f := openFileService(t, openFile(t, path, fileSchema, sqlite.Options{}), newMemoryFiles(), records.FilesConfig{})
			f.create(`{"id":1,"one":` + fileJSON("a", "", "A") + `}`)
			f.create(`{"id":2,"one":` + fileJSON("b", "", "B") + `}`)
			execSQL(t, openFile(t, path, "", sqlite.Options{}), script)
			want(t, call(f, "", "DELETE", "/doc/2", ""), 200, "deleted")
			if got := f.store.contents(); !strings.Contains(got, "A") {
				t.Errorf("stored: %s", got)
			}
			f.store.clock.advance(2 * time.Hour)
			if _, err := f.svc.SweepFiles(context.Background()); err != nil {
				t.Fatal(err)
			}
			f.wantStored("A")
		})
	}
}

func TestFilesMovedInTransaction(t *testing.T) {
	t.Parallel()
	for name, script := range moves() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFileService(t, fileSchema, records.FilesConfig{})
			f.create(`{"id":1,"one":` + fileJSON("a", "", "A") + `}`)
			f.create(`{"id":2,"one":` + fileJSON("b", "", "B") + `}`)
			documents := tableOf[document](t, f.svc, "doc")
			err := f.db.Update(context.Background(), func(tx *sqlite.Tx) error {
				if _, err := tx.ExecContext(context.Background(), script); err != nil {
					return err
				}
				return documents.In(tx).Delete(context.Background(), int64(2))
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := f.store.contents(); !strings.Contains(got, "A") {
				t.Errorf("stored: %s", got)
			}
			if _, err := f.svc.SweepFiles(context.Background()); err != nil {
				t.Fatal(err)
			}
			f.wantStored("A")
		})
	}
}

// Counting after a change of the schema is not bound by how long a request may
// take, and looks only at what is new.
func TestFilesCountedOnce(t *testing.T) {
	t.Parallel()
	store := newMemoryFiles()
	db := openDB(t, fileSchema+`INSERT INTO doc (id, one) VALUES (1, '{"id":"a","filename":"a"}'), (2, '{"id":"b","filename":"b"}')`)
	svc, err := records.New(db, records.Config{
		APIs: []records.API{{Name: "doc", Table: "doc", World: everything}}, Files: &records.FilesConfig{Store: store},
		Caller: callerOf, Logger: quiet(), Now: store.clock.Now, QueryTimeout: time.Nanosecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	h := signIn(svc)
	checkCounts(t, db, "doc.one")
	refs := func(want string) {
		t.Helper()
		if got := one(t, db, `SELECT group_concat(id || refs, ' ') FROM (SELECT * FROM _file ORDER BY id)`); got != want {
			t.Errorf("counts: %s, want %s", got, want)
		}
	}
	refs("a1 b1")
	execSQL(t, db, `UPDATE _file SET refs = 101 WHERE id = 'b'`) // to see what is counted anew
	execSQL(t, db, `ALTER TABLE doc ADD COLUMN photo TEXT CHECK (jsonschema('std.FileUpload', photo)); UPDATE doc SET photo = one, one = NULL WHERE id = 1`)
	refs("a0 b101")
	get(h, "", "/doc")
	refs("a1 b101")
	execSQL(t, db, `UPDATE doc SET one = photo WHERE id = 1`)
	refs("a2 b101")
	execSQL(t, db, `CREATE TABLE copy (f TEXT CHECK (jsonschema('std.FileUploads', f)) DEFAULT '[{"id":"c"},{"id":"a"}]', g INTEGER) STRICT; INSERT INTO copy DEFAULT VALUES`)
	get(h, "", "/doc")
	refs("a3 b101 c1")
	execSQL(t, db, `ALTER TABLE copy RENAME TO other; ALTER TABLE other RENAME COLUMN f TO "f'"`)
	get(h, "", "/doc")
	refs("a3 b1 c1") // which has the looks of a new table, so that all are counted
	checkCounts(t, db, "doc.one", "doc.photo", "other.f'")
	execSQL(t, db, `DELETE FROM other; DELETE FROM doc`)
	refs("a0 b0 c0")
}

// Without a registry nothing is uploaded: nobody would count it, or hold it
// against a quota. Nor is anything deleted.
func TestFilesWithoutRegistry(t *testing.T) {
	t.Parallel()
	f := newFileService(t, fileSchema, records.FilesConfig{UserQuota: 5})
	f.create(`{"id":1,"one":` + fileJSON("a", "", "AAA") + `}`)
	execSQL(t, f.db, `DROP TABLE _file_usage; DROP TRIGGER _file__insert; DROP TRIGGER _file__update; DROP TRIGGER _file__delete; CREATE VIEW _file_usage AS SELECT 'x' AS owner, 0 AS bytes`)
	r := call(f, "", "POST", "/doc", `{"one":`+fileJSON("b", "", "BBBBB")+`}`)
	want(t, r, 503, "")
	if r.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	f.strand("stranded", "S")
	f.store.clock.advance(2 * time.Hour)
	if n, err := f.svc.SweepFiles(context.Background()); n != 0 || err == nil {
		t.Errorf("sweep: %d, %v", n, err)
	}
	want(t, call(f, "", "DELETE", "/doc/1", ""), 200, "deleted")
	if got := f.store.contents(); !strings.Contains(got, "AAA") || !strings.Contains(got, "S") {
		t.Errorf("stored: %s", got)
	}
	execSQL(t, f.db, `DROP VIEW _file_usage`)
	want(t, call(f, "", "POST", "/doc", `{"one":`+fileJSON("b", "", "BBBBBB")+`}`), 413, "quota exceeded")
	wantStatus(t, call(f, "", "POST", "/doc", `{"one":`+fileJSON("c", "", "C")+`}`), 200)
	if _, err := f.svc.SweepFiles(context.Background()); err != nil {
		t.Error(err)
	}
	f.wantStored("C")
}

// A store that does not answer holds up a request for a moment only, and is not
// asked for one file after the other.
func TestDeletesDoNotWaitForTheStore(t *testing.T) {
	t.Parallel()
	f := newFileService(t, fileSchema, records.FilesConfig{})
	const files = 20
	f.create(`{"id":1,"many":[` + strings.TrimSuffix(strings.Repeat(fileJSON("a", "", "A")+",", files), ",") + `]}`)
	var asked atomic.Int64
	f.store.del = func(ctx context.Context, _ string) error {
		asked.Add(1)
		<-ctx.Done()
		return ctx.Err()
	}
	want(t, call(f, "", "DELETE", "/doc/1", ""), 200, "deleted")
	if n := asked.Swap(0); n == 0 || n > 4 {
		t.Errorf("the store is asked %d times", n)
	}
	want(t, call(f, "", "POST", "/doc", `{"title":7,"one":`+fileJSON("a", "", "A")+`}`), 400, "Invalid Parameters")
	execSQL(t, f.db, `INSERT INTO doc (id, title) VALUES (5, 'taken')`)
	wantStatus(t, call(f, "", "POST", "/doc", `{"title":"taken","one":`+fileJSON("a", "", "A")+`}`), 400)
	if n := asked.Load(); n > 4 {
		t.Errorf("the store is asked %d times for refused uploads", n)
	}
	// One that cannot be deleted is not in the way of others.
	var bad atomic.Value
	f.store.del = func(_ context.Context, id string) error {
		if bad.CompareAndSwap(nil, id); bad.Load() == id {
			return errors.New("not this one")
		}
		return nil
	}
	f.store.clock.advance(2 * time.Hour)
	f.sweep(files)
	f.store.del = nil
	f.sweep(1)
	f.wantStored()
}

// Files are counted for all records of a request, before they are too many to
// be held.
func TestUploadsCountedPerRequest(t *testing.T) {
	t.Parallel()
	f := newFileService(t, fileSchema, records.FilesConfig{})
	record := `{"one":` + fileJSON("a", "", "") + `},`
	want(t, call(f, "", "POST", "/doc", `[`+strings.Repeat(record, 257)+`{"title":7}]`), 400, "too many files")
	want(t, call(f, "", "POST", "/doc", `[`+strings.Repeat(record, 256)+`{"title":7}]`), 400, "Invalid Parameters")
	wantStatus(t, call(f, "", "POST", "/doc", `[`+strings.Repeat(record, 256)+`{"title":"x"}]`), 200)
}

// logged is a logger for tests.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// take returns the lines that were logged since the last call.
func (l *logged) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.buf.Reset()
	return strings.FieldsFunc(l.buf.String(), func(r rune) bool { return r == '\n' })
}

// brokenContent fails in the middle.
type brokenContent struct{ io.ReadSeeker }

func (b brokenContent) Read(p []byte) (int, error) {
	n, err := b.ReadSeeker.Read(p[:min(len(p), 3)])
	if at, _ := b.Seek(0, io.SeekCurrent); at > 6 {
		return 0, errors.New("connection to the store lost")
	}
	return n, err
}

// unseekable is content of which only the length is known.
type unseekable struct{ io.ReadSeeker }

func (u unseekable) Seek(offset int64, whence int) (int64, error) {
	if whence == io.SeekStart && offset > 0 {
		return 0, errors.New("store key 12345 not found")
	}
	return u.ReadSeeker.Seek(offset, whence)
}

func TestDownloadsThatFail(t *testing.T) {
	t.Parallel()
	store, log := newMemoryFiles(), &logged{}
	svc, err := records.New(openDB(t, fileSchema), records.Config{
		APIs: []records.API{{Name: "doc", Table: "doc", World: everything}}, Files: &records.FilesConfig{Store: store},
		Caller: callerOf, Logger: slog.New(slog.NewTextHandler(log, nil)), Now: store.clock.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	h := signIn(svc)
	wantStatus(t, call(h, "", "POST", "/doc", `{"one":`+fileJSON("a", "", "0123456789")+`}`), 200)
	wantLog := func(lines int, part string) {
		t.Helper()
		got := log.take()
		if len(got) != lines || lines > 0 && !strings.Contains(got[0], part) {
			t.Errorf("logged: %q, want %d lines with %q", got, lines, part)
		}
	}
	store.read = func(content io.ReadSeeker) io.ReadSeeker { return brokenContent{content} }
	get(h, "", "/doc/1/file/one")
	wantLog(1, "connection to the store lost")
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // the client has gone
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/doc/1/file/one", http.NoBody))
	wantLog(0, "")
	store.read = func(content io.ReadSeeker) io.ReadSeeker { return unseekable{content} }
	r := call(h, "", "GET", "/doc/1/file/one", "", "Range", "bytes=3-4")
	want(t, r, 503, "")
	if strings.Contains(r.same(), "12345") || r.header.Get("Content-Disposition") != "" || r.header.Get("Cache-Control") == "private, no-cache" {
		t.Errorf("answer: %s", r.same())
	}
	wantLog(1, "12345")
	store.read = nil
	for _, id := range store.ids() {
		_ = store.Delete(context.Background(), id)
	}
	for range 3 {
		wantStatus(t, get(h, "", "/doc/1/file/one"), 404)
	}
	wantLog(1, "a file is not in the store")
	store.clock.advance(time.Hour)
	wantStatus(t, get(h, "", "/doc/1/file/one"), 404)
	wantLog(1, "a file is not in the store")
}

// Text is text to its end.
func TestTextIsTextToItsEnd(t *testing.T) {
	t.Parallel()
	f := newFileService(t, fileSchema, records.FilesConfig{})
	for content, mime := range map[string]string{
		"plain text": "text/plain", "naïve": "text/plain", "na\xefve": "", strings.Repeat("a", 1000) + "\xff": "", "\xff\xfea\x00": "text/plain", "\xfe\xff\x00a": "text/plain",
		"<html>\xff": "text/html", "": "text/plain",
	} {
		if got := f.files(f.create(`{"one":`+fileJSON("a", "", content)+`}`), "one")[0].MIMEType; got != mime {
			t.Errorf("%.20q: %q, want %q", content, got, mime)
		}
	}
}

// Multipart contents are whole and apart, whatever their sizes.
func TestMultipartContents(t *testing.T) {
	t.Parallel()
	f := newFileService(t, fileSchema, records.FilesConfig{MaxFiles: 40})
	var parts []formPart
	var contents []string
	for i := range 40 {
		content := strings.Repeat(fmt.Sprint(i%10), i*i*50+1)
		parts, contents = append(parts, formPart{"many", "a", "", content}), append(contents, content)
	}
	wantStatus(t, multipartCall(t, f, "POST", "/doc", parts...), 200)
	f.wantStored(contents...)
}
