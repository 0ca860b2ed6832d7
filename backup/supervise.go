package backup

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

const (
	leastBackoff = 100 * time.Millisecond
	mostBackoff  = 30 * time.Second

	// mostBackoffReady is the same for one that got to work.
	mostBackoffReady = 2 * time.Second

	// livedWell is how long a replicator has to live for the next failure to be a new one.
	livedWell = 10 * time.Second

	// stuckAfter is the silence after which a replicator is ended. It speaks each second.
	stuckAfter = 15 * time.Second

	waitingForLease = "waiting for the lease"
	waitingForLock  = "waiting for the lock"
)

// supervise keeps a replicator running until Close, and sees to the last sync.
func (r *Replica) supervise(order wire.Order) {
	backoff := leastBackoff
	for {
		began := time.Now()
		wasReady, err := r.runOnce(order)
		if r.over() {
			return
		}
		if r.isClosing() {
			r.lastSync(order, wasReady, err)
			return
		}
		most := mostBackoff
		if wasReady {
			most = mostBackoffReady
		}
		if time.Since(began) > livedWell {
			backoff = leastBackoff
		}
		r.cfg.Logger.Warn("backup: the replicator ended", "error", err)
		r.update(func(s *Status) {
			s.State, s.Why, s.Error, s.PID = Starting, "the replicator is started again", errText(err), 0
			s.Restarts++
		})
		pause := time.NewTimer(min(backoff, most))
		select {
		case <-pause.C:
		case <-r.stop:
			pause.Stop()
			r.lastSync(order, false, err)
			return
		}
		backoff = min(2*backoff, mostBackoff)
	}
}

// lastSync takes note of how the last sync went. When there was none, another replicator is started
// for it, as long as there is time.
func (r *Replica) lastSync(order wire.Order, done bool, err error) {
	asked := r.stopAsked()
	for (!done || err != nil) && !r.over() {
		order.FinalSync = r.cfg.FinalSync - time.Since(asked)
		if order.FinalSync <= 0 {
			break
		}
		if done, err = r.runOnce(order); done {
			break // it has done what could be done
		}
		time.Sleep(leastBackoff)
	}
	if err == nil && !done {
		err = errors.New("there was no time to replicate")
	}
	r.mu.Lock()
	r.unfinished = err
	r.mu.Unlock()
	r.update(func(s *Status) { s.Error = errText(err) })
}

// stopAsked is when Close was called.
func (r *Replica) stopAsked() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

// over reports whether there is nothing to start any more.
func (r *Replica) over() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status.State == Refusing || r.status.State == Fenced
}

func (r *Replica) isClosing() bool {
	select {
	case <-r.stop:
		return true
	default:
		return false
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// runOnce runs one replicator to its end and reports whether it came to replicate.
func (r *Replica) runOnce(order wire.Order) (wasReady bool, err error) {
	order.Known = order.Known || r.canary.isClaimed()
	ctx, cancel := context.WithTimeout(context.Background(), helloTimeout)
	defer cancel()
	events := make(chan wire.Event)
	gone := make(chan struct{})
	p, err := startProcess(ctx, r.cfg, order, func(e wire.Event) {
		select {
		case events <- e:
		case <-gone:
		}
	})
	if err != nil {
		return false, err
	}
	r.update(func(s *Status) { s.PID = p.cmd.Process.Pid })
	r.mu.Lock()
	r.process = p
	r.mu.Unlock()
	defer func() {
		close(gone)
		r.mu.Lock()
		r.process, r.ready = nil, false
		r.mu.Unlock()
	}()

	watch := time.NewTicker(time.Second)
	defer watch.Stop()
	stop := r.stop
	var deadline <-chan time.Time
	for {
		select {
		case e := <-events:
			wasReady = wasReady || e.Kind == wire.Ready
			r.event(p, e)
		case <-p.exited:
			_, err := p.wait(ctx)
			return wasReady, err
		case <-watch.C:
			if silence := p.silence(); silence > stuckAfter {
				r.cfg.Logger.Error("backup: the replicator is stuck, ending it", "silent", silence.Round(time.Second))
				p.kill()
			}
		case <-stop:
			stop = nil
			p.stop()
			timer := time.NewTimer(order.FinalSync + 5*time.Second)
			defer timer.Stop()
			deadline = timer.C
		case <-deadline:
			p.kill()
		}
	}
}

// event takes note of what the replicator tells.
func (r *Replica) event(p *process, e wire.Event) {
	switch e.Kind {
	case wire.Waiting:
		why := fmt.Sprintf("waiting for the %s, which is held by %s", e.Code, e.Text)
		if !e.Until.IsZero() {
			why += " until " + e.Until.UTC().Format(time.TimeOnly) + " UTC"
		}
		r.update(func(s *Status) { s.State, s.Why = Starting, why })
	case wire.Vacant:
		r.work.Go(func() { r.occupy(p) })
	case wire.Ready:
		r.mu.Lock()
		r.ready, r.progressed = true, time.Now()
		r.mu.Unlock()
		r.update(func(s *Status) { s.State, s.Why, s.Error = Replicating, "", "" })
	case wire.State:
		r.mu.Lock()
		r.denied = e.Code == wire.CodeDenied
		if moved := [3]uint64{e.TXID, e.ReplicaTXID, uint64(e.Moved)}; moved != r.moved {
			r.moved, r.progressed = moved, time.Now()
		}
		r.mu.Unlock()
		r.update(func(s *Status) {
			s.TXID, s.ReplicaTXID, s.WALBytes, s.RSS, s.Error = e.TXID, e.ReplicaTXID, e.WALBytes, e.RSS, e.Error
		})
	case wire.Refused:
		err := &replyError{e.Code, e.Error}
		r.cfg.Logger.Error("backup: replication is refused", "error", err)
		r.refuse(Refusing, err.Error(), err)
	case wire.Fenced:
		r.cfg.Logger.Error("backup: another machine has taken over the replica; nothing is copied any more", "by", e.Text)
		r.refuse(Fenced, "taken over by "+e.Text, ErrFenced)
		if r.cfg.OnFenced != nil {
			r.callbacks.call(func() { r.cfg.OnFenced(e.Text) })
		}
	default:
	}
}

// occupy notes in the database that it belongs to the replica, before anything is copied there.
func (r *Replica) occupy(p *process) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := r.canary.occupy(ctx); err != nil {
		r.cfg.Logger.Error("backup: write to the database", "error", err)
		p.kill() // and start again
		return
	}
	if _, err := p.call(ctx, wire.Command{Op: wire.Go}); err != nil {
		r.cfg.Logger.Warn("backup: begin to replicate", "error", err)
	}
}

// deniedLast reports whether the store did not accept the credentials the last time.
func (r *Replica) deniedLast() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.denied
}

// idle is how long nothing has moved to the replica. Who waits for others is not idle.
func (r *Replica) idle() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if why := r.status.Why; strings.HasPrefix(why, waitingForLease) || strings.HasPrefix(why, waitingForLock) {
		return 0
	}
	return time.Since(r.progressed)
}

// restart ends the replicator, so that supervise starts another.
func (r *Replica) restart() {
	r.mu.Lock()
	p := r.process
	r.mu.Unlock()
	if p != nil {
		r.cfg.Logger.Warn("backup: starting the replicator again")
		p.kill()
	}
}

// refusal is why there is no replication, and never will be.
func (r *Replica) refusal() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refused
}

// refuse ends replication for good.
func (r *Replica) refuse(state State, why string, err error) {
	r.mu.Lock()
	r.refused, r.ready = err, false
	r.mu.Unlock()
	r.update(func(s *Status) { s.State, s.Why = state, why })
}

// call sends a command to the replicator when it replicates.
func (r *Replica) call(ctx context.Context, c wire.Command) (wire.Event, error) {
	for {
		r.mu.Lock()
		p, ready, changed, state, started := r.process, r.ready, r.changed, r.status.State, r.started
		r.mu.Unlock()
		switch {
		case !started || state == Closed:
			return wire.Event{}, ErrClosed
		case state == Refusing || state == Fenced:
			return wire.Event{}, r.refusal()
		case ready && p != nil:
			e, err := p.call(ctx, c)
			var reply *replyError
			if err == nil || ctx.Err() != nil || errors.As(err, &reply) {
				return e, err
			} // it is gone: the next one will do it
		}
		select {
		case <-changed:
		case <-r.stop:
			return wire.Event{}, ErrClosed
		case <-ctx.Done():
			return wire.Event{}, ctx.Err()
		}
	}
}

// makeOwner returns the name under which leases are held for the database whose replicator has its
// state in dir, which it makes. It stays the same as long as that directory does.
func makeOwner(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	file := filepath.Join(dir, "owner")
	text, err := os.ReadFile(file)
	if name := strings.TrimSpace(string(text)); err == nil && name != "" {
		return name, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	host, _ := os.Hostname() // only for people
	name := host + "/" + rand.Text()
	return name, os.WriteFile(file, []byte(name+"\n"), 0o600)
}
