package tlsauto

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Requests of other processes are under one key of the store, and written under a lease of that name.
const (
	requestsKey   = "renew"
	maxRequests   = 100              // names
	requestsLast  = 10 * time.Minute // a request is carried out, or waits for a process that has the name
	requestsLease = 15 * time.Second
)

// Renew has the certificate that is for a name, of Names and Groups or on demand, renewed now, whatever
// is planned. It does not wait for that: see Events and Status. An attempt that fails is
// made again like others. An error says that there is no such name.
func (m *Manager) Renew(name string) error {
	n, err := NormalizeName(name)
	if err != nil {
		return fmt.Errorf("tlsauto: renew: %w", err)
	}
	if !m.renew(n) {
		return fmt.Errorf("tlsauto: renew: no certificate is obtained for %s", n)
	}
	return nil
}

func (m *Manager) renew(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	mc := m.obtains(name)
	if mc == nil {
		return false
	}
	p := &mc.plan
	p.wanted, p.wantedAt, p.forced, p.wait = true, m.now(), true, time.Time{}
	m.wakeUp()
	return true
}

// obtains returns the certificate that is obtained for a name, or nil. Manager.mu must be held.
func (m *Manager) obtains(name string) *managed {
	for _, mc := range m.managed {
		if slices.Contains(mc.names, name) {
			return mc
		}
	}
	return nil
}

// Reload has Files and ClientCAFile, and the store, looked at now, as on SIGHUP. It does not wait for that.
func (m *Manager) Reload() {
	m.files.wakeUp()
	m.clientCAs.wakeUp()
	m.mu.Lock()
	for _, mc := range m.managed {
		mc.lookNow()
	}
	m.work.requestsAt = time.Time{}
	m.mu.Unlock()
	m.wakeUp()
}

func (m *Manager) watchFiles() {
	if m.files != nil {
		m.spawn(m.files.run)
	}
	if m.clientCAs != nil {
		m.spawn(m.clientCAs.run)
	}
}

// WaitReady waits until there is a certificate that has not expired for all of Names and Groups, or for ctx
// to end: then the error wraps that of ctx, and says which ones are missing and why. It needs Run.
func (m *Manager) WaitReady(ctx context.Context) error {
	again := time.NewTicker(tick) // the clock may be set back, and a certificate be good again
	defer again.Stop()
	for {
		missing, changed := m.missing()
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
			missing, _ = m.missing()
			return fmt.Errorf("tlsauto: wait for certificates: %w; %s", ctx.Err(), strings.Join(missing, "; "))
		}
	}
}

// missing lists the first few of the certificates that WaitReady waits for, and returns a channel that is closed when
// one has come.
func (m *Manager) missing() ([]string, <-chan struct{}) {
	const most = 10
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	var missing []string
	more := 0
	for _, mc := range m.configuredLocked() {
		if mc.cert != nil && !hasExpired(mc.cert, now) {
			continue
		}
		if len(missing) == most {
			more++
			continue
		}
		why := mc.plan.record.Error
		if why == "" {
			why = "no attempt has ended yet"
		}
		missing = append(missing, mc.names[0]+": "+why)
	}
	if more > 0 {
		missing = append(missing, fmt.Sprintf("and %d more", more))
	}
	if m.work.changed == nil {
		m.work.changed = make(chan struct{})
	}
	return missing, m.work.changed
}

// RequestRenewal asks the processes that share a store for what [Manager.Renew] does, within a minute or
// two. It is for commands. What nobody could do is forgotten after ten minutes.
func RequestRenewal(ctx context.Context, store Store, name string) error {
	n, err := NormalizeName(name)
	if err != nil {
		return fmt.Errorf("tlsauto: request a renewal: %w", err)
	}
	err = changeRequests(ctx, store, rand.Text(), time.Now, func(names map[string]time.Time) error {
		if _, ok := names[n]; !ok && len(names) >= maxRequests {
			return errors.New("there are too many requests already")
		}
		names[n] = time.Now().Round(0)
		return nil
	})
	if err != nil {
		return fmt.Errorf("tlsauto: request a renewal of %s: %w", n, err)
	}
	return nil
}

var errBusy = errors.New("another process has the lease; try again")

// changeRequests changes the requests in the store.
func changeRequests(ctx context.Context, store Store, owner string, now func() time.Time, change func(map[string]time.Time) error) error {
	if leaser, ok := store.(Leaser); ok {
		switch got, err := leaser.Acquire(ctx, requestsKey, owner, now(), requestsLease); {
		case err != nil:
			return err
		case !got:
			return errBusy
		}
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
			defer cancel()
			_ = leaser.Release(ctx, requestsKey, owner) // or it runs out
		}()
	}
	names, err := requests(ctx, store)
	if err != nil {
		return err
	}
	if err := change(names); err != nil {
		return err
	}
	if len(names) == 0 {
		return store.Delete(ctx, requestsKey)
	}
	data, err := json.Marshal(names)
	if err != nil {
		return err
	}
	return store.Put(ctx, requestsKey, data)
}

// requests returns the names whose renewal is requested, and when that was. What is damaged is none.
func requests(ctx context.Context, store Store) (map[string]time.Time, error) {
	names := map[string]time.Time{}
	data, err := store.Get(ctx, requestsKey)
	if errors.Is(err, ErrNotFound) {
		return names, nil
	}
	if err != nil {
		return nil, err
	}
	if len(data) > maxStored || json.Unmarshal(data, &names) != nil || len(names) > maxRequests || names == nil {
		return map[string]time.Time{}, nil
	}
	return names, nil
}

// readRequests does what commands have asked for.
func (m *Manager) readRequests(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	var mine []string
	err := guard(func() error {
		if _, err := m.cfg.Store.Get(ctx, requestsKey); errors.Is(err, ErrNotFound) {
			return nil
		}
		return changeRequests(ctx, m.cfg.Store, m.owner, m.now, func(names map[string]time.Time) error {
			mine = m.takeRequests(names)
			return nil
		})
	})
	if err == nil { // otherwise they may still be there, and would be carried out each minute
		for _, name := range mine {
			m.renew(name)
		}
	}
	if err != nil && !errors.Is(err, errBusy) && ctx.Err() == nil {
		m.cfg.Logger.Warn("tlsauto: requests for renewal cannot be read", "error", boundedText(err.Error()))
	}
}

// takeRequests removes, and returns, the names that this process has. What is too old goes, too: nobody has
// done it, or it comes from a backup.
func (m *Manager) takeRequests(names map[string]time.Time) (mine []string) {
	now := m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(names, func(name string, at time.Time) bool {
		if age := now.Sub(at); age > requestsLast || age < -requestsLast {
			return true
		}
		if m.obtains(name) == nil {
			return false
		}
		mine = append(mine, name)
		return true
	})
	return mine
}
