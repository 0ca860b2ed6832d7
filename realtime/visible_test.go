package realtime_test

import (
	"database/sql/driver"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bedplate/bedplate/realtime"
	"github.com/bedplate/bedplate/sqlite"
)

const denied = `{"Error":{"status":1,"message":"Access denied"}}`

// TestVisibility is what a change is to somebody who may see the row before
// it, after it, both or neither. Rows with n > 0 can be seen.
func TestVisibility(t *testing.T) {
	t.Parallel()
	const (
		insert = `{"Insert":{"id":%d,"n":%d}}`
		update = `{"Update":{"id":%d,"n":%d}}`
		delete = `{"Delete":{"id":%d,"n":%d}}`
	)
	event := fmt.Sprintf
	for name, c := range map[string]struct {
		before, change string
		all, one       []string // told to those who watch all records, and the one with the key 1
	}{
		"insert, seen":           {"", "INSERT INTO note VALUES (1, 2)", []string{event(insert, 1, 2)}, []string{event(insert, 1, 2)}},
		"insert, unseen":         {"", "INSERT INTO note VALUES (1, -2)", nil, nil},
		"insert, another record": {"", "INSERT INTO note VALUES (5, 2)", []string{event(insert, 5, 2)}, nil},

		"update, seen":            {"(1, 1)", "UPDATE note SET n = 2", []string{event(update, 1, 2)}, []string{event(update, 1, 2)}},
		"update, comes into view": {"(1, -1)", "UPDATE note SET n = 2", []string{event(update, 1, 2)}, []string{event(update, 1, 2)}},
		"update, leaves view":     {"(1, 1)", "UPDATE note SET n = -2", []string{event(delete, 1, 1)}, []string{denied}},
		"update, unseen":          {"(1, -1)", "UPDATE note SET n = -2", nil, nil},

		"delete, seen":   {"(1, 1)", "DELETE FROM note", []string{event(delete, 1, 1)}, []string{event(delete, 1, 1)}},
		"delete, unseen": {"(1, -1)", "DELETE FROM note", nil, nil},

		"key changes, seen":            {"(1, 1)", "UPDATE note SET id = 5", []string{event(delete, 1, 1), event(insert, 5, 1)}, []string{event(delete, 1, 1)}},
		"key changes, leaves view":     {"(1, 1)", "UPDATE note SET id = 5, n = -1", []string{event(delete, 1, 1)}, []string{event(delete, 1, 1)}},
		"key changes, comes into view": {"(1, -1)", "UPDATE note SET id = 5, n = 1", []string{event(insert, 5, 1)}, nil},
		"key changes, unseen":          {"(1, -1)", "UPDATE note SET id = 5", nil, nil},

		"key is taken, seen":            {"(5, 1)", "UPDATE note SET id = 1", []string{event(delete, 5, 1), event(insert, 1, 1)}, []string{event(insert, 1, 1)}},
		"key is taken, leaves view":     {"(5, 1)", "UPDATE note SET id = 1, n = -1", []string{event(delete, 5, 1)}, nil},
		"key is taken, comes into view": {"(5, -1)", "UPDATE note SET id = 1, n = 1", []string{event(insert, 1, 1)}, []string{event(insert, 1, 1)}},
		"key is taken, unseen":          {"(5, -1)", "UPDATE note SET id = 1", nil, nil},
	} {
		for _, same := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/same=%v", name, same), func(t *testing.T) {
				t.Parallel()
				s := newSite(t, realtime.Config{Subscribe: views{
					"notes": {table: "note", same: same, sees: func(_ *sqlite.Scratch, _ any, row []any) (bool, error) { return row[1].(int64) > 0, nil }},
				}.subscribe})
				if c.before != "" {
					s.exec(t, "INSERT INTO note VALUES "+c.before)
				}
				start := s.head(t)
				all, one := s.open(t, allNotes), s.open(t, oneNote)
				s.exec(t, c.change)
				s.exec(t, "INSERT INTO note VALUES (1, 777) ON CONFLICT DO UPDATE SET n = 777")

				compare := func(how string, got, want []string) {
					t.Helper()
					if !slices.Equal(got, want) {
						t.Errorf("%s: got %q, want %q", how, got, want)
					}
				}
				compare("all, live", all.untilMark(t), c.all)
				compare("one, live", one.untilMark(t), c.one)
				compare("all, later", s.open(t, allNotes+"?since="+start).untilMark(t), c.all)
				compare("one, later", s.open(t, oneNote+"?since="+start).untilMark(t), c.one)
			})
		}
	}
}

// untilMark returns the events before one with the number 777, or all if the
// stream ends, without their own numbers.
func (st *stream) untilMark(t testing.TB) (events []string) {
	t.Helper()
	for n := 1; ; {
		b, err := st.read()
		if err != nil {
			if len(events) == 0 || events[len(events)-1] != denied {
				t.Fatal(err)
			}
			return events
		}
		if b.data == "" {
			continue
		}
		event, ok := strings.CutSuffix(b.data, fmt.Sprintf(`,"seq":%d}`, n))
		if !ok {
			t.Fatalf("event %d is %s", n, b.data)
		}
		n++
		if event += "}"; strings.Contains(event, `"n":777`) {
			return events
		}
		events = append(events, event)
	}
}

// TestLiveIsWhatIsReadLater makes random changes of rows that random users may
// see. What they get as it happens, what they get later from memory and what
// they get from the log is the same, and what a model says.
func TestLiveIsWhatIsReadLater(t *testing.T) {
	t.Parallel()
	users := []string{"0", "1", "2"}
	sees := func(_ *sqlite.Scratch, user any, row []any) (bool, error) {
		return modelSees(user.(string), row[1].(int64)), nil
	}
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, realtime.Config{Subscribe: views{"notes": {table: "note", sees: sees}, "others": {table: "other"}}.subscribe})
			model := &model{rand: rand.New(rand.NewPCG(seed, 1)), rows: map[int64]int64{}}
			start := s.head(t)
			streams := func() (all map[string]*stream) {
				all = map[string]*stream{}
				for _, u := range users {
					for _, path := range []string{allNotes, oneNote} {
						all[path+" "+u] = s.open(t, path+"?since="+start, "X-User", u)
					}
				}
				return all
			}
			live := streams()
			for range 400 {
				model.step(t, s)
			}
			s.exec(t, "INSERT INTO note VALUES (1, 777) ON CONFLICT DO UPDATE SET n = 777")

			check := func(how string, of map[string]*stream) {
				t.Helper()
				for _, u := range users {
					for _, path := range []string{allNotes, oneNote} {
						got, want := of[path+" "+u].untilMark(t), model.events(u, path == oneNote)
						if i := differ(got, want); i >= 0 {
							t.Errorf("%s, %s of user %s: event %d of %d and %d differs\ngot  %q\nwant %q", how, path, u, i, len(got), len(want), from(got, i), from(want, i))
						}
					}
				}
			}
			check("live", live)
			for _, st := range live {
				st.close()
			}
			// Others keep the changes in memory, then nobody does.
			other := s.open(t, allOther)
			waitUntil(t, func() bool { return s.svc.Streams() == 1 })
			again := streams()
			check("again", again)
			other.close()
			for _, st := range again {
				st.close()
			}
			waitUntil(t, func() bool { return s.svc.Streams() == 0 })
			check("from the log", streams())
		})
	}
}

func differ(a, b []string) int {
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			return i
		}
	}
	return -1
}

func from(s []string, i int) []string { return s[min(i, len(s)):min(i+3, len(s))] }

// modelSees lets two of three users see a row, and all see the one that is the
// mark.
func modelSees(user string, n int64) bool { return n == 777 || fmt.Sprint((n+100)%3) != user }

// A model keeps what it has done to the table note.
type model struct {
	rand    *rand.Rand
	rows    map[int64]int64
	changes []modelChange
}

// A modelChange has nil for no row.
type modelChange struct{ before, after *[2]int64 }

// step makes one change.
func (m *model) step(t *testing.T, s *site) {
	id, n := 1+m.rand.Int64N(6), m.rand.Int64N(12)
	old, exists := m.rows[id]
	other := 1 + m.rand.Int64N(6)
	_, taken := m.rows[other]
	switch {
	case !exists:
		s.exec(t, fmt.Sprintf("INSERT INTO note VALUES (%d, %d)", id, n))
		m.changes = append(m.changes, modelChange{nil, &[2]int64{id, n}})
		m.rows[id] = n
	case n == 0:
		s.exec(t, fmt.Sprintf("DELETE FROM note WHERE id = %d", id))
		m.changes = append(m.changes, modelChange{&[2]int64{id, old}, nil})
		delete(m.rows, id)
	case n < 4 && !taken:
		s.exec(t, fmt.Sprintf("UPDATE note SET id = %d, n = %d WHERE id = %d", other, n, id))
		m.changes = append(m.changes, modelChange{&[2]int64{id, old}, &[2]int64{other, n}})
		delete(m.rows, id)
		m.rows[other] = n
	default:
		s.exec(t, fmt.Sprintf("UPDATE note SET n = %d WHERE id = %d", n, id))
		m.changes = append(m.changes, modelChange{&[2]int64{id, old}, &[2]int64{id, n}})
		m.rows[id] = n
	}
}

// events returns what a user is told, of all records or of the one with the
// key 1.
func (m *model) events(user string, one bool) (events []string) {
	tell := func(kind string, row *[2]int64) {
		events = append(events, fmt.Sprintf(`{"%s":{"id":%d,"n":%d}}`, kind, row[0], row[1]))
	}
	for _, c := range m.changes {
		mine := func(row *[2]int64) bool { return row != nil && (!one || row[0] == 1) }
		old := mine(c.before) && modelSees(user, c.before[1])
		now := mine(c.after) && modelSees(user, c.after[1])
		same := mine(c.before) && mine(c.after) && c.before[0] == c.after[0]
		switch {
		case same && now:
			tell("Update", c.after)
		case same && old && one:
			return append(events, denied)
		default:
			if old {
				tell("Delete", c.before)
			}
			if now {
				tell("Insert", c.after)
			}
		}
	}
	return events
}

// TestVisibilityIsAsOfNow: somebody who loses access between a commit and its
// delivery is not told.
func TestVisibilityIsAsOfNow(t *testing.T) {
	t.Parallel()
	var hold atomic.Pointer[chan struct{}]
	held := make(chan struct{})
	s := newSite(t, realtime.Config{Subscribe: views{"notes": {table: "note", sees: func(q *sqlite.Scratch, user any, row []any) (bool, error) {
		if row[1] == int64(1) {
			if c := hold.Swap(nil); c != nil {
				close(held)
				<-*c
			}
		}
		return seesMember(q, user, row)
	}}}.subscribe})
	s.exec(t, "INSERT INTO member VALUES ('ann'), ('bob')")
	ann := s.open(t, allNotes, "X-User", "ann")
	bob := s.open(t, allNotes, "X-User", "bob")

	release := make(chan struct{})
	hold.Store(&release)
	s.exec(t, "INSERT INTO note VALUES (1, 1)")
	<-held
	// While the first change is dealt with:
	s.exec(t, "INSERT INTO note VALUES (2, 2)")
	s.exec(t, "DELETE FROM member WHERE user = 'bob'")
	close(release)
	ann.want(t, `{"Insert":{"id":1,"n":1},"seq":1}`, `{"Insert":{"id":2,"n":2},"seq":2}`)
	s.exec(t, "INSERT INTO member VALUES ('bob')")
	s.exec(t, "INSERT INTO note VALUES (3, 3)")
	ann.want(t, `{"Insert":{"id":3,"n":3},"seq":3}`)
	bob.want(t, `{"Insert":{"id":1,"n":1},"seq":1}`, `{"Insert":{"id":3,"n":3},"seq":2}`)
}

// seesMember lets members see everything, among whom "" are those who have not
// signed in.
func seesMember(q *sqlite.Scratch, user any, _ []any) (ok bool, err error) {
	name, _ := user.(string)
	err = q.Query("SELECT 1 FROM member WHERE user = ?", []driver.Value{name}, func([]driver.Value) error { ok = true; return nil })
	return ok, err
}
