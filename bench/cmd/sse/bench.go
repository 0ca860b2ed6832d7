package main

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/bedplate/bedplate/bench/internal/dataset"
	"github.com/bedplate/bedplate/bench/internal/proc"
	"github.com/bedplate/bedplate/bench/internal/result"
)

// maxWriters are the connections for requests that end.
const maxWriters = 8

// bench is the subscribers and the writers of a plan.
type bench struct {
	*loop
	plan    plan
	tally   tally
	open    int       // streams, ready or not
	ready   int       // streams
	writers []int     // users who may write
	turn    int       // of the writers
	last    time.Time // when the last write was answered
	body    []byte
	buf     []byte
}

func newBench(p plan) (*bench, error) {
	l, err := newLoop(p.addr)
	if err != nil {
		return nil, err
	}
	b := &bench{loop: l, plan: p}
	for u := range p.targets.Users {
		if dataset.InHall(u) {
			b.writers = append(b.writers, u)
		}
	}
	for range maxWriters {
		c, err := l.dial(netip.Addr{})
		if err != nil {
			l.close()
			return nil, err
		}
		l.idle = append(l.idle, c)
	}
	return b, nil
}

const (
	// opening is how many streams are being opened at a time.
	opening = 64
	// openTimeout bounds the time from one stream becoming ready to the next.
	openTimeout = 10 * time.Second
)

// subscribe opens all streams and returns when each is ready.
func (b *bench) subscribe() error {
	since, ready := time.Now(), 0
	for b.ready < b.plan.subscribers {
		for b.open < b.plan.subscribers && b.open-b.ready < opening {
			if err := b.openStream(); err != nil {
				return err
			}
		}
		if err := b.wait(time.Second); err != nil {
			return err
		}
		if b.errs > 0 {
			return b.firstErr
		}
		if b.ready > ready {
			since, ready = time.Now(), b.ready
		} else if time.Since(since) > openTimeout {
			return fmt.Errorf("only %d of %d streams are ready", b.ready, b.plan.subscribers)
		}
	}
	return nil
}

// perAddress is how many streams come from one address of the loopback network.
const perAddress = 1000

// openStream sends the request for the next stream, as the next user.
func (b *bench) openStream() error {
	i := b.open
	b.open++
	user := i % len(b.plan.targets.Users)
	var from netip.Addr
	if a := b.addr.Addr(); a.Is4() && a.IsLoopback() {
		from = netip.AddrFrom4([4]byte{127, 0, 1, byte(1 + i/perAddress)})
	}
	c, err := b.dial(from)
	if err != nil {
		return err
	}
	s := &subscriber{bench: b, token: b.plan.targets.Users[user].Token}
	s.allowed = !b.plan.rule || dataset.InHall(user)
	b.tally.subscribers = append(b.tally.subscribers, &s.progress)
	c.response.Body = s.feed
	b.buf = appendStream(b.buf[:0], b.addr.String(), b.plan.peer.stream(b.plan.rule), s.token)
	return b.send(c, b.buf, nil)
}

// setTopic tells the server what the stream with this id is to carry.
func (b *bench) setTopic(s *subscriber, id string) error {
	return b.request(func(c *conn) error {
		b.body = fmt.Appendf(b.body[:0], `{"clientId":%q,"subscriptions":[%q]}`, id, b.plan.peer.topic(b.plan.rule))
		b.buf = appendPost(b.buf[:0], b.addr.String(), subscribePath, s.token, b.body)
		return b.send(c, b.buf, func() error {
			s.becomeReady()
			return nil
		})
	})
}

// stint is one workload with its bounds.
type stint struct {
	workload string
	events   int
	gap      time.Duration // of a trickle
	duration time.Duration // no writes begin after it
}

// linger is how long to look for what should not arrive.
const linger = 50 * time.Millisecond

// run writes events and waits until all have arrived, or nothing does.
func (b *bench) run(s stint) (result.Result, error) {
	before, err := proc.Usage(b.plan.pid)
	if err != nil {
		return result.Result{}, err
	}
	b.tally.reset()
	start := time.Now()
	b.last, b.tally.last = start, start
	if err := b.writeAll(s, start); err != nil {
		return result.Result{}, err
	}
	for len(b.idle) < maxWriters || b.tally.missing() > 0 {
		if time.Since(later(b.last, b.tally.last)) > b.plan.quiet {
			break
		}
		if err := b.wait(100 * time.Millisecond); err != nil {
			return result.Result{}, err
		}
	}
	after, err := proc.Usage(b.plan.pid)
	if err != nil {
		return result.Result{}, err
	}
	elapsed := b.tally.last.Sub(start)
	for end := time.Now().Add(linger); time.Now().Before(end); {
		if err := b.wait(linger); err != nil {
			return result.Result{}, err
		}
	}
	return b.result(s, elapsed, before, after), nil
}

// writeAll sends the writes. It returns when the last has been sent.
func (b *bench) writeAll(s stint, start time.Time) error {
	sent := 0
	b.waiting = nil
	queued := func() error {
		queuedAt := time.Now()
		return b.request(func(c *conn) error {
			sent++
			begin := queuedAt
			if s.workload == burst {
				begin = time.Now()
			}
			return b.write(c, begin)
		})
	}
	next := 0 // write to queue
	for sent < s.events {
		now := time.Now()
		if now.Sub(start) >= s.duration {
			break
		}
		for next < s.events && (s.workload == burst || now.Sub(start) >= time.Duration(next)*s.gap) {
			next++
			if err := queued(); err != nil {
				return err
			}
		}
		timeout := 100 * time.Millisecond
		if next < s.events {
			timeout = start.Add(time.Duration(next) * s.gap).Sub(now)
		}
		if err := b.wait(timeout); err != nil {
			return err
		}
	}
	b.waiting = nil
	return nil
}

// write sends the next event.
func (b *bench) write(c *conn, begin time.Time) error {
	n := b.tally.write(event{c.number, begin})
	u := b.plan.targets.Users[b.writers[b.turn%len(b.writers)]]
	b.turn++
	b.body = appendMessage(b.body[:0], b.plan.targets.Hall, u.ID, n)
	b.buf = appendPost(b.buf[:0], b.addr.String(), b.plan.peer.writing(b.plan.rule), u.Token, b.body)
	return b.send(c, b.buf, func() error {
		b.last = b.now
		return nil
	})
}

func (b *bench) result(s stint, elapsed time.Duration, before, after proc.Used) result.Result {
	res := result.Result{
		Workload: s.workload, Conns: b.plan.subscribers, Secs: elapsed.Seconds(),
		ServerRSS: after.RSS, Stream: b.tally.finish(),
		Numbers: result.Of(b.tally.latencies, elapsed),
	}
	if b.errs > 0 {
		res.Errs, res.FirstErr = b.errs, b.firstErr.Error()
	}
	if n := float64(res.Reqs); n > 0 {
		res.ServerCPU = (after.Server - before.Server).Seconds() * 1e6 / n
		res.ClientCPU = (after.Client - before.Client).Seconds() * 1e6 / n
	} else if res.Errs == 0 && res.Stream.Expected > 0 {
		res.Errs, res.FirstErr = 1, "no event has arrived"
	}
	return res
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
