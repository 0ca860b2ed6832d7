package realtime

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bedplate/bedplate/sqlite"
)

// Limits of a feed.
const (
	pageLimit      = 256    // changes that are judged at a time
	pageLimitLeast = 16     // and for many users
	judgements     = 20_000 // of a change for a user, at a time
	catchUps       = 2      // connections to the database for those who are behind
	retryMost      = time.Second
	ringChanges    = 4096
	ringBytes      = 8 << 20
)

// feed follows the change log of one database file and spreads what it reads
// to audiences, of filtered views or of others. Its dispatcher works while
// there are any.
type feed struct {
	s        *Service
	log      *sqlite.ChangeLog
	filtered bool
	scratch  chan *sqlite.Scratch // for catching up; nil for one not opened yet
	slow     chan *sqlite.Scratch // one more, for audiences that are costly
	begin    chan struct{}        // one slot: the first member has come
	quit     chan struct{}        // closed by close
	exited   chan struct{}        // closed when the dispatcher has ended

	// published is up to where audiences have all that they may see.
	published atomic.Int64

	mu       sync.Mutex // guards what follows
	state    feedState
	epoch    string
	sealer   *sqlite.Sealer // of epoch
	reading  int64          // end of the page that is being spread, or published
	tables   map[string]map[string]*group
	channels map[string]*audience
	members  int // connections
	ring     ring
	stopWait context.CancelFunc // ends the dispatcher's waiting
}

// A feedKey tells feeds apart. Filtered views have one of their own, so that
// nobody else waits for what clients ask for.
type feedKey struct {
	database string
	filtered bool
}

type feedState uint8

const (
	idle    feedState = iota // the dispatcher waits for a first member
	working                  // there are members
	failed                   // members are being ended, nobody may join
	closed
)

func newFeed(s *Service, log *sqlite.ChangeLog, filtered bool) *feed {
	f := &feed{
		s: s, log: log, filtered: filtered,
		scratch: make(chan *sqlite.Scratch, catchUps), slow: make(chan *sqlite.Scratch, 1),
		begin: make(chan struct{}, 1), quit: make(chan struct{}), exited: make(chan struct{}),
		tables: map[string]map[string]*group{}, channels: map[string]*audience{},
		stopWait: func() {},
	}
	for range catchUps {
		f.scratch <- nil
	}
	f.slow <- nil
	go f.run()
	return f
}

// join makes c a member of its audience, from the present head of the log on.
func (f *feed) join(ctx context.Context, c *conn) error {
	// Asked of the database: a change that was acknowledged before the
	// request must not reach it, and the dispatcher may be behind.
	head, err := f.log.Head(ctx)
	if err != nil {
		return err
	}
	sealer, err := f.log.Sealer(ctx, head.Epoch)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.state == closed:
		return ErrClosed
	case f.state == idle:
		f.state, f.epoch, f.sealer, f.reading = working, head.Epoch, sealer, head.Seq
		f.published.Store(head.Seq)
		f.ring.reset(head.Seq)
		f.begin <- struct{}{} // empty: the dispatcher has taken the last one
	case f.state == failed, f.epoch != head.Epoch:
		return errHistory
	}
	c.epoch, c.sealer, c.cursor, c.head = head.Epoch, sealer, head.Seq, head.Seq
	f.members++
	if c.channel != "" {
		a := f.channels[c.channel]
		if a == nil {
			a = newAudience(f.reading, sharedEvents)
			f.channels[c.channel] = a
		}
		a.add(c)
		return nil
	}
	_, table := c.sub.View.Source()
	groups := f.tables[table]
	if groups == nil {
		groups = map[string]*group{}
		f.tables[table] = groups
	}
	key := c.sub.View.Key()
	if groups[key] == nil {
		groups[key] = newGroup(c.sub.View)
	}
	groups[key].join(c, f.reading)
	return nil
}

// leave undoes join.
func (f *feed) leave(c *conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.channel != "" {
		if c.audience.remove(c) == 0 {
			delete(f.channels, c.channel)
		}
	} else {
		_, table := c.sub.View.Source()
		groups, key := f.tables[table], c.sub.View.Key()
		if groups[key].leave(c) {
			delete(groups, key)
		}
		if len(groups) == 0 {
			delete(f.tables, table)
		}
	}
	if f.members--; f.members == 0 {
		f.stopWait()
	}
}

// close ends the dispatcher. All members have left.
func (f *feed) close() error {
	f.mu.Lock()
	f.state = closed
	f.stopWait()
	f.mu.Unlock()
	close(f.quit)
	<-f.exited
	var errs []error
	for range catchUps {
		if q := <-f.scratch; q != nil {
			errs = append(errs, q.Close())
		}
	}
	if q := <-f.slow; q != nil {
		errs = append(errs, q.Close())
	}
	return errors.Join(errs...)
}

// run is the dispatcher.
func (f *feed) run() {
	defer close(f.exited)
	for {
		select {
		case <-f.quit:
			return
		case <-f.begin:
		}
		f.work()
	}
}

// work spreads changes until the last member has left.
func (f *feed) work() {
	d := &dispatcher{f: f}
	defer d.close()
	pause := time.Duration(0)
	for {
		ctx, cancel := context.WithCancel(context.Background())
		if !f.goOn(cancel) {
			cancel()
			return
		}
		err := d.step(ctx)
		switch {
		case err == nil || ctx.Err() != nil:
			pause = 0
		case errors.Is(err, errHistory), errors.Is(err, sqlite.ErrClosed), errors.Is(err, errPanic):
			f.s.log.Warn("streams are cut", "error", err)
			f.fail(err)
			<-ctx.Done() // the last one has left
		default:
			f.s.log.Error("follow the change log", "error", err)
			pause = min(max(2*pause, 10*time.Millisecond), retryMost)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		}
		cancel()
	}
}

// goOn reports whether there are members. stop is what ends the next step's
// waiting when there are none any more.
func (f *feed) goOn(stop context.CancelFunc) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.state == closed:
		return false
	case f.members == 0:
		f.state = idle
		f.ring.reset(0)
		return false
	}
	f.stopWait = stop
	return true
}

// fail ends all streams of the feed.
func (f *feed) fail(cause error) {
	f.mu.Lock()
	if f.state == working {
		f.state = failed
	}
	var all []*conn
	for _, groups := range f.tables {
		for _, g := range groups {
			all = append(all, g.members()...)
		}
	}
	for _, a := range f.channels {
		all = append(all, a.members()...)
	}
	if f.members == 0 {
		f.stopWait()
	}
	f.mu.Unlock()
	for _, c := range all {
		c.end(cause)
	}
}

// groups returns all groups.
func (f *feed) groups() []*group {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []*group
	for _, groups := range f.tables {
		for _, g := range groups {
			all = append(all, g)
		}
	}
	return all
}

// entry is a change with what it looks like to subscribers.
type entry struct {
	*sqlite.Change
	id string // the position behind it, as clients get it

	mu     sync.Mutex
	bodies []body // guarded by mu
}

// body is an event for the wire without its end, which differs from client to
// client.
type body struct {
	encoding any
	kind     kind
	text     []byte
}

type kind uint8

const (
	inserted kind = iota
	updated
	deleted
)

var kindPrefix = [...]string{inserted: `{"Insert":`, updated: `{"Update":`, deleted: `{"Delete":`}

// body returns the event of that kind as v shows it.
func (e *entry) body(v View, k kind) ([]byte, error) {
	encoding := v.Encoding()
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range e.bodies {
		if b := &e.bodies[i]; b.kind == k && b.encoding == encoding {
			return b.text, nil
		}
	}
	text := append(make([]byte, 0, 256), kindPrefix[k]...)
	text, err := v.AppendRow(text, e.Change, k == deleted)
	if err != nil {
		return nil, err
	}
	text = slices.Clip(text)
	if v.Encoding() == encoding { // not changed meanwhile
		e.bodies = append(e.bodies, body{encoding, k, text})
	}
	return text, nil
}

// ring holds the newest changes, so that those who are a little behind need
// not ask the database.
type ring struct {
	after   int64 // the first entry follows this change
	entries []*entry
	bytes   int
}

func (r *ring) reset(after int64) { *r = ring{after: after} }

// add appends entries, the last of them or what follows ending at end.
func (r *ring) add(entries []*entry) {
	for _, e := range entries {
		r.bytes += e.Size
	}
	r.entries = append(r.entries, entries...)
	drop := 0
	for drop < len(r.entries) && (r.bytes > ringBytes || len(r.entries)-drop > ringChanges) {
		r.bytes -= r.entries[drop].Size
		r.after = r.entries[drop].Seq
		drop++
	}
	if drop > 0 {
		clear(r.entries[:drop])
		r.entries = r.entries[drop:]
	}
}

// between returns the entries behind after and up to upTo, at most limit; ok
// is false when some of them are not there any more.
func (r *ring) between(after, upTo int64, limit int) (entries []*entry, ok bool) {
	if after < r.after {
		return nil, false
	}
	search := func(seq int64) int {
		i, found := slices.BinarySearchFunc(r.entries, seq, func(e *entry, seq int64) int {
			switch {
			case e.Seq < seq:
				return -1
			case e.Seq > seq:
				return 1
			}
			return 0
		})
		if found {
			i++
		}
		return i
	}
	from, to := search(after), search(upTo)
	return r.entries[from:max(from, min(to, from+limit))], true
}
