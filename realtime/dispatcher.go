package realtime

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/bedplate/bedplate/sqlite"
)

// dispatcher reads the log of a feed, page by page, and decides who is told
// what. It belongs to the goroutine of the feed.
type dispatcher struct {
	f    *feed
	q    *sqlite.Scratch
	next time.Time // not to spread a page before
}

func (d *dispatcher) close() {
	if d.q != nil {
		_ = d.q.Close() // it has written nothing
	}
}

// step waits for changes and spreads a page of them.
func (d *dispatcher) step(ctx context.Context) error {
	return recovering(func() error { return d.spread(ctx) })
}

func (d *dispatcher) spread(ctx context.Context) error {
	at, sealer := d.f.position()
	if err := d.f.log.Wait(ctx, at); err != nil {
		return err
	}
	if err := d.pace(ctx); err != nil {
		return err
	}
	if d.q == nil {
		q, err := d.f.s.db.Scratch(ctx)
		if err != nil {
			return err
		}
		d.q = q
	}
	var page sqlite.ChangePage
	var out outbox
	err := reading(ctx, d.q, func() (err error) {
		// Rules are judged in the snapshot that the page comes from.
		page, err = d.f.log.Page(d.q, at, math.MaxInt64, d.f.pageLimit())
		if err != nil {
			return err
		}
		if page.End.Epoch != at.Epoch || page.End.Seq < at.Seq {
			return errHistory
		}
		out.entries = entries(page.Changes, sealer)
		if page.Gap {
			gap := gapEvent(behindGap(page), sealer)
			out.gap = &gap
		}
		return d.judge(&out, page.End.Seq)
	})
	if ctx.Err() != nil {
		return ctx.Err() // interrupted: what was found out is not all
	}
	if err != nil {
		return err
	}
	for _, l := range out.lost {
		for _, c := range d.f.membersOf(l.group) {
			c.end(l.cause)
		}
	}
	// Those of a view that cannot tell must not get beyond what it has not
	// told: like those who are left out, they find the log.
	untold := out.untold()
	for _, a := range untold {
		delete(out.events, a)
		a.skip(page.End.Seq)
	}
	woken := 0
	for a, events := range out.events {
		woken += a.append(events)
	}
	d.f.publish(out.entries, page)
	for _, a := range untold {
		a.wake()
	}
	d.next = time.Now().Add(min(time.Duration(woken)*paceEach, paceMost))
	for _, l := range out.lost {
		if !errors.Is(l.cause, ErrGone) {
			d.f.s.log.Error("judge changes, streams are cut", "error", l.cause)
		}
	}
	return nil
}

// Writing to a client takes some microseconds. While that is done for many,
// what is committed meanwhile is left to gather, so that they get it in one
// piece. An event that follows on silence is never held up.
const (
	paceEach = 4 * time.Microsecond
	paceMost = 10 * time.Millisecond
)

func (d *dispatcher) pace(ctx context.Context) error {
	rest := time.Until(d.next)
	if rest <= 0 {
		return nil
	}
	select {
	case <-time.After(rest):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// position is where the feed is.
func (f *feed) position() (sqlite.Position, *sqlite.Sealer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return sqlite.Position{Epoch: f.epoch, Seq: f.published.Load()}, f.sealer
}

// pageLimit returns how many changes are judged at a time. The first of them
// waits until the last one is judged, for all users.
func (f *feed) pageLimit() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	users := 1
	for _, groups := range f.tables {
		for _, g := range groups {
			if g.view.PerUser() {
				users += len(g.users)
			} else {
				users++
			}
		}
	}
	most := pageLimit
	if f.filtered {
		most = filterRows
	}
	return max(pageLimitLeast, min(most, judgements/users))
}

// publish makes what was spread the present state.
func (f *feed) publish(entries []*entry, page sqlite.ChangePage) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if page.Gap || slices.ContainsFunc(entries, isBreak) {
		// What is before a break is for nobody any more.
		f.ring.reset(page.End.Seq)
	} else {
		f.ring.add(entries)
	}
	f.published.Store(page.End.Seq)
}

func (f *feed) membersOf(g *group) []*conn {
	f.mu.Lock()
	defer f.mu.Unlock()
	return g.members()
}

// outbox is what a page of changes is to whom.
type outbox struct {
	entries []*entry
	gap     *event // before the first
	events  map[*audience][]event
	lost    []lost
	late    []*crowd // who are to find out for themselves
}

// lost is a crowd whose view cannot say what it may see.
type lost struct {
	*crowd
	cause error
}

// untold returns the audiences that what concerns them is not told.
func (o *outbox) untold() []*audience {
	var all []*audience
	for _, l := range o.lost {
		all = append(all, l.concerned()...)
	}
	for _, c := range o.late {
		all = append(all, c.concerned()...)
	}
	return all
}

func (o *outbox) add(a *audience, e event) {
	if o.events == nil {
		o.events = map[*audience][]event{}
	}
	o.events[a] = append(o.events[a], e)
}

// crowd is a group as it is when a page is read.
type crowd struct {
	*group
	conns   int
	all     []*audience
	users   []any
	records map[string][]*audience
}

// concerned returns the audiences that changes concern.
func (c *crowd) concerned() []*audience {
	all := slices.Clone(c.all)
	for _, of := range c.records {
		all = append(all, of...)
	}
	return all
}

// judge fills out with the events of the page that ends at end.
func (d *dispatcher) judge(out *outbox, end int64) error {
	byTable := map[string][]*entry{}
	for _, e := range out.entries {
		if e.Op != sqlite.LogEvent {
			byTable[e.Table] = append(byTable[e.Table], e)
		}
	}
	var tasks []task
	for table, of := range d.crowds(out, byTable, end) {
		t := split(byTable[table])
		for i := range of {
			if d.f.filtered {
				tasks = append(tasks, task{&of[i], t})
			} else if err := d.judgeCrowd(out, &of[i], t); err != nil {
				return err
			}
		}
	}
	return d.judgeFiltered(out, tasks)
}

// crowds returns who is there for the changed tables, by table. Whoever comes
// later begins behind end.
func (d *dispatcher) crowds(out *outbox, byTable map[string][]*entry, end int64) map[string][]crowd {
	f := d.f
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reading = end
	crowds := map[string][]crowd{}
	for table, groups := range f.tables {
		if len(byTable[table]) == 0 && out.gap == nil {
			continue
		}
		for _, g := range groups {
			if c, err := g.crowd(byTable[table]); err != nil {
				out.lost = append(out.lost, lost{&c, err})
			} else {
				crowds[table] = append(crowds[table], c)
			}
			if out.gap != nil {
				for _, a := range g.audiences {
					out.add(a, *out.gap)
				}
			}
		}
	}
	if out.gap != nil {
		for _, a := range f.channels {
			out.add(a, *out.gap)
		}
	}
	for _, e := range out.entries {
		if e.Op == sqlite.LogEvent {
			if a := f.channels[e.Channel]; a != nil {
				out.add(a, event{seq: e.Seq, id: e.id, texts: [2][]byte{e.Event}})
			}
		}
	}
	return crowds
}

// crowd returns g as far as changes concern it; with an error, which is the
// view's, all of it.
func (g *group) crowd(changes []*entry) (crowd, error) {
	c := crowd{group: g, conns: g.conns, all: slices.Clone(g.all), users: slices.Clone(g.users)}
	if len(g.records) == 0 {
		return c, nil
	}
	c.records = map[string][]*audience{}
	add := func(k string) {
		if c.records[k] == nil && len(g.records[k]) > 0 {
			c.records[k] = slices.Collect(maps.Keys(g.records[k]))
		}
	}
	err := recovering(func() error {
		for _, e := range changes {
			for _, k := range recordKeys(g.view, e.Change) {
				add(k)
			}
		}
		return nil
	})
	if err != nil || slices.ContainsFunc(changes, isBreak) { // which concerns all
		for k := range g.records {
			add(k)
		}
	}
	return c, err
}

func isBreak(e *entry) bool { return e.Op == sqlite.LogBreak }

// recordKeys returns the keys of the record that a change is about: one, or
// two if it has changed its key.
func recordKeys(v View, c *sqlite.Change) []string {
	var keys []string
	if c.Old != nil {
		keys = append(keys, keyText(v.RowKey(c, true)))
	}
	if c.New != nil {
		if k := keyText(v.RowKey(c, false)); len(keys) == 0 || k != keys[0] {
			keys = append(keys, k)
		}
	}
	return keys
}

// tableChanges is the changes of a table, those of rows also in the form that
// views take.
type tableChanges struct {
	rows    []*entry
	changes []*sqlite.Change // of rows
	breaks  []*entry
}

func split(of []*entry) tableChanges {
	var t tableChanges
	for _, e := range of {
		if isBreak(e) {
			t.breaks = append(t.breaks, e)
			continue
		}
		t.rows, t.changes = append(t.rows, e), append(t.changes, e.Change)
	}
	return t
}

func entries(changes []*sqlite.Change, sealer *sqlite.Sealer) []*entry {
	all := make([]*entry, len(changes))
	for i, c := range changes {
		all[i] = &entry{Change: c, id: sealer.Seal(c.Seq)}
	}
	return all
}

// judgeCrowd adds to out what changes are to c, or that c's view cannot tell.
func (d *dispatcher) judgeCrowd(out *outbox, c *crowd, t tableChanges) error {
	err := recovering(func() error { return d.tell(out, c, t) })
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sqlite.ErrClosed), errors.Is(err, sqlite.ErrBusy), errors.Is(err, sqlite.ErrDiskFull):
		return err
	}
	// Others must not wait for a view that cannot tell.
	out.lost = append(out.lost, lost{c, err})
	return nil
}

func (d *dispatcher) tell(out *outbox, c *crowd, t tableChanges) error {
	if len(c.all) > 0 && len(t.rows) > 0 {
		err := judge(d.q, c.view, t.changes, c.users, func(row, user int, seen images) {
			if e, ok := d.f.s.eventOf(c.view, t.rows[row], seen); ok {
				out.add(c.all[user], e)
			}
		})
		if err != nil {
			return err
		}
	}
	if len(c.records) > 0 {
		for i := range t.rows {
			if err := d.judgeRecord(out, c, t, i); err != nil {
				return err
			}
		}
	}
	if len(t.breaks) == 0 {
		return nil
	}
	for _, a := range c.concerned() {
		for _, e := range t.breaks {
			out.add(a, breakEvent(e))
		}
		slices.SortStableFunc(out.events[a], func(x, y event) int { return cmp.Compare(x.seq, y.seq) })
	}
	return nil
}

// judgeRecord tells those who watch the record that row i is.
func (d *dispatcher) judgeRecord(out *outbox, c *crowd, t tableChanges, i int) error {
	for _, k := range recordKeys(c.view, t.changes[i]) {
		of := c.records[k]
		if len(of) == 0 {
			continue
		}
		users := make([]any, len(of))
		for j, a := range of {
			users[j] = a.user
		}
		err := judge(d.q, c.view, t.changes[i:i+1], users, func(_, user int, seen images) {
			if e, ok := d.f.s.recordEvent(c.view, t.rows[i], k, seen); ok {
				out.add(of[user], e)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}
