package tlsauto

import (
	"context"
	"crypto/x509"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// clientCAs are the authorities of clients' certificates. But for pool, and what mu guards, it belongs
// to the goroutine of run.
type clientCAs struct {
	m       *Manager
	path    string
	pool    atomic.Pointer[x509.CertPool] // what handshakes use; the pool does not change
	wake    chan struct{}                 // has room for one: look now
	watch   watch
	broken  error // why what is in the file is refused
	refusal refusal
	doubts  []error // about what is served, still to be told

	mu   sync.Mutex // never held while anything is waited for
	file FileStatus
}

func openClientCAs(m *Manager) (*clientCAs, error) {
	path := m.cfg.ClientCAFile
	c := &clientCAs{m: m, path: path, wake: make(chan struct{}, 1), watch: watch{paths: []string{path}}, file: FileStatus{Path: path}}
	contents, err := c.watch.look()
	if err != nil {
		return nil, err
	}
	return c, c.serve(contents[0])
}

// serve puts what is in the file into service, unless it is refused.
func (c *clientCAs) serve(data []byte) error {
	certs, err := parseAuthorities(c.path, data)
	if err != nil {
		return err
	}
	c.doubts = nil
	pool := x509.NewCertPool()
	for _, cert := range certs {
		pool.AddCert(cert)
		if c.m.now().After(cert.NotAfter) {
			c.doubts = append(c.doubts, fmt.Errorf("the authority %.100q has expired on %s", cert.Subject.String(), cert.NotAfter.UTC().Format(time.DateOnly)))
		}
	}
	c.pool.Store(pool)
	return nil
}

// run watches the file until ctx ends.
func (c *clientCAs) run(ctx context.Context) {
	poll(ctx, c.m.cfg.FilesInterval, c.wake, c.look)
}

// wakeUp makes run look now. It does nothing without a file.
func (c *clientCAs) wakeUp() {
	if c == nil {
		return
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// status returns nil without a file.
func (c *clientCAs) status() *FileStatus {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	file := c.file
	return &file
}

// look reports whether to look again soon.
func (c *clientCAs) look() (soon bool) {
	contents, err := c.watch.look()
	if c.watch.unsettled {
		return true
	}
	switch {
	case err != nil:
		c.broken = err
	case contents != nil:
		c.broken = c.serve(contents[0])
	}

	reloaded := contents != nil && c.broken == nil
	refused := c.refusal.due(c.broken)
	c.mu.Lock()
	switch {
	case reloaded:
		c.file.Reloads++
		c.file.LastError = ""
	case refused:
		c.file.Failures++
		c.file.LastError = c.broken.Error()
	}
	c.mu.Unlock()

	switch {
	case reloaded:
		c.tell(Reloaded, nil)
	case refused:
		c.tell(ReloadFailed, c.broken)
	}
	for _, err := range c.doubts {
		c.tell(Doubtful, err)
	}
	c.doubts = nil
	return false
}

func (c *clientCAs) tell(kind EventKind, err error) {
	c.m.tell(Event{Kind: kind, Time: c.m.now(), Issuer: c.path, Err: err})
}
