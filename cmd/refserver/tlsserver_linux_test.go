package main

import (
	"strings"
	"syscall"
	"testing"
)

// A server whose port for redirections is lost ends, and says why: its certificates may depend on that port.
func TestServeEndsWithoutRedirects(t *testing.T) {
	t.Parallel()
	s, _ := filesServer(t, "")
	breakListener(t, portIn(t, s.awaitURL(t, "redirecting")))
	if err := s.await(t); err == nil || !strings.Contains(err.Error(), "serve 127.0.0.1:0: accept") {
		t.Errorf("%v\n%s", err, s.logs)
	}
}

// breakListener makes the socket of this process that listens on a port fail, as the system can.
func breakListener(t *testing.T, port int) {
	t.Helper()
	for fd := range 1 << 12 {
		name, err := syscall.Getsockname(fd)
		address, ok := name.(*syscall.SockaddrInet4)
		if err != nil || !ok || address.Port != port {
			continue
		}
		if listens, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN); err != nil || listens == 0 {
			continue // a connection
		}
		if err := syscall.Shutdown(fd, syscall.SHUT_RDWR); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("nothing listens on port %d", port)
}
