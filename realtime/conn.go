package realtime

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bedplate/bedplate/sqlite"
)

// What one call of an engine is given at most.
const (
	sendEvents = 256
	sendBytes  = 64 << 10
)

// busyPause is how long to wait when the database is busy.
const busyPause = 100 * time.Millisecond

// conn is one stream. Its pump pulls events, from its audience or, when it is
// behind, from the log.
type conn struct {
	s        *Service
	feed     *feed
	release  func() // its place among the streams that are allowed
	audience *audience
	sub      *Subscription // nil for a channel
	channel  string
	identity Identity
	idLast   bool
	resume   string // where to go on; "": from now on

	wake chan struct{}                           // one slot: there are events
	bye  chan error                              // one slot: why to end
	cut  atomic.Pointer[context.CancelCauseFunc] // ends the stream without a word
	due  atomic.Pointer[error]                   // why, when it is time for that

	epoch  string // of the feed, for as long as it has members
	sealer *sqlite.Sealer
	cursor int64     // behind it there is news
	seq    int64     // of the last event on the wire
	sent   time.Time // when something was sent last
	page   int       // how many changes to read of the log at a time
	head   int64     // of the log when it joined

	behind bool // guarded by audience.mu: has not taken all of its events
}

// A tray holds what one pull takes. Streams share some, as most have nothing
// to send at a time.
type tray struct {
	events []event
	frames []frame
	text   []byte // data of frames
	ends   []int  // of each data in text
}

type trays struct{ pool sync.Pool }

func (p *trays) get() *tray {
	if t, ok := p.pool.Get().(*tray); ok {
		return t
	}
	return new(tray)
}

func (p *trays) put(t *tray) {
	clear(t.events)
	clear(t.frames)
	if cap(t.text) <= 2*sendBytes {
		p.pool.Put(t)
	}
}

// poke says that there is something to pull.
func (c *conn) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// end makes the stream say goodbye and end, whether or not the client takes
// it.
func (c *conn) end(cause error) {
	select {
	case c.bye <- cause:
		time.AfterFunc(goodbyeTimeout, func() { c.cutOff(cause) })
	default: // it is ending
	}
}

// cutOff ends the stream without a word, as soon as it has started.
func (c *conn) cutOff(cause error) {
	c.due.Store(&cause)
	if cut := c.cut.Load(); cut != nil {
		(*cut)(cause)
	}
}

// started is told how to cut the stream.
func (c *conn) started(cut context.CancelCauseFunc) {
	c.cut.Store(&cut)
	if cause := c.due.Load(); cause != nil {
		cut(*cause)
	}
}

// pump sends what there is to send, until the stream ends.
func (c *conn) pump(ctx context.Context, send sendFunc) error {
	gap := c.begin()
	hello := frame{id: c.position(), comment: "ping"}
	if !c.idLast {
		hello.retry = c.s.cfg.Retry
	}
	if gap {
		// The position follows with the event about it.
		hello.id = ""
	}
	if err := send([]frame{hello}); err != nil {
		return err
	}
	if gap {
		if err := c.send(send, []event{gapEvent(c.cursor, c.sealer)}); err != nil {
			return err
		}
	}
	c.sent = time.Now()
	silence := c.s.cfg.Heartbeat
	end := c.sent.Add(c.s.lifetime(c.identity))
	timer := time.NewTimer(silence)
	defer timer.Stop()
	for {
		select {
		case cause := <-c.bye:
			return c.goodbye(send, cause)
		default:
		}
		more, err := c.pull(ctx, send)
		if err != nil {
			return err
		}
		if time.Since(c.sent) >= silence {
			// It tells the position, too: who comes back after a long silence
			// need not go through all that was none of its business.
			if err := send([]frame{{id: c.position()}}); err != nil {
				return err
			}
			c.sent = time.Now()
		}
		left := time.Until(end)
		if left <= 0 {
			return c.goodbye(send, errLifetime)
		}
		if more {
			continue
		}
		timer.Reset(min(left, silence-time.Since(c.sent)))
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case cause := <-c.bye:
			return c.goodbye(send, cause)
		case <-c.wake:
		case <-timer.C:
		}
	}
}

// begin sets the cursor to where the client wants to go on, if it can.
func (c *conn) begin() (gap bool) {
	if c.resume == "" {
		return false
	}
	seq, ok := c.sealer.Open(c.resume)
	if !ok || seq > c.cursor {
		return true
	}
	c.cursor = seq
	return false
}

func (c *conn) position() string {
	return c.sealer.Seal(c.cursor)
}

// goodbye ends the stream with the advice when to come back, spread out, as
// others are told at the same time.
func (c *conn) goodbye(send sendFunc, cause error) error {
	f := frame{comment: "bye"}
	if !c.idLast {
		f.retry = c.s.cfg.Retry + rand.N(c.s.cfg.Retry) //nolint:gosec // no secret
	}
	return errors.Join(cause, send([]frame{f}))
}

// pull sends the next events, if there are any, and reports whether there may
// be more.
func (c *conn) pull(ctx context.Context, send sendFunc) (more bool, err error) {
	if c.cursor < c.head {
		// The audience may have events from before it joined, but these were
		// judged by the rights of then.
		return c.catchUp(ctx, send, c.head)
	}
	// Before the look at the audience, which has everything up to here.
	published := c.feed.published.Load()
	t := c.s.trays.get()
	defer c.s.trays.put(t)
	events, upTo, ok := c.audience.after(t.events[:0], c, sendEvents, sendBytes)
	if !ok {
		return c.catchUp(ctx, send, upTo)
	}
	t.events = events
	if len(events) == 0 {
		c.cursor = max(c.cursor, published)
		return false, nil
	}
	return true, c.sendOn(send, events, t)
}

// send sends events and moves the cursor behind them.
func (c *conn) send(send sendFunc, events []event) error {
	t := c.s.trays.get()
	defer c.s.trays.put(t)
	return c.sendOn(send, events, t)
}

func (c *conn) sendOn(send sendFunc, events []event, t *tray) error {
	var last error
	for i := range events {
		if last = events[i].end; last != nil {
			events = events[:i+1]
			break
		}
	}
	// The data of all frames share a buffer, which may move while it grows:
	// so first all data, then the frames.
	t.text, t.ends, t.frames = t.text[:0], t.ends[:0], t.frames[:0]
	for i := range events {
		for _, text := range events[i].texts {
			if text == nil {
				continue
			}
			t.text = append(t.text, text...)
			if c.channel == "" {
				c.seq++
				t.text = append(t.text, `,"seq":`...)
				t.text = append(strconv.AppendInt(t.text, c.seq, 10), '}')
			}
			t.ends = append(t.ends, len(t.text))
		}
	}
	start := 0
	for i := range events {
		e := &events[i]
		for j, text := range e.texts {
			if text == nil {
				continue
			}
			end := t.ends[len(t.frames)]
			f := frame{data: t.text[start:end:end]}
			start = end
			if j == 1 || e.texts[1] == nil { // the id stands for both
				f.id = e.id
			}
			if c.channel != "" && isGap(e) {
				f.event, f.data = "gap", channelGap
			}
			t.frames = append(t.frames, f)
		}
	}
	if len(t.frames) > 0 {
		if err := send(t.frames); err != nil {
			return err
		}
		c.sent = time.Now()
	}
	c.cursor = max(c.cursor, events[len(events)-1].seq)
	return last
}

func isGap(e *event) bool { return len(e.texts[0]) > 0 && &e.texts[0][0] == &gapText[0] }

var channelGap = []byte(`{"message":"events are missing"}`)

// catchUp sends events of a page of the log, up to the change upTo.
func (c *conn) catchUp(ctx context.Context, send sendFunc, upTo int64) (more bool, err error) {
	events, end, err := c.feed.past(ctx, c, upTo)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	case errors.Is(err, sqlite.ErrBusy):
		select {
		case <-time.After(busyPause):
		case <-ctx.Done():
		}
		return true, nil
	case errors.Is(err, ErrGone), errors.Is(err, errHistory), errors.Is(err, sqlite.ErrClosed):
		return false, err
	default:
		c.s.log.Error("catch up with the change log, a stream is cut", "error", err)
		return false, err
	}
	if len(events) > 0 {
		if err := c.send(send, events); err != nil {
			return false, err
		}
	}
	c.cursor = max(c.cursor, end)
	return true, nil
}

// past returns what c sees of the changes behind its cursor and up to
// about upTo, and where the page ends: at the cursor if others have kept it
// waiting until the next heartbeat.
func (f *feed) past(ctx context.Context, c *conn, upTo int64) (events []event, end int64, err error) {
	queue := f.scratch
	if c.audience.costly.Load() {
		queue = f.slow
	}
	var q *sqlite.Scratch
	select {
	case q = <-queue:
	case <-time.After(f.s.cfg.Heartbeat - time.Since(c.sent)):
		return nil, c.cursor, nil
	case <-ctx.Done():
		return nil, 0, context.Cause(ctx)
	}
	defer func() { queue <- q }()
	if q == nil {
		if q, err = f.s.db.Scratch(ctx); err != nil {
			return nil, 0, err
		}
	}
	recent, end := f.recent(c.cursor, upTo, c.page)
	err = reading(ctx, q, func() error {
		if end == 0 {
			at := sqlite.Position{Epoch: c.epoch, Seq: c.cursor}
			page, err := f.log.Page(q, at, upTo, c.page)
			if err != nil {
				return err
			}
			if page.End.Epoch != at.Epoch || page.End.Seq < at.Seq {
				return errHistory
			}
			recent, end = entries(page.Changes, c.sealer), page.End.Seq
			if page.Gap {
				events = append(events, gapEvent(behindGap(page), c.sealer))
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return recovering(func() error { return c.see(q, recent, &events) })
	})
	if ctx.Err() != nil {
		return nil, 0, context.Cause(ctx)
	}
	if errors.Is(err, sqlite.ErrTimeout) && len(recent) > 0 {
		if c.page > 1 {
			c.page = 1 // perhaps it is one change
			return nil, c.cursor, nil
		}
		// It would be the same again, for ever.
		f.s.log.Warn("judging a change takes too long, it is not told", "table", recent[0].Table, "seq", end, "error", err)
		return []event{gapEvent(end, c.sealer)}, end, nil
	}
	events, end = c.fit(events, recent, end)
	return events, end, err
}

// reading runs fn in a snapshot of q, and interrupts it when ctx ends.
func reading(ctx context.Context, q *sqlite.Scratch, fn func() error) error {
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		q.Interrupt()
	})
	defer func() {
		if !stop() {
			<-interrupted // not to meet the next one who uses q
		}
	}()
	return q.Read(fn)
}

// fit returns the first of the events that changes are to c, as many as one
// call of an engine is given, and where they end: all who are behind hold some
// while their clients take them. The rest is read again, so the next page is to
// be as long as what is used of this one.
func (c *conn) fit(events []event, changes []*entry, end int64) ([]event, int64) {
	c.page = min(2*c.page, pageLimit)
	bytes := 0
	for i := range events {
		if bytes += events[i].size(); bytes >= sendBytes && i+1 < len(events) {
			events, end = slices.Clone(events[:i+1]), events[i].seq
			c.page = 1
			for c.page < len(changes) && changes[c.page].Seq <= end {
				c.page++
			}
			break
		}
	}
	return events, end
}

// behindGap returns the position between a gap and the changes of the page.
func behindGap(page sqlite.ChangePage) int64 {
	if len(page.Changes) > 0 {
		return page.Changes[0].Seq - 1
	}
	return page.End.Seq
}

// recent returns changes behind after from memory, at most up to upTo, and
// where they end; 0 if they are not there.
func (f *feed) recent(after, upTo int64, limit int) (entries []*entry, end int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	end = min(upTo, f.published.Load()) // what follows is being spread
	if after >= end {
		return nil, 0
	}
	entries, ok := f.ring.between(after, end, limit)
	if !ok {
		return nil, 0
	}
	if n := len(entries); n == limit {
		end = entries[n-1].Seq
	}
	return slices.Clone(entries), end
}

// see appends what c sees of changes.
func (c *conn) see(q *sqlite.Scratch, changes []*entry, events *[]event) error {
	if c.channel != "" {
		for _, e := range changes {
			if e.Op == sqlite.LogEvent && e.Channel == c.channel {
				*events = append(*events, event{seq: e.Seq, id: e.id, texts: [2][]byte{e.Event}})
			}
		}
		return nil
	}
	v := c.sub.View
	_, table := v.Source()
	record := keyText(c.sub.Record)
	var mine []*entry
	for _, e := range changes {
		if e.Op != sqlite.LogEvent && e.Table == table &&
			(record == "" || isBreak(e) || slices.Contains(recordKeys(v, e.Change), record)) {
			mine = append(mine, e)
		}
	}
	t := split(mine)
	seen := map[int64]images{}
	if len(t.rows) > 0 {
		err := judge(q, v, t.changes, []any{c.sub.User}, func(row, _ int, s images) { seen[t.rows[row].Seq] = s })
		if err != nil {
			return err
		}
	}
	for _, e := range mine {
		if isBreak(e) {
			*events = append(*events, breakEvent(e))
			continue
		}
		ev, ok := event{}, false
		switch s := seen[e.Seq]; {
		case s == 0:
		case record != "":
			ev, ok = c.s.recordEvent(v, e, record, s)
		default:
			ev, ok = c.s.eventOf(v, e, s)
		}
		if ok {
			*events = append(*events, ev)
		}
	}
	return nil
}
