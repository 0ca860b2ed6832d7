// Package socket is the client side of many TCP connections on one thread. It
// costs a few microseconds per exchange, which leaves the CPUs to the server.
package socket

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"syscall"
	"time"
)

// Dial connects from a local address, or from any if from is the zero Addr,
// and returns a descriptor that does not block.
func Dial(from netip.Addr, to netip.AddrPort) (int, error) {
	family := syscall.AF_INET
	if !to.Addr().Is4() {
		family = syscall.AF_INET6
	}
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("opening a socket: %w", err)
	}
	if from.IsValid() {
		err = syscall.Bind(fd, sockaddr(netip.AddrPortFrom(from, 0)))
	}
	if err == nil {
		err = syscall.Connect(fd, sockaddr(to))
	}
	if err == nil {
		err = errors.Join(
			syscall.SetNonblock(fd, true),
			syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1),
		)
	}
	if err != nil {
		_ = syscall.Close(fd)
		return 0, fmt.Errorf("connecting to %s: %w", to, err)
	}
	return fd, nil
}

func sockaddr(a netip.AddrPort) syscall.Sockaddr {
	if a.Addr().Is4() {
		return &syscall.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &syscall.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// A Poll waits for connections that have something to read.
type Poll struct {
	fd     int
	events []syscall.EpollEvent
}

// NewPoll returns a Poll of no connections, to be closed after use.
func NewPoll() (*Poll, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("creating epoll: %w", err)
	}
	return &Poll{fd, make([]syscall.EpollEvent, 256)}, nil
}

// Close ends the Poll; its connections stay open.
func (p *Poll) Close() { _ = syscall.Close(p.fd) }

// Add registers a connection under an index. Closing the connection is enough
// to remove it.
func (p *Poll) Add(fd, index int) error {
	err := syscall.EpollCtl(p.fd, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(index)})
	if err != nil {
		return fmt.Errorf("watching a connection: %w", err)
	}
	return nil
}

// Wait calls ready with the index of each connection that can be read, after
// waiting for the first for about as long as timeout, in milliseconds rounded
// up.
func (p *Poll) Wait(timeout time.Duration, ready func(index int) error) error {
	ms := (max(timeout, 0) + time.Millisecond - 1) / time.Millisecond
	n, err := syscall.EpollWait(p.fd, p.events, int(ms))
	if err != nil && !errors.Is(err, syscall.EINTR) {
		return fmt.Errorf("waiting for answers: %w", err)
	}
	for _, ev := range p.events[:max(n, 0)] {
		if err := ready(int(ev.Fd)); err != nil {
			return err
		}
	}
	return nil
}

// Write sends p, which must fit the socket's empty buffer. A connection that
// the peer has closed is no error: the next read tells.
func Write(fd int, p []byte) error {
	n, err := syscall.Write(fd, p)
	switch {
	case errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET):
		return nil
	case err != nil:
		return fmt.Errorf("sending: %w", err)
	case n < len(p):
		return fmt.Errorf("sending: %d of %d bytes", n, len(p))
	}
	return nil
}

// Read returns what has arrived, as much as fits into buf; nothing if there
// was nothing. The end of the stream is io.ErrUnexpectedEOF.
func Read(fd int, buf []byte) ([]byte, error) {
	n, err := syscall.Read(fd, buf)
	switch {
	case errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR):
		return nil, nil
	case err != nil:
		return nil, err
	case n == 0:
		return nil, io.ErrUnexpectedEOF
	}
	return buf[:n], nil
}
