package realtime_test

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/realtime"
	"github.com/bedplate/bedplate/sqlite"
)

// TestStreamBytes compares a whole stream, in both framings.
func TestStreamBytes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ accept, want string }{
		"standard": {"text/html, text/event-stream;q=0.9", "retry: 2000\nid: E.0\n: ping\n\n" +
			"id: E.1\ndata: {\"Insert\":{\"id\":1,\"n\":5},\"seq\":1}\n\n" +
			"id: E.2\ndata: {\"Update\":{\"id\":1,\"n\":6},\"seq\":2}\n\n" +
			"data: {\"Delete\":{\"id\":1,\"n\":6},\"seq\":3}\n\n" +
			"id: E.3\ndata: {\"Insert\":{\"id\":2,\"n\":6},\"seq\":4}\n\n" +
			"id: E.5\ndata: {\"Delete\":{\"id\":2,\"n\":6},\"seq\":5}\n\n"},
		"TrailBase": {"*/*", ": ping\n\nid: E.0\n\n" +
			"data: {\"Insert\":{\"id\":1,\"n\":5},\"seq\":1}\n\nid: E.1\n\n" +
			"data: {\"Update\":{\"id\":1,\"n\":6},\"seq\":2}\n\nid: E.2\n\n" +
			"data: {\"Delete\":{\"id\":1,\"n\":6},\"seq\":3}\n\n" +
			"data: {\"Insert\":{\"id\":2,\"n\":6},\"seq\":4}\n\nid: E.3\n\n" +
			"data: {\"Delete\":{\"id\":2,\"n\":6},\"seq\":5}\n\nid: E.5\n\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, realtime.Config{})
			head, err := sqlite.ParsePosition(s.head(t))
			if err != nil {
				t.Fatal(err)
			}
			resp := s.do(t, http.MethodGet, "/api/records/v1/notes/subscribe/%2A", "Accept", c.accept)
			want := c.want
			sealed := len(s.seal(head.String()))
			for n := range int64(6) {
				at := fmt.Sprintf("%-*s\n", sealed, sqlite.Position{Epoch: head.Epoch, Seq: head.Seq + n})
				want = strings.ReplaceAll(want, fmt.Sprintf("E.%d\n", n), at)
			}
			ids := regexp.MustCompile(`id: (\S+)\n`)
			plain := func(text []byte) string {
				return ids.ReplaceAllStringFunc(string(text), func(line string) string {
					return fmt.Sprintf("id: %-*s\n", sealed, s.unseal(line[len("id: "):len(line)-1]))
				})
			}

			// What a stream begins with comes before there is any event.
			begin := want[:strings.Index(want, "ping")+6]
			got := make([]byte, len(begin))
			if _, err := io.ReadFull(resp.Body, got); err != nil || plain(got) != begin {
				t.Fatalf("begins with %q, %v; want %q", got, err, begin)
			}

			s.exec(t, "INSERT INTO note VALUES (1, 5)")
			s.exec(t, "UPDATE note SET n = 6")
			s.exec(t, "UPDATE note SET id = 2")
			s.exec(t, "INSERT INTO other VALUES (1, 1)")
			s.exec(t, "DELETE FROM note")
			rest := make([]byte, len(want)-len(begin))
			if _, err := io.ReadFull(resp.Body, rest); err != nil || plain(rest) != want[len(begin):] {
				t.Errorf("got\n%s, %v\nwant\n%s", rest, err, want[len(begin):])
			}
			s.svc.Drain()
			rest, err = io.ReadAll(resp.Body)
			if last := string(rest); err != nil || !strings.HasSuffix(last, ": bye\n\n") || strings.Contains(last, "data") {
				t.Errorf("ends with %q, %v", last, err)
			}
		})
	}
}

func TestStreamHeaders(t *testing.T) {
	t.Parallel()
	s := newSite(t, realtime.Config{})
	h := s.get(t, allNotes).Header
	for name, want := range map[string]string{
		"Content-Type": "text/event-stream", "Cache-Control": "no-cache, no-transform",
		"X-Accel-Buffering": "no", "Vary": "Accept", "Content-Length": "", "Connection": "",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// TestStreamRecord: who watches a record is told of no other, and goes on
// being told of its key.
func TestStreamRecord(t *testing.T) {
	t.Parallel()
	s := newSite(t, realtime.Config{})
	s.exec(t, "INSERT INTO note VALUES (1, 0), (2, 0)")
	one := s.open(t, oneNote)
	two := s.open(t, "/api/records/v1/notes/subscribe/2")
	s.exec(t, "INSERT INTO note VALUES (3, 0)")
	s.exec(t, "UPDATE note SET n = 1")
	s.exec(t, "DELETE FROM note WHERE id = 1")
	s.exec(t, "UPDATE note SET id = 1 WHERE id = 2") // another record takes the key
	s.exec(t, "UPDATE note SET n = 2 WHERE id = 1")
	one.want(t, `{"Update":{"id":1,"n":1},"seq":1}`, `{"Delete":{"id":1,"n":1},"seq":2}`,
		`{"Insert":{"id":1,"n":1},"seq":3}`, `{"Update":{"id":1,"n":2},"seq":4}`)
	s.exec(t, "INSERT INTO note VALUES (2, 9)")
	two.want(t, `{"Update":{"id":2,"n":1},"seq":1}`, `{"Delete":{"id":2,"n":1},"seq":2}`, `{"Insert":{"id":2,"n":9},"seq":3}`)
}

// TestStreamTransaction: the changes of a transaction come in their order, those
// of one that was rolled back never.
func TestStreamTransaction(t *testing.T) {
	t.Parallel()
	s := newSite(t, realtime.Config{})
	st := s.open(t, allNotes)
	s.exec(t, "INSERT INTO note VALUES (1, 1), (2, 2)", "SAVEPOINT a", "DELETE FROM note", "ROLLBACK TO a", "UPDATE note SET n = 3 WHERE id = 1")
	st.want(t, `{"Insert":{"id":1,"n":1},"seq":1}`, `{"Insert":{"id":2,"n":2},"seq":2}`, `{"Update":{"id":1,"n":3},"seq":3}`)
}

// TestStreamBeginsAtTheRequest: what was acknowledged before is not news.
func TestStreamBeginsAtTheRequest(t *testing.T) {
	t.Parallel()
	s := newSite(t, realtime.Config{})
	first := s.open(t, allNotes)
	for i := range 20 {
		s.exec(t, "INSERT INTO note (n) VALUES (0)")
		st := s.open(t, allNotes)
		s.exec(t, "DELETE FROM note")
		if got := st.next(t).data; !strings.HasPrefix(got, `{"Delete":`) {
			t.Fatalf("stream %d begins with %s", i, got)
		}
		st.close()
	}
	for range 20 {
		first.next(t)
		first.next(t)
	}
}

// TestStreamRefusals: what is told to whom gets no stream.
func TestStreamRefusals(t *testing.T) {
	t.Parallel()
	s := newSite(t, realtime.Config{Subscribe: func(r *http.Request, api, record string) (*realtime.Subscription, error) {
		switch api {
		case "secret":
			return nil, &realtime.Error{Status: http.StatusForbidden, Cause: io.ErrNoProgress}
		case "broken":
			return nil, io.ErrNoProgress
		}
		return nil, &realtime.Error{Status: http.StatusBadRequest, Text: api + "/" + record}
	}})
	for path, want := range map[string]string{
		"/api/records/v1/secret/subscribe/*": "403 ",
		"/api/records/v1/broken/subscribe/*": "500 ",
		"/api/records/v1/a/subscribe/b":      "400 a/b",
	} {
		resp, body := s.refused(t, path)
		if got := resp.Status[:4] + body; got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	bare := newService(t, s.db, realtime.Config{})
	s.srv.Config.Handler = routes(bare)
	if resp, _ := s.refused(t, allNotes); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("without Subscribe: %s", resp.Status)
	}
}
