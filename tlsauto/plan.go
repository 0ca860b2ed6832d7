package tlsauto

import "time"

// plan is what the supervisor knows of a managed certificate. It is guarded by Manager.mu.
type plan struct {
	busy bool // a job is under way: there is one at a time

	due        time.Time // of the renewal; zero without a certificate
	early      bool      // it is due since the authority wants it
	advice     advice
	coming     *certificate // is served from adoptAt on
	adoptAt    time.Time
	record     record    // of failed attempts; zero: none
	underWay   bool      // the last one of record may be: another process has begun it
	wanted     bool      // Renew has been called: due does not count
	wantedAt   time.Time // when, if it was in this process
	forced     bool      // and nothing has been tried since: nor does record
	wait       time.Time // before which there is no attempt, for a reason that is no failure
	waits      int       // of this kind, in a row
	blindSince time.Time // since when the store, or its leases, have failed
	expiresAt  time.Time // when to tell that it expires

	read        bool      // the store could be read
	readAt      time.Time // when to read it again
	lookAgain   bool      // somebody has wanted that since it was read
	readFails   int       // in a row
	unreadSince time.Time // when the first of them was
	unstored    *certificate
	storeAt     time.Time // when to try again to store that
	storeFails  int       // in a row
	storeError  string    // of the last one
	leased      bool      // the lease was kept for unstored
	told        map[string]string

	obtained, failed uint64
}

const (
	orderPatience = 10 * time.Second // before a certificate is ordered although the store, which may have it, cannot be read
	readAgain     = 15 * time.Minute // another process may have renewed it before its time
	readUrgent    = time.Minute      // another process may have one, and clients need it
)

// newest is the certificate that is served, or the one that will be. Manager.mu must be held.
func (mc *managed) newest() *certificate {
	if mc.plan.coming != nil {
		return mc.plan.coming
	}
	return mc.cert
}

// lookNow has the store looked into, again if that is under way. Manager.mu must be held.
func (mc *managed) lookNow() { mc.plan.readAt, mc.plan.lookAgain = time.Time{}, true }

// A job is something that is to be done for a certificate.
type job struct {
	kind jobKind
	at   time.Time
}

type jobKind int

const (
	readJob  jobKind = iota // look into the store
	storeJob                // store what could not be stored
	orderJob                // attempt to obtain a certificate
	askJob                  // ask the authority when to renew it
)

// nextJob returns the job that is due, the most important one if there are several, or else the one that will be
// first.
func (m *Manager) nextJob(mc *managed, now time.Time) job {
	p := &mc.plan
	jobs := make([]job, 0, 4)
	jobs = append(jobs, job{readJob, p.readAt})
	if p.unstored != nil {
		jobs = append(jobs, job{storeJob, p.storeAt})
	}
	if at, ok := m.attemptAt(mc); ok {
		jobs = append(jobs, job{orderJob, at})
	}
	if at, ok := m.askAt(mc); ok {
		jobs = append(jobs, job{askJob, at})
	}
	next := jobs[0]
	for _, j := range jobs {
		if !now.Before(j.at) {
			return j
		}
		if j.at.Before(next.at) {
			next = j
		}
	}
	return next
}

// attemptAt is when the next attempt is to be made, and whether that is known.
func (m *Manager) attemptAt(mc *managed) (time.Time, bool) {
	p := &mc.plan
	at := p.wait
	later := func(t time.Time) {
		if t.After(at) {
			at = t
		}
	}
	if !p.read && mc.cert == nil {
		if p.unreadSince.IsZero() {
			return time.Time{}, false // it is read first
		}
		later(p.unreadSince.Add(orderPatience))
	}
	if !p.wanted {
		later(p.due)
	}
	if !p.forced && !p.underWay { // if it is, its lease says so, and when it has ended
		later(p.record.Next)
	}
	if mc.onDemand {
		later(m.work.demandAt)
	}
	return at, true
}

// nextExpiring is when to tell that a certificate expires, and whether it ever is.
func (mc *managed) nextExpiring() (time.Time, bool) {
	c := mc.newest()
	if c == nil {
		return time.Time{}, false
	}
	at := urgentTime(c.tls.Leaf)
	if at.Before(mc.plan.expiresAt) {
		at = mc.plan.expiresAt
	}
	return at, true
}

// take makes a certificate the newest one, which is served at once or a little later. It returns what is
// to be told. Manager.mu must be held.
func (m *Manager) take(mc *managed, c *certificate, now time.Time) []Event {
	p := &mc.plan
	c.atOnce = c.atOnce || p.early
	p.coming, p.adoptAt = c, m.adoptionTime(mc, c, now)
	p.due = dueTime(c, m.salt(), now)
	p.early, p.wanted, p.forced, p.underWay, p.advice, p.record = false, false, false, false, advice{}, record{}
	p.wait, p.waits, p.expiresAt = time.Time{}, 0, time.Time{}
	p.unstored, p.storeFails, p.storeError = nil, 0, "" // of the one before
	if now.Before(p.adoptAt) {
		return nil
	}
	return m.adopt(mc)
}

// adoptionTime is when c takes the place of what is served. Manager.mu must be held.
func (m *Manager) adoptionTime(mc *managed, c *certificate, now time.Time) time.Time {
	delay := m.cfg.AdoptDelay
	if c.atOnce {
		delay = -1
	}
	return adoptionTime(mc.cert, c, delay, now)
}

// adopt makes handshakes see what is coming. Manager.mu must be held.
func (m *Manager) adopt(mc *managed) []Event {
	mc.cert, mc.plan.coming = mc.plan.coming, nil
	if !mc.needsStandIns(m.now()) {
		mc.standIns = nil
	}
	m.installLocked()
	m.firstIsOver(mc)
	m.hasChanged()
	return []Event{eventOf(Adopted, mc, mc.cert)}
}

// firstIsOver ends the waiting of handshakes for a first certificate. Manager.mu must be held.
func (m *Manager) firstIsOver(mc *managed) {
	if !isClosed(mc.first) {
		close(mc.first)
	}
}

// salt makes processes that cannot agree on one of them renew at different times.
func (m *Manager) salt() string {
	if _, ok := m.cfg.Store.(Leaser); ok {
		return ""
	}
	return m.owner
}

func eventOf(kind EventKind, mc *managed, c *certificate) Event {
	e := Event{Kind: kind, Names: mc.names}
	if c != nil {
		e.Issuer, e.NotAfter = c.issuer, c.tls.Leaf.NotAfter
	}
	return e
}
