package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"syscall"
	"time"

	"github.com/bedplate/bedplate/bench/internal/dataset"
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
	epoll     int
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
	response response
}

func newLoop(p plan) (*loop, error) {
	r, err := newRequests(p)
	if err != nil {
		return nil, err
	}
	ep, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("creating epoll: %w", err)
	}
	l := &loop{plan: p, requests: r, epoll: ep, read: make([]byte, 64<<10)}
	for i := range l.latencies {
		l.latencies[i] = make([]time.Duration, 0, 1<<18)
	}
	return l, nil
}

func (l *loop) close() {
	for i := range l.conns {
		_ = syscall.Close(l.conns[i].fd)
	}
	_ = syscall.Close(l.epoll)
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
	family, sa := syscall.AF_INET, syscall.Sockaddr(nil)
	addr, port := l.plan.addr.Addr(), int(l.plan.addr.Port())
	if addr.Is4() {
		sa = &syscall.SockaddrInet4{Port: port, Addr: addr.As4()}
	} else {
		family, sa = syscall.AF_INET6, &syscall.SockaddrInet6{Port: port, Addr: addr.As16()}
	}
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("opening a socket: %w", err)
	}
	err = errors.Join(
		syscall.Connect(fd, sa),
		syscall.SetNonblock(fd, true),
		syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1),
		syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_ADD, fd,
			&syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(index)}),
	)
	if err != nil {
		_ = syscall.Close(fd)
		return 0, fmt.Errorf("connecting to %s: %w", l.plan.addr, err)
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
	events := make([]syscall.EpollEvent, 256)
	for l.errs < maxErrors {
		left := time.Until(deadline)
		if left <= 0 {
			return nil
		}
		n, err := syscall.EpollWait(l.epoll, events, int(left.Milliseconds())+1)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("waiting for answers: %w", err)
		}
		for _, ev := range events[:max(n, 0)] {
			if err := l.ready(int(ev.Fd)); err != nil {
				return err
			}
		}
	}
	return nil
}

// ready reads what one connection has, and sends the next request once the
// answer is complete.
func (l *loop) ready(index int) error {
	c := &l.conns[index]
	n, err := syscall.Read(c.fd, l.read)
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) {
		return nil
	}
	if err == nil && n == 0 {
		err = io.ErrUnexpectedEOF
	}
	done := false
	if err == nil {
		done, err = c.response.feed(l.read[:n])
	}
	if err != nil {
		l.fail(err.Error())
		return l.redial(index)
	}
	if !done {
		return nil
	}
	if c.response.status/100 == 2 {
		l.latencies[c.sort] = append(l.latencies[c.sort], time.Since(c.sent))
	} else {
		l.fail(fmt.Sprintf("status %d: %s", c.response.status, c.response.excerpt))
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
	c.response.reset()
	l.write = l.requests.append(l.write[:0], c.sort)
	c.sent = time.Now()
	n, err := syscall.Write(c.fd, l.write)
	switch {
	case errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET):
		return nil // the next read tells
	case err != nil:
		return fmt.Errorf("sending: %w", err)
	case n < len(l.write):
		return fmt.Errorf("sending: %d of %d bytes", n, len(l.write))
	}
	return nil
}
