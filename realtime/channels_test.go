package realtime_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/realtime"
	"github.com/bedplate/bedplate/sqlite"
)

const channelGap = `{"message":"events are missing"}`

// TestChannelAccess: nobody may listen unless the application says so.
func TestChannelAccess(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		accept  func(*http.Request, string) error
		channel string
		want    string
	}{
		"no Accept":       {nil, "news", "403 "},
		"error":           {func(*http.Request, string) error { return errors.New("secret reason") }, "news", "403 "},
		"known error":     {func(*http.Request, string) error { return &realtime.Error{Status: 404, Text: "no such room"} }, "news", "404 no such room"},
		"wrapped":         {func(*http.Request, string) error { return fmt.Errorf("x: %w", &realtime.Error{Status: 401}) }, "news", "401 "},
		"name with space": {acceptAll, "a%20b", "403 "},
		"name with slash": {acceptAll, "a%2Fb", "403 "},
		"name with NUL":   {acceptAll, "a%00", "403 "},
		"name not ASCII":  {acceptAll, "\u00e4", "403 "},
		"name too long":   {acceptAll, strings.Repeat("x", 129), "403 "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, realtime.Config{Accept: c.accept})
			resp, body := s.refused(t, "/api/realtime/v1/"+c.channel)
			if got := resp.Status[:4] + body; got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	s := newSite(t, realtime.Config{Accept: func(_ *http.Request, channel string) error {
		if channel != "open" {
			return errors.New("closed")
		}
		return nil
	}})
	open := s.open(t, "/api/realtime/v1/open")
	s.refused(t, news)
	s.publish(t, "news", 1)
	s.publish(t, "open", 2)
	open.want(t, "2")
}

func (s *site) publish(t testing.TB, channel string, event any) {
	t.Helper()
	if err := s.svc.Publish(context.Background(), channel, event); err != nil {
		t.Fatal(err)
	}
}

func TestPublish(t *testing.T) {
	t.Parallel()
	s := newSite(t, realtime.Config{Accept: acceptAll, MaxEvent: 100})
	longest := strings.Repeat("aZ09_-.:", 16)
	st, other := s.open(t, news), s.open(t, "/api/realtime/v1/"+longest)
	events := []any{nil, true, 1.5, "a\nb\r\u2028<", []int{}, map[string]any{"a": nil, "seq": 9}, json.RawMessage("{ \"a\" :\n1}")}
	want := []string{"null", "true", "1.5", `"a\nb\r\u2028\u003c"`, "[]", `{"a":null,"seq":9}`, `{"a":1}`}
	for i, e := range events {
		s.publish(t, "news", e)
		b := st.next(t)
		if b.data != want[i] || b.id != s.head(t) || b.event != "" {
			t.Errorf("%v: %+v, want %s with the id %s", e, b, want[i], s.head(t))
		}
	}
	s.publish(t, longest, strings.Repeat("x", 98))
	other.want(t, `"`+strings.Repeat("x", 98)+`"`)

	head := s.head(t)
	ctx := t.Context()
	for _, channel := range []string{"", "a b", "a/b", "\u00e4", "a\x00", "*", longest + "x"} {
		if err := s.svc.Publish(ctx, channel, 1); err == nil {
			t.Errorf("channel %q is accepted", channel)
		}
	}
	for _, event := range []any{strings.Repeat("x", 99), make(chan int), json.RawMessage("{"), json.RawMessage("1\n\ndata: 2")} {
		if err := s.svc.Publish(ctx, "news", event); err == nil {
			t.Errorf("event %v is accepted", event)
		}
	}
	if now := s.head(t); now != head {
		t.Errorf("the head has moved from %s to %s", head, now)
	}
}

func TestPublishTx(t *testing.T) {
	t.Parallel()
	s := newSite(t, realtime.Config{Accept: acceptAll})
	st, notes := s.open(t, news), s.open(t, allNotes)
	for i, fail := range []error{nil, errUndo, nil} {
		err := s.db.Update(t.Context(), func(tx *sqlite.Tx) error {
			_, err := tx.ExecContext(t.Context(), "INSERT INTO note VALUES (?, 0)", i)
			if err == nil {
				err = s.svc.PublishTx(t.Context(), tx, "news", i)
			}
			return errors.Join(err, fail)
		})
		if !errors.Is(err, fail) {
			t.Fatal(err)
		}
	}
	st.want(t, "0", "2")
	notes.want(t, `{"Insert":{"id":0,"n":0},"seq":1}`, `{"Insert":{"id":2,"n":0},"seq":2}`)
}

// TestChannelResume: events are kept, also over a restart, until they are
// pruned.
func TestChannelResume(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "test.db")
	db := sqlitetest.OpenFile(t, path, siteSchema)
	s := &site{db: db, log: mainLog(t, db, "note"), svc: newService(t, db, realtime.Config{Accept: acceptAll})}
	s.publish(t, "news", "before")
	position := s.head(t)
	s.publish(t, "other", "x")
	s.publish(t, "news", 1)
	if err := errors.Join(s.svc.Close(), db.Close()); err != nil {
		t.Fatal(err)
	}

	s = newSiteOn(t, sqlitetest.OpenFile(t, path, ""), realtime.Config{Accept: acceptAll})
	s.publish(t, "news", 2)
	for range 2 {
		s.open(t, news, "Last-Event-ID", position).want(t, "1", "2")
	}
	last := s.head(t)
	s.publish(t, "news", 3)
	s.prune(t, "1")
	s.publish(t, "news", 4)
	s.open(t, news+"?since="+last).want(t, "3", "4")

	st := newStream(t, s.get(t, news+"?last_event_id="+position))
	if hello := st.block(t); hello.id == "" {
		t.Errorf("begins with %+v", hello)
	}
	if b := st.next(t); b.event != "gap" || b.data != channelGap {
		t.Errorf("after pruning: %+v", b)
	}
	st.want(t, "3", "4")
	st = newStream(t, s.get(t, news, "Last-Event-ID", "x"))
	if b := st.next(t); b.event != "gap" || b.data != channelGap || b.id != s.head(t) {
		t.Errorf("from nowhere: %+v", b)
	}
	s.publish(t, "news", 5)
	st.want(t, "5")
}

// TestPublishConcurrently: all who listen get all, in one order.
func TestPublishConcurrently(t *testing.T) {
	t.Parallel()
	const publishers, each, listeners = 8, 50, 4
	s := newSite(t, realtime.Config{Accept: acceptAll})
	streams := make([]*stream, listeners)
	for i := range streams {
		streams[i] = s.open(t, news)
	}
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for i := range each {
				if err := s.svc.Publish(context.Background(), "news", [2]int{p, i}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	order := make([]string, publishers*each)
	for i, st := range append(streams, s.open(t, news+"?since="+strings.Split(s.head(t), ".")[0]+".0")) {
		next := make([]int, publishers)
		for j := range order {
			b := st.next(t)
			switch {
			case i == 0:
				order[j] = b.data
			case order[j] != b.data:
				t.Fatalf("event %d of stream %d is %s, of the first %s", j, i, b.data, order[j])
			}
			e := decode[[2]int](t, []byte(b.data))
			if e[1] != next[e[0]] {
				t.Fatalf("publisher %d: event %d after %d", e[0], e[1], next[e[0]])
			}
			next[e[0]]++
		}
	}
}
