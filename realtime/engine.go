package realtime

import (
	"context"
	"net/http"
	"time"
)

// An engine carries frames to one client per call of serve.
type engine interface {
	// serve answers r with an event stream and runs pump, which sends what
	// there is to send. It returns when pump has, with pump's error, or when
	// the client is gone or takes nothing for o.writeTimeout, with the cause,
	// which is also that of pump's context. When it returns, nothing of it is
	// left running.
	//
	// The head of the response goes out before pump is called, and what pump
	// has sent before serve returns. When the response cannot be streamed or
	// cannot be given deadlines, because of what a middleware has wrapped it
	// in, the answer is a 500, and an error matching http.ErrNotSupported is
	// returned.
	//
	// Cancelling the request's context ends the stream at once, also during a
	// write. A panic of pump passes through serve.
	serve(w http.ResponseWriter, r *http.Request, o streamOptions, pump func(ctx context.Context, send sendFunc) error) error
}

// sendFunc writes frames, as many as it makes sense to in one go, and returns
// when the client has taken enough of them for more. The frames may be shared
// and are not kept. It is not safe for concurrent use. Its error is the cause
// of the context's end.
type sendFunc func(frames []frame) error

type streamOptions struct {
	idLast       bool                              // see appendFrame
	writeTimeout time.Duration                     // to take up to 64 KiB
	started      func(cut context.CancelCauseFunc) // if not nil, is told how to end it from outside
}

// An engineKind names an implementation of engine.
type engineKind int

const (
	engineSSE    engineKind = iota // on github.com/r3labs/sse
	engineDirect                   // on net/http alone
)

// defaultEngine is the implementation that is used.
const defaultEngine = engineDirect

func newEngine() engine { return newEngineOf(defaultEngine) }

func newEngineOf(kind engineKind) engine {
	if kind == engineDirect {
		return new(directEngine)
	}
	return new(sseEngine)
}
