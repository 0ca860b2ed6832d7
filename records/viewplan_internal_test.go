package records

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/bedplate/bedplate/sqlite"
)

// A position of a log that begins anew before it is sealed is of no use: the
// client may ask again.
func TestCursorOfOtherEpoch(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	db, err := sqlite.Open(ctx, filepath.Join(t.TempDir(), "test.db"),
		sqlite.Options{Synchronous: sqlite.Normal, Ballast: -1, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	log, err := db.ChangeLog("main")
	if err != nil {
		t.Fatal(err)
	}
	head, err := log.Head(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Renew(ctx); err != nil {
		t.Fatal(err)
	}
	var refused *Error
	if text, err := (&live{log: log}).cursor(head.String()); !errors.As(err, &refused) || refused.Status != http.StatusServiceUnavailable {
		t.Errorf("%q, %v", text, err)
	}
}
