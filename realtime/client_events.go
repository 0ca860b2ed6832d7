package realtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// unknownGap is what is told after a reconnect without a position.
const unknownGap = "the server tells no positions: events between two connections are not known"

// follow hands the events of a stream to the handler, until it ends.
func (c *client) follow(ctx context.Context, stream io.Reader) error {
	began := time.Now()
	defer func() {
		if time.Since(began) > c.o.MaxBackoff {
			c.backoff = 0
		}
	}()
	if c.met && (c.position == "" || c.blind) {
		if err := c.handle(Event{Op: OpGap, Text: unknownGap}); err != nil {
			return final{err}
		}
	}
	c.met, c.blind = true, false
	told := false // a position, by this stream
	r := newEventReader(stream, c.o.MaxEvent)
	b := batch{limit: c.o.MaxEvent}
	for {
		block, err := r.next()
		if r.retry >= 0 {
			c.retry = r.retry
		}
		switch {
		case errors.Is(err, io.EOF):
			return errors.New("realtime: subscribe: the stream has ended")
		case errors.Is(err, errLarge):
			return final{fmt.Errorf("realtime: subscribe: an event is larger than MaxEvent (%d bytes)", c.o.MaxEvent)}
		case err != nil:
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if block.hasID && !validPosition(block.id) {
			return final{errors.New("realtime: subscribe: the server tells a position that cannot be sent back")}
		}
		if err := b.add(&block, c); err != nil {
			return final{err}
		}
		told = told || block.hasID
		if !block.hasID && told && c.position != "" {
			continue // an event that is one with the next, which has the position
		}
		c.blind = !told && (c.blind || len(b.events) > 0)
		if err := c.deal(&b, &block); err != nil {
			return final{err}
		}
	}
}

// deal hands over what is in b and moves the position behind it.
func (c *client) deal(b *batch, last *eventBlock) error {
	next := c.position
	if last.hasID {
		next = last.id
	}
	for i := range b.events {
		e := &b.events[i]
		e.ID = c.position
		if i == len(b.events)-1 {
			e.ID = next
		}
		if err := c.handle(*e); err != nil {
			return err
		}
		c.backoff = 0
	}
	moved := next != c.position
	c.position = next
	if moved && len(b.events) == 0 && next != "" && c.o.Position != nil {
		c.o.Position(next)
	}
	b.events, b.size = nil, 0
	return nil
}

// batch is events that share a position.
type batch struct {
	events []Event
	size   int
	limit  int
	seq    int64 // of the last event on this connection
}

// add adds the event of a block, if it has one.
func (b *batch) add(block *eventBlock, c *client) error {
	var e Event
	var seq int64
	var err error
	switch {
	case len(block.data) == 0:
		return nil
	case c.o.Channel != "":
		e, err = channelEvent(block)
	default:
		e, seq, err = recordEvent(block)
	}
	if err != nil || e.Op == "" {
		return err
	}
	if b.size += len(block.data); b.size > b.limit {
		return fmt.Errorf("realtime: subscribe: events with one position are larger than MaxEvent (%d bytes)", b.limit)
	}
	if missing := seq - b.seq - 1; missing > 0 {
		b.events = append(b.events, Event{Op: OpGap, Text: fmt.Sprintf("the server has skipped %d events", missing)})
	}
	b.seq = max(b.seq, seq)
	b.events = append(b.events, e)
	return nil
}

// recordEvent returns the event of a record API in a block, and its number on
// the connection, 0 if it has none. Without an Op it is none that is known.
func recordEvent(block *eventBlock) (Event, int64, error) {
	if block.event != "" && block.event != "message" {
		return Event{}, 0, nil
	}
	var m struct {
		Insert, Update, Delete json.RawMessage
		Error                  *struct {
			Status  int
			Message string
		}
		Seq int64
	}
	if err := json.Unmarshal(block.data, &m); err != nil {
		return Event{}, 0, fmt.Errorf("realtime: subscribe: an event cannot be read: %w", err)
	}
	switch {
	case m.Insert != nil:
		return Event{Op: OpInsert, Data: m.Insert}, m.Seq, nil
	case m.Update != nil:
		return Event{Op: OpUpdate, Data: m.Update}, m.Seq, nil
	case m.Delete != nil:
		return Event{Op: OpDelete, Data: m.Delete}, m.Seq, nil
	case m.Error == nil:
		return Event{}, 0, errors.New("realtime: subscribe: an event is of no known kind")
	case m.Error.Status == statusDenied:
		return Event{}, 0, &Error{Status: http.StatusForbidden, Text: oneLine(m.Error.Message)}
	}
	// Whatever else it is, there is an event that is not told.
	return Event{Op: OpGap, Text: oneLine(m.Error.Message)}, m.Seq, nil
}

// statusDenied is the status of an error event about lost access.
const statusDenied = 1

// channelEvent is recordEvent for a channel.
func channelEvent(block *eventBlock) (Event, error) {
	switch block.event {
	case "", "message":
		if !json.Valid(block.data) {
			return Event{}, errors.New("realtime: subscribe: an event of the channel is not JSON")
		}
		return Event{Op: OpMessage, Data: bytes.Clone(block.data)}, nil
	case "gap":
		var m struct{ Message string }
		_ = json.Unmarshal(block.data, &m) // the text is for people
		return Event{Op: OpGap, Text: oneLine(m.Message)}, nil
	}
	return Event{}, nil
}
