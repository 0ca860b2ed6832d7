package main

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/bedplate/bedplate"
	"github.com/bedplate/bedplate/internal/httpx"
)

// A server that drains, or whose database takes no writes, is alive but gets
// no new work.
func TestHealth(t *testing.T) {
	t.Parallel()
	backend, err := bedplate.Open(t.Context(), bedplate.Config{Path: filepath.Join(t.TempDir(), "main.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	cors, err := httpx.NewCORS()
	if err != nil {
		t.Fatal(err)
	}
	ctx, drain := context.WithCancel(t.Context())
	probe := func(ctx context.Context, path string) int {
		w := httptest.NewRecorder()
		server(ctx, backend, cors, slog.New(slog.DiscardHandler)).Handler.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w.Code
	}
	expect := func(state string, ctx context.Context, live, ready int) {
		t.Helper()
		if l, r := probe(ctx, "/livez"), probe(ctx, "/readyz"); l != live || r != ready {
			t.Errorf("%s: /livez %d, /readyz %d, want %d, %d", state, l, r, live, ready)
		}
	}
	expect("running", ctx, 200, 200)
	drain()
	expect("draining", ctx, 200, 503)
	if err := backend.Close(); err != nil {
		t.Fatal(err)
	}
	expect("without its database", t.Context(), 200, 503)
}
