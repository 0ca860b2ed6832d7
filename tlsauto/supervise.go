package tlsauto

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// work is what runs while Run does. It is guarded by Manager.mu.
type work struct {
	ctx     context.Context // of Run; nil: it does not run
	running sync.WaitGroup

	orders       int       // attempts under way
	demandOrders int       // those of them for certificates on demand
	jobs         int       // other jobs under way
	demandAt     time.Time // before which nothing is ordered on demand
	requestsAt   time.Time // when to look for requests of other processes
	last         time.Time // when the clock was looked at
	changed      chan struct{}
}

const (
	maxOrders       = 4
	maxDemandOrders = 3
	maxJobs         = 16
)

var errRuns = errors.New("tlsauto: Run runs already")

// now is the wall clock. Without a monotonic reading, times differ by what a machine has slept, too.
func (m *Manager) now() time.Time { return m.cfg.Now().Round(0) }

// Run obtains and renews certificates and watches files until ctx ends. Then it waits for what it has
// begun, gives up its leases, and returns nil: nothing else ends it. To call it while it runs is an error,
// which is returned at once.
func (m *Manager) Run(ctx context.Context) error {
	m.mu.Lock()
	if m.work.ctx != nil {
		m.mu.Unlock()
		return errRuns
	}
	m.work.ctx = ctx
	m.mu.Unlock()
	m.watchFiles()
	m.loop(ctx)
	m.work.running.Wait() // some of which may still spawn
	m.mu.Lock()
	m.work.ctx = nil
	m.mu.Unlock()
	m.work.running.Wait()
	m.releaseLeases(ctx)
	return nil
}

// spawn runs a piece of work that Run waits for at its end. It reports false, and does nothing, when
// Run does not run.
func (m *Manager) spawn(do func(ctx context.Context)) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	ctx := m.work.ctx
	if ctx == nil || ctx.Err() != nil {
		return false
	}
	m.work.running.Go(func() { do(ctx) })
	return true
}

// loop does what is due until ctx ends.
func (m *Manager) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		now := m.now()
		wait := m.doDue(now).Sub(now)
		timer.Reset(min(max(wait, time.Millisecond), tick))
		select {
		case <-ctx.Done():
		case <-m.wake:
		case <-timer.C:
		}
	}
}

// doDue begins what is due, and returns when it wants to be called again.
func (m *Manager) doDue(now time.Time) time.Time {
	next := now.Add(tick)
	at := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}
	var begun []func(ctx context.Context)
	m.mu.Lock()
	if now.Before(m.work.last.Add(-clockTolerance)) {
		m.forgetTimes()
	}
	m.work.last = now
	events := m.tidy(now, at)
	for _, d := range m.dueJobs(now, at) {
		begun = append(begun, m.begin(d))
	}
	if m.cfg.Store != nil && !now.Before(m.work.requestsAt) {
		m.work.requestsAt = now.Add(tick)
		begun = append(begun, m.readRequests)
	}
	m.mu.Unlock()
	for _, e := range events {
		m.tell(e)
	}
	for _, do := range begun {
		m.spawn(do)
	}
	return next
}

// tidy adopts what has been coming, and returns what is to be told.
func (m *Manager) tidy(now time.Time, at func(time.Time)) []Event {
	var events []Event
	for _, mc := range m.managed {
		p := &mc.plan
		if p.coming != nil {
			if now.Before(p.adoptAt) {
				at(p.adoptAt)
			} else {
				events = append(events, m.adopt(mc)...)
			}
		}
		t, ok := mc.nextExpiring()
		if ok && !now.Before(t) {
			events = append(events, eventOf(Expiring, mc, mc.newest()))
			t = now.Add(expiringRepeats)
			p.expiresAt = t
		}
		if ok {
			at(t)
		}
	}
	return events
}

// A dueJob is a job that can begin.
type dueJob struct {
	kind jobKind
	mc   *managed
}

// dueJobs returns the jobs that are due and for which there is room. The end of a job wakes the loop for
// the others. Orders for certificates that were configured come first, and the most urgent of those.
func (m *Manager) dueJobs(now time.Time, at func(time.Time)) []dueJob {
	var due, orders []dueJob
	for _, mc := range m.managed {
		if mc.plan.busy {
			continue
		}
		j := m.nextJob(mc, now)
		switch {
		case now.Before(j.at):
			at(j.at)
		case j.kind == orderJob:
			orders = append(orders, dueJob{j.kind, mc})
		case m.work.jobs+len(due) < maxJobs:
			due = append(due, dueJob{j.kind, mc})
		}
	}
	slices.SortStableFunc(orders, func(a, b dueJob) int {
		if a.mc.onDemand != b.mc.onDemand {
			if b.mc.onDemand {
				return -1
			}
			return 1
		}
		return cmp.Compare(expiry(a.mc), expiry(b.mc))
	})
	n, demanded := m.work.orders, m.work.demandOrders
	for _, o := range orders {
		if n >= maxOrders || o.mc.onDemand && demanded >= maxDemandOrders {
			break // the rest is on demand, too
		}
		n++
		if o.mc.onDemand {
			demanded++
		}
		due = append(due, o)
	}
	return due
}

// expiry orders certificates by urgency: those that there are none of come first.
func expiry(mc *managed) int64 {
	if c := mc.newest(); c != nil {
		return c.tls.Leaf.NotAfter.Unix()
	}
	return 0
}

// begin counts a job and returns it. Manager.mu must be held.
func (m *Manager) begin(d dueJob) func(ctx context.Context) {
	count := func(n int) {
		switch {
		case d.kind != orderJob:
			m.work.jobs += n
		case d.mc.onDemand:
			m.work.demandOrders += n
			fallthrough
		default:
			m.work.orders += n
		}
	}
	count(1)
	d.mc.plan.busy = true
	return func(ctx context.Context) {
		defer func() {
			m.mu.Lock()
			count(-1)
			d.mc.plan.busy = false
			m.mu.Unlock()
			m.wakeUp()
		}()
		switch d.kind {
		case readJob:
			m.look(ctx, d.mc)
		case storeJob:
			m.storeAgain(ctx, d.mc)
		case orderJob:
			m.attempt(ctx, d.mc)
		case askJob:
			m.askForAdvice(ctx, d.mc)
		}
	}
}

// forgetTimes makes everything be looked at again: the clock has been set back, and what was planned by it
// may be years ahead. What failed before is tried once more.
func (m *Manager) forgetTimes() {
	now := m.now()
	for _, mc := range m.managed {
		p := &mc.plan
		p.record.Next, p.wait, p.readAt, p.storeAt, p.expiresAt = time.Time{}, time.Time{}, time.Time{}, time.Time{}, time.Time{}
		p.record.Held = nil
		p.advice.askAt = time.Time{}
		if p.coming != nil {
			p.adoptAt = adoptionTime(mc.cert, p.coming, m.cfg.AdoptDelay, now)
		}
	}
	m.work.demandAt, m.work.requestsAt = time.Time{}, time.Time{}
}

// hasChanged wakes those who wait for certificates. Manager.mu must be held.
func (m *Manager) hasChanged() {
	if m.work.changed != nil {
		close(m.work.changed)
		m.work.changed = nil
	}
}
