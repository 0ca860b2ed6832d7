package storetest

import (
	"net"
	"sync"
	"testing"
	"time"
)

// A relay passes connections on to a server, and can cut them, or be slow.
type relay struct {
	listener net.Listener
	work     sync.WaitGroup

	mu    sync.Mutex
	to    string // address of the server
	isCut bool
	open  map[net.Conn]struct{}
	delay time.Duration // of each portion that comes from the server
}

// portion is how many bytes are passed on at once, at most.
const portion = 4 << 10

// newRelay listens on a port of this machine until the test ends.
func newRelay(t *testing.T) *relay {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: listener, open: map[net.Conn]struct{}{}}
	r.work.Go(r.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		r.cut()
		r.work.Wait()
	})
	return r
}

func (r *relay) address() string { return r.listener.Addr().String() }

// lead sets the address of the server.
func (r *relay) lead(to string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.to = to
}

// cut breaks all connections. From now on others end as soon as they are made.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.isCut = true
	for c := range r.open {
		_ = c.Close()
	}
}

// mend ends cut.
func (r *relay) mend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.isCut = false
}

// slow lets each portion that comes from the server wait for d.
func (r *relay) slow(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.delay = d
}

func (r *relay) accept() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return // it is closed
		}
		r.work.Go(func() { r.serve(client) })
	}
}

func (r *relay) serve(client net.Conn) {
	defer client.Close()
	r.mu.Lock()
	to := r.to
	r.mu.Unlock()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	if !r.add(client, server) {
		return
	}
	defer r.remove(client, server)
	r.work.Go(func() { r.pass(client, server, false) })
	r.pass(server, client, true)
}

func (r *relay) add(connections ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isCut {
		return false
	}
	for _, c := range connections {
		r.open[c] = struct{}{}
	}
	return true
}

func (r *relay) remove(connections ...net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range connections {
		delete(r.open, c)
	}
}

// pass copies until one of the two is closed, and then closes both.
func (r *relay) pass(from, to net.Conn, down bool) {
	defer from.Close()
	defer to.Close()
	buffer := make([]byte, portion)
	for {
		n, err := from.Read(buffer)
		if down {
			r.mu.Lock()
			delay := r.delay
			r.mu.Unlock()
			time.Sleep(delay) // so slow is the network
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
		if err != nil {
			return
		}
	}
}
