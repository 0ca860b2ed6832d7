package bedplate_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/bedplate/bedplate"
	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

// patience is for what must come: a machine that is busy may need a while, so
// that it only tells what hangs.
const patience = 2 * time.Minute

// A live is a backend with a sign-in behind a server: everybody has notes,
// each user own posts, with a column that nobody sees, and users profiles,
// which cannot be watched.
type live struct {
	*bedplate.Backend
	url   string
	inbox inbox
}

func liveConfig(dir string) bedplate.Config {
	cfg := config(filepath.Join(dir, "app.db"))
	cfg.Auth = &auth.Config{Argon2: auth.Argon2{Memory: 64, Time: 1}, Mailer: make(inbox, 100), SiteURL: "http://localhost"}
	cfg.Migrations = sqlFile(`
		CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT, author INTEGER) STRICT;
		CREATE TABLE profile (user BLOB PRIMARY KEY REFERENCES _user(id) ON DELETE CASCADE, name TEXT NOT NULL) STRICT;
		CREATE TABLE post (id INTEGER PRIMARY KEY, author BLOB, text TEXT NOT NULL, secret TEXT, _hidden TEXT) STRICT;`)
	const everything = records.Create | records.Read | records.Update | records.Delete
	cfg.Records = []records.API{
		{Name: "notes", Table: "note", World: everything, Subscriptions: true},
		{
			Name: "posts", Table: "post", Authenticated: everything, Exclude: []string{"secret"}, Subscriptions: true,
			ReadRule: `_ROW_.author = _USER_.id`,
		},
		{Name: "staff", Table: "post", Authenticated: records.Read, ReadRule: `(SELECT admin FROM _user WHERE id = _USER_.id)`, Subscriptions: true},
		{Name: "profiles", Table: "profile", World: everything},
	}
	return cfg
}

func newLive(t testing.TB, cfg bedplate.Config) *live {
	t.Helper()
	b := open(t, cfg)
	server := httptest.NewServer(b.Handler())
	t.Cleanup(func() {
		if b.Realtime != nil {
			b.Realtime.Drain()
		}
		server.Close()
	})
	l := &live{Backend: b, url: server.URL}
	if cfg.Auth != nil {
		l.inbox, _ = cfg.Auth.Mailer.(inbox)
	}
	return l
}

// exec runs SQL as the application would.
func (l *live) exec(t testing.TB, query string, args ...any) {
	t.Helper()
	err := l.DB.Update(t.Context(), func(tx *sqlite.Tx) error {
		_, err := tx.ExecContext(t.Context(), query, args...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// login makes an account and signs in.
func (l *live) login(t testing.TB, name string) (auth.UserID, auth.Tokens) {
	t.Helper()
	id := newUser(t, l.Backend, name)
	return id, l.again(t, name)
}

// again signs in once more.
func (l *live) again(t testing.TB, name string) (tokens auth.Tokens) {
	t.Helper()
	w := caller{handler: l.Handler()}.send("POST", "/api/auth/v1/login", `{"email":"`+name+`@example.com","password":"`+testPassword+`"}`)
	if err := json.Unmarshal(w.Body.Bytes(), &tokens); err != nil || tokens.AuthToken == "" {
		t.Fatalf("sign-in: %d %s", w.Code, w.Body)
	}
	return tokens
}

// as sends requests without the network.
func (l *live) as(token string) caller {
	if token == "" {
		return caller{handler: l.Handler()}
	}
	return bearer(l.Handler(), token)
}

// A frame is a block of a stream.
type frame struct{ id, event, data, comment, retry string }

// A stream is a subscription as a browser has it.
type stream struct {
	t      testing.TB
	header http.Header
	frames chan frame
	close  context.CancelFunc
	lastID string
}

// An answer is the head of a response, whose body may have no end.
type answer struct {
	status int
	header http.Header
	body   io.ReadCloser
}

// get sends a request for a stream. Headers are name, value, ...
func (l *live) get(t testing.TB, path string, header ...string) answer {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return answer{res.StatusCode, res.Header, res.Body}
}

// stream opens a stream as an EventSource and waits for its begin.
func (l *live) stream(t testing.TB, path string, header ...string) *stream {
	t.Helper()
	res := l.get(t, path, append([]string{"Accept", "text/event-stream"}, header...)...)
	if res.status != 200 || res.header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("GET %s: %d %v", path, res.status, res.header)
	}
	s := &stream{t: t, header: res.header, frames: make(chan frame, 10_000)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(s.frames)
		read(bufio.NewScanner(res.body), s.frames)
	}()
	s.close = func() {
		res.body.Close()
		<-ended
	}
	t.Cleanup(s.close)
	select {
	case f := <-s.frames:
		if f.comment != "ping" {
			t.Fatalf("GET %s: begins with %+v", path, f)
		}
		s.lastID = f.id
	case <-time.After(patience):
		t.Fatalf("GET %s: no first byte", path)
	}
	return s
}

// bearing opens a stream with a token.
func (l *live) bearing(t testing.TB, token, path string) *stream {
	t.Helper()
	return l.stream(t, path, "Authorization", "Bearer "+token)
}

func read(lines *bufio.Scanner, frames chan<- frame) {
	lines.Buffer(nil, 1<<20)
	var f frame
	for lines.Scan() {
		if lines.Text() == "" {
			frames <- f
			f = frame{}
			continue
		}
		name, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "":
			f.comment = value
		case "id":
			f.id = value
		case "event":
			f.event = value
		case "data":
			f.data = value
		case "retry":
			f.retry = value
		}
	}
}

// next returns the next event; ok is false at the end of the stream.
func (s *stream) next() (f frame, ok bool) {
	s.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case f, ok := <-s.frames:
			if !ok {
				return f, false
			}
			if f.id != "" {
				s.lastID = f.id
			}
			if f.data != "" {
				return f, true
			}
		case <-timeout:
			s.t.Fatal("no event")
		}
	}
}

// want expects the data of the next events.
func (s *stream) want(data ...string) {
	s.t.Helper()
	for _, want := range data {
		f, ok := s.next()
		if !ok {
			s.t.Fatalf("the stream has ended, want %s", want)
		}
		if f.data != want {
			s.t.Errorf("event %s, want %s", f.data, want)
		}
	}
}

// ends expects the end of the stream, without a further event.
func (s *stream) ends() {
	s.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case f, ok := <-s.frames:
			if !ok {
				return
			}
			if f.data != "" {
				s.t.Errorf("before the end: %s", f.data)
			}
		case <-timeout:
			s.t.Fatal("the stream has not ended")
		}
	}
}

// listening waits until n streams are open.
func (l *live) listening(t testing.TB, n int) {
	t.Helper()
	for deadline := time.Now().Add(patience); l.Realtime.Streams() != n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d streams, want %d", l.Realtime.Streams(), n)
		}
	}
}

// A testClock is a time that tests move.
type testClock struct{ ahead atomic.Int64 }

func (c *testClock) Now() time.Time      { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *testClock) Add(d time.Duration) { c.ahead.Add(int64(d)) }

func sqlFile(text string) fstest.MapFS { return fstest.MapFS{"0001_all.sql": {Data: []byte(text)}} }
