package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, filepath.Join(t.TempDir(), "app.db"), listener) }()

	const posts = "/api/records/v1/posts"
	for _, tt := range []struct {
		user, method, path, body string
		status                   int
		want                     string
	}{
		{"", "GET", "/", "", 200, "the program's own page\n"},
		{"", "GET", posts + "/1", "", 200, `{"author":"ada","id":1,"text":"Hello, world."}`},
		{"", "POST", posts, `{"author":"ada","text":"x"}`, 403, ""},
		{"bob", "POST", posts, `{"author":"ada","text":"x"}`, 403, ""},
		{"bob", "POST", posts, `{"author":"bob","text":"mine"}`, 200, `{"ids":["2"]}`},
		{"bob", "PATCH", posts + "/1", `{"text":"changed"}`, 403, ""},
		{"bob", "PATCH", posts + "/2", `{"author":"ada"}`, 403, ""},
		{"bob", "PATCH", posts + "/2", `{"text":"changed"}`, 200, ""},
		{"", "GET", posts + "/2", "", 200, `{"author":"bob","id":2,"text":"changed"}`},
		{"ada", "DELETE", posts + "/2", "", 403, ""},
		{"bob", "DELETE", posts + "/2", "", 200, "deleted"},
		{"", "GET", posts + "/2", "", 404, ""},
	} {
		req, err := http.NewRequestWithContext(ctx, tt.method, "http://"+listener.Addr().String()+tt.path, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if tt.user != "" {
			req.Header.Set("X-User", tt.user)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != tt.status || string(body) != tt.want {
			t.Errorf("%s %s %s as %q: %d %q (%v), want %d %q", tt.method, tt.path, tt.body, tt.user, res.StatusCode, body, err, tt.status, tt.want)
		}
	}

	stop()
	if err := <-ended; err != nil {
		t.Errorf("run: %v", err)
	}
}
