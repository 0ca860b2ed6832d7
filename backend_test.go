package bedplate_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/bedplate/bedplate"
	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

var migrations = fstest.MapFS{
	"0001_note.sql": {Data: []byte(`CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT, author INTEGER) STRICT;`)},
	"0002_more.sql": {Data: []byte(`INSERT INTO note (text) VALUES ('first');`)},
}

func config(path string) bedplate.Config {
	return bedplate.Config{
		Path:       path,
		Migrations: migrations,
		SQLite:     sqlite.Options{Synchronous: sqlite.Normal, Ballast: -1},
		Records:    []records.API{{Name: "notes", Table: "note", World: records.Create | records.Read | records.Update | records.Delete}},
		Logger:     slog.New(slog.DiscardHandler),
	}
}

func open(t testing.TB, cfg bedplate.Config) *bedplate.Backend {
	t.Helper()
	b, err := bedplate.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func request(h http.Handler, method, target, body string) (int, string) {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func wantAnswer(t testing.TB, h http.Handler, method, target, body string, status int, answer string) {
	t.Helper()
	if code, text := request(h, method, target, body); code != status || text != answer {
		t.Errorf("%s %s: %d %q, want %d %q", method, target, code, text, status, answer)
	}
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	b := open(t, config(filepath.Join(t.TempDir(), "app.db")))
	own := http.NewServeMux()
	b.Mount(own)
	own.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "home") })
	wantAnswer(t, own, "GET", "/", "", 200, "home")

	prefixed := http.NewServeMux()
	prefixed.Handle("/backend/v2/", http.StripPrefix("/backend/v2", b.Handler()))
	for prefix, h := range map[string]http.Handler{"": b.Handler(), "/backend/v2": prefixed} {
		wantAnswer(t, h, "GET", prefix+"/api/healthcheck", "", 200, "Ok")
		wantAnswer(t, h, "POST", prefix+"/api/healthcheck", "", 405, "")
		wantAnswer(t, h, "GET", prefix+"/api/records/v1/notes/1", "", 200, `{"author":null,"id":1,"text":"first"}`)
		wantAnswer(t, h, "GET", prefix+"/api/records/v1/nope", "", 405, "")
		wantAnswer(t, h, "GET", prefix+"/api/records/v1", "", 404, "")
		wantAnswer(t, h, "GET", prefix+"/api/nope", "", 404, "")
		wantAnswer(t, h, "GET", prefix+"/", "", 404, "")
	}
	wantAnswer(t, own, "PATCH", "/api/records/v1/notes/1", `{"author":5}`, 200, "")
	wantAnswer(t, own, "GET", "/api/records/v1/notes?filter[author]=5&skip_cursor=true", "", 200, `{"records":[{"author":5,"id":1,"text":"first"}]}`)
}

// Keys with any character pass the application's mux.
func TestKeysThroughMux(t *testing.T) {
	t.Parallel()
	cfg := config(filepath.Join(t.TempDir(), "app.db"))
	cfg.Migrations = fstest.MapFS{"0001_a.sql": {Data: []byte(`CREATE TABLE word (id TEXT PRIMARY KEY) STRICT;`)}}
	cfg.Records = []records.API{{Name: "word", Table: "word", World: records.Create | records.Read}}
	b := open(t, cfg)
	outer := http.NewServeMux()
	outer.Handle("/x/", http.StripPrefix("/x", b.Handler()))
	for id, path := range map[string]string{"a/b": "a%2Fb", "a//b": "a%2F%2Fb", "/": "%2F", "%": "%25", "%2F": "%252F", "ü ?#": "%C3%BC%20%3F%23", "a;b": "a;b", "a/../b": "a%2F..%2Fb"} {
		want := fmt.Sprintf(`{"id":%q}`, id)
		wantAnswer(t, b.Handler(), "POST", "/api/records/v1/word", want, 200, fmt.Sprintf(`{"ids":[%q]}`, id))
		wantAnswer(t, b.Handler(), "GET", "/api/records/v1/word/"+path, "", 200, want)
		wantAnswer(t, outer, "GET", "/x/api/records/v1/word/"+path, "", 200, want)
	}
}

func TestOpenMistakes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db, err := sqlite.Open(context.Background(), filepath.Join(dir, "own.db"), sqlite.Options{Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for name, cfg := range map[string]bedplate.Config{
		"exactly one of Path and DB":       {},
		"exactly one of Path and DB is":    {Path: filepath.Join(dir, "a.db"), DB: db},
		"Databases need Path":              {DB: db, Databases: []bedplate.Database{{Name: "x", Path: "y"}}},
		"list attached databases":          {Path: filepath.Join(dir, "b.db"), SQLite: sqlite.Options{Attach: []sqlite.Attachment{{Name: "x", Path: "y"}}}},
		"DrainTimeout is negative":         {Path: filepath.Join(dir, "c.db"), DrainTimeout: -1},
		`api "x": no table or view "nope"`: {Path: filepath.Join(dir, "d.db"), Records: []records.API{{Name: "x", Table: "nope"}}},
		"syntax error":                     {Path: filepath.Join(dir, "e.db"), Migrations: fstest.MapFS{"0001_x.sql": {Data: []byte("NONSENSE")}}},
		"no such file or directory":        {Path: filepath.Join(dir, "no", "such", "dir.db")},
		"cursor key has 3 bytes":           {Path: filepath.Join(dir, "f.db"), CursorKey: []byte("abc")},
	} {
		b, err := bedplate.Open(context.Background(), cfg)
		if err == nil || !strings.Contains(err.Error(), strings.TrimSuffix(name, " is")) {
			t.Errorf("%s: %v", name, err)
		}
		if b != nil {
			t.Errorf("%s: a backend is returned with the error", name)
		}
	}
	if err := db.Err(); err != nil {
		t.Errorf("the application's database: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := bedplate.Open(ctx, config(filepath.Join(dir, "g.db"))); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// The application's own database stays open.
func TestOwnDatabase(t *testing.T) {
	t.Parallel()
	db, err := sqlite.Open(context.Background(), filepath.Join(t.TempDir(), "own.db"), sqlite.Options{Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	cfg := config("")
	cfg.DB = db
	b := open(t, cfg)
	wantAnswer(t, b.Handler(), "GET", "/api/records/v1/notes/1", "", 200, `{"author":null,"id":1,"text":"first"}`)
	if err := b.Close(); err != nil || db.Err() != nil {
		t.Errorf("after Close: %v, %v", err, db.Err())
	}
	wantAnswer(t, b.Handler(), "GET", "/api/healthcheck", "", 200, "Ok")
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	wantAnswer(t, b.Handler(), "GET", "/api/healthcheck", "", 503, "")
	wantAnswer(t, b.Handler(), "GET", "/api/records/v1/notes/1", "", 503, "")
	wantAnswer(t, b.Handler(), "POST", "/api/records/v1/notes", "{}", 503, "")
}

func TestAttachedDatabases(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := config(filepath.Join(dir, "app.db"))
	cfg.Databases = []bedplate.Database{{Name: "logs", Path: filepath.Join(dir, "logs.db"), Migrations: fstest.MapFS{"0001_l.sql": {Data: []byte(`CREATE TABLE line (id INTEGER PRIMARY KEY, text TEXT) STRICT;`)}}}}
	cfg.Records = append(cfg.Records, records.API{Name: "lines", Table: "logs.line", World: records.Create | records.Read, CreateRule: `EXISTS (SELECT 1 FROM note WHERE text = _REQ_.text)`})
	b := open(t, cfg)
	wantAnswer(t, b.Handler(), "POST", "/api/records/v1/lines", `{"text":"first"}`, 200, `{"ids":["1"]}`)
	wantAnswer(t, b.Handler(), "POST", "/api/records/v1/lines", `{"text":"other"}`, 403, "")
	if info, err := os.Stat(filepath.Join(dir, "logs.db")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// Two backends over two files in one process know nothing of each other, and
// opening and closing them leaves nothing behind.
func TestOpenAndCloseOften(t *testing.T) { // not parallel: it counts goroutines
	dir := t.TempDir()
	rounds := 100
	if testing.Short() {
		rounds = 20
	}
	before := 0
	for i := range rounds {
		var backends [2]*bedplate.Backend
		for j := range backends {
			b, err := bedplate.Open(context.Background(), config(filepath.Join(dir, fmt.Sprintf("%d.db", j))))
			if err != nil {
				t.Fatal(err)
			}
			backends[j] = b
		}
		for j, b := range backends {
			wantAnswer(t, b.Handler(), "POST", "/api/records/v1/notes", fmt.Sprintf(`{"text":"%d","author":%d}`, i, j), 200, fmt.Sprintf(`{"ids":["%d"]}`, i+2))
			wantAnswer(t, b.Handler(), "GET", fmt.Sprintf("/api/records/v1/notes/%d", i+2), "", 200, fmt.Sprintf(`{"author":%d,"id":%d,"text":"%d"}`, j, i+2, i))
		}
		for _, b := range backends {
			if err := errors.Join(b.Close(), b.Close()); err != nil {
				t.Fatal(err)
			}
		}
		if i == 0 {
			before = settled(1 << 30)
		}
	}
	if after := settled(before); after > before {
		buf := make([]byte, 1<<16)
		t.Errorf("%d goroutines, %d after the first round:\n%s", after, before, buf[:runtime.Stack(buf, true)])
	}
	// A file that could not be opened leaves nothing behind either.
	for range 20 {
		cfg := config(filepath.Join(dir, "0.db"))
		cfg.Records[0].Table = "nope"
		if _, err := bedplate.Open(context.Background(), cfg); err == nil {
			t.Fatal("a mistake is accepted")
		}
	}
	if after := settled(before); after > before {
		t.Errorf("%d goroutines after failed opens, %d before", after, before)
	}
}

// settled returns the number of goroutines when it is at most limit, or after
// a long time.
func settled(limit int) int {
	n := runtime.NumGoroutine()
	for deadline := time.Now().Add(patience); n > limit && time.Now().Before(deadline); n = runtime.NumGoroutine() {
		runtime.Gosched()
	}
	return n
}

// Serve ends with its context, and lets the request that runs finish.
func TestServeStopsGracefully(t *testing.T) {
	t.Parallel()
	b := open(t, config(filepath.Join(t.TempDir(), "app.db")))
	entered, leave := make(chan struct{}), make(chan struct{})
	mux := http.NewServeMux()
	b.Mount(mux)
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-leave
		status, text := request(b.Handler(), "GET", "/api/records/v1/notes/1", "")
		w.WriteHeader(status)
		fmt.Fprint(w, text)
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- b.ServeListener(ctx, &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}, ln) }()
	answered := make(chan string, 1)
	go func() {
		res, err := http.Get("http://" + ln.Addr().String() + "/slow")
		if err != nil {
			answered <- err.Error()
			return
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		answered <- fmt.Sprint(res.StatusCode, " ", string(body))
	}()
	<-entered
	cancel()
	for { // until new connections are refused
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			break
		}
		_ = c.Close()
	}
	select {
	case err := <-served:
		t.Fatalf("Serve returned while a request ran: %v", err)
	default:
	}
	close(leave)
	if got := <-answered; got != `200 {"author":null,"id":1,"text":"first"}` {
		t.Errorf("the running request got %s", got)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// A request that does not end is cut off after the drain timeout.
func TestServeDrainTimeout(t *testing.T) {
	t.Parallel()
	cfg := config(filepath.Join(t.TempDir(), "app.db"))
	cfg.DrainTimeout = 50 * time.Millisecond
	b := open(t, cfg)
	entered := make(chan struct{})
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- b.ServeListener(ctx, &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}, ln) }()
	go func() {
		if res, err := http.Get("http://" + ln.Addr().String()); err == nil {
			_ = res.Body.Close()
		}
	}()
	<-entered
	cancel()
	if err := <-served; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Serve: %v", err)
	}
}

func TestServeCannotListen(t *testing.T) {
	t.Parallel()
	b := open(t, config(filepath.Join(t.TempDir(), "app.db")))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	err = b.Serve(context.Background(), &http.Server{Addr: ln.Addr().String(), ReadHeaderTimeout: time.Minute})
	if err == nil || !strings.HasPrefix(err.Error(), "bedplate: listen: ") {
		t.Errorf("Serve: %v", err)
	}
}
