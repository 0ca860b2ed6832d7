package replicator

import (
	"bufio"
	"encoding/json"
	"io"
	"sync"
	"time"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

const (
	// maxCommand bounds a command in bytes.
	maxCommand = 64 << 10

	// maxLogs bounds the log events that wait for the program to read them; more are dropped.
	maxLogs = 1000

	// maxEvents bounds all events that wait.
	maxEvents = 4 * maxLogs
)

// readCommands returns the commands that come in on r. The channel is closed at the end of r, and
// after what cannot be understood. guard is deferred by the goroutine that reads.
func readCommands(r *bufio.Reader, guard func()) <-chan wire.Command {
	commands := make(chan wire.Command)
	go func() {
		defer guard()
		defer close(commands)
		for {
			line, err := readLine(r, maxCommand)
			if err != nil {
				return
			}
			var c wire.Command
			if err := json.Unmarshal(line, &c); err != nil {
				return
			}
			commands <- c
		}
	}()
	return commands
}

// An eventPipe writes events in the order in which they are sent, in a goroutine of its own: a
// program that does not read, or is gone, stops nobody.
type eventPipe struct {
	mu      sync.Mutex
	waiting []wire.Event
	logs    int // that wait
	dropped int // logs, since the last that was not
	states  int // that wait
	closed  bool

	wake chan struct{}
	done chan struct{} // closed when everything is written, or cannot be
}

func newEventPipe(w io.Writer) *eventPipe {
	p := &eventPipe{wake: make(chan struct{}, 1), done: make(chan struct{})}
	go p.write(w)
	return p
}

func (p *eventPipe) send(e wire.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return
	case e.Kind == wire.Log && p.logs >= maxLogs:
		p.dropped++
		return
	case e.Kind == wire.State && p.states > 0: // the newest is of interest
		for i := range p.waiting {
			if p.waiting[i].Kind == wire.State {
				p.waiting[i] = e
			}
		}
		return
	case e.Kind != wire.Done && len(p.waiting) >= maxEvents:
		return // nobody has read for long
	}
	switch e.Kind {
	case wire.Log:
		p.logs++
	case wire.State:
		p.states++
	default:
	}
	p.waiting = append(p.waiting, e)
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// close waits until everything is written, for at most patience.
func (p *eventPipe) close(patience time.Duration) {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		close(p.wake)
	}
	p.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
	}
}

func (p *eventPipe) write(w io.Writer) {
	defer close(p.done)
	for open := true; open; {
		_, open = <-p.wake
		for {
			e, ok := p.next()
			if !ok {
				break
			}
			line, err := json.Marshal(e)
			if err != nil {
				continue // there are no such events
			}
			if _, err := w.Write(append(line, '\n')); err != nil {
				p.mu.Lock()
				p.closed = true // nobody is there any more
				p.waiting = nil
				p.mu.Unlock()
				return
			}
		}
	}
}

func (p *eventPipe) next() (wire.Event, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) == 0 {
		if p.dropped > 0 {
			e := wire.Event{Kind: wire.Log, Level: 4, Text: "some log lines of the replicator were dropped"}
			p.dropped = 0
			return e, true
		}
		return wire.Event{}, false
	}
	e := p.waiting[0]
	p.waiting = p.waiting[1:]
	switch e.Kind {
	case wire.Log:
		p.logs--
	case wire.State:
		p.states--
	default:
	}
	return e, true
}
