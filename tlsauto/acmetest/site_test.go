package acmetest

import (
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/acme"
)

// A site is a server with an HTTPS and an HTTP port.
type site struct {
	name      string       // for the router
	TLS, HTTP string       // addresses
	open      atomic.Int64 // connections to the HTTPS port that the server has not closed
}

// newSite starts a site, which answers each request with "ok". It stops when the func is called, and
// at the end of the test.
func newSite(t *testing.T, name string, config *tls.Config, plain http.Handler) (*site, func()) {
	t.Helper()
	s := &site{name: name}
	ok := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") })
	stopTLS := s.serve(t, &s.TLS, ok, config)
	stopHTTP := s.serve(t, &s.HTTP, plain, nil)
	stop := func() {
		stopTLS()
		stopHTTP()
	}
	t.Cleanup(stop)
	return s, stop
}

func (s *site) serve(t *testing.T, addr *string, h http.Handler, config *tls.Config) (stop func()) {
	l := listen(t)
	*addr = l.Addr().String()
	server := &http.Server{
		Handler: h, TLSConfig: config, ReadTimeout: patience, ErrorLog: log.New(io.Discard, "", 0),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if config == nil {
			_ = server.Serve(l)
		} else {
			_ = server.ServeTLS(&countingListener{l, &s.open}, "", "")
		}
	}()
	return func() {
		server.Close()
		<-done
	}
}

// withoutALPN is a copy of a configuration that refuses TLS-ALPN-01, as a proxy before the server does.
func withoutALPN(config *tls.Config) *tls.Config {
	config = config.Clone()
	next := config.GetConfigForClient
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		switch {
		case slices.Contains(hello.SupportedProtos, acme.ALPNProto):
			return nil, errors.New("there is a proxy")
		case next != nil:
			return next(hello)
		}
		return nil, nil
	}
	return config
}

type countingListener struct {
	net.Listener
	open *atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.open.Add(1)
	return &countedConn{Conn: c, open: l.open}, nil
}

type countedConn struct {
	net.Conn
	open   *atomic.Int64
	closed atomic.Bool
}

func (c *countedConn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.open.Add(-1)
	}
	return c.Conn.Close()
}
