package realtime

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// errStuck ends a stream whose client takes nothing.
var errStuck = errors.New("the client takes nothing")

// maxPiece is how much a client has to take within the write timeout. It is
// reached by single events only.
const maxPiece = 64 << 10

// An output is the response that an engine writes. The write timeout and the
// end of its context both end a write that is under way.
type output struct {
	ctx    context.Context // ends with the request's, with an error of a write, or with the stream
	cancel context.CancelCauseFunc

	w       http.ResponseWriter
	rc      *http.ResponseController
	http1   bool
	timeout time.Duration
	timer   *time.Timer // ticks during writes

	unwatch func() bool // stops what waits to call cutWrite

	mu      sync.Mutex
	writing bool
}

// openOutput sends the head of the response, or a 500 with an error.
func openOutput(w http.ResponseWriter, r *http.Request, options streamOptions) (*output, error) {
	rc := http.NewResponseController(w)
	err := flushable(w)
	if err == nil {
		// The server's own deadline is for responses that come to an end.
		err = rc.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		http.Error(w, "the response cannot be streamed", http.StatusInternalServerError)
		return nil, fmt.Errorf("stream events: %w", err)
	}

	o := &output{
		w:       w,
		rc:      rc,
		http1:   r.ProtoMajor < 2,
		timeout: options.writeTimeout,
	}
	o.ctx, o.cancel = context.WithCancelCause(r.Context())
	o.timer = time.AfterFunc(o.timeout, func() { o.cancel(errStuck) })
	o.timer.Stop()
	o.unwatch = context.AfterFunc(o.ctx, o.cutWrite)
	if options.started != nil {
		options.started(o.cancel)
	}

	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache, no-transform")
	h.Set("X-Accel-Buffering", "no") // nginx
	h.Del("Connection")
	h.Del("Content-Length")
	w.WriteHeader(http.StatusOK)
	// An error has ended the context.
	_ = o.write(nil)
	return o, nil
}

// flushable returns an error where ResponseController.Flush would, but writes
// nothing.
func flushable(w http.ResponseWriter) error {
	for {
		switch v := w.(type) {
		case interface{ FlushError() error }, http.Flusher:
			return nil
		case interface{ Unwrap() http.ResponseWriter }:
			w = v.Unwrap()
		default:
			return http.ErrNotSupported
		}
	}
}

// write writes p so that it is on its way to the client when it returns. An
// error has ended the context, and is its cause. It is not safe for concurrent
// use.
func (o *output) write(p []byte) error {
	if !o.begin() {
		return context.Cause(o.ctx)
	}
	defer o.end()

	err := o.writePieces(p)
	if err == nil {
		err = o.rc.Flush()
	}
	if err != nil {
		o.cancel(fmt.Errorf("write to the client: %w", err))
		return context.Cause(o.ctx)
	}
	return nil
}

// writePieces gives each piece its own time, and the flush that follows. So a
// slow client gets a large event at all, and all others are one write.
func (o *output) writePieces(p []byte) error {
	for len(p) > 0 {
		n := min(len(p), maxPiece)
		o.timer.Reset(o.timeout)
		if _, err := o.w.Write(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	o.timer.Reset(o.timeout)
	return nil
}

// begin reports whether there may be a write. From now on until end, the end
// of the context cuts it.
func (o *output) begin() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.writing = o.ctx.Err() == nil
	return o.writing
}

func (o *output) end() {
	o.timer.Stop()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.writing = false
}

// cutWrite makes a write that is under way fail. It touches nothing otherwise:
// the handler may have returned, and with HTTP/2 this resets the stream, whose
// end could still be a clean one.
func (o *output) cutWrite() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.writing {
		_ = o.rc.SetWriteDeadline(time.Unix(1, 0))
	}
}

// close ends the context. Nothing touches the response any more when it has
// returned.
func (o *output) close() {
	o.unwatch()
	o.cancel(context.Canceled)
	if o.http1 {
		// For the last chunk, which waits for the client's like any write. The
		// server lifts the deadline before it reads the next request.
		_ = o.rc.SetWriteDeadline(time.Now().Add(o.timeout))
	}
}

// result returns what serve is to return for what pump has.
func (o *output) result(err error) error {
	if err != nil && o.ctx.Err() != nil {
		return context.Cause(o.ctx)
	}
	return err
}
