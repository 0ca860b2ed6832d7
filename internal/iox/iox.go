// Package iox copies streams of known length.
package iox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// CopyExactly copies size bytes from r, after which r must end. The error is
// io.ErrUnexpectedEOF when there are fewer, and fs.ErrInvalid when there are
// more. ctx is looked at before each read.
func CopyExactly(ctx context.Context, w io.Writer, r io.Reader, size int64) error {
	r = reader{ctx, r}
	n, err := io.Copy(w, io.LimitReader(r, size))
	if err != nil {
		return err
	}
	if n < size {
		return fmt.Errorf("%w after %d of %d bytes", io.ErrUnexpectedEOF, n, size)
	}
	switch _, err := io.ReadFull(r, make([]byte, 1)); {
	case err == nil:
		return fmt.Errorf("%w: more than the %d bytes announced", fs.ErrInvalid, size)
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

// A reader ends with its context.
type reader struct {
	ctx context.Context //nolint:containedctx // of one call
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
