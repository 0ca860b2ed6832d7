package realtime

import (
	"context"
	"net/http"
	"sync"
)

// A directEngine writes to the response where pump is called, in the goroutine
// of the handler.
type directEngine struct{ buffers buffers }

func (e *directEngine) serve(w http.ResponseWriter, r *http.Request, o streamOptions, pump func(context.Context, sendFunc) error) error {
	out, err := openOutput(w, r, o)
	if err != nil {
		return err
	}
	defer out.close()

	return out.result(pump(out.ctx, func(frames []frame) error {
		if out.ctx.Err() != nil {
			return context.Cause(out.ctx)
		}
		buf := e.buffers.get()
		buf, err := writeFrames(buf, frames, o.idLast, out.write)
		e.buffers.put(buf)
		return err
	}))
}

// buffers keeps some for connections to share: most have nothing to write at a
// time. Its zero value is ready for use.
type buffers struct{ pool sync.Pool }

func (b *buffers) get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return (*p)[:0]
	}
	return nil
}

// put takes p back, unless it is of unusual size.
func (b *buffers) put(p []byte) {
	if cap(p) > 0 && cap(p) <= 2*maxWrite {
		b.pool.Put(&p)
	}
}
