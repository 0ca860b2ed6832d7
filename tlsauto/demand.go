package tlsauto

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

const (
	maxDecisions    = 16               // at the same time
	decisionTime    = 10 * time.Second // that OnDemand has
	decisionMemory  = time.Minute
	maxDecided      = 2048 // decisions in each of two maps
	refusalsTold    = 60   // events in a minute, however many names clients make up
	refusalsPer     = time.Minute
	onDemandPerTime = time.Minute // that of Config.OnDemandPerMinute
)

// demanded is what is known of names on demand. All but slots is guarded by Manager.mu.
type demanded struct {
	// slots has the *slot of each certificate on demand by its name. It is apart from the table, which
	// would have to be made anew for each of thousands of names. Handshakes read it without a lock.
	slots     sync.Map
	installed int // how many there are

	deciding map[string]*decision

	// decided has what was decided since turned, and before the decisions of the time before that:
	// what is too old goes without being looked for.
	decided, before map[string]*decision
	turned          time.Time

	told      int // refusals, since
	toldSince time.Time

	perMinute int
	orders    []time.Time // those of the last minute
}

func (d *demanded) init(perMinute int) {
	d.deciding = map[string]*decision{}
	d.perMinute = perMinute
}

// A decision is that of Config.OnDemand on a name.
type decision struct {
	done   chan struct{}
	serve  bool  // it is for a handshake that is to be served, not for a challenge alone; guarded by Manager.mu
	err    error // why it is refused. Set when done, as is:
	reason HandshakeError
	until  time.Time
}

var errTooMany = errors.New("too many certificates on demand")

// find returns nil if nothing is known of the name in a handshake.
func (m *Manager) find(hello *tls.ClientHelloInfo) *slot {
	if s := m.table.Load().find(hello); s != nil || hello.ServerName == "" {
		return s
	}
	return m.slotOnDemand(lookupName(hello.ServerName))
}

// refuses returns why there will be no certificate for a name in its one form, or "": there is one, will be, or OnDemand
// accepts it, which orders nothing.
func (m *Manager) refuses(ctx context.Context, name string) HandshakeError {
	if m.table.Load().named(name) != nil || m.slotOnDemand(name) != nil {
		return ""
	}
	if name = demandable(name); m.cfg.OnDemand == nil || name == "" {
		return UnknownName
	}
	return m.decide(ctx, name, false)
}

func (m *Manager) slotOnDemand(name string) *slot {
	if s, ok := m.demanded.slots.Load(name); ok {
		return s.(*slot)
	}
	return nil
}

// demand returns the slot of a name that is not known yet, or why it has none.
func (m *Manager) demand(hello *tls.ClientHelloInfo) (*slot, HandshakeError) {
	name := demandable(lookupName(hello.ServerName))
	if m.cfg.OnDemand == nil || name == "" {
		return nil, UnknownName
	}
	if reason := m.decide(contextOf(hello), name, true); reason != "" {
		return nil, reason
	}
	if s := m.slotOnDemand(name); s != nil {
		return s, ""
	}
	// It was decided for a challenge, or the certificate was dropped since.
	if err := m.admit(name); err != nil {
		return nil, TooMany
	}
	return m.slotOnDemand(name), ""
}

// challenged returns why a challenge for a name is not looked for, or "". The name is that of a
// handshake or a request, in its one form.
func (m *Manager) challenged(ctx context.Context, name string) HandshakeError {
	if addr, ok := addressOf(name); ok {
		name = addr.String()
	}
	if m.table.Load().names[name] != nil || m.slotOnDemand(name) != nil {
		return ""
	}
	if name = demandable(name); m.cfg.OnDemand == nil || name == "" {
		return UnknownChallenge
	}
	// The order may be that of another process, which nobody has asked this one about yet.
	if reason := m.decide(ctx, name, false); reason == TooMany {
		return TooMany
	} else if reason != "" {
		return UnknownChallenge
	}
	return ""
}

// demandable returns the one form of a name that a certificate may be ordered for on demand, or "".
func demandable(name string) string {
	n, err := NormalizeName(name)
	if err != nil || isIP(n) || isWildcard(n) || !strings.Contains(n, ".") {
		return ""
	}
	return n
}

// decide returns why a name is refused, or "". It waits for OnDemand no longer than WaitFirst.
func (m *Manager) decide(ctx context.Context, name string, serve bool) HandshakeError {
	d, begin := m.decision(name, serve)
	if d == nil {
		return TooMany
	}
	if begin && !m.spawn(func(ctx context.Context) { m.makeDecision(ctx, name, d) }) {
		m.decidedOn(name, d, errNotRunning, false)
	}
	if !isClosed(d.done) && m.cfg.WaitFirst > 0 {
		timer := time.NewTimer(m.cfg.WaitFirst)
		defer timer.Stop()
		select {
		case <-d.done:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	if !isClosed(d.done) {
		return UnknownName
	}
	return d.reason
}

var errNotRunning = errors.New("the manager does not run")

// decision returns that on a name, which the caller has to begin if it is new. It is nil if too many
// are under way.
func (m *Manager) decision(name string, serve bool) (d *decision, begin bool) {
	now := m.cfg.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if d := m.demanded.deciding[name]; d != nil {
		d.serve = d.serve || serve
		return d, false
	}
	if d := m.demanded.recall(name, now); d != nil {
		return d, false
	}
	if len(m.demanded.deciding) == maxDecisions {
		return nil, false
	}
	d = &decision{done: make(chan struct{}), serve: serve}
	m.demanded.deciding[name] = d
	return d, true
}

// makeDecision asks OnDemand. A name that is accepted gets a certificate at once, even if the client has
// left by then.
func (m *Manager) makeDecision(ctx context.Context, name string, d *decision) {
	err := m.askOnDemand(ctx, name)
	if ctx.Err() != nil { // which tells nothing of the name
		m.decidedOn(name, d, errNotRunning, false)
		return
	}
	m.mu.Lock()
	serve := d.serve
	m.mu.Unlock()
	if err == nil && serve {
		err = m.admit(name)
	}
	if m.decidedOn(name, d, err, true) {
		m.tell(Event{Kind: Refused, Time: m.cfg.Now(), Names: []string{name}, Err: err})
	}
}

// askOnDemand returns why a certificate for a name must not be ordered. OnDemand must not be nil.
func (m *Manager) askOnDemand(ctx context.Context, name string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, decisionTime)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("OnDemand panicked: %v", p)
		}
	}()
	if err := m.cfg.OnDemand(ctx, name); err != nil {
		return err
	}
	return ctx.Err() // an answer after that is none
}

// decidedOn ends a decision, and reports whether a refusal is to be told.
func (m *Manager) decidedOn(name string, d *decision, err error, remember bool) (tell bool) {
	now := m.cfg.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	d.err = err
	d.until = now.Add(decisionMemory)
	switch {
	case errors.Is(err, errTooMany):
		d.reason = TooMany
	case err != nil:
		d.reason = UnknownName
	}
	delete(m.demanded.deciding, name)
	if remember {
		m.demanded.remember(name, d, now)
	}
	close(d.done)
	return remember && err != nil && m.demanded.mayTell(now)
}

// admit adds a certificate on demand, which Run then obtains, unless it is there or there are too many.
func (m *Manager) admit(name string) error {
	mc, err := newManaged([]string{name}, m.cfg.Now)
	if err != nil {
		return err
	}
	mc.onDemand = true
	mc.used.Store(m.cfg.Now().Unix())

	m.mu.Lock()
	defer m.mu.Unlock()
	if m.slotOnDemand(name) != nil {
		return nil
	}
	if len(m.onDemandLocked()) >= m.cfg.MaxOnDemand {
		return errTooMany
	}
	m.managed = append(m.managed, mc)
	m.installOneLocked(mc)
	m.demanded.installed++
	m.wakeUp()
	return nil
}

// configuredLocked returns the certificates of the configuration.
func (m *Manager) configuredLocked() []*managed { return m.managed[:m.firstOnDemandLocked()] }

// onDemandLocked returns the certificates on demand.
func (m *Manager) onDemandLocked() []*managed { return m.managed[m.firstOnDemandLocked():] }

func (m *Manager) firstOnDemandLocked() int {
	for i, mc := range m.managed {
		if mc.onDemand {
			return i
		}
	}
	return len(m.managed)
}

// installOnDemandLocked makes handshakes see the certificates on demand as they are now.
func (m *Manager) installOnDemandLocked() {
	all := m.onDemandLocked()
	for _, mc := range all {
		if mc.cert != mc.installed {
			m.installOneLocked(mc)
		}
	}
	if m.demanded.installed == len(all) {
		return
	}
	current := make(map[*managed]bool, len(all))
	for _, mc := range all {
		current[mc] = true
	}
	m.demanded.slots.Range(func(name, s any) bool {
		if !current[s.(*slot).managed] {
			m.demanded.slots.Delete(name)
		}
		return true
	})
	m.demanded.installed = len(all)
}

func (m *Manager) installOneLocked(mc *managed) {
	m.demanded.slots.Store(mc.names[0], newSlot(mc))
	mc.installed = mc.cert
}

// recall returns the decision on a name, if there was one of late.
func (d *demanded) recall(name string, now time.Time) *decision {
	for _, decided := range []map[string]*decision{d.decided, d.before} {
		if old := decided[name]; old != nil && recent(old.until.Add(-decisionMemory), now, decisionMemory) {
			return old
		}
	}
	return nil
}

func (d *demanded) remember(name string, made *decision, now time.Time) {
	if len(d.decided) >= maxDecided || !recent(d.turned, now, decisionMemory) {
		d.decided, d.before, d.turned = map[string]*decision{}, d.decided, now
	}
	d.decided[name] = made
}

// mayTell reports whether one more refusal is told.
func (d *demanded) mayTell(now time.Time) bool {
	if !recent(d.toldSince, now, refusalsPer) {
		d.told, d.toldSince = 0, now
	}
	d.told++
	return d.told <= refusalsTold
}

// take takes one of the orders on demand that a minute has, or returns how long it is until there is one
// again. Manager.mu must be held.
func (d *demanded) take(now time.Time) (wait time.Duration) {
	kept := d.orders[:0]
	for _, at := range d.orders {
		if recent(at, now, onDemandPerTime) {
			kept = append(kept, at)
		}
	}
	d.orders = kept
	if len(kept) >= d.perMinute {
		return kept[0].Add(onDemandPerTime).Sub(now)
	}
	d.orders = append(kept, now)
	return 0
}
