package realtime_test

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/bedplate/bedplate/realtime"
	"github.com/bedplate/bedplate/sqlite"
)

// TestResumeInputs: the position is in the first of the header, last_event_id
// and since that says something.
func TestResumeInputs(t *testing.T) {
	t.Parallel()
	s := newSite(t, realtime.Config{})
	at := make([]string, 4) // behind so many changes
	for i := range at {
		if at[i] = s.head(t); i < 3 {
			s.exec(t, fmt.Sprintf("INSERT INTO note VALUES (%d, 0)", i+1))
		}
	}
	const header = "Last-Event-ID"
	var streams []*stream
	var firsts []int
	for _, c := range []struct {
		query, header string
		first         int // record that is told first
	}{
		{"", at[0], 1},
		{"?last_event_id=" + at[1], "", 2},
		{"?since=" + at[2], "", 3},
		{"?since=" + at[3], "", 4},
		{"?since=" + at[0] + "&last_event_id=" + at[1], at[2], 3},
		{"?since=" + at[0] + "&last_event_id=" + at[1], "", 2},
		{"?since=" + at[1] + "&last_event_id=", "", 2},
		{"?since=" + at[0], "otherepoch.1", 0},
		{"?since=", "", 4},
		{"", "", 4},
	} {
		st := newStream(t, s.get(t, allNotes+c.query, header, c.header))
		if c.first == 0 {
			st.want(t, gapData)
			continue
		}
		streams = append(streams, st)
		firsts = append(firsts, c.first)
	}
	s.exec(t, "INSERT INTO note VALUES (4, 0)")
	for i, st := range streams {
		for n, id := 1, firsts[i]; id <= 4; n, id = n+1, id+1 {
			st.want(t, fmt.Sprintf(`{"Insert":{"id":%d,"n":0},"seq":%d}`, id, n))
		}
	}
}

// TestH4_Positions: from a position that is none of this history, a client is
// told that it has missed something, and then what happens from now on.
func TestH4_Positions(t *testing.T) {
	t.Parallel()
	s := newSite(t, realtime.Config{})
	s.exec(t, "INSERT INTO note VALUES (1, 0), (2, 0), (3, 0)")
	head, err := sqlite.ParsePosition(s.head(t))
	if err != nil {
		t.Fatal(err)
	}
	e := head.Epoch
	for _, position := range []string{
		e + "." + fmt.Sprint(head.Seq+1), "otherepoch00.1", "." + fmt.Sprint(head.Seq), strings.ToUpper(e) + ".1",
		e + ".9223372036854775807", e + ".9223372036854775808", e + ".99999999999999999999999999",
		e + ".-1", e + ".-9223372036854775808", e + ".+1", e + ".", e + ".1.1", e + ".0x1", e + ".1e3", e + ".1 ", e,
		"1", "-1", "0", "x", "null", "'; DROP TABLE note; --", "%00", "\u0661", strings.Repeat("9", 5000), strings.Repeat("x", 5000) + ".1",
	} {
		st := newStream(t, s.get(t, allNotes+"?since="+url.QueryEscape(position)))
		if hello := st.block(t); hello.comment != "ping" || hello.id != "" {
			t.Fatalf("%.40q: begins with %+v", position, hello)
		}
		if b := st.block(t); b.data != gapData || b.id != s.head(t) {
			t.Fatalf("%.40q: %+v, want a gap up to %s", position, b, s.head(t))
		}
		s.exec(t, "UPDATE note SET n = n + 1 WHERE id = 1")
		if b := st.block(t); !strings.HasPrefix(b.data, `{"Update":{"id":1,`) || !strings.HasSuffix(b.data, `"seq":2}`) {
			t.Fatalf("%.40q: then %+v", position, b)
		}
		st.close()
	}
}

// TestH4_PositionOfOthers: positions are of the database. One that was told to
// somebody else, about another API, opens nothing.
func TestH4_PositionOfOthers(t *testing.T) {
	t.Parallel()
	s := newSite(t, realtime.Config{Heartbeat: 10 * time.Millisecond, Subscribe: views{
		"notes": {table: "note", sees: seesMember}, "others": {table: "other"},
	}.subscribe})
	s.exec(t, "INSERT INTO member VALUES ('ann'), ('bob')")
	other := s.open(t, allOther)
	s.exec(t, "INSERT INTO other VALUES (1, 1)")
	position := other.next(t).id
	s.exec(t, "INSERT INTO note VALUES (1, 1)")
	s.exec(t, "INSERT INTO other VALUES (2, 2)")
	s.exec(t, "DELETE FROM member WHERE user = 'bob'")

	ann := s.open(t, allNotes, "Last-Event-ID", position, "X-User", "ann")
	bob := s.open(t, allNotes, "Last-Event-ID", position, "X-User", "bob")
	nobody := s.open(t, oneNote, "Last-Event-ID", position)
	ann.want(t, `{"Insert":{"id":1,"n":1},"seq":1}`)
	for _, st := range []*stream{bob, nobody} { // until they are up to date
		for head := s.head(t); st.id != head; {
			if b := st.block(t); b.data != "" {
				t.Fatalf("%+v", b)
			}
		}
	}
	s.exec(t, "INSERT INTO member VALUES ('bob'), ('')")
	s.exec(t, "UPDATE note SET n = 2")
	for _, st := range []*stream{bob, nobody} {
		st.want(t, `{"Update":{"id":1,"n":2},"seq":1}`) // nothing before it
	}
	s.open(t, allOther, "Last-Event-ID", position).want(t, `{"Insert":{"id":2,"n":2},"seq":1}`)
}

// TestResumeBehindPruned: one gap, and then exactly what is there.
func TestResumeBehindPruned(t *testing.T) {
	t.Parallel()
	s := newSite(t, realtime.Config{})
	start := s.head(t)
	for i := range 20 {
		s.exec(t, fmt.Sprintf("INSERT INTO note VALUES (%d, 0)", i+1))
	}
	s.prune(t, "5")
	for _, path := range []string{allNotes, "/api/records/v1/notes/subscribe/18"} {
		st := newStream(t, s.get(t, path+"?since="+start))
		st.want(t, gapData)
		gap := st.id
		events := func(st *stream, n int) {
			t.Helper()
			for id := 16; id <= 20; id++ {
				if path == allNotes || id == 18 {
					st.want(t, fmt.Sprintf(`{"Insert":{"id":%d,"n":0},"seq":%d}`, id, n))
					n++
				}
			}
		}
		events(st, 2)
		events(s.open(t, path+"?since="+gap), 1)
	}
}

// TestGapWhileLive: who reads the log live is told when it is pruned too soon.
func TestGapWhileLive(t *testing.T) {
	t.Parallel()
	s := newSite(t, realtime.Config{})
	all, one := s.open(t, allNotes), s.open(t, oneNote)
	s.exec(t, "INSERT INTO note VALUES (1, 1), (2, 2), (3, 3)",
		"UPDATE _change_state SET floor = (SELECT max(seq) FROM _change) - 1",
		"DELETE FROM _change WHERE seq <= (SELECT floor FROM _change_state)")
	s.exec(t, "UPDATE note SET n = 9 WHERE id = 1")
	all.want(t, gapData, `{"Insert":{"id":3,"n":3},"seq":2}`, `{"Update":{"id":1,"n":9},"seq":3}`)
	one.want(t, gapData, `{"Update":{"id":1,"n":9},"seq":2}`)
}

// TestSchemaChange: subscribers of a table whose columns change are told that
// there is a gap, once, and nothing of what the table was before. Others are
// not told.
func TestSchemaChange(t *testing.T) {
	t.Parallel()
	s := newSite(t, realtime.Config{})
	start := s.head(t)
	all, one, other := s.open(t, allNotes), s.open(t, oneNote), s.open(t, allOther)
	s.exec(t, "INSERT INTO note VALUES (1, 1)")
	s.exec(t, "INSERT INTO other VALUES (1, 1)")
	all.want(t, `{"Insert":{"id":1,"n":1},"seq":1}`)
	one.want(t, `{"Insert":{"id":1,"n":1},"seq":1}`)
	err := s.db.Migrate(context.Background(), fstest.MapFS{"0001_more.sql": {Data: []byte("ALTER TABLE note ADD COLUMN more TEXT")}})
	if err != nil {
		t.Fatal(err)
	}
	s.exec(t, "UPDATE note SET more = 'x'")
	s.exec(t, "INSERT INTO other VALUES (2, 2)")
	gap := strings.Replace(gapData, `"seq":1`, `"seq":2`, 1)
	all.want(t, gap, `{"Update":{"id":1,"n":1,"more":"x"},"seq":3}`)
	one.want(t, gap, `{"Update":{"id":1,"n":1,"more":"x"},"seq":3}`)
	other.want(t, `{"Insert":{"id":1,"n":1},"seq":1}`, `{"Insert":{"id":2,"n":2},"seq":2}`)

	later := func() {
		t.Helper()
		for _, path := range []string{allNotes, oneNote} {
			s.open(t, path+"?since="+start).want(t, gapData, `{"Update":{"id":1,"n":1,"more":"x"},"seq":2}`)
		}
		s.open(t, allOther+"?since="+start).want(t, `{"Insert":{"id":1,"n":1},"seq":1}`, `{"Insert":{"id":2,"n":2},"seq":2}`)
	}
	for _, st := range []*stream{all, one} { // other keeps the feed at work
		st.close()
	}
	waitUntil(t, func() bool { return s.svc.Streams() == 1 })
	later()
}

// TestCatchUp reads a long history while more is written.
func TestCatchUp(t *testing.T) {
	t.Parallel()
	n := 20_000
	if raceEnabled || testing.Short() {
		n = 5000
	}
	const more = 100
	s := newSiteWith(t, sqlite.Options{Synchronous: sqlite.Normal, ChangeLog: sqlite.ChangeLogOptions{MaxRows: -1}, Logger: quiet()}, realtime.Config{})
	start := s.head(t)
	s.exec(t, fmt.Sprintf("INSERT INTO note WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < %d) SELECT n, n FROM i", n))
	written := make(chan struct{})
	go func() {
		defer close(written)
		for i := range more {
			if !s.tryExec(t, fmt.Sprintf("INSERT INTO note VALUES (%d, 0)", n+1+i), "INSERT INTO other (n) VALUES (0)") {
				return
			}
		}
	}()
	defer func() { <-written }()
	live := s.open(t, allNotes) // so that there is an audience already
	defer live.close()
	st := s.open(t, allNotes+"?since="+start)
	last := start
	for i := 1; i <= n+more; i++ {
		b := st.next(t)
		want := i
		if i > n {
			want = 0
		}
		if b.data != fmt.Sprintf(`{"Insert":{"id":%d,"n":%d},"seq":%d}`, i, want, i) {
			t.Fatalf("event %d: %s", i, b.data)
		}
		if b.id == last || b.id == "" {
			t.Fatalf("event %d has the id %q, the one before %q", i, b.id, last)
		}
		last = b.id
	}
}

// TestHeartbeatTellsPosition: somebody who is never told of anything misses
// nothing when what he was not told of is pruned.
func TestHeartbeatTellsPosition(t *testing.T) {
	t.Parallel()
	s := newSite(t, realtime.Config{Heartbeat: 10 * time.Millisecond})
	for name, accept := range map[string]string{"standard": "text/event-stream", "TrailBase": "*/*"} {
		st := newStream(t, s.get(t, allNotes, "Accept", accept))
		for range 10 {
			s.exec(t, "INSERT INTO other (n) VALUES (0)")
		}
		for head := s.head(t); st.id != head; {
			if b := st.block(t); b.data != "" {
				t.Fatalf("%s: %+v", name, b)
			}
		}
		st.close()
		s.prune(t, "0")
		again := s.open(t, allNotes, "Last-Event-ID", st.id)
		s.exec(t, "INSERT INTO note VALUES (1, 1)")
		again.want(t, `{"Insert":{"id":1,"n":1},"seq":1}`)
		s.exec(t, "DELETE FROM note")
	}
}

// TestNewHistory: when the log begins anew, as in a restored file, streams end
// and whoever comes back is told that something is missing.
func TestNewHistory(t *testing.T) {
	t.Parallel()
	s := newSite(t, realtime.Config{})
	st := s.open(t, allNotes)
	s.exec(t, "INSERT INTO note VALUES (1, 1)")
	st.next(t)
	s.exec(t, "UPDATE _change_state SET epoch = 'another'")
	if last := st.ended(t); last.comment != "bye" {
		t.Errorf("ends with %+v", last)
	}
	waitUntil(t, func() bool { return s.svc.Streams() == 0 })
	again := newStream(t, s.get(t, allNotes, "Last-Event-ID", st.id))
	again.want(t, gapData)
	s.exec(t, "INSERT INTO note VALUES (2, 2)")
	again.want(t, `{"Insert":{"id":2,"n":2},"seq":2}`)
	if !strings.HasPrefix(again.id, "another.") {
		t.Errorf("position %s", again.id)
	}
}

// TestCatchUpOverSchemaChange: what was before a change of the schema is not
// told, however much it is, and what follows is.
func TestCatchUpOverSchemaChange(t *testing.T) {
	t.Parallel()
	s := newSite(t, realtime.Config{})
	start := s.head(t)
	for range 3 {
		s.exec(t, "INSERT INTO note (n) WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < 1000) SELECT n FROM i")
	}
	s.exec(t, "ALTER TABLE note ADD COLUMN more TEXT")
	s.exec(t, "DELETE FROM note WHERE id > 2")
	st := s.open(t, allNotes+"?since="+start)
	st.want(t, gapData)
	for id := 3; id <= 3000; id++ {
		if got, want := st.next(t).data, fmt.Sprintf(`{"Delete":{"id":%d,`, id); !strings.HasPrefix(got, want) {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
}
