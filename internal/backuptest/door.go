package backuptest

import (
	"net"
	"sync"
)

// A door is a listener that can be shut without giving its port away.
type door struct {
	net.Listener

	mu     sync.Mutex
	shut   bool
	inside map[net.Conn]struct{} // connections that are open
}

// set shuts the door, which closes all connections, or opens it.
func (d *door) set(shut bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shut = shut
	if shut {
		for conn := range d.inside {
			_ = conn.Close() // which is the point
		}
		clear(d.inside)
	}
}

// Accept waits for a connection while the door is open.
func (d *door) Accept() (net.Conn, error) {
	for {
		conn, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if d.admit(conn) {
			return &guest{conn, d}, nil
		}
		_ = conn.Close()
	}
}

func (d *door) admit(conn net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.shut {
		d.inside[conn] = struct{}{}
	}
	return !d.shut
}

// A guest is a connection that has come in by a door.
type guest struct {
	net.Conn
	door *door
}

func (g *guest) Close() error {
	g.door.mu.Lock()
	delete(g.door.inside, g.Conn)
	g.door.mu.Unlock()
	return g.Conn.Close()
}
