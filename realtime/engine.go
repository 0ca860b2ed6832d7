package realtime

import (
	"context"
	"net/http"
	"time"
)

// engine carries frames to one client.
type engine interface {
	// serve answers r with an event stream and runs pump, which sends what
	// there is to send. It returns when pump has, with pump's error, or when
	// the client is gone or takes nothing for o.writeTimeout, with the cause,
	// which is also that of pump's context. When it returns, nothing of it is
	// left running.
	serve(w http.ResponseWriter, r *http.Request, o streamOptions, pump func(ctx context.Context, send sendFunc) error) error
}

// sendFunc writes frames, as many as it makes sense to in one go, and returns
// when the client has taken enough of them for more. The frames may be shared
// and are not kept.
type sendFunc func(frames []frame) error

type streamOptions struct {
	idLast       bool // each id in a block of its own, behind its data
	writeTimeout time.Duration
}

// A frame is one event or comment. Without data it is a comment, possibly with
// an id or a retry.
type frame struct {
	id      string        // "": none
	event   string        // type of the event; "": "message"
	data    []byte        // one line
	comment string        // without data only
	retry   time.Duration // 0: none
}
