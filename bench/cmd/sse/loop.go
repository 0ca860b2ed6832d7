package main

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"github.com/bedplate/bedplate/bench/internal/http1"
	"github.com/bedplate/bedplate/bench/internal/socket"
)

// maxErrors ends a run that is invalid anyway.
const maxErrors = 100

// loop drives all connections from one goroutine.
type loop struct {
	addr     netip.AddrPort
	poll     *socket.Poll
	conns    []*conn
	idle     []*conn               // those without a request under way
	waiting  []func(c *conn) error // what else is to be sent
	buffer   []byte
	now      time.Time // when the last bytes were read
	errs     int
	firstErr error
}

// conn is one connection. It carries one request after the other; an event
// stream is a request whose answer never ends.
type conn struct {
	number   int
	fd       int
	response http1.Response
	answered func() error // nil: the answer is not to end
}

func newLoop(addr netip.AddrPort) (*loop, error) {
	poll, err := socket.NewPoll()
	if err != nil {
		return nil, err
	}
	return &loop{addr: addr, poll: poll, buffer: make([]byte, 256<<10)}, nil
}

func (l *loop) close() {
	for _, c := range l.conns {
		if c.fd >= 0 {
			_ = syscall.Close(c.fd)
		}
	}
	l.poll.Close()
}

// dial opens a connection from a local address, any if it is the zero Addr.
func (l *loop) dial(from netip.Addr) (*conn, error) {
	fd, err := socket.Dial(from, l.addr)
	if err != nil {
		return nil, err
	}
	c := &conn{number: len(l.conns), fd: fd}
	l.conns = append(l.conns, c)
	return c, l.poll.Add(fd, c.number)
}

// request calls send with an idle connection as soon as there is one.
func (l *loop) request(send func(c *conn) error) error {
	if len(l.idle) == 0 {
		l.waiting = append(l.waiting, send)
		return nil
	}
	c := l.idle[0]
	l.idle = l.idle[1:]
	return send(c)
}

// send writes a request.
func (l *loop) send(c *conn, request []byte, answered func() error) error {
	c.response.Reset()
	c.answered = answered
	return socket.Write(c.fd, request)
}

// wait handles what arrives, after waiting for it at most as long as timeout.
func (l *loop) wait(timeout time.Duration) error {
	return l.poll.Wait(timeout, l.readable)
}

// readable reads what one connection has. An error ends the run; those of the
// server's making do only when there are too many.
func (l *loop) readable(number int) error {
	c := l.conns[number]
	piece, err := socket.Read(c.fd, l.buffer)
	l.now = time.Now()
	done := false
	if err == nil {
		done, err = c.response.Feed(piece)
	}
	status := c.response.Status
	switch {
	case err == nil && !done:
		return nil
	case err == nil && c.answered == nil:
		err = fmt.Errorf("a stream ends, status %d: %s", status, c.response.Excerpt)
	}
	if err != nil {
		_ = syscall.Close(c.fd) // leaves the epoll set by itself
		c.fd = -1
		return l.fail(err)
	}
	if status/100 == 2 {
		err = c.answered()
	} else {
		err = l.fail(fmt.Errorf("status %d: %s", status, c.response.Excerpt))
	}
	if err != nil {
		return err
	}
	if l.idle = append(l.idle, c); len(l.waiting) == 0 {
		return nil
	}
	next := l.waiting[0]
	l.waiting = l.waiting[1:]
	return l.request(next)
}

// fail counts an error.
func (l *loop) fail(err error) error {
	if l.errs++; l.firstErr == nil {
		l.firstErr = err
	}
	if l.errs >= maxErrors {
		return errors.New("too many errors, the first: " + l.firstErr.Error())
	}
	return nil
}
