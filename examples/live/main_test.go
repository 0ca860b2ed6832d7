package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/realtime"
)

func TestGuestBook(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithTimeout(t.Context(), 5*time.Minute)
	defer stop()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serving, end := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- run(serving, filepath.Join(t.TempDir(), "live.db"), listener) }()
	site := "http://" + listener.Addr().String()

	if status, body, _ := send(ctx, t, "GET", site+"/", nil); status != 200 || !strings.Contains(body, "EventSource") {
		t.Errorf("page: %d %s", status, body)
	}
	_, _, head := send(ctx, t, "GET", site+"/api/records/v1/entries", nil)
	entries := follow(ctx, t, realtime.SubscribeOptions{URL: site, API: "entries", Since: head.Get("Change-Cursor")})
	listening := make(chan string, 1)
	news := follow(ctx, t, realtime.SubscribeOptions{URL: site, Channel: "news", Position: func(id string) {
		select {
		case listening <- id:
		default:
		}
	}})
	select {
	case <-listening:
	case <-ctx.Done():
		t.Fatal("nobody listens")
	}

	for text, want := range map[string]int{"": 400, strings.Repeat("x", 201): 400, "Hello & <b>": 200} {
		if status, body, _ := send(ctx, t, "POST", site+"/write", url.Values{"text": {text}}); status != want {
			t.Errorf("write %q: %d %s", text, status, body)
		}
	}
	for _, w := range []struct {
		from <-chan realtime.Event
		op   realtime.Op
		want string
	}{
		{entries, realtime.OpInsert, `{"id":1,"text":"Hello & <b>"}`},
		{news, realtime.OpMessage, `{"text":"Entry 1 was written."}`},
	} {
		if e := <-w.from; e.Op != w.op || string(e.Data) != w.want {
			t.Errorf("got %s %s, want %s %s", e.Op, e.Data, w.op, w.want)
		}
	}
	if status, _, _ := send(ctx, t, "GET", site+"/api/realtime/v1/secrets", nil); status != 403 {
		t.Errorf("another channel: %d", status)
	}

	end()
	if err := <-ended; err != nil {
		t.Errorf("run: %v", err)
	}
}

// follow returns the first event of a subscription, which then ends.
func follow(ctx context.Context, t *testing.T, o realtime.SubscribeOptions) <-chan realtime.Event {
	t.Helper()
	first := make(chan realtime.Event, 1)
	enough := errors.New("enough")
	go func() {
		defer close(first)
		err := realtime.Subscribe(ctx, o, func(e realtime.Event) error {
			first <- e
			return enough
		})
		if !errors.Is(err, enough) {
			t.Error(err)
		}
	}()
	return first
}

func send(ctx context.Context, t *testing.T, method, address string, form url.Values) (status int, body string, h http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text), res.Header
}
