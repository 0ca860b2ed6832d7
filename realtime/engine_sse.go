package realtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"

	"github.com/r3labs/sse/v2"
)

// What is between pump and the client's connection at most, unless one event
// is larger than that. An sse.Server must never see more blocks than its queue
// holds.
const (
	maxInFlight = 64 << 10 // bytes
	maxQueued   = 64       // blocks
)

// An sseEngine gives each connection a server of r3labs/sse of its own, with
// one stream and one subscriber. Only then does a reader that is slow hold up
// no other.
//
// Its framing fits no client of TrailBase: it puts the id first, and it has
// none for comments. So what it carries are blocks of finished frames, as its
// comments, and they are taken out of its framing when it writes them.
type sseEngine struct{ buffers buffers }

func (e *sseEngine) serve(w http.ResponseWriter, r *http.Request, o streamOptions, pump func(context.Context, sendFunc) error) error {
	out, err := openOutput(w, r, o)
	if err != nil {
		return err
	}
	defer out.close()

	const name = "s"
	server := sse.New()
	server.AutoReplay = false
	server.BufferSize = maxQueued
	server.CreateStream(name)
	// Only when the subscriber is gone: it could not sign off any more.
	defer server.RemoveStream(name)

	s := &sseStream{
		engine:     e,
		out:        out,
		options:    o,
		publish:    func(e *sse.Event) bool { return server.TryPublish(name, e) },
		registered: make(chan struct{}),
		written:    make(chan struct{}, 1),
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		// Nothing of the client's request, its Last-Event-ID least of all.
		r := &http.Request{URL: &url.URL{RawQuery: "stream=" + name}}
		server.ServeHTTP(s, r.WithContext(out.ctx))
	}()
	defer func() {
		out.cancel(context.Canceled)
		<-served
		if s.panicked != nil {
			panic(s.panicked)
		}
	}()

	// What is published before there is a subscriber is lost.
	<-s.registered
	err = pump(out.ctx, s.send)
	s.drain()
	return out.result(err)
}

// An sseStream is the writer of an sse.Server's subscriber, and what is on the
// way to it.
type sseStream struct {
	engine  *sseEngine
	out     *output
	options streamOptions
	publish func(*sse.Event) bool

	register   sync.Once
	registered chan struct{}

	mu      sync.Mutex
	queued  int           // blocks published but not written by the sse.Server
	bytes   int           // bytes published but not written to the client
	written chan struct{} // has an element after bytes has decreased

	// Only Write uses these, until it is not called any more.
	buf      []byte
	panicked any
}

// send publishes frames in blocks.
func (s *sseStream) send(frames []frame) error {
	buf, err := writeFrames(s.engine.buffers.get(), frames, s.options.idLast, s.sendBlock)
	s.engine.buffers.put(buf)
	return err
}

func (s *sseStream) sendBlock(block []byte) error {
	for !s.reserve(len(block)) {
		select {
		case <-s.written:
		case <-s.out.ctx.Done():
		}
		if s.out.ctx.Err() != nil {
			break
		}
	}
	if s.out.ctx.Err() != nil {
		return context.Cause(s.out.ctx)
	}
	if !s.publish(&sse.Event{Comment: bytes.Clone(block)}) {
		s.out.cancel(errors.New("the queue of the stream is full"))
		return context.Cause(s.out.ctx)
	}
	return nil
}

func (s *sseStream) reserve(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.queued == maxQueued || s.bytes > 0 && s.bytes+n > maxInFlight {
		return false
	}
	s.queued++
	s.bytes += n
	return true
}

// drain waits until everything is written.
func (s *sseStream) drain() {
	for s.inFlight() > 0 {
		select {
		case <-s.written:
		case <-s.out.ctx.Done():
			return
		}
	}
}

func (s *sseStream) inFlight() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

// Header is a header that nobody sees. The real one has been sent.
func (s *sseStream) Header() http.Header { return http.Header{} }

// WriteHeader does nothing.
func (s *sseStream) WriteHeader(int) {}

// Flush is called first when the subscriber is registered, then after each
// event, which has been dealt with.
func (s *sseStream) Flush() { s.register.Do(func() { close(s.registered) }) }

// Write takes the blocks out of what an sse.Server writes and writes them on
// when no more are on their way or there are enough for one write. It never
// fails, so that the sse.Server empties its queues: errors end the context.
func (s *sseStream) Write(p []byte) (int, error) {
	if string(p) == "\n" { // end of the event
		return len(p), nil
	}
	block, ok := bytes.CutPrefix(p, []byte(": "))
	if ok {
		block, ok = bytes.CutSuffix(block, []byte("\n"))
	}
	if !ok {
		s.out.cancel(fmt.Errorf("unexpected line from the event server: %.20q", p))
	}

	s.mu.Lock()
	s.queued--
	last := s.queued == 0
	s.mu.Unlock()

	limit := writeLimit(s.options.idLast)
	if len(s.buf)+len(block) > limit {
		s.writeBuffered()
	}
	if len(s.buf) == 0 && (last || len(block) >= limit) {
		s.write(block)
		return len(p), nil
	}
	if s.buf == nil {
		s.buf = s.engine.buffers.get()
	}
	s.buf = append(s.buf, block...)
	if last {
		s.writeBuffered()
	}
	return len(p), nil
}

func (s *sseStream) writeBuffered() {
	if len(s.buf) == 0 {
		return
	}
	s.write(s.buf)
	s.engine.buffers.put(s.buf)
	s.buf = nil
}

// write writes to the client. A panic, which may be a middleware's way to
// abort the response, is kept for the goroutine of the handler, the one that
// the http.Server expects it in.
func (s *sseStream) write(p []byte) {
	defer func() {
		if v := recover(); v != nil {
			s.panicked = v
			s.out.cancel(errors.New("write to the client: panic"))
		}
	}()
	if s.out.write(p) != nil {
		return
	}
	s.mu.Lock()
	s.bytes -= len(p)
	s.mu.Unlock()
	select {
	case s.written <- struct{}{}:
	default:
	}
}
