package bedplate

import (
	"context"
	"time"
)

// sweepInterval is how often files are looked for that no row refers to.
const sweepInterval = time.Hour

// A sweeper removes files that no row refers to, which a crash or a store that
// could not be reached leaves behind.
type sweeper struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// startSweeping sweeps at once and then every hour, until the sweeper stops.
func (b *Backend) startSweeping(failed func(error)) *sweeper {
	ctx, cancel := context.WithCancel(context.Background())
	s := &sweeper{cancel, make(chan struct{})}
	go func() {
		defer close(s.done)
		ticker := time.NewTicker(sweepInterval)
		defer ticker.Stop()
		for {
			if _, err := b.Records.SweepFiles(ctx); err != nil && ctx.Err() == nil {
				failed(err)
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return s
}

func (s *sweeper) stop() {
	s.cancel()
	<-s.done
}
