package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

// A Standby keeps a copy of a database up to date from its replica, on a second machine, until it
// is promoted to be the database. It is safe for concurrent use. Create it with [Replica.Follow].
//
// The copy is a file that other processes can read, with any SQLite tool in read-only mode. This
// process must not open it.
type Standby struct {
	r    *Replica
	path string // of the database that it may become

	mu        sync.Mutex
	process   *process
	status    StandbyStatus
	following bool                    // supervise runs and was not told to stop
	closed    bool                    // by Close, or because it was promoted
	promotion context.CancelCauseFunc // ends the Promote that is under way; nil: none is
	changed   chan struct{}

	stop chan struct{} // closed to end supervise
	work sync.WaitGroup
}

// StandbyStatus tells how far a [Standby] is.
type StandbyStatus struct {
	Copy        string    `json:"copy"`         // path of the copy
	Ready       bool      `json:"ready"`        // the copy is whole
	TXID        uint64    `json:"txid"`         // the transaction up to which it goes
	ReplicaTXID uint64    `json:"replica_txid"` // the newest that was seen in the replica
	Heard       time.Time `json:"heard,omitzero"`
	Error       string    `json:"error,omitempty"`
}

// followEvery is how often a standby looks for what is new.
const followEvery = time.Second

// Follow begins to follow the replica, for a database that may later be at path, where nothing is
// now. The copy is kept at path with "-standby" added. The replica itself is not started.
func (r *Replica) Follow(path string) (*Standby, error) {
	path, err := databasePath(path)
	if err == nil {
		var exists bool
		if exists, err = hasContent(path); exists {
			err = fmt.Errorf("%s: %w", path, fs.ErrExist)
		}
	}
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("backup: follow: %w", err)
	}
	s := &Standby{r: r, path: path, changed: make(chan struct{}), status: StandbyStatus{Copy: path + "-standby"}}
	s.resume()
	return s, nil
}

// Status returns how far the copy is.
func (s *Standby) Status() StandbyStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// supervise keeps a replicator running that follows.
func (s *Standby) supervise() {
	backoff := leastBackoff
	for {
		err := s.follow()
		select {
		case <-s.stop:
			return
		default:
		}
		if err != nil {
			s.r.cfg.Logger.Warn("backup: standby", "error", err)
		}
		if s.Status().Error == "" {
			backoff = leastBackoff
		}
		s.update(func(st *StandbyStatus) { st.Error = errText(cmpErr(err, errGone)) })
		pause := time.NewTimer(backoff)
		select {
		case <-pause.C:
		case <-s.stop:
			pause.Stop()
			return
		}
		backoff = min(2*backoff, mostBackoff)
	}
}

func (s *Standby) follow() error {
	ctx, cancel := context.WithTimeout(context.Background(), helloTimeout)
	defer cancel()
	order := wire.Order{Mode: wire.Follow, Output: s.status.Copy, Interval: followEvery, MaxBytes: s.r.cfg.MaxSize}
	p, err := startProcess(ctx, s.r.cfg, order, s.event)
	if err != nil {
		return err
	}
	s.setProcess(p)
	defer s.setProcess(nil)
	watch := time.NewTicker(time.Second)
	defer watch.Stop()
	stop := s.stop
	var deadline <-chan time.Time
	for {
		select {
		case <-p.exited:
			_, err := p.wait(ctx)
			return err
		case <-watch.C:
			if p.silence() > stuckAfter {
				p.kill()
			}
		case <-stop:
			stop = nil
			p.stop()
			timer := time.NewTimer(5 * time.Second)
			defer timer.Stop()
			deadline = timer.C
		case <-deadline:
			p.kill()
		}
	}
}

func (s *Standby) event(e wire.Event) {
	s.update(func(st *StandbyStatus) {
		switch e.Kind {
		case wire.Ready:
			st.Ready, st.TXID, st.Error = true, e.TXID, ""
		case wire.State:
			st.TXID, st.ReplicaTXID, st.Error, st.Heard = e.TXID, e.ReplicaTXID, e.Error, s.r.cfg.Now()
		default:
		}
	})
}

func (s *Standby) setProcess(p *process) {
	s.mu.Lock()
	s.process = p
	s.mu.Unlock()
	s.update(func(*StandbyStatus) {})
}

func (s *Standby) update(change func(*StandbyStatus)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.status)
	close(s.changed)
	s.changed = make(chan struct{})
}

// Promote makes the copy the database: it acquires the lease of the replica, applies everything
// that is there, checks the copy like [Replica.Restore] does, with check if that is not nil, and
// moves it to the path that Follow was given. The database can then be opened and [Replica.Start]
// be called. The standby is at its end.
//
// The machine that wrote until now has to be gone for as long as Config.LeaseTTL, or else it is
// [ErrLeased]. With force the lease is taken from it: it learns of that within LeaseTTL, and what
// it acknowledges until then and later is lost. Replicas without leases keep nobody apart: see to
// it that the other machine is off.
//
// When Promote fails, the standby goes on following, unless it was closed: Close makes a Promote
// that is under way fail with [ErrClosed]. There cannot be two at the same time.
func (s *Standby) Promote(ctx context.Context, force bool, check func(ctx context.Context, path string) error) error {
	if err := s.promote(ctx, force, check); err != nil {
		return fmt.Errorf("backup: promote: %w", err)
	}
	return nil
}

func (s *Standby) promote(ctx context.Context, force bool, check func(ctx context.Context, path string) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.mu.Lock()
	switch {
	case s.closed:
		s.mu.Unlock()
		return ErrClosed
	case s.promotion != nil:
		s.mu.Unlock()
		return errors.New("it is being promoted already")
	}
	s.promotion = cancel
	s.mu.Unlock()

	err := s.take(ctx, force, check)
	if err != nil && errors.Is(context.Cause(ctx), ErrClosed) {
		err = ErrClosed
	}
	if err != nil {
		s.resume()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.promotion = nil
	s.closed = s.closed || err == nil
	return err
}

// take puts the copy in its place, under the lease from the first to the last.
func (s *Standby) take(ctx context.Context, force bool, check func(ctx context.Context, path string) error) error {
	cfg := s.r.cfg
	p, err := cfg.claim(ctx, s.path, RestoreOptions{})
	if err != nil {
		return err
	}
	defer p.release()
	return s.r.underLease(ctx, s.path, force, func(ctx context.Context, sure func() error) error {
		if force && cfg.LeaseTTL > 0 { // the other one may not know yet
			if err := wait(ctx, cfg.LeaseTTL); err != nil {
				return err
			}
		}
		if err := s.catchUp(ctx); err != nil {
			return err
		}
		s.halt()
		copied := s.status.Copy
		if err := cfg.verify(ctx, copied, installed{}, RestoreOptions{Check: check}); err != nil {
			return err
		}
		if err := sure(); err != nil {
			return err
		}
		if err := cfg.install(copied, s.path); err != nil {
			return err
		}
		for _, suffix := range append([]string{"", "-txid", "-txid.new", "-fresh", "-fresh.partial"}, besideDatabase...) {
			if err := os.Remove(copied + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
				cfg.Logger.Warn("backup: remove what is left of the standby", "error", err)
			}
		}
		return nil
	})
}

// catchUp applies everything that is in the replica.
func (s *Standby) catchUp(ctx context.Context) error {
	for {
		s.mu.Lock()
		p, ready, changed := s.process, s.status.Ready, s.changed
		s.mu.Unlock()
		if p != nil && ready {
			_, err := p.call(ctx, wire.Command{Op: wire.CatchUp})
			var reply *replyError
			if err == nil || ctx.Err() != nil || errors.As(err, &reply) {
				return err
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// resume begins to follow, unless it does or is closed.
func (s *Standby) resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.following {
		return
	}
	s.following, s.stop = true, make(chan struct{})
	s.work.Go(s.supervise)
}

// halt ends the following and waits for that.
func (s *Standby) halt() {
	s.mu.Lock()
	if s.following {
		s.following = false
		close(s.stop)
	}
	s.mu.Unlock()
	s.work.Wait()
}

// Close ends the following. The copy stays, and another Follow goes on with it. A Promote that is
// under way is made to fail, but not waited for.
func (s *Standby) Close() error {
	s.mu.Lock()
	s.closed = true
	if s.promotion != nil {
		s.promotion(ErrClosed)
	}
	s.mu.Unlock()
	s.halt()
	return nil
}
