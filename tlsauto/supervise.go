package tlsauto

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"
)

// work is what runs while Run does. It is guarded by Manager.mu.
type work struct {
	runs    bool
	ctx     context.Context // of Run; nil: it does not run, or is about to end
	lasting context.Context // ends endTime after that of Run
	running sync.WaitGroup

	orders       int       // attempts under way
	demandOrders int       // those of them for certificates on demand
	jobs         int       // other jobs under way
	questions    int       // those of them that ask an authority
	demandAt     time.Time // before which nothing is ordered on demand
	requestsAt   time.Time // when to look for requests of other processes, and what they announce
	announced    string    // what they have, as a hash
	last         time.Time // when the clock was looked at
	changed      chan struct{}
}

const (
	maxOrders       = 4
	maxDemandOrders = 3
	maxJobs         = 16
	maxQuestions    = 4 // of jobs, so that an authority that hangs leaves room for the store
)

var errRuns = errors.New("tlsauto: Run runs already")

// now is the wall clock. Without a monotonic reading, times differ by what a machine has slept, too.
func (m *Manager) now() time.Time { return m.cfg.Now().Round(0) }

// Run obtains and renews certificates and watches files until ctx ends. Then it waits for what it has
// begun, gives up its leases, and returns nil: nothing else ends it. That takes up to 3 s if the Store does
// not answer, and as long as issuers need to end: those of this package up to 10 s, which is what a DNS
// provider has to remove a record. It may be called again after that. To call it while it runs is an error, which
// is returned at once.
func (m *Manager) Run(ctx context.Context) error {
	m.mu.Lock()
	if m.work.runs {
		m.mu.Unlock()
		return errRuns
	}
	lasting, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(endTime, end) })()
	m.work.runs, m.work.ctx, m.work.lasting = true, ctx, lasting
	m.mu.Unlock()
	m.watchFiles()
	m.loop(ctx)
	m.mu.Lock()
	m.work.ctx = nil // nothing more begins
	m.mu.Unlock()
	m.work.running.Wait()
	m.saveLast()
	m.mu.Lock()
	m.work.runs = false
	m.mu.Unlock()
	return nil
}

// spawn runs a piece of work that Run waits for at its end. It reports false, and does nothing, when
// Run does not run.
func (m *Manager) spawn(do func(ctx context.Context)) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	ctx := m.work.ctx
	if ctx == nil {
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
		began, now := time.Now(), m.now()
		wait := m.doDue(now).Sub(now)
		took := time.Since(began)
		timer.Reset(min(max(wait, time.Millisecond), tick))
		select {
		case <-ctx.Done():
		case <-m.wake:
		case <-timer.C:
		}
		if took > time.Millisecond { // with thousands of certificates, each of which wakes the loop
			timer.Reset(4 * took)
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
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
	m.mu.Lock()
	if now.Before(m.work.last.Add(-clockTolerance)) {
		m.forgetTimes()
	}
	m.work.last = now
	events := m.tidy(now, at)
	jobs := m.dueJobs(now, at)
	for _, j := range jobs {
		m.count(j, 1)
	}
	requests := m.board != nil && !now.Before(m.work.requestsAt)
	if requests {
		m.work.requestsAt = now.Add(tick)
	}
	m.mu.Unlock()
	for _, e := range events {
		m.tell(e)
	}
	for _, j := range jobs {
		if !m.spawn(func(ctx context.Context) { m.do(ctx, j) }) {
			m.mu.Lock()
			m.count(j, -1)
			m.mu.Unlock()
		}
	}
	if requests {
		m.spawn(m.readRequests)
		m.spawn(m.readAnnounced)
	}
	return next
}

// tidy adopts what has been coming, ends what stands in and has expired, and returns what is to be told.
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
		m.endStandIns(mc, now, at)
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
	job
	mc *managed
}

// dueJobs returns the jobs that are due and for which there is room. The end of a job wakes the loop for
// the others. What is read comes before what is stored, and that before questions, whatever has waited longest
// first. Orders for certificates that were configured come first, and the most urgent of those.
func (m *Manager) dueJobs(now time.Time, at func(time.Time)) []dueJob {
	var due, others, orders []dueJob
	for _, mc := range m.managed {
		if mc.plan.busy {
			continue
		}
		j := m.nextJob(mc, now)
		switch {
		case now.Before(j.at):
			at(j.at)
		case j.kind == orderJob:
			orders = append(orders, dueJob{j, mc})
		default:
			others = append(others, dueJob{j, mc})
		}
	}
	slices.SortStableFunc(others, func(a, b dueJob) int { return cmp.Or(cmp.Compare(a.kind, b.kind), a.at.Compare(b.at)) })
	questions := m.work.questions
	for _, o := range others {
		if m.work.jobs+len(due) >= maxJobs || o.kind == askJob && questions >= maxQuestions {
			break // there is no room, or the rest are questions, too
		}
		if o.kind == askJob {
			questions++
		}
		due = append(due, o)
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

// expiry orders certificates by urgency: those that there are none of come first, unless that has failed:
// names that never work must not keep others from being renewed.
func expiry(mc *managed) int64 {
	switch c := mc.newest(); {
	case c != nil:
		return c.tls.Leaf.NotAfter.Unix()
	case mc.plan.record.Failures > 0:
		return math.MaxInt64
	}
	return math.MinInt64
}

// count counts a job at its beginning, by 1, and at its end, by -1. Manager.mu must be held.
func (m *Manager) count(j dueJob, n int) {
	j.mc.plan.busy = n > 0
	if j.kind != orderJob {
		m.work.jobs += n
		if j.kind == askJob {
			m.work.questions += n
		}
		return
	}
	m.work.orders += n
	if j.mc.onDemand {
		m.work.demandOrders += n
	}
}

// do does a job, and makes room for the next.
func (m *Manager) do(ctx context.Context, j dueJob) {
	defer func() {
		m.mu.Lock()
		m.count(j, -1)
		m.mu.Unlock()
		m.wakeUp()
	}()
	switch j.kind {
	case readJob:
		m.look(ctx, j.mc)
	case storeJob:
		m.storeAgain(ctx, j.mc)
	case orderJob:
		m.attempt(ctx, j.mc)
	case askJob:
		m.askForAdvice(ctx, j.mc)
	}
}

// forgetTimes makes everything be looked at again: the clock has been set back, and what was planned by it
// may be years ahead. What failed before is tried once more.
func (m *Manager) forgetTimes() {
	now := m.now()
	for _, mc := range m.managed {
		p := &mc.plan
		p.record.Next, p.wait, p.readAt, p.storeAt, p.expiresAt = time.Time{}, time.Time{}, time.Time{}, time.Time{}, time.Time{}
		p.unreadSince, p.blindSince, p.readFails = time.Time{}, time.Time{}, 0
		p.record.Held = nil
		if c := mc.newest(); c != nil && !p.early {
			p.due = dueTime(c, m.salt(), now)
		}
		p.advice.askAt = time.Time{}
		if p.coming != nil {
			p.adoptAt = m.adoptionTime(mc, p.coming, now)
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
