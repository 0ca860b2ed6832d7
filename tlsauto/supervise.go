package tlsauto

import (
	"context"
	"sync"
	"time"
)

// plan is what the supervisor knows of a managed certificate. It is guarded by Manager.mu.
type plan struct {
	due      time.Time // of the renewal
	next     time.Time // of the next attempt
	failures int       // in a row
}

// work is what runs while Run does.
type work struct {
	ctx     context.Context // of Run; nil: it does not run
	running sync.WaitGroup
}

// spawn runs a piece of work that Run waits for at its end. It reports false, and does nothing, when
// Run does not run.
func (m *Manager) spawn(do func(ctx context.Context)) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.work.ctx == nil {
		return false
	}
	ctx := m.work.ctx
	m.work.running.Go(func() { do(ctx) })
	return true
}

// tell logs an event and hands it to Config.Events.
func (m *Manager) tell(e Event) {}

// Run obtains and renews certificates and watches files until ctx ends.
func (m *Manager) Run(ctx context.Context) error { return nil }

func defaultBackoff(failures int) time.Duration { return time.Minute }
