package bedplate_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate"
	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/realtime"
	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

const notes = "/api/records/v1/notes"

func TestSubscribe(t *testing.T) {
	t.Parallel()
	l := newLive(t, liveConfig(t.TempDir()))
	anybody := l.as("")
	anybody.want(t, "POST", notes, `{"id":1,"text":"old"}`, 200, "")

	all := l.stream(t, notes+"/subscribe/*")
	encoded := l.stream(t, notes+"/subscribe/%2A")
	one := l.stream(t, notes+"/subscribe/1")
	some := l.stream(t, notes+"/subscribe/*?filter[text]="+url.QueryEscape("x=y?&z"))
	if c := all.header.Get("Cache-Control"); !strings.Contains(c, "no-cache") || all.header.Get("X-Accel-Buffering") != "no" {
		t.Errorf("headers %v", all.header)
	}
	anybody.want(t, "POST", notes, `{"id":2,"text":"new"}`, 200, "")
	anybody.want(t, "PATCH", notes+"/2", `{"text":"x=y?&z"}`, 200, "")
	anybody.want(t, "PATCH", notes+"/1", `{"author":7}`, 200, "")
	anybody.want(t, "DELETE", notes+"/2", "", 200, "")
	anybody.want(t, "DELETE", notes+"/1", "", 200, "")

	for _, s := range []*stream{all, encoded} {
		s.want(`{"Insert":{"author":null,"id":2,"text":"new"},"seq":1}`,
			`{"Update":{"author":null,"id":2,"text":"x=y?&z"},"seq":2}`,
			`{"Update":{"author":7,"id":1,"text":"old"},"seq":3}`,
			`{"Delete":{"author":null,"id":2,"text":"x=y?&z"},"seq":4}`,
			`{"Delete":{"author":7,"id":1,"text":"old"},"seq":5}`)
	}
	one.want(`{"Update":{"author":7,"id":1,"text":"old"},"seq":1}`, `{"Delete":{"author":7,"id":1,"text":"old"},"seq":2}`)
	some.want(`{"Update":{"author":null,"id":2,"text":"x=y?&z"},"seq":1}`, `{"Delete":{"author":null,"id":2,"text":"x=y?&z"},"seq":2}`)
}

// What is written without an API is seen, and what is rolled back is not.
func TestSubscribeToOwnWrites(t *testing.T) {
	t.Parallel()
	l := newLive(t, liveConfig(t.TempDir()))
	s := l.stream(t, notes+"/subscribe/*")
	failed := errors.New("changed my mind")
	insert := func(text string, err error) {
		t.Helper()
		got := l.DB.Update(t.Context(), func(tx *sqlite.Tx) error {
			if _, e := tx.ExecContext(t.Context(), `INSERT INTO note (text) VALUES (?)`, text); e != nil {
				return e
			}
			return err
		})
		if !errors.Is(got, err) {
			t.Fatal(got)
		}
	}
	insert("lost", failed)
	insert("kept", nil)
	s.want(`{"Insert":{"author":null,"id":1,"text":"kept"},"seq":1}`)
}

// Each database file has its own log.
func TestSubscribeToAttachedDatabase(t *testing.T) {
	t.Parallel()
	cfg := liveConfig(t.TempDir())
	cfg.Databases = []bedplate.Database{{
		Name: "other", Path: filepath.Join(filepath.Dir(cfg.Path), "other.db"),
		Migrations: sqlFile(`CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT) STRICT;`),
	}}
	cfg.Records = append(cfg.Records, records.API{Name: "others", Table: "other.note", World: records.Create | records.Read, Subscriptions: true})
	const others = "/api/records/v1/others"
	l := newLive(t, cfg)
	here, there := l.stream(t, notes+"/subscribe/*"), l.stream(t, others+"/subscribe/*")
	l.as("").want(t, "POST", others, `{"text":"there"}`, 200, "")
	l.as("").want(t, "POST", notes, `{"text":"here"}`, 200, "")
	here.want(`{"Insert":{"author":null,"id":1,"text":"here"},"seq":1}`)
	there.want(`{"Insert":{"id":1,"text":"there"},"seq":1}`)
	cursor := l.as("").send("GET", others+"/1", "").Header().Get("Change-Cursor")
	l.as("").want(t, "POST", others, `{"text":"later"}`, 200, "")
	l.stream(t, others+"/subscribe/*?since="+cursor).want(`{"Insert":{"id":2,"text":"later"},"seq":1}`)
}

// A stream goes on where another one was cut, whatever happened meanwhile.
func TestResume(t *testing.T) {
	t.Parallel()
	cfg := liveConfig(t.TempDir())
	l := newLive(t, cfg)
	anybody := l.as("")
	create := func(l *live, id int) {
		t.Helper()
		l.as("").want(t, "POST", notes, fmt.Sprintf(`{"id":%d}`, id), 200, "")
	}
	first := l.stream(t, notes+"/subscribe/*")
	create(l, 1)
	create(l, 2)
	f, _ := first.next()
	first.close()
	anybody.want(t, "PATCH", notes+"/1", `{"text":"a"}`, 200, "")
	rest := []string{
		`{"Insert":{"author":null,"id":2,"text":null},"seq":1}`,
		`{"Update":{"author":null,"id":1,"text":"a"},"seq":2}`,
		`{"Insert":{"author":null,"id":3,"text":null},"seq":3}`,
	}
	var open []*stream
	for _, again := range []func(l *live) *stream{
		func(l *live) *stream { return l.stream(t, notes+"/subscribe/*", "Last-Event-ID", f.id) },
		func(l *live) *stream { return l.stream(t, notes+"/subscribe/*?last_event_id="+f.id) },
		func(l *live) *stream { return l.stream(t, notes+"/subscribe/*?since="+f.id) },
	} {
		open = append(open, again(l))
	}
	create(l, 3)
	for _, s := range open {
		s.want(rest...)
	}
	// Also after a restart.
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, s := range open {
		s.ends()
	}
	l = newLive(t, cfg)
	s := l.stream(t, notes+"/subscribe/*", "Last-Event-ID", f.id)
	create(l, 4)
	s.want(append(rest, `{"Insert":{"author":null,"id":4,"text":null},"seq":4}`)...)
}

// Who lists the records and then subscribes from there knows them exactly,
// however many are written meanwhile.
func TestListThenSubscribe(t *testing.T) {
	t.Parallel()
	l := newLive(t, liveConfig(t.TempDir()))
	stop, writers := make(chan struct{}), sync.WaitGroup{}
	for w := range 2 {
		writers.Go(func() {
			c := l.as("")
			for i := range 1500 { // no more than the buffers of the streams take
				select {
				case <-stop:
					return
				default:
				}
				id := w*1000 + i%50 + 1
				c.send("POST", notes, fmt.Sprintf(`{"id":%d,"text":"0"}`, id))
				c.send("PATCH", fmt.Sprintf("%s/%d", notes, id), fmt.Sprintf(`{"text":"%d"}`, i))
				if i%3 == 0 {
					c.send("DELETE", fmt.Sprintf("%s/%d", notes, id), "")
				}
			}
		})
	}
	type note struct {
		ID   int64
		Text *string
	}
	type event struct{ Insert, Update, Delete *note }
	type view struct {
		known map[int64]string
		s     *stream
	}
	var views []view
	for range 20 {
		w := l.as("").send("GET", notes+"?limit=1024", "")
		var list struct{ Records []note }
		if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || w.Header().Get("Change-Cursor") == "" {
			t.Fatalf("list: %v, %v", err, w.Header())
		}
		v := view{map[int64]string{}, nil}
		for _, n := range list.Records {
			v.known[n.ID] = *n.Text
		}
		v.s = l.stream(t, notes+"/subscribe/*?since="+w.Header().Get("Change-Cursor"))
		views = append(views, v)
	}
	close(stop)
	writers.Wait()
	l.as("").want(t, "POST", notes, `{"id":9999,"text":"end"}`, 200, "")
	want := map[int64]string{}
	var list struct{ Records []note }
	if err := json.Unmarshal(l.as("").send("GET", notes+"?limit=1024", "").Body.Bytes(), &list); err != nil {
		t.Fatal(err)
	}
	for _, n := range list.Records {
		want[n.ID] = *n.Text
	}
	for i, v := range views {
		for _, end := v.known[9999]; !end; _, end = v.known[9999] {
			f, ok := v.s.next()
			var e event
			if err := json.Unmarshal([]byte(f.data), &e); err != nil || !ok {
				t.Fatalf("%q: %v", f.data, err)
			}
			switch {
			case e.Insert != nil:
				if _, twice := v.known[e.Insert.ID]; twice {
					t.Errorf("view %d: record %d is inserted twice", i, e.Insert.ID)
				}
				v.known[e.Insert.ID] = *e.Insert.Text
			case e.Update != nil:
				if _, known := v.known[e.Update.ID]; !known {
					t.Errorf("view %d: record %d is updated before its insert", i, e.Update.ID)
				}
				v.known[e.Update.ID] = *e.Update.Text
			case e.Delete != nil:
				delete(v.known, e.Delete.ID)
			default:
				t.Fatalf("view %d: %s", i, f.data)
			}
		}
		if fmt.Sprint(v.known) != fmt.Sprint(want) {
			t.Errorf("view %d knows\n%v, want\n%v", i, v.known, want)
		}
	}
}

func TestRealtimeRoutes(t *testing.T) {
	t.Parallel()
	l := newLive(t, liveConfig(t.TempDir()))
	for _, tt := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"POST", notes + "/subscribe/*", 405, "GET"},
		{"HEAD", notes + "/subscribe/*", 405, "GET"},
		{"DELETE", notes + "/subscribe/1", 405, "GET"},
		{"GET", notes + "/subscribe", 400, ""}, // a record's id
		{"GET", notes + "/subscribe/", 404, ""},
		{"GET", notes + "/subscribe/1/2", 404, ""},
		{"GET", notes + "/x/subscribe/1", 404, ""},
		{"GET", "/api/realtime/v1", 404, ""},
		{"GET", "/api/realtime/v1/", 404, ""},
		{"GET", "/api/realtime/v1/a/b", 404, ""},
		{"GET", "/api/realtime/v1/news", 403, ""},
		{"POST", "/api/realtime/v1/news", 405, "GET"},
		{"POST", "/api/realtime/v1/ticket", 401, ""},
	} {
		r := httptest.NewRequest(tt.method, tt.path, nil)
		w := httptest.NewRecorder()
		l.Handler().ServeHTTP(w, r)
		if w.Code != tt.status || w.Header().Get("Allow") != tt.allow && tt.allow != "" || w.Code == 405 && w.Body.Len() > 0 {
			t.Errorf("%s %s: %d %q Allow %q, want %d, %q", tt.method, tt.path, w.Code, w.Body, w.Header().Get("Allow"), tt.status, tt.allow)
		}
	}
}

// A subscription's key may hold any character, below any prefix, and beside a
// handler that the application has for one API.
func TestRealtimeBelowPrefix(t *testing.T) {
	t.Parallel()
	cfg := config(filepath.Join(t.TempDir(), "app.db"))
	cfg.Migrations = sqlFile(`CREATE TABLE word (id TEXT PRIMARY KEY) STRICT;`)
	cfg.Records = []records.API{{Name: "word", Table: "word", World: records.Create | records.Read | records.Delete, Subscriptions: true}}
	b := open(t, cfg)
	mux := http.NewServeMux()
	mux.Handle("/x/", http.StripPrefix("/x", b.Handler()))
	b.Mount(mux)
	mux.HandleFunc("/api/records/v1/mine/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "mine") })
	wantAnswer(t, mux, "GET", "/api/records/v1/mine/1", "", 200, "mine")
	server := httptest.NewServer(mux)
	t.Cleanup(func() { b.Realtime.Drain(); server.Close() })
	for id, path := range map[string]string{"a/b": "a%2Fb", "/subscribe/": "%2Fsubscribe%2F", "*a": "*a", "%2A": "%252A", "a b": "a%20b"} {
		wantAnswer(t, mux, "POST", "/api/records/v1/word", fmt.Sprintf(`{"id":%q}`, id), 200, fmt.Sprintf(`{"ids":[%q]}`, id))
		for _, prefix := range []string{"", "/x"} {
			l := &live{Backend: b, url: server.URL + prefix}
			s := l.stream(t, "/api/records/v1/word/subscribe/"+path)
			if prefix == "/x" {
				wantAnswer(t, mux, "DELETE", "/x/api/records/v1/word/"+path, "", 200, "deleted")
				s.want(fmt.Sprintf(`{"Delete":{"id":%q},"seq":1}`, id))
			}
		}
	}
}

func TestWithoutSubscriptions(t *testing.T) {
	t.Parallel()
	cfg := liveConfig(t.TempDir())
	for i := range cfg.Records {
		cfg.Records[i].Subscriptions = false
	}
	b := open(t, cfg)
	if b.Realtime != nil {
		t.Error("there is a Realtime")
	}
	wantAnswer(t, b.Handler(), "GET", notes+"/subscribe/*", "", 403, "")
	wantAnswer(t, b.Handler(), "GET", "/api/records/v1/nope/subscribe/*", "", 405, "")
	wantAnswer(t, b.Handler(), "GET", "/api/realtime/v1/news", "", 404, "")
	var n int
	err := b.DB.View(t.Context(), func(tx *sqlite.Tx) error {
		return tx.QueryRowContext(t.Context(), `SELECT count(*) FROM sqlite_schema WHERE name LIKE '\_change%' ESCAPE '\'`).Scan(&n)
	})
	if err != nil || n != 0 {
		t.Errorf("%d objects of a change log, %v", n, err)
	}
}

func TestRealtimeMistakes(t *testing.T) {
	t.Parallel()
	subscribe := func(*http.Request, string, string) (*realtime.Subscription, error) { return nil, nil }
	identify := func(context.Context) realtime.Identity { return realtime.Identity{} }
	check := func(context.Context, []realtime.Identity) ([]bool, error) { return nil, nil }
	for name, tt := range map[string]struct {
		auth bool
		cfg  realtime.Config
		want []string
	}{
		"all with Auth": {true, realtime.Config{Subscribe: subscribe, Identify: identify}, []string{"Realtime.Subscribe", "Realtime.Identify and Realtime.Check"}},
		"Check":         {true, realtime.Config{Check: check}, []string{"Realtime.Identify and Realtime.Check"}},
		"Subscribe":     {false, realtime.Config{Subscribe: subscribe}, []string{"Realtime.Subscribe"}},
		"a limit":       {true, realtime.Config{MaxStreams: -1, MaxPerUser: -1}, []string{"MaxStreams", "MaxPerUser"}},
	} {
		cfg := liveConfig(t.TempDir())
		if cfg.Realtime = &tt.cfg; !tt.auth {
			cfg = config(filepath.Join(t.TempDir(), "app.db"))
			cfg.Realtime = &tt.cfg
		}
		b, err := bedplate.Open(t.Context(), cfg)
		if err == nil {
			b.Close()
			t.Errorf("%s: no error", name)
			continue
		}
		for _, want := range tt.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: no %q in %v", name, want, err)
			}
		}
	}
}

// The application says who listens to its channels, and to whom its events go.
func TestChannels(t *testing.T) {
	t.Parallel()
	cfg := liveConfig(t.TempDir())
	cfg.Realtime = &realtime.Config{Accept: func(r *http.Request, channel string) error {
		if u := auth.FromContext(r.Context()); u != nil && channel == "user:"+u.Username || channel == "news" {
			return nil
		}
		return errors.New("not yours")
	}}
	l := newLive(t, cfg)
	id, tokens := l.login(t, "ada")
	l.exec(t, `UPDATE _user SET username = 'ada' WHERE id = ?`, id[:])
	const base = "/api/realtime/v1/"
	news := l.stream(t, base+"news")
	own := l.bearing(t, l.again(t, "ada").AuthToken, base+"user:ada")
	for path, token := range map[string]string{"user:ada": "", "user:bob": tokens.AuthToken, "x y": tokens.AuthToken, "ticket": ""} {
		if res := l.get(t, base+url.PathEscape(path), "Authorization", "Bearer "+token); res.status != 403 {
			t.Errorf("%s: %d", path, res.status)
		}
	}
	if err := l.Realtime.Publish(t.Context(), "user:ada", map[string]int{"n": 1}); err != nil {
		t.Fatal(err)
	}
	failed := errors.New("rolled back")
	for text, err := range map[string]error{"lost": failed, "kept": nil} {
		got := l.DB.Update(t.Context(), func(tx *sqlite.Tx) error {
			return errors.Join(l.Realtime.PublishTx(t.Context(), tx, "news", text), err)
		})
		if !errors.Is(got, err) {
			t.Fatal(got)
		}
	}
	news.want(`"kept"`)
	own.want(`{"n":1}`)
}

// Without Auth it is the application that knows who is there.
func TestRealtimeWithCaller(t *testing.T) {
	t.Parallel()
	cfg := liveConfig(t.TempDir())
	cfg.Auth, cfg.Migrations = nil, migrations
	cfg.Records = cfg.Records[:1]
	cfg.Records[0].ReadRule = `_ROW_.author = _USER_.id`
	type key struct{}
	cfg.Caller = func(ctx context.Context) records.Caller {
		if id, ok := ctx.Value(key{}).(int64); ok {
			return records.Caller{ID: id}
		}
		return records.Caller{}
	}
	cfg.Realtime = &realtime.Config{MaxPerUser: 2}
	b := open(t, cfg)
	users := map[string]int64{"Bearer one": 1, "Bearer two": 2}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if id, ok := users[r.Header.Get("Authorization")]; ok {
			r = r.WithContext(context.WithValue(r.Context(), key{}, id))
		}
		b.Handler().ServeHTTP(w, r)
	}))
	t.Cleanup(func() { b.Realtime.Drain(); server.Close() })
	l := &live{Backend: b, url: server.URL}
	one, two := l.bearing(t, "one", notes+"/subscribe/*"), l.bearing(t, "two", notes+"/subscribe/*")
	nobody := l.stream(t, notes+"/subscribe/*")
	l.bearing(t, "one", notes+"/subscribe/*")
	if res := l.get(t, notes+"/subscribe/*", "Authorization", "Bearer one"); res.status != 503 || res.header.Get("Retry-After") == "" {
		t.Errorf("a third stream of one user: %d %v", res.status, res.header)
	}
	for author := range 3 {
		l.exec(t, `INSERT INTO note (author) VALUES (?)`, author)
	}
	one.want(`{"Insert":{"author":1,"id":3,"text":null},"seq":1}`)
	two.want(`{"Insert":{"author":2,"id":4,"text":null},"seq":1}`)
	select {
	case f := <-nobody.frames:
		t.Errorf("nobody gets %+v", f)
	default:
	}
}

// A server with streams stops at once, and tells them so.
func TestServeEndsStreams(t *testing.T) {
	t.Parallel()
	cfg := liveConfig(t.TempDir())
	cfg.DrainTimeout = patience // after which there would be an error
	b := open(t, cfg)
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- b.ServeListener(ctx, &http.Server{Handler: b.Handler(), ReadHeaderTimeout: time.Minute}, ln)
	}()
	l := &live{Backend: b, url: "http://" + ln.Addr().String()}
	s := l.stream(t, notes+"/subscribe/*")
	for range 20 {
		l.stream(t, notes+"/subscribe/*")
	}
	cancel()
	retry := ""
	for f := range s.frames {
		retry = f.retry
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if retry == "" {
		t.Error("the stream was not told when to come back")
	}
}
