package realtime_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/realtime"
	"github.com/bedplate/bedplate/sqlite"
)

const (
	siteSchema = `CREATE TABLE note (id INTEGER PRIMARY KEY, n INTEGER NOT NULL) STRICT;
		CREATE TABLE other (id INTEGER PRIMARY KEY, n INTEGER NOT NULL) STRICT;
		CREATE TABLE member (user TEXT PRIMARY KEY) STRICT;`

	allNotes = "/api/records/v1/notes/subscribe/*"
	oneNote  = "/api/records/v1/notes/subscribe/1"
	allOther = "/api/records/v1/others/subscribe/*"
	news     = "/api/realtime/v1/news"
)

// A site is a server with the APIs "notes", of the table note, and "others",
// of the table other.
type site struct {
	db  *sqlite.DB
	log *sqlite.ChangeLog
	svc *realtime.Service
	url string
	srv *httptest.Server
}

// newSite starts one. A configuration without Subscribe has both APIs, and
// everybody sees everything.
func newSite(t testing.TB, cfg realtime.Config) *site {
	t.Helper()
	return newSiteWith(t, sqlite.Options{Synchronous: sqlite.Normal, Logger: quiet()}, cfg)
}

func newSiteWith(t testing.TB, o sqlite.Options, cfg realtime.Config, configure ...func(*httptest.Server)) *site {
	t.Helper()
	return newSiteOn(t, sqlitetest.Open(t, siteSchema, o), cfg, configure...)
}

func newSiteOn(t testing.TB, db *sqlite.DB, cfg realtime.Config, configure ...func(*httptest.Server)) *site {
	t.Helper()
	s := &site{db: db}
	s.log = mainLog(t, s.db, "note", "other")
	if cfg.Subscribe == nil {
		cfg.Subscribe = views{"notes": {table: "note"}, "others": {table: "other"}}.subscribe
	}
	s.svc = newService(t, s.db, cfg)
	s.srv = httptest.NewUnstartedServer(signedIn(routes(s.svc)))
	for _, f := range configure {
		f(s.srv)
	}
	if s.srv.EnableHTTP2 {
		s.srv.StartTLS()
	} else {
		s.srv.Start()
	}
	s.url = s.srv.URL
	t.Cleanup(func() {
		s.svc.Drain() // or it would wait for streams
		s.srv.Close()
	})
	return s
}

// signedIn makes whoever the header X-User names the user of a request.
func signedIn(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), userKey{}, r.Header.Get("X-User"))))
	})
}

type userKey struct{}

func userOf(ctx context.Context) string {
	name, _ := ctx.Value(userKey{}).(string)
	return name
}

func identify(ctx context.Context) realtime.Identity { return realtime.Identity{User: userOf(ctx)} }

// exec runs statements in one transaction.
func (s *site) exec(t testing.TB, statements ...string) {
	t.Helper()
	if !s.tryExec(t, statements...) {
		t.FailNow()
	}
}

// tryExec is exec for other goroutines than that of the test.
func (s *site) tryExec(t testing.TB, statements ...string) (ok bool) {
	t.Helper()
	err := s.db.Update(context.Background(), func(tx *sqlite.Tx) error {
		for _, text := range statements {
			if _, err := tx.ExecContext(context.Background(), text); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return err == nil
}

// prune leaves the newest keep entries in the log.
func (s *site) prune(t testing.TB, keep string) {
	t.Helper()
	s.exec(t, "UPDATE _change_state SET floor = max(floor, (SELECT max(seq) FROM _change) - "+keep+")",
		"DELETE FROM _change WHERE seq <= (SELECT floor FROM _change_state) AND seq < (SELECT max(seq) FROM _change)")
}

func (s *site) head(t testing.TB) string {
	t.Helper()
	head, err := s.log.Head(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return head.String()
}

// get makes a request with the standard framing, with the named headers and
// their values.
func (s *site) get(t testing.TB, path string, headers ...string) reply {
	t.Helper()
	return s.do(t, http.MethodGet, path, append([]string{"Accept", "text/event-stream"}, headers...)...)
}

func (s *site) do(t testing.TB, method, path string, headers ...string) reply {
	t.Helper()
	// A stream lasts as long as the rest of its test.
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	req, err := http.NewRequestWithContext(context.WithValue(ctx, siteKey{}, s), method, s.url+s.sealQuery(path), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], s.seal(headers[i+1]))
	}
	resp, err := s.srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = resp.Body.Close()
	})
	return reply{resp}
}

// A reply is a response whose body is closed with the test at the latest.
type reply struct{ *http.Response }

type siteKey struct{}

// seal returns a position as clients get it, and any other text as it is.
// These tests have positions in plain, to compare them.
func (s *site) seal(text string) string {
	at, err := sqlite.ParsePosition(text)
	if err != nil {
		return text
	}
	sealer, err := s.log.Sealer(context.Background(), at.Epoch)
	if err != nil {
		return text
	}
	return sealer.Seal(at.Seq)
}

func (s *site) sealQuery(path string) string {
	path, query, ok := strings.Cut(path, "?")
	if !ok {
		return path
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return path + "?" + query
	}
	for _, name := range []string{"since", "last_event_id"} {
		if text := values.Get(name); text != "" {
			values.Set(name, s.seal(text))
		}
	}
	return path + "?" + values.Encode()
}

// unseal undoes seal.
func (s *site) unseal(text string) string {
	epoch, _, _ := strings.Cut(text, ".")
	sealer, err := s.log.Sealer(context.Background(), epoch)
	if err != nil {
		return text
	}
	if seq, ok := sealer.Open(text); ok {
		return sqlite.Position{Epoch: epoch, Seq: seq}.String()
	}
	return text
}

// refused makes a request that gets no stream, and returns what it gets.
func (s *site) refused(t testing.TB, path string, headers ...string) (resp reply, body string) {
	t.Helper()
	resp = s.get(t, path, headers...)
	if resp.StatusCode == http.StatusOK {
		t.Fatalf("%s: a stream", path)
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

// open opens a stream and reads what it begins with.
func (s *site) open(t testing.TB, path string, headers ...string) *stream {
	t.Helper()
	st := newStream(t, s.get(t, path, headers...))
	if first := st.block(t); first.comment != "ping" {
		t.Fatalf("%s: begins with %+v", path, first)
	}
	return st
}

// A stream is read block by block.
type stream struct {
	resp reply
	r    *bufio.Reader
	id   string // of the last block with one
}

func newStream(t testing.TB, resp reply) *stream {
	t.Helper()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: status %s", resp.Request.URL, resp.Status)
	}
	return &stream{resp: resp, r: bufio.NewReader(resp.Body)}
}

// A block is one event or comment.
type block struct{ id, event, data, comment, retry string }

// read returns the next block.
func (st *stream) read() (b block, err error) {
	for {
		line, err := st.r.ReadString('\n')
		if err != nil {
			return b, err
		}
		line = strings.TrimSuffix(line, "\n")
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "id":
			if s, ok := st.resp.Request.Context().Value(siteKey{}).(*site); ok {
				value = s.unseal(value)
			}
			b.id, st.id = value, value
		case "event":
			b.event = value
		case "data":
			b.data = value
		case "retry":
			b.retry = value
		case "":
			if line == "" {
				return b, nil
			}
			b.comment = value
		case ":":
			b.comment = "(empty)"
		default:
			return b, errors.New("unexpected line " + line)
		}
	}
}

func (st *stream) block(t testing.TB) block {
	t.Helper()
	b, err := st.read()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// next returns the next event.
func (st *stream) next(t testing.TB) block {
	t.Helper()
	for {
		if b := st.block(t); b.data != "" {
			return b
		}
	}
}

// want reads events and compares their data.
func (st *stream) want(t testing.TB, data ...string) {
	t.Helper()
	for _, want := range data {
		if got := st.next(t); got.data != want {
			t.Fatalf("got  %s\nwant %s", got.data, want)
		}
	}
}

// ended reads to the end of the stream, which must be a proper one, and
// returns the last block.
func (st *stream) ended(t testing.TB) (last block) {
	t.Helper()
	for {
		b, err := st.read()
		if err == io.EOF {
			return last
		}
		if err != nil {
			t.Fatal(err)
		}
		last = b
	}
}

// close disconnects.
func (st *stream) close() { _ = st.resp.Body.Close() }

const gapData = `{"Error":{"status":2,"message":"changes are missing, list again"},"seq":1}`
