package realtime_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/bedplate/bedplate/realtime"
)

func ExampleSubscribe() {
	// Stands in for a server that has told two events and then says that
	// there will be no more.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Last-Event-ID") == "k3f2mq7abx5c.Ck7uNf2gHs9o3VbEi1MxTw" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "id: k3f2mq7abx5c.mB8vZq1tXe5d0JrYw6PaSA\ndata: {\"Insert\":{\"id\":1,\"title\":\"Hello\"},\"seq\":1}\n\n"+
			"id: k3f2mq7abx5c.Ck7uNf2gHs9o3VbEi1MxTw\ndata: {\"Delete\":{\"id\":1,\"title\":\"Hello\"},\"seq\":2}\n\n")
	}))
	defer server.Close()

	err := realtime.Subscribe(context.Background(), realtime.SubscribeOptions{
		URL:   server.URL,
		API:   "posts",
		Since: "k3f2mq7abx5c.R0c9hW3sQx2p7uTn4yKfLg", // what was kept last time, or the Change-Cursor of a list
		Token: func(ctx context.Context) (string, error) { return "eyJhbGciOi", nil },
	}, func(e realtime.Event) error {
		if e.Op == realtime.OpGap {
			fmt.Println("something is missing: list again")
			return nil
		}
		fmt.Printf("%s %s\n", e.Op, e.Data)
		return nil // from now on, e.ID is where to go on
	})
	if err != nil {
		log.Print(err)
	}
	// Output:
	// Insert {"id":1,"title":"Hello"}
	// Delete {"id":1,"title":"Hello"}
}
