package auth

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// quietFor is how long the log says nothing more about a matter.
const quietFor = time.Minute

// A quietLog keeps what others can bring about as often as they like from
// flooding the log. Its zero value is ready to use.
type quietLog struct {
	mu      sync.Mutex
	matters map[string]*matter // as many as there are providers and issuers
}

type matter struct {
	logged  time.Time
	skipped int
}

// quietly logs a failure of a provider or issuer, at most once a minute for
// each message and name.
func (s *Service) quietly(ctx context.Context, level slog.Level, message, name string, err error) {
	if skipped, ok := s.quiet.due(message+"\x00"+name, s.now()); ok {
		s.log.Log(ctx, level, message, "name", name, "error", err, "skipped", skipped)
	}
}

// due reports whether a matter may be logged now, and how often it was not
// since it was.
func (q *quietLog) due(key string, now time.Time) (skipped int, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.matters == nil {
		q.matters = map[string]*matter{}
	}
	m := q.matters[key]
	if m == nil {
		m = new(matter)
		q.matters[key] = m
	} else if age := now.Sub(m.logged); age >= 0 && age < quietFor {
		m.skipped++
		return 0, false
	}
	skipped = m.skipped
	m.logged, m.skipped = now, 0
	return skipped, true
}
