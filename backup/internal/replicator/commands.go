package replicator

import (
	"context"
	"errors"
	"time"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

const (
	// maxCommands is how many commands are worked on at the same time.
	maxCommands = 64

	// mostCommandTime bounds a command without a deadline.
	mostCommandTime = 10 * time.Minute
)

// serve takes commands until there are no more, which means the end.
func (r *replication) serve() {
	for command := range r.commands {
		switch command.Op {
		case wire.Stop:
			r.stop()
		case wire.Go:
			r.goOnce.Do(func() { close(r.goAhead) })
			r.send(wire.Event{Kind: wire.Reply, ID: command.ID})
		case wire.Status:
			r.sendState()
			r.send(wire.Event{Kind: wire.Reply, ID: command.ID})
		default:
			select {
			case r.slots <- struct{}{}:
				r.answer(command)
			default:
				r.reply(command, wire.Event{}, errors.New("too many commands at the same time"))
			}
		}
	}
	r.stop()
}

// answer sees to it that there is a reply before the deadline. It does not wait for that.
func (r *replication) answer(command wire.Command) {
	deadline := command.Deadline
	if deadline.IsZero() {
		deadline = time.Now().Add(mostCommandTime)
	}
	ctx, cancel := context.WithDeadline(r.life, deadline)
	type result struct {
		e   wire.Event
		err error
	}
	done := make(chan result, 1)
	r.start(func() {
		defer func() { <-r.slots }()
		e, err := r.execute(ctx, command)
		done <- result{e, err}
	})
	r.start(func() {
		defer cancel()
		select {
		case got := <-done:
			r.reply(command, got.e, got.err)
		case <-ctx.Done():
			r.reply(command, wire.Event{}, ctx.Err())
		}
	})
}

func (r *replication) reply(command wire.Command, e wire.Event, err error) {
	e.Kind, e.ID = wire.Reply, command.ID
	if err != nil {
		e.Code, e.Error = codeOf(err), r.redact.text(r.reason(err).Error())
	}
	r.send(e)
}

// reason is what err is about: when there was no time, what took it.
func (r *replication) reason(err error) error {
	if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if last := errors.Join(r.leaseError, r.captureError, r.uploadError); last != nil {
		return last
	}
	return errors.New("it was not done in time")
}

func (r *replication) execute(ctx context.Context, command wire.Command) (e wire.Event, err error) {
	switch command.Op {
	case wire.Sync:
		e.TXID, e.ReplicaTXID, err = r.sync(ctx, command.Wait)
	case wire.Prove:
		return r.prove(ctx, command)
	case wire.Shot:
		if _, err = r.captures.wait(ctx); err == nil {
			e.TXID, err = r.snapshots.wait(ctx)
		}
	default:
		err = errors.New("this command has no meaning here")
	}
	return e, err
}

// sync captures what was committed before the call and, if wait, uploads it.
func (r *replication) sync(ctx context.Context, wait bool) (txid, there uint64, err error) {
	if txid, err = r.captures.wait(ctx); err != nil {
		return 0, 0, err
	}
	if wait {
		if there, err = r.uploads.wait(ctx); err != nil {
			return 0, 0, err
		}
		if there < txid {
			return 0, 0, errors.New("not everything could be uploaded")
		}
		return txid, there, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return txid, r.there, nil
}
