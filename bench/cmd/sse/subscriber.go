package main

import (
	"bytes"
	"errors"
	"fmt"
)

// subscriber reads one event stream.
type subscriber struct {
	bench *bench
	token string
	ready bool   // everything written from now on is to arrive
	part  []byte // of a block that is not complete
	progress
}

// maxBlock bounds one block of a stream.
const maxBlock = 1 << 20

// feed takes a piece of the stream and handles the blocks that are complete.
func (s *subscriber) feed(piece []byte) error {
	if len(s.part) > 0 {
		s.part = append(s.part, piece...)
		piece = s.part
	}
	for {
		block, rest, ok := bytes.Cut(piece, []byte("\n\n"))
		if !ok {
			break
		}
		piece = rest
		if err := s.block(block); err != nil {
			return err
		}
	}
	if len(piece) > maxBlock {
		return errors.New("an endless event")
	}
	s.part = append(s.part[:0], piece...)
	return nil
}

// block handles one event or comment.
func (s *subscriber) block(block []byte) error {
	if i := bytes.Index(block, []byte(mark)); i >= 0 {
		number, err := parseNumber(block[i+len(mark):])
		if err != nil || number < 0 || number >= len(s.bench.tally.written) {
			return fmt.Errorf("an event nobody wrote: %q", block)
		}
		s.bench.tally.arrive(&s.progress, number, s.bench.now)
		return nil
	}
	if bytes.Contains(block, []byte(`"Error"`)) {
		return fmt.Errorf("the server reports %q", block)
	}
	if s.ready {
		return nil // a heartbeat
	}
	if s.bench.plan.peer.topic == nil {
		s.becomeReady()
		return nil
	}
	_, id, ok := bytes.Cut(block, []byte(`"clientId":"`))
	if !ok {
		return nil
	}
	id, _, _ = bytes.Cut(id, []byte(`"`))
	return s.bench.setTopic(s, string(id))
}

func (s *subscriber) becomeReady() {
	s.ready = true
	s.bench.ready++
}
