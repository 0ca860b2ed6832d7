package acmetest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// A router has the ports at which an authority validates, and takes each connection to one of the
// sites that serve at the time.
type router struct {
	TLS, HTTP *forwarder

	mu    sync.Mutex
	sites []*site
	other func() string // if set: the name of the site to avoid if there is another
}

func newRouter(t *testing.T) *router {
	r := &router{}
	r.TLS = newForwarder(t, func() string { return r.pick().TLS })
	r.HTTP = newForwarder(t, func() string { return r.pick().HTTP })
	return r
}

func (r *router) add(s *site) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sites = append(r.sites, s)
}

func (r *router) remove(s *site) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, other := range r.sites {
		if other == s {
			r.sites = append(r.sites[:i:i], r.sites[i+1:]...)
			return
		}
	}
}

// avoid makes validations come to another site than the named one.
func (r *router) avoid(name func() string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.other = name
}

func (r *router) pick() *site {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.sites {
		if r.other == nil || s.name != r.other() {
			return s
		}
	}
	return &site{}
}

// A forwarder takes connections to another address.
type forwarder struct {
	listener net.Listener
	to       func() string

	mu    sync.Mutex
	conns map[net.Conn]bool
	done  bool
	work  sync.WaitGroup
}

func newForwarder(t *testing.T, to func() string) *forwarder {
	f := &forwarder{listener: listen(t), to: to, conns: map[net.Conn]bool{}}
	f.work.Go(f.accept)
	t.Cleanup(f.close)
	return f
}

func (f *forwarder) port() int { return f.listener.Addr().(*net.TCPAddr).Port }

func (f *forwarder) accept() {
	for {
		in, err := f.listener.Accept()
		if err != nil {
			return
		}
		f.work.Go(func() { f.forward(in) })
	}
}

func (f *forwarder) forward(in net.Conn) {
	defer in.Close()
	out, err := net.Dial("tcp", f.to())
	if err != nil {
		return
	}
	defer out.Close()
	if !f.keep(in) || !f.keep(out) {
		return
	}
	defer f.forget(in, out)
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		_, _ = io.Copy(in, out)
		in.Close()
	}()
	_, _ = io.Copy(out, in)
	out.Close()
	<-answered
}

func (f *forwarder) keep(c net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns[c] = true
	return !f.done
}

func (f *forwarder) forget(conns ...net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range conns {
		delete(f.conns, c)
	}
}

func (f *forwarder) close() {
	f.listener.Close()
	f.mu.Lock()
	f.done = true
	for c := range f.conns {
		c.Close()
	}
	f.mu.Unlock()
	f.work.Wait()
}
