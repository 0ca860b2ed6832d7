package realtime

import (
	"math"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

// How many events an audience keeps for members who are behind. Those who are
// further behind read the log.
const (
	sharedEvents = 4096
	ownEvents    = 256
	keptBytes    = 1 << 20 // in one audience
)

// An event is what one change is to an audience.
type event struct {
	seq   int64
	id    string    // the position behind it
	texts [2][]byte // one, or two when a row has changed its key
	end   error     // the stream ends behind it
}

func (e *event) size() int { return len(e.texts[0]) + len(e.texts[1]) }

// audience is the connections that see the same: one view, user and record, or
// one channel.
type audience struct {
	user  any // for View.Judge
	limit int // of events

	costly atomic.Bool // to judge, or not known to be cheap

	mu     sync.Mutex // guards what follows
	base   int64      // all events behind it are in events
	events []event
	bytes  int
	conns  map[*conn]struct{}
	behind int // conns that have not taken all events
}

func newAudience(base int64, limit int) *audience {
	return &audience{base: base, limit: limit, conns: map[*conn]struct{}{}}
}

func (a *audience) add(c *conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.conns[c] = struct{}{}
	c.audience = a
	if len(a.events) > 0 {
		c.behind = true
		a.behind++
	}
}

func (a *audience) remove(c *conn) (left int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.conns, c)
	a.upToDate(c)
	return len(a.conns)
}

func (a *audience) members() []*conn {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make([]*conn, 0, len(a.conns))
	for c := range a.conns {
		all = append(all, c)
	}
	return all
}

// append adds events, in the order of their seq, and wakes members. It returns
// how many these are.
func (a *audience) append(events []event) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	newest := a.base
	if n := len(a.events); n > 0 {
		newest = a.events[n-1].seq
	}
	for _, e := range events {
		if e.seq > newest {
			a.events = append(a.events, e)
			a.bytes += e.size()
		}
	}
	drop := 0
	for len(a.events)-drop > 1 && (len(a.events)-drop > a.limit || a.bytes > keptBytes) {
		a.bytes -= a.events[drop].size()
		a.base = a.events[drop].seq
		drop++
	}
	if drop > 0 {
		clear(a.events[:drop])
		a.events = a.events[drop:]
	}
	for c := range a.conns {
		c.behind = true
		c.poke()
	}
	a.behind = len(a.conns)
	return a.behind
}

func (a *audience) wake() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.conns {
		c.poke()
	}
}

// skip makes members find what is up to the change end in the log.
func (a *audience) skip(end int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forget(end)
	for c := range a.conns {
		c.behind = false
	}
	a.behind = 0
}

// forget drops all events, up to the change end. The caller holds mu.
func (a *audience) forget(end int64) {
	a.base = max(a.base, end)
	a.events, a.bytes = nil, 0
}

// upToDate notes that c has taken all events. When all have, they are dropped.
// The caller holds mu.
func (a *audience) upToDate(c *conn) {
	if c.behind {
		c.behind = false
		a.behind--
	}
	if n := len(a.events); n > 0 && a.behind == 0 {
		a.forget(a.events[n-1].seq)
	}
}

// after appends to dst the events behind c's cursor, at most limit and about
// maxBytes. With ok false, some are not here any more, and upTo is where those
// that are begin.
func (a *audience) after(dst []event, c *conn, limit, maxBytes int) (events []event, upTo int64, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.cursor < a.base {
		return dst, a.base, false
	}
	from := sort.Search(len(a.events), func(i int) bool { return a.events[i].seq > c.cursor })
	for i := from; i < len(a.events) && len(dst) < limit && maxBytes > 0; i++ {
		dst = append(dst, a.events[i])
		maxBytes -= a.events[i].size()
	}
	if from+len(dst) == len(a.events) {
		a.upToDate(c)
	}
	return dst, 0, true
}

// group is the audiences of one view.
type group struct {
	view      View
	audiences map[audienceKey]*audience

	// all are the audiences that watch all records; users are their users,
	// in the same order.
	all   []*audience
	users []any
	place map[*audience]int // in all

	// records are those that watch one, by its key.
	records map[string]map[*audience]struct{}

	conns int

	// What it took to judge a change of the last page for a connection, and
	// before when a costly filter is not judged. They belong to the
	// dispatcher.
	cost time.Duration
	rest time.Time
}

type audienceKey struct{ user, record string }

func newGroup(v View) *group {
	return &group{
		view: v, cost: math.MaxInt64,
		audiences: map[audienceKey]*audience{}, place: map[*audience]int{}, records: map[string]map[*audience]struct{}{},
	}
}

func (g *group) key(c *conn) audienceKey {
	k := audienceKey{record: keyText(c.sub.Record)}
	if g.view.PerUser() {
		k.user = keyText(c.sub.User)
	}
	return k
}

// join makes c a member of its audience, a new one for events behind base.
func (g *group) join(c *conn, base int64) {
	k := g.key(c)
	g.conns++
	a := g.audiences[k]
	if a == nil {
		limit := ownEvents
		if !g.view.PerUser() && !g.view.Filtered() && c.sub.Record == nil {
			limit = sharedEvents
		}
		a = newAudience(base, limit)
		a.user = c.sub.User
		a.costly.Store(g.view.Filtered())
		g.audiences[k] = a
		if c.sub.Record == nil {
			g.place[a] = len(g.all)
			g.all, g.users = append(g.all, a), append(g.users, a.user)
		} else {
			if g.records[k.record] == nil {
				g.records[k.record] = map[*audience]struct{}{}
			}
			g.records[k.record][a] = struct{}{}
		}
	}
	a.add(c)
}

// leave undoes join and reports whether the group is empty.
func (g *group) leave(c *conn) (empty bool) {
	a := c.audience
	g.conns--
	if a.remove(c) > 0 {
		return false
	}
	k := g.key(c)
	delete(g.audiences, k)
	if c.sub.Record == nil {
		i, last := g.place[a], len(g.all)-1
		g.all[i], g.users[i] = g.all[last], g.users[last]
		g.place[g.all[i]] = i
		g.all[last], g.users[last] = nil, nil
		g.all, g.users = g.all[:last], g.users[:last]
		delete(g.place, a)
	} else {
		delete(g.records[k.record], a)
		if len(g.records[k.record]) == 0 {
			delete(g.records, k.record)
		}
	}
	return len(g.audiences) == 0
}

func (g *group) members() []*conn {
	var all []*conn
	for _, a := range g.audiences {
		all = append(all, a.members()...)
	}
	return all
}
