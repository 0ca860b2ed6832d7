package realtime_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/realtime"
	"github.com/bedplate/bedplate/sqlite"
)

// A hold holds whoever judges a row with n = 1, until it is released.
type hold struct {
	held, open chan struct{}
	release    func()
}

func newHold() hold {
	h := hold{held: make(chan struct{}, 100), open: make(chan struct{})}
	h.release = sync.OnceFunc(func() { close(h.open) })
	return h
}

func (h hold) sees(_ *sqlite.Scratch, _ any, row []any) (bool, error) {
	if row[1] == int64(1) {
		h.held <- struct{}{}
		<-h.open
	}
	return true, nil
}

// TestFiltersHoldUpNobody: what clients ask for can take long to judge, also
// right after their coming. Others have their events before.
func TestFiltersHoldUpNobody(t *testing.T) {
	t.Parallel()
	h := newHold()
	defer h.release()
	s := newSite(t, realtime.Config{Accept: acceptAll, Subscribe: views{
		"notes":  {table: "note"},
		"slow":   {table: "note", sees: h.sees, same: true, filtered: true},
		"others": {table: "other"},
	}.subscribe})
	slow := s.open(t, "/api/records/v1/slow/subscribe/*")
	all, other, channel := s.open(t, allNotes), s.open(t, allOther), s.open(t, news)
	s.exec(t, "INSERT INTO note VALUES (1, 1)", "INSERT INTO other VALUES (1, 1)")
	<-h.held
	const event = `{"Insert":{"id":1,"n":1},"seq":1}`
	all.want(t, event)
	other.want(t, event)
	if err := s.svc.Publish(t.Context(), "news", 1); err != nil {
		t.Fatal(err)
	}
	channel.want(t, "1")
	h.release()
	slow.want(t, event)
}

// TestNewFiltersHoldUpNobody: nor do they when they go on where they were.
func TestNewFiltersHoldUpNobody(t *testing.T) {
	t.Parallel()
	h := newHold()
	defer h.release()
	s := newSite(t, realtime.Config{Heartbeat: 20 * time.Millisecond, Subscribe: views{
		"cheap": {table: "note", filtered: true},
		"slow":  {table: "note", sees: h.sees, same: true, filtered: true},
	}.subscribe})
	start := s.head(t)
	s.exec(t, "INSERT INTO note VALUES (1, 1)")
	const path = "/api/records/v1/cheap/subscribe/*"
	cheap := s.open(t, path)
	s.exec(t, "WITH RECURSIVE i(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM i WHERE n < 33) INSERT INTO note SELECT n, n FROM i")
	for range 32 { // it is known what that costs
		cheap.next(t)
	}
	var slow []*stream
	for range 5 {
		slow = append(slow, s.open(t, "/api/records/v1/slow/subscribe/*?since="+start))
	}
	<-h.held
	// On a busy machine it may have seemed to cost much, until there are more changes.
	told := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() {
		for s.tryExec(t, "UPDATE note SET n = n + 100 WHERE id > 1") {
			select {
			case <-told:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	stop := sync.OnceFunc(func() { close(told); writing.Wait() })
	defer stop()
	s.open(t, path+"?since="+start).want(t, `{"Insert":{"id":1,"n":1},"seq":1}`)
	stop()
	h.release()
	for _, st := range slow {
		st.want(t, `{"Insert":{"id":1,"n":1},"seq":1}`)
	}
}

// TestWaitingToCatchUp: who has to wait for others who catch up is told that
// the server is there, and ends like everybody.
func TestWaitingToCatchUp(t *testing.T) {
	t.Parallel()
	h := newHold()
	defer h.release()
	s := newSite(t, realtime.Config{Heartbeat: 20 * time.Millisecond, Identify: identify, Subscribe: views{
		"notes":  {table: "note", sees: h.sees, same: true},
		"others": {table: "other"},
	}.subscribe})
	start := s.head(t)
	s.exec(t, "INSERT INTO note VALUES (1, 1)", "INSERT INTO other VALUES (1, 1)")
	for range 2 {
		s.open(t, allNotes+"?since="+start)
		<-h.held
	}
	waiting := s.open(t, allOther+"?since="+start, "X-User", "ann")
	for range 3 {
		if b := waiting.block(t); b.id != start || b.data != "" {
			t.Fatalf("%+v", b)
		}
	}
	s.svc.End(func(id realtime.Identity) bool { return id.User == "ann" })
	waiting.wantBye(t)
}

// TestGoingOnIsJudgedNow: who comes back is told by the rights that it has
// now, also what is still kept for others with the same view.
func TestGoingOnIsJudgedNow(t *testing.T) {
	t.Parallel()
	h := newHold()
	defer h.release()
	s := newSite(t, realtime.Config{Heartbeat: 20 * time.Millisecond, Subscribe: views{"notes": {table: "note", sees: func(q *sqlite.Scratch, user any, row []any) (bool, error) {
		if ok, err := h.sees(q, user, row); err != nil {
			return ok, err
		}
		return seesMember(q, user, row)
	}}}.subscribe})
	s.exec(t, "INSERT INTO member VALUES ('ann'), ('bob')")
	start := s.head(t)
	s.exec(t, "INSERT INTO note VALUES (1, 1)")
	since := s.head(t)
	s.open(t, allNotes+"?since="+start, "X-User", "bob")
	<-h.held
	ann := s.open(t, allNotes, "X-User", "ann")
	s.exec(t, "INSERT INTO note VALUES (2, 2)")
	ann.want(t, `{"Insert":{"id":2,"n":2},"seq":1}`) // and it waits for bob
	s.exec(t, "DELETE FROM member WHERE user = 'bob'")
	bob := s.open(t, allNotes+"?since="+since, "X-User", "bob")
	bob.upTo(t, s.head(t))
	h.release()
	s.exec(t, "INSERT INTO member VALUES ('bob')")
	s.exec(t, "INSERT INTO note VALUES (3, 3)")
	bob.want(t, `{"Insert":{"id":3,"n":3},"seq":1}`)
}

// upTo reads until the stream tells that position, and no event.
func (st *stream) upTo(t testing.TB, position string) {
	t.Helper()
	for st.id != position {
		if b := st.block(t); b.data != "" {
			t.Fatalf("got %s", b.data)
		}
	}
}

// TestKeysOfOtherTypes: users that cannot be told apart get no stream.
func TestKeysOfOtherTypes(t *testing.T) {
	t.Parallel()
	type id int64
	for name, sub := range map[string]*realtime.Subscription{
		"user":    {View: &testView{table: "note"}, User: id(1)},
		"record":  {View: &testView{table: "note"}, Record: 1},
		"array":   {View: &testView{table: "note"}, User: [16]byte{}},
		"no view": {},
		"none":    nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, realtime.Config{Subscribe: func(*http.Request, string, string) (*realtime.Subscription, error) { return sub, nil }})
			if resp, _ := s.refused(t, allNotes); resp.StatusCode != http.StatusInternalServerError {
				t.Error(resp.Status)
			}
		})
	}
}
