package iox_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/iox"
)

func TestCopyExactly(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for _, c := range []struct {
		name string
		ctx  context.Context //nolint:containedctx // of a test
		text string
		size int64
		err  error
	}{
		{"all", context.Background(), "text", 4, nil},
		{"nothing", context.Background(), "", 0, nil},
		{"fewer", context.Background(), "text", 5, io.ErrUnexpectedEOF},
		{"more", context.Background(), "text", 3, fs.ErrInvalid},
		{"ended", ended, "text", 4, context.Canceled},
	} {
		var out bytes.Buffer
		err := iox.CopyExactly(c.ctx, &out, strings.NewReader(c.text), c.size)
		if !errors.Is(err, c.err) || err == nil && out.String() != c.text {
			t.Errorf("%s: %v, %q", c.name, err, out.String())
		}
	}
}
