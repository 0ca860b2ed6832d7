package realtime_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/bedplate/bedplate/realtime"
	"github.com/bedplate/bedplate/sqlite"
)

// A service without views: only channels.
func ExampleNew() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx := context.Background()
	db, err := sqlite.Open(ctx, filepath.Join(dir, "app.db"), sqlite.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = db.Close() }()

	svc, err := realtime.New(db, realtime.Config{
		Accept: func(r *http.Request, channel string) error {
			if channel != "news" { // usually it depends on who asks, too
				return &realtime.Error{Status: http.StatusForbidden}
			}
			return nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = svc.Close() }()
	mux := http.NewServeMux()
	mux.HandleFunc("/api/realtime/v1/{channel}", svc.ServeChannel)
	server := httptest.NewServer(mux)
	defer server.Close()

	enough := errors.New("enough")
	err = realtime.Subscribe(ctx, realtime.SubscribeOptions{
		URL: server.URL, Channel: "news",
		Position: func(string) { // listening has begun
			for _, text := range []string{"Hello", "Goodbye"} {
				if err := svc.Publish(ctx, "news", map[string]string{"text": text}); err != nil {
					log.Print(err)
				}
			}
		},
	}, func(e realtime.Event) error {
		fmt.Println(e.Op, string(e.Data))
		if string(e.Data) == `{"text":"Goodbye"}` {
			return enough
		}
		return nil
	})
	fmt.Println(errors.Is(err, enough))
	// Output:
	// Message {"text":"Hello"}
	// Message {"text":"Goodbye"}
	// true
}
