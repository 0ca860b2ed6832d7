package main

import (
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"github.com/bedplate/bedplate/bench/internal/dataset"
	"github.com/bedplate/bedplate/bench/internal/http1"
	"github.com/bedplate/bedplate/bench/internal/socket"
)

// plan says what to send, to whom and for how long.
type plan struct {
	addr     netip.AddrPort
	api      string
	workload string
	conns    int
	warm     time.Duration
	duration time.Duration
	pid      int
	targets  *dataset.Targets
}

// maxErrors ends a run that is invalid anyway.
const maxErrors = 100

// loop drives all connections of a plan from one goroutine.
type loop struct {
	plan      plan
	requests  *requests
	poll      *socket.Poll
	conns     []conn
	read      []byte
	write     []byte
	latencies [2][]time.Duration // by sort
	errs      int
	firstErr  string
}

// conn is one connection with one request under way.
type conn struct {
	fd       int
	sort     sort
	sent     time.Time
	response http1.Response
}

func newLoop(p plan) (*loop, error) {
	r, err := newRequests(p)
	if err != nil {
		return nil, err
	}
	poll, err := socket.NewPoll()
	if err != nil {
		return nil, err
	}
	l := &loop{plan: p, requests: r, poll: poll, read: make([]byte, 64<<10)}
	for i := range l.latencies {
		l.latencies[i] = make([]time.Duration, 0, 1<<18)
	}
	return l, nil
}

func (l *loop) close() {
	for i := range l.conns {
		_ = syscall.Close(l.conns[i].fd)
	}
	l.poll.Close()
}

// start opens the connections and sends the first request on each.
func (l *loop) start() error {
	l.conns = make([]conn, 0, l.plan.conns)
	for i := range l.plan.conns {
		fd, err := l.dial(i)
		if err != nil {
			return err
		}
		l.conns = append(l.conns, conn{fd: fd, sort: l.requests.sortOf(i)})
	}
	for i := range l.conns {
		if err := l.send(&l.conns[i]); err != nil {
			return err
		}
	}
	return nil
}

// dial connects and registers the socket under the connection's index.
func (l *loop) dial(index int) (int, error) {
	fd, err := socket.Dial(netip.Addr{}, l.plan.addr)
	if err != nil {
		return 0, err
	}
	if err := l.poll.Add(fd, index); err != nil {
		_ = syscall.Close(fd)
		return 0, err
	}
	return fd, nil
}

// resetCounters forgets what was measured; requests under way stay.
func (l *loop) resetCounters() {
	for i := range l.latencies {
		l.latencies[i] = l.latencies[i][:0]
	}
}

// runUntil answers events until the deadline, or until there were too many
// errors.
func (l *loop) runUntil(deadline time.Time) error {
	for l.errs < maxErrors {
		left := time.Until(deadline)
		if left <= 0 {
			return nil
		}
		if err := l.poll.Wait(left, l.ready); err != nil {
			return err
		}
	}
	return nil
}

// ready reads what one connection has, and sends the next request once the
// answer is complete.
func (l *loop) ready(index int) error {
	c := &l.conns[index]
	got, err := socket.Read(c.fd, l.read)
	done := false
	if err == nil {
		done, err = c.response.Feed(got)
	}
	if err != nil {
		l.fail(err.Error())
		return l.redial(index)
	}
	if !done {
		return nil
	}
	if c.response.Status/100 == 2 {
		l.latencies[c.sort] = append(l.latencies[c.sort], time.Since(c.sent))
	} else {
		l.fail(fmt.Sprintf("status %d: %s", c.response.Status, c.response.Excerpt))
	}
	return l.send(c)
}

func (l *loop) fail(reason string) {
	if l.errs++; l.firstErr == "" {
		l.firstErr = reason
	}
}

// redial replaces a broken connection.
func (l *loop) redial(index int) error {
	c := &l.conns[index]
	_ = syscall.Close(c.fd) // leaves the epoll set by itself
	fd, err := l.dial(index)
	if err != nil {
		return err
	}
	c.fd = fd
	return l.send(c)
}

// send writes the next request. It fits the empty socket buffer.
func (l *loop) send(c *conn) error {
	c.response.Reset()
	l.write = l.requests.append(l.write[:0], c.sort)
	c.sent = time.Now()
	return socket.Write(c.fd, l.write)
}
